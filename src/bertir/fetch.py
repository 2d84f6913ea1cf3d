"""Materials: the pinned external inputs. The only code of a build that downloads.

Whatever the transport, a material enters the store only if it has the pinned sha256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.archive import take_files
from bertir.digest import tree_digest
from bertir.errors import FetchError
from bertir.mirror import debian_mirror
from bertir.origin import PUBLISHERS, Origin, other_file, take_from_folder
from bertir.store import Artifact
from bertir.wheelhouse import pip_download

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.download import Patience
    from bertir.intent import PythonIntent
    from bertir.lock import DebianPackage, WheelPin
    from bertir.model import GoogleZip, Model
    from bertir.progress import Progress
    from bertir.store import Blob, Store
    from bertir.task_data import PinnedFile

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
            self.progress.say(stage, f"{len(missing)} wheels by pip: {_some(pin.name for pin in missing)}")
            self._download_wheels(missing, target)
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
        with self._downloaded(
            url=self.origin.address(archive.url, archive.name),
            key=tree_digest(model.files),
            most=MOST_ZIP_BYTES,
            what=what,
            advice=self.origin.advice,
        ) as path:
            self.progress.say("fetch", f"{what}: taking {len(missing)} files")
            take_files(self.store, path, missing, what=what)

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
        with self._downloaded(
            url=self.origin.address(pin.url, pin.name),
            key=pin.digest,
            most=pin.size,
            what=pin.name,
            advice=self.origin.advice,
        ) as path:
            self.store.add_file(path, expected=pin.digest, what=pin.name)

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

    def _alone(self, digest: Digest, what: str) -> AbstractContextManager[None]:
        """One process at a time fetches a thing; whoever waited finds it in the store."""
        return self.store.lock(
            f"fetch-{digest.hex}",
            waiting=lambda: self.progress.say(
                "fetch", f"{what}: waiting for another process that fetches it"
            ),
        )

    def _download_package(self, url: str, package: DebianPackage) -> None:
        what = f"{package.name} {package.version}"
        advice = "If a mirror no longer holds this version, name another by BERTIR_DEBIAN_MIRROR."
        with self._alone(package.digest, what):
            if self.store.find(package.digest) is not None:
                return
            with self._downloaded(
                url=url, key=package.digest, most=package.size, what=what, advice=advice
            ) as path:
                self.store.add_file(path, expected=package.digest, what=what)

    def _downloaded(
        self, *, url: str, key: Digest, most: int, what: str, advice: str
    ) -> AbstractContextManager[Path]:
        from bertir.download import Patience, Source, downloaded

        patience = self.patience or Patience()
        source = Source(url=url, key=key, most=most, what=what, advice=advice, patience=patience)
        return downloaded(self.store, source, self.progress)

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
