"""BERT as google-research/bert's source builds it, fed with a checkpoint's tensors.

Nothing of it was frozen and nothing converted: what an IR is held against by it has the freeze's faults as well as the
converter's. Imported by the programs beside it, in the container.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rounding import round_arrays, round_constants
from said import fail, one_line
from session import as_in_tensorflow_1, imported, session_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

INPUTS = ("input_ids", "input_mask", "segment_ids")
UNREADABLE = "--checkpoint takes the prefix of a whole TensorFlow checkpoint: PREFIX.index and PREFIX.data-00000-of-00001."


class Model:
    """The graph of a head, in which the checkpoint's tensors are fed in the place of its variables.

    It takes any number of rows, of any length. Of a constant or a variable TensorFlow would hold copies, of which a BERT-Large has 1.3 GB each.
    """

    def __init__(self, *, source: Path, config: Path, checkpoint: Path, head: str) -> None:
        import tensorflow.compat.v1 as tf

        self._reader = _opened(checkpoint)
        self._checkpoint = checkpoint
        sys.path.insert(0, str(source))
        import modeling
        import run_classifier

        wanted: dict[str, list[int]] = {}

        def placeholder(name: str, shape: Any, **_: object) -> Any:  # noqa: ANN401 - a Tensor
            wanted[name] = tf.TensorShape(shape).as_list()
            with tf.name_scope(None):  # a variable's name has no other before it
                return tf.placeholder(tf.float32, shape, name)

        self._graph = tf.Graph()
        # A variable would come with operations that nobody runs, which fill it: a third of the time that the graph takes.
        with self._graph.as_default(), tf.variable_scope("", custom_getter=placeholder):
            columns = [tf.placeholder(tf.int32, [None, None], name) for name in INPUTS]
            as_in_tensorflow_1(run_classifier.create_model)(
                modeling.BertConfig.from_json_file(str(config)),
                False,  # is_training
                *columns,
                labels=tf.zeros([1], tf.int32),
                num_labels=self._labels() if head == "classifier" else 2,
                use_one_hot_embeddings=False,
            )
            self.output: str = run_classifier.output_node_of(head)
        self._definition = tf.graph_util.extract_sub_graph(self._graph.as_graph_def(), [self.output])
        used = {node.name for node in self._definition.node}
        self.weights = self._read({name: shape for name, shape in wanted.items() if name in used})

    def session(self) -> Any:  # noqa: ANN401 - a Session
        """Give what runs it; `weights` are to be fed beside the rows."""
        return session_of(self._graph)

    def round(self) -> bool:
        """Make it what it is with weights that fp16 holds; say whether the graph, too, is another, and wants another session."""
        round_arrays(self.weights)
        if not round_constants(self._definition):
            return False
        self._graph = imported(self._definition)
        return True

    def _labels(self) -> int:
        shape = self._reader.get_variable_to_shape_map().get("output_weights", ())
        if len(shape) != 2:  # noqa: PLR2004 - [labels, hidden size]
            fail(f"the checkpoint {self._checkpoint.name} has no classifier.")
        return int(shape[0])

    def _read(self, wanted: dict[str, list[int]]) -> dict[str, Vectors]:
        """What the placeholders of these names and shapes are fed with."""
        shapes = self._reader.get_variable_to_shape_map()
        dtypes = self._reader.get_variable_to_dtype_map()
        problems = []
        for name, shape in wanted.items():
            if name not in shapes:
                problems.append(f"missing: {name}")
            elif (found := (dtypes[name].name, shapes[name])) != ("float32", shape):
                problems.append(f"misshapen: {name} is {found}, the graph takes float32 {shape}")
        if problems:
            fail(f"graph and checkpoint {self._checkpoint.name} do not hold the same variables.", *problems)
        return {f"{name}:0": value for name, value in zip(wanted, self._restored(list(wanted)), strict=True)}

    def _restored(self, names: list[str]) -> list[Vectors]:
        """Read tensors by one operation: what a session gives is its own memory, and it is fed with that without a copy."""
        import tensorflow.compat.v1 as tf

        with tf.Graph().as_default() as graph:
            tensors = tf.raw_ops.RestoreV2(
                prefix=str(self._checkpoint),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                dtypes=[tf.float32] * len(names),
            )
        with tf.Session(graph=graph) as session:
            try:
                values: list[Vectors] = session.run(tensors)
            except tf.errors.OpError as error:
                fail(f"the checkpoint {self._checkpoint.name} cannot be read: {one_line(error)}", UNREADABLE)
        return values


def _opened(checkpoint: Path) -> Any:  # noqa: ANN401 - a CheckpointReader
    import tensorflow.compat.v1 as tf

    try:
        return tf.train.load_checkpoint(str(checkpoint))
    except (tf.errors.OpError, IndexError, ValueError) as error:
        fail(f"the checkpoint {checkpoint.name} cannot be read: {one_line(error)}", UNREADABLE)
