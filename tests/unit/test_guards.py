"""What a video may cost, and what a file that calls itself a video may lead to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import media
import pytest
from mutants import playlists
from PIL import Image

from clipmux.engine.errors import UsageError, VideoError
from clipmux.engine.guards import Guards, parse_pixels
from clipmux.workers import containers
from clipmux.workers.decode import FORMATS, decode
from clipmux.workers.sources import Video


def fault(path: Path, guards: Guards = Guards(), kind: str = "file") -> VideoError:  # noqa: B008
    with pytest.raises(VideoError) as caught:
        list(decode(Video("video", path, kind), guards=guards))
    return caught.value


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return media.write_video(tmp_path / "good.mp4", media.moving(20), options={"preset": "ultrafast"})


def test_a_frame_of_too_many_pixels_fails_before_any_is_decoded(video: Path, tmp_path: Path) -> None:
    assert len(list(decode(Video("v", video, "file"), guards=Guards(pixels=64 * 48)))) == 20
    error = fault(video, Guards(pixels=64 * 48 - 1))
    assert (error.stage, error.kind) == ("open", "TooManyPixels")
    assert "64×48" in error.message
    assert "--max-pixels" in error.message
    folder = media.write_frames(tmp_path / "frames", media.moving(3))
    assert fault(folder, Guards(pixels=64 * 48 - 1), "frames").kind == "TooManyPixels"


def test_the_only_limit_of_a_pictures_pixels_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 3)  # Pillow's own refuses what has twice as many
    folder = media.write_frames(tmp_path / "frames", media.moving(3))
    assert len(list(decode(Video("v", folder, "frames"), guards=Guards(pixels=64 * 48)))) == 3
    assert fault(folder, Guards(pixels=64 * 48 - 1), "frames").kind == "TooManyPixels"


def test_a_codec_whose_header_understates_gets_no_memory_for_more(tmp_path: Path) -> None:
    """A raw stream says its size again in its own headers, and may grow: the codec itself refuses what is too large."""
    parts = [
        media.write_video(tmp_path / f"{width}.m2v", media.moving(3, width, 48), codec="mpeg2video").read_bytes()
        for width in (64, 640)
    ]
    (tmp_path / "grows.m2v").write_bytes(b"".join(parts))
    video = Video("v", tmp_path / "grows.m2v", "file")
    assert len(list(decode(video))) >= 5
    error = fault(video.path, Guards(pixels=64 * 48))
    assert (error.stage, error.kind) == ("decode", "Damaged")


def test_too_many_frames_and_too_long_and_too_costly(video: Path, tmp_path: Path) -> None:
    assert fault(video, Guards(frames=19)).kind == "TooManyFrames"
    assert len(list(decode(Video("v", video, "file"), guards=Guards(frames=20, duration_s=0.77)))) == 20
    assert fault(video, Guards(duration_s=0.75)).kind == "TooLong"
    assert fault(video, Guards(cpu_s=1e-6)).kind == "TooCostly"
    folder = media.write_frames(tmp_path / "frames", media.moving(3))
    assert fault(folder, Guards(frames=2), "frames").kind == "TooManyFrames"


@pytest.mark.parametrize(
    "bad",
    [{"pixels": 0}, {"frames": -1}, {"duration_s": float("inf")}, {"cpu_s": 1e19}, {"cpu_s": "9"}, {"pixels": 1 << 31}],
)
def test_a_guard_that_guards_nothing_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give"):
        Guards(**bad)


def test_pixels_are_a_number_or_a_size() -> None:
    assert parse_pixels("8192x4608") == 8192 * 4608 == parse_pixels("37748736")
    for wrong in ("", "8k", "8192x", "1x2x3", "-5"):
        with pytest.raises(UsageError, match="--max-pixels"):
            parse_pixels(wrong)


def test_every_format_that_is_read_is_one_that_libav_knows() -> None:
    known = {name for format_ in av.formats_available for name in format_.split(",")}
    assert set(FORMATS) <= known


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def test_no_playlist_leads_anywhere(video: Path, tmp_path: Path) -> None:
    """Not to the network, and not to another file, which is a good video: its frames would come."""
    folder = tmp_path / "playlists"
    folder.mkdir()
    with listener() as server:
        port = server.getsockname()[1]
        for name, content in playlists(f"http://127.0.0.1:{port}/a.mp4", str(video)).items():
            (folder / name).write_text(content)
            error = fault(folder / name)
            assert error.kind in ("OtherFormat", "NotMedia"), (name, error.message)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_stream_that_turns_up_late_costs_nothing(tmp_path: Path) -> None:
    """As when a broadcast changes over: PyAV knows the streams that there were at the beginning, and no others."""
    parts = [
        media.write_video(tmp_path / f"{sound}.ts", media.moving(30), codec="mpeg2video", audio=sound)
        for sound in (False, True)
    ]
    joined = tmp_path / "joined.ts"
    stuffing = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 60_000  # libav looks at less, at either end
    silent, loud = (part.read_bytes() for part in parts)
    joined.write_bytes(silent + stuffing + loud + stuffing + silent)
    with av.open(str(joined)) as container:
        assert len(container.streams) == 1, "the other one would be found at the beginning"
    assert len(list(decode(Video("v", joined, "file")))) == 90


def test_frames_that_are_no_jpeg_or_png_are_not_tried(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.fromarray(media.patches()).save(folder / "image_00001.jpg", format="TIFF")
    assert fault(folder, kind="frames").kind == "BadImage"


def missing(path: Path) -> int:
    with path.open("rb") as file:
        return containers.missing_bytes(file, path.stat().st_size)


def test_a_file_of_countless_parts_is_not_walked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few gigabytes of boxes of eight bytes each would take hours."""
    monkeypatch.setattr(containers, "_PARTS", 10)
    path = tmp_path / "boxes.mp4"
    box, cut = b"\x00\x00\x00\x08free", b"\x00\x01\x00\x00mdat"
    path.write_bytes(9 * box + cut)
    assert missing(path) == 0x10000 - 8
    path.write_bytes(10 * box + cut)
    assert missing(path) == 0
