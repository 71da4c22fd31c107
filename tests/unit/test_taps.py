"""Taps against PIL's own resize."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clipmux.workers.taps import ONE, bilinear, crop_offset, fixed_point, of_pairs


@pytest.mark.parametrize(
    ("size", "scaled", "crop"),
    [(256, 112, 112), (340, 148, 112), (1920, 199, 112), (112, 112, 112), (113, 112, 112), (48, 149, 112), (1, 5, 3)],
)
def test_bilinear_is_pils_resize_and_crop(size: int, scaled: int, crop: int) -> None:
    values = np.random.default_rng(size).integers(0, 256, size).astype(np.float32)
    offset = crop_offset(scaled, crop)
    image = Image.fromarray(values[None], mode=None)  # 32-bit floats: nothing is rounded in between
    expected = np.asarray(image.resize((scaled, 1), Image.Resampling.BILINEAR))[0, offset : offset + crop]
    np.testing.assert_allclose(bilinear(size, scaled, crop) @ values, expected, atol=1e-3)


@pytest.mark.parametrize(("size", "scaled"), [(256, 112), (340, 148), (1920, 199), (112, 112), (30, 112)])
def test_fixed_point_is_the_matrix_in_units_of_one(size: int, scaled: int) -> None:
    matrix = bilinear(size, scaled, 112)
    taps = fixed_point(matrix)
    dense = np.zeros_like(matrix)
    for row, (start, weights) in enumerate(zip(taps.starts, taps.weights, strict=True)):
        dense[row, start : start + len(weights)] = weights
    assert np.abs(dense / ONE - matrix).max() <= taps.weights.shape[1] / ONE
    assert set(dense.sum(axis=1)) <= {ONE, ONE - 1}  # ONE itself does not fit into 16 bits
    assert taps.starts.min() >= 0
    assert (taps.starts + taps.weights.shape[1]).max() <= size


def test_pairs_are_means_of_neighbours() -> None:
    matrix = bilinear(1080, 112, 112)
    means = np.random.default_rng(0).random(540)
    np.testing.assert_allclose(of_pairs(matrix) @ means, matrix @ np.repeat(means, 2))
