"""Where the store's folder is, and whether it is fit to be one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.errors import ConfigurationError
from bertir.staging import staged_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The Cache Directory Tagging Specification: backup programs leave out what holds this file. And by it bertir knows
# its own folder again.
TAG = "CACHEDIR.TAG"
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# The store of bertir: all of it can be built again.\n"
)
WORK = "work-"  # how work in progress in tmp/ is named
# A random name of the store, which the labels of its containers have.
IDENTITY = "identity"
_NAME = r"[0-9a-f]{32}"


def default_root(environment: Mapping[str, str]) -> Path:
    """`BERTIR_STORE`, else `bertir` under the user's cache directory (XDG base directories).

    Raises:
        ConfigurationError: `BERTIR_STORE` is relative or not in UTF-8, or there is no home directory.
    """
    chosen = environment.get("BERTIR_STORE", "")
    if chosen:
        if not Path(chosen).is_absolute():
            raise ConfigurationError(
                f"BERTIR_STORE must be an absolute path, and is {chosen!r}",
                advice="For example: export BERTIR_STORE=/var/cache/bertir",
            )
        return _resolved(Path(chosen))
    cache = environment.get("XDG_CACHE_HOME", "")
    if cache and Path(cache).is_absolute():  # the XDG specification: a relative one is to be ignored
        return _resolved(Path(cache) / "bertir")
    home = environment.get("HOME", "")
    if not home:
        raise ConfigurationError(
            "no place for the store: neither BERTIR_STORE nor HOME is set",
            advice="For example: export BERTIR_STORE=/var/cache/bertir",
        )
    return _resolved(Path(home) / ".cache" / "bertir")


def _resolved(root: Path) -> Path:
    """Give the one name of a folder: by it containers are labelled, whichever link leads there."""
    try:
        resolved = root.resolve()
        str(resolved).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"the store's folder must have a name in UTF-8, and is {os.fsencode(root)!r}",
            advice="A container engine takes no other. For example: export BERTIR_STORE=/var/cache/bertir",
        ) from None
    except RuntimeError:  # so says pathlib
        raise ConfigurationError(
            f"the store's folder is a link that leads to itself: {root}",
            advice="For example: export BERTIR_STORE=/var/cache/bertir",
        ) from None
    return resolved


def open_folder(root: Path, folders: Sequence[str]) -> None:
    """Make the store's folder, or see that what is there is one, and that nobody else may write to it.

    Raises:
        ConfigurationError: it holds something else, is another user's, or everybody may write to it.
        OSError: it can't be made.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)  # a user's own weights are nobody else's to read
    _refuse_open(root)
    if not _is_tagged(root):
        # Whatever is in a store may be collected: what isn't empty, and isn't tagged by bertir, doesn't become one. An
        # empty tag is of a process that was killed, or is at it; asked again, as another may have written it meanwhile.
        if any(item.name != TAG or item.stat().st_size for item in root.iterdir()) and not _is_tagged(root):
            raise ConfigurationError(
                f"{root} is to be the store, and holds something else",
                advice="Set BERTIR_STORE to a folder that is empty, or that isn't there yet.",
            )
        (root / TAG).write_text(TAG_TEXT, encoding="ascii")
    for name in folders:
        folder = root / name
        if folder.is_symlink():
            raise ConfigurationError(
                f"{folder} is a link", advice="Set BERTIR_STORE to a folder on that disk instead."
            )
        folder.mkdir(exist_ok=True, mode=0o755)
        _refuse_open(folder)
    if not (root / IDENTITY).exists():
        _write_identity(root)


def _is_tagged(root: Path) -> bool:
    """Whether bertir made it a store: other programs' caches have a tag of that name too."""
    try:
        with (root / TAG).open("rb") as file:
            return file.read(len(TAG_TEXT) + 1) == TAG_TEXT.encode()
    except FileNotFoundError:
        return False


def _write_identity(root: Path) -> None:
    """Name the store, once: of several processes the first one's name stays."""
    import uuid

    with staged_file(root / "tmp", WORK) as (path, descriptor):
        os.write(descriptor, uuid.uuid4().hex.encode())
        with contextlib.suppress(FileExistsError):
            os.link(path, root / IDENTITY)


def identities(root: Path) -> dict[str, Path]:
    """Give the name of a store, and of each store that it lies in (a rebuild's does), with their folders.

    By its name a store is known wherever it is mounted; a path may be another folder in another container.
    """
    found = {}
    for folder in (root, *root.parents):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if _is_tagged(folder) and re.fullmatch(
                _NAME, name := (folder / IDENTITY).read_text(encoding="ascii")
            ):
                found[name] = folder
    return found


def _refuse_open(folder: Path) -> None:
    """Objects are hashed when they are used; records, downloads and work in progress are believed: no other may write here."""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{folder} belongs to the user {status.st_uid}, and this is the user {os.geteuid()}",
            advice="Set BERTIR_STORE to a folder of your own: what another user put into a store would be built from.",
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"everybody may write to {folder}, and so decide what is built from it",
            advice=f"Run `chmod o-w {folder}` and, if somebody may have, `invoke clean --store`; or set BERTIR_STORE.",
        )
