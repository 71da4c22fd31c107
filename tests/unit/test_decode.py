"""Frames and their times: every frame of a good file comes, and a bad file is one error that says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest
from av.video.frame import PictureType
from PIL import Image

from clipmux.engine.errors import VideoError
from clipmux.workers.decode import Frame, decode
from clipmux.workers.sources import Video

X264 = {"preset": "ultrafast", "bf": "3"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"}
VPX = {"deadline": "realtime", "cpu-used": "8"}


def frames_of(path: Path, **options: Any) -> list[Frame]:
    return list(decode(Video("video", path, "file"), **options))


def times_of(path: Path, **options: Any) -> list[float]:
    return [round(frame.seconds, 3) for frame in frames_of(path, **options) if frame.seconds is not None]


def fault_of(video: Video | Path) -> VideoError:
    with pytest.raises(VideoError) as caught:
        list(decode(video if isinstance(video, Video) else Video("video", video, "file")))
    return caught.value


# --- good files ------------------------------------------------------------------------------------------------------

GOOD = [
    *(
        (ending, "libx264", X264)
        for ending in (".mp4", ".mov", ".mkv", ".avi", ".ts", ".m2ts", ".flv", ".h264", ".wmv")
    ),
    *((ending, "libx264", {**X264, "bf": "0"}) for ending in (".mp4", ".mkv", ".avi", ".ts")),
    (".mkv", "libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=6"}),
    (".ts", "libx264", {"x264-params": "slices=4:tff=1:intra-refresh=1"}),
    *((ending, "libx265", X265) for ending in (".mkv", ".ts", ".hevc")),
    *((ending, "mpeg2video", {"bf": "2"}) for ending in (".ts", ".mpg", ".vob", ".mkv", ".m2v", ".mxf")),
    *((ending, "mpeg2video", {}) for ending in (".ts", ".mpg", ".avi")),
    *((ending, "mpeg1video", {}) for ending in (".ts", ".mpg")),
    *((ending, "mpeg4", {"bf": "2"}) for ending in (".mp4", ".avi", ".ts", ".mkv")),
    *((ending, "mpeg4", {}) for ending in (".mp4", ".avi", ".3gp")),
    *((ending, "libvpx-vp9", VPX) for ending in (".webm", ".mp4", ".mkv")),
    (".webm", "libvpx-vp9", {**VPX, "deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    *((ending, "libvpx", VPX) for ending in (".webm", ".ivf", ".ogv")),
    *((ending, "mjpeg", {}) for ending in (".avi", ".mov", ".mkv", ".mjpeg")),
    *((ending, "wmv2", {}) for ending in (".wmv", ".asf")),
    (".flv", "flv", {}),
    (".nut", "ffv1", {}),
]


@pytest.mark.parametrize(("ending", "codec", "options"), GOOD, ids=[f"{codec}{ending}" for ending, codec, _ in GOOD])
def test_every_frame_of_a_good_video_comes_in_order(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str]
) -> None:
    if not media.has_encoder(codec):
        pytest.skip(f"this PyAV has no encoder {codec}")
    for count in (1, 2, 3, 4, 13, 30):
        path = media.write_video(
            tmp_path / f"{count}{ending}",
            media.moving(count),
            codec=codec,
            options=options,
            pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        )
        frames = frames_of(path)
        assert len(frames) == count
        seconds = [frame.seconds for frame in frames]
        np.testing.assert_allclose(np.diff(seconds), 0.04, atol=0.0011)  # some containers count milliseconds
        assert all(frame.duration is not None and frame.duration > 0 for frame in frames)


def test_pictures_come_in_the_order_in_which_they_were_encoded(tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    path = media.write_video(tmp_path / "a.mp4", pictures, options=X264)
    with av.open(str(path)) as container:
        assert PictureType.B in {frame.pict_type for frame in container.decode(video=0)}
    found = [np.asarray(frame.picture.to_image()).mean() for frame in frames_of(path)]
    np.testing.assert_allclose(found, [8 * index for index in range(30)], atol=2.5)


def test_more_threads_give_the_same_frames(tmp_path: Path) -> None:
    for name, codec in (("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("b.avi", "libx264"), ("a.ts", "mpeg2video")):
        path = media.write_video(tmp_path / name, media.moving(30), codec=codec, options={"bf": "2"})
        assert times_of(path, threads=2) == times_of(path)
        assert len(times_of(path)) == 30


def test_frames_come_one_by_one_and_closing_closes_the_file(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mkv", media.noise(40))

    def is_open() -> bool:
        return any(os.path.realpath(f"/proc/self/fd/{fd}") == str(path.resolve()) for fd in os.listdir("/proc/self/fd"))  # noqa: PTH208

    frames = decode(Video("video", path, "file"))
    assert not is_open()
    next(frames)
    assert is_open()
    frames.close()  # type: ignore[attr-defined]
    assert not is_open()
    list(decode(Video("video", path, "file")))
    assert not is_open()


def test_nothing_is_printed(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ts", media.noise(40))
    for share in (0.4, 0.6, 0.8):
        damage(path, share)
    program = f"""
