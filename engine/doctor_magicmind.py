"""Whether MagicMind behaves as was inferred of it: ``python -m clipmux.engine.doctor_magicmind [ARCH]``.

No MLU was at hand when the MagicMind backend was written. What is certain was seen in public programs; what is only
inferred from them [I] is tried here, on the bundled model, and named as in backends/magicmind_api.py. This runs in a
process of its own, a line of JSON per finding: a device's library may crash or hang, and what was found before counts.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends.magicmind_api import CallError, MagicMind
from .check import FAIL, OK, WARN, Check, looked_at
from .errors import UsageError
from .model import ModelFolder, read_model

MARK = "clipmux-check "
"""Before each finding, so that what a library prints is not taken for one."""

MOST = 4
"""Clips in one call of the models built here."""

WITHIN = 0.01
"""Largest difference between logits that count as equal, relative to the largest: float32 in another order of sums."""

HALF_WITHIN = 0.1
"""The same for half precision, which has three digits."""

Array = npt.NDArray[Any]

TELL = "tell the project, with this table: its MagicMind backend relies on this"
NOT_NEEDED = "nothing to do: clipmux does not rely on this"


def main() -> None:
    """Print every finding."""
    arch = sys.argv[1] if len(sys.argv) > 1 else "mtp_372"
    for check in magicmind_checks(read_model("demo"), arch):
        print(MARK + json.dumps(asdict(check)), flush=True)  # noqa: T201
    os._exit(0)  # without deleting what a library may not survive the deletion of


def magicmind_checks(model: ModelFolder, arch: str) -> Iterator[Check]:
    """Every finding, those first that the others need."""
    try:
        api = MagicMind()
    except UsageError as error:
        yield Check("magicmind", FAIL, "it is there and does not load", str(error))
        return
    with api.system() as count:
        if not count:
            yield Check("magicmind", WARN, f"version {api.version()}, no MLU", "see with cnmon whether an MLU is there")
            return
        yield Check("magicmind", OK, f"version {api.version()}, {count} MLU" + ("s" if count > 1 else ""))
    with tempfile.TemporaryDirectory(prefix="clipmux-") as folder:
        trial = Trial(api, model, arch, Path(folder))
        relied_on = (
            ("answers", trial.answers),
            ("alive after System", trial.alive_after_system),
            ("from_numpy sets the shape", trial.shape_from_numpy),
            ("two threads", trial.two_threads),
            ("pixels", trial.pixels),
        )
        not_needed = (
            ("from_numpy casts", trial.cast),
            (".to may be left out", trial.without_to),
            ("outputs are refilled", trial.outputs_refilled),
            ("configurations merge", trial.configurations_merge),
        )
        for looks, otherwise, remedy in ((relied_on, FAIL, TELL), (not_needed, WARN, NOT_NEEDED)):
            for what, look in looks:
                name = f"magicmind: {what}"
                yield from looked_at(name, functools.partial(look, name), otherwise=otherwise, remedy=remedy)


@dataclass
class Session:
    """A model on device 0, with one runner's belongings, in the thread that made it."""

    api: MagicMind
    model: Any
    engine: Any
    device: Any
    context: Any
    queue: Any
    inputs: Any

    def __call__(self, batch: Array) -> Array:
        """Logits, by the calls that the backend makes."""
        return self.api.infer(batch, device=self.device, context=self.context, inputs=self.inputs, queue=self.queue)


