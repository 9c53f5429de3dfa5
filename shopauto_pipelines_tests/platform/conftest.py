"""A real S3 server on this machine, moto's, and lakes in a folder and in a bucket of it."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.object_storage import ObjectStorage

#: What every client of the server needs; it takes any keys until a test tells it to look at them.
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

BUCKET = "lake-of-tests"


class Server(NamedTuple):
    """Its address, and the file it notes its requests in, one a line."""

    url: str
    log: Path

    def requests(self) -> list[str]:
        """The methods of what it was asked so far."""
        return re.findall(r"([A-Z]+) /\S* HTTP/1.1", self.log.read_text())


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """A server with one empty bucket; it ends with the session."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, **KEYS})
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    httpx.put(f"{url}/{BUCKET}").raise_for_status()
                    break
                except httpx.TransportError:
                    assert server.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.1)
            yield Server(url, Path(log.name))
        finally:
            server.kill()
            server.wait()


@pytest.fixture
def keys(monkeypatch) -> None:
    """The environment of a machine that may use the server."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3, keys, tmp_path) -> Callable[..., Lake]:
    """``bucket()``: a lake under a prefix of its own; ``bucket("other machine")`` the same lake with copies of its own."""
    prefix = uuid.uuid4().hex[:8]

    def opened(machine: str = "machine", fresh_for: float = 0) -> Lake:
        storage = ObjectStorage(f"s3://{BUCKET}/{prefix}", tmp_path / machine, s3.url, fresh_for)
        return Lake(storage, threads=2)

    return opened


@pytest.fixture(params=["folder", "bucket"])
def made(request, tmp_path) -> Callable[..., Lake]:
    """``made()`` opens the same lake each time, in a folder or in a bucket; ``made("other machine")`` elsewhere, if it can be."""
    if request.param == "bucket":
        return request.getfixturevalue("bucket")
    return lambda machine="machine": Lake(tmp_path / "lake", threads=2)