from pathlib import Path
from clipmux.workers.decode import decode
from clipmux.workers.sources import Video
try:
    list(decode(Video("video", Path({str(path)!r}), "file")))
except Exception as error:
    print(error.kind)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("Damaged\n", "")


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.ts", "a.flv", "a.avi"])
def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    pts = [0, 1, 3, 7, 8, 20]
    path = media.write_video(tmp_path / name, media.moving(6), codec=codec, options={**VPX, "bf": "0"}, pts=pts)
    assert times_of(path) == [round(number / 25, 3) for number in pts]


def test_durations_of_a_variable_frame_rate(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.moving(4), options={"bf": "0"}, pts=[0, 1, 3, 13])
    frames = frames_of(path)
    np.testing.assert_allclose([frame.duration for frame in frames], [0.04, 0.08, 0.4, 0.04])


def test_odd_rates_do_not_drift(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    path = media.write_video(tmp_path / "a.mp4", media.moving(40), rate=rate, options=X264)
    seconds = [frame.seconds for frame in frames_of(path)]
    np.testing.assert_allclose(seconds, [float(index / rate) for index in range(40)], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_the_first_time_need_not_be_0(tmp_path: Path, name: str) -> None:
    path = media.write_video(tmp_path / name, media.moving(3), options={"bf": "0"}, pts=[90_000, 90_001, 90_002])
    assert times_of(path) == [3600.0, 3600.04, 3600.08]


@pytest.mark.parametrize("name", ["a.ts", "a.webm"])
def test_the_first_time_may_be_negative(tmp_path: Path, name: str) -> None:
    path = media.write_video(
        tmp_path / name,
        media.moving(4),
        codec="libvpx-vp9" if name == "a.webm" else "libx264",
        options={**VPX, "bf": "0"},
        pts=[-3, -2, -1, 0],
        container_options={"avoid_negative_ts": "disabled"},
    )
    assert times_of(path) == [-0.12, -0.08, -0.04, 0.0]


def test_an_edit_list_cuts_what_lies_before_it(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.moving(6), options={"bf": "0"}, pts=[-3, -2, -1, 0, 1, 2])
    assert times_of(path) == [0.0, 0.04, 0.08]


@pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.m2v", "mpeg2video"), ("a.mjpeg", "mjpeg")])
def test_raw_streams_are_timed_by_their_rate(tmp_path: Path, name: str, codec: str) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {} if codec == "mjpeg" else {"bf": "2"}
    path = media.write_video(tmp_path / name, media.moving(20), codec=codec, pix_fmt=pix_fmt, options=options)
    found = times_of(path)
    assert found[0] in {0.0, 0.04}  # libav begins MPEG-2 with the second frame's time
    assert found == [round(found[0] + 0.04 * index, 3) for index in range(20)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "mpeg4"), ("a.avi", "libx264"), ("a.avi", "mpeg2video"), ("a.wmv", "libx264"), ("a.mxf", "libx264")],
)
def test_b_frames_where_the_container_knows_no_pts(tmp_path: Path, name: str, codec: str) -> None:
    path = media.write_video(tmp_path / name, media.moving(20), codec=codec, options={"bf": "2"})
    assert times_of(path) == [round(0.04 * index, 3) for index in range(20)]


