"""What a run came to: ``summary.json``, and the table a person sees at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from .children import COLLECTOR, DECODER, INFERENCE
from .histogram import Histogram

Figures = Sequence[tuple[str, dict[str, Any]]]
"""(role, what the child said when it left) of every child."""


def summarise(
    figures: Figures, *, videos: int, failed: int, skipped: int, resumed: int, restarts: int, wall_s: float
) -> dict[str, Any]:
    """The content of ``summary.json``. Rates are over this call's wall time; times are seconds unless named ``_ms``.

    Args:
        figures: what the children said, those too that died on the way.
        videos: videos with an outcome from this call, failed ones too.
        failed: those without a prediction.
        skipped: videos that were listed and never tried, see the log.
        resumed: videos that had their outcome before.
        restarts: processes that died and were replaced.
        wall_s: seconds from the first process's start to the last one's end.
    """
    # Of a process that died there is only what it had told last: counts, but no latencies and no peak of memory.
    devices = [values for role, values in figures if role == INFERENCE and "preferred_batch" in values]
    inference = devices[0] if devices else {}
    busy_share = sum(values["busy_share"] for values in devices) / max(1, len(devices))
    clips = round(_total(figures, INFERENCE, "clips"))
    decoder = next((values for role, values in figures if role == DECODER and "cpu_s" in values), {})
    frames = round(_total(figures, DECODER, "frames"))
    sizes: Counter[str] = Counter()
    for role, values in figures:
        if role == INFERENCE:
            sizes.update(values.get("batch_sizes", {}))
    batches = sizes.total()
    mean_batch = clips / batches if batches else 0.0
    latency = Histogram.of(*(values.get("latency", {}) for role, values in figures if role == INFERENCE))
    latency_s = {f"p{percent}": latency.percentile(percent) for percent in (50, 90, 99)}
    return {
        "videos": videos,
        "failed": failed,
        "skipped": skipped,
        "resumed": resumed,
        "clips": clips,
        "frames": frames,
        "wall_s": wall_s,
        "videos_per_s": videos / wall_s,
        "clips_per_s": clips / wall_s,
        "frames_per_s": frames / wall_s,
        "batches": batches,
        "mean_batch": mean_batch,
        "batch_fill": mean_batch / inference["preferred_batch"] if inference else 0.0,
        "busy_share": busy_share,
        "devices": _devices(figures),
        "batch_sizes": {size: sizes[size] for size in sorted(sizes, key=int)},
        "latency_ms": {name: None if value is None else 1000 * value for name, value in latency_s.items()},
        "busy_s": _busy(figures),
        "cpu_s": {role: _total(figures, role, "cpu_s") for role in (DECODER, INFERENCE, COLLECTOR)},
        "peak_rss_bytes": [
            {"process": role, "bytes": values["peak_rss_bytes"]}
            for role, values in figures
            if "peak_rss_bytes" in values
        ],
        "restarts": restarts,
        "preprocess": decoder.get("preprocess", ""),
        "jail": decoder.get("jail", ""),
        "bound_by": bound_by(_busy(figures), busy_share),
    }


WAITS_FROM = 0.1
"""The share of decoders' time spent waiting from which on something behind them is too slow."""
IDLE_BELOW = 0.8
"""The share of time with a batch to work on below which a device is not what others wait for."""


def bound_by(busy: Mapping[str, float], device_busy: float) -> str:
    """What a run would be faster with more of.

    Args:
        busy: seconds per stage over all processes.
        device_busy: share of the time, from the first batch to the last score, in which the device had a batch.

    Returns:
        ``decode`` where decoders hardly ever waited; ``device`` where they did and it was busy; ``queue memory`` where
        they waited although it was not: too few clips fit between them to make up for the unevenness of both.
    """
    decoding = busy["decode"] + busy["preprocess"]
    if busy["wait"] < WAITS_FROM * (decoding + busy["wait"]):
        return "decode"
    return "device" if device_busy >= IDLE_BELOW else "queue memory"


def summary_table(summary: dict[str, Any]) -> Table:
    """The few lines of a summary that people look for."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    done = summary["videos"] - summary["failed"]
    outcome = f"{done} classified"
    for name in ("failed", "skipped"):
        if summary[name]:
            outcome += f", {summary[name]} {name}"
    if summary["resumed"]:
        outcome += f", {summary['resumed']} from before"
    table.add_row("videos", outcome)
    table.add_row("clips", f"{summary['clips']} from {summary['frames']} frames")
    table.add_row(
        "speed",
        f"{summary['clips_per_s']:.1f} clips/s, {summary['videos_per_s']:.2f} videos/s, "
        f"{summary['frames_per_s']:.0f} frames/s in {summary['wall_s']:.1f} s",
    )
    table.add_row(
        "batches", f"{summary['batches']}, {summary['mean_batch']:.1f} clips each, {summary['batch_fill']:.0%} full"
    )
    if len(devices := summary["devices"]) > 1:
        each = [f"{name} {values['clips']} clips, {values['busy_share']:.0%} busy" for name, values in devices.items()]
        table.add_row("devices", "; ".join(each))
    latency = summary["latency_ms"]
    if latency.get("p50") is not None:
        shown = ", ".join(f"{name} {value:.0f} ms" for name, value in latency.items())
        table.add_row("latency", f"{shown} from decoded to scored")
    busy = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary["busy_s"].items() if seconds >= 0.05)
    table.add_row("busy seconds", busy or "–")
    table.add_row("bound by", summary["bound_by"])
    table.add_row("preprocessing", summary["preprocess"] or "–")
    table.add_row("decoders' jail", summary["jail"] or "–")
    memory = sum(item["bytes"] for item in summary["peak_rss_bytes"])
    table.add_row(
        "peak memory", f"{memory / 2**20:.0f} MiB in {len(summary['peak_rss_bytes'])} processes, shared aside"
    )
    return table


def _devices(figures: Figures) -> dict[str, dict[str, Any]]:
    """Clips that each device scored, also in a process that died, and how busy it was kept (0: it did not end well)."""
    devices: dict[str, dict[str, Any]] = {}
    for role, values in figures:
        if role == INFERENCE and "device" in values:
            device = devices.setdefault(values["device"], {"clips": 0, "busy_share": 0.0})
            device["clips"] += values.get("clips", 0)
            device["busy_share"] = values.get("busy_share", device["busy_share"])
    return {name: devices[name] for name in sorted(devices)}


def _busy(figures: Figures) -> dict[str, float]:
    """Busy seconds per stage, over all processes of its role; ``wait`` is a decoder held back by a full queue."""
    names = {
        (DECODER, "decode"): "decode",
        (DECODER, "preprocess"): "preprocess",
        (DECODER, "send"): "wait",
        (INFERENCE, "copy"): "batch",
        (INFERENCE, "infer"): "infer",
        (COLLECTOR, "collect"): "collect",
        (COLLECTOR, "write"): "write",
    }
    busy = dict.fromkeys(names.values(), 0.0)
    for role, values in figures:
        for stage, seconds in values.get("busy_s", {}).items():
            if (role, stage) in names:
                busy[names[role, stage]] += seconds
    return busy


def _total(figures: Figures, role: str, name: str) -> float:
    return float(sum(values.get(name, 0.0) for of, values in figures if of == role))
