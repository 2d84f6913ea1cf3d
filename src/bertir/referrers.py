"""What is attached to a manifest in a registry: other manifests that name it as their subject.

A registry with the API for that lists them. One without keeps a list under a tag, `sha256-<digest>`, which clients read
and write, by the specification of the distribution 1.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from bertir import oci
from bertir.login import RegistryError

if TYPE_CHECKING:
    from bertir.digest import Digest
    from bertir.oci import Descriptor, Manifest
    from bertir.registry import Registry

_MOST_PAGES = 16
_TIMES = 5


def attach(registry: Registry, manifest: Manifest, subject: Descriptor) -> None:
    """Store a manifest that is about another one, and see that it is found from there.

    Nothing locks the list of a registry without the API: so it is read once more after it was written, and written again
    if somebody else wrote it at the same time.

    Raises:
        RegistryError: it is refused, or can't be sent.
    """
    if registry.put_manifest(manifest.data, manifest.media_type, str(manifest.digest)):
        return
    tag = fallback_tag(subject.digest)
    for _ in range(_TIMES):
        found = registry.find_manifest(tag)
        entries = oci.read_index(found, registry.named(tag)).entries if found is not None else ()
        if any(entry["digest"] == str(manifest.digest) for entry in entries):
            return
        registry.put_manifest(oci.index_of([*entries, manifest.descriptor.to_json()]), oci.INDEX, tag)
    raise RegistryError(
        f"{registry.named(tag)}: others write this list of what is attached all the time, or the registry doesn't keep it",
        advice="Run it again.",
    )


def attached(registry: Registry, subject: Digest, kind: str) -> tuple[Descriptor, ...]:
    """Give the manifests of some kind that are about `subject`, as the registry lists them, each once.

    Raises:
        RegistryError: it can't be asked. FetchError: what it gives is no list.
    """
    found = _by_api(registry, subject, kind)
    if found is None:
        tag = fallback_tag(subject)
        data = registry.find_manifest(tag)
        found = oci.read_index(data, registry.named(tag)).manifests if data is not None else ()
    return tuple({item.digest: item for item in found if item.artifact_type == kind}.values())


def fallback_tag(subject: Digest) -> str:
    """Give the tag of the list, where there is no API."""
    return f"sha256-{subject.hex}"


def _by_api(registry: Registry, subject: Digest, kind: str) -> tuple[Descriptor, ...] | None:
    """Give what the API lists; None if the registry has none."""
    what = f"what is attached to {registry.named(str(subject))}"
    place = f"referrers/{subject}?{urlencode({'artifactType': kind})}"
    found: list[Descriptor] = []
    for _ in range(_MOST_PAGES):
        page = registry.document(place, oci.INDEX, what)
        if page is None:
            return None
        found += oci.read_index(page.data, what).manifests
        if not page.following:
            break
        place = page.following
    return tuple(found)
