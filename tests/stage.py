"""A real watcher and page, with supervisor, cameras and inference played by the test over real sockets."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from PIL import Image

from clipmux.engine.child import Setting
from clipmux.engine.children import Child, start_child
from clipmux.engine.messages import (
    LIVE,
    Beat,
    ClipKey,
    Control,
    Drops,
    Failed,
    Goodbye,
    Happened,
    Hello,
    Scores,
    Segment,
    Stop,
    Streams,
    StreamState,
    Thumbnail,
    Totals,
)
from clipmux.engine.model import ModelFolder, write_model
from clipmux.engine.sockets import make_addresses, push_reports, remove_sockets, router
from clipmux.engine.streams import LiveConfig
from clipmux.engine.wire import decode_control, encode

LABELS = ("nobody", "walking", "running", "<b>label</b>")
CLIP_S = 0.64


def told(number: int, name: str, **other: Any) -> dict[str, Any]:
    """A stream as the supervisor tells of it."""
    usual = {"labels": [], "enter": 0.6, "leave": 0.4, "min_duration_s": 0.0, "smooth": 1, "weight": 1.0}
    return {"number": number, "name": name, "url": f"rtsp://***@10.0.0.{number}/cam", **usual, **other}


class Stage:
    """What the parts played by the test say, and what is said to them."""

    def __init__(self, folder: Path, *, http: dict[str, Any] | None = None, **config: Any) -> None:
        self.happened: list[dict[str, Any]] = []
        self.beats: dict[str, Any] = {}
        self.said: list[tuple[str, Control]] = []
        self.log = folder / "children.log"
        model = folder / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "model.onnx").write_bytes(b"no network")
        written = write_model(ModelFolder(path=model, name="stage", network="model.onnx", labels=LABELS))
        self._settings = LiveConfig(model=str(model), **config).of_model(written).to_json()
        self._http = http
        self._addresses = make_addresses()
        self._context: zmq.Context[Any] = zmq.Context()
        self._control = router(self._context, self._addresses.control)
        self._reports = push_reports(self._context, self._addresses.reports)
        self._log = self.log.open("ab")
        self.children: dict[str, Child] = {}
        self._next: dict[tuple[int, int], int] = {}

    def start(self, role: str) -> Control:
        """Start ``watcher`` or ``page``; returns its first word."""
        content: dict[str, Any] = {"feed": self._addresses.feed}
        content |= {"http": self._http} if role == "page" else {"config": self._settings, "http": bool(self._http)}
        name = f"{role}-{len(self.said) + 1}"
        setting = Setting(name, self._addresses, content)
        self.children[role] = start_child(role, f"clipmux.workers.{role}", setting, log=self._log)
        return self.hear(role, Hello, Failed)

    def hear(self, role: str, *kinds: type[Control], timeout_s: float = 20) -> Control:
        """The next message of these kinds from a child; what else is said meanwhile is kept."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for who, message in self.listen(0.1):
                if who.startswith(role) and isinstance(message, kinds):
                    return message
        raise AssertionError(f"{role} did not say any of {kinds}: {self.log.read_text()}")

    def listen(self, seconds: float) -> list[tuple[str, Control]]:
        """What children say within a time."""
        heard = []
        deadline = time.monotonic() + seconds
        while self._control.poll(max(0, round(1000 * (deadline - time.monotonic())))):
            name, *frames = self._control.recv_multipart()
            message = decode_control(frames)
            if isinstance(message, Happened):
                self.happened.append(message.line)
            elif isinstance(message, Beat):
                self.beats.update(message.counts)
            heard.append((name.decode(), message))
        self.said += heard
        return heard

    def events(self, count: int, timeout_s: float = 10) -> list[dict[str, Any]]:
        """All events so far, once there are so many."""
        deadline = time.monotonic() + timeout_s
        while len(self.happened) < count and time.monotonic() < deadline:
            self.listen(0.05)
        assert len(self.happened) >= count, (len(self.happened), self.happened[-3:], self.log.read_text()[-2000:])
        return self.happened

    def tell(self, role: str, message: Control) -> None:
        self._control.send_multipart([self.children[role].name.encode(), *encode(message)])

    def streams(self, streams: Sequence[dict[str, Any]]) -> None:
        """Have these streams, and wait until the watcher knows them."""
        self.tell("watcher", Streams(list(streams)))
        self.beats.clear()
        deadline = time.monotonic() + 20
        while self.beats.get("streams") != len(streams):
            assert time.monotonic() < deadline, "the watcher does not know its streams"
            self.hear("watcher", Beat)

    def totals(self, **figures: float) -> None:
        self.tell("watcher", Totals(figures))

    def state(self, stream: int, state: str = LIVE, *, connection: int = 1, detail: str = "", **figures: Any) -> None:
        message = StreamState(stream, connection, state, detail, time.monotonic(), figures)
        self._reports.send_multipart(encode(message))

    def clip(self, stream: int, score: float, *, label: int = 1, connection: int = 1, late_s: float = 0.1) -> None:
        """The next clip of a connection, scored this way."""
        index = self._next.get((stream, connection), 0)
        self._next[stream, connection] = index + 1
        self.scores(stream, index, score, label=label, connection=connection, late_s=late_s)

    def scores(
        self, stream: int, index: int, score: float, *, label: int = 1, connection: int = 1, late_s: float = 0.1
    ) -> None:
        rest = (1 - score) / (len(LABELS) - 1)
        row = np.full((1, len(LABELS)), rest, np.float32)
        row[0, label] = score
        times = (index * CLIP_S, (index + 1) * CLIP_S)
        key = ClipKey(stream, connection, index, Segment(16 * index + 1, 16 * index + 17, times))
        self._reports.send_multipart(encode(Scores((key,), row, (late_s,))))

    def drops(self, *counts: tuple[int, int], process: str = "inference-1") -> None:
        self._reports.send_multipart(encode(Drops(process, [list(pair) for pair in counts])))

    def thumbnail(self, stream: int, colour: tuple[int, int, int] = (40, 90, 90), *, connection: int = 1) -> None:
        self.picture(stream, Image.new("RGB", (320, 180), colour), connection=connection)

    def picture(self, stream: int, picture: Image.Image, *, connection: int = 1) -> None:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        self._reports.send_multipart(encode(Thumbnail(stream, connection, time.monotonic(), file.getvalue())))

    def garbage(self, *frames: bytes) -> None:
        self._reports.send_multipart(list(frames))

    def stop(self, role: str) -> dict[str, Any]:
        """Stop a child in order; returns its figures."""
        self.tell(role, Stop())
        goodbye = self.hear(role, Goodbye)
        assert isinstance(goodbye, Goodbye)
        assert self.children.pop(role).reap() == 0
        return goodbye.figures

    def close(self) -> None:
        for child in self.children.values():
            child.process.kill()
            child.reap()
        self._control.close(linger=0)
        self._reports.close(linger=0)
        self._context.destroy(linger=0)
        self._log.close()
        remove_sockets(self._addresses)


@contextmanager
def stage(folder: Path, *, http: dict[str, Any] | None = None, **config: Any) -> Iterator[Stage]:
    """A stage on which a watcher, and with ``http`` a page, are ready."""
    made = Stage(folder, http=http, **config)
    try:
        assert isinstance(made.start("watcher"), Hello), made.said
        if http is not None:
            assert isinstance(made.start("page"), Hello), made.said
        yield made
    finally:
        made.close()
