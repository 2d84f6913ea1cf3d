from __future__ import annotations

import json
from typing import Any

import pytest

from bertir.errors import StepError
from bertir.graph import FROZEN_OUTPUTS, HEADS, Graph, frozen_graph, read_graph

GOOD: dict[str, Any] = {
    "inputs": ["Placeholder:0", "Placeholder_1:0", "Placeholder_2:0"],
    "output": "bert/pooler/dense/Tanh",
    "batch": None,
    "sequence": 128,
}


def text(**change: Any) -> bytes:
    return json.dumps(GOOD | change).encode()


def test_every_head_has_a_node_that_the_frozen_graph_ends_at() -> None:
    assert set(FROZEN_OUTPUTS) == set(HEADS)
    assert len({frozen_graph(head, 128).output for head in HEADS}) == len(HEADS)
    assert frozen_graph("pooled", 64).sequence == 64


def test_what_was_found_in_a_published_graph_is_read() -> None:
    assert read_graph(text()) == Graph(
        inputs=("Placeholder:0", "Placeholder_1:0", "Placeholder_2:0"),
        output="bert/pooler/dense/Tanh",
        batch=None,
        sequence=128,
    )


@pytest.mark.parametrize("name", ["a,b", "a{i32}", "a[1 2]", "a b", "a:1", "--option", "", "a\nb", "a->b"])
def test_a_name_that_would_mean_something_to_mo_is_refused(name: str) -> None:
    with pytest.raises(StepError, match="no names of three inputs and an output"):
        read_graph(text(output=name))
    with pytest.raises(StepError, match="no names of three inputs and an output"):
        read_graph(text(inputs=["Placeholder:0", "Placeholder_1:0", name]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        text(inputs="Placeholder"),
        text(inputs=[1, 2, 3]),
        text(inputs=["Placeholder:0"]),
        text(output=None),
        text(batch="1"),
        text(batch=0),
        text(sequence=True),
        text(sequence=1.5),
    ],
    ids=str,
)
def test_what_is_no_description_of_a_graph_is_one_step_error(data: bytes) -> None:
    with pytest.raises(StepError, match="examine: "):
        read_graph(data)
