"""PUSH and PULL with nothing around them: what ZeroMQ itself takes to bring clips from one process to another.

The address, the frames and their bytes are those of a run whose clips travel through the socket; the high-water marks
are what ``--queue-memory`` has room for. A clip is an array of its own, filled, and sent without a copy; at the other
end it is copied into a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from clipmux.engine.config import EngineConfig
from clipmux.engine.messages import Clip
from clipmux.engine.model import ModelFolder, read_model
from clipmux.engine.sockets import Context
from clipmux.engine.wire import encode

from .generator import clip_key
from .inference import noise_batch


def push(config: EngineConfig, asked: dict[str, Any], begin: Callable[[], None]) -> dict[str, Any]:
    """Send ``clips`` clips to ``address``."""
    model = read_model(config.model)
    pixels = noise_batch(model, 1)[0]
    header = encode(Clip(clip_key(0, 1, 1, model.frames), time.monotonic(), pixels, 0))[0]
    context: Context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.set(zmq.SNDHWM, _hwm(config, model))
    socket.connect(asked["address"])
    begin()
    cpu, first_at = time.process_time(), time.monotonic()
    for _ in range(asked["clips"]):
        socket.send_multipart([header, pixels.copy()], copy=False)
    socket.close()
    context.term()  # returns when everything has left
    return {"clips": asked["clips"], "cpu_s": time.process_time() - cpu, "first_at": first_at}


def pull(config: EngineConfig, asked: dict[str, Any], begin: Callable[[], None]) -> dict[str, Any]:
    """Receive ``clips`` clips at ``address``, each copied into its place in a batch."""
    model = read_model(config.model)
    batch = noise_batch(model, config.max_batch)  # of pages that were touched
    context: Context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.set(zmq.RCVHWM, _hwm(config, model))
    socket.bind(asked["address"])
    begin()
    cpu = time.process_time()
    for number in range(asked["clips"]):
        _, pixels = socket.recv_multipart(copy=False)
        np.copyto(batch[number % len(batch)], np.frombuffer(pixels.buffer, np.uint8).reshape(model.clip_shape))
    last_at = time.monotonic()
    cpu = time.process_time() - cpu
    context.destroy(linger=0)
    return {"clips": asked["clips"], "cpu_s": cpu, "last_at": last_at}


def _hwm(config: EngineConfig, model: ModelFolder) -> int:
    """Clips that each end of a pipe may hold."""
    return max(2, config.queue_bytes // model.clip_bytes // (2 * config.decoders))
