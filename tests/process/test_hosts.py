"""Decoders on other hosts, which are other processes here: they join, leave, die and are lost; nothing else is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import zmq
from command import assert_same, clipmux, lines, results, summary
from elsewhere import Start, children_of, finished, until
from ports import free_ports

from clipmux.bench.videos import write_short_videos
from clipmux.engine.keys import make_keys, read_keys, trust
from clipmux.engine.messages import Failed, Join
from clipmux.engine.sockets import Context, make_addresses, remove_sockets, router
from clipmux.engine.wire import decode_control, encode


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_short_videos(folder, 40, frames=48, size=(96, 64))
    return folder


@pytest.fixture
def at() -> str:
    return f"127.0.0.1:{free_ports(4)}"


def test_hosts_give_what_a_local_run_gives(
    videos: Path, keys: tuple[Path, Path], at: str, start: Start, tmp_path: Path
) -> None:
    """Two hosts, one of which has the videos elsewhere and leaves half-way."""
    local, run, elsewhere = tmp_path / "local", tmp_path / "run", tmp_path / "elsewhere"
    assert clipmux("run", videos, "--model", "demo", "--output", local).returncode == 0
    listed = tmp_path / "listed"
    listed.symlink_to(videos)
    names = [listed / path.name for path in sorted(videos.iterdir())]
    serve = start("serve", *names, "--model", "demo", "--bind", at, "--keys", keys[0], "--output", run)
    first = start("decode", "--connect", at, "--keys", keys[1], "--workers", 2)
    until(finished(run, 3), "the first host brings nothing")
    elsewhere.symlink_to(videos)
    second = start(
        *("decode", "--connect", at, "--keys", keys[1], "--workers", 1),
        *("--moved", f"{listed}={elsewhere}", "--server", "server"),
    )
    until(lambda: (run / "run.log").read_text().count("joined with") == 2, "the second host does not join")
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=30)
    assert (first.returncode, said.splitlines()[-1]) == (0, "left"), said
    _, complained = serve.communicate(timeout=120)
    assert serve.returncode == 0, complained
    _, said = second.communicate(timeout=30)
    assert (second.returncode, said.splitlines()[-1]) == (0, "the run is over"), said
    assert len(lines(run / "results.jsonl")) == 40
    assert_same(results(run), results(local), within=0.0)
    paths = {line["path"] for line in lines(run / "results.jsonl").values()}
    assert paths == {str(name) for name in names}, "results name videos as the server does"
    assert "could not be told" not in (run / "run.log").read_text()


def test_a_host_without_the_files_is_given_their_bytes(
    videos: Path,
    keys: tuple[Path, Path],
    at: str,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The path is one that leads elsewhere in each process. A folder of frames is not given, and says so."""
    local, run = tmp_path / "local", tmp_path / "run"
    assert clipmux("run", videos, "--model", "demo", "--output", local).returncode == 0
    frames = videos / "frames"
    frames.mkdir()
    (frames / "image_00001.jpg").write_bytes(b"no matter")
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        path = "/proc/self/cwd/videos"
        serve = start("serve", path, "--model", "demo", "--bind", at, "--keys", keys[0], "--output", run)
    host = start("decode", "--connect", at, "--keys", keys[1], "--workers", 2, "--fetch")
    _, complained = serve.communicate(timeout=120)
    assert host.wait(30) == 0
    assert serve.returncode == 3, complained
    assert_same(results(run), results(local), within=0.0)
    (failure,) = lines(run / "failures.jsonl").values()
    assert "a folder of frames, which decode --fetch does not fetch" in failure["message"]


def test_clips_as_jpeg_give_nearly_the_same(
    videos: Path, keys: tuple[Path, Path], at: str, start: Start, tmp_path: Path
) -> None:
    """Of a far decoder; one beside inference sends what it has."""
    local, run = tmp_path / "local", tmp_path / "run"
    assert clipmux("run", videos, "--model", "demo", "--output", local).returncode == 0
    words = ["--model", "demo", "--bind", at, "--keys", keys[0], "--wire", "jpeg"]
    serve = start("serve", videos, *words, "--workers", 1, "--output", run)
    host = start("decode", "--connect", at, "--keys", keys[1], "--workers", 1)
    _, complained = serve.communicate(timeout=120)
    assert serve.returncode == 0, complained
    assert host.wait(30) == 0
    found, expected = results(run), results(local)
    assert found != expected
    assert list(found) == list(expected)
    for video, entries in expected.items():  # those that are nearly as likely may change places
        assert found[video][0]["label"] == entries[0]["label"]
        scores = {entry["label"]: entry["score"] for entry in found[video]}
        assert max(abs(scores.get(entry["label"], 0.0) - entry["score"]) for entry in entries) <= 0.05
    assert summary(run)["inference"]["clip_memory"] == "socket"
    again = clipmux("run", videos, "--model", "demo", "--output", run, "--resume")
    assert again.returncode == 2
    assert "wire" in again.stderr


