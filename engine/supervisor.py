"""The supervisor: starts the processes, hands out videos, watches, restarts what died, and stops in order.

It is the command's own process. A video is the unit of retry: each hand-out has an attempt number, and the collector
discards whatever an older attempt still sends, so a crash anywhere ends in one outcome per video.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipmux.workers.sources import Video

from .children import COLLECTOR, DECODER, INFERENCE, MODULES, Child
from .config import EngineConfig
from .errors import ClipmuxError, MessageError
from .growth import Growth, Load
from .messages import Assign, Beat, Control, Done, Expect, Next, VideoFailed
from .model import ModelFolder
from .observer import Observer
from .prediction import Prediction
from .processes import Processes
from .wire import encode

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""A video is handed out again twice at most after it crashed its decoder."""


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


class Supervisor(Processes):
    """The processes of one engine that classifies videos.

    Args:
        config: what the engine was told.
        model: the model folder that ``config`` names, already read.
        run_folder: where the collector writes results; None to only report them.
        log_file: where children write what they have to say.
        decoder: a module to be the decoders in place of the real one: a benchmark's, which needs no videos.
        observer: is told what goes on.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: ModelFolder,
        *,
        run_folder: Path | None,
        log_file: Path,
        decoder: str = MODULES[DECODER],
        observer: Observer | None = None,
    ) -> None:
        modules = {**MODULES, DECODER: decoder}
        super().__init__(config, model, run_folder=run_folder, log_file=log_file, modules=modules, observer=observer)
        self.progress = Progress()
        self._pending: dict[int, Handout] = {}
        self._again: list[int] = []
        self._handed = 0
        self._outcomes: list[Prediction] = []
        self._told_more = True
        self._growth = Growth(config.first_decoders(model), config.decoders)

    def start(self, *, wait_for_decoders: bool = False) -> None:
        """Start all processes and wait until inference and collector are ready.

        Args:
            wait_for_decoders: until every decoder is ready too, for whoever measures what comes after.

        Raises:
            UsageError: what was asked for does not work on this machine (said by a child).
            ClipmuxError: a process did not start.
        """
        self._open()
        self._pending.clear()
        self._again.clear()
        self._told_more = True
        self._start_child(INFERENCE)
        self._start_child(COLLECTOR)
        for seat in range(self._growth.count):
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

    # -- what children say ---------------------------------------------------------------------------------------------

    def _obey(self, child: Child, message: Control) -> None:
        if isinstance(message, Next):
            child.assigned = None
            child.waiting = not child.stopping
        elif isinstance(message, Beat):
            child.counts = message.counts
            self._measure()
        elif isinstance(message, Done):
            self._done(message)
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
        self.observer.finished(message.video, prediction)
        self.progress.done += 1
        self.progress.failed += prediction.error is not None
        self.progress.clips += prediction.clips
        if prediction.error is not None:
            about = {"video": prediction.video_id, "attempt": prediction.attempt}
            log.warning("%s failed: %s", prediction.video_id, prediction.error.message, extra=about)
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
        self.observer.handed(child, number, handout.attempt, handout.video.video_id)
        self._send(child, Assign(number, handout.attempt, handout.video.to_dict()))

    def _tell_more(self, more: bool) -> None:
        if more == self._told_more:
            return
        self._told_more = more
        for child in self._children.values():
            if child.role == INFERENCE:
                self._send(child, Expect(more))

    # -- life and death ------------------------------------------------------------------------------------------------

    @property
    def _unfinished(self) -> bool:
        return bool(self._pending)

    def _died(self, child: Child, how: str) -> None:
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

    def _watch(self, now: float) -> None:
        for child in self._children.values():
            decoding = child.assigned is not None and not child.stopping and not child.stalled
            if decoding and now - child.last_progress > self._config.decode_timeout_s:
                child.stalled = True
                child.process.kill()
        self._grow(now)

    def _grow(self, now: float) -> None:
        """Start more decoders if those that there are cannot keep up with the device."""
        loads = {}
        for child in self._children.values():
            if child.role == DECODER:
                spent = child.counts.get("busy_s", {})
                busy_s = spent.get("decode", 0.0) + spent.get("preprocess", 0.0)
                loads[child.name] = Load(busy_s, spent.get("send", 0.0))
        first = self._growth.count
        added = self._growth.look(now, loads, self.progress.queue_fill)
        if added:
            log.info("decoding is what the device waits for: %d more decoders", added)
        for seat in range(first, first + added):
            self._start_child(DECODER, seat)
