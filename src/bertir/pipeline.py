"""The build, read from top to bottom: one function a step.

    lock ─► fetch ─► image ─► source ─► checkpoint ─► freeze ─► convert ─► verify ─► publish

The recipe `meta-graph` has no freeze: it examines the published graph, and converts it as it is. The call
graph is the build graph. Each step is a derivation: what is in the store isn't done again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.chain import Chain, later
from bertir.derivation import Derivation, Outcome
from bertir.digest import Digest
from bertir.errors import ConfigurationError, SourceError
from bertir.fetch import OfflineError
from bertir.graph import HEADS, read_graph
from bertir.materials import (
    clone_source,
    fetch_model,
    fetch_source,
    missing_materials,
    require_git,
)
from bertir.model import GOOGLE, HUGGING_FACE, GoogleZip, find_model
from bertir.nearest import did_you_mean
from bertir.page_step import page_of
from bertir.preflight import require_room
from bertir.provenance import provenance
from bertir.publish import LISTED, PAGE, PROVENANCE, REPORT, Published, checksums, publish
from bertir.report import META_GRAPH, RECIPES, RESHAPABLE, Build, Request, report
from bertir.second_opinion import judged
from bertir.steps import GRAPH, LEAST_TOKENS, convert_published, read
from bertir.store import Artifact
from bertir.task_data import MRPC, read_dev_tsv
from bertir.upstream import SourceLock, load_upstream
from bertir.weights import of_checkpoint, of_model, require_length

if TYPE_CHECKING:
    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.materials import Pins
    from bertir.weights import Weights

PRECISIONS = ("fp16", "fp32")
MOST_ROWS = 65536


def build_ir(
    builder: Builder, request: Request, output: Path, local: LocalCheckpoint | None = None
) -> tuple[Build, Published]:
    """Build, verify and publish the IR that `request` asks for, under the folder `output`.

    A checkpoint of the user's own, `local`, takes the place of the model that `request` names.

    Raises:
        BertirError: one of its kinds; nothing is published.
    """
    check(request)
    pins = builder.pins
    rehearse = partial(build_and_verify, request=request, pins=pins, local=local)
    require_room(builder, request, pins.models, local, output=output, rehearse=rehearse)
    try:
        build = build_and_verify(builder, request, pins, local)
    except OfflineError as error:
        # The step that stopped knows what it lacks itself; the user wants to hear of all at once.
        model = None if local else request.model
        raise OfflineError(missing_materials(builder, model, request.task_data)) from error
    return build, publish_build(builder, build, output)


def publish_build(builder: Builder, build: Build, output: Path) -> Published:
    """Publish what was built and verified, under the folder `output`."""
    artifact = publishable(builder, build)
    published = publish(builder.store, artifact, output / build.weights.name / build.request.variant)
    if published.signatures_dropped:
        builder.progress.say("publish", "what lay there was signed; this is another build, and isn't yet")
    return published


def publishable(builder: Builder, build: Build) -> Artifact:
    """Give the files of the published folder, with the report and the provenance about them."""
    origins = {"ir": build.ir, "checkpoint": build.checkpoint}
    files = {name: origins[origin][name] for name, origin in LISTED.items()}
    told = report(build)
    stated = provenance(told, checksums(Artifact(files=files)))
    stored = builder.store.add_bytes(told)
    volatile = {
        REPORT: stored,
        PROVENANCE: builder.store.add_bytes(stated),
        PAGE: page_of(builder.store, stored),
    }
    return Artifact(files=files | volatile)


def build_and_verify(builder: Builder, request: Request, pins: Pins, local: LocalCheckpoint | None) -> Build:
    """Realise every step. What comes back was seen to agree with TensorFlow."""
    if local:
        builder.progress.say("checkpoint", local.case)
        given, weights = _add(builder, request, pins, local)
        source = patch_source(builder, pins)
        kind = local.kind
    else:
        model = find_model(pins.models, request.model)
        weights, kind = of_model(model), GOOGLE if isinstance(model.archive, GoogleZip) else HUGGING_FACE
        require_length(weights, request.tokens(weights.max_positions))
        given = fetch_model(builder, model)
        source = patch_source(builder, pins)
    chain = Chain(builder=builder, request=request, weights=weights, source=source.artifact)
    steps = [source]
    checkpoint = given
    if kind == HUGGING_FACE:
        imported = builder.run(chain.importing(given), ahead=chain.after_import())
        steps.append(imported)
        checkpoint = imported.artifact
    frozen: Artifact | None = None
    if request.recipe == META_GRAPH:
        examined = builder.run(chain.examining(checkpoint), ahead=chain.after_examine(checkpoint))
        graph = read_graph(read(builder, examined, GRAPH))
        expecting = chain.expecting(checkpoint, examined.artifact)
        converting = convert_published(builder, request, checkpoint, graph)
        steps.append(examined)
    else:
        graph = chain.graph
        expecting = chain.expecting(checkpoint)
        freezing = builder.run(
            chain.freezing(checkpoint), ahead=chain.after_freeze(), beside=chain.beside(expecting)
        )
        frozen = freezing.artifact
        converting = chain.converting(frozen)
        steps.append(freezing)
    # What TensorFlow says of the checkpoint is computed beside the freeze and the conversion: neither has a part in it.
    ir = builder.run(converting, beside=chain.beside(expecting))
    if not ir.cached:  # else that comparison is likely to be there too
        builder.give_ahead(chain.after_convert(graph, ir.artifact))
    expected = builder.run(expecting)
    comparing = chain.comparing(graph, ir.artifact, expected.artifact)
    compared = builder.run(comparing)
    parity = judged(builder, comparing, compared, request, weights.layers)

    return Build(
        request=request,
        weights=weights,
        source_url=pins.upstream.url,
        source=pins.source,
        image=builder.lock,
        steps=(*steps, ir, expected, compared),
        ir=ir.artifact,
        checkpoint=checkpoint,
        frozen_graph=frozen["inference_graph.pb"] if frozen else None,
        parity=parity,
        virtualenv=builder.runtime.stated,
    )


def _add(builder: Builder, request: Request, pins: Pins, local: LocalCheckpoint) -> tuple[Artifact, Weights]:
    """Store a user's checkpoint. If it is a new one, the first steps are started meanwhile."""
    from bertir.local_checkpoint import add_checkpoint

    said = of_checkpoint(local, Artifact(files={}))
    require_length(said, request.tokens(said.max_positions))
    chain = Chain(builder=builder, request=request, weights=said, source=later(*pins.source.patched))
    given = add_checkpoint(
        builder.store, local, lambda: builder.start_ahead(chain.first(local.kind, local.files))
    )
    return given, of_checkpoint(local, given)


