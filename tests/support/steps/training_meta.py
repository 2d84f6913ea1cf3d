"""Runs in the container: makes of an inference graph what another TensorFlow may have written in training.

training_meta.py META OUTPUT [aside]: Adam's slots, a TPU's metadata and an operation that this TensorFlow doesn't
know are added; unless `aside`, the unknown operation gives the input ids in place of the placeholder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow.compat.v1 as tf


def main(source: str, target: str, where: str = "") -> None:
    meta = tf.MetaGraphDef.FromString(Path(source).read_bytes())
    nodes = meta.graph_def.node
    variables = [node for node in nodes if node.op == "VariableV2"]
    for variable in variables:
        slot = nodes.add()
        slot.CopyFrom(variable)
        slot.name = f"{variable.name}/adam_m"
    nodes.add(name="TPUReplicateMetadata", op="TPUReplicateMetadata")
    [placeholder] = [node for node in nodes if node.name == "Placeholder"]
    if where == "aside":
        nodes.add(name="old", op="OldOperation", input=["Placeholder"])
    else:
        placeholder.name, placeholder.op = "old", "OldOperation"
        for node in nodes:
            node.input[:] = ["old" if name == "Placeholder" else name for name in node.input]
    Path(target).write_bytes(meta.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
