"""Charts as SVG, for the report. Pure: numbers and words in, a string out.

By hand, since what is needed is little: seven forms of chart, without scripts, whose colours follow the reader's light
or dark theme (they are custom properties of the page, see report.css). A plotting library would be heavier than clipmux
itself, and draws for one theme.

Every chart is 400 units wide, about what a phone shows, so that text keeps its size on one; a wider page puts charts
side by side. Bars start at zero, marks carry their own label, and one colour does where one suffices, so that nothing
depends on telling colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from .measure import digits

WIDTH = 400
HEIGHT = 220
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 22.0, 36.0
MOST_POINTS = 80
"""Points of a line at most. A batch is counted when it is done: means over longer steps are smoother, and truer."""

CHARACTER = 6.3
"""Width of a character at the charts' size of text, on average."""


def ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) from ``low`` to ``high``, about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive numbers, with their double and fivefold where there would be few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [tick for tick in found if low * 0.999 <= tick <= high * 1.001]
        if len(found) >= 3:
            return found
    return found or [low, high]


def short(value: float) -> str:
    """A tick's number: no digits that say nothing."""
    if value and abs(value) < 1:
        return f"{value:.{min(9, 1 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def line_chart(
    title: str,
    xs: Sequence[float],
    ys: Sequence[float],
    *,
    x_axis: str,
    y_axis: str,
    mean: bool = True,
) -> str:
    """One quantity over another, as a line on a zero-based scale with its mean; x rises.

    Raises:
        ValueError: there is no point, or the two differ in length.
    """
    if not xs or len(xs) != len(ys):
        raise ValueError(f"{len(xs)} and {len(ys)} values are no line")
    average = sum(ys) / len(ys)
    top = max(*ys, 0.0) or 1.0
    plot = _Plot(xs[0], max(xs[-1], xs[0] + 1e-9), 0.0, top)
    shown_xs, shown_ys = thinned(xs, ys, MOST_POINTS)
    points = [(plot.x(x), plot.y(y)) for x, y in zip(shown_xs, shown_ys, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    floor = plot.y(0.0)
    area = f"{points[0][0]:.1f},{floor:.1f} {line} {points[-1][0]:.1f},{floor:.1f}"
    body = [
        plot.y_axis(ticks(0.0, top), y_axis),
        f'<polygon class="area" points="{area}"/>',
        f'<polyline class="line" points="{line}"/>',
        plot.x_axis(ticks(plot.x_low, plot.x_high), x_axis),
    ]
    said = f"From {short(min(ys))} to {short(max(ys))}, {digits(average)} on average, over {short(xs[-1] - xs[0])}."
    if mean and len(ys) > 1:
        height = plot.y(average)
        body.append(f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        body.append(_text(WIDTH - RIGHT, 12, f"mean {digits(average)}", "end", "marked"))
    return _svg(title, said, body)


def strips(title: str, xs: Sequence[float], rows: Mapping[str, Sequence[float]], *, x_axis: str, unit: str) -> str:
    """Several quantities of one unit over one axis, a strip each on one shared zero-based scale, with their means.

    Raises:
        ValueError: a row has another length than the axis, or there is nothing to show.
    """
    if not xs or not rows or any(len(ys) != len(xs) for ys in rows.values()):
        raise ValueError("every strip needs as many values as the axis has")
    strip, gap, left = 30.0, 10.0, 92.0
    top = max(max(ys) for ys in rows.values()) or 1.0
    height = TOP + len(rows) * (strip + gap) + BOTTOM
    plot = _Plot(xs[0], max(xs[-1], xs[0] + 1e-9), 0.0, top, left=left, right=62.0, height=height)
    body = [_text(left, 12, f"each strip: 0 to {short(_rounded(top))} {unit}".rstrip(), "start", "unit")]
    said = []
    for number, (name, ys) in enumerate(rows.items()):
        floor = TOP + number * (strip + gap) + strip
        shown_xs, shown_ys = thinned(xs, ys, MOST_POINTS)
        line = " ".join(
            f"{plot.x(x):.1f},{floor - strip * max(y, 0.0) / top:.1f}" for x, y in zip(shown_xs, shown_ys, strict=True)
        )
        area = f"{plot.x(shown_xs[0]):.1f},{floor:.1f} {line} {plot.x(shown_xs[-1]):.1f},{floor:.1f}"
        average = sum(ys) / len(ys)
        body += [
            f'<rect class="ground" x="{left}" y="{floor - strip}" width="{plot.right - left}" height="{strip}"/>',
            f'<polygon class="area strong" points="{area}"/>',
            f'<line class="axis" x1="{left}" x2="{plot.right:.1f}" y1="{floor:.1f}" y2="{floor:.1f}"/>',
            _text(left - 8, floor - strip / 2 + 4, _fitted(name, 13), "end", "label"),
            _text(plot.right + 8, floor - strip / 2 + 4, f"⌀ {digits(average)}", "start", "label"),
        ]
        said.append(f"{name} {digits(average)}")
    body.append(plot.x_axis(ticks(plot.x_low, plot.x_high), x_axis))
    return _svg(title, f"On average: {', '.join(said)} {unit}".rstrip() + ".", body, height=height)


def bars(
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    *,
    unit: str = "",
    line: float | None = None,
) -> str:
    """Horizontal bars from zero, each with its name above it, its median at its end, and its spread as a whisker.

    Args:
        title: what is shown.
        rows: name, median, least and most of each; none below 0.
        unit: of the values.
        line: a value to draw a line at, such as 1 for ratios.

    Raises:
        ValueError: there is no row, or a value below 0.
    """
    if not rows or any(min(values) < 0 for _, *values in rows):
        raise ValueError("bars need rows, and values from 0 up")
    left, right, step, thick = 4.0, 74.0, 38.0, 14.0
    top = max([most for *_, most in rows] + [line or 0.0]) or 1.0
    height = 8 + step * len(rows) + (16 if line is not None else 4)
    across = WIDTH - left - right

    def x(value: float) -> float:
        return left + across * value / top

    body = []
    if line is not None:
        body.append(f'<line class="mark" x1="{x(line):.1f}" x2="{x(line):.1f}" y1="4" y2="{height - 14:.1f}"/>')
        body.append(_text(x(line), height - 3, short(line), "middle", "tick"))
    said = []
    for number, (name, median, least, most) in enumerate(rows):
        upper = 8 + step * number + 14
        middle = upper + thick / 2
        body.append(_text(left, upper - 4, _fitted(name, 60), "start", "label halo"))
        body.append(
            f'<rect class="bar" x="{left}" y="{upper}" width="{max(0.5, x(median) - left):.1f}" height="{thick}">'
            f"<title>{_words(name)}: {digits(median)} {_words(unit)} ({digits(least)} to {digits(most)})</title></rect>"
        )
        if most > least:
            body.append(_whisker(x(least), x(most), middle))
        body.append(_text(x(max(median, most)) + 7, middle + 4, digits(median), "start", "value"))
        said.append(f"{name} {digits(median)}")
    return _svg(title, f"{'; '.join(said)} {unit}".rstrip() + ".", body, height=height)


def size_histogram(title: str, counts: Mapping[int, int], *, x_axis: str, y_axis: str) -> str:
    """How often each whole number came, as bars with their share; 1 is the least, the scale starts there.

    Raises:
        ValueError: nothing was counted.
    """
    total = sum(counts.values())
    if total <= 0 or min(counts) < 0:
        raise ValueError("a histogram needs counts of numbers from 0 up")
    largest = max(counts)
    smallest = min(1, *counts)
    shares = {size: count / total for size, count in sorted(counts.items()) if count}
    top = max(shares.values())
    plot = _Plot(smallest - 0.5, largest + 0.5, 0.0, top)
    thick = max(1.5, min(48.0, 0.8 * (plot.right - LEFT) / (largest - smallest + 1)))
    body = [plot.y_axis(ticks(0.0, top), y_axis, percent=True)]
    floor = plot.y(0.0)
    free = -math.inf  # where the last label ended: labels that would touch are left out, the highest bar's never is
    best = max(shares, key=shares.__getitem__)
    labels = []
    for size, share in shares.items():
        x, y = plot.x(size), plot.y(share)
        body.append(
            f'<rect class="bar" x="{x - thick / 2:.1f}" y="{y:.1f}" width="{thick:.1f}" '
            f'height="{max(0.5, floor - y):.1f}"><title>{size}: {counts[size]:,} times, {share:.1%}</title></rect>'
        )
        text = f"{share:.0%}" if share >= 0.01 else "<1%"
        half = len(text) * CHARACTER / 2
        clear = abs(x - plot.x(best)) > 2 * half + 8
        said = len(shares) <= 10 or share > 0.05
        if size == best or (said and clear and x - half > free + 4):
            at = min(max(x, LEFT + half), plot.right - half)
            labels.append(_text(at, y - 5, text, "middle", "value"))
            free = x + half
    whole = [float(size) for size in range(smallest, largest + 1)]
    marks = whole if len(whole) <= 10 else [t for t in ticks(plot.x_low, plot.x_high, about=6) if t in whole]
    body += [*labels, plot.x_axis(marks or whole[:1], x_axis)]
    mean = sum(size * count for size, count in counts.items()) / total
    return _svg(title, f"{total:,} in all, {digits(mean)} on average; {best} came most often, {top:.0%}.", body)


def cdf(title: str, buckets: Sequence[tuple[float, int]], *, unit: str) -> str:
    """The share of durations that are at most so long, with p50, p90 and p99; a logarithmic scale where they differ
    much.

    Args:
        title: what is shown.
        buckets: upper bound and count of each, the bounds rising and above 0.
        unit: of the bounds.

    Raises:
        ValueError: nothing was counted, or the bounds do not rise.
    """
    total = sum(count for _, count in buckets)
    if total <= 0 or buckets[0][0] <= 0 or any(a >= b for (a, _), (b, _) in pairwise(buckets)):
        raise ValueError("a distribution needs counts, under bounds that rise from above 0")
    buckets = [(bound, count) for bound, count in buckets if count]
    low, high = buckets[0][0], buckets[-1][0]
    logarithmic = high > 8 * low
    if not logarithmic:
        low = 0.0
    elif high == low:
        high = low * 1.1
    plot = _Plot(low, high if high > low else low + 1, 0.0, 1.0, logarithmic=logarithmic)
    seen, points = 0, [(plot.x(low), plot.y(0.0))]
    found: dict[int, float] = {}
    for bound, count in buckets:
        x = plot.x(bound)
        points.append((x, plot.y(seen / total)))
        seen += count
        points.append((x, plot.y(seen / total)))
        for percent in (50, 90, 99):
            if percent not in found and seen >= total * percent / 100:
                found[percent] = bound
    body = [
        plot.y_axis([0.0, 0.25, 0.5, 0.75, 1.0], "share", percent=True),
        f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>',
        plot.x_axis(log_ticks(low, high) if logarithmic else ticks(low, plot.x_high), unit),
    ]
    said = []
    for percent, bound in found.items():
        x, y = plot.x(bound), plot.y(percent / 100)
        text = f"p{percent} {digits(bound)}"
        body.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        said.append(f"{text} {unit}")
        # The curve rises: what is left of it and above is free, and so is what is right of it and below.
        room = len(text) * CHARACTER + 12
        if percent < 99 and x - LEFT > room:
            body.append(_text(x - 9, y + 4, text, "end", "value halo"))
        elif plot.right - x > room:
            body.append(_text(x + 7, y + 16, text, "start", "value halo"))
        else:
            body.append(_text(plot.right, y - 9, text, "end", "value halo"))
    return _svg(title, f"{', '.join(said)}, of {total:,}.", body)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], float],
    *,
    row_axis: str,
    column_axis: str,
    unit: str = "",
    least_is_best: bool = False,
) -> str:
    """A value for each row and column, the larger the stronger, each cell with its number and the best one framed.

    Args:
        title: what is shown.
        rows: their names, from above.
        columns: their names, from the left.
        cells: value at (row, column), from 0 up; one that was not measured is left out.
        row_axis: what rows differ in.
        column_axis: what columns differ in.
        unit: of the values.
        least_is_best: frame the smallest value.

    Raises:
        ValueError: there is no cell.
    """
    if not cells:
        raise ValueError("a heat map needs a cell")
    left = 14 + CHARACTER * max(len(_fitted(name, 14)) for name in rows) + 6
    top, cell_height = 44.0, 34.0
    width = (WIDTH - left - 4) / len(columns)
    height = top + cell_height * len(rows) + 6
    most, least = max(cells.values()), min(cells.values())
    best = (min if least_is_best else max)(cells, key=cells.__getitem__)
    body = [
        _text(left, 12, f"{row_axis} (down) × {column_axis} (across)", "start", "unit"),
    ]
    for number, name in enumerate(columns):
        body.append(_text(left + width * (number + 0.5), top - 8, _fitted(name, 10), "middle", "tick"))
    for down, row in enumerate(rows):
        y = top + cell_height * down
        body.append(_text(left - 8, y + cell_height / 2 + 4, _fitted(row, 14), "end", "tick"))
        for across, column in enumerate(columns):
            x = left + width * across
            value = cells.get((row, column))
            box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{cell_height - 2}"'
            middle = (x + width / 2, y + cell_height / 2 + 4)
            if value is None:
                body += [f'<rect class="ground" {box}/>', _text(*middle, "–", "middle", "tick")]
                continue
            # The range of what was measured fills the scale, or neighbours would look alike; up to half the colour,
            # on which text is legible in either theme.
            strength = 0.05 + 0.45 * ((value - least) / (most - least) if most > least else 1.0)
            frame = " best" if (row, column) == best else ""
            body.append(
                f'<rect class="cell{frame}" fill-opacity="{strength:.2f}" {box}><title>{_words(row)}, '
                f"{_words(column)}: {digits(value)} {_words(unit)}</title></rect>"
            )
            body.append(_text(*middle, digits(value), "middle", "value"))
    said = f"From {digits(least)} to {digits(most)} {unit}".rstrip()
    return _svg(title, f"{said}; best at {row_axis} {best[0]}, {column_axis} {best[1]}.", body, height=height)


