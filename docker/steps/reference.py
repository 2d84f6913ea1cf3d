"""Run a TensorFlow graph on real sentences, and write what it gave for each: what its IR is then held against.

Runs inside the container and writes one file of arrays (.npz), without OpenVINO: nothing of the conversion has a part.
The graph is the frozen one, or the published one with its checkpoint restored. A refusal is exit status 1, one message on
stderr whose lines start with `bertir-step: `, and no file.

For each length, `LENGTH/` before the names:

    columns     int32 [3, rows, tokens]: input ids, input mask, segment ids
    outputs     float32 [rows, …]: what the head gives; with --rounded, by weights that were rounded to fp16
    exact       with --rounded: the same by the weights as they are, of the rows in which two sentences are paired
    refused     in place of outputs: why TensorFlow can't be run at this length

and beside them `paired`, bool [rows], which rows hold two sentences, and `sentences`, how many there were.
"""

from __future__ import annotations

import argparse
import sys
from math import pi, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arguments import add_graph, numbers, positive
from operations import ADVICE, VARIABLES, read_meta, runnable
from said import fail, one_line
from said import run as run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Vectors = npt.NDArray[np.float32]
    # input_ids, input_mask, segment_ids (each [batch, sequence]) → the head's output [batch, …]
    Run = Callable[[list[Ids]], Vectors]

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]")
SHORTEST = 3  # [CLS] [SEP] [SEP]: a pair of which nothing is left
GROUP = 16  # rows that TensorFlow gets at once: the fewest runs within a bearable memory
# Scalars that the converter takes into one operation with what is around them, where they are exact: those of both forms
# of gelu, which google-research/bert writes out, and the epsilon of its layer norm.
FUSED = (2**0.5, (2 / pi) ** 0.5, 0.044715, 1e-12)
FED_NUMBERS = 1024  # in a constant that is fed
THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine
ALIGNMENT = 64  # bytes; what Eigen asks for at most
# Of a GraphDef: field 1, `node`, with a length. Each other field of it comes after the nodes.
NODE = b"\x0a"


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


class Refused(Exception):  # noqa: N818 - it isn't an error where a length is only tried
    """The graph can't be run at a length; says why."""


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


def texts(sentences: list[str]) -> list[tuple[str, str | None]]:
    """Every sentence alone, and neighbours as pairs: what a row holds.

    verify.py deals the rows out to batches of 1, 2, 4 and 8. A pair is the first of each, as only pairs are run by the
    exact weights too, if there are others; together they hold every sentence.
    """
    pairs: list[tuple[str, str | None]] = list(zip(sentences[::2], sentences[1::2], strict=False))
    alone: list[tuple[str, str | None]] = [(sentence, None) for sentence in sentences]
    rows: list[tuple[str, str | None]] = []
    while alone:
        first_of_a_batch = (len(rows) + 1).bit_count() == 1
        rows.append((pairs if first_of_a_batch and pairs else alone).pop(0))
    return rows + pairs


def encode_all(tokenizer: Any, rows: list[tuple[str, str | None]], length: int) -> Ids:  # noqa: ANN401
    """The inputs of all rows: [3, rows, sequence]."""
    import numpy as np

    encoded = [encode(tokenizer, first, second, length) for first, second in rows]
    return np.stack([np.stack(column) for column in zip(*encoded, strict=True)])


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


def is_large(node: Any) -> bool:  # noqa: ANN401 - a NodeDef
    """Whether a node is a weight that is better fed than kept in the graph.

    TensorFlow copies a constant five times on its way from the file to the kernel, which for a BERT-Large is 6.6 GB.
    """
    import tensorflow.compat.v1 as tf

    shape = node.attr["value"].tensor.tensor_shape
    return bool(
        node.op == "Const"
        and node.attr["dtype"].type == tf.float32.as_datatype_enum
        and prod(dimension.size for dimension in shape.dim) >= FED_NUMBERS
    )


def aligned(values: Vectors) -> Vectors:
    """A copy at an address that TensorFlow takes it from; of one at any other it makes a copy itself, at each run."""
    import numpy as np

    space = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    copy: Vectors = space[start : start + values.nbytes].view(np.float32).reshape(values.shape)
    copy[...] = values
    return copy


def varint(file: BinaryIO) -> int:
    """Protobuf's whole number: seven bits a byte, the lowest first, until a byte without its highest bit."""
    number = shift = 0
    while True:
        byte = file.read(1)[0]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit
            return number
        shift += 7


def read_frozen(graph: Path) -> tuple[Any, dict[str, Vectors]]:
    """The graph, and its large weights by name, in whose place it has placeholders.

    It is read node by node, so that of the weights nothing is held but one copy.
    """
    import tensorflow.compat.v1 as tf

    definition = tf.GraphDef()
    fed: dict[str, Vectors] = {}
    with graph.open("rb") as file:
        while (tag := file.read(1)) == NODE:
            node = tf.NodeDef.FromString(file.read(varint(file)))
            if is_large(node):
                tensor = node.attr["value"].tensor
                fed[f"{node.name}:0"] = aligned(tf.make_ndarray(tensor))
                weight = definition.node.add(name=node.name, op="Placeholder")
                weight.attr["dtype"].CopyFrom(node.attr["dtype"])
                weight.attr["shape"].shape.CopyFrom(tensor.tensor_shape)
            else:
                definition.node.add().CopyFrom(node)
        definition.MergeFromString(tag + file.read())
    return definition, fed


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


