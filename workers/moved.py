"""Where videos are on a host that has them elsewhere than the one that lists them. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipmux.engine.errors import UsageError

from .sources import Video


@dataclass(frozen=True)
class Moved:
    """Folders there and what they are here; the first that a path is in decides.

    Args:
        folders: pairs of (there, here).
        base: what relative paths are relative to, there; nothing: this process's own folder.
    """

    folders: tuple[tuple[str, str], ...] = ()
    base: str = ""

    @classmethod
    def parse(cls, options: Sequence[str]) -> Moved:
        """``THERE=HERE``, any number of times.

        Raises:
            UsageError: an option is something else.
        """
        pairs = []
        for option in options:
            there, equals, here = option.partition("=")
            if not equals or not there.startswith("/") or not here.startswith("/"):
                raise UsageError(f"--moved is '{option}': give THERE=HERE, two absolute paths of folders")
            pairs.append((there, here))
        return cls(tuple(pairs))

    def to_json(self) -> dict[str, Any]:
        return {"folders": [list(pair) for pair in self.folders], "base": self.base}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Moved:
        return cls(tuple((there, here) for there, here in content["folders"]), content["base"])

    def video(self, video: Video) -> Video:
        """The video with its path here."""
        if video.url:
            return video
        path = PurePosixPath(self.base, video.path)
        for there, here in self.folders:
            if path.is_relative_to(there):
                return dataclasses.replace(video, path=Path(here) / path.relative_to(there))
        return dataclasses.replace(video, path=Path(path))
