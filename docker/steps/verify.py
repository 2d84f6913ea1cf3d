"""Compare the frozen TensorFlow graph with its OpenVINO IR on real sentences.

Runs inside the container and writes one JSON report. It measures and doesn't decide: the host holds the
figures against its thresholds. A refusal is exit status 1, one message on stderr whose lines start with
`bertir-step: `, and no report.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Vectors = npt.NDArray[np.float32]
    # input_ids, input_mask, segment_ids (each [batch, sequence]) → pooled output [batch, hidden]
    Run = Callable[[list[Ids]], Vectors]

# The outputs of run_classifier's iterator are its feature names, sorted: 0 input_ids, 1 input_mask,
# 2 is_real_example, 3 label_ids, 4 segment_ids.
INPUTS = ("IteratorGetNext:0", "IteratorGetNext:1", "IteratorGetNext:4")
SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]")
SHORTEST = 3  # [CLS] [SEP] [SEP]: a pair of which nothing is left
THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine


def fail(*lines: str) -> NoReturn:
    sys.stderr.write("".join(f"bertir-step: {line}\n" for line in lines))
    sys.exit(1)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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


def encode_all(arguments: argparse.Namespace, sentences: list[str]) -> list[Ids]:
    """Every sentence alone, then neighbours as pairs, stacked: three [rows, sequence] arrays."""
    import numpy as np
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
    texts: list[tuple[str, str | None]] = [(sentence, None) for sentence in sentences]
    texts += zip(sentences[::2], sentences[1::2], strict=False)
    rows = [encode(tokenizer, first, second, arguments.seq_len) for first, second in texts]
    return [np.stack(column) for column in zip(*rows, strict=True)]


def tensorflow_run(graph: Path, output_node: str) -> Run:
    import tensorflow.compat.v1 as tf

    definition = tf.GraphDef.FromString(graph.read_bytes())
    names = {node.name for node in definition.node}
    missing = [name for name in (*INPUTS, output_node) if name.partition(":")[0] not in names]
    if missing:
        fail(f"{graph.name} has no {', '.join(missing)}.", "Freeze it with the patched run_classifier.py.")
    with tf.Graph().as_default() as frozen:
        tf.import_graph_def(definition, name="")
    config = tf.ConfigProto(intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=1)
    session = tf.Session(graph=frozen, config=config)

    def run(columns: list[Ids]) -> Vectors:
        try:
            result: Vectors = session.run(f"{output_node}:0", dict(zip(INPUTS, columns, strict=True)))
        except (tf.errors.OpError, ValueError) as error:
            fail(f"{graph.name} cannot be run on {list(columns[0].shape)}: {one_line(error)}")
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


def openvino_run(path: Path, output_node: str, batch: int, length: int) -> Run:
    """The IR, reshaped to one batch, on the CPU plugin in f32, which else takes bf16 where the host has it."""
    import openvino as ov

    model = read_ir(path)
    ports = [find_port(model.inputs, {name}, path.name) for name in INPUTS]
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
    try:
        model.reshape({port: [batch, length] for port in ports})
        compiled = ov.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        fail(f"{path.name} cannot be reshaped to [{batch},{length}] and compiled: {one_line(error)}")
    inputs = [find_port(compiled.inputs, {name}, path.name) for name in INPUTS]
    output = find_port(compiled.outputs, {output_node, f"{output_node}:0"}, path.name)

    def run(columns: list[Ids]) -> Vectors:
        result: Vectors = compiled(dict(zip(inputs, columns, strict=True)))[output].copy()
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


def compare(expected: Vectors, found: Vectors, batch: int) -> dict[str, float | None]:
    import numpy as np

    # float64, so that the comparison adds no error of its own.
    left, right = expected.astype(np.float64), found.astype(np.float64)
    difference = np.abs(left - right)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (left * right).sum(axis=1) / norms
    return {
        "batch": batch,
        "max_abs_difference": figure(difference.max()),
        "mean_abs_difference": figure(difference.mean()),
        "min_cosine": figure(cosine.min()),
        "rows": len(expected),
    }


def discrimination(columns: list[Ids], outputs: Vectors) -> float | None:
    """The smallest max-abs distance between the outputs of two rows that differ in their ids.

    Near 0, the model says the same whatever it reads, and equality with its IR means nothing. None if a
    small vocabulary left no two different rows.
    """
    import numpy as np

    ids = np.concatenate(columns, axis=1)
    distances = [
        np.abs(outputs[i] - outputs[j]).max()
        for i, j in combinations(range(len(ids)), 2)
        if (ids[i] != ids[j]).any()
    ]
    return figure(np.min(distances)) if distances else None


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    import numpy as np

    sentences = read_sentences(arguments.sentences)
    columns = encode_all(arguments, sentences)
    tensorflow = tensorflow_run(arguments.graph, arguments.output_node)
    batches, outputs = [], []
    for batch in arguments.batches:
        openvino = openvino_run(arguments.model, arguments.output_node, batch, arguments.seq_len)
        expected = run_all(tensorflow, columns, batch)
        found = run_all(openvino, columns, batch)
        if expected.shape != found.shape:
            fail(f"outputs differ in shape: TensorFlow {expected.shape}, OpenVINO {found.shape}.")
        batches.append(compare(expected, found, batch))
        outputs += [expected, found]
    alone = [column[: len(sentences)] for column in columns]
    largest = [result["max_abs_difference"] for result in batches]
    return {
        "all_finite": all(bool(np.isfinite(output).all()) for output in outputs),
        "batches": batches,
        "discrimination": discrimination(alone, outputs[0]),
        "max_abs_difference": None
        if None in largest
        else max(number for number in largest if number is not None),
        "sentences": len(sentences),
        "sequence_length": arguments.seq_len,
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


def length(text: str) -> int:
    number = positive(text)
    if number < SHORTEST:
        raise argparse.ArgumentTypeError(f"{number} holds no sentence pair, at least {SHORTEST} does")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graph", type=Path, required=True, help="inference_graph.pb")
    parser.add_argument("--model", type=Path, required=True, help="model.xml, with model.bin beside it")
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt")
    parser.add_argument("--source", type=Path, required=True, help="directory of the patched tokenization.py")
    parser.add_argument("--sentences", type=Path, required=True, help="text file, one sentence a line")
    parser.add_argument("--seq-len", type=length, required=True)
    parser.add_argument(
        "--batches", type=lambda text: [positive(part) for part in text.split(",")], required=True
    )
    parser.add_argument("--lower-case", choices=("true", "false"), required=True)
    parser.add_argument("--output-node", required=True, help="TensorFlow's name of the node, without :0")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    arguments.lower_case = arguments.lower_case == "true"

    report = measure(arguments)
    write_report(arguments.report, report)
    print(f"largest difference {report['max_abs_difference']}")


if __name__ == "__main__":
    main()
