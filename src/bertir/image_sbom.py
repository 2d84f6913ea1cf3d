"""The bill of materials of the image: what the locks pin, with what each package says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.image import describe_image
from bertir.intent import IMAGE_TOML
from bertir.inventory import debian_parts, required_names, wheel_parts
from bertir.lock import PRECOMPILE
from bertir.materials import image_files
from bertir.sbom import (
    IMAGE_NAME,
    IMAGE_REF,
    Item,
    components,
    debian_purl,
    document,
    image_serial,
    numbered,
    oci_purl,
    pypi_purl,
)
from bertir.versions import normalised_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.intent import ImageIntent
    from bertir.inventory import Part
    from bertir.lock import DebianPackage, ImageLock, WheelPin

_PYC = "layer/pyc"


def locked_image_sbom(builder: Builder) -> dict[str, Any]:
    """Give the document of the locked image; packages and wheels that the store lacks are fetched.

    Raises:
        FetchError: one can't be had. ImageError: one can't be read.
    """
    packages, wheels = image_files(builder)
    return image_sbom(builder.intent, builder.lock, packages, wheels)


def image_sbom(
    intent: ImageIntent,
    lock: ImageLock,
    packages: Sequence[tuple[DebianPackage, Path]],
    wheels: Sequence[tuple[WheelPin, Path]],
) -> dict[str, Any]:
    """Give the document of an image whose locked packages and wheels lie in these files.

    Raises:
        ImageError: one can't be read.
    """
    debian = {part.name: part for part in debian_parts(packages)}
    interpreter = interpreter_version(intent, lock)
    python = {normalised_name(part.name): part for part in wheel_parts(wheels, intent.python, interpreter)}
    refs = {("deb", name): part_purl(part, intent) for name, part in debian.items()}
    refs |= {("wheel", name): pypi_purl(part.name, part.version) for name, part in python.items()}
    items = [part_item(part, refs["deb", name]) for name, part in debian.items()]
    items += [part_item(part, refs["wheel", name]) for name, part in python.items()]
    others = _other_items(intent, lock)
    first = [refs["deb", name] for name in intent.debian.packages]
    first += [refs["wheel", name] for name in required_names(intent.python)]
    edges = {IMAGE_REF: [*first, *(item.ref for item in others)]}
    edges |= {refs["deb", name]: [refs["deb", other] for other in debian[name].needs] for name in debian}
    edges |= {refs["wheel", name]: [refs["wheel", other] for other in python[name].needs] for name in python}
    [subject] = components([image_item(intent, lock, IMAGE_NAME)])
    value = document(
        subject,
        components=components([*items, *others]),
        dependencies=[{"ref": ref, "dependsOn": sorted(set(edges[ref]))} for ref in sorted(edges)],
        compositions=compositions(debian, python, refs),
    )
    return numbered(value, image_serial(lock.image_id, lock.manifest))


def interpreter_version(intent: ImageIntent, lock: ImageLock) -> str:
    """Give the version of the image's Python, without Debian's part of it: 3.11.2 of 3.11.2-6+deb12u8."""
    for package in lock.debian:
        if package.name == f"python{intent.python.version}":
            return package.version.rpartition(":")[2].partition("-")[0]
    return intent.python.version


def part_purl(part: Part, intent: ImageIntent) -> str:
    """Give the purl of a Debian package."""
    return debian_purl(part.name, part.version, part.architecture, intent.debian.suite)


def part_item(part: Part, purl: str) -> Item:
    """Give a package or wheel as a component."""
    facts = list(part.facts)
    if part.declared.source:
        facts.append(("licence:declared-in", part.declared.source))
    if not part.declared.licences:
        facts.append(("licence", "unknown"))
    facts += [("dependency:unmet", text) for text in part.unmet]
    return Item(
        ref=purl,
        kind="library",
        name=part.name,
        version=part.version,
        description=part.summary,
        digest=part.digest,
        purl=purl,
        licences=part.declared.licences,
        facts=facts,
    )


def _other_items(intent: ImageIntent, lock: ImageLock) -> list[Item]:
    """What no package brought: files of `image.toml`, and the modules compiled beforehand."""
    items = file_items(intent, IMAGE_TOML)
    what = "the Python modules of Debian's packages and of the wheels, compiled (.pyc) in the image"
    return [*items, *compiled_items(_PYC, "pyc", what, lock)]


def compiled_items(ref: str, name: str, what: str, lock: ImageLock) -> list[Item]:
    """Give the layer of that name, in which modules lie that were compiled beforehand, as a component."""
    facts = [("compiled-by", f"{PRECOMPILE} {lock.inputs[PRECOMPILE]}")] if PRECOMPILE in lock.inputs else []
    return [
        Item(ref=ref, kind="file", name=f"layer {name}", description=what, digest=layer.digest, facts=facts)
        for layer in lock.layers
        if layer.name == name
    ]


def file_items(intent: ImageIntent, source: str) -> list[Item]:
    """Give the intent's own files as components; `source` is the file that has them."""
    return [
        Item(
            ref=f"file/{file.path}",
            kind="file",
            name=f"/{file.path}",
            description=f"written as docker/{source} has it",
            digest=Digest.of_bytes(file.text.encode()),
        )
        for file in intent.files
    ]


def image_item(intent: ImageIntent, lock: ImageLock, name: str) -> Item:
    """Give the image itself as a component of that name."""
    facts = [
        ("image:id", str(lock.image_id)),
        ("image:name", intent.name),
        ("image:tag", describe_image(intent, lock.layers).tag),
        ("image:platform", lock.platform),
        ("image:user", intent.user),
        *((f"image:layer:{layer.name}", str(layer.digest)) for layer in lock.layers),
        *((f"image:environment:{name}", value) for name, value in intent.environment.items()),
        # Packages are listed whole, and these of their files aren't in the image.
        *(("image:left-out", pattern) for pattern in (*intent.debian.exclude, *intent.python.exclude)),
        *(("image:kept", pattern) for pattern in intent.debian.keep),
    ]
    return Item(
        ref=IMAGE_REF,
        kind="container",
        name=name,
        version=str(lock.manifest),
        description=intent.labels.get("org.opencontainers.image.description", ""),
        digest=lock.manifest,
        purl=oci_purl(name, lock.manifest, lock.platform),
        facts=facts,
    )


def compositions(
    debian: Mapping[str, Part], python: Mapping[str, Part], refs: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """Say how much of it is known.

    Debian's policy has packages declare all that they need to run. Wheels declare other wheels only: which
    shared libraries of Debian they load, nobody says. What was linked or copied into either isn't looked for.
    """
    whole = [refs["deb", name] for name, part in debian.items() if not part.unmet]
    partly = [refs["deb", name] for name, part in debian.items() if part.unmet]
    partly += [refs["wheel", name] for name in python]
    said = (
        {"aggregate": "complete", "assemblies": [IMAGE_REF], "dependencies": sorted(whole)},
        {"aggregate": "incomplete", "dependencies": sorted([IMAGE_REF, *partly])},
        {"aggregate": "unknown", "assemblies": sorted(refs.values())},
    )
    return [{name: value for name, value in item.items() if value} for item in said]
