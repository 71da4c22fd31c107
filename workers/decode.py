"""Frames with their times, from a video file or a folder of frames.

What is wrong with a video comes out as a ``VideoError`` that names the file, the stage and the remedy; nothing else
is raised for a bad file, and libav prints nothing.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.logging
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from clipmux.engine.errors import UsageError, VideoError
from clipmux.engine.guards import GUARDS, Guards

from .containers import is_short_transport_stream, missing_bytes
from .remote import open_file, why
from .sources import FRAME_NAME, Video

av.logging.set_level(None)  # libav's own words go nowhere; errors come as exceptions

_WITHOUT_PTS = frozenset(("asf", "avi", "mxf"))
"""Containers (libav's names) whose frames carry one time, in the order of the file: what libav calls their PTS is only
right without B-frames."""

# fmt: off
FORMATS = (
    "asf", "avi", "av1", "cavsvideo", "dhav", "dirac", "dv", "evc", "flv", "gif", "gxf", "h261", "h263", "h264", "hevc",
    "ivf", "live_flv", "m4v", "matroska", "mjpeg", "mov", "mpeg", "mpegts", "mpegvideo", "mpjpeg", "mxf", "nsv", "nut",
    "obu", "ogg", "rm", "vc1", "vvc", "wtv", "yuv4mpegpipe",
    "apng", "gif_pipe", "jpeg_pipe", "png_pipe",  # pictures
    "aac", "flac", "mp3", "wav",  # sound, so that it can be called that
)
# fmt: on
"""Containers (libav's names) that are read: those that hold a video, and none that leads to other files or to the
network (playlists, SDP, concat scripts, numbered pictures, capture devices)."""

_NOT_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails

TITLES_OF_ANY_BYTES: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""What ``av.open`` is told: titles need not be UTF-8. PyAV 19 takes them as they are, and knows no such option."""


@dataclass(frozen=True)
class Frame:
    """One frame as it was decoded; ``preprocess`` makes pixels of it.

    Args:
        picture: in the codec's own pixel format, size and orientation.
        seconds: its PTS, exactly as the file says (the first one need not be 0); ``None`` in frame folders.
        duration: seconds above 0; ``None`` in frame folders.
        display: the file's display matrix, nine 16.16 fixed-point numbers; ``None`` where it has none.
    """

    picture: av.VideoFrame | Image.Image
    seconds: float | None
    duration: float | None
    display: tuple[int, ...] | None = None


def decode(
    video: Video,
    *,
    threads: int = 1,
    guards: Guards = GUARDS,
    wanted: Callable[[int], bool] = lambda _: True,
    source: Callable[[], Any] | None = None,
) -> Iterator[Frame]:
    """Yield the frames of ``video`` in presentation order, one at a time; closing the generator closes the file.

    Args:
        threads: of the codec. 1 suits a machine whose cores are all busy with decoders of their own.
        guards: what the video may cost at most.
        wanted: says of a frame's number, from 0, whether its picture will be looked at. Others of a folder are not even
            read; those of a file are decoded, since most codecs make one picture from another.
        source: opens the video's file where it is not on this machine: something to read and to seek in, with ``size``.

    Raises:
        VideoError: stage ``open`` where no frame was tried yet, ``decode`` afterwards. Damage before the first good
            frame is skipped, as in a broadcast joined midway; any later damage fails the video.
    """
    if video.kind == "frames":
        frames = _decode_folder(video, guards, wanted)
    elif video.url or source is not None:
        frames = _decode_elsewhere(video, source or (lambda: open_file(video.url)), threads, guards)
    else:
        frames = _decode_file(video.path, threads, guards)
    return _guarded(frames, video.shown, guards)


def _guarded(frames: Generator[Frame, None, None], path: str, guards: Guards) -> Iterator[Frame]:
    """The frames, until there are too many, they span too much time, or took too much computing."""
    began = time.process_time()
    first: float | None = None
    with closing(frames):
        for count, frame in enumerate(frames, start=1):
            if count > guards.frames:
                limit = f"has more than {guards.frames:,} frames: give a larger --max-frames"
                raise VideoError("decode", "TooManyFrames", f"'{path}' {limit}, or leave it out")
            if first is None:
                first = frame.seconds
            elif frame.seconds is not None and abs(frame.seconds - first) > guards.duration_s:
                limit = f"is longer than {guards.duration_s:g} s: give a larger --max-duration"
                raise VideoError("decode", "TooLong", f"'{path}' {limit}, or leave it out")
            if time.process_time() - began > guards.cpu_s:
                limit = f"takes more than {guards.cpu_s:g} s of computing: give a larger --max-cpu"
                raise VideoError("decode", "TooCostly", f"'{path}' {limit}, or leave it out")
            yield frame


# --- files -----------------------------------------------------------------------------------------------------------


def _decode_file(path: Path, threads: int, guards: Guards) -> Generator[Frame, None, None]:
    yield from _decode_container(open_container(path), str(path), threads, guards)


def _decode_elsewhere(
    video: Video, source: Callable[[], Any], threads: int, guards: Guards
) -> Generator[Frame, None, None]:
    """A file that is not on this machine, of which only what is decoded is read."""
    name = video.shown
    try:
        with _opened(video, source) as file:
            yield from _decode_container(_open_remote(file, name), name, threads, guards)
    except VideoError:
        raise
    except UsageError as error:
        raise VideoError("open", "NotReadable", str(error)) from None
    except Exception as error:  # of the store's library, out of libav's hands
        raise VideoError(
            "decode", "NotReadable", f"'{name}' can no longer be read ({why(error)}): try again with --resume"
        ) from None


def _opened(video: Video, source: Callable[[], Any]) -> Any:
    """
    Raises:
        UsageError: what reads such URLs is not installed.
        VideoError: it is not there, or not for us.
    """
    name = video.shown
    try:
        file = source()
    except UsageError:
        raise
    except FileNotFoundError:  # fsspec's word for whatever a web server refuses, too
        raise VideoError("open", "MissingFile", f"there is no '{name}', or not for us: check the URL") from None
    except PermissionError:
        raise VideoError("open", "NotReadable", f"'{name}' may not be read: check the credentials") from None
    except Exception as error:  # of the store's library
        raise VideoError("open", "NotReadable", f"'{name}' cannot be read ({why(error)}): check the URL") from None
    if file.size is None:
        file.close()
        raise VideoError(
            "open", "NotReadable", f"the server of '{name}' does not give parts of files: download it first"
        )
    return file


def _decode_container(
    opened: av.container.InputContainer, path: str, threads: int, guards: Guards
) -> Generator[Frame, None, None]:
    with opened as container:
        stream = video_stream(container, path)
        _check_size(path, stream.codec_context.width, stream.codec_context.height, guards)
        stream.codec_context.options = {"max_pixels": str(guards.pixels)}  # of every picture, before there is memory
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
        time_base = stream.time_base or Fraction(1, 1000)
        clock = _Clock(time_base, _frame_duration(stream), trust_pts=container.format.name not in _WITHOUT_PTS)
        held: Frame | None = None  # a frame that does not say how long it lasts waits for the next one
        rotation, display = None, None
        for picture in _pictures(container, stream, path, clock):
            # The matrix stays the same in a file, and PyAV's side data keeps its frame alive until the garbage
            # collector comes by: it is looked at once, and again only if the (free) rotation changes.
            if rotation != picture.rotation:
                rotation, display = picture.rotation, _display_matrix(picture)
            seconds, duration = clock.time(picture.pts, picture.dts, picture.duration)
            if held is not None and held.seconds is not None:
                apart = seconds - held.seconds
                yield Frame(held.picture, held.seconds, apart if apart > 0 else clock.typical, held.display)
            held = None
            if duration is None:
                held = Frame(picture, seconds, None, display)
            else:
                yield Frame(picture, seconds, duration, display)
        if held is not None:
            yield Frame(held.picture, held.seconds, clock.typical, held.display)


def _check_size(path: object, width: int, height: int, guards: Guards) -> None:
    if width * height > guards.pixels:
        limit = f"--max-pixels allows {guards.pixels:,}"
        raise VideoError(
            "open", "TooManyPixels", f"'{path}' has {width}×{height} pixels, {limit}: give more, or leave it out"
        )


def open_container(path: Path) -> av.container.InputContainer:
    """Open a file that has been looked at first, since libav calls many different faults "invalid data".

    Raises:
        VideoError: it cannot be opened, or is no video that may be.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder without frames" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise VideoError(
                "open", "NotAFile", f"'{path}' is {what}: give a video file, or a folder of image_00001.jpg …"
            )
        with path.open("rb") as file:
            forced = _looked_at(file, status.st_size, str(path))
    except FileNotFoundError:
        raise VideoError("open", "MissingFile", f"there is no file '{path}': check the path") from None
    except PermissionError:
        raise VideoError("open", "NotReadable", f"'{path}' may not be read: check its permissions") from None
    except OSError as error:
        raise VideoError("open", "NotReadable", f"'{path}' cannot be read ({error.strerror}): check the disk") from None
    except ValueError as error:  # a null character in the name
        raise VideoError(
            "open", "MissingFile", f"there can be no file {str(path)!r} ({error}): check the path"
        ) from None
    # "file:" keeps libav from reading a protocol into a name such as "a:b.mp4".
    return _container("file:" + os.fspath(path), str(path), forced)


def _open_remote(file: Any, name: str) -> av.container.InputContainer:
    forced = _looked_at(file, file.size, name)
    file.seek(0)
    return _container(file, name, forced)


def _looked_at(file: BinaryIO, size: int, name: str) -> str | None:
    """The format that libav must be told, if any.

    Raises:
        VideoError: the file is empty, or cut short.
        OSError: it cannot be read.
    """
    if size == 0:
        raise VideoError("open", "EmptyFile", f"'{name}' is empty (0 bytes): copy or download it again")
    if missing := missing_bytes(file, size):
        raise VideoError(
            "open",
            "Truncated",
            f"'{name}' is cut short, at least {missing:,} bytes of it are missing: copy or download it again",
        )
    return "mpegts" if is_short_transport_stream(file, size) else None


def _container(source: Any, name: str, forced: str | None) -> av.container.InputContainer:
    """Open with libav what a path or an open file holds.

    The whitelists keep a playlist that calls itself a video from being read, and should one be read after all, from
    reaching out to the network. (As ``options`` they would also be given to the streams, on which PyAV before 17.1
    crashes where a stream turns up late: FLV, program streams.)
    """
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    try:
        container: av.container.InputContainer = av.open(
            source, "r", format=forced, container_options=options, **TITLES_OF_ANY_BYTES
        )
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoError(
                "open",
                "OtherFormat",
                f"'{name}' is not of a kind that is read here (a playlist, say, leads to other files): "
                "give the video itself",
            ) from None
        raise VideoError(
            "open", "NotMedia", f"'{name}' cannot be read as a video ({error.strerror}): check what it is"
        ) from None
    return container


def video_stream(container: av.container.InputContainer, path: str) -> VideoStream:
    """The first stream of moving pictures: cover art also calls itself video.

    Raises:
        VideoError: there is none, or none that can be decoded here.
    """
    for stream in container.streams.video:
        if stream.disposition & _NOT_PICTURES:
            continue
        if stream.codec_context is None:
            raise VideoError(
                "open", "NoDecoder", f"'{path}' holds video in a codec that cannot be decoded here: convert it to H.264"
            )
        return stream
    kinds = sorted({stream.type for stream in container.streams})
    holds = f"only {', '.join(kinds)}" if kinds else "nothing"
    raise VideoError("open", "NoVideoStream", f"'{path}' has no video stream, it holds {holds}: leave it out")


def _pictures(
    container: av.container.InputContainer, stream: VideoStream, path: str, clock: _Clock
) -> Iterator[av.VideoFrame]:
    """Decode, and tell damage at the beginning (skipped) from damage later on (fatal)."""
    frames = 0
    first_fault = ""
    cut = False  # whether the last packet so far was incomplete

    def fault(what: str | None) -> None:
        nonlocal first_fault
        if frames:
            kind = "Truncated" if cut else "Damaged"
            message = f"'{path}' is damaged after frame {frames} ({what}): copy or download it again"
            raise VideoError("decode", kind, message)
        first_fault = first_fault or str(what)

    try:
        for packet in _packets(container, stream):
            # A demuxer marks a packet that the end of the file cuts through. Transport streams mark others too, where
            # two recordings were joined and nothing is lost: a mark counts on the last packet, or if decoding fails.
            if packet is not None:
                cut = packet.is_corrupt
                clock.start(packet.dts)
            try:
                pictures = stream.codec_context.decode(packet)
            except av.FFmpegError as error:
                fault(error.strerror)
                continue
            except ValueError as error:  # PyAV 19's, of a codec that it could not open before
                fault(str(error))
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    fault("parts of the next picture are missing")
                else:
                    frames += 1
                    yield picture
    except av.FFmpegError as error:  # of the demuxer
        fault(error.strerror)
    if not frames:
        why = f" ({first_fault})" if first_fault else ""
        raise VideoError("decode", "NoFrames", f"not one frame of '{path}' could be decoded{why}: check the file")
    if cut:
        fault("the file ends within a frame")


def _packets(container: av.container.InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream] | None]:
    """The stream's packets, and at last ``None``, which makes the codec give out the frames that it still holds.

    Empty ones are left out: AVI says so "the same frame again", and a codec would take it for the end.
    """
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except IndexError:  # of a stream that turned up late, as where a broadcast changes over; PyAV does not know it
            continue
        yield None
        return


def _display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    matrix = picture.side_data.get("DISPLAYMATRIX")
    return struct.unpack("=9i", bytes(matrix)[:36]) if isinstance(matrix, SideData) else None


def _frame_duration(stream: VideoStream) -> float:
    """Seconds per frame by the stream's nominal rate; 1/25 where it has none. Only a last resort."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(1 / rate) if rate else 0.04


class _Clock:
    """Times of frames that come in presentation order.

    A PTS is taken as it is, and a frame without one (raw streams, some program streams) follows the frame before it.
    Where PTS are not to be trusted, a frame's time is the DTS of the packet that made the codec give it out, less the
    time by which the codec was behind at the first frame.
    """

    def __init__(self, time_base: Fraction, typical: float, *, trust_pts: bool) -> None:
        self.typical = typical
        self._time_base = time_base
        self._trust_pts = trust_pts
        self._first_dts: int | None = None
        self._behind: int | None = None
        self._next = 0.0

    def start(self, dts: int | None) -> None:
        """Tell the DTS of a packet before it is decoded; only the first one matters."""
        if self._first_dts is None:
            self._first_dts = dts

    def time(self, pts: int | None, dts: int | None, duration: int) -> tuple[float, float | None]:
        """Seconds of a frame, and how long it lasts; ``None`` where it does not say."""
        if pts is not None and self._trust_pts:
            seconds = float(pts * self._time_base)
        elif dts is not None and not self._trust_pts:
            if self._behind is None:
                self._behind = dts - (self._first_dts or 0)
            seconds = float((dts - self._behind) * self._time_base)
        else:
            seconds = self._next
        lasts = float(duration * self._time_base) if duration > 0 else None
        self._next = seconds + (lasts or self.typical)
        return seconds, lasts


# --- folders of frames -----------------------------------------------------------------------------------------------


def _decode_folder(video: Video, guards: Guards, wanted: Callable[[int], bool]) -> Generator[Frame, None, None]:
    Image.MAX_IMAGE_PIXELS = None  # Pillow's would be one more limit; ours is looked at before a picture is read
    unread = Image.new("RGB", (1, 1))
    for number, path in enumerate(_frame_paths(video)):
        if not wanted(number):
            yield Frame(unread, None, None)
            continue
        try:
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                _check_size(path, *image.size, guards)
                picture = image.convert("RGB")  # a copy: the file closes; EXIF orientation is not looked at
        except VideoError:
            raise
        except Exception as error:  # PIL raises a dozen kinds for bad files, struct.error and IndexError among them
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise VideoError(
                "decode", "BadImage", f"'{path}' cannot be read as a picture ({why}): extract the frames again"
            ) from None
        yield Frame(picture, None, None)


def _frame_paths(video: Video) -> list[Path]:
    """The wanted frames in order; every number from the first to the last is there."""
    numbered: dict[int, str] = {}
    try:
        names = sorted(os.listdir(video.path))  # noqa: PTH208  (names are all that is wanted)
    except OSError as error:
        raise VideoError(
            "open", "MissingFile", f"the folder '{video.path}' cannot be read ({error.strerror}): check the path"
        ) from None
    for name in names:
        if match := FRAME_NAME.fullmatch(name):
            numbered.setdefault(int(match[1]), name)
    there = max(numbered, default=0)
    last = there if video.last is None else min(video.last, there)
    # The reference's folders begin with 1. One that begins with 0 is taken whole, unless somebody says which part.
    first = 0 if 0 in numbered and (video.first, video.last) == (1, None) else video.first
    wanted = range(first, last + 1)
    if not wanted:
        raise VideoError(
            "open",
            "NoFrames",
            f"'{video.path}' has no frame from image_{first:05d} on: extract the frames again",
        )
    for number in wanted:
        if number not in numbered:
            raise VideoError(
                "open",
                "MissingFrame",
                f"'{video.path}' lacks image_{number:05d}.jpg (it has frames up to {there}): extract the frames again",
            )
    return [video.path / numbered[number] for number in wanted]
