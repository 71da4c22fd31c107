"""Run folders in an object store: what a run on a disk has, once, whatever dies and whoever else writes."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import assert_same, clipmux, lines, results, started

from clipmux.bench.videos import write_short_videos
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.workers import stored
from clipmux.workers.results import FAILURES, RESULTS, SEGMENTS, Journal, RunFolder
from clipmux.workers.stored import Store, TakenError, UnreachableError, stored_folder

RUN = "s3://bucket/runs/first"
ASKED = {"model": "m", "stride": 16}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clipmux" / "runs"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "videos"
    write_short_videos(folder, 60, frames=48, size=(96, 64))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def downloaded(bucket: Any, path: Path, run: str = "bucket/runs/first") -> Path:
    """The folder as a person gets it who copies it."""
    bucket.get(f"{run}/", f"{path}/", recursive=True)
    return path


def one_each(lines_of: dict[str, Any], videos: Path) -> None:
    assert set(lines_of) == {video.stem for video in videos.iterdir()} - {"broken"}


def test_it_holds_what_a_run_folder_on_a_disk_holds(bucket: Any, videos: Path, tmp_path: Path, cache: Path) -> None:
    words = ["run", videos, "--model", "demo", "--segments", "--output"]
    assert clipmux(*words, tmp_path / "local").returncode == 3
    done = clipmux(*words, RUN)
    assert done.returncode == 3, done.stderr
    assert f"results are in {RUN}" in done.stderr
    local, there = tmp_path / "local", downloaded(bucket, tmp_path / "there")
    assert {entry.name for entry in there.iterdir()} == {entry.name for entry in local.iterdir()} | {"parts"}
    assert_same(results(there), results(local), within=0.0)
    for name in (RESULTS, FAILURES, SEGMENTS):
        assert set(lines(there / name)) == set(lines(local / name))
    assert lines(there / SEGMENTS) == lines(local / SEGMENTS)
    assert [list(folder.iterdir()) for folder in cache.iterdir()] == [[]], "the disk is as empty as before"

    tables = [clipmux("results", run, "--format", "csv").stdout.splitlines() for run in (RUN, local)]
    assert sorted(tables[0]) == sorted(tables[1])
    assert len(tables[0]) == 62

    again = clipmux(*words, RUN)
    assert again.returncode == 2
    assert f"the run folder '{RUN}' is not empty: give another --output, or --resume to go on with it" in again.stderr
    other = clipmux(*words, RUN, "--resume", "--stride", 8)
    assert other.returncode == 2
    assert f"the run in '{RUN}' has stride 16, this one 8" in other.stderr
    assert [list(folder.iterdir()) for folder in cache.iterdir()] == [[]]
    resumed = clipmux(*words, RUN, "--resume")
    assert resumed.returncode == 3, resumed.stderr
    assert f"61 of 61 videos are done in '{RUN}' already" in resumed.stderr


def test_what_is_wrong_is_said_before_anything_starts(bucket: Any, videos: Path, tmp_path: Path) -> None:
    bucket.pipe("bucket/notes/a.txt", b"mine")
    for output, said in (
        ("s3://nowhere/run", "the run folder 's3://nowhere/run' cannot be"),
        ("s3://bucket/notes", "the run folder 's3://bucket/notes' is not empty: give another --output"),
        ("https://example.org/run", "is a URL that nothing can be written to: give a folder, or one of a store"),
    ):
        done = clipmux("run", videos, "--model", "demo", "--output", output, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert said in done.stderr
    no_run = clipmux("results", "s3://bucket/notes")
    assert no_run.returncode == 2
    assert "'s3://bucket/notes' is not a run folder" in no_run.stderr
    refused = clipmux("run", videos, "--model", "demo", "--output", RUN, "--device", "mlu:0", "--backend", "openvino")
    assert refused.returncode == 2, refused.stderr
    assert not bucket.exists("bucket/runs/first/run.json"), "what began in vain is not there"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on the same machine", "on another machine"])
def test_a_killed_run_goes_on(
    elsewhere: bool, bucket: Any, videos: Path, null_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store has counts; on the machine that it was killed on, all that was done."""
    words = ["run", videos, "--model", null_model, "--backend", "null", "--max-batch", 1, "--null-delay", "80+0"]
    words += ["--segments", "--output", RUN]
    process = started(*words)
    deadline = time.monotonic() + 60
    while not bucket.exists("bucket/runs/first/parts/00000001"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (working,) = (tmp_path / "cache" / "clipmux" / "runs").iterdir()
    done = (working / RESULTS).read_bytes().count(b"\n")
    wait_for(lambda: (working / RESULTS).read_bytes().count(b"\n") > done + 3)  # which is only here
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(children, timeout=30)
    if elsewhere:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        put = b"".join(bucket.cat(f"bucket/runs/first/parts/{part}") for part in parts(bucket)).decode()
        kept = sum(line.partition("\t")[0] in (RESULTS, FAILURES) for line in put.splitlines())
        assert len(clipmux("results", RUN).stdout.splitlines()) == kept
    else:
        kept = len(lines(working / RESULTS)) + len(lines(working / FAILURES))
    assert 3 < kept < 61
    done = clipmux(*words, "--resume", "--null-delay", "0+0")
    assert done.returncode == 3, done.stderr
    assert f"{kept} of 61 videos are done in '{RUN}' already" in done.stderr
    there = downloaded(bucket, tmp_path / "there")
    one_each(lines(there / RESULTS), videos)
    assert list(lines(there / SEGMENTS)) == list(lines(there / RESULTS))
    assert list(lines(there / FAILURES)) == ["broken"]
    one_each(results(there), videos)


# -- the writing itself: a real store, and a journal that is written here ----------------------------------------------


def predicted(video: str) -> dict[str, Any]:
    return {
        "video_id": video,
        "path": f"/videos/{video}.mp4",
        "result": [{"label": "a", "score": 1.0}],
        "clips": 1,
        "frames": 16,
        "seconds": [0.0, 0.64],
        "attempt": 1,
    }


@contextlib.contextmanager
def opened(*, resume: bool = False, every_s: float = 0.05) -> Iterator[RunFolder]:
    with stored_folder(RUN, decides=ASKED, resume=resume, every_s=every_s) as folder:
        yield folder


def write(folder: RunFolder, *videos: str, segments: bool = False) -> None:
    journal = Journal(folder.path, segments=segments)
    for video in videos:
        found = {"video_id": video, "path": f"/videos/{video}.mp4", "segments": []}
        journal.write(predicted(video), found if segments else None)
    journal.close()


def parts(bucket: Any) -> list[str]:
    return sorted(Path(name).name for name in bucket.find("bucket/runs/first/parts"))


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))


