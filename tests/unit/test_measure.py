"""Figures with their spread, ratios of runs made side by side, and what is recorded beside them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from clipmux.bench.measure import (
    Figure,
    Measurement,
    alternate,
    check_json,
    check_repeats,
    command_line,
    figures_table,
    load_warning,
    percentile,
    points_table,
    shown,
)
from clipmux.bench.options import wide_console
from clipmux.engine.errors import UsageError
from clipmux.engine.model import read_model


def test_a_figure_is_the_median_of_its_runs_with_their_spread() -> None:
    figure = Figure("clips_per_s", "1/s", (10.0, 30.0, 20.0))
    assert (figure.median, figure.least, figure.most) == (20.0, 10.0, 30.0)


@pytest.mark.parametrize("runs", [(), (float("nan"),), (1.0, float("inf"))])
def test_a_figure_holds_numbers(runs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Figure("clips_per_s", "1/s", runs)


def test_a_ratio_is_of_runs_side_by_side_not_of_medians() -> None:
    """The machine became twice as slow in the second round: the ratio does not change."""
    measured = Measurement("inference")
    fast = measured.figure("qps", "1/s", [40, 20, 42], precision="int8")
    slow = measured.figure("qps", "1/s", [10, 5, 14], precision="float32")
    ratio = measured.ratio("speed_up", fast, slow, called="float32", precision="int8")
    assert ratio.runs == (4.0, 4.0, 3.0)
    assert (ratio.median, ratio.over) == (4.0, "float32")


def test_runs_alternate_and_every_other_round_goes_backwards() -> None:
    order: list[str] = []
    outcomes = alternate({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert outcomes == {"a": [1, 4, 5], "b": [2, 3, 6]}


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (76, 4), (100, 4)])
def test_percentiles_are_values_that_were_measured(percent: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == value


def test_json_has_everything_that_one_needs_to_do_it_again(tmp_path: Path) -> None:
    measured = Measurement("inference", read_model("demo"), {"backend": "openvino", "device": "cpu"})
    figure = measured.figure("qps", "1/s", [3, 1, 2], batch=8)
    measured.ratio("speed_up", figure, figure, batch=8)
    measured.write(tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["format"] == 1
    assert content["benchmark"] == "inference"
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["memory_bytes"] > 1 << 28
    assert {"clipmux", "python", "openvino", "numpy"} <= content["versions"].keys()
    assert content["model"]["sha256"] == read_model("demo").sha256
    assert content["model"]["backend"] == "openvino"
    assert content["figures"] == [
        {"name": "qps", "unit": "1/s", "at": {"batch": 8}, "median": 2, "min": 1, "max": 3, "runs": [3, 1, 2]}
    ]
    assert content["ratios"][0]["runs"] == [1, 1, 1]


def test_without_a_model_there_is_no_word_of_one() -> None:
    assert "model" not in Measurement("decode").to_json()


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/clipmux", "bench", "decode"], ["clipmux", "bench", "decode"]),
        (["/lib/clipmux/bench/__main__.py", "decode"], ["python", "-m", "clipmux.bench", "decode"]),
    ],
)
def test_the_command_is_one_that_can_be_given_again(argv: list[str], command: list[str]) -> None:
    assert command_line(argv) == command


def test_a_busy_machine_is_warned_of() -> None:
    assert load_warning([0.1, 3, 3], 2) == ""
    assert "load 1.5 on 2 cores" in load_warning([1.5, 0, 0], 2)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure("a", "1/s", (12.345,)), "12.3"),
        (Figure("a", "1/s", (1.0, 2.0, 4.0)), "2.00 (1.00…4.00)"),
        (Figure("a", "1/s", (0.01234,)), "0.0123"),
        (Figure("a", "1/s", (123456.0,)), "123,456"),
        (Figure("a", "bytes", (3 * 2.0**20,)), "3.00"),
        (Figure("a", "", (0.0,)), "0"),
    ],
)
def test_figures_are_shown_with_three_digits(figure: Figure, text: str) -> None:
    assert shown(figure) == text


def test_a_table_has_a_row_per_point_and_a_column_per_figure() -> None:
    measured = Measurement("sweep")
    for batch in (1, 8):
        clips = measured.figure("clips_per_s", "1/s", [batch * 10], batch=batch)
        measured.figure("peak_memory", "bytes", [2**21], batch=batch)
        measured.ratio("speed_up", clips, measured.figures[0], batch=batch)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(figures_table(measured))
    rows = [line.strip("│┃ ").split() for line in console.export_text().splitlines()]
    assert ["1", "│", "10.0", "│", "2.00", "│", "1.00"] in rows
    assert ["8", "│", "80.0", "│", "2.00", "│", "8.00"] in rows
    assert "peak memory, MiB" in " ".join(rows[1])


@pytest.mark.parametrize("table", [figures_table, points_table])
def test_names_are_no_markup_and_do_nothing_to_a_terminal(
    table: Callable[[Measurement, str], Table], capsys: pytest.CaptureFixture[str]
) -> None:
    measured = Measurement("decode")
    for name in ("a[/b].mp4", "\x1b]0;:smile:\x07.mp4"):
        measured.figure("frames_per_core_s", "1/s", [10.0], video=name, folder="[bold]")
    wide_console().print(table(measured, "frames_per_core_s"))
    shown = capsys.readouterr().out
    assert "a[/b].mp4" in shown
    assert "folder [bold]" in shown
    assert "\\x1b]0;:smile:\\x07.mp4" in shown


def test_repeats_below_one_are_refused() -> None:
    assert check_repeats(1) == 1
    with pytest.raises(UsageError, match="--repeats is 0"):
        check_repeats(0)


def test_a_result_that_could_not_be_written_is_refused_before_measuring(tmp_path: Path) -> None:
    check_json(None)
    check_json(tmp_path / "new.json")
    for bad in (tmp_path, tmp_path / "no" / "such.json"):
        with pytest.raises(UsageError, match="--json is"):
            check_json(bad)


def test_whether_a_result_can_be_written_is_tried_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--json is '/proc/x\.json', which cannot be written"):
        check_json(Path("/proc/x.json"))
    there, link = tmp_path / "there.json", tmp_path / "link.json"
    there.write_text("{}")
    link.symlink_to(tmp_path / "led-to.json")
    for path in (tmp_path / "new.json", there, link):
        check_json(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "there.json"]
    assert there.read_text() == "{}"
