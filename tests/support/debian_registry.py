"""Debian's docker-registry on loopback: what people run, without the API for what refers to a manifest."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from programs import needed

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of `word`, by bcrypt with its lowest cost.
HTPASSWD = "user:$2b$04$H.SGyZEs7g6blkFadhKNp.Bj5jTQ0mSS2vlfRdy.md.VrAYFFKbim\n"
LOGIN = "user:word"
_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class DebianRegistry:
    """Where it listens, and where it keeps what it holds."""

    host: str
    folder: Path


@contextlib.contextmanager
def debian_registry(*, login: bool = False) -> Iterator[DebianRegistry]:
    """Run it until the `with` block ends. Without it: a failure when CI=true (`.ci/run` installs it), else a skip."""
    program = needed("docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="registry-", dir="/tmp") as name:
        folder = Path(name)
        configuration = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": host},
        }
        if login:
            (folder / "htpasswd").write_text(HTPASSWD, encoding="utf-8")
            configuration["auth"] = {"htpasswd": {"realm": "a registry", "path": str(folder / "htpasswd")}}
        # JSON is YAML.
        (folder / "config.yml").write_text(json.dumps(configuration), encoding="utf-8")
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                [program, "serve", str(folder / "config.yml")],
                stdout=log,
                stderr=log,
                env={"OTEL_TRACES_EXPORTER": "none"},
            ) as process,
        ):
            try:
                _wait(host, process, folder / "log")
                yield DebianRegistry(host=host, folder=folder)
            finally:
                process.send_signal(signal.SIGTERM)


def _wait(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        try:
            with urlopen(f"http://{host}/v2/", timeout=_SECONDS):
                return
        except HTTPError:  # it wants a login
            return
        except URLError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"docker-registry doesn't answer: {log.read_text(encoding='utf-8')}")
            time.sleep(0.05)
