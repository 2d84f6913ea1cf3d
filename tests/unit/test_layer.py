from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from packages import SITE, TIME, laid_out, make_deb, make_wheel, member, small_intent

from bertir.digest import Digest
from bertir.errors import DigestMismatchError, ImageError
from bertir.layer import debian_layer, pyc_layer, python_sources, wheel_entries
from bertir.store import Blob, Store

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY = tarfile.DIRTYPE
LINK = tarfile.SYMTYPE


@pytest.fixture
def layers(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _read(store: Store, blob: Blob) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(store.path(blob.digest), "r:") as tar:
        found = {info.name: info for info in tar}
        assert list(found) == tar.getnames(), "a path occurs twice"
        return found


def _content(store: Store, blob: Blob, name: str) -> bytes:
    with tarfile.open(store.path(blob.digest), "r:") as tar:
        file = tar.extractfile(name)
        assert file
        return file.read()


# Debian packages


def test_every_entry_has_the_fixed_time_owner_and_mode(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(
        tmp_path,
        [
            member("./", kind=DIRECTORY, mode=0o700),
            member("./usr/bin/su", b"x", mode=0o4755),
            member("./usr/share/a", b"a", mode=0o666),
            member("./usr/bin/link", kind=LINK, link="su"),
        ],
    )
    found = _read(layers, debian_layer(layers, small_intent(), [deb]))
    modes = {name: info.mode for name, info in found.items()}
    assert modes["usr/bin/su"] == 0o755, "setuid must go"
    assert (modes["usr/share/a"], modes["usr"], modes["usr/bin/link"]) == (0o644, 0o755, 0o777)
    assert modes["out"] == 0o1777, "the intent's own folders keep their mode"
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in found.values()} == {
        (TIME, 0, 0, "", "")
    }


def test_the_layer_is_the_same_under_another_umask_and_order(tmp_path: Path, layers: Store) -> None:
    one = make_deb(tmp_path, [member("./usr/b", b"b"), member("./usr/a", b"a")], name="one")
    two = make_deb(tmp_path, [member("./usr/c", b"c")], name="two")
    first = debian_layer(layers, small_intent(), [one, two])
    umask = os.umask(0o077)
    try:
        second = debian_layer(Store(tmp_path / "other"), small_intent(), [two, one])
    finally:
        os.umask(umask)
    assert first == second


def test_entries_are_sorted_and_each_folder_stands_before_what_is_in_it(
    tmp_path: Path, layers: Store
) -> None:
    deb = make_deb(tmp_path, [member("./usr/a-b/x", b""), member("./usr/a/x", b"")])
    names = list(_read(layers, debian_layer(layers, small_intent(), [deb])))
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)
    assert names == sorted(names, key=lambda name: name.split("/"))


