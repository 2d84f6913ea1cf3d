"""The job image: the step image's layers, and over them what a CI job needs that runs bertir in it.

No step container is made of it, and no build fetches or assembles anything of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from bertir.assemble import made_or_stored
from bertir.derivation import MOMENT
from bertir.estimate import require_room_for_image
from bertir.image import interpreter_image, locked_image
from bertir.job_intent import load_job_intent
from bertir.job_layer import host_layer, tools_layer
from bertir.job_lock import JOB_LOCK, load_host_pins, load_job_lock
from bertir.layer import python_sources, wheel_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bertir.assemble import Precompile
    from bertir.builder import Builder
    from bertir.digest import Digest
    from bertir.image import Image
    from bertir.intent import ImageIntent
    from bertir.job_intent import JobIntent
    from bertir.lock import DebianPackage, ImageLock, LayerPin, WheelPin
    from bertir.store import Blob, Store


@dataclass(frozen=True, kw_only=True)
class JobMaterials:
    """Where the files of the two layers come from. Each is called only if its layer isn't in the store.

    Args:
        packages: of Debian, over those of the step image.
        step_packages: those of the step image.
        host_lock: digest of the pins of `requirements/build.lock`.
    """

    packages: Callable[[], Sequence[tuple[DebianPackage, Path]]]
    step_packages: Callable[[], Sequence[tuple[DebianPackage, Path]]]
    wheels: Callable[[], Sequence[tuple[WheelPin, Path]]]
    precompile: Precompile
    host_lock: Digest


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job image as it is pinned."""

    intent: JobIntent
    lock: ImageLock
    image: Image


def load_job(root: Path, step: ImageIntent, step_lock: ImageLock) -> Job:
    """Read the pins of the job image of a checkout, over those of its step image.

    Raises:
        ConfigurationError, LockError: `job.toml` is wrong, or a lock is.
        ImageError: the locked layers make another ID than the locked one.
    """
    intent = load_job_intent(root / "docker")
    lock = load_job_lock(root, step, step_lock, intent)
    image = locked_image(intent.over(step), lock, file=f"docker/{JOB_LOCK}", relock="invoke lock --only job")
    return Job(intent=intent, lock=lock, image=image)


def _job(builder: Builder) -> Job:
    return load_job(builder.layout.root, builder.intent, builder.lock)


def assemble_job(builder: Builder) -> Image:
    """Give the job image with all its layers in the store.

    Raises:
        ImageError: a package or wheel can't be laid out.
        DigestMismatchError: a layer came out as another than the locked one, which is not kept.
    """
    job, store = _job(builder), builder.store
    builder.assemble_image()

    def waiting() -> None:
        builder.progress.say("image", "waiting for another process that assembles it")

    with store.lock(f"image-{job.lock.image_id.hex}", waiting=waiting, after=MOMENT):
        builder.progress.say("image", f"assembling {job.lock.image_id.short}, for jobs, over that")
        assemble_job_layers(
            store,
            builder.intent,
            builder.lock,
            job.intent,
            JobMaterials(
                packages=lambda: builder.fetcher.debian_packages(job.lock.debian),
                step_packages=lambda: builder.fetcher.debian_packages(builder.lock.debian),
                wheels=lambda: builder.fetcher.wheels(job.lock.wheels, builder.intent.python),
                precompile=builder.precompile,
                host_lock=load_host_pins(builder.layout.root).digest,
            ),
            expected=job.lock.layers,
        )
    return job.image


def assemble_job_layers(
    store: Store,
    step: ImageIntent,
    step_lock: ImageLock,
    job: JobIntent,
    materials: JobMaterials,
    *,
    expected: Sequence[LayerPin] = (),
) -> tuple[LayerPin, ...]:
    """Give all layers: the step image's as locked, and the two over them, made or taken from the store.

    Raises: as `assemble_job`.
    """
    layer = partial(made_or_stored, store, {pin.name: pin for pin in expected})

    def tools(digest: Digest | None) -> Blob:
        packages, below = materials.packages(), materials.step_packages()
        return tools_layer(store, step, job, packages, below, expected=digest)

    def host(digest: Digest | None) -> Blob:
        intent = job.over(step)
        with wheel_entries(intent, materials.wheels()) as entries:
            sources = python_sources(store, intent, (), entries)
            with materials.precompile(interpreter_image(step, step_lock.layers[0]), sources) as pyc_tar:
                return host_layer(
                    store,
                    step,
                    job,
                    entries,
                    pyc_tar,
                    step_image=step_lock.image_id,
                    host_lock=materials.host_lock,
                    expected=digest,
                )

    return (*step_lock.layers, layer("tools", tools), layer("host", host))


def load_job_image(builder: Builder) -> str:
    """Give the ID by which the engine has the job image, assembling and loading it if need be.

    Raises:
        ImageError: it comes out with another ID than the locked one.
        NoRoomError: the store's disk, or the engine's, has not the room for it.
    """
    job = _job(builder)

    def assembled() -> Image:
        both = replace(
            job.lock,
            debian=(*builder.lock.debian, *job.lock.debian),
            wheels=(*builder.lock.wheels, *job.lock.wheels),
        )
        require_room_for_image(builder.store, both, builder.containers.image_folder())
        return assemble_job(builder)

    return builder.loaded(job.lock.image_id, job.lock.manifest, assembled)
