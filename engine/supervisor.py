"""The supervisor: starts the processes, hands out videos, watches, restarts what died, and stops in order.

It is the command's own process. A video is the unit of retry (engine/handouts.py): each hand-out has an attempt number,
and the collector discards whatever an older attempt still sends, so a crash anywhere ends in one outcome per video.

When inference or the collector dies, what was on its way is lost with it: decoders are replaced too, so that nobody
goes on sending half a video, and every video without an outcome is handed out again. What the collector had written but
not yet told is read from the journal.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from clipmux.workers.results import recover
from clipmux.workers.sources import Video

from .children import COLLECTOR, DECODER, INFERENCE, MODULES, Child
from .config import EngineConfig
from .errors import MessageError
from .growth import Growth, Load
from .handouts import ATTEMPTS, Handout, Handouts
from .messages import Assign, Beat, Control, Done, Expect, Next, Opened, VideoFailed
from .model import ModelFolder
from .observer import Observer
from .prediction import Prediction
from .processes import Processes
from .watchdogs import overdue
from .wire import encode

log = logging.getLogger(__name__)

END = object()


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
        self._handouts = Handouts()
        self._outcomes: list[Prediction] = []
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
        self._handouts = Handouts()
        for device in range(len(self._config.devices)):
            self._start_inference(device)
        self._start_child(COLLECTOR)
        for seat in range(self._growth.count):
            self._start_decoder(seat)
        while not (self._all_can_score and (self._all_ready or not wait_for_decoders)):
            self._turn()

    def outcomes(
        self, videos: Iterable[Video | None], *, on_tick: Callable[[Progress], None] = lambda _: None
    ) -> Iterator[Prediction]:
        """Classify videos; yields each one's outcome as it is known (and written, with a run folder).

        Args:
            videos: taken one by one, as decoders ask; None among them: there is none just now, ask again soon.
            on_tick: called about ten times a second.

        Raises:
            Interrupted: ``interrupt`` was called.
            ClipmuxError: the run itself failed.
        """
        source: Iterator[Video | None] | None = iter(videos)
        while True:
            source = self._hand_out(source)
            self._turn()
            on_tick(self.progress)
            yield from self._take_outcomes()
            if source is None and not self._handouts:
                return

    # -- what children say ---------------------------------------------------------------------------------------------

    def _obey(self, child: Child, message: Control) -> None:
        if isinstance(message, Next) and child.role == DECODER:
            child.assigned = None
            child.opened = False
            child.waiting = not child.stopping
        elif isinstance(message, Opened):
            child.opened = message.video == child.assigned
        elif isinstance(message, Beat):
            child.counts = message.counts
            self._measure()
        elif isinstance(message, Done) and child.role == COLLECTOR:  # nobody else has written anything
            self._done(message.video, message.line)
        else:
            raise MessageError(f"{type(message).__name__} does not come from a {child.role}")

    def _done(self, number: int, line: dict[str, Any]) -> None:
        if not self._handouts.done(number):
            return
        self._progressed = time.monotonic()
        for child in self._children.values():
            child.handed.discard(number)
        prediction = Prediction.from_json(line)
        self.observer.finished(number, prediction)
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
        if room := self.about.get("room"):
            self.progress.queue_fill = min(1.0, max(0.0, (sent - scored) / room))

    # -- handing out ---------------------------------------------------------------------------------------------------

    def _hand_out(self, source: Iterator[Video | None] | None) -> Iterator[Video | None] | None:
        """Give every waiting decoder a video; returns None in place of a source that has no more."""
        if not self._can_score:
            return source
        coming = source is not None
        for child in list(self._children.values()):
            if child.role != DECODER or not child.waiting:
                continue
            handout = self._handouts.take_again()
            if handout is None and source is not None:
                video = next(source, END)
                coming = video is not None
                if video is END:
                    source = None
                elif isinstance(video, Video):
                    handout = self._handouts.add(video)
            if handout is None:
                break
            self._assign(child, handout)
        decoding = any(child.assigned is not None for child in self._children.values())
        self._tell_more((source is not None and coming) or self._handouts.waiting or decoding)
        return source

    def _assign(self, child: Child, handout: Handout) -> None:
        child.assigned = handout.number
        child.opened = child.waiting = False
        child.handed.add(handout.number)
        child.last_progress = time.monotonic()
        self.observer.handed(child, handout.number, handout.attempt, handout.video.video_id)
        self._send(child, Assign(handout.number, handout.attempt, handout.video.to_dict()))

    def _tell_more(self, more: bool) -> None:
        for child in self._children.values():
            if child.role == INFERENCE and child.ready and child.expects != more:
                child.expects = more
                self._send(child, Expect(more))

    # -- life and death ------------------------------------------------------------------------------------------------

    @property
    def _unfinished(self) -> bool:
        return bool(self._handouts)

    @property
    def _can_score(self) -> bool:
        """What a decoder sends now gets to inference, and its scores to the collector."""
        return self._ready(INFERENCE) and self._ready(COLLECTOR)

    @property
    def _all_can_score(self) -> bool:
        return self._can_score and super()._all_can_score

    @property
    def _all_ready(self) -> bool:
        decoders = [child.ready for child in self._children.values() if child.role == DECODER]
        return len(decoders) == self._growth.count and all(decoders)

    def _told(self, role: str) -> dict[str, Any]:
        """A collector that takes the place of another must not finish again what that one has finished."""
        if role != COLLECTOR:
            return {}
        return {
            "handed": self._handouts.handed,
            "pending": [handout.number for handout in self._handouts.pending],
        }

    def _died(self, child: Child, how: str) -> None:
        self.progress.restarts += 1
        if child.role != DECODER:
            if child.ready or child.role == COLLECTOR:  # nothing is sent to inference before it is ready
                self._break_off(child.role)
            self._restart(child, how)
        elif child.assigned in child.handed and not child.blameless:
            self._hand_out_again(child, how)
            self._start_decoder(child.seat)  # it is dead for certain: nobody else writes there
        else:
            self._handouts.lost(child.handed)
            self._restart(child, how)

    def _break_off(self, role: str) -> None:
        """What is on its way cannot arrive without a process of this role: begin anew with all of it."""
        decoders = [child for child in self._children.values() if child.role == DECODER and not child.stopping]
        self._kill(decoders, why=f"was sending when the {role} process died")
        if role == COLLECTOR and self._run_folder is not None:
            numbers = {handout.video.video_id: handout.number for handout in self._handouts.pending}
            for line in recover(self._run_folder, numbers):
                self._done(numbers[line["video_id"]], line)
        self._handouts.lost_all()
        for decoder in decoders:
            self._start_decoder(decoder.seat)

    def _start_decoder(self, seat: int) -> None:
        self._start_child(DECODER, seat)

    def _hand_out_again(self, child: Child, how: str) -> None:
        """A dead decoder came to grief over what it was decoding; what it sent before may never have left it."""
        self._handouts.lost(child.handed - {child.assigned})
        if child.assigned is not None and (last := self._handouts.fault(child.assigned)) is not None:
            self._fail(last, child, how)

    def _fail(self, handout: Handout, child: Child, how: str) -> None:
        """Report as failed what has brought down too many decoders. Should that be lost, it goes out once more."""
        video = handout.video
        stage, kind, what = "decoder crashed", "DecoderCrashed", "crashed its decoder"
        if child.overdue:
            stage, kind, what = ("decode" if child.opened else "open"), "Timeout", "stalled its decoder"
        message = f"'{video.shown}' {what} {ATTEMPTS} times: the last one {how}"
        failure = VideoFailed(handout.number, handout.attempt, video.video_id, video.shown, stage, kind, message[:4000])
        try:
            self._reports.send_multipart(encode(failure), flags=zmq.NOBLOCK)
        except zmq.Again:  # the collector does not receive, which its own watchdog ends
            self._handouts.lost([handout.number])

    def _watch(self, now: float) -> None:
        for child in self._children.values():
            watched = child.ready and not child.stopping and not child.overdue
            if watched and (why := overdue(child, self._config, now)):
                self._give_up(child, why)
        self._grow(now)

    def _grow(self, now: float) -> None:
        """Start more decoders if those that there are cannot keep up with the device."""
        if self._stopping:
            return
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
            self._start_decoder(seat)
