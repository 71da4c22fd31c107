"""Every page in Chinese says what the English one does: the same commands, figures, names, tables and links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHINESE = ".zh-CN.md"
PAGES = ("README.md", "docs/kinetics.md")

HAN = r"[\u4e00-\u9fff]"
LINK = r"\]\(([^)]+)\)"
NUMBER = r"\d(?:[\d.,]*\d)?"
CODE = r"`([^`]+)`"


class Facts(NamedTuple):
    """What is the same in every language; sorted, since the order of words is not."""

    numbers: list[str]
    code: list[str]
    links: list[str]


@dataclass
class Section:
    """A heading and the lines that follow it, down to the next heading."""

    level: int
    text: list[str]  # from the title on
    rows: list[str] = field(default_factory=list)  # of tables
    code: list[str] = field(default_factory=list)  # blocks, with their fences


def sections(page: Path) -> list[Section]:
    found: list[Section] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        heading = re.match(r"(#+) (.*)", line)
        if line.startswith("```") or inside:
            found[-1].code.append(line)
            inside ^= line.startswith("```")
        elif heading:
            found.append(Section(len(heading[1]), [heading[2]]))
        elif line.startswith("|"):
            found[-1].rows.append(line)
        else:
            found[-1].text.append(line)
    return found


def facts(text: str) -> Facts:
    text = " ".join(text.split())  # what stands between backquotes may be broken over two lines
    text = text.replace(CHINESE, ".md")  # twins count as one page
    return Facts(*(sorted(re.findall(pattern, text)) for pattern in (NUMBER, CODE, LINK)))


def cells(row: str) -> list[str]:
    return row.strip("|").split("|")


def twin(page: str) -> Path:
    return ROOT / page.replace(".md", CHINESE)


def pairs(page: str) -> list[tuple[Section, Section]]:
    english, chinese = sections(ROOT / page), sections(twin(page))
    assert [section.level for section in chinese] == [section.level for section in english]
    return list(zip(english, chinese, strict=True))


def local_links(page: Path) -> list[str]:
    lines = [line for section in sections(page) for line in section.text + section.rows]
    return [target for target in re.findall(LINK, "\n".join(lines)) if not target.startswith("https:")]


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_are_the_same(page: str) -> None:
    for english, chinese in pairs(page):
        assert chinese.code == english.code


@pytest.mark.parametrize("page", PAGES)
def test_text_has_the_same_figures_names_and_links(page: str) -> None:
    for english, chinese in pairs(page):
        assert facts("\n".join(chinese.text)) == facts("\n".join(english.text)), chinese.text[0]


@pytest.mark.parametrize("page", PAGES)
def test_tables_have_the_same_shape_and_figures(page: str) -> None:
    for english, chinese in pairs(page):
        assert len(chinese.rows) == len(english.rows), chinese.text[0]
        for row, translated in zip(english.rows, chinese.rows, strict=True):
            assert [facts(cell) for cell in cells(translated)] == [facts(cell) for cell in cells(row)]
            if set(row) <= set("|-: "):
                assert translated == row  # the same columns to the right


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for path in (ROOT / page, twin(page)):
        assert [target for target in local_links(path) if not (path.parent / target.split("#")[0]).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_each_other_at_the_top_and_keep_to_their_language(page: str) -> None:
    english, chinese = ROOT / page, twin(page)
    to_chinese, *others = local_links(english)
    assert to_chinese == chinese.name
    assert [target for target in others if target.endswith(CHINESE)] == []
    to_english, *others = local_links(chinese)
    assert to_english == english.name
    translated = {ROOT / name for name in PAGES}
    assert [target for target in others if (chinese.parent / target).resolve() in translated] == []


@pytest.mark.parametrize("page", PAGES)
def test_chinese_is_set_as_chinese(page: str) -> None:
    """A paragraph is one line (a break would show as a space), marks are full-width, Latin letters stand apart."""
    broken = r"\S\n\w"
    half_width = rf"{HAN}[,;:?!.]"
    close = rf"{HAN}[A-Za-z0-9`]|[A-Za-z0-9`]{HAN}"
    for section in sections(twin(page)):
        assert re.findall(broken, "\n".join(section.text[1:])) == []
        assert re.findall(f"{half_width}|{close}", "\n".join(section.text + section.rows)) == []


def test_every_chinese_page_is_compared() -> None:
    assert {*ROOT.glob(f"*{CHINESE}"), *ROOT.glob(f"docs/*{CHINESE}")} == {twin(page) for page in PAGES}
