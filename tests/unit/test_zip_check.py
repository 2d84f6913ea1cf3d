"""Zips that say one thing to one reader and another to the next: each lie is told for real, byte by byte."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from raw_zip import (
    DEFLATED,
    DESCRIPTOR,
    UTF8,
    RawEntry,
    descriptor,
    raw_zip,
    unicode_path,
    zip64_extra,
)

from bertir.zip_check import Limits, UnfitZipError, checked_zip

if TYPE_CHECKING:
    from pathlib import Path

VOCAB = RawEntry(name=b"bert/vocab.txt", data=b"[PAD]\n[UNK]\n" * 40, method=DEFLATED)
CONFIG = RawEntry(name=b"bert/bert_config.json", data=b"{}\n")
GOOD = (VOCAB, CONFIG)
FULL = 0xFFFFFFFF


def read(folder: Path, data: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    path = folder / "a.zip"
    path.write_bytes(data)
    with checked_zip(path, limits or Limits()) as opened:
        return {entry.filename: opened.archive.read(entry) for entry in opened.files}


def streamed(entry: RawEntry, *, mark: bool = True, large: bool = False, **changed: int) -> RawEntry:
    """The entry as a program writes it that doesn't know beforehand how long it gets."""
    return replace(
        entry,
        flags=entry.flags | DESCRIPTOR,
        local={"crc": 0, "packed": 0, "unpacked": 0},
        descriptor=descriptor(entry, mark=mark, large=large, **changed),
    )


INNER = raw_zip(GOOD)
FINE = {
    "plain": raw_zip(GOOD),
    "with a comment": raw_zip(GOOD, comment=b"from Google"),
    "ZIP64": raw_zip(GOOD, zip64={}),
    "with its sizes in ZIP64 fields": raw_zip(
        [
            replace(
                CONFIG,
                local={"packed": FULL, "unpacked": FULL, "extra": zip64_extra(3, 3)},
                central={"packed": FULL, "unpacked": FULL, "extra": zip64_extra(3, 3)},
            ),
            VOCAB,
        ]
    ),
    "streamed": raw_zip([streamed(VOCAB), streamed(CONFIG)]),
    "streamed without a mark": raw_zip([streamed(VOCAB, mark=False), streamed(CONFIG, mark=False)]),
    "streamed with long sizes": raw_zip([streamed(VOCAB, large=True), streamed(CONFIG, large=True)]),
    "with a gap, as an entry that was deleted leaves": raw_zip([VOCAB, replace(CONFIG, before=bytes(40))]),
    "with the same name in an extra field": raw_zip(
        [VOCAB, replace(CONFIG, central={"extra": unicode_path(CONFIG.name, CONFIG.name)})]
    ),
    "with names that Windows reserves": raw_zip(
        [*GOOD, RawEntry(name=b"CON"), RawEntry(name=b"bert/nul.txt"), RawEntry(name=b"bert/COM1")]
    ),
    "with a zip in it that is never opened": raw_zip([*GOOD, RawEntry(name=b"inner.zip", data=INNER)]),
}


@pytest.mark.parametrize("kind", FINE)
def test_what_is_unusual_and_no_lie_is_read(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, FINE[kind])
    assert found["bert/vocab.txt"] == VOCAB.data
    assert found["bert/bert_config.json"] == CONFIG.data


def local(entry: RawEntry = CONFIG, **said: int | bytes) -> bytes:
    return raw_zip([VOCAB, replace(entry, local=said)])


def central(entry: RawEntry = CONFIG, **said: int | bytes) -> bytes:
    return raw_zip([VOCAB, replace(entry, central=said)])


def many_entries() -> bytes:
    """A directory of 30,000 entries for the same file, and an end that says there are two."""
    one = raw_zip(GOOD)
    start = one.index(b"PK\x01\x02")
    directory = one[start : one.index(b"PK\x05\x06")]
    first = directory[: directory.index(b"PK\x01\x02", 4)]
    return raw_zip(GOOD, directory=directory + first * 30_000)


