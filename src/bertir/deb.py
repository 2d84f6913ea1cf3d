"""Read a Debian package: all use of python-debian is here."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import logging
import lzma
import re
import tarfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from debian.arfile import ArError
from debian.deb822 import Deb822, PkgRelation
from debian.debfile import DebFile
from debian.debian_support import version_compare

from bertir.bounded import Bounded
from bertir.errors import ImageError
from bertir.redact import shown
from bertir.tree import Entry, FolderEntry, LinkEntry, bytes_entry, checked_path, text_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from bertir.lock import DebianPackage

STATUS = "var/lib/dpkg/status.d"  # as distroless does: scanners look there for what is installed
# https://wiki.debian.org/UsrMerge: packages of bookworm may still ship paths that the links lead to usr.
MERGED_FOLDERS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")

# Of the packages of the image, libc6 is the largest: 300 entries, 12.8 MB.
MOST_BYTES = 256 << 20
MOST_ENTRIES = 100_000
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
# It would print what strangers wrote, as it is, to standard error.
logging.getLogger("debian.deb822").addFilter(lambda _: False)


def package_entries(package: DebianPackage, path: Path) -> list[Entry]:
    """Give what a package installs, with merged /usr, and its paragraph for `var/lib/dpkg/status.d`.

    Its maintainer scripts are not run: whatever a package of ours needs of them is in `image.toml`.
    Packages of a base are a few MB each, so a package's files are held in memory.

    Raises:
        ImageError: it is no Debian package, another one than locked, or holds what no layer may:
            a device, a path that leads out, a hard link to nothing, more than `MOST_BYTES`.
    """
    with _opened(package, path) as (deb, control), _part(deb, "data.tar") as tar:
        entries = list(_data_entries(tar, what=f"{package.name} {package.version}"))
    return [*entries, text_entry(f"{STATUS}/{package.name}", f"{control.strip()}\n")]


def package_control(package: DebianPackage, path: Path) -> str:
    """Give a package's control file.

    Raises:
        ImageError: it is no Debian package, or another one than locked.
    """
    with _opened(package, path) as (_, control):
        return control


@contextmanager
def _opened(package: DebianPackage, path: Path) -> Iterator[tuple[DebFile, str]]:
    """Open a package that is the locked one, with its control file."""
    try:
        with path.open("rb") as file:
            deb = DebFile(fileobj=file)
            control = _control(deb)
            found = Deb822(control)
            identity = (found["Package"], found["Version"], found["Architecture"])
            if identity != (package.name, package.version, package.architecture):
                raise ImageError(
                    f"{path.name} is another package than the locked one"
                    f"\n  expected {package.name} {package.version} {package.architecture}"
                    f"\n  found    {' '.join(identity)}"
                )
            yield deb, control
    except _UNREADABLE as error:
        raise ImageError(f"{package.name} {package.version}: can't read the package: {error}") from error


# What python-debian, tarfile and the decompressors raise on other bytes than a package's.
_UNREADABLE = (
    ArError,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    KeyError,
    ValueError,
    OSError,
    RecursionError,
)
# Debian's; dpkg's zst would take a program of the host.
_OPENED: Mapping[str, Callable[[BinaryIO], BinaryIO]] = {
    "": lambda file: file,
    ".gz": lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast("BinaryIO", bz2.BZ2File(file)),
    ".xz": lambda file: cast("BinaryIO", lzma.LZMAFile(file)),  # noqa: SIM115 - its owner closes what is below
}


@contextmanager
def _part(deb: DebFile, name: str) -> Iterator[tarfile.TarFile]:
    """Open one of a package's two tars, as a stream that may not give more bytes than any package has."""
    [found] = [item for item in deb.getnames() if item.startswith(name)]
    unpacked = _OPENED[found.removeprefix(name)](cast("BinaryIO", deb.getmember(found)))
    with tarfile.open(fileobj=cast("BinaryIO", Bounded(unpacked, MOST_BYTES)), mode="r|") as tar:
        yield tar


def _control(deb: DebFile) -> str:
    with _part(deb, "control.tar") as tar:
        for member in tar:
            if member.isreg() and checked_path(member.name, what="its control.tar") == "control":
                return cast("BinaryIO", tar.extractfile(member)).read().decode("utf-8")
    raise KeyError("control")


def _members(tar: tarfile.TarFile, *, what: str) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(tar):
        if number >= MOST_ENTRIES:
            raise ImageError(f"{what}: it holds more than {MOST_ENTRIES} entries")
        if member.issparse():  # small here, of any size there
            raise ImageError(f"{what}: {member.name!r} is a sparse file")
        yield member


