"""Hostile and odd graphs, each made of a sound one. Imported by hostile_models.py, in the container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow.compat.v1 as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[Any], object]

OUTPUT = "bert/pooler/dense/Tanh"
KERNEL = "bert/pooler/dense/kernel"
RESTORE = "save/restore_all"


def named(meta: Any, name: str) -> Any:
    return next(node for node in meta.graph_def.node if node.name == name)


def constant(nodes: Any, name: str, value: Any, kind: Any = tf.string) -> str:
    node = nodes.add(name=name, op="Const")
    node.attr["dtype"].type = kind.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=kind))
    return name


def write_file(nodes: Any, name: str = "planted") -> str:
    """Add a node that would write into the output volume."""
    inputs = [constant(nodes, f"{name}/file", b"/out/planted"), constant(nodes, f"{name}/text", b"x")]
    nodes.add(name=name, op="WriteFile", input=inputs)
    return name


def read_file(nodes: Any) -> str:
    nodes.add(name="planted", op="ReadFile", input=[constant(nodes, "planted/file", b"/etc/shadow")])
    return "planted"


def python_function(op: str) -> Callable[[Any], str]:
    def add(nodes: Any) -> str:
        node = nodes.add(name="planted", op=op)
        node.attr["token"].s = b"pyfunc_0"
        node.attr["Tin"].list.SetInParent()
        node.attr["Tout"].list.SetInParent()
        return "planted"

    return add


def other(op: str) -> Callable[[Any], str]:
    def add(nodes: Any) -> str:
        nodes.add(name="planted", op=op)
        return "planted"

    return add


def control(reader: str, add: Callable[[Any], str]) -> Change:
    return lambda meta: named(meta, reader).input.append(f"^{add(meta.graph_def.node)}")


def before_output(meta: Any, op: str) -> Any:
    """Put a node of one input between the output's node and what it reads."""
    output = named(meta, OUTPUT)
    node = meta.graph_def.node.add(name="between", op=op, input=[output.input[0]])
    output.input[0] = "between"
    return node


def library(meta: Any, name: str) -> None:
    """Add a function float → float that writes a file."""
    function = meta.graph_def.library.function.add()
    function.signature.name = name
    function.signature.is_stateful = True
    function.signature.input_arg.add(name="x", type=1)
    function.signature.output_arg.add(name="y", type=1)
    write_file(function.node_def)
    function.node_def[-1].input[:] = ["planted/file:output:0", "planted/text:output:0"]
    identity = function.node_def.add(name="same", op="Identity", input=["x", "^planted"])
    identity.attr["T"].type = 1
    function.ret["y"] = "same:output:0"


def called(meta: Any, op: str) -> None:
    library(meta, "Evil")
    node = before_output(meta, op)
    if op != "Evil":
        node.attr["Tin"].list.type.append(1)
        node.attr["Tout"].list.type.append(1)
        node.attr["f"].func.name = "Evil"


def chain(length: int) -> Change:
    def change(meta: Any) -> None:
        output, before = named(meta, OUTPUT), ""
        before = output.input[0]
        for index in range(length):
            node = meta.graph_def.node.add(name=f"c{index}", op="Identity", input=[before])
            node.attr["T"].type = 1
            before = node.name
        output.input[0] = before

    return change


def many(meta: Any) -> None:
    """Add a million nodes as they lie in a file; one by one it would take twenty times as long."""
    tail = b"\x12\x04NoOp"
    names = (b"n%d" % index for index in range(1_000_000))
    nodes = (b"\x0a" + bytes([len(name)]) + name + tail for name in names)
    meta.graph_def.MergeFromString(b"".join(b"\x0a" + bytes([len(node)]) + node for node in nodes))


def circle(meta: Any) -> None:
    named(meta, "bert/pooler/dense/MatMul").input.append(f"^{OUTPUT}")


def rename(meta: Any, name: str) -> None:
    between = before_output(meta, "Identity")
    between.attr["T"].type = 1
    between.name = name
    named(meta, OUTPUT).input[0] = name