def test_of_two_runs_one_is_told_that_the_other_writes(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as first:
        write(first, "a")
        wait_for(lambda: parts(bucket) == ["00000001"])
        with pytest.raises(UsageError, match="another run is writing to"), opened(resume=True):
            pass  # on one machine it is known at once
        on_machine("other", tmp_path, monkeypatch)
        with pytest.raises(TakenError, match="another run is writing to"), opened(resume=True) as second:  # noqa: PT012
            assert second.outcomes() == {"a": True}
            write(first, "b")
            wait_for(lambda: len(parts(bucket)) == 2)
            write(second, "c")
            wait_for(lambda: _raises(second))
            second.check()
        first.check()
    assert set(lines(downloaded(bucket, tmp_path / "there") / RESULTS)) == {"a", "b"}


def _raises(folder: RunFolder) -> bool:
    try:
        folder.check()
    except ClipmuxError:
        return True
    return False


def test_a_run_that_stood_still_while_another_ended_it_puts_nothing_over_it(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has nothing left to tell but that it is at its end."""
    with pytest.raises(TakenError), opened() as first:  # noqa: PT012
        write(first, "a")
        wait_for(lambda: parts(bucket) == ["00000001"])
        on_machine("other", tmp_path, monkeypatch)
        with opened(resume=True) as second:
            write(second, "b")
    assert set(lines(downloaded(bucket, tmp_path / "there") / RESULTS)) == {"a", "b"}


def test_a_store_that_cannot_be_reached_holds_up_nothing_and_nothing_is_lost(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stored, "LAST_TRIES_S", 0.5)
    with pytest.raises(UnreachableError, match="and get there with --resume"), opened() as folder:  # noqa: PT012
        write(folder, "a")
        wait_for(lambda: parts(bucket) == ["00000001"])
        saved = {name: bucket.cat(name) for name in bucket.find("bucket/runs/first")}
        bucket.rm("bucket", recursive=True)
        write(folder, "b")
        wait_for(lambda: "it is tried again" in caplog.text)
        folder.check()
    bucket.mkdir("bucket")
    for name, content in saved.items():
        bucket.pipe(name, content)
    with opened(resume=True) as folder:
        assert folder.outcomes() == {"a": True, "b": True}
    assert set(lines(downloaded(bucket, tmp_path / "there") / RESULTS)) == {"a", "b"}


def test_an_answer_that_got_lost_is_no_other_run(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Store.create
    lost = []

    def create_and_lose(self: Store, name: str, content: bytes) -> None:
        create(self, name, content)
        if name.startswith("parts/") and name not in lost:
            lost.append(name)
            raise UnreachableError("the answer is lost")

    monkeypatch.setattr(Store, "create", create_and_lose)
    with opened() as folder:
        write(folder, "a")
        wait_for(lambda: parts(bucket) == ["00000001"])
        write(folder, "b")
        wait_for(lambda: parts(bucket) == ["00000001", "00000002"])
    assert len(lost) == 3
    assert set(lines(downloaded(bucket, tmp_path / "there") / RESULTS)) == {"a", "b"}


def test_a_working_folder_that_is_taken_away_takes_nothing_from_the_store(bucket: Any, tmp_path: Path) -> None:
    with opened() as folder:
        write(folder, "a")
        wait_for(lambda: parts(bucket) == ["00000001"])
        shutil.rmtree(folder.path)
    with opened(resume=True) as folder:
        assert folder.outcomes() == {"a": True}
    bucket.rm("bucket/runs/first/parts", recursive=True)
    with opened(resume=True) as folder:
        shutil.rmtree(folder.path)
    with opened(resume=True) as folder:
        assert folder.outcomes() == {"a": True}


def test_a_store_that_writes_over_what_is_there_is_refused(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: Store, name: str, content: bytes) -> None:
        bucket.pipe_file(f"bucket/runs/first/{name}", content)

    monkeypatch.setattr(Store, "create", overwrite)
    with pytest.raises(UsageError, match="writes over what is there when asked not to"), opened():
        pass
    assert not bucket.find("bucket/runs")


def test_parts_of_an_ended_run_may_be_removed(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as folder:
        write(folder, "a", "b", segments=True)
    bucket.rm("bucket/runs/first/parts", recursive=True)
    for number, video in enumerate(("c", "d")):
        on_machine(str(number), tmp_path, monkeypatch)
        with opened(resume=True) as folder:
            assert len(folder.outcomes()) == 2 + number
            write(folder, video, segments=True)
    there = downloaded(bucket, tmp_path / "there")
    assert list(lines(there / RESULTS)) == list(lines(there / SEGMENTS)) == ["a", "b", "c", "d"]
    bucket.rm("bucket/runs/first/parts/00000001")
    with pytest.raises(ClipmuxError, match=f"'{RUN}/parts/00000001' is missing"), opened(resume=True):
        pass


def test_segments_that_a_dead_collector_left_alone_come_once(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened() as folder:
        write(folder, "a", segments=True)
        wait_for(lambda: parts(bucket) == ["00000001"])
        with (folder.path / SEGMENTS).open("a") as file:
            file.write('{"video_id": "b", "path": "/videos/b.mp4", "segments": [{"left": "alone"}]}\n')
        write(folder, "c", "b", segments=True)
    on_machine("other", tmp_path, monkeypatch)
    with opened(resume=True) as folder:
        assert list(lines(folder.path / SEGMENTS)) == list(lines(folder.path / RESULTS)) == ["a", "c", "b"]
        assert "left" not in (folder.path / SEGMENTS).read_text()


def test_a_result_whose_segments_a_power_cut_took_runs_again(bucket: Any, tmp_path: Path) -> None:
    with opened() as folder:
        write(folder, "a", segments=True)
        wait_for(lambda: parts(bucket) == ["00000001"])
        working = folder.path
        left = {name: (working / name).read_bytes() for name in ("run.json", RESULTS, SEGMENTS)}
    for name, content in left.items():  # as a killed run would have left it
        (working / name).write_bytes(content)
    bucket.rm("bucket/runs/first/parts/00000002")  # of its end
    for name in (RESULTS, FAILURES, SEGMENTS):
        bucket.rm(f"bucket/runs/first/{name}")
    with (working / RESULTS).open("a") as file:
        file.write(json.dumps(predicted("b")) + "\n")
    with opened(resume=True) as folder:
        assert list(folder.outcomes()) == ["a"]
        write(folder, "b", segments=True)
    there = downloaded(bucket, tmp_path / "there")
    assert list(lines(there / RESULTS)) == list(lines(there / SEGMENTS)) == ["a", "b"]


def test_a_long_journal_goes_in_several_parts(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PART_LONGEST", 400)
    names = [f"v{number}" for number in range(20)]
    with opened(every_s=60) as folder:
        write(folder, *names)
    assert len(parts(bucket)) > 5
    on_machine("other", tmp_path, monkeypatch)
    with opened(resume=True) as folder:
        assert list(folder.outcomes()) == names


@pytest.mark.parametrize(
    "content",
    [b"", b"{}\n", b"part\t[]\n", b'part\t{"after": {"results.jsonl": -1}}\n', b"\xff", b"part\t" + b"[" * 5000],
    ids=["empty", "no head", "no object", "no length", "no text", "deep"],
)
def test_a_part_that_is_none_is_named(content: bytes, bucket: Any) -> None:
    with opened() as folder:
        write(folder, "a")
    bucket.pipe("bucket/runs/first/parts/00000001", content)
    with pytest.raises(ClipmuxError, match=f"'{RUN}/parts/00000001' is not a part of a run"), opened(resume=True):
        pass


def test_lines_of_a_part_are_of_the_journal(bucket: Any) -> None:
    with opened() as folder:
        write(folder, "a")
    head = bucket.cat("bucket/runs/first/parts/00000001").splitlines(keepends=True)[0]
    for line in (b"../../x\t{}\n", b"results.jsonl\t{}", b"run.json\t{}\n"):
        bucket.pipe("bucket/runs/first/parts/00000001", head + line)
        with pytest.raises(ClipmuxError, match="is not a part of a run"), opened(resume=True):
            pass


def test_keys_in_a_url_are_shown_nowhere(bucket: Any, tmp_path: Path) -> None:
    with (
        contextlib.suppress(UsageError),
        stored_folder("s3://me:hunter2@bucket/run", decides=ASKED, resume=False) as folder,
    ):
        assert "hunter2" not in folder.shown
        assert "hunter2" not in folder.log.read_text() + (folder.path / "run.json").read_text()
