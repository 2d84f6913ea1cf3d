"""Whole builds in a store, without an engine: every step is taken for done, and its outputs are written as said here.

What a build reads, looks up, remembers and publishes is real; what a container would have computed isn't.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from some_build import FACTS, SIGNATURE, shape

from bertir.builder import Builder, Layout
from bertir.container_step import ContainerStep
from bertir.derivation import Derivation, Outcome, Realised
from bertir.engines import DOCKER
from bertir.fetch import Fetcher
from bertir.progress import SILENT
from bertir.store import Artifact, Store

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: large enough to be remembered by a hint
PARITY = {
    "all_finite": True,
    "discrimination": 0.5,
    "fixed_dimensions": {"sequence": 128},
    "free_dimensions": ["batch"],
    "inferred": [{"batch": batch, "sequence": 128} for batch in (8, 32)],
    "max_abs_difference": 1e-6,
    "max_abs_difference_rounded": 1e-7,
    "refused": [],
    "rms": 1.0,
    "sentences": 4,
    "shapes": [shape(batch) for batch in (1, 2, 4)],
    "signature": SIGNATURE,
    "rounded_finite": True,
    "tensorflow_finite": True,
}
CONFIG = {
    "hidden_size": 128,
    "max_position_embeddings": 512,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 8,
}


class DoneBuilder(Builder):
    """A builder whose steps give at once what this module says."""

    ran: int = 0

    def realise(self, derivation: Derivation, run: Callable[[], Outcome], **given: Any) -> Realised:
        if derivation.step == "source":
            names = ("modeling.py", "run_classifier.py", "tokenization.py")
            step = ContainerStep(name="source", arguments=(), inputs={}, outputs=names)
            return super().realise(derivation, lambda: self._done(step), **given)
        return super().realise(derivation, run, **given)

    def run(self, step: ContainerStep, **_: object) -> Realised:
        return self.realise(step.derivation(self.runtime.identity), lambda: self._done(step))

    def _done(self, step: ContainerStep) -> Outcome:
        self.ran += 1
        files = {name: self.store.add_bytes(self.content(step.name, name)) for name in step.outputs}
        return Outcome(artifact=Artifact(files=files), facts={**FACTS, "bytes_in": 1})

    def content(self, step: str, name: str) -> bytes:
        """Give what a step leaves under a name."""
        return content(step, name)


def content(step: str, name: str) -> bytes:
    if name == "parity.json":
        return json.dumps(PARITY).encode()
    return LARGE if name == "model.bin" else f"{name} of {step}".encode()


def done_builder(store: Store, models: Path = ROOT / "models.toml", *, chosen: str = DOCKER) -> DoneBuilder:
    return DoneBuilder(
        layout=Layout(root=ROOT, models=models),
        store=store,
        fetcher=Fetcher(store=store, environment=ENVIRONMENT, progress=SILENT, offline=True),
        environment=ENVIRONMENT,
        progress=SILENT,
        chosen=chosen,
    )


@dataclass(frozen=True)
class Tuned:
    """A user's checkpoint, with the file in it that is large."""

    folder: Path
    data: Path


def tuned(folder: Path) -> Tuned:
    folder.mkdir()
    data = folder / "model.ckpt.data-00000-of-00001"
    data.write_bytes(LARGE[::-1])
    (folder / "model.ckpt.index").write_bytes(b"index")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\n", encoding="utf-8")
    (folder / "bert_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return Tuned(folder, data)
