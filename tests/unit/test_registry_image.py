"""The image to a registry and back, without an engine: the lock decides, whatever a registry says."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from done_build import done_builder
from oci_registry import MemoryRegistry, client_of, digest_of, memory_registry

from bertir import oci
from bertir.digest import Digest
from bertir.errors import BertirError, DigestMismatchError, FetchError, NoRoomError
from bertir.image import describe_image
from bertir.lock import LayerPin
from bertir.registry_image import Moved, pull_image, push_image
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.registry import Registry

NAME = "bertir/step"
LAYERS = {"debian": b"deb" * 100_000, "wheels": b"whl" * 1_000_000, "pyc": bytes(range(256)) * 100}
TAR = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def memory() -> Iterator[MemoryRegistry]:
    with memory_registry() as known:
        yield known


def builder(store: Store, *, full: bool) -> Builder:
    """Give a builder whose lock is of small layers, which its store has or hasn't."""
    made = done_builder(store)
    pins = [
        LayerPin(name=name, digest=Digest.of_bytes(data), size=len(data)) for name, data in LAYERS.items()
    ]
    if full:
        for data in LAYERS.values():
            store.add_bytes(data)
    image = describe_image(made.intent, pins)
    made.lock = replace(  # cached as if it had been read
        made.lock, layers=tuple(pins), image_id=image.id, manifest=image.manifest_digest
    )
    return made


@pytest.fixture
def full(tmp_path: Path) -> Builder:
    return builder(Store(tmp_path / "full"), full=True)


@pytest.fixture
def empty(tmp_path: Path) -> Builder:
    return builder(Store(tmp_path / "empty"), full=False)


def registry(memory: MemoryRegistry) -> Registry:
    return client_of(memory, NAME)


def push(full: Builder, memory: MemoryRegistry, *, tag: str = "1", gzip: bool = False) -> Moved:
    return push_image(full, registry(memory), tag, job=False, gzip=gzip)


def pull(empty: Builder, memory: MemoryRegistry, wanted: str = "1") -> Moved:
    digest = Digest.from_str(wanted) if wanted.startswith("sha256:") else None
    return pull_image(empty, registry(memory), wanted, digest, job=False)


def has_all(builder: Builder) -> bool:
    return all(builder.store.has(layer.blob) for layer in builder.lock.layers)


