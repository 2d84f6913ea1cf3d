"""The image to a registry and back. What decides is the lock: its image ID, and the digest of each layer.

By itself it is sent as it is, uncompressed: then its manifest is the lock's, with a digest that anybody with the checkout
knows beforehand. Compressed it is a quarter of that, and the manifest's digest depends on the zlib that did it.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bertir import oci
from bertir.derivation import MOMENT
from bertir.digest import CHUNK_BYTES, Digest, canonical_json, read_chunks
from bertir.download import download
from bertir.errors import DigestMismatchError, FetchError
from bertir.estimate import ADVICE, Work, peak, refusal
from bertir.image import locked_image
from bertir.job import assemble_job, load_job
from bertir.redact import shown
from bertir.registry import Outgoing
from bertir.room import free_bytes
from bertir.store import Artifact, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.image import Image
    from bertir.lock import LayerPin
    from bertir.oci import Descriptor, Manifest
    from bertir.registry import Registry
    from bertir.store import Blob

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_PLAIN = frozenset({_LAYER, "application/vnd.docker.image.rootfs.diff.tar"})
_GZIP = frozenset({f"{_LAYER}+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"})
_GZIP_LEVEL = 6
_GZIP_FORMAT = 31  # of zlib: gzip, with no name and no time in it
_MOST_GZIP_ADDS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What went to a registry, or came from it.

    Args:
        manifest: the digest that it has there.
        sent: blobs that weren't there; of a pull, the layers that the store lacked.
        size: bytes of them, as they went over the wire.
    """

    image: Image
    manifest: Digest
    sent: int
    size: int


def locked(builder: Builder, *, job: bool) -> Image:
    """Give the image that the lock pins: that for steps, or that for CI jobs."""
    if job:
        return load_job(builder.layout.root, builder.intent, builder.lock).image
    return locked_image(builder.intent, builder.lock)


def push_image(builder: Builder, registry: Registry, tag: str, *, job: bool, gzip: bool) -> Moved:
    """Send the locked image, assembling it if need be; what the registry has isn't sent.

    Raises:
        RegistryError: it is refused, or can't be sent. And as `assemble_image` does.
    """
    image = assemble_job(builder) if job else builder.assemble_image()
    layers = [_outgoing(builder, layer, gzip=gzip) for layer in image.layers]
    config = Outgoing(
        digest=image.id, size=len(image.config), chunks=lambda: iter([image.config]), what="the configuration"
    )
    sent = [blob.size for blob in (*layers, config) if registry.send_blob(blob)]
    manifest = _gzip_manifest(image, layers) if gzip else image.manifest
    found = Digest.of_bytes(manifest)
    registry.put_manifest(manifest, oci.MANIFEST, tag or str(found))
    return Moved(image=image, manifest=found, sent=len(sent), size=sum(sent))


def _outgoing(builder: Builder, layer: LayerPin, *, gzip: bool) -> Outgoing:
    what = f"the layer {layer.name}"
    blob = _compressed(builder, layer) if gzip else layer.blob
    return Outgoing(
        digest=blob.digest, size=blob.size, chunks=partial(builder.store.read, blob, what=what), what=what
    )


def _compressed(builder: Builder, layer: LayerPin) -> Blob:
    """Give a layer compressed, as the store has it or will have it: the next push sends the same bytes."""
    store, what = builder.store, f"the layer {layer.name}"
    kind = {"gzip": _GZIP_LEVEL, "zlib": zlib.ZLIB_RUNTIME_VERSION, "layer": str(layer.digest)}
    key = Digest.of_json(kind)
    if record := store.load_record("gzip", key):
        return record.artifact["layer"]
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)

    def pieces() -> Iterator[bytes]:
        chunks = store.read(layer.blob, what=what)
        for chunk in builder.progress.counted("image", f"compressing {what}", chunks, layer.size):
            yield compressor.compress(chunk)
        yield compressor.flush()

    blob = store.add(pieces(), what=what)
    store.save_record("gzip", key, Record(artifact=Artifact(files={"layer": blob}), derivation=kind))
    return blob


def _gzip_manifest(image: Image, layers: list[Outgoing]) -> bytes:
    def descriptor(media_type: str, digest: Digest, size: int) -> dict[str, object]:
        return oci.Descriptor(media_type=media_type, digest=digest, size=size).to_json()

    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": descriptor(_CONFIG, image.id, len(image.config)),
            "layers": [descriptor(f"{_LAYER}+gzip", blob.digest, blob.size) for blob in layers],
        }
    )


