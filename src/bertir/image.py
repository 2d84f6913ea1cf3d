"""Layers → an image whose ID is known before any engine sees it, and one archive that every engine loads.

An image's ID is the sha256 of its configuration, a small JSON document that names the layers' digests. So it
needs no engine to compute, and `docker load` keeps the document as it is. (`docker build` writes it anew, with
the time in it: see docker/README.md.)
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest, canonical_json
from bertir.errors import ImageError
from bertir.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bertir.intent import ImageIntent
    from bertir.lock import ImageLock, LayerPin
    from bertir.store import Store

_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_BLOCK = 512  # of a tar

_MADE_BY = {
    "debian": "bertir: Debian packages of docker/debian.lock, no maintainer script run",
    "wheels": "bertir: wheels of docker/requirements.lock",
    "pyc": "bertir: docker/steps/precompile.py",
    "tools": "bertir: Debian packages of docker/job-debian.lock, no maintainer script run",
    "host": "bertir: wheels of docker/job-requirements.lock, and docker/steps/precompile.py",
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image by its documents: nothing is read or written to know its ID.

    Args:
        name: the repository part of its reference.
        config: bytes of the OCI image configuration.
        manifest: bytes of the OCI manifest.
    """

    name: str
    layers: tuple[LayerPin, ...]
    config: bytes
    manifest: bytes

    @property
    def id(self) -> Digest:
        return Digest.of_bytes(self.config)

    @property
    def manifest_digest(self) -> Digest:
        return Digest.of_bytes(self.manifest)

    @property
    def tag(self) -> str:
        return self.id.short

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"


def describe_image(intent: ImageIntent, layers: Sequence[LayerPin]) -> Image:
    """Give the image that some layers make."""
    config = image_config(intent, layers)
    return Image(
        name=intent.name, layers=tuple(layers), config=config, manifest=image_manifest(config, layers)
    )


def interpreter_image(intent: ImageIntent, debian: LayerPin) -> Image:
    """Give the Debian layer alone as an image: `precompile.py` needs the interpreter, not 1 GB of wheels."""
    return describe_image(intent, [debian])


def locked_image(
    intent: ImageIntent, lock: ImageLock, *, file: str = "docker/image.lock", relock: str = "invoke lock"
) -> Image:
    """Give the image that a lock pins; `file` is that lock, and `relock` writes it.

    Raises:
        ImageError: the locked layers make another ID than the locked one.
    """
    image = describe_image(intent, lock.layers)
    if (image.id, image.manifest_digest) != (lock.image_id, lock.manifest):
        raise ImageError(
            f"the locked layers make another image than the locked one"
            f"\n  expected {lock.image_id}, manifest {lock.manifest}"
            f"\n  found    {image.id}, manifest {image.manifest_digest}",
            advice=f"If bertir's code was changed: {relock}. Otherwise restore {file} (git checkout).",
        )
    return image


def image_config(intent: ImageIntent, layers: Sequence[LayerPin]) -> bytes:
    """Give the OCI image configuration. Its sha256 is the image's ID."""
    created = datetime.fromtimestamp(intent.source_date_epoch, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return canonical_json(
        {
            "architecture": intent.architecture,
            "os": intent.os,
            "created": created,
            "config": {
                "Cmd": list(intent.command),
                "Env": [f"{key}={value}" for key, value in sorted(intent.environment.items())],
                "Labels": dict(intent.labels),
                "User": intent.user,
                "WorkingDir": intent.workdir,
            },
            "history": [
                {"created": created, "created_by": _MADE_BY.get(layer.name, f"bertir: {layer.name}")}
                for layer in layers
            ],
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )


def image_manifest(config: bytes, layers: Sequence[LayerPin]) -> bytes:
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _descriptor(_CONFIG_TYPE, Digest.of_bytes(config), len(config)),
            "layers": [_descriptor(_LAYER_TYPE, layer.digest, layer.size) for layer in layers],
        }
    )


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


# the archive


def archive(store: Store, image: Image) -> Iterator[bytes]:
    """Stream one tar that is both an OCI image layout and a Docker archive.

    Docker reads `manifest.json` (before version 25 nothing else), skopeo and containerd read `index.json`; both
    name the same blobs. Nothing of the layers' size is held in memory.

    Raises:
        ImageError: a layer isn't in the store.
        StoreError: it is, and is damaged; the stream ends there.
    """
    _check_layers(store, image)
    for name, data in _documents(image):
        yield from _member(name, data)
    for layer in image.layers:
        yield _header(_blob_path(layer.digest), layer.size)
        yield from store.read(layer.blob, what=f"the layer {layer.name}")
        yield _padding(layer.size)
    yield bytes(2 * _BLOCK)


def archive_size(image: Image) -> int:
    """Bytes that `archive` gives."""
    sizes = [len(data) for _, data in _documents(image)] + [layer.size for layer in image.layers]
    blocks = sum(1 + -(-size // _BLOCK) for size in sizes)
    return (blocks + 2) * _BLOCK


def write_archive(store: Store, image: Image, path: Path) -> None:
    """Write the archive to a file, which appears under its name only when it is whole.

    Raises:
        ImageError: a layer isn't in the store, or the file can't be written.
        NoRoomError: the disk is full.
    """
    from bertir.whole_file import whole_file

    with whole_file(path, ImageError, size=archive_size(image)) as file:
        for chunk in archive(store, image):
            file.write(chunk)


def _documents(image: Image) -> Iterator[tuple[str, bytes]]:
    yield "oci-layout", canonical_json({"imageLayoutVersion": "1.0.0"})
    yield "index.json", _index(image)
    yield "manifest.json", _docker_manifest(image)
    yield _blob_path(image.id), image.config
    yield _blob_path(image.manifest_digest), image.manifest


def _index(image: Image) -> bytes:
    platform = json.loads(image.config)
    manifest = _descriptor(_MANIFEST_TYPE, image.manifest_digest, len(image.manifest))
    manifest["platform"] = {"architecture": platform["architecture"], "os": platform["os"]}
    manifest["annotations"] = {
        # The first is containerd's and Docker's, the second OCI's and skopeo's.
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": image.tag,
    }
    return canonical_json({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [manifest]})


def _docker_manifest(image: Image) -> bytes:
    return canonical_json(
        [
            {
                "Config": _blob_path(image.id),
                "RepoTags": [image.reference],
                "Layers": [_blob_path(layer.digest) for layer in image.layers],
            }
        ]
    )


def _blob_path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data))
    yield data
    yield _padding(len(data))


def _header(name: str, size: int) -> bytes:
    import tarfile  # here alone: a build with nothing to do reads the lock, and no more

    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _check_layers(store: Store, image: Image) -> None:
    missing = [layer.name for layer in image.layers if not store.has(layer.blob)]
    if missing:
        raise ImageError(
            f"the store lacks layers of {image.reference}: {', '.join(missing)}", advice="Run: invoke image"
        )
