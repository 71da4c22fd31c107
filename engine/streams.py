"""What streams there are and how they are watched: from the command line and a TOML file.

A URL may hold credentials. They are in ``StreamConfig.url`` and nowhere else: ``shown`` is what a person, a log, a page
or a metric gets to see.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .documents import read_toml
from .errors import UsageError
from .model import ModelFolder

DEFAULT_RATE = 25.0
"""Frames per second that clips of a model are sampled at if neither its model.json nor anybody else says one."""

WHITELISTS: dict[str, str] = {
    "rtsp": "rtp,rtsp,tcp,udp",
    "rtsps": "rtp,rtsps,tls,tcp,udp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "udp": "udp",
    "tcp": "tcp",
    "srt": "srt",
}
"""Schemes, and the protocols that each may use: a playlist cannot open a local file, nor TLS be left for plain text."""

HIDDEN = "***"
NAME_MOST = 100
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")
_MISTYPED = re.compile(rf"(?is)^(?:{'|'.join(WHITELISTS)})(?::|\W?//)|^[^:]*:.*@|://")
"""What a URL keeps of itself when its scheme or slashes are mistyped or forgotten."""
_SECRET_KEYS = re.compile(r"(?i)([/?&;#][^=&;#]*(?:pass|pwd|token|key|secret|auth|user|login|sig)[^=&;#]*=)[^&;#]*")
"""In the query, and in the path, where some cameras have them."""


@dataclass(frozen=True)
class StreamConfig:
    """One stream. Checked when made.

    Args:
        name: for people; unique among all streams.
        url: where it is, credentials included; or a file, or a device as ``/dev/video0``.
        labels: labels of interest; none: every label.
        enter: a label's smoothed score from which its event starts.
        leave: the score below which it ends.
        min_duration_s: a shorter event is never told.
        smooth: clips in the mean.
        weight: share of the device against the others.
    """

    name: str
    url: str = field(repr=False)
    labels: tuple[str, ...] = ()
    enter: float = 0.6
    leave: float = 0.4
    min_duration_s: float = 1.0
    smooth: int = 3
    weight: float = 1.0

    def __post_init__(self) -> None:
        def need(holds: bool, key: str, wanted: str) -> None:
            if not holds:
                raise UsageError(f"stream {self.name!r} has {key} {getattr(self, key)!r}: give {wanted}")

        if not isinstance(self.url, str) or not self.url.isprintable() or not self.url:
            raise UsageError(f"stream {self.name!r} has no usable url: give a URL, a file or a device")
        named = isinstance(self.name, str) and 0 < len(self.name) <= NAME_MOST and self.name.isprintable()
        need(named, "name", f"1 to {NAME_MOST} printable characters")
        check_scheme(self.url)
        words = isinstance(self.labels, tuple) and all(isinstance(label, str) for label in self.labels)
        need(words, "labels", "a list of labels")
        need(_number(self.enter) and 0 < self.enter <= 1, "enter", "a score above 0, up to 1")
        need(_number(self.leave) and 0 <= self.leave <= self.enter, "leave", "a score from 0 up to 'enter'")
        need(_number(self.min_duration_s) and self.min_duration_s >= 0, "min_duration_s", "seconds, at least 0")
        need(type(self.smooth) is int and 1 <= self.smooth <= 1000, "smooth", "1 to 1000 clips")
        need(_number(self.weight) and 0.001 <= self.weight <= 1000, "weight", "0.001 to 1000")

    @property
    def scheme(self) -> str:
        """``rtsp`` … of a URL; ``device`` or ``file`` otherwise."""
        if match := _SCHEME.match(self.url):
            return match[1].lower()
        return "device" if self.url.startswith("/dev/") else "file"

    @property
    def shown(self) -> str:
        """The URL without what it must not show."""
        return redacted(self.url)

    def told(self, number: int) -> dict[str, Any]:
        """What the watcher is told of it, under the number that the supervisor gave it."""
        content = {**dataclasses.asdict(self), "labels": list(self.labels), "number": number, "url": self.shown}
        return {
            key: float(value) if key in ("enter", "leave", "min_duration_s", "weight") else value
            for key, value in content.items()
        }

    def to_json(self) -> dict[str, Any]:
        """All of it, with credentials: for the camera process alone."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> StreamConfig:
        return cls(**{**content, "labels": tuple(content["labels"])})


