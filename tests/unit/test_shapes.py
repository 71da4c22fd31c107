"""The demonstration task: what is seen is what the label says, and one frame never says it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipmux.build.shapes import HELD_OUT_SEED, LABELS, Scene
from clipmux.engine.errors import UsageError
from clipmux.engine.model import demo_folder, file_sha256, read_model

MOVES = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
TURNS = {"clockwise": 1, "counter-clockwise": -1}
GROWS = {"growing": 1, "shrinking": -1}


def shapes_of(frame: np.ndarray) -> np.ndarray:
    """Where shapes are: darker or brighter than any background."""
    luma = frame @ np.array([0.299, 0.587, 0.114])
    return (luma < 46) | (luma > 199)


def shift_seen(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far the shapes of a square frame moved (rows, columns), the way round that is shorter."""
    spectrum = np.conj(np.fft.rfft2(shapes_of(before))) * np.fft.rfft2(shapes_of(after))
    correlation = np.fft.irfft2(spectrum, before.shape[:2])
    peak = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
    side = before.shape[0]
    return (peak + side // 2) % side - side // 2


def turn_seen(scene: Scene, before: int, after: int) -> float:
    """How far the first shape turned about its own centre, in radians, clockwise to the eye."""
    headings = []
    for index in (before, after):
        rows, columns = np.mgrid[: scene.height, : scene.width] + 0.5
        row, column = scene._centres[0] % 1 * scene.height
        down = (rows - row + scene.height / 2) % scene.height - scene.height / 2
        across = (columns - column + scene.width / 2) % scene.width - scene.width / 2
        inside = shapes_of(scene.frame(index)) & (np.hypot(down, across) < 0.16 * scene.height)
        headings.append(math.atan2(down[inside].mean(), across[inside].mean()))
    turn = headings[1] - headings[0]
    return (turn + math.pi) % (2 * math.pi) - math.pi


@pytest.mark.parametrize("label", LABELS)
def test_same_seed_same_frames(label: str) -> None:
    first, again = Scene(label, 5, 60, 80, 20), Scene(label, 5, 60, 80, 20)
    assert np.array_equal(first.clip(3, 4), again.clip(3, 4))
    assert np.array_equal(first.frame(4), again.clip(3, 4)[1]), "frames do not depend on the order they are asked in"
    assert first.frame(0).shape == (60, 80, 3)
    assert first.frame(0).dtype == np.uint8
    assert not np.array_equal(first.frame(0), Scene(label, 6, 60, 80, 20).frame(0))


@pytest.mark.parametrize("seed", range(5))
def test_the_first_frame_is_the_same_for_every_label(seed: int) -> None:
    frames = [Scene(label, seed).frame(0) for label in LABELS]
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


@pytest.mark.parametrize("label", MOVES)
def test_moving_shapes_move_where_the_label_says(label: str) -> None:
    for seed in range(8):
        scene = Scene(label, seed, 96, 96, 10)
        row, column = shift_seen(scene.frame(7), scene.frame(9)) / 96 / 0.2
        towards = np.array([row, column]) @ MOVES[label]
        assert 0.25 < towards < 0.9, (seed, row, column)
        assert abs(np.array([row, column]) @ MOVES[label][::-1]) < 0.3, (seed, row, column)


@pytest.mark.parametrize("label", sorted(set(LABELS) - set(MOVES)))
def test_other_shapes_stay_where_they_are_while_the_background_moves(label: str) -> None:
    for seed in range(4):
        scene = Scene(label, seed, 96, 96, 20)
        before, after = scene.frame(5), scene.frame(6)
        assert np.abs(shift_seen(before, after)).max() <= 6, "the centre of a shape that turns or grows may wander"
        background = ~(shapes_of(before) | shapes_of(after))
        assert np.abs(before[background].astype(int) - after[background]).mean() > 0.1


@pytest.mark.parametrize("label", [*TURNS, "still", "blinking"])
def test_only_turning_shapes_turn(label: str) -> None:
    for seed in range(8):
        turn = turn_seen(Scene(label, seed, 160, 160, 20), 3, 5)
        if label in TURNS:
            assert 0.2 < turn * TURNS[label] < 0.6, seed  # 0.35 to 0.9 turns a second, for 0.1 s
        else:
            assert abs(turn) < 0.2, seed


@pytest.mark.parametrize("label", sorted({*GROWS, "still", "blinking", *TURNS}))
def test_only_growing_shapes_grow(label: str) -> None:
    for seed in range(8):
        scene = Scene(label, seed, 160, 160, 50)
        areas = np.array([shapes_of(frame).sum() for frame in scene.clip(0, 50)])
        steps = np.diff(areas)[np.abs(np.diff(areas)) > 0.01 * areas.mean()]
        if label in GROWS:
            assert (steps * GROWS[label] > 0).mean() > 0.85, "all but the jumps back to the other end"
        else:
            assert np.ptp(areas) < 0.12 * areas.mean(), seed


@pytest.mark.parametrize("fps", [12, 15, 24, 30, 60])
def test_every_shape_blinks_in_every_clip_of_blinking_and_none_in_others(fps: int) -> None:
    for label in ("blinking", "still"):
        for start in range(0, 160, 16):
            clip = Scene(label, start, 48, 48, fps).clip(start, 16)
            flipped = (np.abs(np.diff(clip.astype(int), axis=0)).max(axis=3) > 100).any(axis=0)
            share = flipped[shapes_of(clip[0])].mean()
            assert share > 0.9 if label == "blinking" else share < 0.05, (label, start, share)


def test_one_frame_does_not_give_the_class_away() -> None:
    """A linear classifier on single frames stays near chance; the same one, on how frames change, does not."""

    def features(seeds: range, *, motion: bool) -> tuple[np.ndarray, np.ndarray]:
        rows, classes = [], []
        for seed in seeds:
            label = seed % len(LABELS)
            scene = Scene(LABELS[label], seed, 32, 32, 10)
            start = seed % 37
            if motion:
                shift = shift_seen(scene.frame(start), scene.frame(start + 2))
                rows.append(np.eye(3)[np.clip(shift, -4, 4) // 4 + 1].ravel())
            else:
                frame = scene.frame(start)
                masks = shapes_of(frame).reshape(8, 4, 8, 4).mean((1, 3)).ravel()
                rows.append(np.concatenate([masks, masks**2, frame.mean((0, 1)) / 255, frame.std((0, 1)) / 255]))
            classes.append(label)
        return np.c_[np.array(rows), np.ones(len(rows))], np.array(classes)

    def score(*, motion: bool) -> float:
        known, classes = features(range(700), motion=motion)
        new, truth = features(range(700, 1100), motion=motion)
        targets = np.eye(len(LABELS))[classes]
        weights = np.linalg.solve(known.T @ known + np.eye(known.shape[1]), known.T @ targets)
        return float(((new @ weights).argmax(1) == truth).mean())

    assert score(motion=False) < 0.16  # chance is 0.10, with a standard deviation of 0.015
    assert score(motion=True) > 0.35  # 4 of 10 classes have a direction


def test_wide_and_tall_frames_hold_the_whole_pattern_in_the_centred_square() -> None:
    """The square is what a run keeps: the shapes in it are those of a square scene, in every frame."""
    for height, width in ((64, 114), (114, 64)):
        for label in ("left", "down", "growing"):
            wide, square = Scene(label, 9, height, width, 20), Scene(label, 9, 64, 64, 20)
            cut = wide.frame(11)[(height - 64) // 2 :, (width - 64) // 2 :][:64, :64]
            assert (
                shapes_of(cut) == shapes_of(square.frame(11))
            ).mean() > 0.998  # backgrounds differ, and so do soft edges
            assert wide.frame(11).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("label", "height", "fps", "said"),
    [
        ("sideways", 112, 25, "sideways"),
        ("left", 8, 25, "112x8"),
        ("left", 112, 0, "0 frames"),
        ("up", 112, math.nan, "nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused(label: str, height: int, fps: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Scene(label, 0, height, 112, fps)


class TestTraining:
    """Needs torch, as training does."""

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        pytest.importorskip("torch", reason="training needs torch: pip install 'clipmux[torch]'")

    def test_training_never_sees_a_held_out_seed(self) -> None:
        from clipmux.build.train_demo import training_scene

        seeds = [training_scene(number, 0).seed for number in range(100)]
        assert 0 <= min(seeds) < max(seeds) < HELD_OUT_SEED
        assert len(set(seeds)) == 100

    def test_mirrored_clips_show_what_their_new_label_says(self) -> None:
        from clipmux.build.train_demo import mirrored, relabelled

        for mirror in ("columns", "rows", "transposed", "backwards"):
            for label in MOVES:
                clip = mirrored(Scene(label, 3, 96, 96, 10).clip(0, 3), mirror)
                now = LABELS[relabelled(LABELS.index(label), mirror)]
                assert shift_seen(clip[0], clip[2]) @ MOVES[now] > 4, (label, mirror)
            assert relabelled(LABELS.index("still"), mirror) == LABELS.index("still")
            assert relabelled(LABELS.index("clockwise"), mirror) == LABELS.index("counter-clockwise")
        assert relabelled(LABELS.index("growing"), "backwards") == LABELS.index("shrinking")
        assert relabelled(LABELS.index("growing"), "rows") == LABELS.index("growing")

    def test_a_training_clip_is_a_coded_clip_of_its_scene(self) -> None:
        from clipmux.build.train_demo import training_clip, training_scene

        for number in range(4):
            clip = training_clip(number, 1)
            assert clip.shape == (16, 112, 112, 3)
            assert np.array_equal(clip, training_clip(number, 1))
            background = training_scene(number, 1).frame(0).mean((0, 1))
            assert np.abs(clip.mean((0, 1, 2)) - background).max() < 25

    def test_batches_are_normalised_and_of_the_pools_size(self) -> None:
        from clipmux.build.train_demo import halved, training_batch, training_clip

        pool = halved(np.stack([training_clip(number, 1) for number in range(2)]))
        clips, labels = training_batch(pool, np.random.default_rng(0), 5)
        assert tuple(clips.shape) == (5, 3, 16, 56, 56)
        assert -1 <= float(clips.min()) < float(clips.max()) <= 1
        assert labels.shape == (5,)


def test_the_demo_model_is_whole_and_small() -> None:
    model = read_model("demo")
    assert model.labels == LABELS
    assert model.clip_shape == (16, 112, 112, 3)
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    assert model.sha256 == file_sha256(model.network_path)
    assert sum(path.stat().st_size for path in demo_folder().iterdir()) < 1_500_000
