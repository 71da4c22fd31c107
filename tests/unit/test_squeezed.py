"""Clips as JPEG: small, near to what they were, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clipmux.engine.errors import MessageError
from clipmux.engine.messages import Clip, ClipKey, Segment
from clipmux.engine.squeezed import squeeze, unsqueeze
from clipmux.engine.wire import decode_clip, encode

SHAPE = (16, 112, 112, 3)


def picture() -> npt.NDArray[np.uint8]:
    """Slow changes of colour, which are other in each frame."""
    t, y, x, c = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return (127 + 100 * np.sin(x / 19 + c) * np.cos(y / 23 + t / 5)).astype(np.uint8)


def jpeg(size: tuple[int, int], mode: str = "RGB", kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind)
    return buffer.getvalue()


def test_what_comes_back_is_smaller_on_its_way_and_nearly_the_same() -> None:
    clip = picture()
    squeezed = squeeze(clip)
    assert squeezed is not None
    assert len(squeezed) < clip.nbytes / 5
    again = unsqueeze(memoryview(squeezed), SHAPE)
    assert again.shape == SHAPE
    assert np.abs(again.astype(int) - clip).mean() < 1


def test_what_would_be_larger_is_sent_as_it_is() -> None:
    tiny = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    assert squeeze(tiny) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        jpeg((112, 16 * 112), kind="PNG"),
        jpeg((16 * 112, 112)),
        jpeg((112, 16 * 112 + 1)),
        jpeg((112, 16 * 112), mode="L"),
        jpeg((112, 16 * 112))[:-500],
        jpeg((60_000, 60_000 // 8)),
    ],
    ids=["nothing", "text", "PNG", "lying", "long", "grey", "cut", "huge"],
)
def test_nothing_else_is_taken_for_a_clip(content: bytes) -> None:
    with pytest.raises(MessageError, match=r"JPEG"):
        unsqueeze(content, SHAPE)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    squeezed = squeeze(picture()[:1])
    assert squeezed is not None
    for foreign in (content, squeezed[:200] + content, content + squeezed[200:]):
        with contextlib.suppress(MessageError):
            assert unsqueeze(foreign, (1, *SHAPE[1:])).shape == (1, *SHAPE[1:])


def test_only_who_expects_it_takes_it() -> None:
    clip = picture()
    header, _ = encode(Clip(ClipKey(0, 1, 0, Segment(1, 17)), 1.0, clip, 0))
    squeezed = squeeze(clip)
    assert squeezed is not None
    with pytest.raises(MessageError, match=r"a tensor has"):
        decode_clip([header, squeezed], SHAPE)
    got = decode_clip([header, squeezed], SHAPE, squeezed=True)
    assert isinstance(got, Clip)
    raw = decode_clip([header, clip.tobytes()], SHAPE, squeezed=True)
    assert isinstance(raw, Clip)
    np.testing.assert_array_equal(raw.pixels, clip)
