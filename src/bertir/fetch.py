"""Materials: the pinned external inputs. The only code of a build that downloads.

Whatever the transport, a material enters the store only if it has the pinned sha256.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bertir.digest import CHUNK_BYTES
from bertir.errors import DigestMismatchError, FetchError
from bertir.mirror import debian_mirror
from bertir.wheelhouse import pip_download

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from bertir.digest import Digest
    from bertir.intent import PythonIntent
    from bertir.lock import DebianPackage, WheelPin
    from bertir.progress import Progress
    from bertir.store import Store

ATTEMPTS = 5
CONNECT_SECONDS = 20
SILENCE_SECONDS = 60


class OfflineError(FetchError):
    """Materials are needed that the store lacks, and the network isn't to be used."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(
            "offline, and not in the store:\n  " + "\n  ".join(missing),
            advice="Run `invoke fetch` where there is a network, or use --bundle FILE with a bundle made by"
            " `invoke fetch --bundle FILE` there.",
        )


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Where materials come from, and where they go."""

    store: Store
    environment: Mapping[str, str]
    progress: Progress
    offline: bool = False

    def debian_packages(self, packages: Sequence[DebianPackage]) -> list[tuple[DebianPackage, Path]]:
        """Give each package's file, fetched from the machine's own Debian mirror if it isn't in the store.

        Raises:
            FetchError: it can't be had. DigestMismatchError: it isn't the pinned file.
        """
        missing = [package for package in packages if self.store.find(package.digest) is None]
        self._refuse_offline([f"Debian package {item.name} {item.version}" for item in missing])
        if missing:
            megabytes = sum(package.size for package in missing) / 1e6
            self.progress.say("fetch", f"{len(missing)} Debian packages, {megabytes:.1f} MB")
            mirror = debian_mirror(self.environment)
            for package in missing:
                self._download(f"{mirror}/{package.pool_path}", package)
        return [(package, self._checked(package.digest, package.name)) for package in packages]

    def wheels(
        self, pins: Sequence[WheelPin], target: PythonIntent, *, stage: str = "fetch"
    ) -> list[tuple[WheelPin, Path]]:
        """Give each wheel's file, fetched by pip from its configured index if it isn't in the store.

        Raises:
            FetchError: pip can't get it. DigestMismatchError: the index has another file under that name.
        """
        missing = [pin for pin in pins if self.store.find(pin.digest) is None]
        self._refuse_offline([f"wheel {pin.name} {pin.version}" for pin in missing])
        if missing:
            self.progress.say(stage, f"{len(missing)} wheels by pip: {_some(pin.name for pin in missing)}")
            self._download_wheels(missing, target)
        return [(pin, self._checked(pin.digest, pin.name)) for pin in pins]

    def _checked(self, digest: Digest, name: str) -> Path:
        blob = self.store.find(digest)
        if blob is None:  # fetched a moment ago, and removed from outside since
            raise FetchError(f"{name} is no longer in the store", advice="Run the same command again.")
        return self.store.checked(blob, what=name)

    def _refuse_offline(self, missing: Sequence[str]) -> None:
        if missing and self.offline:
            raise OfflineError(missing)

    def _download(self, url: str, package: DebianPackage) -> None:
        what = f"{package.name} {package.version}"
        with contextlib.closing(_read_url(url)) as chunks:
            sized = _at_most(chunks, package.size, what)
            counted = self.progress.counted("fetch", what, sized, package.size)
            self.store.add(counted, expected=package.digest, what=what)

    def _download_wheels(self, pins: Sequence[WheelPin], target: PythonIntent) -> None:
        with self.store.temporary_folder() as folder:
            requirements = folder / "requirements.txt"
            requirements.write_text(
                "".join(f"{pin.name}=={pin.version} --hash={pin.digest}\n" for pin in pins), encoding="utf-8"
            )
            downloads = folder / "wheels"
            downloads.mkdir()
            pip_download(target, requirements, downloads)
            found = {self.store.add_file(path).digest for path in sorted(downloads.iterdir())}
            absent = [f"{pin.name} {pin.version}" for pin in pins if pin.digest not in found]
            if absent:
                raise FetchError(f"pip ended well without: {', '.join(absent)}")


def _some(names: Iterator[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:4])
    return shown if len(listed) <= 4 else f"{shown}, …"  # noqa: PLR2004 - as many as fit on a line


def _at_most(chunks: Iterator[bytes], size: int, what: str) -> Iterator[bytes]:
    # An answer without an end would fill the disk before its digest is known to be wrong.
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            raise DigestMismatchError(f"{what}: the server sends more bytes than the lock says")
        yield chunk


def _read_url(url: str) -> Generator[bytes, None, None]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        yield from _read_file(Path(unquote(parts.path)))
    elif parts.scheme in ("http", "https"):
        yield from _read_http(url)
    else:
        raise FetchError(
            f"can't fetch {url}: its scheme is {parts.scheme!r}", advice="Use https, http or file."
        )


def _read_file(path: Path) -> Generator[bytes, None, None]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise FetchError(f"can't read {path}: {error.strerror}") from error


def _read_http(url: str) -> Generator[bytes, None, None]:
    import requests  # noqa: PLC0415 - only a build that downloads pays for it
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3.util import Retry  # noqa: PLC0415

    retry = Retry(total=ATTEMPTS, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        try:
            with session.get(url, stream=True, timeout=(CONNECT_SECONDS, SILENCE_SECONDS)) as response:
                response.raise_for_status()
                yield from response.iter_content(CHUNK_BYTES)
        except requests.HTTPError as error:
            raise FetchError(
                f"{url}: the server answered {error.response.status_code} {error.response.reason}",
                advice="If a mirror no longer holds this version, name another by BERTIR_DEBIAN_MIRROR.",
            ) from error
        except requests.RequestException as error:
            raise FetchError(
                f"{url}: {error}", advice="See whether this machine reaches that server, then run it again."
            ) from error