def _data_entries(tar: tarfile.TarFile, *, what: str) -> Iterator[Entry]:
    contents: dict[str, tuple[bytes, bool, str]] = {}
    size = 0
    for member in _members(tar, what=what):
        name = checked_path(str(member.name), what=what)
        path = merged_usr(name)
        if member.isreg() or member.islnk():
            if member.isreg():
                file = tar.extractfile(member)
                data = file.read() if file else b""
                contents[name] = (data, bool(member.mode & 0o111), hashlib.sha256(data).hexdigest())
            else:
                # Hard links lead back to an earlier file. Each name becomes a file of its own, so that
                # leaving one name out can't break another.
                target = checked_path(member.linkname, what=what)
                if target not in contents:
                    raise ImageError(f"{what}: {name!r} is a hard link to {target!r}, which isn't there")
                contents[name] = contents[target]
            data, executable, identity = contents[name]
            size += len(data)
            if size > MOST_BYTES:  # one file under many names is many files in a layer
                raise ImageError(f"{what}: it lays out more than {MOST_BYTES} bytes")
            yield bytes_entry(path, data, executable=executable, identity=identity)
        elif member.issym():
            # The same link may read differently from /lib and from /usr/lib; only what is moved is rewritten.
            yield LinkEntry(path=path, target=_moved_target(name, path, member.linkname))
        elif member.isdir():
            if path and name not in MERGED_FOLDERS:
                yield FolderEntry(path=path)
        else:
            raise ImageError(f"{what}: {name!r} is neither file, folder nor link")


def merged_usr(path: str) -> str:
    """Move a path of /bin, /sbin or /lib* to its place below /usr."""
    return f"usr/{path}" if path.partition("/")[0] in MERGED_FOLDERS else path


def _moved_target(name: str, path: str, target: str) -> str:
    """Keep a relative link of a moved path leading where it led.

    `lib/a -> ../etc/b` becomes `usr/lib/a -> ../../etc/b`: only a link that climbs to the root changes.
    """
    if name == path or target.startswith("/"):
        return target
    climbed = 0
    for part in PurePosixPath(target).parts:
        if part != "..":
            break
        climbed += 1
    depth = len(PurePosixPath(name).parts) - 1
    rest = "/".join(PurePosixPath(target).parts[climbed:])
    if climbed < depth or merged_usr(rest) != rest:
        return target  # both ends moved alike
    return f"../{target}"


# what a package says of itself


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One package that another asks for, or provides: `libc6 (>= 2.36)`."""

    name: str
    operator: str = ""
    version: str = ""

    def accepts(self, version: str) -> bool:
        """Whether this version is one of those asked for; a virtual package without one fits no versioned relation."""
        if not self.operator:
            return True
        return bool(version) and _ACCEPTED[self.operator](version_compare(version, self.version))


_ACCEPTED = {
    "<<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    ">=": lambda order: order >= 0,
    ">>": lambda order: order > 0,
}


@dataclass(frozen=True, kw_only=True)
class Control:
    """A package's control file.

    Args:
        source: the source package, with its version where that is another one.
        needs: what it depends on (and pre-depends); of each group one is enough.
        provides: names of virtual packages that it stands for.
    """

    name: str
    version: str
    source: str
    summary: str
    needs: tuple[tuple[Relation, ...], ...]
    provides: tuple[Relation, ...]

    def satisfies(self, relation: Relation) -> bool:
        return (self.name == relation.name and relation.accepts(self.version)) or any(
            provided.name == relation.name and relation.accepts(provided.version)
            for provided in self.provides
        )


def read_control(text: str) -> Control:
    """Read a control file.

    Raises:
        ImageError: it has no name or version, or a relation that is none.
    """
    try:
        fields = Deb822(text)
        groups = [group for name in ("Pre-Depends", "Depends") for group in _relations(fields.get(name, ""))]
        return Control(
            name=fields["Package"],
            version=fields["Version"],
            source=fields.get("Source", fields["Package"]),
            summary=fields.get("Description", "").partition("\n")[0],
            needs=tuple(dict.fromkeys(groups)),
            provides=tuple(item for group in _relations(fields.get("Provides", "")) for item in group),
        )
    except (KeyError, ValueError) as error:
        raise ImageError(f"can't read a package's control file: {error}") from error


def _relations(field: str) -> Iterable[tuple[Relation, ...]]:
    for group in PkgRelation.parse_relations(field) if field.strip() else []:
        found = []
        for item in group:
            if not _PACKAGE_NAME.fullmatch(item["name"]):  # python-debian gives what it can't parse as a name
                message = f"not a package: {shown(item['name'])}"
                raise ValueError(message)
            operator, version = item.get("version") or ("", "")
            if operator and operator not in _ACCEPTED:
                message = f"unknown operator {operator!r}"
                raise ValueError(message)
            found.append(Relation(name=item["name"], operator=operator or "", version=version or ""))
        yield tuple(found)
