"""Requests and responses of the Open Inference Protocol (KServe's v2) over HTTP, as far as this service takes part.

A request has one input, `sentences`, whose data are strings (BYTES); the response has one output, `probabilities`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SENTENCES = 64
MOST_CHARACTERS = 10_000
INPUT, OUTPUT = "sentences", "probabilities"

Sentence = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS, pattern=r"\S")]


class RefusedError(Exception):
    """What the caller sent can't be answered; the message says why."""


class _Part(BaseModel):
    """`parameters`, and what else the protocol may have in it, counts for nothing here."""

    model_config = ConfigDict(strict=True)


class Input(_Part):
    name: Literal["sentences"]
    shape: tuple[int]
    datatype: Literal["BYTES"]
    data: Annotated[list[Sentence], Field(min_length=1, max_length=MOST_SENTENCES)]


class Output(_Part):
    name: Literal["probabilities"]


class Request(_Part):
    id: Annotated[str, Field(max_length=256)] | None = None
    inputs: Annotated[list[Input], Field(min_length=1, max_length=1)]
    outputs: list[Output] | None = None  # none, or an empty list: all that there are


def parse(body: bytes) -> Request:
    """Read a request.

    Raises:
        RefusedError: it is none.
    """
    try:
        request = Request.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    [given] = request.inputs
    if given.shape != (len(given.data),):
        raise RefusedError(f"inputs.0.shape: is {list(given.shape)}, and there are {len(given.data)} data")
    return request


def answer(model: str, request: Request, rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    data = [probability for row in rows for probability in row]
    output = {"name": OUTPUT, "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": data}
    named = {} if request.id is None else {"id": request.id}
    return {"model_name": model, **named, "outputs": [output]}


def metadata(model: str, classes: int) -> dict[str, Any]:
    return {
        "name": model,
        "platform": "openvino",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, classes]}],
    }
