"""The records of a zip's format that bertir reads by itself, before `zipfile` does (APPNOTE.TXT, 4.3 and 4.5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

# flags, method, CRC, packed, unpacked, lengths of name and extra field
LOCAL = struct.Struct("<4s2xHH4xLLLHH")
# lengths of name, extra field, comment
CENTRAL = struct.Struct("<4s24xHHH12x")
# disk, disk of the directory, entries here, entries, directory's size and offset, length of the comment
_END = struct.Struct("<4sHHHHLLH")
_LOCATOR = struct.Struct("<4sLQL")
# size of the record, versions, disk, disk of the directory, entries here, entries, directory's size and offset
_END64 = struct.Struct("<4sQ4xLLQQQQ")
END_BYTES = _END.size + 0xFFFF
_END_MARK = b"PK\x05\x06"


class ZipRecordError(Exception):
    """A zip that isn't one, or that can be read in more ways than one."""


@dataclass(frozen=True, kw_only=True)
class End:
    """What the end of a zip says of it; `size` is the file's own."""

    entries: int
    directory_size: int
    directory_offset: int
    size: int


def read_end(file: BinaryIO) -> End:
    """Read the record at the end of a zip.

    Raises:
        ZipRecordError: there is none, or more than one that could be it; or it doesn't fit the file.
    """
    size = file.seek(0, 2)
    tail_at = max(0, size - END_BYTES)
    file.seek(tail_at)
    tail = file.read(END_BYTES)
    fitting = [place for place in _places(tail) if _fits(tail, place)]
    if not fitting:
        raise ZipRecordError("it doesn't end as a zip does")
    if len(fitting) > 1:
        raise ZipRecordError("it has two ends, one in the other's comment")
    [place] = fitting
    if tail.rfind(_END_MARK) != place:
        raise ZipRecordError("its comment holds another end")
    _, disk, first, here, entries, length, offset, _ = _END.unpack_from(tail, place)
    found = (disk, first, here, entries, length, offset)
    end_at = tail_at + place
    locator_at = end_at - _LOCATOR.size
    if locator_at >= 0:
        file.seek(locator_at)
        if (locator := file.read(_LOCATOR.size))[:4] == b"PK\x06\x07":
            end_at = locator_at - _END64.size
            found = _end64(file, locator, end_at, found)
    disk, first, here, entries, length, offset = found
    if disk or first or here != entries:
        raise ZipRecordError("it is one of several parts")
    if offset + length != end_at:
        raise ZipRecordError("its directory is not where the end says: something was put before it, or cut")
    return End(entries=entries, directory_size=length, directory_offset=offset, size=size)


def _places(tail: bytes) -> Iterator[int]:
    place = tail.find(_END_MARK)
    while place >= 0:
        yield place
        place = tail.find(_END_MARK, place + 1)


def _fits(tail: bytes, place: int) -> bool:
    return len(tail) - place >= _END.size and place + _END.size + _END.unpack_from(tail, place)[7] == len(
        tail
    )


def _end64(
    file: BinaryIO, locator: bytes, at: int, small: tuple[int, int, int, int, int, int]
) -> tuple[int, int, int, int, int, int]:
    """Read ZIP64's end; what the small one says must be the same, or left open."""
    _, disk, offset, disks = _LOCATOR.unpack(locator)
    if at < 0 or offset != at or disk or disks > 1:
        raise ZipRecordError("its ZIP64 end is not where it says")
    file.seek(at)
    mark, length, *large = _END64.unpack(file.read(_END64.size))
    if mark != b"PK\x06\x06" or length != _END64.size - 12:
        raise ZipRecordError("its ZIP64 end is not where it says")
    open_ = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    if any(one not in (other, most) for one, other, most in zip(small, large, open_, strict=True)):
        raise ZipRecordError("its two ends differ")
    disk, first, here, entries, size, offset = large
    return disk, first, here, entries, size, offset


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the fields of an entry, kind and data.

    Raises:
        ZipRecordError: one is longer than there are bytes.
    """
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        place += 4 + length
        if place > len(extra):
            raise ZipRecordError("an extra field is longer than there are bytes")
        yield kind, extra[place - length : place]
