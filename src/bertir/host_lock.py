"""The host's locks, `requirements/*.lock`: what virtualenvs hold, bertir's own and the examples' service's, in pip's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import ConfigurationError, StaleLockError
from bertir.lock import RELOCK, read_lock
from bertir.redact import shown
from bertir.requirements import parse_requirements
from bertir.toml_text import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BUILD_LOCK = "build.lock"
HOST_LOCKS: Mapping[str, tuple[str, ...]] = {BUILD_LOCK: ("bootstrap",), "dev.lock": ("bootstrap", "dev")}
# Of a virtualenv of its own, in which examples/serving runs; nothing of bertir's is in it.
SERVING_LOCK, SERVING = "serving.lock", "serving"
# tokenizers requires it, and a tokenizer that is made of a vocabulary file never imports it; it brings a dozen others.
NOT_SERVED = ("huggingface-hub",)
# Of another, which `invoke bench` compares with.
OPTIMUM_LOCK, OPTIMUM = "optimum.lock", "optimum"
# Required by one of these, and used by nothing that is compared. The published torchvision is of another build of torch.
LEFT_OUT = ("torchvision",)


def host_requirements(root: Path, groups: Sequence[str]) -> tuple[str, ...]:
    """Give pyproject.toml's dependencies and those of some of its dependency groups, sorted.

    Raises:
        ConfigurationError: pyproject.toml is missing, no TOML, or lacks one of them.
    """
    return _requirements(root, groups, project=True)


def serving_requirements(root: Path) -> tuple[str, ...]:
    """Give the requirements of the examples' service. Raises as above."""
    return _requirements(root, [SERVING], project=False)


def optimum_requirements(root: Path) -> tuple[str, ...]:
    """Give the requirements of what `invoke bench` compares with. Raises as above."""
    return _requirements(root, [OPTIMUM], project=False)


def _requirements(root: Path, groups: Sequence[str], *, project: bool) -> tuple[str, ...]:
    path = root / "pyproject.toml"
    try:
        data = read_toml(path)
        found = [*data["project"]["dependencies"]] if project else []
        for group in groups:
            found += data["dependency-groups"][group]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:  # ValueError: not TOML, not UTF-8
        raise ConfigurationError(f"can't read the dependencies of {path}: {shown(error)}") from error
    if not all(isinstance(item, str) for item in found):
        raise ConfigurationError(f"{path}: dependencies must be strings")
    return tuple(sorted(set(found)))


def host_resolution(root: Path, groups: Sequence[str]) -> Digest:
    """Digest of what a host lock is made from."""
    return Digest.of_json(list(host_requirements(root, groups)))


def serving_resolution(root: Path) -> Digest:
    """Digest of what that lock is made from."""
    return Digest.of_json([*serving_requirements(root), *(f"!{name}" for name in NOT_SERVED)])


def optimum_resolution(root: Path) -> Digest:
    """Digest of what that lock is made from."""
    return Digest.of_json([*optimum_requirements(root), *(f"!{name}" for name in LEFT_OUT)])


def check_host_locks(root: Path) -> None:
    """Check that `requirements/*.lock` belong to pyproject.toml and pin everything by sha256.

    Raises:
        StaleLockError, LockError, ConfigurationError: as `load_image_lock`.
    """
    for file, groups in HOST_LOCKS.items():
        _check(root, file, host_resolution(root, groups), RELOCK)
    _check(root, SERVING_LOCK, serving_resolution(root), RELOCK)


def check_optimum_lock(root: Path) -> None:
    """Check that lock as the others. Raises as above."""
    _check(root, OPTIMUM_LOCK, optimum_resolution(root), "Run: invoke lock --only bench")


def _check(root: Path, file: str, resolution: Digest, advice: str) -> None:
    path = root / "requirements" / file
    lock = parse_requirements(read_lock(path), name=str(path))
    if lock.made_from != resolution:
        raise StaleLockError(
            f"{path} is stale: the dependencies in {root / 'pyproject.toml'} changed", advice=advice
        )
