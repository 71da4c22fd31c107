"""Encoded shape videos: they are what they say they are, and the same every time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from clipmux.bench.demo import accuracy, demo_truth, run_demo
from clipmux.bench.videos import ShapeVideo, available_encodings, write_shape_videos, write_short_videos
from clipmux.build.shapes import HELD_OUT_SEED, LABELS, Scene
from clipmux.engine.errors import UsageError

SMALL = ((160, 120), (96, 128))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[ShapeVideo]:
    return write_shape_videos(tmp_path_factory.mktemp("videos"), count=20, sizes=SMALL, seconds=(0.3, 0.8))


def decoded(video: ShapeVideo) -> list[np.ndarray]:
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (video.width, video.height)
        assert stream.average_rate == video.rate
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_videos_decode_to_the_promised_frames(written: list[ShapeVideo]) -> None:
    for video in written:
        frames = decoded(video)
        assert len(frames) == video.frames, video.path.name
        scene = Scene(video.label, video.seed, video.height, video.width, float(video.rate))
        for index in (0, video.frames - 1):
            difference = np.abs(frames[index].astype(int) - scene.frame(index)).mean()
            assert difference < 12, (video.path.name, index)


def test_every_class_encoding_and_size_has_its_turn(written: list[ShapeVideo]) -> None:
    assert sorted(video.label for video in written) == sorted(LABELS * 2)
    assert {video.encoding for video in written} == {encoding.name for encoding in available_encodings()}
    assert {(video.width, video.height) for video in written} == set(SMALL)
    assert len({video.path.stem for video in written}) == len(written)
    assert len(available_encodings()) >= 5


def test_no_video_is_of_a_training_scene(written: list[ShapeVideo], tmp_path: Path) -> None:
    other = write_shape_videos(tmp_path, count=3, seed=1, sizes=SMALL, seconds=(0.2, 0.2))
    seeds = [video.seed for video in [*written, *other]]
    assert min(seeds) >= HELD_OUT_SEED
    assert len(set(seeds)) == len(seeds)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_shape_videos(tmp_path / name, count=8, sizes=SMALL, seconds=(0.2, 0.4)) for name in "ab")
    for first, second in zip(one, two, strict=True):
        assert first.path.name == second.path.name
        assert first.path.read_bytes() == second.path.read_bytes(), first.path.name


def test_many_short_videos_are_files_of_their_own(tmp_path: Path) -> None:
    videos = write_short_videos(tmp_path, 105, frames=5, size=(64, 48), distinct=4, rate=Fraction(10))
    assert len(list(tmp_path.iterdir())) == 105
    assert len({video.path.stem for video in videos}) == 105
    assert videos[4].path.read_bytes() == videos[0].path.read_bytes() != videos[1].path.read_bytes()
    assert all(video.path.stat().st_nlink == 1 for video in videos)
    assert len(decoded(videos[104])) == 5
    assert videos[104].label in videos[104].path.name


@pytest.mark.parametrize(
    ("options", "said"),
    [({"count": 0}, "0 videos"), ({"seed": -1}, "seed -1"), ({"seconds": (2.0, 1.0)}, "from 2.0 to 1.0")],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write_shape_videos(tmp_path, **options)


def test_the_demonstration_counts_what_is_right(tmp_path: Path) -> None:
    def classify(paths: list[Path]) -> dict[str, tuple[str, float]]:
        """Right for all but two: one wrong, one failed."""
        truth = {path.stem: (path.stem.partition("_")[2], 0.75) for path in paths}
        wrong, failed = sorted(truth)[:2]
        del truth[failed]
        truth[wrong] = ("none of these", 0.125)
        return truth

    console = Console(record=True, width=100, file=(tmp_path / "printed").open("w"))
    share = run_demo(tmp_path / "demo", classify, console, count=4)
    console.file.close()
    text = console.export_text()
    videos = list((tmp_path / "demo").iterdir())
    assert share == (len(videos) - 2) / len(videos)
    assert text.count("✗") == 2
    assert text.count("✓") == len(videos) - 2
    assert "none of these" in text
    assert "failed" in text
    assert f"{len(videos) - 2} of {len(videos)} videos are right" in text


def test_accuracy_counts_a_missing_prediction_as_wrong(written: list[ShapeVideo]) -> None:
    truth = demo_truth(written)
    right = {stem: (label, 1.0) for stem, label in truth.items()}
    assert accuracy(truth, right) == 1.0
    right.pop(written[0].path.stem)
    assert accuracy(truth, right) == 19 / 20
    assert accuracy(truth, {}) == 0.0
