"""Run folders in object stores: written on a disk of this machine, and put into the store in parts as they grow.

A store has no lines that are appended and synchronised, only whole objects. So what the journal got in the last few
seconds becomes an object, ``parts/00000001`` and so on, and what the store has is the run: outcomes that were not yet
there when a machine died run again. A part is only ever *created*, never written over: of two runs that both take the
folder for theirs, one cannot put its next part, and ends. At the end the files of any run folder are put there too.

A part is lines of a name, a tab and a line of that file, all outcomes whole: a result never comes before its segments.
Its first line, ``part``, says who wrote it and, in the first part, at which bytes of the whole files parts go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from clipmux.engine.documents import parse_json
from clipmux.engine.errors import ClipmuxError, UsageError

from . import remote
from .results import FAILURES, LINE_LONGEST, RESULTS, SEGMENTS, RunFolder, hold, mend, not_empty

log = logging.getLogger("clipmux")

JOURNAL = (RESULTS, FAILURES, SEGMENTS)
WHOLE = (*JOURNAL, "results.json", "summary.json", "run.log")
"""What is put there at the end, in place of what was there."""
PUSH_EVERY_S = 5.0
"""Work at risk if this machine is lost; on the machine itself ``--resume`` finds all of it."""
PART_LONGEST = 1 << 23
"""Bytes of outcomes from which on a part takes no more."""
READ_LONGEST = PART_LONGEST + 3 * LINE_LONGEST
LAST_TRIES_S = 60.0
"""How long the end of a run waits for a store that cannot be reached."""


class TakenError(ClipmuxError):
    """Another run writes into the same folder."""


class UnreachableError(ClipmuxError):
    """The store does not answer, or says no."""


def is_stored(output: str) -> bool:
    """It is a URL that run folders can be written to."""
    scheme = output.partition("://")[0].lower()
    return remote.is_remote(output) and scheme in remote.STORES


class Store:
    """A folder of an object store.

    Args:
        url: of the folder.

    Raises:
        UsageError: what reads such URLs is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.shown = remote.shown(self.url)
        self._files, self._path = remote.store(self.url, fresh=True)

    def names(self) -> list[str]:
        """What is in the folder, in order."""
        with self._told("read"):
            found = self._files.find(self._path)
        return sorted(name.removeprefix(self._path).lstrip("/") for name in found)

    def create(self, name: str, content: bytes) -> None:
        """Put a new object there.

        Raises:
            FileExistsError: there is one.
            UnreachableError: it cannot be written.
        """
        with self._told("written"):
            self._files.pipe_file(f"{self._path}/{name}", content, mode="create")

    def read(self, name: str) -> bytes:
        """A part."""
        with self._told("read"), self._files.open(f"{self._path}/{name}", "rb", cache_type="none") as file:
            content: bytes = file.read(READ_LONGEST + 1)
        if len(content) > READ_LONGEST:
            raise ClipmuxError(f"'{self.shown}/{name}' is longer than any part: nothing of ours wrote it")
        return content

    def download(self, name: str, path: Path) -> None:
        with self._told("read"):
            self._files.get_file(f"{self._path}/{name}", str(path))

    def upload(self, path: Path, name: str) -> None:
        with self._told("written"):
            self._files.put_file(str(path), f"{self._path}/{name}")

    def remove(self, name: str) -> None:
        with self._told("written"):
            self._files.rm_file(f"{self._path}/{name}")

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except Exception as error:  # a library of each store's own, with errors of its own
            raise UnreachableError(f"the run folder '{self.shown}' cannot be {what} ({remote.why(error)})") from None


