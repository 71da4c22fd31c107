"""Ray, where it is installed; it tells nobody that it is used."""

from __future__ import annotations

import os

from .errors import UsageError

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a notice about GPUs

try:
    import ray
    import ray.data
except ImportError as error:
    raise UsageError(f"Ray is not installed ({error}): pip install 'clipmux[ray]'") from None

__all__ = ["ray"]
