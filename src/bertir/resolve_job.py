"""The job image's intent → its locks. `invoke lock` calls it, once the step image's and the host's are fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.apt import resolve_packages
from bertir.deb import package_control
from bertir.errors import LockError
from bertir.host_lock import check_host_locks
from bertir.image import describe_image
from bertir.image_sbom import interpreter_version
from bertir.inventory import marker_environment
from bertir.job import JobMaterials, assemble_job_layers
from bertir.job_intent import load_job_intent
from bertir.job_lock import (
    JOB_DEBIAN_LOCK,
    JOB_LOCK,
    JOB_REQUIREMENTS_LOCK,
    debian_resolution,
    job_inputs,
    load_host_pins,
    wheels_resolution,
)
from bertir.lock import DebianLock, ImageLock, dump_debian_lock, dump_image_lock, dump_wheel_pins
from bertir.mirror import debian_mirror
from bertir.requirements import Requirement
from bertir.resolve import fetch_wheels, replace_all
from bertir.versions import holds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bertir.apt import ResolvedPackage
    from bertir.builder import Builder
    from bertir.intent import ImageIntent
    from bertir.job_intent import JobIntent
    from bertir.lock import DebianPackage
    from bertir.requirements import Requirements

# More than any package asks for.
_ANY_VERSION = "999:0"


def resolve_job(builder: Builder) -> ImageLock:
    """Choose the job's Debian packages anew, pick its wheels of the host's lock, and write its locks, all or none.

    Raises:
        LockError: something can't be resolved, or written; or the step image's or the host's lock is stale.
        ConfigurationError: `job.toml` is wrong, or there is no mirror.
        EngineError: no engine runs the compilation.
    """
    layout, store, step, step_lock = builder.layout, builder.store, builder.intent, builder.lock
    check_host_locks(layout.root)
    job, host = load_job_intent(layout.docker), load_host_pins(layout.root)
    mirror = debian_mirror(builder.environment)
    builder.assemble_image()
    below = builder.fetcher.debian_packages(step_lock.debian)
    with store.temporary_folder() as folder:
        chosen = applicable(host, step, step_lock)
        python = job.over(step).python
        wheels = fetch_wheels(python, chosen, folder)
        apt = folder / "apt"
        apt.mkdir()
        packages = resolve_packages(job.debian(step), mirror, apt, installed=installed(below, job))
        _refuse_changed(packages, step_lock.debian)
        layers = assemble_job_layers(
            store,
            step,
            step_lock,
            job,
            JobMaterials(
                packages=lambda: [(item.package, item.path) for item in packages],
                step_packages=lambda: below,
                wheels=lambda: [(item.pin, item.path) for item in wheels],
                precompile=builder.precompile,
                host_lock=host.digest,
            ),
        )
        for path in [*(item.path for item in packages), *(item.path for item in wheels)]:
            store.add_file(path)  # the next `invoke image --job` needs these very files
    image = describe_image(job.over(step), layers)
    debian, pins = tuple(item.package for item in packages), tuple(item.pin for item in wheels)
    lock = ImageLock(
        inputs=job_inputs(layout.docker, job, step_lock, debian, pins),
        platform=step.platform,
        debian=debian,
        wheels=pins,
        layers=image.layers,
        image_id=image.id,
        manifest=image.manifest_digest,
    )
    made = DebianLock(made_from=debian_resolution(step, step_lock, job), packages=debian)
    replace_all(
        {
            layout.docker / JOB_DEBIAN_LOCK: dump_debian_lock(made),
            layout.docker / JOB_REQUIREMENTS_LOCK: dump_wheel_pins(
                pins, made_from=wheels_resolution(step.python, host)
            ),
            layout.docker / JOB_LOCK: dump_image_lock(lock),
        }
    )
    return lock


def applicable(host: Requirements, step: ImageIntent, step_lock: ImageLock) -> list[Requirement]:
    """Give the pins of the host's lock that hold for the image, whatever machine this runs on."""
    environment = marker_environment(step.python, interpreter_version(step, step_lock))
    return [
        Requirement(name=pin.name, version=pin.version, digests=pin.digests)
        for pin in host.pins
        if not pin.marker or holds(pin.marker, environment)
    ]


def installed(below: Iterable[tuple[DebianPackage, Path]], job: JobIntent) -> str:
    """Write dpkg's status file of the step image, as apt reads it; and of what the job goes without."""
    controls = [package_control(package, path) for package, path in below]
    controls += [
        f"Package: {name}\nVersion: {_ANY_VERSION}\nArchitecture: all\nMulti-Arch: foreign\n"
        "Maintainer: nobody\nDescription: left out\n"
        for name in job.without
    ]
    return "".join(_as_installed(control) for control in controls)


def _as_installed(control: str) -> str:
    first, _, rest = control.strip().partition("\n")
    return f"{first}\nStatus: install ok installed\n{rest}\n\n"


def _refuse_changed(packages: Sequence[ResolvedPackage], below: Sequence[DebianPackage]) -> None:
    names = {package.name for package in below}
    if changed := [item.package.name for item in packages if item.package.name in names]:
        raise LockError(
            f"the job's packages need other versions of the step image's: {', '.join(changed)}",
            advice="Lock that anew first: invoke lock --only image",
        )
