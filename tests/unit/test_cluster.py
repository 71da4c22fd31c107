"""A simulated cluster: the resource that carries least is the one that saturates, and what it carries comes through."""

from __future__ import annotations

import dataclasses

import pytest

from clipmux.bench.cluster import Streams, Stretch, Topology, Videos, capacities, run_cluster
from clipmux.bench.costs import Costs, Pace

COSTS = Costs(frame_s=1e-3, send_s=1e-4, end_s=0, take_s=1e-4, collect_s=1e-5, write_s=1e-4, hand_out_s=1e-4)
AMPLE = Topology(
    hosts=8, cores=2, inference_hosts=2, devices=2, link_clips_per_s=5e3, pace=Pace(0.5e-3, 0.25e-3, 64), costs=COSTS
)
"""Ample enough for ``LIVE``; what is bound by something has less of that."""

LIVE = Streams(300, frames=16, every_s=0.64, max_delay_s=0.0)
PATIENT = dataclasses.replace(LIVE, max_latency_s=60.0)
VIDEOS = Videos(160, max_delay_s=0.25)


def run(topology: Topology, load: Streams | Videos) -> Stretch:
    """So much of its time that what waits has become as much as it ever will."""
    return run_cluster(topology, load, seconds=6.4, warm_up_s=25.0, seed=1)


def with_costs(**seconds: float) -> Topology:
    return dataclasses.replace(AMPLE, costs=dataclasses.replace(COSTS, **seconds))


def test_a_load_that_fits_is_done_whole_and_uses_what_the_formulas_say() -> None:
    stretch = run(AMPLE, LIVE)
    rate = 300 / 0.64
    assert stretch.offered_per_s == pytest.approx(rate, rel=0.01)
    assert stretch.clips_per_s == pytest.approx(rate, rel=0.02)
    assert stretch.dropped_per_s == 0
    carries = capacities(AMPLE, LIVE)
    for name in ("decoder cores", "decoder links", "inference links", "inference processes", "collector"):
        # The busiest of a kind has more than its even share: 300 streams on 8 hosts are 38 on some.
        assert stretch.use[name] == pytest.approx(rate / carries[name], rel=0.1), name
    assert stretch.latency_p50_s <= stretch.latency_p99_s < 0.1


@pytest.mark.parametrize(
    ("bound", "topology", "load"),
    [
        ("decoder cores", with_costs(frame_s=5e-3), PATIENT),
        (
            "decoder links",
            dataclasses.replace(AMPLE, inference_hosts=20, link_clips_per_s=40, pace=Pace(0.0, 1e-3, 4)),
            PATIENT,
        ),
        ("inference links", dataclasses.replace(AMPLE, link_clips_per_s=150), PATIENT),
        ("inference processes", with_costs(take_s=12e-3), PATIENT),
        ("devices", dataclasses.replace(AMPLE, pace=Pace(0.0, 12e-3, 8)), LIVE),
        ("collector", with_costs(collect_s=3e-3), PATIENT),
        ("decoder cores", AMPLE, VIDEOS),
        ("inference links", dataclasses.replace(AMPLE, link_clips_per_s=200), VIDEOS),
        ("devices", dataclasses.replace(AMPLE, pace=Pace(0.0, 10e-3, 8)), VIDEOS),
        ("supervisor", with_costs(hand_out_s=30e-3), VIDEOS),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_carries_least_saturates_and_decides(bound: str, topology: Topology, load: Streams | Videos) -> None:
    carries = capacities(topology, load)
    assert min(carries, key=lambda name: carries[name]) == bound
    stretch = run(topology, load)
    assert stretch.use[bound] == pytest.approx(1, abs=0.03)
    assert stretch.clips_per_s == pytest.approx(carries[bound], rel=0.05)
    assert all(use <= 1 + 1e-9 for use in stretch.use.values())


def test_a_device_that_is_too_slow_for_its_streams_scores_only_what_is_in_time() -> None:
    slow = dataclasses.replace(AMPLE, pace=Pace(0.0, 12e-3, 8))
    stretch = run(slow, LIVE)
    assert stretch.latency_p99_s <= LIVE.max_latency_s + 0.1
    assert stretch.dropped_per_s == pytest.approx(stretch.offered_per_s - 4 / 12e-3, rel=0.1)


def test_a_link_that_is_too_slow_makes_clips_late_that_it_has_carried() -> None:
    stretch = run(dataclasses.replace(AMPLE, link_clips_per_s=150), LIVE)
    assert stretch.use["inference links"] == pytest.approx(1, abs=0.01)
    assert stretch.clips_per_s < 0.5 * 300


def test_a_seed_decides_everything() -> None:
    assert run(AMPLE, LIVE) == run(AMPLE, LIVE)
    assert run_cluster(AMPLE, LIVE, seconds=6.4, warm_up_s=25.0, seed=2) != run(AMPLE, LIVE)


def test_a_cluster_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        dataclasses.replace(AMPLE, hosts=0)
