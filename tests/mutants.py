"""Spoilt videos of every container: ``python tests/mutants.py --count 2000`` writes them, runs them, and counts.

Truncated, bit-flipped, spliced, with other sizes, with headers that lie, under another's name, and playlists that point
at local files and at a server of ours. Good videos lie between them. The run is in a network namespace of its own where
that can be had, so that every packet that leaves is counted, to the loopback address too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import av.logging
import media
import pytest
from command import CLIPMUX, lines, summary
from namespaces import HERE, joined, sent_packets

from clipmux.engine.model import ModelFolder, write_model
from clipmux.workers.sources import ENDINGS

WIDTH, HEIGHT, FRAMES = 64, 48, 20
EVERY = 10
"""One good video for so many mutants."""
DECODER_MIB = 1024
DECODE_TIMEOUT_S = 30
PORT = 7700

CODECS = {
    ".3g2": "mpeg4", ".3gp": "mpeg4", ".asf": "wmv2", ".avi": "mpeg4", ".divx": "mpeg4", ".dv": "dvvideo",
    ".f4v": "libx264", ".flv": "flv", ".gif": "gif", ".h264": "libx264", ".h265": "libx265",
    ".hevc": "libx265", ".ivf": "libvpx", ".m2ts": "libx264", ".m2v": "mpeg2video", ".m4v": "mpeg4",
    ".mjpeg": "mjpeg", ".mjpg": "mjpeg", ".mkv": "libx264",
    ".mov": "mjpeg", ".mp4": "libx264", ".mpe": "mpeg1video", ".mpeg": "mpeg1video", ".mpg": "mpeg2video",
    ".mts": "libx264", ".mxf": "mpeg2video", ".nut": "ffv1", ".ogv": "libvpx", ".rm": "rv20", ".rmvb": "rv10",
    ".ts": "mpeg2video", ".vob": "mpeg2video", ".webm": "libvpx-vp9", ".wmv": "wmv2", ".y4m": "rawvideo",
}  # fmt: skip
"""What is in the good file of each ending."""
FORMATS = {
    ".divx": "avi", ".f4v": "f4v", ".h265": "hevc", ".m4v": "mp4", ".mjpg": "mjpeg", ".mpe": "mpeg", ".rmvb": "rm",
    ".y4m": "yuv4mpegpipe",
}  # fmt: skip
PIXELS = {"gif": "rgb8", "mjpeg": "yuvj420p"}
SIZES = {"dvvideo": (720, 576), "rv10": (176, 144), "rv20": (176, 144)}
OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def good_files(folder: Path) -> dict[str, bytes]:
    """A good video of every ending that this PyAV can write."""
    folder.mkdir(parents=True)
    found = {}
    for ending, codec in CODECS.items():
        if not media.has_encoder(codec):
            continue
        width, height = SIZES.get(codec, (WIDTH, HEIGHT))
        pictures = media.moving(4 if codec == "dvvideo" else FRAMES, width, height)
        path = media.write_video(
            folder / f"good{ending}",
            pictures,
            codec=codec,
            pix_fmt=PIXELS.get(codec, "yuv420p"),
            options=OPTIONS.get(codec),
            container_format=FORMATS.get(ending),
        )
        found[ending] = path.read_bytes()
    return found


# --- ways to spoil a file --------------------------------------------------------------------------------------------


def truncated(good: bytes, _: bytes, random: Random) -> bytes:
    return good[: random.randrange(1, len(good))]


def flipped(good: bytes, _: bytes, random: Random) -> bytes:
    spoilt = bytearray(good)
    for _ in range(random.choice((1, 4, 16, 64, 256))):
        spoilt[random.randrange(len(spoilt))] ^= 1 << random.randrange(8)
    return bytes(spoilt)


def spliced(good: bytes, other: bytes, random: Random) -> bytes:
    return good[: random.randrange(1, len(good))] + other[random.randrange(len(other)) :]


def shuffled(good: bytes, _: bytes, random: Random) -> bytes:
    size = random.choice((188, 512, 4096))
    blocks = [good[at : at + size] for at in range(0, len(good), size)]
    first = random.choice((0, 1, 2))
    rest = blocks[first:]
    random.shuffle(rest)
    return b"".join(blocks[:first] + rest)


def resized(good: bytes, _: bytes, random: Random) -> bytes:
    """Other numbers wherever the head may state width or height, in either order of bytes."""
    spoilt = bytearray(good)
    size = random.choice(((65535, 65535), (32768, 32768), (16384, 16384), (0, 0), (1, 1), (8192, 2), (640, 480)))
    for number, new in ((WIDTH, size[0]), (HEIGHT, size[1]), (176, size[0]), (144, size[1])):
        for length, order in ((4, "big"), (4, "little"), (2, "big"), (2, "little")):
            at = spoilt.find(number.to_bytes(length, order), 0, 4096)
            while at >= 0 and random.random() < 0.7:
                spoilt[at : at + length] = new.to_bytes(length, order)
                at = spoilt.find(number.to_bytes(length, order), at + length, 4096)
    return bytes(spoilt) if spoilt != good else lying(good, good, random)


def lying(good: bytes, _: bytes, random: Random) -> bytes:
    """A field or two of the head says the most, the least, or something else."""
    spoilt = bytearray(good)
    for _ in range(random.choice((1, 2, 4))):
        length = random.choice((2, 4, 8))
        at = random.randrange(max(1, min(len(spoilt), 2048) - length))
        spoilt[at : at + length] = random.choice((b"\xff" * length, b"\x7f" + b"\xff" * (length - 1), bytes(length)))
    return bytes(spoilt)


def doubled(good: bytes, _: bytes, random: Random) -> bytes:
    return good * random.choice((2, 3, 20))


def disguised(_: bytes, other: bytes, random: Random) -> bytes:
    return other


def noise(good: bytes, _: bytes, random: Random) -> bytes:
    return random.choice((b"", bytes(4096), random.randbytes(4096), good[:64] + random.randbytes(4096)))


WAYS: tuple[Callable[[bytes, bytes, Random], bytes], ...] = (
    *(truncated, truncated, flipped, flipped, flipped, spliced, spliced, shuffled),
    *(resized, resized, lying, lying, lying, doubled, disguised, noise),
)


def playlists(url: str, file: str) -> dict[str, str]:
    """Files that lead elsewhere, by names that look like a video's."""
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\n"
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" codecs="avc1.42c00d">'
        "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    port = url.rpartition(":")[2].partition("/")[0]
    made = {"sdp.mp4": sdp.format(port), "sdp.ts": sdp.format(port)}
    for kind, target in (("url", url), ("file", file), ("named", f"file:{file}")):
        key = f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF'
        made[f"hls-{kind}.mp4"] = made[f"hls-{kind}.mkv"] = hls.format(target)
        made[f"hls-key-{kind}.ts"] = hls.format("a.ts").replace("#EXTINF", key)
        made[f"concat-{kind}.mkv"] = f"ffconcat version 1.0\nfile '{target}'\n"
        made[f"dash-{kind}.mp4"] = dash.format(target)
        made[f"ref-{kind}.mov"] = f"[Reference]\nRef1={target}\n"
        made[f"smil-{kind}.rm"] = f'<smil><body><video src="{target}"/></body></smil>'
        made[f"asx-{kind}.wmv"] = f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>'
    return made


