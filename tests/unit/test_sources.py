"""What is listed, in which order, under which names; nothing is opened, so most of the videos here are empty files."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from clipmux.engine.errors import MessageError, UsageError, VideoError
from clipmux.engine.messages import VideoFailed
from clipmux.workers import sources
from clipmux.workers.decode import decode
from clipmux.workers.sources import Listing, Video, list_annotated, list_videos, video_at


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(*inputs: str | Path, stdin: str | None = None, names: str = "stem") -> Listing:
    return list_videos([str(given) for given in inputs], stdin=io.StringIO(stdin) if stdin else None, names=names)


def ids(listing: Listing) -> list[str]:
    return [video.video_id for video in listing.videos]


# --- a video ---------------------------------------------------------------------------------------------------------


def test_a_video_survives_the_wire() -> None:
    for video in (
        Video("a", Path("x/a.mp4"), "file"),
        Video("ünï", Path("/x/ünï"), "frames", first=3, last=17, label="tap dancing"),
    ):
        values = json.loads(json.dumps(video.to_dict()))
        assert Video.from_dict(values) == video


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video_id": ""}, "video_id must be a name, not ''"),
        ({"path": 3}, "path must be a string, not 3"),
        ({"kind": "stream"}, "one of file, frames, not 'stream'"),
        ({"first": -1}, "from 0 on, not -1"),
        ({"first": True}, "from 0 on, not True"),
        ({"last": 0}, "from 1 on, or None, not 0"),
        ({"last": 2.0}, "from 1 on, or None, not 2.0"),
        ({"label": 7}, "a string or None, not 7"),
        ({"more": 1}, "missing or unknown: more"),
    ],
)
def test_what_is_no_video_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(MessageError, match=words):
        Video.from_dict({**Video("a", Path("a.mp4"), "file").to_dict(), **change})


def test_what_is_not_even_a_mapping_is_refused() -> None:
    with pytest.raises(MessageError, match="missing or unknown: kind"):
        Video.from_dict({key: value for key, value in Video("a", Path("a"), "file").to_dict().items() if key != "kind"})
    with pytest.raises(MessageError, match="must be a mapping"):
        Video.from_dict(["a"])


def test_video_at(tmp_path: Path) -> None:
    touch(tmp_path, "clip/image_00001.jpg", "a.b.mp4")
    assert video_at(tmp_path / "clip") == Video("clip", tmp_path / "clip", "frames")
    assert video_at(tmp_path / "a.b.mp4") == Video("a.b", tmp_path / "a.b.mp4", "file")
    assert video_at(tmp_path / "none.mp4").kind == "file"
    with pytest.raises(UsageError, match=r"'.*\\udcff.mp4' is not UTF-8"):
        video_at(tmp_path / os.fsdecode(b"\xff.mp4"))


# --- files and folders -----------------------------------------------------------------------------------------------


def test_files_are_listed_as_they_are_given(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.MKV", "odd.bin", "without_ending")
    listing = listed(tmp_path / "b.mp4", tmp_path / "a.MKV", tmp_path / "odd.bin", tmp_path / "without_ending")
    assert ids(listing) == ["b", "a", "odd", "without_ending"]
    assert {video.kind for video in listing.videos} == {"file"}
    assert listing.skipped == []


def test_a_file_that_does_not_exist_is_listed(tmp_path: Path) -> None:
    assert listed(tmp_path / "none.mp4").videos == [Video("none", tmp_path / "none.mp4", "file")]
    assert ids(listed("a\0b.mp4")) == ["a\0b"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("hdfs://host/videos", "hdfs://host/videos"),
        ("ftp://user:hunter2@host/a.mp4", "ftp://***@host/a.mp4"),
        ("ftp://host/a.mp4?token=hunter2", "ftp://host/a.mp4?token=***"),  # "?" is a glob's too
        ("hdfs://host/**/*.mp4", "hdfs://host/**/*.mp4"),
    ],
)
def test_other_urls_are_refused_without_their_credentials(given: str, shown: str) -> None:
    for listing in (lambda: listed(given), lambda: listed("-", stdin=f"{given}\n"), lambda: video_at(Path(given))):
        with pytest.raises(UsageError, match="is a URL of a kind that videos are not read from") as refused:
            listing()
        assert str(refused.value).startswith(f"'{shown}' ")


def test_a_url_is_named_like_a_file_and_shown_without_its_query() -> None:
    one, other = listed("https://user:hunter2@host/x/a.mp4?token=hunter2", "http://host/b%20c.webm").videos
    assert (one.video_id, one.shown) == ("a", "https://***@host/x/a.mp4")
    assert one.url == "https://user:hunter2@host/x/a.mp4?token=hunter2"
    assert other.video_id == "b%20c"
    assert Video.from_dict(one.to_dict()) == one
    for wrong in ("file:///etc/passwd", 7, "x"):
        with pytest.raises(MessageError, match="url"):
            Video.from_dict({**one.to_dict(), "url": wrong})


def test_a_path_of_a_url_as_its_name_holds_nothing_of_its_query() -> None:
    signed = "https://host/x/a.mp4?Signature=abc/hunter2"
    assert ids(listed(signed, names="path")) == ["a.mp4"]


def test_paths_in_a_store_are_below_the_folder_that_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find", lambda _: ["s3://b/videos/x/a.mp4"])
    for given in ("s3://b/videos", "s3://b/videos/", "s3://b/videos/[xy]/*.mp4", "s3://b/videos/?/a.mp4"):
        assert ids(listed(given, names="path")) == ["x/a.mp4"]
    assert ids(listed("s3://b/videos/x/*", names="path")) == ["a.mp4"]


def test_a_folder_may_be_called_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "s3:/bucket/a.mp4")
    assert ids(listed("s3://bucket/a.mp4")) == ids(listed("s3:/bucket/*.mp4")) == ["a"]


def test_a_folder_is_searched_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "clip10.mp4", "clip2.mp4", "clip1.mp4", "Clip3.WEBM", "notes.txt", ".hidden.mp4", ".git/x.mp4")
    touch(tmp_path, "b/z.avi", "a/2.ts", "a/10.ts", "a/deep/er/y.mov", "image.jpg", "thumb_00001.jpg")
    assert [str(video.path.relative_to(tmp_path)) for video in listed(tmp_path).videos] == [
        "Clip3.WEBM",
        "a/2.ts",
        "a/10.ts",
        "a/deep/er/y.mov",
        "b/z.avi",
        "clip1.mp4",
        "clip2.mp4",
        "clip10.mp4",
    ]


def test_folders_may_be_nested_deeper_than_recursion_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = Path(*"d" * (sys.getrecursionlimit() + 100))
    folders = [deep, *deep.parents][:-1]
    for folder in reversed(folders):
        folder.mkdir()
    touch(deep, "a.mp4")
    try:
        assert ids(listed("d")) == ids(listed("d/**/*.mp4")) == ["a"]
    finally:  # whoever clears away goes by recursion
        (deep / "a.mp4").unlink()
        for folder in folders:
            folder.rmdir()


def test_a_folder_named_like_a_video_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, "backup.mp4/a.mp4")
    assert ids(listed(tmp_path)) == ["a"]


def test_frame_folders_are_videos(tmp_path: Path) -> None:
    touch(tmp_path, "run/v1/image_00001.jpg", "run/v1/image_00002.jpg", "run/v2/image_1.png", "run/v2/extra/b.mp4")
    touch(tmp_path, "run/v3/frame_00001.jpg")
    listing = listed(tmp_path)
    assert [(video.video_id, video.kind) for video in listing.videos] == [
        ("v1", "frames"),
        ("v2", "frames"),
        ("b", "file"),
    ]
    alone = listed(tmp_path / "run" / "v1")
    assert alone.videos == [Video("v1", tmp_path / "run" / "v1", "frames")]


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "v1/image_00001.jpg")
    monkeypatch.chdir(tmp_path / "v1")
    assert ids(listed(".")) == ["v1"]
    monkeypatch.chdir(tmp_path)
    assert ids(listed("./")) == ["v1"]
    assert ids(listed(".", names="path")) == ["v1"]


def test_nothing_to_classify(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "sub/.a.mp4")
    with pytest.raises(UsageError, match="there is nothing to classify: name files"):
        listed()
    with pytest.raises(UsageError, match="one of the inputs is empty"):
        listed("")
    with pytest.raises(UsageError, match=f"the folder '{tmp_path}' holds no video"):
        listed(tmp_path)
    with pytest.raises(UsageError, match="names cannot be 'id': give one of stem, path"):
        listed(tmp_path, names="id")


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "lost+found/b.mp4")
    locked = tmp_path / "lost+found"
    locked.chmod(0)
    try:
        if os.access(locked, os.R_OK):
            pytest.skip("this user may read everything")
        listing = listed(tmp_path)
        assert ids(listing) == ["a"]
        assert [name for name, _ in listing.skipped] == [str(locked)]
        with pytest.raises(UsageError, match="cannot be searched"):
            listed(locked)
    finally:
        locked.chmod(0o755)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", os.fsdecode(b"b\xff.mp4"))
    listing = listed(tmp_path)
    assert ids(listing) == ["a"]
    assert listing.skipped == [(f"{tmp_path}/b\\udcff.mp4", "its name is not UTF-8: rename it")]


def test_paths_that_are_too_long_for_a_message(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    long = "x" * 32_765 + ".mp4"
    listing = listed("-", stdin=f"{long}\n{tmp_path / 'a.mp4'}\nhttps://host/{long}\n")
    assert ids(listing) == ["a"]
    assert [name for name, _ in listing.skipped] == [f"{'x' * 80}…", f"https://host/{'x' * 67}…"]
    assert listing.skipped[0][1].startswith("its path has 32,769 characters, and 32,768 at most are possible")


def test_the_longest_path_that_is_possible_can_be_told_of() -> None:
    (video,) = listed("-", stdin=f"{'x' * 32_764}.mp4\n").videos
    with pytest.raises(VideoError) as raised:
        next(iter(decode(video)))
    error = raised.value
    VideoFailed(0, 1, video.video_id, video.shown, error.stage, error.kind, error.message)


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    for folder in ("a", "b"):
        for number in range(5):
            (tmp_path / folder / f"loop{number}").symlink_to("..")
    (tmp_path / "a" / "other").symlink_to("../b")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    assert ids(listed(tmp_path)) == ["1", "2", "self"]
    assert ids(listed(f"{tmp_path}/**")) == ["1", "2", "self"]
    assert ids(listed(f"{tmp_path}/**/*.mp4")) == ["1", "2", "self"]
    assert ids(listed(f"{tmp_path}/*/**/*.mp4")) == ["1", "2", "self"]


def test_links_to_videos_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.mp4", "store/v/image_00001.jpg", "store/more/b.mp4")
    (tmp_path / "list").mkdir()
    for name, to in (("x.mp4", "a.mp4"), ("y", "v"), ("z", "more")):
        (tmp_path / "list" / name).symlink_to(tmp_path / "store" / to)
    assert ids(listed(tmp_path / "list")) == ["x", "y", "b"]


# --- given twice, called the same ------------------------------------------------------------------------------------


def test_the_same_video_twice_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "v/image_00001.jpg")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    monkeypatch.chdir(tmp_path)
    listing = listed("a.mp4", "./a.mp4", tmp_path / "a.mp4", "link.mp4", "v", "v/", tmp_path, "*.mp4", stdin=None)
    assert ids(listing) == ["a", "v"]
    assert len(listing.skipped) == 4 + 3 + 2  # named, in the folder, by the glob
    assert listing.skipped[0] == ("./a.mp4", "it is the same as 'a.mp4'")


def test_two_videos_with_one_id(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "y/a.mp4", "a.mp4")
    with pytest.raises(UsageError, match=f"called 'a' .* '{tmp_path}/a.mp4' and '{tmp_path}/x/a.mp4': .*--names path"):
        listed(tmp_path)
    assert ids(listed(tmp_path, names="path")) == ["a.mp4", "x/a.mp4", "y/a.mp4"]
    with pytest.raises(UsageError, match=r"called 'a.mp4' .*: give the one folder that holds both"):
        listed(tmp_path / "x", tmp_path / "y", names="path")


def test_paths_as_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/x/a.mp4", "in/x/v/image_00001.jpg")
    monkeypatch.chdir(tmp_path)
    assert ids(listed("in", names="path")) == ["x/a.mp4", "x/v"]
    assert ids(listed("in/x/a.mp4", "in/x/v", names="path")) == ["in/x/a.mp4", "in/x/v"]
    assert ids(listed("in/*/*.mp4", names="path")) == ["in/x/a.mp4"]
    assert ids(listed("in/**/a.mp4", names="path")) == ["in/x/a.mp4"]
    assert ids(listed("**/a.mp4", names="path")) == ["in/x/a.mp4"]


# --- globs -----------------------------------------------------------------------------------------------------------


def test_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "v/clip10.mp4", "v/clip2.mp4", "v/b.mkv", "v/notes.txt", "v/x.bin", "v/s/c.mp4", "v/s/.d.mp4")
    touch(tmp_path, "v/f/image_00001.jpg", "w/e.mp4")
    for base in (str(tmp_path), "."):
        monkeypatch.chdir(tmp_path)
        assert ids(listed(f"{base}/v/*.mp4")) == ["clip2", "clip10"]
        assert ids(listed(f"{base}/v/clip?.mp4")) == ["clip2"]
        assert ids(listed(f"{base}/v/[bc]*")) == ["b", "clip2", "clip10"]
        assert ids(listed(f"{base}/v/*.bin")) == ["x"]
        assert ids(listed(f"{base}/v/*")) == ["b", "clip2", "clip10", "f", "c"]
        assert ids(listed(f"{base}/*")) == ["b", "clip2", "clip10", "f", "c", "e"]
        assert ids(listed(f"{base}/**")) == ["b", "clip2", "clip10", "f", "c", "e"]
        assert ids(listed(f"{base}/**/*.mp4")) == ["clip2", "clip10", "c", "e"]
        assert ids(listed(f"{base}/**/*.bin")) == ["x"]
        assert ids(listed(f"{base}/**/s/*")) == ["c"]
        assert ids(listed(f"{base}/**/f")) == ["f"]
        assert ids(listed(f"{base}/?/**/c*.mp4")) == ["clip2", "clip10", "c"]


def test_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "sub/b.txt")
    for pattern in ("*.mp4", "*", "none/*.mp4", "**/*.mp4", "none/**", "**"):
        with pytest.raises(UsageError, match=r"no video matches|holds no video"):
            listed(f"{tmp_path}/{pattern}")


def test_a_path_that_exists_is_no_glob(tmp_path: Path) -> None:
    touch(tmp_path, "clip [1].mp4", "clip 1.mp4", "what?.mp4", "all*/a.mp4", "**/b.mp4")
    assert ids(listed(tmp_path / "clip [1].mp4")) == ["clip [1]"]
    assert ids(listed(tmp_path / "what?.mp4")) == ["what?"]
    assert ids(listed(tmp_path / "all*")) == ["a"]
    assert ids(listed(tmp_path / "**")) == ["b"]


# --- standard input --------------------------------------------------------------------------------------------------


def test_paths_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a b.mp4", "[x]*.mp4", "v/image_00001.jpg", " c.mp4")
    lines = ["a b.mp4", "", "[x]*.mp4", "  ", "v", " c.mp4", "none.mp4"]
    for ending in ("", "\n"):
        listing = listed("-", stdin="\n".join(lines) + ending)
        assert [(str(video.path), video.kind) for video in listing.videos] == [
            ("a b.mp4", "file"),
            ("[x]*.mp4", "file"),
            ("v", "frames"),
            (" c.mp4", "file"),
            ("none.mp4", "file"),
        ]
    assert ids(listed("-", stdin="a b.mp4\r\nv\r\n")) == ["a b", "v"]
    assert ids(listed("v", "-", stdin="a b.mp4")) == ["v", "a b"]


def test_bad_standard_input() -> None:
    with pytest.raises(UsageError, match="there is none"):
        list_videos(["-"], stdin=None)
    with pytest.raises(UsageError, match="held no paths"):
        list_videos(["-"], stdin=io.StringIO("\n \n"))
    with pytest.raises(UsageError, match="is not UTF-8"):
        list_videos(["-"], stdin=io.TextIOWrapper(io.BytesIO(b"a\xff.mp4\n"), encoding="utf-8"))


# --- many ------------------------------------------------------------------------------------------------------------


def test_thousands_of_videos_are_listed(tmp_path: Path) -> None:
    database = {}
    for label in range(60):
        folder = tmp_path / "in" / f"label {label}"
        folder.mkdir(parents=True)
        for number in range(50):
            os.close(os.open(folder / f"{label}_{number}.mp4", os.O_CREAT))
            database[f"{label}_{number}"] = {"subset": "validation", "annotations": {"label": f"label {label}"}}
    annotations = tmp_path / "a.json"
    annotations.write_text(json.dumps({"labels": [], "database": database}))
    assert len(listed(tmp_path / "in").videos) == 3_000
    assert len(list_annotated(annotations, tmp_path / "in").videos) == 3_000


# --- annotations -----------------------------------------------------------------------------------------------------


def write_annotations(folder: Path, database: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps({"labels": ["x"], "database": database}))
    return path


def entry(label: str | None = "x", segment: Any = None, subset: str = "validation", **more: Any) -> dict[str, Any]:
    annotation = {"label": label, "segment": segment}
    return {
        "subset": subset,
        "annotations": {key: value for key, value in annotation.items() if value is not None},
        **more,
    }


def test_golden_annotations(golden: Path) -> None:
    listing = list_annotated(golden / "kinetics.json", golden / "jpg")
    assert len(listing.videos) == 6
    assert [reason for _, reason in listing.skipped] == [
        reason for _, reason in listing.skipped if "there is no" in reason
    ]
    assert len(listing.skipped) == 1
    database = json.loads((golden / "kinetics.json").read_text())["database"]
    for video in listing.videos:
        begin, end = database[video.video_id]["annotations"]["segment"]
        assert (video.kind, video.first, video.last) == ("frames", begin, end - 1)
        assert video.path == golden / "jpg" / str(video.label) / video.video_id
    files = list_annotated(golden / "kinetics.json", golden / "videos")
    assert ids(files) == ids(listing)
    assert {(video.kind, video.first, video.last) for video in files.videos} == {("file", 1, None)}


def test_an_annotated_video_is_a_folder_or_a_file_below_its_label(tmp_path: Path) -> None:
    touch(tmp_path, "x/a/image_00001.jpg", "x/a.mp4", "x/b.v1.MKV", "x/c.avi", "x/c.mp4", "y z/d.webm", "x/e.txt")
    touch(tmp_path, "a/b/f.mp4")
    database = {
        "c": entry(),
        "a": entry(segment=[3, 9]),
        "b.v1": entry(segment=[1, 300]),
        "d": entry("y z"),
        "f": entry("a/b"),
        "e": entry(),
    }
    listing = list_annotated(write_annotations(tmp_path, database), tmp_path)
    assert listing.videos == [
        Video("c", tmp_path / "x" / "c.avi", "file", label="x"),
        Video("a", tmp_path / "x" / "a", "frames", 3, 8, "x"),
        Video("b.v1", tmp_path / "x" / "b.v1.MKV", "file", label="x"),
        Video("d", tmp_path / "y z" / "d.webm", "file", label="y z"),
        Video("f", tmp_path / "a" / "b" / "f.mp4", "file", label="a/b"),
    ]
    assert listing.skipped == [("e", f"there is no '{tmp_path}/x/e', nor a video file of that name")]


def test_a_video_path_wins(tmp_path: Path) -> None:
    touch(tmp_path, "root/x/a.mp4", "root/other/b.bin", "root/frames/image_00001.jpg", "away/c.mp4", "root/none/n.txt")
    root = tmp_path / "root"
    database = {
        "a": entry(video_path="other/b.bin"),
        "f": entry(None, [1, 5], video_path="frames"),
        "c": entry(video_path=str(tmp_path / "away" / "c.mp4")),
        "m": entry(video_path="other/missing.mp4"),
        "n": entry(video_path="none"),
    }
    listing = list_annotated(write_annotations(tmp_path, database), root)
    assert [video.path for video in listing.videos] == [
        root / "other/b.bin",
        root / "frames",
        tmp_path / "away" / "c.mp4",
    ]
    assert listing.videos[1] == Video("f", root / "frames", "frames", 1, 4, None)
    assert listing.skipped == [
        ("m", f"there is no '{root}/other/missing.mp4'"),
        ("n", f"'{root}/none' holds no frames"),
    ]


def test_entries_that_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/b.mp4", "x/v/image_00001.jpg", "x/empty/n.txt")
    database = {
        "a": entry(),
        "b": entry(segment=[1, 1]),  # the reference's sign for a video that could not be extracted
        "v": entry(segment=[5, 5]),
        "train": entry(subset="training"),
        "empty": entry(),
        "nolabel": entry(None),
        "null\0": entry(),
        "half\ud800": entry(),
    }
    listing = list_annotated(write_annotations(tmp_path, database), tmp_path)
    assert ids(listing) == ["a"]
    reasons = dict(listing.skipped)
    assert reasons["b"] == "its segment [1, 1] holds no frame"
    assert reasons["v"] == "its segment [5, 5] holds no frame"
    assert reasons["empty"] == f"'{tmp_path}/x/empty' holds no frames"
    assert reasons["nolabel"] == "it has neither a label nor a video_path to find it by"
    assert "there is no" in reasons["null\0"]
    assert reasons["half\\ud800"] == "its name is not UTF-8"
    assert "train" not in reasons


def test_other_subsets(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/b.mp4")
    path = write_annotations(tmp_path, {"a": entry(), "b": entry(subset="training"), "c": {"annotations": {}}})
    assert ids(list_annotated(path, tmp_path, subset="training")) == ["b"]
    with pytest.raises(UsageError, match="no subset 'testing': give --subset as one of training, validation"):
        list_annotated(path, tmp_path, subset="testing")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no 'database'"),
        ("{}", "has no 'database'"),
        ('{"database": {}}', "has no 'database'"),
        ('{"database": {"a": 3}}', "has 3 as the entry of 'a'"),
        ('{"database": {"a": {"subset": ["validation"]}}}', "no subset 'validation': give --subset as one of none"),
        ('{"database": {"a": {"subset": "validation", "annotations": []}}}', r"has annotations \[\] for 'a'"),
        ('{"database": {"a": {"subset": "validation", "annotations": {"label": 3}}}}', "has the label 3 for 'a'"),
        (
            '{"database": {"a": {"subset": "validation", "annotations": {"label": "x", "segment": [1]}}}}',
            r"has the segment \[1\] for 'a'",
        ),
        ('{"database": {"a": {"subset": "validation", "video_path": 3}}}', "has the video_path 3 for 'a'"),
        ('{"database": {"a": {"subset": "validation"}}}', "none of the 1 'validation' videos .* can be classified"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        list_annotated(path, tmp_path)


def test_annotations_or_a_root_that_is_not_there(tmp_path: Path) -> None:
    path = write_annotations(tmp_path, {"a": entry()})
    with pytest.raises(UsageError, match=r"cannot read annotations from '.*none.json'"):
        list_annotated(tmp_path / "none.json", tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder '.*none': give .* --root"):
        list_annotated(path, tmp_path / "none")
    with pytest.raises(UsageError, match=r"none of the 1 'validation' videos .* check --root"):
        list_annotated(path, tmp_path)


def test_seconds_do_for_files_but_not_for_folders(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/v/image_00001.jpg")
    assert ids(list_annotated(write_annotations(tmp_path, {"a": entry(segment=[0.5, 9.5])}), tmp_path)) == ["a"]
    with pytest.raises(UsageError, match="give frame numbers"):
        list_annotated(write_annotations(tmp_path, {"v": entry(segment=[0.5, 9.5])}), tmp_path)


def test_frame_numbers_that_no_message_can_hold_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/v/image_00001.jpg")
    with pytest.raises(
        UsageError, match=r"the segment \[1, 1000000000000000000000\] for 'v': give frame numbers up to"
    ):
        list_annotated(write_annotations(tmp_path, {"v": entry(segment=[1, 10**21])}), tmp_path)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4")
    path = write_annotations(tmp_path, {"a": entry()})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert ids(list_annotated(path, tmp_path)) == ["a"]
