"""Clip scores to a video's prediction. Pure.

The sum is taken in clip order, whatever order the scores arrive in, so that a prediction does not depend on how many
workers there were or how batches fell. What is held is one sum and the few clips that arrived before their turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import VideoError
from clipmux.engine.messages import Segment
from clipmux.engine.prediction import ClipPrediction, LabelScore


class VideoScores:
    """The scores of one video so far.

    Args:
        labels: one name per class.
        top_k: how many labels a prediction names; all of them where there are fewer.
        per_clip: keep the top labels of every clip too.
    """

    def __init__(self, labels: Sequence[str], *, top_k: int, per_clip: bool) -> None:
        self._labels = labels
        self._top_k = top_k
        self._per_clip = per_clip
        self._sum: npt.NDArray[np.float64] = np.zeros(len(labels))
        self._early: dict[int, npt.NDArray[np.float32]] = {}
        self._clips: dict[int, ClipPrediction] = {}
        self._added = 0
        self._not_finite = 0

    def __len__(self) -> int:
        """How many different clips were added."""
        return self._added + len(self._early)

    def add(self, index: int, segment: Segment, scores: npt.NDArray[np.float32]) -> None:
        """Add clip ``index``'s scores, float32 ``[classes]``; a clip that was added before is ignored."""
        if index < self._added or index in self._early:
            return
        if self._per_clip:
            self._clips[index] = ClipPrediction(segment, top(scores, self._labels, self._top_k))
        self._not_finite += not np.isfinite(scores).all()
        self._early[index] = scores
        while self._added in self._early:
            self._sum += self._early.pop(self._added)
            self._added += 1

    def mean(self) -> tuple[LabelScore, ...]:
        """The top labels of the mean over all clips; every clip up to the last must have been added.

        Raises:
            VideoError: a clip has scores that are no numbers, and so has the mean.
        """
        if self._early or not self._added:
            raise ValueError(f"clip {self._added} is missing")
        mean = (self._sum / self._added).astype(np.float32)
        if not np.isfinite(mean).all():
            raise VideoError(
                "score",
                "NotFinite",
                f"the network gave scores that are no numbers for {self._not_finite} of its {self._added} clips: "
                "check the model's weights and its precision",
            )
        return top(mean, self._labels, self._top_k)

    def clips(self) -> tuple[ClipPrediction, ...]:
        """The top labels of every clip, in clip order; empty unless ``per_clip``."""
        return tuple(self._clips[index] for index in sorted(self._clips))


def top(scores: npt.NDArray[np.float32], labels: Sequence[str], k: int) -> tuple[LabelScore, ...]:
    """The ``k`` best labels by falling score; of equal scores the lower class comes first."""
    best = np.argsort(-scores, kind="stable")[:k]
    return tuple(LabelScore(labels[i], float(scores[i])) for i in best)
