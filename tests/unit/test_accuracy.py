"""Top-k accuracy: the reference's numbers, and its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipmux.bench.accuracy import evaluate
from clipmux.engine.errors import UsageError

TRUTH: dict[str, Any] = {
    "labels": ["a", "b"],
    "database": {
        "one": {"subset": "validation", "annotations": {"label": "a"}},
        "two": {"subset": "training", "annotations": {"label": "b"}},
    },
}
RESULTS: dict[str, Any] = {"results": {"one": [{"label": "b", "score": 0.2}, {"label": "a", "score": 0.8}]}}


def silent(_line: str) -> None:
    """Say nothing."""


def in_file(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("ignore", "k", "accuracy"),
    [
        (False, 1, 0.2857142857142857),
        (False, 5, 0.5714285714285714),
        (True, 1, 0.3333333333333333),
        (True, 5, 0.6666666666666666),
    ],
)
def test_the_reference_says_the_same(shared_data: Path, ignore: bool, k: int, accuracy: float) -> None:
    golden = shared_data / "mini_kinetics"
    said: list[str] = []
    found = evaluate(
        golden / "eval_annotations.json", golden / "expected" / "avg.json", ks=[k], ignore=ignore, say=said.append
    )
    assert found == {k: accuracy}
    assert said == [
        "load ground truth",
        "number of ground truth: 7",
        "load result",
        "number of result: 6",
        f"calculate top-{k} accuracy",
        f"top-{k} accuracy: {accuracy}",
    ]


def test_several_k_at_once_from_a_run_folder_in_any_subset(tmp_path: Path) -> None:
    truth = in_file(tmp_path / "truth.json", TRUTH)
    in_file(tmp_path / "results.json", RESULTS)
    assert evaluate(truth, tmp_path, ks=[1, 2], say=silent) == {1: 1.0, 2: 1.0}  # by score, not by place
    assert evaluate(truth, tmp_path, subset="training", say=silent) == {1: 0.0}  # without a result: wrong


def test_lines_are_printed_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(in_file(tmp_path / "truth.json", TRUTH), in_file(tmp_path / "results.json", RESULTS))
    assert capsys.readouterr().out.splitlines()[-1] == "top-1 accuracy: 1.0"


PER_CLIP = {"results": {"one": [{"segment": [1, 17], "result": [{"label": "a", "score": 1.0}]}]}}


@pytest.mark.parametrize(
    ("truth", "results", "more", "said"),
    [
        ("{", RESULTS, {}, "truth.json' cannot be read as JSON"),
        (TRUTH, "nothing", {}, "results.json' cannot be read as JSON"),
        (TRUTH, "\udcff", {}, "results.json' cannot be read as JSON"),
        ([], RESULTS, {}, "truth.json' has no 'database'"),
        ({"labels": ["a"]}, RESULTS, {}, "truth.json' has no 'database'"),
        ({"database": {"one": {"subset": "validation"}}}, RESULTS, {}, "truth.json' has an entry 'one' without"),
        ({"database": {"one": {"annotations": {"label": "a"}}}}, RESULTS, {}, "truth.json' has an entry 'one' without"),
        ({"database": {"one": "validation"}}, RESULTS, {}, "truth.json' has an entry 'one' without"),
        (
            {"database": {"one": {"subset": "validation", "annotations": None}}},
            RESULTS,
            {},
            "truth.json' has an entry 'one' without",
        ),
        ({"database": {}}, RESULTS, {}, "no video of subset 'validation'"),
        (TRUTH, RESULTS, {"subset": "testing"}, "no video of subset 'testing'"),
        (TRUTH, [], {}, "results.json' has no 'results'"),
        (TRUTH, {"one": []}, {}, "results.json' has no 'results'"),
        (TRUTH, PER_CLIP, {}, "per clip"),
        (TRUTH, {"results": {"two": []}}, {"ignore": True}, "no video of subset 'validation' has a result"),
        (TRUTH, RESULTS, {"ks": [1, 0]}, "-k is 0"),
    ],
)
def test_what_cannot_be_scored(tmp_path: Path, truth: object, results: object, more: dict[str, Any], said: str) -> None:
    files = [tmp_path / "truth.json", tmp_path / "results.json"]
    for file, content in zip(files, (truth, results), strict=True):
        if content == "\udcff":
            file.write_bytes(b"\xff\xfe")
        else:
            in_file(file, content)
    with pytest.raises(UsageError) as refusal:
        evaluate(*files, say=silent, **more)
    assert said in str(refusal.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    truth = in_file(tmp_path / "truth.json", TRUTH)
    with pytest.raises(UsageError, match=r"absent\.json' cannot be read"):
        evaluate(tmp_path / "absent.json", tmp_path, say=silent)
    with pytest.raises(UsageError, match=r"results\.json' cannot be read"):
        evaluate(truth, tmp_path, say=silent)  # a folder that no run wrote
