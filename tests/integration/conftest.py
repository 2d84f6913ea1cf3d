"""A builder on the session's store and engine, and a tiny BERT built once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import docker
import pytest
from browsing import chromium
from builds import TinyBuild
from checkout import ROOT, copy_checkout
from ground import VARIANT, Ground
from private_engine import PrivateEngine, private_engine
from running_task import Containers
from small_build import Bench
from some_build import publish_some
from tiny_bert import TinyModel, make_model

from bertir.builder import Builder, Layout
from bertir.container_step import ContainerStep
from bertir.engine import connect
from bertir.fetch import Fetcher
from bertir.graph import frozen_graph
from bertir.image import archive, interpreter_image
from bertir.layer import debian_layer
from bertir.materials import fetch_model, load_pins
from bertir.pipeline import patch_source
from bertir.progress import SILENT
from bertir.report import DEFAULT_SEQ_LEN, Request
from bertir.steps import convert, freeze, import_checkpoint
from bertir.store import Store
from bertir.weights import of_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser

    from bertir.derivation import Realised
    from bertir.image import Image


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def builder(engine_environment: dict[str, str], store_root: Path, tiny_model: TinyModel) -> Iterator[Builder]:
    """Builds from this checkout's pins, with the tiny model as the only one."""
    environment = engine_environment | tiny_model.environment
    store = Store(store_root)
    with Builder(
        layout=Layout(root=ROOT, models=tiny_model.models_toml),
        store=store,
        fetcher=Fetcher(store=store, environment=environment, progress=SILENT),
        environment=environment,
        progress=SILENT,
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def tiny_build(builder: Builder, tiny_model: TinyModel) -> TinyBuild:
    pins = load_pins(builder)
    model = pins.models["tiny-bert"]
    weights = of_model(model)
    request = Request(model="tiny-bert", precision="fp32")
    source = patch_source(builder, pins)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny_model.environment.items():
            patch.setenv(name, value)  # pip reads its configuration from the process
        files = fetch_model(builder, model)
    checkpoint = builder.run(import_checkpoint(builder, files, source.artifact)).artifact
    frozen = builder.run(freeze(builder, request, weights, source.artifact, checkpoint))
    return TinyBuild(
        weights=weights,
        request=request,
        source=source,
        checkpoint=checkpoint,
        frozen=frozen,
        ir=builder.run(
            convert(builder, request, frozen.artifact, frozen_graph(request.head, DEFAULT_SEQ_LEN))
        ),
    )


@pytest.fixture(scope="session")
def run_program(builder: Builder) -> Callable[..., Realised]:
    """Run a Python program of the test's in the image."""

    def run(
        program: str, *arguments: str, outputs: Sequence[str] = (), inputs: dict[str, bytes] | None = None
    ) -> Realised:
        mounted = {"/step/program.py": program.encode()} | (inputs or {})
        return builder.run(
            ContainerStep(
                name="test-program",
                arguments=("python3", "/step/program.py", *arguments),
                inputs={path: builder.store.add_bytes(data) for path, data in mounted.items()},
                outputs=outputs,
            )
        )

    return run


@pytest.fixture(scope="session")
def ground(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    builder.load_image()
    folder = tmp_path_factory.mktemp("killed")
    (folder / "model").mkdir()
    model = make_model(folder / "model")
    store = folder / "store"
    checkout = copy_checkout(folder / "clone", **model.environment, BERTIR_STORE=str(store))
    published = publish_some(ROOT / "models.toml", folder / "old", Store(folder / "another-store"))
    (checkout.root / "dist" / VARIANT).parent.mkdir(parents=True)
    published.rename(checkout.root / "dist" / VARIANT)
    client = docker.from_env()
    try:
        made = Ground(
            checkout=checkout,
            store=store,
            containers=Containers(client, store),
            log=folder / "log",
            old={},
        )
        yield Ground(**(vars(made) | {"old": made.published()}))
    finally:
        client.close()


@pytest.fixture(scope="session")
def small(builder: Builder) -> Image:
    """The interpreter's image: of one layer, loaded in a second."""
    if os.geteuid() != 0:
        pytest.skip("a daemon of one's own needs root")
    [pin] = [layer for layer in builder.lock.layers if layer.name == "debian"]
    if not builder.store.has(pin.blob):
        packages = builder.fetcher.debian_packages(builder.lock.debian)
        debian_layer(builder.store, builder.intent, packages, expected=pin.digest)
    return interpreter_image(builder.intent, pin)


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[PrivateEngine]:
    """One daemon for all tests: each leaves it running."""
    with private_engine() as engine:
        yield engine


@pytest.fixture
def small_daemon(builder: Builder, small: Image, shared_daemon: PrivateEngine) -> tuple[PrivateEngine, str]:
    """The tests' own daemon with the interpreter's image loaded, and its ID."""
    with connect(shared_daemon.environment, folder=builder.store.root) as engine:
        digests = (small.id, small.manifest_digest)
        loaded = engine.find_image(digests)
        return shared_daemon, loaded or engine.load_image(
            archive(builder.store, small), small.reference, digests
        )


@pytest.fixture
def bench(builder: Builder, small: Image, shared_daemon: PrivateEngine) -> Bench:
    return Bench(shared_daemon, small, builder.store.path(small.layers[0].digest))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened
