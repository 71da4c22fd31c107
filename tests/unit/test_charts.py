"""Charts: well-formed SVG, true to scale, and readable without seeing it."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmux.bench import charts

NASTY = "<b>&\"'\x00"


def parsed(svg: str) -> ET.Element:
    """The picture; one that is not well-formed fails here."""
    root = ET.fromstring(svg)  # noqa: S314  (ours)
    assert root.get("role") == "img"
    title, desc = root.find("title"), root.find("desc")
    assert title is not None
    assert desc is not None
    assert title.text
    assert desc.text
    assert root.get("aria-label") == f"{title.text}. {desc.text}"
    return root


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in root.iter() if name in (element.get("class") or "").split()]


def words(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter("text")]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e9))
def test_ticks_are_round_and_inside(low: float, size: float) -> None:
    found = charts.ticks(low, low + size)
    assert 1 <= len(found) <= 6
    assert all(low - size * 1e-6 <= tick <= low + size * (1 + 1e-6) for tick in found)
    if len(found) > 1:
        step = found[1] - found[0]
        assert f"{step:.1e}"[:3] in {"1.0", "2.0", "2.5", "5.0", "9.9"} or size < abs(low) * 1e-6


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.line_chart(NASTY, [0, 1], [2, 3], x_axis=NASTY, y_axis=NASTY),
        lambda: charts.strips(NASTY, [0, 1], {NASTY: [2, 3]}, x_axis=NASTY, unit=NASTY),
        lambda: charts.bars(NASTY, [(NASTY, 2, 1, 3)], unit=NASTY, line=1),
        lambda: charts.size_histogram(NASTY, {8: 3}, x_axis=NASTY, y_axis=NASTY),
        lambda: charts.cdf(NASTY, [(0.1, 2)], unit=NASTY),
        lambda: charts.heat_map(NASTY, [NASTY], ["b"], {(NASTY, "b"): 1}, row_axis=NASTY, column_axis=NASTY),
    ],
)
def test_words_are_words(draw: Callable[[], str]) -> None:
    """Whatever a name holds, it adds no element and breaks none."""
    root = parsed(draw())
    assert not list(root.iter("b"))
    assert any("<b>&\"'�" in word for word in [*words(root), root.get("aria-label") or ""])


def test_bars_start_at_zero_and_are_true_to_scale() -> None:
    root = parsed(charts.bars("speed", [("a", 10, 8, 12), ("b", 5, 5, 5), ("c", 0, 0, 0)], unit="clips/s"))
    found = of_class(root, "bar")
    widths = [float(bar.get("width", "0")) for bar in found]
    assert len({bar.get("x") for bar in found}) == 1
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    assert widths[2] < 1
    assert len(of_class(root, "whisker")) == 1  # b and c did not vary
    assert words(root) == ["a", "10.0", "b", "5.00", "c", "0"]


def test_a_line_starts_at_zero_and_says_its_mean() -> None:
    root = parsed(charts.line_chart("speed", [0, 1, 2], [50, 60, 70], x_axis="seconds", y_axis="clips/s"))
    points = [tuple(map(float, point.split(","))) for point in of_class(root, "line")[0].get("points", "").split()]
    floor = float(of_class(root, "axis")[0].get("y1", "0"))
    heights = [floor - y for _, y in points]
    assert heights[0] / heights[2] == pytest.approx(50 / 70, rel=0.01)
    assert "mean 60.0" in words(root)
    assert {"0", "seconds", "clips/s"} <= set(words(root))


def test_a_long_line_is_thinned_and_keeps_its_mean() -> None:
    xs, ys = charts.thinned(range(10_000), [float(x % 2) for x in range(10_000)], 400)
    assert len(xs) == len(ys) == 400
    assert all(y == pytest.approx(0.5, abs=0.05) for y in ys)
    assert charts.thinned([1, 2], [3, 4], 400) == ([1, 2], [3, 4])


def test_strips_share_one_scale() -> None:
    root = parsed(charts.strips("busy", [0, 1], {"decode": [1, 1], "infer": [2, 2]}, x_axis="seconds", unit="cores"))
    heights = []
    for area in of_class(root, "area"):
        ys = [float(point.split(",")[1]) for point in area.get("points", "").split()]
        heights.append(max(ys) - min(ys))
    assert heights[1] == pytest.approx(2 * heights[0])
    assert {"decode", "infer", "⌀ 1.00", "⌀ 2.00", "each strip: 0 to 2 cores"} <= set(words(root))


def test_a_histogram_labels_shares() -> None:
    root = parsed(charts.size_histogram("batches", {8: 97, 3: 2, 1: 1}, x_axis="clips", y_axis="share"))
    assert {"97%", "2%", "1%", "8", "1"} <= set(words(root))
    assert "100 in all, 7.83 on average; 8 came most often, 97%." in (root.get("aria-label") or "")
    many = parsed(charts.size_histogram("batches", dict.fromkeys(range(1, 65), 1), x_axis="clips", y_axis="share"))
    assert words(many).count("2%") == 2  # one bar's label, and a tick: 64 labels would be unreadable
    assert len(of_class(many, "bar")) == 64


def test_a_distribution_says_its_percentiles() -> None:
    buckets = [(float(number), 1) for number in range(1, 101)]
    assert {"p50 50.0", "p90 90.0", "p99 99.0"} <= set(words(parsed(charts.cdf("latency", buckets, unit="ms"))))
    narrow = parsed(charts.cdf("latency", [(70.0, 5), (71.0, 5)], unit="ms"))
    assert {"0", "p50 70.0", "p99 71.0"} <= set(words(narrow))  # of much the same size: a scale from zero
    parsed(charts.cdf("latency", [(70.0, 5)], unit="ms"))


def test_a_heat_map_frames_its_best_cell() -> None:
    cells = {("1", "8"): 10.0, ("1", "64"): 30.0, ("2", "8"): 20.0}
    root = parsed(
        charts.heat_map(
            "speed", ["1", "2"], ["8", "64"], cells, row_axis="workers", column_axis="batch", unit="clips/s"
        )
    )
    assert len(of_class(root, "cell")) == 3
    assert words(root).count("–") == 1
    assert [cell.findtext("title") for cell in of_class(root, "best")] == ["1, 64: 30.0 clips/s"]
    few = parsed(
        charts.heat_map("memory", ["1", "2"], ["8", "64"], cells, row_axis="a", column_axis="b", least_is_best=True)
    )
    assert [cell.findtext("title") for cell in of_class(few, "best")] == ["1, 8: 10.0 "]
    strengths = [float(cell.get("fill-opacity", "0")) for cell in of_class(root, "cell")]
    assert strengths[0] < strengths[2] < strengths[1] <= 0.5


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.line_chart("", [], [], x_axis="", y_axis=""),
        lambda: charts.line_chart("", [1], [1, 2], x_axis="", y_axis=""),
        lambda: charts.strips("", [1], {"a": [1, 2]}, x_axis="", unit=""),
        lambda: charts.bars("", []),
        lambda: charts.bars("", [("a", 1, -1, 2)]),
        lambda: charts.size_histogram("", {}, x_axis="", y_axis=""),
        lambda: charts.cdf("", [(2.0, 1), (1.0, 1)], unit=""),
        lambda: charts.heat_map("", ["a"], ["b"], {}, row_axis="", column_axis=""),
    ],
)
def test_nothing_to_draw(draw: Callable[[], str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        draw()
