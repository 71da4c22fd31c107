"""A run over the nodes of a Ray cluster: an engine on each, the videos shared out a few at a time, one run folder.

The driver is the only writer. It gives each node's engine as many videos as keep it busy and more as they are done, so
that a fast node does more of them; what a lost node had goes to the others. A video is written once: only the node that
has it at the moment is listened to. Engines are actors of Ray; nothing passes between them and the driver but names,
numbers and text.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipmux.workers.results import Journal
from clipmux.workers.sources import Video

from .config import EngineConfig, usable_cores
from .errors import ClipmuxError, UsageError, VideoError
from .model import ModelFolder, read_model
from .observer import Observer
from .prediction import Prediction
from .processes import Interrupted
from .restarts import Restarts
from .supervisor import Progress, Supervisor
from .with_ray import ray

log = logging.getLogger(__name__)

RESOURCES = {"cpu": "CPU", "mlu": "MLU", "cuda": "GPU"}
"""Devices, and what Ray calls them; ``MLU`` is a custom resource."""
TICK_S = 0.1
ANSWER_S = 1.0
"""How long an engine waits for something to tell."""
LOOK_EVERY_S = 5.0
SYNC_EVERY_S = 0.5
LOSSES = 3
"""Engines that may be lost with a video before it has failed: it may be what loses them."""
READY_S = 300.0
"""How long Ray may take to place an engine, and that to be ready."""
NOBODY_S = 60.0
"""How long a run waits for a node when there is none."""
FINISH_S = 20.0
REACH_S = 5.0
SHORT = 30
"""Characters of a folder that Ray's sockets can be in: it adds some 70, and 107 is what a socket's path may have."""


class NodeEngine:
    """The engine of one node, as an actor of Ray: videos in, lines of results out, from one call to the next.

    Args:
        config: ``EngineConfig.to_json()``.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._coming: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answer: dict[str, Any] = {"model_sha256": "", "about": {}, "error": "", "usage": False, "restarts": 0}
        self._figures: list[Any] = []
        self._supervisor: Supervisor | None = None
        self._thread = threading.Thread(target=self._work, args=(config,), daemon=True)
        self._thread.start()

    def exchange(self, videos: list[dict[str, Any]]) -> dict[str, Any]:
        """Take more videos (``Video.to_dict()``), and give ``lines`` of those that were finished meanwhile."""
        for video in videos:
            self._coming.put(video)
        lines = []
        try:
            lines.append(self._done.get(timeout=0.0 if self._answer["error"] else ANSWER_S))
            while True:
                lines.append(self._done.get_nowait())
        except queue.Empty:
            return {**self._answer, "lines": lines}

    def finish(self, *, now: bool) -> list[Any]:
        """End the engine, ``now`` whatever it has; what its processes say of themselves."""
        self._coming.put(None)
        if now and self._supervisor is not None:
            self._supervisor.interrupt()
        self._thread.join(FINISH_S)
        return self._figures

    def _work(self, config: dict[str, Any]) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="clipmux-log-") as folder:
                self._run(EngineConfig.from_json(config), Path(folder) / "children.log")
        except ClipmuxError as error:
            self._answer |= {"usage": isinstance(error, UsageError), "error": str(error)}
        except Exception as error:  # what else there may be must not leave the driver waiting
            self._answer["error"] = f"{type(error).__name__}: {error}"

    def _run(self, config: EngineConfig, log_file: Path) -> None:
        model = read_model(config.model)
        supervisor = self._supervisor = Supervisor(config, model, run_folder=None, log_file=log_file)
        try:
            supervisor.start()
            self._answer |= {"about": supervisor.about, "model_sha256": model.sha256}
            for prediction in supervisor.outcomes(self._videos()):
                self._answer["restarts"] = supervisor.progress.restarts
                self._done.put(prediction.to_json())
        finally:
            self._figures = supervisor.stop()

    def _videos(self) -> Iterator[Video | None]:
        while True:
            try:
                coming = self._coming.get_nowait()
            except queue.Empty:
                yield None
                continue
            if coming is None:
                return
            yield Video.from_dict(coming)


