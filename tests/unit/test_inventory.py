"""What is read out of packages and wheels: small ones, made here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from packages import make_deb, make_wheel, member, small_intent

from bertir.deb import Relation, read_control
from bertir.digest import Digest
from bertir.errors import ImageError
from bertir.inventory import debian_parts, marker_environment, wheel_parts

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.intent import PythonIntent
    from bertir.inventory import Part
    from bertir.lock import DebianPackage, WheelPin

COPYRIGHT = b"in words of its own\n"


def python(*requirements: str) -> PythonIntent:
    return replace(small_intent().python, requirements=requirements)


def parts(packages: list[tuple[DebianPackage, Path]]) -> dict[str, Part]:
    return {part.name: part for part in debian_parts(packages)}


def read(wheels: list[tuple[WheelPin, Path]], *requirements: str) -> dict[str, Part]:
    return {part.name: part for part in wheel_parts(wheels, python(*requirements), "3.11.2")}


# Debian


def test_dependencies_are_those_that_something_in_the_image_meets(tmp_path: Path) -> None:
    needs = "Pre-Depends: libc6 (>= 2.36)\nDepends: absent | awk, libc6, newer (>= 2), gone | lost (<< 3)\n"
    found = parts(
        [
            make_deb(tmp_path, [], name="wants", control=needs),
            make_deb(tmp_path, [], name="libc6", version="2.36-9"),
            make_deb(tmp_path, [], name="mawk", control="Provides: awk\n"),
            make_deb(tmp_path, [], name="newer", version="1:0.5"),
        ]
    )
    assert found["wants"].needs == ("libc6", "mawk", "newer")
    assert found["wants"].unmet == ("gone | lost << 3",)
    assert found["libc6"].needs == found["libc6"].unmet == ()


@pytest.mark.parametrize(
    ("operator", "version", "met"),
    [
        ("", "", True),
        (">=", "1.0", True),
        (">=", "1.0+b1", False),
        (">>", "1.0", False),
        (">>", "1.0~rc1", True),
        ("<=", "1.0", True),
        ("<<", "1:0", True),
        ("<<", "1.0", False),
        ("=", "1.0", True),
        ("=", "1.0-1", False),
    ],
)
def test_versions_are_compared_as_debian_does(operator: str, version: str, met: bool) -> None:
    control = read_control("Package: one\nVersion: 1.0\nProvides: two, three (= 1.0)\n")
    assert control.satisfies(Relation(name="one", operator=operator, version=version)) is met
    assert control.satisfies(Relation(name="three", operator=operator, version=version)) is met
    # What is provided without a version meets no relation that asks for one.
    assert control.satisfies(Relation(name="two", operator=operator, version=version)) is (not operator)


@pytest.mark.parametrize("text", ["", "Package: one\n", "Package: one\nVersion: 1\nDepends: two (<> 3)\n"])
def test_a_control_file_that_says_too_little_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="control file"):
        read_control(text)


def test_a_copyright_file_is_found_where_links_lead_to_another_package(tmp_path: Path) -> None:
    def link(name: str, target: str) -> tuple[object, bytes]:
        return member(name, kind=b"2", link=target)

    found = parts(
        [
            make_deb(tmp_path, [member("./usr/share/doc/base/copyright", COPYRIGHT)], name="base"),
            make_deb(tmp_path, [link("./usr/share/doc/folder", "base")], name="folder"),  # type: ignore[list-item]
            make_deb(tmp_path, [link("./usr/share/doc/file/copyright", "../base/copyright")], name="file"),  # type: ignore[list-item]
            make_deb(tmp_path, [link("./usr/share/doc/rooted", "/usr/share/doc/base")], name="rooted"),  # type: ignore[list-item]
            make_deb(tmp_path, [link("./usr/share/doc/circle", "circle")], name="circle"),  # type: ignore[list-item]
            make_deb(tmp_path, [link("./usr/share/doc/lost", "nowhere")], name="lost"),  # type: ignore[list-item]
            make_deb(tmp_path, [], name="none"),
        ]
    )
    path = "usr/share/doc/base/copyright"
    for name in ("base", "folder", "file", "rooted"):
        assert [licence.value for licence in found[name].declared.licences] == [f"/{path}"], name
        assert ("licence:file", f"{path} {Digest.of_bytes(COPYRIGHT)}") in found[name].facts
    for name in ("circle", "lost", "none"):
        assert found[name].declared.licences == (), name


def test_a_part_has_the_locked_version_and_digest_and_its_source_package(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, [], version="2:1.0-1+b2", control="Source: big (2:1.0-1)\n")
    [part] = debian_parts([(package, path)])
    assert (part.name, part.version, part.architecture) == ("small", "2:1.0-1+b2", "amd64")
    assert part.digest == Digest.of_file(path)
    assert part.facts == (("debian:source", "big (2:1.0-1)"),)
    assert part.summary == "small"


def test_another_package_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, [])
    with pytest.raises(ImageError, match="another package than the locked one"):
        debian_parts([(replace(package, version="2"), path)])


# wheels


def test_requirements_hold_for_the_images_python_and_not_for_this_one(tmp_path: Path) -> None:
    needs = (
        "Requires-Dist: Base_Lib >=1\n"
        'Requires-Dist: windows; platform_system == "Windows"\n'
        'Requires-Dist: old; python_full_version < "3.11.2"\n'
        'Requires-Dist: exact; python_full_version == "3.11.2"\n'
        'Requires-Dist: arm; platform_machine == "aarch64"\n'
        "Requires-Dist: newer (>=2)\n"
        "Requires-Dist: nowhere\n"
        'Requires-Dist: unasked; extra == "never"\n'
    )
    names = ["windows", "old", "exact", "arm", "newer", "unasked"]
    wheels = [
        make_wheel(tmp_path, {}, name="wants", metadata=needs),
        make_wheel(tmp_path, {}, name="base-lib"),
    ]
    found = read([*wheels, *(make_wheel(tmp_path, {}, name=name) for name in names)], "wants")
    assert found["wants"].needs == ("base-lib", "exact")
    assert found["wants"].unmet == ("newer>=2", "nowhere")


def test_every_marker_is_the_images_own() -> None:
    from packaging.markers import default_environment

    found = marker_environment(python("small"), "3.11.2")
    assert set(found) == {*default_environment()}
    assert (found["python_version"], found["python_full_version"]) == ("3.11", "3.11.2")


def test_what_an_extra_brings_is_needed_if_something_asks_for_the_extra(tmp_path: Path) -> None:
    extra = 'Provides-Extra: tls\nRequires-Dist: crypto; extra == "tls"\n'
    wheels = [
        make_wheel(tmp_path, {}, name="client", metadata=extra),
        make_wheel(tmp_path, {}, name="crypto"),
        make_wheel(tmp_path, {}, name="app", metadata="Requires-Dist: client[tls]\n"),
    ]
    assert read(wheels[:2], "client")["client"].needs == ()
    assert read(wheels[:2], "client[tls]")["client"].needs == ("crypto",)
    assert read(wheels, "app")["client"].needs == ("crypto",)


def test_licence_files_are_named_with_their_digests(tmp_path: Path) -> None:
    folder = "small-1.0.dist-info"
    files = {f"{folder}/licenses/LICENSE": b"new place", f"{folder}/COPYING": b"old place"}
    metadata = "License-File: LICENSE\nLicense-File: COPYING\nLicense-File: ../../absent\n"
    [part] = read([make_wheel(tmp_path, files, metadata=metadata)], "small").values()
    assert part.facts == tuple(
        ("licence:file", f"{name} {Digest.of_bytes(data)}") for name, data in sorted(files.items())
    )
    assert [licence.value for licence in part.declared.licences] == sorted(files)


def test_a_text_in_metadata_is_known_by_its_digest(tmp_path: Path) -> None:
    metadata = (
        "License: first line\n        second line\nClassifier: License :: OSI Approved :: BSD License\n"
    )
    [part] = read([make_wheel(tmp_path, {}, metadata=metadata)], "small").values()
    assert dict(part.facts).keys() == {"licence:classifier", "licence:text-in-metadata"}
    assert [licence.value for licence in part.declared.licences] == ["BSD License"]


@pytest.mark.parametrize("damage", ["no wheel", "no metadata", "requirement"])
def test_a_wheel_that_can_not_be_read_is_one_error_with_its_name(tmp_path: Path, damage: str) -> None:
    pin, path = make_wheel(tmp_path, {}, metadata="Requires-Dist: ?\n" if damage == "requirement" else "")
    if damage == "no wheel":
        path.write_bytes(b"not a zip")
    elif damage == "no metadata":
        path.write_bytes(path.read_bytes().replace(b"METADATA", b"NODATA__"))
    with pytest.raises(ImageError, match=r"small 1\.0: can't read the wheel's METADATA"):
        wheel_parts([(pin, path)], python("small"), "3.11.2")
