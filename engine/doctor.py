"""``clipmux doctor``: whether a run would work on this machine, and what it would find there."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .check import FAIL, OK, WARN, Check, looked_at
from .doctor_machine import machine_checks
from .doctor_magicmind import MARK
from .model import ModelFolder, demo_folder, file_sha256, read_model

OLDEST_PYTHON = (3, 10)

DECODERS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp8": ("vp8", "libvpx"),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1", "libgav1"),  # FFmpeg's own decodes on GPUs only
    "mpeg4": ("mpeg4",),
    "mpeg2": ("mpeg2video",),
    "mjpeg": ("mjpeg",),
    "prores": ("prores",),
}
"""Codecs that videos come in, and the decoders for each; one is enough."""

EXTRAS = {
    "onnx": "changes imported networks",
    "torch": "reads checkpoints, runs on GPUs",
    "nncf": "quantises for OpenVINO",
}
"""What is optional, and what for."""

CUDA_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvmap")
"""One is there where there is a GPU that torch could use; importing torch to find out takes seconds."""

TORCH_TIMEOUT_S, MAGICMIND_TIMEOUT_S = 60, 300


def diagnose(*, arch: str = "mtp_372") -> list[Check]:
    """Look at everything.

    Args:
        arch: what MagicMind builds its trial models for.
    """
    checks = looked_at("python", python)
    checks += looked_at("packages", packages)
    checks += looked_at("codecs", codecs)
    models: list[ModelFolder] = []
    checks += looked_at("bundled model", lambda: bundled_model(models))
    checks += looked_at("machine", lambda: machine_checks(models[0] if models else _stand_in()))
    checks += looked_at("openvino", lambda: openvino(models))
    checks += looked_at("torch", torch)
    checks += looked_at("magicmind", lambda: magicmind(arch))
    return checks


def would_run(checks: Iterable[Check]) -> bool:
    """Whether a run would work on the CPU and on every device whose software is installed."""
    return all(check.status != FAIL for check in checks)


def to_json(checks: Sequence[Check]) -> str:
    """``{"would_run": bool, "checks": [{"name", "status", "value", "remedy"}, …]}``."""
    content = {"would_run": would_run(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(content, indent=2, ensure_ascii=False)


def show(checks: Sequence[Check], console: Console) -> None:
    """A row per finding, and in one sentence what they come to."""
    table = Table("", "what", "found")
    colours = {OK: "green", WARN: "yellow", FAIL: "red"}
    for check in checks:
        found = Text(check.value)
        if check.remedy:
            found.append(f"\n→ {check.remedy}", style="dim" if check.status == OK else "")
        table.add_row(Text(check.status, style=colours[check.status]), Text(check.name), found)
    console.print(table)
    count = sum(check.status == FAIL for check in checks)
    console.print("a run would work here" if not count else f"a run would not work here: {count} failed")


def python() -> Check:
    """The interpreter."""
    value = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", FAIL, value, "use Python 3.10 or newer")
    if sys.platform != "linux":
        return Check("python", WARN, value, "use Linux: clipmux is tested nowhere else")
    return Check("python", OK, value)


def packages() -> Iterator[Check]:
    """clipmux and what it declares to need, at the versions it declares."""
    yield Check("clipmux", OK, metadata.version("clipmux"))
    for needed in metadata.requires("clipmux") or []:
        match = re.fullmatch(r"\s*([\w.-]+)\s*(?:>=\s*([\d.]+))?[^;]*(?:;(.*))?", needed)
        if match is None:
            continue
        name, oldest, marker = match[1], match[2] or "0", match[3] or ""
        if "extra" in marker and name not in EXTRAS:
            continue
        if "python_version" in marker and sys.version_info >= (3, 11):  # tomli, which newer ones have within
            continue
        yield _package(name, oldest, optional="extra" in marker)


def _package(name: str, oldest: str, *, optional: bool) -> Check:
    extra = "quantize" if name == "nncf" else "torch"
    install = f"pip install 'clipmux[{extra}]'" if optional else "pip install --upgrade clipmux"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if optional:
            return Check(name, OK, f"not installed; {EXTRAS[name]}", install)
        return Check(name, FAIL, "not installed", install)
    if _numbers(version) < _numbers(oldest):
        return Check(name, WARN if optional else FAIL, f"{version}, {oldest} or newer is needed", install)
    return Check(name, OK, version)


def _numbers(version: str) -> tuple[int, ...]:
    """``"2.13.0+cpu"`` is (2, 13, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", version)[0]))


def codecs() -> Check:
    """Decoders of the codecs that videos come in."""
    import av

    there = [codec for codec, decoders in DECODERS.items() if any(map(_decodes, decoders))]
    missing = [codec for codec in DECODERS if codec not in there]
    if not there:
        return Check("codecs", FAIL, "no video decoder", "pip install --force-reinstall av")
    value = f"{', '.join(there)} (FFmpeg {av.ffmpeg_version_info})"
    if missing:
        remedy = "pip install --force-reinstall --only-binary av av, whose own FFmpeg has them"
        return Check("codecs", WARN, f"{value}; no {', '.join(missing)}", remedy)
    return Check("codecs", OK, value)


def _decodes(name: str) -> bool:
    import av

    try:
        return bool(av.Codec(name, "r").is_decoder)
    except ValueError:
        return False


def bundled_model(found: list[ModelFolder]) -> Check:
    """The demonstration's model as it was shipped; goes into ``found`` where it can be read."""
    model = read_model(demo_folder())
    found.append(model)
    if file_sha256(model.network_path) != model.sha256:
        remedy = "pip install --force-reinstall clipmux"
        return Check("bundled model", FAIL, f"'{model.network_path}' is not the file that was shipped", remedy)
    return Check(
        "bundled model", OK, f"{model.name}, {len(model.labels)} classes, sha256 {model.sha256[:12]}… is right"
    )


def openvino(models: Sequence[ModelFolder]) -> Iterator[Check]:
    """OpenVINO's devices, and one clip through the bundled model."""
    from .without_telemetry import ov

    core = ov.Core()
    devices = [f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices]
    able = " ".join(sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
    yield Check("openvino devices", OK, f"{', '.join(devices)}; on the CPU {able}")
    for model in models:
        yield _one_clip(model)


def _one_clip(model: ModelFolder) -> Check:
    from .backends import open_backend
    from .device import softmax

    name = "a clip on the CPU"
    start = time.perf_counter()
    backend = open_backend("openvino", model, device="cpu", max_batch=1, null_delay_ms=(0, 0))
    runner = backend.open_runner()
    opened = time.perf_counter()
    clip = np.random.default_rng(0).integers(0, 256, (1, *model.clip_shape), np.uint8)
    scores = softmax(runner.infer(clip))
    done = time.perf_counter()
    runner.close()
    backend.close()
    if scores.shape != (1, len(model.labels)) or not np.isfinite(scores).all():
        return Check(name, FAIL, f"scores of shape {list(scores.shape)}", "pip install --force-reinstall openvino")
    value = f"{backend.chosen}; opened in {opened - start:.1f} s, a clip in {1000 * (done - opened):.0f} ms"
    return Check(name, OK, value)


def torch() -> Iterator[Check]:
    """The devices that torch has; it is imported, in a process of its own, only where there may be any."""
    if importlib.util.find_spec("torch") is None:
        return
    mlu = importlib.util.find_spec("torch_mlu") is not None
    if not mlu and not any(Path(file).exists() for file in CUDA_FILES):
        yield Check("torch devices", OK, "cpu; no CUDA device, no torch_mlu")
        return
    lines = [
        "import json, torch",
        "import torch_mlu" if mlu else "",
        "kinds = [getattr(torch, kind) for kind in ('cuda', 'mlu') if hasattr(torch, kind)]",
        "print(json.dumps([f'{k.__name__.split(chr(46))[1]}:{n} ({k.get_device_name(n)})'",
        "  for k in kinds if k.is_available() for n in range(k.device_count())]))",
    ]
    output, problem = _in_a_process(["-c", "\n".join(lines)], TORCH_TIMEOUT_S)
    if problem:
        remedy = "reinstall torch" + (" and torch_mlu, of versions that go together" if mlu else "")
        yield Check("torch devices", WARN, f"asking torch for its devices {problem}", remedy)
        return
    devices = json.loads(output.splitlines()[-1])
    if devices:
        yield Check("torch devices", OK, ", ".join(["cpu", *devices]))
    else:
        remedy = "install the torch that goes with this machine's driver (pytorch.org)"
        yield Check("torch devices", WARN, "cpu only, though a device's files are there", remedy)


def magicmind(arch: str) -> Iterator[Check]:
    """MagicMind's devices, and whether it behaves as was inferred; in a process of its own, since it may crash."""
    if importlib.util.find_spec("magicmind") is None:
        yield Check("magicmind", OK, "not installed; it runs on Cambricon MLUs and comes with their Neuware")
        return
    output, problem = _in_a_process(["-m", "clipmux.engine.doctor_magicmind", arch], MAGICMIND_TIMEOUT_S)
    found = [Check(**json.loads(line.removeprefix(MARK))) for line in output.splitlines() if line.startswith(MARK)]
    yield from found
    if problem:
        after = f" after '{found[-1].name}'" if found else ""
        remedy = "see what 'python -m clipmux.engine.doctor_magicmind' prints, and with cnmon whether the MLU is well"
        yield Check("magicmind", FAIL, f"trying it {problem}{after}", remedy)


def _in_a_process(arguments: Sequence[str], timeout_s: float) -> tuple[str, str]:
    """What a fresh interpreter prints, and how it failed, if it did."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), f"took more than {timeout_s:g} s"
    output = done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return output, ""
    how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else f"ended with status {done.returncode}"
    said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return output, how + (f" ({said[-1][:200]})" if said else "")


def _stand_in() -> ModelFolder:
    """What the sockets are tried with where the bundled model is missing: a clip of the usual size."""
    return ModelFolder(path=Path(), name="", network="", labels=("",))
