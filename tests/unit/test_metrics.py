"""What Prometheus is told: names by its conventions, figures as they were beaten, families for others to add."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clipmux.engine.histogram import Histogram
from clipmux.engine.metrics import FAMILIES, Counter, Distribution, Gauge, Metrics, resident
from clipmux.engine.observer import Look, ProcessLook
from clipmux.engine.totals import Totals


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is told twice"
            found[key] = sample.value
    return found


def look(**more: Any) -> Look:
    """An engine in the middle of a run."""
    latency = Histogram()
    for seconds in (0.02, 0.03, 0.3, 40.0):
        latency.add(seconds)
    totals = Totals()
    totals.note("decoder-1", "decoder", {"frames": 320, "clips": 20, "busy_s": {"decode": 1.5, "send": 0.5}})
    totals.note(
        "inference-2",
        "inference",
        {
            "clips": 19,
            "busy_s": {"infer": 2.0},
            "batch_sizes": {"8": 2, "3": 1},
            "latency": latency.counts(),
            "latency_s": latency.seconds,
            "refused": 1,
        },
    )
    totals.note("collector-3", "collector", {"busy_s": {"write": 0.25}, "refused": 0})
    inference = ProcessLook("inference", "inference-2", os.getpid(), True, 0.0, {"in_batcher": 5, "in_device": 8})
    content: dict[str, Any] = {
        "processes": (inference,),
        "roles": ("decoder", "inference", "collector"),
        "in_progress": 3,
        "videos": {"classified": 7, "failed": 2},
        "failures": {"decode": 2},
        "deaths": {"decoder": 1},
        "sums": totals.sums(),
        "about": {"backend": "null", "device": "cpu"},
    }
    return Look(0.0, **{**content, **more})


def test_figures_are_those_that_were_told() -> None:
    found = samples(Metrics().page(look()))

    def told(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert told("clipmux_videos_total", outcome="classified") == 7
    assert told("clipmux_videos_total", outcome="failed") == 2
    assert told("clipmux_video_failures_total", stage="decode") == 2
    assert told("clipmux_videos_in_progress") == 3
    assert told("clipmux_frames_decoded_total") == 320
    assert (told("clipmux_clips_sent_total"), told("clipmux_clips_scored_total")) == (20, 19)
    assert told("clipmux_stage_busy_seconds_total", role="decoder", stage="send") == 0.5
    assert told("clipmux_stage_busy_seconds_total", role="collector", stage="write") == 0.25
    assert told("clipmux_queue_clips", place="batcher") == 5
    assert told("clipmux_queue_clips", place="device") == 8
    assert told("clipmux_process_deaths_total", role="decoder") == 1
    assert told("clipmux_process_deaths_total", role="inference") == 0
    assert told("clipmux_messages_refused_total", role="inference") == 1
    assert told("clipmux_process_memory_bytes", process="inference-2", kind="private") > 1 << 20
    assert [told("clipmux_batch_clips_bucket", le=bound) for bound in ("2", "4", "8", "+Inf")] == [0, 1, 3, 3]
    assert (told("clipmux_batch_clips_sum"), told("clipmux_batch_clips_count")) == (19, 3)
    bounds = ("0.01", "0.025", "0.05", "0.5", "25", "+Inf")
    assert [told("clipmux_clip_latency_seconds_bucket", le=bound) for bound in bounds] == [0, 1, 2, 3, 3, 4]
    assert told("clipmux_clip_latency_seconds_sum") == pytest.approx(40.35)


def test_a_run_that_has_just_begun_has_its_families_already() -> None:
    names = {name for name, _ in samples(Metrics().page(Look(0.0, videos={"classified": 0, "failed": 0})))}
    assert {"clipmux_videos_total", "clipmux_clips_scored_total", "clipmux_batch_clips_count"} <= names


def test_names_and_units_are_by_the_conventions() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert re.fullmatch(r"clipmux(_[a-z]+)+", family.name), family.name
        assert family.help.endswith("."), family.name
        assert not family.name.endswith(("_total", "_ms", "_count", "_sum", "_bucket", "_mib")), family.name
        if not isinstance(family, Distribution):
            assert all(re.fullmatch("[a-z]+", label) for label in family.labels)


def test_labels_that_are_hostile_are_escaped() -> None:
    stage = 'a "b"\\\n c'
    assert samples(Metrics().page(look(failures={stage: 1})))["clipmux_video_failures_total", (("stage", stage),)] == 1


def test_others_add_families_fed_from_their_childrens_beats() -> None:
    """As live streams do with what they drop: by name of the stream, in sums that outlive a camera's process."""
    totals = Totals()
    totals.note("camera-1", "camera", {"dropped": {"door": 3}})
    totals.ended("camera-1")
    totals.note("camera-2", "camera", {"dropped": {"door": 1, "yard": 4}})
    dropped = Counter(
        "clipmux_stream_dropped_clips",
        "Clips that were dropped.",
        ("stream",),
        lambda look: [((stream,), count) for stream, count in look.parts("camera", "dropped").items()],
    )
    streams = Gauge("clipmux_streams", "Streams.", (), lambda look: [((), len(look.processes))])
    found = samples(Metrics((*FAMILIES, dropped, streams)).page(look(sums=totals.sums())))
    assert found["clipmux_stream_dropped_clips_total", (("stream", "door"),)] == 4
    assert found["clipmux_stream_dropped_clips_total", (("stream", "yard"),)] == 4
    assert found["clipmux_streams", ()] == 1


def test_memory_of_a_process_that_has_ended_is_nothing() -> None:
    assert resident(2**22 + 1) == {}
