"""How a baseline's process begins and ends.

Its task comes as one line of JSON on standard input, which then stays open as the death pipe. Its result goes as JSON
to standard output; whatever a library prints goes to the log.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any

from clipmux.engine.errors import ClipmuxError, UsageError
from clipmux.engine.messages import Segment
from clipmux.engine.model import read_model
from clipmux.workers.aggregate import VideoScores

from .way import Clock, Task, Way

WAYS = {
    "reference": ("reference", "Reference"),
    "dataloader": ("dataloader", "DataLoaderWay"),
    "ray": ("raydata", "RayWay"),
}
"""Module and class of each baseline."""

TOP_K = 5

GRACE_S = 5.0
"""Seconds between asking processes to end and ending them."""


def main(name: str) -> None:
    """Be the baseline ``name``, then exit."""
    began = time.monotonic()
    faulthandler.enable()
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = Task.from_json(json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_die_with_parent, args=(task.scratch,), name="death-pipe", daemon=True).start()
    content: dict[str, Any]
    try:
        content = _classify(name, task, began)
    except ClipmuxError as error:
        content = {"error": str(error), "usage": isinstance(error, UsageError)}
    json.dump(content, answer)
    answer.close()
    sys.stderr.flush()
    os._exit(0)  # interpreters with native threads do not always end by themselves


def _classify(name: str, task: Task, began: float) -> dict[str, Any]:
    module, kind = WAYS[name]
    model = read_model(task.model)
    way: Way = getattr(importlib.import_module(f"clipmux.bench.baselines.{module}"), kind)(task)
    try:
        clock = Clock()
        found: dict[int, VideoScores] = {}
        clips = 0
        for number, clip, scores in way.scores(clock):
            if number not in found:
                found[number] = VideoScores(model.labels, top_k=TOP_K, per_clip=False)
            found[number].add(clip, Segment(0, 0), scores)
            clips += 1
        wall, cpu = clock.stop()
    finally:
        way.close()
    predictions = {
        task.videos[number].video_id: [[item.label, item.score] for item in scores.mean()]
        for number, scores in sorted(found.items())
    }
    return {
        "clips": clips,
        "start_s": (clock.began or began) - began,
        "wall_s": wall,
        "cpu_s": cpu,
        "predictions": predictions,
    }


def _die_with_parent(scratch: str) -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(scratch, ignore_errors=True)  # whoever made it can no longer tidy up
    # This process leads a group of its own, which its workers are in. Multiprocessing's tracker, which is in it too and
    # removes their semaphores, ignores this signal and ends after them.
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)