def test_bin_and_lib_are_merged_into_usr(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(
        tmp_path,
        [
            member("./bin", kind=DIRECTORY),
            member("./bin/dash", b"dash", mode=0o755),
            member("./bin/sh", kind=LINK, link="dash"),
            member("./lib64/ld.so", kind=LINK, link="/lib/x/ld.so"),
            member("./lib/x/conf", kind=LINK, link="../../etc/conf"),
            member("./lib/x/up", kind=LINK, link="../y"),
        ],
    )
    found = _read(layers, debian_layer(layers, small_intent(), [deb]))
    assert {name: found[name].linkname for name in ("bin", "lib", "lib64", "sbin")} == {
        "bin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "sbin": "usr/sbin",
    }
    assert found["usr/bin/dash"].isreg()
    assert found["usr/bin/sh"].linkname == "dash"
    assert found["usr/lib64/ld.so"].linkname == "/lib/x/ld.so"
    assert found["usr/lib/x/conf"].linkname == "../../../etc/conf"
    assert found["usr/lib/x/up"].linkname == "../y"


def test_a_hard_link_becomes_a_file_of_its_own(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(
        tmp_path,
        [
            member("./usr/bin/perl", b"perl", mode=0o755),
            member("./usr/bin/perl5", kind=tarfile.LNKTYPE, link="./usr/bin/perl"),
        ],
    )
    blob = debian_layer(layers, small_intent(exclude=["usr/bin/perl"]), [deb])
    assert "usr/bin/perl" not in _read(layers, blob)
    assert _content(layers, blob, "usr/bin/perl5") == b"perl"
    assert _read(layers, blob)["usr/bin/perl5"].mode == 0o755


def test_excluded_paths_are_left_out_and_licences_kept(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(
        tmp_path,
        [
            member(f"./usr/share/{name}", b"x")
            for name in ("man/man1/a.1", "doc/a/NEWS", "doc/a/copyright", "manual")
        ],
    )
    intent = small_intent(exclude=["usr/share/man", "usr/share/doc/*/*"], keep=["usr/share/doc/*/copyright"])
    found = _read(layers, debian_layer(layers, intent, [deb]))
    shown = {name for name in found if name.startswith("usr/share/") and found[name].isreg()}
    assert shown == {"usr/share/doc/a/copyright", "usr/share/manual"}


def test_a_scanner_finds_each_package_and_no_script_was_run(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(tmp_path, [member("./usr/a", b"a")], script=b"#!/bin/sh\ntouch /ran\n")
    blob = debian_layer(layers, small_intent(), [deb])
    assert b"Package: small\nVersion: 1:1.0-1\n" in _content(layers, blob, "var/lib/dpkg/status.d/small")
    assert not [name for name in _read(layers, blob) if "postinst" in name or name == "ran"]


def test_two_packages_that_disagree_on_a_file_are_refused(tmp_path: Path, layers: Store) -> None:
    same = make_deb(tmp_path, [member("./usr/a", b"a")], name="same")
    also = make_deb(tmp_path, [member("./usr/a", b"a")], name="also")
    other = make_deb(tmp_path, [member("./usr/a", b"b")], name="other")
    debian_layer(layers, small_intent(), [same, also])
    with pytest.raises(ImageError, match="the layer debian: two different contents for /usr/a"):
        debian_layer(layers, small_intent(), [same, other])


def test_a_file_below_a_link_is_refused(tmp_path: Path, layers: Store) -> None:
    one = make_deb(tmp_path, [member("./usr/a", kind=LINK, link="/etc")], name="one")
    two = make_deb(tmp_path, [member("./usr/a/passwd", b"b")], name="two")
    with pytest.raises(ImageError, match="/usr/a/passwd lies below /usr/a, which is no folder"):
        debian_layer(layers, small_intent(), [one, two])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (member("./dev/sda", kind=tarfile.BLKTYPE), "neither file, folder nor link"),
        (member("./run/fifo", kind=tarfile.FIFOTYPE), "neither file, folder nor link"),
        (member("./../etc/passwd", b"x"), "leads out"),
        (member("/etc/passwd", b"x"), "leads out"),
        (member("./a", kind=tarfile.LNKTYPE, link="./b"), "is a hard link to 'b', which isn't there"),
    ],
)
def test_what_no_layer_may_hold_is_refused(
    tmp_path: Path, layers: Store, entry: tuple[tarfile.TarInfo, bytes], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        debian_layer(layers, small_intent(), [make_deb(tmp_path, [entry])])


def test_another_package_than_the_locked_one_is_refused(tmp_path: Path, layers: Store) -> None:
    locked, _ = make_deb(tmp_path, [], version="1.0")
    _, path = make_deb(tmp_path, [], version="1.1")
    with pytest.raises(ImageError, match=r"expected small 1\.0 amd64\n  found    small 1\.1 amd64"):
        debian_layer(layers, small_intent(), [(locked, path)])


@pytest.mark.parametrize("damage", [b"", b"no archive", b"!<arch>\n"])
def test_what_is_no_package_is_refused_without_a_traceback(
    tmp_path: Path, layers: Store, damage: bytes
) -> None:
    package, path = make_deb(tmp_path, [])
    path.write_bytes(damage)
    with pytest.raises(ImageError, match="can't read the package"):
        debian_layer(layers, small_intent(), [(package, path)])


def test_a_package_cut_short_is_refused_without_a_traceback(tmp_path: Path, layers: Store) -> None:
    package, path = make_deb(tmp_path, [member("./usr/a", os.urandom(100_000))])
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(ImageError, match="can't read the package"):
        debian_layer(layers, small_intent(), [(package, path)])


def test_a_layer_with_another_digest_than_the_locked_one_is_not_kept(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(tmp_path, [])
    with pytest.raises(DigestMismatchError, match="the layer debian: the digest is wrong"):
        debian_layer(layers, small_intent(), [deb], expected=Digest("a" * 64))
    assert not list((layers.root / "objects").glob("*/*"))


# wheels


def test_a_wheel_is_laid_out_as_an_installer_does(tmp_path: Path, layers: Store) -> None:
    wheel = make_wheel(
        tmp_path,
        {
            "small/__init__.py": b"x = 1\n",
            "small/__pycache__/__init__.cpython-311.pyc": b"not ours",
            "small-1.0.data/scripts/tool": b"#!python\nprint(1)\n",
            "small-1.0.data/data/share/small/data.txt": b"data",
        },
        entry_points="[console_scripts]\nsmall = small:main\n",
    )
    blob = laid_out(layers, small_intent(), [wheel])
    found = _read(layers, blob)
    info = f"{SITE}/small-1.0.dist-info"
    assert {name for name in found if found[name].isreg()} == {
        f"{SITE}/small/__init__.py",
        "usr/local/bin/small",
        "usr/local/bin/tool",
        "usr/local/share/small/data.txt",
        *(f"{info}/{name}" for name in ("INSTALLER", "METADATA", "RECORD", "WHEEL", "entry_points.txt")),
    }
    assert _content(layers, blob, "usr/local/bin/tool").startswith(b"#!/usr/bin/python3.11\n")
    assert _content(layers, blob, "usr/local/bin/small").startswith(b"#!/usr/bin/python3.11\n")
    assert (found["usr/local/bin/tool"].mode, found["usr/local/bin/small"].mode) == (0o755, 0o755)
    record = _content(layers, blob, f"{info}/RECORD").decode().splitlines()
    assert [line.split(",")[0] for line in record] == [
        "../../../share/small/data.txt",
        "../../../bin/small",
        *(
            f"small-1.0.dist-info/{name}"
            for name in ("INSTALLER", "METADATA", "RECORD", "WHEEL", "entry_points.txt")
        ),
        "small/__init__.py",
        "../../../bin/tool",
    ]


def test_excluded_files_of_a_wheel_are_not_in_its_record(tmp_path: Path, layers: Store) -> None:
    wheel = make_wheel(tmp_path, {"small/a.py": b"", "small/include/a.h": b""})
    blob = laid_out(layers, small_intent(exclude=[f"{SITE}/small/include"]), [wheel])
    assert f"{SITE}/small/include/a.h" not in _read(layers, blob)
    assert b"include" not in _content(layers, blob, f"{SITE}/small-1.0.dist-info/RECORD")


def test_of_two_wheels_with_the_same_path_the_owner_must_be_named(tmp_path: Path, layers: Store) -> None:
    one = make_wheel(tmp_path, {"shared.py": b"one"}, name="one")
    two = make_wheel(tmp_path, {"shared.py": b"two"}, name="two")
    with pytest.raises(ImageError, match="the layer wheels: two different contents"):
        laid_out(layers, small_intent(), [one, two])
    blob = laid_out(layers, small_intent(owners={f"{SITE}/shared.py": "two"}), [one, two])
    assert _content(layers, blob, f"{SITE}/shared.py") == b"two"
    assert b"shared.py" not in _content(layers, blob, f"{SITE}/one-1.0.dist-info/RECORD")


def test_a_file_that_is_not_what_record_says_is_refused(tmp_path: Path, layers: Store) -> None:
    wheel = make_wheel(tmp_path, {"a.py": b"x = 1\n"}, record={"a.py": "sha256=" + "A" * 43})
    with pytest.raises(ImageError, match=r"a\.py is not what its wheel's RECORD says"):
        laid_out(layers, small_intent(), [wheel])


def test_another_wheel_than_the_locked_one_is_refused(tmp_path: Path, layers: Store) -> None:
    locked, _ = make_wheel(tmp_path, {}, version="1.0")
    _, path = make_wheel(tmp_path, {}, version="1.1")
    with pytest.raises(ImageError, match=r"expected small 1\.0\n  found    small 1\.1"):
        laid_out(layers, small_intent(), [(locked, path)])


def test_a_wheel_that_leads_out_of_its_folder_is_refused(tmp_path: Path, layers: Store) -> None:
    wheel = make_wheel(tmp_path, {"small-1.0.data/data/../../../../etc/passwd": b"x"})
    with pytest.raises(ImageError, match="leads out"):
        laid_out(layers, small_intent(), [wheel])


def test_what_is_no_wheel_is_refused_without_a_traceback(tmp_path: Path, layers: Store) -> None:
    pin, path = make_wheel(tmp_path, {})
    path.write_bytes(b"no zip")
    with pytest.raises(ImageError, match=r"small 1\.0: can't read the wheel"):
        laid_out(layers, small_intent(), [(pin, path)])


# compiled modules


def test_the_sources_of_all_layers_are_gathered(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(
        tmp_path, [member("./usr/lib/python3.11/os.py", b"os"), member("./usr/share/x/y.py", b"no")]
    )
    wheel = make_wheel(tmp_path, {"small/a.py": b"a", "small/b.txt": b"b"})
    intent = small_intent()
    made = [debian_layer(layers, intent, [deb]), laid_out(layers, intent, [wheel])]
    found = _read(layers, python_sources(layers, intent, made))
    assert {name for name in found if found[name].isreg()} == {
        "usr/lib/python3.11/os.py",
        f"{SITE}/small/a.py",
    }


def test_sources_are_the_same_from_wheels_as_from_their_layer(tmp_path: Path, layers: Store) -> None:
    deb = make_deb(tmp_path, [member("./usr/lib/python3.11/os.py", b"os")])
    wheels = [
        make_wheel(tmp_path, {"b/tool.py": b"tool", "b/data": b"x"}, name="one"),
        make_wheel(tmp_path, {"a.py": b"a", "one-1.0.data/data/elsewhere.py": b"no"}, name="two"),
    ]
    intent = small_intent()
    debian, laid = debian_layer(layers, intent, [deb]), laid_out(layers, intent, wheels)
    with wheel_entries(intent, wheels) as entries:
        assert python_sources(layers, intent, [debian], entries) == python_sources(
            layers, intent, [debian, laid]
        )


def _pyc_tar(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = folder / "pyc.tar"
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


def test_only_names_and_contents_of_compiled_modules_are_taken(tmp_path: Path, layers: Store) -> None:
    path = _pyc_tar(tmp_path, member(f"{SITE}/small/__pycache__/a.cpython-311.pyc", b"code", mode=0o4777))
    blob = pyc_layer(layers, small_intent(), path)
    info = _read(layers, blob)[f"{SITE}/small/__pycache__/a.cpython-311.pyc"]
    assert (info.mode, info.mtime, info.uid) == (0o644, TIME, 0)


@pytest.mark.parametrize(
    "entry",
    [
        member("etc/passwd", b"x"),
        member(f"{SITE}/small/a.py", b"x"),
        member(f"{SITE}/small/a.pyc", b"x"),
        member(f"{SITE}/small/__pycache__/a.pyc", kind=LINK, link="/etc/passwd"),
        member(f"{SITE}/__pycache__/../../../../../../etc/__pycache__/a.pyc", b"x"),
        member(f"/{SITE}/__pycache__/a.pyc", b"x"),
        member(f"{SITE}/small", kind=DIRECTORY),
    ],
)
def test_anything_else_out_of_the_container_is_refused(
    tmp_path: Path, layers: Store, entry: tuple[tarfile.TarInfo, bytes]
) -> None:
    with pytest.raises(ImageError, match="the tar of compiled modules holds"):
        pyc_layer(layers, small_intent(), _pyc_tar(tmp_path, entry))


def test_a_tar_of_compiled_modules_that_is_none_is_refused(tmp_path: Path, layers: Store) -> None:
    path = tmp_path / "pyc.tar"
    path.write_bytes(b"no tar" * 200)
    with pytest.raises(ImageError, match="the compiled modules can't be read"):
        pyc_layer(layers, small_intent(), path)
