"""docs/: every clipmux command in them parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from clipmux.engine.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("kinetics.md", "benchmarks.md", "live.md", "observability.md", "results.md", "scaling.md", "security.md")


def commands(name: str) -> list[str]:
    blocks = re.findall(r"```(\w*)\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    text = "\n".join(block for language, block in blocks if not language)
    lines = text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip().startswith("clipmux ")]


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
def test_command_parses(line: str) -> None:
    """Down to the last group, without running anything; paths need not exist."""
    command = typer.main.get_command(app)
    context = command.make_context("clipmux", shlex.split(line)[1:])
    while hasattr(context.command, "resolve_command"):
        name, inner, rest = context.command.resolve_command(
            context, [*getattr(context, "_protected_args", []), *context.args]
        )
        context = inner.make_context(name, rest, parent=context)


def test_there_are_commands() -> None:
    assert len(commands("kinetics.md")) >= 9
    assert len(commands("benchmarks.md")) >= 15
