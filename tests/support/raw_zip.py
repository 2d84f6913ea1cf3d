"""Zips byte by byte: each field may say something else than is there, as Python's own writer never lets it."""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STORED, DEFLATED = 0, 8
DESCRIPTOR, UTF8 = 0x8, 0x800


@functools.cache
def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


@dataclass(frozen=True, kw_only=True)
class RawEntry:
    """An entry. `central` and `local` replace fields of the one header, `packed` the bytes themselves."""

    name: bytes
    data: bytes = b""
    method: int = STORED
    flags: int = 0
    mode: int = 0
    packed: bytes | None = None
    descriptor: bytes | None = None
    before: bytes = b""
    local: Mapping[str, int | bytes] = field(default_factory=dict)
    central: Mapping[str, int | bytes] = field(default_factory=dict)

    @property
    def stored(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflated(self.data) if self.method == DEFLATED else self.data

    def fields(self) -> dict[str, int | bytes]:
        return {
            "name": self.name,
            "flags": self.flags,
            "method": self.method,
            "crc": zlib.crc32(self.data),
            "packed": len(self.stored),
            "unpacked": len(self.data),
            "extra": b"",
        }


def _local(entry: RawEntry) -> bytes:
    said = {**entry.fields(), **entry.local}
    head = struct.pack(
        "<4sHHHHHLLLHH",
        b"PK\x03\x04",
        20,
        said["flags"],
        said["method"],
        0,
        0x21,
        said["crc"],
        said["packed"],
        said["unpacked"],
        len(_text(said["name"])),
        len(_text(said["extra"])),
    )
    body = head + _text(said["name"]) + _text(said["extra"]) + entry.stored
    return entry.before + body + (entry.descriptor or b"")


def _central(entry: RawEntry, offset: int) -> bytes:
    said = {"offset": offset, "mode": entry.mode, "comment": b"", **entry.fields(), **entry.central}
    mode = said["mode"]
    assert isinstance(mode, int)
    head = struct.pack(
        "<4sHHHHHHLLLHHHHHLL",
        b"PK\x01\x02",
        0x314,
        20,
        said["flags"],
        said["method"],
        0,
        0x21,
        said["crc"],
        said["packed"],
        said["unpacked"],
        len(_text(said["name"])),
        len(_text(said["extra"])),
        len(_text(said["comment"])),
        0,
        0,
        mode << 16,
        said["offset"],
    )
    return head + _text(said["name"]) + _text(said["extra"]) + _text(said["comment"])


def _text(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def raw_zip(
    entries: Sequence[RawEntry],
    *,
    before: bytes = b"",
    comment: bytes = b"",
    after: bytes = b"",
    shifted: bool = True,
    zip64: Mapping[str, int] | None = None,
    end: Mapping[str, int] | None = None,
    directory: bytes | None = None,
) -> bytes:
    """Write a zip. `before` counts in offsets if `shifted`; `end` and `zip64` replace fields of the two ends."""
    data = before
    offsets = []
    for entry in entries:
        offsets.append(len(data) + len(entry.before) - (0 if shifted else len(before)))
        data += _local(entry)
    start = len(data) - (0 if shifted else len(before))
    if directory is None:
        directory = b"".join(_central(entry, offset) for entry, offset in zip(entries, offsets, strict=True))
    data += directory
    said = {"disk": 0, "first": 0, "here": len(entries), "entries": len(entries)}
    said |= {"size": len(directory), "offset": start, "comment": len(comment)}
    if zip64 is not None:
        large = {**said, "at": len(data), "disks": 1, "mark": 0x06064B50, **zip64}
        data += struct.pack(
            "<LQHHLLQQQQ",
            large["mark"],
            44,
            45,
            45,
            large["disk"],
            large["first"],
            large["here"],
            large["entries"],
            large["size"],
            large["offset"],
        )
        data += struct.pack("<4sLQL", b"PK\x06\x07", 0, large["at"], large["disks"])
        said |= {"here": 0xFFFF, "entries": 0xFFFF, "size": 0xFFFFFFFF, "offset": 0xFFFFFFFF}
    said |= end or {}
    return (
        data
        + struct.pack(
            "<4sHHHHLLH",
            b"PK\x05\x06",
            said["disk"],
            said["first"],
            said["here"],
            said["entries"],
            said["size"],
            said["offset"],
            said["comment"],
        )
        + comment
        + after
    )


def zip64_extra(*numbers: int) -> bytes:
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def unicode_path(name: bytes, said: bytes) -> bytes:
    """Info-ZIP's extra field: the name in UTF-8, and the CRC of the other one."""
    return struct.pack("<HHBL", 0x7075, 5 + len(said), 1, zlib.crc32(name)) + said


def descriptor(entry: RawEntry, *, mark: bool = True, large: bool = False, **changed: int) -> bytes:
    said = {**entry.fields(), **changed}
    form = "<LQQ" if large else "<LLL"
    return (b"PK\x07\x08" if mark else b"") + struct.pack(form, said["crc"], said["packed"], said["unpacked"])
