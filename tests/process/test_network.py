"""A run that listens on a network, and a stranger in a network namespace of its own who does what it can to it."""

from __future__ import annotations

import time
from pathlib import Path

from command import lines, summary
from namespaces import HERE, THERE, inside, joined

from clipmux.bench.videos import write_short_videos
from clipmux.engine.keys import make_keys

PORT = 7600


def peak(run: Path) -> dict[str, int]:
    """The largest process of each role, bytes."""
    found: dict[str, int] = {}
    for item in summary(run)["peak_rss_bytes"]:
        found[item["process"]] = max(found.get(item["process"], 0), item["bytes"])
    return found


def test_a_stranger_is_not_let_in_and_is_named_in_the_log(tmp_path: Path, null_model: Path) -> None:
    videos, keys = tmp_path / "videos", make_keys(tmp_path / "keys")
    write_short_videos(videos, 60, frames=96, size=(96, 64))
    program = Path(__file__).parents[1]
    with joined() as (here, there):
        for name, disturbed in (("alone", False), ("disturbed", True)):
            arguments = [videos, null_model, tmp_path / name, f"{HERE}:{PORT}", keys.folder, 15]
            run = inside(here, program / "listening_run.py", *arguments)
            if disturbed:
                log = tmp_path / name / "run.log"
                while not log.exists() or "inference-1 is ready" not in log.read_text():
                    assert run.poll() is None, run.communicate()
                    time.sleep(0.02)
                stranger = inside(there, program / "stranger.py", HERE, PORT, keys.public.decode(), 3)
                said, trouble = stranger.communicate(timeout=60)
                assert stranger.returncode == 0, trouble
                assert run.poll() is None, "the run was over before the stranger was"
            _, trouble = run.communicate(timeout=120)
            assert run.returncode == 0, trouble
    public, tries = said.split()
    assert int(tries) > 100
    text = (tmp_path / "disturbed" / "run.log").read_text()
    assert f"its key {public} is not trusted" in text
    assert f"{THERE}:" in text
    assert "does not speak CurveZMQ" in text
    assert "Traceback" not in text
    assert "refused" not in text, "a message was looked at"
    alone, disturbed_lines = (lines(tmp_path / name / "results.jsonl") for name in ("alone", "disturbed"))
    assert disturbed_lines == alone
    assert not (tmp_path / "disturbed" / "failures.jsonl").read_text()
    most, least = peak(tmp_path / "disturbed"), peak(tmp_path / "alone")
    assert all(most[role] < least[role] + (64 << 20) for role in least), (least, most)
