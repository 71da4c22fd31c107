"""``clipmux plan``, ``clipmux bench simulate`` and ``clipmux bench cluster``: what a load needs, on paper."""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmux.engine.errors import UsageError
from clipmux.engine.exits import exits

from .options import (
    REPEATED,
    Backend,
    Device,
    Html,
    Inputs,
    Json,
    MadeFrames,
    MadeKind,
    MaxBatch,
    NullDelay,
    Preprocess,
    Repeats,
    RunVideos,
    Stride,
    check_outputs,
    keep,
    numbers,
    wide_console,
)

if TYPE_CHECKING:
    from .costs import Stated

Fps = Annotated[float, typer.Option(help="Frames per second of a video or a stream.")]
Seconds = Annotated[float, typer.Option(help="Length of a video.")]
Size = Annotated[str, typer.Option(help="Columns and rows of a video or a stream.")]
Rate = Annotated[float, typer.Option(help="Frames per second that a stream's clips have; each takes 16 in a row.")]
Precision = Annotated[str, typer.Option(help="Of the model on a CPU; int8 unless a file says other.")]
CostFiles = Annotated[
    list[Path] | None,
    typer.Option(help="What 'bench end-to-end', 'decode' or 'simulate' wrote with --json; repeatable, the last wins."),
]
HostCores = Annotated[int, typer.Option(help="Cores of a host.")]
LinkGbit = Annotated[float, typer.Option(help="Gbit/s of a host's link.")]
CLIP_FRAMES = 16
PACE = "0.4+0.25"
"""The pace that docs/benchmarks.md takes for an MLU's: an assumption, for nothing public says it."""

MOST_STREAMS = 1_000_000
"""That are simulated: each takes some kilobytes."""

DELAY_S, LIVE_DELAY_S = 0.25, 0.0
"""How long a clip of a video waits for its batch to fill unless told otherwise, and one of a stream."""


