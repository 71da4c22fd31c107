"""JSON and TOML that come from outside, read within bounds: whatever is wrong with one is one kind of error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LONGEST = 1 << 24
"""Bytes at most of what a person writes, or of what describes a model or a run."""
TOML_LONGEST, DOTS_MOST = 1 << 18, 1000
"""Bytes of a TOML at most, and dots of a line: a key of 32,000 parts, which is a line of 64 KB, takes Python 40 s."""
LISTS_LONGEST = 1 << 29
"""Bytes at most of a list of videos, or of their results."""


def read_text(path: Path, *, longest: int = LONGEST, encoding: str = "utf-8") -> str:
    """The text of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, or longer than ``longest`` bytes; says so.
    """
    with path.open("rb") as file:
        content = file.read(longest + 1)  # no more, even of a device that has no end
    if len(content) > longest:
        raise ValueError(f"it is longer than {longest:,} bytes")
    return content.decode(encoding)


def parse_json(text: str | bytes) -> Any:
    """JSON as Python.

    Raises:
        ValueError: it is none, or nested deeper than Python can read; says so.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, *, longest: int = LONGEST, encoding: str = "utf-8") -> Any:
    """The JSON in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or longer than ``longest`` bytes; says so.
    """
    return parse_json(read_text(path, longest=longest, encoding=encoding))


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not TOML, too long, or takes too long; says so.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = read_text(path, longest=TOML_LONGEST)
    if any(line.count(".") > DOTS_MOST for line in text.splitlines()):
        raise ValueError(f"it has a line with more than {DOTS_MOST:,} dots: break it")
    try:
        content: dict[str, Any] = tomllib.loads(text)
        _check_shown(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def _check_shown(content: object) -> None:
    """A number in hexadecimal may have more digits than Python shows, also to say that it is refused."""
    try:
        repr(content)
    except ValueError:
        raise ValueError("it holds a number of too many digits") from None


def check_text(content: object) -> None:
    """See to it that what was read can be written again: JSON can say half a surrogate pair, which is no character.

    Raises:
        ValueError: some text holds one; says so.
    """
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise ValueError(f"it holds {item[:40]!a}, which is no text") from None
        elif isinstance(item, dict):
            waiting += item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
