"""The ``clipmux`` command."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clipmux.bench.cli import bench_app
from clipmux.bench.scaling import plan
from clipmux.build.cli import build_app

from .errors import UsageError
from .exits import exits
from .inference_options import CONNECT, KEYS, LISTEN, MODEL, SERVER, STAY
from .keys_cli import keys_app

RUN_EXAMPLES = """
Examples:

  clipmux run videos/ --model model --output runs/first

  clipmux run 'clips/**/*.mp4' a.mkv frames_folder/ --model model --output runs/second --top-k 3

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

DECODE_EXAMPLES = """
Examples:

  clipmux decode --connect 10.0.0.7:7600

  clipmux decode --connect 10.0.0.7:7600 --workers 8 --moved /data/videos=/mnt/videos

Exit status: 0 the run is over, or SIGINT or SIGTERM came; 2 wrong usage; 1 the server does not let this host in.
"""

SERVE_INFERENCE_EXAMPLES = """
Examples:

  clipmux run videos/ --model model --device mlu:0 --inference-at ipc:///run/clipmux/engine --output runs/first

  clipmux serve-inference --pack clipmux-inference.pyz

  python3 clipmux-inference.pyz --connect ipc:///run/clipmux/engine --model /models/model

The last one is for the container, which has the folder /run/clipmux too.
"""

WORKERS = "Decoder processes: a number, or auto: as many as the device turns out to need, up to one per core."

LIVE_EXAMPLES = """
Examples:

  clipmux live rtsp://10.0.0.7/cam rtsp://10.0.0.8/cam --model model --http 127.0.0.1:8080

  clipmux live --streams streams.toml --model model --output events.jsonl

  clipmux live recorded.mp4 --model model --pace 4

Events go to standard output as JSON lines unless --output names a file. SIGHUP has the streams file read again.
Exit status: 0 every stream has ended, or SIGINT or SIGTERM came; 2 wrong usage; 1 a process that all need has died.
"""

app = typer.Typer(
    help="Video classification at the speed of the accelerator. Start with: clipmux demo",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CLIPMUX"},
    pretty_exceptions_enable=False,
)
app.add_typer(build_app, name="build")
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.command(short_help="What a load needs: cores, hosts, links, devices.")(plan)


