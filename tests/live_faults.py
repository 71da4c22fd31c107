"""The long form of tests/process/test_rtsp.py (``make live-faults``): a camera killed again and again, a link cut.

Needs the packages of ``cameras.PACKAGES`` and root, for a network namespace whose link is set down. Prints how long
each stream took to be back once its source was, and what the processes took at the beginning and at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from cameras import Camera, Wire, long_video
from live_command import listed, running

BOUND_S = 10.0
NAMESPACE, NEAR, FAR = "clipmux-faults", "10.231.7.1", "10.231.7.2"


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


@contextlib.contextmanager
def namespace() -> Iterator[tuple[str, ...]]:
    """A network namespace at the end of a link; yields what to execute there with."""
    ip("netns", "add", NAMESPACE)
    try:
        ip("link", "add", "cmx0", "type", "veth", "peer", "name", "cmx1")
        ip("link", "set", "cmx1", "netns", NAMESPACE)
        ip("addr", "add", f"{NEAR}/24", "dev", "cmx0")
        ip("link", "set", "cmx0", "up")
        ip("-n", NAMESPACE, "addr", "add", f"{FAR}/24", "dev", "cmx1")
        ip("-n", NAMESPACE, "link", "set", "cmx1", "up")
        ip("-n", NAMESPACE, "link", "set", "lo", "up")
        yield ("ip", "netns", "exec", NAMESPACE)
    finally:
        ip("netns", "del", NAMESPACE)


class Said:
    """What the command says of its streams."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, name: str) -> list[str]:
        return [line for line in self._path.read_text().splitlines() if line.startswith(f"{name}: ")]

    def live(self, name: str) -> int:
        return sum(line.startswith(f"{name}: live") for line in self.of(name))

    def back(self, name: str, before: int, since: float) -> float:
        """Seconds from ``since`` until a stream is live once more."""
        while self.live(name) <= before:
            assert time.monotonic() - since < 60, self._path.read_text()
            time.sleep(0.02)
        return time.monotonic() - since


def footprint(process: psutil.Process) -> tuple[int, int, int]:
    """Processes, open descriptors, and bytes of memory (PSS) of the command and its children."""
    everyone = [process, *process.children(recursive=True)]
    return (
        len(everyone),
        sum(one.num_fds() for one in everyone),
        sum(one.memory_full_info().pss for one in everyone),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--cut", type=float, default=60.0)
    asked = parser.parse_args()
    chance = random.Random(1)  # noqa: S311
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "t").mkdir()
        os.environ["TMPDIR"] = str(folder / "t")
        (folder / "h264").mkdir()
        (folder / "hevc").mkdir()
        video = long_video(folder / "h264", seconds=1800)
        other = long_video(folder / "hevc", kind="hevc-mp4", size=(320, 240), seconds=1800)
        within = stack.enter_context(namespace())
        door, yard = stack.enter_context(Camera(video)), stack.enter_context(Camera(video))
        gate = stack.enter_context(Camera(video, address=FAR, within=within))
        wire = stack.enter_context(Wire(yard.port))
        streams = listed(
            folder / "streams.toml",
            {
                "door": (door.url, ""),
                "yard": (yard.url, ""),
                "gate": (gate.url, ""),
                "roof": (f"rtsp://127.0.0.1:{wire.port}/cam", ""),
            },
        )
        log = folder / "log"
        process, path = stack.enter_context(running("--streams", streams, "--model", "demo", "--log", log))
        said = Said(path)
        for name in ("door", "yard", "gate", "roof"):
            said.back(name, 0, time.monotonic())
        time.sleep(5)
        first = footprint(psutil.Process(process.pid))

        times = []
        for number in range(asked.restarts):
            before = said.live("door")
            door.kill()
            time.sleep(chance.uniform(0.5, 8))
            path_, codec = (video, "h264") if number % 2 else (other, "h265")
            door.start(path_, codec)
            times.append(said.back("door", before, time.monotonic()))
            time.sleep(chance.uniform(0, 4))
        print(f"server killed and started {len(times)} times: back after {shown(times)}", flush=True)

        before = said.live("gate")
        ip("link", "set", "cmx0", "down")
        time.sleep(asked.cut)
        ip("link", "set", "cmx0", "up")
        cut = said.back("gate", before, time.monotonic())
        print(f"link cut for {asked.cut:g} s: back after {cut:.1f} s", flush=True)

        wire.garble = 500
        time.sleep(10)
        wire.garble = 0
        since = time.monotonic()
        while not said.of("roof")[-1].startswith("roof: live"):
            time.sleep(0.02)
        garbled = time.monotonic() - since
        print(f"garbled for 10 s: live {garbled:.1f} s after that, lost {said.live('roof') - 1} times", flush=True)

        time.sleep(5)
        last = footprint(psutil.Process(process.pid))
        for what, then, now in zip(("processes", "descriptors", "memory in MiB"), first, last, strict=True):
            scale = 1 << 20 if "MiB" in what else 1
            print(f"{what}: {then // scale} at the beginning, {now // scale} at the end", flush=True)
        print(f"the stream that nothing happened to: {', '.join(said.of('yard'))}", flush=True)
        process.terminate()
        process.communicate(timeout=30)
        figures = [line.split("figures: ")[1] for line in log.read_text().splitlines() if "figures: " in line]
        drops = next(json.loads(told)["drops"] for told in figures if "drops" in told)
        print(f"exit status {process.returncode}; clips dropped by inference: {drops or 'none'}", flush=True)
        assert max([*times, cut, garbled]) <= BOUND_S
        assert first[0] == last[0]
        assert said.live("yard") == 1


def shown(times: list[float]) -> str:
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2]:.1f} s (median), {ordered[-1]:.1f} s at most"


if __name__ == "__main__":
    main()
