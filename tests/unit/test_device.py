"""Scores that are no numbers: a network that gives them from the start is refused, later they are its clip's alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from clipmux.engine.backends import Backend, Runner
from clipmux.engine.device import Device, Result, softmax
from clipmux.engine.errors import ClipmuxError

CLIP = (1, 2, 2, 3)
BAD = 255
"""A clip of this answers NaN."""

Array = npt.NDArray[np.uint8]


class _Fragile(Backend, Runner):
    """Two classes; the first one's logit is the clip's first byte, or NaN."""

    name, device, chosen = "fragile", "cpu", ""
    max_batch = preferred_batch = 4
    runners = 1

    def open_runner(self) -> Runner:
        return self

    def infer(self, clips: Array) -> npt.NDArray[np.float32]:
        first = clips[:, 0, 0, 0, 0].astype(np.float32)
        return np.stack([np.where(first == BAD, np.float32(np.nan), first), np.zeros_like(first)], axis=1)


@pytest.fixture
def device() -> Iterator[Device[str]]:
    device: Device[str] = Device(_Fragile(), CLIP)
    yield device
    device.close()


def scored(device: Device[str], *clips: int) -> Result[str]:
    device.submit([np.full(CLIP, value, np.uint8) for value in clips], "tag")
    deadline = time.monotonic() + 10
    while not (results := device.finished()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return results[0]


def test_a_clip_without_numbers_changes_no_other_of_its_batch(device: Device[str]) -> None:
    scored(device, 0)
    got = scored(device, 1, BAD, 2).scores
    alone = [scored(device, value).scores[0] for value in (1, 2)]
    assert np.isnan(got[1]).all()
    assert np.array_equal(got[[0, 2]], alone)


def test_a_network_that_gives_no_numbers_for_its_first_clip_is_refused(device: Device[str]) -> None:
    with pytest.raises(ClipmuxError, match=r"^the fragile backend failed on 'cpu': it gave scores that are no numbers"):
        scored(device, BAD)


@pytest.mark.parametrize("bad", [[np.nan, 0, 1], [np.inf, 0, 1], [-np.inf] * 3])
def test_a_row_of_scores_is_all_numbers_or_none(bad: list[float]) -> None:
    """Warnings are errors here: a log of a million such clips needs none."""
    good = [[0, 1, 2], [-np.inf, 0, 0]]
    shares = softmax(np.array([*good, bad], np.float32))
    assert np.isnan(shares[2]).all()
    assert np.array_equal(shares[:2], softmax(np.array(good, np.float32)))
    assert np.allclose(shares[:2].sum(axis=1), 1)
