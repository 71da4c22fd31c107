"""Top-k accuracy of results against annotations, as the reference computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipmux.engine.documents import LISTS_LONGEST, read_json
from clipmux.engine.errors import UsageError


def evaluate(
    annotations: Path,
    results: Path,
    *,
    ks: Sequence[int] = (1,),
    subset: str = "validation",
    ignore: bool = False,
    say: Callable[[str], None] = print,
) -> dict[int, float]:
    """Accuracy for each k: the share of the subset's videos whose label is among the first k of their result.

    Args:
        annotations: the reference's JSON.
        results: ``results.json``, or the run folder that holds it.
        ks: how many labels count.
        subset: which of the annotated videos.
        ignore: leave videos without a result out; else they count as wrong.
        say: gets the lines that the reference prints.

    Raises:
        UsageError: a file cannot be used, or nothing is left to count.
    """
    if any(k < 1 for k in ks):
        raise UsageError(f"-k is {min(ks)}: give at least 1")
    say("load ground truth")
    truth = _truth(annotations, subset)
    say(f"number of ground truth: {len(truth)}")
    say("load result")
    found = _results(results)
    say(f"number of result: {len(found)}")
    counted = {video: label for video, label in truth.items() if video in found} if ignore else truth
    if not counted:
        raise UsageError(
            f"no video of subset '{subset}' has a result in '{results}': is it the run of these annotations?"
        )
    accuracies = {}
    for k in ks:
        say(f"calculate top-{k} accuracy")
        correct = sum(label in found.get(video, [])[:k] for video, label in counted.items())
        accuracies[k] = correct / len(counted)
        say(f"top-{k} accuracy: {accuracies[k]}")
    return accuracies


def _truth(path: Path, subset: str) -> dict[str, str]:
    content = _json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise UsageError(f"'{path}' has no 'database': give the reference's annotations")
    truth = {}
    for video, entry in database.items():
        try:
            if entry["subset"] == subset:
                truth[video] = entry["annotations"]["label"]
        except (TypeError, KeyError):
            raise UsageError(
                f"'{path}' has an entry '{video}' without a subset or a label: give the reference's annotations"
            ) from None
    if not truth:
        raise UsageError(f"'{path}' has no video of subset '{subset}'")
    return truth


def _results(path: Path) -> dict[str, list[str]]:
    """Labels of every video, best first."""
    file = path / "results.json" if path.is_dir() else path
    content = _json(file)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise UsageError(f"'{file}' has no 'results': give a results.json, or a run folder that has one")
    try:
        return {
            video: [item["label"] for item in sorted(items, key=lambda item: -float(item["score"]))]
            for video, items in results.items()
        }
    except (TypeError, KeyError, ValueError):
        raise UsageError(f"'{file}' has results per clip: run without --per-clip to score videos") from None


def _json(path: Path) -> Any:
    try:
        return read_json(path, longest=LISTS_LONGEST)
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' cannot be read as JSON: {error}") from None
