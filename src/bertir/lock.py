"""The locks: what `invoke lock` resolved, and all that a build reads of versions.

    docker/debian.lock          Debian packages: name, version, pool path, size, sha256
    docker/requirements.lock    wheels, in pip's format: one sha256 each, that of the wheel for the image's platform
    docker/image.lock           layers, image ID, manifest

(The host's own are in host_lock.py.) Each says, by digest, what it was made from. When that has changed since, the lock is stale, which is an error:
a build that silently used the old versions would not be what the repository says.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.errors import ConfigurationError, LockError, StaleLockError
from bertir.frozen import dataclass
from bertir.intent import IMAGE_TOML, load_intent
from bertir.redact import shown
from bertir.requirements import Requirement, Requirements, dump_requirements, parse_requirements
from bertir.small_file import read_small_text
from bertir.store import Blob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.intent import ImageIntent

DEBIAN_LOCK = "debian.lock"
REQUIREMENTS_LOCK = "requirements.lock"
IMAGE_LOCK = "image.lock"
PRECOMPILE = "steps/precompile.py"

PACKAGE_FORMS = {
    "name": r"[a-z0-9][a-z0-9+.-]+",
    "version": r"[A-Za-z0-9.+~:-]+",
    "architecture": r"[a-z0-9-]+",
    # Nothing that could lead a URL elsewhere.
    "pool_path": r"pool(?:/[A-Za-z0-9+_~-][A-Za-z0-9.+_~-]*)+\.deb",
}
_NOTE = "Written by `invoke lock`; don't edit."
RELOCK = "Run: invoke lock"
_RESTORE = "Restore it (git checkout), or write it anew: invoke lock"


@dataclass(frozen=True, kw_only=True)
class DebianPackage:
    """One package; the mirror's base URL and `pool_path` make its URL."""

    name: str
    version: str
    architecture: str
    pool_path: str
    size: int
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class DebianLock:
    """`docker/debian.lock`, sorted by name. `made_from` is `DebianIntent.resolution`."""

    made_from: Digest
    packages: tuple[DebianPackage, ...]


@dataclass(frozen=True, kw_only=True)
class WheelPin:
    """One wheel. Its file name isn't pinned: the digest says which of a version's files it is."""

    name: str
    version: str
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class LayerPin:
    """A layer; layers aren't compressed, so the digest is both the blob's and the diff ID."""

    name: str
    digest: Digest
    size: int

    @property
    def blob(self) -> Blob:
        return Blob(digest=self.digest, size=self.size)


@dataclass(frozen=True, kw_only=True)
class ImageLock:
    """`docker/image.lock`, with the two locks that it was made from.

    Args:
        inputs: digest of the parsed content of each file that the image was made from.
        image_id: the configuration's digest, which engines with the classic image store call the image by.
        manifest: the manifest's digest, which those with containerd's store do (Docker 29's default).
    """

    inputs: Mapping[str, Digest]
    platform: str
    debian: tuple[DebianPackage, ...]
    wheels: tuple[WheelPin, ...]
    layers: tuple[LayerPin, ...]
    image_id: Digest
    manifest: Digest


def load_image_lock(docker_folder: Path, intent: ImageIntent | None = None) -> ImageLock:
    """Read the image's three locks and check that they belong to `image.toml` and to each other.

    `intent` is what that file says, where it was read already.

    Raises:
        StaleLockError: something was edited since `invoke lock`; the message says what.
        LockError: a lock is missing or isn't what `invoke lock` writes.
        ConfigurationError: `image.toml` is wrong.
    """
    intent = intent or load_intent(docker_folder)
    debian = load_debian_lock(docker_folder, intent)
    wheels = load_wheel_pins(docker_folder, intent)
    name = str(docker_folder / IMAGE_LOCK)
    lock = parse_image_lock(read_lock(docker_folder / IMAGE_LOCK), debian=debian, wheels=wheels, name=name)
    current = image_inputs(docker_folder, intent, debian, wheels)
    changed = sorted(key for key in {*current, *lock.inputs} if current.get(key) != lock.inputs.get(key))
    if changed:
        files = ", ".join(shown(str(docker_folder / key))[1:-1] for key in changed)
        raise StaleLockError(f"{name} is stale: changed since it was made: {files}", advice=RELOCK)
    return lock


