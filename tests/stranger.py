"""A stranger on the network: ``python stranger.py HOST PORT SERVERKEY SECONDS`` does what it can to a run.

It forges results, floods, sends garbage, begins handshakes and leaves them, connects and reads nothing, and prints its
own public key and how often it tried.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

import numpy as np
import zmq

from clipmux.engine.messages import ClipKey, Done, Goodbye, Hello, Scores, Segment, Stop, VideoEnd, VideoFailed
from clipmux.engine.wire import encode

host, first, server, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), float(sys.argv[4])
until = time.monotonic() + seconds
public, secret = zmq.curve_keypair()

key = ClipKey(0, 1, 0, Segment(1, 17))
forged = [
    encode(Scores((key,), np.full((1, 10), 0.1, np.float32), (1.0,))),
    encode(VideoEnd(0, 9, "forged", "/forged", 1, 16, None)),
    encode(VideoFailed(1, 9, "forged", "/forged", "decode", "Forged", "forged")),
    encode(Done(0, {"video_id": "forged"})),
    encode(Goodbye()),
    encode(Hello()),
    encode(Stop()),
]


def connected(context: zmq.Context[zmq.Socket[bytes]], kind: int, port: int, *, with_key: bool) -> zmq.Socket[bytes]:
    peer = context.socket(kind)
    peer.set(zmq.LINGER, 0)
    peer.set(zmq.SNDTIMEO, 10)
    if kind == zmq.DEALER:
        peer.set(zmq.IDENTITY, b"inference-1")  # the name of a child of every run
    if with_key:
        for option, value in (
            (zmq.CURVE_SERVERKEY, server),
            (zmq.CURVE_PUBLICKEY, public),
            (zmq.CURVE_SECRETKEY, secret),
        ):
            peer.set(option, value)
    peer.connect(f"tcp://{host}:{port}")
    return peer


tries = 0
with zmq.Context() as context:
    peers = [
        connected(context, kind, port, with_key=with_key)
        for port in range(first, first + 3)
        for kind in (zmq.PUSH, zmq.DEALER)
        for with_key in (True, False)
    ]
    idle: list[socket.socket] = []
    while time.monotonic() < until:
        for peer in peers:
            for frames in forged:
                with contextlib.suppress(zmq.Again):
                    peer.send_multipart(frames)
                    tries += 1
        for port in range(first, first + 3):
            with contextlib.suppress(OSError):
                one = socket.create_connection((host, port), timeout=1)
                one.settimeout(0.5)
                idle.append(one)  # and never reads
                tries += 1
                greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
                one.sendall((b"", greeting, os.urandom(1 << 16), bytes(1 << 20))[len(idle) % 4])
        if len(idle) > 200:
            for one in idle[:100]:
                one.close()
            del idle[:100]
    for one in idle:
        one.close()
    for peer in peers:
        peer.close()
print(public.decode(), tries)
