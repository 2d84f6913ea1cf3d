"""Which operations of a published graph (`.meta`) are run, and which may be.

Imported by the programs beside it, in the container.

TensorFlow runs what it is asked for and everything that leads there, by control inputs too. In bertir that is the head's
output and the saver's restore operation, both in `verify.py`; `mo`'s frontend reads a graph and runs nothing of it. Tried
with a WriteFile in each place: it ran as a control input of the output, of a variable, of an Assign and of the restore
operation, and in the library's functions, by PartitionedCall or by an operation that has the function's name. It did not run
in initializers, in the saver's other half, in collections or beside the path. So both sub-graphs are held against lists, and
no function is taken along.
"""

from __future__ import annotations

import re
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

from said import fail, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Nodes = dict[str, Any]

ADVICE = "Use --recipe reshapable: it makes an inference graph of the same weights, and reads no .meta."
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})
# What modeling.py and run_classifier.py of google-research/bert write into a graph between the placeholders and a head, for
# TensorFlow 1.4 to 2.15: read from their source at the pinned commit and before it, and from tf.contrib.layers.layer_norm,
# tf.layers.dense, tf.gather, tf.one_hot, tf.assert_less_equal and the other functions that they call. In brackets what brings
# each; of two names the older one is of the TensorFlow (1.11 to 1.15) that the published graphs were saved by.
# All of them are functions of their inputs, but for Assert, which may end the run, and reading a variable. What isn't here is
# refused, known to be harmful or not: TensorFlow's own mark of a stateful operation lacks ReadFile, for one.
COMPUTES = VARIABLES | {
    *("Placeholder", "PlaceholderWithDefault", "Const", "Identity", "NoOp", "ReadVariableOp", "StopGradient"),
    *("Gather", "GatherV2", "ResourceGather", "OneHot"),  # [embedding_lookup, both ways]
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "BiasAdd"),  # [dense, attention]
    *("Add", "AddV2", "Sub", "Mul", "Div", "RealDiv", "Neg"),
    *(
        "Mean",
        "Sum",
        "Prod",
        "SquaredDifference",
        "Square",
        "Sqrt",
        "Rsqrt",
    ),  # [layer_norm; dense of three dimensions]
    *("Erf", "Pow", "Tanh", "Relu", "Softmax"),  # [gelu of before and of today, activations, heads]
    *(
        "Cast",
        "Reshape",
        "Shape",
        "ShapeN",
        "Size",
        "Rank",
        "ExpandDims",
        "Squeeze",
        "Transpose",
        "Pack",
        "Unpack",
    ),
    *(
        "Slice",
        "StridedSlice",
        "Concat",
        "ConcatV2",
        "Range",
        "Fill",
        "Tile",
        "BroadcastTo",
        "ZerosLike",
        "OnesLike",
    ),
    *("Minimum", "Maximum", "FloorDiv", "FloorMod"),
    *(
        "Assert",
        "All",
        "Equal",
        "NotEqual",
        "Less",
        "LessEqual",
        "Greater",
        "GreaterEqual",
        "Select",
        "SelectV2",
    ),
    *("LogicalAnd", "LogicalOr", "LogicalNot", "Switch", "Merge"),  # [assertions, and what guards them]
}
# What tf.train.Saver writes to restore variables: of both formats of checkpoints, sharded or not, `reshape` and partitioned
# variables included. The saver's other half (SaveV2, ShardedFilename, StringJoin, MergeV2Checkpoints, …) writes and deletes
# files: it lies in every graph beside these, nothing here leads to it, and nothing may.
RESTORES = VARIABLES | {
    *("Const", "Placeholder", "PlaceholderWithDefault", "Identity", "NoOp", "Reshape"),
    *("Restore", "RestoreSlice", "RestoreV2", "Assign", "AssignVariableOp"),
}
# Published ones have 1 to 2 MB and some 3,000 nodes on these paths, of 24 layers.
META_BYTES = 32 << 20
RUN_NODES = 50_000
NAME_SIGNS = 1_000
CONSTANT_NUMBERS = 1 << 27
NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")


def source_of(reference: str) -> str:
    """The node that an input of a node comes from: `name`, `name:1`, or `^name` (control)."""
    return reference.removeprefix("^").partition(":")[0]


