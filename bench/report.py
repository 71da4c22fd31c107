"""Any benchmark's result as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from clipmux.engine.errors import ClipmuxError, UsageError

from . import charts
from .measure import FORMAT, check_output, digits

LARGEST = 64 << 20
"""Bytes of a result file at most."""

MOST_BARS = 16
"""Points that are shown as bars; more of them are a heat map where they form a grid, or a table alone."""

MOST_ROWS = 24
"""Rows of a table that is there at once; a longer one opens when asked."""

TILES = 8
"""Ratios that are shown large, if there are no more."""

WORKERS = "at work"
"""Unit of busy time over time: how many processes, or runners of the device, are at a stage."""

UNITS = {"bytes": ("MiB", 2.0**-20)}
"""Units that are shown as another: its name, and what to multiply with."""


@dataclass(frozen=True)
class Entry:
    """A figure or a ratio as a result has it: the median of its runs, and their least and most."""

    name: str
    unit: str
    at: Mapping[str, str]
    median: float
    least: float
    most: float
    runs: int
    over: str = ""

    @property
    def heading(self) -> str:
        """``clips/s``, or ``latency p50, ms``."""
        words = _named(self.name)
        unit = UNITS.get(self.unit, (self.unit, 1.0))[0]
        return words if unit in ("", "1/s") else f"{words}, {unit}"

    @property
    def shown_unit(self) -> str:
        """The unit of its numbers: ``clips/s``, ``MiB``, ``×``."""
        if self.over:
            return "×"
        return _named(self.name) if self.unit == "1/s" else UNITS.get(self.unit, (self.unit, 1.0))[0]

    def where(self, axes: Collection[str]) -> str:
        """The point of the grid it belongs to, by some of its axes: ``int8, batch 8``."""
        at = {axis: value for axis, value in self.at.items() if axis in axes}
        return ", ".join(value if _is_word(value) else f"{_named(axis)} {value}" for axis, value in at.items())


def write_report(content: Mapping[str, Any], path: Path) -> None:
    """Write a benchmark's result, the content of ``--json``, as an HTML page (``--html FILE``).

    Raises:
        ClipmuxError: the file cannot be written.
        UsageError: the content is no result.
    """
    write_reports([content], path)


def write_reports(contents: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The same for several results, on one page."""
    page = to_html(contents)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ClipmuxError(f"'{path}' cannot be written ({error.strerror}): give another --html") from None


def check_html(path: Path | None) -> None:
    """See before measuring whether the report can be written.

    Raises:
        UsageError: it cannot.
    """
    check_output(path, "--html")


def read_result(path: Path) -> dict[str, Any]:
    """Read what ``--json`` wrote.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise UsageError(f"'{path}' is larger than {LARGEST >> 20} MiB: give a file that --json wrote")
        content = json.loads(text)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read ({error.strerror}): give a file that --json wrote") from None
    except (ValueError, RecursionError):
        raise UsageError(f"'{path}' is no JSON: give a file that --json wrote") from None
    try:
        to_html([content])
    except UsageError as error:
        raise UsageError(f"'{path}': {error}") from None
    return dict(content)


def to_html(contents: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Raises:
        UsageError: the content is no result.
    """
    articles = [_article(content, number) for number, content in enumerate(contents, start=1)]
    names = [_title(content) for content in contents]
    title = names[0] if len(names) == 1 else "clipmux benchmarks"
    contents_list = ""
    if len(names) > 1:
        links = [", ".join([name, *_about(content)[:1]]) for name, content in zip(names, contents, strict=True)]
        items = "".join(f'<li><a href="#result-{n}">{_words(link)}</a></li>' for n, link in enumerate(links, start=1))
        contents_list = f'<nav aria-label="Results"><h1>clipmux benchmarks</h1><ul>{items}</ul></nav>'
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing but its own style: a page that reached out, whatever a result holds, would be refused by the browser.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_words(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{contents_list}<main>\n"
        + "\n".join(articles)
        + "\n</main>\n<footer>Each figure is the median of its runs, with the least…most of them below. Ratios are of "
        "runs made side by side.</footer>\n</body>\n</html>\n"
    )


# --- parts of the page -----------------------------------------------------------------------------------------------