def run_all(run: Run, columns: list[Ids], batch: int) -> Vectors:
    """The outputs of all rows, in groups of `batch`; the last group is filled with the first rows again."""
    import numpy as np

    rows = len(columns[0])
    filled = np.arange(-(-rows // batch) * batch) % rows
    groups = filled.reshape(-1, batch)
    return np.concatenate([run([column[group] for column in columns]) for group in groups])


def tensorflow_run(inputs: list[str], output: str, session: Any, fed: dict[str, Vectors]) -> Run:  # noqa: ANN401
    """What runs the graph on rows; beside them it is fed the weights."""
    import tensorflow.compat.v1 as tf

    def run(columns: list[Ids]) -> Vectors:
        try:
            result: Vectors = session.run(f"{output}:0", fed | dict(zip(inputs, columns, strict=True)))
        except (tf.errors.OpError, ValueError) as error:
            raise Refused(f"TensorFlow: {one_line(error)}") from error
        return result

    return run


def sides(arguments: argparse.Namespace) -> Iterator[tuple[str, Any, dict[str, Vectors]]]:
    """The name of what a run gives, its session, and what it is fed: with the weights as they are, and then rounded."""
    names = [*arguments.inputs, arguments.output_node]
    if arguments.meta:
        for name, rounded in (
            [("exact", False), ("outputs", True)] if arguments.rounded else [("outputs", False)]
        ):
            restored = restored_session(
                arguments.meta, arguments.checkpoint, names, arguments.output_node, rounded=rounded
            )
            yield name, restored, {}
        return
    definition, fed = read_frozen(arguments.graph)
    require_nodes(definition, names, arguments.graph.name)
    if arguments.rounded:
        yield "exact", tensorflow_session(definition), fed
        round_weights(definition)
        for values in fed.values():
            values[...] = rounded_to_fp16(values)
    yield "outputs", tensorflow_session(definition), fed


def measure(arguments: argparse.Namespace) -> dict[str, npt.NDArray[Any]]:
    """Encode the rows of every length, and run TensorFlow on them."""
    import numpy as np

    sentences = read_sentences(arguments.sentences)
    tokenizer = load_tokenizer(arguments)
    rows = texts(sentences)
    paired = np.array([second is not None for _, second in rows])
    arrays: dict[str, npt.NDArray[Any]] = {"paired": paired, "sentences": np.array(len(sentences))}
    for length in (arguments.seq_len, *arguments.try_lengths):
        # Of another length two rows are enough: see verify.py's `measure`.
        some = rows if length == arguments.seq_len else rows[: max(2, arguments.batch)]
        arrays[f"{length}/columns"] = encode_all(tokenizer, some, length)
    for side, session, fed in sides(arguments):
        with session:
            run = tensorflow_run(arguments.inputs, arguments.output_node, session, fed)
            for length in (arguments.seq_len, *arguments.try_lengths):
                columns = arrays[f"{length}/columns"]
                if side == "exact":
                    columns = columns[:, paired[: columns.shape[1]]]
                count = columns.shape[1]
                group = arguments.batch if arguments.fixed_batch else min(GROUP, count)
                try:
                    arrays[f"{length}/{side}"] = run_all(run, list(columns), group)[:count]
                except Refused as error:
                    arrays[f"{length}/refused"] = np.array(str(error))
    return arrays


def write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    import numpy as np

    partial = path.with_name(f"{path.name}.partial")
    with partial.open("xb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


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
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt")
    parser.add_argument("--source", type=Path, required=True, help="directory of the patched tokenization.py")
    parser.add_argument("--sentences", type=Path, required=True, help="text file, one sentence a line")
    parser.add_argument("--batch", type=positive, required=True, help="rows, as the IR is made for")
    parser.add_argument("--seq-len", type=length, required=True, help="tokens a row, as the IR is made for")
    parser.add_argument("--fixed-batch", action="store_true", help="the graph takes no other batch")
    parser.add_argument("--try-lengths", type=numbers, default=[], help="others that are tried")
    parser.add_argument("--lower-case", choices=("true", "false"), required=True)
    add_graph(parser)
    parser.add_argument("--rounded", action="store_true", help="with weights rounded to fp16 too")
    parser.add_argument("--reference", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    arguments.lower_case = arguments.lower_case == "true"
    if bool(arguments.graph) == bool(arguments.meta) or bool(arguments.meta) != bool(arguments.checkpoint):
        parser.error("give --graph, or --meta and --checkpoint")
    write(arguments.reference, measure(arguments))


if __name__ == "__main__":
    run_program(main, "numpy", "tensorflow.compat.v1")
