"""``clipmux keys``: who may connect over TCP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .exits import exits

keys_app = typer.Typer(help="Keys of machines that work together over TCP.", no_args_is_help=True)

Folder = Annotated[
    Path | None, typer.Option("--keys", help="Folder of keys; ~/.config/clipmux/keys unless given.", metavar="FOLDER")
]


@keys_app.command(short_help="Make a pair of keys of one's own.")
@exits
def new(keys: Folder = None) -> None:
    """Make a pair of keys, and print the public one: what peers are told to trust.

    Example: clipmux keys new
    """
    from .keys import default_folder, make_keys

    made = make_keys(keys or default_folder())
    typer.echo(made.public.decode())


class _Trust(TyperCommand):
    """A key may start with "-"; it is no option then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from .keys import KEY_LENGTH

        keys = [arg for arg in args if arg[:1] == "-" and len(arg) == KEY_LENGTH and not arg.startswith("--keys=")]
        if keys and "--" not in args:
            args = [*(arg for arg in args if arg not in keys), "--", *keys]
        return super().parse_args(ctx, args)


@keys_app.command(cls=_Trust, short_help="Let a peer connect.")
@exits
def trust(
    name: Annotated[str, typer.Argument(help="What to call the peer.")],
    key: Annotated[str, typer.Argument(help="Its public key: what 'clipmux keys new' printed there.")],
    keys: Folder = None,
) -> None:
    """Let the peer that has this public key connect.

    Example: clipmux keys trust camera-host 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'
    """
    from .keys import default_folder
    from .keys import trust as trust_key

    trust_key(keys or default_folder(), name, key)


@keys_app.command("list", short_help="Show one's own public key and who is trusted.")
@exits
def list_keys(keys: Folder = None) -> None:
    """One's own public key first, then a line for each trusted peer. Secret keys are never shown.

    Example: clipmux keys list
    """
    from .keys import default_folder, read_keys

    read = read_keys(keys or default_folder())
    typer.echo(f"{read.public.decode()}  (this machine's own, in '{read.folder}')")
    for key, name in sorted(read.trusted.items(), key=lambda item: item[1]):
        typer.echo(f"{key.decode()}  {name}")