def thinned(xs: Sequence[float], ys: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """At most so many points: each the mean of as many neighbours as it takes."""
    if len(xs) <= most:
        return list(xs), list(ys)
    edges = [round(number * len(xs) / most) for number in range(most + 1)]
    groups = [slice(a, b) for a, b in pairwise(edges)]
    return [sum(xs[g]) / len(xs[g]) for g in groups], [sum(ys[g]) / len(ys[g]) for g in groups]


class _Plot:
    """The area inside the axes, and where a value lies in it."""

    def __init__(
        self,
        x_low: float,
        x_high: float,
        y_low: float,
        y_high: float,
        *,
        left: float = LEFT,
        right: float = RIGHT,
        height: float = HEIGHT,
        logarithmic: bool = False,
    ) -> None:
        self.x_low, self.x_high = x_low, x_high
        self._y_low, self._y_high = y_low, y_high
        self._left = left
        self.right = WIDTH - right
        self._floor = height - BOTTOM
        self._logarithmic = logarithmic

    def x(self, value: float) -> float:
        if self._logarithmic:
            share = math.log(value / self.x_low) / math.log(self.x_high / self.x_low)
        else:
            share = (value - self.x_low) / (self.x_high - self.x_low)
        return self._left + (self.right - self._left) * share

    def y(self, value: float) -> float:
        return self._floor - (self._floor - TOP) * (value - self._y_low) / (self._y_high - self._y_low)

    def x_axis(self, marks: Sequence[float], name: str) -> str:
        across = f'x1="{self._left}" x2="{self.right}"'
        parts = [f'<line class="axis" {across} y1="{self._floor}" y2="{self._floor}"/>']
        for mark in marks:
            anchor = "end" if self.x(mark) > self.right - 8 else "middle"
            parts.append(_text(self.x(mark), self._floor + 14, short(mark), anchor, "tick"))
        parts.append(_text(self.right, self._floor + 29, name, "end", "unit"))
        return "".join(parts)

    def y_axis(self, marks: Sequence[float], name: str, *, percent: bool = False) -> str:
        parts = [_text(2, 12, name, "start", "unit")]
        for mark in marks:
            y = self.y(mark)
            parts.append(f'<line class="grid" x1="{self._left}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            text = f"{mark:.0%}" if percent else short(mark)
            parts.append(_text(self._left - 6, y + 4, text, "end", "tick"))
        return "".join(parts)


def _svg(title: str, said: str, body: Sequence[str], *, height: float = HEIGHT) -> str:
    """The whole picture; ``title`` and ``said`` are what a screen reader reads."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{_words(title)}. {_words(said)}">'
        f"<title>{_words(title)}</title><desc>{_words(said)}</desc>{''.join(body)}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_words(words)}</text>'


def _whisker(x1: float, x2: float, y: float) -> str:
    ends = "".join(f"M{x:.1f} {y - 4:.1f}V{y + 4:.1f}" for x in (x1, x2))
    return f'<path class="whisker" d="M{x1:.1f} {y:.1f}H{x2:.1f}{ends}"/>'


def _fitted(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _words(text: str) -> str:
    """Escaped, and without the characters that HTML forbids."""
    return escape("".join(c if c.isprintable() else "�" for c in text), quote=True)
