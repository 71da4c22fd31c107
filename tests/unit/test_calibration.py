"""Calibration clips: drawn evenly, by lot, and exactly what a run would send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from media import cut

from clipmux.bench.videos import write_short_videos
from clipmux.build.calibration import draw_clips, normalised
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder
from clipmux.workers.decode import decode
from clipmux.workers.exact import Exact
from clipmux.workers.sources import video_at
from clipmux.workers.windows import windows

MODEL = ModelFolder(
    path=Path("model"),
    name="small",
    network="model.onnx",
    labels=("a", "b"),
    frames=8,
    height=32,
    width=48,
    mean=(0.1, 0.2, 0.3),
    std=(0.5, 0.6, 0.7),
)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 43 frames: six windows each, the last one padded."""
    folder = tmp_path_factory.mktemp("calibration")
    write_short_videos(folder, 6, frames=43, size=(96, 64), distinct=6)
    return folder


def test_clips_are_spread_evenly_over_all_videos(videos: Path) -> None:
    drawn = draw_clips([str(videos)], MODEL, clips=15)
    assert drawn.clips.shape == (15, 8, 32, 48, 3)
    assert drawn.clips.dtype == np.uint8
    assert sorted(Counter(clip["video"] for clip in drawn.drawn).values()) == [2, 2, 2, 3, 3, 3]
    assert len({(clip["video"], clip["start"]) for clip in drawn.drawn}) == 15
    assert drawn.skipped == []


def test_a_few_clips_come_from_as_many_videos(videos: Path) -> None:
    drawn = draw_clips([str(videos)], MODEL, clips=4)
    assert len({clip["video"] for clip in drawn.drawn}) == 4


def test_no_video_gives_more_than_it_may_or_has(videos: Path) -> None:
    assert len(draw_clips([str(videos)], MODEL, per_video=2).clips) == 12
    drawn = draw_clips([str(videos)], MODEL, per_video=50)
    assert len(drawn.clips) == 36
    assert {clip["start"] for clip in drawn.drawn} == {0, 8, 16, 24, 32, 40}


def test_each_clip_is_the_window_that_a_run_would_send(videos: Path) -> None:
    drawn = draw_clips([str(videos)], MODEL, clips=12, seed=5)
    for clip, said in zip(drawn.clips, drawn.drawn, strict=True):
        frames = decode(video_at(videos / said["video"]))
        every = windows(frames, length=8, stride=8, keep=Exact(32, 48))
        expected = {window.start: np.stack(window.frames) for window in every}
        assert np.array_equal(clip, expected[said["start"]])


def test_the_seed_decides(videos: Path) -> None:
    first, again, other = (draw_clips([str(videos)], MODEL, clips=10, seed=seed) for seed in (3, 3, 4))
    assert first.drawn == again.drawn
    assert np.array_equal(first.clips, again.clips)
    assert first.drawn != other.drawn
    assert (first.seed, other.seed) == (3, 4)


def test_every_window_is_as_likely_as_every_other(videos: Path) -> None:
    """120 draws of one of six windows: 20 each, give or take; one half as often would be 10 in a row of chances."""
    starts = Counter(
        draw_clips([str(videos)], MODEL, clips=6, seed=seed).drawn[n]["start"] for seed in range(20) for n in range(6)
    )
    assert set(starts) == {0, 8, 16, 24, 32, 40}
    assert min(starts.values()) >= 8


def test_unreadable_videos_are_skipped_and_listed(videos: Path, tmp_path: Path) -> None:
    for path in sorted(videos.iterdir())[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    cut(sorted(videos.iterdir())[2], tmp_path / "cut.mp4", 0.6)
    drawn = draw_clips([str(tmp_path)], MODEL, clips=10, per_video=5)
    assert len(drawn.clips) == 10  # the others stand in for them
    assert sorted(name for name, _ in drawn.skipped) == ["cut.mp4", "empty.mp4", "text.mp4"]
    assert all(name in reason for name, reason in drawn.skipped)


def test_not_one_readable_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UsageError, match=r"not one of 1 calibration videos .*text\.mp4.*: give videos that play"):
        draw_clips([str(tmp_path)], MODEL)
    with pytest.raises(UsageError, match="nowhere"):
        draw_clips([str(tmp_path / "nowhere" / "*.mp4")], MODEL)
    with pytest.raises(UsageError, match=r"missing\.mp4"):
        draw_clips([str(tmp_path / "missing.mp4")], MODEL)


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"per_video": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], videos: Path) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        draw_clips([str(videos)], MODEL, **wrong)


@pytest.mark.parametrize("layout", ["NCDHW", "NDHWC"])
def test_normalised_clips_are_the_networks_own_input(layout: str) -> None:
    model = ModelFolder(**{**vars(MODEL), "layout": layout})
    clips = np.random.default_rng(0).integers(0, 256, (2, *model.clip_shape), dtype=np.uint8)
    values = normalised(clips, model)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    channel = values[1, 2, 3] if layout == "NCDHW" else values[1, 3, ..., 2]
    assert np.allclose(channel, (clips[1, 3, ..., 2] / 255 - 0.3) / 0.7, atol=1e-6)
