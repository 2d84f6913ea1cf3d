"""Materials: the pinned external inputs. The only code of a build that downloads.

Whatever the transport, a material enters the store only if it has the pinned sha256.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bertir.derivation import MOMENT
from bertir.digest import tree_digest
from bertir.errors import DigestMismatchError, FetchError
from bertir.frozen import dataclass
from bertir.origin import PUBLISHERS, Origin, other_file, take_from_folder
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bertir.digest import Digest
    from bertir.intent import PythonIntent
    from bertir.lock import DebianPackage, WheelPin
    from bertir.model import GoogleZip, Model
    from bertir.progress import Progress
    from bertir.store import Blob, Store
    from bertir.task_data import PinnedFile
    from bertir.web import Patience

MOST_ZIP_BYTES = 4_000_000_000  # BERT-Large's has 1.25 GB


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
    """Where materials come from, and where they go.

    Args:
        offline: no network; a mirror that is a folder may be used.
        origin: where models and task data come from.
        patience: with servers, if not the usual one.
    """

    store: Store
    environment: Mapping[str, str]
    progress: Progress
    offline: bool = False
    origin: Origin = PUBLISHERS
    patience: Patience | None = None

    def debian_packages(self, packages: Sequence[DebianPackage]) -> list[tuple[DebianPackage, Path]]:
        """Give each package's file, fetched from the machine's own Debian mirror if it isn't in the store.

        Raises:
            FetchError: it can't be had. DigestMismatchError: it isn't the pinned file.
        """
        missing = [package for package in packages if self.store.find(package.digest) is None]
        self._refuse_offline([f"Debian package {item.name} {item.version}" for item in missing])
        if missing:
            from bertir.mirror import debian_mirror

            megabytes = sum(package.size for package in missing) / 1e6
            self.progress.say("fetch", f"{len(missing)} Debian packages, {megabytes:.1f} MB")
            mirror = debian_mirror(self.environment)
            for package in missing:
                self._download_package(f"{mirror}/{package.pool_path}", package)
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
            self._download_wheels(missing, target, stage)
        return [(pin, self._checked(pin.digest, pin.name)) for pin in pins]

    def google_zip(self, model: Model, archive: GoogleZip) -> Artifact:
        """Give the files of a model that Google publishes; its zip is fetched only if the store lacks one of them.

        Raises:
            FetchError: it can't be had, or holds no such files. DigestMismatchError: they are not the pinned ones.
        """
        with self._alone(tree_digest(model.files), model.name):
            found = {name: self.store.find(digest) for name, digest in model.files.items()}
            missing = {name: model.files[name] for name, blob in found.items() if blob is None}
            if missing:
                self._take_google_files(model, archive, missing)
        return Artifact(files={name: self._found(digest, name) for name, digest in model.files.items()})

    def _take_google_files(self, model: Model, archive: GoogleZip, missing: Mapping[str, Digest]) -> None:
        from bertir.archive import take_files

        what = f"{archive.name} of {model.name}"
        if (folder := self.origin.folder) is not None:
            self.progress.say("fetch", f"{model.name}: {len(missing)} files from {folder}")
            others = take_from_folder(self.store, folder, missing, usual=archive.folder)
            missing = {name: digest for name, digest in missing.items() if self.store.find(digest) is None}
            if missing and (folder / archive.name).is_file():
                take_files(self.store, folder / archive.name, missing, what=what)
            elif missing:
                self._refuse_mirror(folder, missing, others, f"{archive.name}, {archive.folder}/{{}}, {{}}")
            return
        self._refuse_offline([f"{model.name}: {name}" for name in missing])

        def take(path: Path) -> None:
            self.progress.say("fetch", f"{what}: taking {len(missing)} files")
            take_files(self.store, path, missing, what=what)

        self._download(
            take,
            url=self.origin.address(archive.url, archive.name),
            key=tree_digest(model.files),
            most=MOST_ZIP_BYTES,
            what=what,
            advice=self.origin.advice,
        )

    def files(self, pins: Sequence[PinnedFile]) -> dict[str, Path]:
        """Give files that are published one by one, each by its name.

        Raises:
            FetchError: one can't be had. DigestMismatchError: it isn't the pinned one.
        """
        missing = [pin for pin in pins if self.store.find(pin.digest) is None]
        if self.origin.folder is None:
            self._refuse_offline([pin.name for pin in missing])
        for pin in missing:
            with self._alone(pin.digest, pin.name):
                if self.store.find(pin.digest) is None:
                    self._file(pin)
        return {pin.name: self._checked(pin.digest, pin.name) for pin in pins}

    def _file(self, pin: PinnedFile) -> None:
        if (folder := self.origin.folder) is not None:
            wanted = {pin.name: pin.digest}
            others = take_from_folder(self.store, folder, wanted)
            if self.store.find(pin.digest) is None:
                self._refuse_mirror(folder, wanted, others, "{}")
            return
        self._download(
            lambda path: self.store.add_file(path, expected=pin.digest, what=pin.name),
            url=self.origin.address(pin.url, pin.name),
            key=pin.digest,
            most=pin.size,
            what=pin.name,
            advice=self.origin.advice,
        )

    def _refuse_mirror(
        self, folder: Path, missing: Mapping[str, Digest], others: Mapping[str, Path], looked_for: str
    ) -> None:
        for name, path in others.items():
            raise other_file(name, missing[name], path)
        name = next(iter(missing))
        raise FetchError(
            f"the mirror {folder} lacks {', '.join(missing)}\n  looked for {looked_for.format(name, name)}, */{name}",
            advice=self.origin.advice,
        )

    def _checked(self, digest: Digest, name: str) -> Path:
        return self.store.checked(self._found(digest, name), what=name)

    def _found(self, digest: Digest, name: str) -> Blob:
        blob = self.store.find(digest)
        if blob is None:  # fetched a moment ago, and removed from outside since
            raise FetchError(f"{name} is no longer in the store", advice="Run the same command again.")
        return blob

    def _refuse_offline(self, missing: Sequence[str]) -> None:
        if missing and self.offline:
            raise OfflineError(missing)

    def _alone(
        self, digest: Digest, what: str, stage: str = "fetch", *, after: float = 0
    ) -> AbstractContextManager[None]:
        """One process at a time fetches a thing; whoever waited finds it in the store."""
        return self.store.lock(
            f"fetch-{digest.hex}",
            waiting=lambda: self.progress.say(stage, f"{what}: waiting for another process that fetches it"),
            after=after,
        )

    def _download_package(self, url: str, package: DebianPackage) -> None:
        what = f"{package.name} {package.version}"
        advice = "If a mirror no longer holds this version, name another by BERTIR_DEBIAN_MIRROR."
        with self._alone(
            package.digest, what, after=MOMENT
        ):  # of 47 that ten wait for in turn, not a line each
            if self.store.find(package.digest) is not None:
                return
            if url.startswith("file://"):
                self._take_package(Path(unquote(urlsplit(url).path)), package, advice)
                return
            self._download(
                lambda path: self.store.add_file(path, expected=package.digest, what=what),
                url=url,
                key=package.digest,
                most=package.size,
                what=what,
                advice=advice,
            )

    def _take_package(self, path: Path, package: DebianPackage, advice: str) -> None:
        """Take a package from a mirror that lies on this machine."""
        try:
            self.store.add_file(path, expected=package.digest, what=f"{package.name} {package.version}")
        except OSError as error:
            raise FetchError(f"can't read {path}: {error.strerror}", advice=advice) from error

    def _download(
        self, use: Callable[[Path], object], *, url: str, key: Digest, most: int, what: str, advice: str
    ) -> None:
        from bertir.download import Source, download
        from bertir.web import Patience

        patience = self.patience or Patience()
        source = Source(url=url, key=key, most=most, what=what, advice=advice, patience=patience)
        download(self.store, source, self.progress, use)

    def _download_wheels(self, pins: Sequence[WheelPin], target: PythonIntent, stage: str) -> None:
        """Fetch those wheels that no other process is fetching, once for all of them; wait for the others."""
        with contextlib.ExitStack() as held:
            # In one order everywhere, so that no two wait for each other.
            for pin in sorted(pins, key=lambda pin: pin.digest):
                held.enter_context(
                    self._alone(pin.digest, f"wheel {pin.name} {pin.version}", stage, after=MOMENT)
                )
            missing = [pin for pin in pins if self.store.find(pin.digest) is None]
            if missing:
                self.progress.say(
                    stage, f"{len(missing)} wheels by pip: {_some(pin.name for pin in missing)}"
                )
                self._run_pip(missing, target, stage)

    def _run_pip(self, pins: Sequence[WheelPin], target: PythonIntent, stage: str) -> None:
        from bertir.wheelhouse import pip_download

        with self.store.writing("download wheels"), self.store.temporary_folder() as folder:
            requirements = folder / "requirements.txt"
            requirements.write_text(
                "".join(f"{pin.name}=={pin.version} --hash={pin.digest}\n" for pin in pins), encoding="utf-8"
            )
            downloads = folder / "wheels"
            downloads.mkdir()
            try:
                pip_download(target, requirements, downloads)
            except DigestMismatchError:
                # Its cache may be spoiled, or it may have put the wheel together from two downloads.
                self.progress.say(stage, "not the pinned bytes; asking the index anew, without pip's cache")
                pip_download(target, requirements, downloads, cache=False)
            found = {self.store.add_file(path).digest for path in sorted(downloads.iterdir())}
            absent = [f"{pin.name} {pin.version}" for pin in pins if pin.digest not in found]
            if absent:
                raise FetchError(f"pip ended well without: {', '.join(absent)}")


def _some(names: Iterator[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:4])
    return shown if len(listed) <= 4 else f"{shown}, …"  # noqa: PLR2004 - as many as fit on a line
