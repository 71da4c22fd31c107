"""An object store on this machine: a server of S3, and a bucket in it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ports import free_ports

KEYS = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Bucket:
    """``s3://bucket``, which commands find by this process's environment.

    Args:
        server: its process.
        files: to look into it.
    """

    server: subprocess.Popen[bytes]
    files: Any


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    pytest.importorskip("moto", reason="moto is not installed (pip install 'clipmux[dev]')")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 'clipmux[remote]')")
    url = f"http://127.0.0.1:{free_ports(1)}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for name, value in {**KEYS, "AWS_ENDPOINT_URL": url}.items():
                monkeypatch.setenv(name, value)
            _wait_for(url)
            files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            files.mkdir("bucket")
            yield Bucket(server, files)
        finally:
            server.kill()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()  # noqa: S310  (our own server)
        except OSError:
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.1)
        else:
            return