def test_avi_frames_that_are_shown_longer(tmp_path: Path) -> None:
    """AVI writes an empty chunk for "the same picture again"."""
    path = media.write_video(tmp_path / "a.avi", media.moving(4), codec="mpeg4", pts=[0, 1, 5, 6])
    assert times_of(path) == [0.0, 0.04, 0.2, 0.24]


def test_times_of_a_real_video(golden: Path) -> None:
    path = next((golden / "videos").rglob("*.mp4"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        expected = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
    assert [frame.seconds for frame in frames_of(path)] == expected


# --- other streams, changes on the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_sound_is_passed_over(tmp_path: Path, name: str) -> None:
    path = media.write_video(tmp_path / name, media.moving(20), options=X264, audio=True)
    assert len(frames_of(path)) == 20


def test_cover_art_is_not_a_video(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.moving(5), cover=True)
    assert [(frame.picture.width, frame.picture.height) for frame in frames_of(path)] == [(64, 48)] * 5
    sound = write_sound(tmp_path / "song.mp4", cover=True)
    with av.open(str(sound)) as container:
        assert container.streams.video
    assert fault_of(sound).kind == "NoVideoStream"


def test_subtitles_are_passed_over(tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mkv", media.moving(5))
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    path = tmp_path / "b.mkv"
    packets = []
    with av.open(str(path), "w") as output:
        for name in ("a.srt", "a.mkv"):  # in this order: the subtitles are the first stream
            with av.open(str(tmp_path / name)) as given:
                stream = output.add_stream_from_template(given.streams[0])
                packets.extend((stream, packet) for packet in given.demux() if packet.size)
        for stream, packet in packets:
            packet.stream = stream
            output.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.subtitles
    assert len(frames_of(path)) == 5


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_the_size_may_change_on_the_way(tmp_path: Path, codec: str) -> None:
    """Two recordings in one file. The seam has a jump in the packets' counters, which is no damage."""
    options = X265 if codec == "libx265" else X264
    first = media.write_video(tmp_path / "1.ts", media.noise(20), codec=codec, options=options, audio=True)
    second = media.write_video(tmp_path / "2.ts", media.noise(15, 96, 64), codec=codec, options=options, audio=True)
    path = tmp_path / "a.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with av.open(str(path)) as container:
        assert any(packet.is_corrupt for packet in container.demux(video=0))
    assert [frame.picture.width for frame in frames_of(path)] == [64] * 20 + [96] * 15


def test_a_broadcast_joined_midway_begins_with_its_first_good_frame(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.ts", media.noise(60), options=X264)
    content = path.read_bytes()
    path.write_bytes(content[len(content) // 3 // 188 * 188 :])
    assert 10 < len(frames_of(path)) < 40


# --- files that cannot be read ---------------------------------------------------------------------------------------


def write_sound(path: Path, *, cover: bool = False) -> Path:
    with av.open(str(path), "w") as output:
        sound: Any = output.add_stream("aac", rate=8000)
        sound.layout = "mono"
        if cover:
            art: Any = output.add_stream("png", rate=1)
            art.width, art.height, art.pix_fmt = 16, 16, "rgb24"
            # A plain number, since PyAV before 17.1 takes no other.
            art.disposition = av.stream.Disposition.attached_pic.value
            output.mux(art.encode(av.VideoFrame(16, 16, "rgb24")))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 2000), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 8000, 0
        output.mux([*sound.encode(tone), *sound.encode(None)])
    return path


def damage(path: Path, share: float) -> None:
    """Overwrite a twentieth of the bytes, from ``share`` of the file on."""
    content = bytearray(path.read_bytes())
    start, size = int(len(content) * share), len(content) // 20
    content[start : start + size] = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    path.write_bytes(content)


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 1000)
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    os.mkfifo(tmp_path / "pipe.mp4")
    write_sound(tmp_path / "sound.mp4")
    for name, kind in (
        ("missing.mp4", "MissingFile"),
        ("null\0.mp4", "MissingFile"),
        ("folder.mp4", "NotAFile"),
        ("pipe.mp4", "NotAFile"),
        ("empty.mp4", "EmptyFile"),
        ("text.mp4", "NotMedia"),
        ("noise.mkv", "NotMedia"),
        ("sound.mp4", "NoVideoStream"),
    ):
        fault = fault_of(tmp_path / name)
        assert (fault.stage, fault.kind) == ("open", kind), name
        assert repr(str(tmp_path / name))[1:-1] in fault.message or str(tmp_path / name) in fault.message
        assert ": " in fault.message  # what to do about it


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.moving(2))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert fault_of(path).kind == "NotReadable"


def test_a_codec_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.avi", media.moving(5), codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"QQQQ"))
    fault = fault_of(path)
    assert (fault.stage, fault.kind) == ("open", "NoDecoder")


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    fault = fault_of(path)
    assert (fault.stage, fault.kind) == ("decode", "NoFrames")


def test_names_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = media.write_video(tmp_path / "a.mp4", media.moving(2))
    for name in ("a:b.mp4", "concat:x|y.mp4", "-i", "100% [1] ünïcode.mp4", "%03d.mp4", " .mp4"):
        Path(name).write_bytes(source.read_bytes())
        assert len(frames_of(Path(name))) == 2


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_a_title_need_not_be_utf8(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "A TITLE"
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in media.moving(2):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    content = path.read_bytes()
    assert content.count(b"A TITLE") == 1
    path.write_bytes(content.replace(b"A TITLE", b"caf\xe9 \xff!"))
    assert len(frames_of(path)) == 2


# --- damage ----------------------------------------------------------------------------------------------------------

CUT = [  # a video, and the kind of the failure when it is cut in half
    ("a.mp4", "libx264", {}, "Truncated"),
    ("a.mp4", "libx264", {"movflags": "faststart"}, "Truncated"),
    ("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}, "Truncated"),
    ("a.mov", "mjpeg", {}, "Truncated"),
    ("a.3gp", "mpeg4", {}, "Truncated"),
    ("a.mkv", "libx264", {}, "Truncated"),
    ("a.mkv", "libx264", {"live": "1"}, "Truncated"),
    ("a.webm", "libvpx-vp9", {}, "Truncated"),
    ("a.avi", "mpeg4", {}, "Truncated"),
    ("a.avi", "mjpeg", {}, "Truncated"),
    ("a.ts", "libx264", {}, "Truncated"),
    ("a.wmv", "wmv2", {}, "Truncated"),
    ("a.flv", "flv", {}, "Truncated"),
    ("a.ivf", "libvpx", {}, "Truncated"),
    ("a.mpg", "mpeg2video", {}, "Damaged"),
    ("a.h264", "libx264", {}, "Damaged"),
]


@pytest.mark.parametrize(("name", "codec", "options", "kind"), CUT, ids=[f"{c}-{n}-{o}" for n, c, o, _ in CUT])
def test_a_file_cut_in_half_fails(tmp_path: Path, name: str, codec: str, options: dict[str, str], kind: str) -> None:
    path = media.write_video(
        tmp_path / name,
        media.noise(40),
        codec=codec,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        options=VPX,
        container_options=options,
    )
    assert len(frames_of(path)) == 40
    whole = path.stat().st_size
    media.cut(path, path, (whole // 2 + 1) / whole if whole % 376 == 0 else 0.5)  # not between two transport packets
    fault = fault_of(path)
    assert fault.kind == kind
    assert "copy or download it again" in fault.message


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.75, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_cut_anywhere_fails(tmp_path: Path, name: str, share: float) -> None:
    path = media.write_video(tmp_path / name, media.noise(20))
    media.cut(path, path, share)
    assert fault_of(path).stage == "open"


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")])
def test_damage_in_the_middle_fails(tmp_path: Path, name: str, codec: str) -> None:
    path = media.write_video(tmp_path / name, media.noise(40), codec=codec)
    damage(path, 0.6)
    fault = fault_of(path)
    assert (fault.stage, fault.kind) == ("decode", "Damaged")
    assert "is damaged after frame" in fault.message


def test_nothing_but_damage_is_no_frames(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.noise(10))
    content = bytearray(path.read_bytes())
    start, stop = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)
    fault = fault_of(path)
    assert (fault.stage, fault.kind) == ("decode", "NoFrames")
    assert "Invalid data" in fault.message


def test_odd_but_whole_files_are_good(tmp_path: Path) -> None:
    """Sizes that writers get wrong, and things that are appended, do no harm."""
    mp4 = media.write_video(tmp_path / "a.mp4", media.moving(5))
    mp4.write_bytes(mp4.read_bytes() + b"something appended" * 10)
    assert len(frames_of(mp4)) == 5
    mp4 = media.write_video(tmp_path / "b.mp4", media.moving(5))
    mp4.write_bytes(mp4.read_bytes() + (1000).to_bytes(4, "big") + b"free")  # a box that is not there
    assert len(frames_of(mp4)) == 5

    for size in (0, 8 + 10_000_000, 0xFFFFFFFF):
        avi = media.write_video(tmp_path / "a.avi", media.moving(5), codec="mpeg4")
        content = bytearray(avi.read_bytes())
        content[4:8] = size.to_bytes(4, "little")
        avi.write_bytes(content)
        assert len(frames_of(avi)) == 5
    for size in (0, 0xFFFFFFFF):  # a recorder that never came back to fill the size in
        avi = media.write_video(tmp_path / "a.avi", media.moving(5), codec="mpeg4")
        content = bytearray(avi.read_bytes())
        at = content.index(b"movi") - 4
        content[at : at + 4] = size.to_bytes(4, "little")
        avi.write_bytes(content)
        assert len(frames_of(avi)) == 5
    avi = media.write_video(tmp_path / "a.avi", media.moving(5), codec="mpeg4")
    without_index = bytearray(avi.read_bytes())
    del without_index[without_index.index(b"idx1") :]
    avi.write_bytes(without_index)
    assert len(frames_of(avi)) == 5

    ts = media.write_video(tmp_path / "a.ts", media.moving(30))
    ts.write_bytes(b"\0" * 100 + ts.read_bytes())
    assert len(frames_of(ts)) == 30


# --- folders of frames -----------------------------------------------------------------------------------------------


def test_frames_of_a_folder(tmp_path: Path) -> None:
    pictures = media.moving(12)
    folder = media.write_frames(tmp_path / "clip", pictures, ending=".png")
    frames = list(decode(Video("clip", folder, "frames")))
    assert len(frames) == 12
    for frame, picture in zip(frames, pictures, strict=True):
        assert (frame.seconds, frame.duration, frame.display) == (None, None, None)
        np.testing.assert_array_equal(np.asarray(frame.picture), picture)


def test_numbers_decide_the_order(tmp_path: Path) -> None:
    for number, name in ((1, "image_1.png"), (2, "IMAGE_02.PNG"), (3, "image_3.jpeg"), (10, "image_10.png")):
        Image.new("L", (8, 8), number).save(tmp_path / name)
    for number in range(4, 10):
        Image.new("L", (8, 8), number).save(tmp_path / f"image_{number:05d}.png")
    (tmp_path / "image_x.png").touch()
    (tmp_path / "notes.txt").touch()
    for name in ("image_4.png", "image_004.png", "image_0000004.png"):  # of names with one number, the first in order
        Image.new("L", (8, 8), 44 if name != "image_0000004.png" else 4).save(tmp_path / name)
    frames = list(decode(Video("clip", tmp_path, "frames")))
    assert [np.asarray(frame.picture)[0, 0, 0] for frame in frames] == list(range(1, 11))


@pytest.mark.parametrize(
    ("first", "last", "expected"), [(1, None, 12), (5, None, 8), (3, 7, 5), (3, 3, 1), (1, 99, 12), (12, 12, 1)]
)
def test_a_part_of_a_folder(tmp_path: Path, first: int, last: int | None, expected: int) -> None:
    folder = media.write_frames(tmp_path / "clip", media.moving(12))
    assert len(list(decode(Video("clip", folder, "frames", first, last)))) == expected


def test_a_folder_that_begins_with_0_is_taken_whole_unless_a_part_is_asked_for(tmp_path: Path) -> None:
    folder = media.write_frames(tmp_path / "clip", media.moving(5))
    (folder / "image_00005.jpg").rename(folder / "image_00000.jpg")
    for first, last, expected in ((1, None, 5), (1, 4, 4), (2, None, 3), (0, 4, 5)):
        assert len(list(decode(Video("clip", folder, "frames", first, last)))) == expected


def test_pictures_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    folder = media.write_frames(tmp_path / "clip", media.moving(6), ending=".png")
    for number in (2, 5):
        (folder / f"image_{number:05d}.png").write_bytes(b"no picture")
    frames = list(decode(Video("clip", folder, "frames"), wanted=lambda number: number in (0, 2, 3)))
    assert len(frames) == 6
    assert [frames[number].picture.width for number in (0, 2, 3)] == [media.moving(6)[0].shape[1]] * 3
    with pytest.raises(VideoError, match=r"image_00005\.png.*extract the frames again"):
        list(decode(Video("clip", folder, "frames"), wanted=lambda number: number in (0, 4)))


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    folder = media.write_frames(tmp_path / "clip", media.moving(12))
    (folder / "image_00007.jpg").unlink()
    fault = fault_of(Video("clip", folder, "frames"))
    assert (fault.stage, fault.kind) == ("open", "MissingFrame")
    assert "lacks image_00007.jpg" in fault.message
    assert len(list(decode(Video("clip", folder, "frames", 1, 6)))) == 6
    (folder / "image_00001.jpg").unlink()
    assert "lacks image_00001.jpg" in fault_of(Video("clip", folder, "frames")).message


def test_a_folder_without_the_frames_wanted(tmp_path: Path) -> None:
    folder = media.write_frames(tmp_path / "clip", media.moving(3))
    assert fault_of(Video("clip", folder, "frames", 4)).kind == "NoFrames"
    assert fault_of(Video("clip", tmp_path, "frames")).kind == "NoFrames"
    assert fault_of(Video("clip", tmp_path / "none", "frames")).kind == "MissingFile"


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_bad_picture_is_named(tmp_path: Path, ending: str) -> None:
    folder = media.write_frames(tmp_path / "clip", media.noise(4), ending=ending)
    bad = folder / f"image_00003{ending}"
    whole = bad.read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2], whole[:20] + b"\xff\0" * 30 + whole[80:]):
        bad.write_bytes(content)
        frames = decode(Video("clip", folder, "frames"))
        assert next(frames)
        assert next(frames)
        with pytest.raises(VideoError, match=f"image_00003{ending}' cannot be read as a picture") as caught:
            next(frames)
        assert (caught.value.stage, caught.value.kind) == ("decode", "BadImage")


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    image = Image.fromarray(media.patches())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "image_00001.jpg", exif=exif, quality=100, subsampling=0)
    picture = next(decode(Video("clip", tmp_path, "frames"))).picture
    assert (picture.width, picture.height) == (64, 48)
    np.testing.assert_allclose(np.asarray(picture).astype(int), media.patches(), atol=30)
