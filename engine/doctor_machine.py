"""What ``clipmux doctor`` finds about the machine: processor, cores, memory, temporary files, sockets."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import zmq

from .check import FAIL, OK, WARN, Check, looked_at
from .config import usable_cores
from .errors import UsageError
from .jail import kernel_gives
from .messages import Clip, ClipKey, Segment
from .model import ModelFolder
from .sockets import dealer_clips, make_addresses, remove_sockets, router_clips
from .wire import CLIP_HEADER_MOST, decode_clip, encode

FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "AMX": ("amx_tile",),
}
"""Features that speed up clip models, and the kernel's names for them; one of the names is enough."""

MEMORY_BASE, MEMORY_PER_CORE = 1 << 30, 256 << 20
"""What a run of a small model takes: inference with its batches and queues, and a decoder per core."""

WAIT_S = 5.0


def machine_checks(model: ModelFolder) -> Iterator[Check]:
    """Every finding about the machine; ``model`` says how big a clip is."""
    yield from looked_at("processor", lambda: processor(_read("/proc/cpuinfo")))
    yield from looked_at("cores", cores)
    yield from looked_at("memory", memory)
    yield from looked_at("shared memory", shared_memory)
    yield from looked_at("sockets", lambda: sockets(model))
    yield from looked_at("jail", jail)


def processor(cpuinfo: str) -> Check:
    """The processor's name and features, from the text of /proc/cpuinfo."""
    said: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())
    name = said.get("model name") or platform.processor() or platform.machine()
    if "flags" not in said:  # not x86; OpenVINO finds out for itself what there is
        return Check("processor", OK, f"{name} ({platform.machine()})")
    flags = set(said["flags"].split())
    has = [feature for feature, names in FEATURES.items() if flags.intersection(names)]
    lacks = [feature for feature in FEATURES if feature not in has]
    value = f"{name}: {', '.join(has) or 'none of the features looked for'}"
    value += f"; no {', '.join(lacks)}" if has and lacks else ""
    if "AVX2" in has:
        return Check("processor", OK, value)
    return Check(
        "processor", WARN, value, "expect slow inference: CPUs with AVX2 (from 2013 on) are several times as fast"
    )


def cores() -> Check:
    """Cores that may be used, and how much of them a container's quota gives."""
    usable, there = usable_cores(), os.cpu_count() or 1
    value = f"{usable} usable" + (f" of {there}" if there != usable else "")
    quota = cpu_quota(_control_groups())
    if quota is None or quota >= usable:
        return Check("cores", OK, value)
    remedy = f"say --workers {max(1, round(quota))}: one decoder per usable core is more than the quota feeds"
    return Check("cores", WARN, f"{value}, a quota of {quota:g}", remedy)


def memory() -> Check:
    """Memory that is free, within a container's limit."""
    total, free = _memory_sizes()
    limit = memory_limit(_control_groups())
    value = f"{_gib(free)} free of {_gib(total)}"
    if limit is not None and limit < total:
        value += f", limited to {_gib(limit)}"
        free = min(free, limit)
    if free >= MEMORY_BASE + MEMORY_PER_CORE * usable_cores():
        return Check("memory", OK, value)
    return Check("memory", WARN, value, "say --workers 1 and --queue-memory 64, or free some memory")


def available_memory() -> int:
    """Bytes of memory that are free, or that control groups allow, whichever is less."""
    _, free = _memory_sizes()
    limit = memory_limit(_control_groups())
    return free if limit is None else min(free, limit)


