"""A build whose whole image is the interpreter's: loaded in a second, for tests of the engine and not of what runs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from checkout import ROOT

from bertir.builder import Builder, Layout
from bertir.fetch import Fetcher
from bertir.lock import load_image_lock
from bertir.progress import SILENT, Progress
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from private_engine import PrivateEngine

    from bertir.image import Image
    from bertir.lock import ImageLock


class SmallBuilder(Builder):
    """A builder whose whole image is the interpreter's."""

    small: Image

    @property
    def lock(self) -> ImageLock:
        whole = load_image_lock(self.layout.docker)
        small = self.small
        return replace(whole, layers=small.layers, image_id=small.id, manifest=small.manifest_digest)

    def assemble_image(self) -> Image:
        return self.small


@dataclass(frozen=True)
class Bench:
    """A daemon, and the small image to load there."""

    daemon: PrivateEngine
    small: Image
    layer: Path

    @contextmanager
    def builder(self, root: Path, said: TextIO | None = None) -> Iterator[Builder]:
        """A build on the daemon, in a store that has the image's layer."""
        store = Store(root)
        [layer] = self.small.layers
        if not store.has(layer.blob):
            store.path(layer.digest).parent.mkdir(exist_ok=True)
            os.link(self.layer, store.path(layer.digest))
        environment = self.daemon.environment
        opened = SmallBuilder(
            layout=Layout(root=ROOT, models=ROOT / "models.toml"),
            store=store,
            fetcher=Fetcher(store=store, environment=environment, progress=SILENT),
            environment=environment,
            progress=Progress(stream=said) if said is not None else SILENT,
        )
        opened.small = self.small
        with opened:
            yield opened
