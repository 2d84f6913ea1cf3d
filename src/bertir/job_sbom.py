"""The bill of materials of the job image: what it has over the step image, which is one component with its own document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertir.host_lock import BUILD_LOCK, HOST_LOCKS, host_requirements
from bertir.image_sbom import (
    compiled_items,
    compositions,
    file_items,
    image_item,
    interpreter_version,
    part_item,
    part_purl,
)
from bertir.inventory import debian_parts, required_names, wheel_parts
from bertir.job import load_job
from bertir.job_intent import JOB_TOML
from bertir.sbom import (
    IMAGE_NAME,
    IMAGE_REF,
    Item,
    components,
    document,
    image_link,
    image_serial,
    numbered,
    oci_purl,
    pypi_purl,
)
from bertir.versions import normalised_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.intent import ImageIntent
    from bertir.job import Job
    from bertir.lock import DebianPackage, ImageLock, WheelPin

JOB_NAME = f"{IMAGE_NAME}-job"
_STEP_REF = "step-image"
_HOST = "layer/host"


def locked_job_sbom(builder: Builder) -> dict[str, Any]:
    """Give the document of the locked job image; packages and wheels that the store lacks are fetched.

    Raises:
        FetchError: one can't be had. ImageError: one can't be read.
    """
    root, step, step_lock = builder.layout.root, builder.intent, builder.lock
    job = load_job(root, step, step_lock)
    return job_sbom(
        step,
        step_lock,
        job,
        host_requirements(root, HOST_LOCKS[BUILD_LOCK]),
        packages=builder.fetcher.debian_packages(job.lock.debian),
        below=builder.fetcher.debian_packages(step_lock.debian),
        wheels=builder.fetcher.wheels(job.lock.wheels, step.python),
    )


def job_sbom(
    step: ImageIntent,
    step_lock: ImageLock,
    job: Job,
    requirements: Sequence[str],
    *,
    packages: Sequence[tuple[DebianPackage, Path]],
    below: Sequence[tuple[DebianPackage, Path]],
    wheels: Sequence[tuple[WheelPin, Path]],
) -> dict[str, Any]:
    """Give the document of a job image.

    Args:
        step: the image below.
        step_lock: its lock.
        job: the job image.
        requirements: what bertir itself asks for.
        packages: the job's own, with the files that they lie in.
        below: those of the step image.
        wheels: the job's own.

    Raises:
        ImageError: a file can't be read.
    """
    intent = job.intent.over(step)
    intent = replace(intent, python=replace(intent.python, requirements=tuple(requirements)))
    own = {package.name for package, _ in packages}
    debian = {part.name: part for part in debian_parts([*below, *packages]) if part.name in own}
    interpreter = interpreter_version(step, step_lock)
    python = {normalised_name(part.name): part for part in wheel_parts(wheels, intent.python, interpreter)}
    refs = {("deb", name): part_purl(part, intent) for name, part in debian.items()}
    refs |= {("wheel", name): pypi_purl(part.name, part.version) for name, part in python.items()}
    items = [part_item(part, refs["deb", name]) for name, part in debian.items()]
    items += [part_item(part, refs["wheel", name]) for name, part in python.items()]
    others = [_step_image(step, step_lock, job), *_other_items(intent, job.lock)]
    first = [("deb", name) for name in job.intent.packages]
    first += [("wheel", name) for name in required_names(intent.python)]
    edges = {IMAGE_REF: [*(refs[key] for key in first if key in refs), *(item.ref for item in others)]}
    # What a package of the step image provides, the step image does.
    edges |= {
        refs["deb", name]: [refs.get(("deb", other), _STEP_REF) for other in debian[name].needs]
        for name in debian
    }
    edges |= {refs["wheel", name]: [refs["wheel", other] for other in python[name].needs] for name in python}
    [subject] = components([_image(intent, job)])
    value = document(
        subject,
        components=components([*items, *others]),
        dependencies=[{"ref": ref, "dependsOn": sorted(set(edges[ref]))} for ref in sorted(edges)],
        compositions=compositions(debian, python, refs),
    )
    return numbered(value, image_serial(job.lock.image_id, job.lock.manifest))


def _image(intent: ImageIntent, job: Job) -> Item:
    item = image_item(intent, job.lock, JOB_NAME)
    links = [(f"image:link:/{link.path}", link.target) for link in job.intent.links]
    return replace(item, facts=[*item.facts, *links])


def _step_image(step: ImageIntent, lock: ImageLock, job: Job) -> Item:
    return Item(
        ref=_STEP_REF,
        kind="container",
        name=IMAGE_NAME,
        version=str(lock.manifest),
        description=step.labels.get("org.opencontainers.image.description", ""),
        digest=lock.manifest,
        purl=oci_purl(IMAGE_NAME, lock.manifest, lock.platform),
        # Of its packages, and not in it.
        facts=[
            ("image:id", str(lock.image_id)),
            *(("image:restored", pattern) for pattern in job.intent.restore),
        ],
        references=[("bom", image_link(lock.image_id, lock.manifest))],
    )


def _other_items(intent: ImageIntent, lock: ImageLock) -> list[Item]:
    """What no package brought: files of `job.toml`, and the layer with the modules compiled beforehand."""
    what = "the wheels as a virtualenv, with their modules compiled (.pyc) by the image's Python"
    return [*file_items(intent, JOB_TOML), *compiled_items(_HOST, "host", what, lock)]