def forbidden_name(op: str) -> Change:
    """Name an operation that isn't allowed so as to speak for bertir, and to move the cursor."""

    def change(meta: Any) -> None:
        rename(meta, "\x1b[2J\x1b]0;x\x07\nbertir-step all is well\n\u202e")
        node = meta.graph_def.node[-1]
        node.op = op

    return change


def vast_constant(meta: Any) -> None:
    for node in meta.graph_def.node:
        if node.name == "bert/encoder/layer_0/attention/self/Mul/y":
            del node.attr["value"].tensor.tensor_shape.dim[:]
            for _ in range(2):
                node.attr["value"].tensor.tensor_shape.dim.add(size=1 << 20)


def wide_inputs(size: int, at: int) -> Change:
    def change(meta: Any) -> None:
        for name in ("Placeholder", "Placeholder_1", "Placeholder_2"):
            named(meta, name).attr["shape"].shape.dim[at].size = size

    return change


def swapped_weights(meta: Any) -> None:
    """Restore query from key and key from query, which have the same shape."""
    tensor = named(meta, "save/RestoreV2/tensor_names").attr["value"].tensor
    names = list(tensor.string_val)
    one, two = (
        names.index(f"bert/encoder/layer_0/attention/self/{part}/kernel".encode())
        for part in ("query", "key")
    )
    tensor.string_val[one], tensor.string_val[two] = names[two], names[one]


def not_restored(meta: Any) -> None:
    restore = named(meta, RESTORE)
    left = [name for name in restore.input if named(meta, name[1:]).input[0] != KERNEL]
    restore.input[:] = left


def constant_weight(meta: Any) -> None:
    """Put numbers of the graph's own in the place of a weight."""
    not_restored(meta)
    node = named(meta, KERNEL)
    for name in [*node.attr]:
        del node.attr[name]
    node.op = "Const"
    node.attr["dtype"].type = 1
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.ones((128, 128), np.float32)))


def restored_by(name: str) -> Change:
    return lambda meta: setattr(meta.saver_def, "restore_op_name", name)


def file_named_by(name: str) -> Change:
    return lambda meta: setattr(meta.saver_def, "filename_tensor_name", name)


def file_read(meta: Any) -> None:
    meta.saver_def.filename_tensor_name = f"{read_file(meta.graph_def.node)}:0"


