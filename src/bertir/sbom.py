"""CycloneDX 1.6: all use of cyclonedx-python-lib and packageurl-python is here.

The library writes the components. It knows no model card, no compositions and no formulation (11.12), so these are
given as JSON values and put beside them; tests hold the whole against the published schema. Nothing in a document
depends on the clock, the machine or the order of anything.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import (
    Component,
    ComponentType,
    Diff,
    Patch,
    PatchClassification,
    Pedigree,
)
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from bertir.digest import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertir.digest import Digest
    from bertir.licences import Licence

# The `version` of every document: raise it whenever the same build would get another document than before. The serial
# number of an image's stays the same then, as CycloneDX means it.
EDITION = 1
IMAGE_NAME = "bertir"
IMAGE_REF = "image"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:bertir:sbom")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A component, as bertir knows it.

    Args:
        ref: its name within the document.
        kind: CycloneDX's component type.
        purl: see `debian_purl` and its like.
        facts: name and value; a name may come more than once.
        references: CycloneDX's kind of external reference, and the URL.
        ancestors: what it was made from.
        patches: names of the patches that were applied to it, in any order.
    """

    ref: str
    kind: str
    name: str
    version: str = ""
    group: str = ""
    description: str = ""
    digest: Digest | None = None
    purl: str = ""
    licences: Sequence[Licence] = ()
    facts: Sequence[tuple[str, str]] = ()
    parts: Sequence[Item] = ()
    references: Sequence[tuple[str, str]] = ()
    ancestors: Sequence[Item] = ()
    patches: Sequence[str] = ()


# documents


def document(subject: Mapping[str, Any], **rest: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    """Give a document about a component that lacks nothing but its serial number."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": EDITION,
        "metadata": {
            "component": dict(subject),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": components([Item(ref="tool", kind="application", name="bertir")])},
        },
        **rest,
    }


def numbered(value: Mapping[str, Any], serial: uuid.UUID | None = None) -> dict[str, Any]:
    """Add a serial number: the one given, or one that follows from all that the document says."""
    number = serial or uuid.uuid5(_NAMESPACE, canonical_json(value).decode())
    return {**value, "serialNumber": number.urn}


def serialised(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def components(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Give components as JSON values, sorted by their references."""
    bom = Bom(components=[_component(item) for item in items])
    # The library makes one document of them; its serial number, time and dependencies are not ours.
    listed: list[dict[str, Any]] = json.loads(JsonV1Dot6(bom).output_as_string()).get("components", [])
    return sorted(listed, key=lambda component: str(component["bom-ref"]))


# the image, which both documents name


def image_serial(image_id: Digest, manifest: Digest) -> uuid.UUID:
    """Give the serial number of an image's document, which follows from the image alone.

    So whoever knows the image, by a report or a lock, can name its document without its materials.
    """
    return uuid.uuid5(
        _NAMESPACE, canonical_json({"image": str(image_id), "manifest": str(manifest)}).decode()
    )


def image_link(image_id: Digest, manifest: Digest) -> str:
    """Give the BOM-Link of the image's component."""
    return f"urn:cdx:{image_serial(image_id, manifest)}/{EDITION}#{IMAGE_REF}"


def oci_purl(name: str, manifest: Digest, platform: str) -> str:
    """Give the purl of an image by its manifest; it says of no registry that it has it."""
    architecture = platform.rpartition("/")[2]
    return PackageURL("oci", None, name, str(manifest), {"arch": architecture}).to_string()


def debian_purl(name: str, version: str, architecture: str, suite: str) -> str:
    return PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": suite}).to_string()


def pypi_purl(name: str, version: str) -> str:
    return PackageURL("pypi", None, name, version).to_string()


def git_purl(url: str, commit: str) -> str:
    """Give the purl of a commit; nothing where the repository's host is none that purls have a type for."""
    match = re.fullmatch(r"https://github\.com/([A-Za-z0-9_.-]+)/([A-Za-z0-9_.-]+)", url.removesuffix(".git"))
    return PackageURL("github", match[1], match[2], commit).to_string() if match else ""


# one component


def _component(item: Item) -> Component:
    return Component(
        type=ComponentType(item.kind),
        bom_ref=item.ref,
        group=item.group or None,
        name=item.name,
        version=item.version or None,
        description=item.description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=item.digest.hex)] if item.digest else None,
        licenses=[_licence(licence) for licence in item.licences],
        purl=PackageURL.from_string(item.purl) if item.purl else None,
        properties=[Property(name=f"bertir:{name}", value=value) for name, value in item.facts],
        components=[_component(part) for part in item.parts],
        external_references=[
            ExternalReference(type=ExternalReferenceType(kind), url=XsUri(url))
            for kind, url in item.references
        ],
        pedigree=_pedigree(item),
    )


def _licence(licence: Licence) -> DisjunctiveLicense | LicenseExpression:
    declared = LicenseAcknowledgement.DECLARED
    if licence.kind == "expression":
        return LicenseExpression(licence.value, acknowledgement=declared)
    # SPDX's list grows; what CycloneDX 1.6 doesn't list as an id is still a name.
    if licence.kind == "id" and is_supported_id(licence.value):
        return DisjunctiveLicense(id=licence.value, acknowledgement=declared)
    name = f"as in {licence.value}" if licence.kind == "file" else licence.value
    return DisjunctiveLicense(name=name, acknowledgement=declared)


def _pedigree(item: Item) -> Pedigree | None:
    if not (item.ancestors or item.patches):
        return None
    return Pedigree(
        ancestors=[_component(ancestor) for ancestor in item.ancestors],
        patches=[
            Patch(type=PatchClassification.UNOFFICIAL, diff=Diff(url=XsUri(name))) for name in item.patches
        ],
    )
