"""`invoke check`: a sound build passes, and a fault that was planted in a step is caught and named."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from checkout import copy_checkout
from faults import Edit, add_patch, edit_step

from bertir.machine import look_around
from bertir.materials import fetch_source, load_pins
from bertir.steps import read
from bertir.variations import OTHER_ID, variations

if TYPE_CHECKING:
    from pathlib import Path

    from builds import TinyBuild
    from checkout import Checkout
    from tiny_bert import TinyModel

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

# Without the image: assembling it twice takes a minute, and is what test_image.py is for.
CHECK = ("check", "--skip-image", "--precision", "fp32", "--format", "json")
# In one rebuild; of these only root, with disorderfs, can do all.
VARIED = (
    "umask",
    "tz",
    "locale",
    "home",
    "host-name",
    "path",
    "file-order",
    "environment",
    "hash-seed",
    "output",
)
# One of many weights: a model of random weights alone would already be refused, as its outputs are too much alike.
RANDOM = "bert/encoder/layer_1/output/dense/kernel"


@pytest.fixture
def checkout(store_root: Path, builder: Builder, tiny_model: TinyModel, tmp_path: Path) -> Checkout:
    """A copy to plant a fault in, on the session's store, where all materials are."""
    builder.load_image()
    return copy_checkout(
        tmp_path / "clone",
        **tiny_model.environment | {"BERTIR_STORE": str(store_root), "PATH": os.environ["PATH"]},
    )


@pytest.fixture
def pristine(builder: Builder, tiny_build: TinyBuild) -> dict[str, bytes]:
    """The source without any patch; built already, so it is in the store."""
    assert tiny_build.source.artifact.files
    files = fetch_source(builder, load_pins(builder)).files
    return {name: builder.store.checked(blob, what=name).read_bytes() for name, blob in files.items()}


@pytest.fixture
def faulty(checkout: Checkout, builder: Builder, tiny_build: TinyBuild) -> Checkout:
    """A checkout whose parity is not measured but said to be as it was: it comes after the steps that are at fault."""
    chain = tiny_build.chain(builder)
    expected = builder.run(chain.expecting(tiny_build.checkpoint))
    compared = builder.run(chain.comparing(chain.graph, tiny_build.ir.artifact, expected.artifact))
    parity = read(builder, compared, "parity.json").decode()
    program = f"from pathlib import Path\n\nPath('/out/parity.json').write_text({parity!r})\n"
    (checkout.root / "docker" / "steps" / "verify.py").write_text(program, encoding="utf-8")
    return checkout


def difference(facts: dict[str, Any]) -> dict[str, Any]:
    """Give the one difference of the one rebuild."""
    [rebuild] = facts["rebuilds"]
    assert not rebuild["equal"]
    assert facts["error"]["kind"] == "ReproducibilityError"
    found: dict[str, Any] = rebuild["difference"]
    return found


def test_a_sound_build_is_the_same_under_variations_and_every_step_ran(
    checkout: Checkout, tiny_build: TinyBuild, store_root: Path
) -> None:
    before = sorted(os.listdir(store_root / "tmp"))  # noqa: PTH208 - names are compared
    machine = look_around(os.environ, store_root, OTHER_ID)
    names = [one.name for one in variations(machine) if one.name in VARIED and not one.unavailable(machine)]
    assert len(names) == len(VARIED) or os.environ.get("CI") != "true"
    done = checkout.invoke(*CHECK, "--vary", ",".join(reversed(names)))
    assert done.status == 0, done.stderr
    facts = json.loads(done.stdout)
    [rebuild] = facts["rebuilds"]
    assert rebuild["equal"]
    assert rebuild["varied"] == names
    assert rebuild["rebuilt"] == ["source", "import", "freeze", "convert", "reference", "verify"]
    assert rebuild["from_store"] == []
    assert facts["not_done"] == {}
    stages = facts["baseline"]["stages"]
    assert stages["convert"] == {
        name: str(blob.digest) for name, blob in tiny_build.ir.artifact.files.items()
    }
    assert stages["published"].keys() == {
        "SHA256SUMS",
        "bert_config.json",
        "model.bin",
        "model.xml",
        "provenance.json",
        "report.json",
        "vocab.txt",
    }
    assert sorted(os.listdir(store_root / "tmp")) == before  # noqa: PTH208


def test_a_clock_that_leaks_into_a_step_is_caught_and_named(faulty: Checkout) -> None:
    edit_step(
        faulty,
        "import_checkpoint.py",
        Edit(
            old="    config = google_config(given)\n",
            new="    import time\n\n    config = google_config(given) | {'made': time.time()}\n",
        ),
    )
    done = faulty.invoke(*CHECK, "--vary", "umask")
    assert done.status == 104, done.stderr
    found = difference(json.loads(done.stdout))
    assert (found["stage"], found["file"]) == ("import", "bert_config.json")
    assert found["offset"] > 0
    assert found["place"].startswith(".made: ")
    assert "umask: import: bert_config.json differs at byte" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_order_of_hashes_that_leaks_into_a_graph_is_caught_and_named(
    faulty: Checkout, pristine: dict[str, bytes], tmp_path: Path
) -> None:
    leak = Edit(
        old="  for node in frozen.node:\n    part = tf.GraphDef()\n",
        new="  nodes = {node.name: node for node in frozen.node}\n"
        "  for node in [nodes[name] for name in set(nodes)]:\n    part = tf.GraphDef()\n",
    )
    add_patch(faulty, pristine, "run_classifier.py", [leak], tmp_path)
    done = faulty.invoke(*CHECK, "--vary", "hash-seed")
    assert done.status == 104, done.stderr
    found = difference(json.loads(done.stdout))
    assert (found["stage"], found["file"]) == ("freeze", "inference_graph.pb")
    assert "where the other has" in found["place"]


def test_a_weight_that_is_left_random_is_caught_and_named(
    faulty: Checkout, pristine: dict[str, bytes], tmp_path: Path
) -> None:
    swapped = [
        Edit(
            old='      part.node[0].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))\n',
            new='      part.node[0].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))\n'
            f"      if node.name == '{RANDOM}':\n"
            "        random = np.random.normal(0, 0.02, values.shape).astype(np.float32)\n"
            "        part.node[0].attr['value'].tensor.CopyFrom(tf.make_tensor_proto(random))\n",
        )
    ]
    add_patch(faulty, pristine, "run_classifier.py", swapped, tmp_path)
    done = faulty.invoke(*CHECK, "--vary", "umask")
    assert done.status == 104, done.stderr
    found = difference(json.loads(done.stdout))
    assert (found["stage"], found["file"]) == ("freeze", "inference_graph.pb")
    assert found["place"] == f"node {RANDOM}: attribute value"
