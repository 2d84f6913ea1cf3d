"""Intent → lock: the only code that chooses versions. `invoke lock` calls it; nothing else does."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.apt import resolve_packages
from bertir.assemble import Materials, assemble_layers
from bertir.digest import Digest
from bertir.errors import LockError
from bertir.host_lock import (
    HOST_LOCKS,
    LEFT_OUT,
    NOT_SERVED,
    OPTIMUM_LOCK,
    SERVING_LOCK,
    host_requirements,
    host_resolution,
    optimum_requirements,
    optimum_resolution,
    serving_requirements,
    serving_resolution,
)
from bertir.image import describe_image
from bertir.intent import load_intent
from bertir.interruption import held
from bertir.lock import (
    DEBIAN_LOCK,
    IMAGE_LOCK,
    REQUIREMENTS_LOCK,
    DebianLock,
    ImageLock,
    WheelPin,
    dump_debian_lock,
    dump_image_lock,
    dump_wheel_pins,
    image_inputs,
)
from bertir.mirror import debian_mirror
from bertir.requirements import Requirements, dump_requirements
from bertir.wheel import distribution_of
from bertir.wheelhouse import (
    pip_download,
    resolve_host_requirements,
    resolve_image_requirements,
    resolve_installation,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.apt import ResolvedPackage
    from bertir.assemble import Precompile
    from bertir.intent import ImageIntent, PythonIntent
    from bertir.requirements import Requirement
    from bertir.store import Store


@dataclass(frozen=True, kw_only=True)
class ResolvedWheel:
    """A wheel with the file that pip fetched and checked."""

    pin: WheelPin
    path: Path


def resolve_host(root: Path, store: Store) -> None:
    """Choose the host's versions anew and write `requirements/*.lock`, all or none.

    Raises:
        LockError: something can't be resolved, or written.
        ConfigurationError: pyproject.toml is wrong.
    """
    with store.temporary_folder() as folder:
        texts = {
            root / "requirements" / name: _host_lock(root, groups, folder)
            for name, groups in HOST_LOCKS.items()
        }
        texts[root / "requirements" / SERVING_LOCK] = _serving_lock(root, folder)
    replace_all(texts)


def resolve_optimum(root: Path, store: Store) -> None:
    """Choose the versions anew that `invoke bench` compares with, for this machine, and write their lock.

    Raises: as `resolve_host`.
    """
    with store.temporary_folder() as folder:
        found = resolve_installation(optimum_requirements(root), folder)
    pins = tuple(pin for pin in found if pin.name not in LEFT_OUT)
    lock = Requirements(made_from=optimum_resolution(root), pins=pins)
    replace_all({root / "requirements" / OPTIMUM_LOCK: dump_requirements(lock)})


def resolve_image(
    docker_folder: Path, store: Store, environment: Mapping[str, str], precompile: Precompile
) -> ImageLock:
    """Choose the image's versions anew, build the image of them, and write `docker/*.lock`, all or none.

    Args:
        docker_folder: where `image.toml` is.
        store: keeps what was fetched and built.
        environment: `BERTIR_DEBIAN_MIRROR` is looked up in it.
        precompile: runs `docker/steps/precompile.py` in the image.

    Raises:
        LockError: something can't be resolved, or written.
        ConfigurationError: `image.toml` is wrong, or there is no mirror.
        EngineError: the image can't be assembled, or no engine runs the compilation.
    """
    intent = load_intent(docker_folder)
    mirror = debian_mirror(environment)
    with store.temporary_folder() as folder:
        wheels = resolve_wheels(intent.python, folder)
        packages = resolve_packages(intent.debian, mirror, _made(folder / "apt"))
        lock = _image_lock(
            docker_folder, store, intent, packages=packages, wheels=wheels, precompile=precompile
        )
        _keep(store, [*(item.path for item in packages), *(item.path for item in wheels)])
    debian = DebianLock(made_from=intent.debian.resolution, packages=lock.debian)
    replace_all(
        {
            docker_folder / DEBIAN_LOCK: dump_debian_lock(debian),
            docker_folder / REQUIREMENTS_LOCK: dump_wheel_pins(
                lock.wheels, made_from=intent.python.resolution
            ),
            docker_folder / IMAGE_LOCK: dump_image_lock(lock),
        }
    )
    return lock


def resolve_wheels(python: PythonIntent, folder: Path) -> tuple[ResolvedWheel, ...]:
    """Choose versions, fetch the one wheel of each that fits the image, and pin that; sorted by name.

    Raises:
        LockError: uv can't resolve, or a version has no wheel for the image.
        FetchError: pip can't fetch.
    """
    return fetch_wheels(python, resolve_image_requirements(python, folder), folder)


def fetch_wheels(
    python: PythonIntent, pins: Sequence[Requirement], folder: Path
) -> tuple[ResolvedWheel, ...]:
    """Fetch the one wheel of each pin that fits the image, and pin that; sorted by name. Raises as above."""
    asked = folder / "requirements.txt"
    asked.write_text(
        dump_requirements(Requirements(made_from=python.resolution, pins=tuple(pins))), encoding="utf-8"
    )
    wheels = _made(folder / "wheels")
    pip_download(python, asked, wheels)
    by_name = {distribution_of(path.name): path for path in wheels.iterdir()}
    missing = [pin.name for pin in pins if pin.name not in by_name]
    if missing or len(by_name) != len(pins):
        raise LockError(f"pip fetched other wheels than uv chose: {', '.join(missing) or 'too many'}")
    found = ((pin, by_name[pin.name]) for pin in pins)
    return tuple(
        ResolvedWheel(
            pin=WheelPin(name=pin.name, version=pin.version, digest=Digest.of_file(path)), path=path
        )
        for pin, path in sorted(found, key=lambda item: item[0].name)
    )


def _host_lock(root: Path, groups: Sequence[str], folder: Path) -> str:
    pins = resolve_host_requirements(host_requirements(root, groups), folder)
    return dump_requirements(Requirements(made_from=host_resolution(root, groups), pins=pins))


def _serving_lock(root: Path, folder: Path) -> str:
    pins = resolve_host_requirements(serving_requirements(root), folder, without=NOT_SERVED)
    return dump_requirements(Requirements(made_from=serving_resolution(root), pins=pins))


def _image_lock(
    docker_folder: Path,
    store: Store,
    intent: ImageIntent,
    *,
    packages: Sequence[ResolvedPackage],
    wheels: Sequence[ResolvedWheel],
    precompile: Precompile,
) -> ImageLock:
    materials = Materials(
        packages=lambda: [(item.package, item.path) for item in packages],
        wheels=lambda: [(item.pin, item.path) for item in wheels],
        precompile=precompile,
    )
    image = describe_image(intent, assemble_layers(store, intent, materials))
    debian = tuple(item.package for item in packages)
    pins = tuple(item.pin for item in wheels)
    return ImageLock(
        inputs=image_inputs(docker_folder, intent, debian, pins),
        platform=intent.platform,
        debian=debian,
        wheels=pins,
        layers=image.layers,
        image_id=image.id,
        manifest=image.manifest_digest,
    )


def _keep(store: Store, paths: Sequence[Path]) -> None:
    # The next `invoke image` needs these very files.
    for path in paths:
        store.add_file(path)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def replace_all(texts: Mapping[Path, str]) -> None:
    """Replace files by new texts, all or none.

    The texts are written beside their places first, so that what remains is renaming; should that fail half-way,
    the old files are put back.

    Raises:
        LockError: a file can't be written; all are as they were.
    """
    old: dict[Path, bytes | None] = {}
    new = {path: path.with_name(f".{path.name}.new") for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(exist_ok=True)
            old[path] = path.read_bytes() if path.exists() else None
            new[path].write_text(text, encoding="utf-8")
        with held():  # not half of them
            for path, written in new.items():
                written.replace(path)
    except OSError as error:
        for path, data in old.items():
            _restore(path, data)
        raise LockError(f"can't write the locks; they are as they were: {error}") from error
    finally:
        for written in new.values():
            written.unlink(missing_ok=True)


def _restore(path: Path, data: bytes | None) -> None:
    with contextlib.suppress(OSError):
        if data is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != data:
            path.write_bytes(data)
