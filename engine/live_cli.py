"""``clipmux live``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from .errors import UsageError
from .exits import exits
from .options import ConfigFile, InferenceAt, LogFormat, Metrics, MetricsAllowRemote, StuckAfter

LIVE_EXAMPLES = """
Examples:

  clipmux live rtsp://10.0.0.7/cam rtsp://10.0.0.8/cam --model model --http 127.0.0.1:8080

  clipmux live --streams streams.toml --model model --output events.jsonl

  clipmux live recorded.mp4 --model model --pace 4

Events go to standard output as JSON lines unless --output names a file. SIGHUP has the streams file read again.
Exit status: 0 every stream has ended, or SIGINT or SIGTERM came; 2 wrong usage; 1 a process that all need has died.
"""


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
    max_delay: Annotated[
        float, typer.Option(help="Seconds a clip waits for its batch to fill while the device idles.")
    ] = 0.0,
    device: Annotated[
        str, typer.Option(help="cpu, cores like cpu:0-7, mlu:0 or cuda:0; several with commas between.")
    ] = "cpu",
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
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it would end us now; it waits for who can hear it

    from rich.console import Console

    from .config import EngineConfig, memory_of, parse_delay
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
                decoder_bytes=memory_of(camera_memory, "--camera-memory"),
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
