"""What ``--wire jpeg`` does to clips: their size, the time that takes, how far pixels and scores are from raw ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console

from clipmux.build.calibration import draw_clips
from clipmux.engine.backends import choose
from clipmux.engine.device import softmax
from clipmux.engine.errors import UsageError
from clipmux.engine.model import read_model
from clipmux.engine.squeezed import squeeze, unsqueeze

from .inference import on_cores_of, open_way
from .measure import Measurement, points_table, say_load

Clips = npt.NDArray[np.uint8]
Made = TypeVar("Made")

BATCH = 8


def wire(inputs: Sequence[str], model: str, *, backend: str, device: str, clips: int, console: Console) -> Measurement:
    """Draw clips from videos, score each as it is and as it is after JPEG, and print what became of them.

    Args:
        inputs: videos as ``clipmux run`` takes them.
        model: folder, or ``demo``.
        backend: see ``EngineConfig``.
        device: likewise.
        clips: how many to draw.

    Raises:
        UsageError: there are no such clips.
    """
    folder = read_model(model)
    raw = draw_clips(inputs, folder, clips=clips).clips
    if not len(raw):
        raise UsageError("no clip could be drawn from the videos: give others")
    sent, squeeze_ms = _timed(squeeze, raw)
    pictures = [jpeg for jpeg in sent if jpeg is not None]
    got, unsqueeze_ms = _timed(lambda jpeg: unsqueeze(jpeg, folder.clip_shape), pictures)
    raw = raw[[jpeg is not None for jpeg in sent]]
    lossy = np.stack(got)
    name = choose(backend, device, folder.target)
    with on_cores_of(device), contextlib.closing(open_way(folder, name, device=device, max_batch=BATCH)) as way:
        before, after = (_scores(way.runners[0], one) for one in (raw, lossy))
    differ = np.abs(raw.astype(np.int16) - lossy)
    apart = np.abs(before - after)
    measurement = Measurement("wire", folder, {"backend": way.backend.name, "device": device})
    figures: dict[str, tuple[str, Sequence[float]]] = {
        "clips": ("", [len(sent)]),
        "no_smaller": ("", [len(sent) - len(pictures)]),
        "size": ("ratio", [len(jpeg) / raw[0].nbytes for jpeg in pictures]),
        "squeeze": ("ms", squeeze_ms),
        "unsqueeze": ("ms", unsqueeze_ms),
        "pixel_difference_mean": ("of 255", [float(differ.mean())]),
        "pixel_difference_p99.9": ("of 255", [float(np.percentile(differ, 99.9))]),
        "score_difference_mean": ("", [float(apart.mean())]),
        "score_difference_most": ("", [float(apart.max())]),
        "same_label": ("ratio", [float((before.argmax(1) == after.argmax(1)).mean())]),
    }
    for name, (unit, values) in figures.items():
        measurement.figure(name, unit, values)
    say_load(measurement, console)
    console.print(points_table(measurement, *figures))
    return measurement


def _timed(work: Callable[[Any], Made], items: Sequence[Any] | Clips) -> tuple[list[Made], list[float]]:
    """What each item became, and the milliseconds that took."""
    made, spent = [], []
    for item in items:
        began = time.perf_counter()
        made.append(work(item))
        spent.append(1000 * (time.perf_counter() - began))
    return made, spent


def _scores(runner: Any, clips: Clips) -> npt.NDArray[np.float32]:
    batches = (clips[at : at + BATCH] for at in range(0, len(clips), BATCH))
    return np.concatenate([softmax(runner.infer(batch)) for batch in batches])
