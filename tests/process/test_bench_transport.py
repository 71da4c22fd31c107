"""``clipmux bench transport``, with few clips: what it writes and that every clip arrives, never how fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import clipmux

WAYS = ["bare loop", "socket", "shared"]


def test_every_clip_arrives_in_every_way(null_model: Path, tmp_path: Path) -> None:
    options = ["--model", null_model, "--clips", 200, "--generators", 2, "--null-delay", "0.1+0.01"]
    done = clipmux("bench", "transport", *options, "--repeats", 1, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["benchmark"] == "transport"
    figures = {(entry["name"], entry["at"]["way"]): entry["median"] for entry in content["figures"]}
    assert [way for name, way in figures if name == "clips"] == WAYS
    for way in WAYS:
        assert figures["clips", way] == 200
        assert figures["clips_per_s", way] > 0
        assert figures["cpu_per_clip", way] > 0
    for way in WAYS[1:]:
        assert 0 < figures["device_busy", way] <= 1
        assert 0 < figures["batch_fill", way] <= 1
    ratios = {entry["at"]["way"]: (entry["over"], entry["median"]) for entry in content["ratios"]}
    assert ratios == {
        way: ("bare loop", pytest.approx(figures["clips_per_s", way] / figures["clips_per_s", "bare loop"]))
        for way in WAYS[1:]
    }
    assert "transport efficiency" in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--clips", 0], "--clips is 0"), (["--generators", 0], "--generators is 0"), (["--null-delay", "x"], "is 'x'")],
)
def test_what_cannot_be_measured_is_one_sentence(args: list[object], says: str) -> None:
    done = clipmux("bench", "transport", *args)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
