"""Bundles: every material of a build in one tar, for an archive or a machine without a network.

    bertir-bundle.json      {"format": 1, "materials": [{"name", "digest", "size"}, …]}, sorted
    objects/<sha256>        one per material, in that order

The same materials give the same bytes. On reading, only materials that the build pins are taken, by digest.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from bertir.digest import Digest, read_chunks
from bertir.errors import FetchError
from bertir.redact import shown
from bertir.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertir.progress import Progress
    from bertir.store import Store

FORMAT = 1
INDEX = "bertir-bundle.json"
MAX_INDEX_BYTES = 10_000_000


def write_bundle(store: Store, materials: Mapping[str, Digest], path: Path, progress: Progress) -> int:
    """Write all `materials` (name -> digest, all in the store) to `path`, whole or not at all; give its bytes.

    Raises:
        FetchError: a material isn't in the store, or `path` can't be written. NoRoomError: the disk is full.
    """
    entries = []
    for name, digest in sorted(materials.items()):
        blob = store.find(digest)
        if blob is None:
            raise FetchError(f"{name} is not in the store", advice="Run `invoke fetch` first.")
        entries.append((name, blob))
    index = {
        "format": FORMAT,
        "materials": [
            {"name": name, "digest": str(blob.digest), "size": blob.size} for name, blob in entries
        ],
    }
    with (
        whole_file(
            path, FetchError, size=sum(size for _, size in {(b.digest, b.size) for _, b in entries})
        ) as file,
        tarfile.open(fileobj=file, mode="w:", format=tarfile.GNU_FORMAT) as tar,
    ):
        data = json.dumps(index, indent=1, sort_keys=True).encode() + b"\n"
        tar.addfile(_entry(INDEX, len(data)), io.BytesIO(data))
        written = set()
        for name, blob in entries:
            if blob.digest in written:  # two names, one content
                continue
            written.add(blob.digest)
            with store.checked(blob, what=name).open("rb") as content:
                tar.addfile(_entry(f"objects/{blob.digest.hex}", blob.size), content)
    size = path.stat().st_size
    progress.say("fetch", f"{len(entries)} materials, {size / 1e6:.1f} MB, in {path}")
    return size


def read_bundle(store: Store, materials: Mapping[str, Digest], path: Path, progress: Progress) -> int:
    """Take from the bundle what the build pins and the store lacks; give how many objects were taken.

    Raises:
        FetchError: the file isn't a bundle. DigestMismatchError: an object isn't what its name says.
    """
    wanted = {digest: name for name, digest in materials.items() if store.find(digest) is None}
    taken = set()
    try:
        with tarfile.open(path, "r:") as tar:
            listed = _read_index(tar, path)
            for member in tar:
                digest = _object_digest(member)
                if digest is None or digest not in wanted:
                    continue
                file = cast("BinaryIO", tar.extractfile(member))
                store.add(read_chunks(file), expected=digest, what=wanted[digest])
                taken.add(digest)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise FetchError(
            f"{path} is not a whole bundle: {error}",
            advice="Make it again by `invoke fetch --bundle FILE`.",
        ) from error
    except OSError as error:
        raise FetchError(f"can't read the bundle {path}: {error.strerror}") from error
    # tarfile ends quietly at a damaged header: the index says what must have come.
    if lost := sorted(wanted[digest] for digest in listed & wanted.keys() - taken):
        raise FetchError(
            f"{path} is not a whole bundle: it lacks {', '.join(lost)}",
            advice="Make it again by `invoke fetch --bundle FILE`.",
        )
    progress.say("fetch", f"{len(taken)} of {len(wanted)} missing materials taken from {path}")
    return len(taken)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def _read_index(tar: tarfile.TarFile, path: Path) -> set[Digest]:
    first = tar.next()
    if (
        first is None
        or first.name != INDEX
        or not first.isreg()
        or first.issparse()
        or first.size > MAX_INDEX_BYTES
    ):
        raise FetchError(
            f"{path} is not a bundle: there is no {INDEX} at its start",
            advice="Make one by `invoke fetch --bundle FILE`.",
        )
    try:
        index: Any = json.loads(cast("BinaryIO", tar.extractfile(first)).read())
        if index["format"] != FORMAT:
            raise FetchError(
                f"{path} is a bundle of format {shown(index['format'])}, and this is bertir for {FORMAT}",
                advice="Make one by `invoke fetch --bundle FILE`.",
            )
        return {Digest.from_str(entry["digest"]) for entry in index["materials"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(
            f"{path} is not a bundle: its index can't be read: {shown(error)}",
            advice="Make one by `invoke fetch --bundle FILE`.",
        ) from error


def _object_digest(member: tarfile.TarInfo) -> Digest | None:
    folder, _, name = member.name.partition("/")
    if folder != "objects" or not member.isreg() or member.issparse():  # sparse: small here, huge there
        return None
    try:
        return Digest(name)
    except ValueError:
        return None
