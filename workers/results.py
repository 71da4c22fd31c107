"""The run folder: what one run writes, and what a resumed one reads.

``results.jsonl`` and ``failures.jsonl`` (with ``--segments`` also ``segments.jsonl``) are the journal, a line per
video as it finishes; ``results.json`` (the reference's format) and ``summary.json`` are written whole at the end;
``run.json`` says what the run was asked for.

Who writes holds a lock that ends with its process: a supervisor that of the folder, a collector that of its journal. A
resumed run thus reads the journal only once a collector that outlived its supervisor for a moment has written its last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from clipmux.engine.documents import check_text, parse_json, read_json
from clipmux.engine.errors import ClipmuxError, UsageError, VideoError
from clipmux.engine.prediction import Prediction
from clipmux.engine.streams import url_in_place_of_path
from clipmux.engine.wire import HEADER_MOST

from .remote import STORES

RESULTS = "results.jsonl"
FAILURES = "failures.jsonl"
SEGMENTS = "segments.jsonl"
OWN = ("run.json", "run.log", RESULTS, FAILURES, SEGMENTS, "results.json", "summary.json")
"""All files of a run folder."""
FORMAT = 1
LINE_LONGEST = 2 * HEADER_MOST
"""Bytes of a line: about what the longest message says, in JSON. A longer one is neither written nor read."""
BEGUN = frozenset(("run.log", "run.json.part"))
"""All that there is of a run that was killed while it began."""
PATIENCE_S = 5.0
"""How long the last writer of a journal may take to end: children live 2 s longer than their supervisor at most."""


class Journal:
    """Appends outcomes to a run folder, whole lines only, and one process at a time.

    Args:
        folder: the run folder.
        segments: videos have segments too.

    Raises:
        ClipmuxError: it cannot be written, or somebody else is writing it.
    """

    def __init__(self, folder: Path, *, segments: bool = False) -> None:
        self._dirty: set[str] = set()
        with contextlib.ExitStack() as opened:
            self._files = {name: opened.enter_context(_open_for_lines(folder / name)) for name in (RESULTS, FAILURES)}
            _lock_journal(self._files[RESULTS])
            if segments:
                _keep_finished(folder)
                self._files[SEGMENTS] = opened.enter_context(_open_for_lines(folder / SEGMENTS))
            opened.pop_all()
        _sync_folder(folder)

    def write(self, line: dict[str, Any], segments: dict[str, Any] | None = None) -> None:
        """Append one outcome (``Prediction.to_json()``); on return a crash of this process cannot lose it.

        The video's segments come before its result: a crash between the two leaves neither.

        Raises:
            VideoError: it is longer than any line may be; nothing of it was written.
            ClipmuxError: the disk is full or gone.
        """
        contents = {} if segments is None else {SEGMENTS: segments}
        contents[FAILURES if "error" in line else RESULTS] = line
        for name, raw in [(name, _as_line(name, content)) for name, content in contents.items()]:
            file = self._files[name]
            with _named_errors(file.name):
                _append(file, raw)
            self._dirty.add(name)

    def sync(self) -> None:
        """On return a crash of the machine cannot lose what was written either.

        Raises:
            ClipmuxError: the disk is full or gone, or the run folder is no longer there.
        """
        for name in sorted(self._dirty, reverse=True):  # segments before the results that they belong to
            file = self._files[name]
            with _named_errors(file.name):
                os.fsync(file.fileno())
                if not os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat()):
                    raise OSError(errno.ENOENT, "another file is there now")
        self._dirty.clear()

    def close(self) -> None:
        with contextlib.ExitStack() as last:
            for file in self._files.values():  # each is closed, whatever happens to the others
                last.enter_context(_named_errors(file.name))
                last.callback(file.close)
            self.sync()


class RunFolder:
    """A run folder that belongs to this run, as long as whoever makes it keeps others out: see ``held``.

    Args:
        path: the folder.
        decides: everything that the results depend on; a resumed run must be asked for the same.
        resume: go on with what is there.
        shown: what it is called where people read of it; its path unless given.
        check: raises if the run cannot go on since its results get nowhere.

    Raises:
        UsageError: it is a URL, cannot be written, is not empty, or holds another run.
    """

    def __init__(
        self,
        path: Path,
        *,
        decides: dict[str, Any],
        resume: bool,
        shown: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.shown = shown or str(path)
        self.check = check
        with _writable(self.shown):
            _make(path)
            existing = {entry.name for entry in path.iterdir()} - BEGUN
            if existing and not resume:
                raise not_empty(self.shown, existing)
            self.fresh = not existing
            asked = {"format": FORMAT, **decides}
            if existing:
                self._check_same(asked)
            with (path / "run.log").open("ab"):  # that it can be written is found out now, not by the first result
                pass
            if not existing:
                write_json(path / "run.json", asked)

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path, *, decides: dict[str, Any], resume: bool) -> Iterator[RunFolder]:
        """The run folder, which other runs are kept out of: from before anybody looks at what is in it, since of two
        that begin together each would find it empty. A journal to go on with is made whole.

        Raises:
            UsageError: another run is in it, or see ``RunFolder``.
            ClipmuxError: see ``mend``.
        """
        with _writable(str(path)):
            _make(path)
        with hold(path, shown=str(path)):
            folder = cls(path, decides=decides, resume=resume)
            if not folder.fresh:
                mend(path)
            yield folder

    def outcomes(self) -> dict[str, bool]:
        """The video ids that have an outcome, and whether it is a result; repairs a torn last line.

        Raises:
            ClipmuxError: a line is not one that we wrote, or somebody is still writing.
        """
        found: dict[str, bool] = {}
        with _alone(self.path):
            for name in (FAILURES, RESULTS):
                _repair(self.path / name)
                for _, line in read_lines(self.path / name):
                    found[line["video_id"]] = name == RESULTS
        return found

    def write_results(self, order: Iterable[str]) -> None:
        """Write ``results.json``, the reference's format, with the videos in this order, holding one at a time."""
        path = self.path / RESULTS
        offsets = {line["video_id"]: offset for offset, line in read_lines(path)}
        with _replacing(self.path / "results.json") as out:
            out.write(b'{"results": {')
            with path.open("rb") as file:
                separator = b""
                for video_id in order:
                    if video_id not in offsets:
                        continue
                    file.seek(offsets[video_id])
                    entry = reference_entry(json.loads(file.readline()))
                    out.write(separator + json.dumps(video_id, ensure_ascii=False).encode() + b": ")
                    out.write(json.dumps(entry, ensure_ascii=False).encode())
                    separator = b",\n"
            out.write(b"}}\n")

    def discard(self) -> None:
        """Remove a run folder that has nothing in it yet but what this run began."""
        for name in ("run.json", "run.log", RESULTS, FAILURES, SEGMENTS):
            file = self.path / name
            if file.exists() and (name in ("run.json", "run.log") or not file.stat().st_size):
                file.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def _check_same(self, asked: dict[str, Any]) -> None:
        try:
            before = read_json(self.path / "run.json")
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            raise UsageError(f"'{self.shown}' is not a run folder (no run.json to read): give another --output")
        differences = [
            f"{key} {before.get(key)!r}, this one {value!r}" for key, value in asked.items() if before.get(key) != value
        ]
        if differences:
            raise UsageError(
                f"the run in '{self.shown}' has {'; '.join(differences)}: "
                "resume with the same, or give another --output"
            )


