"""The image: the same wherever it is made, and loadable by whatever loads images."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING, cast

import pytest
from checkout import ROOT
from elsewhere import assembled_elsewhere
from programs import needed

from bertir.assemble import Materials, assemble_layers
from bertir.container import Command
from bertir.image import describe_image, interpreter_image, write_archive
from bertir.lock import LayerPin, load_image_lock
from bertir.store import Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.builder import Builder

pytestmark = pytest.mark.engine


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def archive(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole image as a tar, assembled anew in a store of its own: other umask, zone, seed, folder, user's home."""
    folder = tmp_path_factory.mktemp("some where else")
    builder.fetcher.debian_packages(builder.lock.debian)
    builder.fetcher.wheels(builder.lock.wheels, builder.intent.python)
    digests = [package.digest for package in builder.lock.debian]
    digests += [pin.digest for pin in builder.lock.wheels]
    target = folder / "image.tar"
    assembled_elsewhere(builder, digests, folder, target)
    return target


@pytest.fixture(scope="module")
def small_archive(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The interpreter's image, of one layer: quick to load, written by the same code. With its ID."""
    debian = next(layer for layer in builder.lock.layers if layer.name == "debian")
    builder.assemble_image()
    image = interpreter_image(builder.intent, debian)
    path = tmp_path_factory.mktemp("small") / "image.tar"
    write_archive(builder.store, image, path)
    return path, image.id.hex


def member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    return cast("IO[bytes]", tar.extractfile(name))


def test_an_image_assembled_elsewhere_has_the_locked_bits(archive: Path) -> None:
    lock = load_image_lock(ROOT / "docker")
    with tarfile.open(archive) as tar:
        [entry] = json.load(member(tar, "manifest.json"))
        config = member(tar, entry["Config"]).read()
        assert hashlib.sha256(config).hexdigest() == lock.image_id.hex
        found = [hashlib.file_digest(member(tar, layer), "sha256").hexdigest() for layer in entry["Layers"]]  # type: ignore[arg-type]
        assert found == [layer.digest.hex for layer in lock.layers]
        assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in found]
        [manifest] = json.load(member(tar, "index.json"))["manifests"]
        assert manifest["digest"] == str(lock.manifest)


def test_skopeo_reads_the_archive_both_ways_and_sees_the_locked_image(archive: Path) -> None:
    skopeo, lock = needed("skopeo"), load_image_lock(ROOT / "docker")
    for transport in ("docker-archive", "oci-archive"):
        config = run(skopeo, "inspect", "--config", "--raw", f"{transport}:{archive}")
        assert hashlib.sha256(config.encode()).hexdigest() == lock.image_id.hex


def test_podman_loads_an_archive_under_the_predicted_id(small_archive: tuple[Path, str]) -> None:
    path, image_id = small_archive
    # Not tmp_path: podman takes no runroot longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as folder:
        podman = [needed("podman"), "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        podman += ["--storage-driver", "vfs"]
        run(*podman, "load", "--input", str(path))
        listed = run(*podman, "images", "--no-trunc", "--quiet").split()
        run(*podman, "rmi", "--all", "--force")
    assert listed == [f"sha256:{image_id}"]


def test_a_layer_with_another_digest_is_refused_and_not_kept(builder: Builder, tmp_path: Path) -> None:
    from bertir.errors import DigestMismatchError

    store = Store(tmp_path / "store")
    [package] = [item for item in builder.lock.debian if item.name == "base-files"]
    [(_, path)] = builder.fetcher.debian_packages([package])
    wrong = LayerPin(name="debian", digest=builder.lock.image_id, size=1)
    materials = Materials(
        packages=lambda: [(package, path)],
        wheels=lambda: pytest.fail("the first layer should have ended it"),
        precompile=builder.precompile,
    )
    with pytest.raises(DigestMismatchError):
        assemble_layers(store, builder.intent, materials, expected=[wrong])
    assert not list((store.root / "objects").glob("*/*"))


def test_a_damaged_layer_is_noticed_when_the_archive_is_written_and_made_anew_after(
    builder: Builder, tmp_path: Path
) -> None:
    debian = builder.assemble_image().layers[0]
    image = interpreter_image(builder.intent, debian)
    store = Store(tmp_path / "store")
    path = store.path(debian.digest)
    path.parent.mkdir()
    shutil.copyfile(builder.store.path(debian.digest), path)
    with path.open("r+b") as file:
        file.seek(12345)
        file.write(b"!")
    with pytest.raises(StoreError, match="other bytes for the layer debian"):
        write_archive(store, image, tmp_path / "image.tar")
    assert not (tmp_path / "image.tar").exists()
    assert store.find(debian.digest) is None  # so that the next assembly makes it


def test_one_changed_byte_in_a_layer_makes_another_image(builder: Builder) -> None:
    lock = builder.lock
    changed = (*lock.layers[:-1], LayerPin(name="pyc", digest=lock.manifest, size=lock.layers[-1].size))
    assert describe_image(builder.intent, lock.layers).id == lock.image_id
    assert describe_image(builder.intent, changed).id != lock.image_id


LOOK = """
import importlib.metadata, json, os, re, subprocess

names, looked, missed = set(), 0, {}
for top in ("/usr/bin", "/usr/lib", "/usr/local/lib"):
    for folder, _, files in os.walk(top):
        names |= set(files)
        for path in (f"{folder}/{name}" for name in files):
            with open(path, "rb") as file:
                if os.path.islink(path) or file.read(4) != b"\\x7fELF":
                    continue
            linker = ["/lib64/ld-linux-x86-64.so.2", "--list", path]
            listed = subprocess.run(linker, capture_output=True, text=True)
            looked += 1
            if listed.returncode:
                missed[path] = re.search("loading shared libraries: ([^:]*)", listed.stderr)[1]
# Two of numpy's libraries find each other only through the module that loads them.
missed = {path: name for path, name in missed.items() if name not in names}
distributions = list(importlib.metadata.distributions())
gone = [str(file) for one in distributions for file in one.files if not one.locate_file(file).exists()]
with open("/out/found.json", "w") as file:
    json.dump([looked, missed, len(distributions), gone], file)
"""


def test_nothing_that_is_left_out_is_linked_to_or_in_a_record(builder: Builder, tmp_path: Path) -> None:
    command = Command(
        name="look", arguments=("/usr/bin/python3", "-c", LOOK), inputs={}, outputs=("found.json",)
    )
    with builder.engine.run(builder.load_image(), command, tmp_path) as finished:
        looked, missed, distributions, gone = json.load(finished.outputs["found.json"])
    assert looked > 100
    assert distributions == len(builder.lock.wheels)
    assert missed == {}
    assert gone == []
