"""What a video was found to show, as Python and as the line of ``results.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import VideoError
from .messages import Segment


@dataclass(frozen=True)
class LabelScore:
    """One label and its score, 0…1."""

    label: str
    score: float


@dataclass(frozen=True)
class ClipPrediction:
    """The top labels of one clip, best first."""

    segment: Segment
    labels: tuple[LabelScore, ...]


@dataclass(frozen=True)
class Prediction:
    """The outcome of one video: its top labels, or why there are none.

    Args:
        video_id: the video's name in the results.
        path: where it was read from.
        labels: the top labels by mean clip score, best first; empty if the video failed.
        clips: how many clips were scored.
        frames: how many frames were decoded.
        seconds: first and last presentation time as the file has them (it need not start at 0); None without PTS.
        per_clip: the top labels of every clip, if asked for.
        attempt: which hand-out of the video this comes from, 1 unless a process crashed.
        error: why the video has no prediction; None if it has one.
    """

    video_id: str
    path: str
    labels: tuple[LabelScore, ...] = ()
    clips: int = 0
    frames: int = 0
    seconds: tuple[float, float] | None = None
    per_clip: tuple[ClipPrediction, ...] = ()
    attempt: int = 1
    error: VideoError | None = None

    @property
    def label(self) -> str:
        """The best label. Raises the video's ``VideoError`` if it has none."""
        return self._best().label

    @property
    def score(self) -> float:
        """The best label's score. Raises the video's ``VideoError`` if it has none."""
        return self._best().score

    def _best(self) -> LabelScore:
        if self.error is not None:
            raise self.error
        return self.labels[0]

    def to_json(self) -> dict[str, Any]:
        """The line of ``results.jsonl`` (or, for a failed video, of ``failures.jsonl``)."""
        if self.error is not None:
            return {
                "video_id": self.video_id,
                "path": self.path,
                "stage": self.error.stage,
                "error": self.error.kind,
                "message": self.error.message,
                "attempt": self.attempt,
            }
        line: dict[str, Any] = {
            "video_id": self.video_id,
            "path": self.path,
            "attempt": self.attempt,
            "frames": self.frames,
            "clips": self.clips,
            "seconds": list(self.seconds) if self.seconds else None,
            "result": _scores(self.labels),
        }
        if self.per_clip:
            line["per_clip"] = [
                {
                    "segment": [clip.segment.start, clip.segment.stop],
                    "seconds": list(clip.segment.seconds) if clip.segment.seconds else None,
                    "result": _scores(clip.labels),
                }
                for clip in self.per_clip
            ]
        return line

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Prediction:
        """What ``to_json`` wrote."""
        if "error" in line:
            error = VideoError(line["stage"], line["error"], line["message"])
            return cls(line["video_id"], line["path"], attempt=line.get("attempt", 1), error=error)
        return cls(
            video_id=line["video_id"],
            path=line["path"],
            labels=_labels(line["result"]),
            clips=line["clips"],
            frames=line["frames"],
            seconds=_pair(line["seconds"]),
            per_clip=tuple(
                ClipPrediction(
                    Segment(clip["segment"][0], clip["segment"][1], _pair(clip["seconds"])), _labels(clip["result"])
                )
                for clip in line.get("per_clip", ())
            ),
            attempt=line["attempt"],
        )


def _scores(labels: tuple[LabelScore, ...]) -> list[dict[str, Any]]:
    return [{"label": item.label, "score": item.score} for item in labels]


def _labels(scores: list[dict[str, Any]]) -> tuple[LabelScore, ...]:
    return tuple(LabelScore(item["label"], item["score"]) for item in scores)


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values else None
