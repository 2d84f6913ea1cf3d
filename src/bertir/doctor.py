"""See whether a store is sound: every object is hashed, every record read. What is damaged is removed, to be made anew."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.store import is_damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertir.progress import Progress
    from bertir.store import Artifact, Store


_FOLDER_NAME = re.compile("[0-9a-f]{2}")
_NO_FILE = "it is no regular file"


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
        paths, strangers = _listed(store)
        findings += strangers
        total = sum(_size(path) for path in paths)
        progress.say("doctor", f"reading {len(paths)} objects, {total / 1e6:.0f} MB")
        for path in paths:
            findings += _object(store, path)
        records = [path for path, _ in _paths(store.root / "records")]
        incomplete = 0
        for path in records:
            try:
                incomplete += not _is_complete(store, store.read_record(path).artifact)
            except FileNotFoundError:
                continue
            except OSError as error:
                findings.append(_removed(store, path, _unreadable(error)))
            except ValueError:
                findings.append(_removed(store, path, "it is damaged"))
        parts = [path for path, _ in _paths(store.root / "downloads") if path.suffix == ".part"]
    return Examined(
        objects=len(paths),
        bytes=total,
        records=len(records),
        incomplete=incomplete,
        parts=len(parts),
        abandoned=len(store.abandoned()),
        findings=tuple(findings),
    )


def _is_complete(store: Store, artifact: Artifact) -> bool:
    # Not by `has_all`, for which that would be a use: nothing would ever be old.
    return all(os.access(store.path(blob.digest), os.F_OK) for blob in artifact.files.values())


def _listed(store: Store) -> tuple[list[Path], list[Finding]]:
    """Give what lies where objects do, of whatever kind; and what lay where none does, removed."""
    paths: list[Path] = []
    findings: list[Finding] = []
    for folder in sorted((store.root / "objects").iterdir()):
        try:
            if not stat.S_ISDIR(folder.lstat().st_mode) or not _FOLDER_NAME.fullmatch(folder.name):
                findings.append(_removed(store, folder, "it is no folder of objects"))
                continue
            paths += sorted(folder.iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            wrong = f"what is in it can't be listed: {error.strerror or error}"
            findings.append(Finding(path=_shown(store, folder), wrong=wrong, done="left as it is"))
    return paths, findings


def _object(store: Store, path: Path) -> Iterator[Finding]:
    """Say what is wrong with one object: what is no object, or not what its name says."""
    name = path.parent.name + path.name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield _removed(store, path, _NO_FILE)
            return
        found = Digest.of_file(path).hex
    except FileNotFoundError:
        return  # collected meanwhile
    except OSError as error:
        yield _removed(store, path, _unreadable(error))
        return
    if found != name:
        yield _removed(store, path, f"its digest is {found}")
    elif status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        done = "made read-only"
        try:
            path.chmod(0o444)
        except OSError as error:
            done = f"could not be made read-only: {error.strerror}"
        yield Finding(path=_shown(store, path), wrong="it could be written to", done=done)


def _unreadable(error: OSError) -> str:
    if not is_damage(error):
        raise error
    return f"it can't be read: {error.strerror or error}"


def _removed(store: Store, path: Path, wrong: str) -> Finding:
    done = "removed"
    try:
        store.discard(path)
    except OSError as error:  # what else is damaged is worth knowing all the same
        done = f"could not be removed: {error.strerror}"
    return Finding(path=_shown(store, path), wrong=wrong, done=done)


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
            found.append((path, _size(path)))
    return sorted(found)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # collected meanwhile, or damaged, which is seen when it is read
        return 0
