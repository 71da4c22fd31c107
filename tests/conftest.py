"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))  # so that tests can import their helpers (media.py …)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Golden data of the reference, which lies beside the checkout and is not part of the project."""
    folder = Path(os.environ.get("CLIPMUX_GOLDEN", TESTS.parent.parent / "shared" / "data"))
    if not (folder / "mini_kinetics").is_dir():
        reason = f"the golden data is not at '{folder}' (CLIPMUX_GOLDEN names another place)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
