"""Where videos are on a host that has them elsewhere than the one that lists them. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipmux.engine.errors import UsageError

from .sources import Video


@dataclass(frozen=True)
class Moved:
    """Folders there and what they are here; the first that a path is in decides.

    Args:
        folders: pairs of (there, here).
    """

    folders: tuple[tuple[str, str], ...] = ()

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

    def to_json(self) -> list[list[str]]:
        return [list(pair) for pair in self.folders]

    @classmethod
    def from_json(cls, content: Sequence[Sequence[str]]) -> Moved:
        return cls(tuple((there, here) for there, here in content))

    def video(self, video: Video) -> Video:
        """The video with its path here."""
        for there, here in self.folders:
            if PurePosixPath(video.path).is_relative_to(there):
                return dataclasses.replace(video, path=Path(here) / video.path.relative_to(there))
        return video
