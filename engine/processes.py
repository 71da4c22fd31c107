"""The child processes of one engine, and the supervisor's talk with them: started, watched, heard, told, stopped.

What they work on is not known here: ``Supervisor`` hands videos to decoders, and whoever else runs an engine says in
three methods what a message means, what a death means, and what to look for in between.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import zmq

from .child import CUT_OFF, Setting
from .children import CLIP_ROLES, COLLECTOR, DECODER, INFERENCE, MODULES, Child, describe_exit, spawn_child
from .clip_memory import ClipMemory, Layout
from .clips import Way
from .config import EngineConfig
from .doctor_machine import oom_kills
from .errors import ClipmuxError, MessageError, UsageError
from .jail import check_jail
from .keys import default_folder
from .limits import allow_files
from .messages import Control, Failed, Goodbye, Hello, Stop, quoted
from .model import ModelFolder
from .observer import Observer
from .restarts import MOST, Restarts
from .sockets import (
    Addresses,
    Context,
    Socket,
    make_folder,
    name_addresses,
    push_reports,
    remove_sockets,
    remove_stale,
    router,
)
from .wire import decode_control, encode

log = logging.getLogger(__name__)

TICK_S = 0.1
HELD_UP_S = 1.0
"""A supervisor that was away for so long, or stopped itself, hears everyone before it calls anyone silent."""
LAST_WORDS_S, SILENCE_S = 2.0, 0.25
"""How long to listen to children that have ended without a goodbye, altogether and while they say nothing."""
STOP_S = 10.0
"""From the order to stop until what still runs is killed, for all children together."""
INTERRUPTED_STOP_S = 3.0
UNKILLABLE_S = 5.0
"""From SIGKILL until a process that the kernel cannot end is no longer waited for."""


class Interrupted(ClipmuxError):  # noqa: N818  (not a fault)
    """The run was asked to stop before its end; it can be resumed."""

    exit_status = 130


class Processes(ABC):
    """The processes of one engine.

    Args:
        config: what the engine was told.
        model: the model folder that ``config`` names, already read.
        run_folder: where the collector writes results; None to only report them.
        log_file: where children write what they have to say.
        modules: what to run as each role.
        observer: is told what goes on.

    Attributes:
        about: what inference chose, once it is ready.

    Whoever runs an engine sets ``_progressed`` to the time when something was last finished for good: without that,
    what keeps dying is not restarted for ever.
    """

    replaceable: frozenset[str] = frozenset()
    """Roles whose end before any of them was ready is for ``_died`` to answer, and whose start for ``_watch`` to watch;
    any other's is the end of the engine."""
    less = "fewer --workers or less --queue-memory"
    """What takes less memory, as its user may ask for it."""

    def __init__(
        self,
        config: EngineConfig,
        model: ModelFolder,
        *,
        run_folder: Path | None,
        log_file: Path,
        modules: dict[str, str] = MODULES,
        observer: Observer | None = None,
    ) -> None:
        self.observer = observer or Observer()
        self.about: dict[str, Any] = {}
        self._config = config
        self._model = model
        self._run_folder = run_folder
        self._log_file = log_file
        self._modules = modules
        self._children: dict[str, Child] = {}
        self._started = 0
        self._figures: list[tuple[str, dict[str, Any]]] = []
        self._due: list[tuple[float, str, int]] = []
        self._restarts: dict[tuple[str, int], Restarts] = {}
        self._were_ready: set[tuple[str, int]] = set()
        self._abouts: dict[int, dict[str, Any]] = {}
        self._late: set[tuple[str, int]] = set()
        self._looked = 0.0
        self._progressed = 0.0
        self._oom_kills = 0
        self._interrupted = False
        self._stopping = False
        self._context: Context | None = None
        self._memories: list[ClipMemory] = []
        """For each inference process; none where pixels travel through sockets."""
        self._clip_memory = ""

    @property
    def running(self) -> bool:
        return self._context is not None

    @property
    def interrupted(self) -> bool:
        return self._interrupted

    def interrupt(self) -> None:
        """Ask a running engine to stop; safe in a signal handler."""
        self._interrupted = True

    @property
    def processes(self) -> list[Child]:
        """The living children: role, process, and what each counted so far, for whoever watches a run."""
        return list(self._children.values())

    # -- what they are for ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _obey(self, child: Child, message: Control) -> None:
        """Answer a message of a child, other than its first words and its last.

        Raises:
            MessageError: no child says this.
        """

    @abstractmethod
    def _died(self, child: Child, how: str) -> None:
        """A child has ended without being asked to, and is reaped; ``_restart`` replaces it.

        Args:
            how: it ended, as the end of a sentence about it.

        Raises:
            ClipmuxError: the engine cannot go on without it.
        """

    @abstractmethod
    def _watch(self, now: float) -> None:
        """Look for what stalls, and ``_give_up`` on it."""

    def _told(self, role: str) -> dict[str, Any]:  # noqa: ARG002  (most are told nothing more)
        """What a child of this role is told at its start besides what all are told."""
        return {}

    @property
    @abstractmethod
    def _unfinished(self) -> bool:
        """Something was begun and has no outcome: stopping now breaks it off."""

    def _show(self) -> None:
        """Tell the observer how things are."""
        self.observer.turned(self._children.values(), unfinished=self._unfinished)

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open the sockets and the log, and take the memory for clips.

        Raises:
            UsageError: memory was asked for that cannot be had.
        """
        log.info("decoders are jailed: %s", check_jail(self._config.jail))
        allow_files(self._config.decoders + len(self._config.devices))
        keys = Path(self._config.keys) if self._config.keys else default_folder()
        self._addresses = self._name_addresses(keys)
        self._context = zmq.Context()
        self._folder_made = self._sockets_open = False
        self._poller = zmq.Poller()
        self._log: BinaryIO = self._log_file.open("ab")
        # The kernel wakes children at the end of the *thread* that started them: this one lives as long as they may.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        self._stopping = False
        self.observer.opened()
        self._due.clear()
        self._restarts.clear()
        self._were_ready.clear()
        self._abouts.clear()
        self._late.clear()
        self._looked = self._progressed = time.monotonic()
        self._oom_kills = oom_kills()
        self._take_clip_memory()

    def _name_addresses(self, keys: Path) -> Addresses:
        """Where the sockets are to be."""
        return name_addresses(self._config.bind, keys, devices=len(self._config.devices))

    def _open_sockets(self) -> None:
        """Make their folder and open them, once the first child is there to remove it, should this process be killed.

        Raises:
            UsageError: that cannot be.
        """
        assert self._context is not None  # noqa: S101  (made by _open)
        remove_stale()
        try:
            make_folder(self._addresses)
            self._folder_made = True
        except OSError as error:
            raise UsageError(f"no folder for sockets can be made ({error}): let TMPDIR name a local one") from None
        self._control: Socket = router(self._context, self._addresses.control)
        self._reports: Socket = push_reports(self._context, self._addresses.reports)
        self._poller.register(self._control, zmq.POLLIN)
        self._sockets_open = True

    def stop(self) -> list[tuple[str, dict[str, Any]]]:
        """End all processes: ask, wait until one shared deadline, then kill. Returns (role, figures) of each.

        May be called at any time, also after a failure, and twice.

        Raises:
            ClipmuxError: all was done, but the collector could not write the last of it.
        """
        if self._context is None:
            return self._figures
        self._stopping = True
        self._due.clear()
        fault: ClipmuxError | None = None
        interrupted = self._interrupted or self._unfinished
        deadline = time.monotonic() + (INTERRUPTED_STOP_S if interrupted else STOP_S)
        for child in list(self._children.values()):
            child.stopping = True
            if child.role == DECODER and (interrupted or not child.ready):
                child.kill()  # it has nothing that must be kept
            else:
                self._send(child, Stop())
        while self._children and time.monotonic() < deadline:
            try:
                self._turn()
            except ClipmuxError as error:
                log.warning("while stopping: %s", error)
                fault = fault or error
        self._kill(list(self._children.values()), why="did not stop in time")
        self._close()
        if fault is not None and not interrupted:
            raise fault
        return self._figures

    def kill(self) -> None:
        """End all processes at once."""
        self._kill(list(self._children.values()), why="is not needed any more")
        self._close()

    # -- one turn of the loop ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait a moment for messages and deaths, and answer them; start what is due; look for what stalls."""
        events = dict(self._poller.poll(round(TICK_S * 1000)))
        if self._control in events:
            self._receive()
        if dead := [child for child in self._children.values() if child.sentinel in events]:
            self._hear_out(dead)
        for child in dead:
            if child.name in self._children:  # the end of another may have ended it too
                self._ended(child)
        now = time.monotonic()
        self._start_due(now)
        if now - self._looked > HELD_UP_S:
            self._excuse(now)
        self._looked = now
        self._watch_starts(now)
        self._watch(now)
        self._watch_ends(now)
        self._show()
        if self._interrupted and not self._stopping:
            raise Interrupted("interrupted: everything finished is kept")

    def _excuse(self, now: float) -> None:
        """Nobody was silent: it was not listened to."""
        for child in self._children.values():
            child.last_progress = now

    def _hear_out(self, dead: Sequence[Child]) -> None:
        """Receive what children said before they ended: pipes close at once, last messages may still be coming."""
        began = heard = time.monotonic()
        names = {child.name for child in dead if child.killed is None}  # whom we killed has nothing to say
        while any(not child.left for child in dead if child.name in names):
            if (now := time.monotonic()) >= min(began + LAST_WORDS_S, heard + SILENCE_S):
                return
            self._control.poll(math.ceil((heard + SILENCE_S - now) * 1000))
            if names & self._receive():  # the others are never silent for long
                heard = time.monotonic()

    def _receive(self) -> set[str]:
        """Take in all messages that have arrived; a bounded number, so that a flood cannot hold up the rest.

        Returns:
            Who has said something.
        """
        speakers: set[str] = set()
        for _ in range(10_000):
            try:
                name, *frames = self._control.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                break
            who = name.decode(errors="replace")
            speakers.add(who)
            try:
                if (child := self._children.get(who)) is not None:
                    self._hear(child, decode_control(frames))
                else:
                    self._hear_stranger(who, frames)
            except MessageError as error:
                log.warning("a message of %s was refused: %s", quoted(who), error)
        return speakers

    def _hear_stranger(self, name: str, frames: list[bytes]) -> None:  # noqa: B027  (nobody else is expected)
        """Someone who is no child says something: one that is dead, as a rule.

        Raises:
            MessageError: what he says is no message, or not his to say.
        """

    def _hear(self, child: Child, message: Control) -> None:
        child.last_progress = time.monotonic()
        self.observer.heard(child, message)
        if isinstance(message, Hello):
            child.ready = True
            self._were_ready.add(child.post)
            if child.role == INFERENCE:
                self._abouts[child.seat] = message.about
                self.about = {**_together(self._abouts.values()), "clip_memory": self._clip_memory}
            log.info("%s is ready %s", child.name, message.about or "")
        elif isinstance(message, Goodbye):
            child.stopping = child.left = True
            self._figures.append((child.role, message.figures))
        elif isinstance(message, Failed):
            self._failed(child, message)
        else:
            self._obey(child, message)

    def _failed(self, child: Child, message: Failed) -> None:
        """A child says why it ends: the reason to end the run, or to start the child again where that may help.

        Raises:
            ClipmuxError: it has never worked, or results cannot be written.
        """
        if child.role == COLLECTOR or (child.post not in self._were_ready and child.process is not None):
            raise (UsageError if message.usage else ClipmuxError)(message.message)
        child.last_words = f"ended: {message.message}"

    # -- life and death ------------------------------------------------------------------------------------------------

    def _clip_layout(self) -> Layout:
        return self._config.clip_layout(self._model)

    def _take_clip_memory(self) -> None:
        """Memory for clips, if they are to travel in it.

        Raises:
            UsageError: it was asked for and cannot be had.
        """
        asked = self._config.clip_memory
        self._memories, self._clip_memory = [], "socket"
        if self._config.far_decoders or self._config.inference_at:
            asked = "socket"  # which is the only way to another machine, or into a container
        if asked != "socket":
            layout, devices = self._clip_layout(), len(self._config.devices)
            try:
                for _ in range(devices):
                    self._memories.append(ClipMemory(layout))
                size = f"{layout.seats} × {layout.slots} clips in {layout.bytes >> 20} MiB"
                self._clip_memory = f"shared: {size}" + (f", for each of {devices} devices" if devices > 1 else "")
            except ClipmuxError as error:
                self._give_back_memories()
                if asked == "shared":
                    raise UsageError(f"{error}: say --clip-memory socket, or {self.less}") from None
                self._clip_memory = f"socket, since {error}"
        log.info("clips travel through: %s", self._clip_memory)

    def _start_child(self, role: str, seat: int = -1, **besides: Any) -> Child:
        """Start a process.

        Args:
            role: of it.
            seat: of one who sends clips, or which device an inference process has.
            besides: what it is told besides what all of its role are told.
        """
        self._started += 1
        name = f"{role}-{self._started}"
        ways = self._ways(role, seat)
        content = {**self._content(role, seat, ways), **besides}
        fds = [fd for fd in (*(way.fd for way in ways), self.observer.trace_fd) if fd >= 0]
        observer = self.observer
        setting = Setting(name, self._addresses, content, observer.log_format, observer.trace_fd, self._peer_of(role))
        start = self._starter.submit(spawn_child, role, self._modules[role], setting, log=self._log, pass_fds=fds)
        try:
            child = start.result()
        except OSError as error:
            raise ClipmuxError(
                f"the {role} process cannot be started ({error.strerror}): free some memory, or give {self.less}"
            ) from None
        try:
            if not self._sockets_open:
                self._open_sockets()
        except BaseException:
            child.kill()
            child.reap()
            raise
        child.tell(setting)
        child.seat = seat
        self._children[name] = child
        self._poller.register(child.sentinel, zmq.POLLIN)
        log.info("%s started as process %d", name, child.pid)
        return child

    def _start_inference(self, device: int) -> None:
        """Start the inference process of a device."""
        self._start_child(INFERENCE, device)

    def _start_again(self, role: str, seat: int) -> None:
        """Start what ``_restart`` has put off."""
        self._start_child(role, seat)

    def _peer_of(self, role: str) -> tuple[str, str] | None:  # noqa: ARG002  (usually all are of this machine)
        """Whom a process of this role also reaches over TCP: see ``Setting``."""
        return None

    def _content(self, role: str, seat: int, ways: Sequence[Way]) -> dict[str, Any]:
        """What a process is told."""
        return {
            "config": self._config.to_json(),
            "run_folder": str(self._run_folder) if self._run_folder else None,
            "clips": [way.to_json() for way in ways],
            "rate": self._config.sampling_rate(self._model),
            "device": seat if role == INFERENCE else None,
            "jail": self._config.jail_of(role).to_json(),
            **self._told(role),
        }

    def _ways(self, role: str, seat: int) -> list[Way]:
        """Of clips: to its own socket for inference, to all devices for those who send them."""
        if role not in CLIP_ROLES:
            return []
        layout = self._clip_layout()
        fds = [memory.fd for memory in self._memories] or [-1] * len(self._addresses.clips)
        ways = [
            Way(address, layout, fd, seat, self._started)
            for address, fd in zip(self._addresses.clips, fds, strict=True)
        ]
        return [ways[seat]] if role == INFERENCE else ways

    def _give_back_memories(self) -> None:
        while self._memories:
            self._memories.pop().close()

    def _ready(self, role: str) -> bool:
        """A process of this role is there and ready."""
        return any(child.role == role and child.ready for child in self._children.values())

    @property
    def _all_can_score(self) -> bool:
        """All devices work that were asked for."""
        return len(self._abouts) == len(self._config.devices)

    def _ended(self, child: Child) -> None:
        status = self._reap(child)
        if child.stopping:
            return
        how = child.overdue or child.last_words or describe_exit(status)
        child.blameless = child.blameless or status == CUT_OFF
        if status == -signal.SIGKILL and child.killed is None and (kills := oom_kills()) > self._oom_kills:
            self._oom_kills = kills
            how += f", as it seems by the kernel for want of memory ({self.less} need less)"
        if status is None and child.role == COLLECTOR:  # it may still write
            raise ClipmuxError(f"the collector process {describe_exit(status)}: mend that, then go on with --resume")
        by_itself = status is None or status >= 0 or child.overdue != ""
        known = child.post in self._were_ready or child.role in self.replaceable or child.process is None
        late = child.overdue != "" and child.post not in self._late  # the machine may have been busy: once more
        self._late.add(child.post)
        if by_itself and not known and not late:  # another would do the same
            raise ClipmuxError(f"the {child.role} process {how} before it was ready: see '{self._log_file}'")
        log.warning("%s %s", child.name, how)
        self._died(child, how)

    def _restart(self, child: Child, how: str) -> None:
        """Start another in the place of a child that died: at once, but later and later if that goes on.

        Raises:
            ClipmuxError: it went on for too long, and there is no doing without.
        """
        now = time.monotonic()
        wait = self._restarts.setdefault(child.post, Restarts()).wait(now, progressed=self._progressed)
        if wait is None:
            if self._can_do_without(child):
                log.error("%s %s, and %d restarts did not help: the others go on without it", child.name, how, MOST)
                return
            raise ClipmuxError(
                f"the {child.role} process {how}, and {MOST} restarts did not help: "
                f"finished videos are kept, see '{self._log_file}', go on with --resume"
            )
        self._due.append((now + wait, child.role, child.seat))

    def _can_do_without(self, child: Child) -> bool:
        """The engine goes on when this child is not replaced: of several devices some that have worked may be lost."""
        due = any(role == INFERENCE for _, role, _ in self._due)
        others = due or any(other.role == INFERENCE for other in self._children.values())
        return child.role == INFERENCE and child.post in self._were_ready and others

    def _start_due(self, now: float) -> None:
        due = [start for start in self._due if start[0] <= now]
        for start in due:
            self._due.remove(start)
            self._start_again(start[1], start[2])

    def _give_up(self, child: Child, why: str) -> None:
        """Kill a child that will not go on by itself; its end is noticed like any other's."""
        child.overdue = why
        child.kill()

    def _kill(self, children: Iterable[Child], *, why: str) -> None:
        """Kill children, and wait for their end; ``_died`` does not hear of it."""
        children = list(children)
        for child in children:
            log.info("%s %s and was killed", child.name, why)
            child.stopping = True
            child.kill()
        for child in children:
            self._reap(child)

    def _watch_starts(self, now: float) -> None:
        timeout = self._config.start_timeout_s
        for child in self._children.values():
            if child.ready or child.stopping or child.overdue or child.role in self.replaceable:
                continue
            if now - child.started > timeout:
                self._give_up(child, f"was not ready after {timeout:g} s (--start-timeout)")

    def _watch_ends(self, now: float) -> None:
        for child in list(self._children.values()):
            if child.name in self._children and child.killed is not None and now - child.killed > UNKILLABLE_S:
                self._ended(child)

    def _reap(self, child: Child) -> int | None:
        if child.process is not None:
            self._poller.unregister(child.sentinel)
        del self._children[child.name]
        if not child.left and child.counts:  # all that it will ever tell
            self._figures.append((child.role, child.counts))
        status = child.reap()
        self.observer.ended(child)
        return status

    def _send(self, child: Child, message: Control) -> None:
        self._send_to(child.name, message)

    def _send_to(self, name: str, message: Control) -> None:
        try:
            self._control.send_multipart([name.encode(), *encode(message)], flags=zmq.NOBLOCK)
        except zmq.ZMQError as error:  # gone (its sentinel will say so), or it stopped reading
            log.warning("%s could not be told %s: %s", name, type(message).__name__, error)

    def _close(self) -> None:
        if self._context is None:
            return
        if self._folder_made:  # first: from now on there is no child to do it, should this process be killed
            remove_sockets(self._addresses)
        if self._sockets_open:
            self._control.close()
            self._reports.close(linger=0)
        self._context.destroy(linger=0)
        self._context = None
        self._starter.shutdown()
        self._log.close()
        self.observer.closed()
        self._give_back_memories()


def _together(abouts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What all inference processes chose: that of one, with the devices and sums of all."""
    devices = list(abouts)
    sums = {name: sum(about[name] for about in devices) for name in ("runners", "places", "room")}
    return {**devices[0], **sums, "device": ",".join(about["device"] for about in devices)}
