"""See whether a published graph (`.meta`) can be converted as it is, and name its inputs and its output.

Runs inside the container and writes a JSON file: the names of the three inputs and of the output's node, and
the sizes that the inputs fix (null where they are free). The graph and the checkpoint must belong together.

A refusal is exit status 1, one message on stderr whose lines start with `bertir-step: `, and no output.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

    Nodes = dict[str, Any]

# input_ids, input_mask, segment_ids: tf.placeholder's names in the order in which they were made.
INPUTS = ("Placeholder", "Placeholder_1", "Placeholder_2")
RANK = 2  # [batch, sequence]; of the classifier's weights [labels, hidden]
OUTPUTS = {"pooled": "bert/pooler/dense/Tanh", "classifier": "loss/Softmax"}
POOLER_INPUT = "bert/pooler/strided_slice"  # takes the first token of the last layer's output
VARIABLES = frozenset({"VariableV2", "Variable", "VarHandleOp"})
DATA = re.compile(r".*Iterator.*|.*Dataset(V\d)?|Queue\w*Dequeue\w*|Infeed\w*|.*ReaderRead\w*")
RANDOM = re.compile(r".*Random(?!Shuffle).*|TruncatedNormal|Multinomial")
SLOT = re.compile(r"/(adam_[mv]|Adam(_1)?|Momentum)$")
REPLICATED = re.compile(r"TPU\w+|CrossReplicaSum")
ADVICE = "Use --recipe reshapable: it makes an inference graph of the same weights, and reads no .meta."
CLASSIFIER = "output_weights"
NO_CLASSIFIER = (
    f"Nor has the checkpoint a classifier ({CLASSIFIER}), so no recipe can make one: it was not fine-tuned with"
    " run_classifier.py. Take the head pooled or sequence, or another checkpoint."
)


def fail(*lines: str) -> NoReturn:
    sys.stderr.write("".join(f"bertir-step: {line}\n" for line in lines))
    sys.exit(1)


def read_meta(path: Path) -> Nodes:
    """The graph's nodes by name."""
    import tensorflow.compat.v1 as tf
    from google.protobuf.message import DecodeError

    try:
        meta = tf.MetaGraphDef.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        fail(f"{path.name} cannot be read: {error}", ADVICE)
    if not meta.graph_def.node:
        fail(f"{path.name} holds no graph.", ADVICE)
    if not meta.saver_def.restore_op_name:
        fail(f"{path.name} does not say how its variables are restored.", ADVICE)
    return {node.name: node for node in meta.graph_def.node}


def source_of(reference: str) -> str:
    """The node that an input of a node comes from: `name`, `name:1`, or `^name` (control)."""
    return reference.removeprefix("^").partition(":")[0]


def sub_graph(nodes: Nodes, output: str) -> list[Any]:
    """Everything that the output is computed from, itself included."""
    seen, waiting = {output}, [output]
    while waiting:
        for reference in nodes[waiting.pop()].input:
            name = source_of(reference)
            if name in nodes and name not in seen:
                seen.add(name)
                waiting.append(name)
    return [nodes[name] for name in sorted(seen)]


def checkpoint_shapes(prefix: Path) -> dict[str, list[int]]:
    """The shapes of the checkpoint's variables by name."""
    import tensorflow.compat.v1 as tf

    try:
        shapes: dict[str, list[int]] = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    except (tf.errors.OpError, IndexError, ValueError) as error:
        fail(f"the checkpoint {prefix.name} cannot be read: {' '.join(str(error).split())}")
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


def config_problems(nodes: Nodes, used: list[Any], path: Path) -> list[str]:
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
        layers = config["num_hidden_layers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{path.name} cannot be read: {error!r}")
    problems = [
        f"{path.name} takes {name} as {shape}, the graph has {shape_of(nodes[name])}"
        for name, shape in wanted.items()
        if name in nodes and shape_of(nodes[name]) != shape
    ]
    found = {match[1] for node in used if (match := re.match(r"bert/encoder/layer_(\d+)/", node.name))}
    if len(found) != layers:
        problems.append(f"{path.name} has num_hidden_layers {layers}, the graph has {len(found)}")
    return problems


def examine(meta: Path, prefix: Path, config: Path, head: str) -> dict[str, object]:
    nodes, shapes = read_meta(meta), checkpoint_shapes(prefix)
    output = output_of(nodes, head, meta.name, shapes)
    used = sub_graph(nodes, output)
    problems = path_problems(used)
    if problems:
        seen = traces(nodes.values())
        what = "is a training graph" if seen else "is not a graph of the three inputs"
        fail(f"{meta.name} {what}, and can't be converted as it is.", *problems, *seen, ADVICE)
    batch, sequence = input_sizes(nodes, meta.name)
    if unfit := variable_problems(nodes, used, shapes):
        fail(
            f"{meta.name} and the checkpoint do not hold the same variables.",
            *unfit,
            "Give the three files of one checkpoint: .meta, .index and .data.",
        )
    if other := config_problems(nodes, used, config):
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
    main()
