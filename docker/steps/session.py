"""TensorFlow as the programs beside it use it: as google-research/bert knew it, and on as many threads everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from said import fail, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine


def as_in_tensorflow_1(function: Callable[..., Result]) -> Callable[..., Result]:
    """Give a function of google-research/bert's that runs as in TensorFlow 1, for which it is written; the graph is the same.

    Since TensorFlow 2

    - `==` of two tensors compares their values, and each look into a table of tensors has to find out first whether they or the
      objects are meant: a sixth of the time that it takes to build a BERT's graph;
    - AutoGraph rewrites the source of what a data set's map calls, for a Python `if` or `while` on a tensor in it. There is
      none.
    """
    import tensorflow.compat.v1 as tf

    tf.disable_tensor_equality()
    unchanged: Callable[..., Result] = tf.autograph.experimental.do_not_convert(function)
    return unchanged


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
