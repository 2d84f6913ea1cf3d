"""See whether a published graph (`.meta`) can be converted as it is, and name its inputs and its output.

Runs inside the container and writes a JSON file: the names of the three inputs and of the output's node, and
the sizes that the inputs fix (null where they are free). The graph and the checkpoint must belong together.

What TensorFlow would run of the graph is held against a list (operations.py) before TensorFlow sees it.

A refusal is exit status 1, one message on stderr whose lines start with `bertir-step: `, and no output.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from operations import (
    ADVICE,
    COMPUTES,
    RESTORES,
    VARIABLES,
    read_meta,
    require_allowed,
    require_bearable,
    runnable,
    source_of,
    sub_graph,
)
from said import fail, one_line, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    Nodes = dict[str, Any]

# input_ids, input_mask, segment_ids: tf.placeholder's names in the order in which they were made.
INPUTS = ("Placeholder", "Placeholder_1", "Placeholder_2")
RANK = 2  # [batch, sequence]; of the classifier's weights [labels, hidden]
OUTPUTS = {"pooled": "bert/pooler/dense/Tanh", "classifier": "loss/Softmax"}
POOLER_INPUT = "bert/pooler/strided_slice"  # takes the first token of the last layer's output
DATA = re.compile(r".*Iterator.*|.*Dataset(V\d)?|Queue\w*Dequeue\w*|Infeed\w*|.*ReaderRead\w*")
RANDOM = re.compile(r".*Random(?!Shuffle).*|TruncatedNormal|Multinomial")
SLOT = re.compile(r"/(adam_[mv]|Adam(_1)?|Momentum)$")
REPLICATED = re.compile(r"TPU\w+|CrossReplicaSum")
CLASSIFIER = "output_weights"
FILENAMES = frozenset({"Const", "Placeholder", "PlaceholderWithDefault"})  # of tf.train.Saver's
MOST_ROWS = 1024  # that an input may be fixed to: each length is tried with as many
NO_CLASSIFIER = (
    f"Nor has the checkpoint a classifier ({CLASSIFIER}), so no recipe can make one: it was not fine-tuned with"
    " run_classifier.py. Take the head pooled or sequence, or another checkpoint."
)


def checkpoint_shapes(prefix: Path) -> dict[str, list[int]]:
    """The shapes of the checkpoint's variables by name; together they are no larger than its data.

    What .index says is otherwise believed until the memory for it is asked for.
    """
    import tensorflow.compat.v1 as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes: dict[str, list[int]] = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
    except (tf.errors.OpError, IndexError, ValueError, TypeError, RuntimeError) as error:
        fail(f"the checkpoint {prefix.name} cannot be read: {one_line(error)}")
    there = sum(path.stat().st_size for path in prefix.parent.glob(f"{prefix.name}.data-*"))
    # A variable of strings is told by TensorFlow to be of objects of no size.
    said = sum(max(prod(shape), 0) * max(types[name].size or 0, 1) for name, shape in shapes.items())
    if said > there:
        fail(
            f"the checkpoint {prefix.name} is not whole: its .index tells of {said} bytes,"
            f" its .data has {there}.",
            "Give .index and .data of one saving.",
        )
    return shapes


def output_of(nodes: Nodes, head: str, file: str, shapes: dict[str, list[int]]) -> str:
    """The node that computes the head. The last layer's name depends on how many there are."""
    if head != "sequence":
        name = OUTPUTS[head]
        needs = name
    else:
        needs = POOLER_INPUT
        name = source_of(nodes[needs].input[0]) if needs in nodes and nodes[needs].input else ""
    if name not in nodes:
        # The other recipe makes a graph with a classifier, but not the classifier's weights.
        without = head == "classifier" and len(shapes.get(CLASSIFIER, ())) != RANK
        fail(
            f"{file} has no node {needs}, which the head {head} needs.",
            *traces(nodes.values()),
            NO_CLASSIFIER if without else ADVICE,
        )
    return name


