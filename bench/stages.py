"""What a run's stages cost when each has the machine to itself, and the ideal run that follows from it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from clipmux.engine.backends import on_cpu
from clipmux.engine.config import EngineConfig
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.workers.sources import Video

from .alone import READY

if TYPE_CHECKING:
    from typing_extensions import Self

Ran = TypeVar("Ran")

BEGIN = "import sys; sys.path[:] = sys.argv[1:]; from clipmux.bench.alone import main; main()"
"""What such a process executes: its own beginning, with our import path."""

PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Cost:
    """What a stage came to, over all its processes.

    Args:
        clips: that it made or scored.
        cpu_s: CPU seconds of all its threads.
        wall_s: from the word to begin until the last process was done.
        device: of inference; several with commas between.
    """

    clips: int
    cpu_s: float
    wall_s: float
    device: str = ""

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.clips + other.clips, self.cpu_s + other.cpu_s, self.wall_s + other.wall_s, self.device)

    @property
    def cpu_per_clip(self) -> float:
        return self.cpu_s / self.clips

    @property
    def clips_per_s(self) -> float:
        return self.clips / self.wall_s

    @property
    def on_cpu(self) -> bool:
        """Its device is cores of this machine, which decoders share."""
        return on_cpu(self.device.split(",")[0])


def ideal(decode: Cost, inference: Cost, *, cores: int) -> float:
    """Clips per second of a run whose engine costs nothing.

    On a CPU both stages share the cores: cores ÷ (CPU seconds per clip of decoding + of inference). An accelerator has
    cores of its own: the slower of what all cores decode and what the device infers. Where inference is kept to some
    cores, it is at most what these infer.
    """
    shared = cores / (decode.cpu_per_clip + inference.cpu_per_clip)
    if inference.device == "cpu":
        return shared
    return min(shared if inference.on_cpu else cores / decode.cpu_per_clip, inference.clips_per_s)


def decode_cost(config: EngineConfig, videos: Sequence[Video], *, processes: int) -> Cost:
    """Decode and preprocess videos, shared out among processes that begin together.

    Raises:
        ClipmuxError: a process failed, or no video gave a clip.
    """
    return _some_clips(_decode_cost(config, videos, processes=processes))


def around(
    config: EngineConfig, videos: Sequence[Video], run: Callable[[], Ran], *, seconds: float, processes: int
) -> tuple[Cost, Cost, Ran]:
    """A run, and what decoding its videos and inference cost alone: half of it measured before the run and half after.

    On a machine whose speed drifts, before alone would be another speed than the run's.

    Args:
        config: of the engine.
        videos: that are decoded.
        run: what is done in between.
        seconds: of inference alone.
        processes: that decode at the same time.

    Returns:
        What decoding cost, what inference cost, and what ``run`` gave.

    Raises:
        UsageError: the device is not on this machine.
        ClipmuxError: a process failed, or no video gave a clip.
    """
    middle = (len(videos) + 1) // 2

    def half(part: Sequence[Video]) -> tuple[Cost, Cost]:
        return _decode_cost(config, part, processes=processes), inference_cost(config, seconds=seconds / 2)

    before = half(videos[:middle])
    ran = run()
    after = half(videos[middle:])
    return _some_clips(before[0] + after[0]), before[1] + after[1], ran


def _some_clips(cost: Cost) -> Cost:
    if not cost.clips:
        raise ClipmuxError("not one of the videos gave a clip: see with 'clipmux run' what is wrong with them")
    return cost


def _decode_cost(config: EngineConfig, videos: Sequence[Video], *, processes: int) -> Cost:
    shares = [share for number in range(processes) if (share := videos[number::processes])]
    asked = [{"stage": "decode", "videos": [video.to_dict() for video in share]} for share in shares]
    answers = do(config, asked)
    return Cost(
        clips=sum(answer["clips"] for answer in answers),
        cpu_s=sum(answer["cpu_s"] for answer in answers),
        wall_s=max((answer["wall_s"] for answer in answers), default=0.0),
    )


def inference_cost(config: EngineConfig, *, seconds: float) -> Cost:
    """The device alone, at its own best, for so many seconds; several all at once.

    Raises:
        UsageError: it is not on this machine.
        ClipmuxError: it failed.
    """
    alone = [dataclasses.replace(config, device=device) for device in config.devices]
    answers = do(config, [{"stage": "inference", "seconds": seconds, "config": one.to_json()} for one in alone])
    return Cost(
        clips=sum(answer["clips"] for answer in answers),
        cpu_s=sum(answer["cpu_s"] for answer in answers),
        wall_s=max(answer["wall_s"] for answer in answers),
        device=",".join(answer["device"] for answer in answers),
    )


def first_prediction_s(config: EngineConfig, videos: Sequence[Video]) -> float:
    """Seconds from the start of a process that loads the model and classifies one video, to its answer.

    Args:
        config: of the engine.
        videos: the first of them that can be decoded is the one; what others before it took does not count.

    Raises:
        ClipmuxError: it failed, or no video can be decoded.
    """
    start = time.monotonic()
    (answer,) = do(config, [{"stage": "first", "videos": [video.to_dict() for video in videos]}])
    lost_s: float = answer["lost_s"]
    return time.monotonic() - start - lost_s


def do(config: EngineConfig, asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A process of bench/alone.py per entry of ``asked``, each with its ``stage``; they begin when all are ready.

    An entry may have a ``config`` of its own.

    Returns:
        What each answered.

    Raises:
        UsageError: what was asked for is not on this machine.
        ClipmuxError: a process failed.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_Process({"config": config.to_json(), **entry})) for entry in asked]
        for process in processes:
            process.wait_until_ready()
        for process in processes:
            process.begin()
        return [process.answer() for process in processes]


class _Process:
    """One process of bench/alone.py; killed when left."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._popen = subprocess.Popen(
            [sys.executable, "-c", BEGIN, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        self._timer = threading.Timer(PATIENCE_S, self._popen.kill)
        self._timer.daemon = True  # it must not keep an interrupted benchmark from ending
        try:
            self._timer.start()
            self._tell(json.dumps(self._asked))
        except BaseException:  # interrupted here, nobody else would leave it
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()

    def wait_until_ready(self) -> None:
        line = self._line()
        if line.strip() != READY:
            self._checked(line)

    def begin(self) -> None:
        self._tell("")

    def answer(self) -> dict[str, Any]:
        return self._checked(self._line())

    def _checked(self, line: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:
            self._popen.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"exit status {self._popen.returncode}"
            raise ClipmuxError(f"the {self._asked['stage']} stage alone ended without an answer: {why}") from None
        if "error" in content:
            raise (UsageError if content["usage"] else ClipmuxError)(content["error"])
        return content

    def _line(self) -> str:
        assert self._popen.stdout is not None  # noqa: S101  (a pipe was asked for)
        return self._popen.stdout.readline(1 << 20).decode()

    def _tell(self, line: str) -> None:
        assert self._popen.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said will tell why
            self._popen.stdin.write(line.encode() + b"\n")
            self._popen.stdin.flush()
