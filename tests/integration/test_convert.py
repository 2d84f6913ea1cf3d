"""What `convert` gives is what `mo` gives, typed as its users type it, bit by bit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from builds import given
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

STEPS = ("convert.py", "frozen_graph.py", "said.py", "wire.py")
GIVES_UP = "        return None\n"


def by_mo(step: ContainerStep) -> ContainerStep:
    """The step as a command line of `mo`, without a program of bertir's."""
    inputs = {path: blob for path, blob in step.inputs.items() if not path.startswith("/step/")}
    return replace(step, arguments=("mo", *step.arguments[2:]), inputs=inputs)


def never_by_the_file(builder: Builder, step: ContainerStep) -> ContainerStep:
    """The step, but it fails where `mo` is left to read the graph itself."""
    path = "/step/frozen_graph.py"
    program = builder.store.path(step.inputs[path].digest).read_text(encoding="utf-8")
    assert program.count(GIVES_UP) == 1
    other = builder.store.add_bytes(program.replace(GIVES_UP, "        raise\n").encode())
    return replace(step, inputs=dict(step.inputs) | {path: other})


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


# Graphs of which some have what frozen_graph.py has no answer for, and what is expected of it.
GRAPHS = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
import tensorflow.compat.v1 as tf

def answered():
    x = tf.placeholder(tf.float32, [2, None, 3], name="x")
    with tf.control_dependencies([tf.assert_less_equal(tf.shape(x)[1], 9)]):
        y = tf.identity(x)
    large = tf.constant(np.arange(3 * 9000, dtype=np.float32).reshape(3, 9000))
    y = tf.einsum("abc,cd->abd", y, large)
    first, second = tf.split(y, 2, axis=2)
    mask = tf.cast(tf.constant(np.arange(4500) % 3 == 0), tf.float32)
    y = first * tf.fill([4500], 2.5) + second * mask + tf.constant(3.0, shape=[4500])
    y = tf.gather(y, tf.constant([2, 0], tf.int64), axis=2)
    y = tf.reshape(tf.squeeze(tf.expand_dims(y, 1), [1]), tf.concat([tf.shape(y), tf.constant([], tf.int32)], 0))
    return tf.multiply(y, tf.constant(2.0), name="y")

def with_numbers_of_half_length():
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    return tf.add(x, tf.cast(tf.constant([1, 2, 3], tf.float16), tf.float32), name="y")

def with_a_fraction():
    return tf.nn.leaky_relu(tf.placeholder(tf.float32, [2, 3], name="x"), alpha=0.25, name="y")

def with_an_empty_list():
    x = tf.placeholder(tf.float32, [1, 8, 8, 2], name="x")
    y = tf.nn.conv2d(x, tf.constant(np.ones([3, 3, 2, 4], np.float32)), strides=[1, 1, 1, 1], padding="SAME")
    return tf.identity(y, name="y")

def with_a_function():
    x = tf.placeholder(tf.float32, [2, 3], name="x")
    twice = tf.function(lambda value: value * 2.0 + 1.0)
    return tf.identity(twice(x), name="y")

def cut_short():
    x = tf.placeholder(tf.float32, [2, 300], name="x")
    return tf.matmul(x, tf.constant(np.ones([300, 300], np.float32)), name="y")

def run(name, *command):
    out = Path("/tmp") / name
    out.mkdir(exist_ok=True)  # of a folder that isn't there yet mo writes the name into the IR
    done = subprocess.run(
        [*command, f"--input_model=/tmp/{name}.pb", "--output=y", f"--output_dir={out}", "--model_name=model"],
        capture_output=True, text=True, check=False,
    )
    given = {path.name: path.read_bytes() for path in sorted(out.glob("*"))}
    for path in out.glob("*"):
        path.unlink()
    said = [line for line in done.stderr.splitlines() if "ERROR" in line]
    return done.returncode, given, said, "mo reads the graph itself" in done.stdout

told = {}
for make in (answered, with_numbers_of_half_length, with_a_fraction, with_an_empty_list, with_a_function, cut_short):
    name = make.__name__
    with tf.Graph().as_default() as graph:
        make()
    data = graph.as_graph_def(add_shapes=False).SerializeToString(deterministic=True)
    Path(f"/tmp/{name}.pb").write_bytes(data[: len(data) // 2] if make is cut_short else data)
    status, expected, objections, _ = run(name, "mo")
    again, given, said, itself = run(name, "python3", "/step/convert.py")
    told[name] = {
        "status": [status, again], "same": given == expected, "objections": [objections, said], "files": sorted(given),
        "itself": itself,
    }
json.dump(told, open("/out/told.json", "w"))
"""


@pytest.fixture(scope="module")
def told(run_program: Callable[..., Any], builder: Builder) -> dict[str, Any]:
    programs = {f"/step/{name}": (ROOT / "docker/steps" / name).read_bytes() for name in STEPS}
    made: dict[str, Any] = json.loads(
        read(builder, run_program(GRAPHS, outputs=["told.json"], inputs=programs), "told.json")
    )
    return made


def test_a_graph_of_known_attributes_is_read_node_by_node_and_gives_what_mo_gives(
    told: dict[str, Any],
) -> None:
    assert told["answered"] == {
        "status": [0, 0],
        "same": True,
        "objections": [[], []],
        "files": ["model.bin", "model.xml"],
        "itself": False,
    }


@pytest.mark.parametrize(
    "name", ["with_numbers_of_half_length", "with_a_fraction", "with_an_empty_list", "with_a_function"]
)
def test_a_graph_with_anything_else_is_left_to_mo(told: dict[str, Any], name: str) -> None:
    assert told[name] == {
        "status": [0, 0],
        "same": True,
        "objections": [[], []],
        "files": ["model.bin", "model.xml"],
        "itself": True,
    }


def test_a_graph_that_was_cut_short_is_refused_as_mo_refuses_it(told: dict[str, Any]) -> None:
    found = told["cut_short"]
    assert found["itself"]
    assert found["files"] == []
    status, again = found["status"]
    assert status == again != 0
    objections, said = found["objections"]
    assert objections == said != []