def oom_kills(groups: Mapping[str, Path] | None = None, anywhere: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has ended for want of memory: in our control group where it says so, else anywhere."""
    groups = _control_groups() if groups is None else groups
    counts = [
        _read_or_nothing(groups[key] / name)
        for key, name in (("", "memory.events"), ("memory", "memory.oom_control"))
        if key in groups
    ]
    for text in (*counts, _read_or_nothing(anywhere)):
        for line in text.splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _memory_sizes() -> tuple[int, int]:
    """Bytes of memory: all, and free."""
    sizes = {
        line.partition(":")[0]: int(line.split()[1]) << 10
        for line in _read("/proc/meminfo").splitlines()
        if line.endswith("kB")
    }
    return sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemFree"])


def jail() -> Check:
    """What the kernel has to take files, programs and networks from decoders."""
    kernel = kernel_gives()
    if kernel.lacks:
        remedy = (
            "update the kernel (Landlock came with 5.13) or allow it in the container; do not run foreign files here"
        )
        return Check("jail", WARN, str(kernel), remedy)
    return Check("jail", OK, str(kernel))


def shared_memory() -> Check:
    """``/dev/shm``, which devices' libraries may use; the memory that clips travel in is anonymous, and not there."""
    path = Path("/dev/shm")  # noqa: S108  (looked at, not written to)
    if not path.is_dir():
        return Check("shared memory", OK, "no /dev/shm; clipmux itself needs none")
    usage = shutil.disk_usage(path)
    return Check("shared memory", OK, f"{_gib(usage.free)} free of {_gib(usage.total)}; clipmux itself needs none")


def sockets(model: ModelFolder) -> Check:
    """One clip through a socket, in the folder that a run would make, with a run's own options."""
    remedy = "set TMPDIR to a short path of a local folder that may be written to"
    try:
        addresses = make_addresses()
    except (OSError, UsageError) as error:
        return Check("sockets", FAIL, f"no folder for them can be made: {error}", remedy)
    try:
        start = time.perf_counter()
        problem = _round_trip(addresses.clips[0], model)
        elapsed = time.perf_counter() - start
        private = stat.S_IMODE(addresses.folder.stat().st_mode) == stat.S_IRWXU
    finally:
        remove_sockets(addresses)
    where = f"'{addresses.folder.parent}'"
    if problem:
        return Check("sockets", FAIL, f"in {where}: {problem}", remedy)
    if not private:
        return Check("sockets", WARN, f"others may enter folders made in {where}", remedy)
    return Check(
        "sockets", OK, f"a clip of {model.clip_bytes:,} bytes through one in {where} in {elapsed * 1000:.0f} ms"
    )


def _round_trip(address: str, model: ModelFolder) -> str:
    """Send a clip and compare what arrives; what went wrong, or nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, model.clip_shape, np.uint8)
    sent = Clip(ClipKey(0, 1, 0, Segment(1, model.frames + 1)), time.monotonic(), pixels, 0)
    context = zmq.Context()
    try:
        inference = router_clips(context, address, hwm=2, message_bytes=max(model.clip_bytes, CLIP_HEADER_MOST))
        decoder = dealer_clips(context, address, "decoder", hwm=2)
        decoder.setsockopt(zmq.SNDTIMEO, int(WAIT_S * 1000))
        decoder.send_multipart(encode(sent), copy=False)
        if not inference.poll(int(WAIT_S * 1000)):
            return f"a clip did not arrive within {WAIT_S:g} s"
        _, *frames = inference.recv_multipart()
        got = decode_clip(frames, model.clip_shape)
        return "" if isinstance(got, Clip) and np.array_equal(got.pixels, pixels) else "a clip arrived changed"
    except (zmq.ZMQError, OSError) as error:
        return str(error)
    finally:
        context.destroy(linger=0)


def cpu_quota(groups: Mapping[str, Path]) -> float | None:
    """Cores that control groups allow, None for all; in version 2 ``200000 100000`` is 2, ``max 100000`` all."""
    quotas = []
    if "" in groups:
        for folder in _upwards(groups[""]):
            quota, _, period = _read_or_nothing(folder / "cpu.max").partition(" ")
            if quota.isdigit():
                quotas.append(int(quota) / int(period))
    elif "cpu" in groups:
        for folder in _upwards(groups["cpu"]):
            quota = _read_or_nothing(folder / "cpu.cfs_quota_us").strip()
            if quota.isdigit():
                quotas.append(int(quota) / int(_read(folder / "cpu.cfs_period_us")))
    return min(quotas, default=None)


def memory_limit(groups: Mapping[str, Path]) -> int | None:
    """Bytes that control groups allow; None where nothing limits them."""
    limits = []
    for key, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        if key in groups:
            for folder in _upwards(groups[key]):
                text = _read_or_nothing(folder / name).strip()
                if text.isdigit() and int(text) < 1 << 60:  # version 1 says a huge number for no limit
                    limits.append(int(text))
    return min(limits, default=None)


def _control_groups(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> dict[str, Path]:
    """This process's folder per controller of version 1, and under ``""`` that of version 2, where they are mounted."""
    groups: dict[str, Path] = {}
    for line in _read_or_nothing(process).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            base = root / controller
            # Inside a container the path may be the host's, and the container's own group is then mounted as the root.
            folder = base / path.lstrip("/")
            if base.is_dir():
                groups[controller] = folder if folder.is_dir() else base
    if not (root / "cgroup.controllers").is_file():
        groups.pop("", None)
    return groups


def _upwards(folder: Path) -> Iterator[Path]:
    """A group and those that it is in: the strictest of them counts."""
    while folder != folder.parent and folder != Path("/sys/fs"):
        yield folder
        folder = folder.parent


def _read(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _read_or_nothing(path: Path) -> str:
    try:
        return _read(path)
    except OSError:
        return ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