LIES = {
    # ZIP64
    "ZIP64: a size of 8 EiB": (
        central(packed=FULL, unpacked=FULL, extra=zip64_extra(1 << 63, 1 << 63)),
        "header that differs|over the limit",
    ),
    "ZIP64: an offset of 16 EiB": (
        central(offset=FULL, extra=zip64_extra((1 << 64) - 1)),
        "not where the directory says",
    ),
    "ZIP64: a size that is there in the one header only": (
        central(unpacked=FULL, extra=zip64_extra(4)),
        "differs|two sizes",
    ),
    "ZIP64: a field that is too short": (central(unpacked=FULL, extra=zip64_extra()), "Corrupt|differs"),
    "ZIP64: a field longer than there are bytes": (
        central(extra=b"\x01\x00\xff\xff"),
        "extra field|Corrupt",
    ),
    "ZIP64: an end elsewhere": (raw_zip(GOOD, zip64={"at": 0}), "ZIP64 end is not where it says"),
    "ZIP64: no end there": (raw_zip(GOOD, zip64={"mark": 1}), "ZIP64 end is not where it says"),
    "ZIP64: of many disks": (raw_zip(GOOD, zip64={"disks": 9}), "ZIP64 end is not where it says"),
    "ZIP64: ends that differ": (
        raw_zip(GOOD, zip64={}, end={"entries": 1, "here": 1}),
        "its two ends differ",
    ),
    "ZIP64: millions of entries": (
        raw_zip(GOOD, zip64={"entries": 10_000_000, "here": 10_000_000}),
        "10000000 entries, over the limit",
    ),
    "ZIP64: a directory of 4 GB": (
        raw_zip(GOOD, zip64={"size": 1 << 32, "offset": (1 << 64) - (1 << 32)}),
        "its directory is not where",
    ),
    # the end
    "more entries than its end says": (many_entries(), "its directory holds|over the limit"),
    "fewer entries than its end says": (
        raw_zip(GOOD, end={"entries": 3, "here": 3}),
        "its directory holds 2",
    ),
    "entries on another disk": (raw_zip(GOOD, end={"disk": 1}), "one of several parts"),
    "some entries on another disk": (raw_zip(GOOD, end={"here": 1}), "one of several parts"),
    "a directory that begins elsewhere": (raw_zip(GOOD, end={"offset": 4}), "its directory is not where"),
    "bytes before it": (raw_zip(GOOD, before=b"#!/bin/sh\n", shifted=False), "something was put before it"),
    "bytes before it, counted": (raw_zip(GOOD, before=b"#!/bin/sh\n"), "begins with something"),
    "another zip before it": (raw_zip(GOOD, before=INNER, shifted=False), "something was put before it"),
    "another zip before it, counted": (raw_zip(GOOD, before=INNER), "begins with something"),
    "bytes after it": (raw_zip(GOOD, after=b"\n"), "doesn't end as a zip does"),
    "a comment longer than there are bytes": (
        raw_zip(GOOD, comment=b"x", end={"comment": 500}),
        "doesn't end as a zip does",
    ),
    "a comment that is another zip": (raw_zip(GOOD, comment=INNER), "two ends"),
    "a comment that holds another end": (raw_zip(GOOD, comment=b"PK\x05\x06 no end"), "holds another end"),
    "a directory within an entry": (
        raw_zip([RawEntry(name=b"x", data=INNER), *GOOD], end={"entries": 2, "here": 2, "offset": 31}),
        "its directory is not where",
    ),
    "something else in its directory": (raw_zip(GOOD, directory=b"PK\x01\x03" + bytes(42)), "no entry"),
    "an entry of its directory that is cut": (raw_zip(GOOD, directory=b"PK\x01\x02" + bytes(9)), "no entry"),
    # two headers
    "another name in its own header": (local(name=b"bert/bert_config.jsom"), "header that differs"),
    "a shorter name in its own header": (local(name=b"x"), "header that differs|overlaps"),
    "another method in its own header": (local(method=DEFLATED), "header that differs"),
    "another packed size in its own header": (local(packed=2), "header that differs"),
    "another unpacked size in its own header": (local(unpacked=1 << 30), "header that differs"),
    "another CRC in its own header": (local(crc=1), "header that differs"),
    "encrypted in its own header only": (local(flags=1), "header that differs"),
    "two sizes though it isn't compressed": (central(unpacked=2), "has two sizes"),
    "a header without a mark": (
        raw_zip(GOOD).replace(b"PK\x03\x04", b"PK\x03\x05", 1),
        "not where the directory says",
    ),
    # descriptors
    "a descriptor with another size": (
        raw_zip([streamed(VOCAB, unpacked=1 << 30), CONFIG]),
        "descriptor that",
    ),
    "a descriptor with another CRC": (raw_zip([streamed(VOCAB, crc=1), CONFIG]), "descriptor that differs"),
    "no descriptor though one is promised": (
        raw_zip([replace(streamed(VOCAB), descriptor=b""), CONFIG]),
        "descriptor that differs",
    ),
    "a header of a streamed entry that guesses": (
        raw_zip([replace(streamed(VOCAB), local={"crc": 0, "packed": 1, "unpacked": 0}), CONFIG]),
        "header that differs",
    ),
    # names
    "another name in an extra field": (
        central(extra=unicode_path(CONFIG.name, b"../../etc/passwd")),
        "another name in an extra field",
    ),
    "another name in its own header's extra field": (
        local(extra=unicode_path(CONFIG.name, b"/etc/passwd")),
        "another name in an extra field",
    ),
    "names that differ by case": (
        raw_zip([*GOOD, RawEntry(name=b"BERT/Vocab.TXT")]),
        "two entries are named",
    ),
    "names that differ by form": (
        raw_zip(
            [
                *GOOD,
                RawEntry(name="é".encode(), flags=UTF8),
                RawEntry(name="e\u0301".encode(), flags=UTF8),
            ]
        ),
        "two entries are named",
    ),
    "a file that is a folder, too": (
        raw_zip([*GOOD, RawEntry(name=b"bert")]),
        "lies below 'bert', which is a file",
    ),
    "… the other way round": (raw_zip([RawEntry(name=b"bert/vocab.txt/x"), *GOOD]), "which is a file"),
    "a NUL at the name's end": (raw_zip([*GOOD, RawEntry(name=b"x\0")]), "odd name"),
    "no name": (raw_zip([*GOOD, RawEntry(name=b"")]), "an entry has no name"),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_zip_that_says_two_things_is_refused(tmp_path: Path, kind: str) -> None:
    data, message = LIES[kind]
    with pytest.raises(UnfitZipError, match=message) as raised:
        read(tmp_path, data)
    assert str(raised.value).isprintable()


def test_a_directory_of_a_million_entries_is_not_read_into_memory(tmp_path: Path) -> None:
    """zipfile takes some 500 bytes an entry before anybody can count them."""
    entry = struct.pack("<4sHHHHHHLLLHHHHHLL", b"PK\x01\x02", *([20] * 2), *([0] * 14))
    path = tmp_path / "a.zip"
    path.write_bytes(raw_zip([], directory=entry * 1_000_000))
    program = (
        "import resource, sys; from pathlib import Path; from bertir.zip_check import *\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n with checked_zip(Path(sys.argv[1])): pass\n"
        "except UnfitZipError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )
    message, kilobytes = done.stdout.splitlines()
    assert "over the limit" in message
    assert int(kilobytes) < 20_000


def test_zips_within_zips_cost_no_more_than_their_bytes(tmp_path: Path) -> None:
    """A 42.zip: five storeys of zips, each of sixteen of the one below; 16^5 MB, if one opened them."""
    data = raw_zip([RawEntry(name=b"0", data=bytes(1 << 20), method=DEFLATED)])
    for _ in range(4):
        data = raw_zip([RawEntry(name=b"%d.zip" % n, data=data, method=DEFLATED) for n in range(16)])
    found = read(tmp_path, data)
    assert len(found) == 16
    assert sum(map(len, found.values())) < 200 * len(data)


@pytest.mark.parametrize("program", ["git", "zip", "bsdtar", "jar", "python"])
def test_zips_as_other_programs_write_them_are_read(tmp_path: Path, program: str) -> None:
    if program != "python" and not shutil.which(program):
        pytest.skip(f"there is no {program} here")
    folder = tmp_path / "files" / "bert"
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_bytes(VOCAB.data)
    (folder / "model").write_bytes(b"\0" * 999)
    path = tmp_path / "made.zip"
    author = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    commands = {
        "git": [
            ["git", "init", "--quiet", "."],
            ["git", "add", "."],
            ["git", *author, "commit", "--quiet", "-m", "x"],
            ["git", "archive", "--format=zip", "-o", str(path), "HEAD"],
        ],
        "zip": [["zip", "-q", "-r", str(path), "bert"]],
        "bsdtar": [["bsdtar", "--format", "zip", "-cf", str(path), "."]],
        "jar": [["jar", "--create", "--file", str(path), "bert"]],
        "python": [[sys.executable, "-m", "zipfile", "--create", str(path), "bert"]],
    }
    for command in commands[program]:
        subprocess.run(command, cwd=folder.parent, check=True, capture_output=True)
    with checked_zip(path) as opened:
        [vocab] = [entry for entry in opened.files if entry.filename.endswith("vocab.txt")]
        assert opened.archive.read(vocab) == VOCAB.data


def test_a_stream_of_unknown_length_as_python_writes_it_is_read(tmp_path: Path) -> None:
    class Pipe:
        """What can't be sought in, so that zipfile writes descriptors."""

        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

        def flush(self) -> None:
            pass

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("vocab.txt", VOCAB.data)
        with archive.open("large", "w", force_zip64=True) as file:
            file.write(b"x" * 500)
    assert read(tmp_path, pipe.data) == {"vocab.txt": VOCAB.data, "large": b"x" * 500}
