"""What is in the image, package by package, read out of the locked files: for the SBOM.

Dependencies are those that the packages declare, as far as something in the image meets them.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

from bertir.deb import STATUS, package_entries, read_control
from bertir.digest import Digest
from bertir.errors import ImageError
from bertir.licences import Declared, of_copyright, of_metadata
from bertir.tree import FileEntry, LinkEntry
from bertir.versions import normalised_name
from bertir.wheel import LIMITS
from bertir.zip_check import UnfitZipError, checked_zip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from packaging.metadata import RawMetadata

    from bertir.deb import Control
    from bertir.intent import PythonIntent
    from bertir.lock import DebianPackage, WheelPin

DOCUMENTATION = "usr/share/doc"
_MOST_BYTES = 4 << 20  # of METADATA, or a licence


@dataclass(frozen=True, kw_only=True)
class Part:
    """One Debian package or wheel of the image.

    Args:
        architecture: of a Debian package.
        digest: of the .deb or wheel, as locked.
        needs: names of others of its kind in the image that its declared dependencies are met by.
        unmet: declared dependencies that nothing in the image meets.
        facts: more of it, name and value; a name may come more than once.
    """

    name: str
    version: str
    architecture: str = ""
    digest: Digest
    summary: str
    declared: Declared
    needs: tuple[str, ...]
    unmet: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


# Debian


def debian_parts(packages: Sequence[tuple[DebianPackage, Path]]) -> list[Part]:
    """Read the locked packages.

    Raises:
        ImageError: one can't be read, or is another than the locked one.
    """
    controls: dict[str, Control] = {}
    documents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    for package, path in packages:
        for entry in package_entries(package, path):
            if entry.path == f"{STATUS}/{package.name}" and isinstance(entry, FileEntry):
                controls[package.name] = read_control(entry.open().read().decode())
            elif not entry.path.startswith(f"{DOCUMENTATION}/"):
                continue
            elif isinstance(entry, LinkEntry):
                links[entry.path] = entry.target
            elif isinstance(entry, FileEntry) and entry.path.endswith("/copyright"):
                documents[entry.path] = entry.open().read()
    return [
        _debian_part(
            package, controls, _resolved(f"{DOCUMENTATION}/{package.name}/copyright", links), documents
        )
        for package, _ in packages
    ]


def _debian_part(
    package: DebianPackage, controls: Mapping[str, Control], path: str, documents: Mapping[str, bytes]
) -> Part:
    control = controls[package.name]
    needs: set[str] = set()
    unmet = []
    for group in control.needs:
        found = {other.name for other in controls.values() for one in group if other.satisfies(one)}
        needs |= found
        if not found:
            unmet.append(" | ".join(f"{one.name} {one.operator} {one.version}".strip() for one in group))
    facts = [("debian:source", control.source)]
    declared = Declared(licences=(), source="")
    if path in documents:
        declared = of_copyright(documents[path].decode(errors="replace"), path)
        facts.append(("licence:file", f"{path} {Digest.of_bytes(documents[path])}"))
    return Part(
        name=package.name,
        version=package.version,
        architecture=package.architecture,
        digest=package.digest,
        summary=control.summary,
        declared=declared,
        needs=tuple(sorted(needs - {package.name})),
        unmet=tuple(unmet),
        facts=tuple(facts),
    )


def _resolved(path: str, links: Mapping[str, str]) -> str:
    """Follow links, of the file and of its folder: Debian lets a package share another's documentation."""
    for _ in range(len(links) + 1):
        folder = posixpath.dirname(path)
        if path in links:
            path = _target(folder, links[path])
        elif folder in links:
            path = f"{_target(posixpath.dirname(folder), links[folder])}/{posixpath.basename(path)}"
        else:
            return path
    return ""  # a circle


def _target(folder: str, target: str) -> str:
    return posixpath.normpath(target.removeprefix("/") if target.startswith("/") else f"{folder}/{target}")


# wheels


@dataclass(frozen=True, kw_only=True)
class _Read:
    pin: WheelPin
    metadata: RawMetadata
    licences: Mapping[str, Digest]
    requirements: tuple[Requirement, ...]


