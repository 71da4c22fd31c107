"""``clipmux bench inference|decode|wire|end-to-end|memory|sweep|transport|watchers|devices|streams``: how fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Workers,
    check_outputs,
    keep,
    numbers,
    wide_console,
    words,
)

if TYPE_CHECKING:
    from clipmux.engine.config import EngineConfig


@exits
def inference(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="Model folders, or 'demo'.")],
    batch: Annotated[str, typer.Option(help="Clips in a call; 0 for what suits the backend.")] = "1,8,32,64",
    iterations: Annotated[int, typer.Option(help="Calls in each phase, in place of --duration.")] = 0,
    duration: Annotated[float, typer.Option(help="Seconds of each phase.")] = 2.0,
    warmup: Annotated[int, typer.Option(help="Calls of each runner that do not count.")] = 1,
    backend: Annotated[str, typer.Option(help="With commas: auto, openvino, torch, magicmind, torch-eager.")] = "auto",
    device: Device = "cpu",
    scenario: Annotated[str, typer.Option(help="In place of batches: offline, server or single-stream.")] = "",
    qps: Annotated[float, typer.Option(help="server: clips per second; the largest is searched unless given.")] = 0.0,
    latency_bound_ms: Annotated[float, typer.Option(help="server: what 99% of latencies keep within.")] = 500.0,
    max_batch: Annotated[int, typer.Option(help="scenarios: clips in one call at most.")] = 64,
    max_delay: Annotated[float, typer.Option(help="scenarios: seconds that a clip may wait for others.")] = 0.25,
    seed: Annotated[int, typer.Option(help="server: seed of the arrivals.")] = 0,
    mm_run: Annotated[str, typer.Option(help="Cambricon's mm_run, its path or name, to measure beside ours.")] = "",
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """The device alone, as mm_run measures it; several models or backends side by side, with ratios to the first.

    Throughput comes from all of the backend's runners at once, latencies from one call at a time.

    Examples:

      clipmux bench inference model model-int8 --batch 8,64 --json inference.json

      clipmux bench inference model --backend torch-eager,torch,openvino --batch 8

      clipmux bench inference model --scenario server --latency-bound-ms 500

      clipmux bench inference model-mlu --device mlu:0 --batch 1,32,64 --iterations 1000 --mm-run mm_run
    """
    from .inference import Until
    from .inference import inference as measure
    from .scenarios import Load
    from .scenarios import scenario as measure_scenario

    check_outputs(repeats, json, html)
    console = wide_console()
    if scenario:
        if mm_run:
            raise UsageError("--mm-run has no scenarios: leave out one of --mm-run and --scenario")
        measurement = measure_scenario(
            models,
            Load(scenario, seconds=duration, qps=qps, bound_ms=latency_bound_ms, seed=seed),
            backend=backend,
            device=device,
            max_batch=max_batch,
            max_delay_s=max_delay,
            repeats=repeats,
            console=console,
        )
    else:
        measurement = measure(
            models,
            backends=words(backend),
            device=device,
            batches=numbers(batch, "--batch"),
            until=Until(iterations, duration, warmup),
            repeats=repeats,
            console=console,
            mm_run=mm_run,
        )
    keep(measurement, json, html)


@exits
def decode(
    inputs: Inputs = None,
    preprocess: Annotated[str, typer.Option(help="Ways to pixels, with commas between; all unless given.")] = "",
    kinds: Annotated[
        str, typer.Option(help="Made videos: h264, all, or the like of h264-mp4:340x256,vp9-webm:640x360.")
    ] = "all",
    frames: MadeFrames = 96,
    duration: Annotated[float, typer.Option(help="CPU seconds of a run at least.")] = 0.5,
    difference: Annotated[bool, typer.Option("--difference", help="Compare pixels with the first way's.")] = False,
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """Frames per second and core: decoding alone, and with each preprocessing, per codec and size.

    Examples:

      clipmux bench decode --kinds h264

      clipmux bench decode videos/ --preprocess exact,fast --difference --json decode.json
    """
    from .decoding import decoding
    from .natural import parse_kinds

    check_outputs(repeats, json, html)
    measurement = decoding(
        inputs or [],
        preprocess=words(preprocess),
        kinds=parse_kinds(kinds),
        frames=frames,
        seconds=duration,
        difference=difference,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def wire(
    inputs: Inputs = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    clips: Annotated[int, typer.Option(help="Clips to draw from the videos.")] = 256,
    json: Json = None,
) -> None:
    """What --wire jpeg does to clips: size, time, pixels and scores, beside raw ones.

    Example: clipmux bench wire videos/ --model model
    """
    from .wire import wire as measure

    check_outputs(1, json, None)
    if not inputs:
        raise UsageError("no INPUT: give videos, since noise says nothing of what JPEG does")
    if not 1 <= clips <= 10_000:
        raise UsageError(f"--clips is {clips}: give 1 to 10,000")
    keep(measure(inputs, model, backend=backend, device=device, clips=clips, console=wide_console()), json, None)


@exits
def end_to_end(
    inputs: Inputs = None,
    model: Annotated[list[str] | None, typer.Option(help="Model folder, or 'demo'; repeatable.")] = None,
    videos: RunVideos = 0,
    kind: MadeKind = "h264-mp4:340x256",
    frames: MadeFrames = 96,
    stride: Stride = 16,
    workers: Workers = "auto",
    max_batch: MaxBatch = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    null_delay: NullDelay = "0+0",
    preprocess: Preprocess = "",
    alone: Annotated[float, typer.Option(help="Seconds of inference alone, in each round.")] = 10.0,
    baselines: Annotated[str, typer.Option(help="With commas: reference, dataloader, ray.")] = "",
    float32: Annotated[str, typer.Option(help="Folder that compiled models came from, for 'reference'.")] = "",
    baseline_preprocess: Annotated[str, typer.Option(help="The other baselines' way to pixels; else ours.")] = "",
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """A real run beside what its stages cost alone: clips/s, pipeline efficiency, batch fill, latency, memory.

    The ideal is cores ÷ (CPU seconds per clip of decoding alone + of inference alone); of an accelerator, the slower of
    what the cores decode and what the device infers. With --baselines, other ways to do the same, side by side.

    Examples:

      clipmux bench end-to-end videos/ --model model --model model-int8 --videos 200 --html report.html

      clipmux bench end-to-end videos/ --model model --baselines reference,dataloader
    """
    from clipmux.engine.config import parse_workers

    from .end_to_end import end_to_end as measure
    from .natural import parse_kinds

    check_outputs(repeats, json, html)
    options = {"workers": parse_workers(workers), "max_batch": max_batch, "backend": backend, "device": device}
    measurement = measure(
        inputs or [],
        [configured(folder, null_delay, preprocess, stride=stride, **options) for folder in model or ["demo"]],
        count=videos,
        kind=parse_kinds(kind)[0],
        frames=frames,
        alone_s=alone,
        baselines=words(baselines),
        float32=float32,
        baseline_preprocess=baseline_preprocess,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


def configured(model: str, null_delay: str, preprocess: str, **options: Any) -> EngineConfig:
    """What a run is told."""
    from clipmux.engine.config import EngineConfig, parse_delay
    from clipmux.engine.model import read_model

    if preprocess:
        options["preprocess"] = preprocess
    return EngineConfig(model=str(read_model(model).path.resolve()), null_delay_ms=parse_delay(null_delay), **options)


@exits
def memory(
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "demo",
    videos: Annotated[str, typer.Option(help="Videos of the runs that are compared, rising.")] = "50,1000",
    frames: Annotated[int, typer.Option(help="Frames of each video.")] = 32,
    workers: Workers = "auto",
    max_batch: MaxBatch = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    null_delay: NullDelay = "0+0",
    preprocess: Preprocess = "",
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """Peak memory of all processes together for 50 and for 1,000 short videos, and the ratio.

    Example: clipmux bench memory --backend null
    """
    from clipmux.engine.config import parse_workers

    from .memory import memory as measure

    check_outputs(repeats, json, html)
    options = {"workers": parse_workers(workers), "max_batch": max_batch, "backend": backend, "device": device}
    measurement = measure(
        configured(model, null_delay, preprocess, **options),
        counts=numbers(videos, "--videos"),
        frames=frames,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def sweep(
    inputs: Inputs = None,
    model: Annotated[list[str] | None, typer.Option(help="Model folder; repeat it for several precisions.")] = None,
    workers: Annotated[str, typer.Option(help="Numbers of decoder processes, with commas.")] = "1,2,4",
    batch: Annotated[str, typer.Option(help="Largest batches, with commas.")] = "1,8,32",
    videos: RunVideos = 0,
    kind: MadeKind = "h264-mp4:340x256",
    frames: MadeFrames = 96,
    stride: Stride = 16,
    backend: Backend = "auto",
    device: Device = "cpu",
    null_delay: NullDelay = "0+0",
    preprocess: Preprocess = "",
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """Short runs over a grid of workers × batch × precision.

    Example: clipmux bench sweep --model model --model model-int8 --workers 1,2 --batch 4,8,16 --html sweep.html
    """
    from .natural import parse_kinds
    from .sweep import sweep as measure

    check_outputs(repeats, json, html)
    options = {"stride": stride, "backend": backend, "device": device}
    measurement = measure(
        inputs or [],
        [configured(folder, null_delay, preprocess, **options) for folder in model or ["demo"]],
        workers=numbers(workers, "--workers"),
        batches=numbers(batch, "--batch"),
        count=videos,
        kind=parse_kinds(kind)[0],
        frames=frames,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def transport(
    model: Annotated[str, typer.Option(help="Model folder, whose clips' shape counts, or 'demo'.")] = "demo",
    clips: Annotated[int, typer.Option(help="Clips of each run.")] = 10_000,
    generators: Annotated[int, typer.Option(help="Processes that send clips.")] = 1,
    null_delay: NullDelay = "0+0",
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """Generated clips through the engine to null, in each way that clips travel, beside a bare PUSH and PULL.

    Examples:

      clipmux bench transport

      clipmux bench transport --null-delay 0.4+0.25 --json pace.json
    """
    from .transport import transport as measure

    check_outputs(repeats, json, html)
    if generators < 1:
        raise UsageError(f"--generators is {generators}: give how many processes send clips, at least 1")
    measurement = measure(
        configured(model, null_delay, "", workers=generators, backend="null"),
        clips=clips,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def watchers(
    inputs: Inputs = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "demo",
    videos: RunVideos = 0,
    kind: MadeKind = "h264-mp4:340x256",
    frames: MadeFrames = 96,
    stride: Stride = 16,
    workers: Workers = "auto",
    max_batch: MaxBatch = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    null_delay: NullDelay = "0+0",
    preprocess: Preprocess = "",
    alone: Annotated[float, typer.Option(help="Seconds of inference alone, in each round.")] = 5.0,
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """What being looked at and guarded costs: runs with metrics that are scraped, a trace, a log of JSON and jailed
    decoders, beside runs without.

    Example: clipmux bench watchers videos/ --model model --videos 240
    """
    from clipmux.engine.config import parse_workers

    from .natural import parse_kinds
    from .watchers import watchers as measure

    check_outputs(repeats, json, html)
    options = {"workers": parse_workers(workers), "max_batch": max_batch, "backend": backend, "device": device}
    measurement = measure(
        inputs or [],
        configured(model, null_delay, preprocess, stride=stride, **options),
        count=videos,
        kind=parse_kinds(kind)[0],
        frames=frames,
        alone_s=alone,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def devices(
    inputs: Inputs = None,
    device: Annotated[
        list[str] | None, typer.Option(help="As of 'clipmux run'; twice or more, the first to compare with.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "demo",
    videos: RunVideos = 0,
    kind: MadeKind = "h264-mp4:340x256",
    frames: MadeFrames = 96,
    workers: Workers = "auto",
    backend: Backend = "auto",
    null_delay: NullDelay = "0+0",
    repeats: Repeats = REPEATED,
    json: Json = None,
    html: Html = None,
) -> None:
    """The same runs on one device and on several, side by side.

    Example: clipmux bench devices videos/ --model model --videos 60 --device cpu --device cpu:0,cpu:1
    """
    from clipmux.engine.config import parse_workers

    from .devices import devices as measure
    from .natural import parse_kinds

    check_outputs(repeats, json, html)
    measurement = measure(
        inputs or [],
        configured(model, null_delay, "", workers=parse_workers(workers), backend=backend),
        device or [],
        count=videos,
        kind=parse_kinds(kind)[0],
        frames=frames,
        repeats=repeats,
        console=wide_console(),
    )
    keep(measurement, json, html)


@exits
def streams(
    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="[VIDEOS…]", help="Files to play; else made ones of 340x256 at 30/s.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "demo",
    count: Annotated[int, typer.Option("--streams", help="So many, in place of a search.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long they must be sustained.")] = 60.0,
    bound_ms: Annotated[float, typer.Option(help="What 99% of latencies keep within.")] = 500.0,
    overload: Annotated[float, typer.Option(help="Also try so many times that number, with weights.")] = 0.0,
    max_latency: Annotated[float, typer.Option(help="As of 'clipmux live'.")] = 1.0,
    max_delay: Annotated[float, typer.Option(help="As of 'clipmux live'.")] = 0.0,
    max_batch: MaxBatch = 64,
    alone: Annotated[float, typer.Option(help="Seconds of each stage alone.")] = 10.0,
    backend: Backend = "auto",
    device: Device = "cpu",
    null_delay: NullDelay = "0+0",
    preprocess: Preprocess = "",
    json: Json = None,
    html: Html = None,
) -> None:
    """The largest number of camera streams that is sustained, beside what their stages cost alone.

    Streams are files at their own pace. Sustained: no clip dropped, no file behind, 99% of latencies in time.

    Examples:

      clipmux bench streams --model model-int8 --json streams.json

      clipmux bench streams --model model-int8 --streams 20 --overload 3
    """
    from .streams import streams as measure

    check_outputs(1, json, html)
    options = {"backend": backend, "device": device, "max_delay_s": max_delay, "max_batch": max_batch}
    measurement = measure(
        inputs or [],
        configured(model, null_delay, preprocess, **options),
        count=count,
        seconds=seconds,
        bound_s=bound_ms / 1000,
        overload=overload,
        max_latency_s=max_latency,
        alone_s=alone,
        console=wide_console(),
    )
    keep(measurement, json, html)
