"""The reference's way: one video at a time, PIL frames, float32 torch, a batch that is that video's clips.

As 3D-ResNets-PyTorch and Cambricon's sample have it: each frame is a PIL image, resized, cropped, made a float32 tensor
and normalised on the host; all clips of one video are stacked; an eager network, on all cores or on a GPU, answers
them; only then does the next video begin. Where theirs reads JPEGs that ffmpeg had extracted before, this one decodes
the video, which their figures leave out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clipmux.engine.backends.onnx_in_torch import OnnxInTorch
from clipmux.engine.backends.torch import find_device
from clipmux.engine.device import softmax
from clipmux.engine.errors import VideoError
from clipmux.engine.model import read_model
from clipmux.workers.decode import Frame, decode
from clipmux.workers.exact import Exact
from clipmux.workers.sources import Video
from clipmux.workers.windows import windows

from .norms import with_norms
from .way import Clock, Scores, Task, Way

MOST_CLIPS = 64
"""Clips in one call at most, as in the sample; a longer video takes several."""


class Reference(Way):
    """See above. Its network is the folder's ONNX, run by torch operator by operator, batch norms and all."""

    def __init__(self, task: Task) -> None:
        model = read_model(task.model)
        torch.set_num_threads(task.cores)
        self._task = task
        self._length = model.frames
        self._ncdhw = model.layout == "NCDHW"
        self._pixels = Exact(model.height, model.width)  # PIL's resize and crop, on PIL images
        self._mean = torch.tensor(model.mean).reshape(3, 1, 1)
        self._std = torch.tensor(model.std).reshape(3, 1, 1)
        path = model.network_path
        if "architecture" in model.provenance:  # a 3D-ResNet of ours, whose norms were folded
            path = Path(task.scratch) / "reference.onnx"
            with_norms(model.network_path, path)
        self._place = find_device(task.device)
        torch.backends.cudnn.allow_tf32 = False  # true float32 on GPUs too, as our own backend has it
        self._network = OnnxInTorch(path, device=self._place, dtype=torch.float32)
        clip = np.zeros(model.clip_shape[1:], np.uint8)
        self._infer([torch.stack([self._tensor(clip)] * self._length, dim=1)])  # torch allocates when first used

    def scores(self, clock: Clock) -> Iterator[tuple[int, int, Scores]]:
        clock.start()
        for number, video in enumerate(self._task.videos):
            try:
                clips = self._clips(video)
            except VideoError:
                continue
            first = 0
            while first < len(clips):
                for place, scores in enumerate(self._infer(clips[first : first + MOST_CLIPS])):
                    yield number, first + place, scores
                first += MOST_CLIPS

    def _clips(self, video: Video) -> list[torch.Tensor]:
        """Float32 ``[C, T, H, W]`` of every clip."""
        cut = windows(decode(video), length=self._length, stride=self._task.stride, keep=self._frame)
        return [torch.stack(window.frames, dim=1) for window in cut]

    def _frame(self, frame: Frame) -> torch.Tensor:
        return self._tensor(self._pixels(frame))

    def _tensor(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """``ToTensor`` and ``Normalize``: float32 ``[C, H, W]``."""
        return (
            torch.from_numpy(pixels)
            .permute(2, 0, 1)
            .contiguous()
            .to(torch.float32)
            .div(255)
            .sub(self._mean)
            .div(self._std)
        )

    def _infer(self, clips: list[torch.Tensor]) -> npt.NDArray[np.float32]:
        batch = torch.stack(clips).to(self._place)
        with torch.no_grad():
            return softmax(self._network(batch if self._ncdhw else batch.permute(0, 2, 3, 4, 1)).cpu().numpy())
