"""Where models and task data come from: their publishers' hosts, or the one mirror that the user named.

A mirror is a URL or a folder that has the same files, in whatever places: digests decide. What it lacks is an error:
nobody who named a mirror wants the network asked behind their back.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from bertir.errors import ConfigurationError, DigestMismatchError, FetchError
from bertir.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertir.digest import Digest
    from bertir.store import Store

VARIABLE = "BERTIR_MIRROR"
_ADVICE = "It must be the URL of a folder (https or http), or a folder of this machine."


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The mirror's URL, or its folder; neither is what the publishers themselves serve."""

    url: str = ""
    folder: Path | None = None

    def address(self, published: str, name: str) -> str:
        """Give the URL to download a file by its name from, if it isn't in a folder."""
        return f"{self.url}/{quote(name)}" if self.url else published

    @property
    def advice(self) -> str:
        if self.url:
            return "A mirror was named, so nobody else is asked. Put the file there, or name another: --mirror URL|DIR"
        return "A copy of it elsewhere, or its unpacked files in a folder, will do: --mirror URL|DIR"


PUBLISHERS = Origin()


def chosen_origin(mirror: str, environment: Mapping[str, str]) -> Origin:
    """Give what `--mirror` says, or else `BERTIR_MIRROR`, or else the publishers.

    Raises:
        ConfigurationError: it is no http, https or file URL and no folder.
    """
    what, text = ("--mirror", mirror) if mirror else (VARIABLE, environment.get(VARIABLE, ""))
    if not text:
        return PUBLISHERS
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ConfigurationError(f"{what}: {text!r} is no URL: {error}", advice=_ADVICE) from error
    if parts.scheme in ("http", "https") and parts.hostname and text.isprintable() and " " not in text:
        return Origin(url=text.rstrip("/"))
    local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    folder = Path(unquote(parts.path) if local else text)
    if "\0" in text or not folder.is_dir():
        raise ConfigurationError(f"{what}: {text!r} is no folder, and no URL", advice=_ADVICE)
    return Origin(folder=folder)


def take_from_folder(
    store: Store, folder: Path, wanted: Mapping[str, Digest], *, usual: str = ""
) -> dict[str, Path]:
    """Store those of the wanted files (name -> digest) that lie in a mirror's folder, or in one right below it.

    `usual` is the folder below it to look into first. Gives, for what has not been found, a file that has the name
    and not the digest, if there is one.

    Raises:
        FetchError: a file can't be read.
    """
    others: dict[str, Path] = {}
    for name, digest in wanted.items():
        for path in _places(folder, usual, name):
            try:
                with contextlib.suppress(DigestMismatchError):
                    store.add_file(path, expected=digest)
                    others.pop(name, None)
                    break
            except OSError as error:
                raise FetchError(f"can't read {path}: {error.strerror}") from error
            others[name] = path
    return others


def _places(folder: Path, usual: str, name: str) -> Iterator[Path]:
    try:
        below = sorted(folder.glob(f"*/{name}"))
    except OSError:
        below = []  # then the two named places are all that there is
    for path in dict.fromkeys((folder / usual / name, folder / name, *below)):
        if path.is_file():
            yield path


def other_file(name: str, digest: Digest, path: Path) -> DigestMismatchError:
    return DigestMismatchError(
        f"{name}: the mirror has something else under that name\n  expected {digest}\n  in       {path}",
        advice="Only files with the right digest were kept. Name a mirror that has the published files: --mirror URL|DIR",
    )
