"""Streams from a command line and from a file: what is taken, what is refused, and what nobody gets to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmux.engine.errors import UsageError
from clipmux.engine.model import ModelFolder
from clipmux.engine.streams import (
    LiveConfig,
    StreamConfig,
    check_streams,
    read_streams,
    redacted,
    streams_of,
)

FILE = """
[defaults]
enter = 0.7
labels = ["one"]

[[stream]]
name = "door"
url = "rtsp://user:secret@10.0.0.7/cam"

[[stream]]
name = "yard"
url = "rtsp://10.0.0.8/cam"
enter = 0.9
leave = 0.2
min_duration_s = 2
smooth = 5
weight = 2
labels = []
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "streams.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_streams(tmp_path: Path) -> None:
    door, yard = read_streams(written(tmp_path, FILE))
    assert door == StreamConfig("door", "rtsp://user:secret@10.0.0.7/cam", labels=("one",), enter=0.7)
    assert yard == StreamConfig("yard", "rtsp://10.0.0.8/cam", (), 0.9, 0.2, 2, 5, 2)
    assert StreamConfig.from_json(door.to_json()) == door


def test_what_others_are_told_of_a_stream(tmp_path: Path) -> None:
    door, yard = read_streams(written(tmp_path, FILE))
    assert door.told(3) == {
        "number": 3,
        "name": "door",
        "url": "rtsp://***@10.0.0.7/cam",
        "labels": ["one"],
        "enter": 0.7,
        "leave": 0.4,
        "min_duration_s": 1.0,
        "smooth": 3,
        "weight": 1.0,
    }
    assert type(yard.told(4)["weight"]) is float


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[stream]\n", "TOML"),
        ("[other]\n", "'other'"),
        ("stream = 3\n", "not made of"),
        ("stream = [3]\n", "not made of"),
        ("defaults = 3\n", "not made of"),
        ('[defaults]\nurl = "a"\n', "'url' in [defaults]"),
        ('[[stream]]\nname = "a"\n', "no url in stream 1"),
        ('[[stream]]\nurl = "a"\ncolour = 1\n', "'colour' in stream 1"),
        ('[[stream]]\nurl = "a"\nlabels = "one"\n', "labels 'one' in stream 1"),
        ('[[stream]]\nurl = "a"\nlabels = [1]\n', "labels"),
        ("[[stream]]\nurl = 3\n", "no usable url"),
        ('[[stream]]\nurl = ""\n', "no usable url"),
        ('[[stream]]\nurl = "a"\nname = "x\\ny"\n', "printable"),
        ('[[stream]]\nurl = "a"\nname = 3\n', "printable"),
        ('[[stream]]\nurl = "a"\nenter = 1.5\n', "enter 1.5"),
        ('[[stream]]\nurl = "a"\nenter = nan\n', "enter nan"),
        ('[[stream]]\nurl = "a"\nleave = 0.7\n', "leave 0.7"),
        ('[[stream]]\nurl = "a"\nsmooth = 0\n', "smooth 0"),
        ('[[stream]]\nurl = "a"\nsmooth = true\n', "smooth True"),
        ('[[stream]]\nurl = "a"\nweight = 0\n', "weight 0"),
        ('[[stream]]\nurl = "a"\nmin_duration_s = -1\n', "min_duration_s -1"),
        (f'[[stream]]\nurl = "a"\nweight = 1{"0" * 400}\n', "give 0.001 to 1000"),
        (f'[[stream]]\nurl = "a"\nmin_duration_s = 1{"0" * 400}\n', "give seconds, at least 0"),
        (f'[[stream]]\nurl = "a"\nsmooth = 0x{"f" * 5000}\n', "too many digits"),
        ('[[stream]]\nurl = "gopher://a/b"\n', "'gopher'"),
        ('[[stream]]\nurl = "rtsp:///cam"\n', "host"),
        ('[[stream]]\nurl = "rtsp://a:99999/cam"\n', "host"),
    ],
)
def test_a_file_that_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_streams(written(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_streams(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="TOML"):
        read_streams(tmp_path / "bytes.toml")


def test_names_of_plain_sources() -> None:
    names = [stream.name for stream in streams_of(["rtsp://u:p@10.0.0.7:554/cam/1?x=1", "a/b.mp4", "/dev/video0"])]
    assert names == ["10.0.0.7:554/cam/1", "b", "video0"]


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("RTSP://a/b", "rtsp"),
        ("https://a/b.m3u8", "https"),
        ("udp://@:5000", "udp"),
        ("/dev/video0", "device"),
        ("C:/a.mp4", "file"),
        ("a.mp4", "file"),
    ],
)
def test_schemes(url: str, scheme: str) -> None:
    assert StreamConfig("a", url).scheme == scheme