@dataclass
class Member:
    """A node's engine, as the driver sees it.

    Args:
        node: Ray's name of it.
        host: its people's.
        window: videos that it may have at a time.
        actor: the handle.
        started: when it was asked for.
        has: videos that it was given and has not finished.
        ready: it has answered, and has the right model.
    """

    node: str
    host: str
    window: int
    actor: Any
    started: float
    has: dict[str, Video] = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0


class RayRun:
    """What ``Supervisor`` is for one machine.

    Args:
        config: of every engine; ``device`` is what each node has.
        model: the model folder, which is at the same path on every node.
        run_folder: where results are written.
        log_file: not used: engines log on their nodes, the driver where it is told to.
        observer: must not be asked for anything: there is nothing to look at that is here.
        address: of the cluster; nothing: that of the environment (``RAY_ADDRESS``), else one on this machine alone.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: ModelFolder,
        *,
        run_folder: Path,
        log_file: Path,  # noqa: ARG002  (as Supervisor is called)
        observer: Observer | None = None,
        address: str = "",
    ) -> None:
        self.progress = Progress()
        self.about: dict[str, Any] = {}
        self._config = config
        self._model = model
        self._observer = observer
        self._folder = run_folder
        self._address = address
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._journal: Journal | None = None
        self._members: dict[str, Member] = {}
        self._calls: dict[Any, Member] = {}
        self._waiting: deque[Video] = deque()
        self._losses: dict[str, int] = {}
        self._restarts: dict[str, Restarts] = {}
        self._again_at: dict[str, float] = {}
        self._unfit: dict[str, str] = {}
        """Nodes that cannot do it, and why."""
        self._figures: list[tuple[str, dict[str, Any]]] = []
        self._looked_at = self._synced_at = float("-inf")
        self._somebody_at = self._progressed = 0.0
        self.interrupted = False

    def interrupt(self) -> None:
        """Ask it to stop; safe in a signal handler."""
        self.interrupted = True

    def start(self) -> None:
        """Join the cluster, and start an engine on each of its nodes.

        Raises:
            UsageError: there is no such cluster, or it cannot do what was asked for.
        """
        for option, given in (
            ("--segments", self._config.segments),
            ("--bind", self._config.bind),
            ("--inference-at", self._config.inference_at),
        ):
            if given:
                raise UsageError(f"{option} was given, which a run on Ray does not have: leave it out")
        if self._observer is not None and (self._observer.shown_at or self._observer.traces):
            raise UsageError("--metrics or --trace was given, which a run on Ray does not have: leave it out")
        self._journal = Journal(self._folder)
        try:
            self._scratch = connect(self._address)
        except BaseException:
            self._journal.close()
            self._journal = None
            raise
        self._somebody_at = self._progressed = time.monotonic()
        self._look_for_nodes()
        if not self._members:
            wanted = RESOURCES[self._config.kind_of_device]
            raise UsageError(f"no node of the cluster has the resource {wanted}: start one with 'ray start' that has")

    def outcomes(
        self, videos: Iterable[Video], *, on_tick: Callable[[Progress], None] = lambda _: None
    ) -> Iterator[Prediction]:
        """Classify videos; yields each one's outcome once it is written.

        Raises:
            Interrupted: ``interrupt`` was called.
            ClipmuxError: no node is left.
        """
        source: Iterator[Video] | None = iter(videos)
        while source is not None or self._waiting or any(member.has for member in self._members.values()):
            if self.interrupted:
                raise Interrupted("interrupted: everything finished is kept")
            self._look_for_nodes()
            source = self._give(source)
            yield from self._hear()
            self._sync()
            on_tick(self.progress)
        self._sync(now=True)

    def stop(self) -> list[tuple[str, dict[str, Any]]]:
        """End all engines, and leave the cluster; what their processes say of themselves."""
        if self._journal is None:
            return self._figures
        members = [member for member in self._members.values() if member.ready]
        refs = [member.actor.finish.remote(now=bool(member.has)) for member in members]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=FINISH_S) if refs else ([], [])
        for ref in ready:
            try:
                self._figures += [(role, figures) for role, figures in ray.get(ref)]
            except ray.exceptions.RayError as error:
                log.warning("the figures of a node are lost: %s", _first_line(error))
        self._leave()
        return self._figures

    def kill(self) -> None:
        """End all engines at once."""
        if self._journal is not None:
            self._leave()

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _look_for_nodes(self) -> None:
        """Start an engine on every node that has the device and none yet.

        Raises:
            ClipmuxError: there has been no node for too long.
        """
        now = time.monotonic()
        if now - self._looked_at < (LOOK_EVERY_S if self._members else TICK_S):
            return
        self._looked_at = now
        for member in list(self._members.values()):
            if not member.ready and now - member.started > READY_S:  # it has no videos yet
                list(self._lose(member, f"was not ready after {READY_S:g} s: is its node's CPU taken by others?"))
        alive = [node for node in ray.nodes() if node["Alive"]]
        for node in alive:
            if node["NodeID"] not in {*self._members, *self._unfit} and now >= self._again_at.get(node["NodeID"], 0):
                self._start(node, now)
        if self._members:
            self._somebody_at = now
            return
        hopeless = bool(alive) and all(node["NodeID"] in self._unfit for node in alive)
        if hopeless or now - self._somebody_at > NOBODY_S:
            why = "; ".join(self._unfit.values()) or f"there was none for {NOBODY_S:g} s"
            raise ClipmuxError(f"no node can classify videos ({why}): finished videos are kept, go on with --resume")

    def _start(self, node: dict[str, Any], now: float) -> None:
        cores = node["Resources"].get("CPU", 0.0)
        kind, needed = RESOURCES[self._config.kind_of_device], len(self._config.devices)
        if node["Resources"].get(kind, 0.0) < (needed if kind != "CPU" else 1):
            return
        name = node["NodeID"]
        options: dict[str, Any] = {"num_cpus": cores, "max_concurrency": 1, "max_restarts": 0}
        options |= {"num_gpus": needed} if kind == "GPU" else {}
        options |= {"resources": {kind: needed}} if kind == "MLU" else {}
        options["scheduling_strategy"] = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(name, soft=False)
        actor = ray.remote(NodeEngine).options(**options).remote(self._config.to_json())
        window = 4 + 2 * (self._config.workers or max(1, round(cores)))
        member = self._members[name] = Member(name, node["NodeManagerHostname"], window, actor, now)
        log.info("an engine is started on node %s (%s)", name[:12], member.host)
        self._call(member, [])  # it gets its first videos once it has answered

    def _lose(self, member: Member, how: str, *, unfit: bool = False) -> Iterator[Prediction]:
        """An engine is gone: what it had goes to the others."""
        log.warning("the engine on node %s (%s) %s", member.node[:12], member.host, how)
        del self._members[member.node]
        self.progress.restarts += 1
        now = time.monotonic()
        wait = self._restarts.setdefault(member.node, Restarts()).wait(now, progressed=self._progressed)
        if wait is None:
            self._unfit[member.node] = f"{member.host}: its engine died again and again"
        else:
            self._again_at[member.node] = now + wait
        ray.kill(member.actor)
        if unfit:
            self._unfit[member.node] = f"{member.host}: {how}"
        for name, video in member.has.items():
            losses = self._losses[name] = self._losses.get(name, 0) + 1
            if losses < LOSSES:
                self._waiting.append(video)
                continue
            message = f"'{video.shown}' was lost with the engines of {LOSSES} nodes: the last one {how}"
            error = VideoError("node lost", "NodeLost", message[:4000])
            yield self._write(Prediction(name, video.shown, attempt=losses, error=error).to_json())

    # -- videos --------------------------------------------------------------------------------------------------------

    def _give(self, source: Iterator[Video] | None) -> Iterator[Video] | None:
        """Call every engine that is not in a call; None in place of a source that has no more."""
        busy = {member.node for member in self._calls.values()}
        for member in self._members.values():
            if member.node in busy or not member.ready:
                continue
            given: list[dict[str, Any]] = []
            while len(member.has) < member.window:
                video = self._waiting.popleft() if self._waiting else None
                if video is None and source is not None and (video := next(source, None)) is None:
                    source = None
                if video is None:
                    break
                member.has[video.video_id] = video
                given.append({**video.to_dict(), "path": os.path.abspath(video.path)})  # noqa: PTH100  (links stay)
            if given or member.has:
                self._call(member, given)
        return source

    def _call(self, member: Member, videos: list[dict[str, Any]]) -> None:
        self._calls[member.actor.exchange.remote(videos)] = member

    def _hear(self) -> Iterator[Prediction]:
        """What engines answer."""
        if not self._calls:
            time.sleep(TICK_S)
            return
        answered, _ = ray.wait(list(self._calls), timeout=TICK_S)
        for ref in answered:
            member = self._calls.pop(ref)
            if self._members.get(member.node) is not member:
                continue
            try:
                answer = ray.get(ref)
            except ray.exceptions.RayError as error:
                yield from self._lose(member, f"is lost ({_first_line(error)})")
                continue
            yield from self._take(member, answer)

    def _take(self, member: Member, answer: dict[str, Any]) -> Iterator[Prediction]:
        for line in answer["lines"]:
            if (video := member.has.pop(line["video_id"], None)) is not None:
                line["path"] = video.shown
                line["attempt"] += self._losses.get(line["video_id"], 0)
                yield self._write(line)
        self.progress.restarts += answer["restarts"] - member.restarts
        member.restarts = answer["restarts"]
        if answer["error"]:
            yield from self._lose(member, f"failed: {answer['error']}", unfit=answer["usage"])
        elif not member.ready:
            if not answer["about"]:
                self._call(member, [])  # it is still starting
            elif answer["model_sha256"] != self._model.sha256:
                yield from self._lose(member, f"has another model at '{self._config.model}'", unfit=True)
            else:
                member.ready = True
                self.about = {**answer["about"], "nodes": len(self._members)}

    def _write(self, line: dict[str, Any]) -> Prediction:
        assert self._journal is not None  # noqa: S101  (start made it)
        self._journal.write(line)
        self._progressed = time.monotonic()
        prediction = Prediction.from_json(line)
        self.progress.done += 1
        self.progress.failed += prediction.error is not None
        self.progress.clips += prediction.clips
        if prediction.error is not None:
            log.warning("%s failed: %s", prediction.video_id, prediction.error.message)
        return prediction

    def _sync(self, *, now: bool = False) -> None:
        if self._journal is not None and (now or time.monotonic() - self._synced_at >= SYNC_EVERY_S):
            self._journal.sync()
            self._synced_at = time.monotonic()

    def _leave(self) -> None:
        assert self._journal is not None  # noqa: S101
        self._journal.close()
        self._journal = None
        for member in self._members.values():
            ray.kill(member.actor)
        self._members.clear()
        self._calls.clear()
        ray.shutdown()
        if self._scratch is not None:
            self._scratch.cleanup()


def connect(address: str) -> tempfile.TemporaryDirectory[str] | None:
    """Join a cluster, or start one on this machine that nobody else can reach.

    Returns:
        The folder of the one that was started, to be removed at its end.

    Raises:
        UsageError: there is none at this address.
    """
    named = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if named:
            if match := re.fullmatch(r"([^:/]+):(\d{1,5})", named):  # which Ray itself would try for minutes
                socket.create_connection((match[1], int(match[2])), timeout=REACH_S).close()
            _init(address=named)
            return None
        long = len(tempfile.gettempdir()) > SHORT
        folder = tempfile.TemporaryDirectory(prefix="cmr-", dir="/tmp" if long else None, ignore_cleanup_errors=True)  # noqa: S108
        alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder.name}
        _init(num_cpus=usable_cores(), **alone)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        if not named:
            raise ClipmuxError(f"Ray does not start on this machine: {_first_line(error)}") from None
        raise UsageError(f"there is no Ray cluster at '{named}' ({_first_line(error)}): see 'ray status'") from None
    return folder


def _init(**options: Any) -> None:
    """Initialise Ray, quietly, and keep SIGTERM: Ray takes it, and would abort this process in the middle of a line."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
