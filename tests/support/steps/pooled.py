"""Runs in the container: the pooled output of given rows, by TensorFlow and by OpenVINO.

pooled.py GRAPH MODEL_XML INPUTS OUTPUT: INPUTS is a safetensors file of int32 [rows, tokens] arrays input_ids,
input_mask and segment_ids; OUTPUT gets float32 arrays tensorflow and openvino, [rows, hidden], and of the batches of 8 and 32, by
their number, [batch, hidden]: the rows again and again, in one batch.
"""

from __future__ import annotations

import sys

import numpy as np
import openvino as ov
import tensorflow.compat.v1 as tf
from safetensors.numpy import load_file, save_file

OUTPUT_NODE = "bert/pooler/dense/Tanh"
PORTS = {
    "input_ids": "IteratorGetNext:0",
    "input_mask": "IteratorGetNext:1",
    "segment_ids": "IteratorGetNext:4",
}
BATCHES = (8, 32)  # those that a build infers, and doesn't run


def main(graph: str, model: str, inputs: str, output: str) -> None:
    rows = {port: load_file(inputs)[name] for name, port in PORTS.items()}
    definition = tf.GraphDef()
    with open(graph, "rb") as file:  # noqa: PTH123 - as short as it gets
        definition.ParseFromString(file.read())
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(definition, name="")
        expected = session.run(f"{OUTPUT_NODE}:0", rows)

    network = ov.Core().read_model(model)
    shape = list(rows["IteratorGetNext:0"].shape)
    network.reshape({port.any_name: shape for port in network.inputs})
    compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({port: rows[port.any_name] for port in compiled.inputs})[0]
    results = {"tensorflow": expected, "openvino": found}
    for batch in BATCHES:
        network = ov.Core().read_model(model)
        network.reshape({port.any_name: [batch, shape[1]] for port in network.inputs})
        compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        again = np.arange(batch) % shape[0]
        given = {number: rows[port.any_name][again] for number, port in enumerate(compiled.inputs)}
        results[str(batch)] = compiled(given)[0]
    save_file(results, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
