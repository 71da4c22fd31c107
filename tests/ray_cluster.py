"""A run on a real Ray cluster of three nodes on this machine (``make ray``): a node is lost, and what it costs.

First a local run, then the same videos on three nodes of which one is removed half-way: the results must be equal, each
video once. With ``--rounds`` then three plain runs beside each other, each of a third of the videos, and a run on three
nodes of all of them, in turn: how long each took, and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
sys.path.insert(0, str(Path(__file__).parent))

from command import CLIPMUX, assert_same, clipmux, lines, results, summary
from ray.cluster_utils import Cluster

from clipmux.bench.videos import write_short_videos

NODES = 3
STORE_BYTES = 80 << 20


def cluster_of(nodes: int) -> Cluster:
    args = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=args)
    for _ in range(nodes - 1):
        made.add_node(**args)
    made.wait_for_nodes()
    return made


def started(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([CLIPMUX, *map(str, words)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said.decode()


def lose_a_node(folder: Path, count: int) -> None:
    videos, local, run = folder / "videos", folder / "local", folder / "run"
    write_short_videos(videos, count, frames=48, size=(96, 64))
    assert clipmux("run", videos, "--model", "demo", "--output", local).returncode == 0
    cluster = cluster_of(NODES)
    try:
        words = ("ray", "run", videos, "--model", "demo", "--workers", 1, "--address", cluster.address)
        process = started(*words, "--output", run)
        deadline = time.monotonic() + 120
        while not (run / "results.jsonl").exists() or len(lines(run / "results.jsonl")) < count // 4:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        removed = cluster.list_all_nodes()[-1]
        cluster.remove_node(removed, allow_graceful=False)
        print(f"{len(lines(run / 'results.jsonl'))} of {count} videos done: a node is removed", flush=True)
        ended(process)
    finally:
        cluster.shutdown()
    assert len(lines(run / "results.jsonl")) == count
    assert_same(results(run), results(local), within=0.0)
    again = sum(line["attempt"] > 1 for line in lines(run / "results.jsonl").values())
    print(f"all {count} results equal the local run's, each once; {again} were handed out again", flush=True)
    print("\n".join(line for line in (run / "run.log").read_text().splitlines() if "ray_run" in line), flush=True)


def overhead(folder: Path, videos: Path, count: int, model: str, rounds: int) -> None:
    paths = [path for path in sorted(videos.iterdir()) if path.is_file()][:count]
    cluster = cluster_of(NODES)
    plain, on_ray = [], []
    try:
        for number in range(rounds):
            begun = time.monotonic()
            thirds = [
                (
                    "run",
                    *paths[share::NODES],
                    "--model",
                    model,
                    "--workers",
                    1,
                    "--output",
                    folder / f"p{number}-{share}",
                )
                for share in range(NODES)
            ]
            ended(*(started(*words) for words in thirds))
            plain.append(time.monotonic() - begun)
            run = folder / f"r{number}"
            words = ("ray", "run", *paths, "--model", model, "--workers", 1, "--address", cluster.address)
            begun = time.monotonic()
            ended(started(*words, "--output", run))
            on_ray.append(time.monotonic() - begun)
            print(
                f"round {number + 1}: three plain runs {plain[-1]:.1f} s, on Ray {on_ray[-1]:.1f} s "
                f"(engines {summary(run)['wall_s']:.1f} s)",
                flush=True,
            )
    finally:
        cluster.shutdown()
    ratios = sorted(a / b for a, b in zip(plain, on_ray, strict=True))
    print(f"share of speed {statistics.median(ratios):.3f} ({ratios[0]:.3f}…{ratios[-1]:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=150, help="short made videos of the run that loses a node")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--videos", type=Path, help="folder of videos for the rounds")
    parser.add_argument("--videos-count", type=int, default=240)
    parser.add_argument("--model", default="demo")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cmr-") as scratch:
        if not asked.rounds:
            lose_a_node(Path(scratch), asked.count)
        else:
            overhead(Path(scratch), asked.videos, asked.videos_count, asked.model, asked.rounds)


if __name__ == "__main__":
    main()
