"""What a run is told."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from .backends import choose, cores_of, most_in_batch, on_cpu
from .clip_memory import Layout
from .errors import UsageError
from .guards import GUARDS, Guards
from .jail import AUTO, JAILS, Jail
from .model import ModelFolder
from .sockets import split_address
from .streams import DEFAULT_RATE

MAX_BATCH = 64
"""Clips in one device call at most: the reference's models are built for 1 to 64."""

CORES_OF_A_DECODER = 8
"""Where a CPU infers too, runs begin with one decoder and another for every so many cores; see engine/growth.py."""

MOST_THREADS = 16
"""Of a codec: with more, FFmpeg itself warns that they cost more than they bring."""

AHEAD = 6
"""Batches' worth of clips that may be on their way: two in the batcher, and four to even out decoders' bursts."""

NO_WORKERS = -1
"""All decoders are on other hosts."""

WIRES = RAW, JPEG = "raw", "jpeg"

CLIP_MEMORIES = ("auto", "shared", "socket")
"""Ways from a decoder to inference: see engine/clips.py."""

EXACT, FAST = "exact", "fast"
PREPROCESSES = (FAST, EXACT)
"""Ways from a decoded frame to pixels: see workers/preprocess.py."""


def parse_delay(text: str) -> tuple[float, float]:
    """``0.4+0.25`` as two times in ms, for ``null_delay_ms``.

    Raises:
        UsageError: something else.
    """
    try:
        per_batch, per_clip = (float(part) for part in text.split("+"))
    except ValueError:
        raise UsageError(f"--null-delay is '{text}': give two times in ms, like 0.4+0.25") from None
    return per_batch, per_clip


def parse_workers(text: str) -> int:
    """``auto``, a number, or ``none``, for ``workers``.

    Raises:
        UsageError: something else.
    """
    if text in ("auto", "none"):
        return 0 if text == "auto" else NO_WORKERS
    if not text.isdecimal() or len(text) > 9:  # Python itself reads no number of more than 4300 digits
        raise UsageError(f"--workers is '{text[:40]}': give 1 to 1024, or auto")
    return int(text)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_a(value: object, kind: str) -> bool:
    """Whether a value is of the type that an option is declared with; numbers without a fraction are floats too."""
    if kind == "tuple[float, float]":
        return isinstance(value, tuple) and len(value) == 2 and all(_is_a(part, "float") for part in value)
    types: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool, "Guards": Guards}
    return isinstance(value, types[kind]) and (kind == "bool" or not isinstance(value, bool))


def memory_of(mebibytes: int, option: str) -> int:
    """Bytes that a decoder or a camera's process may fill.

    Raises:
        UsageError: it could not begin with so few, or no kernel counts so many.
    """
    if not 256 <= mebibytes <= 16 << 20:
        raise UsageError(f"{option} is {mebibytes}: give 256 to {16 << 20} MiB")
    return mebibytes << 20


