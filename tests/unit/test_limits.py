"""Open files: as many as a run needs, or a sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRY = """
import resource, sys
from clipmux.engine.limits import allow_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
allow_files(int(sys.argv[3]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "children", "then"), [(64, 128, 10, "128"), (128, 128, 20, "128"), (64, 100, 30, "ulimit -n")]
)
def test_the_limit_is_raised_as_far_as_may_be(soft: int, hard: int, children: int, then: str) -> None:
    asked = [sys.executable, "-c", TRY, str(soft), str(hard), str(children)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert then in done.stdout + done.stderr
