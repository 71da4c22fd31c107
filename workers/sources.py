"""What to classify: files, folders, frame folders, globs, paths on standard input, annotation files.

Only names are looked at here; whether a file can be decoded is found out by the decoder, and reported there.
"""

# A list may be long, and os.scandir with plain strings is several times as fast as pathlib.
# ruff: noqa: PTH100, PTH112, PTH113, PTH116, PTH118, PTH119, PTH122, PTH207, PTH208

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TextIO

from clipmux.engine.documents import LISTS_LONGEST, read_json
from clipmux.engine.errors import MessageError, UsageError
from clipmux.engine.messages import LARGEST
from clipmux.engine.streams import url_in_place_of_path

from .remote import find, is_remote, shown

# fmt: off
ENDINGS = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv",
    ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
))
# fmt: on
"""Endings, in lower case, of what a folder is searched for. A file that is named plainly may have any ending."""

FRAME_NAME = re.compile(r"image_([0-9]+)\.(?:jpg|jpeg|png)", re.IGNORECASE)
"""The name of a frame in a frame folder; the reference's are ``image_00001.jpg``, the first number being 1."""

LONGEST = 1 << 15
"""Characters of a path at most: a message must hold a sentence about it, too. No system has files with such paths."""

KINDS = ("file", "frames")
NAMES = ("stem", "path")


