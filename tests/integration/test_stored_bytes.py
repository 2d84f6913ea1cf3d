"""One byte flipped in each kind of object that a build has stored: found on use, named, made anew, and the same again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from damage import flip
from ground import VARIANT

from bertir.digest import Digest
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from ground import Ground

pytestmark = pytest.mark.engine

# Of each step that has a record: what of its outputs is damaged, and how a message calls it.
OUTPUTS = {
    "source": {"run_classifier.py": "/in/source/run_classifier.py"},
    "import": {"bert_model.ckpt.index": "/in/checkpoint/bert_model.ckpt.index"},
    "freeze": {"inference_graph.pb": "/in/inference_graph.pb"},
    "convert": {"model.bin": "/in/model.bin"},  # the .xml comes anew with it
    "reference": {"reference.npz": "/in/reference.npz"},
    "verify": {"parity.json": "parity.json"},
}
PROGRAMS = {
    "import_checkpoint.py": "/step/import_checkpoint.py",
    "reference.py": "/step/reference.py",
    "verify.py": "/step/verify.py",
}


def test_one_flipped_byte_in_each_kind_of_object_is_named_and_healed_in_the_same_run(
    ground: Ground, figure: Callable[[str], None]
) -> None:
    built = ground.checkout.invoke("build-ir", "--format", "json")
    assert built.status == 0, built.stderr
    before = json.loads(built.stdout)
    store = Store(ground.store)
    damaged: dict[str, Digest] = {}
    for step, names in OUTPUTS.items():
        [record] = (ground.store / "records" / step).iterdir()
        outputs = json.loads(record.read_bytes())["files"]
        damaged |= {said: Digest.from_str(outputs[name]["digest"]) for name, said in names.items()}
    for name, said in PROGRAMS.items():
        damaged[said] = Digest.of_file(ground.checkout.root / "docker" / "steps" / name)
    [model] = json.loads(ground.checkout.invoke("models", "--format", "json").stdout)
    damaged["/in/model.safetensors"] = Digest.from_str(model["files"]["model.safetensors"])
    damaged["bertir-test-tiny-bert"] = Digest.from_str(model["archive"]["digest"])
    lock = json.loads((ground.checkout.root / "patches" / "source.lock").read_text(encoding="utf-8"))
    damaged["modeling.py"] = Digest.from_str(lock["pristine"]["modeling.py"])
    for digest in damaged.values():
        flip(store.path(digest))

    # Each step's record is believed, and its outputs by their size, until they are read: the last step's first.
    again = ground.checkout.invoke("build-ir", "--output", "elsewhere", "--format", "json")
    assert again.status == 0, again.stderr
    for said in damaged:
        line = f"the store held other bytes for {said} than it should, "
        assert again.stderr.count(line) == 1, f"{said}\n{again.stderr}"
    after = json.loads(again.stdout)
    for fact in ("files", "frozen_graph", "image"):
        assert after.get(fact) == before.get(fact)
    published = ground.checkout.root / "elsewhere" / VARIANT
    for name in ("model.xml", "model.bin", "vocab.txt", "bert_config.json", "SHA256SUMS"):
        assert (published / name).read_bytes() == (ground.dist / VARIANT / name).read_bytes()
    sound = ground.checkout.invoke("doctor", "--store")
    assert sound.status == 0, sound.stdout + sound.stderr
    figure(f"objects damaged and healed in one build: {len(damaged)}")


def test_one_flipped_byte_in_a_record_or_a_log_is_found(ground: Ground) -> None:
    """A record is as good as none, so its step runs again; a log is in no build's way, and doctor names it."""
    built = ground.checkout.invoke("build-ir")
    assert built.status == 0, built.stderr
    [record] = (ground.store / "records" / "source").iterdir()
    [freeze] = (ground.store / "records" / "freeze").iterdir()
    log = Digest.from_str(json.loads(freeze.read_bytes())["facts"]["log"])
    flip(record)
    flip(Store(ground.store).path(log))
    again = ground.checkout.invoke("build-ir")
    assert again.status == 0, again.stderr
    assert re.findall(r"(\w+) +done in", again.stderr) == ["source"]
    looked = ground.checkout.invoke("doctor", "--store")
    assert looked.status != 0
    assert f"{log.hex[:2]}/{log.hex[2:]}" in looked.stderr
    assert ground.checkout.invoke("doctor", "--store").status == 0
