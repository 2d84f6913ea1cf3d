"""A session of TensorFlow on a graph as it is, with the same threads everywhere. Imported by the programs beside it."""

from __future__ import annotations

from typing import Any

from said import fail, one_line

THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine


def tensorflow_session(definition: Any) -> Any:  # noqa: ANN401 - a GraphDef; a Session
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        try:
            tf.import_graph_def(definition, name="")
        except ValueError as error:  # an operation of another TensorFlow
            fail(f"the graph cannot be imported: {one_line(error)}")
    config = tf.ConfigProto(intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=1)
    # The graph as it is: no rewriting of TensorFlow's has a part, none of which mo's result has seen.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
    return tf.Session(graph=graph, config=config)
