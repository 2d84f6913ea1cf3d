"""Images and models to and from a registry that people run: Debian's docker-registry, on loopback."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from debian_registry import LOGIN, DebianRegistry, debian_registry
from oras.client import OrasClient
from programs import needed
from small_build import SmallBuilder
from some_build import built_at_another_time, publish_some

from bertir.builder import Builder, Layout
from bertir.digest import Digest
from bertir.fetch import Fetcher
from bertir.job import load_job
from bertir.login import RegistryError
from bertir.progress import SILENT
from bertir.reference import Reference
from bertir.registry import Registry
from bertir.registry_folder import PROVENANCE_KIND, Origin, pull_folder, push_folder
from bertir.registry_image import pull_image, push_image
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertir.image import Image

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def debian() -> Iterator[DebianRegistry]:
    with debian_registry() as running:
        yield running


def registry(debian: DebianRegistry, name: str, environment: dict[str, str] | None = None) -> Registry:
    reference = Reference(host=debian.host, repository=name)
    return Registry(reference, environment or {"HOME": "/nonexistent"}, SILENT, push=True)


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo_inspect(debian: DebianRegistry, what: str) -> Any:
    inspect = (needed("skopeo"), "inspect", "--raw", "--tls-verify=false")
    return json.loads(run(*inspect, f"docker://{debian.host}/{what}"))


# the image


def test_the_locked_image_goes_there_and_comes_back_into_an_empty_store(
    builder: Builder, debian: DebianRegistry, tmp_path: Path
) -> None:
    there = registry(debian, "bertir/step")
    moved = push_image(builder, there, "1", job=False, gzip=False)
    assert moved.manifest == builder.lock.manifest
    assert push_image(builder, there, "2", job=False, gzip=False).sent == 0
    assert skopeo_inspect(debian, "bertir/step:1")["config"]["digest"] == str(builder.lock.image_id)
    store = Store(tmp_path / "store")
    fetcher = Fetcher(store=store, environment={}, progress=SILENT, offline=True)
    with Builder(
        layout=Layout(root=ROOT, models=ROOT / "models.toml"),
        store=store,
        fetcher=fetcher,
        environment=builder.environment,
        progress=SILENT,
    ) as other:
        pull_image(other, there, str(moved.manifest), moved.manifest, job=False)
        # Offline, and of an empty store: no package and no wheel is wanted any more.
        assert other.assemble_image().id == builder.lock.image_id
        assert other.load_image()


@contextlib.contextmanager
def small_builder(builder: Builder, small: Image, root: Path) -> Iterator[SmallBuilder]:
    """Give a builder whose whole image is the interpreter's, on the session's engine, with an empty store."""
    store = Store(root)
    opened = SmallBuilder(
        layout=builder.layout,
        store=store,
        fetcher=Fetcher(store=store, environment=builder.environment, progress=SILENT, offline=True),
        environment=builder.environment,
        progress=SILENT,
    )
    opened.small = small
    with opened:
        yield opened


@pytest.fixture
def full(builder: Builder, small: Image, tmp_path: Path) -> Iterator[SmallBuilder]:
    """The same with the image's one layer in the store."""
    [layer] = small.layers
    with small_builder(builder, small, tmp_path / "full") as opened:
        opened.store.add_file(builder.store.path(layer.digest), expected=layer.digest)
        yield opened


def test_the_image_for_jobs_is_sent_as_what_it_has_over_the_steps_image(
    builder: Builder, debian: DebianRegistry
) -> None:
    there = registry(debian, "bertir/job")
    for layer in push_image(builder, there, "step", job=False, gzip=False).image.layers:
        assert there.has_blob(layer.digest, layer.name)
    moved = push_image(builder, there, "1", job=True, gzip=False)
    job = load_job(ROOT, builder.intent, builder.lock)
    assert moved.manifest == job.lock.manifest
    assert moved.sent == 3  # two layers and the configuration
    assert skopeo_inspect(debian, "bertir/job:1")["config"]["digest"] == str(job.lock.image_id)