def wheel_parts(
    wheels: Sequence[tuple[WheelPin, Path]], python: PythonIntent, interpreter: str
) -> list[Part]:
    """Read the locked wheels; of what they require, the part that holds for the image's Python, such as 3.11.2.

    Raises:
        ImageError: one can't be read.
    """
    read = {normalised_name(pin.name): _read_wheel(pin, path) for pin, path in wheels}
    environment = marker_environment(python, interpreter)
    extras = _extras(read, python, environment)
    return [_wheel_part(item, read, environment, extras[name]) for name, item in read.items()]


def required_names(python: PythonIntent) -> list[str]:
    """Give the names of what `image.toml` asks for."""
    return [normalised_name(Requirement(text).name) for text in python.requirements]


def marker_environment(python: PythonIntent, interpreter: str) -> dict[str, str]:
    """Give what markers may ask for, as the image has it: whatever machine this runs on."""
    return {
        "implementation_name": "cpython",
        "implementation_version": interpreter,
        "os_name": "posix",
        "platform_machine": python.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",  # the kernel's, which isn't the image's
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": interpreter,
        "python_version": python.version,
        "sys_platform": "linux",
    }


def _read_wheel(pin: WheelPin, path: Path) -> _Read:
    what = f"{pin.name} {pin.version}"
    try:
        with checked_zip(path, LIMITS) as opened:
            archive = opened.archive
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            [folder] = {
                name.removesuffix("/METADATA")
                for name in sizes
                if name.endswith(".dist-info/METADATA") and name.count("/") == 1
            }
            if sizes[f"{folder}/METADATA"] > _MOST_BYTES:
                raise ImageError(f"{what}: its METADATA is larger than any")
            metadata, _ = parse_email(archive.read(f"{folder}/METADATA"))
            files = [
                f"{folder}/{place}{name}"
                for name in metadata.get("license_files", [])
                for place in ("licenses/", "")
            ]
            licences = {
                name: Digest.of_bytes(archive.read(name))
                for name in files
                if sizes.get(name, _MOST_BYTES + 1) <= _MOST_BYTES
            }
        requirements = tuple(Requirement(text) for text in metadata.get("requires_dist", []))
    except (UnfitZipError, InvalidRequirement, InvalidVersion, KeyError, ValueError) as error:
        raise ImageError(f"{what}: can't read the wheel's METADATA: {error}") from error
    return _Read(pin=pin, metadata=metadata, licences=licences, requirements=requirements)


def _extras(
    read: Mapping[str, _Read], python: PythonIntent, environment: Mapping[str, str]
) -> dict[str, set[str]]:
    """Give the extras of each wheel that something in the image asks for."""
    extras: dict[str, set[str]] = {name: set() for name in read}
    waiting = [Requirement(text) for text in python.requirements]
    waiting += [one for item in read.values() for one in _active(item.requirements, environment, set())]
    while waiting:
        requirement = waiting.pop()
        name = normalised_name(requirement.name)
        if new := requirement.extras - extras.get(name, requirement.extras):
            extras[name] |= new
            waiting += _active(read[name].requirements, environment, new)
    return extras


def _active(
    requirements: Iterable[Requirement], environment: Mapping[str, str], extras: set[str]
) -> Iterator[Requirement]:
    for requirement in requirements:
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({**environment, "extra": extra}) for extra in sorted({"", *extras})
        ):
            yield requirement


def _wheel_part(
    item: _Read, read: Mapping[str, _Read], environment: Mapping[str, str], extras: set[str]
) -> Part:
    needs: set[str] = set()
    unmet = []
    for requirement in _active(item.requirements, environment, extras):
        other = read.get(normalised_name(requirement.name))
        if other is not None and requirement.specifier.contains(other.pin.version, prereleases=True):
            needs.add(normalised_name(requirement.name))
        else:
            unmet.append(str(requirement))
    text = str(item.metadata.get("license", "")).strip()
    facts = [
        *(("licence:file", f"{name} {digest}") for name, digest in sorted(item.licences.items())),
        *(
            ("licence:classifier", classifier)
            for classifier in item.metadata.get("classifiers", [])
            if classifier.startswith("License :: ")
        ),
    ]
    if "\n" in text:
        facts.append(("licence:text-in-metadata", str(Digest.of_bytes(text.encode()))))
    return Part(
        name=item.pin.name,
        version=item.pin.version,
        digest=item.pin.digest,
        summary=str(item.metadata.get("summary", "")).partition("\n")[0].strip(),
        declared=of_metadata({**item.metadata}, sorted(item.licences)),
        needs=tuple(sorted(needs)),
        unmet=tuple(unmet),
        facts=tuple(facts),
    )