def listed(what: str, names: Iterable[str]) -> list[str]:
    counted = Counter(names)
    if not counted:
        return []
    return [f"{what}: " + ", ".join(f"{name} ({count})" for name, count in sorted(counted.items()))]


def traces(nodes: Iterable[Any]) -> list[str]:
    """What in a graph tells that it was made for training."""
    nodes = list(nodes)
    return [
        *listed("reads its rows itself", (node.op for node in nodes if DATA.fullmatch(node.op))),
        *listed(
            "drops numbers out",
            (node.op for node in nodes if RANDOM.fullmatch(node.op) and "/dropout/" in f"/{node.name}"),
        ),
        *listed(
            "trains",
            (
                f"slots {found[1]}"
                for node in nodes
                if node.op in VARIABLES and (found := SLOT.search(node.name))
            ),
        ),
        *listed("is spread over TPUs", (node.op for node in nodes if REPLICATED.fullmatch(node.op))),
    ]


def path_problems(used: list[Any]) -> list[str]:
    """Why the output isn't a function of the three inputs and the weights alone."""
    from tensorflow.python.framework import op_def_registry

    names = {node.name for node in used}
    others = [node.name for node in used if node.op == "Placeholder" and node.name not in INPUTS]
    unfit = (node.op for node in used if DATA.fullmatch(node.op) or RANDOM.fullmatch(node.op))
    unknown = (node.op for node in used if op_def_registry.get(node.op) is None)
    return [
        *(f"no input: {name}" for name in INPUTS if name not in names),
        *(f"one more input: {name}" for name in others),
        *listed("the output comes from", unfit),
        *listed("unknown to this TensorFlow", unknown),
    ]


def input_sizes(nodes: Nodes, file: str) -> list[int | None]:
    """[batch, sequence] as the placeholders have them; null is free."""
    sizes: list[int | None] = [None, None]
    for name in INPUTS:
        if nodes[name].op != "Placeholder":
            fail(f"{file}: {name} is a {nodes[name].op}, not a Placeholder.", ADVICE)
        shape = nodes[name].attr["shape"].shape
        if shape.unknown_rank or not shape.dim:
            continue  # a placeholder of TensorFlow before 1.0 has no shape and says []
        if len(shape.dim) != RANK:
            fail(f"{file}: {name} has {len(shape.dim)} dimensions, not {RANK}.", ADVICE)
        for position, dimension in enumerate(shape.dim):
            if dimension.size >= 0:
                if sizes[position] not in {None, dimension.size}:
                    fail(f"{file}: its inputs have different shapes.", ADVICE)
                sizes[position] = dimension.size
    batch, sequence = sizes
    if batch == 0 or sequence == 0 or (batch or 0) > MOST_ROWS:
        fail(f"{file}: its inputs have the shape {sizes}.", ADVICE)
    return sizes


def shape_of(node: Any) -> list[int]:  # noqa: ANN401 - a NodeDef
    return [dimension.size for dimension in node.attr["shape"].shape.dim]


def variable_problems(nodes: Nodes, used: list[Any], shapes: dict[str, list[int]]) -> list[str]:
    """Whether the checkpoint holds the graph's variables, and none of BERT's that the graph lacks."""
    problems = []
    for node in used:
        if node.op in VARIABLES:
            if node.name not in shapes:
                problems.append(f"missing: {node.name}")
            elif shapes[node.name] != shape_of(node):
                problems.append(
                    f"misshapen: {node.name} is {shapes[node.name]}, the graph takes {shape_of(node)}"
                )
    # As in run_classifier.py: the whole graph's variables are known, and what an optimizer keeps right below one.
    known = {node.name for node in nodes.values() if node.op in VARIABLES}
    for name in sorted(shapes):
        if name.startswith("bert/") and not known & {name, name.rpartition("/")[0]}:
            problems.append(f"unused: {name}")
            known.add(name)  # then its own slots go without saying
    return problems