@dataclass(frozen=True)
class Video:
    """One video to classify.

    Args:
        video_id: its name in the results.
        path: of the file, or of the folder of frames.
        kind: ``file`` or ``frames``.
        first: number of the first frame wanted, from 1 (frame folders).
        last: number of the last frame wanted, inclusive; ``None`` is all that are there, and with a ``first`` of 1 also
            a frame 0 (frame folders).
        label: the true label where annotations give one.
        url: where it is in place of ``path``, which then only looks like that: see remote.py.
    """

    video_id: str
    path: Path
    kind: str
    first: int = 1
    last: int | None = None
    label: str | None = None
    url: str = ""

    @property
    def shown(self) -> str:
        """Where it is, for people: no credentials."""
        return shown(self.url) if self.url else str(self.path)

    def to_dict(self) -> dict[str, str | int | None]:
        """Plain values for the wire."""
        return {
            "video_id": self.video_id,
            "path": str(self.path),
            "kind": self.kind,
            "first": self.first,
            "last": self.last,
            "label": self.label,
            "url": self.url,
        }

    @classmethod
    def from_dict(cls, values: object) -> Video:
        """The inverse of ``to_dict``.

        Raises:
            MessageError: a key is missing or unknown, or a value is not what ``to_dict`` would write.
        """
        if not isinstance(values, dict):
            raise MessageError(f"a video must be a mapping, not {values!r}")
        keys = {"video_id", "path", "kind", "first", "last", "label", "url"}
        if values.keys() != keys:
            wrong = sorted(map(str, values.keys() ^ keys))
            raise MessageError(
                f"a video has the keys {', '.join(sorted(keys))}; missing or unknown: {', '.join(wrong)}"
            )
        video_id, path, kind, label = (values[key] for key in ("video_id", "path", "kind", "label"))
        first, last = values["first"], values["last"]
        if not isinstance(video_id, str) or not video_id:
            raise MessageError(f"a video's video_id must be a name, not {video_id!r}")
        if not isinstance(path, str) or not path:
            raise MessageError(f"a video's path must be a string, not {path!r}")
        if kind not in KINDS:
            raise MessageError(f"a video's kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if type(first) is not int or first < 0:
            raise MessageError(f"a video's first frame must be a number from 0 on, not {first!r}")
        if last is not None and (type(last) is not int or last < first):
            raise MessageError(f"a video's last frame must be a number from {first} on, or None, not {last!r}")
        if label is not None and not isinstance(label, str):
            raise MessageError(f"a video's label must be a string or None, not {label!r}")
        url = values["url"]
        if not isinstance(url, str) or (url and not is_remote(url)):
            raise MessageError("a video's url must be one that videos are read from, or empty")
        return cls(video_id, Path(path), kind, first, last, label, url)


@dataclass
class Listing:
    """The videos found, in order, and what was left out: ``(name, reason)``."""

    videos: list[Video] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def video_at(path: Path) -> Video:
    """The video at ``path``, a frame folder or a file, named by its stem. It need not exist: decoding tells.

    Raises:
        UsageError: its name is not UTF-8, and so cannot be written into results; or it is a URL.
    """
    _refuse_url(str(path))
    if not _is_utf8(str(path)):
        raise UsageError(f"the name of '{_shown(str(path))}' is not UTF-8: rename it")
    kind = "frames" if _is_frame_folder(str(path)) else "file"
    return Video(_stem(str(path), kind), path, kind)


def video_at_url(url: str) -> Video:
    """The video at a URL of an object store or a web server, named by its stem."""
    place = shown(url)
    return Video(_stem(place, "file"), Path(place), "file", url=url)


# --- files, folders, globs, standard input ---------------------------------------------------------------------------


def list_videos(inputs: Sequence[str], *, stdin: TextIO | None, names: str = "stem") -> Listing:
    """List what the inputs name, in their order; inside a folder or a glob in natural order (``clip2``, ``clip10``).

    A file that does not exist is listed too: it becomes a failed video, and all others go on.

    Args:
        inputs: files, folders (searched through), frame folders, globs, ``-`` for one path a line on ``stdin``; URLs of
            object stores, also of folders there and globs, and of web servers.
        stdin: where ``-`` reads from.
        names: what a ``video_id`` is: ``stem``, the file name without its ending; or ``path``, the path below the
            folder it was found in, or as it was given.

    Raises:
        UsageError: no inputs; a folder without videos; a glob that matches nothing; two videos with one id; a URL.
    """
    if names not in NAMES:
        raise UsageError(f"names cannot be '{names}': give one of {', '.join(NAMES)}")
    if not inputs:
        raise UsageError("there is nothing to classify: name files, folders, globs, or - for paths on standard input")
    finder = _Finder(names)
    for given in inputs:
        if not given:
            raise UsageError("one of the inputs is empty: name files, folders, globs, or - for standard input")
        if given == "-":
            finder.add_lines(stdin)
        elif _is_remote(given) or os.path.lexists(given) or not glob.has_magic(given):
            finder.add_path(given)
        else:
            finder.add_glob(given)
    if not finder.listing.videos:
        name, reason = finder.listing.skipped[0]
        raise UsageError(f"there is nothing to classify: '{name}' was left out, since {reason}")
    return finder.listing


class _Finder:
    """Collects videos; knows which it has already."""

    def __init__(self, names: str) -> None:
        self.listing = Listing()
        self._names = names
        self._by_real_path: dict[str, str] = {}
        self._by_id: dict[str, str] = {}

    def add_lines(self, stdin: TextIO | None) -> None:
        if stdin is None:
            raise UsageError("'-' reads paths from standard input, and there is none: name the videos instead")
        try:
            paths = [line.rstrip("\r\n") for line in stdin]
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not UTF-8 text ({error}): write one path a line") from None
        paths = [path for path in paths if path.strip()]
        if not paths:
            raise UsageError("standard input held no paths: write one a line")
        for path in paths:
            self.add_path(path)

    def add_path(self, given: str) -> None:
        if _is_remote(given):
            self._add_urls(given)
            return
        _refuse_url(given)
        if os.path.isdir(given):
            if not self._add_folder(given):
                raise UsageError(f"the folder '{given}' holds no video and no folder of frames: check the path")
        else:
            self._add(given, "file", below=given)

    def add_glob(self, pattern: str) -> None:
        """Files that look like videos, and folders: these are searched, except where ``**`` does that itself."""
        _refuse_url(pattern)  # its query begins with a "?"
        ending = os.path.splitext(pattern)[1]
        any_ending = bool(ending) and not glob.has_magic(ending)  # '*.bin' says itself which files are meant

        def wanted(name: str) -> bool:
            return any_ending or _has_ending(name)

        found = 0
        if "**" in pattern.split("/"):
            for path, kind, real in _search_glob(pattern, wanted, self.listing.skipped):
                self._add(path, kind, below=path, real=real)
                found += 1
        else:
            for path in sorted(glob.glob(pattern), key=_natural):
                if os.path.isdir(path):
                    found += self._add_folder(path)
                elif wanted(path):
                    self._add(path, "file", below=path)
                    found += 1
        if not found:
            raise UsageError(f"no video matches '{pattern}': check the path, or give the folder itself")

    def _add_urls(self, given: str) -> None:
        urls = find(given)
        if urls is None:
            self._add_url(given, below=shown(given).rpartition("/")[2])  # a query may hold a "/", and a signature
            return
        start = _searched(given)
        wanted = sorted((url for url in urls if _has_ending(url)), key=_natural)
        if not wanted:
            raise UsageError(f"'{shown(given)}' holds no video: check the URL")
        for url in wanted:
            self._add_url(url, below=url[len(start) :] if url.startswith(start) else url)

    def _add_url(self, url: str, *, below: str) -> None:
        if self._too_long(url):
            return
        video = video_at_url(url)
        name = below.partition("?")[0] if self._names == "path" else video.video_id
        self._take(dataclasses.replace(video, video_id=name), shown=video.shown, real=url)

    def _add_folder(self, folder: str) -> int:
        """Search a folder; returns how many videos it holds."""
        count = 0
        for path, kind, real in _search(folder, _has_ending, self.listing.skipped):
            below = folder if path == folder else os.path.relpath(path, folder)
            self._add(path, kind, below=below, real=real)
            count += 1
        return count

    def _add(self, path: str, kind: str, *, below: str, real: str | None = None) -> None:
        if not _is_utf8(path):
            self.listing.skipped.append((_shown(path), "its name is not UTF-8: rename it"))
            return
        if self._too_long(path):
            return
        if "\0" in path:
            real = path  # no file is called that: decoding says so
        video_id = below.replace(os.sep, "/") if self._names == "path" else _stem(path, kind)
        self._take(Video(video_id, Path(path), kind), shown=path, real=real or os.path.realpath(path))

    def _too_long(self, path: str) -> bool:
        if len(path) <= LONGEST:
            return False
        reason = f"its path has {len(path):,} characters, and {LONGEST:,} at most are possible: check the input"
        self.listing.skipped.append((f"{shown(path)[:80]}…", reason))
        return True

    def _take(self, video: Video, *, shown: str, real: str) -> None:
        video_id = video.video_id
        if real in self._by_real_path:
            self.listing.skipped.append((shown, f"it is the same as '{self._by_real_path[real]}'"))
            return
        if video_id in self._by_id:
            remedy = "give --names path" if self._names == "stem" else "give the one folder that holds both"
            both = f"'{self._by_id[video_id]}' and '{shown}'"
            raise UsageError(f"two videos would be called '{video_id}' in the results, {both}: {remedy}")
        self._by_real_path[real] = shown
        self._by_id[video_id] = shown
        self.listing.videos.append(video)


def _search(
    folder: str, wanted: Callable[[str], bool], skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """``(path, kind, real path)`` of all wanted files and frame folders below a folder, in natural order.

    Hidden ones are passed over. Links are followed, but no folder is looked at twice, so that loops end.

    Args:
        wanted: whether a file of this name is a video.
        skipped: takes the folders that cannot be read, such as ``lost+found``.

    Raises:
        UsageError: ``folder`` itself cannot be read.
    """
    seen: set[tuple[int, int]] = set()

    def look(path: str, real: str) -> Iterator[tuple[str, str, str]]:
        """What one folder holds; a folder in it has the kind ""."""
        found: list[tuple[str, bool, bool]] = []  # name, whether it is a folder, whether it is a link
        frames = False
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                return
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if name[:6].lower() == "image_" and FRAME_NAME.fullmatch(name):
                        frames = True
                    elif (is_folder := _is_folder(entry)) or wanted(name):
                        found.append((name, is_folder, entry.is_symlink()))
        except OSError as error:
            if path == folder:
                raise UsageError(f"'{path}' cannot be searched ({error.strerror}): check its permissions") from None
            skipped.append((path, f"it cannot be searched ({error.strerror}): check its permissions"))
            return
        if frames:
            yield path, "frames", real
        for name, is_folder, is_link in sorted(found, key=lambda item: _natural(item[0])):
            inner = os.path.join(path, name)
            inner_real = os.path.realpath(inner) if is_link else os.path.join(real, name)
            yield inner, "" if is_folder else "file", inner_real

    within = [look(folder, os.path.realpath(folder))]  # not by recursion: folders may be nested deeper than that goes
    while within:
        for path, kind, real in within[-1]:
            if not kind:
                within.append(look(path, real))
                break
            yield path, kind, real
        else:
            within.pop()


def _search_glob(
    pattern: str, wanted: Callable[[str], bool], skipped: list[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """``_search`` by a pattern with ``**``: ``glob`` would follow links in circles, ever more of them."""
    parts = pattern.split("/")
    deep = parts.index("**")
    rest = [part for part in parts[deep:] if part]
    start = "/".join(parts[:deep]) or ("/" if deep else ".")
    starts = sorted(glob.glob(start), key=_natural) if glob.has_magic(start) else [start]
    for folder in filter(os.path.isdir, starts):
        for path, kind, real in _search(folder, wanted, skipped):
            below = path[len(folder) :].strip("/")
            if _matches(below.split("/") if below else [], rest):
                yield below if below and not deep else path, kind, real


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether a path's parts match those of a pattern, where ``**`` stands for any number of them."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _is_remote(given: str) -> bool:
    """Whether it is not a path after all: see ``url_in_place_of_path``."""
    return is_remote(given) and url_in_place_of_path(given) is not None


def _searched(given: str) -> str:
    """The folder that is searched for what a URL stands for, with its last slash.

    >>> _searched("s3://bucket/videos"), _searched("s3://bucket/videos/[xy]/*.mp4")
    ('s3://bucket/videos/', 's3://bucket/videos/')
    """
    plain = re.split(r"[*?[]", given, maxsplit=1)[0]
    return (plain.rpartition("/")[0] if plain != given else given.rstrip("/")) + "/"


def _refuse_url(given: str) -> None:
    """A URL must not become a file that is not there: its credentials would be in the results."""
    if url := url_in_place_of_path(given):
        raise UsageError(
            f"'{url}' is a URL of a kind that videos are not read from: give a file, s3://, gs://, az://, http:// or "
            "https:// to clipmux run, or watch a stream with clipmux live"
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_utf8(name: str) -> bool:
    """Names on disk are bytes; those that are not UTF-8 hold lone surrogates here, which no result file can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    """A name that can be printed."""
    return name if _is_utf8(name) else ascii(name)[1:-1]


def _has_ending(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS


def _is_frame_folder(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return any(FRAME_NAME.fullmatch(entry.name) for entry in entries)
    except (OSError, ValueError):  # ValueError: a null character
        return False


def _stem(path: str, kind: str) -> str:
    """``clip.mp4`` is called ``clip``; a frame folder is called what it is called, even where it was given as ``.``."""
    if kind == "frames":
        return os.path.basename(os.path.abspath(path))
    return os.path.splitext(os.path.basename(path))[0] or path


def _natural(text: str) -> tuple[list[tuple[str, int]], str]:
    """Sort key by which ``clip2`` comes before ``clip10``; the text itself decides between ``clip1`` and ``clip01``."""
    parts = re.split(r"([0-9]+)", text)
    numbers = [int(part) for part in parts[1::2]] + [0]
    return list(zip(parts[::2], numbers, strict=True)), text


# --- annotations -----------------------------------------------------------------------------------------------------


def list_annotated(annotations: Path, root: Path, *, subset: str = "validation") -> Listing:
    """List the videos of one subset of an annotation file (the reference's JSON), in its order.

    A video is ``ROOT/<label>/<video_id>``: a folder of frames, or a file with a video's ending; an entry's
    ``video_path`` (absolute, or below the root) wins. What is not on disk is left out with a reason.

    Raises:
        UsageError: the JSON or the root cannot be used, there is no such subset, or nothing of it is on disk.
    """
    database = _read_database(annotations)
    if not root.is_dir():
        raise UsageError(f"there is no folder '{root}': give the folder with one folder for each label as --root")
    subsets = {name for entry in database.values() if isinstance(name := entry.get("subset"), str)}
    if subset not in subsets:
        there = ", ".join(sorted(subsets)) or "none"
        raise UsageError(f"'{annotations}' has no subset '{subset}': give --subset as one of {there}")
    listing = Listing()
    shelf = _Shelf(root)
    for video_id, entry in database.items():
        if entry.get("subset") != subset:
            continue
        found = _find_annotated(video_id, entry, shelf, annotations)
        if isinstance(found, str):
            listing.skipped.append((_shown(video_id), found))
        else:
            listing.videos.append(found)
    if not listing.videos:
        name, reason = listing.skipped[0]
        raise UsageError(
            f"none of the {len(listing.skipped)} '{subset}' videos of '{annotations}' can be classified "
            f"('{name}': {reason}): check --root"
        )
    return listing


def _read_database(annotations: Path) -> dict[str, dict[str, Any]]:
    try:
        content = read_json(annotations, longest=LISTS_LONGEST, encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read annotations from '{annotations}' ({error.strerror}): check the path") from None
    except ValueError as error:
        raise UsageError(f"'{annotations}' is not JSON ({error}): give the annotation file") from None
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise UsageError(f"'{annotations}' has no 'database' of videos: give an annotation file like kinetics.json")
    for video_id, entry in database.items():
        if not video_id or not isinstance(entry, dict):
            raise UsageError(f"'{annotations}' has {entry!r} as the entry of '{video_id}', where an object belongs")
    return database


def _find_annotated(video_id: str, entry: dict[str, Any], shelf: _Shelf, annotations: Path) -> Video | str:
    """The video of one entry, or the reason why there is none."""
    annotation = entry.get("annotations")
    if annotation is not None and not isinstance(annotation, dict):
        raise UsageError(f"'{annotations}' has annotations {annotation!r} for '{video_id}', where an object belongs")
    label = (annotation or {}).get("label")
    segment = (annotation or {}).get("segment")
    if label is not None and not isinstance(label, str):
        raise UsageError(f"'{annotations}' has the label {label!r} for '{video_id}', where a name belongs")
    if segment is not None and not (
        isinstance(segment, list) and len(segment) == 2 and all(type(number) in (int, float) for number in segment)
    ):
        raise UsageError(f"'{annotations}' has the segment {segment!r} for '{video_id}', where two numbers belong")
    if segment is not None and segment[1] == 1 and type(segment[1]) is int:
        return f"its segment {segment!r} holds no frame"

    video_path = entry.get("video_path")
    if video_path is not None and (not isinstance(video_path, str) or not video_path):
        raise UsageError(f"'{annotations}' has the video_path {video_path!r} for '{video_id}', where a path belongs")
    if not _is_utf8(f"{video_id}{label}{video_path}"):
        return "its name is not UTF-8"
    if video_path is None and label is None:
        return "it has neither a label nor a video_path to find it by"
    found = shelf.at(video_path) if video_path is not None else shelf.find(str(label), video_id)
    if isinstance(found, str):
        return found
    path, kind = found
    if kind == "file" or segment is None:
        return Video(video_id, path, kind, label=label)
    if not all(type(number) is int for number in segment):
        raise UsageError(
            f"'{annotations}' has the segment {segment!r} for '{video_id}', a folder of frames: give frame numbers, "
            "[first, last + 1]"
        )
    if segment[1] > LARGEST:
        raise UsageError(
            f"'{annotations}' has the segment {segment!r} for '{video_id}': give frame numbers up to {LARGEST:,}"
        )
    first, last = segment[0], segment[1] - 1
    if last < first or first < 0:
        return f"its segment {segment!r} holds no frame"
    return Video(video_id, path, kind, first, last, label)


class _Shelf:
    """The root: finds videos by label and id, and reads each label's folder only once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, dict[str, str]] = {}

    def at(self, video_path: str) -> tuple[Path, str] | str:
        path = self._root / video_path
        if os.path.isfile(path):  # False, too, for a name that no file can have
            return path, "file"
        if not os.path.isdir(path):
            return f"there is no '{path}'"
        return (path, "frames") if _is_frame_folder(str(path)) else f"'{path}' holds no frames"

    def find(self, label: str, video_id: str) -> tuple[Path, str] | str:
        # Joined as text: a label that begins with "/" is a name below the root like any other.
        path = f"{self._root}/{label}/{video_id}"
        if _is_frame_folder(path):
            return Path(path), "frames"
        folder, stem = os.path.split(path)
        if folder not in self._files:
            self._files[folder] = _files_by_stem(folder)
        if stem in self._files[folder]:
            return Path(folder, self._files[folder][stem]), "file"
        return (
            f"'{path}' holds no frames"
            if os.path.isdir(path)
            else f"there is no '{path}', nor a video file of that name"
        )


def _files_by_stem(folder: str) -> dict[str, str]:
    """Video files of a folder by their names without ending; of ``a.avi`` and ``a.mp4``, the first."""
    try:
        names: Iterable[str] = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return {}
    files: dict[str, str] = {}
    for name in names:
        if _has_ending(name):
            files.setdefault(os.path.splitext(name)[0], name)
    return files
