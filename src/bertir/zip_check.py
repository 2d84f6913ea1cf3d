"""Zips of strangers: looked over as a whole before a byte of an entry is read.

Everything that one reader of zips could take otherwise than another is refused: what is left means one thing.
Nothing is ever written under a name of an entry's, so names that only Windows minds (CON, nul.txt) do no harm;
and a zip within a zip is bytes, which are never opened.
"""

from __future__ import annotations

import contextlib
import stat
import struct
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from bertir.zip_records import CENTRAL, LOCAL, End, ZipRecordError, extra_fields, read_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_ENCRYPTED, _STRONGLY_ENCRYPTED, _MASKED = 0x1, 0x40, 0x2000
_DESCRIPTOR, _UTF8 = 0x8, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_FULL = 0xFFFFFFFF
_SMALL = 1 << 20
# Of an entry's place in the directory, on average: name, extra fields, comment.
_MOST_NAME_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a zip may hold; Google's have six entries, and BERT-Large 1.35 GB.

    Args:
        ratio: bytes unpacked for one packed, of an entry over a megabyte, and of all of them together.
    """

    entries: int = 1000
    bytes: int = 8_000_000_000
    ratio: int = 200


DEFAULT_LIMITS = Limits()
# Of a zip that is pinned as a whole, and of which a few files are read: deflate packs 1032 bytes into one at most.
PINNED_LIMITS = Limits(entries=10_000, ratio=1032)


class UnfitZipError(Exception):
    """Why a zip isn't read, or no further."""


@dataclass(frozen=True, kw_only=True)
class CheckedZip:
    """An open zip, and its regular files."""

    archive: zipfile.ZipFile
    files: Sequence[zipfile.ZipInfo]


