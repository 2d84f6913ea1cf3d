"""OCI's documents: manifests, descriptors and indexes, written as canonical JSON and read as a stranger's.

What is written has no time and no name of a machine in it, so that the same content has the same digest everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest, canonical_json
from bertir.errors import FetchError
from bertir.redact import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
TITLE = "org.opencontainers.image.title"
EMPTY = b"{}"  # the configuration of what needs none, by the specification
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
# A registry refuses what is larger, by the specification of the distribution.
MOST_BYTES = 4 << 20
_MOST_LAYERS = 128
_MOST_SIZE = 1 << 40
_ADVICE = "It isn't what bertir pushed: ask who runs the registry."


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """What a manifest says of a piece of content.

    Args:
        title: the name of the file that it is, if it is one.
        artifact_type: of a manifest in an index.
    """

    media_type: str
    digest: Digest
    size: int
    title: str = ""
    artifact_type: str = ""

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.title:
            value["annotations"] = {TITLE: self.title}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value


EMPTY_CONFIG = Descriptor(media_type=EMPTY_TYPE, digest=Digest.of_bytes(EMPTY), size=len(EMPTY))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest, as it is written or was read.

    Args:
        data: its bytes.
        media_type: what it is.
        subject: what it is about, if it is about another manifest.
    """

    data: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Descriptor | None = None

    @property
    def digest(self) -> Digest:
        return Digest.of_bytes(self.data)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size=len(self.data),
            artifact_type=self.artifact_type,
        )


@dataclass(frozen=True, kw_only=True)
class Index:
    """A list of manifests.

    Args:
        entries: each as it was read, whatever else it says.
    """

    manifests: tuple[Descriptor, ...]
    entries: tuple[Mapping[str, Any], ...] = field(default=())


def artifact(kind: str, layers: Iterable[Descriptor], *, subject: Descriptor | None = None) -> Manifest:
    """Give the manifest of an artifact of some kind: of files, and of no image."""
    listed = tuple(layers)
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": EMPTY_CONFIG.to_json(),
        "layers": [layer.to_json() for layer in listed],
    }
    if subject is not None:
        value["subject"] = {
            "mediaType": subject.media_type,
            "digest": str(subject.digest),
            "size": subject.size,
        }
    return Manifest(
        data=canonical_json(value),
        media_type=MANIFEST,
        config=EMPTY_CONFIG,
        layers=listed,
        artifact_type=kind,
        subject=subject,
    )


def index_of(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Give an index of such entries."""
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)})


def read_manifest(data: bytes, what: str) -> Manifest:
    """Read the manifest of an image or an artifact.

    Raises:
        FetchError: it is none.
    """
    value = _object(data, what)
    media_type = value.get("mediaType", MANIFEST)
    if media_type in (INDEX, DOCKER_LIST):
        raise FetchError(
            f"{what} is a list of images, and one image was expected",
            advice="Name the one that is meant by its digest: HOST/NAME@sha256:…",
        )
    if media_type not in (MANIFEST, DOCKER_MANIFEST):
        raise FetchError(f"{what}: its media type, {shown(media_type)}, is no manifest's", advice=_ADVICE)
    layers = value.get("layers")
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise FetchError(f"{what}: no manifest of up to {_MOST_LAYERS} layers", advice=_ADVICE)
    subject = value.get("subject")
    kind = value.get("artifactType", "")
    return Manifest(
        data=data,
        media_type=media_type,
        config=_descriptor(value.get("config"), what),
        layers=tuple(_descriptor(layer, what) for layer in layers),
        artifact_type=kind if isinstance(kind, str) else "",
        subject=_descriptor(subject, what) if subject is not None else None,
    )


def read_index(data: bytes, what: str) -> Index:
    """Read an index of manifests.

    Raises:
        FetchError: it is none.
    """
    value = _object(data, what)
    entries = value.get("manifests")
    if value.get("mediaType", INDEX) != INDEX or not isinstance(entries, list):
        raise FetchError(f"{what}: no index", advice=_ADVICE)
    return Index(manifests=tuple(_descriptor(entry, what) for entry in entries), entries=tuple(entries))


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{what}: no JSON object, and a manifest is one", advice=_ADVICE)
    return value


def _descriptor(value: Any, what: str) -> Descriptor:  # noqa: ANN401 - any JSON value
    try:
        size = value["size"]
        found = Descriptor(
            media_type=value["mediaType"],
            digest=Digest.from_str(value["digest"]),
            size=size,
            title=(value.get("annotations") or {}).get(TITLE, ""),
            artifact_type=value.get("artifactType", ""),
        )
        texts = all(isinstance(text, str) for text in (found.media_type, found.title, found.artifact_type))
        if texts and type(size) is int and 0 <= size <= _MOST_SIZE:
            return found
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise FetchError(
        f"{what}: what it says of its content is no descriptor with a sha256: {shown(value)}", advice=_ADVICE
    )
