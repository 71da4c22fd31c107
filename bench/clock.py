"""What simulations are made of: a clock that jumps from event to event, cores, and lines that serve one by one. Pure.

Nothing here is random, and what is asked for at the same moment happens in the order it was asked for: the same
simulation always goes the same way.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from functools import partial

Do = Callable[[], None]


class Clock:
    """Simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Do]] = []
        self._asked = 0

    def at(self, time: float, do: Do) -> None:
        """Call ``do`` at a time; at once, after what is asked for already, if that has passed."""
        self._asked += 1
        heapq.heappush(self._events, (max(time, self.now), self._asked, do))

    def after(self, seconds: float, do: Do) -> None:
        """Call ``do`` in so many seconds."""
        self.at(self.now + seconds, do)

    def run(self, until: float = math.inf) -> None:
        """Let everything happen that happens up to ``until``, or everything there is."""
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()
        if until < math.inf:
            self.now = until


class Cores:
    """Cores that all threads at work share evenly, none more than one: what a fair scheduler comes to.

    Everybody at work has been given the same since they began, so the next one to be done is the one with the least
    left, however the number of others changes meanwhile.

    Args:
        clock: of the simulation.
        count: cores; may be a fraction, of a machine that others use too.
    """

    def __init__(self, clock: Clock, count: float) -> None:
        self._clock = clock
        self._count = count
        self._given = 0.0
        """CPU seconds that one who has been at work all along was given."""
        self._rate = 1.0
        """And is given now, per second."""
        self._working: list[tuple[float, int, Do]] = []
        self._began = 0
        self._busy = 0.0
        self._looked_at = 0.0
        self._plan = 0

    def process(self) -> Cores:
        """Where the threads of a process work: with all others."""
        return self

    def work(self, seconds: float, done: Do) -> None:
        """Let a thread take so many CPU seconds, then call ``done``."""
        self._advance()
        self._began += 1
        one = (self._given + seconds, self._began, done)
        heapq.heappush(self._working, one)
        if self._working[0] is one or len(self._working) > self._count:
            self._see_who_is_next()

    @property
    def busy_s(self) -> float:
        """CPU seconds used so far, of all cores together."""
        self._advance()
        return self._busy

    def _advance(self) -> None:
        passed, self._looked_at = self._clock.now - self._looked_at, self._clock.now
        if passed and self._working:
            self._given += passed * self._rate
            self._busy += passed * self._rate * len(self._working)

    def _see_who_is_next(self) -> None:
        """What was seen before no longer holds."""
        self._plan += 1
        if not self._working:
            return
        at_work = len(self._working)
        self._rate = 1.0 if at_work <= self._count else self._count / at_work
        left = self._working[0][0] - self._given
        self._clock.after(max(0.0, left) / self._rate, partial(self._finish, self._plan))

    def _finish(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._advance()
        ends, _, done = heapq.heappop(self._working)
        self._given = max(self._given, ends)
        self._see_who_is_next()
        done()


class CoresByProcess:
    """Cores that *processes* share evenly, and the threads of each its share, none more than one core.

    What Linux does with sessions of their own where ``sched_autogroup_enabled`` is on, and no control group says
    otherwise: a process of one thread gets as much as one of many.

    Args:
        clock: of the simulation.
        count: cores; may be a fraction, of a machine that others use too.
    """

    def __init__(self, clock: Clock, count: float) -> None:
        self._clock = clock
        self._count = count
        self._processes: list[Process] = []
        self._busy = 0.0
        self._looked_at = 0.0
        self._plan = 0

    def process(self) -> Process:
        """Another process."""
        process = Process(self)
        self._processes.append(process)
        return process

    @property
    def busy_s(self) -> float:
        """CPU seconds used so far, of all cores together."""
        self.advance()
        return self._busy

    def advance(self) -> None:
        """Bring what everybody was given up to now."""
        passed, self._looked_at = self._clock.now - self._looked_at, self._clock.now
        if passed:
            self._busy += sum(process.advance(passed) for process in self._processes)

    def share_out(self) -> None:
        """See what everybody gets from now on, and who is done next; what was seen before no longer holds."""
        self._plan += 1
        at_work = sorted((process for process in self._processes if process.working), key=lambda one: len(one.working))
        left = self._count
        for number, process in enumerate(at_work):  # who cannot use an even share leaves the rest of it to the others
            share = min(len(process.working), left / (len(at_work) - number))
            process.rate = share / len(process.working)
            left -= share
        if at_work:
            first = min(at_work, key=Process.left_s)
            self._clock.after(first.left_s(), partial(self._finish, self._plan, first))

    def _finish(self, plan: int, process: Process) -> None:
        if plan != self._plan:
            return
        self.advance()
        done = process.finish()
        self.share_out()
        done()


class Process:
    """A process on cores that processes share."""

    def __init__(self, cores: CoresByProcess) -> None:
        self.rate = 0.0
        """CPU seconds per second that each of its threads gets."""
        self.working: list[tuple[float, int, Do]] = []
        self._cores = cores
        self._given = 0.0
        self._began = 0

    def work(self, seconds: float, done: Do) -> None:
        """Let a thread take so many CPU seconds, then call ``done``."""
        self._cores.advance()
        self._began += 1
        heapq.heappush(self.working, (self._given + seconds, self._began, done))
        self._cores.share_out()

    def left_s(self) -> float:
        """Seconds until its first thread is done."""
        return max(0.0, self.working[0][0] - self._given) / self.rate

    def advance(self, passed: float) -> float:
        """Give its threads what is theirs for so many seconds; returns how much that was."""
        if not self.working:
            return 0.0
        self._given += passed * self.rate
        return passed * self.rate * len(self.working)

    def finish(self) -> Do:
        """Take out the thread that is done."""
        ends, _, done = heapq.heappop(self.working)
        self._given = max(self._given, ends)
        return done


class Line:
    """Serves one after another, in the order they come: a link, or a process of one thread.

    Args:
        clock: of the simulation.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_at = 0.0
        self._asked = 0.0

    def serve(self, seconds: float, done: Do) -> None:
        """Take so many seconds once all before are served, then call ``done``."""
        self._free_at = max(self._free_at, self._clock.now) + seconds
        self._asked += seconds
        self._clock.at(self._free_at, done)

    @property
    def busy_s(self) -> float:
        """Seconds spent serving so far."""
        return self._asked - max(0.0, self._free_at - self._clock.now)
