"""The demonstration, as ``make run`` shows it."""

from __future__ import annotations

from pathlib import Path

from command import clipmux, results


def test_demo_classifies_what_it_wrote(tmp_path: Path) -> None:
    done = clipmux("demo", "--output", tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    videos = list((tmp_path / "demo" / "videos").iterdir())
    assert len(videos) >= 24
    assert len({path.suffix for path in videos}) >= 3
    assert len(results(tmp_path / "demo" / "run")) == len(videos)
    assert "accuracy" in done.stdout


def test_demo_does_not_write_into_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = clipmux("demo", "--output", tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
