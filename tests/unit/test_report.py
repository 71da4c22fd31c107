"""The HTML report: whole, escaped, reaching out to nothing; and what is no result is refused in one sentence."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command import clipmux

from clipmux.bench.report import read_result, to_html, write_report
from clipmux.engine.errors import ClipmuxError, UsageError

VOID = {"meta", "br"}


def figure(name: str, unit: str, runs: list[float], **at: Any) -> dict[str, Any]:
    ordered = sorted(runs)
    middle = ordered[len(ordered) // 2]
    return {"name": name, "unit": unit, "at": at, "median": middle, "min": ordered[0], "max": ordered[-1], "runs": runs}


def ratio(name: str, runs: list[float], over: str, **at: Any) -> dict[str, Any]:
    return {**figure(name, "", runs, **at), "of": "clips_per_s", "over": over}


RESULT: dict[str, Any] = {
    "format": 1,
    "benchmark": "end-to-end",
    "command": ["clipmux", "bench", "end-to-end", "my videos/", "--json", "out.json"],
    "started": "2026-11-25T08:00:00+00:00",
    "machine": {"cpu": "A <fast> one", "cores": 2, "features": ["avx2"], "memory_bytes": 8 << 30, "load": [0.1, 0, 0]},
    "versions": {"clipmux": "0.1.0", "openvino": "2026.4.1"},
    "model": {"name": "resnet-50", "precision": "int8", "sha256": "ab" * 32},
    "figures": [
        figure("clips_per_s", "1/s", [53.25, 50.0, 55.5], system="clipmux"),
        figure("clips_per_s", "1/s", [6.5, 6.25, 6.75], system="reference"),
        figure("memory", "bytes", [300 * 2**20], system="clipmux"),
        figure("time_to_first", "s", [1.5]),
    ],
    "ratios": [ratio("speed_up", [8.25, 8.0, 8.5], "reference")],
    "series": {
        "time_s": [0.0, 0.5, 1.0],
        "clips_per_s": [0, 50, 60],
        "queue_depth": [1, 2, 3],
        "busy": {"decode": [1, 1, 1], "infer": [0, 1, 2]},
    },
    "histograms": {"batch_size": {"8": 90, "1": 10}, "latency_s": [[0.01, 5], [0.02, 4], [0.4, 1]]},
}


class Page(HTMLParser):
    """What a page holds; unbalanced tags fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open[-1] != "style":
            self.words.append(data.strip())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_everything_is_on_the_page() -> None:
    page = Page(to_html([RESULT]))
    assert page.count("svg") == 6  # rates, speed, queue, busy, batch size, latency
    for said in (
        "clipmux bench end-to-end 'my videos/' --json out.json",
        "A <fast> one · 2 cores · 2026-11-25 08:00:00 UTC",
        "resnet-50, int8",
        "8.25 ×",
        "speed up ÷ reference",
        "53.2",
        "50.0…55.5",
        "300",
        "memory, MiB",
        "time to first, s",
        "latency CDF",
        "busy over time",
        "2026.4.1",
    ):
        assert said in page.words, said
    assert "speed up, 8.00…8.50" in page.words


def test_tables_say_what_their_cells_are_about() -> None:
    page = Page(to_html([RESULT]))
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert heads
    assert all(attributes.get("scope") in ("row", "col") for attributes in heads)
    assert page.count("caption") == page.count("table") == 3


def test_the_page_reaches_out_to_nothing() -> None:
    text = to_html([RESULT])
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    assert not any({"src", "href", "onload", "style"} & set(attributes) for _, attributes in page.tags)
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_names_are_words_and_nothing_else() -> None:
    nasty = "</title></style><script>alert(1)</script><img src=x onerror=y>\"'&\x00"
    content = copy.deepcopy(RESULT)
    content["benchmark"] = nasty
    content["command"] = [nasty]
    content["machine"]["cpu"] = content["versions"][nasty] = content["model"]["name"] = nasty
    content["figures"] = [figure(nasty, nasty, [1, 2], **{nasty: nasty}), figure("rate", "1/s", [1], a=nasty)]
    content["figures"].append(figure("rate", "1/s", [2], a="b"))
    content["ratios"] = [ratio(nasty, [1, 2], nasty, a=nasty), ratio(nasty, [1, 2], nasty, a="b")]
    content["series"] = {"time_s": [0, 1], nasty: [1, 2], "busy": {nasty: [1, 2]}}
    content["histograms"] = {nasty: {"1": 2}, nasty + "_s": [[1, 2]]}
    page = Page(to_html([content]))
    assert page.count("script") == page.count("img") == 0
    assert page.count("svg") == 6


