"""BERT as google-research/bert's source builds it, fed with a checkpoint's tensors.

Nothing of it was frozen and nothing converted: what an IR is held against by it has the freeze's faults as well as the
converter's. Imported by the programs beside it, in the container.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rounding import round_arrays, round_constants
from said import fail, one_line

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

INPUTS = ("input_ids", "input_mask", "segment_ids")
ALIGNMENT = 64  # bytes; what Eigen asks for at most
UNREADABLE = "--checkpoint takes the prefix of a whole TensorFlow checkpoint: PREFIX.index and PREFIX.data-00000-of-00001."


class Model:
    """The graph of a head, whose variables are placeholders, and the checkpoint's tensors that they are fed with.

    Of a constant or a variable TensorFlow would hold copies, of which a BERT-Large has 1.3 GB each.
    """

    def __init__(self, *, source: Path, config: Path, checkpoint: Path, head: str, tokens: int) -> None:
        import tensorflow.compat.v1 as tf

        self._reader = _opened(checkpoint)
        self._file = checkpoint.name
        sys.path.insert(0, str(source))
        import modeling
        import run_classifier

        # The older variables are read by one operation, whoever reads them.
        tf.disable_resource_variables()
        with tf.Graph().as_default() as graph:
            columns = [tf.placeholder(tf.int32, [None, tokens], name) for name in INPUTS]
            run_classifier.create_model(
                modeling.BertConfig.from_json_file(str(config)),
                False,  # is_training
                *columns,
                labels=tf.zeros([1], tf.int32),
                num_labels=self._labels() if head == "classifier" else 2,
                use_one_hot_embeddings=False,
            )
            self.output: str = run_classifier.output_node_of(head)
            self.definition: Any = tf.graph_util.extract_sub_graph(graph.as_graph_def(), [self.output])
        self.weights = self._read()

    def _labels(self) -> int:
        shape = self._reader.get_variable_to_shape_map().get("output_weights", ())
        if len(shape) != 2:  # noqa: PLR2004 - [labels, hidden size]
            fail(f"the checkpoint {self._file} has no classifier.")
        return int(shape[0])

    def _read(self) -> dict[str, Vectors]:
        """Put a placeholder in each variable's place; give what it is fed with."""
        import tensorflow.compat.v1 as tf

        shapes = self._reader.get_variable_to_shape_map()
        dtypes = self._reader.get_variable_to_dtype_map()
        variables = {}
        problems = []
        for node in self.definition.node:
            node.attr.pop("_class", None)  # ties what reads a variable to it, and may name what isn't there
            if node.op != "VariableV2":
                continue
            variables[node.name] = node
            wanted = [dimension.size for dimension in node.attr["shape"].shape.dim]
            if node.name not in shapes:
                problems.append(f"missing: {node.name}")
            elif (found := (dtypes[node.name].name, shapes[node.name])) != ("float32", wanted):
                problems.append(f"misshapen: {node.name} is {found}, the graph takes float32 {wanted}")
        if problems:
            fail(f"graph and checkpoint {self._file} do not hold the same variables.", *problems)
        fed = {}
        for name, node in variables.items():
            node.op = "Placeholder"
            for attribute in set(node.attr) - {"dtype", "shape"}:
                del node.attr[attribute]
            try:
                fed[f"{name}:0"] = aligned(self._reader.get_tensor(name))
            # TensorFlow's reader of a file that ends too early raises IndexError.
            except (tf.errors.OpError, IndexError, ValueError) as error:
                fail(f"the checkpoint {self._file} cannot be read: {one_line(error)}", UNREADABLE)
        return fed

    def round(self) -> None:
        """Make it what it is with weights that fp16 holds."""
        round_constants(self.definition)
        round_arrays(self.weights.values())


def _opened(checkpoint: Path) -> Any:  # noqa: ANN401 - a CheckpointReader
    import tensorflow.compat.v1 as tf

    try:
        return tf.train.load_checkpoint(str(checkpoint))
    except (tf.errors.OpError, IndexError, ValueError) as error:
        fail(f"the checkpoint {checkpoint.name} cannot be read: {one_line(error)}", UNREADABLE)


def aligned(values: Vectors) -> Vectors:
    """A copy at an address that TensorFlow takes it from; of one at any other it makes a copy itself, at each run."""
    import numpy as np

    space = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    copy: Vectors = space[start : start + values.nbytes].view(np.float32).reshape(values.shape)
    copy[...] = values
    return copy