def write_mutants(folder: Path, good: dict[str, bytes], count: int, seed: int) -> None:
    """``count`` spoilt files, all playlists, and good ones between them."""
    folder.mkdir(parents=True)
    random = Random(seed)  # noqa: S311  (the same every time)
    endings = sorted(good)
    for number in range(count):
        ending, way = endings[number % len(endings)], random.choice(WAYS)
        content = way(good[ending], good[random.choice(endings)], random)
        (folder / f"{number:05d}-{way.__name__}{ending}").write_bytes(content)
        if number % EVERY == 0:
            (folder / f"{number:05d}-good{ending}").write_bytes(good[ending])
    for name, content in playlists(f"http://127.0.0.1:{PORT}/a.mp4", str(folder / "00000-good.3g2")).items():
        (folder / f"playlist-{name}").write_text(content)
    for name, content in playlists(f"http://{HERE}:{PORT}/a.mp4", "00000-good.3g2").items():
        (folder / f"playlist-near-{name}").write_text(content)


# --- a run over them -------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What came of a run over mutants."""

    mutants: int = 0
    containers: int = 0
    neighbours: int = 0
    classified: int = 0
    listed: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    seconds: float = 0.0
    decoder_peak_mib: int = 0
    watched: str = ""
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watched() -> Iterator[tuple[list[str], Callable[[], int], str]]:
    """How to start a program so that it is watched, how many connections or packets it made, and what watches."""
    with contextlib.ExitStack() as stack:
        try:
            namespace, _ = stack.enter_context(joined())
        except pytest.skip.Exception as reason:
            server = stack.enter_context(socket.create_server(("127.0.0.1", PORT)))
            server.setblocking(False)

            def came() -> int:
                with contextlib.suppress(BlockingIOError):
                    server.accept()
                    return 1
                return 0

            yield [], came, f"a listener at the address that playlists name ({reason})"
            return
        before = sent_packets(namespace)
        prefix = ["ip", "netns", "exec", namespace]
        yield prefix, lambda: sent_packets(namespace) - before, "every packet in a network namespace of its own"


