"""Digests of large files, remembered: a build with nothing to do needn't read a checkpoint, or what it published, again.

    hints/<device>-<inode>   in the store: the file's mark (mark.py) when it was read, the sha256 that was found, and that
                             of samples of it

A hint is no proof, and nothing is made on the word of one: it leads to "nothing to do", or the file is read after all,
before a step runs and before anything is published (`confirm`). It holds while the file is the same one, as long, has
the same times, the kernel's own time of change among them, and the same bytes where samples are taken. A file that changed
a moment before it was read is not remembered (Git calls it racily clean): it could change once more and have the same times.

A mark alone says enough where a kernel keeps the times. Read-only images (squashfs, ISO 9660) and file systems in user
space (sshfs, rclone) make up numbers and times of change, so that another checkpoint of the same shape, mounted at the
same place, may have the same mark. Its weights are others, and the samples show it: they are spread over the whole file,
and the last one is its end, where a classifier's weights lie, which may be all that a training changed.

What this process wrote itself is remembered as it was when it was complete, in a folder of ours, which nobody else knew by name
(`written`), if that is what is in its place then (`published`).

What hints can't see is bytes that change between the samples and no time with them: damage by the disk, on such a file system
a change of a few weights, or in memory (tmpfs) what a program writes by a mapping that it made before. `--paranoid` reads everything, as `invoke verify` and `check` do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.mark import TICK_NS, Mark
from bertir.small_file import read_small
from bertir.staging import staged_file
from bertir.store_folder import WORK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import BufferedReader
    from pathlib import Path

FOLDER = "hints"
LARGE_BYTES = 1 << 20  # less is read in a millisecond, and a hint would save nothing
# 1 MiB in all: of a file in memory 0.7 ms, from a disk 3 ms; 64 of 4 KiB were 0.3 and 3.4 ms, and see less of the end.
SAMPLES, SAMPLE_BYTES = 16, 64 << 10
_MOST_BYTES = 4096


class Hints:
    """The hints of one store.

    Args:
        root: the store's folder.
        believed: otherwise every file is read; what is found is remembered all the same.
    """

    def __init__(self, root: Path, *, believed: bool) -> None:
        self._root = root
        self._believed = believed
        self._read: dict[Path, tuple[Mark, Digest]] = {}  # by this process
        self._unread: dict[Path, tuple[Mark, Digest]] = {}  # what was believed, and is to be built from
        self._confirming = threading.Lock()

    def digest(
        self, path: Path, *, built_from: bool = False, only: Callable[[Digest], bool] = lambda _: True
    ) -> Digest:
        """Give a file's digest: by its hint, if it has one; else by reading it.

        Args:
            path: the file.
            built_from: what is made depends on it, so that `confirm` is to read it.
            only: which hints are believed.

        Raises:
            OSError: it can't be read.
        """
        with path.open("rb") as file:
            mark = Mark.of(os.fstat(file.fileno()))
            if self._believed and mark.size >= LARGE_BYTES:
                if self._read.get(path, (None,))[0] == mark:
                    return self._read[path][1]
                if (hint := self._load(mark, file)) is not None and only(hint):
                    if built_from:
                        self._unread[path] = (mark, hint)
                    return hint
            return self._found(path, file, mark)

    def read(self, path: Path, mark: Mark, digest: Digest, begun: int) -> None:
        """Remember what somebody found who read a file.

        Args:
            path: the file.
            mark: how it was, before and after.
            digest: what was found.
            begun: when the reading began (nanoseconds).
        """
        if mark.size >= LARGE_BYTES and mark.is_settled(begun):
            self._note(path, mark, digest)

    def written(self, staged: Path, files: Mapping[str, Digest]) -> dict[str, tuple[Mark, Digest]]:
        """Give what can be remembered of files that this process wrote, once the folder that they are in has its place.

        So far nobody else knows its name. From then on others may write to them, and whoever does gives them another time of
        change, if the file system's clock has moved since the last one: a tick is waited for, and the folder is touched, to see
        whether it has.
        """
        with contextlib.suppress(OSError):
            marks = {name: Mark.of((staged / name).stat()) for name in files}
            large = {name: mark for name, mark in marks.items() if mark.size >= LARGE_BYTES}
            if large:
                time.sleep(TICK_NS / 1e9)
                os.utime(staged)
            now = staged.stat().st_ctime_ns
            return {
                name: (mark, files[name])
                for name, mark in large.items()
                if max(mark.modified_ns, mark.changed_ns) < now
            }
        return {}

    def published(self, folder: Path, written: Mapping[str, tuple[Mark, Digest]]) -> None:
        """Remember what was written, if it lies in `folder` now, and is as it was."""
        for name, (mark, digest) in written.items():
            self._note(folder / name, mark, digest)

    def _note(self, path: Path, mark: Mark, digest: Digest) -> None:
        """Save a hint of a file that is as `mark` says."""
        with contextlib.suppress(OSError), path.open("rb") as file:
            samples = sampled(file, mark.size)
            if Mark.of(os.fstat(file.fileno())) == mark:
                self._save(mark, digest, samples)

    def confirm(self) -> None:
        """Read what is built from and was only believed so far.

        Raises:
            ConfigurationError: a file isn't what it was said to be.
        """
        with self._confirming:  # another thread's step waits until it is read
            while self._unread:
                path, (mark, believed) = self._unread.popitem()
                # What was believed is given up before it is read: it is noted anew then, if it is to be remembered.
                with contextlib.suppress(OSError):
                    self._place(mark).unlink()
                try:
                    with path.open("rb") as file:
                        now = Mark.of(os.fstat(file.fileno()))
                        found = self._found(path, file, now)
                except OSError as error:
                    raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
                if found != believed:
                    raise _other_bytes(path, believed, found, written_to=now != mark)

    def _found(self, path: Path, file: BufferedReader, mark: Mark) -> Digest:
        """Read a file, and remember what was found if it had settled before and stayed as it was."""
        begun = time.time_ns()
        digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
        if mark.size >= LARGE_BYTES and mark.is_settled(begun) and Mark.of(os.fstat(file.fileno())) == mark:
            self._read[path] = (mark, digest)
            self._save(mark, digest, sampled(file, mark.size))
        return digest

    def _place(self, mark: Mark) -> Path:
        return self._root / FOLDER / f"{mark.device:x}-{mark.inode:x}"

    def _load(self, mark: Mark, file: BufferedReader) -> Digest | None:
        """Give the digest that is noted of a file with this very mark and these samples.

        A hint that isn't as it was written is none.

        Raises:
            OSError: the file can't be read.
        """
        try:
            raw = json.loads(read_small(self._place(mark), _MOST_BYTES))
            if raw.pop("sha256") != Digest.of_json(raw).hex or raw.pop("digest_of") != asdict(mark):
                return None
            digest, samples = Digest.from_str(raw["digest"]), Digest.from_str(raw["samples"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return digest if sampled(file, mark.size) == samples else None

    def _save(self, mark: Mark, digest: Digest, samples: Digest) -> None:
        value = {"digest": str(digest), "digest_of": asdict(mark), "samples": str(samples)}
        data = json.dumps(value | {"sha256": Digest.of_json(value).hex}).encode()
        # Renamed into place, so that of two processes' hints one is there. Not synced: half of one is none.
        with contextlib.suppress(OSError), staged_file(self._root / "tmp", WORK) as (path, descriptor):
            os.write(descriptor, data)
            path.replace(self._place(mark))


def sampled(file: BufferedReader, size: int) -> Digest:
    """Give one digest of samples of a large file: its begin, its end, and as far apart as can be between them."""
    found = hashlib.sha256()
    for number in range(SAMPLES):
        found.update(os.pread(file.fileno(), SAMPLE_BYTES, (size - SAMPLE_BYTES) * number // (SAMPLES - 1)))
    return Digest(found.hexdigest())


def _other_bytes(path: Path, believed: Digest, found: Digest, *, written_to: bool) -> ConfigurationError:
    seen = "was written to since this build began" if written_to else "its size and times are the same"
    advice = "Is a training still running?" if written_to else "Its disk may be failing (dmesg)."
    return ConfigurationError(
        f"{path} holds other bytes than when it was read last, and {seen}\n  then {believed}\n  now  {found}",
        advice=f"{advice} See whether it is the file that you mean: the next run reads it anew.",
    )
