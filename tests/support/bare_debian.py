"""A container of bare Debian, as a job of ci/ finds it before it has installed anything; with this machine's network and engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import docker
from docker.errors import ImageNotFound
from programs import needed

from bertir.apt import transport_settings
from bertir.mirror import debian_mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from docker.models.containers import Container

SUITE = "bookworm"
SOCKET = "/var/run/docker.sock"
# Authorities of this machine's own, where Debian's ca-certificates takes them from.
AUTHORITIES = "/usr/local/share/ca-certificates"
_SECONDS = 1800  # then the container ends by itself, if nobody is left who would end it
# How this machine reaches its indexes, as against what it takes from them.
_VARIABLES = re.compile(
    r"(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|UV_(DEFAULT_INDEX|INDEX_URL)",
    re.IGNORECASE,
)
_PIPS = re.compile(r"^\S+\.(cert|default-timeout|index-url|proxy|timeout|trusted-host)='(.*)'$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a script ended, and all that it printed."""

    status: int
    said: str


@dataclass(frozen=True, kw_only=True)
class BareDebian:
    """Scripts run in it as root, one after the other; `environment` is set for each."""

    container: Container
    environment: Mapping[str, str]

    def run(self, script: str, folder: Path, **environment: str) -> Ended:
        """Run it as GitLab does where the image has bash."""
        status, said = self.container.exec_run(
            ["bash", "-eo", "pipefail", "-c", script],
            environment={**self.environment, **environment},
            workdir=str(folder),
        )
        assert isinstance(status, int)
        assert isinstance(said, bytes)
        return Ended(status=status, said=said.decode(errors="replace"))


@contextlib.contextmanager
def bare_debian(folder: Path) -> Iterator[BareDebian]:
    """Make one of this machine's Debian mirror. It sees `folder` by its own path, as the engine does, and the engine's socket."""
    tar = folder / "debian.tar"
    _make(tar)
    client = docker.from_env()
    try:
        told = client.api.import_image_from_file(str(tar))
        tar.unlink()
        image = json.loads(told.splitlines()[-1])["status"]  # its ID: it has no name
        container = client.containers.run(
            image,
            ["sleep", str(_SECONDS)],
            detach=True,
            init=True,
            network_mode="host",
            volumes=[f"{folder}:{folder}", f"{_socket()}:{SOCKET}", f"{AUTHORITIES}:{AUTHORITIES}:ro"],
        )
        try:
            yield BareDebian(container=container, environment=_ways())
        finally:
            container.remove(force=True)
            with contextlib.suppress(ImageNotFound):
                client.images.remove(image)
    finally:
        client.close()


def _make(tar: Path) -> None:
    """By mmdebstrap: what debian:bookworm-slim has, more or less. Like that image's own dpkg, this one doesn't wait for the disk."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    options = [f"--aptopt={setting}" for setting in transport_settings(dump)]
    made = subprocess.run(
        [
            needed("mmdebstrap"),
            "--quiet",
            "--variant=minbase",
            "--dpkgopt=force-unsafe-io",
            *options,
            SUITE,
            str(tar),
            debian_mirror(os.environ),
        ],
        check=False,
        capture_output=True,
        text=True,
        env=dict(os.environ) | {"TMPDIR": str(tar.parent)},
    )
    assert made.returncode == 0, made.stderr


def _socket() -> str:
    return os.environ.get("DOCKER_HOST", f"unix://{SOCKET}").removeprefix("unix://")


def _ways() -> dict[str, str]:
    """Give how this machine reaches its indexes, as variables: what its environment has, and what pip's files say."""
    ways = {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    return ways | {f"PIP_{found[1].upper().replace('-', '_')}": found[2] for found in _PIPS.finditer(told)}
