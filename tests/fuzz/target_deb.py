"""Coverage-guided: Debian packages, their outer archive and the two tars in it. See README.md."""

from __future__ import annotations

import contextlib
import functools
import io
import tarfile
from typing import TYPE_CHECKING

import atheris
import fuzzing

with atheris.instrument_imports(include=["bertir.deb", "bertir.tree", "debian.arfile", "tarfile"]):
    from packages import ar, make_deb, member

    from bertir.deb import package_entries, read_control
    from bertir.errors import ImageError
    from bertir.tree import FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.lock import DebianPackage

CONTROL = (
    "Package: small\nVersion: 1:1.0-1\nArchitecture: amd64\nDepends: a (>= 1) | b, c\nDescription: small\n"
)


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()[:4096]


DATA = (
    member("./usr/bin/a", b"#!/bin/sh\n", mode=0o755),
    member("./bin/b", kind=tarfile.LNKTYPE, link="./usr/bin/a"),
    member("./lib/c", kind=tarfile.SYMTYPE, link="../etc/d"),
    member("./etc", kind=tarfile.DIRTYPE),
)


def seeds(folder: Path) -> Iterator[bytes]:
    """Whole packages, and (after a first byte of 1) the data.tar alone, so that its bytes needn't be packed."""
    control = _tar(member("./control", CONTROL.encode()))
    yield b"\0" + make_deb(folder, DATA)[1].read_bytes()
    yield b"\0" + ar({"debian-binary": b"2.0\n", "control.tar": control, "data.tar": _tar(*DATA)})
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        yield b"\1" + _tar(*DATA, form=form)
    yield b"\1" + _tar(member("./" + "long/" * 40, b"x"), form=tarfile.GNU_FORMAT)
    yield b"\1" + _tar(member("./" + "é" * 150, b"x"), form=tarfile.PAX_FORMAT)
    yield b"\2" + CONTROL.encode()
    yield b"\3" + _tar(member("./control", CONTROL.encode()))


@functools.cache
def _package(folder: Path) -> DebianPackage:
    return make_deb(folder, [])[0]


@functools.cache
def _tars() -> tuple[bytes, bytes]:
    return _tar(member("./control", CONTROL.encode())), _tar()


def target(data: bytes, path: Path) -> None:
    kind, rest = data[:1], data[1:]
    package = _package(path.parent)
    if kind == b"\2":
        with contextlib.suppress(ImageError):
            read_control(rest.decode(errors="replace"))
        return
    if kind == b"\1":
        rest = ar({"debian-binary": b"2.0\n", "control.tar": _tars()[0], "data.tar": rest})
    elif kind == b"\3":
        rest = ar({"debian-binary": b"2.0\n", "control.tar": rest, "data.tar": _tars()[1]})
    path.write_bytes(rest)
    try:
        entries = package_entries(package, path)
    except ImageError:
        return
    for entry in entries:
        assert not entry.path.startswith("/"), entry.path
        assert ".." not in entry.path.split("/"), entry.path
        if isinstance(entry, FileEntry):
            assert len(entry.open().read()) == entry.size


if __name__ == "__main__":
    fuzzing.run(target, seeds)
