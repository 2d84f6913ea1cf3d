"""A published folder to a registry and back, as an OCI artifact with its provenance attached.

The artifact is what SHA256SUMS lists, and SHA256SUMS: no time, no name of a machine. So the same build has the same
digest whoever pushes it. What tells times (provenance, report, page), and a signature if there is one, is a manifest of its
own with the artifact as its subject: another build of the same IR adds another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir import oci
from bertir.derivation import MOMENT
from bertir.digest import Digest, read_chunks
from bertir.download import download
from bertir.errors import DigestMismatchError, FetchError, VerificationError
from bertir.publish import LISTED, PAGE, PROVENANCE, REPORT, SIGNATURES, SUMS, taking_place
from bertir.redact import shown
from bertir.referrers import attach, attached
from bertir.registry import Outgoing
from bertir.verify import MOST_BYTES, MOST_BYTES_OF_WEIGHTS, verify_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bertir.errors import BertirError
    from bertir.oci import Descriptor, Manifest
    from bertir.registry import Registry
    from bertir.store import Blob, Store
    from bertir.verify import Verified

KIND = "application/vnd.bertir.openvino-ir.v1"
# in-toto's media types: of a statement, and of an envelope with one that is stored somewhere.
PROVENANCE_KIND = "application/vnd.in-toto+json"
_ENVELOPE = "application/vnd.in-toto.provenance+dsse"
_SUBJECT_TYPES = {
    SUMS: "text/plain",
    "bert_config.json": "application/json",
    "model.bin": "application/octet-stream",
    "model.xml": "application/xml",
    "vocab.txt": "text/plain",
}
_ATTACHED_TYPES = {
    PROVENANCE: PROVENANCE_KIND,
    REPORT: "application/json",
    PAGE: "text/html",
    SIGNATURES: _ENVELOPE,
}
# Of what anybody who may push there may attach: looked at, and tried.
_MOST_LISTED = 128
_MOST_TRIED = 16


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What became of a folder in a registry.

    Args:
        manifest: its digest there.
        provenance: that of what was attached.
        sent: how many blobs weren't there.
        size: bytes of them.
    """

    verified: Verified
    manifest: Digest
    provenance: Digest
    sent: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A folder that came from a registry.

    Args:
        provenance: the digest of what was attached, and fits; there may be others.
        replaced: another build lay there.
    """

    verified: Verified
    manifest: Digest
    provenance: Digest
    replaced: bool
    size: int


def push_folder(folder: Path, registry: Registry, tag: str) -> Pushed:
    """Send a published folder, once it was seen to be whole; what the registry has isn't sent.

    Raises:
        VerificationError: it isn't what was published.
        RegistryError: it is refused, or can't be sent.
    """
    verified = verify_folder(folder)
    listed = {**verified.files, SUMS: verified.subject}
    subject = oci.artifact(KIND, [_described(folder, name, listed[name]) for name in sorted(listed)])
    # As they were when they were verified: a statement of another moment isn't attached.
    stated = {
        PROVENANCE: Digest.of_bytes(verified.stated),
        REPORT: Digest.of_bytes(verified.report),
    }
    names = [name for name in _ATTACHED_TYPES if (folder / name).exists()]
    about = oci.artifact(
        PROVENANCE_KIND,
        [_described(folder, name, stated.get(name)) for name in names],
        subject=subject.descriptor,
    )
    empty = Outgoing(
        digest=oci.EMPTY_CONFIG.digest,
        size=len(oci.EMPTY),
        chunks=lambda: iter([oci.EMPTY]),
        what="the empty configuration",
    )
    blobs = [*(_outgoing(folder, layer) for layer in (*subject.layers, *about.layers)), empty]
    sent = [blob.size for blob in blobs if registry.send_blob(blob)]
    registry.put_manifest(subject.data, oci.MANIFEST, str(subject.digest))
    attach(registry, about, subject.descriptor)
    if tag:  # last of all: who pulls by it finds what is attached, too
        registry.put_manifest(subject.data, oci.MANIFEST, tag)
    return Pushed(
        verified=verified,
        manifest=subject.digest,
        provenance=about.digest,
        sent=len(sent),
        size=sum(sent),
    )


def _described(folder: Path, name: str, digest: Digest | None) -> Descriptor:
    path = folder / name
    return oci.Descriptor(
        media_type={**_SUBJECT_TYPES, **_ATTACHED_TYPES}[name],
        digest=digest or Digest.of_file(path),
        size=path.stat().st_size,
        title=name,
    )


def _outgoing(folder: Path, layer: Descriptor) -> Outgoing:
    def chunks() -> Iterator[bytes]:
        with (folder / layer.title).open("rb") as file:
            yield from read_chunks(file)

    return Outgoing(digest=layer.digest, size=layer.size, chunks=chunks, what=layer.title)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a folder comes from, and the store that keeps what has come of it, for the next time.

    Args:
        wanted: the tag or the digest in the registry.
        digest: what the manifest must be, if that is known.
    """

    store: Store
    registry: Registry
    wanted: str
    digest: Digest | None

    @property
    def what(self) -> str:
        return self.registry.named(self.wanted)

    def manifest(self) -> Manifest:
        return oci.read_manifest(self.registry.manifest(self.wanted, self.digest), self.what)

    def copy(self, files: Mapping[str, Descriptor], folder: Path) -> int:
        """Copy files into a folder, and give how many bytes; what the store lacks is downloaded first."""
        blobs = {name: self._fetched(name, layer) for name, layer in files.items()}
        for name, blob in blobs.items():
            self.store.copy_out(blob, folder / name, what=name)
        return sum(blob.size for blob in blobs.values())

    def _fetched(self, name: str, layer: Descriptor) -> Blob:
        def use(path: Path) -> Blob:
            return self.store.add_file(path, expected=layer.digest, what=name)

        with self.store.lock(f"fetch-{layer.digest.hex}", after=MOMENT):
            blob = self.store.find(layer.digest)
            if blob is not None and blob.size == layer.size:
                return blob
            source = self.registry.source(layer, name)
            return download(self.store, source, self.registry.progress, use)


