"""The Python face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clipmux.bench.videos import write_short_videos
from clipmux.engine import Engine, Prediction, UsageError, VideoError


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    return [video.path for video in write_short_videos(tmp_path / "videos", 6, frames=20, size=(96, 64))]


def test_yields_a_prediction_per_video(videos: list[Path], null_model: Path) -> None:
    with Engine(null_model, backend="null", top_k=3, per_clip=True) as engine:
        found = {prediction.video_id: prediction for prediction in engine.classify(videos)}
        assert set(found) == {path.stem for path in videos}
        first = found[videos[0].stem]
        assert isinstance(first, Prediction)
        assert (first.label, first.clips, first.frames, len(first.labels)) == ("class 0", 2, 20, 3)
        assert [clip.segment.start for clip in first.per_clip] == [1, 17]
        before = {child.pid for child in psutil.Process().children()}
        assert len(list(engine.classify(str(videos[0].parent)))) == 6  # a folder; the same processes go on
        assert {child.pid for child in psutil.Process().children()} == before
    assert not psutil.Process().children()


def test_a_batch_does_not_wait_for_clips_that_have_no_place(tmp_path: Path, null_model: Path) -> None:
    """One video among sixteen decoders, each of which may have fewer clips on their way than a batch takes."""
    short, long = (write_short_videos(tmp_path / str(frames), 1, frames=frames)[0].path for frames in (16, 1600))
    with Engine(null_model, backend="null", workers=16, max_batch=64, max_delay_s=1000.0) as engine:
        for _ in range(1000):
            assert len(list(engine.classify([short]))) == 1
            assert engine._supervisor is not None
            if all(child.ready for child in engine._supervisor.processes):  # and has its share of the memory
                break
        assert [prediction.clips for prediction in engine.classify([long])] == [100]


def test_leaving_it_starts_no_more_decoders(tmp_path: Path, null_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are started while the others stop would be waited for, and killed in the end."""
    video = write_short_videos(tmp_path, 1, frames=20, size=(96, 64))[0].path
    started: list[int] = []
    with Engine(null_model, backend="null") as engine:
        assert len(list(engine.classify([video]))) == 1
        assert engine._supervisor is not None
        monkeypatch.setattr(engine._supervisor._growth, "look", lambda *_: 1)
        monkeypatch.setattr(engine._supervisor, "_start_decoder", started.append)
    assert started == []


def test_a_bad_video_is_yielded_with_its_error(videos: list[Path], null_model: Path) -> None:
    with Engine(null_model, backend="null") as engine:
        found = {prediction.video_id: prediction for prediction in engine.classify([*videos, "absent.mp4"])}
    assert len(found) == 7
    assert found["absent"].error is not None
    with pytest.raises(VideoError, match=r"there is no file 'absent.mp4'"):
        _ = found["absent"].label


def test_breaking_off_or_raising_leaves_no_process(videos: list[Path], null_model: Path) -> None:
    with Engine(null_model, backend="null") as engine:
        for _ in engine.classify(videos):
            break
        assert not psutil.Process().children()
        with pytest.raises(ZeroDivisionError):
            _ = [prediction.clips / 0 for prediction in engine.classify(videos)]
        assert not psutil.Process().children()
        assert len(list(engine.classify(videos))) == 6  # and the engine can be used again


def test_reads_endless_iterables_as_it_goes(videos: list[Path], null_model: Path) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            for path in videos:
                taken += 1
                yield path

    with Engine(null_model, backend="null", workers=2) as engine:
        for count, _ in enumerate(engine.classify(endless()), start=1):
            if count == 40:
                break
    assert 40 <= taken < 400


def test_an_error_in_the_iterable_reaches_the_caller(videos: list[Path], null_model: Path) -> None:
    def failing() -> Iterator[Path]:
        yield videos[0]
        raise LookupError("no more")

    with Engine(null_model, backend="null") as engine, pytest.raises(LookupError):
        list(engine.classify(failing()))
    assert not psutil.Process().children()


def test_wrong_options_are_refused_before_anything_starts(null_model: Path) -> None:
    with pytest.raises(UsageError, match="--stride is 0"):
        Engine(null_model, stride=0)
    with pytest.raises(UsageError, match="'absent'"):
        Engine("absent")


def test_an_engine_that_could_not_start_says_so_each_time(videos: list[Path]) -> None:
    engine = Engine("demo", device="cpu:4094,cpu:4095")
    for _ in range(2):
        with pytest.raises(UsageError, match="not among the cores"):
            list(engine.classify(videos))


def test_segments_have_no_place_here(null_model: Path) -> None:
    with pytest.raises(UsageError, match=r"segments=True: .*clipmux run --segments"):
        Engine(null_model, segments=True)