def test_a_killed_host_costs_nothing_but_time(
    videos: Path,
    null_model: Path,
    keys: tuple[Path, Path],
    at: str,
    start: Start,
    tmp_path: Path,
) -> None:
    """Killed is its own process, whose decoders die with it; then one decoder of the other host."""
    run = tmp_path / "run"
    slow = ["--backend", "null", "--null-delay", "0+20", "--max-batch", 8]
    serve = start("serve", videos, "--model", null_model, *slow, "--bind", at, "--keys", keys[0], "--output", run)
    hosts = [start("decode", "--connect", at, "--keys", keys[1], "--workers", 2) for _ in range(2)]
    until(lambda: (run / "run.log").exists() and (run / "run.log").read_text().count("joined with") == 2, "they join")
    until(finished(run, 3), "they bring nothing")
    hosts[0].kill()
    until(finished(run, 8), "the other brings nothing")
    (victim, *_) = children_of(hosts[1].pid)
    os.kill(victim, signal.SIGKILL)
    _, complained = serve.communicate(timeout=120)
    assert serve.returncode == 0, complained
    assert hosts[1].wait(30) == 0
    assert len(lines(run / "results.jsonl")) == 40
    assert len(results(run)) == 40
    assert "was killed by SIGKILL" in (run / "run.log").read_text()


def test_a_host_outlives_its_server_and_goes_on_with_the_next(
    videos: Path,
    null_model: Path,
    keys: tuple[Path, Path],
    at: str,
    start: Start,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = ["serve", videos, "--model", null_model, "--backend", "null", "--bind", at, "--keys", keys[0]]
    host = start("decode", "--connect", at, "--keys", keys[1], "--workers", 1)
    serve = start(*words, "--null-delay", "0+30", "--output", run)
    until(finished(run, 3), "the host brings nothing")
    serve.kill()
    serve.communicate()
    serve = start(*words, "--output", run, "--resume")
    _, complained = serve.communicate(timeout=120)
    assert serve.returncode == 0, complained
    _, said = host.communicate(timeout=30)
    assert host.returncode == 0, said
    assert "is lost: joining again" in said
    assert len(lines(run / "results.jsonl")) == 40


def test_a_host_that_its_server_does_not_know_joins_again(keys: tuple[Path, Path], at: str, start: Start) -> None:
    """As of one that took the place of another between two messages. One that has no use for it ends it."""
    addresses = make_addresses(at, keys[0])
    context: Context = zmq.Context()
    server = router(context, addresses.control)
    host = start("decode", "--connect", at, "--keys", keys[1], "--workers", 1)
    names = []
    while len(names) < 2:
        assert server.poll(20_000), "it does not join"
        name, *frames = server.recv_multipart()
        if isinstance(decode_control(frames), Join):
            names.append(name)
            answer = Failed("it was not heard of for too long") if len(names) == 1 else Failed("no use", usage=True)
            server.send_multipart([name, *encode(answer)])
    _, said = host.communicate(timeout=20)
    context.destroy(linger=0)
    remove_sockets(addresses)
    assert names[0] != names[1]
    assert host.returncode == 1
    assert "has no use for this host: no use" in said


def test_who_is_not_trusted_is_told_what_to_do(
    videos: Path,
    null_model: Path,
    keys: tuple[Path, Path],
    at: str,
    start: Start,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    serve = start(
        "serve", videos, "--model", null_model, "--backend", "null", "--bind", at, "--keys", keys[0], "--output", run
    )
    stranger = make_keys(tmp_path / "stranger")
    trust(stranger.folder, "server", read_keys(keys[0]).public.decode())
    done = clipmux("decode", "--connect", at, "--keys", stranger.folder, "--workers", 1)
    assert done.returncode == 1
    assert "does not trust this host: say there 'clipmux keys trust" in done.stderr
    assert stranger.public.decode() in done.stderr
    until(lambda: "is not trusted" in (run / "run.log").read_text(), "the log says who tried")
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(20) == 130


def test_the_mistakes_one_makes(videos: Path, tmp_path: Path, keys: tuple[Path, Path], at: str) -> None:
    nobody = make_keys(tmp_path / "nobody").folder
    for words, said in (
        (["decode"], "no --connect"),
        (["decode", "--connect", "somewhere", "--keys", keys[1]], "'somewhere' is not an address"),
        (["decode", "--connect", at, "--keys", tmp_path / "none"], "there are no keys"),
        (["decode", "--connect", at, "--keys", nobody], "trusts nobody"),
        (["decode", "--connect", at, "--keys", keys[1], "--server", "other"], "'other' is not trusted"),
        (["decode", "--connect", at, "--keys", keys[1], "--workers", "none"], "--workers is 'none'"),
        (["decode", "--connect", at, "--keys", keys[1], "--moved", "videos"], "give THERE=HERE"),
        (["decode", "--connect", at, "--keys", keys[1], "--fetch", "--moved", "/a=/b"], "give one of them"),
        (["serve", videos, "--model", "demo", "--output", tmp_path / "r", "--keys", tmp_path / "none"], "no keys"),
        (["run", videos, "--model", "demo", "--output", tmp_path / "r", "--workers", "none"], "--workers is 'none'"),
        (["run", videos, "--model", "demo", "--output", tmp_path / "r", "--wire", "jpeg"], "leave it out where clips"),
        (["serve", videos, "--model", "demo", "--output", tmp_path / "r", "--wire", "gif"], "--wire is 'gif'"),
    ):
        done = clipmux(*words)
        assert done.returncode == 2, (words, done.stderr)
        assert said in " ".join(done.stderr.split()), done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_folder_that_other_hosts_cannot_be_told_is_refused(
    videos: Path, tmp_path: Path, keys: tuple[Path, Path], at: str
) -> None:
    strange = tmp_path / os.fsdecode(b"\xff")
    strange.mkdir()
    words = ("serve", videos, "--model", "demo", "--output", tmp_path / "r", "--bind", at, "--keys", keys[0])
    done = clipmux(*words, cwd=strange)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("clipmux: the working folder is '")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()
