"""Coverage-guided: the step program that reads safetensors, as far as it needs no TensorFlow. See README.md."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atheris
import fuzzing
import numpy as np
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docker" / "steps"))
with atheris.instrument_imports(include=["import_checkpoint"]):
    import_checkpoint: Any = importlib.import_module("import_checkpoint")

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = {"bert/pooler/dense/bias": [4], "bert/pooler/dense/kernel": [4, 4]}
CONFIG: dict[str, Any] = {"architectures": ["BertModel"], "model_type": "bert"}


def seeds(_: Path) -> Iterator[bytes]:
    for kind in (np.float32, np.float16):
        tensors = {"pooler.dense.bias": np.ones(4, kind), "pooler.dense.weight": np.ones((4, 4), kind)}
        yield save(tensors)
        yield save({f"bert.{name}": value for name, value in tensors.items()}, {"format": "pt"})
    yield save({"pooler.dense.bias": np.ones(4, np.int64)})


def target(_: bytes, path: Path) -> None:
    refused = io.StringIO()
    # A refusal is exit status 1, and lines that begin with `bertir-step: `.
    weights, status = None, None
    try:
        with contextlib.redirect_stderr(refused):
            weights = import_checkpoint.read_weights(path, SHAPES, CONFIG)
    except SystemExit as ended:
        status = ended.code
    if weights is None:
        assert status == 1
        assert refused.getvalue().startswith("bertir-step: ")
        return
    assert {name: list(value.shape) for name, value in weights.items()} == SHAPES
    assert all(value.dtype == np.float32 for value in weights.values())


if __name__ == "__main__":
    fuzzing.run(target, seeds)
