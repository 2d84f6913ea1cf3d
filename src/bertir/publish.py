"""Publishing: one folder, whole or not at all, renamed into place."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from bertir.errors import BertirError, ConfigurationError, NoRoomError
from bertir.frozen import dataclass
from bertir.interruption import held
from bertir.provenance import BUILD_TYPE
from bertir.room import no_room
from bertir.small_file import read_small
from bertir.staging import MARK, abandoned, staged_folder, sweep, sync_folder, write_synced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.mark import Mark
    from bertir.store import Artifact, Store

SUMS = "SHA256SUMS"
REPORT, PROVENANCE = "report.json", "provenance.json"
PAGE = "report.html"  # the report for people, made from it alone; what was published before it was thought of has none
# Left out of SHA256SUMS: they tell times and logs, and all that is summed is the same on every rebuild.
VOLATILE = (REPORT, PROVENANCE, PAGE)
# What `invoke sign` writes beside them, by in-toto's name for files of envelopes; this one is one envelope.
SIGNATURES = "provenance.intoto.jsonl"
# What SHA256SUMS lists, and where the report tells it: of the IR, or of the checkpoint that it was made from.
LISTED = {"bert_config.json": "checkpoint", "model.bin": "ir", "model.xml": "ir", "vocab.txt": "checkpoint"}
_MOST_SUMS_BYTES = 1 << 16
# Where renameat2 isn't, the old build's name in the staged folder, until the new one has its place.
_OLD = "old"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where a build lies, and whether it already lay there, bit for bit.

    Args:
        signatures_dropped: the build that lay there was signed, and this one isn't.
    """

    folder: Path
    unchanged: bool
    signatures_dropped: bool = False


def checksums(artifact: Artifact) -> bytes:
    """Give the lines that `sha256sum --check` reads, sorted by name: of every file that isn't volatile."""
    names = sorted(set(artifact.files).difference(VOLATILE))
    return "".join(f"{artifact[name].digest.hex}  {name}\n" for name in names).encode()


def publish(store: Store, artifact: Artifact, folder: Path) -> Published:
    """Copy an artifact's files and their SHA256SUMS to `folder`.

    The old build stays until the new one is complete and takes its place in one rename. What came out is looked at
    once more before it is removed: what somebody put there meanwhile goes back to where it was.

    Raises:
        ConfigurationError: `folder` holds something that bertir did not publish; it is left alone.
        BertirError: the disk is full, or the place can't be written; nothing is left behind.
        ConfigurationError: the checkpoint isn't what its hint said (hint.py).
    """
    _tidy(folder)
    if _is_published(store, artifact, folder):
        return Published(folder=folder, unchanged=True)
    store.hints.confirm()
    written: dict[str, tuple[Mark, Digest]] = {}

    def complete(staged: Path) -> None:
        files = {name: blob.digest for name, blob in artifact.files.items()}
        written.update(store.hints.written(staged, files))

    with taking_place(folder, artifact.size, complete) as staged:
        for name, blob in artifact.files.items():
            store.copy_out(blob, staged / name, what=name)
        write_synced(staged / SUMS, checksums(artifact))
        signed = (folder / SIGNATURES).exists()
    store.hints.published(folder, written)
    return Published(folder=folder, unchanged=False, signatures_dropped=signed)


