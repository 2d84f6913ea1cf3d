"""Make a TensorFlow graph compute with what fp16 can hold of its weights: what `mo --compress_to_fp16` does to them.

What the IR then differs by isn't rounding, and must be as little as with fp32. Imported by the programs beside it, in the
container.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# Scalars that the converter takes into one operation with what is around them, where they are exact: those of both forms
# of gelu, which google-research/bert writes out, and the epsilon of its layer norm.
FUSED = (2**0.5, (2 / pi) ** 0.5, 0.044715, 1e-12)


def round_constants(definition: Any) -> None:  # noqa: ANN401 - a GraphDef
    """Round every constant of a graph, in place."""
    import numpy as np
    import tensorflow.compat.v1 as tf

    for node in definition.node:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            values = tf.make_ndarray(node.attr["value"].tensor)
            if values.size == 1 and np.isclose(values.item(), FUSED, rtol=1e-6, atol=0).any():
                continue
            with np.errstate(over="ignore"):  # then the comparison isn't finite, and is refused
                rounded = values.astype(np.float16).astype(np.float32)
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(rounded))


def round_inputs(definition: Any, of: Iterable[tuple[Any, int]]) -> None:  # noqa: ANN401 - a GraphDef, of NodeDefs
    """Round what nodes get as one of their inputs, in place: weights that come from outside of the graph.

    Args:
        definition: the graph.
        of: nodes of it, and which of their inputs.
    """
    import tensorflow.compat.v1 as tf

    for node, place in list(of):
        source = node.input[place]
        for name, before, after in (("half", tf.float32, tf.float16), ("float", tf.float16, tf.float32)):
            cast = definition.node.add(name=f"{node.name}/{name}", op="Cast", input=[source])
            cast.attr["SrcT"].type, cast.attr["DstT"].type = before.as_datatype_enum, after.as_datatype_enum
            source = cast.name
        node.input[place] = source
