"""An object store on this machine: a server of S3, and a bucket in it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of a server, in a thread of this process."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed (pip install 'clipmux[dev]')")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty ``s3://bucket``, which commands find by this process's environment; to look into it, as s3fs has it."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 'clipmux[remote]')")
    urllib.request.urlopen(f"{object_store}/moto-api/reset", data=b"", timeout=60).close()  # noqa: S310  (our own)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": object_store}.items():
        monkeypatch.setenv(name, value)
    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    files.mkdir("bucket")
    return files
