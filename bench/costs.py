"""What the stages cost that a plan and a simulation reckon with, each figure with where it comes from.

They come from files that benchmarks wrote on the machine in question, or are the ones stated here, measured on the
machine that docs/scaling.md names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipmux.engine.backends import on_cpu
from clipmux.engine.errors import UsageError

HERE = "measured, docs/scaling.md"

FRAME_S: dict[tuple[int, int], float] = {(340, 256): 0.48e-3, (1280, 720): 3.3e-3, (1920, 1080): 7.9e-3}
"""CPU seconds to decode and preprocess a frame of made H.264 videos, by columns and rows."""

ENGINE_S: dict[str, float] = {
    "send_s": 0.054e-3,
    "end_s": 0.16e-3,
    "take_s": 0.070e-3,
    "collect_s": 0.014e-3,
    "write_s": 0.12e-3,
    "hand_out_s": 0.17e-3,
    "link_send_s": 0.16e-3,
    "link_take_s": 0.20e-3,
}
"""What the engine itself takes; see ``Costs``."""

INFER_S: dict[str, float] = {"float32": 2 / 12.4, "bfloat16": 2 / 22.5, "int8": 2 / 42.0}
"""CPU seconds of r3d-50 for a clip: 2 cores ÷ the clips/s that docs/benchmarks.md has for OpenVINO alone."""


@dataclass(frozen=True)
class Costs:
    """Seconds of one core for each piece of work, except inference.

    Args:
        frame_s: a decoder's, to decode and preprocess a frame.
        send_s: a decoder's, to assemble a clip and send it.
        end_s: a decoder's besides, for a video: to ask for it and to tell its end.
        take_s: inference's, to receive a clip, copy it into a batch and send its scores.
        collect_s: the collector's, for a clip's scores.
        write_s: the collector's besides, for a video: mean, line, journal.
        hand_out_s: the supervisor's, for a video.
        link_send_s: a decoder's besides, for a clip that travels through a socket.
        link_take_s: inference's, likewise.
    """

    frame_s: float
    send_s: float
    end_s: float
    take_s: float
    collect_s: float
    write_s: float
    hand_out_s: float
    link_send_s: float = 0.0
    link_take_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < 3600:
                raise ValueError(f"{name} is {value}: seconds from 0 on belong there")


@dataclass(frozen=True)
class Pace:
    """How a device answers a batch of N clips: after ``per_batch_s + per_clip_s · N`` seconds.

    Args:
        per_batch_s: seconds of any batch.
        per_clip_s: seconds of each clip in it.
        batch: clips in a full batch.
        runners: batches at the same time.
        ahead: further batches that are held ready.
        on_cores: the seconds are CPU seconds, and the decoders share those cores.
    """

    per_batch_s: float
    per_clip_s: float
    batch: int
    runners: int = 1
    ahead: int = 1
    on_cores: bool = False

    def __post_init__(self) -> None:
        if not (self.per_batch_s >= 0 and self.per_clip_s >= 0 and self.seconds(1) < 3600):
            raise ValueError(f"a batch takes {self.per_batch_s} + {self.per_clip_s}·N s: from 0 on belong there")
        if min(self.batch, self.runners) < 1 or self.ahead < 0:
            raise ValueError(f"a batch of {self.batch}, {self.runners} runners, {self.ahead} ahead: too few")

    def seconds(self, clips: int) -> float:
        """Of a batch of so many."""
        return self.per_batch_s + self.per_clip_s * clips

    @property
    def clips_per_s(self) -> float:
        """Of full batches without a pause, with a core for each runner where it needs one."""
        return self.runners * self.batch / max(self.seconds(self.batch), 1e-12)


@dataclass(frozen=True)
class Stated:
    """Costs, and in words where each of them comes from.

    Args:
        costs: see there.
        sources: by the names of the costs, and ``infer_s``.
        infer_s: CPU seconds of inference for a clip, where that is on a CPU.
        clips_per_s: of the device alone, where it was measured.
    """

    costs: Costs
    sources: Mapping[str, str] = field(default_factory=dict)
    infer_s: float | None = None
    clips_per_s: float | None = None


def stated_costs(size: tuple[int, int], *, precision: str) -> Stated:
    """The costs that hold where nothing was measured.

    Args:
        size: columns and rows of a video.
        precision: of r3d-50 on a CPU.

    Raises:
        UsageError: no such precision.
    """
    if precision not in INFER_S:
        raise UsageError(f"--precision is '{precision}': give one of {', '.join(INFER_S)}")
    frame_s, source = frame_cost(size)
    costs = Costs(frame_s=frame_s, **ENGINE_S)
    sources = dict.fromkeys(vars(costs), HERE)
    return Stated(
        costs,
        {**sources, "frame_s": source, "infer_s": f"r3d-50 {precision}, docs/benchmarks.md"},
        infer_s=INFER_S[precision],
    )


def frame_cost(size: tuple[int, int]) -> tuple[float, str]:
    """CPU seconds to decode and preprocess a frame of this size, and where that comes from.

    A size that was not measured is taken to cost by its pixels what the next in size does.
    """
    if size in FRAME_S:
        return FRAME_S[size], HERE
    pixels = size[0] * size[1]
    near = min(FRAME_S, key=lambda known: abs(known[0] * known[1] - pixels))
    share = pixels / (near[0] * near[1])
    return FRAME_S[near] * share, f"assumed: {share:.3g} × that of {near[0]}x{near[1]}, by pixels"


def with_measured(
    stated: Stated, path: Path, content: Mapping[str, Any], size: tuple[int, int], precision: str
) -> Stated:
    """Costs with what a benchmark's result says in their place.

    Args:
        stated: what holds otherwise.
        path: of the file, to name.
        content: what ``--json`` wrote.
        size: columns and rows of a video; what was measured on another size, or on none that is told, is not used, and
            the source of ``frame_s`` says so.
        precision: whose figures of inference to take; nothing for the only one's.

    Raises:
        UsageError: the file has none of these costs, or those of several models.
    """
    figures = _Figures(path, content["figures"], precision)
    source = f"measured, {path.name}"
    found: dict[str, float] = {}
    sources = dict(stated.sources)
    infer_s, clips_per_s = stated.infer_s, stated.clips_per_s
    if content["benchmark"] == "decode":
        rate = figures.get("frames_per_core_s", preprocess="fast", size=f"{size[0]}x{size[1]}")
        if rate is None:
            raise UsageError(
                f"'{path}' has no frames/s per core at {size[0]}x{size[1]}: measure it with 'clipmux bench decode "
                f"--kinds h264-mp4:{size[0]}x{size[1]} --json FILE'"
            )
        found["frame_s"] = 1 / rate
    else:
        for name in vars(stated.costs):
            value = figures.get(name)
            if value is not None:
                found[name] = value
        decode = figures.get("decode_alone_cpu_per_clip")
        frames, clips = figures.get("frames_per_s"), figures.get("clips_per_s")
        if decode is not None and frames and clips:
            found["frame_s"] = decode * clips / frames
        theirs = (content.get("videos") or {}).get("size")
        if "frame_s" in found and theirs != f"{size[0]}x{size[1]}":
            del found["frame_s"]
            what = f"is of {theirs}" if theirs else "does not tell one size of its videos"
            sources["frame_s"] = "; ".join(filter(None, (sources.get("frame_s"), f"{path.name} {what}")))
        infer = figures.get("inference_alone_cpu_per_clip")
        rate = figures.get("inference_alone_clips_per_s")
        devices = ((content.get("model") or {}).get("device") or "").split(",")
        if infer is not None and on_cpu(devices[0]):
            infer_s = found["infer_s"] = infer
        elif rate is not None:
            clips_per_s = found["clips_per_s"] = rate / len(devices)
    if not found and sources == stated.sources:
        raise UsageError(
            f"'{path}' has none of the costs that count: give what 'clipmux bench end-to-end', 'bench decode' or "
            "'bench simulate' wrote with --json"
        )
    own = {name: value for name, value in found.items() if name in vars(stated.costs)}
    return Stated(
        dataclasses.replace(stated.costs, **own),
        {**sources, **dict.fromkeys(found, source)},
        infer_s=infer_s,
        clips_per_s=clips_per_s,
    )


class _Figures:
    """The medians of a result, by name and by what their points must have."""

    def __init__(self, path: Path, figures: Sequence[Mapping[str, Any]], precision: str) -> None:
        self._path = path
        self._figures = figures
        self._precision = precision

    def get(self, name: str, **at: str) -> float | None:
        """The only one, or of several the one with the most decoders, which keep all cores at work.

        Only inference is another in another precision: whatever else was measured counts for all of them.

        Raises:
            UsageError: there are still several.
        """
        there = [figure for figure in self._figures if figure["name"] == name and at.items() <= figure["at"].items()]
        if self._precision:
            own = [figure for figure in there if figure["at"].get("precision", self._precision) == self._precision]
            if own or name.startswith("inference_"):
                there = own
            else:
                there = [figure for figure in there if figure["at"].get("precision") == there[0]["at"].get("precision")]
        most = max((figure["at"].get("workers", 0) for figure in there), default=0)
        there = [figure for figure in there if figure["at"].get("workers", 0) == most]
        if len(there) > 1:
            points = "; ".join(" ".join(map(str, figure["at"].values())) for figure in there)
            raise UsageError(f"'{self._path}' has {name} of {points}: say which with --precision")
        return float(there[0]["median"]) if there else None
