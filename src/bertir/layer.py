"""Locked packages and wheels → layers: uncompressed tars in the store, the same bytes on every machine.

The digest of such a tar is the layer's diff ID, which the image's ID is made from.
"""

from __future__ import annotations

import tarfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bertir.deb import MERGED_FOLDERS, package_entries
from bertir.errors import ImageError
from bertir.tree import (
    Entry,
    FileEntry,
    FolderEntry,
    LinkEntry,
    PathFilter,
    checked_path,
    member_entry,
    merged,
    source_entries,
    source_members,
    text_entry,
    write_tar,
)
from bertir.wheel import opened_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.intent import ImageIntent
    from bertir.lock import DebianPackage, WheelPin
    from bertir.store import Blob, Store


def debian_layer(
    store: Store,
    intent: ImageIntent,
    packages: Sequence[tuple[DebianPackage, Path]],
    *,
    expected: Digest | None = None,
) -> Blob:
    """Lay out Debian packages and the intent's own files and folders, without any maintainer script.

    Raises:
        ImageError: a package can't be read, or two of them disagree on a file.
        DigestMismatchError: the layer isn't the `expected` one.
    """
    paths = PathFilter(exclude=intent.debian.exclude, keep=intent.debian.keep)
    found: list[Entry] = [LinkEntry(path=name, target=f"usr/{name}") for name in _MERGED]
    for package, path in packages:
        found += [entry for entry in package_entries(package, path) if not paths.drops(entry.path)]
    return store_layer(store, intent, own_entries(intent, found), what="the layer debian", expected=expected)


def own_entries(intent: ImageIntent, found: Iterable[Entry]) -> list[Entry]:
    """Add the intent's own files and folders to what packages have; of a folder that both have its own mode counts."""
    files = [text_entry(file.path, file.text) for file in intent.files]
    own = {folder.path: FolderEntry(path=folder.path, mode=folder.mode) for folder in intent.folders}
    others = [entry for entry in found if not (isinstance(entry, FolderEntry) and entry.path in own)]
    return [*files, *others, *own.values()]


# The x86 and MIPS variants of /lib are not those of any platform of ours.
_MERGED = tuple(name for name in MERGED_FOLDERS if name not in ("lib32", "libx32"))


@contextmanager
def wheel_entries(intent: ImageIntent, wheels: Iterable[tuple[WheelPin, Path]]) -> Iterator[list[Entry]]:
    """Give what wheels install below their prefix, as an installer does: no .pyc, no trace of where they came from.

    The entries can be read until the `with` block ends, by several threads. Raises as `debian_layer` does.
    """
    with ExitStack() as stack:
        found: list[Entry] = []
        for pin, path in wheels:
            found += stack.enter_context(opened_wheel(pin, path, intent.python))
        yield merged(found, what="the layer wheels")


def wheels_layer(
    store: Store, intent: ImageIntent, entries: Iterable[Entry], *, expected: Digest | None = None
) -> Blob:
    """Write what `wheel_entries` gave into a layer, each wheel decompressed in pieces, straight into it.

    Raises:
        ImageError: a wheel isn't what it says.
        DigestMismatchError: the layer isn't the `expected` one.
    """
    return _store_tar(store, intent, entries, what="the layer wheels", expected=expected)


def python_sources(
    store: Store, intent: ImageIntent, layers: Iterable[Blob], entries: Iterable[Entry] = ()
) -> Blob:
    """Put the Python sources of some layers, and of entries of none yet, into a tar for `docker/steps/precompile.py`."""
    with ExitStack() as stack:
        found: list[Entry] = list(source_entries(entries, intent.python.source_roots))
        for layer in layers:
            tar = stack.enter_context(tarfile.open(store.checked(layer, what="a layer of the image"), "r:"))
            found += source_members(tar, intent.python.source_roots)
        return store_layer(store, intent, found, what="the Python sources")


def pyc_layer(store: Store, intent: ImageIntent, pyc_tar: Path, *, expected: Digest | None = None) -> Blob:
    """Make a layer of compiled modules that came out of a container.

    Only names and contents are taken from the tar; order, times, owners and modes are set as in every layer.

    Raises:
        ImageError: it isn't a tar, or holds something that is no .pyc file of a module in the image.
        DigestMismatchError: the layer isn't the `expected` one.
    """
    with compiled_modules(pyc_tar, intent) as found:
        return store_layer(store, intent, found, what="the layer pyc", expected=expected)


@contextmanager
def compiled_modules(pyc_tar: Path, intent: ImageIntent) -> Iterator[list[FileEntry]]:
    """Give what came out of a container; it can be read until the `with` block ends. Raises `ImageError` as above."""
    with _opened_tar(pyc_tar) as tar:
        yield list(_compiled_modules(tar, intent))


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError, ValueError, OSError, RecursionError) as error:
        raise ImageError(f"the compiled modules can't be read: {path}: {error}") from error


def _compiled_modules(tar: tarfile.TarFile, intent: ImageIntent) -> Iterator[FileEntry]:
    what = "the tar of compiled modules"
    prefixes = tuple(f"{root}/" for root in intent.python.source_roots)
    for member in tar:
        path = checked_path(member.name, what=what)
        parts = path.split("/")
        inside = path.startswith(prefixes) and parts[-2] == "__pycache__" and path.endswith(".pyc")
        if path != member.name or not member.isreg() or member.issparse() or not inside:
            raise ImageError(f"{what} holds something else: {member.name!r}")
        entry = member_entry(tar, member)
        yield FileEntry(
            path=path, size=entry.size, executable=False, identity=entry.identity, open=entry.open
        )


def store_layer(
    store: Store, intent: ImageIntent, found: Iterable[Entry], *, what: str, expected: Digest | None = None
) -> Blob:
    """Write entries of any order, with the folders above them, into a layer. Raises as `debian_layer` does."""
    return _store_tar(store, intent, merged(found, what=what), what=what, expected=expected)


def _store_tar(
    store: Store, intent: ImageIntent, entries: Iterable[Entry], *, what: str, expected: Digest | None
) -> Blob:
    return store.add_written(
        lambda sink: write_tar(entries, sink, time=intent.source_date_epoch), expected=expected, what=what
    )
