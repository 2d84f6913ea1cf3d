"""Zips of strangers: each fault is made for real, byte by byte where Python's own writer refuses to."""

from __future__ import annotations

import io
import random
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.archive import Limits, take_files
from bertir.digest import Digest
from bertir.errors import DigestMismatchError, FetchError
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILES = {
    "bert_model.ckpt.index": random.Random(1).randbytes(5_000),  # noqa: S311 - no secret
    "bert_config.json": b'{"hidden_size": 128}\n',
    "vocab.txt": b"".join(b"word%d\n" % number for number in range(3_000)),
}
WANTED = {name: Digest.of_bytes(data) for name, data in FILES.items()}


def zipped(files: Mapping[str, bytes] | None = None, folder: str = "bert/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (FILES if files is None else files).items():
            archive.writestr(f"{folder}{name}", data)
    return buffer.getvalue()


def with_entry(name: str, data: bytes = b"x", *, mode: int = 0, system: int = 3) -> bytes:
    """The good zip with one more entry."""
    buffer = io.BytesIO(zipped())
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.filename = info.orig_filename = name
        info.create_system, info.external_attr = system, mode << 16
        archive.writestr(info, data)
    return buffer.getvalue()


def patched(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    changed = bytearray(data)
    for place, piece in changes:
        changed[place : place + len(piece)] = piece
    return bytes(changed)


def directory(data: bytes, index: int = 0) -> int:
    """Where the central directory's entry of that number begins."""
    place = data.index(b"PK\x01\x02")
    for _ in range(index):
        place = data.index(b"PK\x01\x02", place + 4)
    return place


def take(store: Store, folder: Path, data: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    path = folder / "a.zip"
    path.write_bytes(data)
    taken = take_files(store, path, WANTED, what="a.zip of tiny", limits=limits or Limits())
    return {name: store.checked(blob, what=name).read_bytes() for name, blob in taken.items()}


def stored(store: Store) -> set[bytes]:
    return {path.read_bytes() for path in (store.root / "objects").rglob("*") if path.is_file()}


@pytest.mark.parametrize("folder", ["", "bert/", "another/", "a/b/c/", "./", "./bert/", "mod\u00e8le/"])
def test_files_are_found_by_name_and_digest_in_whatever_folder(
    store: Store, tmp_path: Path, folder: str
) -> None:
    assert take(store, tmp_path, zipped(folder=folder)) == FILES
    assert stored(store) == set(FILES.values())


@pytest.mark.parametrize("names", [["./"], ["./", "./bert/"], ["./bert/", "./", "./bert/empty/"]])
def test_folders_as_bsdtar_has_them_do_no_harm(store: Store, tmp_path: Path, names: list[str]) -> None:
    # `bsdtar --format zip -cf a.zip .` writes ./, ./bert/, ./bert/vocab.txt, …
    folders = zipped(dict.fromkeys(names, b""), folder="")
    buffer = io.BytesIO(folders)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(f"./bert/{name}", data)
    assert take(store, tmp_path, buffer.getvalue()) == FILES


def test_of_files_of_one_name_the_pinned_one_is_taken(store: Store, tmp_path: Path) -> None:
    data = zipped({"1/vocab.txt": b"[EVIL]\n"} | FILES | {"z/vocab.txt": b"[EVIL]\n"}, folder="")
    assert take(store, tmp_path, data) == FILES
    assert stored(store) == set(FILES.values())


def test_nothing_but_what_is_wanted_is_taken(store: Store, tmp_path: Path) -> None:
    take(store, tmp_path, zipped(FILES | {"README": b"read me", "vocab.txt.bak": b"old", "x-vocab.txt": b""}))
    assert stored(store) == set(FILES.values())


def test_other_bytes_under_the_name_are_status_102_and_not_kept(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatchError, match=r"bert/vocab\.txt of a\.zip of tiny: the digest is wrong"):
        take(store, tmp_path, zipped(FILES | {"vocab.txt": b"[EVIL]\n"}))
    assert b"[EVIL]\n" not in stored(store)


def test_a_file_that_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    fewer = {name: data for name, data in FILES.items() if name != "vocab.txt"}
    with pytest.raises(FetchError, match=r"a\.zip of tiny: there is no vocab\.txt in it"):
        take(store, tmp_path, zipped(fewer))


def overlapping() -> bytes:
    """Two entries of the directory that share their bytes, as a bomb without nesting has them."""
    data = zipped()
    first, second = directory(data), directory(data, 1)
    return patched(data, (second + 42, data[first + 42 : first + 46]))


def overlapping_partly() -> bytes:
    data = with_entry("bert/last", b"PK\x03\x04" + bytes(26) + b"x" * 40)
    first = directory(data)
    inside = data.index(b"PK\x03\x04\0\0")  # within the last entry's stored bytes
    return patched(data, (first + 42, inside.to_bytes(4, "little")))


def oversized() -> bytes:
    """A directory that says an entry has more bytes than there are before the directory."""
    data = with_entry("bert/last", b"x")
    places = (directory(data, 3) + 20, data.rindex(b"PK\x03\x04") + 18)
    return patched(data, *((place, (500).to_bytes(4, "little") * 2) for place in places))


def flagged(flag: int) -> bytes:
    data = zipped()
    place = directory(data)
    both = int.from_bytes(data[place + 8 : place + 10], "little") | flag
    return patched(data, (6, both.to_bytes(2, "little")), (place + 8, both.to_bytes(2, "little")))


def renamed(name: bytes, flags: int = 0) -> bytes:
    """The good zip with one more entry whose raw name is that."""
    data = with_entry("y" * len(name))
    old = b"y" * len(name)
    place = directory(data, 3)
    data = patched(data, (place + 8, flags.to_bytes(2, "little")))
    local = data.index(old)
    data = patched(data, (local - 24, flags.to_bytes(2, "little")))
    return data.replace(old, name)


HOSTILE = {
    "a name that leads out": (with_entry("../vocab.txt"), "leads out of the archive: '../vocab.txt'"),
    "… from within": (with_entry("a/../../b"), "leads out"),
    "… at its end": (with_entry("a/.."), "leads out"),
    "… and is nothing else": (with_entry("."), "leads out"),
    "… after a harmless beginning": (with_entry("./../vocab.txt"), "leads out"),
    "… as a folder": (with_entry("./../"), "leads out"),
    "an absolute name": (with_entry("/etc/passwd"), "absolute name"),
    "a drive": (with_entry("C:/x"), "absolute name"),
    "… after a harmless beginning, too": (with_entry("./C:/x"), "absolute name"),
    "a backslash": (with_entry("a\\..\\b"), "odd name"),
    "a NUL": (renamed(b"vocab.txt\0.exe"), "odd name"),
    "an escape sequence": (with_entry("\x1b[31m"), r"odd name: '\\x1b\[31m'"),
    "a right-to-left mark": (with_entry("a\u202etxt"), "odd name"),
    "bytes of a code page": (renamed(b"caf\xe9.txt"), "odd name"),
    "UTF-8 that is none": (renamed(b"caf\xe9.txt", 0x800), "the zip was not read"),
    "a symbolic link": (with_entry("bert/l", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "is a link"),
    "… of another system": (with_entry("bert/l", mode=stat.S_IFLNK | 0o777, system=0), "is a link"),
    "a device": (with_entry("bert/d", mode=stat.S_IFCHR | 0o666), "no regular file"),
    "a FIFO": (with_entry("bert/f", mode=stat.S_IFIFO | 0o666), "no regular file"),
    "a folder that is a file": (with_entry("bert/f", mode=stat.S_IFDIR | 0o755), "no regular file"),
    "a duplicate": (with_entry("bert/./vocab.txt"), "two entries are named 'bert/vocab.txt'"),
    "a duplicate by its beginning": (
        with_entry("./bert/vocab.txt"),
        "two entries are named 'bert/vocab.txt'",
    ),
    "a duplicate of the folder itself": (
        with_entry("./").replace(b"bert/vocab.txt", b"./././././././"),
        "two entries are named",
    ),
    "a duplicate by slashes": (with_entry("bert//vocab.txt"), "two entries are named"),
    "overlapping entries": (overlapping(), "overlaps another entry"),
    "partly overlapping entries": (overlapping_partly(), "overlaps another entry"),
    "an entry over the directory": (oversized(), "overlaps its directory"),
    "encrypted": (flagged(0x1), "is encrypted"),
    "strongly encrypted": (flagged(0x41), "is encrypted"),
    "with a masked directory": (flagged(0x2000), "is encrypted"),
    "an unknown method": (patched(zipped(), (directory(zipped()) + 10, b"\x63\0")), "unknown method, 99"),
    "LZMA": (patched(zipped(), (directory(zipped()) + 10, b"\x0e\0")), "unknown method, 14"),
    "a bomb": (
        zipped(FILES | {"zeros": bytes(3_000_000)}),
        r"'bert/zeros' unpacks to over 200 times its bytes",
    ),
    "many small bombs": (
        zipped(FILES | {f"{index}": bytes(1 << 20) for index in range(40)}),
        "over 200 times its own",
    ),
    "too many entries": (
        zipped(FILES | {f"{index}": b"" for index in range(1_000)}),
        "1003 entries, over the limit",
    ),
    "a name that differs inside": (
        zipped().replace(b"bert/vocab.txt", b"bert/vocal.txt", 1),
        "a header that differs from the directory",
    ),
    "a wrong CRC": (patched(zipped(), (directory(zipped(), 2) + 16, b"\0\0\0\0")), "header that differs"),
    "broken compression": (patched(zipped(), (60, b"\xff" * 400)), "the zip was not read: Error -3"),
    "no zip": (b"<html>not found</html>", "doesn't end as a zip does"),
    "nothing": (b"", "doesn't end as a zip does"),
    "a zip of nothing": (zipped({}), "there is no bert_model.ckpt.index in it"),
    "a cut zip": (zipped()[:6_000], "doesn't end as a zip does"),
    "a zip without its head": (zipped()[3_000:], "its directory is not where the end says"),
    "of an unknown version": (
        patched(zipped(), (directory(zipped()) + 6, b"\xff\0")),
        "the zip was not read",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_zip_that_is_not_fit_to_be_read_is_one_fetch_error(store: Store, tmp_path: Path, kind: str) -> None:
    data, message = HOSTILE[kind]
    with pytest.raises(FetchError, match=message) as raised:
        take(store, tmp_path, data)
    assert type(raised.value) is FetchError
    assert str(raised.value).startswith("a.zip of tiny: ")
    assert str(raised.value).isprintable()
    assert stored(store) <= set(FILES.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "store"]


@pytest.mark.parametrize("kind", ["… from within", "a symbolic link", "a bomb", "a duplicate", "encrypted"])
def test_nothing_of_a_zip_with_one_hostile_entry_is_taken(store: Store, tmp_path: Path, kind: str) -> None:
    with pytest.raises(FetchError):
        take(store, tmp_path, HOSTILE[kind][0])
    assert stored(store) == set()


def test_a_zip_of_more_bytes_than_a_model_has_is_refused(store: Store, tmp_path: Path) -> None:
    total = sum(len(data) for data in FILES.values())
    assert take(store, tmp_path, zipped(), Limits(bytes=total)) == FILES
    with pytest.raises(FetchError, match=f"{total} bytes unpacked, over the limit of {total - 1}"):
        take(store, tmp_path, zipped(), Limits(bytes=total - 1))


@pytest.mark.parametrize("what", ["absent", "folder"])
def test_a_path_that_is_no_file_is_one_fetch_error(store: Store, tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FetchError, match="the zip was not read"):
        take_files(store, tmp_path / what, WANTED, what="it")


GOOD = zipped()


@given(st.data())
def test_a_zip_cut_or_changed_anywhere_gives_the_pinned_files_or_one_fetch_error(
    tmp_path_factory: pytest.TempPathFactory, choice: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    place = choice.draw(st.integers(0, len(GOOD) - 1))
    piece = choice.draw(st.binary(min_size=1, max_size=8) | st.none())
    store = Store(folder / "store")
    try:
        taken = take(store, folder, GOOD[:place] if piece is None else patched(GOOD, (place, piece)))
    except FetchError:
        assert stored(store) <= set(FILES.values())
    else:
        assert taken == FILES


@given(st.data())
def test_a_directory_with_other_bytes_gives_the_pinned_files_or_one_fetch_error(
    tmp_path_factory: pytest.TempPathFactory, choice: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    changes = choice.draw(
        st.lists(
            st.tuples(st.integers(directory(GOOD), len(GOOD) - 1), st.binary(min_size=1, max_size=4)),
            max_size=4,
        )
    )
    store = Store(folder / "store")
    try:
        taken = take(store, folder, patched(GOOD, *changes))
    except FetchError:
        assert stored(store) <= set(FILES.values())
    else:
        assert taken == FILES