@contextlib.contextmanager
def _writable(shown: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the run folder '{shown}' cannot be written ({error.strerror}): give another --output"
        ) from None


def _make(path: Path) -> None:
    if url := url_in_place_of_path(str(path)):  # a folder called "s3:" would be made here, and nobody told
        raise UsageError(
            f"the run folder '{url}' is a URL that nothing can be written to: give a folder, or one of a store ("
            f"{', '.join(f'{scheme}://' for scheme in STORES)})"
        )
    path.mkdir(parents=True, exist_ok=True)


def not_empty(shown: str, names: Container[str]) -> UsageError:
    """What to say of a run folder that holds files of these names and is to be a new one."""
    remedy = "give another --output" + (", or --resume to go on with it" if "run.json" in names else "")
    return UsageError(f"the run folder '{shown}' is not empty: {remedy}")


@contextlib.contextmanager
def hold(path: Path, *, shown: str) -> Iterator[None]:
    """Keep other runs out of a folder.

    Raises:
        UsageError: one is in it.
    """
    with _writable(shown):
        folder = os.open(path, os.O_RDONLY)
    try:
        if not _lock(folder, patience_s=0.0):
            raise UsageError(f"another run is writing to '{shown}': wait for its end, or give another --output")
        yield
    finally:
        os.close(folder)


def too_long(name: str, length: int, most: int) -> VideoError:
    """What to say of a video whose line of this file can be neither told nor written."""
    what, remedy = "result", "a smaller --top-k, or leave out --per-clip"
    if name == SEGMENTS:
        what, remedy = "list of segments", "a longer --min-duration"
    return VideoError(
        "write", "ResultTooLong", f"its {what} would take {length} bytes, {most} are allowed: give {remedy}"
    )


def mend(folder: Path) -> None:
    """Make a journal that a crash left whole: no torn line, no segments without a result, and no result without its
    segments, which a crash of the machine can have taken alone. Videos that lose their result run again.

    Raises:
        ClipmuxError: a line is not one that we wrote, or somebody is still writing.
    """
    with _alone(folder):
        for name in (FAILURES, RESULTS, SEGMENTS):
            _repair(folder / name)
        if (folder / SEGMENTS).exists():
            _keep(folder / RESULTS, {line["video_id"] for _, line in _read_segments(folder)})
        _keep_finished(folder)


def recover(folder: Path, wanted: Container[str]) -> Iterator[dict[str, Any]]:
    """What the journal of a dead collector has of these videos; repairs a torn last line first.

    Raises:
        ClipmuxError: a line is not one that we wrote, or somebody is still writing.
    """
    with _alone(folder):
        for name in (RESULTS, FAILURES):
            _repair(folder / name)
            for _, line in read_lines(folder / name):
                if line["video_id"] in wanted:
                    yield line


