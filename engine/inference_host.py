"""An inference host: the devices of an engine that runs elsewhere, in another container or on another machine.

Vendors' images carry an older Python. So this module, and whatever it imports, runs on Python 3.8 with numpy, pyzmq and
msgpack alone, and ``pack`` writes it all into one file that such a Python executes::

    python3 clipmux-inference.pyz --connect ipc:///run/clipmux/engine
"""

from __future__ import annotations

import argparse
import signal
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .children import INFERENCE
from .clips import Way
from .errors import ClipmuxError, UsageError
from .far_host import FarHost, own_host, say_so
from .inference_options import CONNECT, KEYS, LISTEN, MODEL, SERVER, STAY
from .keys import Keys, default_folder, read_keys, the_peer
from .logs import TEXT, log_child
from .messages import Control, Offer
from .model import read_model
from .sockets import IPC, Addresses, addresses_at, addresses_in, outside_only, split_address

PACKED = ("engine", "engine/backends")
"""What goes into the file: more than is needed, so that nothing has to be listed."""


class InferenceHost(FarHost):
    """The devices of the engine at ``server``.

    Args:
        server: ``ipc://FOLDER`` of its sockets, or ``tcp://HOST:PORT``.
        model: the model folder here; nothing: where the engine has it.
        listen: ``HOST:PORT`` where clips are taken over TCP.
        keys: one's own keys, and those that are trusted; None over ``ipc://``.
        peer: the name that the engine's key is trusted by.
        stay: wait for the next run when one is over.
        say: told, in one sentence, of what changes.

    Raises:
        UsageError: the two addresses do not belong together.
    """

    def __init__(
        self,
        server: str,
        *,
        model: str = "",
        listen: str = "",
        keys: Keys | None = None,
        peer: str = "",
        stay: bool = False,
        say: Callable[[str], None] = say_so,
    ) -> None:
        self.near = server.startswith(IPC)
        if self.near:
            if not server.startswith(f"{IPC}/"):
                raise UsageError(f"--connect is '{server}': give ipc:///FOLDER, with the whole path")
            if listen:
                raise UsageError(
                    f"--listen is '{listen}' beside '{server}': clips come through the folder, leave it out"
                )
        else:
            split_address(server)
            if not listen:
                raise UsageError("no --listen: give HOST:PORT where decoders reach this host")
            split_address(listen)
        super().__init__(server, INFERENCE, keys=keys, peer=peer, stay=stay, say=say)
        self.model = model
        self.listen = listen

    def offer(self) -> Control:
        key = "" if self.keys is None else self.keys.public.decode()
        return Offer(own_host(), self.listen, key)

    def addresses(self, folder: Path, devices: int) -> Addresses:
        if self.near:
            there = addresses_in(Path(self.server[len(IPC) :]), devices=devices)
            return replace(there, feed=f"{IPC}{folder}/feed")
        return addresses_at(self.server, folder, devices=0)

    def content(self, told: dict[str, Any], folder: Path) -> dict[str, Any]:
        (way,) = (Way.from_json(way) for way in told["clips"])
        device = told["device"]
        if self.near:
            address = self.addresses(folder, device + 1).clips[device]
        else:
            assert self.keys is not None  # noqa: S101  (nobody joins over TCP without)
            address = outside_only(self.listen, self.keys.folder.resolve(), devices=device + 1)[device]
        config = {**told["config"], **({"model": self.model} if self.model else {})}
        return {**told, "config": config, "clips": [replace(way, address=address, fd=-1).to_json()]}


def run_inference_host(
    connect: str, *, model: str = "", listen: str = "", keys: str = "", server: str = "", stay: bool = False
) -> None:
    """``InferenceHost`` as the command runs it: SIGINT and SIGTERM make it leave.

    Args:
        connect: see ``CONNECT`` in inference_options.py; the others are described below it.
        model: see there.
        listen: see there.
        keys: see there.
        server: see there.
        stay: see there.

    Raises:
        UsageError: that cannot be done as it was asked for.
        ClipmuxError: the engine does not let it in, or cannot use it.
    """
    if not connect:
        raise UsageError("no --connect: give what the engine's --inference-at says")
    log_child(sys.stderr.fileno(), process="inference host", form=TEXT)
    own = None if connect.startswith(IPC) else read_keys(Path(keys) if keys else default_folder())
    host = InferenceHost(
        connect,
        model=str(read_model(model).path.resolve()) if model else "",
        listen=listen,
        keys=own,
        peer="" if own is None else the_peer(own, server),
        stay=stay,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: host.leave())
    host.run()


def pack(file: Path) -> None:
    """Write this command as one file that Python 3.8 and later execute.

    Raises:
        UsageError: it cannot be written.
    """
    root = Path(__file__).resolve().parent.parent
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("clipmux/__init__.py", "")
            for folder in PACKED:
                for path in sorted((root / folder).glob("*.py")):
                    archive.write(path, f"clipmux/{folder}/{path.name}")
            archive.writestr("__main__.py", "from clipmux.engine.inference_host import main\n\nmain()\n")
    except OSError as error:
        raise UsageError(f"'{file}' cannot be written ({error.strerror}): give another file") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """What the file executes."""
    parser = argparse.ArgumentParser(
        prog="clipmux-inference",
        description="Inference for an engine that runs elsewhere (clipmux run --inference-at).",
    )
    parser.add_argument("--connect", default="", metavar="ADDRESS", help=CONNECT)
    parser.add_argument("--model", default="", metavar="FOLDER", help=MODEL)
    parser.add_argument("--listen", default="", metavar="HOST:PORT", help=LISTEN)
    parser.add_argument("--keys", default="", metavar="FOLDER", help=KEYS)
    parser.add_argument("--server", default="", metavar="NAME", help=SERVER)
    parser.add_argument("--stay", action="store_true", help=STAY)
    try:
        run_inference_host(**vars(parser.parse_args(arguments)))
    except ClipmuxError as error:
        say_so(f"clipmux: {error}")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