@dataclass(frozen=True)
class LiveConfig:
    """How streams are watched. Checked when made.

    Args:
        model: the model folder, or ``demo``.
        max_latency_s: from a clip's last frame to its scores; a clip that cannot make it is dropped.
        stall_s: a stream without a new frame for so long is stalled: its camera process is replaced.
        open_timeout_s: how long connecting may take.
        frame_rate: frames per second that clips are sampled at; 0: what the model says, or 25.
        stride_s: seconds from one clip's start to the next's; 0: a clip's length.
        pace: files play so many times faster than they were recorded.
        loop: files begin again when they end.
        rtsp_transport: ``tcp`` or ``udp``.
        max_streams: how many streams there is memory for.
        output: file to append events to, a JSON line each.
        webhook: URL that is sent every event.
        mqtt: URL of a broker that is sent every event.
    """

    model: str
    max_latency_s: float = 1.0
    stall_s: float = 5.0
    open_timeout_s: float = 5.0
    frame_rate: float = 0.0
    stride_s: float = 0.0
    pace: float = 1.0
    loop: bool = False
    rtsp_transport: str = "tcp"
    max_streams: int = 16
    output: str | None = None
    webhook: str | None = None
    mqtt: str | None = None

    def __post_init__(self) -> None:
        def need(holds: bool, option: str, value: object, wanted: str) -> None:
            if not holds:
                raise UsageError(f"{option} is {value!r}: give {wanted}")

        need(0 < self.max_latency_s <= 3600, "--max-latency", self.max_latency_s, "seconds, above 0 and up to 3600")
        need(0.1 <= self.stall_s <= 3600, "--stall", self.stall_s, "seconds, 0.1 to 3600")
        need(0.1 <= self.open_timeout_s <= 3600, "--open-timeout", self.open_timeout_s, "seconds, 0.1 to 3600")
        need(0 <= self.frame_rate <= 1000, "--frame-rate", self.frame_rate, "frames per second, up to 1000")
        need(0 <= self.stride_s <= 3600, "--stride-s", self.stride_s, "seconds, up to 3600")
        need(0 < self.pace <= 10_000, "--pace", self.pace, "how many times faster files play, above 0")
        need(self.rtsp_transport in ("tcp", "udp"), "--rtsp-transport", self.rtsp_transport, "tcp or udp")
        need(1 <= self.max_streams <= 4096, "--max-streams", self.max_streams, "1 to 4096")

    @property
    def clips_in_time(self) -> int:
        """Clips of one stream that may be on their way at a time: those that can still be in time, and three besides.

        One is being filled, one is in a message, one is being copied into a batch.
        """
        return math.ceil(self.max_latency_s / self.stride_s * self.pace) + 3

    def of_model(self, model: ModelFolder) -> LiveConfig:
        """With the frame rate and stride that it was not told."""
        rate = self.frame_rate or model.frame_rate or DEFAULT_RATE
        return dataclasses.replace(self, frame_rate=rate, stride_s=self.stride_s or model.frames / rate)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LiveConfig:
        return cls(**content)


def check_scheme(url: str) -> None:
    """See that a URL is of a kind that streams can be read from.

    Raises:
        UsageError: it is not.
    """
    match = _SCHEME.match(url)
    if match is None:
        if (mistyped := _url_in_place_of_file(url)) is not None:
            raise UsageError(
                f"'{mistyped}' was mistyped, and there is no such file: write a URL with its scheme and both slashes, "
                "like rtsp://10.0.0.7/cam"
            )
        return
    if match[1].lower() not in WHITELISTS:
        raise UsageError(
            f"'{redacted(url)}' has the scheme '{match[1]}': give one of {', '.join(WHITELISTS)}, a file or /dev/video0"
        )
    try:
        parts = urlsplit(url)
        usable = bool(parts.netloc) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"'{redacted(url)}' is not a URL with a host: write it like rtsp://10.0.0.7/cam")


def redacted(url: str) -> str:
    """A URL without user, password, and whatever in its path and query sounds like one.

    >>> redacted("rtsp://user:secret@10.0.0.7/cam?token=1&fps=5")
    'rtsp://***@10.0.0.7/cam?token=***&fps=5'
    """
    match = _SCHEME.match(url)
    if match is None:
        return url
    rest = url[match.end() :]
    # An "@" in a password that was not escaped still belongs to it, and so does a "/": all up to the last "@" goes.
    before_query, mark, query = rest.partition("?")
    if "@" in before_query:
        before_query = f"{HIDDEN}@{before_query.rpartition('@')[2]}"
    elif "@" in query:  # a "?" within a password, for all that can be told
        before_query, mark, query = f"{HIDDEN}@{query.rpartition('@')[2]}", "", ""
    return match[0] + _SECRET_KEYS.sub(rf"\g<1>{HIDDEN}", before_query + mark + query)


