"""Fixtures for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clipmux.bench.videos import write_short_videos
from clipmux.build.export import export_checkpoint
from clipmux.engine.keys import make_keys, trust
from clipmux.engine.model import ModelFolder, write_model

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))  # so that tests can import their helpers (media.py …)

from command import started  # noqa: E402
from elsewhere import Start  # noqa: E402
from object_store import bucket, object_store  # noqa: E402, F401


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Golden data of the reference, which lies beside the checkout and is not part of the project."""
    folder = Path(os.environ.get("CLIPMUX_GOLDEN", TESTS.parent.parent / "shared" / "data"))
    if not (folder / "mini_kinetics").is_dir():
        reason = f"the golden data is not at '{folder}' (CLIPMUX_GOLDEN names another place)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process, socket file or shared memory may outlive a test that starts processes."""
    if not {"process", "death"} & set(request.path.parts):
        yield
        return
    scratch = tmp_path / "t"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    shared = {entry.name for entry in Path("/dev/shm").iterdir()}
    yield
    deadline = time.monotonic() + 10
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, left
    assert not list(scratch.iterdir())
    # Other programs and tests use it too, for a moment each: what remains is nobody's.
    while (new := {entry.name for entry in Path("/dev/shm").iterdir()} - shared) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not new, new


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> Path:
    """The reference's videos, frames and outputs."""
    return shared_data / "mini_kinetics"


@pytest.fixture(scope="session")
def golden_model(golden: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's checkpoint as a model folder."""
    folder = tmp_path_factory.mktemp("golden") / "model"
    labels = shared_data / "kinetics700_labels.txt"
    return export_checkpoint(golden / "r3d10w025.pth", labels, folder).path


@pytest.fixture(scope="session")
def null_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that only the null backend can use: its network is no network."""
    folder = tmp_path_factory.mktemp("null")
    (folder / "model.onnx").write_bytes(b"no network")
    labels = tuple(f"class {number}" for number in range(10))
    return write_model(ModelFolder(path=folder, name="null", network="model.onnx", labels=labels)).path


@pytest.fixture(scope="session")
def short_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 videos of 18 small frames: two clips each."""
    folder = tmp_path_factory.mktemp("videos")
    write_short_videos(folder, 2000, frames=18, size=(96, 64))
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command; what still runs at the end of the test is killed."""
    running = []

    def begin(*words: object) -> subprocess.Popen[str]:
        running.append(started(*words))
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of the engine's keys and of a host elsewhere, who trust each other."""
    server, host = make_keys(tmp_path / "keys-server"), make_keys(tmp_path / "keys-host")
    trust(server.folder, "host", host.public.decode())
    trust(host.folder, "server", server.public.decode())
    return server.folder, host.folder
