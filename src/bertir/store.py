"""The store: objects by digest, and records that say which objects a derivation gave.

    objects/<2 hex>/<62 hex>    files, read-only, named by the sha256 of their content
    records/<step>/<key>.json   derivation key -> output names and digests
    locks/<name>                flock files, so that each artifact is built once
    downloads/                  what has come of unfinished downloads, kept for the next run (download.py)
    tmp/                        work in progress; renamed into objects/ when whole
    logs/                       of steps that failed

Two levels as in dvc's run cache: a changed input with equal content costs nothing downstream.
Objects are written under a temporary name, synced and renamed, so an object that exists is whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bertir import emptying
from bertir.digest import Digest, HashingWriter, read_chunks, tree_digest
from bertir.errors import BertirError, ConfigurationError, DigestMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


FOLDERS = ("objects", "records", "locks", "tmp", "logs")
# The Cache Directory Tagging Specification: backup programs leave out what holds this file. And by it bertir knows
# its own folder again.
TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# The store of bertir: all of it can be built again.\n"
)
SECONDS_TO_TAKE_LOCK = 60
_SECONDS_BETWEEN_TRIES = 0.05


@dataclass(frozen=True, kw_only=True)
class Blob:
    """One stored file: what it is and how long, not where."""

    digest: Digest
    size: int


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a step gave: named files, each with its digest."""

    files: Mapping[str, Blob]

    @property
    def digest(self) -> Digest:
        return tree_digest({name: blob.digest for name, blob in self.files.items()})

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.files.values())

    def __getitem__(self, name: str) -> Blob:
        return self.files[name]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A derivation's outcome as stored: its artifact, what it was made from, and facts of that run."""

    artifact: Artifact
    derivation: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class StoreError(BertirError):
    """The store can't be read or written."""


