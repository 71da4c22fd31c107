"""Copying arrays one after another: the same with and without the compiled part."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmux.engine.gather import GATHER, gather, gather_with_numpy

WAYS = [pytest.param(gather, id="gather"), pytest.param(gather_with_numpy, id="numpy")]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if GATHER is gather_with_numpy and os.environ.get("CI"):
        pytest.fail("the compiled part is not there: install a C compiler and Python's headers, then clipmux again")


@given(
    sizes=st.lists(st.integers(0, 300), max_size=6),
    offset=st.integers(0, 70),
    spare=st.integers(0, 70),
    seed=st.integers(0, 1000),
)
def test_parts_follow_one_another_wherever_they_begin_and_nothing_else_is_touched(
    sizes: list[int], offset: int, spare: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    parts = [generator.integers(0, 255, size + 1, np.uint8)[1:] for size in sizes]
    total = sum(sizes)
    for way in (gather, gather_with_numpy):
        memory = np.full(offset + total + spare, 255, np.uint8)
        way(memory[offset:], parts)
        np.testing.assert_array_equal(memory[offset : offset + total], np.concatenate([*parts, np.empty(0, np.uint8)]))
        assert (memory[:offset] == 255).all()
        assert (memory[offset + total :] == 255).all()


@pytest.mark.parametrize("way", WAYS)
def test_clips_make_a_batch(way: object) -> None:
    clips = [np.random.default_rng(seed).integers(0, 255, (16, 112, 112, 3), np.uint8) for seed in range(3)]
    batch = np.zeros((4, 16, 112, 112, 3), np.uint8)
    way(batch, clips)  # type: ignore[operator]
    np.testing.assert_array_equal(batch[:3], np.stack(clips))
    assert not batch[3].any()


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_or_has_gaps_is_refused(way: object) -> None:
    out = np.zeros(10, np.uint8)
    for parts in ([np.zeros(6, np.uint8), np.zeros(5, np.uint8)], [np.zeros(8, np.uint8)[::2]]):
        with pytest.raises(ValueError, match=r"do not fit into 10|contiguous"):
            way(out, parts)  # type: ignore[operator]
    with pytest.raises((TypeError, ValueError)):
        way(np.zeros(10, np.uint8)[::2], [np.zeros(2, np.uint8)])  # type: ignore[operator]