def test_a_grid_of_many_is_a_heat_map_for_each_precision() -> None:
    content = {**RESULT, "benchmark": "sweep", "ratios": [], "series": {}, "histograms": {}}
    content["figures"] = [
        figure("clips_per_s", "1/s", [workers * batch], precision=precision, workers=workers, batch=batch)
        for precision in ("float32", "int8")
        for workers in (1, 2, 3)
        for batch in (1, 8, 32, 64)
    ]
    page = Page(to_html([content]))
    assert [word for word in page.words if word.startswith("clips/s: ")] == [
        *["clips/s: float32"] * 2,  # the caption, and the picture's own title
        *["clips/s: int8"] * 2,
    ]
    assert sum("best" in (attributes.get("class") or "") for _, attributes in page.tags) == 2


def test_what_does_not_vary_is_said_once() -> None:
    """And a thing over itself is no headline."""
    content = {**RESULT, "series": {}, "histograms": {}}
    content["figures"] = [figure("qps", "1/s", [4.0], backend="openvino", batch=8, model=name) for name in ("a", "b")]
    content["ratios"] = [
        ratio("speed_up", [1.0], "a", backend="openvino", batch=8, model="a"),
        ratio("speed_up", [2.0], "a", backend="openvino", batch=8, model="b"),
    ]
    page = Page(to_html([content]))
    assert page.words.count("median of 1 run, backend openvino, batch 8") == 2
    assert "backend" not in page.words
    assert page.count("strong") == 1
    assert "b, over a" in page.words


def test_several_results_are_one_page_with_a_list() -> None:
    page = Page(to_html([RESULT, {**RESULT, "benchmark": "inference"}]))
    links = [attributes.get("href") for tag, attributes in page.tags if tag == "a"]
    assert links == ["#result-1", "#result-2"]
    assert {"result-1", "result-2"} <= {attributes.get("id") for _, attributes in page.tags}


def test_a_result_may_hold_little() -> None:
    page = Page(to_html([{"format": 1, "benchmark": "decode"}]))
    assert "clipmux bench decode" in page.words
    assert page.count("svg") == page.count("table") == 0


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RESULT), **parts}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "names no benchmark"),
        ({}, "names no benchmark"),
        (changed(format=2), "its format is 2, not 1"),
        (changed(figures={}), "'figures' is no list"),
        (changed(machine=[]), None),
        (changed(machine=[1]), "'machine' is no object"),
        (changed(machine={"load": "high"}), "no list of numbers"),
        (changed(machine={"memory_bytes": "much"}), "no number"),
        (changed(figures=["fast"]), "no figure is 'fast'"),
        (changed(figures=[{"name": "rate", "median": 1, "min": 1, "max": 1}]), "no figure is"),
        (changed(figures=[{**figure("rate", "", [1.0]), "median": float("nan")}]), "must be finite"),
        (changed(figures=[{**figure("rate", "", [1.0]), "runs": []}]), "at least one run"),
        (changed(series={"time_s": [0, 1], "rate": [1]}), "series 'rate'"),
        (changed(series={"time_s": [0, 1], "rate": [1, "x"]}), "series 'rate'"),
        (changed(series={"time_s": [1, 1], "rate": [1, 1]}), "do not rise"),
        (changed(histograms={"size": {"many": 1}}), "histogram 'size'"),
        (changed(histograms={"size": {"1": 0}}), "histogram 'size'"),
        (changed(histograms={"took_s": [[2, 1], [1, 1]]}), "histogram 'took_s'"),
        (changed(histograms={"took_s": 3}), "histogram 'took_s'"),
    ],
)
def test_what_is_no_result_is_refused(content: Any, said: str | None, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    if said is None:
        read_result(file)
        return
    with pytest.raises(UsageError) as refusal:
        read_result(file)
    assert said in str(refusal.value)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[" * 100_000])
def test_files_that_are_no_json(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"result\.json' is no JSON"):
        read_result(file)


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ClipmuxError, match="give another --html"):
        write_report(RESULT, tmp_path / "absent" / "page.html")


def test_the_command(tmp_path: Path) -> None:
    first, second, page = tmp_path / "1.json", tmp_path / "2.json", tmp_path / "page.html"
    first.write_text(json.dumps(RESULT), encoding="utf-8")
    second.write_text(json.dumps({**RESULT, "benchmark": "decode"}), encoding="utf-8")
    done = clipmux("bench", "report", first, second, "--html", page)
    assert done.returncode == 0, done.stderr
    assert Page(page.read_text(encoding="utf-8")).count("article") == 2
    done = clipmux("bench", "report", tmp_path / "absent.json", "--html", page)
    assert done.returncode == 2
    assert "absent.json' cannot be read" in done.stderr
    done = clipmux("bench", "report", first, "--html", tmp_path / "absent" / "page.html")
    assert done.returncode == 2
    assert "folder that exists" in done.stderr
