"""The simulated engine: nothing is lost, nothing is used more than there is of it, and what is known in advance comes
out."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmux.bench.costs import Costs, Pace
from clipmux.bench.simulate import Setup, frames_of_clips, simulate
from clipmux.workers.windows import windows

COSTS = Costs(frame_s=1e-3, send_s=1e-4, end_s=1e-4, take_s=1e-4, collect_s=1e-5, write_s=1e-4, hand_out_s=1e-4)
FREE = Costs(frame_s=1e-3, send_s=0, end_s=0, take_s=0, collect_s=0, write_s=0, hand_out_s=0)
PACE = Pace(0.4e-3, 0.25e-3, batch=8)
SETUP = Setup(COSTS, PACE, cores=2, decoders=2, slots=8)

costs = st.builds(Costs, *(st.floats(0, 2e-3) for _ in dataclasses.fields(Costs)))
paces = st.builds(
    Pace,
    st.floats(0, 2e-3),
    st.floats(1e-5, 2e-3),
    batch=st.integers(1, 16),
    runners=st.integers(1, 3),
    ahead=st.integers(0, 2),
    on_cores=st.booleans(),
)
setups = st.builds(
    Setup,
    costs,
    paces,
    cores=st.sampled_from([0.5, 1, 2, 4]),
    decoders=st.integers(1, 5),
    slots=st.integers(1, 20),
    max_delay_s=st.sampled_from([0.0, 0.01, 0.25]),
    length=st.just(16),
    stride=st.sampled_from([8, 16, 24]),
    by_process=st.booleans(),
)
lengths = st.lists(st.integers(1, 80), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(setups, lengths, st.integers(0, 3))
def test_conservation(setup: Setup, videos: list[int], seed: int) -> None:
    """Every clip is scored once and every video written; no resource is used more than there is; Little's law."""
    run = simulate(setup, videos, seed=seed)
    clips = sum(len(frames_of_clips(frames, length=16, stride=setup.stride)) - 1 for frames in videos)
    assert run.clips == clips
    assert run.videos == len(videos)
    assert max(run.batches) <= setup.pace.batch
    assert 0 < run.batch_fill <= 1
    assert 0 <= run.device_busy <= 1 + 1e-9
    assert 0 <= run.cores_busy <= 1 + 1e-9
    assert run.mean_on_way == pytest.approx(run.clips_per_s * run.latency_mean_s)
    in_device = (setup.pace.runners + setup.pace.ahead) * setup.pace.batch
    beyond_slots = setup.decoders + setup.pace.batch  # decoded and without a slot yet; being copied
    assert run.most_on_way <= setup.decoders * setup.slots + in_device + beyond_slots


@settings(deadline=None, max_examples=15)
@given(setups, lengths)
def test_a_seed_decides_everything(setup: Setup, videos: list[int]) -> None:
    assert simulate(setup, videos, seed=1) == simulate(setup, videos, seed=1)


def test_another_seed_is_another_run() -> None:
    assert simulate(SETUP, [80] * 4, seed=1).wall_s != simulate(SETUP, [80] * 4, seed=2).wall_s


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 40))
def test_every_frame_is_decoded_once_and_every_window_is_a_clip(frames: int, length: int, stride: int) -> None:
    steps = frames_of_clips(frames, length=length, stride=stride)
    assert sum(steps) == frames
    cut = list(windows(range(frames), length=length, stride=stride, keep=lambda frame: frame))
    assert len(steps) - 1 == len(cut)
    done = 0
    for step, window in zip(steps, cut, strict=False):
        done += step
        assert done >= window.start + window.covered


def test_a_slow_device_sets_the_pace() -> None:
    quick = dataclasses.replace(COSTS, frame_s=1e-5)
    run = simulate(dataclasses.replace(SETUP, costs=quick, pace=Pace(0.0, 10e-3, batch=8)), [160] * 80)
    assert run.clips_per_s == pytest.approx(100, rel=0.03)
    assert run.device_busy == pytest.approx(1, abs=0.03)
    # All slots are full, and the device has a batch in work and one ahead: Little's law, the other way round.
    assert run.latency_p50_s == pytest.approx((2 * 8 + 16 + 2) / 100, rel=0.1)


def test_slow_decoders_set_the_pace() -> None:
    """Batches go when the oldest clip has waited long enough."""
    setup = Setup(FREE, Pace(0.0, 1e-5, batch=64), cores=2, decoders=2, slots=64, max_delay_s=0.25)
    run = simulate(setup, [1600] * 8)
    assert run.clips_per_s == pytest.approx(2 / 16e-3, rel=0.03)
    assert run.batch_fill == pytest.approx(0.25 * 125 / 64, rel=0.1)
    assert run.latency_p50_s == pytest.approx(0.125, rel=0.1)


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_a_device_on_the_cores_shares_them(cores: int) -> None:
    """The ideal of docs/benchmarks.md: cores ÷ (CPU seconds of decoding + of inference)."""
    pace = Pace(0.0, 16e-3, batch=8, runners=cores, on_cores=True)
    run = simulate(Setup(FREE, pace, cores=cores, decoders=cores, slots=24), [320] * 40)
    assert run.clips_per_s == pytest.approx(cores / (16e-3 + 16e-3), rel=0.03)
    assert run.cores_busy == pytest.approx(1, abs=0.03)


def test_the_last_clips_do_not_wait_for_others() -> None:
    run = simulate(SETUP, [16])
    assert run.batches == {1: 1}
    assert run.latency_p50_s < SETUP.max_delay_s / 10


def test_a_long_video_for_each_of_many_decoders_keeps_the_device_busy() -> None:
    """If some videos overtook others, their decoders could not keep it busy, and those of the others would wait."""
    clips_per_s, decoders = 175, 24
    pace = Pace(0.4e-3, 0.25e-3, batch=64)
    costs = dataclasses.replace(FREE, frame_s=1 / clips_per_s / 16)
    run = simulate(Setup(costs, pace, cores=decoders, decoders=decoders, slots=16), [1600] * decoders)
    assert run.clips == 2400
    assert run.device_busy > 0.9
    assert run.batch_fill > 0.95


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        dataclasses.replace(SETUP, slots=0)
    with pytest.raises(ValueError, match="runners"):
        Pace(0.0, 1.0, batch=8, runners=0)
    with pytest.raises(ValueError, match="from 0 on"):
        Pace(-1.0, 1.0, batch=8)
    with pytest.raises(ValueError, match="frame_s is -1"):
        dataclasses.replace(COSTS, frame_s=-1)
