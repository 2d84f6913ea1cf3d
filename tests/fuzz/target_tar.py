"""Coverage-guided: the tar of compiled modules that a container gives, and bundles. See README.md."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import atheris
import fuzzing

with atheris.instrument_imports(include=["bertir.layer", "bertir.bundle", "bertir.tree", "tarfile"]):
    from packages import SITE, member, small_intent

    from bertir.bundle import read_bundle, write_bundle
    from bertir.digest import Digest
    from bertir.errors import FetchError, ImageError
    from bertir.layer import pyc_layer
    from bertir.progress import Progress
    from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = b"a material\n"
WANTED = {"material": Digest.of_bytes(CONTENT)}
QUIET = Progress(stream=open(os.devnull, "w", encoding="ascii"))  # noqa: PTH123, SIM115 - until the process ends


def seeds(folder: Path) -> Iterator[bytes]:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name in ("a", "b" * 90):
                info, content = member(f"{SITE}/__pycache__/{name}.cpython-311.pyc", b"code")
                tar.addfile(info, io.BytesIO(content))
        yield buffer.getvalue()[:4096]
    store = Store(folder / "full")
    store.add_bytes(CONTENT)
    write_bundle(store, WANTED, folder / "bundle", QUIET)
    yield (folder / "bundle").read_bytes()[:4096]


def target(_: bytes, path: Path) -> None:
    store = Store(path.parent / "store")
    with contextlib.suppress(ImageError):
        pyc_layer(store, small_intent(), path)
    with contextlib.suppress(FetchError):
        read_bundle(store, WANTED, path, QUIET)
    if blob := store.find(WANTED["material"]):
        assert store.path(blob.digest).read_bytes() == CONTENT
        store.path(blob.digest).unlink()
    for place in (store.root / "objects").glob("*/*"):
        if place.is_file():
            with tarfile.open(place, "r:") as tar:
                for name in tar.getnames():
                    assert name.startswith("usr")
                    assert ".." not in name.split("/")
            place.unlink()


if __name__ == "__main__":
    fuzzing.run(target, seeds)
