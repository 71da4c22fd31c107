"""What decoding costs, alone and with each preprocessing, per core.

A run decodes one file from its beginning to its end with the decoder's own code, on one thread, and is measured by the
CPU seconds of this process, which other programs disturb less than wall time. Decoding alone and each preprocessing
alternate on the same file. *Decode efficiency* is frames per second and core with preprocessing ÷ decoding alone.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from clipmux.engine.config import PREPROCESSES
from clipmux.engine.errors import UsageError, VideoError
from clipmux.workers.decode import decode, open_container, video_stream
from clipmux.workers.preprocess import Preprocess, open_preprocess
from clipmux.workers.sources import Video, list_videos

from .measure import Figure, Measurement, alternate, figures_table, say_load
from .natural import Kind, write_natural_videos

ALONE = "none"
"""The name of decoding without preprocessing."""

LEVELS = 255


@dataclass(frozen=True)
class Pass:
    """One or more times through a file: frames decoded, CPU and wall seconds."""

    frames: int
    cpu_s: float
    wall_s: float

    @property
    def frames_per_core_s(self) -> float:
        return self.frames / self.cpu_s


def decoding(
    inputs: Sequence[str],
    *,
    preprocess: Sequence[str],
    size: tuple[int, int] = (112, 112),
    kinds: Sequence[Kind],
    frames: int = 96,
    seconds: float = 0.5,
    difference: bool = False,
    repeats: int,
    console: Console,
) -> Measurement:
    """Measure decoding on given videos, or on made ones of several codecs and sizes, and print frames/s per core.

    Args:
        inputs: as ``clipmux run`` takes them; none for made ones.
        preprocess: names of ways to preprocess, besides decoding alone; all unless given.
        size: rows and columns that they make.
        kinds: of made videos.
        frames: of each made video.
        seconds: CPU seconds of a run at least; a short file is gone through several times.
        difference: compare the pixels of each way with those of the first one too.
        repeats: runs of everything.
        console: where to print.

    Raises:
        UsageError: an input or a way that cannot be.
        VideoError: a video that cannot be decoded.
    """
    for name in preprocess:
        if name not in PREPROCESSES:
            raise UsageError(f"there is no way to preprocess called '{name}': one of {', '.join(PREPROCESSES)}")
    ways = {name: open_preprocess(name, *size) for name in preprocess or sorted(PREPROCESSES)}
    if difference and len(ways) < 2:
        raise UsageError("--difference needs two ways: give --preprocess exact,fast")
    if not seconds > 0:
        raise UsageError(f"--duration is {seconds:g}: give CPU seconds above 0")
    measurement = Measurement("decode")
    say_load(measurement, console)
    with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder:
        videos = listed(inputs) if inputs else made(Path(folder), kinds, frames)
        for video in videos:
            at = describe(video)
            _measure_speed(measurement, video, ways, seconds, repeats, at)
            if difference:
                _measure_difference(measurement, video, ways, at)
    console.print(figures_table(measurement, "frames_per_core_s", "decode_efficiency"))
    if difference:
        names = ("mean_difference", "bias_red", "bias_green", "bias_blue", "p99_9_difference", "max_difference")
        console.print(figures_table(measurement, *names, title="of 255, from the first way"))
    return measurement


def listed(inputs: Sequence[str]) -> list[Video]:
    """The videos that these name, all of them on this machine: nobody measures decoding with a network in it.

    Raises:
        UsageError: an input cannot be used.
    """
    videos = list_videos(inputs, stdin=None).videos
    for video in videos:
        if not video.path.exists():
            raise UsageError(f"there is no '{video.path}': a video to be measured with must be there, on this machine")
    return videos


def made(folder: Path, kinds: Sequence[Kind], frames: int) -> list[Video]:
    """A made video of each kind."""
    paths = [path for kind in kinds for path in write_natural_videos(folder, kind, 1, frames=frames)]
    return list_videos([str(path) for path in paths], stdin=None).videos


def describe(video: Video) -> dict[str, str]:
    """A video's name, codec and size, as its container has them.

    Raises:
        VideoError: it cannot be opened.
    """
    if video.kind == "frames":
        return {"video": video.path.name, "codec": "frames"}
    with open_container(video.path) as container:
        context = video_stream(container, str(video.path)).codec_context
        return {"video": video.path.name, "codec": context.name, "size": f"{context.width}x{context.height}"}


def common_size(videos: Sequence[Video]) -> str:
    """The size that all videos have which can be opened, ``340x256``; nothing if they differ or do not tell."""
    sizes = set()
    for video in {video.path: video for video in videos}.values():
        with contextlib.suppress(VideoError):
            sizes.add(describe(video).get("size", ""))
    return sizes.pop() if len(sizes) == 1 else ""


def through(video: Video, preprocess: Preprocess | None, seconds: float = 0.0) -> Pass:
    """Decode a video to its end, again and again until ``seconds`` of CPU are spent; once at least."""
    count = 0
    cpu, wall = time.process_time(), time.perf_counter()
    while count == 0 or time.process_time() - cpu < seconds:
        for frame in decode(video):
            count += 1
            if preprocess is not None:
                preprocess(frame)
    return Pass(count, time.process_time() - cpu, time.perf_counter() - wall)


def _measure_speed(
    measurement: Measurement,
    video: Video,
    ways: dict[str, Preprocess],
    seconds: float,
    repeats: int,
    at: dict[str, str],
) -> None:
    through(video, None)  # the file is in the page cache now
    every: dict[str, Preprocess | None] = {ALONE: None, **ways}
    runs = alternate({name: partial(through, video, way, seconds) for name, way in every.items()}, repeats)
    speeds: dict[str, Figure] = {}
    for name in every:
        point: dict[str, Any] = {**at, "preprocess": name}
        speeds[name] = measurement.figure(
            "frames_per_core_s", "1/s", [run.frames_per_core_s for run in runs[name]], **point
        )
        measurement.figure("frames", "", [run.frames for run in runs[name]], **point)
        measurement.figure("cpu_s", "s", [run.cpu_s for run in runs[name]], **point)
        measurement.figure("frames_per_s", "1/s", [run.frames / run.wall_s for run in runs[name]], **point)
        if name != ALONE:
            measurement.ratio("decode_efficiency", speeds[name], speeds[ALONE], called="decoding alone", **point)


@dataclass(frozen=True)
class Difference:
    """How far pixels are from others, of 255.

    Args:
        mean: of the absolute differences of all pixels and channels.
        bias: mean signed difference of red, green and blue.
        p99_9: what 99.9% of the absolute differences do not exceed.
        most: the largest of them.
    """

    mean: float
    bias: tuple[float, float, float]
    p99_9: float
    most: float


class Differences:
    """Counts of signed differences per channel, exact however many pixels there are."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros((3, 2 * LEVELS + 1), np.int64)

    def add(self, pixels: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> None:
        """Compare pictures, uint8 ``[H, W, 3]``."""
        apart = pixels.astype(np.int16) - reference.astype(np.int16) + LEVELS
        for channel in range(3):
            self._counts[channel] += np.bincount(apart[..., channel].ravel(), minlength=2 * LEVELS + 1)

    def result(self) -> Difference:
        values = np.arange(-LEVELS, LEVELS + 1)
        total = int(self._counts.sum())
        by_size: npt.NDArray[np.int64] = np.bincount(np.abs(values), weights=self._counts.sum(0)).astype(np.int64)
        red, green, blue = (float(counts @ values) / int(counts.sum()) for counts in self._counts)
        return Difference(
            mean=float(by_size @ np.arange(LEVELS + 1)) / total,
            bias=(red, green, blue),
            p99_9=float(np.searchsorted(np.cumsum(by_size), 0.999 * total)),
            most=float(np.flatnonzero(by_size).max()),
        )


def difference_of(video: Video, way: Preprocess, reference: Preprocess) -> Difference:
    """Compare two ways over all frames of a video."""
    differences = Differences()
    for frame in decode(video):
        differences.add(way(frame), reference(frame))
    return differences.result()


def _measure_difference(
    measurement: Measurement, video: Video, ways: dict[str, Preprocess], at: dict[str, str]
) -> None:
    (_, reference), *others = ways.items()
    for name, way in others:
        found = difference_of(video, way, reference)
        point: dict[str, Any] = {**at, "preprocess": name}
        measurement.figure("mean_difference", "", [found.mean], **point)
        for colour, bias in zip(("red", "green", "blue"), found.bias, strict=True):
            measurement.figure(f"bias_{colour}", "", [bias], **point)
        measurement.figure("p99_9_difference", "", [found.p99_9], **point)
        measurement.figure("max_difference", "", [found.most], **point)
