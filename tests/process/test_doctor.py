"""What the doctor finds: on this machine, on machines described to it, and of MagicMind in the emulator."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from command import clipmux
from rich.console import Console

from clipmux.engine import doctor, doctor_machine
from clipmux.engine.check import FAIL, OK, WARN, Check, looked_at
from clipmux.engine.model import demo_folder, read_model

EMULATOR = Path(__file__).resolve().parent.parent / "emulator"
BEHAVIOURS = (
    "answers",
    "alive after System",
    "from_numpy sets the shape",
    "two threads",
    "pixels",
    "from_numpy casts",
    ".to may be left out",
    "outputs are refilled",
    "configurations merge",
)


def by_name(checks: Any) -> dict[str, Check]:
    found: dict[str, Check] = {}
    for check in checks:
        assert check.status in (OK, WARN, FAIL)
        assert check.value
        assert check.remedy or check.status == OK, check
        assert check.name not in found
        found[check.name] = check
    return found


def test_this_machine_can_run() -> None:
    checks = doctor.diagnose()
    found = by_name(checks)
    assert doctor.would_run(checks), [check for check in checks if check.status == FAIL]
    for name in ("python", "clipmux", "av", "openvino", "codecs", "bundled model", "processor", "memory", "sockets"):
        assert name in found
    assert "h264" in found["codecs"].value
    assert found["a clip on the CPU"].value.startswith("float32")
    said = json.loads(doctor.to_json(checks))
    assert said["would_run"] is True
    assert [entry["name"] for entry in said["checks"]] == list(found)


def test_command_says_it_for_people_and_programs() -> None:
    done = clipmux("doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["would_run"] is True
    done = clipmux("doctor", TMPDIR="/nowhere", PYTHONPATH="")
    assert done.returncode == 0, done.stdout + done.stderr
    for check in said["checks"]:
        assert check["name"] in done.stdout


def test_table_shows_everything() -> None:
    checks = [Check("a", OK, "good [bold]"), Check("b", WARN, "slow", "buy one"), Check("c", FAIL, "broken", "mend it")]
    console = Console(width=100, record=True)
    doctor.show(checks, console)
    text = console.export_text()
    for said in ("good [bold]", "buy one", "broken", "mend it", "a run would not work here: 1 failed"):
        assert said in text
    assert not doctor.would_run(checks)
    assert doctor.would_run(checks[:2])


def test_what_a_look_raises_is_found_too() -> None:
    def look() -> Any:
        yield Check("first", OK, "good")
        raise OSError("no such thing")

    first, second = looked_at("second", look)
    assert (first.name, first.status) == ("first", OK)
    assert (second.name, second.status, second.value) == ("second", FAIL, "OSError: no such thing")


# Packages and the bundled model


def test_packages_are_held_against_what_is_declared() -> None:
    missing = doctor._package("clipmux-that-is-not", "1", optional=False)
    assert (missing.status, missing.value) == (FAIL, "not installed")
    old = doctor._package("numpy", "999.0", optional=False)
    assert old.status == FAIL
    assert old.value.endswith("999.0 or newer is needed")
    assert doctor._package("onnx", "999.0", optional=True).status == WARN


@pytest.mark.parametrize(
    ("version", "numbers"), [("2.13.0+cpu", (2, 13, 0)), ("1.0rc2", (1, 0)), ("2026.4.1-1234-releases", (2026, 4, 1))]
)
def test_versions_are_compared_as_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert doctor._numbers(version)[: len(numbers)] == numbers


def test_damaged_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "demo"
    shutil.copytree(demo_folder(), copy)
    network = copy / "model.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\xff")
    monkeypatch.setattr(doctor, "demo_folder", lambda: copy)
    check = doctor.bundled_model([])
    assert check.status == FAIL
    assert "not the file that was shipped" in check.value


# The machine


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ("sse4_2 avx2 fma", OK, "A CPU: AVX2; no AVX-512, bf16, VNNI, AMX"),
        ("avx2 avx512f avx512_vnni", OK, "A CPU: AVX2, AVX-512, VNNI; no bf16, AMX"),
        ("avx2 avx_vnni", OK, "A CPU: AVX2, VNNI; no AVX-512, bf16, AMX"),
        ("avx2 avx512f avx512_bf16 avx512_vnni amx_tile amx_bf16", OK, "A CPU: AVX2, AVX-512, bf16, VNNI, AMX"),
        ("sse4_2", WARN, "A CPU: none of the features looked for"),
    ],
)
def test_processor_features_are_read(flags: str, status: str, said: str) -> None:
    first = f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu {flags}\n"
    text = f"{first}\nprocessor\t: 1\nmodel name\t: B\nflags\t: fpu\n"
    check = doctor_machine.processor(text)
    assert (check.status, check.value) == (status, said)


def test_other_processors_are_named() -> None:
    assert doctor_machine.processor("processor\t: 0\nFeatures\t: fp asimd\n").status == OK


def test_limits_of_control_groups_are_read(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    inner = root / "outer" / "inner"
    inner.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("max\n")
    process.write_text("0::/outer/inner\n")
    groups = doctor_machine._control_groups(process, root)
    assert doctor_machine.cpu_quota(groups) is None
    assert doctor_machine.memory_limit(groups) is None
    (root / "outer" / "cpu.max").write_text("150000 100000\n")
    (root / "outer" / "memory.max").write_text("1073741824\n")
    assert doctor_machine.cpu_quota(groups) == 1.5
    assert doctor_machine.memory_limit(groups) == 1 << 30


def test_limits_of_old_control_groups_are_read(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    for folder in ("cpu", "memory"):  # as a container sees them: its path is the host's, its group the root
        (root / folder).mkdir(parents=True)
    process.write_text("5:cpu,cpuacct:/host/path\n4:memory:/host/path\n0::/host/path\n")
    (root / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    groups = doctor_machine._control_groups(process, root)
    assert doctor_machine.cpu_quota(groups) is None
    assert doctor_machine.memory_limit(groups) is None
    (root / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("536870912\n")
    assert doctor_machine.cpu_quota(groups) == 0.5
    assert doctor_machine.memory_limit(groups) == 512 << 20


def test_who_was_ended_for_want_of_memory_is_counted_where_it_is_known(tmp_path: Path) -> None:
    vmstat, new, old = tmp_path / "vmstat", tmp_path / "new", tmp_path / "old"
    vmstat.write_text("pgfault 7\noom_kill 5\n")
    for group, name in ((new, "memory.events"), (old, "memory.oom_control")):
        group.mkdir()
        (group / name).write_text("oom 4\noom_kill_disable 9\noom_kill 2\noom_group_kill 8\n")
    assert doctor_machine.oom_kills({"": new}, vmstat) == 2
    assert doctor_machine.oom_kills({"memory": old}, vmstat) == 2
    assert doctor_machine.oom_kills({"": tmp_path}, vmstat) == 5
    assert doctor_machine.oom_kills({}, tmp_path / "absent") == 0


def test_folder_for_sockets_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = read_model("demo")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 40)))
    check = doctor_machine.sockets(model)
    assert check.status == FAIL
    assert "TMPDIR" in check.remedy
    Path(tempfile.gettempdir()).mkdir()
    check = doctor_machine.sockets(model)  # too long for a socket: a short folder is taken, as in a run
    assert check.status == OK
    assert "602,112 bytes through one in '/tmp'" in check.value
    assert not list(Path(tempfile.gettempdir()).iterdir())


# MagicMind


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MagicMind as the emulator has it, for the process that the doctor starts."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # torch makes it, the emulator uses torch
    monkeypatch.syspath_prepend(str(EMULATOR))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    for name in ("DEVICES", "ARCH", "CLUSTERS", "FAIL"):
        monkeypatch.delenv(f"MAGICMIND_EMULATOR_{name}", raising=False)


@pytest.mark.usefixtures("emulator")
def test_every_inferred_behaviour_is_tried() -> None:
    found = by_name(doctor.magicmind("mtp_372"))
    assert list(found) == ["magicmind", *(f"magicmind: {name}" for name in BEHAVIOURS)]
    assert {check.status for check in found.values()} == {OK}, found
    assert found["magicmind"].value.endswith("1 MLU")


OTHERWISE = {
    "builder_config.py": """
