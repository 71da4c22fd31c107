"""Faults on demand, so that programs can test what they do about them. Nothing of this is in the real API.

``MAGICMIND_EMULATOR_FAIL`` is a list of ``POINT:WHEN[:ACTION]``, separated by commas:

- POINT is one of ``POINTS``: a call, or ``compute``, the work of one enqueue on the queue's own thread, whose failure
  ``sync`` reports.
- WHEN is ``3`` (the third time in this process), ``3+`` (from then on) or ``*`` (always).
- ACTION is ``fail`` (the default: None or a Status that is not OK), ``hang`` (for ever) or ``delay=SECONDS``.

``enqueue:3,sync:2:hang,compute:*:delay=0.05`` combines three. Counting starts anew when the variable changes.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter

POINTS = frozenset(
    (
        *("parse", "calibrate", "build_model", "serialize_to_file", "deserialize_from_file"),
        *("active", "create_queue", "create_i_engine", "create_i_context", "create_inputs", "create_outputs"),
        *("from_numpy", "to", "enqueue", "sync", "compute"),
    )
)

_lock = threading.Lock()
_calls: Counter[str] = Counter()
_plan = ""


def strikes(point: str) -> bool:
    """Count one use of ``point``; hang or wait where a fault says so; whether the use has to fail.

    Raises:
        ValueError: the environment variable is not understood.
    """
    global _plan  # noqa: PLW0603  (one machine per process)
    plan = os.environ.get("MAGICMIND_EMULATOR_FAIL", "")
    with _lock:
        if plan != _plan:
            _calls.clear()
            _plan = plan
        _calls[point] += 1
        turn = _calls[point]
    fails = False
    for entry in filter(None, plan.split(",")):
        where, when, action = (*entry.split(":"), "fail", "")[:3]
        if where not in POINTS or not re.fullmatch(r"\*|\d+\+?", when):
            raise ValueError(f"MAGICMIND_EMULATOR_FAIL has {entry!r}: write POINT:WHEN[:ACTION]")
        if where != point or not (
            when == "*" or turn == int(when.rstrip("+")) or (when[-1] == "+" and turn > int(when[:-1]))
        ):
            continue
        if action == "hang":
            threading.Event().wait()
        elif action.startswith("delay="):
            time.sleep(float(action[len("delay=") :]))
        elif action == "fail":
            fails = True
        else:
            raise ValueError(f"MAGICMIND_EMULATOR_FAIL has {entry!r}: the action is fail, hang or delay=SECONDS")
    return fails
