"""The run folder: a journal that survives crashes, results in the reference's format, and no run on top of another."""

from __future__ import annotations

import contextlib
import json
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.errors import ClipmuxError, UsageError, VideoError
from clipmux.engine.messages import Segment
from clipmux.engine.prediction import ClipPrediction, LabelScore, Prediction
from clipmux.workers.results import (
    FAILURES,
    RESULTS,
    SEGMENTS,
    Journal,
    RunFolder,
    hold,
    read_lines,
    recover,
    write_json,
)

ASKED = {"model": "r3d-50", "stride": 16, "per_clip": False}
TOP = (LabelScore("archery", 0.75), LabelScore("bowling", 0.25))
UNICODE = "跳水/Ünïcode \u2028 \"quoted\" 'video' 🤿"


def predicted(video_id: str, **more: Any) -> dict[str, Any]:
    return Prediction(
        video_id, f"/videos/{video_id}.mp4", TOP, clips=2, frames=32, seconds=(0.0, 1.5), **more
    ).to_json()


def failed(video_id: str) -> dict[str, Any]:
    return Prediction(video_id, "/videos/x", error=VideoError("decode", "Truncated", "it ends early")).to_json()


def write(folder: RunFolder, *lines: dict[str, Any]) -> None:
    journal = Journal(folder.path)
    for line in lines:
        journal.write(line)
    journal.close()


def new(path: Path) -> RunFolder:
    return RunFolder(path, decides=ASKED, resume=False)


def held(path: Path, *, resume: bool = False) -> contextlib.AbstractContextManager[RunFolder]:
    return RunFolder.held(path, decides=ASKED, resume=resume)


def resumed(path: Path) -> RunFolder:
    return RunFolder(path, decides=ASKED, resume=True)


def test_the_journal_keeps_outcomes_apart_and_as_they_were(tmp_path: Path) -> None:
    folder = new(tmp_path / "some" / "run")
    lines = [predicted("a"), failed("b"), predicted(UNICODE)]
    write(folder, *lines)
    assert [line for _, line in read_lines(folder.path / RESULTS)] == [lines[0], lines[2]]
    assert [line for _, line in read_lines(folder.path / FAILURES)] == [lines[1]]
    assert resumed(folder.path).outcomes() == {"a": True, "b": False, UNICODE: True}
    for line in lines:
        assert Prediction.from_json(line).to_json() == line


def test_every_line_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    journal = Journal(new(tmp_path / "run").path)
    for number in range(3):
        journal.write(predicted(str(number)))
        assert (tmp_path / "run" / RESULTS).read_bytes().count(b"\n") == number + 1  # without a close or a sync
    journal.close()


@pytest.mark.parametrize("name", [RESULTS, FAILURES])
def test_a_torn_last_line_is_cut_off_and_its_video_runs_again(tmp_path: Path, name: str) -> None:
    line = predicted if name == RESULTS else failed
    folder = new(tmp_path / "run")
    write(folder, line("a"), line("b"))
    file = folder.path / name
    whole = file.read_bytes()
    end_of_first = whole.index(b"\n") + 1
    for size in range(end_of_first, len(whole)):
        file.write_bytes(whole[:size])
        assert resumed(folder.path).outcomes() == {"a": name == RESULTS}
        assert file.read_bytes() == whole[:end_of_first]
    write(folder, line("b"))
    assert file.read_bytes() == whole


@pytest.mark.parametrize("before", [0, 3])
def test_a_torn_line_of_any_length_is_cut_off(tmp_path: Path, before: int) -> None:
    folder = new(tmp_path / "run")
    write(folder, *(predicted(str(number)) for number in range(before)))
    with (folder.path / RESULTS).open("ab") as file:
        file.write(b'{"video_id": "' + b"x" * 200_000)
    assert list(resumed(folder.path).outcomes()) == [str(number) for number in range(before)]
    assert (folder.path / RESULTS).read_bytes().count(b"\n") == before


