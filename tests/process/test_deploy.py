"""What is in deploy/ as far as it can be tried without containers, systemd as the first process, and Kubernetes."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from command import clipmux

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def assert_options_exist(command: str, *before: str) -> None:
    """Every option in a command line is one of the command's."""
    words = command.split()
    there = clipmux(*before, "--help").stdout
    options = [word for word in words if word.startswith("--")]
    assert options
    for option in options:
        assert re.search(rf"{re.escape(option)}\b", there), f"{' '.join(before)} has no {option}"


def test_the_install_script_makes_an_environment_that_works(tmp_path: Path) -> None:
    """What clipmux needs is taken from these tests' own environment, to be quick."""
    source = tmp_path / "source"
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in [line[1:] for line in allowed if line.startswith("!")]:  # what an image is built from
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "__editable__*")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    environment = {**os.environ, "PIP_NO_DEPS": "1", "PYTHON": sys.executable}
    done = subprocess.run(
        [source / "deploy" / "install.sh", tmp_path / "opt", "live"],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "opt")}))
    (packages / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")  # after its own
    code = "import clipmux.workers.page as page; print(page.__path__[0])"
    ran = [tmp_path / "opt" / "bin" / "python", "-c", code]
    where = subprocess.run(ran, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(where.strip()) == packages / "clipmux" / "workers" / "page"
    shown = subprocess.run(
        [tmp_path / "opt" / "bin" / "clipmux", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_the_install_script_says_how_it_is_used(tmp_path: Path) -> None:
    done = subprocess.run([DEPLOY / "install.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: deploy/install.sh PREFIX" in done.stderr


def test_the_unit_names_options_that_there_are() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "clipmux-live.service").read_text())
    command = unit["Service"]["ExecStart"].replace("\\\n", " ")
    assert_options_exist(command, "live")
    assert unit["Service"]["Restart"] == "always"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (Debian: systemd)")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "clipmux-live.service").read_text().replace("/opt/clipmux/bin/clipmux", "/bin/true")
    file = tmp_path / "clipmux-live.service"
    file.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_job_names_options_that_there_are() -> None:
    job = (DEPLOY / "rayjob.yaml").read_text()
    (command,) = re.findall(r"entrypoint: >-\n +(clipmux .*)", job)
    assert_options_exist(command, "ray", "run")
    (version,) = re.findall(r'rayVersion: "([0-9.]+)"', job)
    assert f"ray=={version}\n" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.magicmind"])
def test_container_files_take_the_steps_of_the_script(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "deploy/install.sh /opt/clipmux" in text.split("FROM", 1)[1]
    extras = ",".join(re.findall(r"^ARG EXTRAS=([a-z,]+)$", text, re.MULTILINE))
    known = configparser.ConfigParser()
    known.read(ROOT / "setup.cfg")
    for extra in filter(None, extras.split(",")):
        assert extra in known["options.extras_require"]
    assert "USER clipmux" in text
