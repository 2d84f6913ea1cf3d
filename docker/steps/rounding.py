"""Make a TensorFlow graph compute with what fp16 can hold of its weights: what `mo --compress_to_fp16` does to them.

What the IR then differs by isn't rounding, and must be as little as with fp32. Imported by the programs beside it, in the
container.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

# Scalars that the converter takes into one operation with what is around them, where they are exact: those of both forms
# of gelu, which google-research/bert writes out, and the epsilon of its layer norm.
FUSED = (2**0.5, (2 / pi) ** 0.5, 0.044715, 1e-12)

PIECE = 1 << 20  # numbers that are rounded at once, beside which they lie twice more


def round_constants(definition: Any) -> bool:  # noqa: ANN401 - a GraphDef
    """Round every constant of a graph, in place; say whether one is another number now."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    changed = False
    for node in definition.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            values = tf.make_ndarray(node.attr["value"].tensor)
            if values.size == 1 and np.isclose(values.item(), FUSED, rtol=1e-6, atol=0).any():
                continue
            with np.errstate(over="ignore"):  # then the comparison isn't finite, and is refused
                rounded = values.astype(np.float16).astype(np.float32)
            if not np.array_equal(rounded, values):
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(rounded))
                changed = True
    return changed


def round_assigned(definition: Any) -> None:  # noqa: ANN401 - a GraphDef
    """Round what a graph's variables are assigned, in place: weights on their way from the checkpoint."""
    for node in [node for node in definition.node if node.op in {"Assign", "AssignVariableOp"}]:
        source = node.input[1]
        for name, before, after in (("half", "float32", "float16"), ("float", "float16", "float32")):
            cast = definition.node.add(name=f"{node.name}/{name}", op="Cast", input=[source])
            cast.attr["SrcT"].type, cast.attr["DstT"].type = _type(before), _type(after)
            source = cast.name
        node.input[1] = source


def _type(name: str) -> int:
    import tensorflow.compat.v1 as tf

    number: int = tf.as_dtype(name).as_datatype_enum
    return number


def round_arrays(arrays: dict[str, Vectors]) -> None:
    """Round each array, in its own memory, piece by piece. By TensorFlow, which takes half of NumPy's time, and gives the same."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        given = tf.placeholder(tf.float32)
        rounded = tf.cast(tf.cast(given, tf.float16), tf.float32)
    with tf.Session(graph=graph) as session:
        for values in arrays.values():
            numbers = values.view()
            numbers.shape = (-1,)  # it is the same memory, or this fails
            for first in range(0, len(numbers), PIECE):
                piece = numbers[first : first + PIECE]
                piece[...] = session.run(rounded, {given: piece})
