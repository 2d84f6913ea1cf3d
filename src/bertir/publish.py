"""Publishing: one folder, whole or not at all, renamed into place."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import BertirError, ConfigurationError, NoRoomError
from bertir.interruption import held
from bertir.room import no_room
from bertir.staging import MARK, staged_folder, sweep, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.store import Artifact, Store

SUMS = "SHA256SUMS"
REPORT, PROVENANCE = "report.json", "provenance.json"
# Left out of SHA256SUMS: they tell times and logs, and all that is summed is the same on every rebuild.
VOLATILE = (REPORT, PROVENANCE)
# What `invoke sign` writes beside them, by in-toto's name for files of envelopes; this one is one envelope.
SIGNATURES = "provenance.intoto.jsonl"
ALWAYS = ("model.xml", "model.bin")  # in whatever bertir publishes
# What SHA256SUMS lists, and where the report tells it: of the IR, or of the checkpoint that it was made from.
LISTED = {"bert_config.json": "checkpoint", "model.bin": "ir", "model.xml": "ir", "vocab.txt": "checkpoint"}
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

    The old build stays until the new one is complete and takes its place in one rename.

    Raises:
        ConfigurationError: `folder` holds something that bertir did not publish; it is left alone.
        BertirError: the disk is full, or the place can't be written; nothing is left behind.
    """
    prefix = f".{folder.name}{MARK}"
    sweep(folder.parent, prefix)
    if _is_published(artifact, folder):
        return Published(folder=folder, unchanged=True)
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staged_folder(folder.parent, prefix) as around:
            # In a folder of ours, so that what is to go stays marked as such when the old and the new one change places.
            staged = around / folder.name
            staged.mkdir()
            for name, blob in artifact.files.items():
                store.copy_out(blob, staged / name, what=name)
            _write_synced(staged / SUMS, checksums(artifact))
            _open_to_readers(staged)
            signed = (folder / SIGNATURES).exists()
            sync_folder(staged)
            _put_in_place(staged, folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise _unwritable(folder, error, artifact.size) from error
    return Published(folder=folder, unchanged=False, signatures_dropped=signed)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _is_published(artifact: Artifact, folder: Path) -> bool:
    """Whether `folder` holds exactly these files with exactly these bytes; signatures may lie beside them."""
    try:
        if {item.name for item in folder.iterdir()} - {SIGNATURES} != {*artifact.files, SUMS}:
            return False
        if any((folder / name).is_symlink() for name in (*artifact.files, SUMS)):
            return False
        if (folder / SUMS).read_bytes() != checksums(artifact):
            return False
        return all(Digest.of_file(folder / name) == blob.digest for name, blob in artifact.files.items())
    except OSError:
        return False


def is_ours(folder: Path) -> bool:
    """Whether `folder` holds what bertir published, and nothing else: its SHA256SUMS lists only what bertir publishes."""
    try:
        if folder.is_symlink():
            return False
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {name for line in lines if (name := line.partition("  ")[2])}
        if not {*ALWAYS} <= listed <= LISTED.keys():
            return False
        items = list(folder.iterdir())
        # Whoever writes SHA256SUMS may list their own: a folder is never ours, whatever it is called.
        if any(item.is_dir() and not item.is_symlink() for item in items):
            return False
        return {item.name for item in items} <= {*listed, SUMS, *VOLATILE, SIGNATURES}
    except (OSError, UnicodeDecodeError):
        return False


def _refuse_foreign(folder: Path) -> None:
    # A user's --output may be any folder: what bertir did not write there is not bertir's to remove.
    # Looked at once: another process may publish there meanwhile, and what it puts there is ours.
    try:
        empty = not any(folder.iterdir())
    except FileNotFoundError:
        empty = not folder.is_symlink()
    except NotADirectoryError:
        empty = not folder.exists()
    if not empty and not is_ours(folder):
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
    """Rename `staged` to `folder`; what was there is then beside where `staged` was, for the caller to remove."""
    try:
        staged.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    # There is a folder: an older build's, or one that another process published a moment ago.
    if not _exchange(staged, folder):
        # No renameat2 here: for a moment there is no folder, but never a half-written one.
        with held():
            folder.rename(staged.with_name("old"))
            staged.rename(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step (renameat2(2), RENAME_EXCHANGE); False where the system can't."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _unwritable(folder: Path, error: OSError, size: int) -> BertirError:
    advice = "Nothing was left there. The build is in the store: choose another --output and run it again."
    if said := no_room(error, folder.parent, size):
        return NoRoomError(f"could not publish to {folder}: {said}", advice=advice)
    return BertirError(f"could not publish to {folder}: {error.strerror or error}", advice=advice)
