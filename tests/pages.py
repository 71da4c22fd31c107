"""Pages whose commands stand there with what they print; ``python tests/pages.py PAGE`` writes what they print now.

Such a block begins with ``` ```console ```, each command in it with ``$``; what follows up to the next one is printed.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from command import clipmux

BLOCK = re.compile(r"(?<=```console\n)(.*?)(?=```)", re.DOTALL)


def examples(text: str) -> list[tuple[str, str]]:
    """Every command and what stands below it."""
    return [example for block in BLOCK.findall(text) for example in _of_block(block)]


def printed(command: str) -> str:
    """What a command prints now, 120 columns wide.

    Raises:
        AssertionError: it does not end well.
    """
    name, *arguments = shlex.split(command.replace("\\\n", " "))
    assert name == "clipmux", command
    done = clipmux(*arguments, COLUMNS="120", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def rewritten(text: str) -> str:
    """The page with what its commands print now."""

    def renew(block: re.Match[str]) -> str:
        return "".join(f"$ {command}\n{printed(command)}" for command, _ in _of_block(block[0]))

    return BLOCK.sub(renew, text)


def _of_block(block: str) -> list[tuple[str, str]]:
    found = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    assert found, block
    return found


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