@dataclass(frozen=True)
class EngineConfig:
    """How an engine works. Checked when made.

    Args:
        model: the model folder, or ``demo``.
        stride: frames from the start of one clip to the start of the next.
        top_k: labels per prediction.
        per_clip: keep the top labels of every clip too.
        workers: decoder processes; 0 means as many as turn out to be needed, up to one per usable core; ``NO_WORKERS``
            none, where there are decoders on other hosts.
        max_batch: clips in one device call at most, 1…64.
        device: ``cpu``, some of its cores (``cpu:0-7``), ``mlu:0``, ``cuda:0``; several of a kind with commas between.
        backend: ``auto``, ``openvino``, ``magicmind``, ``torch`` or ``null``.
        null_delay_ms: the null backend answers N clips after ``a + b·N`` milliseconds.
        max_delay_s: how long a clip may wait for its batch to fill while the device is idle.
        decode_threads: of each decoder's codec.
        start_timeout_s: a process that is not ready after so long is killed, and started again.
        open_timeout_s: a decoder that gives no first frame of its video for so long is killed and replaced …
        decode_timeout_s: … as is one that gives no further frame; the third time, the video has failed.
        device_timeout_s: inference is killed and restarted if a call of the device does not return for so long.
        write_timeout_s: so is the collector if it does not get a line written.
        queue_bytes: memory that clips on their way to the device may take, over all queues.
        preprocess: how a decoded frame becomes pixels, ``fast`` or ``exact``; see workers/preprocess.py.
        clip_memory: how they get there: ``shared`` memory, through the ``socket``, or ``auto``: shared where it can be
            had.
        guards: what a video may cost at most.
        decoder_bytes: memory that a decoder may fill.
        jail: whether decoders give up files, programs and networks: ``auto`` (as far as the kernel can), ``on`` (or
            nothing is started) or ``off``; see engine/jail.py.
        bind: ``HOST:PORT`` at which other machines may reach the engine's sockets too, with keys; nothing: none may.
        keys: the folder of those keys; nothing: the user's own (see engine/keys.py).
        far_decoders: decoders of other hosts that may join at ``bind``; clips then travel through the socket.
        inference_at: where inference joins that is started elsewhere, in a container say: ``ipc://FOLDER`` (of the
            engine's sockets, made for it), or ``tcp://HOST:PORT``, with keys; nothing: it is started here.
        remote: some videos are in object stores or on web servers, so that decoders keep their network.
        wire: how clips go to another machine: ``raw``, or ``jpeg``, which loses a little (see squeezed.py).
        segments: find from when to when each label holds; clips are then sampled in time, as of a live stream.
        enter: a label's smoothed score from which a segment starts.
        leave: the score below which it ends.
        min_duration_s: a shorter segment is left out.
        smooth: clips in the mean that is a smoothed score.
        frame_rate: frames per second that clips are sampled at for segments; 0: what the model says, or 25.
    """

    model: str
    stride: int = 16
    top_k: int = 5
    per_clip: bool = False
    workers: int = 0
    max_batch: int = MAX_BATCH
    device: str = "cpu"
    backend: str = "auto"
    null_delay_ms: tuple[float, float] = (0.0, 0.0)
    max_delay_s: float = 0.25
    decode_threads: int = 1
    start_timeout_s: float = 120.0
    open_timeout_s: float = 60.0
    decode_timeout_s: float = 60.0
    device_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    queue_bytes: int = 256 << 20
    preprocess: str = FAST
    clip_memory: str = "auto"
    guards: Guards = GUARDS
    decoder_bytes: int = 4 << 30
    jail: str = AUTO
    bind: str = ""
    keys: str = ""
    far_decoders: int = 0
    inference_at: str = ""
    remote: bool = False
    wire: str = RAW
    segments: bool = False
    enter: float = 0.6
    leave: float = 0.4
    min_duration_s: float = 1.0
    smooth: int = 3
    frame_rate: float = 0.0

    def __post_init__(self) -> None:
        def need(holds: bool, option: str, value: object, wanted: str) -> None:
            if not holds:
                raise UsageError(f"{option} is {value!r}: {wanted}")

        for each in dataclasses.fields(self):
            value, kind = getattr(self, each.name), str(each.type)
            need(_is_a(value, kind), each.name, value, f"it must be of type {kind}")
        need(self.stride >= 1, "--stride", self.stride, "give at least 1")
        need(self.top_k >= 1, "--top-k", self.top_k, "give at least 1")
        least = 1 if self.bind else 0  # whoever joined there would have nothing to do
        need(least <= self.far_decoders <= 4096, "--decoders", self.far_decoders, f"give {least} to 4096")
        least = NO_WORKERS if self.far_decoders else 0
        workers = "none" if self.workers == NO_WORKERS else self.workers
        need(least <= self.workers <= 1024, "--workers", workers, "give 1 to 1024, or auto")
        need(1 <= self.max_batch <= MAX_BATCH, "--max-batch", self.max_batch, f"give 1 to {MAX_BATCH}")
        need(
            all(0 <= part < math.inf for part in self.null_delay_ms),
            "--null-delay",
            self.null_delay_ms,
            "give two times in ms, at least 0",
        )
        need(self.max_delay_s >= 0, "--max-delay", self.max_delay_s, "give seconds, at least 0")
        for watchdog in ("start", "open", "decode", "device", "write"):
            seconds = getattr(self, f"{watchdog}_timeout_s")
            need(1 <= seconds < math.inf, f"--{watchdog}-timeout", seconds, "give seconds, at least 1")
        need(self.queue_bytes >= 1 << 20, "--queue-memory", self.queue_bytes, "give at least 1 MiB")
        need(self.preprocess in PREPROCESSES, "--preprocess", self.preprocess, f"give one of {', '.join(PREPROCESSES)}")
        need(self.clip_memory in CLIP_MEMORIES, "--clip-memory", self.clip_memory, f"give {', '.join(CLIP_MEMORIES)}")
        far = "leave it out where decoders of other hosts may join: their clips come through the socket"
        need(not (self.far_decoders and self.clip_memory == "shared"), "--clip-memory", self.clip_memory, far)
        self._check_inference_at()
        need(self.wire in WIRES, "--wire", self.wire, f"give one of {', '.join(WIRES)}")
        over = self.far_decoders or self.inference_at.startswith("tcp:")
        need(self.wire == RAW or bool(over), "--wire", self.wire, "leave it out where clips stay on this machine")
        memory_of(self.decoder_bytes >> 20, "--decoder-memory")
        need(self.jail in JAILS, "--jail", self.jail, f"give one of {', '.join(JAILS)}")
        need(0 < self.enter <= 1, "--enter", self.enter, "give a score above 0, up to 1")
        need(0 <= self.leave <= self.enter, "--leave", self.leave, f"give a score from 0 up to --enter {self.enter:g}")
        need(0 <= self.min_duration_s < math.inf, "--min-duration", self.min_duration_s, "give seconds, at least 0")
        need(1 <= self.smooth <= 1000, "--smooth", self.smooth, "give 1 to 1000 clips")
        need(0 <= self.frame_rate <= 1000, "--frame-rate", self.frame_rate, "give frames per second, up to 1000")
        self._check_devices()

    def _check_inference_at(self) -> None:
        at = self.inference_at
        if not at:
            return
        if re.fullmatch(r"ipc:///.+", at) is None:
            if not at.startswith("tcp://"):
                raise UsageError(f"--inference-at is '{at}': give ipc:///FOLDER or tcp://HOST:PORT")
            split_address(at)
        if self.bind:
            raise UsageError(f"--inference-at is '{at}' beside --bind '{self.bind}': give one of them")
        if self.clip_memory == "shared":
            raise UsageError(
                "--clip-memory is 'shared' beside --inference-at: leave it out, the socket is the only way"
            )

    def _check_devices(self) -> None:
        devices = self.devices
        for device in devices:
            choose(self.backend, device)
        if len({device.partition(":")[0] for device in devices}) > 1:
            raise UsageError(f"--device is '{self.device}': give devices of one kind, which give the same scores")
        places = [place for device in devices for place in (cores_of(device) or (device,))]
        if len(set(places)) < len(places) or (len(devices) > 1 and "cpu" in devices):
            raise UsageError(f"--device is '{self.device}': name each device or core once")

    @property
    def devices(self) -> tuple[str, ...]:
        """Each has an inference process of its own."""
        return tuple(self.device.split(","))

    @property
    def kind_of_device(self) -> str:
        """``cpu``, ``mlu`` or ``cuda``."""
        return self.device.partition(":")[0]

    def backend_for(self, model: ModelFolder) -> str:
        """The backend that runs ``model``.

        Raises:
            UsageError: none does on these devices.
        """
        return choose(self.backend, self.devices[0], model.target)

    @property
    def decoders(self) -> int:
        """How many decoder processes there are at most, on this machine."""
        return 0 if self.workers == NO_WORKERS else self.workers or usable_cores()

    @property
    def seats(self) -> int:
        """How many there are at most, with those of other hosts."""
        return self.decoders + self.far_decoders

    def first_decoders(self, model: ModelFolder) -> int:
        """How many to begin with: all that were asked for; else a few where they share a CPU with inference."""
        if self.workers or self.far_decoders or not self.shares_cores(model):
            return self.decoders
        return 1 + usable_cores() // CORES_OF_A_DECODER

    def shares_cores(self, model: ModelFolder) -> bool:
        """Decoders and inference work on the same cores."""
        return on_cpu(self.devices[0]) and self.backend_for(model) != "null"

    def for_videos(self, count: int, model: ModelFolder) -> EngineConfig:
        """The same, with what suits so many videos.

        Codecs use threads of their own where there are fewer videos than cores to decode them and inference needs none
        of these: a thread per video costs the least, and decodes a CPU's fill of clips many times over.
        """
        spare = 1 if self.workers or self.shares_cores(model) else usable_cores() // max(1, count)
        return dataclasses.replace(self, decode_threads=max(1, min(spare, MOST_THREADS)))

    def clip_layout(self, model: ModelFolder) -> Layout:
        """The slots of all decoders' clips to one device, from the memory budget.

        Clips that inference collects for a batch are in it too: two batches, and two clips per decoder, always fit.
        More than ``AHEAD`` batches are of no use.
        """
        seats = self.seats
        batch = most_in_batch(self.backend_for(model), self.devices[0], self.max_batch)
        least = 2 + -(-2 * batch // seats)
        useful = max(least, -(-AHEAD * batch // seats))
        fits = self.queue_bytes // len(self.devices) // model.clip_bytes // seats
        if self.far_decoders:  # how many there will be, nobody knows; inference lends less to each, the more there are
            return Layout(seats, max(least, AHEAD * batch), model.clip_shape)
        return Layout(seats, max(least, min(useful, fits)), model.clip_shape)

    def jail_of(self, role: str) -> Jail:
        """What a process of this role keeps: those that decode little, those that know a driver nearly everything."""
        if role in ("decoder", "camera"):
            network = role == "camera" or self.remote or self.inference_at.startswith("tcp:")
            return Jail(self.jail, self.decoder_bytes, network=network)
        return Jail(privileges=role == "inference" and not on_cpu(self.devices[0]))

    def sampling_rate(self, model: ModelFolder) -> float:
        """Frames per second that clips are sampled at where they are sampled in time."""
        return self.frame_rate or model.frame_rate or DEFAULT_RATE

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> EngineConfig:
        guards = Guards(**content["guards"])
        return cls(**{**content, "null_delay_ms": tuple(content["null_delay_ms"]), "guards": guards})
