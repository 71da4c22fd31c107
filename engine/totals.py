"""Counts of processes that come and go, as sums that never fall. Pure.

A child tells totals of its own, which begin at nothing with each new process; what a process had counted when it ended
stays in the sum of its role. What a killed one had counted since its last beat, half a second at most, is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOW = "now"
"""The part of a beat's counts that tells how things are and not how many there were: no sums are made of it."""

Key = tuple[str, ...]
"""Where a count is in a beat: ``("clips",)``, ``("busy_s", "decode")``."""


class Totals:
    """Sums over all processes of a role, living and ended."""

    def __init__(self) -> None:
        self._ended: dict[str, dict[Key, float]] = {}
        self._living: dict[str, tuple[str, dict[Key, float]]] = {}

    def note(self, process: str, role: str, counts: Mapping[str, Any]) -> None:
        """A process's totals so far, nested as its beat has them; those that are no numbers are passed over."""
        found = {key: value for key, value in _flat(counts, ()).items() if key[0] != NOW}
        _, before = self._living.get(process, (role, {}))
        self._living[process] = (role, {**before, **found})

    def ended(self, process: str) -> None:
        """A process has ended; what it counted stays."""
        role, counts = self._living.pop(process, ("", {}))
        total = self._ended.setdefault(role, {})
        for key, value in counts.items():
            total[key] = total.get(key, 0.0) + value

    def sums(self) -> dict[str, dict[Key, float]]:
        """By role and place in the beat; not changed by what comes later."""
        sums = {role: dict(counts) for role, counts in self._ended.items()}
        for role, counts in self._living.values():
            total = sums.setdefault(role, {})
            for key, value in counts.items():
                total[key] = total.get(key, 0.0) + value
        return sums


def _flat(counts: Mapping[str, Any], above: Key) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for name, value in counts.items():
        key = (*above, str(name))
        if isinstance(value, Mapping):
            found |= _flat(value, key)
        elif isinstance(value, int | float):
            found[key] = float(value)
    return found
