"""Convert graphs, of which some have what frozen_graph.py doesn't answer for, by `mo` and by convert.py; tell what each gave.

Runs in the container: `strange_graphs.py`, with convert.py and what it imports beside it. Writes /out/told.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow.compat.v1 as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

WORK = Path("/tmp")
CONVERT = ("python3", "/step/convert.py")
SIZE_THAT_IS_LARGE = 1 << 16  # frozen_graph.py's, in bytes
SUBNORMAL = np.float32(1e-40)
LARGE = np.arange(3 * 9000, dtype=np.float32).reshape(3, 9000)


# Each makes a graph whose output is `y`.


def answered() -> None:
    x = tf.placeholder(tf.float32, [2, None, 3], name="x")
    with tf.control_dependencies([tf.assert_less_equal(tf.shape(x)[1], 9)]):
        y = tf.identity(x)
    y = tf.einsum("abc,cd->abd", y, tf.constant(LARGE))
    first, second = tf.split(y, 2, axis=2)
    mask = tf.cast(tf.constant(np.arange(4500) % 3 == 0), tf.float32)
    y = first * tf.fill([4500], 2.5) + second * mask + tf.constant(3.0, shape=[4500])
    y = tf.gather(y, tf.constant([2, 0], tf.int64), axis=2)
    shape = tf.concat([tf.shape(y), tf.constant([], tf.int32)], 0)
    y = tf.reshape(tf.squeeze(tf.expand_dims(y, 1), [1]), shape)
    tf.multiply(y, tf.constant(2.0), name="y")


def with_large_tensors() -> None:
    x = tf.placeholder(tf.float32, [2, 130], name="x")
    index = tf.placeholder(tf.int32, [2], name="index")
    square = np.linspace(-1, 1, 130 * 130, dtype=np.float32).reshape(130, 130)

    def numbers(values: npt.NDArray[np.float32]) -> Any:  # a Tensor
        values[5, 7] = SUBNORMAL  # OpenVINO has 0 in its place, which it can't write into the file
        return tf.constant(values)

    y = x
    for number in range(4):
        y = tf.matmul(y, numbers(square + number))
        y += tf.gather(numbers(square - number), index)
        y = tf.reduce_mean(tf.expand_dims(y, 1) * numbers(square * (number + 2)), 1)
        y += tf.expand_dims(tf.cast(tf.gather(tf.constant(np.arange(9000) + number), index), tf.float32), 1)
    tf.identity(y, name="y")


def with_a_shape_of_unknown_rank() -> None:
    tf.identity(tf.placeholder(tf.float32, None, name="x"), name="y")


def with_numbers_of_half_length() -> None:
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    tf.add(x, tf.cast(tf.constant([1, 2, 3], tf.float16), tf.float32), name="y")


def with_a_fraction() -> None:
    tf.nn.leaky_relu(tf.placeholder(tf.float32, [2, 3], name="x"), alpha=0.25, name="y")


def with_an_empty_list() -> None:
    x = tf.placeholder(tf.float32, [1, 8, 8, 2], name="x")
    y = tf.nn.conv2d(x, tf.constant(np.ones([3, 3, 2, 4], np.float32)), strides=[1, 1, 1, 1], padding="SAME")
    tf.identity(y, name="y")


def with_a_function() -> None:
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    tf.identity(tf.function(lambda value: value * 2.0 + 1.0)(x), name="y")


def with_another_row_of_the_iterator() -> None:
    rows = tf.data.Dataset.from_tensors((np.ones([2, 3], np.float32), np.ones([2, 3], np.float32)))
    one, other = tf.data.make_initializable_iterator(rows).get_next()
    tf.add(one, other, name="y")


def with_an_unknown_operation() -> None:
    tf.strings.to_hash_bucket_fast(tf.constant(["a", "b"]), 7, name="y")


def plain() -> None:
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    tf.add(x, tf.constant([1.0, 2.0, 3.0], name="c"), name="y")


def large() -> None:
    x = tf.placeholder(tf.float32, [2, 300], name="x")
    tf.matmul(x, tf.constant(np.ones([300, 300], np.float32), name="c"), name="y")


# What no program of TensorFlow's writes. Each does it to the tensor `c` of a graph.


def shorter_values(tensor: Any) -> None:
    tensor.tensor_content = b""
    tensor.float_val[:] = [1.0, 2.0]


def no_values(tensor: Any) -> None:
    tensor.tensor_content = b""


def a_value_that_is_none(tensor: Any) -> None:
    tensor.tensor_content = b""
    tensor.float_val[:] = [1.0, float("nan"), 3.0]


def unknown_rank(tensor: Any) -> None:
    tensor.tensor_shape.unknown_rank = True


def less_content(tensor: Any) -> None:
    tensor.tensor_content = tensor.tensor_content[:8]


def no_shape(tensor: Any) -> None:
    tensor.tensor_content = tensor.tensor_content[:4]
    tensor.ClearField("tensor_shape")


def negative_shape(tensor: Any) -> None:
    tensor.tensor_shape.dim[0].size = -1


SPOILS = (
    shorter_values,
    no_values,
    a_value_that_is_none,
    unknown_rank,
    less_content,
    no_shape,
    negative_shape,
)


# And to the whole of it. Each gives the file's bytes.


def with_a_named_output(graph: Any) -> bytes:
    [y] = [node for node in graph.node if node.name == "y"]
    y.input[1] += ":output:0"
    return written(graph)


def with_a_function_that_nobody_calls(graph: Any) -> bytes:
    graph.library.function.add().signature.name = "nobody"
    return written(graph)


def with_versions_that_are_none(graph: Any) -> bytes:
    graph.ClearField("versions")
    return written(graph) + b"\x22\x01\x08"  # field 4 of one byte, in which a number begins


def with_a_large_tensor_twice(graph: Any) -> bytes:
    more = tf.NodeDef()
    more.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.zeros([300, 300], np.float32)))
    nodes = [written(node) + (written(more) if node.name == "c" else b"") for node in graph.node]
    graph.ClearField("node")
    return b"".join(map(as_field, nodes)) + written(graph)


def with_numbers_that_begin_at_any_byte(graph: Any) -> bytes:
    """Those of each of `with_large_tensors`' four kinds lie at places of each remainder by four."""
    data, tensors = b"", 0
    for node in graph.node:
        content = node.attr["value"].tensor.tensor_content if node.op == "Const" else b""
        one = as_field(written(node))
        if len(content) >= SIZE_THAT_IS_LARGE:
            remainder, tensors = tensors // 4, tensors + 1
            signs = next(
                signs
                for signs in range(1, 5)
                if (len(data) + len(before(tensors, signs)) + one.index(content)) % 4 == remainder
            )
            data += before(tensors, signs)
        data += one
    assert tensors == 16
    assert data.count(SUBNORMAL.tobytes()) == 12
    graph.ClearField("node")
    return data + written(graph)


