"""Where a decoder host looks for videos that are elsewhere on the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipmux.engine.errors import UsageError
from clipmux.workers.moved import Moved
from clipmux.workers.sources import Video


@pytest.mark.parametrize(
    ("options", "base", "there", "here"),
    [
        ([], "", "/data/videos/a.mp4", "/data/videos/a.mp4"),
        ([], "/srv", "videos/a.mp4", "/srv/videos/a.mp4"),
        ([], "/srv", "/data/a.mp4", "/data/a.mp4"),
        (["/data=/mnt"], "/srv", "/data/videos/a.mp4", "/mnt/videos/a.mp4"),
        (["/data=/mnt"], "/srv", "/database/a.mp4", "/database/a.mp4"),
        (["/srv/videos=/mnt"], "/srv", "videos/a.mp4", "/mnt/a.mp4"),
        (["/data/new=/fast", "/data=/mnt"], "/", "/data/new/a.mp4", "/fast/a.mp4"),
        (["/data/new=/fast", "/data=/mnt"], "/", "/data/old/a.mp4", "/mnt/old/a.mp4"),
    ],
)
def test_a_path_there_is_a_path_here(options: list[str], base: str, there: str, here: str) -> None:
    parsed = Moved.parse(options)
    moved = Moved.from_json(Moved(parsed.folders, base).to_json())
    video = Video("a", Path(there), "file", label="x")
    assert moved.video(video) == Video("a", Path(here), "file", label="x")


@pytest.mark.parametrize("option", ["", "/data", "/data=", "data=/mnt", "/data=mnt", "=/mnt"])
def test_what_is_no_pair_of_folders_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="give THERE=HERE"):
        Moved.parse([option])