def pull_image(
    builder: Builder, registry: Registry, wanted: str, digest: Digest | None, *, job: bool
) -> Moved:
    """Take the locked image's layers that the store lacks from a registry; no index of packages is asked then.

    Raises:
        DigestMismatchError: what is there is another image, or isn't what it should be.
        RegistryError: it can't be had.
    """
    image = locked(builder, job=job)
    what = registry.named(wanted)
    manifest = oci.read_manifest(registry.manifest(wanted, digest), what)
    _require_locked(manifest, image, what, job=job)
    store = builder.store
    pairs = zip(image.layers, manifest.layers, strict=True)
    missing = [(pin, layer) for pin, layer in pairs if not store.has(pin.blob)]
    _require_room(builder, missing)
    for pin, layer in missing:
        _take(builder, registry, pin, layer)
    return Moved(
        image=image,
        manifest=manifest.digest,
        sent=len(missing),
        size=sum(layer.size for _, layer in missing),
    )


def _require_locked(manifest: Manifest, image: Image, what: str, *, job: bool) -> None:
    if manifest.artifact_type or manifest.config.media_type == oci.EMPTY_TYPE:
        raise FetchError(
            f"{what} is no image, but files of the type {shown(manifest.artifact_type)}",
            advice="Pull a model by naming its folder: --folder DIR",
        )
    if manifest.config.digest != image.id:
        kind = "for CI jobs" if job else "for steps"
        raise DigestMismatchError(
            f"{what} is another image than the one {kind} that is locked here"
            f"\n  expected {image.id}\n  found    {manifest.config.digest}",
            advice="Nothing of it was taken. Pull the one of this commit (`--job` is the one for CI jobs), or push it:"
            " invoke push",
        )
    fits = len(manifest.layers) == len(image.layers) and all(
        _fits(layer, pin) for layer, pin in zip(manifest.layers, image.layers, strict=True)
    )
    if not fits:
        raise DigestMismatchError(
            f"{what} has the right configuration, and other layers than it says, or compressed otherwise than by gzip",
            advice="Nothing of it was taken. Push it anew: invoke push",
        )


def _fits(layer: Descriptor, pin: LayerPin) -> bool:
    if layer.media_type in _PLAIN:
        return (layer.digest, layer.size) == (pin.digest, pin.size)
    return layer.media_type in _GZIP and layer.size <= pin.size + _MOST_GZIP_ADDS


def _require_room(builder: Builder, missing: list[tuple[LayerPin, Descriptor]]) -> None:
    works = [Work(name=f"the layer {pin.name}", stays=pin.size, passing=layer.size) for pin, layer in missing]
    root = builder.store.root
    try:
        enough = free_bytes(root) >= peak(works)
    except OSError:
        return
    if not enough:
        raise refusal("image", root, works, peak(works), ADVICE)


def _take(builder: Builder, registry: Registry, pin: LayerPin, layer: Descriptor) -> None:
    """Download a layer and store it, unpacked; what has come is kept, if the connection breaks or this process ends."""
    store, what = builder.store, f"the layer {pin.name}"

    def use(path: Path) -> Blob:
        with path.open("rb") as file:
            chunks = _compared(read_chunks(file), layer.digest, what)
            if layer.media_type in _GZIP:
                chunks = _inflated(chunks, pin.size, what)
            return store.add(chunks, expected=pin.digest, what=what, size=pin.size)

    def waiting() -> None:
        builder.progress.say("fetch", f"{what}: waiting for another process that fetches it")

    with store.lock(f"fetch-{pin.digest.hex}", waiting=waiting, after=MOMENT):
        if not store.has(pin.blob):
            download(store, registry.source(layer, what), builder.progress, use)


def _compared(chunks: Iterator[bytes], digest: Digest, what: str) -> Iterator[bytes]:
    """Pass bytes on; at their end, raise if they were others."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
        yield chunk
    if found.hexdigest() != digest.hex:
        raise DigestMismatchError(
            f"{what}: the digest is wrong\n  expected {digest}\n  found    sha256:{found.hexdigest()}",
            advice="It was not kept: ask whoever runs the registry.",
        )


def _inflated(chunks: Iterator[bytes], most: int, what: str) -> Iterator[bytes]:
    """Unpack gzip, and no more than `most` bytes of it."""
    size, unpacking = 0, zlib.decompressobj(_GZIP_FORMAT)
    damaged = DigestMismatchError(
        f"{what}: it isn't whole as gzip", advice="It was not kept: ask whoever runs the registry."
    )
    for chunk in chunks:
        rest = chunk
        while rest:
            if unpacking.eof:  # gzip may be one after the other
                unpacking = zlib.decompressobj(_GZIP_FORMAT)
            try:
                piece = unpacking.decompress(rest, CHUNK_BYTES)
            except zlib.error:
                raise damaged from None
            rest = unpacking.unconsumed_tail or unpacking.unused_data
            size += len(piece)
            if size > most:
                raise DigestMismatchError(
                    f"{what}: it unpacks to more than the {most} bytes that it has",
                    advice="It was not kept: ask whoever runs the registry.",
                )
            yield piece
    if not unpacking.eof:
        raise damaged