def run_mutants(scratch: Path, *, count: int, seed: int, timeout_s: float) -> Report:
    """Write mutants, run ``clipmux run`` over them, and look at everything that was promised."""
    av.logging.set_level(None)
    report = Report()
    good = good_files(scratch / "good")
    report.containers = len(good)
    videos, output, model = scratch / "videos", scratch / "run", scratch / "model"
    write_mutants(videos, good, count, seed)
    model.mkdir()
    (model / "model.onnx").write_bytes(b"no network")
    write_model(ModelFolder(path=model, name="null", network="model.onnx", labels=("a", "b", "c")))
    alone = _run([], scratch / "good", model, scratch / "alone", timeout_s)
    if alone.returncode != 0:
        report.wrong.append(f"the good files alone: exit status {alone.returncode}, {alone.stderr[-2000:]}")
        return report
    expected = {path.rpartition(".")[2]: line for path, line in lines(scratch / "alone" / "results.jsonl").items()}
    began = time.monotonic()
    with watched() as (prefix, came, report.watched):
        done = _run(prefix, videos, model, output, timeout_s)
        if sent := came():
            report.wrong.append(f"{sent} connections or packets")
    report.seconds = time.monotonic() - began
    if done.returncode != 3 or "Traceback" in done.stderr:
        report.wrong.append(f"exit status {done.returncode}: {done.stderr[-2000:]}")
        return report
    results, failures = lines(output / "results.jsonl"), lines(output / "failures.jsonl")
    for path in sorted(videos.iterdir()):
        if "good" in path.name and not path.name.startswith("playlist"):
            report.neighbours += 1
            wanted = expected[path.suffix[1:]]
            found = results.get(path.name)
            if found is None or any(found[key] != wanted[key] for key in ("frames", "clips", "result", "seconds")):
                report.wrong.append(f"the good video {path.name} was lost, or came out differently")
            continue
        report.mutants += 1
        if path.name in results:
            report.classified += 1
            if path.name.startswith("playlist"):
                report.wrong.append(f"{path.name} led to another file")
        elif path.name in failures and failures[path.name]["message"]:
            report.listed[failures[path.name]["error"]] += 1
        else:
            report.wrong.append(f"{path.name} has no outcome")
    if hung := report.listed["Timeout"]:
        report.wrong.append(f"{hung} hung")
    said = summary(output)
    report.restarts = said["restarts"]
    peaks = [item["bytes"] for item in said["peak_rss_bytes"] if item["process"] == "decoder"]
    report.decoder_peak_mib = max(peaks) >> 20
    if report.decoder_peak_mib > DECODER_MIB + 256:  # what is read from files of programs counts in it too
        report.wrong.append(f"a decoder took {report.decoder_peak_mib} MiB")
    return report


def _run(
    prefix: list[str], videos: Path, model: Path, output: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    options = ["--decoder-memory", str(DECODER_MIB), "--decode-timeout", str(DECODE_TIMEOUT_S), "--names", "path"]
    command = [
        CLIPMUX,
        "run",
        str(videos),
        "--model",
        str(model),
        "--backend",
        "null",
        "--output",
        str(output),
        *options,
    ]
    return subprocess.run(
        [*prefix, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder to leave everything in")
    asked = parser.parse_args()
    missing = ENDINGS - CODECS.keys()
    with tempfile.TemporaryDirectory() as name:
        scratch = asked.keep or Path(name)
        report = run_mutants(scratch, count=asked.count, seed=asked.seed, timeout_s=3600)
    print(f"{report.mutants} mutants of {report.containers} containers in {report.seconds:.0f} s, seed {asked.seed}")
    print(f"  classified {report.classified}, listed with a reason {sum(report.listed.values())}:")
    print("   ", json.dumps(dict(report.listed.most_common())))
    print(f"  good neighbours {report.neighbours}, decoders replaced {report.restarts}")
    print(f"  largest decoder {report.decoder_peak_mib} MiB of {DECODER_MIB} MiB that it may fill")
    print(f"  watched: {report.watched}")
    print(f"  wrong: {len(report.wrong)}", *report.wrong[:50], sep="\n  ")
    return 1 if report.wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main())