def config_problems(nodes: Nodes, used: list[Any], path: Path, sequence: int | None) -> list[str]:
    """Where bert_config.json describes another model: it is published, and its layers are what parity allows for."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        wanted = {
            f"bert/embeddings/{table}": [config[size], config["hidden_size"]]
            for table, size in (
                ("word_embeddings", "vocab_size"),
                ("position_embeddings", "max_position_embeddings"),
                ("token_type_embeddings", "type_vocab_size"),
            )
        }
        layers, positions = config["num_hidden_layers"], int(config["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        fail(f"{path.name} cannot be read: {error!r}")
    problems = [
        f"{path.name} takes {name} as {shape}, the graph has {shape_of(nodes[name])}"
        for name, shape in wanted.items()
        if name in nodes and shape_of(nodes[name]) != shape
    ]
    found = {match[1] for node in used if (match := re.match(r"bert/encoder/layer_(\d+)/", node.name))}
    if len(found) != layers:
        problems.append(f"{path.name} has num_hidden_layers {layers}, the graph has {len(found)}")
    if (sequence or 0) > positions:
        problems.append(f"{path.name} has max_position_embeddings {positions}, the graph's inputs {sequence}")
    return problems


def restoring(saver: Any, nodes: Nodes, file: str) -> list[Any]:  # noqa: ANN401 - a SaverDef
    """What is run to restore the variables."""
    filename = source_of(saver.filename_tensor_name)
    for name in (saver.restore_op_name, filename):
        if name not in nodes:
            fail(f"{file} restores its variables by {name or 'no node'}, which is not in it.", ADVICE)
    used = sub_graph(nodes, saver.restore_op_name, file)
    require_allowed(file, used, RESTORES)
    if nodes[filename].op not in FILENAMES:
        fail(f"{file} gets the checkpoint's name by {nodes[filename].op} (node {filename}).", ADVICE)
    return used


def examine(meta: Path, prefix: Path, config: Path, head: str) -> dict[str, object]:
    graph = read_meta(meta)
    nodes: Nodes = {node.name: node for node in graph.graph_def.node}
    shapes = checkpoint_shapes(prefix)
    output = output_of(nodes, head, meta.name, shapes)
    used = sub_graph(nodes, output, meta.name)
    problems = path_problems(used)
    if problems:
        seen = traces(nodes.values())
        what = "is a training graph" if seen else "is not a graph of the three inputs"
        fail(f"{meta.name} {what}, and can't be converted as it is.", *problems, *seen, ADVICE)
    require_allowed(meta.name, used, COMPUTES)
    restore = restoring(graph.saver_def, nodes, meta.name)
    require_bearable(meta.name, [*used, *restore])
    runnable(graph, [output, graph.saver_def.restore_op_name], meta.name)
    batch, sequence = input_sizes(nodes, meta.name)
    if unfit := variable_problems(nodes, used, shapes):
        fail(
            f"{meta.name} and the checkpoint do not hold the same variables.",
            *unfit,
            "Give the three files of one checkpoint: .meta, .index and .data.",
        )
    if other := config_problems(nodes, used, config, sequence):
        fail(
            f"{config.name} is not of the model that {meta.name} computes.",
            *other,
            "Give the bert_config.json that belongs to this checkpoint.",
        )
    return {
        "batch": batch,
        "inputs": [f"{name}:0" for name in INPUTS],
        "output": output,
        "sequence": sequence,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta", type=Path, required=True, help="bert_model.ckpt.meta")
    parser.add_argument("--checkpoint", type=Path, required=True, help="prefix of .index and .data")
    parser.add_argument("--config", type=Path, required=True, help="bert_config.json")
    parser.add_argument("--head", choices=("pooled", "sequence", "classifier"), required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()

    found = examine(arguments.meta, arguments.checkpoint, arguments.config, arguments.head)
    partial = arguments.output.with_name(f"{arguments.output.name}.partial")
    partial.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(arguments.output)
    print(f"{arguments.meta.name} computes {found['output']} of {', '.join(INPUTS)}")


if __name__ == "__main__":
    run(main, "numpy", "lazy_tensorflow")
