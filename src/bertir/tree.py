"""A tree of files as data, and the tar that is the same on every machine.

What differs between machines (order, times, owners, modes after a umask) is fixed here and nowhere else.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from fnmatch import translate
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from bertir.digest import CHUNK_BYTES
from bertir.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bertir.digest import HashingWriter


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A regular file. `open` gives its bytes, and may be called more than once.

    Args:
        identity: equal for two files only if their bytes are equal (a digest, in whatever form is at hand).
    """

    path: str
    size: int
    executable: bool
    identity: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, kw_only=True)
class FolderEntry:
    path: str
    mode: int = 0o755


@dataclass(frozen=True, kw_only=True)
class LinkEntry:
    """A symbolic link; hard links don't occur, each name of a file is a file."""

    path: str
    target: str


Entry = FileEntry | FolderEntry | LinkEntry


def checked_path(path: str, *, what: str) -> str:
    """Give a path of an archive in one form: relative to the root, no `.`, no slash at the end ("" is the root).

    Raises:
        ImageError: the path is absolute or leads out by `..`.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ImageError(f"{what} holds a path that leads out of its folder: {path!r}")
    return "/".join(part for part in parts if part not in ("", "."))


def text_entry(path: str, text: str) -> FileEntry:
    return bytes_entry(path, text.encode(), executable=False)


def bytes_entry(path: str, data: bytes, *, executable: bool, identity: str = "") -> FileEntry:
    return FileEntry(
        path=path,
        size=len(data),
        executable=executable,
        identity=identity or repr(data),
        open=lambda: BytesIO(data),
    )


class PathFilter:
    """Shell patterns over paths; a pattern stands for a path and all below it, `keep` wins over `exclude`."""

    def __init__(self, *, exclude: Sequence[str], keep: Sequence[str] = ()) -> None:
        self._exclude = _compiled(exclude)
        self._keep = _compiled(keep)
        self._known: dict[str, bool] = {}

    def drops(self, path: str) -> bool:
        return not (self._keep and self._keep.match(path)) and self._excluded(path)

    def _excluded(self, path: str) -> bool:
        if path not in self._known:
            parent = path.rpartition("/")[0]
            inherited = bool(parent) and self._excluded(parent)
            self._known[path] = inherited or bool(self._exclude and self._exclude.match(path))
        return self._known[path]


def _compiled(patterns: Sequence[str]) -> re.Pattern[str] | None:
    # `*` stays within one part of a path, as in a shell.
    translated = ["/".join(_part(part) for part in pattern.split("/")) for pattern in patterns]
    return re.compile("|".join(f"(?:{text})\\Z" for text in translated)) if patterns else None


def _part(pattern: str) -> str:
    # fnmatch gives `(?s:…)\Z`, in which `.` also matches a slash.
    inner = translate(pattern).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
    return inner.replace(".*", "[^/]*")


def merged(entries: Iterable[Entry], *, what: str) -> list[Entry]:
    """Sort entries, add the folders above them, and make each path occur once.

    Raises:
        ImageError: two entries of a path differ, or one lies below something that is no folder.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        known = found.setdefault(entry.path, entry)
        if known is not entry and not _same(known, entry):
            raise ImageError(f"{what}: two different contents for /{entry.path}")
    for path in list(found):
        name = path
        while name := name.rpartition("/")[0]:
            above = found.get(name)
            if isinstance(above, FolderEntry):
                break  # whose own folders are seen to in its turn, or were
            if above is not None:
                raise ImageError(f"{what}: /{path} lies below /{name}, which is no folder")
            found[name] = FolderEntry(path=name)
    # By parts, so that a folder stands right before what is in it.
    return sorted(found.values(), key=lambda entry: entry.path.split("/"))


def _same(one: Entry, other: Entry) -> bool:
    if isinstance(one, FileEntry) and isinstance(other, FileEntry):
        return (one.size, one.executable, one.identity) == (other.size, other.executable, other.identity)
    return one == other


def write_tar(entries: Iterable[Entry], sink: HashingWriter, *, time: int) -> None:
    """Write entries, in the order given, with fixed times, owners and modes.

    Raises:
        ImageError: a file gave more or fewer bytes than its entry says.
    """
    with tarfile.open(
        fileobj=sink,
        mode="w|",
        format=tarfile.PAX_FORMAT,  # paths of any length; plain ustar where that does
        bufsize=CHUNK_BYTES,
        copybufsize=CHUNK_BYTES,  # type: ignore[call-overload]
    ) as tar:
        for entry in entries:
            header = _header(entry, time)
            if isinstance(entry, FileEntry):
                with entry.open() as file:
                    _add(tar, header, file)
            else:
                tar.addfile(header)


def _add(tar: tarfile.TarFile, header: tarfile.TarInfo, file: BinaryIO) -> None:
    try:
        tar.addfile(header, file)
    except OSError as error:  # tarfile says so by OSError("unexpected end of data")
        if error.errno is None:
            raise ImageError(f"/{header.name} is shorter than it should be: {error}") from error
        raise
    if file.read(1):
        raise ImageError(f"/{header.name} is longer than it should be ({header.size} bytes)")


def _header(entry: Entry, time: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(entry.path)  # owner 0, group 0, no names
    header.mtime = time
    match entry:
        case FileEntry():
            header.size = entry.size
            header.mode = 0o755 if entry.executable else 0o644
        case FolderEntry():
            header.type = tarfile.DIRTYPE
            header.mode = entry.mode
        case LinkEntry():
            header.type = tarfile.SYMTYPE
            header.linkname = entry.target
            header.mode = 0o777
    return header


def source_members(tar: tarfile.TarFile, roots: Sequence[str]) -> Iterator[FileEntry]:
    """Give the `.py` files below some folders of a layer."""
    prefixes = _below(roots)
    for member in tar:
        if member.isreg() and member.name.endswith(".py") and member.name.startswith(prefixes):
            yield member_entry(tar, member)


def source_entries(entries: Iterable[Entry], roots: Sequence[str]) -> Iterator[FileEntry]:
    """Give the `.py` files below some folders."""
    prefixes = _below(roots)
    for entry in entries:
        if isinstance(entry, FileEntry) and entry.path.endswith(".py") and entry.path.startswith(prefixes):
            yield entry


def _below(roots: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{root}/" for root in roots)


def member_entry(tar: tarfile.TarFile, member: tarfile.TarInfo) -> FileEntry:
    """Give a regular file of an open, seekable, uncompressed tar."""

    def opened() -> BinaryIO:
        file = tar.extractfile(member)
        if file is None:  # only for what isn't a file
            raise ImageError(f"{member.name} is no regular file")
        return file  # type: ignore[return-value]  # typeshed calls it IO[bytes]

    return FileEntry(
        path=member.name,
        size=member.size,
        executable=bool(member.mode & 0o111),
        identity=f"{member.offset_data} of {tar.name!r}",
        open=opened,
    )
