"""Compare a TensorFlow graph with its OpenVINO IR on real sentences, in several shapes.

Runs inside the container and writes one JSON report. TensorFlow's side is the frozen graph, or the published
graph with its checkpoint restored. It measures and doesn't decide: the host holds the figures against its
thresholds. A refusal is exit status 1, one message on stderr whose lines start with
`bertir-step: `, and no report.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import combinations
from math import pi, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operations import ADVICE, VARIABLES, read_meta, runnable
from said import fail, one_line
from said import run as run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Vectors = npt.NDArray[np.float32]
    # input_ids, input_mask, segment_ids (each [batch, sequence]) → the head's output [batch, …]
    Run = Callable[[list[Ids]], Vectors]

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]")
REASON_LENGTH = 300
SHORTEST = 3  # [CLS] [SEP] [SEP]: a pair of which nothing is left
GROUP = 8  # rows that TensorFlow gets at once: the fewest runs within a bearable memory
LEAST_PROBABILITY = 1e-30  # its logarithm is finite, and still tells more than a float32's last place
# Scalars that the converter takes into one operation with what is around them, where they are exact: those of both forms
# of gelu, which google-research/bert writes out, and the epsilon of its layer norm.
FUSED = (2**0.5, (2 / pi) ** 0.5, 0.044715, 1e-12)
FED_NUMBERS = 1024  # in a constant that is fed
KEPT_BYTES = 3 << 30  # of compiled weights that one process may keep
THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine


def read_sentences(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path.name} cannot be read: {error}")
    sentences = [line for line in lines if line.strip()]
    if len(sentences) < 2:  # noqa: PLR2004 - the outputs of two are told apart
        fail(f"{path.name} has {len(sentences)} sentences, at least 2 are needed.")
    return sentences


def truncate_pair(first: list[str], second: list[str], length: int) -> None:
    """Shortens the longer one, a token at a time, as run_classifier.py's _truncate_seq_pair does."""
    while len(first) + len(second) > length:
        (first if len(first) > len(second) else second).pop()


def encode(tokenizer: Any, first: str, second: str | None, length: int) -> list[Ids]:  # noqa: ANN401
    """One row, as run_classifier.py's convert_single_example makes it; padding has id, mask and segment 0."""
    import numpy as np

    head, tail = tokenizer.tokenize(first), tokenizer.tokenize(second) if second else []
    truncate_pair(head, tail, length - (SHORTEST if second else SHORTEST - 1))
    tokens = ["[CLS]", *head, "[SEP]"]
    segments = [0] * len(tokens)
    if second:
        tokens += [*tail, "[SEP]"]
        segments += [1] * (len(tail) + 1)
    row = np.zeros((3, length), np.int32)
    row[0, : len(tokens)] = tokenizer.convert_tokens_to_ids(tokens)
    row[1, : len(tokens)] = 1
    row[2, : len(tokens)] = segments
    return list(row)


class Refused(Exception):  # noqa: N818 - it isn't an error where a shape is only tried
    """The graph or the IR can't be run in a shape; says who refused, and why."""


def load_tokenizer(arguments: argparse.Namespace) -> Any:  # noqa: ANN401
    import tensorflow.compat.v1 as tf

    sys.path.insert(0, str(arguments.source))
    import tokenization

    vocab = arguments.vocab
    try:
        tokenizer = tokenization.FullTokenizer(str(vocab), do_lower_case=arguments.lower_case)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        fail(f"{vocab.name} cannot be read: {one_line(error)}")
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.vocab]
    if missing:
        fail(f"{vocab.name} lacks {', '.join(missing)}.", "Give the vocabulary of this model.")
    return tokenizer


