"""How a command ends: our errors as one sentence on standard error, with the exit status that belongs to them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from .errors import ClipmuxError
from .logs import printable

Arguments = ParamSpec("Arguments")


def exits(command: Callable[Arguments, int | None]) -> Callable[Arguments, None]:
    """Turn our errors into one sentence on standard error and the exit status that belongs to them."""

    @functools.wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            status = command(*args, **kwargs)
        except ClipmuxError as error:
            print(printable(f"clipmux: {error}"), file=sys.stderr)  # noqa: T201
            status = error.exit_status
        except KeyboardInterrupt:
            print("clipmux: interrupted", file=sys.stderr)  # noqa: T201
            status = 130
        except BrokenPipeError:
            status = 1
        raise typer.Exit(status or 0)

    return wrapped
