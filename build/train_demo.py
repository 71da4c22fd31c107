"""Train the demonstration model on rendered clips and write its model folder.

    python -m clipmux.build.train_demo --output build/demo

About half an hour on two cores. Every clip of the pool is rendered, encoded by a real codec, decoded and resized as a
run would do it, from seeds below ``HELD_OUT_SEED``; the videos that test the model come from seeds above it. The same
seed, number of steps and number of threads give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from clipmux.build.architectures import Architecture, build
from clipmux.build.shapes import HELD_OUT_SEED, LABELS, Scene

ARCHITECTURE = Architecture("resnet", 10, len(LABELS), widen_factor=0.125)
FRAMES, SIDE = 16, 112
MEAN = STD = (0.5, 0.5, 0.5)

Clips = npt.NDArray[np.uint8]

# What each label becomes when the clip is mirrored or played backwards. The labels change with the picture, so eight
# ways of turning a square and two directions of time make sixteen clips of one, all of them true.
_PAIRS = {
    "columns": (("left", "right"), ("clockwise", "counter-clockwise")),
    "rows": (("up", "down"), ("clockwise", "counter-clockwise")),
    "transposed": (("left", "up"), ("right", "down"), ("clockwise", "counter-clockwise")),
    "backwards": (("left", "right"), ("up", "down"), ("clockwise", "counter-clockwise"), ("growing", "shrinking")),
}


def relabelled(label: int, mirror: str) -> int:
    """The class of a clip of class ``label`` after ``mirror``: columns, rows, transposed or backwards."""
    name = LABELS[label]
    for one, other in _PAIRS[mirror]:
        if name in (one, other):
            return LABELS.index(other if name == one else one)
    return label


def mirrored(clip: Clips, mirror: str) -> Clips:
    """A view of a clip ``[T, H, W, C]`` after ``mirror``: columns, rows, transposed or backwards."""
    views = {
        "columns": clip[:, :, ::-1],
        "rows": clip[:, ::-1],
        "transposed": clip.transpose(0, 2, 1, 3),
        "backwards": clip[::-1],
    }
    return views[mirror]


def training_scene(number: int, seed: int) -> Scene:
    """The scene of clip ``number`` of the pool of ``seed``; labels take turns.

    It is square, since a run keeps the centred square of each frame, and that looks the same in a scene of any shape.
    """
    rng = np.random.default_rng((seed, number))
    side = int(rng.choice([96, 112, 128, 160, 240]))
    fps = math.exp(rng.uniform(math.log(12), math.log(40)))
    return Scene(LABELS[number % len(LABELS)], int(rng.integers(HELD_OUT_SEED)), side, side, fps)


def training_clip(number: int, seed: int) -> Clips:
    """Clip ``number`` of the pool of ``seed``, as a run would see it: uint8 RGB ``[16, 112, 112, 3]``."""
    scene = training_scene(number, seed)
    rng = np.random.default_rng(scene.seed)
    clip = _coded(scene.clip(int(rng.integers(round(5 * scene.fps))), FRAMES), rng)
    resized = [Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for frame in clip]
    return np.stack([np.asarray(frame) for frame in resized])


def _coded(clip: Clips, rng: np.random.Generator) -> Clips:
    """A clip as a codec leaves it, at a quality from good to poor."""
    codec = str(rng.choice(["libx264", "mpeg4", "libvpx", "mjpeg"]))
    frames, side = clip.shape[:2]
    bits_per_pixel = math.exp(rng.uniform(math.log(0.06), math.log(0.6))) * (4 if codec == "mjpeg" else 1)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = int(bits_per_pixel * side * side * 25)
        stream.codec_context.thread_count = 1
        fast = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}
        stream.options = fast.get(codec, {})
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as written:
        decoded = [frame.to_ndarray(format="rgb24") for frame in written.decode(video=0)]
    # A poor rate lets some encoders drop frames; the last one is then seen for longer.
    return np.stack((decoded + decoded[-1:] * frames)[:frames])


def halved(pool: Clips) -> Clips:
    """Clips of half the side: the mean of every four pixels, uint8 ``[N, 16, 56, 56, 3]``."""
    small = np.empty((len(pool), FRAMES, SIDE // 2, SIDE // 2, 3), np.uint8)
    for number, clip in enumerate(pool):
        rows = clip[:, ::2].astype(np.uint16) + clip[:, 1::2]
        small[number] = (rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4
    return small


def training_batch(pool: Clips, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """A batch drawn from the pool, each clip turned, padded and tinted at random.

    Returns:
        float32 ``[size, 3, 16, H, W]``, normalised, and int64 classes ``[size]``.
    """
    clips = torch.empty((size, *pool.shape[1:]))
    labels = np.empty(size, np.int64)
    for place, number in enumerate(rng.integers(len(pool), size=size)):
        clip, label = pool[number], int(number) % len(LABELS)
        for mirror in _PAIRS:
            if rng.random() < 0.5:
                clip, label = mirrored(clip, mirror), relabelled(label, mirror)
        if rng.random() < 0.15:
            # The last window of a video repeats itself from its own start: a b c a b c …
            clip = clip[np.arange(FRAMES) % rng.integers(1, FRAMES)]
        tinted = torch.from_numpy(np.ascontiguousarray(clip[..., rng.permutation(3)])).float().div_(255).sub_(0.5)
        gain = rng.uniform(0.6, 1.3, 3) * rng.choice([-1, 1])
        tinted.mul_(torch.from_numpy(gain).float()).add_(torch.from_numpy(rng.uniform(-0.12, 0.12, 3)).float())
        clips[place] = tinted.clamp_(-0.5, 0.5).div_(STD[0])
        labels[place] = label
    # This is torch's channels_last_3d layout already, in which these narrow convolutions train twice as fast.
    return clips.permute(0, 4, 1, 2, 3), torch.from_numpy(labels)


def render_pool(size: int, seed: int, workers: int) -> Clips:
    """``size`` training clips, uint8 ``[size, 16, 112, 112, 3]``; clip ``n`` is of class ``n`` modulo ten."""
    pool = np.empty((size, FRAMES, SIDE, SIDE, 3), np.uint8)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as executor:
        for number, clip in enumerate(executor.map(training_clip, range(size), [seed] * size, chunksize=16)):
            pool[number] = clip
    return pool


def accuracy(network: nn.Module, pool: Clips) -> float:
    """The share of a pool's clips, as they are, whose class the network names."""
    network.eval()
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(pool), 32):
            clips = torch.from_numpy(pool[start : start + 32]).permute(0, 4, 1, 2, 3).float().div(255).sub(0.5)
            named = network(clips.div(STD[0])).argmax(1)
            correct += int((named == torch.arange(start, start + len(clips)) % len(LABELS)).sum())
    network.train()
    return correct / len(pool)


