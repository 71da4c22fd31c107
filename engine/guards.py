"""What one video may cost at most, so that no file can take a decoder for itself."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import UsageError

GRACE_S = 60.0
"""CPU time beyond a video's own until the kernel ends a decoder whose codec does not come back."""

MOST = 1e15
"""Of anything: what kernels and messages count with is not endless."""


@dataclass(frozen=True)
class Guards:
    """Limits of one video; it fails with the first that it goes beyond. Checked when made.

    Args:
        pixels: of a frame. Codecs refuse larger ones before they take memory for them.
        frames: that it may have.
        duration_s: from its first frame's time to any other's; broadcasts whose clock jumps back and forth (after 26.5
            hours it must) are within the default.
        cpu_s: of computing in its decoder, everything from opening to sending.
    """

    pixels: int = 8192 * 4608
    frames: int = 10_000_000
    duration_s: float = 172_800.0
    cpu_s: float = 21_600.0

    def __post_init__(self) -> None:
        for option, value in (
            ("--max-pixels", self.pixels),
            ("--max-frames", self.frames),
            ("--max-duration", self.duration_s),
            ("--max-cpu", self.cpu_s),
        ):
            if not isinstance(value, (int, float)) or not 0 < value <= MOST:
                raise UsageError(f"{option} is {value!r}: give a number above 0, {MOST:g} at most")
        if self.pixels >= 1 << 31:
            raise UsageError(f"--max-pixels is {self.pixels}: give less than {1 << 31}")

    @property
    def kernel_cpu_s(self) -> float:
        return self.cpu_s + GRACE_S


GUARDS = Guards()


def parse_pixels(text: str) -> int:
    """``8192x4608`` or ``37748736`` as a number of pixels.

    Raises:
        UsageError: something else.
    """
    match = re.fullmatch(r"([0-9]{1,9})(?:[x×]([0-9]{1,9}))?", text)
    if match is None:
        raise UsageError(f"--max-pixels is '{text}': give a number, or width and height like 8192x4608")
    return int(match[1]) * int(match[2] or 1)
