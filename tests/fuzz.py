"""Foreign headers and documents for every reader: ``python tests/fuzz.py --headers 1000000 --documents 50000``.

Each reader may return, or raise the error that it names. Anything else, a call that does not come back, or memory that
grows is a fault, and is shown with the seed that makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgpack
import mutate
import numpy as np
import typer

from clipmux.bench.accuracy import evaluate
from clipmux.engine.cli import app
from clipmux.engine.errors import ClipmuxError, MessageError
from clipmux.engine.messages import (
    Assign,
    Beat,
    Claim,
    Clip,
    ClipKey,
    Done,
    Drops,
    Expect,
    Goodbye,
    Grant,
    Hello,
    Part,
    Placed,
    Read,
    Scores,
    Segment,
    Streams,
    StreamState,
    Thumbnail,
    VideoEnd,
    VideoFailed,
)
from clipmux.engine.model import ModelFolder, read_labels, read_model, write_model
from clipmux.engine.wire import (
    decode_clip,
    decode_control,
    decode_grant,
    decode_live_report,
    decode_part,
    decode_placed,
    decode_read,
    decode_report,
    encode,
)
from clipmux.workers.results import RunFolder
from clipmux.workers.sources import Video, list_annotated
from clipmux.workers.table import Table, write_table

CLICK_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What a wrong command line is to typer, which brings its own click."""

HANGS_AFTER_S = 60
GROWTH_MOST = 256 << 20
"""Bytes that a whole session may add to this process: readers hold one document at a time."""
SHAPE, CLASSES = (2, 3, 4, 3), 3


@dataclass
class Session:
    """What came of a number of tries."""

    tries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    grown: int = 0
    looked: float = 0.0

    def try_one(
        self, name: str, seed: str, attempt: Callable[[], object], named: tuple[type[BaseException], ...]
    ) -> None:
        """Call a reader once; what it may raise is ``named``."""
        self.tries += 1
        if time.monotonic() - self.looked > 1:
            self.looked = time.monotonic()
            faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        try:
            attempt()
            self.outcomes[f"{name}: read"] += 1
        except named:
            self.outcomes[f"{name}: refused"] += 1
        except Exception:
            self.outcomes[f"{name}: FAULT"] += 1
            if len(self.faults) < 20:
                self.faults.append(f"{name}, seed {seed}:\n{traceback.format_exc(limit=-4)}")


@contextlib.contextmanager
def measured(session: Session) -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    faulthandler.cancel_dump_traceback_later()
    session.grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if session.grown > GROWTH_MOST:
        session.faults.append(f"memory grew by {session.grown >> 20} MiB")


# --- the wire --------------------------------------------------------------------------------------------------------

Frames = Sequence[Any]


def corpus() -> list[tuple[str, Callable[[Frames], object], list[bytes]]]:
    """Every decoder with a good message of every kind that it takes."""
    segment = Segment(1, 17, (0.0, 0.64))
    key = ClipKey(3, 1, 2, segment)
    clip = Clip(key, 1.5, np.zeros(SHAPE, np.uint8), 0)
    video = Video("a", Path("/a.mp4"), "file").to_dict()
    control = [
        Hello({"chosen": "float32", "room": 48}), Beat({"clips": 3, "busy_s": {"decode": 1.0}}), Expect(more=True),
        Assign(3, 1, video), Done(3, {"video_id": "a", "result": [{"label": "x", "score": 0.5}]}), Goodbye({"x": 1.0}),
        Streams([{"number": 0, "name": "door", "labels": []}]),
    ]  # fmt: skip
    scores = Scores((key, key), np.ones((2, CLASSES), np.float32), (1.0, 2.0))
    reports = [
        scores,
        VideoEnd(3, 1, "a", "/a", 2, 20, (0.0, 1.0)),
        VideoFailed(3, 1, "a", "/a", "open", "Kind", "why"),
    ]
    live = [
        scores,
        StreamState(0, 1, "live", "", 1.0, {"fps": 25.0}),
        Thumbnail(0, 1, 1.0, b"jpeg"),
        Drops("inference-1", [[0, 3]]),
    ]
    takes: list[tuple[str, Callable[[Frames], object], list[Any]]] = [
        ("clip", lambda frames: decode_clip(frames, SHAPE), [clip]),
        ("placed", decode_placed, [Placed(key, 1.5, 7), Claim(1, 3)]),
        ("grant", lambda frames: decode_grant(frames, range(8)), [Grant((1, 2, 3))]),
        ("report", lambda frames: decode_report(frames, CLASSES), reports),
        ("live report", lambda frames: decode_live_report(frames, CLASSES), live),
        ("control", decode_control, control),
        ("read", decode_read, [Read(7, 1 << 40, 1 << 20)]),
        ("part", lambda frames: decode_part(frames, 1 << 10), [Part(7, 1 << 40, 1 << 41, "", b"bytes")]),
    ]
    return [
        (name, decode, [bytes(frame) if isinstance(frame, bytes) else frame.tobytes() for frame in encode(message)])
        for name, decode, messages in takes
        for message in messages
    ]