@contextlib.contextmanager
def stored_folder(
    url: str, *, decides: dict[str, Any], resume: bool, every_s: float = PUSH_EVERY_S
) -> Iterator[RunFolder]:
    """A run folder in an object store, for as long as a run has it.

    Args:
        url: of the folder; must have nothing in it, or the same run if ``resume``.
        decides: see ``RunFolder``.
        resume: go on with what is there.
        every_s: seconds from one part to the next.

    Raises:
        UsageError: it cannot be used, is not empty, or holds another run.
        TakenError: another run writes to it.
        UnreachableError: the last of it could not be put there; says where it is.
    """
    store = Store(url)
    path = _working_folder(store)
    with hold(path, shown=store.shown):
        with _at_the_start():
            last, lengths = _restored(store, path, resume=resume)
            uploading = _Uploading(store, path, every_s, last, lengths)
            try:
                folder = RunFolder(path, decides=decides, resume=resume, shown=store.shown, check=uploading.check)
                if folder.fresh:
                    _claim(store, (path / "run.json").read_bytes())
            except ClipmuxError:
                if lengths == {name: _length(path / name) for name in JOURNAL}:  # it has nothing that the store has not
                    _empty(path)
                raise
        try:
            uploading.start()
            yield folder
        except ClipmuxError:  # not of a second Ctrl-C, which waits for nothing
            uploading.finish()
            raise
        uploading.finish()


@contextlib.contextmanager
def fetched(run: str) -> Iterator[Path]:
    """A run folder to be read: where it is, or a copy of what the store has of it."""
    if not is_stored(run):
        yield Path(run)
        return
    store = Store(run)
    with tempfile.TemporaryDirectory(prefix="clipmux-run-") as scratch, _at_the_start():
        path = Path(scratch)
        names = store.names()
        if "run.json" not in names:
            raise UsageError(f"'{store.shown}' is not a run folder (no run.json to read): check the URL")
        _download(store, names, path)
        yield path


@contextlib.contextmanager
def _at_the_start() -> Iterator[None]:
    """Nothing has been done yet: whoever asked for it can ask otherwise."""
    try:
        yield
    except UnreachableError as error:
        raise UsageError(f"{error}: check the URL and the credentials") from None


