"""One finding of ``clipmux doctor``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found.

    Args:
        name: what was looked at.
        status: ``ok``; ``warn``, a run works, but slower or not with everything; ``fail``, a run does not work.
        value: what was found, for people.
        remedy: what to do about it; empty where there is nothing to do.
    """

    name: str
    status: str
    value: str
    remedy: str = ""


def looked_at(
    name: str, look: Callable[[], Check | Iterable[Check]], *, otherwise: str = FAIL, remedy: str = ""
) -> list[Check]:
    """What ``look`` found. What it raises is a finding too, of status ``otherwise``: the doctor says all it can say."""
    found: list[Check] = []
    try:
        result = look()
        found.extend([result] if isinstance(result, Check) else result)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        found.append(
            Check(name, otherwise, f"{type(error).__name__}: {reason}", remedy or "mend what the message names")
        )
    return found
