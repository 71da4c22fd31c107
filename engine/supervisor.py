"""The supervisor: starts the processes, hands out videos, watches, restarts what died, and stops in order.

It is the command's own process. A video is the unit of retry: each hand-out has an attempt number, and the collector
discards whatever an older attempt still sends, so a crash anywhere ends in one outcome per video.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import zmq

from clipmux.workers.sources import Video

from .child import Setting
from .children import COLLECTOR, DECODER, INFERENCE, MODULES, Child, describe_exit, start_child
from .clip_memory import ClipMemory
from .clips import Way
from .config import EngineConfig
from .errors import ClipmuxError, MessageError, UsageError
from .messages import (
    Assign,
    Beat,
    Control,
    Done,
    Expect,
    Failed,
    Goodbye,
    Hello,
    Next,
    Stop,
    VideoFailed,
)
from .model import ModelFolder
from .prediction import Prediction
from .sockets import Context, Socket, make_addresses, push_reports, remove_sockets, router
from .wire import decode_control, encode

log = logging.getLogger(__name__)

TICK_S = 0.1
ATTEMPTS = 3
"""A video is handed out again twice at most after it crashed its decoder."""
START_TIMEOUT_S = 120.0
LAST_WORDS_S, SILENCE_S = 2.0, 0.25
"""How long to listen to a child that has ended without a goodbye, altogether and while it says nothing."""
STOP_S = 10.0
"""From the order to stop until what still runs is killed, for all children together."""
INTERRUPTED_STOP_S = 3.0


class Interrupted(ClipmuxError):  # noqa: N818  (not a fault)
    """The run was asked to stop before its end; it can be resumed."""

    exit_status = 130


@dataclass
class Handout:
    """A video that has no outcome yet."""

    video: Video
    attempt: int = 1
    crashes: int = 0


@dataclass
class Progress:
    """What a progress line shows."""

    done: int = 0
    failed: int = 0
    clips: int = 0
    queue_fill: float = 0.0
    restarts: int = 0


class Supervisor:
    """The processes of one engine.

    Args:
        config: what the engine was told.
        model: the model folder that ``config`` names, already read.
        run_folder: where the collector writes results; None to only report them.
        log_file: where children write what they have to say.
        decoder: a module to be the decoders in place of the real one: a benchmark's, which needs no videos.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: ModelFolder,
        *,
        run_folder: Path | None,
        log_file: Path,
        decoder: str = MODULES[DECODER],
    ) -> None:
        self.progress = Progress()
        self.about: dict[str, Any] = {}
        self._config = config
        self._model = model
        self._run_folder = run_folder
        self._log_file = log_file
        self._modules = {**MODULES, DECODER: decoder}
        self._children: dict[str, Child] = {}
        self._started = 0
        self._pending: dict[int, Handout] = {}
        self._again: list[int] = []
        self._handed = 0
        self._outcomes: list[Prediction] = []
        self._figures: list[tuple[str, dict[str, Any]]] = []
        self._told_more = True
        self._interrupted = False
        self._stopping = False
        self._context: Context | None = None
        self._memory: ClipMemory | None = None
        self._clip_memory = ""

    @property
    def running(self) -> bool:
        return self._context is not None

    @property
    def interrupted(self) -> bool:
        return self._interrupted

    def interrupt(self) -> None:
        """Ask a running ``outcomes`` to stop; safe in a signal handler."""
        self._interrupted = True

    @property
    def processes(self) -> list[Child]:
        """The living children: role, process, and what each counted so far, for whoever watches a run."""
        return list(self._children.values())

    def start(self, *, wait_for_decoders: bool = False) -> None:
        """Start all processes and wait until inference and collector are ready.

        Args:
            wait_for_decoders: until every decoder is ready too, for whoever measures what comes after.

        Raises:
            UsageError: what was asked for does not work on this machine (said by a child).
            ClipmuxError: a process did not start.
        """
        self._addresses = make_addresses()
        self._context = zmq.Context()
        self._control: Socket = router(self._context, self._addresses.control)
        self._reports: Socket = push_reports(self._context, self._addresses.reports)
        self._poller = zmq.Poller()
        self._poller.register(self._control, zmq.POLLIN)
        self._log: BinaryIO = self._log_file.open("ab")
        self._told_more = True
        self._stopping = False
        self._take_clip_memory()
        self._start_child(INFERENCE)
        self._start_child(COLLECTOR)
        for seat in range(self._config.decoders):
            self._start_child(DECODER, seat)
        late = () if wait_for_decoders else (DECODER,)
        while not all(child.ready or child.role in late for child in self._children.values()):
            self._turn()

    def outcomes(
        self, videos: Iterable[Video], *, on_tick: Callable[[Progress], None] = lambda _: None
    ) -> Iterator[Prediction]:
        """Classify videos; yields each one's outcome as it is known (and written, with a run folder).

        Args:
            videos: taken one by one, as decoders ask.
            on_tick: called about ten times a second.

        Raises:
            Interrupted: ``interrupt`` was called.
            ClipmuxError: the run itself failed.
        """
        source: Iterator[Video] | None = iter(videos)
        while True:
            source = self._hand_out(source)
            self._turn()
            on_tick(self.progress)
            yield from self._take_outcomes()
            if source is None and not self._pending:
                return

    def stop(self) -> list[tuple[str, dict[str, Any]]]:
        """End all processes: ask, wait until one shared deadline, then kill. Returns (role, figures) of each.

        May be called at any time, also after a failure, and twice.
        """
        if self._context is None:
            return self._figures
        self._stopping = True
        interrupted = self._interrupted or bool(self._pending)
        deadline = time.monotonic() + (INTERRUPTED_STOP_S if interrupted else STOP_S)
        for child in list(self._children.values()):
            child.stopping = True
            if child.role == DECODER and (interrupted or not child.ready):
                child.process.kill()  # it has nothing that must be kept
            else:
                self._send(child, Stop())
        while self._children and time.monotonic() < deadline:
            try:
                self._turn()
            except ClipmuxError as error:
                log.warning("while stopping: %s", error)
        for child in list(self._children.values()):
            log.warning("%s did not stop in time and was killed", child.name)
            child.process.kill()
            self._reap(child)
        self._close()
        return self._figures

    def kill(self) -> None:
        """End all processes at once."""
        for child in self._children.values():
            child.process.kill()
        for child in list(self._children.values()):
            self._reap(child)
        self._close()

    # -- one turn of the loop ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait a moment for messages and deaths, and answer them; then look for what stalls."""
        events = dict(self._poller.poll(round(TICK_S * 1000)))
        if self._control in events:
            self._receive()
        for child in list(self._children.values()):
            if child.sentinel in events:
                self._hear_out(child)
                self._died(child)
        self._watch()
        if self._interrupted and not self._stopping:
            raise Interrupted("interrupted: everything finished is kept")

    def _hear_out(self, child: Child) -> None:
        """Receive what a child said before it ended: its pipe closes at once, its last messages may still be coming."""
        deadline = time.monotonic() + LAST_WORDS_S
        while not child.left and time.monotonic() < deadline and self._control.poll(round(SILENCE_S * 1000)):
            self._receive()

    def _receive(self) -> None:
        """All messages that have arrived; a bounded number, so that a flood cannot hold up the rest."""
        for _ in range(10_000):
            try:
                name, *frames = self._control.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                return
            child = self._children.get(name.decode(errors="replace"))
            if child is None:
                continue
            try:
                self._obey(child, decode_control(frames))
            except MessageError as error:
                log.warning("a message of %s was refused: %s", child.name, error)

    def _obey(self, child: Child, message: Control) -> None:
        child.last_progress = time.monotonic()
        if isinstance(message, Hello):
            child.ready = True
            if child.role == INFERENCE:
                self.about = {**message.about, "clip_memory": self._clip_memory}
            log.info("%s is ready %s", child.name, message.about or "")
        elif isinstance(message, Next):
            child.assigned = None
            child.waiting = not child.stopping
        elif isinstance(message, Beat):
            child.counts = message.counts
            self._measure()
        elif isinstance(message, Done):
            self._done(message)
        elif isinstance(message, Goodbye):
            child.stopping = child.left = True
            self._figures.append((child.role, message.figures))
        elif isinstance(message, Failed):
            raise (UsageError if message.usage else ClipmuxError)(message.message)
        else:
            raise MessageError(f"{type(message).__name__} does not come from a child")

    def _done(self, message: Done) -> None:
        if self._pending.pop(message.video, None) is None:
            return
        if message.video in self._again:  # its decoder had died, but everything it sent had arrived
            self._again.remove(message.video)
        for child in self._children.values():
            child.handed.discard(message.video)
        prediction = Prediction.from_json(message.line)
        self.progress.done += 1
        self.progress.failed += prediction.error is not None
        self.progress.clips += prediction.clips
        if prediction.error is not None:
            log.warning("%s failed: %s", prediction.video_id, prediction.error.message)
        self._outcomes.append(prediction)

    def _take_outcomes(self) -> list[Prediction]:
        taken, self._outcomes = self._outcomes, []
        return taken

    def _measure(self) -> None:
        """How full the queues to the device are, from what decoders sent and inference scored."""
        sent = sum(child.counts.get("clips", 0) for child in self._children.values() if child.role == DECODER)
        scored = sum(child.counts.get("clips", 0) for child in self._children.values() if child.role == INFERENCE)
        room = 2 * self._config.decoders * self._config.queue_hwm(self._model)
        room = self.about.get("room") or room
        self.progress.queue_fill = min(1.0, max(0.0, (sent - scored) / room))

    # -- handing out ---------------------------------------------------------------------------------------------------

    def _hand_out(self, source: Iterator[Video] | None) -> Iterator[Video] | None:
        """Give every waiting decoder a video; returns None in place of a source that has no more."""
        for child in list(self._children.values()):
            if child.role != DECODER or not child.waiting:
                continue
            number = self._again.pop() if self._again else None
            if number is None and source is not None:
                video = next(source, None)
                if video is None:
                    source = None
                else:
                    number = self._handed
                    self._handed += 1
                    self._pending[number] = Handout(video)
            if number is None:
                break
            self._assign(child, number)
        decoding = any(child.assigned is not None for child in self._children.values())
        self._tell_more(source is not None or bool(self._again) or decoding)
        return source

    def _assign(self, child: Child, number: int) -> None:
        handout = self._pending[number]
        child.assigned = number
        child.waiting = False
        child.handed.add(number)
        child.last_progress = time.monotonic()
        self._send(child, Assign(number, handout.attempt, handout.video.to_dict()))

    def _tell_more(self, more: bool) -> None:
        if more == self._told_more:
            return
        self._told_more = more
        for child in self._children.values():
            if child.role == INFERENCE:
                self._send(child, Expect(more))

    # -- life and death ------------------------------------------------------------------------------------------------

    def _take_clip_memory(self) -> None:
        """Memory for clips, if they are to travel in it.

        Raises:
            UsageError: it was asked for and cannot be had.
        """
        asked = self._config.clip_memory
        self._memory, self._clip_memory = None, "socket"
        if asked != "socket":
            layout = self._config.clip_layout(self._model)
            try:
                self._memory = ClipMemory(layout)
                self._clip_memory = f"shared: {layout.seats} × {layout.slots} clips in {layout.bytes >> 20} MiB"
            except ClipmuxError as error:
                if asked == "shared":
                    raise UsageError(f"{error}: say --clip-memory socket, or less --queue-memory") from None
                self._clip_memory = f"socket, since {error}"
        log.info("clips travel through: %s", self._clip_memory)

    def _start_child(self, role: str, seat: int = -1) -> None:
        self._started += 1
        name = f"{role}-{self._started}"
        memory = None if role == COLLECTOR else self._memory
        way = Way(self._addresses.clips, self._model.clip_shape, self._config.queue_hwm(self._model))
        if memory is not None:
            way = replace(way, layout=memory.layout, fd=memory.fd, seat=seat, turn=self._started)
        content = {
            "config": self._config.to_json(),
            "run_folder": str(self._run_folder) if self._run_folder else None,
            "clips": way.to_json(),
        }
        fds = () if memory is None else (memory.fd,)
        setting = Setting(name, self._addresses, content)
        child = start_child(role, self._modules[role], setting, log=self._log, pass_fds=fds)
        child.seat = seat
        self._children[name] = child
        self._poller.register(child.sentinel, zmq.POLLIN)
        log.info("%s started as process %d", name, child.process.pid)

    def _died(self, child: Child) -> None:
        status = self._reap(child)
        if child.stopping:
            return
        how = describe_exit(status)
        if not child.ready:
            raise ClipmuxError(f"the {child.role} process {how} before it was ready: see '{self._log_file}'")
        if child.role != DECODER:
            raise ClipmuxError(f"the {child.role} process {how}; finished videos are kept, go on with --resume")
        log.warning("%s %s", child.name, "was killed because it stalled" if child.stalled else how)
        self._hand_out_again(child, how)
        self.progress.restarts += 1
        self._start_child(DECODER, child.seat)  # it is dead for certain: nobody else writes there

    def _hand_out_again(self, child: Child, how: str) -> None:
        """What a dead decoder was decoding has crashed it; what it sent before may never have left it."""
        for number in sorted(child.handed, reverse=True):
            handout = self._pending[number]
            if number != child.assigned:
                handout.attempt += 1
                self._again.append(number)
            elif child.stalled:
                timeout = self._config.decode_timeout_s
                message = f"'{handout.video.path}' gave no frame for {timeout:g} s, so its decoder was stopped"
                self._fail(number, handout, "decode", "Timeout", message)
            elif handout.crashes + 1 >= ATTEMPTS:
                message = f"'{handout.video.path}' crashed its decoder {ATTEMPTS} times: the process {how}"
                self._fail(number, handout, "decoder crashed", "DecoderCrashed", message)
            else:
                handout.crashes += 1
                handout.attempt += 1
                self._again.append(number)

    def _fail(self, number: int, handout: Handout, stage: str, kind: str, message: str) -> None:
        video = handout.video
        failure = VideoFailed(number, handout.attempt, video.video_id, str(video.path), stage, kind, message)
        self._reports.send_multipart(encode(failure))

    def _watch(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if not child.ready and not child.stopping and now - child.started > START_TIMEOUT_S:
                child.stopping = True
                child.process.kill()
                raise ClipmuxError(f"{child.name} was not ready after {START_TIMEOUT_S:g} s: see '{self._log_file}'")
            decoding = child.assigned is not None and not child.stopping and not child.stalled
            if decoding and now - child.last_progress > self._config.decode_timeout_s:
                child.stalled = True
                child.process.kill()

    def _reap(self, child: Child) -> int:
        self._poller.unregister(child.sentinel)
        del self._children[child.name]
        return child.reap()

    def _send(self, child: Child, message: Control) -> None:
        try:
            self._control.send_multipart([child.name.encode(), *encode(message)], flags=zmq.NOBLOCK)
        except zmq.ZMQError as error:  # gone (its sentinel will say so), or it stopped reading
            log.warning("%s could not be told %s: %s", child.name, type(message).__name__, error)

    def _close(self) -> None:
        if self._context is None:
            return
        self._control.close()
        self._reports.close(linger=0)
        self._context.destroy(linger=0)
        self._context = None
        self._log.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        remove_sockets(self._addresses)
        self._pending.clear()
        self._again.clear()