def _working_folder(store: Store) -> Path:
    """Always the same for a URL, so that what a killed run left there is found again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "clipmux" / "runs" / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"'{path}' cannot be made ({error.strerror}), where '{store.shown}' is written first: set XDG_CACHE_HOME"
        ) from None
    return path


def _claim(store: Store, content: bytes) -> None:
    """Begin a run there, and see that the store does refuse to write over what is there.

    Raises:
        UsageError: another run has just begun there, or the store would write over it.
    """
    try:
        store.create("run.json", content)
    except FileExistsError:
        raise UsageError(f"another run has just begun in '{store.shown}': give another --output") from None
    try:
        store.create("run.json", content)
    except FileExistsError:
        return
    store.remove("run.json")
    raise UsageError(
        f"the store of '{store.shown}' writes over what is there when asked not to (If-None-Match), "
        "so that two runs could write to it: give a folder on a disk"
    )


def _restored(store: Store, path: Path, *, resume: bool) -> tuple[int, dict[str, int]]:
    """Make the working folder what the store has, or leave what a killed run left there if that is more.

    Returns:
        The number of the last part, and how long each file of the journal is in the store.

    Raises:
        UsageError: it is to be a new run, and something is there.
        ClipmuxError: what is there is not ours.
    """
    names = store.names()
    if names and not resume:
        raise not_empty(store.shown, names)
    if names and "run.json" not in names:
        raise UsageError(f"'{store.shown}' is not a run folder (no run.json to read): give another --output")
    with tempfile.TemporaryDirectory(prefix="restored-", dir=path.parent) as scratch:
        there = Path(scratch)
        last = _download(store, names, there)
        lengths = {name: _length(there / name) for name in JOURNAL}
        if not (names and _goes_on(path, there)):
            _empty(path)
            for file in there.iterdir():
                file.rename(path / file.name)
    return last, lengths


def _download(store: Store, names: list[str], path: Path) -> int:
    """What the store has of a run, as a run folder; returns the number of its last part."""
    parts = [name for name in names if re.fullmatch(r"parts/\d{8}", name)]
    for number, name in enumerate(parts, start=1):
        if name != _part(number):
            raise ClipmuxError(f"'{store.shown}/{_part(number)}' is missing: without it the run cannot be put together")
    contents = (_read_part(store, part) for part in parts)
    after, lines = next(contents, ({}, []))
    for name in JOURNAL:
        if name in names:
            _download_lines(store, name, path / name, after.get(name, 0) if parts else None)
    with contextlib.ExitStack() as opened:
        files = {name: opened.enter_context((path / name).open("ab")) for name in JOURNAL}
        for more in chain([lines], (lines for _, lines in contents)):
            for name, line in more:
                files[name].write(line)
    for name in JOURNAL:
        if (path / name).exists() and not _length(path / name):
            (path / name).unlink()
    for name in ("run.json", "run.log"):
        if name in names:
            store.download(name, path / name)
    return len(parts)


def _read_part(store: Store, name: str) -> tuple[dict[str, int], list[tuple[str, bytes]]]:
    """How long the files are that the first part goes on from, and a part's lines, each with its file's name.

    Raises:
        ClipmuxError: it is no part.
    """
    try:
        head, *lines = (line.partition(b"\t") for line in store.read(name).splitlines(keepends=True))
        after = parse_json(head[2]).get("after", {})
        if head[0] != b"part" or not all(type(after[file]) is int and after[file] >= 0 for file in after):
            raise ValueError("it does not begin as one")
        found = [(file.decode(), content) for file, _, content in lines]
        if not all(file in JOURNAL and content.endswith(b"\n") for file, content in found):
            raise ValueError("it has other lines")
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ClipmuxError(f"'{store.shown}/{name}' is not a part of a run: remove it, then resume") from None
    return after, found


def _download_lines(store: Store, name: str, path: Path, length: int | None) -> None:
    """A file of the journal as an ended run left it, or so many bytes of it, which parts go on from."""
    if length == 0:
        return
    store.download(name, path)
    if length is not None:
        if _length(path) < length:
            raise ClipmuxError(f"'{store.shown}/{name}' is shorter than it was: the run cannot be put together")
        os.truncate(path, length)


def _goes_on(path: Path, there: Path) -> bool:
    """A killed run of this machine left more than the store has, of the same run."""
    if not (path / "run.json").exists() or (path / "run.json").read_bytes() != (there / "run.json").read_bytes():
        return False
    mend(path)
    return all(_begins_with(path / name, there / name) for name in JOURNAL)


def _begins_with(longer: Path, shorter: Path) -> bool:
    if not shorter.exists():
        return True
    if not longer.exists():
        return False
    with longer.open("rb") as mine, shorter.open("rb") as theirs:
        while block := theirs.read(1 << 20):
            if mine.read(len(block)) != block:
                return False
    return True


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _part(number: int) -> str:
    return f"parts/{number:08d}"


class _Uploading:
    """Puts what the journal of a working folder gets into the store, by a thread of its own.

    Args:
        store: where to.
        path: the working folder.
        every_s: seconds from one part to the next.
        last: number of the last part that is there.
        lengths: bytes of each file of the journal that are there.
    """

    def __init__(self, store: Store, path: Path, every_s: float, last: int, lengths: dict[str, int]) -> None:
        self._store = store
        self._path = path
        self._every_s = every_s
        self._number = last
        self._after = lengths
        self._offsets = dict(lengths)
        self._segments = _Segments(path / SEGMENTS)
        self._writer = secrets.token_hex(8)
        self._waiting: bytes | None = None
        self._ended = False
        self._error: ClipmuxError | None = None
        self._unreachable = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploading", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raises:
        ClipmuxError: the run cannot go on, since it cannot be written.
        """
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Put there what is left, and the files of any run folder; then the working folder is empty.

        Raises:
            TakenError: another run writes there.
            UnreachableError: it cannot be; says where all of it is.
        """
        self._ending.set()
        deadline = time.monotonic() + LAST_TRIES_S
        self._thread.join(LAST_TRIES_S)
        if self._thread.is_alive():
            raise self._kept(UnreachableError(f"the run folder '{self._store.shown}' does not answer"))
        self.check()
        if not (self._path / "run.json").exists():
            if self._number == 0 and not any(self._after.values()):  # nothing came of it: see RunFolder.discard
                self._store.remove("run.json")
            return  # else somebody took the working folder away, and what the store has is the run
        while True:
            try:
                while self._push(last=True):
                    pass
                for name in WHOLE:
                    if (self._path / name).exists():
                        self._store.upload(self._path / name, name)
                break
            except UnreachableError as error:
                if time.monotonic() >= deadline:
                    raise self._kept(error) from None
                time.sleep(1.0)
        _empty(self._path)

    def _kept(self, error: UnreachableError) -> UnreachableError:
        where = f"all results are in '{self._path}' and get there with --resume on this machine"
        return UnreachableError(f"{error}: {where}")

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            try:
                while self._push():
                    pass
                self._unreachable = False
            except UnreachableError as error:
                if not self._unreachable:
                    log.warning("%s: it is tried again every %g s, and the run goes on", error, self._every_s)
                self._unreachable = True
            except ClipmuxError as error:
                self._error = error
                return
            except OSError as error:
                self._error = ClipmuxError(f"'{self._path}' cannot be read ({error.strerror}): mend that, then resume")
                return

    def _push(self, *, last: bool = False) -> bool:
        """One part, if there is anything for one; whether there was. The last one comes even if nothing is in it: a run
        that stood still while another went on with the folder finds that out before it writes over the other's files.
        """
        if self._waiting is None:
            lines = self._lines()
            if not lines and (self._ended or not last):
                return False
            self._ended = last
            about: dict[str, Any] = {"writer": self._writer}
            if self._number == 0:
                about["after"] = self._after
            self._waiting = b"".join([b"part\t", json.dumps(about).encode(), b"\n", *lines])
        name = _part(self._number + 1)
        try:
            self._store.create(name, self._waiting)
        except FileExistsError:
            if self._store.read(name) != self._waiting:  # ours, if an answer was lost on its way
                raise TakenError(
                    f"another run is writing to '{self._store.shown}', which this one leaves to it: "
                    "wait for its end, or give another --output"
                ) from None
        self._number += 1
        self._waiting = None
        return True

    def _lines(self) -> list[bytes]:
        """What a part may take of what is new, with the name of each line's file before it."""
        lines: list[bytes] = []
        length = 0
        for name in (RESULTS, FAILURES):
            path = self._path / name
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._offsets[name])
                while length < PART_LONGEST and (line := file.readline(LINE_LONGEST + 1)).endswith(b"\n"):
                    self._offsets[name] += len(line)
                    if name == RESULTS and (segments := self._segments.of(line)):
                        lines.append(SEGMENTS.encode() + b"\t" + segments)
                        length += len(segments)
                    lines.append(name.encode() + b"\t" + line)
                    length += len(line)
        return lines


class _Segments:
    """The lines of ``segments.jsonl``, as the results come that they belong to.

    They are in the same order. Only at the end there may be some without a result, of a collector that died, which its
    successor takes away before it goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def of(self, result: bytes) -> bytes | None:
        """The line that goes with a result; None where a run has no segments."""
        if not self._path.exists():
            return None
        video_id = json.loads(result)["video_id"]
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline(LINE_LONGEST + 1)).endswith(b"\n"):
                self._offset += len(line)
                if json.loads(line)["video_id"] == video_id:
                    return line
        raise ClipmuxError(f"'{self._path}' has no segments of '{video_id}', which has a result")
