"""Who has given no sign of life for too long. Pure: the clock is passed in.

Every child beats about twice a second, whatever it waits for; only a call that does not return (of a codec, a device, a
disk) or a stopped process makes it fall silent. What it was at decides how long that may last.
"""

from __future__ import annotations

from .children import COLLECTOR, INFERENCE, Child
from .config import EngineConfig
from .totals import NOW


def overdue(child: Child, config: EngineConfig, now: float) -> str:
    """Why this child must be given up, as the end of a sentence about it; empty while it need not be.

    Args:
        child: one that is ready.
        config: has the limits.
        now: seconds, of the clock of ``child.last_progress``.
    """
    silent = now - child.last_progress
    if child.role == INFERENCE:
        in_call = float(child.counts.get(NOW, {}).get("call_s", 0.0))
        if in_call and in_call + silent > config.device_timeout_s:
            return f"had a call of the device that did not return for {config.device_timeout_s:g} s (--device-timeout)"
        return _silent(silent, config.device_timeout_s, "gave no sign of life", "--device-timeout")
    if child.role == COLLECTOR:
        return _silent(silent, config.write_timeout_s, "got no line written", "--write-timeout")
    if child.assigned is None:
        return _silent(silent, config.open_timeout_s, "gave no sign of life", "--open-timeout")
    if not child.opened:
        return _silent(silent, config.open_timeout_s, "gave no first frame", "--open-timeout")
    return _silent(silent, config.decode_timeout_s, "gave no frame", "--decode-timeout")


def _silent(seconds: float, limit: float, what: str, option: str) -> str:
    return f"{what} for {limit:g} s ({option})" if seconds > limit else ""