def encode_all(tokenizer: Any, sentences: list[str], length: int) -> list[Ids]:  # noqa: ANN401
    """Every sentence alone, then neighbours as pairs, stacked: three [rows, sequence] arrays."""
    import numpy as np

    texts: list[tuple[str, str | None]] = [(sentence, None) for sentence in sentences]
    texts += zip(sentences[::2], sentences[1::2], strict=False)
    rows = [encode(tokenizer, first, second, length) for first, second in texts]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def rounded_to_fp16(values: Vectors) -> Vectors:
    import numpy as np

    with np.errstate(over="ignore"):  # then the comparison isn't finite, and is refused
        rounded: Vectors = values.astype(np.float16).astype(np.float32)
    return rounded


def round_weights(definition: Any, restored_by: str = "") -> None:  # noqa: ANN401 - a GraphDef
    """Make every weight what fp16 can hold of it, in place: what `mo --compress_to_fp16` does to them.

    What the IR then differs by isn't rounding, and must be as little as with fp32. Of a published graph the weights
    are read from the checkpoint, so they are rounded on their way to the variables.

    Args:
        definition: the graph.
        restored_by: the operation that restores the variables, if there are any.
    """
    import numpy as np
    import tensorflow.compat.v1 as tf

    for node in definition.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            values = tf.make_ndarray(node.attr["value"].tensor)
            if values.size == 1 and np.isclose(values.item(), FUSED, rtol=1e-6, atol=0).any():
                continue
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(rounded_to_fp16(values)))
    if not restored_by:
        return
    for node in [node for node in definition.node if node.op in {"Assign", "AssignVariableOp"}]:
        source = node.input[1]
        for name, of, to in (("half", tf.float32, tf.float16), ("float", tf.float16, tf.float32)):
            cast = definition.node.add(name=f"{node.name}/{name}", op="Cast", input=[source])
            cast.attr["SrcT"].type, cast.attr["DstT"].type = of.as_datatype_enum, to.as_datatype_enum
            source = cast.name
        node.input[1] = source


def tensorflow_session(definition: Any) -> Any:  # noqa: ANN401 - a GraphDef; a Session
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        try:
            tf.import_graph_def(definition, name="")
        except ValueError as error:  # an operation of another TensorFlow
            fail(f"the graph cannot be imported: {one_line(error)}")
    config = tf.ConfigProto(intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=1)
    # The graph as it is: each rewriting of it holds one more copy of all weights, of which a BERT-Large has 1.3 GB.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
    return tf.Session(graph=graph, config=config)


def require_nodes(definition: Any, names: list[str], file: str) -> None:  # noqa: ANN401 - a GraphDef
    known = {node.name for node in definition.node}
    missing = [name for name in names if name.partition(":")[0] not in known]
    if missing:
        fail(f"{file} has no {', '.join(missing)}.", "Make it by the step before this one.")


def take_weights(definition: Any) -> dict[str, Vectors]:  # noqa: ANN401 - a GraphDef
    """Take the large constants out of a graph, in place, and give them to be fed by name.

    TensorFlow copies a constant five times on its way from the file to the kernel, which for a BERT-Large is 6.6 GB.
    """
    import tensorflow.compat.v1 as tf

    fed: dict[str, Vectors] = {}
    for node in definition.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            shape = node.attr["value"].tensor.tensor_shape
            if prod(dimension.size for dimension in shape.dim) >= FED_NUMBERS:
                fed[f"{node.name}:0"] = tf.make_ndarray(node.attr["value"].tensor)
                node.op = "Placeholder"
                node.attr["shape"].shape.CopyFrom(shape)
                del node.attr["value"]
    return fed


def frozen_session(graph: Path, names: list[str], *, rounded: bool) -> tuple[Any, dict[str, Vectors]]:
    import tensorflow.compat.v1 as tf

    definition = tf.GraphDef.FromString(graph.read_bytes())
    require_nodes(definition, names, graph.name)
    fed = take_weights(definition)
    if rounded:
        round_weights(definition)
        for name in fed:
            fed[name] = rounded_to_fp16(fed[name])
    return tensorflow_session(definition), fed


