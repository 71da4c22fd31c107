"""Kill, stop and terminate random processes of runs at random moments; nothing of it may show in the results.

    python tests/chaos.py --minutes 30 --seed 1

Each run classifies the same videos, per clip, with a small network whose scores depend on every part of a clip, so that
a clip scored in place of another shows.
While it goes on, a random process of it gets a random signal, again and again. A run whose supervisor was killed goes
on with --resume. In the end, results must be those of an undisturbed run, and nothing may be left: no process, no
socket.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import psutil
from command import CLIPMUX, assert_same, lines, results
from onnx import helper, numpy_helper

from clipmux.bench.videos import write_short_videos
from clipmux.engine.model import ModelFolder, write_model

SUPERVISOR = "supervisor"
ROLES = ("decoder", "decoder", "decoder", "inference", "collector", SUPERVISOR)
"""To draw from: there are more decoders than others in a run, too."""
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)
MARK = "CLIPMUX_CHAOS"
"""In the environment of every process of a run, so that none can hide."""
SAME = 1e-6
"""Scores differ by this at most."""
OPTIONS = ["--per-clip", "--workers", "2", "--max-batch", "8", "--queue-memory", "16", "--stride", "4"]
CLASSES = 10
PATIENCE = [word for name in ("open", "decode", "device", "write") for word in (f"--{name}-timeout", "4")]
PATIENCE += ["--start-timeout", "20"]
GIVE_UP_S = 600.0


@dataclass
class Figures:
    """What came of it."""

    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    given_up: int = 0
    slowest_end_s: float = 0.0

    def __str__(self) -> str:
        each = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.runs} runs, {self.faults.total()} faults ({each}); went on with --resume {self.resumes} times, "
            f"{self.given_up} of them after too many restarts; children outlived a killed supervisor by "
            f"{self.slowest_end_s:.2f} s at most"
        )


def write_network(folder: Path) -> Path:
    """A network that costs next to nothing: means of 96 parts of a clip, and a layer that makes scores of them."""
    folder.mkdir(parents=True)
    weights = np.random.default_rng(1).normal(size=(96, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["clip"], ["means"], kernel_shape=[8, 28, 28], strides=[8, 28, 28]),
        helper.make_node("Flatten", ["means"], ["parts"]),
        helper.make_node("Gemm", ["parts", "weights"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "parts",
        [helper.make_tensor_value_info("clip", onnx.TensorProto.FLOAT, ["n", 3, 16, 112, 112])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    labels = tuple(f"class {number}" for number in range(CLASSES))
    return write_model(ModelFolder(path=folder, name="parts", network="model.onnx", labels=labels)).path


def write_videos(folder: Path, count: int, *, distinct: int) -> Path:
    """Short videos, all different if ``distinct`` is the count."""
    write_short_videos(folder, count, frames=32, size=(96, 64), distinct=distinct)
    return folder


def undisturbed(videos: Path, model: Path, folder: Path) -> dict[str, Any]:
    """What a run gives that nobody disturbs."""
    command = [CLIPMUX, "run", videos, "--model", model, *OPTIONS, "--output", folder]
    subprocess.run(command, check=True, capture_output=True)
    return results(folder)


class Disturbed:
    """One run that faults happen to.

    Args:
        videos: a folder of them.
        model: a model folder.
        expected: their results.
        folder: an empty one for the run, its sockets and what it says.
        seed: decides which faults happen, and when.
        pause_s: shortest and longest time from one fault to the next.
        faults: how many at most; afterwards the run is left in peace.
        roles: to draw from.
    """

    def __init__(
        self,
        videos: Path,
        model: Path,
        expected: dict[str, Any],
        folder: Path,
        *,
        seed: int,
        pause_s: tuple[float, float],
        faults: int,
        roles: tuple[str, ...] = ROLES,
    ) -> None:
        self.figures = Figures(runs=1)
        self._asked = ["run", videos, "--model", model, *OPTIONS, *PATIENCE]
        self._expected, self._folder = expected, folder
        self._random = Random(seed)  # noqa: S311  (repeatable, not secret)
        self._pause_s, self._faults, self._roles = pause_s, faults, roles
        self._mark = f"{os.getpid()}-{folder}"
        self._sockets = folder / "t"
        self._sockets.mkdir(parents=True)
        self._run = folder / "run"

    def to_the_end(self) -> Figures:
        """Disturb, resume, and compare."""
        deadline = time.monotonic() + GIVE_UP_S
        resume: list[str] = []
        while True:
            with self._started(resume) as supervisor:
                while supervisor.poll() is None:
                    assert time.monotonic() < deadline, f"the run does not end: see '{self._folder}'"
                    self._wait(supervisor)
                    if supervisor.poll() is None and self.figures.faults.total() < self._faults:
                        self._fault(supervisor)
            self._see_that_all_have_ended()
            if supervisor.returncode == 0:
                break
            self._see_that_it_may_go_on(supervisor.returncode)
            resume = ["--resume"]
        self._compare()
        return self.figures

    @contextmanager
    def _started(self, resume: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        self.figures.resumes += bool(resume)
        environment = {**os.environ, "TMPDIR": str(self._sockets), MARK: self._mark}
        command = [CLIPMUX, *self._asked, "--output", self._run, *resume]
        with (self._folder / "said").open("ab") as said:
            self._said_from = said.tell()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def _wait(self, supervisor: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + self._random.uniform(*self._pause_s)
        while supervisor.poll() is None and time.monotonic() < until:
            time.sleep(0.01)

    def _fault(self, supervisor: subprocess.Popen[bytes]) -> None:
        """One signal to one process; nothing if there is no such process just now."""
        role, what = self._random.choice(self._roles), self._random.choice(SIGNALS)
        place = self._random.random()
        if role == SUPERVISOR:
            process = psutil.Process(supervisor.pid)
        else:
            living = children(supervisor.pid, role)
            if not living:
                return
            process = living[int(place * len(living))]
        try:
            process.send_signal(what)
        except psutil.NoSuchProcess:
            return
        self.figures.faults[f"{role} {what.name}"] += 1
        if role == SUPERVISOR and what == signal.SIGSTOP:
            time.sleep(0.5)  # until somebody gives up on it
            process.kill()

    def _see_that_all_have_ended(self) -> None:
        began = time.monotonic()
        while (left := self._processes()) and time.monotonic() < began + 10:
            time.sleep(0.02)
        assert not left, f"{left} outlived their supervisor by 10 s"
        self.figures.slowest_end_s = max(self.figures.slowest_end_s, time.monotonic() - began)
        left_over = sorted(str(path.relative_to(self._sockets)) for path in self._sockets.rglob("*"))
        assert not left_over, f"files of sockets are still there, {left_over}: {self._log()}"

    def _log(self) -> str:
        """The end of what the run has said."""
        log = self._run / "run.log"
        return log.read_text()[-3000:] if log.exists() else "no log"

    def _processes(self) -> list[psutil.Process]:
        """Everything that this run ever started and that lives."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _see_that_it_may_go_on(self, status: int) -> None:
        """It was killed or interrupted, or it said why it gave up."""
        said = (self._folder / "said").read_bytes()[self._said_from :].decode()
        assert "Traceback" not in said, said
        if status == 1:
            assert "restarts did not help" in said, said
            self.figures.given_up += 1
        else:
            assert status in (-signal.SIGKILL, -signal.SIGTERM, 130, 143), (status, said)

    def _compare(self) -> None:
        """Every video once, the same labels in the same order, the same scores."""
        failures = (self._run / "failures.jsonl").read_text()
        assert not failures, failures
        assert lines(self._run / "results.jsonl").keys() == self._expected.keys()
        assert_same(results(self._run), self._expected, within=SAME)
        log = (self._run / "run.log").read_text(errors="replace")
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 1000) :][:5000]


