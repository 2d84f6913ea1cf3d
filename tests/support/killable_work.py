"""Pieces of real work that need no engine, for `kill_points.py` to kill everywhere.

Each works in a folder of its own: `store/` is the store, `out/` is what the user sees, `runs` has a line for each step
that ran.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from google_zip import models_toml, small_files
from some_build import publish_some

from bertir.builder import Builder, Layout
from bertir.bundle import read_bundle, write_bundle
from bertir.derivation import Derivation, Outcome, realise
from bertir.digest import Digest
from bertir.fetch import Fetcher
from bertir.image import describe_image, write_archive
from bertir.lock import LayerPin
from bertir.model import GoogleZip, load_models
from bertir.progress import SILENT
from bertir.publish import checksums, publish
from bertir.store import Artifact, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
MODEL = "bert-base-uncased"


class Work(Protocol):
    """What is killed."""

    def prepare(self, folder: Path) -> None:
        """Make what is there before."""

    def do(self, folder: Path) -> None:
        """Do it; called again after a kill, it goes on."""


def builder(store: Path) -> Builder:
    """What a task opens, which also removes what killed ones left; there is no engine to ask for containers."""
    environment = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    opened = Store(store)
    return Builder(
        layout=Layout(root=ROOT, models=ROOT / "models.toml"),
        store=opened,
        fetcher=Fetcher(store=opened, environment=environment, progress=SILENT),
        environment=environment,
        progress=SILENT,
    )


def _artifact(store: Store, files: Mapping[str, bytes]) -> Artifact:
    return Artifact(files={name: store.add_bytes(data) for name, data in files.items()})


def _step(store: Store, name: str, folder: Path, before: Artifact, files: Mapping[str, bytes]) -> Artifact:
    """Realise a step as builder.py does: a temporary folder, outputs and a log taken from it, a record."""
    derivation = Derivation(
        step=name, version=1, inputs={key: blob.digest for key, blob in before.files.items()}
    )

    def run() -> Outcome:
        with (folder / "runs").open("a", encoding="utf-8") as runs:
            runs.write(f"{name}\n")
        for key, blob in before.files.items():
            store.checked(blob, what=key)
        with store.temporary_folder() as scratch:
            (scratch / "out").mkdir()
            for key, data in files.items():
                (scratch / "out" / key).write_bytes(data)
            (scratch / "log").write_text(f"log of {name}\n", encoding="utf-8")
            outputs = {key: store.add_file(scratch / "out" / key) for key in files}
            log = store.add_file(scratch / "log")
        return Outcome(artifact=Artifact(files=outputs), facts={"log": str(log.digest)})

    return realise(store, derivation, run).artifact


class Build:
    """Three steps, one after the other, and their files published over an older build."""

    def prepare(self, folder: Path) -> None:
        publish_some(ROOT / "models.toml", folder / "out", Store(folder / "store"))

    def do(self, folder: Path) -> None:
        with builder(folder / "store") as opened:
            self._build(opened.store, folder)

    def _build(self, store: Store, folder: Path) -> None:
        given = _artifact(store, {"vocab.txt": b"[PAD]\nword\n", "bert_config.json": b"{}\n"})
        frozen = _step(store, "freeze", folder, given, {"inference_graph.pb": b"graph" * 5000})
        ir = _step(store, "convert", folder, frozen, {"model.xml": b"<net/>\n", "model.bin": b"\1" * 40_000})
        parity = _step(store, "verify", folder, Artifact(files={**frozen.files, **ir.files}), {"p": b"{}"})
        files = Artifact(files={**given.files, **ir.files})
        told = {"report.json": str(parity.digest).encode(), "provenance.json": checksums(files)}
        whole = Artifact(files={**files.files, **_artifact(store, told).files})
        publish(store, whole, folder / "out" / "all-minilm-l6-v2" / "reshapable-fp16")


@dataclass(frozen=True, kw_only=True)
class Download:
    """A zip from a server, and its five files taken out of it."""

    url: str

    def prepare(self, folder: Path) -> None:
        (folder / "models.toml").write_text(
            models_toml(self.url, {MODEL: small_files(MODEL)}), encoding="utf-8"
        )

    def do(self, folder: Path) -> None:
        model = load_models(folder / "models.toml")[MODEL]
        assert isinstance(model.archive, GoogleZip)
        with builder(folder / "store") as opened:
            opened.fetcher.google_zip(model, model.archive)


class Bundle:
    """A bundle written over an older one, and what it holds taken into another store."""

    files: Mapping[str, bytes] = {f"debian/{number}": bytes([number]) * 30_000 for number in range(4)}

    def prepare(self, folder: Path) -> None:
        store = Store(folder / "materials")
        for data in self.files.values():
            store.add_bytes(data)
        (folder / "out").mkdir()
        (folder / "out" / "materials.tar").write_bytes(b"an older bundle")

    def do(self, folder: Path) -> None:
        named = {name: Digest(hashlib.sha256(data).hexdigest()) for name, data in self.files.items()}
        bundle = folder / "out" / "materials.tar"
        with builder(folder / "materials") as opened:
            write_bundle(opened.store, named, bundle, SILENT)
        with builder(folder / "store") as opened:
            read_bundle(opened.store, named, bundle, SILENT)


class Archive:
    """An image's archive, where there was none."""

    def prepare(self, folder: Path) -> None:
        store = Store(folder / "store")
        store.add_bytes(b"a layer" * 9000)
        (folder / "out").mkdir()

    def do(self, folder: Path) -> None:
        with builder(folder / "store") as opened:
            blob = opened.store.add_bytes(b"a layer" * 9000)
            layer = LayerPin(name="debian", digest=blob.digest, size=blob.size)
            write_archive(opened.store, describe_image(opened.intent, [layer]), folder / "out" / "image.tar")
