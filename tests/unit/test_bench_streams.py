"""What a benchmark of streams makes of its counts, and how it searches; nothing is played."""

from __future__ import annotations

import contextlib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmux.bench import streams
from clipmux.bench.streams import Trial, fair_shares, frame_rate, search
from clipmux.bench.videos import write_short_videos
from clipmux.engine.errors import ClipmuxError, UsageError, VideoError


def trial(number: int, **changed: object) -> Trial:
    values = {
        "streams": number, "seconds": 60.0, "p50_s": 0.1, "p99_s": 0.2, "scored": 100, "dropped": 0, "at_pace": 1.0,
        "device_busy": 0.5, "memory": (1, 1), "by_stream": (),
    }  # fmt: skip
    return Trial(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "holds"), [({}, True), ({"dropped": 1}, False), ({"at_pace": 0.9}, False), ({"p99_s": 0.51}, False)]
)
def test_what_sustained_means(changed: dict[str, object], holds: bool) -> None:
    assert trial(4, **changed).sustained(0.5) is holds


@pytest.mark.parametrize(
    ("wants", "total", "shares"),
    [
        ({"a": (1, 100), "b": (1, 100)}, 60, {"a": 30, "b": 30}),
        ({"a": (1, 100), "b": (2, 100)}, 60, {"a": 20, "b": 40}),
        ({"a": (1, 100), "b": (2, 10)}, 60, {"a": 50, "b": 10}),
        ({"a": (1, 5), "b": (2, 10)}, 60, {"a": 5, "b": 10}),
        ({"a": (1, 20), "b": (1, 30), "c": (1, 100)}, 90, {"a": 20, "b": 30, "c": 40}),
    ],
)
def test_shares(wants: dict[str, tuple[float, float]], total: float, shares: dict[str, float]) -> None:
    assert fair_shares(wants, total) == pytest.approx(shares)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 100)), min_size=1, max_size=6), st.floats(0, 500))
def test_shares_leave_nothing_and_give_nobody_too_much(wants: list[tuple[float, float]], total: float) -> None:
    shares = fair_shares(dict(enumerate(wants)), total)
    assert sum(shares.values()) == pytest.approx(min(total, sum(offer for _, offer in wants)), abs=1e-6)
    assert all(shares[at] <= offer + 1e-6 for at, (_, offer) in enumerate(wants))


def test_unfairness_is_the_largest_difference_from_a_share() -> None:
    fair = trial(3, by_stream=((1.0, 90, 10), (1.0, 90, 10), (2.0, 90, 20)))
    assert fair.unfair == pytest.approx(0)
    assert trial(2, by_stream=((1.0, 90, 12), (2.0, 90, 18))).unfair == pytest.approx(0.2)


@pytest.mark.parametrize("limit", [1, 7, 20, 23, 24])
@pytest.mark.parametrize("ideal", [3.0, 24.0, 60.0])
def test_the_search_finds_the_largest_number(limit: int, ideal: float) -> None:
    tried: list[tuple[int, float]] = []

    def attempt(number: int, seconds: float) -> Trial:
        tried.append((number, seconds))
        return trial(number, dropped=int(number > limit))

    found = search(attempt, ideal, 60.0, 0.5)
    assert found.streams == limit
    assert tried[-1] == (found.streams, 60.0)


def test_what_holds_for_a_short_time_only_is_not_sustained() -> None:
    found = search(
        lambda number, seconds: trial(number, dropped=int(number > (12 if seconds < 60 else 10))), 20, 60.0, 0.5
    )
    assert found.streams == 10


def test_nothing_is_sustained() -> None:
    with pytest.raises(ClipmuxError, match="not even one"):
        search(lambda number, _: trial(number, dropped=1), 20, 60.0, 0.5)


def mark(at: float, **frames: int) -> Any:
    streams = {int(name[1:]): (count, 0, 0) for name, count in frames.items()}
    weights = dict.fromkeys(streams, 1.0)
    none: Counter[str] = Counter()
    return SimpleNamespace(
        at=at, clips=0, latency=none, drops=none, busy=0.0, streams=streams, weights=weights, memory=1
    )


def test_a_file_is_at_pace_by_its_own_rate() -> None:
    found = streams._between(mark(0.0, s0=0, s1=0), mark(10.0, s0=250, s1=600), 1, 2, 25.0 + 60.0)
    assert found.at_pace == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_the_rate_is_the_files_own(tmp_path: Path, rate: Fraction) -> None:
    (video,) = write_short_videos(tmp_path, 1, frames=50, size=(64, 48), rate=rate)
    assert frame_rate(video.path) == pytest.approx(float(rate))


def test_files_of_no_rate_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="cannot be read as a video"):
        frame_rate(tmp_path / "broken.mp4")
    monkeypatch.setattr(streams, "open_container", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(streams, "video_stream", lambda *_: SimpleNamespace(average_rate=None))
    with pytest.raises(UsageError, match=r"'a\.mp4' does not say how many frames"):
        frame_rate(Path("a.mp4"))
