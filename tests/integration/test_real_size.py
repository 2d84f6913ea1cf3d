"""One of Google's zips in its real size, from a server that breaks off, to verified IR."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkout import copy_checkout
from file_server import Fault, serve_files
from google_zip import google_models, models_toml, write_zip
from safetensors.numpy import save
from tiny_bert import BASE, config, vocabulary, weights

from bertir.steps import import_checkpoint
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builds import TinyBuild

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

MODEL = "bert-base-uncased"
BROKEN_OFF = 150_000_000


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Of its own, and removed at once: pytest keeps the folders of three runs, and this one takes 2 GB.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def published_files(builder: Builder, tiny: TinyBuild) -> dict[str, bytes]:
    """Five files of BERT-Base's shape with random weights, written by TensorFlow."""
    words = vocabulary()
    words += [f"[unused{number}]" for number in range(BASE.words - len(words))]
    configuration = config(
        hidden_size=BASE.hidden,
        num_hidden_layers=BASE.layers,
        intermediate_size=BASE.intermediate,
        max_position_embeddings=BASE.positions,
        num_attention_heads=12,
        vocab_size=BASE.words,
    )
    given = {
        "model.safetensors": save(weights(3, BASE)),
        "config.json": json.dumps(configuration, sort_keys=True).encode(),
        "vocab.txt": "".join(f"{word}\n" for word in words).encode(),
    }
    stored = Artifact(files={name: builder.store.add_bytes(data) for name, data in given.items()})
    imported = builder.run(import_checkpoint(builder, stored, tiny.source.artifact)).artifact
    return {name: builder.store.path(blob.digest).read_bytes() for name, blob in imported.files.items()}


def test_a_zip_of_bert_bases_size_becomes_verified_ir_across_a_broken_download(
    builder: Builder, tiny_build: TinyBuild, folder: Path
) -> None:
    contents = published_files(builder, tiny_build)
    assert len(contents["bert_model.ckpt.data-00000-of-00001"]) > 400_000_000
    archive = write_zip(folder / "base.zip", contents, "uncased_L-12_H-768_A-12")
    size = archive.stat().st_size
    with serve_files() as server:
        (folder / "models.toml").write_text(models_toml(server.url, {MODEL: contents}))
        address = google_models()[MODEL]["zip"]["url"].partition("//")[2].partition("/")[2]
        server.files[f"/{address}"] = archive
        server.faults.append(Fault(after=BROKEN_OFF))
        checkout = copy_checkout(
            folder / "clone",
            BERTIR_MODELS=str(folder / "models.toml"),
            BERTIR_STORE=str(folder / "store"),
            NO_PROXY="127.0.0.1",
        )
        done = checkout.invoke("build-ir", "--model", MODEL, "--format", "json")
        assert done.status == 0, done.stderr
        again = checkout.invoke("models", "--format", "json")
    first, second = server.ranges
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= BROKEN_OFF < size
    facts = json.loads(done.stdout)
    assert [step["cached"] for step in facts["steps"]] == [False] * 5
    published = checkout.root / facts["folder"]
    assert (published / "vocab.txt").read_bytes() == contents["vocab.txt"]
    assert (published / "bert_config.json").read_bytes() == contents["bert_config.json"]
    # Two bytes a weight of the encoder and the embeddings; the positions that 128 tokens don't have are cut off.
    assert 210_000_000 < (published / "model.bin").stat().st_size < 225_000_000
    assert (
        facts["files"]["model.bin"]
        == f"sha256:{hashlib.sha256((published / 'model.bin').read_bytes()).hexdigest()}"
    )
    parity = facts["parity"]
    assert parity["max_abs_difference_rounded"] <= parity["threshold_rounded"] < parity["max_abs_difference"]
    assert {model["name"]: model["fetched"] for model in json.loads(again.stdout)} == {MODEL: True}
