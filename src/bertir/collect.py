"""Garbage collection: what wasn't used for long is removed from the store. All of it can be fetched or built again.

Nothing that a running build uses is taken. Whatever a build finds, takes or adds gets that moment as its mtime
(`Store._use`), and each build holds a lease that tells when it began; so what was last used before the first of the running
builds began is used by none of them. That is looked at again under a lock at the moment of removal.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.emptying import remove
from bertir.locking import folder_lock, locked_if_free
from bertir.store import VIRTUALENVS, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bertir.store import Store

DAY = 24 * 3600.0
DEFAULT_AGE = 30 * DAY


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What to remove.

    Args:
        older_than: seconds since the last use; None is any age.
        max_size: bytes that may stay; of the rest the longest unused go first.
        dry_run: say what would go, and remove nothing.
    """

    older_than: float | None = None
    max_size: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that can be removed, with how many bytes that frees, and when it was used last."""

    path: Path
    size: int
    used_ns: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was removed, or would be.

    Args:
        in_use: bytes that the rules would have removed too, and a running build may be using.
        kept: bytes that are left.
    """

    objects: int
    records: int
    downloads: int
    logs: int
    virtualenvs: int
    bytes: int
    kept: int
    in_use: int
    users: int
    dry_run: bool


def collect(store: Store, rules: Rules) -> Collected:
    """Remove from the store what the rules say.

    Raises:
        StoreError: something can't be removed, or the clock was set back while a build runs.
    """
    if not rules.dry_run:
        store.sweep()
    now = store.now()
    users = store.users()
    later = store.now()
    if any(began > later for began in users):
        raise StoreError(
            "the clock was set back since a build began that still runs, and nobody can tell what it uses",
            advice="Run it again when that build has ended.",
        )
    unused_before = min([now, *users])
    everything = sorted(_items(store), key=lambda item: item.used_ns)
    chosen = _chosen(everything, rules, now)
    free = [item for item in chosen if item.used_ns < unused_before]
    gone = free if rules.dry_run else [item for item in free if _remove(store, item, unused_before)]
    paths = {item.path for item in gone}
    return Collected(
        objects=_count(store, "objects", gone),
        records=_count(store, "records", gone),
        downloads=_count(store, "downloads", gone),
        logs=_count(store, "logs", gone),
        virtualenvs=_count(store, VIRTUALENVS, gone),
        bytes=sum(item.size for item in gone),
        kept=sum(item.size for item in everything if item.path not in paths),
        in_use=sum(item.size for item in chosen if item.path not in paths),
        users=len(users),
        dry_run=rules.dry_run,
    )


def _chosen(everything: Iterable[Item], rules: Rules, now: int) -> list[Item]:
    """Give what the rules would remove, the longest unused first."""
    items = list(everything)
    left = sum(item.size for item in items)
    chosen = []
    for item in items:
        too_old = rules.older_than is not None and now - item.used_ns >= rules.older_than * 1e9
        too_much = rules.max_size is not None and left > rules.max_size
        if too_old or too_much:
            chosen.append(item)
            left -= item.size
    return chosen


def _items(store: Store) -> Iterator[Item]:
    patterns = ("objects/*/*", "records/*/*.json", "downloads/*", "logs/*", "hints/*", f"{VIRTUALENVS}/*")
    for pattern in patterns:
        for path in store.root.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # gone since: another collector's
                status = path.lstat()
                size = _size(path) if pattern.startswith(VIRTUALENVS) else status.st_size
                yield Item(path=path, size=size, used_ns=status.st_mtime_ns)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def _remove(store: Store, item: Item, unused_before: int) -> bool:
    """Remove one thing, unless it was used since it was looked at."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.writing(f"remove {item.path.name}"))
        if item.path.parent.name == "downloads":
            # Who downloads holds this lock, and may wait for a silent server for long.
            lock = store.root / "locks" / f"fetch-{item.path.stem}"
            if not stack.enter_context(locked_if_free(lock)):
                return False
        stack.enter_context(folder_lock(store.root / "objects", alone=True))
        try:
            if item.path.lstat().st_mtime_ns >= unused_before:
                return False
        except FileNotFoundError:
            return False
        if item.path.parent.name == VIRTUALENVS:
            # Under its name it is whole or not there, however this process ends.
            scratch = stack.enter_context(store.temporary_folder())
            item.path.rename(scratch / item.path.name)
        else:
            remove(item.path)
        return True


def _count(store: Store, folder: str, items: Iterable[Item]) -> int:
    return sum(item.path.is_relative_to(store.root / folder) for item in items)
