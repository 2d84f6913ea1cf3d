"""See whether a store is sound: every object is hashed, every record read. What is damaged is removed, to be made anew."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.locking import folder_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertir.progress import Progress
    from bertir.store import Artifact, Store


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was wrong: which file of the store, in which way, and what was done."""

    path: str
    wrong: str
    done: str = "removed"


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What a scan found.

    Args:
        incomplete: records whose objects have been collected, or removed now; the steps run again when asked for.
        parts: unfinished downloads; whether one is right is known when it is whole.
        abandoned: temporary folders of killed processes; the next build removes them.
    """

    objects: int
    bytes: int
    records: int
    incomplete: int
    parts: int
    abandoned: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        return not self.findings


def examine(store: Store, progress: Progress) -> Examined:
    """Read the whole store. Builds may go on meanwhile.

    Raises:
        StoreError: a file can't be read or removed.
    """
    findings: list[Finding] = []
    with store.writing("examine the store"):
        objects = _paths(store.root / "objects")
        total = sum(size for _, size in objects)
        progress.say("doctor", f"reading {len(objects)} objects, {total / 1e6:.0f} MB")
        for path, _ in objects:
            findings += _object(store, path)
        records = [path for path, _ in _paths(store.root / "records")]
        incomplete = 0
        for path in records:
            try:
                incomplete += not _is_complete(store, store.read_record(path).artifact)
            except FileNotFoundError:
                continue
            except ValueError:
                findings += _removed(store, path, "it is damaged")
        parts = [path for path, _ in _paths(store.root / "downloads") if path.suffix == ".part"]
    return Examined(
        objects=len(objects),
        bytes=total,
        records=len(records),
        incomplete=incomplete,
        parts=len(parts),
        abandoned=len(store.abandoned()),
        findings=tuple(findings),
    )


def _is_complete(store: Store, artifact: Artifact) -> bool:
    # Not by `has_all`, for which that would be a use: nothing would ever be old.
    return all(store.path(blob.digest).exists() for blob in artifact.files.values())


def _object(store: Store, path: Path) -> Iterator[Finding]:
    """Say what is wrong with one object: what is no object, or not what its name says."""
    name = path.parent.name + path.name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield from _removed(store, path, "it is no regular file")
            return
        found = Digest.of_file(path).hex
    except FileNotFoundError:
        return  # collected meanwhile
    if found != name:
        yield from _removed(store, path, f"its digest is {found}")
    elif status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        path.chmod(0o444)
        yield Finding(path=_shown(store, path), wrong="it could be written to", done="made read-only")


def _removed(store: Store, path: Path, wrong: str) -> Iterator[Finding]:
    with folder_lock(store.root / "objects", alone=True):
        path.unlink(missing_ok=True)
    yield Finding(path=_shown(store, path), wrong=wrong)


def _shown(store: Store, path: Path) -> str:
    return str(path.relative_to(store.root))


def store_files(store: Store) -> list[tuple[Path, int]]:
    """Give every file of the store with its bytes."""
    return _paths(store.root)


def _paths(folder: Path) -> list[tuple[Path, int]]:
    found = []
    for where, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(where) / name
            try:
                found.append((path, path.lstat().st_size))
            except FileNotFoundError:
                continue
    return sorted(found)
