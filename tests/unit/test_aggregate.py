"""Clip scores to a prediction: the same bits in whatever order the scores come."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.engine.errors import VideoError
from clipmux.engine.messages import Segment
from clipmux.engine.prediction import LabelScore
from clipmux.workers.aggregate import VideoScores, top

LABELS = ("archery", "bowling", "curling", "diving", "elbowing")


def some_scores(clips: int, seed: int) -> np.ndarray:
    """Softmax-like float32 ``[clips, classes]`` of very different sizes, for which the order of a sum matters."""
    powers = np.exp(np.random.default_rng(seed).normal(0, 6, (clips, len(LABELS))))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def segment(index: int) -> Segment:
    return Segment(1 + 16 * index, 17 + 16 * index)


def collected(scores: np.ndarray, order: list[int], *, top_k: int = 5, per_clip: bool = False) -> VideoScores:
    video = VideoScores(LABELS, top_k=top_k, per_clip=per_clip)
    for index in order:
        video.add(index, segment(index), scores[index])
    return video


@st.composite
def clips_in_any_order(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    clips = draw(st.integers(1, 40))
    return some_scores(clips, draw(st.integers(0, 999))), draw(st.permutations(range(clips)))


@settings(deadline=None)
@given(clips_in_any_order())
def test_the_order_changes_no_bit(clips: tuple[np.ndarray, list[int]]) -> None:
    scores, order = clips
    mixed, straight = (collected(scores, some, per_clip=True) for some in (order, sorted(order)))
    assert mixed.mean() == straight.mean()
    assert mixed.clips() == straight.clips()


@settings(deadline=None)
@given(clips_in_any_order())
def test_the_mean_is_numpys(clips: tuple[np.ndarray, list[int]]) -> None:
    scores, order = clips
    expected = scores.astype(np.float64).mean(axis=0)
    for item in collected(scores, order).mean():
        np.testing.assert_array_max_ulp(np.float32(item.score), expected[LABELS.index(item.label)].astype(np.float32))


@settings(deadline=None)
@given(clips_in_any_order(), st.data())
def test_a_clip_that_comes_again_is_ignored(clips: tuple[np.ndarray, list[int]], drawn: st.DataObject) -> None:
    scores, order = clips
    again = drawn.draw(st.permutations([*order, *drawn.draw(st.lists(st.sampled_from(order)))]))
    video = VideoScores(LABELS, top_k=5, per_clip=True)
    seen: set[int] = set()
    for index in again:
        # what comes second is different, so that counting it would show
        video.add(index, segment(index), scores[index] if index not in seen else np.ones(len(LABELS), np.float32))
        seen.add(index)
        assert len(video) == len(seen)
    once = collected(scores, order, per_clip=True)
    assert (video.mean(), video.clips()) == (once.mean(), once.clips())


def test_clips_are_in_order_with_their_own_segments_and_labels() -> None:
    scores = some_scores(3, 0)
    clips = collected(scores, [2, 0, 1], top_k=2, per_clip=True).clips()
    assert [clip.segment for clip in clips] == [segment(0), segment(1), segment(2)]
    assert [clip.labels for clip in clips] == [top(row, LABELS, 2) for row in scores]
    assert collected(scores, [0, 1, 2]).clips() == ()


@pytest.mark.parametrize(("order", "missing"), [([], 0), ([1], 0), ([0, 1, 3], 2)])
def test_a_mean_needs_every_clip(order: list[int], missing: int) -> None:
    with pytest.raises(ValueError, match=f"clip {missing} is missing"):
        collected(some_scores(4, 0), order).mean()


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_mean_that_is_no_number_is_no_prediction(bad: float, order: list[int]) -> None:
    scores = some_scores(4, 0)
    scores[1] = scores[3, 2] = bad
    with pytest.raises(VideoError, match="no numbers for 2 of its 4 clips: check the model's weights") as raised:
        collected(scores, order, per_clip=True).mean()
    assert (raised.value.stage, raised.value.kind) == ("score", "NotFinite")


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    many = [f"class {number}" for number in range(700)]
    scores = np.where(np.arange(700) % 2, 0.3, 0.1).astype(np.float32)
    assert [item.label for item in top(scores, many, 400)] == [*many[1::2], *many[:100:2]]
    scores = np.array([0.1, 0.3, 0.1, 0.3, 0.2], np.float32)
    assert [item.label for item in top(scores, LABELS, 4)] == ["bowling", "diving", "elbowing", "archery"]


@pytest.mark.parametrize(("k", "named"), [(1, 1), (5, 5), (6, 5), (1000, 5)])
def test_no_more_labels_than_asked_for_or_than_there_are(k: int, named: int) -> None:
    scores = some_scores(1, 3)[0]
    best = top(scores, LABELS, k)
    assert len(best) == named
    assert best == tuple(sorted(best, key=lambda item: -item.score))
    assert all(item == LabelScore(item.label, float(scores[LABELS.index(item.label)])) for item in best)


def test_scores_that_come_in_order_are_not_held() -> None:
    video = VideoScores(LABELS, top_k=5, per_clip=True)

    def add(index: int) -> weakref.ref[np.ndarray]:
        scores = np.full(len(LABELS), 0.2, np.float32)
        video.add(index, segment(index), scores)
        return weakref.ref(scores)

    assert all(add(index)() is None for index in range(10))
    early = add(11)
    assert early() is not None
    add(10)
    assert early() is None
