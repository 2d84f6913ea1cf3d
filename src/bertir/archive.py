"""Zips from strangers: looked over as a whole before a byte of them is read, then only what is pinned is taken.

A member is found by base name and digest: which folder a publisher or a mirror put it into says nothing.
"""

from __future__ import annotations

import contextlib
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from bertir.digest import read_chunks
from bertir.errors import DigestMismatchError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.store import Blob, Store

_ENCRYPTED, _STRONGLY_ENCRYPTED, _MASKED = 0x1, 0x40, 0x2000
_UTF8 = 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, length of the name, length of the extra field
_SMALL = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a zip of a model may hold; Google's have six entries, and BERT-Large 1.35 GB.

    Args:
        ratio: bytes unpacked for one packed, of an entry over a megabyte, and of all of them together.
    """

    entries: int = 1000
    bytes: int = 8_000_000_000
    ratio: int = 200


DEFAULT_LIMITS = Limits()


class _RefusedError(Exception):
    """Why a zip isn't read."""


def take_files(
    store: Store, archive: Path, wanted: Mapping[str, Digest], *, what: str, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Blob]:
    """Stream the wanted files (base name -> digest), and nothing else, into the store.

    Raises:
        FetchError: the zip can't be read, is not fit to be read, or has no member of such a name.
        DigestMismatchError: members of that name are not the pinned file.
    """
    with _as_fetch_error(what), zipfile.ZipFile(archive) as opened:
        members = _checked(opened, archive, limits)
        taken = {}
        for name, digest in wanted.items():
            named = [member for member in members if member.filename.rpartition("/")[2] == name]
            if not named:
                raise FetchError(
                    f"{what}: there is no {name} in it", advice="It is the zip of something else."
                )
            taken[name] = _pinned(store, opened, named, digest, what)
        return taken


def _pinned(
    store: Store, archive: zipfile.ZipFile, named: Sequence[zipfile.ZipInfo], digest: Digest, what: str
) -> Blob:
    """Store the one of some members of the same base name that has the digest."""
    *others, last = named
    for member in others:
        with contextlib.suppress(DigestMismatchError):
            return _stored(store, archive, member, digest, member.filename)
    return _stored(store, archive, last, digest, f"{last.filename} of {what}")


def _stored(
    store: Store, archive: zipfile.ZipFile, member: zipfile.ZipInfo, digest: Digest, what: str
) -> Blob:
    # zipfile gives no more bytes than the entry says that it has, and compares its CRC at the end.
    with archive.open(member) as file:
        return store.add(read_chunks(file), expected=digest, what=what, size=member.file_size)


def _checked(archive: zipfile.ZipFile, path: Path, limits: Limits) -> list[zipfile.ZipInfo]:
    """Give the regular files, once every entry was found to be harmless."""
    entries = archive.infolist()
    if len(entries) > limits.entries:
        raise _RefusedError(f"{len(entries)} entries, over the limit of {limits.entries}")
    seen = set()
    for entry in entries:
        name = _checked_name(entry)
        if name in seen:
            raise _RefusedError(f"two entries are named {name!r}")
        seen.add(name)
        _check_entry(entry, name, limits)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.bytes:
        raise _RefusedError(f"{unpacked} bytes unpacked, over the limit of {limits.bytes}")
    if unpacked > _SMALL and unpacked > limits.ratio * path.stat().st_size:
        raise _RefusedError(f"it unpacks to {unpacked} bytes, over {limits.ratio} times its own")
    _refuse_overlaps(archive, path, entries)
    return [entry for entry in entries if not entry.is_dir()]


def _checked_name(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename  # as written; `filename` is already cut at a NUL
    if not name.isprintable() or "\\" in name or not (name.isascii() or entry.flag_bits & _UTF8):
        raise _RefusedError(f"an entry has an odd name: {name!a}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or (parts and parts[0][1:2] == ":"):
        raise _RefusedError(f"an entry has an absolute name: {name!r}")
    if not parts and entry.is_dir():
        return "."  # bsdtar writes an entry for the folder that it was started in: ./
    if ".." in parts or not parts:
        raise _RefusedError(f"an entry leads out of the archive: {name!r}")
    return "/".join(parts)


def _check_entry(entry: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        raise _RefusedError(f"{name!r} is a link, or no regular file")
    if entry.flag_bits & (_ENCRYPTED | _STRONGLY_ENCRYPTED | _MASKED):
        raise _RefusedError(f"{name!r} is encrypted")
    if entry.compress_type not in _METHODS:
        raise _RefusedError(f"{name!r} is compressed by an unknown method, {entry.compress_type}")
    if entry.file_size > _SMALL and entry.file_size > limits.ratio * entry.compress_size:
        raise _RefusedError(f"{name!r} unpacks to over {limits.ratio} times its bytes")


def _refuse_overlaps(archive: zipfile.ZipFile, path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Entries that share bytes unpack to far more than there are, and to different things by different readers."""
    free = 0
    with path.open("rb") as file:
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if 0 <= entry.header_offset < free:
                raise _RefusedError(f"{entry.filename!r} overlaps another entry")
            file.seek(max(entry.header_offset, 0))
            header = file.read(_LOCAL_HEADER.size)
            if entry.header_offset < 0 or len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
                raise _RefusedError(f"{entry.filename!r} is not where the directory says")
            _, name, extra = _LOCAL_HEADER.unpack(header)
            free = entry.header_offset + _LOCAL_HEADER.size + name + extra + entry.compress_size
    if free > archive.start_dir:
        raise _RefusedError("its last entry overlaps its directory")


@contextlib.contextmanager
def _as_fetch_error(what: str) -> Iterator[None]:
    try:
        yield
    except _RefusedError as error:
        raise FetchError(f"{what}: the zip was not read: {error}", advice=_ADVICE) from error
    # RuntimeError: a password is wanted, or (its subclass) a version that zipfile does not know
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        raise FetchError(f"{what}: can't read the zip: {_said(error)}", advice=_ADVICE) from error


_ADVICE = "It is damaged or forged: ask whoever serves it."


def _said(error: Exception) -> str:
    return cast("str", getattr(error, "strerror", None)) or str(error) or "it ends too early"