def children(pid: int, role: str) -> list[psutil.Process]:
    """A run's living children of a role."""
    found = []
    try:
        for child in psutil.Process(pid).children():
            if any(part.startswith(f"{role}-") for part in child.cmdline()):
                found.append(child)
    except psutil.Error:  # one of them is just ending
        pass
    return sorted(found, key=lambda child: child.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further one has the next")
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--pause", type=float, nargs=2, default=(0.5, 6.0), help="seconds from fault to fault")
    parser.add_argument("--faults", type=int, default=sys.maxsize, help="of each run at most")
    asked = parser.parse_args()
    end = time.monotonic() + 60 * asked.minutes
    total = Figures()
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        videos = write_videos(Path(scratch) / "videos", asked.videos, distinct=asked.videos)
        model = write_network(Path(scratch) / "model")
        expected = undisturbed(videos, model, Path(scratch) / "undisturbed")
        seed = asked.seed
        while time.monotonic() < end:
            run = Disturbed(
                videos,
                model,
                expected,
                Path(scratch) / f"{seed}",
                seed=seed,
                pause_s=tuple(asked.pause),
                faults=asked.faults,
            )
            figures = run.to_the_end()
            print(f"seed {seed}: {figures}", flush=True)
            total.runs += figures.runs
            total.faults += figures.faults
            total.resumes += figures.resumes
            total.given_up += figures.given_up
            total.slowest_end_s = max(total.slowest_end_s, figures.slowest_end_s)
            seed += 1
    print(f"all: {total}; {asked.videos} videos each, results as undisturbed", flush=True)


if __name__ == "__main__":
    main()