def before(number: int, signs: int) -> bytes:
    """Give a node that does nothing, of so many bytes that what follows lies elsewhere."""
    return as_field(written(tf.NodeDef(name=f"{number:02}{'n' * signs}", op="NoOp")))


def as_field(node: bytes) -> bytes:
    return b"\x0a" + varint(len(node)) + node


def cut_short(graph: Any) -> bytes:
    data = written(graph)
    return data[: len(data) // 2]


def written(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + varint(number // 128)


def graph_of(make: Callable[[], None]) -> Any:
    with tf.Graph().as_default() as graph:
        make()
    return graph.as_graph_def(add_shapes=False)


def graphs() -> dict[str, bytes]:
    """The graphs' bytes, by what they are."""
    made = (
        *(answered, with_a_shape_of_unknown_rank, with_numbers_of_half_length, with_a_fraction),
        *(with_an_empty_list, with_a_function, with_another_row_of_the_iterator, with_an_unknown_operation),
    )
    found = {make.__name__: written(graph_of(make)) for make in made}
    for spoil in SPOILS:
        graph = graph_of(plain)
        [tensor] = [node.attr["value"].tensor for node in graph.node if node.name == "c"]
        spoil(tensor)
        found[f"with_{spoil.__name__}"] = written(graph)
    wholes: tuple[Callable[[Any], bytes], ...] = (
        *(with_a_named_output, with_a_function_that_nobody_calls, with_versions_that_are_none),
        *(with_a_large_tensor_twice, cut_short),
    )
    found |= {whole.__name__: whole(graph_of(large)) for whole in wholes}
    anywhere = with_numbers_that_begin_at_any_byte(graph_of(with_large_tensors))
    return found | dict.fromkeys(ANYWHERE, anywhere)


# By the same graph, the options that it is converted with.
ANYWHERE = {
    "with_numbers_that_begin_at_any_byte": (),
    "with_numbers_that_begin_at_any_byte_in_fp32": ("--compress_to_fp16=False",),
}


def convert(name: str, *command: str, **variables: str) -> tuple[int, dict[str, bytes], list[str], str]:
    """Status, files, objections, and why `mo` was left to read the file: the text's first words, if it was."""
    out = WORK / name
    out.mkdir(exist_ok=True)  # of a folder that isn't there yet mo writes the name into the IR
    done = subprocess.run(
        [
            *command,
            f"--input_model={WORK / name}.pb",
            "--output=y",
            f"--output_dir={out}",
            "--model_name=model",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | variables,
    )
    given = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    for path in out.iterdir():
        path.unlink()
    objections = [line for line in done.stderr.splitlines() if "ERROR" in line]
    why = re.search("mo reads the graph itself, as (.*?):", done.stdout)
    return done.returncode, given, objections, why[1] if why else ""


def both_ways(name: str) -> dict[str, Any]:
    options = ANYWHERE.get(name, ())
    if name in ("answered", "with_a_function"):
        status, expected, objections, _ = convert(name, "mo")
    else:  # without the second process, which imports TensorFlow: the frontend reads the file as well
        status, expected, objections, _ = convert(name, *CONVERT, *options, BERTIR_BY_THE_FILE="1")
    again, given, said, why = convert(name, *CONVERT, *options)
    return {
        "status": [status, again],
        "same": given == expected,
        "objections": [objections, said],
        "files": sorted(given),
        "by the file, as": why,
    }


def of_large_tensor(path: Path) -> dict[str, Any]:
    """What a node has of its large tensor, where that lies, what is read of it, also once the memory was given back, and what is
    said of it once the file ends within it.
    """
    sys.path.insert(0, "/step")
    import frozen_graph

    graph = frozen_graph.graph_of(path)
    assert graph is not None
    [(node, content)] = [(node, node._content) for node in graph._nodes if node._content]
    numbers = content.mapped().view(np.float32).reshape(LARGE.shape)
    read = [bool((numbers == LARGE).all())]
    graph.give_back()
    read.append(bool((numbers == LARGE).all()))
    os.truncate(path, content.field.end - 1)
    objection = ""
    try:
        node.get_attribute("value")
    except ValueError as error:
        objection = str(error)
    return {
        "held": len(node._node.attr["value"].tensor.tensor_content),
        "of the file": not (numbers.flags.owndata or numbers.flags.writeable),
        "read": read,
        "objection": objection,
    }


def main() -> None:
    told = {}
    for name, data in graphs().items():
        (WORK / f"{name}.pb").write_bytes(data)
        told[name] = both_ways(name)
    large_tensor = of_large_tensor(WORK / "answered.pb")
    Path("/out/told.json").write_text(json.dumps({"graphs": told, "large": large_tensor}), encoding="utf-8")


if __name__ == "__main__":
    main()
