"""``clipmux decode`` and ``clipmux serve-inference``: what runs for an engine elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import UsageError
from .exits import exits
from .inference_options import CONNECT, KEYS, LISTEN, MODEL, SERVER, STAY

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
    fetch: Annotated[
        bool, typer.Option("--fetch", help="The videos are not here: their bytes come through the connection.")
    ] = False,
) -> None:
    """Decode videos for 'clipmux serve' on another host, until its run is over.

    Ctrl-C leaves, and the videos that are not finished go to others."""
    if not connect:
        raise UsageError("no --connect: give HOST:PORT, where 'clipmux serve' listens")
    from clipmux.workers.moved import Moved

    from .config import parse_workers, usable_cores
    from .decoder_host import run_host
    from .keys import default_folder, read_keys

    if fetch and moved:
        raise UsageError(f"--fetch is given beside --moved {moved[0]}: give one of them")
    count = parse_workers(workers)
    if not 0 <= count <= 1024:
        raise UsageError(f"--workers is '{workers}': give 1 to 1024, or auto")
    folder = keys or default_folder()
    run_host(
        connect,
        decoders=count or usable_cores(),
        keys=read_keys(folder),
        peer=server,
        moved=Moved.parse(moved or []),
        fetch=fetch,
    )


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