def restored_session(meta: Path, checkpoint: Path, names: list[str], output: str, *, rounded: bool) -> Any:  # noqa: ANN401
    """The published graph as it is, with its own saver's operations run: nothing of the conversion has a part.

    Only what the output and the restoring need is imported, as the rest may hold operations of a TensorFlow
    that is gone. `examine.py` has seen that no operation of these does anything else.
    """
    import tensorflow.compat.v1 as tf

    published = read_meta(meta)
    saver = published.saver_def
    require_nodes(published.graph_def, [*names, saver.restore_op_name], meta.name)
    definition = runnable(published, [output, saver.restore_op_name], meta.name)
    if rounded:
        round_weights(definition, saver.restore_op_name)
    session = tensorflow_session(definition)
    try:
        session.run(saver.restore_op_name, {saver.filename_tensor_name: str(checkpoint)})
        if not rounded:
            require_weights(session, definition, checkpoint)
    except (tf.errors.OpError, ValueError) as error:
        fail(f"{checkpoint.name} cannot be restored: {one_line(error)}")
    return session


def require_weights(session: Any, definition: Any, checkpoint: Path) -> None:  # noqa: ANN401 - a Session, a GraphDef
    """Refuse a graph whose saver restores a variable from anything but what the checkpoint has under its name.

    The converter goes by the graph as well, so that the comparison alone would agree on weights of another name.
    """
    import tensorflow.compat.v1 as tf

    reader = tf.train.load_checkpoint(str(checkpoint))
    reads = {node.input[0]: node.name for node in definition.node if node.op == "ReadVariableOp"}
    different = []
    for node in definition.node:
        if node.op in VARIABLES:
            value = session.run(f"{reads.get(node.name, node.name)}:0")
            if value.tobytes() != reader.get_tensor(node.name).tobytes():
                different.append(f"different: {node.name}")
    if different:
        fail(
            "the graph's own saver restores other weights than the checkpoint has under these names.",
            *different,
            ADVICE,
        )


def open_session(arguments: argparse.Namespace, *, rounded: bool) -> tuple[Any, dict[str, Vectors]]:
    """A session, and what every run of it must be fed beside its inputs."""
    names = [*arguments.inputs, arguments.output_node]
    if arguments.meta:
        session = restored_session(
            arguments.meta, arguments.checkpoint, names, arguments.output_node, rounded=rounded
        )
        return session, {}
    return frozen_session(arguments.graph, names, rounded=rounded)


def tensorflow_run(arguments: argparse.Namespace, session: Any, fed: dict[str, Vectors]) -> Run:  # noqa: ANN401
    import tensorflow.compat.v1 as tf

    def run(columns: list[Ids]) -> Vectors:
        try:
            result: Vectors = session.run(
                f"{arguments.output_node}:0", fed | dict(zip(arguments.inputs, columns, strict=True))
            )
        except (tf.errors.OpError, ValueError) as error:
            raise Refused(f"TensorFlow: {one_line(error)}") from error
        return result

    return run


def port_names(port: Any) -> set[str]:  # noqa: ANN401
    """Tensor names and the friendly name: conversion keeps a TensorFlow name as either or both."""
    return {*port.get_names(), port.get_node().get_friendly_name()}


def find_port(ports: list[Any], wanted: set[str], file: str) -> Any:  # noqa: ANN401
    """The port with one of these names. Never by position: an IR orders its inputs as it likes."""
    found = [port for port in ports if port_names(port) & wanted]
    if len(found) != 1:
        listing = "; ".join(", ".join(sorted(port_names(port))) for port in ports)
        fail(
            f"{file} has {len(found)} ports named {' or '.join(sorted(wanted))}, expected 1; it has: {listing}."
        )
    return found[0]


def input_names(name: str) -> set[str]:
    """An output of an iterator keeps its number; a placeholder, which has one output, is named without."""
    return {name} if name.startswith("IteratorGetNext:") else {name, name.removesuffix(":0")}


def read_ir(path: Path) -> Any:  # noqa: ANN401
    import openvino as ov

    try:
        return ov.Core().read_model(path)
    except RuntimeError as error:
        fail(f"{path.name} cannot be read: {one_line(error)}")