def _merge(into, new):  # later texts replace what earlier ones said
    into.update({key: value for key, value in new.items() if key != "insert_bn_before_firstnode"})
""",
    "tensor.py": """
def _from_numpy(self, array, before=Tensor.from_numpy):  # no casts
    return before(self, array) if array.dtype == self._port.dtype else failure("wrong type")
Tensor.from_numpy = _from_numpy
""",
    "engine.py": """
def _enqueue(self, inputs, outputs, queue, before=Context.enqueue):  # outputs are appended
    new = []
    status = before(self, inputs, new, queue)
    outputs.extend(new)
    return status
Context.enqueue = _enqueue
""",
}
"""What MagicMind may do in place of what was inferred of it."""


def test_behaviour_that_does_not_hold_is_found(emulator: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EMULATOR, tmp_path / "other", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in OTHERWISE.items():
        with (tmp_path / "other" / "magicmind" / "python" / "runtime" / name).open("a") as file:
            file.write(text)
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    found = by_name(doctor.magicmind("mtp_372"))
    status = {name.removeprefix("magicmind: "): check.status for name, check in found.items()}
    warned = {"from_numpy casts", "outputs are refilled", "configurations merge"}
    assert {name for name, each in status.items() if each == WARN} == warned
    assert {name for name, each in status.items() if each == FAIL} == {"pixels"}  # the input stays float32


@pytest.mark.usefixtures("emulator")
def test_broken_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "enqueue:*")
    found = by_name(doctor.magicmind("mtp_372"))
    assert found["magicmind: answers"].status == FAIL
    assert "enqueue" in found["magicmind: answers"].value
    assert found["magicmind: two threads"].status == FAIL
    assert not doctor.would_run(found.values())


@pytest.mark.usefixtures("emulator")
def test_what_is_not_needed_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault strikes the calls that come after those of everything needed."""
    monkeypatch.setenv("MAGICMIND_EMULATOR_FAIL", "parse:3+")
    found = by_name(doctor.magicmind("mtp_372"))
    assert found.pop("magicmind: configurations merge").status == WARN
    assert {check.status for check in found.values()} == {OK}


@pytest.mark.usefixtures("emulator")
def test_magicmind_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICMIND_EMULATOR_DEVICES", "0")
    (check,) = doctor.magicmind("mtp_372")
    assert check.status == WARN
    assert "no MLU" in check.value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
        ("import threading; threading.Event().wait()", "took more than 3 s"),
        ("raise SystemExit(5)", "ended with status 5"),
        ("raise ImportError('libmagicmind.so: cannot open')", "it is there and does not load"),
    ],
)
def test_library_that_dies_or_hangs_is_a_finding(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "vendor" / "magicmind"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(content)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(doctor, "MAGICMIND_TIMEOUT_S", 3)
    (check,) = doctor.magicmind("mtp_372")
    assert check.status == FAIL
    assert said in check.value
