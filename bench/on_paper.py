"""Plans and simulated clusters as a person reads them, and as programs do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from .cluster import Streams, Stretch, Topology, Videos, capacities
from .costs import Stated
from .measure import digits
from .plan import Load, Need

WORDS = {
    "frame_s": "decode and preprocess a frame",
    "send_s": "assemble and send a clip",
    "end_s": "ask for a video and tell its end",
    "take_s": "receive a clip, batch it, send its scores",
    "collect_s": "collect a clip's scores",
    "write_s": "write a video's line",
    "hand_out_s": "hand out a video",
    "link_send_s": "send a clip through a socket, besides",
    "link_take_s": "receive a clip from a socket, besides",
    "infer_s": "infer a clip",
}


def costs_table(stated: Stated) -> Table:
    """A line per cost: what, how much, where from."""
    table = Table("one core takes, to", "ms", "from", title="costs", title_justify="left")
    table.columns[1].justify = "right"
    for name, seconds in known(stated).items():
        table.add_row(WORDS[name], digits(1000 * seconds), stated.sources.get(name, ""))
    if stated.clips_per_s:
        table.add_row("a device, clips/s", digits(stated.clips_per_s), stated.sources.get("clips_per_s", ""))
    return table


def known(stated: Stated) -> dict[str, float]:
    """Seconds of a core by name, those of inference only where it is on a CPU."""
    costs: dict[str, float] = dict(vars(stated.costs))
    if stated.infer_s is not None and not stated.clips_per_s:
        costs["infer_s"] = stated.infer_s
    return costs


def needs_table(load: Load, needs: Sequence[Need]) -> Table:
    """A line per resource: how many, how many exactly, what each carries."""
    rates = f"{load.clips:,.1f} clips/s, {load.frames:,.0f} frames/s"
    if load.videos:
        rates += f", {load.videos:,.3g} videos/s"
    table = Table("needs", "how many", "filled to the last", "each carries", title=rates, title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for need in needs:
        table.add_row(need.name, f"{need.count:,}", digits(need.exact), need.each)
    return table


def plan_json(load: Load, stated: Stated, needs: Sequence[Need], said: Mapping[str, Any]) -> dict[str, Any]:
    """All of a plan, for programs."""
    costs = {
        name: {"seconds": seconds, "from": stated.sources.get(name, "")} for name, seconds in known(stated).items()
    }
    return {
        **said,
        "load": {"clips_per_s": load.clips, "frames_per_s": load.frames, "videos_per_s": load.videos},
        "costs": costs,
        "device_clips_per_s": stated.clips_per_s,
        "needs": [vars(need) for need in needs],
    }


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def cluster_table(topology: Topology, loads: Mapping[str, Streams | Videos], stretches: Mapping[str, Stretch]) -> Table:
    """A line per resource and figure, a column per load, and what each resource carries for the first that needs it."""
    carries: dict[str, float] = {}
    for load in loads.values():
        carries = {**capacities(topology, load), **carries}
    table = Table("", "carries, clips/s", *stretches)
    for column in table.columns[1:]:
        column.justify = "right"

    def row(name: str, cell: Callable[[Stretch], str], most: str = "") -> None:
        table.add_row(name, most, *map(cell, stretches.values()))

    row("clips/s offered", lambda one: f"{one.offered_per_s:,.0f}" if one.offered_per_s else "all that fit")
    row("clips/s done", lambda one: f"{one.clips_per_s:,.0f}")
    row("clips/s dropped", lambda one: f"{one.dropped_per_s:,.0f}")
    row("clips/s left waiting", lambda one: f"{one.waiting_per_s:,.0f}")
    row("most in use", lambda one: first(one, carries))
    for name, most in carries.items():
        row(f"{name} in use", lambda one, name=name: f"{one.use[name]:.1%}", f"{most:,.0f}")  # type: ignore[misc]
    row("batch fill", lambda one: f"{one.batch_fill:.2f}")
    row("latency p50, ms", lambda one: digits(1000 * one.latency_p50_s))
    row("latency p99, ms", lambda one: digits(1000 * one.latency_p99_s))
    return table


def in_order(topology: Topology, load: Streams | Videos) -> str:
    """What saturates as the load grows, in this order, in words; what carries a hundred times more is left out."""
    carries = capacities(topology, load)
    if isinstance(load, Videos):
        per_one, unit = float(len(load.steps) - 1), "videos/s"
    else:
        per_one, unit = 1 / load.every_s, "streams"
    least = min(carries.values())
    ordered = sorted((most, name) for name, most in carries.items() if most < 100 * least)
    return ", ".join(f"{name} at {most / per_one:,.0f} {unit}" for most, name in ordered)


def first(stretch: Stretch, carries: Mapping[str, float]) -> str:
    """The resource with the least left; of several that have nothing left, the one that carries the least."""
    return max(carries, key=lambda name: (round(stretch.use[name], 3), -carries[name]))


def cluster_json(topology: Topology, stretches: Mapping[str, Stretch], lasts: Mapping[int, float]) -> dict[str, Any]:
    """All of a simulated cluster, for programs."""
    return {
        "topology": dataclasses.asdict(topology),
        "loads": {name: vars(stretch) for name, stretch in stretches.items()},
        "videos_take_s": {str(count): seconds for count, seconds in lasts.items()},
    }
