"""The supervisor of ``clipmux live``: a camera process per stream, watched and replaced for ever, and those they feed.

A camera connects anew by itself when its source fails. What it cannot see is that it hangs: a stream that has no new
frame for ``stall_s`` has its camera killed here and, after a wait, gets another in the same seat of the clip memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import zmq

from .backoff import Backoff
from .children import CAMERA, INFERENCE, LIVE_MODULES, PAGE, WATCHER, Child
from .clip_memory import Layout
from .config import EngineConfig
from .errors import ClipmuxError, MessageError, UsageError
from .messages import (
    CONNECTING,
    ENDED,
    LIVE,
    RECONNECTING,
    STALLED,
    Beat,
    Control,
    Failed,
    Goodbye,
    Happened,
    Hello,
    Stop,
    Streams,
    StreamState,
    Totals,
)
from .model import ModelFolder
from .observer import Observer
from .processes import STOP_S, Interrupted, Processes
from .streams import LiveConfig, StreamConfig, check_streams
from .watchdogs import overdue
from .wire import encode

log = logging.getLogger(__name__)

TELL_EVERY_S = 1.0
RATES_OVER = 5
"""Rates are of the last so many seconds."""
AGAIN_FIRST_S, AGAIN_MOST_S = 0.5, 4.0
STEADY_S = 10.0
"""After a camera was live for so long, the next wait is short again."""
GRACE_S = 5.0
"""A camera that is connecting is given so long beyond what that may take."""
WATCHER_TIMEOUT_S = 30.0
"""A watcher beats twice a second; one that is silent for so long is replaced."""
DRAIN_S = 3.0
"""The last clips of files that have ended are waited for so long beyond ``max_latency_s``."""
EVENTS_MOST = 10_000
"""Events that nobody has taken yet; the oldest go first."""


@dataclass
class Stream:
    """A stream as the supervisor sees it.

    Args:
        number: never used again for another one.
        config: what was asked for.
        seat: in the clip memory.
        backoff: how long its next camera waits.
        child: its camera; None between two.
        moved_at: when it last had a new frame.
        again_at: when its next camera starts.
        counts: frames, clips, dropped of the camera that is there.
        before: the same of those that are gone.
    """

    number: int
    config: StreamConfig
    seat: int
    backoff: Backoff
    child: Child | None = None
    connection: int = 1
    state: str = CONNECTING
    detail: str = ""
    """Why it is so, if there is something to say."""
    moved_at: float = 0.0
    live_since: float = 0.0
    again_at: float | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    before: dict[str, int] = dataclasses.field(default_factory=dict)

    def total(self, name: str) -> int:
        """Frames, clips or dropped clips so far."""
        return self.before.get(name, 0) + self.counts.get(name, 0)

    def count(self, counts: dict[str, Any]) -> None:
        self.counts = {name: counts.get(name, 0) for name in ("frames", "clips", "dropped")}

    def forget_camera(self) -> None:
        self.before = {name: self.total(name) for name in ("frames", "clips", "dropped")}
        self.counts, self.child = {}, None


class LiveSupervisor(Processes):
    """The processes that watch streams.

    Args:
        config: of the engine; its workers are as many as there may be streams.
        live: how streams are watched.
        model: the model folder that ``config`` names, already read.
        streams: to begin with.
        log_file: where children write what they have to say.
        http: ``host``, ``port`` and ``token`` of the page; None for none.
        observer: is told what goes on.

    Attributes:
        streams: those there are, by number.
        totals: what is known of all of them together, renewed every second.
        page: where the page is, once it is ready; empty without one.
    """

    replaceable = frozenset({CAMERA})
    less = "fewer streams"

    def __init__(
        self,
        config: EngineConfig,
        live: LiveConfig,
        model: ModelFolder,
        streams: Sequence[StreamConfig],
        *,
        log_file: Path,
        http: dict[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        check_streams(streams, model.labels, live.max_streams)
        config = dataclasses.replace(config, workers=live.max_streams)
        super().__init__(config, model, run_folder=None, log_file=log_file, modules=LIVE_MODULES, observer=observer)
        self.streams: dict[int, Stream] = {}
        self.totals: dict[str, Any] = {}
        self.page = ""
        self._live = live.of_model(model)
        self._asked = list(streams)
        self._http = http
        self._numbered = 0
        self._starting = True
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MOST)
        self._told_at = 0.0
        self._marks: deque[tuple[float, float, float, float]] = deque(maxlen=RATES_OVER + 1)

    def start(self) -> None:
        """Start all processes, and wait until they are ready and every file has shown that it is a video.

        Raises:
            UsageError: what was asked for does not work on this machine, or a file is no video.
            Interrupted: ``interrupt`` was called.
            ClipmuxError: a process did not start.
        """
        self._open()
        for device in range(len(self._config.devices)):
            self._start_inference(device)
        self._start_child(WATCHER)
        if self._http is not None:
            self._start_child(PAGE)
        while not (self._all_can_score and all(child.ready for child in self._children.values())):
            self._turn()
        for config in self._asked:
            self._add(config)
        self._tell_streams(INFERENCE, WATCHER)
        while not all(child.ready for child in self._children.values()):
            self._turn()
        self._starting = False

    def watch(self, *, on_tick: Callable[[], None] = lambda: None) -> Iterator[dict[str, Any]]:
        """Events as they happen, until every stream has ended or ``interrupt`` is called; then call ``stop``.

        Args:
            on_tick: called about ten times a second.

        Raises:
            ClipmuxError: inference, the watcher or the page has died.
        """
        with contextlib.suppress(Interrupted):
            while any(stream.state != ENDED for stream in self.streams.values()):
                self._turn()
                on_tick()
                yield from self.take_events()
            yield from self._drain()

    def take_events(self) -> list[dict[str, Any]]:
        """Events that nobody has taken yet; after ``stop``, those that it has ended."""
        taken = list(self._events)
        self._events.clear()
        return taken

    def reload(self, streams: Sequence[StreamConfig]) -> None:
        """Have these streams from now on; those that are the same are not touched.

        Raises:
            UsageError: they cannot be; nothing has changed.
        """
        check_streams(streams, self._model.labels, self._live.max_streams)
        wanted = {config.name: config for config in streams}
        for stream in list(self.streams.values()):
            config = wanted.get(stream.config.name)
            if config is None or config.url != stream.config.url:
                self._remove(stream)
            else:
                stream.config = wanted.pop(config.name)
        for config in wanted.values():
            self._add(config)
        self._tell_streams(INFERENCE, WATCHER)
        log.info("%d streams from now on", len(self.streams))

    def stop(self) -> list[tuple[str, dict[str, Any]]]:
        """End all processes: cameras, then inference, then those who listen to it. Returns (role, figures) of each."""
        if self.running:
            self._stopping = True
            for stream in self.streams.values():
                self._end_camera(stream)
            self._end(INFERENCE)
        return super().stop()

    # -- what children say ---------------------------------------------------------------------------------------------

    def _hear(self, child: Child, message: Control) -> None:
        super()._hear(child, message)
        stream = self._stream_of(child)
        if isinstance(message, Hello) and child.role in (INFERENCE, WATCHER) and self.streams:
            self._tell_streams(child.role)  # it takes the place of one that had been told
            for ended in self.streams.values():
                if child.role == WATCHER and ended.state == ENDED:  # whose camera says it no more
                    self._tell(ended, ENDED, ended.detail)
        elif isinstance(message, Hello) and child.role == PAGE:
            self.page = str(message.about.get("url", ""))
        if isinstance(message, Goodbye) and stream is not None:
            stream.count(message.figures)
            stream.forget_camera()
            stream.state = ENDED

    def _failed(self, child: Child, message: Failed) -> None:
        """A camera that cannot go on: no use in trying again if that is the fault of what was asked for."""
        stream = self._stream_of(child)
        if stream is None:
            super()._failed(child, message)
        elif message.usage and self._starting:
            raise UsageError(message.message)
        elif message.usage and stream.config.scheme == "file":  # all else may come back, and so may a model's folder
            log.warning("%s: %s", stream.config.name, message.message)
            child.stopping = True
            stream.forget_camera()
            self._tell(stream, ENDED, message.message)
        else:
            child.last_words = f"ended: {message.message}"

    def _obey(self, child: Child, message: Control) -> None:
        if isinstance(message, Happened):
            self._events.append(message.line)
        elif isinstance(message, Beat):
            if message.counts.get("clips", 0) > child.counts.get("clips", 0):
                self._progressed = time.monotonic()
            child.counts = message.counts
            if (stream := self._stream_of(child)) is not None:
                self._moved(stream, message.counts)
        else:
            raise MessageError(f"{type(message).__name__} does not come from a child")

    def _moved(self, stream: Stream, counts: dict[str, Any]) -> None:
        now = time.monotonic()
        if counts.get("frames") != stream.counts.get("frames"):
            stream.moved_at = now
        stream.count(counts)
        stream.connection = counts.get("connection", stream.connection)
        state = counts.get("state", stream.state)
        if state == LIVE != stream.state:
            stream.live_since = stream.moved_at = now
        if state == LIVE and now - stream.live_since > STEADY_S:
            stream.backoff.reset()
        stream.state, stream.detail = state, str(counts.get("detail", ""))

    # -- life and death ------------------------------------------------------------------------------------------------

    def _clip_layout(self) -> Layout:
        fits = self._config.queue_bytes // len(self._config.devices) // self._model.clip_bytes // self._live.max_streams
        return Layout(self._live.max_streams, max(3, min(fits, self._live.clips_in_time)), self._model.clip_shape)

    def _told(self, role: str) -> dict[str, Any]:
        live = self._live.to_json()
        if role == WATCHER:
            return {"config": live, "http": self._http is not None, "feed": self._addresses.feed}
        if role == PAGE:
            return {"http": self._http, "feed": self._addresses.feed}
        outputs = dict.fromkeys(("output", "webhook", "mqtt"))  # with credentials, and nobody else's business
        return {"live": live | outputs}

    @property
    def _unfinished(self) -> bool:
        return False

    def _show(self) -> None:
        """There is always something to do, but a camera that is away is no fault of ours."""
        apart = frozenset({CAMERA})
        self.observer.turned(
            self._children.values(), unfinished=not self._stopping, apart=apart, streams=self._shown_streams
        )

    def _shown_streams(self) -> dict[str, dict[str, Any]]:
        return {
            stream.config.name: {
                "number": stream.number,
                "state": stream.state,
                **{name: stream.total(name) for name in ("frames", "clips", "dropped")},
            }
            for stream in self.streams.values()
        }

    def _stream_of(self, child: Child) -> Stream | None:
        stream = None if child.assigned is None else self.streams.get(child.assigned)
        return stream if stream is not None and stream.child is child else None

    def _add(self, config: StreamConfig) -> None:
        seat = min(set(range(self._live.max_streams)) - {stream.seat for stream in self.streams.values()})
        backoff = Backoff(first=AGAIN_FIRST_S, most=AGAIN_MOST_S, random=Random())  # noqa: S311
        stream = self.streams[self._numbered] = Stream(self._numbered, config, seat, backoff)
        self._numbered += 1
        self._start_camera(stream)

    def _remove(self, stream: Stream) -> None:
        self._end_camera(stream)
        del self.streams[stream.number]

    def _start_camera(self, stream: Stream) -> None:
        scheme = stream.config.scheme
        jail = dataclasses.replace(
            self._config.jail_of(CAMERA),
            network=scheme not in ("file", "device") or self._config.inference_at.startswith("tcp:"),
            devices=(stream.config.url,) if scheme == "device" else (),
        )
        try:
            child = self._start_child(
                CAMERA,
                stream.seat,
                jail=jail.to_json(),
                stream=stream.config.to_json(),
                number=stream.number,
                connection=stream.connection,
                again=stream.again_at is not None,
                thumbnails=self._http is not None,
            )
        except ClipmuxError as error:
            if self._starting:
                raise
            log.warning("%s: %s", stream.config.name, error)
            self._again(stream, RECONNECTING, str(error))  # no reason to end all others
            return
        child.assigned = stream.number
        stream.child, stream.again_at, stream.moved_at = child, None, time.monotonic()

    def _end_camera(self, stream: Stream) -> None:
        """Its camera has nothing that must be kept. It is dead for certain when this returns: its seat is free."""
        child = stream.child
        stream.again_at = None
        stream.forget_camera()
        if child is not None and child.name in self._children:
            self._kill([child], why="is not needed any more")

    def _reap(self, child: Child) -> int | None:
        if child.role == CAMERA:  # what it counted is with its stream: a list of all there ever were would grow
            child.left = True
        return super()._reap(child)

    def _died(self, child: Child, how: str) -> None:
        if child.role == CAMERA:
            if (stream := self._stream_of(child)) is not None:
                stalled = child.overdue != "" and stream.state == LIVE
                self._again(stream, STALLED if stalled else RECONNECTING, how if stalled else f"its process {how}")
            return
        try:
            self._restart(child, how)
        except ClipmuxError:
            raise ClipmuxError(f"the {child.role} process {how}, again and again: see '{self._log_file}'") from None
        if child.role == INFERENCE:  # it alone knew which slots of the clip memory it had lent
            for stream in self.streams.values():
                if stream.child is not None:
                    self._end_camera(stream)
                    self._again(stream, RECONNECTING, "inference is started again")

    def _excuse(self, now: float) -> None:
        super()._excuse(now)
        for stream in self.streams.values():
            stream.moved_at = now

    def _again(self, stream: Stream, state: str, detail: str) -> None:
        """Its camera is gone: start another after a while."""
        stream.forget_camera()
        stream.connection += 1
        stream.again_at = time.monotonic() + stream.backoff.next()
        self._tell(stream, state, detail)

    def _watch(self, now: float) -> None:
        for stream in self.streams.values():
            if stream.again_at is not None and stream.again_at <= now and self._ready(INFERENCE):
                self._start_camera(stream)
        for child in self._children.values():
            if not child.stopping and child.killed is None and (why := self._overdue(child, now)):
                self._give_up(child, why)
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._tell_totals(now)
            for stream in self.streams.values():
                if stream.again_at is not None:
                    self._tell(stream, stream.state, stream.detail)

    def _give_up(self, child: Child, why: str) -> None:
        super()._give_up(child, why.partition(" (--")[0])  # an option that is none of 'clipmux live'

    def _overdue(self, child: Child, now: float) -> str:
        """Why a child must be given up, as the end of a sentence about it; empty while it need not be."""
        silent = now - max(child.started, child.last_progress)
        if child.role == INFERENCE and child.ready:
            return overdue(child, self._config, now)
        if child.role == WATCHER and child.ready:
            return _longer(silent, WATCHER_TIMEOUT_S, "gave no sign of life")
        stream = self._stream_of(child)
        if stream is None:
            return ""
        if not child.ready:
            return _longer(silent, self._config.start_timeout_s, "was not ready")
        if stream.state != LIVE:
            return _longer(silent, 2 * self._live.open_timeout_s + GRACE_S, "gave no sign of life")
        # A file may be slower than any stall; that its process lives is all that can be asked of it.
        still = silent if stream.config.scheme == "file" else now - stream.moved_at
        return _longer(still, self._live.stall_s, "had no new frame")

    # -- the end -------------------------------------------------------------------------------------------------------

    def _drain(self) -> Iterator[dict[str, Any]]:
        """Wait until the watcher has told all that is to be told of streams that have ended."""
        deadline = time.monotonic() + self._live.max_latency_s + DRAIN_S
        while not self.streams.keys() <= self._settled:
            if time.monotonic() > deadline:
                log.warning("some of the last clips were not scored within %g s", self._live.max_latency_s + DRAIN_S)
                return
            self._turn()
            yield from self.take_events()

    def _end(self, role: str) -> None:
        """Ask the processes of a role to end, and wait a while for it."""
        deadline = time.monotonic() + STOP_S / 2
        for child in self._children.values():
            if child.role == role:
                child.stopping = True
                self._send(child, Stop())
        while any(child.role == role for child in self._children.values()) and time.monotonic() < deadline:
            try:
                self._turn()
            except ClipmuxError as error:
                log.warning("while stopping: %s", error)

    # -- what others are told ------------------------------------------------------------------------------------------

    def _tell(self, stream: Stream, state: str, detail: str) -> None:
        """Tell the watcher how a stream is that has no camera to say it."""
        stream.state, stream.detail = state, detail
        message = StreamState(stream.number, stream.connection, state, detail, time.monotonic())
        with contextlib.suppress(zmq.Again):
            self._reports.send_multipart(encode(message), flags=zmq.NOBLOCK)

    def _tell_streams(self, *roles: str) -> None:
        message = Streams([stream.config.told(stream.number) for stream in self.streams.values()])
        for child in self._children.values():
            if child.role in roles:
                self._send(child, message)

    def _tell_totals(self, now: float) -> None:
        devices = [child.counts for child in self._children.values() if child.role == INFERENCE and not child.left]
        devices += [figures for role, figures in self._figures if role == INFERENCE]  # of those that died: no sum falls
        scored_so_far = sum(counts.get("clips", 0) for counts in devices)
        batches_so_far = sum(sum(counts.get("batch_sizes", {}).values()) for counts in devices)
        busy = sum(counts.get("busy_s", {}).get("infer", 0.0) for counts in devices)
        self._marks.append((now, scored_so_far, batches_so_far, busy))
        then, clips, batches, busy_then = self._marks[0]
        seconds = max(now - then, 0.001)
        scored, sent = self._marks[-1][1] - clips, self._marks[-1][2] - batches
        states = [stream.state for stream in self.streams.values()]
        lost = sum(stream.total("dropped") for stream in self.streams.values())
        self.totals = {
            "streams": len(states),
            **{state: states.count(state) for state in (LIVE, STALLED, RECONNECTING, ENDED)},
            "clips": scored_so_far,
            "dropped": sum(sum(counts.get("drops", {}).values()) for counts in devices) + lost,
            "clips_per_s": scored / seconds,
            "batch_fill": scored / sent / self.about.get("preferred_batch", 1) if sent else 0.0,
            "device_busy": (busy - busy_then) / seconds / self.about.get("runners", 1),
        }
        for child in self._children.values():
            if child.role == WATCHER and child.ready:
                self._send(child, Totals(self.totals))

    @property
    def _settled(self) -> set[int]:
        """Streams that have ended and of which the watcher has told everything."""
        return {number for child in self._children.values() for number in child.counts.get("settled", [])}


def _longer(seconds: float, limit: float, what: str) -> str:
    return f"{what} for {limit:g} s" if seconds > limit else ""