def pull_folder(origin: Origin, folder: Path, *, key: Path | None) -> Pulled:
    """Fetch a published folder, and put it in place once it was verified as `invoke verify` does.

    Args:
        origin: where it is.
        folder: where it goes; of bertir's own folders one that is there is replaced, any other is left alone.
        key: a public key that must have signed the statement.

    Raises:
        FetchError: there is no such thing. DigestMismatchError: it isn't what it should be.
        VerificationError: no provenance is attached that fits it, or it isn't signed by that key.
        ConfigurationError: the folder holds something else.
    """
    what, subject = origin.what, origin.manifest()
    if subject.artifact_type != KIND:
        kind = shown(subject.artifact_type or subject.config.media_type)
        raise FetchError(
            f"{what} is no model that bertir pushed (its type is {kind})",
            advice="An image is pulled without --folder.",
        )
    files = _named_layers(subject, what, needed={*LISTED, SUMS}, known=_SUBJECT_TYPES)
    candidates = _candidates(origin.registry, subject, what)
    with taking_place(folder, sum(layer.size for layer in files.values())) as staged:
        size = origin.copy(files, staged)
        verified, provenance = _verified(origin, staged, candidates, key)
        replaced = folder.is_dir() and any(folder.iterdir())
    return Pulled(
        verified=verified,
        manifest=subject.digest,
        provenance=provenance,
        replaced=replaced,
        size=size,
    )


def _named_layers(
    manifest: Manifest, what: str, *, needed: set[str], known: Mapping[str, str]
) -> dict[str, Descriptor]:
    """Give the files by name: these names and no other are ever written, whatever a manifest says."""
    found = {layer.title: layer for layer in manifest.layers}
    if len(found) != len(manifest.layers) or not needed <= {*found} <= {*known}:
        names = ", ".join(shown(layer.title) for layer in manifest.layers[:20])
        raise DigestMismatchError(
            f"{what}: its files aren't those that bertir pushes\n  expected {', '.join(sorted(needed))}\n  found    {names or 'none'}",
            advice="Nothing of it was taken.",
        )
    for name, layer in found.items():
        if layer.size > (MOST_BYTES_OF_WEIGHTS if name == "model.bin" else MOST_BYTES):
            raise DigestMismatchError(
                f"{what}: {name} would have {layer.size} bytes, more than any that bertir publishes",
                advice="Nothing of it was taken.",
            )
    return found


# what is attached


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    digest: Digest
    files: Mapping[str, Descriptor]

    @property
    def is_signed(self) -> bool:
        return SIGNATURES in self.files


def _candidates(registry: Registry, subject: Manifest, what: str) -> Sequence[_Candidate]:
    """Give what is attached as provenance: what is signed first, and the same order for everybody."""
    listed = attached(registry, subject.digest, PROVENANCE_KIND)
    found = []
    for descriptor in sorted(listed, key=lambda item: item.digest)[:_MOST_LISTED]:
        data = registry.find_manifest(str(descriptor.digest))
        if data is None or Digest.of_bytes(data) != descriptor.digest:
            continue  # a list by tag goes on naming what was removed
        named = registry.named(str(descriptor.digest))
        try:
            manifest = oci.read_manifest(data, named)
            files = _named_layers(manifest, named, needed={PROVENANCE, REPORT}, known=_ATTACHED_TYPES)
        except FetchError as error:  # anybody who may push there may attach whatever they like
            registry.progress.say("pull", str(error).splitlines()[0])
            continue
        if manifest.subject is not None and manifest.subject.digest == subject.digest:
            found.append(_Candidate(digest=descriptor.digest, files=files))
    if not found:
        raise VerificationError(
            f"{what}: no provenance of bertir's is attached to it",
            advice="Push the folder anew, with the registry that it is pulled from: invoke push REFERENCE --folder DIR",
        )
    return sorted(found, key=lambda item: not item.is_signed)[:_MOST_TRIED]


def _verified(
    origin: Origin, staged: Path, candidates: Sequence[_Candidate], key: Path | None
) -> tuple[Verified, Digest]:
    """Give the first provenance with which the folder verifies; its files are beside the others then."""
    wrong: list[BertirError] = []
    for candidate in candidates:
        try:
            origin.copy(candidate.files, staged)
            return verify_folder(staged, key, called=origin.what), candidate.digest
        except (VerificationError, DigestMismatchError) as error:
            wrong.append(error)
            for name in candidate.files:
                (staged / name).unlink(missing_ok=True)
    raise wrong[0]