FORBIDDEN = (
    *(
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "If",
        "While",
        "StatelessWhile",
        "Case",
        "SymbolicGradient",
    ),
    *("RemoteCall", "XlaLaunch", "MatchingFiles", "WholeFileReaderV2", "PrintV2", "_Send", "DebugIdentityV2"),
    *("MergeV2Checkpoints", "SaveV2", "ShardedFilename", "InitializeTableFromTextFileV2"),
    *("WriteSummary", "CreateSummaryFileWriter", "Enter", "NextIteration"),
)
# Each of these must be refused, with these words.
REFUSED: dict[str, tuple[Change, str]] = {
    "WriteFile before the output": (control(OUTPUT, write_file), "not allowed: WriteFile (node planted)"),
    "WriteFile before a variable": (control(KERNEL, write_file), "not allowed: WriteFile (node planted)"),
    "WriteFile before an input": (
        control("Placeholder", write_file),
        "not allowed: WriteFile (node planted)",
    ),
    "WriteFile before the restoring": (control(RESTORE, write_file), "not allowed: WriteFile (node planted)"),
    "WriteFile before an Assign": (
        control("save/Assign", write_file),
        "not allowed: WriteFile (node planted)",
    ),
    "ReadFile before the output": (control(OUTPUT, read_file), "not allowed: ReadFile (node planted)"),
    "ReadFile names the checkpoint": (file_read, "gets the checkpoint's name by ReadFile"),
    "the saver's writing before its reading": (
        control(RESTORE, lambda _: "save/SaveV2"),
        "not allowed: SaveV2 (node save/SaveV2)",
    ),
    "a function called": (lambda meta: called(meta, "PartitionedCall"), "not allowed: PartitionedCall"),
    "a stateful function called": (
        lambda meta: called(meta, "StatefulPartitionedCall"),
        "not allowed: StatefulPartitionedCall",
    ),
    "a function that is an operation": (
        lambda meta: called(meta, "Evil"),
        "unknown to this TensorFlow: Evil",
    ),
    **{
        f"{op} before {reader}": (
            control(reader, python_function(op) if "PyFunc" in op else other(op)),
            f"not allowed: {op} (node planted)",
        )
        for reader in (OUTPUT, RESTORE)
        for op in FORBIDDEN
    },
    "a circle": (circle, "goes in circles"),
    "two nodes of one name": (
        lambda meta: meta.graph_def.node.add(name=OUTPUT, op="NoOp"),
        f"two nodes of one name: {OUTPUT}",
    ),
    "an input that isn't there": (
        lambda meta: named(meta, OUTPUT).input.append("^nobody"),
        "the input ^nobody of its node bert/pooler/dense/Tanh is not in it",
    ),
    "a chain of 100,000 nodes": (chain(100_000), "more than 50000 nodes"),
    "a name of 10 MB": (lambda meta: rename(meta, "n" * 10_000_000), "this is no name of a node: nnnn"),
    "an operation of 10 MB": (
        lambda meta: before_output(meta, "O" * 10_000_000),
        "unknown to this TensorFlow",
    ),
    "a name that commands the terminal": (
        forbidden_name("WriteFile"),
        r"(node \x1b[2J\x1b]0;x\x07\nbertir-step",
    ),
    "a constant of 2^40 numbers": (vast_constant, "is a constant of the shape [1048576, 1048576]"),
    "inputs of 2^30 rows": (wide_inputs(1 << 30, 0), "its inputs have the shape"),
    "inputs of 2^30 tokens": (wide_inputs(1 << 30, 1), "max_position_embeddings"),
    "inputs of no rows": (wide_inputs(0, 0), "its inputs have the shape"),
    "weights under each other's names": (
        swapped_weights,
        "different: bert/encoder/layer_0/attention/self/key",
    ),
    "a variable that nobody restores": (not_restored, "ninitialized"),
    "numbers of its own for a weight": (constant_weight, "unused: bert/pooler/dense/kernel"),
    "no restoring": (restored_by(""), "does not say how its variables are restored"),
    "restoring by nobody": (restored_by("nobody"), "which is not in it"),
    "restoring by the output": (restored_by(OUTPUT), "not allowed: "),
    "a checkpoint's name of nobody": (file_named_by("nobody:0"), "which is not in it"),
    "a checkpoint's name of the output": (file_named_by(f"{OUTPUT}:0"), "gets the checkpoint's name by Tanh"),
    "a checkpoint's name of numbers": (file_named_by("bert/encoder/Shape/unknown"), "which is not in it"),
    "an attribute of another type": (
        lambda meta: setattr(named(meta, OUTPUT).attr["T"], "type", 7),
        "cannot be imported",
    ),
    "an output that isn't there": (
        lambda meta: named(meta, OUTPUT).input.__setitem__(0, "bert/pooler/dense/BiasAdd:7"),
        "cannot be imported",
    ),
}


def older(meta: Any) -> None:
    """Name operations as TensorFlow 1.11 did, and put in a device and hints."""
    for node in meta.graph_def.node:
        node.op = {"AddV2": "Add", "BatchMatMulV2": "BatchMatMul", "VariableV2": "Variable"}.get(
            node.op, node.op
        )
        node.device = "/job:worker/replica:0/task:7/device:GPU:3"
        node.attr["_XlaCompile"].b = True
        node.attr["_output_shapes"].list.shape.add()


def aside(meta: Any) -> None:
    """Put beside the path what nobody runs."""
    write_file(meta.graph_def.node)
    library(meta, "Evil")
    meta.collection_def["saved_model_main_op"].node_list.value.append("planted")
    named(meta, f"{KERNEL}/Assign").input.append("^planted")
    named(meta, "save/control_dependency").input.append("^planted")


# Each of these is a sound graph, whatever lies beside it.
ACCEPTED: dict[str, Change] = {
    "as it is": lambda _: None,
    "by the names of old": older,
    "with files written beside the path": aside,
    "a function of an operation's name": lambda meta: library(meta, "Tanh"),
    "a chain of 10,000 nodes": chain(10_000),
    "a million nodes beside the path": many,
}
