"""``Profiler`` [V]: what it writes is not public [–]; here a JSON list of the steps and their seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ..cc._pywrap_runtime import Status
from ..cc._pywrap_runtime.arguments import need
from ..cc._pywrap_runtime.enums import DeviceTracerLevel, HostTracerLevel
from ..cc._pywrap_runtime.status import failure


class ProfilerOptions:
    """What to trace."""

    def __init__(
        self,
        host_tracer_level: HostTracerLevel = HostTracerLevel.kCritical,
        device_tracer_level: DeviceTracerLevel = DeviceTracerLevel.kOn,
    ) -> None:
        need("ProfilerOptions", host_tracer_level, HostTracerLevel)
        need("ProfilerOptions", device_tracer_level, DeviceTracerLevel)
        self._levels = (host_tracer_level.name, device_tracer_level.name)


class Profiler:
    """``start``, then ``step_begin(n)`` and ``step_end`` around each step, then ``stop``."""

    def __init__(self, options: ProfilerOptions, output_dir: str) -> None:
        need("Profiler", options, ProfilerOptions)
        need("Profiler", output_dir, str)
        self._options = options
        self._folder = Path(output_dir)
        self._steps: list[dict[str, float]] | None = None
        self._open: tuple[int, float] | None = None

    def start(self) -> Status:
        if self._steps is not None:
            return failure("the profiler is started already")
        self._steps = []
        return Status.OK()

    def step_begin(self, step: int) -> Status:
        need("step_begin", step, int)
        if self._steps is None or self._open is not None:
            return failure("a step begins after start, and after the last one ended")
        self._open = (step, time.perf_counter())
        return Status.OK()

    def step_end(self) -> Status:
        if self._steps is None or self._open is None:
            return failure("no step has begun")
        step, began = self._open
        self._steps.append({"step": step, "seconds": time.perf_counter() - began})
        self._open = None
        return Status.OK()

    def stop(self) -> Status:
        if self._steps is None:
            return failure("the profiler was not started")
        steps, self._steps, self._open = self._steps, None, None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            content = {"levels": self._options._levels, "steps": steps}
            (self._folder / "profile.json").write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            return failure(f"cannot write to '{self._folder}' ({error.strerror})")
        return Status.OK()
