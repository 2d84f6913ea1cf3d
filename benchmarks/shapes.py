"""The two shapes of BERT that are measured: random weights under Hugging Face's names, the same ones each time."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors.numpy import save
from tiny_bert import BASE, TINY, config, vocabulary, weights

from bertir.errors import BertirError
from bertir.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from tiny_bert import Shape

SEED = 3
VERSION = 2  # raised whenever other files are made
SEQ_LEN = 128


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is converted.

    Args:
        name: of folders, and of the checkpoint.
        heads: of attention.
    """

    name: str
    title: str
    shape: Shape
    heads: int


BERT_BASE = Subject(name="base", title="BERT-Base", shape=BASE, heads=12)
BERT_TINY = Subject(name="tiny", title="tiny", shape=TINY, heads=2)


def describe(subject: Subject) -> str:
    shape = subject.shape
    words = shape.words or len(vocabulary())
    return (
        f"{subject.title}: {shape.layers} layers, hidden size {shape.hidden}, {subject.heads} heads,"
        f" a vocabulary of {words}, {shape.positions} positions"
    )


def hugging_face_folder(subject: Subject, cache: Path) -> Path:
    """Give a Hugging Face directory of that shape, made unless it is in the cache."""
    folder = cache / f"{subject.name}-{VERSION}"
    if folder.is_dir():
        return folder
    made = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for name, data in _files(subject).items():
        with whole_file(made / name, BertirError, size=len(data)) as file:
            file.write(data)
    made.rename(folder)
    return folder


def _files(subject: Subject) -> dict[str, bytes]:
    shape, words = subject.shape, vocabulary()
    words += [f"[unused{number}]" for number in range(shape.words - len(words))]
    configuration = config(
        # The published BERTs' own, which the documented source has: its `gelu`.
        hidden_act="gelu_pytorch_tanh",
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        num_attention_heads=subject.heads,
        vocab_size=len(words),
    )
    return {
        # transformers asks for the format.
        "model.safetensors": save(weights(SEED, shape), metadata={"format": "pt"}),
        "config.json": json.dumps(configuration, sort_keys=True).encode(),
        "vocab.txt": "".join(f"{word}\n" for word in words).encode(),
    }