def main() -> None:
    """The console command."""
    app(prog_name="clipmux")


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take defaults from a TOML file; options on the command line and in the environment win."""
    if path is None:
        return None
    from .documents import read_toml

    try:
        content = read_toml(path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"'{path}' cannot be read as TOML: {error}") from None
    known = {parameter.name for parameter in context.command.params}
    settings = {key.replace("-", "_"): value for key, value in content.items()}
    for key in settings:
        if key not in known or key == "config":
            raise typer.BadParameter(f"'{path}' has '{key}', which is not an option of 'clipmux {context.info_name}'")
    context.default_map = {**(context.default_map or {}), **settings}
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with any of these options as keys.", callback=_read_config, is_eager=True),
]

Metrics = Annotated[
    str, typer.Option(help="Serve /metrics and /healthz there, for example at 127.0.0.1:9108.", metavar="IP:PORT")
]
MetricsAllowRemote = Annotated[
    bool, typer.Option("--metrics-allow-remote", help="Even where other machines can read them.")
]
StuckAfter = Annotated[float, typer.Option(help="Seconds without progress after which /healthz calls a stage stuck.")]
LogFormat = Annotated[str, typer.Option(help="Of the log: text, or json (a line of JSON per event).")]


InferenceAt = Annotated[
    str,
    typer.Option(
        help="Inference joins there: ipc:///FOLDER or tcp://HOST:PORT (see 'clipmux serve-inference').",
        metavar="ADDRESS",
    ),
]


def _classify(
    start: Callable[..., int],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT…", help="Files, folders, folders of frames, globs, or - for paths on standard input."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "",
    output: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The reference's JSON, in place of INPUT.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where ROOT/<label>/<video_id> are.")] = None,
    subset: Annotated[str, typer.Option(help="Subset of the annotations.")] = "validation",
    names: Annotated[str, typer.Option(help="Name videos by their file's 'stem' or by their 'path'.")] = "stem",
    stride: Annotated[int, typer.Option(help="Frames from one clip's start to the next's.")] = 16,
    top_k: Annotated[int, typer.Option(help="Labels per prediction.")] = 5,
    per_clip: Annotated[bool, typer.Option("--per-clip", help="Results per clip instead of their mean.")] = False,
    workers: Annotated[str, typer.Option(help=WORKERS)] = "auto",
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
        str, typer.Option(help="Frames to pixels: fast, or exact as the reference (differs by 1 of 255, rarely more).")
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
    if output is None:
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

app.command("run", epilog=RUN_EXAMPLES, short_help="Classify videos.")(
    _variant(_here, "Classify videos: clips of different videos share each batch, results come as each video finishes.")
)
app.command("serve", epilog=SERVE_EXAMPLES, short_help="Classify videos that other hosts decode.")(
    _variant(
        _here,
        """Classify videos that other hosts decode: they join with 'clipmux decode', and leave, at any time.

        It has no decoders of its own unless --workers says so; everything else is as in 'clipmux run'.""",
        defaults={"bind": "127.0.0.1:7600", "workers": "none"},
    )
)
ray_app = typer.Typer(help="Runs over the nodes of a Ray cluster.", no_args_is_help=True)
app.add_typer(ray_app, name="ray")
ray_app.command("run", epilog=RAY_EXAMPLES, short_help="Classify videos on a Ray cluster.")(
    _variant(
        _on_ray,
        """Classify videos with an engine on every node of a Ray cluster, into one run folder, which is written here.

        Every node has clipmux, the model and the videos at the same paths. What a lost node had goes to the others.
        Options are those of 'clipmux run'; of --bind, --metrics, --trace and --segments a run on Ray has none.""",
        own=[ADDRESS],
    )
)


@app.command(epilog=DECODE_EXAMPLES, short_help="Decode for an engine on another host.")
@exits
def decode(
    connect: Annotated[str, typer.Option(help="Where 'clipmux serve' listens.", metavar="HOST:PORT")] = "",
    workers: Annotated[str, typer.Option(help="Decoder processes: a number, or auto: one per core.")] = "auto",
    keys: Annotated[
        Path | None, typer.Option(help="Folder of keys; ~/.config/clipmux/keys unless given.", metavar="FOLDER")
    ] = None,
    server: Annotated[str, typer.Option(help="The name that the server's key is trusted by, if several are.")] = "",
    moved: Annotated[
        list[str] | None,
        typer.Option(help="A folder of videos that is elsewhere here; again for others.", metavar="THERE=HERE"),
    ] = None,
) -> None:
    """Decode videos for 'clipmux serve' on another host, until its run is over.

    Ctrl-C leaves, and the videos that are not finished go to others."""
    if not connect:
        raise UsageError("no --connect: give HOST:PORT, where 'clipmux serve' listens")
    from clipmux.workers.moved import Moved

    from .config import parse_workers, usable_cores
    from .decoder_host import run_host
    from .keys import default_folder, read_keys

    count = parse_workers(workers)
    if not 0 <= count <= 1024:
        raise UsageError(f"--workers is '{workers}': give 1 to 1024, or auto")
    folder = keys or default_folder()
    run_host(
        connect, decoders=count or usable_cores(), keys=read_keys(folder), peer=server, moved=Moved.parse(moved or [])
    )


@app.command("serve-inference", epilog=SERVE_INFERENCE_EXAMPLES, short_help="Inference for an engine elsewhere.")
@exits
def serve_inference(
    connect: Annotated[str, typer.Option(help=CONNECT, metavar="ADDRESS")] = "",
    model: Annotated[str, typer.Option(help=MODEL, metavar="FOLDER")] = "",
    listen: Annotated[str, typer.Option(help=LISTEN, metavar="HOST:PORT")] = "",
    keys: Annotated[str, typer.Option(help=KEYS, metavar="FOLDER")] = "",
    server: Annotated[str, typer.Option(help=SERVER, metavar="NAME")] = "",
    stay: Annotated[bool, typer.Option("--stay", help=STAY)] = False,
    pack: Annotated[
        Path | None, typer.Option(help="Write this command as one file for Python 3.8 and later, and end.")
    ] = None,
) -> None:
    """Have the devices of an engine that runs outside this container, or on another machine.

    With --pack it becomes a file that an older Python executes, with numpy, pyzmq and msgpack alone. Ctrl-C leaves; the
    run waits until it is back."""
    from . import inference_host

    if pack is not None:
        inference_host.pack(pack)
    else:
        inference_host.run_inference_host(connect, model=model, listen=listen, keys=keys, server=server, stay=stay)


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


@app.command(short_help="A run's outcomes as one table.")
@exits
def results(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, also of a run that is going on.")],
    form: Annotated[str, typer.Option("--format", help="json, jsonl, csv or parquet.")] = "jsonl",
    output: Annotated[Path | None, typer.Option(help="File to write; standard output unless given.")] = None,
    per_clip: Annotated[bool, typer.Option("--per-clip", help="A row per clip, of a run with --per-clip.")] = False,
    verbatim: Annotated[
        bool, typer.Option("--verbatim", help="csv: text as it is, even if spreadsheets take it for a formula.")
    ] = False,
) -> None:
    """Every video's outcome as a row, from the run's journal; the columns are in docs/results.md.

    Examples:

      clipmux results runs/first --format csv --output first.csv

      clipmux results runs/first --format parquet --per-clip --output clips.parquet
    """
    from clipmux.workers.table import Table, write_table

    write_table(Table(run, per_clip=per_clip, verbatim=verbatim), form, output)


@app.command(epilog=LIVE_EXAMPLES, short_help="Watch streams as they happen.")
@exits
def live(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE…", help="URLs (rtsp, rtmp, http, udp, tcp, srt), files, or /dev/video0."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "",
    streams: Annotated[Path | None, typer.Option(help="TOML file of streams; read again on SIGHUP.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to append events to, a JSON line each.")] = None,
    http: Annotated[str, typer.Option(help="Address and port of a page, like 127.0.0.1:8080.")] = "",
    token: Annotated[str | None, typer.Option(help="What the page asks for; needed beyond loopback.")] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that is sent every event.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="Broker that is sent every event.")] = None,
    max_latency: Annotated[
        float, typer.Option(help="Seconds from a clip's last frame to its scores; later clips are dropped.")
    ] = 1.0,
    stall: Annotated[float, typer.Option(help="Seconds without a frame after which a stream is stalled.")] = 5.0,
    open_timeout: Annotated[float, typer.Option(help="Seconds that connecting may take.")] = 5.0,
    frame_rate: Annotated[float, typer.Option(help="Frames per second of clips; 0: as model.json says, or 25.")] = 0.0,
    stride_s: Annotated[float, typer.Option("--stride-s", help="Seconds between clips; 0: a clip's length.")] = 0.0,
    pace: Annotated[float, typer.Option(help="Files play so many times faster.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Files begin again when they end.")] = False,
    rtsp_transport: Annotated[str, typer.Option(help="tcp or udp.")] = "tcp",
    max_streams: Annotated[int, typer.Option(help="Streams there is memory for; 0: twice as many, 16 at least.")] = 0,
    max_batch: Annotated[int, typer.Option(help="Clips in one device call at most, up to 64.")] = 64,
    max_delay: Annotated[float, typer.Option(help="Seconds a clip may wait for its batch to fill.")] = 0.03,
    device: Annotated[str, typer.Option(help="cpu, cores like cpu:0-7, mlu:0 or cuda:0.")] = "cpu",
    backend: Annotated[str, typer.Option(help="auto, openvino, magicmind, torch, or null (fixed scores).")] = "auto",
    null_delay: Annotated[str, typer.Option(help="null answers N clips after A+B·N ms.", metavar="A+B")] = "0+0",
    preprocess: Annotated[str, typer.Option(help="Frames to pixels: fast, or exact as the reference.")] = "fast",
    clip_memory: Annotated[
        str, typer.Option(help="Clips travel in shared memory, through the socket, or auto.")
    ] = "auto",
    camera_memory: Annotated[int, typer.Option(help="MiB that a camera's process may fill.")] = 4096,
    jail: Annotated[
        str,
        typer.Option(help="Cameras may only read, compute and reach their source: auto (as far as it goes), on, off."),
    ] = "auto",
    inference_at: InferenceAt = "",
    keys: Annotated[
        Path | None,
        typer.Option(help="Folder of keys for --inference-at tcp://…; ~/.config/clipmux/keys unless given."),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="File to log to; else only a failure leaves a log.")] = None,
    metrics: Metrics = "",
    metrics_allow_remote: MetricsAllowRemote = False,
    stuck_after: StuckAfter = 30.0,
    log_format: LogFormat = "text",
    config: ConfigFile = None,  # noqa: ARG001  (its callback does the work)
) -> int:
    """Classify camera streams as they happen: events as JSON lines, and a page."""
    if not model:
        raise UsageError("no --model: give a model folder (clipmux build export makes one), or 'demo'")

    from rich.console import Console

    from .config import EngineConfig, parse_delay
    from .live_run import parse_http, watch_streams
    from .model import read_model
    from .streams import LiveConfig, read_streams
    from .watching import Watching, watched

    page = parse_http(http, token) if http else None
    folder = str(read_model(model).path.resolve())
    count = len(sources or []) + (len(read_streams(streams)) if streams else 0)
    with watched(Watching(metrics, metrics_allow_remote, stuck_after, log_format), live=True) as observer:
        return watch_streams(
            sources or [],
            streams,
            EngineConfig(
                model=folder,
                max_batch=max_batch,
                device=device,
                backend=backend,
                null_delay_ms=parse_delay(null_delay),
                max_delay_s=max_delay,
                preprocess=preprocess,
                clip_memory=clip_memory,
                decoder_bytes=camera_memory << 20,
                jail=jail,
                keys=str(keys.resolve()) if keys else "",
                inference_at=inference_at,
            ),
            LiveConfig(
                model=folder,
                max_latency_s=max_latency,
                stall_s=stall,
                open_timeout_s=open_timeout,
                frame_rate=frame_rate,
                stride_s=stride_s,
                pace=pace,
                loop=loop,
                rtsp_transport=rtsp_transport,
                max_streams=max_streams or max(16, 2 * count),
                output=str(output) if output else None,
                webhook=webhook,
                mqtt=mqtt,
            ),
            http=page,
            log_file=log,
            console=Console(stderr=True),
            observer=observer,
        )


@app.command(short_help="See it work: made videos, the whole pipeline, a table.")
@exits
def demo(
    output: Annotated[Path | None, typer.Option(help="Folder to write videos and results to.")] = None,
    workers: Annotated[str, typer.Option(help=WORKERS)] = "auto",
) -> int:
    """Write 24 short videos of moving shapes and classify them with the small model that comes with clipmux.

    Example: clipmux demo
    """
    from rich.console import Console

    from clipmux.bench.demo import run_demo
    from clipmux.workers.sources import list_videos

    from .config import EngineConfig, parse_workers
    from .prediction import Prediction
    from .run import run_videos

    folder = output or Path("runs") / datetime.now().astimezone().strftime("demo-%Y%m%d-%H%M%S")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"the folder '{folder}' is not empty: give another --output")
    console = Console()

    def classify(videos: list[Path]) -> dict[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {}

        def keep(prediction: Prediction) -> None:
            found[prediction.video_id] = (prediction.label, prediction.score)

        run_videos(
            list_videos([str(video) for video in videos], stdin=None),
            EngineConfig(model="demo", workers=parse_workers(workers)),
            output=folder / "run",
            resume=False,
            console=console,
            on_prediction=keep,
        )
        return found

    accuracy = run_demo(folder / "videos", classify, console)
    return 0 if accuracy >= 0.95 else 1


@app.command("eval", short_help="Score results against annotations.")
@exits
def evaluate(
    annotations: Annotated[Path, typer.Argument(help="The reference's JSON with labels and subsets.")],
    results: Annotated[Path, typer.Argument(help="results.json, or a run folder.")],
    k: Annotated[
        list[int] | None, typer.Option("-k", help="Count a video right if its label is among k; repeatable.")
    ] = None,
    subset: Annotated[str, typer.Option(help="Subset of the annotations.")] = "validation",
    ignore: Annotated[bool, typer.Option("--ignore", help="Leave out videos without a result.")] = False,
) -> None:
    """Top-k accuracy, as the reference computes and prints it.

    Example: clipmux eval kinetics.json runs/validation -k 1 -k 5
    """
    from clipmux.bench.accuracy import evaluate as accuracy

    accuracy(annotations, results, ks=k or [1], subset=subset, ignore=ignore, say=typer.echo)


@app.command(short_help="Whether clipmux would run here, and on what.")
@exits
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    arch: Annotated[str, typer.Option(help="What MagicMind builds its trial models for.")] = "mtp_372",
) -> int:
    """Look at Python, packages, codecs, the machine, backends and devices; exit status 0 when a run would work.

    Example: clipmux doctor
    """
    from .doctor import diagnose, show, to_json, would_run

    checks = diagnose(arch=arch)
    if as_json:
        typer.echo(to_json(checks))
    else:
        from rich.console import Console

        show(checks, Console())
    return 0 if would_run(checks) else 1


if __name__ == "__main__":
    main()
