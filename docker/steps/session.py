"""TensorFlow as the programs beside it use it: as google-research/bert knew it, and on as many threads everywhere."""

from __future__ import annotations

from typing import Any

from said import fail, one_line

THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine


def compare_tensors_as_objects() -> None:
    """Let `==` of two tensors say whether they are one object, as in TensorFlow 1, for which google-research/bert is written.

    Since TensorFlow 2 it compares their values, and each look into a table of tensors has to find out first which of the
    two is meant: a sixth of the time that it takes to build a BERT's graph. The graph is the same.
    """
    import tensorflow.compat.v1 as tf

    tf.disable_tensor_equality()


def imported(definition: Any) -> Any:  # noqa: ANN401 - a GraphDef; a Graph
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph:
        try:
            tf.import_graph_def(definition, name="")
        except ValueError as error:  # an operation of another TensorFlow
            fail(f"the graph cannot be imported: {one_line(error)}")
    return graph


def session_of(graph: Any) -> Any:  # noqa: ANN401 - a Graph; a Session
    import tensorflow.compat.v1 as tf

    config = tf.ConfigProto(intra_op_parallelism_threads=THREADS, inter_op_parallelism_threads=1)
    # The graph as it is: no rewriting of TensorFlow's has a part, none of which mo's result has seen.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
    return tf.Session(graph=graph, config=config)
