"""``Calibrator``, ``CalibDataInterface`` and ``RemoteConfig`` [V].

Samples are in the network's own layout and normalised, also where the build inserts the normalisation [V]. A sample's
own shape counts, not what ``get_shape`` says: a public program contradicts itself there. It may have any batch [–].
A device of the machine is needed, or a remote one, but none has to be active: a public program activates none [V].
LINEAR takes the range seen; EQNM, which needs symmetric quantisation [V], the limit with the least squared error on a
histogram [–].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cc._pywrap_runtime import Dims, Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import Code, DataType, QuantizationAlgorithm
from ..cc._pywrap_runtime.status import failure, is_code
from ..common.types import get_numpy_dtype_by_datatype
from . import faults, machine
from .builder_config import BuilderConfig
from .graph import Graph, GraphError
from .network import Content, Network
from .numerics import Numerics, Range

BINS = 2048
"""Of the histogram that EQNM searches."""


class CalibDataInterface:
    """Samples of one input: subclass it, and call ``super().__init__()``."""

    def __init__(self) -> None:
        self._initialised = True

    def get_shape(self) -> Dims:
        raise NotImplementedError("CalibDataInterface.get_shape")

    def get_data_type(self) -> DataType:
        raise NotImplementedError("CalibDataInterface.get_data_type")

    def get_sample(self) -> Any:
        raise NotImplementedError("CalibDataInterface.get_sample")

    def next(self) -> Status:
        raise NotImplementedError("CalibDataInterface.next")

    def reset(self) -> Status:
        raise NotImplementedError("CalibDataInterface.reset")


class RemoteConfig:
    """Where a remote device is: ``address`` is ``"host:port"``."""

    def __init__(self) -> None:
        self._address = ""

    @property
    def address(self) -> str:
        return self._address

    @address.setter
    def address(self, address: str) -> None:
        need("RemoteConfig.address", address, str)
        self._address = address


class _Failed(Exception):  # noqa: N818  (it carries a Status, and never leaves this file)
    def __init__(self, status: Status) -> None:
        super().__init__(str(status))
        self.status = status


class Calibrator:
    """Takes one data object for each input of the network, in order."""

    def __init__(self, calib_data: list[CalibDataInterface]) -> None:
        need("Calibrator", calib_data, list)
        for samples in calib_data:
            need("Calibrator", samples, CalibDataInterface)
            if not getattr(samples, "_initialised", False):
                raise TypeError(f"{type(samples).__name__}.__init__() must call super().__init__()")
        self._data = list(calib_data)
        self._algorithm = QuantizationAlgorithm.LINEAR_ALGORITHM
        self._remote: str | None = None

    def set_quantization_algorithm(self, algorithm: QuantizationAlgorithm) -> Status:
        need("set_quantization_algorithm", algorithm, QuantizationAlgorithm)
        self._algorithm = algorithm
        return Status.OK()

    def set_remote(self, config: RemoteConfig) -> Status:
        """Calibrate on a remote device; then no device of this machine is needed."""
        need("set_remote", config, RemoteConfig)
        host, _, port = config.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            return failure(f"'{config.address}' is no host:port")
        if not machine.remote_answers(host, port):
            return failure(f"no answer from '{config.address}'", Code.UNAVAILABLE)
        self._remote = config.address
        return Status.OK()

    def calibrate(self, network: Network, config: BuilderConfig) -> Status:
        """Run the samples through the network and keep in it what ranges its tensors have."""
        need("calibrate", network, Network)
        need("calibrate", config, BuilderConfig)
        if faults.strikes("calibrate"):
            return failure("a fault was asked for")
        content = network._content
        if content is None:
            return failure("the network is empty")
        if self._remote is None and not machine.device_count():
            return failure("the machine has no device", Code.UNAVAILABLE)
        if len(self._data) != len(content.inputs):
            return failure(f"{len(self._data)} sets of samples for {len(content.inputs)} inputs")
        eqnm = self._algorithm is QuantizationAlgorithm.EQNM_ALGORITHM
        if eqnm and config._get("precision_config.activation_quant_algo", "symmetric") != "symmetric":
            return failure("EQNM_ALGORITHM needs activation_quant_algo symmetric")
        try:
            graph = Graph(content.model(config))
            ranges = self._observed(content, graph)
            if eqnm:
                mode = config._get("precision_config.precision_mode", "")
                ranges = self._equalised(content, graph, ranges, 16 if mode.startswith("qint16") else 8)
        except GraphError as error:
            return failure(str(error))
        except _Failed as failed:
            return failed.status
        content.ranges = ranges
        return Status.OK()

    def _observed(self, content: Content, graph: Graph) -> dict[str, Range]:
        """The smallest and the largest value of each tensor."""
        ranges: dict[str, Range] = {}

        def widen(name: str, x: Tensor) -> None:
            low, high = (float(edge) for edge in x.aminmax())
            seen = ranges.get(name, (low, high))
            ranges[name] = (min(seen[0], low), max(seen[1], high))

        self._show(content, graph, widen)
        broken = [name for name, edges in ranges.items() if not np.isfinite(edges).all()]
        if broken:
            raise _Failed(failure(f"'{broken[0]}' is not finite"))
        return ranges

    def _equalised(self, content: Content, graph: Graph, ranges: dict[str, Range], bits: int) -> dict[str, Range]:
        """The symmetric limit of each tensor that gives the least squared error, from a second look at the samples."""
        reach = {name: max(abs(low), abs(high)) or 1.0 for name, (low, high) in ranges.items()}
        counts = {name: torch.zeros(BINS) for name in ranges}

        def count(name: str, x: Tensor) -> None:
            counts[name] += torch.histc(x.abs(), BINS, 0.0, reach[name])

        self._show(content, graph, count)
        limits = {name: _least_error(counts[name], reach[name], bits) for name in ranges}
        return {name: (-limit, limit) for name, limit in limits.items()}

    def _show(self, content: Content, graph: Graph, watch: Callable[[str, Tensor], None]) -> None:
        """Run every sample in float32, showing the tensors that are to be quantised."""
        for samples in self._data:
            _ok(samples.reset(), "reset")
        shown = 0
        while all(self._advance(samples) for samples in self._data):
            inputs = [
                _sample(samples, tensor.get_tensor_name(), tensor.get_dimension().GetDims())
                for samples, tensor in zip(self._data, content.inputs, strict=True)
            ]
            try:
                with torch.inference_mode():
                    graph.run(inputs, Numerics(), {}, watch)
            except Exception as error:  # torch raises many kinds for shapes that do not fit
                raise _Failed(failure(f"a sample does not fit the network ({error})")) from None
            shown += 1
        if not shown:
            raise _Failed(failure("no sample to calibrate with"))

    @staticmethod
    def _advance(samples: CalibDataInterface) -> bool:
        status = samples.next()
        if isinstance(status, Status) and is_code(status, Code.OUT_OF_RANGE):
            return False
        _ok(status, "next")
        return True


def _ok(status: Any, call: str) -> None:
    if not isinstance(status, Status):
        raise TypeError(f"CalibDataInterface.{call}() must return a Status, not {status!r}")
    if not status.ok():
        raise _Failed(status)


def _sample(samples: CalibDataInterface, name: str, dims: list[int]) -> Tensor:
    """One sample, checked against the shape of its input, but for the batch."""
    shape, data_type, sample = samples.get_shape(), samples.get_data_type(), samples.get_sample()
    need("CalibDataInterface.get_shape", shape, Dims)
    need("CalibDataInterface.get_data_type", data_type, DataType)
    need("CalibDataInterface.get_sample", sample, np.ndarray)
    declared = np.dtype(get_numpy_dtype_by_datatype(data_type))
    if sample.dtype.kind != declared.kind:
        raise _Failed(failure(f"a sample of {sample.dtype} where {data_type.name} was said"))
    fits = len(sample.shape) == len(dims) and all(
        length in (-1, given) for length, given in zip(dims[1:], sample.shape[1:], strict=True)
    )
    if not fits or not sample.size:
        raise _Failed(failure(f"a sample of {list(sample.shape)} for '{name}', which is {dims}"))
    if not np.isfinite(sample).all():
        raise _Failed(failure(f"a sample for '{name}' is not finite"))
    return torch.from_numpy(np.array(sample, dtype=np.float32 if declared.kind == "f" else sample.dtype, order="C"))


def _least_error(counts: Tensor, reach: float, bits: int) -> float:
    """The part of ``reach`` whose grid is nearest to a histogram of absolute values from 0 to ``reach``."""
    centres = (torch.arange(BINS) + 0.5) * (reach / BINS)
    limits = torch.linspace(0.02, 1.0, 99) * reach
    scales = (limits / (2 ** (bits - 1) - 1))[:, None]
    grid = torch.minimum((centres / scales).round() * scales, limits[:, None])
    # Inside the grid the error is that of rounding; a histogram's centres would understate it.
    squared = torch.where(centres <= limits[:, None], scales**2 / 12, (centres - grid) ** 2)
    return float(limits[int((squared * counts).sum(dim=1).argmin())])
