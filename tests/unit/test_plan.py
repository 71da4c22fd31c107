"""What a load needs: formulas against figures worked out by hand, and costs with where they come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from command import clipmux
from hypothesis import given
from hypothesis import strategies as st

from clipmux.bench.costs import Costs, Stated, frame_cost, stated_costs, with_measured
from clipmux.bench.plan import Load, Need, Site, plan, stream_load, video_load
from clipmux.engine.errors import UsageError

COSTS = Costs(frame_s=1e-3, send_s=1e-3, end_s=5e-3, take_s=0.2e-3, collect_s=0.01e-3, write_s=0.1e-3, hand_out_s=1e-3)
LINKED = dataclasses.replace(COSTS, link_send_s=0.5e-3, link_take_s=0.3e-3)
DEVICE = Stated(LINKED, clips_per_s=1000.0)
CPU = Stated(COSTS, infer_s=20e-3)


def needed(load: Load, site: Site, stated: Stated) -> dict[str, Need]:
    return {need.name: need for need in plan(load, site, stated)}


def test_a_video_is_its_clips_and_frames() -> None:
    assert video_load(10, 30) == Load(clips=19, frames=300, videos=1)  # 18 whole windows, and 12 frames in another
    assert video_load(10, 30, stride=8) == Load(clips=37, frames=300, videos=1)
    assert video_load(0.01, 30) == Load(clips=1, frames=1, videos=1)


def test_a_stream_is_decoded_whole() -> None:
    assert stream_load(25, every_s=0.64) * 1000 == Load(clips=1562.5, frames=25_000)


def test_devices_of_many_hosts() -> None:
    """8,000 clips/s of 16 frames from 400 videos/s, each resource filled to 0.8."""
    site = Site(cores=16, devices=4, link_gbit=10, use=0.8, clip_bytes=602_112)
    found = needed(Load(8_000, 128_000, 400), site, DEVICE)
    exact = {name: need.exact for name, need in found.items()}
    assert exact["decoder cores"] == pytest.approx(128 + 8 + 4 + 2)
    assert exact["devices"] == pytest.approx(8)
    assert exact["inference links"] == pytest.approx(8_000 * 602_112 / (1.25e9 * 0.94))
    assert exact["inference processes"] == pytest.approx(1.6 + 2.4)
    assert exact["collectors"] == pytest.approx(0.08 + 0.04)
    assert exact["supervisors"] == pytest.approx(0.4)
    assert {name: need.count for name, need in found.items()} == {
        "decoder cores": 178,
        "decoder hosts": 12,
        "inference links": 6,
        "inference hosts": 6,  # for 10 devices three were enough; their links are not
        "inference processes": 10,
        "devices": 10,
        "collectors": 1,
        "supervisors": 1,
    }


def test_what_fits_one_host_needs_no_link() -> None:
    found = needed(Load(100, 1600, 5), Site(cores=8, devices=1), DEVICE)
    assert found["hosts"].count == 1
    assert "inference links" not in found
    assert found["decoder cores"].exact == pytest.approx(1.6 + 0.1 + 0.025)


def test_a_cpu_that_infers_has_everything_on_its_cores() -> None:
    found = needed(Load(100, 1600, 5), Site(cores=2, use=1.0), CPU)
    cores = 1.6 + 0.1 + 0.025 + 100 * 20.2e-3 + 1e-3 + 0.5e-3 + 5e-3
    assert found["cores"].exact == pytest.approx(cores)
    assert found["cores"].count == 4
    assert found["hosts"].count == 2


@given(
    st.floats(0.01, 1e6),
    st.floats(1, 100),
    st.sampled_from([0.5, 0.7, 0.95, 1.0]),
    st.sampled_from([DEVICE, CPU]),
)
def test_whole_ones_carry_the_load_at_that_share(clips: float, frames: float, use: float, stated: Stated) -> None:
    load = Load(clips, clips * frames, clips / 19)
    for need in plan(load, Site(use=use), stated):
        assert need.count >= 1
        if "hosts" not in need.name:
            assert need.exact <= need.count * use * (1 + 1e-6)
    twice = {need.name: need for need in plan(load * 2, Site(use=use), stated)}
    for need in plan(load, Site(use=use), stated):
        if need.name in twice:
            assert twice[need.name].count >= need.count


def test_a_plan_without_a_pace_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="infer_s"):
        plan(Load(1, 16), Site(), Stated(COSTS))


def test_a_pace_without_an_accelerator_is_refused() -> None:
    done = clipmux("plan", "--videos", 1000, "--clips-per-s", 2000)
    assert done.returncode == 2
    assert done.stderr.startswith("clipmux: --clips-per-s is 2000, the pace of an accelerator")


def test_a_size_that_was_not_measured_is_said_to_be_assumed() -> None:
    seconds, source = frame_cost((340, 256))
    assert source.startswith("measured")
    other, assumed = frame_cost((340, 128))
    assert other == pytest.approx(seconds / 2)
    assert assumed == "assumed: 0.5 × that of 340x256, by pixels"


# -- costs from files ------------------------------------------------------------------------------------------------


def figure(name: str, median: float, **at: Any) -> dict[str, Any]:
    return {"name": name, "unit": "", "at": at, "median": median, "min": median, "max": median, "runs": [median]}


def result(benchmark: str, *figures: dict[str, Any], video_size: str = "340x256", **model: Any) -> dict[str, Any]:
    return {"benchmark": benchmark, "figures": figures, "model": model, "videos": {"size": video_size}}


STATED = stated_costs((340, 256), precision="int8")


def measured(content: dict[str, Any], precision: str = "", size: tuple[int, int] = (340, 256)) -> Stated:
    return with_measured(STATED, Path("out.json"), content, size, precision)


def test_decoding_comes_from_bench_decode() -> None:
    fast = figure("frames_per_core_s", 2000.0, size="340x256", preprocess="fast")
    others = [
        figure("frames_per_core_s", 9.0, size="340x256", preprocess="none"),
        figure("frames_per_core_s", 9.0, size="1280x720", preprocess="fast"),
    ]
    found = measured(result("decode", fast, *others))
    assert found.costs == dataclasses.replace(STATED.costs, frame_s=0.5e-3)
    assert found.sources["frame_s"] == "measured, out.json"
    assert found.sources["send_s"] == STATED.sources["send_s"]
    with pytest.raises(UsageError, match="h264-mp4:640x360"):
        measured(result("decode", fast, *others), size=(640, 360))


def end_to_end(device: str, **at: Any) -> list[dict[str, Any]]:
    return [
        figure("decode_alone_cpu_per_clip", 8e-3, device=device, **at),
        figure("frames_per_s", 320.0, device=device, **at),
        figure("clips_per_s", 20.0, device=device, **at),
        figure("inference_alone_cpu_per_clip", 40e-3, device=device, **at),
        figure("inference_alone_clips_per_s", 900.0, device=device, **at),
    ]


def test_decoding_and_inference_come_from_bench_end_to_end() -> None:
    cpu = measured(result("end-to-end", *end_to_end("cpu"), device="cpu"))
    assert cpu.costs.frame_s == pytest.approx(0.5e-3)
    assert cpu.infer_s == 40e-3
    assert cpu.clips_per_s is None
    mlu = measured(result("end-to-end", *end_to_end("mlu:0"), device="mlu:0"))
    assert mlu.clips_per_s == 900
    assert mlu.sources["clips_per_s"] == "measured, out.json"


def test_of_several_models_one_is_to_be_named() -> None:
    both = [*end_to_end("cpu", precision="int8"), *end_to_end("cpu", precision="float32")]
    with pytest.raises(UsageError, match="--precision"):
        measured(result("end-to-end", *both, device="cpu"))
    assert measured(result("end-to-end", *both, device="cpu"), "int8").infer_s == 40e-3


def test_decoding_of_another_size_or_of_none_is_not_used_and_said_so() -> None:
    for size, said in (("1280x720", "out.json is of 1280x720"), ("", "out.json does not tell one size of its videos")):
        found = measured(result("end-to-end", *end_to_end("cpu"), video_size=size, device="cpu"))
        assert found.costs.frame_s == STATED.costs.frame_s
        assert found.sources["frame_s"] == f"{STATED.sources['frame_s']}; {said}"
        assert found.infer_s == 40e-3
    found = measured(result("simulate", figure("frame_s", 1.0), figure("send_s", 2.0), video_size=""))
    assert (found.costs.frame_s, found.costs.send_s) == (STATED.costs.frame_s, 2.0)


def test_a_precision_is_only_one_of_inference() -> None:
    one = result("end-to-end", *end_to_end("cpu", precision="float32"), device="cpu")
    assert measured(one, "int8").infer_s == STATED.infer_s
    assert measured(one, "int8").costs.frame_s == pytest.approx(0.5e-3)
    both = [*end_to_end("cpu", precision="bfloat16"), *end_to_end("cpu", precision="float32")]
    assert measured(result("end-to-end", *both, device="cpu"), "int8").costs.frame_s == pytest.approx(0.5e-3)


def test_the_engines_own_costs_come_from_bench_simulate() -> None:
    names = {field.name: 1e-6 * number for number, field in enumerate(dataclasses.fields(Costs), start=1)}
    found = measured(result("simulate", *(figure(name, value) for name, value in names.items())))
    assert found.costs == Costs(**names)


def test_a_file_without_any_cost_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'out\.json' has none"):
        measured(result("memory", figure("growth", 1.0)))
    with pytest.raises(UsageError, match="'int4'"):
        stated_costs((340, 256), precision="int4")
