"""Read wheels as an installer would lay them out: all use of PyPA's `installer` is here.

`installer.install` decides where each file goes (schemes, entry points, RECORD); instead of writing files it is
given a destination that only notes them. Their bytes are read once, later, when the layer is written.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import stat
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, InvalidRecordEntry, RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelFile
from installer.utils import (
    canonicalize_name,
    construct_record_file,
    fix_shebang,
    parse_metadata_file,
    parse_wheel_filename,
)

from bertir.errors import ImageError
from bertir.tree import Entry, FileEntry, PathFilter, bytes_entry, checked_path
from bertir.zip_check import Limits, UnfitZipError, checked_zip

if TYPE_CHECKING:
    import os
    import zipfile
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from installer.scripts import ScriptSection
    from installer.utils import Scheme

    from bertir.intent import PythonIntent
    from bertir.lock import WheelPin

# The Python packaging standard wants to know who installed a distribution; pip then says so when asked.
_METADATA = {"INSTALLER": b"bertir\n"}
# tensorflow-cpu has 10,240 files, 0.9 GB; no file of the image's wheels unpacks to over 33 times its bytes.
LIMITS = Limits(entries=100_000)
# Of what is held in memory: RECORD (tensorflow-cpu's has 1.3 MB), METADATA, a script.
_MOST_HELD_BYTES = 32 << 20


# What zipfile and installer raise on other bytes than a wheel's.
_UNREADABLE = (
    UnfitZipError,
    InstallerError,
    InvalidRecordEntry,
    KeyError,
    AssertionError,
    TypeError,
    configparser.Error,
    csv.Error,
)


@contextmanager
def opened_wheel(pin: WheelPin, path: Path, python: PythonIntent) -> Iterator[list[Entry]]:
    """Give what a wheel installs. The entries can be read until the `with` block ends.

    Raises:
        ImageError: it is no wheel, another one than locked, not what its RECORD says, or leads out of its folder.
            (The hash of a file is compared while that file is read.)
    """
    what = f"{pin.name} {pin.version}"
    try:
        with checked_zip(path, LIMITS) as opened:
            wheel = _Wheel(opened.archive, pin)
            wheel.validate_record(validate_contents=False)
            destination = _Notes(python, pin)
            installer.install(wheel, destination, _METADATA)
            yield destination.entries
    except _UNREADABLE as error:
        raise ImageError(f"{what}: can't read the wheel: {error}") from error


class _Wheel(WheelFile):
    """A wheel of any file name (the store names files by digest); `installer` asks the name for two things."""

    def __init__(self, archive: zipfile.ZipFile, pin: WheelPin) -> None:
        # Not WheelFile's own __init__, which parses the file name.
        self._zipfile = archive
        self.distribution = pin.name
        folder = self.dist_info_dir
        self.distribution, _, self.version = folder.removesuffix(".dist-info").rpartition("-")
        metadata = parse_metadata_file(self.read_dist_info("METADATA"))
        found = (canonicalize_name(str(metadata["Name"])), str(metadata["Version"]))
        if found != (canonicalize_name(pin.name), pin.version):
            raise ImageError(
                "a wheel is another one than the locked one"
                f"\n  expected {pin.name} {pin.version}\n  found    {' '.join(found)}"
            )

    def read_dist_info(self, filename: str) -> str:
        name = f"{self.dist_info_dir}/{filename}"
        return (
            _Member(self._zipfile, self._zipfile.getinfo(name), RecordEntry(name, None, None))
            .read()
            .decode("utf-8")
        )

    def get_contents(self) -> Iterator[tuple[tuple[str, str, str], BinaryIO, bool]]:
        """Give `_Member`s in place of open files, so that nothing is read yet."""
        lines = self.read_dist_info("RECORD").splitlines()
        records = {record[0]: record for record in parse_record_file(lines)}
        for info in self._zipfile.infolist():
            # A compiled module in a wheel is of another interpreter, or worse: the image has its own.
            if info.is_dir() or "__pycache__" in info.filename.split("/"):
                continue
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ImageError(f"{self.distribution} {self.version}: {info.filename} is no regular file")
            record = records.get(info.filename, (info.filename, "", ""))
            member = _Member(self._zipfile, info, RecordEntry.from_elements(*record))
            yield record, cast("BinaryIO", member), bool(mode & 0o111)


class _Member:
    """A file of a wheel that has not been opened yet."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, record: RecordEntry) -> None:
        self._archive = archive
        self._info = info
        self.record = record
        self.size = info.file_size

    def open(self) -> BinaryIO:
        stream = cast("BinaryIO", self._archive.open(self._info))
        return cast("BinaryIO", _CheckedReader(stream, self.record)) if self.record.hash_ else stream

    def read(self) -> bytes:
        if self.size > _MOST_HELD_BYTES:
            raise ImageError(f"{self.record.path} is larger than any script or list of a wheel")
        with self.open() as file:
            data = file.read()
            file.read(1)  # so that the end is seen, and the hash compared
            return data


