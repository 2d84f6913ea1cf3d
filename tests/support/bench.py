"""A builder with a store of its own, and what its engine has for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import docker

if TYPE_CHECKING:
    from bertir.builder import Builder


class Bench:
    """A builder with a store of its own, on the engine that has the image."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._begun = time.time()

    def there(self, *, ended: bool = False) -> dict[str, str]:
        """The ids of this store's containers that run, by step; those that have ended as well, if wanted."""
        client = docker.from_env()
        try:
            found = client.containers.list(all=ended, filters=self._label)
            return {str(container.labels["bertir.step"]): str(container.id) for container in found}
        finally:
            client.close()

    def said(self, step: str) -> str:
        """What the running container of a step has printed, once it has printed something."""
        client = docker.from_env()
        try:
            container = client.containers.get(self.there()[step])
            until = time.monotonic() + 30
            while not (text := container.logs().decode()) and time.monotonic() < until:
                time.sleep(0.05)
            return text
        finally:
            client.close()

    def shares(self) -> dict[str, int]:
        """Of each container that runs, by step."""
        client = docker.from_env()
        try:
            found = client.containers.list(filters=self._label)
            return {
                str(one.labels["bertir.step"]): int(one.attrs["HostConfig"]["CpuShares"]) for one in found
            }
        finally:
            client.close()

    def created(self) -> list[str]:
        """The steps of the containers that were made for this store."""
        client = docker.from_env()
        try:
            events = client.events(
                since=int(self._begun),
                until=int(time.time()) + 1,
                decode=True,
                filters={"type": "container", "event": "create"} | self._label,
            )
            return sorted(event["Actor"]["Attributes"]["bertir.step"] for event in events)
        finally:
            client.close()

    @property
    def _label(self) -> dict[str, Any]:
        return {"label": f"bertir.folder={self.builder.store.root}"}
