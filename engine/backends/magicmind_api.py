"""MagicMind's Python API with every call checked: the only file that touches ``magicmind``.

Public programs are all that was known of the API when this was written; no MLU was at hand. What is **[V]** was seen in
them, **[I]** inferred from how they work, **[–]** is nowhere public. Where it costs little, the calls here are arranged
so that an inference need not hold:

- one configuration text, merged by us, so that nothing depends on how several are merged [I];
- arrays have the input's own type and are contiguous, so nothing depends on casts in ``from_numpy`` [I];
- an empty list of outputs for each call, so nothing depends on how a filled one is reused [I];
- inputs are left alone from ``enqueue`` until ``sync`` returned, whether ``from_numpy`` copies or not [–];
- calibration samples have the batch that the network was given, whether others are taken or not [–].

What does have to hold: ``from_numpy`` sets the shape of a dynamic input for its call [I, strong]; threads may share a
model and an engine when each has a context, a queue and inputs of its own and activates the device [I]; ``sync``
releases the interpreter's lock [–], without which runners take turns and results stay right.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import ClipmuxError, UsageError

Floats = npt.NDArray[np.float32]


class CallError(ClipmuxError, RuntimeError):
    """A call of MagicMind that failed, by its name, with what MagicMind said."""

    def __init__(self, call: str, said: str) -> None:
        super().__init__(f"MagicMind's {call} {said}")
        self.call = call


@contextlib.contextmanager
def saying(kind: type[ClipmuxError], what: str, remedy: str) -> Iterator[None]:
    """Turn a failed call into an error for people: ``what (the call): remedy``.

    Raises:
        ClipmuxError: of that kind.
    """
    try:
        yield
    except CallError as error:
        raise kind(f"{what} ({error}): {remedy}") from None


@dataclass(frozen=True)
class Port:
    """One input or output of a built model: its type, and its shape with -1 for lengths that vary."""

    dtype: np.dtype[Any]
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.dims)}"


@dataclass(frozen=True)
class Calibration:
    """What a calibrator is given.

    Args:
        shape: of one batch of samples.
        batches: how many there are.
        batch: float32, normalised, in the network's own layout, by number; it may be asked for more than once.
        algorithm: ``linear`` or ``eqnm``.
        remote: ``HOST:PORT`` of a device elsewhere; None for device 0 of this machine.
    """

    shape: tuple[int, ...]
    batches: int
    batch: Callable[[int], Floats]
    algorithm: str
    remote: str | None


def _import(name: str) -> Any:
    """
    Raises:
        UsageError: it is not on this machine, or its libraries do not load.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise UsageError(
            "the magicmind backend needs Cambricon's MagicMind runtime, which comes with Neuware (pip cannot "
            f"install it): work in an image of the vendor's, or use --device cpu ({_first_line(error)})"
        ) from None


