"""The steps that run in the container: the command of each, its inputs and its outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bertir.container_step import ContainerStep
from bertir.errors import ConfigurationError
from bertir.materials import task_rows
from bertir.model import CHECKPOINT_FILES
from bertir.parity import VERIFIED_BATCHES
from bertir.report import META_GRAPH, RESHAPABLE
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.graph import Graph
    from bertir.report import Request
    from bertir.store import Blob
    from bertir.weights import Weights

LEAST_TOKENS = 3  # [CLS] [SEP] [SEP]: a pair of which nothing is left
META = "bert_model.ckpt.meta"
FROZEN = "inference_graph.pb"
REFERENCE = "reference.npz"
IR = ("model.xml", "model.bin")
GRAPH = "graph.json"
TENSORFLOW = "lazy_tensorflow"


def import_checkpoint(builder: Builder, model: Artifact, source: Artifact) -> ContainerStep:
    """Turn a Hugging Face BertModel into a TensorFlow checkpoint with Google's names, in the container."""
    program, mounted = _program(
        builder, "import_checkpoint.py", "lazy_tensorflow.py", "said.py", "together.py"
    )
    return ContainerStep(
        name="import",
        arguments=(
            *program,
            "--model=/in/model.safetensors",
            "--config=/in/config.json",
            "--vocab=/in/vocab.txt",
            "--source=/in/source",
            "--output=/out",
        ),
        inputs=mounted | _mounted("/in", model) | {"/in/source/modeling.py": source["modeling.py"]},
        outputs=CHECKPOINT_FILES,
        imports=TENSORFLOW,
    )