class Store:
    """A folder of objects and records. Opening it makes the folder; nothing else is read or kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with _as_store_error(root, "open the store"):
            root.mkdir(parents=True, exist_ok=True, mode=0o755)
            if not (root / TAG).exists():
                _refuse_foreign(root)
                (root / TAG).write_text(TAG_TEXT, encoding="ascii")
            for name in FOLDERS:
                (root / name).mkdir(exist_ok=True, mode=0o755)
            self._sweep()

    # objects

    def path(self, digest: Digest) -> Path:
        return self.root / "objects" / digest.hex[:2] / digest.hex[2:]

    def has(self, blob: Blob) -> bool:
        """Whether the object is there with the recorded size (its bytes are checked where they matter)."""
        try:
            return self.path(blob.digest).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def has_all(self, artifact: Artifact) -> bool:
        return all(self.has(blob) for blob in artifact.files.values())

    def find(self, digest: Digest) -> Blob | None:
        """Look an object up by digest alone, as pins do which don't know the size."""
        try:
            return Blob(digest=digest, size=self.path(digest).stat().st_size)
        except FileNotFoundError:
            return None

    def add(self, chunks: Iterator[bytes], *, expected: Digest | None = None, what: str = "content") -> Blob:
        """Stream bytes in. `expected` makes any other content a `DigestMismatchError` that leaves nothing."""

        def write(sink: HashingWriter) -> None:
            for chunk in chunks:
                sink.write(chunk)

        return self.add_written(write, expected=expected, what=what)

    def add_written(
        self, write: Callable[[HashingWriter], None], *, expected: Digest | None = None, what: str = "content"
    ) -> Blob:
        """Like `add`, for a writer that wants something to write into (tarfile does)."""
        with _as_store_error(self.root, f"store {what}"), self.temporary_folder() as folder:
            path = folder / "object"
            with path.open("xb") as file:
                sink = HashingWriter(file)
                write(sink)
                file.flush()
                os.fsync(file.fileno())
            if expected is not None and sink.digest != expected:
                raise DigestMismatchError(
                    f"{what}: the digest is wrong\n  expected {expected}\n  found    {sink.digest}"
                    f" ({sink.size} bytes)",
                    advice="It was not kept. If the change is meant, a maintainer pins it by `invoke lock`;"
                    " otherwise ask whoever runs the mirror.",
                )
            path.chmod(0o444)
            target = self.path(sink.digest)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            return Blob(digest=sink.digest, size=sink.size)

    def add_bytes(self, data: bytes, *, expected: Digest | None = None, what: str = "content") -> Blob:
        present = self.find(Digest.of_bytes(data))
        if present is not None and present.size == len(data) and expected in (None, present.digest):
            return present  # a build with nothing to do writes nothing
        return self.add(iter([data]), expected=expected, what=what)

    def add_file(self, path: Path, *, expected: Digest | None = None, what: str = "") -> Blob:
        with path.open("rb") as file:
            return self.add(read_chunks(file), expected=expected, what=what or path.name)

    def checked(self, blob: Blob, *, what: str) -> Path:
        """Give an object's path once its bytes were read and found to be the right ones.

        Raises:
            StoreError: they are not; the object is removed, so that the next run makes it anew.
        """
        path = self.path(blob.digest)
        with self._present(what):
            found = Digest.of_file(path)
        if found != blob.digest:
            raise self._damaged(blob, found, what)
        return path

    @contextlib.contextmanager
    def _present(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(
                f"the store no longer holds {what}", advice="Run the same command again; it is made anew."
            ) from error

    def _damaged(self, blob: Blob, found: Digest, what: str) -> StoreError:
        self.path(blob.digest).unlink(missing_ok=True)
        return StoreError(
            f"the store held other bytes for {what} than it should"
            f"\n  expected {blob.digest}\n  found    {found}",
            advice="The damaged object was removed; run the same command again.",
        )

    def read(self, blob: Blob, *, what: str) -> Iterator[bytes]:
        """Stream an object, hashing it on the way.

        Raises:
            StoreError: at the end, if the bytes were not the right ones; the object is removed.
        """
        found = hashlib.sha256()
        with self._present(what), self.path(blob.digest).open("rb") as file:
            for chunk in read_chunks(file):
                found.update(chunk)
                yield chunk
        if found.hexdigest() != blob.digest.hex:
            raise self._damaged(blob, Digest(found.hexdigest()), what)

    def copy_out(self, blob: Blob, target: Path, *, what: str) -> None:
        """Copy an object to a new file outside, checking its bytes on the way.

        Raises:
            StoreError: the stored bytes are damaged (nothing is left at `target`).
        """
        try:
            with target.open("xb") as file:
                for chunk in self.read(blob, what=what):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except StoreError:
            target.unlink()
            raise

    # records

    def _record_path(self, step: str, key: Digest) -> Path:
        return self.root / "records" / step / f"{key.hex}.json"

    def load_record(self, step: str, key: Digest) -> Record | None:
        """Give the record if it is there, readable, and all its objects are."""
        try:
            raw = json.loads(self._record_path(step, key).read_bytes())
            files = {
                name: Blob(digest=Digest.from_str(entry["digest"]), size=entry["size"])
                for name, entry in raw["files"].items()
            }
            record = Record(artifact=Artifact(files=files), derivation=raw["derivation"], facts=raw["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # a damaged record is as good as none: the step runs again and replaces it
        return record if self.has_all(record.artifact) else None

    def save_record(self, step: str, key: Digest, record: Record) -> None:
        value = {
            "derivation": record.derivation,
            "facts": record.facts,
            "files": {
                name: {"digest": str(blob.digest), "size": blob.size}
                for name, blob in record.artifact.files.items()
            },
        }
        data = json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
        target = self._record_path(step, key)
        with _as_store_error(self.root, f"record {step}"), self.temporary_folder() as folder:
            target.parent.mkdir(parents=True, exist_ok=True)
            path = folder / "record"
            path.write_bytes(data)
            path.replace(target)

    # work in progress

    @contextlib.contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """A private folder on the store's own disk, removed at the end whatever happens."""
        with _as_store_error(self.root, "make a temporary folder"):
            folder = Path(tempfile.mkdtemp(dir=self.root / "tmp"))
        # Held while the folder is in use; the kernel lets go of it when the process dies, however it dies.
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield folder
        finally:
            emptying.removed(folder)
            os.close(descriptor)

    def is_abandoned(self, folder: Path) -> bool:
        """Whether a temporary folder belongs to no living process."""
        try:
            age = time.time() - folder.stat().st_mtime
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return age > SECONDS_TO_TAKE_LOCK  # younger: its owner may be about to lock it
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        for folder in (self.root / "tmp").iterdir():
            if self.is_abandoned(folder):
                emptying.removed(folder)

    @contextlib.contextmanager
    def lock(
        self, name: str, *, waiting: Callable[[], None] = lambda: None, after: float = 0.0
    ) -> Iterator[None]:
        """Hold a lock between processes; the kernel lets go of it when a process dies.

        `waiting` is called once, if another process still holds it after so many seconds.
        """
        path = self.root / "locks" / name
        with _as_store_error(self.root, "take a lock"):
            file = path.open("ab")
        with file:
            tells = time.monotonic() + after
            while not _try_lock(file):
                if time.monotonic() >= tells:
                    waiting()
                    fcntl.flock(file, fcntl.LOCK_EX)
                    break
                time.sleep(_SECONDS_BETWEEN_TRIES)
            yield

    def writing(self, doing: str) -> contextlib.AbstractContextManager[None]:
        """Within it, an `OSError` is a `StoreError`, as for what the store writes itself."""
        return _as_store_error(self.root, doing)

    def size_of(self, digests: Iterable[Digest]) -> int:
        """Bytes of those of `digests` that the store holds."""
        return sum(blob.size for digest in set(digests) if (blob := self.find(digest)) is not None)

    def clear(self) -> None:
        """Remove everything that the store holds; and its folder, unless something else is in it."""
        with _as_store_error(self.root, "remove the store"):
            for name in FOLDERS:
                shutil.rmtree(self.root / name)
            (self.root / TAG).unlink()
            if not any(self.root.iterdir()) and not self.root.is_symlink():
                self.root.rmdir()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def default_root(environment: Mapping[str, str]) -> Path:
    """`BERTIR_STORE`, else `bertir` under the user's cache directory (XDG base directories).

    Raises:
        ConfigurationError: `BERTIR_STORE` is relative, or there is no home directory.
    """
    chosen = environment.get("BERTIR_STORE", "")
    if chosen:
        if not Path(chosen).is_absolute():
            raise ConfigurationError(
                f"BERTIR_STORE must be an absolute path, and is {chosen!r}",
                advice="For example: export BERTIR_STORE=/var/cache/bertir",
            )
        return Path(chosen)
    cache = environment.get("XDG_CACHE_HOME", "")
    if cache and Path(cache).is_absolute():  # the XDG specification: a relative one is to be ignored
        return Path(cache) / "bertir"
    home = environment.get("HOME", "")
    if not home:
        raise ConfigurationError(
            "no place for the store: neither BERTIR_STORE nor HOME is set",
            advice="For example: export BERTIR_STORE=/var/cache/bertir",
        )
    return Path(home) / ".cache" / "bertir"


def _refuse_foreign(root: Path) -> None:
    if any(item.name not in FOLDERS for item in root.iterdir()):
        raise ConfigurationError(
            f"{root} is to be the store, and holds something else",
            advice="Set BERTIR_STORE to a folder that is empty, or that isn't there yet.",
        )


@contextlib.contextmanager
def _as_store_error(root: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(root).free
            raise StoreError(
                f"could not {doing}: the disk of {root} is full ({free / 1e6:.0f} MB free)",
                advice="Free some room (`invoke clean --store` empties it), or set BERTIR_STORE to a larger disk.",
            ) from error
        raise StoreError(
            f"could not {doing} in {root}: {error.strerror or error}",
            advice="Set BERTIR_STORE to a folder that you may write.",
        ) from error
