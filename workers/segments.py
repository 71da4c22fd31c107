"""The segments of one video: from when to when each label held, found as a live stream's events are. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.messages import Segment

from .events import ENDED, Detector, Event, InOrder, Rule, Seen

SEGMENTS_MOST = 100_000
"""Segments of one video that are kept: some 20 MB. Whole days of video have fewer."""


class VideoSegments:
    """The segments of one video so far; clips may come in any order.

    Args:
        labels: one name per class.
        rule: what makes a segment.
    """

    def __init__(self, labels: Sequence[str], rule: Rule) -> None:
        self._detector = Detector(labels, rule)
        self._in_order: InOrder[Seen] = InOrder(wait_s=math.inf, most=None)  # a run loses no clip
        self._segments: list[dict[str, Any]] = []
        self._more = 0

    def add(self, index: int, segment: Segment, scores: npt.NDArray[np.float32]) -> None:
        """Add clip ``index``'s scores, float32 ``[classes]``; a clip that was added before is ignored."""
        if segment.seconds is None:
            raise ValueError(f"clip {index} has no times")
        seen = Seen(*segment.seconds, np.array(scores))
        for clip in self._in_order.add(index, seen, 0.0):
            self._keep(self._detector.add(clip))

    def finish(self) -> dict[str, Any]:
        """``segments``, in order of their start, and how many more there were than are kept (``left_out``)."""
        self._keep(self._detector.end())
        return {"segments": sorted(self._segments, key=lambda segment: segment["start_s"]), "left_out": self._more}

    def _keep(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind != ENDED:
                continue
            if len(self._segments) < SEGMENTS_MOST:
                self._segments.append(
                    {"label": event.label, "start_s": event.start_s, "end_s": event.end_s, "peak": event.peak}
                )
            else:
                self._more += 1
