"""What the tasks do, one function a task. Each gives the text to print; `as_json` makes it JSON."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir import materials, pipeline, show
from bertir.engines import LOCAL, chosen
from bertir.errors import ConfigurationError
from bertir.healing import healed
from bertir.model import load_models, named_or_first
from bertir.nearest import did_you_mean
from bertir.task_data import MRPC
from bertir.upstream import SOURCE_LOCK, dump_source_lock

if TYPE_CHECKING:
    from bertir.digest import Digest
    from bertir.errors import BertirError
    from bertir.local_checkpoint import Options
    from bertir.report import Request
    from bertir.session import Session
    from bertir.store import Artifact
    from bertir.wanted import Lists, Work


def build_ir(
    session: Session,
    request: Request,
    *,
    checkpoint: Options | None,
    output: str,
    offline: bool,
    bundle: str,
    mirror: str,
    paranoid: bool,
    engine: str,
    memory: str,
    as_json: bool,
) -> str:
    begun = time.monotonic()
    may_take = None
    if memory:
        from bertir.amount import size

        may_take = size("--memory", memory)
    local = None
    if checkpoint:
        from bertir.local_checkpoint import find_checkpoint

        if request.model:
            raise ConfigurationError(
                "--model and --checkpoint exclude each other: whose weights is it to be?"
            )
        pipeline.check(request)
        local = find_checkpoint(checkpoint)
    with session.builder(
        offline=offline or bool(bundle),
        mirror=mirror,
        paranoid=paranoid,
        engine=chosen(engine, session.environment),
        memory=may_take,
    ) as builder:
        if local is None:
            request = replace(request, model=named_or_first(builder.models, request.model))
        if bundle:
            materials.unpack(builder, [request.model or None], Path(bundle), task_data=request.task_data)
        build, published = healed(
            lambda: pipeline.build_ir(builder, request, Path(output), local), session.progress
        )
    facts = show.build_facts(build, published, time.monotonic() - begun)
    return show.to_json(facts) if as_json else show.build_text(facts)


def build_matrix(
    session: Session, lists: Lists, work: Work, *, as_json: bool
) -> tuple[str, BertirError | None]:
    """Give the text to print, and the error that it ends with."""
    from bertir.matrix import build_matrix as build_each
    from bertir.show_matrix import matrix_facts, matrix_text

    matrix = build_each(session, lists, work)
    facts = matrix_facts(matrix)
    return show.to_json(facts) if as_json else matrix_text(facts), matrix.error()


def image(session: Session, *, job: bool, archive: str, offline: bool, as_json: bool) -> str:
    begun = time.monotonic()
    with session.builder(offline=offline) as builder:
        assemble, load = builder.assemble_image, builder.load_image
        lock, name = builder.lock, builder.intent.name
        if job:
            from bertir.job import assemble_job, load_job, load_job_image

            assemble, load = partial(assemble_job, builder), partial(load_job_image, builder)
            pinned = load_job(builder.layout.root, builder.intent, builder.lock)
            lock, name = pinned.lock, pinned.intent.name
        if archive:
            from bertir.image import write_archive

            healed(lambda: write_archive(builder.store, assemble(), Path(archive)), session.progress)
            place = archive
        else:
            place = f"loaded as {healed(load, session.progress)}"
    facts: dict[str, Any] = {
        "image": str(lock.image_id),
        "reference": f"{name}:{lock.image_id.short}",
        "manifest": str(lock.manifest),
        "platform": lock.platform,
        "layers": {layer.name: {"digest": str(layer.digest), "bytes": layer.size} for layer in lock.layers},
        "where": place,
        "seconds": round(time.monotonic() - begun, 3),
    }
    if as_json:
        return show.to_json(facts)
    layers = ", ".join(f"{layer.name} {layer.size / 1e6:.0f} MB" for layer in lock.layers)
    rows = [
        ("image", facts["image"]),
        ("reference", facts["reference"]),
        ("layers", layers),
        ("where", place),
        ("seconds", f"{facts['seconds']:.1f}"),
    ]
    return show.table(rows)


def fetch(
    session: Session, *, model: str, bundle: str, mirror: str, task_data: str, output: str, as_json: bool
) -> str:
    if task_data not in ("", MRPC):
        raise ConfigurationError(f"--task-data of fetch must be {MRPC}, and is {task_data!r}")
    if output and not task_data:
        raise ConfigurationError(
            "--output is where the task data go", advice=f"Say which, by --task-data {MRPC}."
        )
    with session.builder(mirror=mirror, paranoid=bool(bundle)) as builder:
        name = named_or_first(builder.models, model)

        def work() -> tuple[dict[str, Digest], Artifact | None, int]:
            named = materials.fetch_materials(builder, name, task_data)
            split = materials.split_task_data(builder).artifact if task_data else None
            if split and output:
                materials.write_task_data(builder, split, Path(output))
            if not bundle:
                return named, split, builder.store.size_of(named.values())
            from bertir.bundle import write_bundle

            return named, split, write_bundle(builder.store, named, Path(bundle), builder.progress)

        named, split, size = healed(work, session.progress)
    facts = {
        "model": name,
        "materials": {what: str(digest) for what, digest in sorted(named.items())},
        "bytes": size,
        "bundle": bundle or None,
        "task_data": {file: str(blob.digest) for file, blob in split.files.items()} if split else None,
    }
    if as_json:
        return show.to_json(facts)
    where = bundle or f"the store, {session.store().root}"
    rows = [("materials", str(len(named))), ("MB", f"{size / 1e6:.1f}"), ("in", where)]
    if split:
        rows.append((task_data, ", ".join(split.files) + (f" in {output}" if output else ", in the store")))
    return show.table(rows)


def models(session: Session, *, as_json: bool) -> str:
    store = session.store()
    known = list(load_models(session.layout.models).values())
    facts = [
        show.model_facts(
            model,
            default=position == 0,
            fetched=materials.is_fetched(store, model),
        )
        for position, model in enumerate(known)
    ]
    return show.to_json(facts) if as_json else show.models_text(facts)


def lock(session: Session, *, only: str, check: bool, as_json: bool) -> str:
    from bertir.freshness import BENCH_LOCK, LOCKS, lock_checks

    known = (*LOCKS, BENCH_LOCK)
    if only and only not in known:
        raise ConfigurationError(
            f"--only must be one of {', '.join(known)}, and is {only!r}", advice=did_you_mean(only, known)
        )
    chosen = [only] if only else list(known if check else LOCKS)
    if not check:
        _write_locks(session, chosen)
    checks = lock_checks(session.layout)
    for name in chosen:
        checks[name]()
    facts = {"locks": chosen, "written": not check, "fresh": True}
    return (
        show.to_json(facts) if as_json else f"locks of {', '.join(chosen)}: {'fresh' if check else 'written'}"
    )


def _write_locks(session: Session, chosen: list[str]) -> None:
    from bertir import resolve
    from bertir.freshness import BENCH_LOCK

    with session.builder() as builder:
        if "source" in chosen:
            text = dump_source_lock(pipeline.lock_source(builder)).decode()
            resolve.replace_all({session.layout.patches / SOURCE_LOCK: text})
        if "host" in chosen:
            resolve.resolve_host(session.layout.root, builder.store)
        if BENCH_LOCK in chosen:
            resolve.resolve_optimum(session.layout.root, builder.store)
        if "image" in chosen:
            resolve.resolve_image(
                session.layout.docker, builder.store, session.environment, builder.precompile
            )
    if "job" in chosen:
        from bertir.resolve_job import resolve_job

        with session.builder() as builder:  # which reads the locks that were just written
            resolve_job(builder)


def engine(session: Session) -> str:
    from bertir.provision import provide_engine

    if chosen("", session.environment) == LOCAL:
        with session.builder(engine=LOCAL) as builder:
            return f"engine: {LOCAL}, steps run {builder.runtime.where}"
    facts = provide_engine(session.environment, session.progress, session.store().root)
    return f"engine: {facts.name} {facts.version}, API {facts.api_version}, {facts.architecture}"