def signature(path: Path) -> dict[str, list[dict[str, object]]]:
    """Inputs and outputs as model.xml has them; `?` is a free dimension."""

    def describe(port: Any) -> dict[str, object]:  # noqa: ANN401
        return {
            "element_type": port.get_element_type().get_type_name(),
            "names": sorted(port_names(port)),
            "partial_shape": str(port.get_partial_shape()),
        }

    model = read_ir(path)
    return {
        "inputs": sorted(map(describe, model.inputs), key=lambda port: str(port["names"])),
        "outputs": list(map(describe, model.outputs)),
    }


def openvino_run(arguments: argparse.Namespace, batch: int, length: int) -> Run:
    """The IR, reshaped, on the CPU plugin in f32, which else takes bf16 where the host has it."""
    import openvino as ov

    path = arguments.model
    model = read_ir(path)
    ports = [find_port(model.inputs, input_names(name), path.name) for name in arguments.inputs]
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
    try:
        model.reshape({port: [batch, length] for port in ports})
        compiled = ov.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise Refused(f"OpenVINO: {one_line(error)}") from error
    inputs = [find_port(compiled.inputs, input_names(name), path.name) for name in arguments.inputs]
    wanted = {arguments.output_node, f"{arguments.output_node}:0"}
    output = find_port(compiled.outputs, wanted, path.name)

    def run(columns: list[Ids]) -> Vectors:
        try:
            result: Vectors = compiled(dict(zip(inputs, columns, strict=True)))[output].copy()
        except RuntimeError as error:
            raise Refused(f"OpenVINO: {one_line(error)}") from error
        return result

    return run


