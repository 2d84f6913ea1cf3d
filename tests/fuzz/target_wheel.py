"""Coverage-guided: wheels, and zips of models. See README.md."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import atheris
import fuzzing

with atheris.instrument_imports(
    include=["bertir.wheel", "bertir.zip_check", "bertir.zip_records", "zipfile", "installer"]
):
    from packages import make_wheel, small_intent
    from raw_zip import DEFLATED, DESCRIPTOR, RawEntry, descriptor, raw_zip, unicode_path, zip64_extra

    from bertir.digest import Digest
    from bertir.errors import ImageError
    from bertir.tree import FileEntry
    from bertir.wheel import opened_wheel
    from bertir.zip_check import UnfitZipError, checked_zip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.lock import WheelPin

FILES = {"small/__init__.py": b"x = 1\n", "small-1.0.data/scripts/run": b"#!python\n"}
PYTHON = small_intent().python


def seeds(folder: Path) -> Iterator[bytes]:
    yield make_wheel(folder, FILES, entry_points="[console_scripts]\nsmall = small:main\n")[1].read_bytes()
    one = RawEntry(name=b"a/b", data=b"words " * 9, method=DEFLATED)
    yield raw_zip([one], comment=b"x")
    yield raw_zip([one], zip64={})
    yield raw_zip([replace(one, central={"extra": unicode_path(one.name, one.name)})])
    yield raw_zip([replace(one, central={"extra": zip64_extra(1)})])
    streamed = replace(one, flags=DESCRIPTOR, local={"crc": 0, "packed": 0, "unpacked": 0})
    yield raw_zip([replace(streamed, descriptor=descriptor(one))])


@functools.cache
def pin(path: Path) -> WheelPin:
    made, _ = make_wheel(path.parent, FILES)
    return replace(made, digest=Digest.of_bytes(b""))


def target(_: bytes, path: Path) -> None:
    with contextlib.suppress(UnfitZipError), checked_zip(path) as opened:
        for entry in opened.files:
            assert not entry.filename.startswith("/")
            assert ".." not in entry.filename.split("/")
            assert len(opened.archive.read(entry)) == entry.file_size
    with contextlib.suppress(ImageError), opened_wheel(pin(path), path, PYTHON) as entries:
        for item in entries:
            assert item.path.startswith("usr/local/")
            assert ".." not in item.path.split("/")
            if isinstance(item, FileEntry):
                with item.open() as file:
                    while file.read(1 << 16):
                        pass


if __name__ == "__main__":
    fuzzing.run(target, seeds)
