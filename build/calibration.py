"""Clips to measure activations on: many of them, drawn evenly from many real videos.

What a quantised network can represent is fixed by the clips that it was calibrated with, so these go the way of a run:
the same decoding, the same windows, the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import UsageError, VideoError
from clipmux.engine.model import ModelFolder
from clipmux.workers.decode import Frame, decode
from clipmux.workers.exact import Exact
from clipmux.workers.sources import Video, list_videos
from clipmux.workers.windows import Window, windows

MOST_WINDOWS = 256
"""Windows of one video that are looked at: of a film, the first minutes."""

Clip = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CalibrationSet:
    """Real clips and where they came from.

    Args:
        clips: uint8 ``[n, T, H, W, C]``, as a run would send them to the device.
        drawn: for each clip, in the same order, the name of its ``video`` and its first frame, ``start`` (from 0).
        skipped: videos that gave no clip: ``(name, reason)``.
        seed: what the draw was made with.
    """

    clips: npt.NDArray[np.uint8]
    drawn: list[dict[str, Any]]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    seed: int = 0


def draw_clips(
    inputs: Sequence[str], model: ModelFolder, *, clips: int = 128, per_video: int = 4, seed: int = 0
) -> CalibrationSet:
    """Draw clips from videos: the same ones for the same files, numbers and seed.

    Videos are taken in an order drawn by lot, and give as evenly as they can: for 60 clips of 24 videos, half give
    three and the others two; where there are more videos than clips, each gives one until there are enough. Within a
    video every window of a run (stride = length) is as likely as every other.

    Args:
        inputs: files, folders, folders of frames or globs, as ``clipmux run`` takes them.
        model: says how long and how large a clip is.
        clips: how many; fewer where the videos hold fewer.
        per_video: how many of one video at most.
        seed: from 0.

    Raises:
        UsageError: a number is out of range, an input does not exist, or not one video can be read.
    """
    for name, number, least in (("clips", clips, 1), ("clips per video", per_video, 1), ("the seed", seed, 0)):
        if number < least:
            raise UsageError(f"{name} for calibration: {number} was given, it is {least} or more")
    listing = list_videos(list(inputs), stdin=None, names="path")
    order = np.random.default_rng((seed, len(listing.videos))).permutation(len(listing.videos))
    preprocess = Exact(model.height, model.width)
    taken: list[tuple[str, list[tuple[int, Clip]]]] = []
    skipped = [(Path(name).name, reason) for name, reason in listing.skipped]
    for number in order.tolist():
        if len(taken) == clips:
            break
        video = listing.videos[number]
        # A generator of the video's own: what is drawn from it does not depend on which others could be read.
        rng = np.random.default_rng((seed, number))
        try:
            taken.append((video.path.name, _draw(video, per_video, model.frames, preprocess, rng)))
        except VideoError as error:
            skipped.append((video.path.name, error.message))
            continue
        for _ in range(sum(len(found) for _, found in taken) - clips):
            max((found for _, found in taken), key=len).pop()
    if not taken:
        reason = skipped[-1][1] if skipped else "there are none"
        raise UsageError(
            f"not one of {len(listing.videos)} calibration videos can be read ({reason}): give videos that play"
        )
    chosen = [(name, start, clip) for name, found in taken for start, clip in sorted(found, key=lambda item: item[0])]
    drawn = [{"video": name, "start": start} for name, start, _ in chosen]
    return CalibrationSet(np.stack([clip for _, _, clip in chosen]), drawn, skipped, seed)


def _draw(video: Video, count: int, length: int, preprocess: Exact, rng: np.random.Generator) -> list[tuple[int, Clip]]:
    """``(start, pixels)`` of at most ``count`` windows, in an order drawn by lot.

    Reservoir sampling (Vitter's algorithm R): how many windows there are is only known at the end of the video, and
    only those that are kept for a while are ever scaled.
    """
    kept: list[tuple[int, Clip]] = []
    every = windows(decode(video), length=length, stride=length, keep=_as_it_is)
    for number, window in enumerate(islice(every, MOST_WINDOWS)):
        place = number if number < count else int(rng.integers(number + 1))
        if place >= count:
            continue
        drawn = (window.start, _pixels(window, preprocess))
        if place < len(kept):
            kept[place] = drawn
        else:
            kept.append(drawn)
    return [kept[place] for place in rng.permutation(len(kept))]


def _as_it_is(frame: Frame) -> Frame:
    return frame


def _pixels(window: Window[Frame], preprocess: Exact) -> Clip:
    """uint8 ``[T, H, W, C]``; a frame that a padded window repeats is scaled once."""
    different = [preprocess(frame) for frame in window.frames[: window.covered]]
    return np.stack([different[place % window.covered] for place in range(len(window.frames))])


def normalised(clips: Clip, model: ModelFolder) -> npt.NDArray[np.float32]:
    """uint8 ``[n, T, H, W, C]`` as the network's own input: float32, normalised, in its layout."""
    mean, std = (np.asarray(values, np.float32) for values in (model.mean, model.std))
    values = (clips.astype(np.float32) / 255 - mean) / std
    if model.layout == "NCDHW":
        values = values.transpose(0, 4, 1, 2, 3)
    return np.ascontiguousarray(values, np.float32)
