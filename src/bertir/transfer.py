"""What the tasks do that speak with a registry: push and pull. One function a task."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir import show
from bertir.errors import ConfigurationError
from bertir.healing import healed
from bertir.job import load_job_image
from bertir.redact import printable
from bertir.reference import Reference
from bertir.registry import Registry
from bertir.registry_folder import Origin, pull_folder, push_folder
from bertir.registry_image import pull_image, push_image
from bertir.signature import load_public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.session import Session


def push(
    session: Session, reference: str, *, folder: str, job: bool, gzip: bool, plain_http: bool, as_json: bool
) -> str:
    to = Reference.from_str(reference)
    if to.digest:
        raise ConfigurationError(
            f"{to} names a digest, and what is pushed has its own, which is told at the end",
            advice=f"Leave it out: {to.name}{f':{to.tag}' if to.tag else ''}",
        )
    begun = time.monotonic()
    registry = Registry(to, session.environment, session.progress, push=True, plain_http=plain_http)
    facts: dict[str, Any]
    if folder:
        if job or gzip:
            raise ConfigurationError("--job and --gzip are of an image, and --folder is of a model")
        with session.progress.shown():
            pushed = push_folder(Path(folder), registry, to.tag)
        manifest, sent, size = pushed.manifest, pushed.sent, pushed.size
        facts = {
            "folder": folder,
            "subject": str(pushed.verified.subject),
            "provenance": str(pushed.provenance),
        }
    else:
        with session.builder() as builder:
            moved = healed(
                lambda: push_image(builder, registry, to.tag, job=job, gzip=gzip), session.progress
            )
        manifest, sent, size = moved.manifest, moved.sent, moved.size
        facts = {"image": str(moved.image.id)}
    facts |= {
        "tag": to.tag or None,
        "blobs_sent": sent,
        "bytes_sent": size,
        "seconds": round(time.monotonic() - begun, 3),
        "reference": str(to.at(manifest)),
    }
    # The last line by itself is what a job is told to pull.
    return show.to_json(facts) if as_json else f"{_text(facts)}\n{facts['reference']}"


def pull(
    session: Session, reference: str, *, folder: str, job: bool, key: str, plain_http: bool, as_json: bool
) -> str:
    of = Reference.from_str(reference)
    if not of.wanted:
        raise ConfigurationError(
            f"{of} names no tag and no digest", advice="Add :TAG, or better @sha256:… as push printed it."
        )
    begun = time.monotonic()
    registry = Registry(of, session.environment, session.progress, push=False, plain_http=plain_http)
    facts: dict[str, Any]
    if folder:
        if job:
            raise ConfigurationError("--job is of an image, and --folder is of a model")
        store, public = session.store(), Path(key) if key else None
        if public is not None:
            load_public_key(public)  # one that can't be read is told before anything is fetched
        with session.progress.shown(), store.in_use():
            origin = Origin(store=store, registry=registry, wanted=of.wanted, digest=of.digest)
            pulled = healed(lambda: pull_folder(origin, Path(folder), key=public), session.progress)
        manifest = pulled.manifest
        facts = {
            "folder": folder,
            "replaced": pulled.replaced,
            "subject": str(pulled.verified.subject),
            "provenance": str(pulled.provenance),
            "signed_by": pulled.verified.signed_by,
            "bytes": pulled.size,
        }
    else:
        if key:
            raise ConfigurationError(
                "--key is of a signed model, and --folder says where that is to go",
                advice="An image needs none: the lock has its digest.",
            )
        with session.builder() as builder:
            moved = healed(
                lambda: pull_image(builder, registry, of.wanted, of.digest, job=job), session.progress
            )
            healed(partial(load_job_image, builder) if job else builder.load_image, session.progress)
        manifest = moved.manifest
        facts = {
            "image": str(moved.image.id),
            "loaded_as": moved.image.reference,
            "layers_fetched": moved.sent,
            "bytes_fetched": moved.size,
        }
    facts |= {"seconds": round(time.monotonic() - begun, 3), "reference": str(of.at(manifest))}
    return show.to_json(facts) if as_json else _text(facts)


def _text(facts: Mapping[str, Any]) -> str:
    return show.table([(name.replace("_", " "), _cell(name, value)) for name, value in facts.items()])


def _cell(name: str, value: Any) -> str:  # noqa: ANN401 - any JSON value
    if name == "signed_by" and value is None:
        return "not asked for: no --key"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.startswith("bytes"):
        return f"{value}, {value / 1e6:.1f} MB"
    if name == "seconds":
        return f"{value:.1f}"
    return "none" if value is None else printable(str(value))
