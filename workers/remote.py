"""Object stores and web servers, by URL. fsspec lists what is there and reads it, a range at a time.

What a store wants to know (credentials, region, endpoint), its own library takes from where it always does: the
environment, ``~/.aws``. fsspec and those libraries are the extra ``clipmux[remote]``.
"""

from __future__ import annotations

import glob
import re
from typing import Any

from clipmux.engine.errors import UsageError
from clipmux.engine.streams import redacted

STORES = ("s3", "gs", "az")
SITES = ("http", "https")
_URL = re.compile(rf"({'|'.join((*STORES, *SITES))})://(?=.)", re.IGNORECASE)

BLOCK_BYTES = 1 << 20
"""What is fetched at once; players and containers mostly read on from where they are."""


def is_remote(given: str) -> bool:
    """It is a URL that videos can be read from."""
    return _URL.match(given) is not None


def shown(url: str) -> str:
    """A URL as it may be shown: no credentials, and no query, in which signatures are."""
    return redacted(url.partition("?")[0] if url.lower().startswith("http") else url)


def find(url: str) -> list[str] | None:
    """URLs of all files that a folder (``s3://bucket/videos/``) or a glob stands for; None for a single file.

    Raises:
        UsageError: it cannot be listed; says why.
    """
    if url.lower().startswith("http"):
        return None
    files, path = store(url)
    try:
        if glob.has_magic(path):
            found = [name for name, entry in files.glob(path, detail=True).items() if entry["type"] == "file"]
        elif url.endswith("/") or files.isdir(path):
            found = files.find(path)
        else:
            return None
    except Exception as error:  # a library of each store's own, with errors of its own
        raise UsageError(f"'{shown(url)}' cannot be listed ({why(error)}): check the URL and the credentials") from None
    return [files.unstrip_protocol(name) for name in found]


def open_file(url: str) -> Any:
    """An open file, which reads and seeks, and has ``size``; None where a web server does not say that.

    Raises:
        UsageError: what reads such URLs is not installed.
        Exception: of the store's own library, or OSError, where it cannot be opened.
    """
    files, path = store(url)
    return files.open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead")


def store(url: str, *, fresh: bool = False) -> tuple[Any, str]:
    """What reads such URLs, and what it calls this one.

    Args:
        url: of an object or a folder.
        fresh: it remembers no list of a folder, for what changes while we look.

    Raises:
        UsageError: what reads such URLs is not installed.
    """
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url, **({"use_listings_cache": False, "skip_instance_cache": True} if fresh else {}))
    except ImportError as error:
        raise UsageError(
            f"'{shown(url)}' needs what is not installed ({error}): pip install 'clipmux[remote]'"
        ) from None
    return files, path


def why(error: Exception) -> str:
    """What a store's library says, in a few words, without the URL."""
    text = " ".join(str(error).split())
    text = re.sub(r"\w+://\S+", "…", text)[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