def test_docker_and_podman_pull_what_was_pushed(
    full: SmallBuilder, small: Image, debian: DebianRegistry
) -> None:
    name = f"{debian.host}/bertir/small"
    plain = push_image(full, registry(debian, "bertir/small"), "1", job=False, gzip=False)
    packed = push_image(full, registry(debian, "bertir/small"), "packed", job=False, gzip=True)
    assert plain.manifest == small.manifest_digest
    assert packed.size < plain.size / 2
    for moved in (plain, packed):
        reference = f"{name}@{moved.manifest}"
        run("docker", "pull", "--quiet", reference)
        try:
            found = run("docker", "image", "inspect", "--format={{.Id}}", reference).strip()
        finally:
            run("docker", "rmi", reference)  # this name of it
        assert found == str(small.id)
    # Not tmp_path: podman takes no runroot longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as folder:
        podman = [needed("podman"), "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        podman += ["--storage-driver", "vfs"]
        found = run(*podman, "pull", "--quiet", "--tls-verify=false", f"{name}:packed")
        run(*podman, "rmi", "--all", "--force")
    assert found.strip() == small.id.hex


def test_what_docker_pushed_and_skopeo_copied_is_pulled_as_the_locked_image(
    full: SmallBuilder, builder: Builder, small: Image, debian: DebianRegistry, tmp_path: Path
) -> None:
    name = f"{debian.host}/bertir/docker:1"
    full.load_image()
    run("docker", "tag", small.reference, name)
    try:
        run("docker", "push", "--quiet", name)
    finally:
        run("docker", "rmi", name)  # this name of it
    copied = f"docker://{debian.host}/bertir/copied:1"
    copy = (needed("skopeo"), "copy", "--src-tls-verify=false", "--dest-tls-verify=false")
    run(*copy, f"docker://{name}", copied)
    for repository in ("bertir/docker", "bertir/copied"):
        with small_builder(builder, small, tmp_path / repository.replace("/", "-")) as empty:
            moved = pull_image(empty, registry(debian, repository), "1", None, job=False)
            assert moved.manifest != small.manifest_digest
            assert empty.store.has(small.layers[0].blob)


# models


def test_two_builds_of_a_model_are_one_artifact_and_both_provenances_are_kept(
    debian: DebianRegistry, tmp_path: Path
) -> None:
    there = registry(debian, "models/some")
    store = Store(tmp_path / "store")
    one = publish_some(ROOT / "models.toml", tmp_path / "one", store)
    other = publish_some(ROOT / "models.toml", tmp_path / "other", store, built_at_another_time)
    first, second = (push_folder(folder, there, "1") for folder in (one, other))
    assert first.manifest == second.manifest
    listed = skopeo_inspect(debian, f"models/some:sha256-{first.manifest.hex}")["manifests"]
    assert {entry["digest"] for entry in listed} == {str(first.provenance), str(second.provenance)}
    assert {entry["artifactType"] for entry in listed} == {PROVENANCE_KIND}
    origin = Origin(
        store=Store(tmp_path / "empty"), registry=there, wanted=str(first.manifest), digest=first.manifest
    )
    pulled = pull_folder(origin, tmp_path / "there", key=None)
    source = one if pulled.provenance == first.provenance else other
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


def test_skopeo_copies_a_model_as_it_is(debian: DebianRegistry, tmp_path: Path) -> None:
    folder = publish_some(ROOT / "models.toml", tmp_path / "dist", Store(tmp_path / "store"))
    pushed = push_folder(folder, registry(debian, "models/copied"), "1")
    copy = (needed("skopeo"), "copy", "--src-tls-verify=false")
    run(*copy, f"docker://{debian.host}/models/copied:1", f"dir:{tmp_path}/copy")
    assert Digest.of_file(tmp_path / "copy" / "manifest.json") == pushed.manifest
    assert (tmp_path / "copy" / Digest.of_file(folder / "model.bin").hex).exists()


# a login


def test_a_registry_that_wants_a_login_gets_that_of_docker(tmp_path: Path) -> None:
    folder = publish_some(ROOT / "models.toml", tmp_path / "dist", Store(tmp_path / "store"))
    with debian_registry(login=True) as guarded:
        with pytest.raises(RegistryError, match="doesn't allow it") as told:
            push_folder(folder, registry(guarded, "models/mine"), "1")
        assert f"docker login {guarded.host}" in told.value.advice
        auth = {"auth": base64.b64encode(LOGIN.encode()).decode()}
        (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded.host: auth}}), encoding="utf-8")
        pushed = push_folder(folder, registry(guarded, "models/mine", {"DOCKER_CONFIG": str(tmp_path)}), "1")
        assert pushed.sent == 9


def test_the_oras_library_pulls_a_model_and_what_is_attached_to_it(
    debian: DebianRegistry, tmp_path: Path
) -> None:
    folder = publish_some(ROOT / "models.toml", tmp_path / "dist", Store(tmp_path / "store"))
    pushed = push_folder(folder, registry(debian, "models/oras"), "1")
    name = f"{debian.host}/models/oras"
    client = OrasClient(insecure=True, tls_verify=False)
    pulled: set[str] = set()
    for reference in (f"{name}:1", f"{name}@{pushed.provenance}"):
        for path in map(Path, client.pull(target=reference, outdir=str(tmp_path / "there"))):
            assert path.read_bytes() == (folder / path.name).read_bytes()
            pulled.add(path.name)
    assert pulled == {path.name for path in folder.iterdir()}
