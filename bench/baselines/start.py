"""Baselines as the benchmark sees them: run in a process of their own, measured, and compared with our predictions."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipmux.engine.backends import on_cpu
from clipmux.engine.config import FAST
from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder
from clipmux.workers.sources import Video

from .network import check_target
from .way import Task

NEEDS = {"reference": ("torch", "torch"), "dataloader": ("torch", "torch"), "ray": ("ray", "ray")}
"""By baseline: the package it needs, and the extra of clipmux that brings it."""

NAMES = tuple(NEEDS)

ON_GPU = ("reference", "dataloader")
"""Those that can also run on a GPU, in torch."""

BEGIN = "import sys; sys.path[:] = sys.argv[2:]; from clipmux.bench.baselines.child import main; main(sys.argv[1])"
"""What a baseline's process executes: our own beginning, with our import path."""

LARGEST = 256 << 20
"""Bytes of an answer at most."""

PATIENCE_S = 3600.0
GRACE_S = 5.0

Labels = Sequence[tuple[str, float]]
"""Best labels and their scores, by falling score."""


@dataclass(frozen=True)
class Baseline:
    """What a baseline came to.

    Args:
        name: which.
        videos: how many videos got a prediction.
        clips: how many clips were scored.
        start_s: seconds from the process's begin to the first hand-out: imports, model, workers.
        wall_s: seconds from the first hand-out of a video to the last score.
        cpu_s: CPU seconds of all its processes in that time.
        predictions: by ``video_id``, the five best labels by mean clip score.
    """

    name: str
    videos: int
    clips: int
    start_s: float
    wall_s: float
    cpu_s: float
    predictions: Mapping[str, Labels]

    @property
    def clips_per_s(self) -> float:
        return self.clips / self.wall_s


@dataclass(frozen=True)
class Difference:
    """How far two sets of predictions are apart.

    Args:
        missing: videos that only one of them has.
        labels: videos whose best label differs.
        score: the largest difference of a score that both name, 0…1.
    """

    missing: int
    labels: int
    score: float


def difference(ours: Mapping[str, Labels], theirs: Mapping[str, Labels]) -> Difference:
    """Compare predictions by video."""
    both = ours.keys() & theirs.keys()
    largest = 0.0
    for video in both:
        scores = dict(theirs[video])
        largest = max([largest, *(abs(score - scores[label]) for label, score in ours[video] if label in scores)])
    differing = sum(ours[video][0][0] != theirs[video][0][0] for video in both)
    return Difference(len(ours.keys() ^ theirs.keys()), differing, largest)


def check_baselines(
    names: Sequence[str], model: ModelFolder, float32: ModelFolder | None = None, *, device: str = "cpu"
) -> None:
    """See before measuring whether these baselines can run.

    Args:
        names: of the baselines.
        model: what clipmux runs.
        float32: the network that a compiled ``model`` was made from, which the reference's way needs.
        device: of the run.

    Raises:
        UsageError: there is no such baseline, it does not know the device, or it lacks a package or a network.
    """
    for name in names:
        if name not in NAMES:
            raise UsageError(f"there is no baseline '{name}': choose from {', '.join(NAMES)}")
        if not on_cpu(device) and not (name in ON_GPU and re.fullmatch(r"cuda:\d+", device)):
            able = "cpu and one of cuda:0, cuda:1 …" if name in ON_GPU else "cpu only"
            raise UsageError(f"the baseline '{name}' runs on {able}, not on '{device}': leave it out of --baselines")
        package, extra = NEEDS[name]
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"the baseline '{name}' needs {package}: pip install 'clipmux[{extra}]'")
        if name == "reference":
            float32_network(model, float32)
        else:
            check_target(model, name, device)


def float32_network(model: ModelFolder, float32: ModelFolder | None = None) -> ModelFolder:
    """The network that the reference's way runs: the folder itself, or the one that it was compiled from.

    Raises:
        UsageError: neither is a float32 ONNX network, or the two do not belong together.
    """
    if float32 is None:
        if model.target == ANY_TARGET:
            return model
        raise UsageError(
            f"the baseline 'reference' runs float32 networks in torch, but '{model.path}' was compiled for "
            f"{model.target}: give --float32 the model folder that it was compiled from"
        )
    if float32.target != ANY_TARGET:
        raise UsageError(f"--float32 is '{float32.path}', compiled for {float32.target}: give the folder before that")
    made_from = model.provenance.get("compiled_from_sha256")
    if model.target != ANY_TARGET and made_from != float32.sha256:
        raise UsageError(
            f"'{model.path}' was not compiled from '{float32.path}': give --float32 the folder that it was"
        )
    return float32


def run_baseline(
    name: str,
    videos: Sequence[Video],
    model: ModelFolder,
    *,
    stride: int = 16,
    cores: int,
    preprocess: str = FAST,
    device: str = "cpu",
) -> Baseline:
    """Classify videos with a baseline, in a process of its own.

    Args:
        name: one of ``NAMES``.
        videos: in the order they are handed out.
        model: the network; ``reference`` takes what ``float32_network`` gives.
        stride: frames from one clip's start to the next's.
        cores: how many cores to use.
        preprocess: ``fast`` or ``exact``; the reference's way is always exact.
        device: as ``check_baselines`` takes it.

    Raises:
        UsageError: it cannot run here.
        ClipmuxError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="clipmux-", dir=_short_folder(), ignore_cleanup_errors=True) as scratch:
        task = Task(
            videos=tuple(videos),
            model=str(model.path.resolve()),
            stride=stride,
            cores=cores,
            preprocess=preprocess,
            device="cpu" if on_cpu(device) else device,
            scratch=scratch,
        )
        content = _answer(name, task)
    if "error" in content:
        raise (UsageError if content["usage"] else ClipmuxError)(content["error"])
    predictions = {video: [(label, score) for label, score in top] for video, top in content.pop("predictions").items()}
    return Baseline(name, videos=len(predictions), predictions=predictions, **content)


def _answer(name: str, task: Task) -> dict[str, Any]:
    """What the process says, before its end or that of our patience."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, name, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # so that it and all it starts can be ended together
        )
        assert process.stdin is not None  # noqa: S101  (pipes were asked for)
        assert process.stdout is not None  # noqa: S101
        timer = threading.Timer(PATIENCE_S, _end, (process,))
        timer.start()
        text = b""
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
                process.stdin.flush()
            text = process.stdout.read(LARGEST)
        finally:
            timer.cancel()
            _end(process)
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            content: dict[str, Any] = json.loads(text)
        except ValueError:
            raise ClipmuxError(
                f"the baseline '{name}' ended without an answer (exit status {process.returncode}): {_last_line(log)}"
            ) from None
    return content


def _short_folder() -> str:
    """Where sockets can lie: a socket's path has 107 characters at most, and Ray's take 75 of them."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= 16 else "/tmp"  # noqa: S108  (TMPDIR is too long)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, in the order that leaves nothing behind (see child.py)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError):  # the group is empty: multiprocessing's tracker has tidied up
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def _last_line(log: Any) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - 4000))
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
