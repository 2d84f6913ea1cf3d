"""The graph that is converted: which heads there are, and the names of its inputs and its output."""

from __future__ import annotations

import json
import re

from bertir.errors import StepError
from bertir.frozen import dataclass

HEADS = ("pooled", "sequence", "classifier")
# Where the patched run_classifier.py ends the frozen graph (patches/0011).
FROZEN_OUTPUTS = {
    "pooled": "bert/pooler/dense/Tanh",
    "sequence": "bert/sequence_output",
    "classifier": "loss/Softmax",
}
# The outputs of run_classifier's iterator are its feature names, sorted: 0 input_ids, 1 input_mask,
# 2 is_real_example, 3 label_ids, 4 segment_ids.
FROZEN_INPUTS = ("IteratorGetNext:0", "IteratorGetNext:1", "IteratorGetNext:4")
# A name goes into arguments of `mo`, where commas, braces, brackets and blanks mean something.
_NODE = r"[A-Za-z0-9.][A-Za-z0-9_./-]*"
_INPUT_COUNT = 3


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a conversion and a comparison must know of a graph.

    Args:
        inputs: input ids, input mask, segment ids; `node:port`.
        output: the node of the head.
        batch: what the inputs fix the rows to, or None.
        sequence: what they fix the tokens to, or None.
    """

    inputs: tuple[str, ...]
    output: str
    batch: int | None = None
    sequence: int | None = None


def frozen_graph(head: str, tokens: int) -> Graph:
    """Describe what the patched run_classifier.py freezes."""
    return Graph(inputs=FROZEN_INPUTS, output=FROZEN_OUTPUTS[head], sequence=tokens)


def read_graph(data: bytes) -> Graph:
    """Read what `docker/steps/examine.py` found in a published graph.

    Raises:
        StepError: it isn't that, or a name has characters that mean something to `mo`.
    """
    try:
        raw = json.loads(data)
        inputs = tuple(raw["inputs"])
        graph = Graph(
            inputs=inputs, output=raw["output"], batch=_size(raw["batch"]), sequence=_size(raw["sequence"])
        )
        names = [name.removesuffix(":0") for name in inputs] + [graph.output]
        odd = [name for name in names if not re.fullmatch(_NODE, name)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StepError(f"examine: its output can't be read: {error!r}") from error
    if odd or len(inputs) != _INPUT_COUNT:
        raise StepError(f"examine: these are no names of three inputs and an output: {', '.join(names)!r}")
    return graph


def _size(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    message = f"not a size: {value!r}"
    raise ValueError(message)