def run_all(run: Run, columns: list[Ids], batch: int) -> Vectors:
    """The outputs of all rows, in groups of `batch`; the last group is filled with the first rows again."""
    import numpy as np

    rows = len(columns[0])
    filled = np.arange(-(-rows // batch) * batch) % rows
    groups = filled.reshape(-1, batch)
    return np.concatenate([run([column[group] for column in columns]) for group in groups])


def figure(number: np.floating[Any]) -> float | None:
    """JSON has no NaN and no infinity."""
    import numpy as np

    return float(number) if np.isfinite(number) else None


def without_padding(outputs: Vectors, mask: Ids, head: str) -> Vectors:
    """The last layer's output with 0 where there is no token, for the sums of both sides alike.

    Nothing reads what a model says there, and nothing was trained on it: of a sound IR of all-MiniLM-L6-v2 it differs
    by twenty times as much as what it says of tokens.
    """
    return outputs * mask[:, :, None] if head == "sequence" else outputs


def comparable(outputs: Vectors, head: str) -> npt.NDArray[np.float64]:
    """[rows, numbers] in float64, so that the comparison adds no error of its own.

    Probabilities are compared as centred logarithms, that is as the logits: a classifier that is sure of itself
    says 0.9999 to all, and an IR that is wrong would too.
    """
    import numpy as np

    rows: npt.NDArray[np.float64] = outputs.reshape(len(outputs), -1).astype(np.float64)
    if head != "classifier":
        return rows
    logarithms = np.log(np.maximum(rows, LEAST_PROBABILITY))  # keeps NaN
    centred: npt.NDArray[np.float64] = logarithms - logarithms.mean(axis=1, keepdims=True)
    return centred


def compare(expected: Vectors, found: Vectors, head: str) -> dict[str, float | None]:
    import numpy as np

    left, right = comparable(expected, head), comparable(found, head)
    difference = np.abs(left - right)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (left * right).sum(axis=1) / norms
    return {
        "max_abs_difference": figure(difference.max()),
        "mean_abs_difference": figure(difference.mean()),
        "min_cosine": figure(cosine.min()),
        "rows": len(expected),
    }


def discrimination(columns: list[Ids], outputs: Vectors, head: str) -> float | None:
    """How far apart the outputs of two rows are that differ in their ids: max-abs, the smallest of all pairs.

    Near 0, the model says the same whatever it reads, and equality with its IR means nothing. None if a
    small vocabulary left no two different rows. Of a classifier the largest: of a few numbers a row, two rows
    may well have the same.
    """
    import numpy as np

    ids = np.concatenate(columns, axis=1)

    def distance(i: int, j: int) -> np.floating[Any]:
        # Only where both have a token: a row isn't another one because it is longer.
        both = columns[1][[i]] * columns[1][[j]]
        one, other = (comparable(without_padding(outputs[[row]], both, head), head) for row in (i, j))
        greatest: np.floating[Any] = np.abs(one - other).max()
        return greatest

    distances = [distance(i, j) for i, j in combinations(range(len(ids)), 2) if (ids[i] != ids[j]).any()]
    if not distances:
        return None
    return figure(np.max(distances) if head == "classifier" else np.min(distances))


def sides(precision: str) -> tuple[bool, ...]:
    """What the IR is compared with: TensorFlow as it is, and for fp16 with its weights rounded (True) too."""
    return (False, True) if precision == "fp16" else (False,)


def run_side(
    arguments: argparse.Namespace, arrays: dict[str, npt.NDArray[Any]], *, rounded: bool
) -> dict[int, Vectors | str]:
    """TensorFlow's outputs by length, or why it refused it. All that it takes is let go of at the end."""
    session, fed = open_session(arguments, rounded=rounded)
    outputs: dict[int, Vectors | str] = {}
    with session:
        run = tensorflow_run(arguments, session, fed)
        for length in (arguments.seq_len, *arguments.try_lengths):
            columns = list(arrays[f"{length}/columns"])
            count = len(columns[0])
            group = arguments.batch if arguments.fixed_batch else min(GROUP, count)
            try:
                outputs[length] = run_all(run, columns, group)[:count]
            except Refused as error:
                outputs[length] = str(error)
    return outputs


def write_reference(arguments: argparse.Namespace) -> None:
    """Encode the rows of every length, run TensorFlow on them, and write both; or why it refused a length."""
    import numpy as np

    sentences = read_sentences(arguments.sentences)
    tokenizer = load_tokenizer(arguments)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for length in (arguments.seq_len, *arguments.try_lengths):
        # Of another length two rows are enough: see `measure`.
        rows = None if length == arguments.seq_len else max(2, arguments.batch)
        arrays[f"{length}/columns"] = np.stack(
            [column[:rows] for column in encode_all(tokenizer, sentences, length)]
        )
    for side, rounded in enumerate(sides(arguments.precision)):
        for length, found in run_side(arguments, arrays, rounded=rounded).items():
            arrays[f"{length}/refused" if isinstance(found, str) else f"{length}/outputs/{side}"] = np.array(
                found
            )
    np.savez(arguments.reference, **arrays)  # type: ignore[arg-type]


class Reference:
    """What `write_reference` wrote, from a process of its own.

    TensorFlow keeps several copies of the weights for as long as its process lasts: together with OpenVINO's a
    BERT-Large would not fit the container. And OpenVINO is then alone with what it computes.
    """

    def __init__(self, sides_: int) -> None:
        import numpy as np

        self._sides = range(sides_)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "reference.npz"
            done = subprocess.run([sys.executable, *sys.argv, f"--reference={file}"], check=False)
            if done.returncode == -signal.SIGKILL:
                fail("TensorFlow was killed, most likely for want of memory.")
            if done.returncode < 0:
                fail(
                    f"TensorFlow crashed ({signal.Signals(-done.returncode).name}) on this graph and checkpoint."
                )
            if done.returncode:
                sys.exit(1)  # it has said why
            with np.load(file, allow_pickle=False) as arrays:
                self._arrays = dict(arrays)

    def rows(self, length: int) -> tuple[list[Ids], list[Vectors]]:
        """The rows of a length, and TensorFlow's outputs of them, one for each side.

        Raises:
            Refused: TensorFlow can't be run at this length.
        """
        if f"{length}/refused" in self._arrays:
            raise Refused(str(self._arrays[f"{length}/refused"]))
        columns = list(self._arrays[f"{length}/columns"])
        return columns, [self._arrays[f"{length}/outputs/{side}"] for side in self._sides]


class Comparison:
    """Runs `compare_shape` in another process, and in a new one before memory gets short.

    OpenVINO keeps what it compiled for as long as the process lasts: of a BERT-Large some 1.3 GB a shape, and seven
    shapes of it would not fit the container.
    """

    def __init__(self, weights: Path) -> None:
        shapes = max(1, KEPT_BYTES // (2 * max(1, weights.stat().st_size)))  # fp16 is computed in f32
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            # Not forked: neither library bears it.
            mp_context=multiprocessing.get_context("spawn"),
            max_tasks_per_child=shapes,
        )

    def run(
        self, arguments: argparse.Namespace, batch: int, columns: list[Ids], expected: list[Vectors]
    ) -> dict[str, Any]:
        """As `compare_shape`."""
        try:
            return self._pool.submit(compare_shape, arguments, batch, columns, expected).result()
        except BrokenProcessPool:
            fail("OpenVINO crashed on this model, or was killed for want of memory.")


def compare_shape(
    arguments: argparse.Namespace, batch: int, columns: list[Ids], expected: list[Vectors]
) -> dict[str, Any]:
    """Run the IR with one shape of its inputs on all of these rows, in groups of `batch`.

    Args:
        arguments: of the command line.
        batch: rows of the IR's inputs.
        columns: the inputs of all rows.
        expected: TensorFlow's outputs, and with fp16 those of the rounded weights too.

    Raises:
        Refused: the IR can't be run in this shape.
    """
    import numpy as np

    length = columns[0].shape[1]
    found = run_all(openvino_run(arguments, batch, length), columns, batch)
    again = np.arange(len(found)) % len(columns[0])
    mask = columns[1][again]
    seen = without_padding(found, mask, arguments.head)
    finite = bool(np.isfinite(found).all())
    figures = []
    for outputs in (side[again] for side in expected):
        if outputs.shape != found.shape:
            fail(f"outputs differ in shape: TensorFlow {outputs.shape}, OpenVINO {found.shape}.")
        finite = finite and bool(np.isfinite(outputs).all())
        figures.append(compare(without_padding(outputs, mask, arguments.head), seen, arguments.head))
    rounded = {"max_abs_difference_rounded": figures[-1]["max_abs_difference"]} if len(figures) > 1 else {}
    return {"all_finite": finite, "batch": batch, "sequence": length} | figures[0] | rounded


def refusal(batch: int, length: int, error: Refused) -> dict[str, Any]:
    return {"batch": batch, "sequence": length, "refused_by": str(error)[:REASON_LENGTH]}


def largest(shapes: list[dict[str, Any]], figure_: str) -> float | None:
    figures = [shape[figure_] for shape in shapes]
    return None if None in figures else max(figures)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    import numpy as np

    sentences = read_sentences(arguments.sentences)
    reference = Reference(len(sides(arguments.precision)))
    comparison = Comparison(arguments.model.with_suffix(".bin"))
    base = (arguments.batch, arguments.seq_len)
    shapes: list[dict[str, Any]] = []
    refused: dict[str, list[dict[str, Any]]] = {"batch": [], "sequence": []}
    try:
        columns, expected = reference.rows(arguments.seq_len)
        # A fault in a weight or an operation shows on some row at any batch: every row is run in this shape.
        shapes.append(comparison.run(arguments, arguments.batch, columns, expected))
    except Refused as error:
        fail(f"{arguments.model.name} cannot be compared at {list(base)}: {error}")
    # What another batch can break is a size that was taken for a constant, and that shows on any group of rows.
    for batch in arguments.try_batches:
        if batch != arguments.batch:
            some = np.arange(batch) % len(columns[0])
            group = [column[some] for column in columns]
            try:
                shapes.append(comparison.run(arguments, batch, group, [side[some] for side in expected]))
            except Refused as error:
                refused["batch"].append(refusal(batch, arguments.seq_len, error))
    free = {"batch": len(shapes) > 1 and not refused["batch"], "sequence": False}
    tried = len(shapes)
    for length in arguments.try_lengths:
        batch = max(2, arguments.batch) if free["batch"] else arguments.batch
        try:
            shapes.append(comparison.run(arguments, batch, *reference.rows(length)))
        except Refused as error:
            refused["sequence"].append(refusal(batch, length, error))
    free["sequence"] = len(shapes) > tried and not refused["sequence"]
    outputs = expected[0]
    sized = outputs[columns[1] > 0] if arguments.head == "sequence" else outputs
    alone = [column[: len(sentences)] for column in columns]
    return {
        "all_finite": all(shape["all_finite"] for shape in shapes),
        "discrimination": discrimination(alone, outputs, arguments.head),
        "fixed_dimensions": {name: size for name, size in zip(free, base, strict=True) if not free[name]},
        "free_dimensions": [name for name in free if free[name]],
        "max_abs_difference": largest(shapes, "max_abs_difference"),
        "max_abs_difference_rounded": largest(shapes, "max_abs_difference_rounded") if expected[1:] else None,
        "refused": [*refused["batch"], *refused["sequence"]],
        "rms": figure(np.sqrt(np.mean(comparable(sized, arguments.head) ** 2))),
        "sentences": len(sentences),
        "shapes": shapes,
        "signature": signature(arguments.model),
    }


def write_report(path: Path, report: dict[str, object]) -> None:
    text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False) + "\n"
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def numbers(text: str) -> list[int]:
    return [positive(part) for part in text.split(",") if part]


def length(text: str) -> int:
    number = positive(text)
    if number < SHORTEST:
        raise argparse.ArgumentTypeError(f"{number} holds no sentence pair, at least {SHORTEST} does")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graph", type=Path, help="inference_graph.pb")
    parser.add_argument("--meta", type=Path, help="bert_model.ckpt.meta, instead of --graph")
    parser.add_argument("--checkpoint", type=Path, help="with --meta: the prefix of .index and .data")
    parser.add_argument("--model", type=Path, required=True, help="model.xml, with model.bin beside it")
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt")
    parser.add_argument("--source", type=Path, required=True, help="directory of the patched tokenization.py")
    parser.add_argument("--sentences", type=Path, required=True, help="text file, one sentence a line")
    parser.add_argument("--batch", type=positive, required=True, help="rows, as the IR was made for")
    parser.add_argument("--seq-len", type=length, required=True, help="tokens a row, as the IR was made for")
    parser.add_argument("--fixed-batch", action="store_true", help="TensorFlow's graph takes no other batch")
    parser.add_argument("--try-batches", type=numbers, default=[], help="others that are tried")
    parser.add_argument("--try-lengths", type=numbers, default=[], help="others that are tried")
    parser.add_argument("--lower-case", choices=("true", "false"), required=True)
    parser.add_argument("--head", choices=("pooled", "sequence", "classifier"), required=True)
    parser.add_argument(
        "--inputs",
        type=lambda text: text.split(","),
        required=True,
        help="TensorFlow's names of input ids, mask and segment ids",
    )
    parser.add_argument("--output-node", required=True, help="TensorFlow's name of the node, without :0")
    parser.add_argument("--precision", choices=("fp16", "fp32"), required=True, help="of the IR's weights")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--reference", type=Path, help=argparse.SUPPRESS
    )  # of the process that runs TensorFlow
    arguments = parser.parse_args()
    arguments.lower_case = arguments.lower_case == "true"
    if bool(arguments.graph) == bool(arguments.meta) or bool(arguments.meta) != bool(arguments.checkpoint):
        parser.error("give --graph, or --meta and --checkpoint")

    if arguments.reference:
        write_reference(arguments)
        return
    report = measure(arguments)
    write_report(arguments.report, report)
    print(f"largest difference {report['max_abs_difference']}")


if __name__ == "__main__":
    run_program(main)