def check(request: Request) -> None:
    """Refuse what no build can be made of, before anything runs.

    Raises:
        ConfigurationError.
    """
    for name, value, allowed in (
        ("--recipe", request.recipe, RECIPES),
        ("--precision", request.precision, PRECISIONS),
        ("--head", request.head, HEADS),
    ):
        if value not in allowed:
            raise ConfigurationError(
                f"{name} must be {' or '.join(allowed)}, and is {value!r}",
                advice=did_you_mean(value, allowed),
            )
    for name, number, least, most in (
        ("--batch", request.batch, 1, MOST_ROWS),
        ("--seq-len", request.seq_len, LEAST_TOKENS, None),  # its upper bound is the model's
    ):
        if number is None:
            continue
        if request.recipe == META_GRAPH:
            raise ConfigurationError(
                f"{name} is {number}, and the recipe {META_GRAPH} takes no shape: it converts the graph as it is",
                advice=f"Leave it out and reshape the IR where it is used, or use --recipe {RESHAPABLE}.",
            )
        if number < least:
            raise ConfigurationError(f"{name} must be at least {least}, and is {number}")
        if most is not None and number > most:
            raise ConfigurationError(
                f"{name} must be at most {most}, and is {number}",
                advice="The IR's batch dimension is free: it can be reshaped when it is loaded.",
            )
    if request.task_data and request.recipe == META_GRAPH:
        raise ConfigurationError(
            f"--task-data is {request.task_data!r}, and the recipe {META_GRAPH} reads no rows: it freezes nothing",
            advice=f"Leave it out, or use --recipe {RESHAPABLE}.",
        )
    if request.task_data not in ("", MRPC):
        read_dev_tsv(Path(request.task_data))


# source


def patch_source(builder: Builder, pins: Pins) -> Realised:
    """Clone the pinned commit and apply the patches; the tree's id must be the locked one."""
    derivation = Derivation(
        step="source",
        version=1,
        parameters={"commit": pins.source.commit, "tree": pins.source.tree},
        inputs=dict(pins.source.pristine) | {patch.name: patch.digest for patch in pins.upstream.series},
    )

    def run() -> Outcome:
        require_git()
        from bertir.source import patched

        pristine = fetch_source(builder, pins)
        contents = {
            name: builder.store.checked(blob, what=name).read_bytes() for name, blob in pristine.files.items()
        }
        with builder.store.temporary_folder() as folder:
            tree, files = patched(contents, pins.upstream.series, folder / "patched")
        if tree != pins.source.tree:
            raise SourceError(
                f"the patched source isn't the locked one\n  expected tree {pins.source.tree}\n  found    tree {tree}",
                advice="Run `invoke lock --only source`, and commit what it writes.",
            )
        stored = {
            name: builder.store.add_bytes(data, expected=pins.source.patched[name], what=name)
            for name, data in files.items()
        }
        return Outcome(artifact=Artifact(files=stored), facts={"bytes_in": pristine.size})

    return builder.realise(derivation, run)


# locks


def lock_source(builder: Builder) -> SourceLock:
    """Clone and patch the source, and give the lock that says what came out."""
    upstream = load_upstream(builder.layout.patches)
    pristine = clone_source(builder, upstream)
    from bertir.source import patched

    with builder.store.temporary_folder() as folder:
        tree, files = patched(pristine, upstream.series, folder / "patched")
    return SourceLock(
        intent=upstream.intent,
        commit=upstream.commit,
        tree=tree,
        pristine={name: Digest.of_bytes(data) for name, data in pristine.items()},
        patched={name: Digest.of_bytes(data) for name, data in files.items()},
        patches=tuple((patch.name, patch.digest) for patch in upstream.series),
    )