@contextlib.contextmanager
def checked_zip(path: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[CheckedZip]:
    """Open a zip once every entry was found to be harmless.

    Raises:
        UnfitZipError: it isn't fit to be read, or (within the `with` block, too) can't be.
    """
    try:
        with path.open("rb") as file:
            # zipfile reads the whole directory, however long, before anybody can look at it.
            end = read_end(file)
            _check_directory(file, end, limits)
            with zipfile.ZipFile(file) as archive:
                yield CheckedZip(archive=archive, files=_checked(archive, file, end, limits))
    except ZipRecordError as error:
        raise UnfitZipError(str(error)) from error
    # RuntimeError: a password is wanted, or (its subclass) a version that zipfile does not know
    except (
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        raise UnfitZipError(_said(error)) from error


def _said(error: Exception) -> str:
    return cast("str", getattr(error, "strerror", None)) or str(error) or "it ends too early"


def _check_directory(file: BinaryIO, end: End, limits: Limits) -> None:
    """Count what the directory really holds; its own number may be any."""
    if end.entries > limits.entries:
        raise ZipRecordError(f"{end.entries} entries, over the limit of {limits.entries}")
    if end.directory_size > limits.entries * (CENTRAL.size + _MOST_NAME_BYTES):
        raise ZipRecordError(f"a directory of {end.directory_size} bytes, over the limit")
    file.seek(end.directory_offset)
    directory = file.read(end.directory_size)
    place = entries = 0
    while place < len(directory):
        if directory[place : place + 4] != b"PK\x01\x02" or place + CENTRAL.size > len(directory):
            raise ZipRecordError("something in its directory is no entry")
        place += CENTRAL.size + sum(CENTRAL.unpack_from(directory, place)[1:4])
        entries += 1
    if entries != end.entries or place != len(directory):
        raise ZipRecordError(f"its directory holds {entries} entries, and its end says {end.entries}")


def _checked(archive: zipfile.ZipFile, file: BinaryIO, end: End, limits: Limits) -> Sequence[zipfile.ZipInfo]:
    """Give the regular files, once every entry was found to be harmless."""
    entries = archive.infolist()
    names: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = _checked_name(entry)
        # As a file system sees names that takes README for readme.
        if names.setdefault(unicodedata.normalize("NFC", name).casefold(), entry) is not entry:
            raise ZipRecordError(f"two entries are named {name!r}")
        _check_entry(entry, name, limits)
    for name, entry in names.items():
        for parent in PurePosixPath(name).parents:
            above = names.get(str(parent))
            if above is not None and not above.is_dir():
                raise ZipRecordError(f"{entry.filename!r} lies below {above.filename!r}, which is a file")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.bytes:
        raise ZipRecordError(f"{unpacked} bytes unpacked, over the limit of {limits.bytes}")
    if unpacked > _SMALL and unpacked > limits.ratio * end.size:
        raise ZipRecordError(f"it unpacks to {unpacked} bytes, over {limits.ratio} times its own")
    _check_places(file, end, entries)
    return [entry for entry in entries if not entry.is_dir()]


def _checked_name(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename  # as written; `filename` is already cut at a NUL
    if not name.isprintable() or "\\" in name or not (name.isascii() or entry.flag_bits & _UTF8):
        raise ZipRecordError(f"an entry has an odd name: {name!a}")
    if not name:  # zipfile's is_dir() looks at the last letter
        raise ZipRecordError("an entry has no name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or (parts and parts[0][1:2] == ":"):
        raise ZipRecordError(f"an entry has an absolute name: {name!r}")
    if not parts and entry.is_dir():
        return "."  # bsdtar writes an entry for the folder that it was started in: ./
    if ".." in parts or not parts:
        raise ZipRecordError(f"an entry leads out of the archive: {name!r}")
    return "/".join(parts)


def _check_entry(entry: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise ZipRecordError(f"{name!r} is a link, or no regular file")
    if entry.flag_bits & (_ENCRYPTED | _STRONGLY_ENCRYPTED | _MASKED):
        raise ZipRecordError(f"{name!r} is encrypted")
    if entry.compress_type not in _METHODS:
        raise ZipRecordError(f"{name!r} is compressed by an unknown method, {entry.compress_type}")
    if entry.file_size > _SMALL and entry.file_size > limits.ratio * entry.compress_size:
        raise ZipRecordError(f"{name!r} unpacks to over {limits.ratio} times its bytes")
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
        raise ZipRecordError(f"{name!r} isn't compressed, and has two sizes")
    _check_extra(entry.extra, entry, name)


def _check_extra(extra: bytes, entry: zipfile.ZipInfo, name: str) -> None:
    """Refuse another name in the field that some readers take the name from (Info-ZIP's Unicode path)."""
    for kind, data in extra_fields(extra):
        if kind == _UNICODE_PATH and data[5:] != _raw_name(entry):
            raise ZipRecordError(f"{name!r} has another name in an extra field")


def _raw_name(entry: zipfile.ZipInfo) -> bytes:
    return entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8 else "cp437")


def _check_places(file: BinaryIO, end: End, entries: Sequence[zipfile.ZipInfo]) -> None:
    """See that each entry's own header says what the directory says, and that no two share bytes.

    Entries that share bytes unpack to far more than there are, and to different things by different readers.
    """
    free = 0
    in_order = sorted(entries, key=lambda entry: entry.header_offset)
    for entry in in_order:
        if entry.header_offset < free:
            raise ZipRecordError(f"{entry.filename!r} overlaps another entry")
        if entry.header_offset + LOCAL.size > end.directory_offset:
            raise ZipRecordError(f"{entry.filename!r} is not where the directory says")
        free = _end_of_entry(file, entry, end)
        if free > end.directory_offset:
            raise ZipRecordError(f"{entry.filename!r} overlaps its directory")
    if in_order and in_order[0].header_offset:
        raise ZipRecordError("it begins with something that is no entry")


def _end_of_entry(file: BinaryIO, entry: zipfile.ZipInfo, end: End) -> int:
    file.seek(entry.header_offset)
    header = file.read(LOCAL.size)
    if header[:4] != b"PK\x03\x04":
        raise ZipRecordError(f"{entry.filename!r} is not where the directory says")
    flags, method, crc, packed, unpacked, name_bytes, extra_bytes = _numbers(LOCAL, header)
    name, extra = file.read(name_bytes), file.read(extra_bytes)
    _check_extra(extra, entry, entry.filename)
    if _FULL in (packed, unpacked):
        unpacked, packed = _zip64_sizes(extra, unpacked, packed)
    found = (name, method, flags & (_ENCRYPTED | _STRONGLY_ENCRYPTED))
    expected = (crc, packed, unpacked)
    sizes = (entry.CRC, entry.compress_size, entry.file_size)
    # With a descriptor, what wasn't known when the header was written is zero there.
    unknown = bool(flags & _DESCRIPTOR) and all(
        one in (0, other) for one, other in zip(expected, sizes, strict=True)
    )
    if found != (_raw_name(entry), entry.compress_type, 0) or (expected != sizes and not unknown):
        raise ZipRecordError(f"{entry.filename!r} has a header that differs from the directory")
    after = entry.header_offset + LOCAL.size + name_bytes + extra_bytes + entry.compress_size
    if flags & _DESCRIPTOR and after <= end.directory_offset:
        file.seek(after)
        after += _descriptor_bytes(file.read(24), sizes, entry.filename)
    return after


def _numbers(form: struct.Struct, data: bytes) -> tuple[int, ...]:
    return form.unpack(data)[1:]  # but for the mark


def _zip64_sizes(extra: bytes, unpacked: int, packed: int) -> tuple[int, int]:
    for kind, data in extra_fields(extra):
        if kind == _ZIP64:
            numbers = [number for (number,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8])]
            if unpacked == _FULL and numbers:
                unpacked = numbers.pop(0)
            if packed == _FULL and numbers:
                packed = numbers.pop(0)
    return unpacked, packed


def _descriptor_bytes(data: bytes, sizes: tuple[int, int, int], name: str) -> int:
    """Give the length of the descriptor that these bytes begin with: of four forms, as no field says which."""
    for form in ("<4sLQQ", "<4sLLL", "<LQQ", "<LLL"):
        length = struct.calcsize(form)
        if len(data) < length:
            continue
        *mark, crc, packed, unpacked = struct.unpack_from(form, data)
        if (crc, packed, unpacked) == sizes and (not mark or mark == [b"PK\x07\x08"]):
            return length
    raise ZipRecordError(f"{name!r} has a descriptor that differs from the directory")