def url_in_place_of_path(given: str) -> str | None:
    """The URL that was given where a path belongs, as it may be shown; None for a path.

    ``pathlib`` has made one slash of two, perhaps. Where there is a folder called ``s3:``, what is in it is a path.

    >>> url_in_place_of_path("https:/user:secret@host/a.mp4")
    'https://***@host/a.mp4'
    """
    match = _URL.match(given)
    if match is None or os.path.lexists(f"{match[1]}:"):
        return None
    return redacted(f"{match[1]}://{given[match.end() :]}")


def _url_in_place_of_file(given: str) -> str | None:
    """What was given where a URL or a file belongs and is neither, as it may be shown; None for a file.

    >>> _url_in_place_of_file("admin:secret@10.0.0.7/cam")
    '***@10.0.0.7/cam'
    """
    if (url := url_in_place_of_path(given)) is not None:
        return url
    if _MISTYPED.search(given) is None or os.path.lexists(given):
        return None
    return redacted(f"file://{given}").removeprefix("file://")


def streams_of(sources: Sequence[str], **defaults: Any) -> list[StreamConfig]:
    """Streams of the sources on a command line, named after their place: ``10.0.0.7/cam``, or a file's stem.

    Raises:
        UsageError: a source cannot be one.
    """
    return [StreamConfig(name=_name(source), url=source, **defaults) for source in sources]


def read_streams(path: Path) -> list[StreamConfig]:
    """The streams of a TOML file.

    Raises:
        UsageError: it cannot be read, or holds what does not belong there; says where. No credentials are in it.
    """
    try:
        content = read_toml(path)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read ({error.strerror}): check --streams") from None
    except ValueError as error:
        raise UsageError(f"'{path}' cannot be read as TOML: {error}") from None
    unknown = content.keys() - {"defaults", "stream"}
    if unknown:
        raise UsageError(f"'{path}' has '{min(unknown)}', only [defaults] and [[stream]] belong there")
    tables = content.get("stream", [])
    defaults = content.get("defaults", {})
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in [*tables, defaults]):
        raise UsageError(f"'{path}' is not made of [defaults] and [[stream]]: see docs/live.md")
    if alone := defaults.keys() & {"name", "url"}:
        raise UsageError(f"'{path}' has '{min(alone)}' in [defaults]: give every [[stream]] its own")
    return [_of_table(path, number, {**defaults, **table}) for number, table in enumerate(tables, start=1)]


def check_streams(streams: Iterable[StreamConfig], labels: Sequence[str], most: int) -> None:
    """See that streams go together, with each other and with the model.

    Raises:
        UsageError: they do not.
    """
    streams = list(streams)
    if not streams:
        raise UsageError("no sources: give URLs, files or devices, or a --streams file with a [[stream]] in it")
    if len(streams) > most:
        raise UsageError(f"{len(streams)} streams are more than the {most} there is memory for: raise --max-streams")
    seen: set[str] = set()
    for stream in streams:
        if stream.name in seen:
            raise UsageError(f"two streams are called '{stream.name}': name them in a --streams file")
        seen.add(stream.name)
        for label in stream.labels:
            if label not in labels:
                raise UsageError(f"stream '{stream.name}' has the label '{label}', which the model does not know")


def _of_table(path: Path, number: int, table: Mapping[str, Any]) -> StreamConfig:
    known = {field.name for field in dataclasses.fields(StreamConfig)}
    if unknown := table.keys() - known:
        raise UsageError(f"'{path}' has '{min(unknown)}' in stream {number}: {', '.join(sorted(known))} belong there")
    if "url" not in table:
        raise UsageError(f"'{path}' has no url in stream {number}: give a URL, a file or a device")
    labels = table.get("labels", [])
    if not isinstance(labels, list):
        raise UsageError(f"'{path}' has labels {labels!r} in stream {number}: a list of labels belongs there")
    name = table.get("name", _name(str(table["url"])))
    return StreamConfig(**{**table, "name": name, "labels": tuple(labels)})


def _name(source: str) -> str:
    shown = redacted(source)
    match = _SCHEME.match(shown)
    if match is None:  # a name is shown too, if only in the sentence that refuses a mistyped URL
        return (_url_in_place_of_file(source) or Path(source).stem or source)[:NAME_MOST]
    return shown[match.end() :].removeprefix(f"{HIDDEN}@").partition("?")[0].rstrip("/")[:NAME_MOST] or shown


def _number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # an int that is more than any float
        return False