class MagicMind:
    """The API, once it is imported.

    Raises:
        UsageError: it is not on this machine, or its libraries do not load.
    """

    def __init__(self) -> None:
        self._mm = _import("magicmind.python.runtime")
        self._types = _import("magicmind.python.common.types")

    def version(self) -> str:
        """Of the installed package as pip sees it; the API itself has none [–]."""
        try:
            return metadata.version("magicmind")
        except metadata.PackageNotFoundError:
            return "unknown"

    # The machine

    @contextlib.contextmanager
    def system(self) -> Iterator[int]:
        """MagicMind's ``System``, for as long as devices are used; gives the number of devices."""
        with self._mm.System() as system:
            yield int(_called("device_count", system.device_count))

    def device(self, number: int) -> Any:
        """A device, active in this thread."""
        device = _made("Device", self._mm.Device)
        device.id = number
        self.activate(device)
        return device

    def activate(self, device: Any) -> None:
        """Make a device that of the calling thread: activity belongs to threads [I]."""
        _done("active", device.active)

    def queue(self, device: Any) -> Any:
        return _made("create_queue", device.create_queue)

    # A built model

    def load(self, path: Path) -> Any:
        """A model from its file."""
        model = _made("Model", self._mm.Model)
        _done("deserialize_from_file", model.deserialize_from_file, str(path))
        return model

    def ports(self, model: Any) -> tuple[list[Port], list[Port]]:
        """Inputs and outputs of a built model."""
        return (
            self._ports("input", model.get_input_data_types, model.get_input_dimensions),
            self._ports("output", model.get_output_data_types, model.get_output_dimensions),
        )

    def _ports(self, end: str, types: Callable[[], Any], shapes: Callable[[], Any]) -> list[Port]:
        kinds = _made(f"get_{end}_data_types", types)
        dims = _made(f"get_{end}_dimensions", shapes)
        numpy_kind = self._types.get_numpy_dtype_by_datatype
        return [
            Port(np.dtype(_called("get_numpy_dtype_by_datatype", numpy_kind, kind)), tuple(dims[place].GetDims()))
            for place, kind in enumerate(kinds)
        ]

    def engine(self, model: Any) -> Any:
        """An engine on the device that is active in this thread."""
        config = _made("EngineConfig", self._mm.Model.EngineConfig)
        config.device_type = "MLU"
        return _made("create_i_engine", model.create_i_engine, config)

    def context(self, engine: Any) -> Any:
        return _made("create_i_context", engine.create_i_context)

    def inputs(self, context: Any) -> Any:
        return _made("create_inputs", context.create_inputs)

    def infer(
        self,
        batch: npt.NDArray[Any],
        *,
        device: Any,
        context: Any,
        inputs: Any,
        queue: Any,
        after: Callable[[str], None] = lambda _: None,
    ) -> Floats:
        """One call from the thread that owns ``context``, ``inputs`` and ``queue``: the only output as float32.

        Args:
            batch: C-contiguous, of the input's own type; left alone until this returns.
            after: told when ``host_to_device`` and ``compute`` have ended; what then follows is ``device_to_host``.
        """
        self.activate(device)
        _done("from_numpy", inputs[0].from_numpy, batch)
        _done("to", inputs[0].to, device, may_be_silent=True)  # what it returns is not public
        after("host_to_device")
        outputs: list[Any] = []
        _done("enqueue", context.enqueue, inputs, outputs, queue)
        _done("sync", queue.sync)
        after("compute")
        if len(outputs) != 1:
            raise CallError("enqueue", f"gave {len(outputs)} outputs where the model has 1")
        # A copy, since the memory behind the array may be the tensor's own [–].
        return np.array(_made("asnumpy", outputs[0].asnumpy), dtype=np.float32)

    # Building one

    def parse_onnx(self, path: Path) -> Any:
        """A network from an ONNX file."""
        return self._parse(self._parser(self._mm.ModelKind.kOnnx), path)

    def parse_script(self, path: Path) -> Any:
        """A network from a TorchScript file with one float32 input."""
        parser = self._parser(self._mm.ModelKind.kPytorch)
        _done("set_model_param", parser.set_model_param, "pytorch-input-dtypes", [self._mm.DataType.FLOAT32])
        return self._parse(parser, path)

    def _parser(self, kind: Any) -> Any:
        """Which an image that only runs models need not have."""
        return _import("magicmind.python.runtime.parser").Parser(kind)

    def _parse(self, parser: Any, path: Path) -> Any:
        network = _made("Network", self._mm.Network)
        _done("parse", parser.parse, network, str(path))
        return network

    def ends(self, network: Any) -> tuple[int, int]:
        """How many inputs and outputs a network has."""
        return int(network.get_input_count()), int(network.get_output_count())

    def set_shape(self, network: Any, shape: Sequence[int]) -> None:
        """Of a network's first input."""
        tensor = _made("get_input", network.get_input, 0)
        _done("set_dimension", tensor.set_dimension, self._mm.Dims(list(shape)))

    def config(self, settings: Mapping[str, Any]) -> Any:
        """A builder configuration from one JSON text."""
        config = _made("BuilderConfig", self._mm.BuilderConfig)
        _done("parse_from_string", config.parse_from_string, json.dumps(settings))
        return config

    def calibrate(self, network: Any, config: Any, calibration: Calibration) -> None:
        """Measure the ranges of a network's activations.

        Raises:
            UsageError: no device is here, and none elsewhere was named.
        """
        samples = _samples(self._mm, calibration)
        calibrator = _made("Calibrator", self._mm.Calibrator, [samples])
        algorithm = self._mm.QuantizationAlgorithm
        chosen = {"linear": algorithm.LINEAR_ALGORITHM, "eqnm": algorithm.EQNM_ALGORITHM}[calibration.algorithm]
        # What these two return is not public.
        _done("set_quantization_algorithm", calibrator.set_quantization_algorithm, chosen, may_be_silent=True)
        if calibration.remote is not None:
            remote = _made("RemoteConfig", self._mm.RemoteConfig)
            remote.address = calibration.remote
            _done("set_remote", calibrator.set_remote, remote, may_be_silent=True)
            _done("calibrate", calibrator.calibrate, network, config)
            return
        with self.system() as count:
            if not count:
                raise UsageError(
                    "calibration needs an MLU, and this machine has none: name one with --remote HOST:PORT"
                )
            device = self.device(0)
        _done("calibrate", calibrator.calibrate, network, config)  # after the block of System, as public programs do
        del device  # which is there until now

    def build(self, network: Any, config: Any) -> Any:
        """A model of a network."""
        return _made("build_model", self._mm.Builder().build_model, "clipmux", network, config)

    def save(self, model: Any, path: Path) -> None:
        """Write a model to its file."""
        _done("serialize_to_file", model.serialize_to_file, str(path))


def _samples(mm: Any, calibration: Calibration) -> Any:
    """MagicMind's interface to samples: ``reset``, then ``next`` and ``get_sample`` until OUT_OF_RANGE."""

    class Samples(mm.CalibDataInterface):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self._at = -1

        def get_shape(self) -> Any:
            return mm.Dims(list(calibration.shape))

        def get_data_type(self) -> Any:
            return mm.DataType.FLOAT32

        def get_sample(self) -> Floats:
            return calibration.batch(self._at)

        def next(self) -> Any:
            self._at += 1
            if self._at < calibration.batches:
                return mm.Status.OK()
            return mm.Status(mm.Code.OUT_OF_RANGE, "end of samples")

        def reset(self) -> Any:
            self._at = -1
            return mm.Status.OK()

    return Samples()


def _called(call: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns. No public program catches an exception, but bindings raise what C++ throws [I]."""
    try:
        return function(*arguments)
    except Exception as error:
        raise CallError(call, f"raised {type(error).__name__}: {_first_line(error)}") from error


def _done(call: str, function: Callable[..., Any], *arguments: Any, may_be_silent: bool = False) -> None:
    """A call that returns a ``Status``; never looked at as a bool, since it is true even when it is not OK [V]."""
    status = _called(call, function, *arguments)
    ok = getattr(status, "ok", None)
    if ok is None and not may_be_silent:
        raise CallError(call, f"gave {status!r} where a Status belongs")
    if ok is not None and not ok():
        raise CallError(call, f"failed: {status}")


def _made(call: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A call that makes something; on failure it gives None, or a ``Status`` in its place [V]."""
    thing = _called(call, function, *arguments)
    if thing is None:
        raise CallError(call, "gave None, its own messages say more")
    if hasattr(thing, "ok"):
        raise CallError(call, f"failed: {thing}")
    return thing


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
