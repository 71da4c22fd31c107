"""``clipmux run``, and the commands that have its options: ``serve`` and ``ray run``."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UsageError
from .exits import exits
from .options import WORKERS, ConfigFile, InferenceAt, LogFormat, Metrics, MetricsAllowRemote, StuckAfter

RUN_EXAMPLES = """
Examples:

  clipmux run videos/ --model model --output runs/first

  clipmux run 'clips/**/*.mp4' a.mkv frames_folder/ --model model --output runs/second --top-k 3

  clipmux run s3://bucket/videos/ --model model --output runs/stored

  find . -name '*.webm' | clipmux run - --model model --output runs/third

  clipmux run --annotations kinetics.json --root jpg --model model --output runs/validation

Exit status: 0 every video classified; 3 some videos failed, all others done; 2 wrong usage; 1 the run itself failed;
130 interrupted (go on with --resume).
"""

SERVE_EXAMPLES = """
Examples:

  clipmux serve videos/ --model model --bind 10.0.0.7:7600 --output runs/first

  clipmux serve videos/ --model model --bind 10.0.0.7:7600 --workers 4 --output runs/second

Both hosts need keys, and each the other's: 'clipmux keys new', then 'clipmux keys trust NAME KEY'.
"""

RAY_EXAMPLES = """
Examples:

  clipmux ray run videos/ --model model --output runs/first

  clipmux ray run videos/ --model model --device mlu:0,mlu:1 --address 10.0.0.7:6379 --output /shared/runs/second