@exits
def plan(
    videos: Annotated[int, typer.Option(help="How many videos are to be classified.")] = 0,
    streams: Annotated[int, typer.Option(help="In place of videos: how many live streams.")] = 0,
    seconds: Seconds = 10.0,
    fps: Fps = 30.0,
    size: Size = "340x256",
    stride: Annotated[int, typer.Option(help="Frames from one clip's start to the next's.")] = CLIP_FRAMES,
    frame_rate: Rate = 25.0,
    device: Annotated[str, typer.Option(help="cpu, or what you have: mlu370-x8 …, then with --clips-per-s.")] = "cpu",
    clips_per_s: Annotated[float, typer.Option(help="What one device infers: 'clipmux bench inference'.")] = 0.0,
    precision: Precision = "",
    costs: CostFiles = None,
    within: Annotated[float, typer.Option(help="Hours that videos may take; one device's or host's own else.")] = 0.0,
    use: Annotated[float, typer.Option(help="Share of each resource to fill; 0.95 for videos, 0.7 for streams.")] = 0.0,
    cores: HostCores = 32,
    devices_per_host: Annotated[int, typer.Option(help="Devices in an inference host at most.")] = 8,
    link_gbit: LinkGbit = 25.0,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """How many decoder cores, hosts, links and devices a load needs, from what the stages cost.

    Costs are stated ones unless --costs names files that benchmarks wrote on your machine. docs/scaling.md has the
    formulas and says what there is to run on more than one host.

    Examples:

      clipmux plan --videos 30000 --seconds 10 --fps 30 --size 340x256 --device mlu370-x8 --clips-per-s 2000

      clipmux plan --streams 1000 --fps 25 --size 1280x720 --device mlu370-x8 --clips-per-s 2000 --costs decode.json
    """
    from clipmux.engine.progress import say

    from .on_paper import costs_table, duration, needs_table, plan_json
    from .plan import STREAMS_USE, VIDEOS_USE, Site, stream_load, video_load
    from .plan import plan as reckon

    if (videos > 0) == (streams > 0) or min(videos, streams) < 0:
        raise UsageError("give one of --videos N and --streams N, above 0")
    _above_0(seconds=seconds, fps=fps, stride=stride, frame_rate=frame_rate, cores=cores, link_gbit=link_gbit)
    _above_0(devices_per_host=devices_per_host)
    if min(within, use, clips_per_s) < 0 or use > 1:
        raise UsageError("--within, --use and --clips-per-s are shares and amounts above 0, --use at most 1")
    if device == "cpu" and clips_per_s:
        raise UsageError(
            f"--clips-per-s is {clips_per_s:g}, the pace of an accelerator: say which by --device, like mlu370-x8"
        )
    stated = _stated(size, precision, costs or [])
    if device == "cpu":
        stated = dataclasses.replace(stated, clips_per_s=None)
    else:
        stated = _on_device(stated, device, clips_per_s)
    site = Site(cores, devices_per_host, link_gbit, use or (STREAMS_USE if streams else VIDEOS_USE))
    lasts_s = None
    if streams:
        load = stream_load(fps, every_s=stride / frame_rate) * streams
    else:
        one = video_load(seconds, fps, stride=stride)
        lasts_s = 3600 * within or videos / _own_pace(stated, site.use, cores, one.clips, one.frames)
        load = one * (videos / lasts_s)
    needs = reckon(load, site, stated)
    if json:
        asked = {"videos": videos, "streams": streams, "device": device, "use": site.use, "seconds": lasts_s}
        typer.echo(json_format.dumps(plan_json(load, stated, needs, asked), indent=1, ensure_ascii=False))
        return
    console = wide_console()
    console.print(costs_table(stated))
    what = f"{streams:,} streams" if streams else f"{videos:,} videos in {duration(lasts_s or 0.0)}"
    say(console, f"{what}, {size}, on {device}, each resource filled to {site.use:.0%}")
    console.print(needs_table(load, needs))


@exits
def simulate(
    inputs: Inputs = None,
    model: Annotated[list[str] | None, typer.Option(help="Model folder, or 'demo'; repeatable.")] = None,
    videos: RunVideos = 0,
    kind: MadeKind = "h264-mp4:340x256",
    frames: MadeFrames = 96,
    stride: Stride = 16,
    workers: Annotated[str, typer.Option(help="Numbers of decoder processes, with commas.")] = "1,2",
    max_batch: MaxBatch = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    null_delay: NullDelay = "0+0",
    preprocess: Preprocess = "",
    clip_memory: Annotated[str, typer.Option(help="How clips travel: shared, socket, or auto.")] = "auto",
    alone: Annotated[float, typer.Option(help="Seconds of inference alone, in each round.")] = 5.0,
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """The engine simulated, beside a real run with the same videos: clips/s, batch fill, latency, and their ratios.

    Costs are measured alone in each round. --json keeps them for 'clipmux plan --costs'.

    Examples:

      clipmux bench simulate videos/ --videos 200 --backend null --null-delay 0.4+0.25

      clipmux bench simulate videos/ --videos 60 --model model --model model-int8 --workers 1,2
    """
    from .agreement import agreement
    from .natural import parse_kinds
    from .speed import configured

    check_outputs(repeats, json, html)
    options = {"max_batch": max_batch, "backend": backend, "device": device, "clip_memory": clip_memory}
    measurement = agreement(
        inputs or [],
        [configured(folder, null_delay, preprocess, stride=stride, **options) for folder in model or ["demo"]],
        workers=numbers(workers, "--workers"),
        count=videos,
        kind=parse_kinds(kind)[0],
        frames=frames,
        alone_s=alone,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def cluster(
    streams: Annotated[str, typer.Option(help="Numbers of streams, with commas; a column for each.")] = "",
    videos: Annotated[str, typer.Option(help="Numbers of videos, with commas: how long each would take.")] = "",
    hosts: Annotated[int, typer.Option(help="Decoder hosts.")] = 1000,
    cores: HostCores = 4,
    inference_hosts: Annotated[int, typer.Option(help="Hosts with devices, which all decoder hosts share.")] = 10,
    devices: Annotated[int, typer.Option(help="Devices of each.")] = 8,
    link_gbit: LinkGbit = 25.0,
    pace: Annotated[str, typer.Option(help="A device answers N clips after A+B·N ms.", metavar="A+B")] = PACE,
    batch: Annotated[int, typer.Option(help="Clips of a full batch.")] = 64,
    max_delay: Annotated[float | None, typer.Option(help="Seconds a clip may wait; 0.25, and 0 of streams.")] = None,
    seconds: Seconds = 10.0,
    fps: Fps = 30.0,
    size: Size = "340x256",
    frame_rate: Rate = 25.0,
    precision: Precision = "",
    costs: CostFiles = None,
    simulated: Annotated[float, typer.Option(help="Seconds of simulated time that count.")] = 1.0,
    warm_up: Annotated[float, typer.Option(help="Simulated seconds before that do not.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Decides everything that is random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """A cluster on paper, simulated: decoder hosts, links, inference hosts, one collector; and what saturates first.

    Decoder hosts that several inference hosts share are on paper only: this is what they would do.

    Examples:

      clipmux bench cluster --streams 10,1000,100000

      clipmux bench cluster --videos 30000,100000000 --hosts 1000 --inference-hosts 40 --link-gbit 100
    """
    from clipmux.engine.progress import say

    from .cluster import Streams, Topology, Videos, run_cluster
    from .costs import Pace
    from .on_paper import cluster_json, cluster_table, duration, in_order
    from .plan import Site, video_load

    stream_counts = numbers(streams, "--streams") if streams else []
    video_counts = numbers(videos, "--videos") if videos else []
    if not stream_counts and not video_counts:
        raise UsageError("give --streams or --videos, numbers with commas between")
    if not all(0 < count <= MOST_STREAMS for count in stream_counts):
        raise UsageError(f"--streams is '{streams}': give 1 to {MOST_STREAMS:,} each")
    if min(video_counts, default=1) < 1:
        raise UsageError(f"--videos is '{videos}': give 1 or more each")
    _above_0(hosts=hosts, cores=cores, inference_hosts=inference_hosts, devices=devices, link_gbit=link_gbit)
    _above_0(batch=batch, seconds=seconds, fps=fps, frame_rate=frame_rate, simulated=simulated)
    if min(warm_up, max_delay or 0.0) < 0:
        raise UsageError("--warm-up and --max-delay are seconds, at least 0")
    stated = _stated(size, precision, costs or [])
    try:
        per_batch_ms, per_clip_ms = map(float, pace.split("+"))
        answers = Pace(per_batch_ms / 1000, per_clip_ms / 1000, batch)
    except ValueError:
        raise UsageError(f"--pace is '{pace}': give two times in ms, like {PACE}") from None
    topology = Topology(
        hosts=hosts,
        cores=cores,
        inference_hosts=inference_hosts,
        devices=devices,
        link_clips_per_s=Site(link_gbit=link_gbit).link_clips_per_s,
        pace=answers,
        costs=stated.costs,
    )
    every_s = CLIP_FRAMES / frame_rate
    loads: dict[str, Streams | Videos] = {
        f"{count:,} streams": Streams(count, fps * every_s, every_s, LIVE_DELAY_S if max_delay is None else max_delay)
        for count in stream_counts
    }
    if video_counts:
        loads["videos"] = Videos(max(1, round(seconds * fps)), max_delay_s=DELAY_S if max_delay is None else max_delay)
    stretches = {
        name: run_cluster(topology, load, seconds=simulated, warm_up_s=warm_up, seed=seed)
        for name, load in loads.items()
    }
    clips = video_load(seconds, fps).clips
    if video_counts and not stretches["videos"].clips_per_s:
        raise UsageError(
            f"nothing was done in the {simulated:g} s that count, after {warm_up:g} s that do not: give more of "
            "--simulated or --warm-up"
        )
    lasts = {count: count * clips / stretches["videos"].clips_per_s for count in video_counts}
    if json:
        typer.echo(json_format.dumps(cluster_json(topology, stretches, lasts), indent=1, ensure_ascii=False))
        return
    console = wide_console()
    console.print(cluster_table(topology, loads, stretches))
    for load in {type(load): load for load in loads.values()}.values():
        say(console, f"saturate as the load grows: {in_order(topology, load)}")
    for count, length in lasts.items():
        console.print(f"{count:,} videos take {duration(length)} at this rate", highlight=False)


def _above_0(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} is {value:g}: give something above 0")


def _stated(size: str, precision: str, files: list[Path]) -> Stated:
    from .costs import stated_costs, with_measured
    from .report import read_result

    columns, _, rows = size.partition("x")
    if not (columns.isdecimal() and rows.isdecimal() and 16 <= min(int(columns), int(rows)) <= 8192):
        raise UsageError(f"--size is '{size}': give columns and rows, like 340x256")
    shape = (int(columns), int(rows))
    stated = stated_costs(shape, precision=precision or "int8")
    for file in files:
        stated = with_measured(stated, file, read_result(file), shape, precision)
    return stated


def _on_device(stated: Stated, device: str, clips_per_s: float) -> Stated:
    """With the pace of an accelerator: as it was given, else as a file has it.

    Raises:
        UsageError: nothing is known of it.
    """
    if clips_per_s:
        sources = {**stated.sources, "clips_per_s": "given, --clips-per-s"}
        return dataclasses.replace(stated, clips_per_s=clips_per_s, sources=sources)
    if stated.clips_per_s is None:
        raise UsageError(
            f"nothing public says how many clips/s '{device}' infers: measure it there with 'clipmux bench inference "
            "MODEL --device mlu:0', and give --clips-per-s, or --costs with what 'clipmux bench end-to-end' wrote"
        )
    return stated


def _own_pace(stated: Stated, use: float, cores: int, clips: float, frames: float) -> float:
    """Videos per second of one device, or of one host that infers itself."""
    if stated.clips_per_s:
        return stated.clips_per_s * use / clips
    costs = stated.costs
    per_clip = costs.send_s + costs.take_s + costs.collect_s + (stated.infer_s or 0.0)
    return cores * use / (frames * costs.frame_s + clips * per_clip + costs.end_s + costs.write_s + costs.hand_out_s)
