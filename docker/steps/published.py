"""The graph that was published with a checkpoint, and its weights restored by the graph's own saver.

Imported by the programs beside it, in the container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations import ADVICE, VARIABLES, read_meta, runnable
from rounding import round_assigned, round_constants
from said import fail, one_line
from session import imported, session_of

if TYPE_CHECKING:
    from pathlib import Path


def require_nodes(definition: Any, names: list[str], file: str) -> None:  # noqa: ANN401 - a GraphDef
    known = {node.name for node in definition.node}
    missing = [name for name in names if name.partition(":")[0] not in known]
    if missing:
        fail(f"{file} has no {', '.join(missing)}.", "Make it by the step before this one.")


def restored_session(meta: Path, checkpoint: Path, names: list[str], output: str, *, rounded: bool) -> Any:  # noqa: ANN401
    """The published graph as it is, with its own saver's operations run: nothing of the conversion has a part.

    Only what the output and the restoring need is imported, as the rest may hold operations of a TensorFlow
    that is gone. `examine.py` has seen that no operation of these does anything else. To be rounded, the weights are on
    their way from the checkpoint to the variables.
    """
    import tensorflow.compat.v1 as tf

    published = read_meta(meta)
    saver = published.saver_def
    require_nodes(published.graph_def, [*names, saver.restore_op_name], meta.name)
    definition = runnable(published, [output, saver.restore_op_name], meta.name)
    if rounded:
        round_constants(definition)
        round_assigned(definition)
    session = session_of(imported(definition))
    try:
        session.run(saver.restore_op_name, {saver.filename_tensor_name: str(checkpoint)})
        if not rounded:
            require_weights(session, definition, checkpoint)
    except (tf.errors.OpError, ValueError) as error:
        fail(f"{checkpoint.name} cannot be restored: {one_line(error)}")
    return session


def require_weights(session: Any, definition: Any, checkpoint: Path) -> None:  # noqa: ANN401 - a Session, a GraphDef
    """Refuse a graph whose saver restores a variable from anything but what the checkpoint has under its name.

    The converter goes by the graph as well, so that the comparison alone would agree on weights of another name.
    """
    import tensorflow.compat.v1 as tf

    reader = tf.train.load_checkpoint(str(checkpoint))
    reads = {node.input[0]: node.name for node in definition.node if node.op == "ReadVariableOp"}
    different = []
    for node in definition.node:
        if node.op in VARIABLES:
            value = session.run(f"{reads.get(node.name, node.name)}:0")
            if value.tobytes() != reader.get_tensor(node.name).tobytes():
                different.append(f"different: {node.name}")
    if different:
        fail(
            "the graph's own saver restores other weights than the checkpoint has under these names.",
            *different,
            ADVICE,
        )
