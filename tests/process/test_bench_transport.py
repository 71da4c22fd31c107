"""``clipmux bench transport``, with few clips: what it writes and that every clip arrives, never how fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import clipmux

WAYS = ["bare loop", "socket", "shared"]


def transport(json_file: Path, model: Path, *options: object) -> tuple[dict[tuple[str, str], float], dict[str, Any]]:
    """Figures by name and way, and all that was written."""
    options = ("--model", model, "--clips", 200, "--repeats", 1, "--json", json_file, *options)
    done = clipmux("bench", "transport", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(json_file.read_text())
    assert content["benchmark"] == "transport"
    return {(entry["name"], entry["at"]["way"]): entry["median"] for entry in content["figures"]}, content


def test_every_clip_arrives_in_every_way(null_model: Path, tmp_path: Path) -> None:
    figures, content = transport(tmp_path / "out.json", null_model, "--generators", 2)
    assert [way for name, way in figures if name == "clips"] == WAYS
    for way in WAYS:
        assert figures["clips", way] == 200
        assert figures["clips_per_s", way] > 0
        assert figures["cpu_per_clip", way] >= 0
    for way in WAYS[1:]:
        assert 0 < figures["batch_fill", way] <= 1
    ratios = {entry["at"]["way"]: (entry["over"], entry["median"]) for entry in content["ratios"]}
    assert ratios == {
        way: ("bare loop", pytest.approx(figures["clips_per_s", way] / figures["clips_per_s", "bare loop"]))
        for way in WAYS[1:]
    }


def test_a_device_with_a_pace_is_busy_in_place_of_a_ratio(null_model: Path, tmp_path: Path) -> None:
    figures, content = transport(tmp_path / "out.json", null_model, "--null-delay", "0.1+0.01")
    assert [way for name, way in figures if name == "clips"] == WAYS[1:]
    for way in WAYS[1:]:
        assert figures["clips", way] == 200
        assert 0 < figures["device_busy", way] <= 1
    assert content["ratios"] == []


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--clips", 0], "--clips is 0"), (["--generators", 0], "--generators is 0"), (["--null-delay", "x"], "is 'x'")],
)
def test_what_cannot_be_measured_is_one_sentence(args: list[object], says: str) -> None:
    done = clipmux("bench", "transport", *args)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