def image_inputs(
    docker_folder: Path,
    intent: ImageIntent,
    debian: Sequence[DebianPackage],
    wheels: Sequence[WheelPin],
) -> dict[str, Digest]:
    """Digests of all that the image depends on, by file name (parsed: a comment changes nothing)."""
    return {
        IMAGE_TOML: intent.digest,
        DEBIAN_LOCK: debian_digest(debian),
        REQUIREMENTS_LOCK: wheels_digest(wheels),
        PRECOMPILE: precompile_digest(docker_folder),
    }


def debian_digest(packages: Sequence[DebianPackage]) -> Digest:
    return Digest.of_json([_package_json(package) for package in packages])


def wheels_digest(pins: Sequence[WheelPin]) -> Digest:
    return Digest.of_json([[pin.name, pin.version, str(pin.digest)] for pin in pins])


def precompile_digest(docker_folder: Path) -> Digest:
    """Digest of the program that compiles the image's modules; raises `ConfigurationError` if it isn't there."""
    try:
        return Digest.of_file(docker_folder / PRECOMPILE)
    except OSError as error:
        raise ConfigurationError(f"can't read {docker_folder / PRECOMPILE}: {error.strerror}") from error


# docker/debian.lock


def load_debian_lock(docker_folder: Path, intent: ImageIntent) -> tuple[DebianPackage, ...]:
    """Read `debian.lock`. Raises as `load_image_lock` does."""
    path = docker_folder / DEBIAN_LOCK
    lock = parse_debian_lock(read_lock(path), name=str(path))
    if lock.made_from != intent.debian.resolution:
        raise StaleLockError(
            f"{path} is stale: [debian] of {docker_folder / IMAGE_TOML} asks for other packages"
            " than it was made from",
            advice=RELOCK,
        )
    return lock.packages


def dump_debian_lock(lock: DebianLock) -> str:
    return _dump(
        {"made_from": str(lock.made_from), "packages": [_package_json(package) for package in lock.packages]}
    )


def parse_debian_lock(text: str, *, name: str = DEBIAN_LOCK) -> DebianLock:
    """Read what `dump_debian_lock` wrote; raises `LockError` for anything else."""
    reader = _Reader(text, name)
    packages = tuple(
        DebianPackage(
            name=item.text("name", PACKAGE_FORMS["name"]),
            version=item.text("version", PACKAGE_FORMS["version"]),
            architecture=item.text("architecture", PACKAGE_FORMS["architecture"]),
            pool_path=item.text("pool_path", PACKAGE_FORMS["pool_path"]),
            size=item.number("size"),
            digest=item.digest("sha256"),
        )
        for item in reader.items("packages")
    )
    return DebianLock(made_from=reader.digest("made_from"), packages=packages)


def _package_json(package: DebianPackage) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "architecture": package.architecture,
        "pool_path": package.pool_path,
        "size": package.size,
        "sha256": str(package.digest),
    }


# docker/requirements.lock


def load_wheel_pins(docker_folder: Path, intent: ImageIntent) -> tuple[WheelPin, ...]:
    """Read `requirements.lock`. Raises as `load_image_lock` does."""
    path = docker_folder / REQUIREMENTS_LOCK
    requirements = parse_requirements(read_lock(path), name=str(path))
    if requirements.made_from != intent.python.resolution:
        raise StaleLockError(
            f"{path} is stale: [python] of {docker_folder / IMAGE_TOML} asks for other wheels"
            " than it was made from",
            advice=RELOCK,
        )
    return tuple(wheel_pin(pin, str(path)) for pin in requirements.pins)