def changed(memory: MemoryRegistry, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = memory.manifest(NAME, "1")
    change(manifest)
    memory.hold(NAME, "1", oci.MANIFEST, json.dumps(manifest).encode())


# there and back


def test_pushed_as_it_is_its_manifest_is_the_locked_one(full: Builder, memory: MemoryRegistry) -> None:
    moved = push(full, memory)
    assert moved.manifest == full.lock.manifest
    assert digest_of(memory.manifests[f"{NAME}:1"][1]) == str(full.lock.manifest)
    assert memory.manifest(NAME, "1")["config"]["digest"] == str(full.lock.image_id)
    assert moved.sent == 4


def test_pushed_again_no_blob_is_sent(full: Builder, memory: MemoryRegistry) -> None:
    push(full, memory)
    memory.asked.clear()
    assert push(full, memory, tag="2").sent == 0
    assert [asked.path for asked in memory.sent("PUT")] == [f"/v2/{NAME}/manifests/2"]


def test_without_a_tag_it_is_there_by_its_digest_alone(full: Builder, memory: MemoryRegistry) -> None:
    push(full, memory, tag="")
    assert set(memory.manifests) == {f"{NAME}@{full.lock.manifest}"}


@pytest.mark.parametrize("gzip", [False, True])
def test_what_is_pulled_fills_an_empty_store(
    full: Builder, empty: Builder, memory: MemoryRegistry, gzip: bool
) -> None:
    pushed = push(full, memory, gzip=gzip)
    assert pull(empty, memory, str(pushed.manifest)).sent == 3
    assert has_all(empty)
    assert list((empty.store.root / "downloads").iterdir()) == []


def test_only_what_the_store_lacks_is_asked_for(
    full: Builder, empty: Builder, memory: MemoryRegistry
) -> None:
    push(full, memory)
    empty.store.add_bytes(LAYERS["wheels"])
    memory.asked.clear()
    assert pull(empty, memory).sent == 2
    wheels = digest_of(LAYERS["wheels"])
    assert not any(wheels in asked.path for asked in memory.asked)


def test_compressed_twice_it_is_the_same_and_smaller(full: Builder, memory: MemoryRegistry) -> None:
    first = push(full, memory, gzip=True)
    assert first.manifest != full.lock.manifest
    assert first.size < sum(map(len, LAYERS.values())) / 4
    again = builder(Store(full.store.root.parent / "another"), full=True)
    assert push(again, memory, tag="2", gzip=True).manifest == first.manifest
    assert push(full, memory, tag="3", gzip=True).sent == 0
    for layer in memory.manifest(NAME, "1")["layers"]:
        assert layer["mediaType"] == f"{TAR}+gzip"
        assert memory.blobs[layer["digest"]][4:8] == bytes(4)  # no time in it
        assert gzip.decompress(memory.blobs[layer["digest"]]) in LAYERS.values()


def test_what_was_compressed_once_is_kept(
    full: Builder, memory: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(full, memory, gzip=True)
    monkeypatch.delattr("bertir.registry_image.zlib.compressobj")
    assert push(full, memory, tag="2", gzip=True).manifest == first.manifest


def test_what_others_compressed_is_taken_too(full: Builder, empty: Builder, memory: MemoryRegistry) -> None:
    push(full, memory)

    def recompressed(manifest: dict[str, Any]) -> None:
        # As docker push writes it: of its own media types, and one member after the other.
        manifest["mediaType"] = oci.DOCKER_MANIFEST
        for layer, data in zip(manifest["layers"], LAYERS.values(), strict=True):
            blob = gzip.compress(data[:1000], 1) + gzip.compress(data[1000:], 9)
            memory.blobs[digest_of(blob)] = blob
            layer |= {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": digest_of(blob),
                "size": len(blob),
            }

    changed(memory, recompressed)
    pull(empty, memory)
    assert has_all(empty)


# what isn't taken


def refused(empty: Builder, memory: MemoryRegistry, kind: type[BertirError], says: str) -> BertirError:
    with pytest.raises(kind, match=says) as told:
        pull(empty, memory)
    assert not has_all(empty)
    return told.value


def test_another_image_is_refused_before_a_layer_is_asked_for(
    full: Builder, empty: Builder, memory: MemoryRegistry
) -> None:
    push(full, memory)
    changed(memory, lambda manifest: manifest["config"].update(digest=f"sha256:{'a' * 64}"))
    memory.asked.clear()
    error = refused(empty, memory, DigestMismatchError, "is another image than the one for steps")
    assert str(full.lock.image_id) in str(error)
    assert error.exit_status == 102
    assert [asked.path for asked in memory.asked] == [f"/v2/{NAME}/manifests/1"]


@pytest.mark.parametrize("change", ["one fewer", "another", "another size", "another type", "too large"])
def test_other_layers_under_the_right_configuration_are_refused(
    full: Builder, empty: Builder, memory: MemoryRegistry, change: str
) -> None:
    push(full, memory)

    def change_layers(manifest: dict[str, Any]) -> None:
        if change == "one fewer":
            manifest["layers"].pop()
        elif change == "another":
            manifest["layers"][0]["digest"] = f"sha256:{'a' * 64}"
        elif change == "another size":
            manifest["layers"][0]["size"] += 1
        elif change == "another type":
            manifest["layers"][0]["mediaType"] = f"{TAR}+zstd"
        else:
            manifest["layers"][0] |= {"mediaType": f"{TAR}+gzip", "size": 1 << 39}

    changed(memory, change_layers)
    memory.asked.clear()
    refused(empty, memory, DigestMismatchError, "the right configuration, and other layers")
    assert memory.sent("GET", "blobs") == []


def compressed_layer(memory: MemoryRegistry, blob: bytes) -> None:
    memory.blobs[digest_of(blob)] = blob

    def change(manifest: dict[str, Any]) -> None:
        layer = {"mediaType": f"{TAR}+gzip", "digest": digest_of(blob), "size": len(blob)}
        manifest["layers"][0] = layer

    changed(memory, change)


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (gzip.compress(b"other bytes"), "the digest is wrong"),
        (gzip.compress(bytes(50_000_000)), "unpacks to more than the 300000 bytes"),
        (gzip.compress(LAYERS["debian"])[:-20], "it isn't whole as gzip"),
        (gzip.compress(LAYERS["debian"]) + b"more", "it isn't whole as gzip"),
        (b"no gzip", "it isn't whole as gzip"),
        (b"", "it isn't whole as gzip"),
    ],
    ids=["other bytes", "a bomb", "cut off", "more", "none", "nothing"],
)
def test_a_layer_that_unpacks_to_something_else_is_refused(
    full: Builder, empty: Builder, memory: MemoryRegistry, blob: bytes, says: str
) -> None:
    push(full, memory)
    compressed_layer(memory, blob)
    refused(empty, memory, FetchError, says)
    assert list((empty.store.root / "tmp").glob("*")) == []


def test_a_layer_of_the_right_content_compressed_otherwise_than_the_manifest_says_is_refused(
    full: Builder, empty: Builder, memory: MemoryRegistry
) -> None:
    push(full, memory)
    blob, other = gzip.compress(LAYERS["debian"], 1), gzip.compress(LAYERS["debian"], 9)
    assert len(other) < len(blob)
    compressed_layer(memory, blob)
    memory.blobs[digest_of(blob)] = other
    refused(
        empty,
        memory,
        DigestMismatchError,
        f"the layer debian: the digest is wrong\n  expected {digest_of(blob)}",
    )


def test_files_are_no_image(empty: Builder, memory: MemoryRegistry) -> None:
    memory.hold(NAME, "1", oci.MANIFEST, oci.artifact("some/kind", []).data)
    error = refused(empty, memory, FetchError, "is no image, but files of the type 'some/kind'")
    assert "--folder" in error.advice


def test_without_room_nothing_is_begun(
    full: Builder, empty: Builder, memory: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(full, memory)
    monkeypatch.setattr("bertir.registry_image.free_bytes", lambda _: 1000)
    memory.asked.clear()
    refused(empty, memory, NoRoomError, "there is no room for this image")
    assert memory.sent("GET", "blobs") == []
