from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.bundle import INDEX, read_bundle, write_bundle
from bertir.digest import Digest
from bertir.errors import DigestMismatchError, FetchError
from bertir.progress import SILENT
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
MATERIALS = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=4)
FIXED = {"debian/a_1": b"a" * 700, "wheel/b-2": b"b" * 1300, "source/c.py": b"", "model/d-1": b"d" * 512}


def filled(root: Path, contents: Mapping[str, bytes]) -> tuple[Store, dict[str, Digest]]:
    store = Store(root)
    return store, {name: store.add_bytes(data).digest for name, data in contents.items()}


def bundle_of(folder: Path, contents: Mapping[str, bytes]) -> tuple[bytes, dict[str, Digest]]:
    store, materials = filled(folder / "from", contents)
    write_bundle(store, materials, folder / "bundle.tar", SILENT)
    return (folder / "bundle.tar").read_bytes(), materials


def assert_sound(store: Store) -> None:
    """Every object is what its name says, and nothing lies around."""
    for path in (store.root / "objects").rglob("*"):
        if path.is_file():
            assert Digest.of_file(path).hex == path.parent.name + path.name
    assert list((store.root / "tmp").iterdir()) == []


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def index(**value: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(INDEX, json.dumps({"format": 1, "materials": []} | value).encode())


@given(MATERIALS)
def test_a_bundle_brings_every_material_to_an_empty_store(contents: dict[str, bytes]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        _, materials = bundle_of(folder, contents)
        store = Store(folder / "to")
        taken = read_bundle(store, materials, folder / "bundle.tar", SILENT)
        assert taken == len(set(contents.values()))
        for what, data in contents.items():
            blob = store.find(materials[what])
            assert blob is not None
            assert store.checked(blob, what=what).read_bytes() == data
        assert read_bundle(store, materials, folder / "bundle.tar", SILENT) == 0


@given(st.data())
def test_a_flipped_byte_of_an_object_is_found_and_not_kept(choice: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        data, materials = bundle_of(folder, FIXED)
        with tarfile.open(folder / "bundle.tar") as tar:
            places = [
                member.offset_data + at for member in tar if member.name != INDEX for at in range(member.size)
            ]
        spoilt = bytearray(data)
        spoilt[choice.draw(st.sampled_from(places))] ^= choice.draw(st.integers(1, 255))
        (folder / "bundle.tar").write_bytes(spoilt)
        store = Store(folder / "to")
        with pytest.raises(DigestMismatchError):
            read_bundle(store, materials, folder / "bundle.tar", SILENT)
        assert_sound(store)


@given(st.data())
def test_a_flipped_byte_anywhere_is_found_or_does_no_harm(choice: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        data, materials = bundle_of(folder, FIXED)
        spoilt = bytearray(data)
        spoilt[choice.draw(st.integers(0, len(data) - 1))] ^= choice.draw(st.integers(1, 255))
        (folder / "bundle.tar").write_bytes(spoilt)
        store = Store(folder / "to")
        try:
            read_bundle(store, materials, folder / "bundle.tar", SILENT)
        except FetchError:
            pass
        else:
            assert all(store.find(digest) for digest in materials.values())
        assert_sound(store)


@given(st.data())
def test_a_bundle_cut_anywhere_is_an_error_unless_all_of_it_is_there(choice: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        data, materials = bundle_of(folder, FIXED)
        (folder / "bundle.tar").write_bytes(data[: choice.draw(st.integers(0, len(data) - 1))])
        store = Store(folder / "to")
        try:
            read_bundle(store, materials, folder / "bundle.tar", SILENT)
        except FetchError:
            pass
        else:
            assert all(store.find(digest) for digest in materials.values())
        assert_sound(store)


def test_a_bundle_cut_between_two_objects_is_an_error(tmp_path: Path) -> None:
    data, materials = bundle_of(tmp_path, FIXED)
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        last = tar.getmembers()[-1].offset
    (tmp_path / "bundle.tar").write_bytes(data[:last])
    with pytest.raises(FetchError):
        read_bundle(Store(tmp_path / "to"), materials, tmp_path / "bundle.tar", SILENT)


def test_the_same_materials_give_the_same_bundle(tmp_path: Path) -> None:
    one, _ = bundle_of(tmp_path / "1", FIXED)
    other, _ = bundle_of(tmp_path / "2", dict(reversed(FIXED.items())))
    assert one == other


def test_two_names_of_one_content_are_one_object(tmp_path: Path) -> None:
    bundle_of(tmp_path, {"a": b"same", "b": b"same"})
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        assert tar.getnames() == [INDEX, f"objects/{Digest.of_bytes(b'same').hex}"]


def test_what_the_build_does_not_pin_is_not_taken(tmp_path: Path) -> None:
    _, materials = bundle_of(tmp_path, FIXED | {"evil": b"not pinned"})
    evil = materials.pop("evil")
    store = Store(tmp_path / "to")
    read_bundle(store, materials, tmp_path / "bundle.tar", SILENT)
    assert store.find(evil) is None


def test_a_missing_material_leaves_no_bundle_and_keeps_the_old_one(tmp_path: Path) -> None:
    store, materials = filled(tmp_path / "from", FIXED)
    (tmp_path / "bundle.tar").write_bytes(b"the old one")
    with pytest.raises(FetchError, match="wheel/none-1 is not in the store"):
        write_bundle(
            store, materials | {"wheel/none-1": Digest.of_bytes(b"none")}, tmp_path / "bundle.tar", SILENT
        )
    assert (tmp_path / "bundle.tar").read_bytes() == b"the old one"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bundle.tar", "from"]


def test_a_damaged_object_is_not_put_into_a_bundle(tmp_path: Path) -> None:
    store, materials = filled(tmp_path / "from", FIXED)
    path = store.path(materials["wheel/b-2"])
    path.chmod(0o644)
    path.write_bytes(b"x" * 1300)
    with pytest.raises(Exception, match="held other bytes for wheel/b-2"):
        write_bundle(store, materials, tmp_path / "bundle.tar", SILENT)
    assert [item.name for item in tmp_path.iterdir()] == ["from"]


def test_a_place_that_can_not_be_written_is_a_fetch_error(tmp_path: Path) -> None:
    store, materials = filled(tmp_path / "from", FIXED)
    with pytest.raises(FetchError, match=r"can't write .*bundle\.tar: No such file"):
        write_bundle(store, materials, tmp_path / "absent" / "bundle.tar", SILENT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a tar",
        b"\0" * 10240,
        b"\x1f\x8b" + b"\0" * 600,
    ],
    ids=["empty", "text", "zeros", "gzip"],
)
def test_what_is_no_tar_is_no_bundle(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bundle.tar").write_bytes(data)
    with pytest.raises(FetchError, match="bundle"):
        read_bundle(Store(tmp_path / "to"), {}, tmp_path / "bundle.tar", SILENT)


@pytest.mark.parametrize("what", ["absent", "folder"])
def test_what_can_not_be_read_is_a_fetch_error(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FetchError, match="can't read the bundle"):
        read_bundle(Store(tmp_path / "to"), {}, tmp_path / what, SILENT)


@pytest.mark.parametrize(
    "first",
    [
        member("objects/" + "0" * 64, b"x"),
        index(format=2),
        index(format="1"),
        member(INDEX, b"[]"),
        member(INDEX, b"{"),
        member(INDEX, b"\xff\xfe"),
        member(INDEX, kind=tarfile.DIRTYPE),
        member(INDEX, kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member(INDEX, b"[" * 200_000),
    ],
    ids=["no index", "format 2", "format text", "list", "cut", "no text", "folder", "link", "nested"],
)
def test_another_index_is_no_bundle(tmp_path: Path, first: tuple[tarfile.TarInfo, bytes]) -> None:
    path = tar_of(tmp_path / "bundle.tar", first)
    with pytest.raises(FetchError, match=r"is not a bundle|is a bundle of format"):
        read_bundle(Store(tmp_path / "to"), {"x": Digest.of_bytes(b"x")}, path, SILENT)


def test_links_and_odd_names_in_a_bundle_are_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    digest = Digest.of_bytes(b"secret")
    for odd in (
        member(f"objects/{digest.hex}", kind=tarfile.SYMTYPE, link=str(secret)),
        member(f"objects/{digest.hex}", kind=tarfile.LNKTYPE, link=str(secret)),
        member(f"objects/../objects/{digest.hex}", b"secret"),
        member(f"/objects/{digest.hex}", b"secret"),
        member(f"objects/{digest.hex}/", b"secret"),
    ):
        path = tar_of(tmp_path / "bundle.tar", index(), odd)
        store = Store(tmp_path / "to")
        read_bundle(store, {"it": digest}, path, SILENT)
        assert store.find(digest) is None
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bundle.tar", "secret", "to"]