def reference_entry(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A line of ``results.jsonl`` as the reference writes it: top labels, or segments with theirs."""
    if "per_clip" in line:
        return [{"segment": clip["segment"], "result": clip["result"]} for clip in line["per_clip"]]
    result: list[dict[str, Any]] = line["result"]
    return result


def read_lines(
    path: Path, *, going_on: bool = False, check: Callable[[Any], object] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Byte offset and content of every line of a journal file; nothing if there is no such file.

    Args:
        path: the file.
        going_on: it may be written to: a last line without its end is left out.
        check: raises if a line's content is not as it should be; lines are outcomes unless said, and in
            ``results.jsonl`` none of them is a failure.

    Raises:
        ClipmuxError: a line is not one that we wrote.
    """
    if not path.exists():
        return
    check = check or (_check_result if path.name == RESULTS else Prediction.from_json)
    with path.open("rb") as file:
        offset = 0
        for number, raw in enumerate(iter(lambda: file.readline(LINE_LONGEST + 1), b""), start=1):
            if going_on and not raw.endswith(b"\n") and len(raw) <= LINE_LONGEST:
                return
            try:
                line = _checked_line(raw, check)
            except (ValueError, TypeError, LookupError, ClipmuxError):
                raise ClipmuxError(f"line {number} of '{path}' is not a result: remove it, then resume") from None
            yield offset, line
            offset += len(raw)


def _check_result(content: Any) -> None:
    if Prediction.from_json(content).error is not None:
        raise ValueError("it is a failure")


def _checked_line(raw: bytes, check: Callable[[Any], object]) -> dict[str, Any]:
    """A line as we write it: what is not one is found here, not where it is used."""
    if len(raw) > LINE_LONGEST:
        raise ValueError("it is too long")
    line = parse_json(raw)
    check(line)
    if not isinstance(line["video_id"], str):
        raise TypeError("its name is not a text")
    check_text(line)
    return dict(line)


def write_json(path: Path, content: object) -> None:
    """Write JSON so that whoever looks finds the old file or the whole new one."""
    with _replacing(path) as out:
        out.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(path.name + ".part")
    try:
        with _named_errors(str(path)):
            with temporary.open("wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def _named_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "mend that"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "make room for it"
        elif error.errno in (errno.ENOENT, errno.ESTALE):
            remedy = "the run folder was moved or removed while it was written, put it back"
        raise ClipmuxError(
            f"'{path}' cannot be written ({error.strerror}): {remedy}, then go on with --resume"
        ) from None


def _open_for_lines(path: Path) -> FileIO:
    with _named_errors(str(path)):
        return path.open("ab", buffering=0)


def _as_line(name: str, content: dict[str, Any]) -> bytes:
    raw = json.dumps(content, ensure_ascii=False).encode() + b"\n"
    if len(raw) > LINE_LONGEST:
        raise too_long(name, len(raw), LINE_LONGEST)
    return raw


def _append(file: FileIO, line: bytes) -> None:
    """All of a line or, if there is no room for it, nothing of it."""
    end = file.seek(0, os.SEEK_END)
    left = memoryview(line)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def _sync_folder(path: Path) -> None:
    """Names of new files survive a crash of the machine too, where folders can be synchronised."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody writes the journal."""
    path = folder / RESULTS
    if not path.exists():
        yield
        return
    with _open_for_lines(path) as file:
        _lock_journal(file)
        yield


def _lock_journal(file: FileIO) -> None:
    if not _lock(file.fileno(), patience_s=PATIENCE_S):
        raise ClipmuxError(f"another process is writing '{file.name}': end it, then go on with --resume")


def _lock(descriptor: int, *, patience_s: float) -> bool:
    """Lock an open file or folder until it is closed, which the end of the process does too; False if others hold it.

    Some network file systems have no locks; there it is up to the user not to start two runs in one folder.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        except OSError:
            return True
        else:
            return True


def _keep_finished(folder: Path) -> None:
    """Leave out the segments of videos that have no result: a crash came between, and they run again."""
    path = folder / SEGMENTS
    if not path.exists():
        return
    for name in (SEGMENTS, RESULTS):
        _repair(folder / name)
    _keep(path, {line["video_id"] for _, line in read_lines(folder / RESULTS)})


def _keep(path: Path, wanted: Container[str]) -> None:
    """Leave out the lines of all other videos."""

    def lines() -> Iterator[tuple[int, dict[str, Any]]]:
        return _read_segments(path.parent) if path.name == SEGMENTS else read_lines(path)

    if all(line["video_id"] in wanted for _, line in lines()):
        return
    with _replacing(path) as out:
        for _, line in lines():
            if line["video_id"] in wanted:
                out.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _read_segments(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    return read_lines(folder / SEGMENTS, check=lambda line: line["segments"])


def _repair(path: Path) -> None:
    """Cut off a last line that a crash left without its end; its video runs again."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            file.truncate(end)
