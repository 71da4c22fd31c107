"""A network as a PyTorch program has it without further thought: eager, float32, contiguous, its batch norms apart.

Only to compare with. The torch backend of the engine does the same in less time: norms folded into convolutions, and
channels last.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clipmux.engine.backends import Backend, Runner
from clipmux.engine.backends.onnx_in_torch import OnnxInTorch
from clipmux.engine.backends.torch import find_device
from clipmux.engine.errors import UsageError
from clipmux.engine.model import ANY_TARGET, ModelFolder

from .baselines.norms import with_norms
from .measure import cores

PREFERRED_BATCH = 8


class EagerBackend(Backend):
    """A model folder's float32 ONNX, operator by operator.

    Args:
        model: as ``build export`` or ``build import`` makes it.
        device: ``cpu`` or ``cuda:0``.
        max_batch: clips in one call at most.

    Raises:
        UsageError: the model was compiled, or there is no such device.
        ModelError: its network cannot be read.
    """

    name = "torch-eager"

    def __init__(self, model: ModelFolder, *, device: str, max_batch: int) -> None:
        if model.target != ANY_TARGET:
            raise UsageError(
                f"'{model.path}' was compiled for {model.target}: torch-eager takes the folder it was compiled from"
            )
        self.device = device
        self.max_batch = max_batch
        self.preferred_batch = min(PREFERRED_BATCH, max_batch)
        self.runners = 1
        self.place = find_device(device)
        if device == "cpu":
            torch.set_num_threads(cores())
        with tempfile.TemporaryDirectory(prefix="clipmux-bench-") as folder:
            path = model.network_path
            norms = 0
            if "architecture" in model.provenance:  # a 3D-ResNet of ours, whose norms were folded
                path = Path(folder) / "eager.onnx"
                norms = with_norms(model.network_path, path)
            self.network = OnnxInTorch(path, device=self.place, dtype=torch.float32)
        self.ncdhw = model.layout == "NCDHW"
        self.mean = torch.tensor(model.mean, device=self.place)
        self.std = torch.tensor(model.std, device=self.place)
        self.chosen = f"eager float32, {norms} batch norms apart, on {device}, one batch at a time"

    def open_runner(self) -> Runner:
        return _EagerRunner(self)


class _EagerRunner(Runner):
    def __init__(self, backend: EagerBackend) -> None:
        self._backend = backend

    def infer(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        backend = self._backend
        with torch.no_grad():
            values = torch.from_numpy(clips).to(backend.place).to(torch.float32).div(255)
            values = values.sub(backend.mean).div(backend.std)
            if backend.ncdhw:
                values = values.permute(0, 4, 1, 2, 3).contiguous()
            logits: npt.NDArray[np.float32] = backend.network(values).cpu().numpy()
        return logits