def train(*, steps: int, batch: int, pool_size: int, seed: int, threads: int, small_share: float) -> nn.Module:
    """Train from scratch; the first ``small_share`` of the steps see clips of half the side, at a quarter the cost."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    pool = render_pool(pool_size, seed, threads)
    unseen = render_pool(200, seed + 1, threads)
    small = halved(pool)
    _say(f"rendered {pool_size} clips in {time.monotonic() - started:.0f} s")
    network = build(ARCHITECTURE).to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.15)
    losses: list[float] = []
    for step in range(1, steps + 1):
        clips, labels = training_batch(small if step <= steps * small_share else pool, rng, batch)
        loss = nn.functional.cross_entropy(network(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            line = f"step {step} of {steps}: loss {np.mean(losses[-50:]):.3f}, {time.monotonic() - started:.0f} s"
            if step > steps * small_share and (step % 100 == 0 or step == steps):
                line += f", accuracy on unseen clips {accuracy(network, unseen):.1%}"
            _say(line)
    return network.eval()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m clipmux.build.train_demo", description="Train the demo model.")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pool", type=int, default=4000, help="clips to render")
    parser.add_argument("--small-share", type=float, default=0.8, help="share of the steps at half the side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, help="keep the checkpoint here too")
    given = parser.parse_args(arguments)
    network = train(
        steps=given.steps,
        batch=given.batch,
        pool_size=given.pool,
        seed=given.seed,
        threads=given.threads,
        small_share=given.small_share,
    )
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    checkpoint = {"epoch": given.steps, "arch": ARCHITECTURE.name, "state_dict": weights}
    if given.checkpoint:
        torch.save(checkpoint, given.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path, labels = Path(folder) / "demo.pth", Path(folder) / "labels.txt"
        torch.save(checkpoint, path)
        labels.write_text("\n".join(LABELS) + "\n", encoding="utf-8")

        from clipmux.build.export import export_checkpoint

        export_checkpoint(path, labels, given.output, mean=MEAN, std=STD, force=True)
    _say(f"wrote {given.output}")


if __name__ == "__main__":
    main()