def freeze(
    builder: Builder, request: Request, weights: Weights, source: Artifact, checkpoint: Artifact
) -> ContainerStep:
    """Run the patched run_classifier.py, which freezes the graph and exits, as the documentation has it."""
    program, mounted = _program(
        builder, "freeze.py", "lazy_tensorflow.py", "said.py", "session.py", "together.py"
    )
    dev = task_rows(builder, request.task_data)
    return ContainerStep(
        name="freeze",
        arguments=(
            *program,
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
        inputs=mounted
        | {"/in/task/dev.tsv": dev}
        | _mounted("/in/checkpoint", _without(checkpoint, META))
        | _mounted("/in/source", source),
        outputs=(FROZEN,),
        imports=TENSORFLOW,
    )


def convert(builder: Builder, request: Request, frozen: Artifact, graph: Graph) -> ContainerStep:
    """Run `mo` with the documented inputs; `--output` and `--compress_to_fp16` are said outright."""
    program, mounted = _converter(builder)
    shape = f"{{i32}}[{request.rows} {graph.sequence}]"
    return ContainerStep(
        name="convert",
        arguments=(
            *program,
            f"--input_model=/in/{FROZEN}",
            f"--input={','.join(name + shape for name in graph.inputs)}",
            *_mo_arguments(request, graph),
        ),
        inputs=mounted | _mounted("/in", frozen),
        outputs=IR,
    )


def examine(builder: Builder, request: Request, checkpoint: Artifact) -> ContainerStep:
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
    program, mounted = _program(
        builder, "examine.py", "lazy_tensorflow.py", "operations.py", "said.py", "together.py"
    )
    return ContainerStep(
        name="examine",
        arguments=(
            *program,
            f"--meta=/in/{META}",
            "--checkpoint=/in/bert_model.ckpt",
            "--config=/in/bert_config.json",
            f"--head={request.head}",
            f"--output=/out/{GRAPH}",
        ),
        inputs=mounted
        | _mounted("/in", _tensors(checkpoint))
        | {"/in/bert_config.json": checkpoint["bert_config.json"]},
        outputs=(GRAPH,),
        imports=TENSORFLOW,
    )


def convert_published(
    builder: Builder, request: Request, checkpoint: Artifact, graph: Graph
) -> ContainerStep:
    """Run the documented `mo` line on the published graph, of which `examine` found the names."""
    program, mounted = _converter(builder)
    return ContainerStep(
        name="convert",
        arguments=(
            *program,
            f"--input_meta_graph=/in/{META}",
            f"--input={','.join(name.removesuffix(':0') + '{i32}' for name in graph.inputs)}",
            *_mo_arguments(request, graph),
        ),
        inputs=mounted | _mounted("/in", _tensors(checkpoint)),
        outputs=IR,
    )


def _converter(builder: Builder) -> tuple[tuple[str, str], dict[str, Blob]]:
    return _program(builder, "convert.py", "frozen_graph.py", "said.py", "wire.py")


def _mo_arguments(request: Request, graph: Graph) -> tuple[str, ...]:
    return (
        f"--output={graph.output}",
        f"--compress_to_fp16={request.precision == 'fp16'}",
        "--output_dir=/out",
        "--model_name=model",
    )


def reference(
    builder: Builder,
    request: Request,
    weights: Weights,
    *,
    source: Artifact,
    checkpoint: Artifact,
    examined: Artifact | None,
) -> ContainerStep:
    """Run TensorFlow on sentences in the container; nothing of the freeze or the conversion has a part in it.

    It runs the model that the source builds, fed with the checkpoint, or the published graph with its checkpoint restored, as `examine`
    found its names and sizes; for fp16 with rounded weights too.
    """
    program, mounted = _program(
        builder,
        "reference.py",
        *("arguments.py", "lazy_tensorflow.py", "model.py", "operations.py", "published.py"),
        *("rounding.py", "rows.py", "said.py", "session.py", "together.py"),
    )
    tokens = request.tokens(weights.max_positions)
    if examined:
        subject: tuple[str, ...] = (
            f"--meta=/in/checkpoint/{META}",
            f"--graph=/in/{GRAPH}",
            f"--try-lengths={_commas(_other_lengths(tokens, weights))}",
        )
        inputs = {"/in/source/tokenization.py": source["tokenization.py"], f"/in/{GRAPH}": examined[GRAPH]}
        of_checkpoint = _tensors(checkpoint)
    else:
        subject = ("--config=/in/checkpoint/bert_config.json", f"--head={request.head}")
        inputs = _mounted("/in/source", source)
        of_checkpoint = _without(checkpoint, META)
    return ContainerStep(
        name="reference",
        arguments=(
            *program,
            "--checkpoint=/in/checkpoint/bert_model.ckpt",
            *subject,
            "--vocab=/in/checkpoint/vocab.txt",
            "--source=/in/source",
            "--sentences=/in/sentences.txt",
            f"--batch={request.rows}",
            f"--seq-len={tokens}",
            f"--lower-case={str(weights.lower_case).lower()}",
            *(("--rounded",) if request.precision == "fp16" else ()),
            f"--reference=/out/{REFERENCE}",
        ),
        inputs=mounted
        | inputs
        | _mounted("/in/checkpoint", of_checkpoint)
        | {
            "/in/checkpoint/vocab.txt": checkpoint["vocab.txt"],
            "/in/sentences.txt": _step_file(builder, "sentences.txt"),
        },
        outputs=(REFERENCE,),
        yields=True,
        imports=TENSORFLOW,
    )


def compare(
    builder: Builder, request: Request, weights: Weights, *, graph: Graph, ir: Artifact, expected: Artifact
) -> ContainerStep:
    """Run the IR in the container on the rows of which `expected` has what TensorFlow gave, and measure how far they agree."""
    program, mounted = _program(builder, "verify.py", "arguments.py", "said.py")
    tokens = graph.sequence or request.tokens(weights.max_positions)
    return ContainerStep(
        name="verify",
        arguments=(
            *program,
            "--model=/in/model.xml",
            f"--reference=/in/{REFERENCE}",
            f"--batch={graph.batch or request.rows}",
            f"--seq-len={tokens}",
            f"--try-batches={_commas(VERIFIED_BATCHES)}",
            f"--try-lengths={_commas(() if graph.sequence else _other_lengths(tokens, weights))}",
            f"--head={request.head}",
            f"--inputs={','.join(graph.inputs)}",
            f"--output-node={graph.output}",
            "--report=/out/parity.json",
        ),
        inputs=mounted | _mounted("/in", expected) | _mounted("/in", ir),
        outputs=("parity.json",),
    )


def unfused(comparing: ContainerStep) -> ContainerStep:
    """Compare once more, without the kernels that OpenVINO fuses; the report then names the processor."""
    return replace(comparing, name="unfused", arguments=(*comparing.arguments, "--unfused"))


def _other_lengths(tokens: int, weights: Weights) -> Sequence[int]:
    """Give the lengths that are tried beside the first of a graph that takes any: half and double, as far as they can be."""
    return sorted({max(tokens // 2, LEAST_TOKENS), min(tokens * 2, weights.max_positions)} - {tokens})


def read(builder: Builder, step: Realised, name: str) -> bytes:
    """Give the bytes of one output of a step."""
    return builder.store.checked(step.artifact[name], what=name).read_bytes()


def _program(builder: Builder, name: str, *modules: str) -> tuple[tuple[str, str], dict[str, Blob]]:
    """Give the command of a step's program, and the program with the modules that it imports."""
    mounted = {f"/step/{file}": _step_file(builder, file) for file in (name, *modules)}
    return ("/usr/bin/python3", f"/step/{name}"), mounted


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
