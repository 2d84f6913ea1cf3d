"""What `convert` gives is what `mo` gives, typed as its users type it, bit by bit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from builds import given, read_bytes
from checkout import ROOT
from tiny_bert import classifier, weights

from bertir.report import Request
from bertir.steps import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from builds import TinyBuild

    from bertir.builder import Builder
    from bertir.container_step import ContainerStep

pytestmark = pytest.mark.engine

GRAPHS = ROOT / "tests/support/steps/strange_graphs.py"
STEPS = ("convert.py", "frozen_graph.py", "said.py", "wire.py")
GIVES_UP = {"/step/frozen_graph.py": "return None", "/step/convert.py": "again_by_the_file()"}


def by_mo(step: ContainerStep) -> ContainerStep:
    """The step as a command line of `mo`, without a program of bertir's."""
    inputs = {path: blob for path, blob in step.inputs.items() if not path.startswith("/step/")}
    return replace(step, arguments=("mo", *step.arguments[2:]), inputs=inputs)


def never_by_the_file(builder: Builder, step: ContainerStep) -> ContainerStep:
    """The step, but it fails where `mo` is left to read the graph itself."""
    inputs = dict(step.inputs)
    for path, line in GIVES_UP.items():
        program = read_bytes(builder, inputs[path]).decode()
        assert program.count(f"    {line}\n") == 1
        inputs[path] = builder.store.add_bytes(program.replace(f"    {line}\n", "    raise\n").encode())
    return replace(step, inputs=inputs)


@pytest.mark.parametrize(
    ("head", "precision"),
    [("pooled", "fp16"), ("pooled", "fp32"), ("sequence", "fp16"), ("classifier", "fp16")],
)
def test_a_frozen_bert_is_read_node_by_node_and_gives_what_mo_gives_of_its_file(
    builder: Builder, tiny_build: TinyBuild, head: str, precision: str
) -> None:
    request = Request(model="tiny-bert", head=head, precision=precision)
    chain = tiny_build.chain(builder, request)
    tensors = {f"bert.{name}": tensor for name, tensor in weights().items()} | classifier(3)
    files = given(builder, tensors, architectures=["BertForSequenceClassification"])
    checkpoint = builder.run(chain.importing(files)).artifact
    step = chain.converting(builder.run(chain.freezing(checkpoint)).artifact)
    expected = builder.run(by_mo(step)).artifact
    assert builder.run(step).artifact == expected
    assert builder.run(never_by_the_file(builder, step)).artifact == expected


@pytest.fixture(scope="module")
def told(run_program: Callable[..., Any], builder: Builder) -> dict[str, Any]:
    programs = {f"/step/{name}": (ROOT / "docker/steps" / name).read_bytes() for name in STEPS}
    made: dict[str, Any] = json.loads(
        read(
            builder,
            run_program(GRAPHS.read_text(encoding="utf-8"), outputs=["told.json"], inputs=programs),
            "told.json",
        )
    )
    return made


READ_BY_NODES = {
    *("answered", "with_a_shape_of_unknown_rank"),
    *("with_numbers_that_begin_at_any_byte", "with_numbers_that_begin_at_any_byte_in_fp32"),
}
ASKED_IN_VAIN = {"with_an_unknown_operation"}
REFUSED = {
    *("with_an_unknown_operation", "with_less_content", "with_negative_shape"),
    *("with_versions_that_are_none", "cut_short"),
}


def test_a_graph_of_known_attributes_is_read_node_by_node_and_anything_else_is_left_to_mo(
    told: dict[str, Any],
) -> None:
    reasons: dict[str, set[str]] = {}
    for name, found in told["graphs"].items():
        reasons.setdefault(found["by the file, as"], set()).add(name)
    assert reasons[""] == READ_BY_NODES
    assert reasons["this came of its nodes"] == ASKED_IN_VAIN
    assert reasons["this isn't known here"] == {*told["graphs"]} - READ_BY_NODES - ASKED_IN_VAIN


def test_whatever_the_graph_mo_gives_the_same_or_refuses_it_in_the_same_words(told: dict[str, Any]) -> None:
    graphs = told["graphs"]
    assert {name for name, found in graphs.items() if found["status"][0] != 0} == REFUSED
    for name, found in graphs.items():
        status, again = found["status"]
        objections, said = found["objections"]
        assert found["same"], name
        assert status == again, name
        assert objections == said, name
        assert (objections != []) == (name in REFUSED), name
        assert found["files"] == ([] if name in REFUSED else ["model.bin", "model.xml"]), name


def test_a_large_tensor_lies_in_the_file_and_one_that_ends_early_is_refused(
    told: dict[str, Any],
) -> None:
    assert told["large"] == {
        "held": 0,
        "of the file": True,
        "read": [True, True],
        "objection": "the frozen graph ends within a tensor",
    }
