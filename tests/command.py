"""The ``clipmux`` command as a person runs it, and what a run folder holds afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CLIPMUX = str(Path(sys.executable).parent / "clipmux")


def clipmux(
    *args: object, stdin: str | None = None, timeout: float = 240, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [CLIPMUX, *map(str, args)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **env},
    )


def started(*args: object) -> subprocess.Popen[str]:
    """Start the command and leave it running."""
    return subprocess.Popen(
        [CLIPMUX, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def results(folder: Path) -> dict[str, Any]:
    """``results.json``'s videos."""
    content: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["results"]
    return content


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return content


def lines(file: Path) -> dict[str, dict[str, Any]]:
    """A journal's lines by video id; a video with two lines is an error."""
    found: dict[str, dict[str, Any]] = {}
    for text in file.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        assert line["video_id"] not in found, f"{line['video_id']} has two lines in {file.name}"
        found[line["video_id"]] = line
    return found


def expected_results(golden: Path, name: str) -> dict[str, Any]:
    """What the reference itself printed: ``avg``, ``noavg`` or ``stride8``."""
    content: dict[str, Any] = json.loads((golden / "expected" / f"{name}.json").read_text())["results"]
    return content


def assert_same(got: dict[str, Any], expected: dict[str, Any], *, within: float) -> None:
    """Same videos in the same order, same segments, same labels in the same order, scores within a tolerance."""
    assert list(got) == list(expected)
    for video, entries in expected.items():
        assert len(got[video]) == len(entries), video
        for mine, theirs in zip(got[video], entries, strict=True):
            if "segment" in theirs:
                assert mine["segment"] == theirs["segment"], video
                _assert_same_labels(mine["result"], theirs["result"], within)
        if "label" in entries[0]:
            _assert_same_labels(got[video], entries, within)


def _assert_same_labels(got: list[dict[str, Any]], expected: list[dict[str, Any]], within: float) -> None:
    assert [item["label"] for item in got] == [item["label"] for item in expected]
    assert max(abs(a["score"] - b["score"]) for a, b in zip(got, expected, strict=True)) <= within