def _article(content: Mapping[str, Any], number: int) -> str:
    """One result: what was measured, ratios, charts, figures, machine."""
    _check(content)
    figures = [_entry(item) for item in content.get("figures", [])]
    ratios = [_entry(item) for item in content.get("ratios", [])]
    parts = [
        f'<article id="result-{number}">',
        f"<h1>{_words(_title(content))}</h1>",
        *(f'<p class="about">{_words(line)}</p>' for line in _about(content)),
    ]
    if command := content.get("command"):
        parts.append(f"<pre><code>{_words(shlex.join(map(str, command)))}</code></pre>")
    telling = [ratio for ratio in ratios if not ratio.least == ratio.most == 1]  # something over itself tells nothing
    if 0 < len(telling) <= TILES:
        axes = _varying(ratios)
        parts.append(f'<ul class="tiles">{"".join(_tile(ratio, axes) for ratio in telling)}</ul>')
    drawn = [*_bars(ratios, figures), *_series(content.get("series") or {}), *_histograms(content)]
    if drawn:
        parts.append(f'<h2>Charts</h2>\n<div class="charts">\n{"".join(drawn)}</div>')
    if ratios:
        parts.append("<h2>Ratios</h2>" + "".join(_tables(ratios, "Ratios")))
    if figures:
        parts.append("<h2>Figures</h2>" + "".join(_tables(figures, "Figures")))
    parts.append(f"<h2>Machine and versions</h2>\n{_facts(content)}\n</article>")
    return "\n".join(parts)


def _title(content: Mapping[str, Any]) -> str:
    return f"clipmux bench {content.get('benchmark', '')}".strip()


def _about(content: Mapping[str, Any]) -> list[str]:
    lines = []
    if model := content.get("model"):
        said = [str(model.get(key)) for key in ("name", "precision", "backend", "device") if model.get(key)]
        lines.append(", ".join(said))
    machine = content.get("machine") or {}
    where = [str(machine["cpu"])] if machine.get("cpu") else []
    if machine.get("cores"):
        where.append(f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}")
    if content.get("started"):
        where.append(str(content["started"]).replace("T", " ").replace("+00:00", " UTC"))
    lines.append(" · ".join(where))
    return [line for line in lines if line]


def _tile(ratio: Entry, axes: Collection[str]) -> str:
    spread = f", {digits(ratio.least)}…{digits(ratio.most)}" if ratio.runs > 1 else ""
    where = f"{ratio.where(axes)}, " if ratio.where(axes) else ""
    return (
        f"<li><strong>{digits(ratio.median)} ×</strong><span>{_words(_named(ratio.name))}{_words(spread)}</span>"
        f"<span>{_words(where)}over {_words(_named(ratio.over))}</span></li>"
    )