class Trial:
    """One attempt at each behaviour; each method takes the name of its finding and returns it.

    Args:
        api: MagicMind.
        model: the bundled model, an ONNX network in NCDHW.
        arch: what to build for.
        folder: for built models.
    """

    def __init__(self, api: MagicMind, model: ModelFolder, arch: str, folder: Path) -> None:
        self._api, self._model, self._arch, self._folder = api, model, arch, folder
        random = np.random.default_rng(0)
        coarse = random.integers(0, 256, (MOST, model.frames // 4, model.height // 8, model.width // 8, 3), np.uint8)
        self._pixels = np.ascontiguousarray(coarse.repeat(4, 1).repeat(8, 2).repeat(8, 3))
        mean, std = np.asarray(model.mean, np.float32), np.asarray(model.std, np.float32)
        scaled = (self._pixels.astype(np.float32) / 255 - mean) / std
        self._clips = np.ascontiguousarray(scaled.transpose(0, 4, 1, 2, 3))
        self._session: Session | None = None
        # Things of MagicMind have to be deleted in an order of their own; the process ends with all of them alive.
        self._kept: list[Session] = []
        self._logits: Array = np.empty(0)

    def answers(self, name: str) -> Check:
        """A model can be built, saved, loaded and run, and gives what OpenVINO gives for the same clips."""
        from .backends import open_backend

        reference = open_backend("openvino", self._model, device="cpu", max_batch=MOST, null_delay_ms=(0, 0))
        wanted = reference.open_runner().infer(self._pixels)
        session = self._opened("plain", [self._settings("force_float32")])
        self._logits = session(self._clips)
        self._session = session
        difference = _difference(self._logits, wanted)
        value = f"built for {self._arch}, saved, loaded, run; logits differ by {difference:.1g} from OpenVINO's"
        if difference <= WITHIN:
            return Check(name, OK, value)
        return Check(name, FAIL, value, TELL)

    def alive_after_system(self, name: str) -> Check:
        """Engine, queue and tensors outlive the System block in which they were made [V]."""
        with self._api.system():
            session = self._another()
        return self._same(name, session(self._clips), "usable after the System block")

    def shape_from_numpy(self, name: str) -> Check:
        """A dynamic input takes the shape of the array given for the call [I, strong]."""
        session, logits = self._needed, []
        for start, stop in ((0, 1), (1, MOST), (0, MOST)):
            logits.append(session(self._clips[start:stop]))
        sizes = [len(part) for part in logits]
        if sizes != [1, MOST - 1, MOST]:
            return Check(name, FAIL, f"batches of 1, {MOST - 1}, {MOST} gave {sizes} rows", TELL)
        return self._same(name, np.concatenate(logits[:2]), f"batches of 1, {MOST - 1} and {MOST} through one input")

    def two_threads(self, name: str) -> Check:
        """Threads share a model and an engine, each with a context, a queue and inputs of its own [I]."""
        results: dict[int, list[Array]] = {0: [], 1: []}
        errors: list[Exception] = []
        begin = threading.Barrier(2)

        def work(number: int) -> None:
            try:
                session = self._another()
                begin.wait(timeout=60)
                for turn in range(8):
                    place = (turn + number) % MOST
                    results[number].append(session(self._clips[place : place + 1]))
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            return Check(name, FAIL, f"two threads at work on one engine: {errors[0]}", TELL)
        got = np.concatenate([*results[0][:MOST], *results[1][MOST - 1 : 2 * MOST - 1]])
        return self._same(name, got, "two contexts of one engine on two threads", times=2)

    def pixels(self, name: str) -> Check:
        """With normalisation built in, the network takes uint8, in the layout it was told."""
        std = [(255 * value) ** 2 for value in self._model.std]
        session = self._opened(
            "pixels",
            [
                {
                    **self._settings("force_float32"),
                    "convert_input_layout": {"0": {"src": "NCDHW", "dst": "NDHWC"}},
                    "insert_bn_before_firstnode": {
                        "0": {"mean": [255 * value for value in self._model.mean], "var": std}
                    },
                }
            ],
        )
        takes = self._api.ports(session.model)[0][0]
        if takes.dtype != np.uint8 or takes.dims[1:] != self._pixels.shape[1:]:
            return Check(name, FAIL, f"the input is {takes}", "compile with --float-input, and tell the project")
        return self._same(name, session(self._pixels), f"normalised on the device, the input is {takes}")

    def cast(self, name: str) -> Check:
        """``from_numpy`` casts to the input's type [I]."""
        return self._unneeded(name, lambda: self._needed(self._clips.astype(np.float64)), "float64 to float32")

    def without_to(self, name: str) -> Check:
        """``tensor.to(device)`` may be omitted [V]."""

        def infer() -> Array:
            session = self._another()
            session.inputs[0].from_numpy(self._clips)
            return _outputs(session, [])[0]

        return self._unneeded(name, infer, "from_numpy alone brings an input to the device")

    def outputs_refilled(self, name: str) -> Check:
        """A list of outputs that is used again is overwritten, not appended to [I, strong]."""
        session = self._another()
        outputs: list[Any] = []
        for part in (self._clips[:1], self._clips):
            session.inputs[0].from_numpy(part)
            session.inputs[0].to(session.device)
            arrays = _outputs(session, outputs)
        if len(outputs) != 1:
            return Check(name, WARN, f"a list used twice has {len(outputs)} outputs", NOT_NEEDED)
        return self._unneeded(name, lambda: arrays[0], "a list used twice is overwritten")

    def configurations_merge(self, name: str) -> Check:
        """Texts parsed one after another are merged, inner keys too [I, strong].

        Half precision and, in a second text, another key beside it: were the inner object replaced, the precision
        would be float32 again, and the answers the same to the last bit.
        """
        session = self._opened(
            "merged",
            [
                {**self._settings("force_float16"), "opt_config": {"type64to32_conversion": True}},
                {"precision_config": {"weight_quant_granularity": "per_tensor"}},
                {"opt_config": {"conv_scale_fold": True}},
            ],
        )
        half = session(self._clips)
        if np.array_equal(half, self._logits):
            return Check(name, WARN, "a later text replaces what an earlier one said", NOT_NEEDED)
        return self._unneeded(name, lambda: half, "a later text adds to an earlier one", within=HALF_WITHIN)

    def _another(self) -> Session:
        """The plain model and its engine, with a context, a queue and inputs of the calling thread's own."""
        return self._begun(self._needed.model, self._needed.engine, self._api.device(0))

    def _begun(self, model: Any, engine: Any, device: Any) -> Session:
        context = self._api.context(engine)
        queue, inputs = self._api.queue(device), self._api.inputs(context)
        session = Session(self._api, model, engine, device, context, queue, inputs)
        self._kept.append(session)
        return session

    @property
    def _needed(self) -> Session:
        if self._session is None:
            raise RuntimeError("not tried, since the plain model does not run")
        return self._session

    def _same(self, name: str, got: Array, value: str, *, times: int = 1) -> Check:
        """What the backend relies on: the logits that were there before, ``times`` over."""
        difference = _difference(got, np.concatenate([self._logits] * times))
        if difference <= WITHIN:
            return Check(name, OK, value)
        return Check(name, FAIL, f"{value}: logits differ by {difference:.1g}", TELL)

    def _unneeded(self, name: str, infer: Callable[[], Array], value: str, *, within: float = WITHIN) -> Check:
        """What the backend does without: where it does not hold, a run works all the same."""
        _ = self._needed
        try:
            difference = _difference(infer(), self._logits)
        except (CallError, RuntimeError, TypeError, ValueError) as error:
            return Check(name, WARN, f"not so: {error}", NOT_NEEDED)
        if difference <= within:
            return Check(name, OK, value)
        return Check(name, WARN, f"not so: logits differ by {difference:.1g}", NOT_NEEDED)

    def _settings(self, precision: str) -> dict[str, Any]:
        shape = self._clips.shape[1:]
        return {
            "archs": [self._arch],
            "precision_config": {"precision_mode": precision},
            "graph_shape_mutable": True,
            "dim_range": {"0": {"min": [1, *shape], "max": [MOST, *shape]}},
        }

    def _opened(self, stem: str, texts: Sequence[Mapping[str, Any]]) -> Session:
        """The bundled network, built with these configuration texts, through a file, on device 0."""
        network = self._api.parse_onnx(self._model.network_path)
        self._api.set_shape(network, [1, *self._clips.shape[1:]])
        config = self._api.config(texts[0])
        for text in texts[1:]:
            if not config.parse_from_string(json.dumps(text)).ok():
                raise RuntimeError("a second configuration text is refused")
        path = self._folder / f"{stem}.magicmind"
        self._api.save(self._api.build(network, config), path)
        loaded = self._api.load(path)
        device = self._api.device(0)  # active in this thread before the engine is made
        return self._begun(loaded, self._api.engine(loaded), device)


def _outputs(session: Session, outputs: list[Any]) -> list[Array]:
    """Run what the inputs hold, with the calls as they are."""
    if not session.context.enqueue(session.inputs, outputs, session.queue).ok() or not session.queue.sync().ok():
        raise RuntimeError("enqueue or sync fails")
    return [np.array(output.asnumpy(), dtype=np.float32) for output in outputs]


def _difference(got: Array, wanted: Array) -> float:
    """The largest difference, as a part of the largest logit wanted; infinite where shapes differ, NaN where one is."""
    if got.shape != wanted.shape:
        return float("inf")
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


if __name__ == "__main__":
    main()
