"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WORKERS = "Decoder processes: a number, or auto: as many as the device turns out to need, up to one per core."


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