def fuzz_headers(count: int, seed: int) -> Session:
    """Spoil headers, of bytes or of values, and now and then the frames around them."""
    session, random, good = Session(), Random(seed), corpus()  # noqa: S311  (the same every time)
    headers = [frames[0] for _, _, frames in good]
    with measured(session):
        for number in range(count):
            name, decode, frames = random.choice(good)
            if random.random() < 0.5:
                header = mutate.bytes_of(frames[0], random.choice(headers), random)
            else:
                content = mutate.tree_of(msgpack.unpackb(frames[0]), random)
                header = msgpack.packb(content)
            if random.random() < 0.001:
                header = random.choice((b"\x91", b"\x81\xa0")) * random.choice((500, 1025, 5000)) + header
            sent = [header, *frames[1:]]
            if random.random() < 0.05:
                sent = random.choice(([], [header] * 3, [header, b""], [header, random.randbytes(64)], sent[::-1]))
            session.try_one(name, f"{seed}/{number}", lambda: decode(sent), (MessageError,))  # noqa: B023  (called at once)
    return session


# --- documents -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Something that reads a document.

    Args:
        name: of it.
        file: where the document goes, below the scratch folder.
        good: a document that it takes.
        read: it; gets the scratch folder.
        named: what it may raise besides ``ClipmuxError``.
    """

    name: str
    file: str
    good: bytes
    read: Callable[[Path], object]
    named: tuple[type[BaseException], ...] = ()


def readers(scratch: Path) -> list[Reader]:
    """Every reader of a document from outside, in a folder with all that they expect around it."""
    model = scratch / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"no network")
    write_model(ModelFolder(path=model, name="m", network="model.onnx", labels=("a", "b", "c"), compiled={"x": [1]}))
    (scratch / "root" / "a").mkdir(parents=True)
    (scratch / "root" / "a" / "v1.mp4").write_bytes(b"x")
    decides = {"model": "m", "per_clip": False}
    run = RunFolder(scratch / "run", decides=decides, resume=False)
    entry = {"subset": "validation", "annotations": {"label": "a", "segment": [1, 17]}}
    annotations = {"labels": ["a", "b"], "database": {"v1": entry, "v2": {**entry, "video_path": "a/v1.mp4"}}}
    line = {
        "video_id": "v1", "path": "/v1", "attempt": 1, "frames": 20, "clips": 1, "seconds": [0.0, 0.8],
        "result": [{"label": "a", "score": 0.5}],
        "per_clip": [{"segment": [1, 17], "seconds": None, "result": [{"label": "a", "score": 0.5}]}],
    }  # fmt: skip
    failure = {"video_id": "v2", "path": "/v2", "stage": "open", "error": "Kind", "message": "why", "attempt": 1}
    results = {"results": {"v1": [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}]}}
    config = b'model = "demo"\nstride = 8\nqueue-memory = 64\nmax_delay = 0.5\nper_clip = true\njail = "auto"\n'

    def dumped(content: object) -> bytes:
        return json.dumps(content).encode()

    def resumed(folder: Path) -> None:
        again = RunFolder(folder / "run", decides=decides, resume=True)
        again.write_results(again.outcomes())

    def exported(folder: Path) -> None:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            write_table(Table(folder / "run"), "csv", folder / "out.csv")

    def configured(folder: Path) -> None:
        command = typer.main.get_command(app)
        with contextlib.redirect_stderr(io.StringIO()):
            command.main(["run", "--config", str(folder / "config.toml")], standalone_mode=False, prog_name="clipmux")

    def scored(folder: Path) -> None:
        evaluate(folder / "kinetics.json", folder / "results.json", ks=[1], subset="validation", ignore=True, say=str)

    (scratch / "kinetics.json").write_bytes(dumped(annotations))
    (scratch / "results.json").write_bytes(dumped(results))
    (scratch / "run" / "failures.jsonl").write_bytes(dumped(failure) + b"\n")
    (scratch / "run" / "results.jsonl").write_bytes(dumped(line) + b"\n")
    return [
        Reader("model.json", "model/model.json", (model / "model.json").read_bytes(), lambda _: read_model(model)),
        Reader("labels.txt", "labels.txt", b"a\nb\nc d\n", lambda folder: read_labels(folder / "labels.txt")),
        Reader("labels.json", "labels.json", dumped(annotations), lambda folder: read_labels(folder / "labels.json")),
        Reader(
            "annotations", "kinetics.json", dumped(annotations),
            lambda folder: list_annotated(folder / "kinetics.json", folder / "root"),
        ),
        Reader("annotations to score", "kinetics.json", dumped(annotations), scored),
        Reader("results.json", "results.json", dumped(results), scored),
        Reader("run.json", "run/run.json", (run.path / "run.json").read_bytes(), resumed),
        Reader("results.jsonl", "run/results.jsonl", (dumped(line) + b"\n") * 2, resumed),
        Reader("failures.jsonl", "run/failures.jsonl", dumped(failure) + b"\n", resumed),
        Reader("results.jsonl to export", "run/results.jsonl", dumped(line) + b"\n", exported),
        Reader("config.toml", "config.toml", config, configured, (CLICK_ERROR, typer.Exit)),
        *live_readers(),
    ]  # fmt: skip


def live_readers() -> list[Reader]:
    """The streams of ``clipmux live``."""
    try:
        from clipmux.engine.streams import read_streams
    except ImportError:
        return []
    good = (
        b'[defaults]\nenter = 0.6\nsmooth = 3\nlabels = ["a"]\n[[stream]]\nname = "door"\nurl = "rtsp://u:p@host/cam"\n'
    )
    return [Reader("streams.toml", "streams.toml", good, lambda folder: read_streams(folder / "streams.toml"))]


def deep(random: Random) -> bytes:
    """Documents that are nothing but nesting, or nothing but one long value."""
    depth = random.choice((500, 2_000, 100_000))
    kinds = (
        b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth, b"a = " + b"[" * depth + b"]" * depth,
        b"a = " + b"{a=" * depth, b"[" + b"a." * depth + b"a]", b"a = {" + b"'!'." * depth + b"a = 1}", b"9" * depth,
        b'"' + b"\\ud800" * 10 + b'"', b"\xef\xbb\xbf",
    )  # fmt: skip
    return random.choice(kinds)


def fuzz_documents(count: int, seed: int) -> Session:
    """Spoil documents, of bytes or (JSON) of values; put deep and long ones in their place now and then."""
    session, random = Session(), Random(seed)  # noqa: S311
    with (
        tempfile.TemporaryDirectory() as name,
        patch("os.fsync"),
        measured(session),
    ):  # what is read is no matter of disks
        scratch = Path(name)
        every = readers(scratch)
        for number in range(count):
            reader = random.choice(every)
            path = scratch / reader.file
            before = path.read_bytes() if path.exists() else reader.good
            chance = random.random()
            if chance < 0.05:
                content = deep(random)
            elif chance < 0.5 and reader.good[:1] == b"{":
                first = reader.good.splitlines()[0] if b"}\n{" in reader.good else reader.good
                content = json.dumps(mutate.tree_of(json.loads(first), random)).encode() + b"\n"
            else:
                content = mutate.bytes_of(reader.good, random.choice(every).good, random)
            path.write_bytes(content)
            session.try_one(
                reader.name,
                f"{seed}/{number}",
                lambda: reader.read(scratch),  # noqa: B023  (called at once)
                (ClipmuxError, *reader.named),
            )
            path.write_bytes(before)
    return session


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--headers", type=int, default=1_000_000)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faults = 0
    for what, fuzz, count in (("headers", fuzz_headers, asked.headers), ("documents", fuzz_documents, asked.documents)):
        began = time.monotonic()
        session = fuzz(count, asked.seed)
        faults += len(session.faults)
        print(f"{session.tries:,} {what} in {time.monotonic() - began:.0f} s, {session.grown >> 20} MiB more memory")
        for outcome, times in sorted(session.outcomes.items()):
            print(f"  {outcome:40} {times:>10,}")
        print(*session.faults, sep="\n")
    return min(1, faults)


if __name__ == "__main__":
    sys.exit(main())
