"""A disk, or whoever else writes to the store, that changes one byte of what is stored, or notes what isn't so."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.hint import sampled
from bertir.mark import Mark

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.store import Store

LIE = Digest.of_bytes(b"other bytes")


def flip(path: Path) -> None:
    """Flip one bit of the byte in the middle of a file. It keeps its size, its mode and its times."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def lie(store: Store, path: Path, digest: Digest = LIE, **changed: int) -> Path:
    """Write a hint that is whole, and wrong."""
    status = path.stat()
    with path.open("rb") as file:
        samples = sampled(file, status.st_size)
    mark = asdict(Mark.of(status)) | changed
    value: dict[str, Any] = {"digest": str(digest), "digest_of": mark, "samples": str(samples)}
    place = store.root / "hints" / f"{status.st_dev:x}-{status.st_ino:x}"
    place.write_text(json.dumps(value | {"sha256": Digest.of_json(value).hex}), encoding="ascii")
    return place
