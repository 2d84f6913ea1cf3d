"""Zips from strangers: looked over as a whole before a byte of them is read, then only what is pinned is taken.

A member is found by base name and digest: which folder a publisher or a mirror put it into says nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bertir.digest import read_chunks
from bertir.errors import DigestMismatchError, FetchError
from bertir.zip_check import DEFAULT_LIMITS, Limits, UnfitZipError, checked_zip

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.store import Blob, Store

__all__ = ["DEFAULT_LIMITS", "Limits", "take_files"]

_ADVICE = "It is damaged or forged: ask whoever serves it."


def take_files(
    store: Store, archive: Path, wanted: Mapping[str, Digest], *, what: str, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Blob]:
    """Stream the wanted files (base name -> digest), and nothing else, into the store.

    Raises:
        FetchError: the zip can't be read, is not fit to be read, or has no member of such a name.
        DigestMismatchError: members of that name are not the pinned file.
    """
    try:
        with checked_zip(archive, limits) as opened:
            taken = {}
            for name, digest in wanted.items():
                named = [member for member in opened.files if member.filename.rpartition("/")[2] == name]
                if not named:
                    raise FetchError(
                        f"{what}: there is no {name} in it", advice="It is the zip of something else."
                    )
                taken[name] = _pinned(store, opened.archive, named, digest, what)
            return taken
    except UnfitZipError as error:
        raise FetchError(f"{what}: the zip was not read: {error}", advice=_ADVICE) from error


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
