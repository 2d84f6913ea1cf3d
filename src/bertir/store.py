"""The store: objects by digest, and records that say which objects a derivation gave.

    objects/<2 hex>/<62 hex>    files, read-only, named by the sha256 of their content; their mtime is their last use
    records/<step>/<key>.json   derivation key -> output names and digests
    locks/<name>                flock files, so that each artifact is built once (locking.py)
    downloads/                  what has come of unfinished downloads, kept for the next run (download.py)
    tmp/                        work in progress, renamed into objects/ when whole; and a lease of each build (staging.py)
    logs/                       of steps that failed
    virtualenvs/<key>/          of `--engine local` (virtualenv_making.py); their mtime is their last use
    hints/<device>-<inode>      digests of large files elsewhere, remembered (hint.py)

Two levels as in dvc's run cache: a changed input with equal content costs nothing downstream.
Objects are written under a temporary name, synced and renamed, so an object that exists is whole.
What isn't used for long is collected by `invoke gc` (collect.py), which takes nothing that a build uses: see `in_use`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import time
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest, HashingWriter, read_chunks, tree_digest
from bertir.emptying import remove, removed
from bertir.errors import BertirError, DigestMismatchError
from bertir.frozen import dataclass
from bertir.hint import FOLDER as HINTS
from bertir.hint import LARGE_BYTES, Hints
from bertir.locking import folder_lock, is_written, locked, locked_if_free
from bertir.mark import Mark
from bertir.room import no_room
from bertir.small_file import read_small
from bertir.staging import (
    abandoned,
    is_abandoned,
    staged_file,
    staged_folder,
    sweep,
    sync_folder,
    write_synced,
)
from bertir.store_folder import IDENTITY, TAG, WORK, open_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

VIRTUALENVS = "virtualenvs"
FOLDERS = ("objects", "records", "locks", "downloads", "tmp", "logs", VIRTUALENVS, HINTS)
LEASE = "use-"  # how files in tmp/ are named that say: this process uses the store


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


class LostObjectError(StoreError):
    """An object is gone, or was damaged and has been removed: what is built again is whole (healing.py)."""

    def __init__(self, message: str, digest: Digest, *, advice: str = "") -> None:
        super().__init__(message, advice=advice or "Run the same command again; it is made anew.")
        self.digest = digest


def is_damage(error: OSError) -> bool:
    """Whether it is the file's fault that it couldn't be read, and not that this process has no descriptor or memory left."""
    return error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Store:
    """A folder of objects and records. Opening it makes the folder; nothing else is read or kept.

    Args:
        root: the folder.
        paranoid: every byte is read whenever it matters: no hint is believed, and no object is taken for whole because
            this process read it, or wrote it, a moment ago.

    Raises:
        ConfigurationError: the folder is not fit to be a store: another user's, open to all, of something else.
    """

    def __init__(self, root: Path, *, paranoid: bool = False) -> None:
        self.root = root
        self.hints = Hints(root, believed=not paranoid)
        self._paranoid = paranoid
        self._whole: dict[Path, Mark] = {}  # large objects that this process wrote or read, and found right
        self._used: dict[Path, Mark] = {}  # those whose times this process moved, as it used them
        self._used_since: int | None = None
        with _as_store_error(root, "open the store"):
            open_folder(root, FOLDERS)

    # objects

    def path(self, digest: Digest) -> Path:
        return self.root / "objects" / digest.hex[:2] / digest.hex[2:]

    def has(self, blob: Blob) -> bool:
        """Whether the object is there with the recorded size (its bytes are checked where they matter)."""
        return self._use(self.path(blob.digest)) == blob.size

    def has_all(self, artifact: Artifact) -> bool:
        return all(self.has(blob) for blob in artifact.files.values())

    def has_one_of_size(self, size: int) -> bool:
        """Whether there is an object of this size, whatever it is; a look at each, without reading any."""
        with _as_store_error(self.root, "look through the store"):
            for folder in (self.root / "objects").iterdir():
                with (
                    contextlib.suppress(FileNotFoundError, NotADirectoryError),
                    os.scandir(folder) as entries,
                ):
                    if any(entry.stat(follow_symlinks=False).st_size == size for entry in entries):
                        return True
        return False

    def find(self, digest: Digest) -> Blob | None:
        """Look an object up by digest alone, as pins do which don't know the size."""
        size = self._use(self.path(digest))
        return None if size is None else Blob(digest=digest, size=size)

    def _use(self, path: Path) -> int | None:
        """Give a file's size, if it is there; and make this moment that of its last use, as a collector will see it.

        What is no file is removed: nothing could be stored in its place.
        """
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                with _as_store_error(self.root, f"remove {path}, which is no file,"):
                    self.discard(path)
                return None
            if self._used_since is not None and status.st_mtime_ns >= self._used_since:
                return status.st_size  # said already in this build
            with folder_lock(
                self.root / "objects", alone=False
            ):  # not between a collector's look and its deed
                before = Mark.of(path.stat())
                try:
                    os.utime(path)
                    self._moved(path, before)
                except OSError as error:
                    # Another user's object, in a rebuild's store; or a disk that can only be read, so not collected.
                    if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS):
                        raise
                return before.size
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            with _as_store_error(self.root, f"remove {path.parent}, which is no folder,"):
                self.discard(path.parent)
            return None

    def _moved(self, path: Path, before: Mark) -> None:
        """Know a large object by the times that it has now, which are this process's doing and tell of no writing."""
        if before.size < LARGE_BYTES:
            return
        now = self._used[path] = Mark.of(path.stat())
        if self._whole.get(path) == before:
            self._whole[path] = now

    def touch(self, folder: Path) -> bool:
        """Whether a folder of the store's is there; make this moment that of its last use."""
        with (
            _as_store_error(self.root, "use the store"),
            folder_lock(self.root / "objects", alone=False),  # as in `_use`
        ):
            if not folder.is_dir():
                return False
            os.utime(folder)
        return True

    def discard(self, path: Path) -> None:
        """Remove what lies at an object's or a record's place, whatever it is.

        Raises:
            OSError: it can't be removed.
        """
        with folder_lock(self.root / "objects", alone=True):
            remove(path)

    def add(
        self,
        chunks: Iterator[bytes],
        *,
        expected: Digest | None = None,
        what: str = "content",
        size: int = 0,
    ) -> Blob:
        """Stream bytes in. `expected` makes any other content a `DigestMismatchError` that leaves nothing.

        `size` is how many they will be, if that is known, for the message that there is no room.
        """

        def write(sink: HashingWriter) -> None:
            for chunk in chunks:
                sink.write(chunk)

        return self.add_written(write, expected=expected, what=what, size=size)

    def add_written(
        self,
        write: Callable[[HashingWriter], None],
        *,
        expected: Digest | None = None,
        what: str = "content",
        size: int = 0,
    ) -> Blob:
        """Like `add`, for a writer that wants something to write into (tarfile does)."""
        sink: HashingWriter | None = None

        def needed() -> tuple[int, bool]:
            written = sink.size if sink is not None else 0
            return (size, False) if size >= written else (written, True)

        with _as_store_error(self.root, f"store {what}", needed), self.temporary_folder() as folder:
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
            return self._put(path, Blob(digest=sink.digest, size=sink.size))

    def take(self, path: Path, file: BinaryIO, *, what: str) -> Blob:
        """Move a file in, without copying it; `file` is open on it.

        If it can't be made this user's own, or somebody has it open to write into it, it is copied: what was hashed is what is stored.
        """
        from bertir.beside import beside

        descriptor = file.fileno()
        try:
            os.fchown(descriptor, os.geteuid(), os.getegid())
        except OSError:  # another's, or a file system that knows no owners
            return self.add(read_chunks(file), what=what)
        with _as_store_error(self.root, f"store {what}"), self.temporary_folder() as folder:
            os.fchmod(descriptor, 0o444)
            moved = path.rename(folder / "object")
            status = os.fstat(descriptor)
            if not os.path.samestat(status, moved.lstat()):
                raise StoreError(f"{what} was another file when it was to be stored")
            if is_written(descriptor):
                return self.add(read_chunks(file), what=what)
            os.utime(descriptor)  # its last use
            with beside(lambda _: os.fsync(descriptor)) as synced:
                found = hashlib.sha256()
                for chunk in read_chunks(file):
                    found.update(chunk)
                synced.result()
            return self._put(moved, Blob(digest=Digest(found.hexdigest()), size=status.st_size))

    def _put(self, path: Path, blob: Blob) -> Blob:
        """Rename a file that is whole and on the disk to its place among the objects."""
        target = self.path(blob.digest)
        self._use(target)  # removes what is no file there
        target.parent.mkdir(exist_ok=True, mode=0o755)  # whatever the umask
        path.replace(target)
        sync_folder(target.parent)
        if blob.size >= LARGE_BYTES:
            self._whole[target] = Mark.of(target.lstat())
        return blob

    def add_bytes(self, data: bytes, *, expected: Digest | None = None, what: str = "content") -> Blob:
        present = self.find(Digest.of_bytes(data))
        if present is not None and present.size == len(data) and expected in (None, present.digest):
            return present  # a build with nothing to do writes nothing
        return self.add(iter([data]), expected=expected, what=what, size=len(data))

    def add_file(self, path: Path, *, expected: Digest | None = None, what: str = "") -> Blob:
        with path.open("rb") as file:
            size = path.stat().st_size
            return self.add(read_chunks(file), expected=expected, what=what or path.name, size=size)

    def checked(self, blob: Blob, *, what: str) -> Path:
        """Give an object's path once its bytes were read and found to be the right ones.

        A large one that this process wrote or read itself, and that has the same times still, isn't read again: it would
        come from the memory that it was written to, and say nothing of the disk.

        Raises:
            LostObjectError: they are not; the object is removed, so that the next run makes it anew.
        """
        path = self.path(blob.digest)
        with self._present(blob, what):
            mark = Mark.of(path.lstat())
            if self._is_known(path, mark):
                return path
            begun = time.time_ns()
            found = Digest.of_file(path)
        if found != blob.digest:
            raise self._other_bytes(blob, found, what)
        if mark.size >= LARGE_BYTES and (mark.is_settled(begun) or self._used.get(path) == mark):
            self._whole[path] = mark
        return path

    def _is_known(self, path: Path, mark: Mark) -> bool:
        """Whether this process wrote or read an object itself, and it has the same times still."""
        return not self._paranoid and self._whole.get(path) == mark

    @contextlib.contextmanager
    def linking(self, blobs: Iterable[Blob]) -> Iterator[None]:
        """Within it links to objects are made, which change nothing but their time of change: they needn't be read again."""
        paths = [self.path(blob.digest) for blob in blobs]
        known = [path for path in paths if path in self._whole and self._whole[path] == self._mark(path)]
        yield
        self._whole |= {path: mark for path in known if (mark := self._mark(path))}

    @contextlib.contextmanager
    def folder_of_links(self) -> Iterator[tuple[Path, list[Blob]]]:
        """Like `temporary_folder`, for one that is given links to objects; whoever makes one adds it to the list.

        When they are removed with the folder, that is no change of the objects either.
        """
        linked: list[Blob] = []
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(self.temporary_folder())
            try:
                yield folder, linked
            finally:
                with self.linking(linked):
                    stack.close()

    @staticmethod
    def _mark(path: Path) -> Mark | None:
        try:
            return Mark.of(path.lstat())
        except OSError:
            return None

    @contextlib.contextmanager
    def _present(self, blob: Blob, what: str) -> Iterator[None]:
        """Within it, an object is read: what keeps it from being read is damage to it."""
        try:
            if not stat.S_ISREG(self.path(blob.digest).lstat().st_mode):  # reading a pipe would wait for ever
                raise self._damaged(blob, f"what the store held for {what} is no file")
            yield
        except FileNotFoundError as error:
            raise LostObjectError(f"the store no longer holds {what}", blob.digest) from error
        except OSError as error:
            if not is_damage(error):
                raise StoreError(f"could not read {what} in the store: {error.strerror}") from error
            raise self._damaged(
                blob, f"{what} can't be read in the store ({error.strerror or error})"
            ) from error

    def _other_bytes(self, blob: Blob, found: Digest, what: str) -> StoreError:
        return self._damaged(
            blob,
            f"the store held other bytes for {what} than it should",
            f"\n  expected {blob.digest}\n  found    {found}",
        )

    def _damaged(self, blob: Blob, wrong: str, details: str = "") -> StoreError:
        path = self.path(blob.digest)
        try:
            self.discard(path)
        except OSError as error:
            return StoreError(
                f"{wrong}, and the damaged object {path} could not be removed: {error.strerror}{details}",
                advice="Remove it, then run the same command again; or set BERTIR_STORE to another disk.",
            )
        return LostObjectError(f"{wrong}, and the damaged object was removed{details}", blob.digest)

    def read(self, blob: Blob, *, what: str) -> Iterator[bytes]:
        """Stream an object, hashing it on the way, unless it is known to be whole (see `checked`).

        Raises:
            LostObjectError: at the end, if the bytes were not the right ones; the object is removed.
        """
        found, path = hashlib.sha256(), self.path(blob.digest)
        with self._present(blob, what), path.open("rb") as file:
            mark = Mark.of(os.fstat(file.fileno()))
            known = self._is_known(path, mark)
            for chunk in read_chunks(file):
                if not known:
                    found.update(chunk)
                yield chunk
            # Another process may have used it meanwhile; or it was written.
            if known and Mark.of(os.fstat(file.fileno())) != mark:
                known = False
                file.seek(0)
                for chunk in read_chunks(file):
                    found.update(chunk)
        if not known and found.hexdigest() != blob.digest.hex:
            raise self._other_bytes(blob, Digest(found.hexdigest()), what)

    def copy_out(self, blob: Blob, target: Path, *, what: str) -> None:
        """Copy an object to a new file outside, checking its bytes on the way.

        Raises:
            LostObjectError: the stored bytes are damaged (nothing is left at `target`).
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
        """Give the record if it is there, whole, and all its objects are."""
        path = self._record_path(step, key)
        try:
            record = self.read_record(path)
        except (OSError, ValueError):
            return None  # a damaged record is as good as none: the step runs again and replaces it
        self._use(path)
        return record if self.has_all(record.artifact) else None

    def read_record(self, path: Path) -> Record:
        """Read a record's file; what it was saved for is part of what its checksum is over.

        Raises:
            OSError: there is none. ValueError: it isn't as it was saved.
        """
        data = read_small(path)
        try:
            raw = json.loads(data)
            if raw.pop("sha256") != Digest.of_json([path.parent.name, path.stem, raw]).hex:
                raise ValueError(path)
            files = {
                name: Blob(digest=Digest.from_str(entry["digest"]), size=entry["size"])
                for name, entry in raw["files"].items()
            }
            return Record(artifact=Artifact(files=files), derivation=raw["derivation"], facts=raw["facts"])
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(path) from error

    def save_record(self, step: str, key: Digest, record: Record) -> None:
        value = {
            "derivation": record.derivation,
            "facts": record.facts,
            "files": {
                name: {"digest": str(blob.digest), "size": blob.size}
                for name, blob in record.artifact.files.items()
            },
        }
        value = json.loads(json.dumps(value, allow_nan=False))  # as it will be read: tuples are lists then
        value["sha256"] = Digest.of_json([step, key.hex, value]).hex
        data = json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
        target = self._record_path(step, key)
        with _as_store_error(self.root, f"record {step}"), self.temporary_folder() as folder:
            self._use(target)  # removes what is no file there
            target.parent.mkdir(exist_ok=True, mode=0o755)
            path = folder / "record"
            write_synced(path, data)
            path.replace(target)
            sync_folder(target.parent)

    # work in progress

    @contextlib.contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """A private folder on the store's own disk, removed at the end whatever happens."""
        with contextlib.ExitStack() as stack:
            with _as_store_error(self.root, "make a temporary folder"):
                folder = stack.enter_context(staged_folder(self.root / "tmp", WORK))
            yield folder

    def abandoned(self) -> list[Path]:
        """Give the temporary folders of processes that were killed."""
        return abandoned(self.root / "tmp", WORK)

    def is_abandoned(self, folder: Path) -> bool:
        """Whether a temporary folder belongs to no living process."""
        return is_abandoned(folder)

    def sweep(self) -> None:
        """Remove what killed processes left: temporary folders, leases, files of locks that nobody holds."""
        for prefix in (WORK, LEASE):
            sweep(self.root / "tmp", prefix)
        for path in (self.root / "locks").iterdir():
            with contextlib.suppress(OSError), locked_if_free(path):
                pass

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within it, what this store found, has or added isn't collected, however long ago it was used before."""
        with contextlib.ExitStack() as stack:
            with _as_store_error(self.root, "say that it is in use"):
                path, _ = stack.enter_context(staged_file(self.root / "tmp", LEASE))
                self._used_since = path.stat().st_mtime_ns
            try:
                yield
            finally:
                self._used_since = None

    def users(self) -> list[int]:
        """Give of each build that uses the store the moment at which it began, in nanoseconds of the store's disk."""
        with folder_lock(self.root / "tmp", alone=True):
            return self._leases()

    def _leases(self) -> list[int]:
        found = []
        for path in (self.root / "tmp").glob(f"{LEASE}*"):
            with contextlib.suppress(FileNotFoundError):
                if not is_abandoned(path):
                    found.append(path.stat().st_mtime_ns)
        return found

    def now(self) -> int:
        """Give the moment by the clock that sets the times of files there, which is coarser than the system's; in nanoseconds."""
        asking = _as_store_error(self.root, "ask its disk for the time")
        with asking, staged_file(self.root / "tmp", WORK) as (path, _):
            return path.stat().st_mtime_ns

    @contextlib.contextmanager
    def lock(
        self, name: str, *, waiting: Callable[[], None] = lambda: None, after: float = 0.0
    ) -> Iterator[None]:
        """Hold a lock between processes; the kernel lets go of it when a process dies.

        `waiting` is called once, if another process still holds it after so many seconds.
        """
        with contextlib.ExitStack() as stack:
            with _as_store_error(self.root, "take a lock"):
                stack.enter_context(locked(self.root / "locks" / name, waiting=waiting, after=after))
            yield

    @contextlib.contextmanager
    def lock_if_free(self, name: str) -> Iterator[bool]:
        """Like `lock`, without waiting: whether it was free is what the block is given."""
        with contextlib.ExitStack() as stack:
            with _as_store_error(self.root, "take a lock"):
                free = stack.enter_context(locked_if_free(self.root / "locks" / name))
            yield free

    def writing(
        self, doing: str, needed: Callable[[], tuple[int, bool]] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Within it, an `OSError` is a `StoreError`, as for what the store writes itself.

        `needed` gives the bytes that were to be written, and whether it may be more.
        """
        return _as_store_error(self.root, doing, needed)

    def size_of(self, digests: Iterable[Digest]) -> int:
        """Bytes of those of `digests` that the store holds."""
        return sum(blob.size for digest in set(digests) if (blob := self.find(digest)) is not None)

    def clear(self) -> None:
        """Remove everything that the store holds; and its folder, unless something else is in it.

        Raises:
            StoreError: a build is using it.
        """
        with (
            _as_store_error(self.root, "remove the store"),
            folder_lock(self.root / "tmp", alone=True),  # whoever begins meanwhile waits, and finds nothing
        ):
            if users := self._leases():
                raise StoreError(
                    f"{self.root} is in use by {len(users)} other process{'es' if len(users) > 1 else ''}",
                    advice="Wait until they have ended, then run it again.",
                )
            if left := [name for name in FOLDERS if not removed(self.root / name)]:
                raise StoreError(
                    f"could not remove all of {', '.join(left)} in {self.root}: a step's user made folders there",
                    advice="The next build that runs a step removes them; then run it again.",
                )
            for name in (TAG, IDENTITY):
                (self.root / name).unlink(missing_ok=True)
            if not any(self.root.iterdir()) and not self.root.is_symlink():
                self.root.rmdir()


@contextlib.contextmanager
def _as_store_error(
    root: Path, doing: str, needed: Callable[[], tuple[int, bool]] | None = None
) -> Iterator[None]:
    """`needed` gives the bytes that were to be written, as far as they are known, and whether it may be more."""
    try:
        yield
    except OSError as error:
        size, at_least = needed() if needed else (0, False)
        if said := no_room(error, root, size, at_least=at_least):
            if error.errno == errno.EROFS:
                advice = "Set BERTIR_STORE to a folder on a disk that you may write."
                raise StoreError(f"could not {doing}: {said}", advice=advice) from error
            raise StoreError(
                f"could not {doing}: {said}",
                advice="Free some room (`invoke gc` removes what wasn't used for long, `invoke clean --store` everything),"
                " or set BERTIR_STORE to another disk. What was finished is in the store.",
            ) from error
        raise StoreError(
            f"could not {doing} in {root}: {error.strerror or error}",
            advice="Set BERTIR_STORE to a folder that you may write.",
        ) from error
