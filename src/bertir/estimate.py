"""What work takes on a disk, by factors that were measured (docs/decisions.md); and what the image takes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bertir.errors import NoRoomError
from bertir.frozen import dataclass
from bertir.room import free_bytes, megabytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.lock import ImageLock
    from bertir.store import Store

# Of what a layer of wheels takes, what the wheels themselves do (49 wheels: 345 MB; their layer: 889 MB).
_WHEELS_OF_LAYER = 0.38
_SOURCES_OF_COMPILED = 0.82  # 71 MB of sources, 87 MB compiled
ADVICE = "Free some room (`invoke gc`, or `invoke clean --store`), or set BERTIR_STORE to a larger disk."


@dataclass(frozen=True, kw_only=True)
class Work:
    """One part of a build, as a disk sees it.

    Args:
        name: for the message.
        stays: bytes that it adds for good.
        passing: bytes that it needs on top while it lasts.
    """

    name: str
    stays: int
    passing: int = 0


def peak(works: Iterable[Work]) -> int:
    """Give the most bytes that some work, done one after the other, takes at once."""
    before = most = 0
    for work in works:
        most = max(most, before + work.stays + work.passing)
        before += work.stays
    return most


def require_room_for_image(store: Store, lock: ImageLock, engine_folder: Path | None) -> None:
    """Refuse to assemble and load the image where a disk has not the room: the store's, or the engine's own.

    `engine_folder` is where the engine keeps images, if that is on this machine.

    Raises:
        NoRoomError: nothing was begun.
    """
    works = image_works(store, lock)
    size = sum(layer.size for layer in lock.layers)
    loaded = Work(name="the image in the engine", stays=size, passing=size)  # it unpacks the archive first
    with contextlib.suppress(OSError):
        root = store.root
        if free_bytes(root) < peak(works):
            raise refusal("image", root, works, peak(works), ADVICE)
        if engine_folder is not None and engine_folder.is_dir():
            loading = [*works, loaded] if same_disk(engine_folder, root) else [loaded]
            if free_bytes(engine_folder) < peak(loading):
                advice = "Free some room there (`docker system df` shows what takes it), or name another engine by DOCKER_HOST."
                raise refusal("image", engine_folder, loading, peak(loading), advice)


def refusal(what: str, place: Path, works: list[Work], needed: int, advice: str) -> NoRoomError:
    parts = ", ".join(f"{work.name} {megabytes(work.stays)}" for work in works if work.stays)
    passing = needed - sum(work.stays for work in works)
    beside = f", and {megabytes(passing)} beside them for a time" if passing > 0 else ""
    return NoRoomError(
        f"there is no room for this {what} on the disk of {place}"
        f"\n  needed {megabytes(needed)}: {parts}{beside}"
        f"\n  free   {megabytes(free_bytes(place))}",
        advice=advice + " Nothing was begun.",
    )


def same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def image_works(store: Store, lock: ImageLock) -> list[Work]:
    """What assembling the image writes, if the engine lacks it: packages, wheels, layers."""
    missing = [layer for layer in lock.layers if not lies_in(store, layer.digest)]
    works = []
    for layer in missing:
        fetched = 0
        if layer.name == "debian":
            fetched = sum(package.size for package in lock.debian if not lies_in(store, package.digest))
        elif layer.name == "wheels":
            absent = sum(not lies_in(store, pin.digest) for pin in lock.wheels)
            fetched = int(layer.size * _WHEELS_OF_LAYER * absent / max(len(lock.wheels), 1))
        else:  # the sources as one tar, what the container made of them, and the layer of that
            fetched = int(layer.size * (1 + _SOURCES_OF_COMPILED))
        works.append(Work(name=f"the layer {layer.name}", stays=fetched + layer.size))
    return works


def virtualenv_works(store: Store, lock: ImageLock) -> list[Work]:
    """What making the virtualenv of `--engine local` writes: wheels, and what two layers of the image have."""
    sizes = {layer.name: layer.size for layer in lock.layers}
    absent = sum(not lies_in(store, pin.digest) for pin in lock.wheels)
    fetched = int(sizes["wheels"] * _WHEELS_OF_LAYER * absent / max(len(lock.wheels), 1))
    return [Work(name="the virtualenv", stays=fetched + sizes["wheels"] + sizes["pyc"])]


def lies_in(store: Store, digest: Digest) -> bool:
    # Not by `find`, which makes this moment that of its last use: a build that doesn't need it doesn't use it.
    return store.path(digest).exists()
