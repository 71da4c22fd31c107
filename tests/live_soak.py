"""Hours of stream time in minutes (``make live-soak``): files play many times faster, and memory must not grow.

Prints memory (PSS of all processes) and open descriptors by the minute, and the slope of memory over the second half.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from live_command import listed, running, until

from clipmux.bench.videos import write_short_videos

EVERY_S = 2.0
WARM_S = 30.0
"""Until libraries and allocators have what they ever take."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=8.0, help="of stream time, of all streams together")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--pace", type=float, default=40.0)
    asked = parser.parse_args()
    seconds = asked.hours * 3600 / asked.pace / asked.streams
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "t").mkdir()
        os.environ["TMPDIR"] = str(folder / "t")
        videos = write_short_videos(folder / "v", 4, frames=500, size=(160, 120), rate=Fraction(25), distinct=4)
        streams = listed(folder / "streams.toml", {f"s{at}": (videos[at % 4].path, "") for at in range(asked.streams)})
        process, said = stack.enter_context(
            running("--streams", streams, "--model", "demo", "--loop", "--pace", asked.pace, "--output", "/dev/null")
        )
        until(lambda: said.read_text().count(": live") == asked.streams)
        began = time.monotonic()
        times, sizes, fds = [], [], []
        while (passed := time.monotonic() - began) < seconds:
            everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
            times.append(passed)
            sizes.append(sum(one.memory_full_info().pss for one in everyone) / 2**20)
            fds.append(sum(one.num_fds() for one in everyone))
            time.sleep(EVERY_S)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        warm = np.asarray(times) >= WARM_S
        t, m = np.asarray(times)[warm], np.asarray(sizes)[warm]
        slope, _ = np.polyfit(t, m, 1)
        noise = float(np.std(m - np.polyval(np.polyfit(t, m, 1), t)))
        hours = asked.hours / seconds
        print(f"{asked.hours:g} h of stream time in {seconds / 60:.1f} minutes, exit status {process.returncode}")
        print(f"memory after {WARM_S:g} s: {m[0]:.0f} MiB, at the end {m[-1]:.0f} MiB, at most {m.max():.0f} MiB")
        print(f"slope {slope / hours:.2f} MiB per hour of stream time; noise (standard deviation) {noise:.1f} MiB")
        lives = said.read_text().count(": live")
        print(f"descriptors: {fds[0]} at the beginning, {fds[-1]} at the end; {lives} times live")


if __name__ == "__main__":
    main()
