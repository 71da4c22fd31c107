"""What a document may not be, besides wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipmux.engine.documents import DOTS_MOST, check_text, parse_json, read_json, read_toml
from clipmux.engine.errors import ModelError
from clipmux.engine.model import read_labels, read_model


def test_deep_nesting_is_a_value_error(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match=r"nested too deeply"):
            parse_json(text)
    (tmp_path / "a.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ValueError, match=r"nested too deeply"):
        read_toml(tmp_path / "a.toml")


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ValueError, match=r"longer than 1,000 bytes"):
        read_json(Path("/dev/zero"), longest=1000)


def test_a_key_of_countless_parts_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a." * (DOTS_MOST + 1) + "a = 1")
    with pytest.raises(ValueError, match=r"more than 1,000 dots"):
        read_toml(tmp_path / "a.toml")


def test_half_a_character_is_found_wherever_it_is(tmp_path: Path) -> None:
    check_text({"a": ["ü", 1, {"b": None}]})
    for content in ('["\\ud800"]', '{"a": [{"\\udfff": 1}]}'):
        with pytest.raises(ValueError, match=r"is no text"):
            check_text(parse_json(content))
    (tmp_path / "labels.json").write_text('["a", "\\ud800"]')
    with pytest.raises(ModelError, match=r"is no text"):
        read_labels(tmp_path / "labels.json")


def test_a_network_of_an_impossible_name_is_named(null_model: Path, tmp_path: Path) -> None:
    content = json.loads((null_model / "model.json").read_text())
    for name in ("x" * 5000, "a\0b"):
        (tmp_path / "model.json").write_text(json.dumps({**content, "network": name}))
        with pytest.raises(ModelError, match=r"has no network"):
            read_model(tmp_path)
