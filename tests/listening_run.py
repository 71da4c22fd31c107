"""A run that other machines may reach: ``python listening_run.py VIDEOS MODEL OUTPUT HOST:PORT KEYS MS_PER_CLIP``."""

import sys
from pathlib import Path

from rich.console import Console

from clipmux.engine.config import EngineConfig
from clipmux.engine.run import run_videos
from clipmux.workers.sources import list_videos

videos, model, output, bind, keys, delay = sys.argv[1:]
config = EngineConfig(
    model=model,
    backend="null",
    null_delay_ms=(0.0, float(delay)),
    workers=1,
    bind=bind,
    far_decoders=1,
    keys=keys,
    clip_memory="socket",
)
listing = list_videos([videos], stdin=None)
sys.exit(run_videos(listing, config, output=Path(output), resume=False, console=Console(stderr=True)))
