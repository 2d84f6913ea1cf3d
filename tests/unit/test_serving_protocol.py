"""What the example's service takes for a request, and what it answers."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import MOST_CHARACTERS, MOST_SENTENCES, RefusedError, Request, answer, parse

INPUT = {"name": "sentences", "datatype": "BYTES", "shape": [1], "data": ["hello"]}
VALID: dict[str, Any] = {"inputs": [INPUT]}


def body(**changes: object) -> bytes:
    return json.dumps(VALID | changes).encode()


def of_input(**changes: object) -> bytes:
    return body(inputs=[INPUT | changes])


def test_a_request_of_the_protocol_is_read_with_what_counts_for_nothing_here() -> None:
    request = parse(
        body(id="7", parameters={"priority": 1}, outputs=[{"name": "probabilities", "parameters": {}}])
    )
    assert request.inputs[0].data == ["hello"]
    assert answer("m", request, [[0.25, 0.75]]) == {
        "model_name": "m",
        "id": "7",
        "outputs": [
            {"name": "probabilities", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]},
        ],
    }


def test_rows_are_answered_one_after_the_other_and_without_an_id_none_is_told() -> None:
    told = answer("m", parse(body()), [[0.1, 0.9], [0.6, 0.4], [0.5, 0.5]])
    assert "id" not in told
    assert told["outputs"][0]["shape"] == [3, 2]
    assert told["outputs"][0]["data"] == [0.1, 0.9, 0.6, 0.4, 0.5, 0.5]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b"{}", "inputs: Field required"),
        (b'{"inputs": [], "inputs": 1}', "inputs: Input should be a valid array"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"inputs": [{"data": ["\xff"]}]}', "Invalid JSON"),
        (body(inputs=[]), "inputs: List should have at least 1 item"),
        (body(inputs=[INPUT, INPUT]), "inputs: List should have at most 1 item"),
        (body(outputs=[{"name": "logits"}]), "outputs.0.name: Input should be 'probabilities'"),
        (body(id=7), "id: Input should be a valid string"),
        (of_input(name="input_ids"), "inputs.0.name: Input should be 'sentences'"),
        (of_input(datatype="INT32"), "inputs.0.datatype: Input should be 'BYTES'"),
        (of_input(shape=[2]), "inputs.0.shape: is [2], and there are 1 data"),
        (of_input(shape=["1"]), "inputs.0.shape.0: Input should be a valid integer"),
        (of_input(shape=[1, 1]), "inputs.0.shape: Tuple should have at most 1 item"),
        (of_input(data=[1]), "inputs.0.data.0: Input should be a valid string"),
        (of_input(data=["\t\n"]), "inputs.0.data.0: String should match pattern"),
        (of_input(data=["a" * (MOST_CHARACTERS + 1)]), "inputs.0.data.0: String should have at most 10000"),
        (of_input(data=["a"] * (MOST_SENTENCES + 1)), "inputs.0.data: List should have at most 64 items"),
    ],
)
def test_anything_else_is_refused_and_the_place_is_named(asked: bytes, told: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(asked)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: body(inputs=v))
)
def test_whatever_comes_is_a_request_or_is_refused(asked: bytes) -> None:
    with contextlib.suppress(RefusedError):
        assert isinstance(parse(asked), Request)
