"""A builder with a store of its own, and what its engine has for it."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import docker

from bertir.builder import Builder
from bertir.digest import Digest
from bertir.progress import SILENT
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.derivation import Realised


class Bench:
    """A builder with a store of its own, on the engine that has the image."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._begun = time.time()

    def told(self, realised: Realised) -> dict[str, Any]:
        """What a step wrote into its one output."""
        [blob] = realised.artifact.files.values()
        value: dict[str, Any] = json.loads(self.builder.store.path(blob.digest).read_bytes())
        return value

    def log(self, realised: Realised) -> bytes:
        """What a step printed."""
        return self.builder.store.path(Digest.from_str(realised.facts["log"])).read_bytes()

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


B = TypeVar("B", bound=Bench)


@contextmanager
def benches(kind: type[B], builder: Builder, folder: Path) -> Iterator[Callable[[str], B]]:
    """Give what opens one with a store of that name in the folder, and else like `builder`, which has the image loaded."""
    builder.load_image()
    with ExitStack() as stack:

        def make(name: str) -> B:
            own = Builder(
                layout=builder.layout,
                store=Store(folder / name),
                fetcher=builder.fetcher,
                environment=builder.environment,
                progress=SILENT,
            )
            return kind(stack.enter_context(own))

        yield make
