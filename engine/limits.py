"""How many files this process and its children may have open: each child is two pipes and a connection."""

from __future__ import annotations

import resource

from .errors import UsageError

EACH, BESIDES = 3, 32
"""Descriptors for a child, and for everything else; libzmq aborts the process that cannot accept a connection."""
ENOUGH = 65_536


def allow_files(children: int) -> None:
    """Raise the soft limit of open files as far as may be, for so many children and all who may connect besides.

    Raises:
        UsageError: it does not reach.
    """
    needed = EACH * children + BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(ENOUGH, needed) if hard == resource.RLIM_INFINITY else min(hard, max(ENOUGH, needed))
    if soft != resource.RLIM_INFINITY and most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise UsageError(
            f"{children} processes need {needed} open files, and {soft} are allowed (ulimit -n): give fewer --workers, "
            "or raise that limit"
        )
