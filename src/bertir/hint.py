"""Digests of large files, remembered: a build with nothing to do needn't read a checkpoint, or what it published, again.

    hints/<device>-<inode>   in the store: the file's mark (mark.py) when it was read, and the sha256 that was found

A hint is no proof, and nothing is made on the word of one: it leads to "nothing to do", or the file is read after all,
before a step runs and before anything is published (`confirm`). It holds while the file is the same one, as long, and has
the same times, the kernel's own time of change among them. A file that changed a moment before it was read is not
remembered (Git calls it racily clean): it could change once more and have the same times. What hints can't see is bytes
that change and no time with them: damage by the disk. `--paranoid` reads everything, as `invoke verify` and `check` do.
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
from bertir.mark import Mark
from bertir.small_file import read_small
from bertir.staging import staged_file
from bertir.store_folder import WORK

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader
    from pathlib import Path

FOLDER = "hints"
LARGE_BYTES = 1 << 20  # less is read in a millisecond, and a hint would save nothing
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
                if (hint := self._load(mark)) is not None and only(hint):
                    if built_from:
                        self._unread[path] = (mark, hint)
                    return hint
            return self._found(path, file, mark)

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
            self._save(mark, digest)
        return digest

    def _place(self, mark: Mark) -> Path:
        return self._root / FOLDER / f"{mark.device:x}-{mark.inode:x}"

    def _load(self, mark: Mark) -> Digest | None:
        """Give the digest that is noted of a file with this very mark; a hint that isn't as it was written is none."""
        try:
            raw = json.loads(read_small(self._place(mark), _MOST_BYTES))
            if raw.pop("sha256") == Digest.of_json(raw).hex and raw.pop("digest_of") == asdict(mark):
                return Digest.from_str(raw["digest"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return None

    def _save(self, mark: Mark, digest: Digest) -> None:
        value = {"digest": str(digest), "digest_of": asdict(mark)}
        data = json.dumps(value | {"sha256": Digest.of_json(value).hex}).encode()
        # Renamed into place, so that of two processes' hints one is there. Not synced: half of one is none.
        with contextlib.suppress(OSError), staged_file(self._root / "tmp", WORK) as (path, descriptor):
            os.write(descriptor, data)
            path.replace(self._place(mark))


def _other_bytes(path: Path, believed: Digest, found: Digest, *, written_to: bool) -> ConfigurationError:
    seen = "was written to since this build began" if written_to else "its size and times are the same"
    advice = "Is a training still running?" if written_to else "Its disk may be failing (dmesg)."
    return ConfigurationError(
        f"{path} holds other bytes than when it was read last, and {seen}\n  then {believed}\n  now  {found}",
        advice=f"{advice} See whether it is the file that you mean: the next run reads it anew.",
    )
