"""Random faults in random processes: the short form of ``make chaos``."""

from __future__ import annotations

from pathlib import Path

from chaos import Disturbed, undisturbed, write_network, write_videos


def test_faults_change_no_result(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos", 300, distinct=30)
    model = write_network(tmp_path / "model")
    expected = undisturbed(videos, model, tmp_path / "undisturbed")
    run = Disturbed(videos, model, expected, tmp_path / "chaos", seed=1, pause_s=(0.2, 1.0), faults=6)
    figures = run.to_the_end()
    assert figures.faults.total() > 0, figures