@contextlib.contextmanager
def taking_place(
    folder: Path, size: int, complete: Callable[[Path], object] = lambda _: None
) -> Iterator[Path]:
    """Give an empty folder to fill; at the end of the block it takes the place of `folder`, whole and in one rename.

    What the block raises goes through, and nothing is left behind then. `size` is about what will be written. `complete`
    is called with the folder when nothing more is written to it, and nobody else knows it yet.

    Raises: as `publish`.
    """
    _tidy(folder)
    prefix = _prefix(folder)
    try:
        _refuse_foreign(folder, folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(folder.parent, prefix) as around:
            # In a folder of ours, so that what is to go stays marked as such when the old and the new one change places.
            staged = around / folder.name
            staged.mkdir()
            yield staged
            _open_to_readers(staged)
            sync_folder(staged)
            complete(staged)
            _put_in_place(staged, folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise _unwritable(folder, error, size) from error


def _prefix(folder: Path) -> str:
    return f".{folder.name}{MARK}"


def _tidy(folder: Path) -> None:
    """Put back what a killed process took away, and remove what it left."""
    _put_back(folder, _prefix(folder))
    sweep(folder.parent, _prefix(folder))


def _is_published(store: Store, artifact: Artifact, folder: Path) -> bool:
    """Whether `folder` holds exactly these files with these bytes, as far as hints say; signatures may lie beside them."""
    try:
        if {item.name for item in folder.iterdir()} - {SIGNATURES} != {*artifact.files, SUMS}:
            return False
        if not all(_is_file(folder / name) for name in (*artifact.files, SUMS)):
            return False  # a pipe would be waited for, and a device read without end
        if read_small(folder / SUMS, _MOST_SUMS_BYTES) != checksums(artifact):
            return False
        return all(store.hints.digest(folder / name) == blob.digest for name, blob in artifact.files.items())
    except OSError:
        return False


def is_ours(folder: Path) -> bool:
    """Whether bertir published what `folder` holds, be it damaged since, and nothing else lies there.

    It is so if all of this is:
    - its SHA256SUMS names exactly the four files that bertir always lists, whatever digests it tells; a stranger's IR
      may have such a file too;
    - provenance.json states a build of bertir's type, or report.json tells which bertir wrote it: one is enough, as
      the other may be damaged or missing;
    - nothing lies there but these files and signatures, and none of it is a folder. The model itself may be changed,
      missing, or a link.
    What isn't a regular file is not read.
    """
    try:
        if folder.is_symlink() or not _is_file(folder / SUMS):
            return False
        lines = read_small(folder / SUMS, _MOST_SUMS_BYTES).decode().splitlines()
        if {line.partition("  ")[2] for line in lines} != LISTED.keys():
            return False
        items = list(folder.iterdir())
        # Whoever writes SHA256SUMS may list their own: a folder is never ours, whatever it is called.
        if any(item.is_dir() and not item.is_symlink() for item in items):
            return False
        if not {item.name for item in items} <= {*LISTED, SUMS, *VOLATILE, SIGNATURES}:
            return False
    except (OSError, UnicodeDecodeError):
        return False
    return _is_our_provenance(_json(folder / PROVENANCE)) or _is_our_report(_json(folder / REPORT))


def _is_our_provenance(value: dict[str, Any]) -> bool:
    try:
        return bool(value["predicate"]["buildDefinition"]["buildType"] == BUILD_TYPE)
    except (LookupError, TypeError):
        return False


def _is_our_report(value: dict[str, Any]) -> bool:
    return isinstance(value.get("bertir"), str)


def _json(path: Path) -> dict[str, Any]:
    """Give a file's JSON object; an empty one of what isn't a regular file of our size, or isn't such JSON."""
    try:
        value = json.loads(read_small(path)) if _is_file(path) else None
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _refuse_foreign(found: Path, folder: Path) -> None:
    """Raise if `found`, which lies or lay at `folder`, holds what isn't bertir's."""
    # A user's --output may be any folder: what bertir did not write there is not bertir's to remove.
    # Looked at once: another process may publish there meanwhile, and what it puts there is ours.
    try:
        empty = not any(found.iterdir())
    except FileNotFoundError:
        empty = not found.is_symlink()
    except NotADirectoryError:
        empty = not found.exists()
    if not empty and not is_ours(found):
        raise ConfigurationError(
            f"{folder} exists, and holds something that bertir did not publish",
            advice="Choose another --output, or move it away.",
        )


def _open_to_readers(staged: Path) -> None:
    # The staged folder's parent is 0700; what is published follows the user's umask, as anything that they write does.
    mask = os.umask(0)
    os.umask(mask)
    for item in staged.iterdir():
        item.chmod(0o666 & ~mask)
    staged.chmod(0o777 & ~mask)


def _put_in_place(staged: Path, folder: Path) -> None:
    """Rename `staged` to `folder`; what was there is then beside where `staged` was, for the caller to remove.

    Raises:
        ConfigurationError: what was there isn't bertir's alone any more; it is there again.
    """
    try:
        staged.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    # There is a folder: an older build's, or one that another process published a moment ago. Somebody may have put
    # a file into it since it was looked at. Only when it is out of the way nobody does that any more.
    with held():
        if _exchange(staged, folder):
            try:
                _refuse_foreign(staged, folder)
            except BaseException:
                if not _exchange(staged, folder):
                    staged.rename(folder)  # there is no new one any more to change places with
                raise
            return
        # No renameat2 here: for a moment there is no folder, but never a half-written one.
        old = staged.with_name(_OLD)
        folder.rename(old)
        try:
            _refuse_foreign(old, folder)
            staged.rename(folder)
        except BaseException:
            with contextlib.suppress(OSError):  # another process's new build is there
                old.rename(folder)
            raise


def _put_back(folder: Path, prefix: str) -> None:
    """Give `folder` the old build back that a process took away and was killed before the new one had its place."""
    if os.path.lexists(folder):
        return
    for around in abandoned(folder.parent, prefix):
        # Had the new one had its place, it would not be here any more, and the old one might be half removed.
        if (around / folder.name).is_dir() and (around / _OLD).is_dir():
            with contextlib.suppress(OSError):  # another process was faster
                (around / _OLD).rename(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (renameat2(2), RENAME_EXCHANGE); False where the system can't."""
    import ctypes  # here alone: a build with nothing to do exchanges nothing

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _unwritable(folder: Path, error: OSError, size: int) -> BertirError:
    advice = "Nothing was left there. The build is in the store: choose another place (--output, --folder) and run it again."
    if said := no_room(error, folder.parent, size):
        return NoRoomError(f"could not publish to {folder}: {said}", advice=advice)
    return BertirError(f"could not publish to {folder}: {error.strerror or error}", advice=advice)
