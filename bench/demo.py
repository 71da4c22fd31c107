"""The demonstration: write videos whose class is known, have them classified, and say how many came out right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .videos import ShapeVideo, write_shape_videos

Predictions = Mapping[str, tuple[str, float]]
"""Stem of a video's file name to its best label and that label's score, 0…1."""


def run_demo(
    output: Path, classify: Callable[[list[Path]], Predictions], console: Console, *, count: int = 24
) -> float:
    """Write the demonstration's videos to ``output``, classify them, and print what came out.

    Args:
        output: folder of the videos, made if it is not there.
        classify: given the videos' paths, returns a prediction per stem; a video that failed has none.
        console: where the table goes.
        count: how many videos.

    Returns:
        The share of videos whose best label is true, 0…1.
    """
    videos = write_shape_videos(output, count=count)
    truth = demo_truth(videos)
    predictions = classify([video.path for video in videos])
    share = accuracy(truth, predictions)
    console.print(demo_table(truth, predictions))
    console.print(f"accuracy: {share:.1%}, {round(share * len(truth))} of {len(truth)} videos are right")
    return share


def demo_truth(videos: Iterable[ShapeVideo]) -> dict[str, str]:
    """Each video's stem and true label."""
    return {video.path.stem: video.label for video in videos}


def accuracy(truth: Mapping[str, str], predictions: Predictions) -> float:
    """The share of ``truth`` whose prediction is right, 0…1; a video without one is wrong."""
    right = sum(1 for stem, label in truth.items() if stem in predictions and predictions[stem][0] == label)
    return right / len(truth) if truth else 0.0


def demo_table(truth: Mapping[str, str], predictions: Predictions) -> Table:
    """A row per video: its stem, its true label, the prediction, its score, and whether they agree."""
    table = Table("video", "truth", "prediction")
    table.add_column("score", justify="right")
    table.add_column("")
    for stem, label in truth.items():
        if stem not in predictions:
            table.add_row(stem, label, "[red]failed[/red]", "", "[red]✗[/red]")
            continue
        predicted, score = predictions[stem]
        mark = "[green]✓[/green]" if predicted == label else "[red]✗[/red]"
        table.add_row(stem, label, predicted, f"{score:.3f}", mark)
    return table
