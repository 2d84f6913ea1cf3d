"""`report.json`: what was built, from what, how well it agrees, and how long each step took."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bertir import __version__
from bertir.frozen import dataclass
from bertir.task_data import MRPC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.derivation import Realised
    from bertir.lock import ImageLock
    from bertir.parity import Parity
    from bertir.store import Artifact, Blob
    from bertir.upstream import SourceLock
    from bertir.weights import Weights

FORMAT = 4
DEFAULT_BATCH = 1
DEFAULT_SEQ_LEN = 128
RESHAPABLE, META_GRAPH = "reshapable", "meta-graph"
RECIPES = (RESHAPABLE, META_GRAPH)
DEFAULT_HEAD = "pooled"
# The steps whose outputs are measured, not built. The second has the first's among its inputs.
REFERENCE, VERIFY = "reference", "verify"
OWN_TASK_DATA, NO_TASK_DATA = "own", "bertir"  # the third is MRPC


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for.

    Args:
        model: a model's name; empty with a checkpoint of the user's own.
        head: which output: `pooled`, `sequence` or `classifier`.
        batch: rows of the IR's inputs as converted (the IR can be reshaped); None is the default.
        seq_len: tokens of each row; fixed in the frozen graph; None is the default.
        task_data: what run_classifier.py reads before it freezes: nothing is bertir's own, or `mrpc`, or a folder.
    """

    model: str = ""
    recipe: str = RESHAPABLE
    precision: str = "fp16"
    head: str = DEFAULT_HEAD
    batch: int | None = None
    seq_len: int | None = None
    task_data: str = ""

    @property
    def rows(self) -> int:
        return DEFAULT_BATCH if self.batch is None else self.batch

    def tokens(self, max_positions: int) -> int:
        """Give the tokens of a row. Where the graph leaves them free, they are only what is verified first."""
        if self.recipe == META_GRAPH:
            return min(DEFAULT_SEQ_LEN, max_positions)
        return DEFAULT_SEQ_LEN if self.seq_len is None else self.seq_len

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and tokens as converted; None where the recipe takes none."""
        if self.recipe == META_GRAPH:
            return None
        return self.rows, DEFAULT_SEQ_LEN if self.seq_len is None else self.seq_len

    @property
    def variant(self) -> str:
        """The published folder's name: recipe and precision, and what else isn't the default."""
        head = "" if self.head == DEFAULT_HEAD else f"-{self.head}"
        default = self.shape in {None, (DEFAULT_BATCH, DEFAULT_SEQ_LEN)}
        shape = "" if default or self.shape is None else f"-{self.shape[0]}x{self.shape[1]}"
        return f"{self.recipe}-{self.precision}{head}{shape}"

    def facts(self) -> dict[str, Any]:
        """Give what is told of it; null is what the recipe has no use for.

        Of a user's own folder of task data only that it was one: its digest is among the inputs, its path is theirs.
        """
        batch, seq_len = self.shape or (None, None)
        task_data = None if self.recipe == META_GRAPH else self._task_data_kind
        return asdict(self) | {"batch": batch, "seq_len": seq_len, "task_data": task_data}

    @property
    def _task_data_kind(self) -> str:
        return self.task_data if self.task_data == MRPC else OWN_TASK_DATA if self.task_data else NO_TASK_DATA


@dataclass(frozen=True, kw_only=True)
class Build:
    """Everything that a report tells.

    Args:
        source_url: the upstream repository, wherever its commit was cloned from this time.
        checkpoint: in TensorFlow's format, under the names that the steps see.
        frozen_graph: none with the recipe meta-graph, which converts the checkpoint's own.
        virtualenv: what the steps ran in, if not in the image.
    """

    request: Request
    weights: Weights
    source_url: str
    source: SourceLock
    image: ImageLock
    steps: tuple[Realised, ...]
    ir: Artifact
    checkpoint: Artifact
    frozen_graph: Blob | None
    parity: Parity
    virtualenv: Mapping[str, Any] | None = None


def report(build: Build) -> bytes:
    """Give the report. It is the same for the same records: a build with nothing to do changes nothing in it."""
    signature = build.parity.report["signature"]
    value = {
        "format": FORMAT,
        "bertir": __version__,
        "request": build.request.facts() | {"model": build.weights.name},
        "inputs": signature["inputs"],
        "outputs": signature["outputs"],
        "free_dimensions": build.parity.report["free_dimensions"],
        "fixed_dimensions": build.parity.report["fixed_dimensions"],
        "parity": {
            "max_abs_difference": build.parity.max_abs_difference,
            "threshold": build.parity.threshold,
            "max_abs_difference_rounded": build.parity.rounded,
            "threshold_rounded": build.parity.exact_threshold,
            "shapes": build.parity.report["shapes"],
            "inferred": build.parity.report["inferred"],
            "refused": build.parity.report["refused"],
            "discrimination": build.parity.report["discrimination"],
            "sentences": build.parity.report["sentences"],
        },
        "ir": _digests(build.ir),
        "frozen_graph": str(build.frozen_graph.digest) if build.frozen_graph else None,
        "checkpoint": _digests(build.checkpoint),
        "from": {
            "model": dict(build.weights.facts),
            "source": {
                "url": build.source_url,
                "commit": build.source.commit,
                "patched_tree": build.source.tree,
                "pristine": {name: str(digest) for name, digest in build.source.pristine.items()},
                "patches": [{"name": name, "digest": str(digest)} for name, digest in build.source.patches],
            },
            **_ran_in(build),
        },
        "steps": [_step(step) for step in build.steps],
    }
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _ran_in(build: Build) -> dict[str, Any]:
    """Tell of the image, or of what the steps ran in instead."""
    if build.virtualenv is not None:
        return {"virtualenv": dict(build.virtualenv)}
    return {
        "image": {
            "id": str(build.image.image_id),
            "manifest": str(build.image.manifest),
            "platform": build.image.platform,
            "layers": {layer.name: str(layer.digest) for layer in build.image.layers},
            "debian_packages": [
                {
                    "name": package.name,
                    "version": package.version,
                    "architecture": package.architecture,
                    "digest": str(package.digest),
                }
                for package in build.image.debian
            ],
            "wheels": [
                {"name": pin.name, "version": pin.version, "digest": str(pin.digest)}
                for pin in build.image.wheels
            ],
        }
    }


def _digests(artifact: Artifact) -> dict[str, str]:
    return {name: str(blob.digest) for name, blob in artifact.files.items()}


def _step(step: Realised) -> dict[str, Any]:
    return {
        "name": step.derivation.step,
        "key": str(step.derivation.key),
        "derivation": step.derivation.to_json(),
        "outputs": _digests(step.artifact),
        "facts": dict(step.facts),
    }
