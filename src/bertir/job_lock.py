"""The locks of the job image, in the forms of the step image's (lock.py).

`docker/job-debian.lock` has the Debian packages that it has over the step image, `docker/job-requirements.lock` the one
wheel that fits the image of each pin of `requirements/build.lock`, and `docker/job.lock` all layers, the step image's
first, with the image's ID. Each says, by digest, what it was made from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import LockError, StaleLockError
from bertir.host_lock import BUILD_LOCK
from bertir.job_intent import JOB_TOML
from bertir.lock import (
    IMAGE_LOCK,
    PRECOMPILE,
    debian_digest,
    parse_debian_lock,
    parse_image_lock,
    precompile_digest,
    read_lock,
    wheel_pin,
    wheels_digest,
)
from bertir.redact import shown
from bertir.requirements import parse_requirements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertir.intent import ImageIntent, PythonIntent
    from bertir.job_intent import JobIntent
    from bertir.lock import DebianPackage, ImageLock, WheelPin
    from bertir.requirements import Requirements

JOB_DEBIAN_LOCK = "job-debian.lock"
JOB_REQUIREMENTS_LOCK = "job-requirements.lock"
JOB_LOCK = "job.lock"
RELOCK_JOB = "Run: invoke lock --only job"


def load_job_lock(root: Path, step: ImageIntent, step_lock: ImageLock, job: JobIntent) -> ImageLock:
    """Read the job image's three locks and check that they belong to `job.toml`, the step image and the host's lock.

    Packages and wheels are those that it has over the step image; layers are all.

    Raises:
        StaleLockError: something changed since; the message says what.
        LockError: a lock is missing or isn't what `invoke lock` writes.
    """
    folder = root / "docker"
    path = folder / JOB_DEBIAN_LOCK
    packages = parse_debian_lock(read_lock(path), name=str(path))
    if packages.made_from != debian_resolution(step, step_lock, job):
        raise _stale(path, f"[debian] of {folder / JOB_TOML}, or the step image's packages, changed")
    path = folder / JOB_REQUIREMENTS_LOCK
    wheels = parse_requirements(read_lock(path), name=str(path))
    if wheels.made_from != wheels_resolution(step.python, load_host_pins(root)):
        raise _stale(path, f"{root / 'requirements' / BUILD_LOCK} changed, or the step image's Python")
    path = folder / JOB_LOCK
    pins = tuple(wheel_pin(pin, str(folder / JOB_REQUIREMENTS_LOCK)) for pin in wheels.pins)
    lock = parse_image_lock(read_lock(path), debian=packages.packages, wheels=pins, name=str(path))
    current = job_inputs(folder, job, step_lock, lock.debian, lock.wheels)
    changed = sorted(key for key in {*current, *lock.inputs} if current.get(key) != lock.inputs.get(key))
    if changed:
        files = ", ".join(shown(str(folder / key))[1:-1] for key in changed)
        raise _stale(path, f"changed since it was made: {files}")
    if lock.layers[: len(step_lock.layers)] != step_lock.layers:
        raise LockError(f"{path}: its first layers are not those of the step image", advice=RELOCK_JOB)
    return lock


def _stale(path: Path, why: str) -> StaleLockError:
    return StaleLockError(f"{path} is stale: {why}", advice=RELOCK_JOB)


def load_host_pins(root: Path) -> Requirements:
    """Read the lock of what bertir itself runs on. Raises `LockError`."""
    path = root / "requirements" / BUILD_LOCK
    return parse_requirements(read_lock(path), name=str(path))


def job_inputs(
    docker_folder: Path,
    job: JobIntent,
    step_lock: ImageLock,
    debian: Sequence[DebianPackage],
    wheels: Sequence[WheelPin],
) -> dict[str, Digest]:
    """Digests of all that the job image depends on, by file name."""
    return {
        JOB_TOML: job.digest,
        IMAGE_LOCK: step_lock.image_id,
        JOB_DEBIAN_LOCK: debian_digest(debian),
        JOB_REQUIREMENTS_LOCK: wheels_digest(wheels),
        PRECOMPILE: precompile_digest(docker_folder),
    }


def debian_resolution(step: ImageIntent, step_lock: ImageLock, job: JobIntent) -> Digest:
    """Digest of what decides the versions of the job's packages."""
    asked = [str(job.debian(step).resolution), sorted(job.without)]
    return Digest.of_json([*asked, [[package.name, package.version] for package in step_lock.debian]])


def wheels_resolution(python: PythonIntent, host: Requirements) -> Digest:
    """Digest of what decides which wheels are the job's."""
    return Digest.of_json([python.version, python.glibc, python.machine, str(host.digest)])
