"""A process that does one stage of a run and nothing else: decoding, inference, a first prediction, or ends of a pipe.

What to do comes as one line of JSON on standard input. It says that it is ready by a line on standard output, begins
when told by a second line, and answers with a line of JSON. Standard input is then the death pipe: when it ends, so
does this process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.backends import Runner, choose, keep_to_cores, open_backend
from clipmux.engine.config import EngineConfig
from clipmux.engine.device import softmax
from clipmux.engine.errors import ClipmuxError, UsageError, VideoError
from clipmux.engine.gather import gather
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.streams import LiveConfig, StreamConfig
from clipmux.workers.decode import decode
from clipmux.workers.live_sources import Received, open_source
from clipmux.workers.preprocess import Preprocess, open_preprocess
from clipmux.workers.sources import Video
from clipmux.workers.time_windows import TimeWindows
from clipmux.workers.windows import windows

from .bare import pull, push
from .inference import Until, in_parallel, staged_noise

READY = "ready"


def main() -> None:
    """Do what standard input says, then exit."""
    faulthandler.enable()
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked = json.loads(sys.stdin.buffer.readline())
    config = EngineConfig.from_json(asked["config"])
    try:
        content = STAGES[asked["stage"]](config, asked, lambda: _wait(answer))
    except ClipmuxError as error:
        content = {"error": str(error), "usage": isinstance(error, UsageError)}
    print(json.dumps(content), file=answer, flush=True)
    sys.stderr.flush()
    os._exit(0)  # interpreters with native threads do not always end by themselves


def _wait(answer: Any) -> None:
    """Say that everything is loaded, and wait for the word to begin."""
    print(READY, file=answer, flush=True)
    if not sys.stdin.buffer.readline():
        os._exit(0)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _decode(config: EngineConfig, asked: dict[str, Any], begin: Any) -> dict[str, Any]:
    """From files to clips, on one thread, as a decoder does it; a video that fails counts as far as it came."""
    model = read_model(config.model)
    preprocess = _preprocess(config, model)
    videos = [Video.from_dict(video) for video in asked["videos"]]
    begin()
    cpu, wall = time.process_time(), time.perf_counter()
    clips = 0
    for video in videos:
        try:
            for _ in _clips(video, model, config.stride, preprocess):
                clips += 1
        except VideoError:
            continue
    return {"clips": clips, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def _clips(video: Video, model: ModelFolder, stride: int, preprocess: Preprocess) -> Any:
    for window in windows(decode(video), length=model.frames, stride=stride, keep=preprocess):
        yield np.stack(window.frames)


def _watch(config: EngineConfig, asked: dict[str, Any], begin: Any) -> dict[str, Any]:
    """A stream to clips, at its own pace, as a camera does it."""
    model = read_model(config.model)
    preprocess = _preprocess(config, model)
    live, stream = LiveConfig.from_json(asked["live"]), StreamConfig.from_json(asked["stream"])
    windows_in_time: TimeWindows[Received, Any] = TimeWindows(
        length=model.frames,
        rate=live.frame_rate,
        stride_s=live.stride_s,
        keep=lambda received: preprocess(received.frame),
    )
    clip = np.empty(model.clip_shape, np.uint8)
    begin()
    cpu, wall = time.process_time(), time.perf_counter()
    frames = clips = 0
    for received in open_source(stream, live, lambda: None, lambda: windows_in_time.completes_at):
        frames += 1
        for window in windows_in_time.add(received, received.frame.seconds or 0.0, received.frame.duration):
            gather(clip, window.frames)
            clips += 1
        if time.perf_counter() - wall > asked["seconds"]:
            break
    return {"frames": frames, "clips": clips, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


def _inference(config: EngineConfig, asked: dict[str, Any], begin: Any) -> dict[str, Any]:
    """Full batches that are there already, through all runners at once."""
    model = read_model(config.model)
    backend = _backend(config, model)
    runners = [backend.open_runner() for _ in range(backend.runners)]
    begin()
    clips = staged_noise(backend, model, backend.preferred_batch)
    calls = in_parallel(runners, clips, Until(seconds=asked["seconds"]))
    return {"clips": calls.clips, "cpu_s": calls.cpu_s, "wall_s": calls.wall_s, "device": backend.device}


def _first(config: EngineConfig, asked: dict[str, Any], begin: Any) -> dict[str, Any]:
    """Load the model, decode the first video that can be, and classify it: the least that a first prediction takes.

    All runners share its clips, as in a run. ``lost_s`` went into videos before it that failed.
    """
    begin()
    model = read_model(config.model)
    backend = _backend(config, model)
    runners = [backend.open_runner() for _ in range(backend.runners)]
    began = time.perf_counter()
    for video in asked["videos"]:
        lost_s = time.perf_counter() - began
        try:
            clips = list(_clips(Video.from_dict(video), model, config.stride, _preprocess(config, model)))
        except VideoError:
            continue
        if clips:
            break
    else:
        raise ClipmuxError("not one of the videos gave a clip: see with 'clipmux run' what is wrong with them")
    scores = _spread(runners, clips, backend.preferred_batch)
    return {"clips": len(clips), "best": int(scores.mean(0).argmax()), "lost_s": lost_s}


def _spread(runners: Sequence[Runner], clips: Sequence[npt.NDArray[np.uint8]], size: int) -> npt.NDArray[np.float32]:
    """Scores of clips in batches of at most ``size``, all runners at work on them, float32 ``[N, classes]``."""
    share = -(-len(clips) // len(runners))
    size = min(size, share)
    batches = [clips[at : at + size] for at in range(0, len(clips), size)]

    def work(number: int) -> list[npt.NDArray[np.float32]]:
        return [softmax(runners[number].infer(np.stack(batch))) for batch in batches[number :: len(runners)]]

    with ThreadPoolExecutor(len(runners)) as pool:
        scores = [score for part in pool.map(work, range(len(runners))) for score in part]
    return np.concatenate(scores)


STAGES = {"decode": _decode, "watch": _watch, "inference": _inference, "first": _first, "push": push, "pull": pull}


def _preprocess(config: EngineConfig, model: ModelFolder) -> Preprocess:
    return open_preprocess(config.preprocess, model.height, model.width)


def _backend(config: EngineConfig, model: ModelFolder) -> Any:
    """As a run opens it: of several devices the first."""
    device = config.devices[0]
    keep_to_cores(device)
    return open_backend(
        choose(config.backend, device, model.target),
        model,
        device=device,
        max_batch=config.max_batch,
        null_delay_ms=config.null_delay_ms,
    )


if __name__ == "__main__":
    main()