def dump_wheel_pins(pins: Sequence[WheelPin], *, made_from: Digest) -> str:
    requirements = tuple(
        Requirement(name=pin.name, version=pin.version, digests=(pin.digest,)) for pin in pins
    )
    return dump_requirements(Requirements(made_from=made_from, pins=requirements))


def wheel_pin(pin: Requirement, name: str) -> WheelPin:
    """Give what a requirement of an image's lock pins; `name` is that lock's. Raises `LockError`."""
    if pin.marker or len(pin.digests) != 1:
        raise LockError(
            f"{name}: {pin.name}=={pin.version} must have one sha256 and no marker:"
            " the image is for one platform",
            advice=_RESTORE,
        )
    return WheelPin(name=pin.name, version=pin.version, digest=pin.digests[0])


# docker/image.lock


def dump_image_lock(lock: ImageLock) -> str:
    """Give the text of `image.lock`; packages and wheels stand in the two other locks."""
    return _dump(
        {
            "image_id": str(lock.image_id),
            "inputs": {key: str(digest) for key, digest in lock.inputs.items()},
            "layers": [
                {"name": layer.name, "digest": str(layer.digest), "size": layer.size} for layer in lock.layers
            ],
            "manifest": str(lock.manifest),
            "platform": lock.platform,
        }
    )


def parse_image_lock(
    text: str,
    *,
    debian: tuple[DebianPackage, ...],
    wheels: tuple[WheelPin, ...],
    name: str = IMAGE_LOCK,
) -> ImageLock:
    """Read what `dump_image_lock` wrote; raises `LockError` for anything else."""
    reader = _Reader(text, name)
    layers = tuple(
        LayerPin(
            name=item.text("name", r"[a-z]+"),
            digest=item.digest("digest"),
            size=item.number("size"),
        )
        for item in reader.items("layers")
    )
    return ImageLock(
        inputs=reader.digests("inputs"),
        platform=reader.text("platform", r"[a-z0-9]+/[a-z0-9]+"),
        debian=debian,
        wheels=wheels,
        layers=layers,
        image_id=reader.digest("image_id"),
        manifest=reader.digest("manifest"),
    )


# JSON


def read_lock(path: Path) -> str:
    """Give the text of a lock file; raises `LockError` if it can't be read."""
    try:
        return read_small_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"can't read {path}: {error}", advice=_RESTORE) from error


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps({"//": _NOTE, **value}, indent=2, sort_keys=True) + "\n"


class _Reader:
    """A JSON object whose values are taken with their form checked."""

    def __init__(self, source: str | Mapping[str, Any], name: str) -> None:
        self._name = name
        try:
            data = json.loads(source) if isinstance(source, str) else source
        except (ValueError, RecursionError) as error:
            raise LockError(f"{name} is no JSON: {error}", advice=_RESTORE) from error
        if not isinstance(data, dict):
            raise self._wrong("", "an object", data)
        self._data = data

    def _wrong(self, key: str, expected: str, found: object) -> LockError:
        where = f"{self._name}: `{shown(key)[1:-1]}`" if key else self._name
        return LockError(f"{where} must be {expected}, and is {shown(found)}", advice=_RESTORE)

    def text(self, key: str, pattern: str) -> str:
        value = self._data.get(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self._wrong(key, f"a string of the form {pattern}", value)
        return value

    def number(self, key: str) -> int:
        value = self._data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(key, "a positive integer", value)
        return value

    def digest(self, key: str) -> Digest:
        return Digest.from_str(self.text(key, r"sha256:[0-9a-f]{64}"))

    def digests(self, key: str) -> dict[str, Digest]:
        inner = _Reader(self._data.get(key) or {}, f"{self._name}, {key}")
        return {name: inner.digest(name) for name in inner._data}

    def items(self, key: str) -> list[_Reader]:
        values = self._data.get(key)
        if not isinstance(values, list):
            raise self._wrong(key, "a list", values)
        return [_Reader(value, f"{self._name}, {key}[{number}]") for number, value in enumerate(values)]