def read_meta(path: Path) -> Any:  # noqa: ANN401 - a MetaGraphDef
    """The file's MetaGraphDef; it has nodes, no two of one name, and says how to restore its variables."""
    import tensorflow.compat.v1 as tf
    from google.protobuf.message import DecodeError

    try:
        with path.open("rb") as file:
            data = file.read(META_BYTES + 1)
        if len(data) > META_BYTES:
            fail(f"{path.name} has more than {META_BYTES >> 20} MiB, and a BERT's has two or three.", ADVICE)
        meta = tf.MetaGraphDef.FromString(data)
    except (OSError, DecodeError) as error:
        fail(f"{path.name} cannot be read: {one_line(error)}", ADVICE)
    if not meta.graph_def.node:
        fail(f"{path.name} holds no graph.", ADVICE)
    if not meta.saver_def.restore_op_name:
        fail(f"{path.name} does not say how its variables are restored.", ADVICE)
    seen = set()
    for node in meta.graph_def.node:
        if node.name in seen:
            fail(f"{path.name} has two nodes of one name: {node.name}", ADVICE)
        seen.add(node.name)
    return meta


def sub_graph(nodes: Nodes, output: str, file: str) -> list[Any]:
    """Everything that a node is computed from or waits for, itself included, sorted by name.

    It is refused if it lacks a node, has too many, or if one waits for itself.
    """
    seen, waiting = {output}, [output]
    waits = Counter[str]()  # for how many inputs a node waits
    readers: dict[str, list[str]] = {}
    while waiting:
        reader = waiting.pop()
        for reference in nodes[reader].input:
            name = source_of(reference)
            if name not in nodes:
                fail(f"{file}: the input {reference} of its node {reader} is not in it.", ADVICE)
            waits[reader] += 1
            readers.setdefault(name, []).append(reader)
            if name not in seen:
                seen.add(name)
                waiting.append(name)
        if len(seen) > RUN_NODES:
            fail(f"{file} takes more than {RUN_NODES} nodes to compute {output}; no BERT does.", ADVICE)
    ready = [name for name in seen if not waits[name]]
    done = 0
    while ready:
        done += 1
        for reader in readers.get(ready.pop(), ()):
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if done < len(seen):
        first = min(name for name in seen if waits[name])
        fail(f"{file} goes in circles: its node {first} waits for itself.", ADVICE)
    return [nodes[name] for name in sorted(seen)]


def require_allowed(file: str, used: Iterable[Any], allowed: Iterable[str]) -> None:
    """Refuse a graph that would run an operation which isn't on the list."""
    others = [node for node in used if node.op not in allowed]
    if others:
        fail(
            f"{file} would run operations that no BERT has, and is not opened.",
            *(f"not allowed: {node.op} (node {node.name})" for node in others),
            ADVICE,
        )


def require_bearable(file: str, used: Iterable[Any]) -> None:
    """Refuse names that TensorFlow or `mo` would take for something else, and constants that no file could hold."""
    for node in used:
        if len(node.name) > NAME_SIGNS or not NAME.fullmatch(node.name):
            fail(f"{file}: this is no name of a node: {node.name}", ADVICE)
        sizes = (
            [dimension.size for dimension in node.attr["value"].tensor.tensor_shape.dim]
            if node.op == "Const"
            else []
        )
        if min(sizes, default=0) < 0 or prod(sizes) > CONSTANT_NUMBERS:
            fail(f"{file}: its node {node.name} is a constant of the shape {sizes}.", ADVICE)


def runnable(meta: Any, outputs: list[str], file: str) -> Any:  # noqa: ANN401 - a MetaGraphDef; a GraphDef
    """What these nodes need of the graph: no other node, no function, and no word on how or where to run it.

    A `_class` may name a node that is left out, a `_output_shapes` an older TensorFlow's mistake, a device a machine that isn't
    here; `_XlaCompile` would have the graph compiled.
    """
    import tensorflow.compat.v1 as tf

    nodes: Nodes = {node.name: node for node in meta.graph_def.node}
    needed = {node.name for output in outputs for node in sub_graph(nodes, output, file)}
    definition = tf.GraphDef(versions=meta.graph_def.versions)
    for node in meta.graph_def.node:
        if node.name in needed:
            kept = definition.node.add()
            kept.CopyFrom(node)
            kept.ClearField("device")
            for name in [name for name in kept.attr if name.startswith("_")]:
                del kept.attr[name]
    try:
        with tf.Graph().as_default():
            tf.import_graph_def(definition, name="")
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:  # as the importer says it
        fail(f"the graph in {file} cannot be imported: {one_line(error)}", ADVICE)
    return definition
