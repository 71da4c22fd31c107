"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from .logs import printable
from .supervisor import Progress

if TYPE_CHECKING:
    from typing_extensions import Self


PLAIN_EVERY_S = 5.0
DRAWN_PER_S = 2
"""Rich's own 10 take 1.7 % of a core, which decoders can use; these take 0.35 %."""
RATE_OVER_S = 10.0
"""Rates are means over so many seconds, so that they move with the run and not with every clip."""


def say(console: Console, text: str) -> None:
    """A line as it is: "[v2]" in a path or "[fd00::7]" in an address is no markup, nor is ":on:" a picture; and what
    would steer the terminal is escaped."""
    console.print(printable(text), highlight=False, markup=False, emoji=False, soft_wrap=True)


class ProgressLine:
    """Draws a run's progress.

    Args:
        console: where to.
        total: videos altogether.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._start = time.monotonic()
        self._marks = [(self._start, 0, 0)]
        self._plain_at = self._start
        self._bar: RichProgress | None = None
        if console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("videos"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[rates]}"),
                console=console,
                refresh_per_second=DRAWN_PER_S,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=total, rates="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Draw anew; may be called as often as one likes."""
        now = time.monotonic()
        clips_rate, videos_rate = self._rates(progress, now)
        parts = [f"{clips_rate:.1f} clips/s", f"queue {progress.queue_fill:.0%}"]
        if progress.failed:
            parts.append(f"{progress.failed} failed")
        parts.append(f"ETA {_duration((self._total - progress.done) / videos_rate if videos_rate else None)}")
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.done, description="classifying", rates=" · ".join(parts))
        elif now - self._plain_at >= PLAIN_EVERY_S:
            self._plain_at = now
            self._console.print(f"{progress.done}/{self._total} videos · {' · '.join(parts)}", highlight=False)

    def _rates(self, progress: Progress, now: float) -> tuple[float, float]:
        if now - self._marks[-1][0] >= 0.5:
            self._marks.append((now, progress.clips, progress.done))
            while self._marks[0][0] < now - RATE_OVER_S:
                self._marks.pop(0)
        then, clips, done = self._marks[0]
        seconds = max(now - then, 0.001)
        return (progress.clips - clips) / seconds, (progress.done - done) / seconds


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
