"""Other ways to classify the same videos with the same network, to compare with.

Each is what a good engineer would write with that tool, given our decoding, our preprocessing and the same network, so
that what differs is how the work is arranged. Each runs in a process of its own (``start.py`` starts it, ``child.py``
is its beginning) and gives the predictions that clipmux gives.
"""

from .start import NAMES, Baseline, Difference, check_baselines, difference, run_baseline

__all__ = ["NAMES", "Baseline", "Difference", "check_baselines", "difference", "run_baseline"]