class _CheckedReader:
    """Compare a file with its entry in RECORD once it was read to its end."""

    def __init__(self, file: BinaryIO, record: RecordEntry) -> None:
        self._file = file
        self._record = record
        assert record.hash_ is not None  # noqa: S101 - the caller's own condition
        self._expected = record.hash_
        self._hash = hashlib.new(record.hash_.name)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        if not data and size and _encoded(self._hash.digest()) != self._expected.value:
            raise ImageError(f"{self._record.path} is not what its wheel's RECORD says")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Notes(WheelDestination):
    """Note where each file goes, below the prefix, and what `RECORD` will say."""

    def __init__(self, python: PythonIntent, pin: WheelPin) -> None:
        self._python = python
        self._name = pin.name
        self._folders: Mapping[str, str] = {
            "purelib": python.site,
            "platlib": python.site,
            "scripts": f"{python.prefix}/bin",
            "headers": f"{python.prefix}/include/python{python.version}",
            "data": python.prefix,
        }
        self._filter = PathFilter(exclude=python.exclude)
        self.entries: list[Entry] = []

    def write_script(self, name: str, module: str, attr: str, section: ScriptSection) -> RecordEntry:
        script, data = Script(name, module, attr, section).generate(self._python.interpreter, "posix")
        return self._note_bytes(cast("Scheme", "scripts"), script, data, executable=True)

    def write_file(
        self,
        scheme: Scheme,
        path: str | os.PathLike[str],
        stream: BinaryIO,
        is_executable: bool,
    ) -> RecordEntry:
        name = str(path)
        if not isinstance(stream, _Member):
            return self._note_bytes(scheme, name, stream.read(), executable=is_executable)
        if scheme == "scripts":
            with fix_shebang(BytesIO(stream.read()), self._python.interpreter) as fixed:
                return self._note_bytes(scheme, name, fixed.read(), executable=True)
        entry = FileEntry(
            path=self._place(scheme, name),
            size=stream.size,
            executable=is_executable,
            identity=str(stream.record.hash_),
            open=stream.open,
        )
        self._note(entry)
        return RecordEntry(name, stream.record.hash_, stream.size)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        kept = [
            (where, record) for where, record in records if not self._drops(self._place(where, record.path))
        ]
        # construct_record_file sorts by a path that two schemes may share; this decides between those.
        kept.sort(key=lambda item: self._place(item[0], item[1].path))
        with construct_record_file(kept, self._prefix) as file:
            self._note(bytes_entry(self._place(scheme, record_file_path), file.read(), executable=False))

    def _prefix(self, scheme: Scheme) -> str | None:
        # RECORD's paths are relative to the site folder, three below the prefix.
        folder = self._folders[scheme]
        if folder == self._python.site:
            return None
        return "../../../" + "".join(f"{part}/" for part in folder.split("/")[2:])

    def _place(self, scheme: str, path: str) -> str:
        return f"{self._folders[scheme]}/{checked_path(path, what=self._name)}"

    def _note(self, entry: FileEntry) -> None:
        if not self._drops(entry.path):
            self.entries.append(entry)

    def _drops(self, path: str) -> bool:
        return self._filter.drops(path) or self._python.owners.get(path, self._name) != self._name

    def _note_bytes(self, scheme: Scheme, path: str, data: bytes, *, executable: bool) -> RecordEntry:
        self._note(bytes_entry(self._place(scheme, path), data, executable=executable))
        return RecordEntry(path, Hash("sha256", _encoded(hashlib.sha256(data).digest())), len(data))


def distribution_of(file_name: str) -> str:
    """Give the normalised distribution name that a wheel's file name says."""
    return canonicalize_name(parse_wheel_filename(file_name).distribution)


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
