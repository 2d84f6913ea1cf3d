"""Debian packages that unpack to more than they should, each made for real."""

from __future__ import annotations

import io
import lzma
import tarfile
from typing import TYPE_CHECKING

import pytest
from packages import ar, make_deb, member

from bertir import deb
from bertir.deb import package_entries, read_control
from bertir.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.lock import DebianPackage

CONTROL = b"Package: small\nVersion: 1:1.0-1\nArchitecture: amd64\nDescription: small\n"


def controls() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        info, content = member("./control", CONTROL)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def refused(package: DebianPackage, path: Path, data: bytes, part: str = "data.tar.xz") -> str:
    path.write_bytes(ar({"debian-binary": b"2.0\n", "control.tar.xz": controls(), part: data}))
    with pytest.raises(ImageError) as raised:
        package_entries(package, path)
    return str(raised.value)


@pytest.fixture
def package(tmp_path: Path) -> tuple[DebianPackage, Path]:
    return make_deb(tmp_path, [member("./a", b"a")])


def zeros(head: bytes, megabytes: int) -> bytes:
    """A head, and zeros: 1 kB of xz for seven MB."""
    packer = lzma.LZMACompressor()
    return (
        packer.compress(head)
        + b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes))
        + packer.flush()
    )


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "kind",
    [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK],
    ids=["a file", "an extended header", "a global header", "a long name", "a long link"],
)
def test_a_package_that_unpacks_to_too_much_is_refused_before_it_fills_the_memory(
    package: tuple[DebianPackage, Path], monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr(deb, "MOST_BYTES", 20 << 20)
    assert "unpacks to more than 20971520 bytes" in refused(*package, zeros(header(kind, 8 << 30), 30))


def test_a_sparse_file_is_refused(package: tuple[DebianPackage, Path]) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)}
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    assert "'x' is a sparse file" in refused(*package, lzma.compress(data))


def test_one_file_under_many_names_is_counted_as_many(
    package: tuple[DebianPackage, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deb, "MOST_BYTES", 1 << 20)
    _, path = package
    made, _ = make_deb(
        path.parent,
        [
            member("./a", bytes(200_000)),
            *(member(f"./{n}", kind=tarfile.LNKTYPE, link="./a") for n in range(6)),
        ],
    )
    with pytest.raises(ImageError, match="lays out more than"):
        package_entries(made, path)


def test_a_package_of_more_entries_than_any_is_refused(
    package: tuple[DebianPackage, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deb, "MOST_ENTRIES", 5)
    made, path = make_deb(package[1].parent, [member(f"./{n}") for n in range(6)])
    with pytest.raises(ImageError, match="more than 5 entries"):
        package_entries(made, path)


def test_headers_that_announce_headers_without_end_are_one_message(
    package: tuple[DebianPackage, Path],
) -> None:
    # tarfile calls itself for each
    assert "can't read the package" in refused(*package, lzma.compress(header(tarfile.XHDTYPE, 0) * 5_000))


@pytest.mark.parametrize("part", ["data.tar.zst", "data.tar.lzma", "data.zip", "data.tar"])
def test_a_part_in_another_form_is_refused(package: tuple[DebianPackage, Path], part: str) -> None:
    assert "can't read the package" in refused(*package, b"\x28\xb5\x2f\xfd" + bytes(600), part)


def test_broken_compression_is_one_message(package: tuple[DebianPackage, Path]) -> None:
    data = bytearray(zeros(header(tarfile.REGTYPE, 100), 1))
    data[40:60] = bytes(20)
    assert "can't read the package" in refused(*package, bytes(data))


@pytest.mark.parametrize("relation", ["a (&= 1)", "\x1b[31mred", "a b", "(>= 1)", "a (>= 1"])
def test_a_relation_that_is_none_is_one_message_and_printed_by_nobody_else(
    capfd: pytest.CaptureFixture[str], relation: str
) -> None:
    with pytest.raises(ImageError, match="can't read a package's control file") as raised:
        read_control(f"Package: small\nVersion: 1\nDepends: {relation}\n")
    assert str(raised.value).isprintable()
    assert capfd.readouterr() == ("", "")