def _tables(entries: Sequence[Entry], caption: str) -> list[str]:
    """A table for each set of axes: a row for each point, a column for each name."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry.at), []).append(entry)
    return [_table(axes, group, caption) for axes, group in groups.items()]


def _table(axes: tuple[str, ...], entries: Sequence[Entry], caption: str) -> str:
    shared = [axis for axis in axes if axis not in _varying(entries)]
    axes = tuple(axis for axis in axes if axis not in shared)  # an axis along which nothing varies is said once
    rows: list[tuple[tuple[str, ...], list[Entry | None]]]
    if not axes:  # one point: a row for each name reads better than one long row
        rows = [((entry.heading + (f" ÷ {_named(entry.over)}" if entry.over else ""),), [entry]) for entry in entries]
        heads = ['<th scope="col" class="axis">what</th>', '<th scope="col">median</th>']
    else:
        columns = list(dict.fromkeys((entry.name, entry.over) for entry in entries))
        first = {(entry.name, entry.over): entry for entry in reversed(entries)}
        heads = [f'<th scope="col" class="axis">{_words(_named(axis))}</th>' for axis in axes]
        for column in columns:
            over = f" ÷ {_named(column[1])}" if column[1] else ""
            heads.append(f'<th scope="col">{_words(first[column].heading + over)}</th>')
        points: dict[tuple[str, ...], dict[tuple[str, str], Entry]] = {}
        for entry in entries:
            points.setdefault(tuple(entry.at[axis] for axis in axes), {})[entry.name, entry.over] = entry
        rows = [(point, [cells.get(column) for column in columns]) for point, cells in points.items()]
    lines = []
    for names, cells in rows:
        row = "".join(f'<th scope="row">{_words(name)}</th>' for name in names)
        lines.append(f"<tr>{row}{''.join(map(_cell, cells))}</tr>")
    runs = sorted({entry.runs for entry in entries})
    many = f"{runs[0]} to {runs[-1]} runs" if len(runs) > 1 else f"{runs[0]} run{'s' if runs[0] > 1 else ''}"
    said = [f"{_named(axis)} {entries[0].at[axis]}" for axis in shared]
    table = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{_words(', '.join([f'median of {many}', *said]))}</caption><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )
    if len(lines) <= MOST_ROWS:
        return table
    return f"<details><summary>all {len(lines)} points as a table</summary>{table}</details>\n"


def _varying(entries: Sequence[Entry]) -> set[str]:
    """The axes along which there is more than one value."""
    values: dict[str, set[str]] = {}
    for entry in entries:
        for axis, value in entry.at.items():
            values.setdefault(axis, set()).add(value)
    return {axis for axis, found in values.items() if len(found) > 1}


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return "<td></td>"
    spread = f"<small>{digits(entry.least)}…{digits(entry.most)}</small>" if entry.runs > 1 else ""
    return f"<td>{digits(entry.median)}{spread}</td>"


def _facts(content: Mapping[str, Any]) -> str:
    facts: dict[str, str] = {}
    machine = content.get("machine") or {}
    for key, value in machine.items():
        if key.endswith("_bytes"):
            facts[_named(key.removesuffix("_bytes"))] = f"{value / 2**30:.1f} GiB"
        elif key == "load":
            facts["load when it began"] = " ".join(f"{load:.2f}" for load in value)
        else:
            facts[_named(key)] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    facts |= {name: str(version) for name, version in (content.get("versions") or {}).items()}
    for key, value in (content.get("model") or {}).items():
        facts["model" if key == "name" else f"model's {_named(key)}"] = str(value)
    return f"<dl>{''.join(f'<dt>{_words(k)}</dt><dd>{_words(v)}</dd>' for k, v in facts.items() if v)}</dl>"


# --- charts ----------------------------------------------------------------------------------------------------------


def _bars(ratios: Sequence[Entry], figures: Sequence[Entry]) -> list[str]:
    """Ratios, rates and memory, where several points compare; a grid of many becomes heat maps."""
    drawn = []
    groups: dict[tuple[str, str, tuple[str, ...]], list[Entry]] = {}
    for entry in [*ratios, *(figure for figure in figures if figure.unit in ("1/s", "bytes"))]:
        groups.setdefault((entry.name, entry.over, tuple(entry.at)), []).append(entry)
    for (name, over, _), entries in groups.items():
        if len(entries) < 2 or min(entry.least for entry in entries) < 0:
            continue
        unit = entries[0].shown_unit
        caption = f"{_named(name)} over {_named(over)}" if over else entries[0].heading
        if maps := _heat_maps(entries, caption, unit):
            drawn += maps
        elif len(entries) <= MOST_BARS:
            axes = _varying(entries)
            rows = [(entry.where(axes), entry.median, entry.least, entry.most) for entry in entries]
            drawn.append(_figure(caption, charts.bars(caption, rows, unit=unit, line=1.0 if over else None)))
    return drawn


def _heat_maps(entries: Sequence[Entry], caption: str, unit: str) -> list[str]:
    """A heat map of the two longest axes for each point of the others; nothing where there is no grid of many."""
    values = {axis: list(dict.fromkeys(entry.at[axis] for entry in entries)) for axis in entries[0].at}
    varying = _varying(entries)
    longest = sorted((axis for axis in values if len(values[axis]) > 1), key=lambda axis: len(values[axis]))[-2:]
    if len(longest) < 2 or len(values[longest[0]]) * len(values[longest[1]]) < 9 or max(map(len, values.values())) > 10:
        return []
    down, across = longest
    facets: dict[str, dict[tuple[str, str], float]] = {}
    for entry in entries:
        rest = entry.where(varying.difference(longest))
        facets.setdefault(rest, {})[entry.at[down], entry.at[across]] = entry.median
    drawn = []
    for rest, cells in facets.items():
        name = f"{caption}: {rest}" if rest else caption
        drawn.append(
            _figure(
                name,
                charts.heat_map(
                    name,
                    values[down],
                    values[across],
                    cells,
                    row_axis=_named(down),
                    column_axis=_named(across),
                    unit=unit,
                    least_is_best=entries[0].unit == "bytes",
                ),
            )
        )
    return drawn


def _series(series: Mapping[str, Any]) -> list[str]:
    """What changed while one run went on."""
    times = series.get("time_s") or []
    drawn = []
    for name, values in series.items():
        if name == "time_s" or not values:
            continue
        caption = f"{_named(name)} over time"
        if isinstance(values, Mapping):
            rows = {_named(stage): ys for stage, ys in values.items()}
            drawn.append(_figure(caption, charts.strips(caption, times, rows, x_axis="seconds", unit=WORKERS)))
        else:
            chart = charts.line_chart(caption, times, values, x_axis="seconds", y_axis=_named(name))
            drawn.append(_figure(caption, chart))
    return drawn


def _histograms(content: Mapping[str, Any]) -> list[str]:
    drawn = []
    for name, counts in (content.get("histograms") or {}).items():
        if not counts:
            continue
        if isinstance(counts, Mapping):
            sizes = {int(size): count for size, count in counts.items()}
            caption = f"{_named(name)}, share of {'batches' if name == 'batch_size' else 'all'}"
            drawn.append(_figure(caption, charts.size_histogram(caption, sizes, x_axis=_named(name), y_axis="share")))
        else:
            in_ms = name.endswith("_s")
            unit = "ms" if in_ms else ""
            caption = f"{_named(name.removesuffix('_s'))} CDF"
            scaled = [(bound * (1000 if in_ms else 1), count) for bound, count in counts]
            drawn.append(_figure(caption, charts.cdf(caption, scaled, unit=unit)))
    return drawn


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{_words(caption)}</figcaption>{svg}</figure>\n"


# --- what a result must hold -----------------------------------------------------------------------------------------


def _entry(item: Any) -> Entry:
    """A figure or a ratio, in the units it is shown in."""
    try:
        name, over, unit = str(item["name"]), str(item.get("over", "")), str(item.get("unit", ""))
        scale = 1.0 if over else UNITS.get(unit, ("", 1.0))[1]
        median, least, most = (scale * float(item[key]) for key in ("median", "min", "max"))
        at = {str(axis): str(value) for axis, value in (item.get("at") or {}).items()}
        runs = len(item["runs"])
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise UsageError(f"no figure is {_quoted(item)}: each has a name, median, min, max and runs") from None
    if not all(map(math.isfinite, (median, least, most))) or not runs:
        raise UsageError(f"no figure is {_quoted(item)}: its values must be finite, and of at least one run")
    return Entry(name, unit, at, median, least, most, runs, over)


def _check(content: Any) -> None:
    """See whether this is a result as a whole; figures are looked at one by one.

    Raises:
        UsageError: it is not.
    """

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise UsageError(f"this is no benchmark's result ({what}): give what --json wrote")

    need(isinstance(content, Mapping) and isinstance(content.get("benchmark"), str), "it names no benchmark")
    need(content.get("format") == FORMAT, f"its format is {content.get('format')!r}, not {FORMAT}")
    for key in ("figures", "ratios", "command"):
        need(isinstance(content.get(key, []), list), f"'{key}' is no list")
    for key in ("machine", "versions", "videos", "series", "histograms"):
        need(isinstance(content.get(key) or {}, Mapping), f"'{key}' is no object")
    need(isinstance(content.get("model") or {}, Mapping), "'model' is no object")
    machine = content.get("machine") or {}
    load = machine.get("load", [])
    need(isinstance(load, list) and all(map(_is_number, load)), "the load is no list of numbers")
    need(all(_is_number(v) for k, v in machine.items() if str(k).endswith("_bytes")), "its memory is no number")
    series = content.get("series") or {}
    times = series.get("time_s") or []
    for name, values in series.items():
        for row in values.values() if isinstance(values, Mapping) else [values]:
            need(
                isinstance(row, list) and len(row) in (0, len(times)) and all(map(_is_number, row)),
                f"the series '{name}' is not as many numbers as there are times",
            )
    need(all(a < b for a, b in pairwise(times)), "its times do not rise")
    for name, counts in (content.get("histograms") or {}).items():
        need(_is_histogram(counts), f"the histogram '{name}' holds something else than counts")


def _is_histogram(counts: Any) -> bool:
    if isinstance(counts, Mapping):
        return all(
            str(size).isdecimal() and int(size) < 10_000 and _is_number(count) and count >= 0
            for size, count in counts.items()
        ) and (not counts or sum(counts.values()) > 0)
    if not isinstance(counts, list):
        return False
    pairs = [pair for pair in counts if isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))]
    return (
        len(pairs) == len(counts)
        and all(bound > 0 and count >= 0 for bound, count in pairs)
        and all(a[0] < b[0] for a, b in pairwise(pairs))
        and (not pairs or sum(count for _, count in pairs) > 0)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_word(value: str) -> bool:
    """Whether a point's value says by itself what it is, as ``int8`` does and ``8`` does not."""
    return not value.replace(".", "").replace("×", "").isdecimal()


def _named(name: str) -> str:
    """``clips_per_s`` as ``clips/s``, ``batch_size`` as ``batch size``."""
    return name.replace("_per_s", "/s").replace("_", " ")


def _quoted(item: Any) -> str:
    text = repr(item)
    return text if len(text) <= 200 else text[:199] + "…"


def _words(text: str) -> str:
    """Escaped, and without the characters that HTML forbids."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text), quote=True)