"""


def _classify(
    start: Callable[..., int],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT…", help="Files, folders, folders of frames, globs, URLs, or - for paths on standard input."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "",
    output: Annotated[str, typer.Option(help="Run folder to write, also one of an object store by its URL.")] = "",
    annotations: Annotated[Path | None, typer.Option(help="The reference's JSON, in place of INPUT.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where ROOT/<label>/<video_id> are.")] = None,
    subset: Annotated[str, typer.Option(help="Subset of the annotations.")] = "validation",
    names: Annotated[str, typer.Option(help="Name videos by their file's 'stem' or by their 'path'.")] = "stem",
    stride: Annotated[int, typer.Option(help="Frames from one clip's start to the next's.")] = 16,
    top_k: Annotated[int, typer.Option(help="Labels per prediction.")] = 5,
    per_clip: Annotated[
        bool, typer.Option("--per-clip", help="Also results per clip; in results.json in place of their mean.")
    ] = False,
    workers: Annotated[str, typer.Option(help=f"{WORKERS} With --bind also none, and auto is one per core.")] = "auto",
    max_batch: Annotated[int, typer.Option(help="Clips in one device call at most, up to 64.")] = 64,
    device: Annotated[
        str, typer.Option(help="cpu, cores like cpu:0-7, mlu:0 or cuda:0; several with commas between.")
    ] = "cpu",
    backend: Annotated[str, typer.Option(help="auto, openvino, magicmind, torch, or null (fixed scores).")] = "auto",
    null_delay: Annotated[str, typer.Option(help="null answers N clips after A+B·N ms.", metavar="A+B")] = "0+0",
    max_delay: Annotated[float, typer.Option(help="Seconds a clip may wait for its batch to fill.")] = 0.25,
    start_timeout: Annotated[float, typer.Option(help="Seconds a process may take until it is ready.")] = 120.0,
    open_timeout: Annotated[
        float, typer.Option(help="Seconds to a video's first frame; then its decoder is replaced.")
    ] = 60.0,
    decode_timeout: Annotated[
        float, typer.Option(help="Seconds to each further frame; then its decoder is replaced.")
    ] = 60.0,
    device_timeout: Annotated[
        float, typer.Option(help="Seconds a call of the device may take; then inference restarts.")
    ] = 60.0,
    write_timeout: Annotated[
        float, typer.Option(help="Seconds a result may take to be written; then the collector restarts.")
    ] = 60.0,
    preprocess: Annotated[
        str, typer.Option(help="Frames to pixels: fast, or exact as the reference (differs by 3 of 255, rarely more).")
    ] = "fast",
    queue_memory: Annotated[int, typer.Option(help="MiB that clips on their way may take.")] = 256,
    clip_memory: Annotated[
        str, typer.Option(help="Clips travel in shared memory, through the socket, or auto: shared if it can be had.")
    ] = "auto",
    max_pixels: Annotated[
        str, typer.Option(help="Pixels of a frame at most; a video with larger ones fails.", metavar="N|WxH")
    ] = "8192x4608",
    max_frames: Annotated[int, typer.Option(help="Frames of a video at most.")] = 10_000_000,
    max_duration: Annotated[float, typer.Option(help="Seconds from a video's first frame to its last at most.")] = (
        172_800.0
    ),
    max_cpu: Annotated[float, typer.Option(help="Seconds of computing that decoding a video may take at most.")] = (
        21_600.0
    ),
    decoder_memory: Annotated[int, typer.Option(help="MiB that a decoder may fill.")] = 4096,
    jail: Annotated[
        str, typer.Option(help="Decoders give up files, programs and networks: auto (where the kernel can), on, off.")
    ] = "auto",
    segments: Annotated[
        bool, typer.Option("--segments", help="Also find from when to when each label holds: segments.jsonl.")
    ] = False,
    enter: Annotated[float, typer.Option(help="A segment starts at this smoothed score …")] = 0.6,
    leave: Annotated[float, typer.Option(help="… and ends below this one.")] = 0.4,
    min_duration: Annotated[float, typer.Option(help="Seconds; a shorter segment is left out.")] = 1.0,
    smooth: Annotated[int, typer.Option(help="Clips in the mean that is a smoothed score.")] = 3,
    frame_rate: Annotated[
        float, typer.Option(help="Frames per second that segments' clips are sampled at; 0: the model's, or 25.")
    ] = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    bind: Annotated[
        str, typer.Option(help="Let decoders of other hosts join there (see 'clipmux decode').", metavar="HOST:PORT")
    ] = "",
    keys: Annotated[
        Path | None,
        typer.Option(help="Folder of keys for --bind and --inference-at; ~/.config/clipmux/keys unless given."),
    ] = None,
    decoders: Annotated[int, typer.Option(help="How many decoders of other hosts may join at --bind.")] = 64,
    inference_at: InferenceAt = "",
    wire: Annotated[
        str, typer.Option(help="Clips go to other machines raw, or as jpeg: smaller, and scores differ a little.")
    ] = "raw",
    metrics: Metrics = "",
    metrics_allow_remote: MetricsAllowRemote = False,
    stuck_after: StuckAfter = 30.0,
    log_format: LogFormat = "text",
    trace: Annotated[Path | None, typer.Option(help="File to write a trace to, for Perfetto or Chrome.")] = None,
    config: ConfigFile = None,  # noqa: ARG001  (its callback does the work)
) -> int:
    """What several commands have in common: ``start`` is ``run_videos`` or takes its place."""
    if not model:
        raise UsageError("no --model: give a model folder (clipmux build export makes one), or 'demo'")
    if not output:
        raise UsageError("no --output: give the run folder to write, for example runs/first")

    from .config import EngineConfig, parse_delay, parse_workers
    from .guards import Guards, parse_pixels
    from .model import read_model
    from .watching import Watching, watched

    watching = Watching(metrics, metrics_allow_remote, stuck_after, log_format, trace)
    settings = EngineConfig(
        model=str(read_model(model).path.resolve()),
        stride=stride,
        top_k=top_k,
        per_clip=per_clip,
        workers=parse_workers(workers),
        max_batch=max_batch,
        device=device,
        backend=backend,
        null_delay_ms=parse_delay(null_delay),
        max_delay_s=max_delay,
        start_timeout_s=start_timeout,
        open_timeout_s=open_timeout,
        decode_timeout_s=decode_timeout,
        device_timeout_s=device_timeout,
        write_timeout_s=write_timeout,
        queue_bytes=queue_memory << 20,
        preprocess=preprocess,
        clip_memory=clip_memory,
        guards=Guards(parse_pixels(max_pixels), max_frames, max_duration, max_cpu),
        decoder_bytes=decoder_memory << 20,
        jail=jail,
        bind=bind,
        keys=str(keys.resolve()) if keys else "",
        far_decoders=decoders if bind else 0,
        inference_at=inference_at,
        wire=wire,
        segments=segments,
        enter=enter,
        leave=leave,
        min_duration_s=min_duration,
        smooth=smooth,
        frame_rate=frame_rate,
    )
    listing = _listed(inputs or [], annotations, root, subset, names)
    from rich.console import Console

    from .prediction import Prediction
    from .run import show_failures

    console = Console(stderr=True)
    failures: list[Prediction] = []

    def keep_failure(prediction: Prediction) -> None:
        if prediction.error is not None:
            failures.append(prediction)

    with watched(watching) as observer:
        status = start(
            listing,
            settings,
            output=output,
            resume=resume,
            console=console,
            on_prediction=keep_failure,
            observer=observer,
        )
    show_failures(failures, console)
    return status


def _listed(inputs: list[str], annotations: Path | None, root: Path | None, subset: str, names: str) -> Any:
    from clipmux.workers.sources import list_annotated, list_videos

    if annotations is None:
        if root is not None:
            raise UsageError(f"--root is '{root}' without --annotations: give both, or plain INPUTs")
        return list_videos(inputs, stdin=sys.stdin, names=names)
    if inputs:
        raise UsageError(f"both --annotations and the input '{inputs[0]}' were given: give one of them")
    if root is None:
        raise UsageError("--annotations needs --root: the folder that holds <label>/<video_id>")
    return list_annotated(annotations, root, subset=subset)


def _variant(
    start: Callable[..., int], doc: str, *, defaults: Mapping[str, Any] = {}, own: Sequence[inspect.Parameter] = ()
) -> Callable[..., None]:
    """A command with ``_classify``'s options.

    Args:
        start: see ``_classify``; gets the values of ``own`` too.
        doc: its help.
        defaults: those that are others than usual.
        own: options that no other has.
    """
    signature = inspect.signature(_classify, eval_str=True)
    usual = [parameter for name, parameter in signature.parameters.items() if name != "start"]
    usual = [parameter.replace(default=defaults.get(parameter.name, parameter.default)) for parameter in usual]

    @functools.wraps(_classify)
    def command(**options: Any) -> int:
        mine = {parameter.name: options.pop(parameter.name) for parameter in own}
        return _classify(functools.partial(start, **mine), **options)

    command.__signature__ = signature.replace(parameters=[*usual, *own])  # type: ignore[attr-defined]
    command.__doc__ = doc
    return exits(command)


def _here(*args: Any, **options: Any) -> int:
    from .run import run_videos

    return run_videos(*args, **options)


def _on_ray(*args: Any, address: str, **options: Any) -> int:
    from .ray_run import RayRun
    from .run import run_videos

    return run_videos(*args, **options, kind=functools.partial(RayRun, address=address))


ADDRESS = inspect.Parameter(
    "address",
    inspect.Parameter.KEYWORD_ONLY,
    default="",
    annotation=Annotated[
        str, typer.Option(help="Of the cluster; else RAY_ADDRESS, else one that is started here.", metavar="HOST:PORT")
    ],
)


run = _variant(
    _here, "Classify videos: clips of different videos share each batch, results come as each video finishes."
)
serve = _variant(
    _here,
    """Classify videos that other hosts decode: they join with 'clipmux decode', and leave, at any time.

    It has no decoders of its own unless --workers says so; everything else is as in 'clipmux run'.""",
    defaults={"bind": "127.0.0.1:7600", "workers": "none"},
)
run_on_ray = _variant(
    _on_ray,
    """Classify videos with an engine on every node of a Ray cluster, into one run folder, which is written here.

    Every node has clipmux, the model and the videos at the same paths. What a lost node had goes to the others.
    Options are those of 'clipmux run'; of --bind, --inference-at, --metrics, --trace and
    --segments a run on Ray has none.""",
    own=[ADDRESS],
)
