"""PUSH and PULL with nothing around them: what ZeroMQ itself takes to bring clips from one process to another.

The sockets, their high-water marks, the frames and their bytes are those of a run whose clips travel through the
socket. A clip is an array of its own, filled, and sent without a copy; at the other end it is copied into a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from clipmux.engine.config import EngineConfig
from clipmux.engine.messages import Clip
from clipmux.engine.model import read_model
from clipmux.engine.sockets import Context, pull_clips, push_clips
from clipmux.engine.wire import encode

from .generator import clip_key
from .inference import noise_batch


def push(config: EngineConfig, asked: dict[str, Any], begin: Callable[[], None]) -> dict[str, Any]:
    """Send ``clips`` clips to ``address``."""
    model = read_model(config.model)
    pixels = noise_batch(model, 1)[0]
    header = encode(Clip(clip_key(0, 1, 1, model.frames), time.monotonic(), pixels))[0]
    context: Context = zmq.Context()
    socket = push_clips(context, asked["address"], hwm=config.queue_hwm(model))
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
    socket = pull_clips(context, asked["address"], hwm=config.queue_hwm(model), message_bytes=model.clip_bytes)
    begin()
    cpu = time.process_time()
    for number in range(asked["clips"]):
        _, pixels = socket.recv_multipart(copy=False)
        np.copyto(batch[number % len(batch)], np.frombuffer(pixels.buffer, np.uint8).reshape(model.clip_shape))
    last_at = time.monotonic()
    cpu = time.process_time() - cpu
    context.destroy(linger=0)
    return {"clips": asked["clips"], "cpu_s": cpu, "last_at": last_at}
