"""torch as a device: CPUs, NVIDIA GPUs, and MLUs through torch_mlu.

uint8 goes to the device and is normalised there. A clip comes as ``[T, H, W, C]``, which is the order that torch calls
channels-last: seen as ``[C, T, H, W]`` it is the fast one for convolutions, without moving a byte.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from clipmux.engine.errors import ModelError, UsageError
from clipmux.engine.model import ModelFolder

from .base import BATCH_ON_CPU, Backend, Phases, Runner
from .cores import on_cpu

try:
    import torch

    from .onnx_in_torch import OnnxInTorch
except ImportError as error:  # what is missing, or what of it does not fit this machine
    raise UsageError(f"the torch backend needs torch and onnx ({error}): pip install 'clipmux[torch]'") from None

PREFERRED_BATCH = 64
RUNNERS_CPU, RUNNERS = 1, 2  # two on an accelerator: one's copies overlap the other's computation

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchBackend(Backend):
    """A model folder's ONNX network, run by torch.

    Raises:
        UsageError: the device is not on this machine.
        ModelError: the network cannot be read, does not fit ``model.json``, or holds an operator that is not known.
    """

    name = "torch"

    def __init__(self, model: ModelFolder, *, device: str, max_batch: int) -> None:
        if model.precision not in DTYPES:
            raise ModelError(
                f"'{model.path}' has the precision {model.precision}, which the torch backend does not know: "
                f"compile it to one of {', '.join(DTYPES)}"
            )
        kind = self._kind = device.partition(":")[0]
        place = find_device(device)
        dtype = DTYPES[model.precision]
        self.device = device
        self.max_batch = max_batch
        self.preferred_batch = min(BATCH_ON_CPU if kind == "cpu" else PREFERRED_BATCH, max_batch)
        self.runners = RUNNERS_CPU if kind == "cpu" else RUNNERS
        if kind == "cpu":
            cores = len(os.sched_getaffinity(0))
            torch.set_num_threads(cores)
            on = f"on {cores} cores"
        else:
            on = f"on {device}, {_accelerator(kind).get_device_name(place)}"
        if kind == "cuda":
            # TF32 keeps 10 bits of each float32 factor: it is a precision of its own, and nobody asked for it.
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        rounded_to, computed = None, dtype
        if kind == "cpu" and not _cpu_has(dtype):
            rounded_to, computed = dtype, torch.float32
        precise = (
            model.precision
            if rounded_to is None
            else (f"{model.precision} computed in float32 and rounded (this CPU has no fast arithmetic for it)")
        )
        self.chosen = f"{precise}, {on}, {self.runners} at a time, batches of {self.preferred_batch}"
        # What torch_mlu makes of channels-last in five dimensions is not public, so MLUs get the plain order.
        channels_last = kind != "mlu"
        self._network = OnnxInTorch(
            model.network_path, device=place, dtype=computed, rounded_to=rounded_to, channels_last=channels_last
        )
        _check_ends(model, self._network)
        self._steps = _Steps(model, self._network, place, computed, plain_order=not channels_last)
        if kind != "cpu":
            _accelerator(kind).synchronize(place)  # runners have streams of their own, which do not wait for weights

    def open_runner(self) -> Runner:
        if on_cpu(self.device):
            return _CpuRunner(self._steps)
        return _CudaRunner(self._steps) if self._kind == "cuda" else _AcceleratorRunner(self._steps, self._kind)

    def staging(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        if self._kind != "cuda":
            return super().staging(shape)
        with torch.cuda.device(self._steps.place):  # whichever is current takes some of its own memory for this
            pinned: npt.NDArray[np.uint8] = torch.full(shape, 128, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned

    def close(self) -> None:
        del self._network, self._steps  # the weights go when the last runner does


def find_device(device: str) -> torch.device:
    """``cpu``, ``cuda:0`` or ``mlu:0`` as torch has it.

    Raises:
        UsageError: there is no such device here, or what drives it is missing.
    """
    kind, _, number = device.partition(":")
    if on_cpu(device):
        return torch.device("cpu")
    if kind not in ("cuda", "mlu") or not number.isdecimal():
        raise UsageError(f"the torch backend has no device '{device}': use cpu, cuda:0 or mlu:0 (or another number)")
    if kind == "mlu":
        if importlib.util.find_spec("torch_mlu") is None:
            raise UsageError(
                f"torch reaches '{device}' through torch_mlu, which is not installed: get it from Cambricon, "
                "or use --backend magicmind"
            )
        try:
            importlib.import_module("torch_mlu")  # registers the device
        except (ImportError, OSError) as error:
            raise UsageError(f"torch_mlu cannot be loaded ({error}): install the one made for this torch") from None
    accelerator = _accelerator(kind)
    count = accelerator.device_count() if accelerator.is_available() else 0
    if int(number) >= count:
        built = "" if kind == "mlu" or torch.version.cuda else ", being built without CUDA"
        found, remedy = f"none{built}", "use --device cpu"
        if count:
            found, remedy = str(count), f"use {kind}:0" + (f" to {kind}:{count - 1}" if count > 1 else "")
        raise UsageError(f"there is no device '{device}', torch finds {found}: {remedy}")
    return torch.device(device)


def _accelerator(kind: str) -> Any:
    """``torch.cuda``, or what torch_mlu gives with the same names in it."""
    return getattr(torch, kind)


def _cpu_has(dtype: torch.dtype) -> bool:
    """Whether this CPU computes with ``dtype`` at speed; without the instructions torch is 100 times slower."""
    known = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if dtype not in known:
        return True
    # Not a documented name: a torch without it counts as unable, which is slower and never wrong.
    asked = getattr(torch.ops.mkldnn, known[dtype], None)
    return asked is not None and bool(asked())


def _check_ends(model: ModelFolder, network: OnnxInTorch) -> None:
    """Compare a network's input and output with what ``model.json`` says of them.

    Raises:
        ModelError: they differ.
    """
    frames, height, width, channels = model.clip_shape
    clip = (channels, frames, height, width) if model.layout == "NCDHW" else model.clip_shape

    def fits(shape: tuple[int | None, ...] | None, wanted: tuple[int, ...]) -> bool:
        if shape is None:
            return True
        if len(shape) != 1 + len(wanted):
            return False
        return all(n is None or n == want for n, want in zip(shape[1:], wanted, strict=True))

    given = network.input.shape
    if not fits(given, clip):
        raise ModelError(
            f"'{model.network_path}' takes {_shown(given)}, but its model.json describes clips of {list(clip)}"
        )
    scores = network.output.shape
    if not fits(scores, (len(model.labels),)):
        raise ModelError(
            f"'{model.network_path}' gives {_shown(scores)}, but its model.json lists {len(model.labels)} labels"
        )


def _shown(shape: tuple[int | None, ...] | None) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape or ()) + "]"


class _Steps:
    """uint8 clips on the device to float32 logits on the device: normalise, order, compute; shared by all runners."""

    def __init__(
        self, model: ModelFolder, network: OnnxInTorch, place: torch.device, dtype: torch.dtype, *, plain_order: bool
    ) -> None:
        self.place = place
        self.clip_shape = model.clip_shape
        self._network = network
        self._dtype = dtype
        self._ncdhw = model.layout == "NCDHW"
        self._plain_order = plain_order
        # (pixel / 255 - mean) / std as one multiplication and one addition; in float32 at any precision, since
        # pixels of half precision would lose their last bits before the first layer sees them.
        self._scale = torch.tensor([1 / (255 * std) for std in model.std], device=place)
        self._shift = torch.tensor([-mean / std for mean, std in zip(model.mean, model.std, strict=True)], device=place)

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        values = torch.addcmul(self._shift, clips.to(torch.float32), self._scale).to(self._dtype)
        if self._ncdhw:
            values = values.permute(0, 4, 1, 2, 3)
            if self._plain_order:
                values = values.contiguous()
        return self._network(values).to(torch.float32)


class _CpuRunner(Runner):
    def __init__(self, steps: _Steps) -> None:
        self._steps = steps

    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._steps(torch.from_numpy(clips)).numpy()
        return logits


class _AcceleratorRunner(Runner):
    """A stream of its own, so that one runner's copies overlap another's computation."""

    def __init__(self, steps: _Steps, kind: str) -> None:
        self._steps = steps
        self._accelerator = _accelerator(kind)
        self._stream = self._accelerator.Stream(device=steps.place)

    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode(), self._accelerator.stream(self._stream):
            return self._on_host(self._steps(self._on_device(clips)))

    def phases(self, clips: npt.NDArray[np.uint8]) -> Phases:
        with torch.inference_mode(), self._accelerator.stream(self._stream):
            self._on_device(clips)  # the first copy takes memory, which is none of the steps
            marks = [self._mark()]
            on_device = self._on_device(clips)
            marks.append(self._mark())
            logits = self._steps(on_device)
            marks.append(self._mark())
            logits.cpu()
            marks.append(self._mark())
        self._stream.synchronize()
        return Phases(*(before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(marks)))

    def _mark(self) -> Any:
        mark = self._accelerator.Event(enable_timing=True)
        mark.record(self._stream)
        return mark

    def _on_device(self, clips: npt.NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(clips).to(self._steps.place, non_blocking=True)

    def _on_host(self, logits: torch.Tensor) -> npt.NDArray[np.float32]:
        on_host: npt.NDArray[np.float32] = logits.cpu().numpy()  # waits for this stream, and for no other
        return on_host

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # a device that failed has said so already
            self._stream.synchronize()


class _CudaRunner(_AcceleratorRunner):
    """A GPU reads pinned memory by itself, as ``staging`` gives it; clips from elsewhere are first copied into some.

    It is waited for asleep. CUDA's own way keeps a core at it all the time, which decoders can use.
    """

    def __init__(self, steps: _Steps) -> None:
        super().__init__(steps, "cuda")
        self._done = torch.cuda.Event(blocking=True)
        self._pinned: torch.Tensor | None = None

    def _on_device(self, clips: npt.NDArray[np.uint8]) -> torch.Tensor:
        given = torch.from_numpy(clips)
        if not given.is_pinned():
            if self._pinned is None or len(self._pinned) < len(clips):  # as large as the largest batch so far
                self._pinned = torch.empty(clips.shape, dtype=torch.uint8, pin_memory=True)
            given = self._pinned[: len(clips)].copy_(given)
        return given.to(self._steps.place, non_blocking=True)

    def _on_host(self, logits: torch.Tensor) -> npt.NDArray[np.float32]:
        answers = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        answers.copy_(logits, non_blocking=True)
        self._done.record(self._stream)
        self._done.synchronize()
        on_host: npt.NDArray[np.float32] = answers.numpy()
        return on_host