@pytest.mark.parametrize("line", [b"not json", b"[1]", b"7", b'"video_id"', b'{"video": "a"}', b"null", b"\xff\xfe"])
def test_a_foreign_line_is_named(tmp_path: Path, line: bytes) -> None:
    folder = new(tmp_path / "run")
    write(folder, predicted("a"))
    with (folder.path / RESULTS).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ClipmuxError, match=r"line 2 of .*results\.jsonl"):
        resumed(folder.path).outcomes()


def test_a_failure_among_the_results_is_named(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    (folder.path / RESULTS).write_text(json.dumps(failed("a")) + "\n")
    with pytest.raises(ClipmuxError, match=r"line 1 of '.*results.jsonl' is not a result: remove it"):
        resumed(folder.path).outcomes()


def test_a_retried_failure_counts_as_a_result(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    write(folder, predicted("a"), failed("a"))
    assert folder.outcomes() == {"a": True}


def test_results_have_the_references_format_in_the_given_order(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    write(folder, predicted("b"), predicted(UNICODE), failed("c"), predicted("a"), predicted("not listed"))
    folder.write_results(["a", "missing", "c", UNICODE, "b"])
    results = json.loads((folder.path / "results.json").read_text(encoding="utf-8"))
    entry = [{"label": "archery", "score": 0.75}, {"label": "bowling", "score": 0.25}]
    assert results == {"results": {"a": entry, UNICODE: entry, "b": entry}}
    assert list(results["results"]) == ["a", UNICODE, "b"]
    assert "跳水/Ünïcode" in (folder.path / "results.json").read_text(encoding="utf-8")  # readable, not escaped


def test_results_per_clip_have_the_references_format(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    clips = tuple(
        ClipPrediction(Segment(1 + 16 * i, 17 + 16 * i, (i / 2, i / 2 + 0.5)), TOP[: i + 1]) for i in range(2)
    )
    write(folder, predicted("a", per_clip=clips))
    folder.write_results(["a"])
    results = json.loads((folder.path / "results.json").read_text(encoding="utf-8"))["results"]
    assert results["a"] == [
        {"segment": [1, 17], "result": [{"label": "archery", "score": 0.75}]},
        {"segment": [17, 33], "result": [{"label": "archery", "score": 0.75}, {"label": "bowling", "score": 0.25}]},
    ]


def test_results_of_no_video(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    write(folder, failed("a"))
    folder.write_results(["a"])
    assert json.loads((folder.path / "results.json").read_text()) == {"results": {}}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty: give another --output$"):
        new(tmp_path)
    with pytest.raises(UsageError, match="not a run folder"):
        resumed(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_goes_on_only_when_asked_to(tmp_path: Path) -> None:
    assert new(tmp_path / "run").fresh
    with pytest.raises(UsageError, match="--resume to go on"):
        new(tmp_path / "run")
    assert not resumed(tmp_path / "run").fresh
    assert resumed(tmp_path / "another").fresh  # nothing there yet: it begins


@pytest.mark.parametrize(("key", "value"), [("model", "r3d-18"), ("stride", 8), ("per_clip", True)])
def test_another_run_is_not_gone_on_with(tmp_path: Path, key: str, value: object) -> None:
    new(tmp_path / "run")
    with pytest.raises(UsageError) as refusal:
        RunFolder(tmp_path / "run", decides={**ASKED, key: value}, resume=True)
    assert f"{key} {ASKED[key]!r}, this one {value!r}" in str(refusal.value)


def test_every_difference_is_named(tmp_path: Path) -> None:
    new(tmp_path / "run")
    with pytest.raises(UsageError, match=r"stride 16, this one 8; per_clip False, this one True: resume with the same"):
        RunFolder(tmp_path / "run", decides={**ASKED, "stride": 8, "per_clip": True}, resume=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format": 2}'])
def test_a_run_json_that_is_not_ours(tmp_path: Path, content: str) -> None:
    new(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(UsageError, match="give another --output"):
        resumed(tmp_path / "run")


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("a file")
    return folder / "file" / "run"


def a_file(folder: Path) -> Path:
    return below_a_file(folder).parent


def full_path(folder: Path) -> Path:
    """A folder that can be made, though no file in it can: their paths would be too long for the system (4,096)."""
    while (left := 4090 - len(str(folder))) > 2:
        folder /= "x" * min(left - 1, 200)
    return folder


@pytest.mark.parametrize("where", [below_a_file, a_file, full_path])
@pytest.mark.parametrize("resume", [True, False])
def test_a_place_that_cannot_be_written_is_wrong_usage(
    tmp_path: Path, where: Callable[[Path], Path], resume: bool
) -> None:
    with (
        pytest.raises(UsageError, match=r"cannot be written \(.+\): give another --output"),
        held(where(tmp_path), resume=resume),
    ):
        pass


def test_a_full_disk_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    (folder.path / RESULTS).symlink_to("/dev/full")
    journal = Journal(folder.path)
    with pytest.raises(ClipmuxError, match=r"results\.jsonl' cannot be written \(No space left.*--resume"):
        journal.write(predicted("a"))
    journal.close()


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """The disk takes a part of a line and no more; here it is a limit on the size of files that does."""
    folder = new(tmp_path / "run")
    journal = Journal(folder.path)
    journal.write(predicted("a"))
    whole = (folder.path / RESULTS).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
    try:
        with pytest.raises(ClipmuxError, match=r"cannot be written \(File too large\): make room"):
            journal.write(predicted("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder.path / RESULTS).read_bytes() == whole
    journal.write(predicted("b"))
    journal.close()
    assert list(folder.outcomes()) == ["a", "b"]


def test_a_line_that_nobody_could_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new(tmp_path / "run")
    journal = Journal(folder.path, segments=True)
    longest = len(json.dumps(predicted("a")).encode()) + 1
    monkeypatch.setattr("clipmux.workers.results.LINE_LONGEST", longest)
    journal.write(predicted("a"), {"video_id": "a", "segments": []})
    before = {name: (folder.path / name).read_bytes() for name in (RESULTS, SEGMENTS)}
    with pytest.raises(
        VideoError, match=f"result would take {longest + 1} bytes, {longest} .*: give a smaller --top-k"
    ):
        journal.write(predicted("b", attempt=10), {"video_id": "b", "segments": []})
    with pytest.raises(VideoError, match=r"list of segments would take .*: give a longer --min-duration"):
        journal.write(predicted("b"), {"video_id": "b", "segments": ["x" * longest]})
    assert {name: (folder.path / name).read_bytes() for name in (RESULTS, SEGMENTS)} == before
    journal.close()


@pytest.mark.parametrize("going_on", [False, True])
def test_a_line_that_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, going_on: bool) -> None:
    folder = new(tmp_path / "run")
    write(folder, predicted("a"), predicted("b", attempt=10))
    monkeypatch.setattr("clipmux.workers.results.LINE_LONGEST", len(json.dumps(predicted("a"))) + 1)
    with pytest.raises(ClipmuxError, match=r"line 2 of .*results\.jsonl' is not a result: remove it"):
        list(read_lines(folder.path / RESULTS, going_on=going_on))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_that_was_taken_away_is_noticed(tmp_path: Path, replaced: bool) -> None:
    folder = new(tmp_path / "run")
    journal = Journal(folder.path)
    journal.write(predicted("a"))
    journal.sync()
    folder.path.rename(tmp_path / "elsewhere")
    if replaced:
        folder.path.mkdir()
        (folder.path / RESULTS).touch()
    journal.write(predicted("b"))
    with pytest.raises(
        ClipmuxError, match=r"results\.jsonl' cannot be written \(.*: the run folder was moved or removed"
    ):
        journal.sync()
    with pytest.raises(ClipmuxError, match="was moved or removed"):
        journal.close()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(UsageError, match="another run is writing to"), held(tmp_path / "run", resume=resume):
                pass
    with held(tmp_path / "run", resume=True):
        pass


def test_who_is_kept_out_of_a_folder_leaves_it_as_it_is(tmp_path: Path) -> None:
    """Of two runs that begin together one holds the folder when nothing is in it yet."""
    with (
        hold(tmp_path, shown="here"),
        pytest.raises(UsageError, match="another run is writing to"),
        held(tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_who_reads_the_journal_waits_for_its_last_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new(tmp_path / "run")
    journal = Journal(folder.path)
    journal.write(predicted("a"))
    monkeypatch.setattr("clipmux.workers.results.PATIENCE_S", 0.1)
    for look in (folder.outcomes, lambda: Journal(folder.path), lambda: list(recover(folder.path, {"a"}))):
        with pytest.raises(ClipmuxError, match="another process is writing"):
            look()
    monkeypatch.undo()
    end = threading.Timer(0.2, journal.close)
    end.start()
    assert folder.outcomes() == {"a": True}
    end.join()


def test_what_a_dead_collector_wrote_is_found_for_the_videos_that_are_asked_for(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    write(folder, predicted("a"), failed("b"), predicted("c"))
    with (folder.path / RESULTS).open("ab") as file:
        file.write(b'{"video_id": "d", "path"')  # killed in the middle of a line
    assert list(recover(folder.path, {"b", "c", "d"})) == [predicted("c"), failed("b")]
    assert resumed(folder.path).outcomes() == {"a": True, "b": False, "c": True}


@pytest.mark.parametrize("kept", [0, 1])
def test_results_whose_segments_a_power_cut_took_run_again(tmp_path: Path, kept: int) -> None:
    """Both files are synchronised together, but the system may have written the results back before."""
    folder = new(tmp_path / "run")
    journal = Journal(folder.path, segments=True)
    for video_id in "ab":
        journal.write(predicted(video_id), {"video_id": video_id, "path": "/videos/x", "segments": []})
    journal.close()
    whole = {name: (folder.path / name).read_bytes() for name in (RESULTS, SEGMENTS)}
    first = {name: b"".join(content.splitlines(keepends=True)[:kept]) for name, content in whole.items()}
    for torn in (b"", b'{"video_id": "b", "pa'):
        (folder.path / RESULTS).write_bytes(whole[RESULTS])
        (folder.path / SEGMENTS).write_bytes(first[SEGMENTS] + torn)
        with held(folder.path, resume=True) as again:
            assert list(again.outcomes()) == ["a", "b"][:kept]
        assert {name: (folder.path / name).read_bytes() for name in whole} == first


def test_results_of_a_run_without_segments_stay(tmp_path: Path) -> None:
    write(new(tmp_path / "run"), predicted("a"))
    with held(tmp_path / "run", resume=True) as again:
        assert again.outcomes() == {"a": True}


def test_a_run_that_was_killed_while_it_began_can_begin_again(tmp_path: Path) -> None:
    for left in ("run.log", "run.json.part"):
        (tmp_path / left).touch()
    assert resumed(tmp_path).fresh
    assert not resumed(tmp_path).fresh


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"videos": 1})
    with pytest.raises(TypeError):
        write_json(path, {"videos": object()})
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads(path.read_text()) == {"videos": 1}
    with path.open("rb") as before:
        write_json(path, {"videos": 2})
        assert json.load(before) == {"videos": 1}  # who has it open goes on reading the old one
    assert json.loads(path.read_text()) == {"videos": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_results_that_break_off_leave_the_old_ones(tmp_path: Path) -> None:
    folder = new(tmp_path / "run")
    write(folder, predicted("a"))
    folder.write_results(["a"])
    before = (folder.path / "results.json").read_bytes()
    with (folder.path / RESULTS).open("ab") as file:
        file.write(b"not json\n")
    with pytest.raises(ClipmuxError):
        folder.write_results(["a"])
    assert (folder.path / "results.json").read_bytes() == before


def test_what_began_in_vain_is_removed_and_results_are_not(tmp_path: Path) -> None:
    empty = new(tmp_path / "empty")
    write(empty)
    empty.discard()
    assert not empty.path.exists()
    used = new(tmp_path / "used")
    write(used, predicted("a"))
    used.discard()
    assert [entry.name for entry in used.path.iterdir()] == [RESULTS]


def test_a_run_folder_that_is_a_url_is_refused_and_not_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"'s3://\*\*\*@bucket/run1' is a URL that nothing can be written to"):
            RunFolder(Path("s3://key:hunter2@bucket/run1"), decides=ASKED, resume=resume)
        with pytest.raises(UsageError, match="is a URL"), held(Path("s3://key:hunter2@bucket/run1"), resume=resume):
            pass
    assert not list(tmp_path.iterdir())