def test_streams_that_do_not_go_together() -> None:
    a = StreamConfig("a", "x.mp4", labels=("one",))
    check_streams([a], ["one"], 1)
    for streams, labels, most, said in [
        ([], ["one"], 1, "no sources"),
        ([a, a], ["one"], 2, "two streams are called 'a'"),
        ([a, StreamConfig("b", "y.mp4")], ["one"], 1, "--max-streams"),
        ([a], ["two"], 1, "'one', which the model does not know"),
    ]:
        with pytest.raises(UsageError) as caught:
            check_streams(streams, labels, most)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://10.0.0.7/cam", "rtsp://10.0.0.7/cam"),
        ("rtsp://user:secret@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        ("rtsp://secret@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        ("rtsp://user:se@cr/et@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        ("rtsp://user:se?cret@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        ("http://a/b?user=u&pass=p&fps=5", "http://a/b?user=***&pass=***&fps=5"),
        ("http://a/b?access_token=x#y", "http://a/b?access_token=***#y"),
        ("http://a/b?PWD=x", "http://a/b?PWD=***"),
        ("rtsp://user:12?ss@h/cam?token=x&fps=5", "rtsp://***@h/cam?token=***&fps=5"),
        ("https://h/live?login=me@h.org&password=x", "https://***@h.org&password=***"),
        ("rtsp://h/user=u&password=p&channel=1&stream=0.sdp", "rtsp://h/user=***&password=***&channel=1&stream=0.sdp"),
        ("rtsp://h/cam;auth=x;fps=5", "rtsp://h/cam;auth=***;fps=5"),
        ("a@b.mp4", "a@b.mp4"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert redacted(url) == shown


MISTYPED = [
    ("rtsp:/admin:secret@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
    ("rtsp:/admin:secret@10.0.0.7", "rtsp://***@10.0.0.7"),
    ("https:/a/b?token=secret", "https://a/b?token=***"),
    ("rtsp:admin:secret@10.0.0.7/cam", "***@10.0.0.7/cam"),
    ("rtsp//admin:secret@10.0.0.7/cam", "***@10.0.0.7/cam"),
    ("RTSP;//secret@10.0.0.7/cam", "***@10.0.0.7/cam"),
    (" rtsp://10.0.0.7/cam?token=secret", " rtsp://10.0.0.7/cam?token=***"),
    ("admin:secret@10.0.0.7", "***@10.0.0.7"),
]


@pytest.mark.parametrize(("url", "shown"), MISTYPED)
def test_a_mistyped_url_is_not_taken_for_a_file(
    url: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the command line, in Python, in a file read at the start or on SIGHUP: nothing of it but this is shown."""
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, f'[[stream]]\nurl = "{url}"\n')
    for make in (lambda: StreamConfig("door", url), lambda: streams_of([url]), lambda: read_streams(file)):
        with pytest.raises(UsageError) as caught:
            make()
        assert f"'{shown}' was mistyped" in str(caught.value)
        assert "secret" not in str(caught.value)
    for wrong in ("\n", "\0"):  # refused for something else, and its name is made of it
        with pytest.raises(UsageError) as caught:
            streams_of([url + wrong])
        assert "secret" not in str(caught.value)
    (tmp_path / "rtsp:").mkdir()  # makes no path of what is not in it
    with pytest.raises(UsageError) as caught:
        streams_of([url])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["12:00@door.mp4", "rtsp:door.mp4", "s3:/door.mp4"])
def test_a_file_that_is_there_is_one_whatever_it_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    (stream,) = streams_of([name])
    assert (stream.scheme, stream.shown, stream.name) == ("file", name, Path(name).stem)


secret = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=6).map(lambda text: f"Q7{text}Z9")


@given(secret, secret, st.sampled_from(["rtsp", "http", "gopher"]))
def test_no_password_is_ever_shown(user: str, password: str, scheme: str) -> None:
    """Neither of a stream nor of what is refused: many a character of a password makes a URL unusable."""
    urls = [f"{scheme}://{user}:{password}@host/cam", f"{scheme}://{password}@host/cam?x=1"]
    assert not any(password in redacted(url) for url in urls)
    for url in (
        *urls,
        f"{scheme}:/{user}:{password}@host/cam",
        f"{scheme}:/{password}@host",
        f"{user}:{password}@host",
    ):
        said = ""
        try:
            (stream,) = streams_of([url])
            said += repr(stream) + repr(stream.told(1))
        except UsageError as error:
            said += str(error)
        assert password not in said


def test_a_config_knows_rate_and_stride_from_the_model(tmp_path: Path) -> None:
    model = ModelFolder(tmp_path, "m", "m.onnx", ("one",))
    assert LiveConfig("m").of_model(model).frame_rate == 25
    assert LiveConfig("m").of_model(model).stride_s == pytest.approx(16 / 25)
    told = LiveConfig("m", frame_rate=8, stride_s=0.5).of_model(model)
    assert (told.frame_rate, told.stride_s, told.clips_in_time) == (8, 0.5, 5)
    assert LiveConfig.from_json(told.to_json()) == told


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_latency_s": 0.0}, "--max-latency"),
        ({"stall_s": 0.0}, "--stall"),
        ({"open_timeout_s": float("nan")}, "--open-timeout"),
        ({"frame_rate": -1.0}, "--frame-rate"),
        ({"stride_s": -1.0}, "--stride-s"),
        ({"pace": 0.0}, "--pace"),
        ({"rtsp_transport": "http"}, "--rtsp-transport"),
        ({"max_streams": 0}, "--max-streams"),
    ],
)
def test_options_that_cannot_be(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LiveConfig("m", **wrong)  # type: ignore[arg-type]
