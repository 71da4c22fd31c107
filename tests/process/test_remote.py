"""Videos of a web server and of an object store, both on this machine: the same results, and what fails says so."""

from __future__ import annotations

import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import assert_same, clipmux, lines, results

from clipmux.bench.videos import write_short_videos
from clipmux.engine import Engine, UsageError


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "videos"
    write_short_videos(folder, 12, frames=48, size=(96, 64))
    return folder


@pytest.fixture(scope="module")
def local(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run on the files gives."""
    run = tmp_path_factory.mktemp("local") / "run"
    assert clipmux("run", videos, "--model", "demo", "--output", run).returncode == 0
    return run


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Parts of files, as web servers give them; none for those whose name begins with ``whole``."""

    folder = ""
    signature = "Signature=s3cret"

    def translate_path(self, path: str) -> str:
        return f"{self.folder}/{path.partition('?')[0].lstrip('/')}"

    def do_GET(self) -> None:
        if "signed" in self.path and not self.path.endswith(self.signature):
            self.send_error(403)
            return
        name = self.path.partition("?")[0].removeprefix("/signed/")
        path = Path(self.folder, name.lstrip("/"))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or path.name.startswith("whole"):
            self.send_response(200)
        else:
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        self.send_header("Accept-Ranges", "none" if path.name.startswith("whole") else "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def site(videos: Path) -> Iterator[str]:
    handler = type("Handler", (Ranges,), {"folder": str(videos)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_web_servers_videos_give_what_files_give(videos: Path, local: Path, site: str, tmp_path: Path) -> None:
    """Also one that needs a signature, which is nowhere to be seen; and what is not there fails by itself."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install 'clipmux[remote]')")
    first, *others = sorted(video.name for video in videos.iterdir())
    urls = [f"{site}/signed/{first}?{Ranges.signature}", *(f"{site}/{name}" for name in others)]
    run = tmp_path / "run"
    done = clipmux("run", *urls, f"{site}/none.mp4", "--model", "demo", "--output", run)
    assert done.returncode == 3, done.stderr
    assert_same(results(run), results(local), within=0.0)
    (failure,) = lines(run / "failures.jsonl").values()
    assert (failure["error"], failure["message"]) == (
        "MissingFile",
        f"there is no '{site}/none.mp4', or not for us: check the URL",
    )
    assert lines(run / "results.jsonl")[Path(first).stem]["path"] == f"{site}/signed/{first}"
    for file in run.iterdir():
        assert b"s3cret" not in file.read_bytes(), file
    assert "s3cret" not in done.stderr


def test_an_object_stores_videos_give_what_files_give(videos: Path, local: Path, bucket: Any, tmp_path: Path) -> None:
    """A folder, a glob and one object; results by --resume after the bucket has lost one."""
    for video in sorted(videos.iterdir()):
        bucket.put(str(video), f"bucket/in/deep/{video.name}")
    bucket.pipe("bucket/in/notes.txt", b"no video")
    one = min(videos.iterdir())
    for name, given in (
        ("folder", "s3://bucket/in/"),
        ("glob", "s3://bucket/in/**/*.mp4"),
        ("one", f"s3://bucket/in/deep/{one.name}"),
    ):
        run = tmp_path / name
        done = clipmux("run", given, "--model", "demo", "--output", run)
        assert done.returncode == 0, done.stderr
        wanted = results(local) if name != "one" else {one.stem: results(local)[one.stem]}
        assert_same(results(run), wanted, within=0.0)
        assert all(line["path"].startswith("s3://bucket/in/deep/") for line in lines(run / "results.jsonl").values())
    nothing = clipmux("run", "s3://nowhere/in/", "--model", "demo", "--output", tmp_path / "none")
    assert nothing.returncode == 2
    assert "s3://nowhere/in/" in nothing.stderr
    assert "Traceback" not in nothing.stderr
    no_video = clipmux("run", "s3://bucket/in/*.txt", "--model", "demo", "--output", tmp_path / "none")
    assert no_video.returncode == 2
    assert "holds no video" in no_video.stderr


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("cut.mp4", "Truncated", "is cut short"),
        ("whole.mp4", "NotReadable", "does not give parts of files"),
        ("text.mp4", "NotMedia", "cannot be read as a video"),
        ("signed/video.mp4", "MissingFile", "or not for us"),
    ],
)
def test_what_a_web_server_gives_may_be_no_video(
    name: str, kind: str, said: str, site: str, videos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install 'clipmux[remote]')")
    good = min(video for video in videos.iterdir() if video.name[0].isdigit()).read_bytes()
    contents = {"cut.mp4": good[:-100], "whole.mp4": good, "text.mp4": b"no video at all" * 99}
    bad = videos / name
    if name in contents:
        bad.write_bytes(contents[name])
    try:
        run = tmp_path / "run"
        done = clipmux("run", f"{site}/{name}", "--model", "demo", "--output", run)
        assert done.returncode == 3, done.stderr
        (failure,) = lines(run / "failures.jsonl").values()
        assert failure["error"] == kind
        assert said in failure["message"]
        assert "Traceback" not in done.stderr
    finally:
        bad.unlink(missing_ok=True)


def test_what_reads_them_may_not_be_installed(tmp_path: Path) -> None:
    """An empty package in its place, as if it were not there."""
    (tmp_path / "fsspec.py").write_text("raise ImportError('No module named fsspec')")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    done = clipmux("run", "s3://bucket/videos/", "--model", "demo", "--output", tmp_path / "run", PYTHONPATH=path)
    assert done.returncode == 2
    assert "pip install 'clipmux[remote]'" in done.stderr
    assert json.dumps(done.stderr).count("Traceback") == 0


def test_a_program_gives_urls(videos: Path, local: Path, site: str) -> None:
    """One is told from what it is; of several, which come as they are asked for, the engine must have been told."""
    first, second = sorted(videos.iterdir())[:2]
    expected = lines(local / "results.jsonl")
    with Engine("demo") as engine:
        (prediction,) = engine.classify(f"{site}/{first.name}")
        assert prediction.label == expected[first.stem]["result"][0]["label"]
    with Engine("demo") as engine, pytest.raises(UsageError, match="remote=True"):
        list(engine.classify([f"{site}/{first.name}"]))
    with Engine("demo", remote=True) as engine:
        found = {one.video_id: one.label for one in engine.classify([f"{site}/{first.name}", second])}
    assert found == {path.stem: expected[path.stem]["result"][0]["label"] for path in (first, second)}
