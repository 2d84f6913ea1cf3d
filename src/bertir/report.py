"""`report.json`: what was built, from what, how well it agrees, and how long each step took."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bertir import __version__

if TYPE_CHECKING:
    from bertir.derivation import Realised
    from bertir.lock import ImageLock
    from bertir.model import Model
    from bertir.store import Artifact, Blob
    from bertir.upstream import SourceLock
    from bertir.verify import Parity

FORMAT = 1
DEFAULT_BATCH = 1
DEFAULT_SEQ_LEN = 128


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for.

    Args:
        batch: rows of the IR's inputs as converted (the IR can be reshaped).
        seq_len: tokens of each row; fixed in the frozen graph.
        task_data: what run_classifier.py reads before it freezes: nothing is bertir's own, or `mrpc`, or a folder.
    """

    model: str
    recipe: str = "reshapable"
    precision: str = "fp16"
    batch: int = DEFAULT_BATCH
    seq_len: int = DEFAULT_SEQ_LEN
    task_data: str = ""

    @property
    def variant(self) -> str:
        """The published folder's name: recipe and precision, and the shape where it isn't the default."""
        shape = (
            ""
            if (self.batch, self.seq_len) == (DEFAULT_BATCH, DEFAULT_SEQ_LEN)
            else f"-{self.batch}x{self.seq_len}"
        )
        return f"{self.recipe}-{self.precision}{shape}"


@dataclass(frozen=True, kw_only=True)
class Build:
    """Everything that a report tells."""

    request: Request
    model: Model
    source: SourceLock
    image: ImageLock
    steps: tuple[Realised, ...]
    ir: Artifact
    checkpoint: Artifact
    frozen_graph: Blob
    parity: Parity


def report(build: Build) -> bytes:
    """Give the report. It is the same for the same records: a build with nothing to do changes nothing in it."""
    signature = build.parity.report["signature"]
    value = {
        "format": FORMAT,
        "bertir": __version__,
        "request": asdict(build.request),
        "inputs": signature["inputs"],
        "outputs": signature["outputs"],
        "parity": {
            "max_abs_difference": build.parity.max_abs_difference,
            "threshold": build.parity.threshold,
            "batches": build.parity.report["batches"],
            "discrimination": build.parity.report["discrimination"],
            "sentences": build.parity.report["sentences"],
        },
        "ir": _digests(build.ir),
        "frozen_graph": str(build.frozen_graph.digest),
        "checkpoint": _digests(build.checkpoint),
        "from": {
            "model": {
                "name": build.model.name,
                "title": build.model.title,
                "licence": build.model.licence,
                "archive": build.model.archive.to_json(),
                "files": {name: str(digest) for name, digest in build.model.files.items()},
            },
            "source": {
                "commit": build.source.commit,
                "patched_tree": build.source.tree,
                "pristine": {name: str(digest) for name, digest in build.source.pristine.items()},
                "patches": [{"name": name, "digest": str(digest)} for name, digest in build.source.patches],
            },
            "image": {
                "id": str(build.image.image_id),
                "manifest": str(build.image.manifest),
                "platform": build.image.platform,
                "layers": {layer.name: str(layer.digest) for layer in build.image.layers},
                "debian_packages": {
                    package.name: f"{package.version} {package.digest}" for package in build.image.debian
                },
                "wheels": {pin.name: f"{pin.version} {pin.digest}" for pin in build.image.wheels},
            },
        },
        "steps": [_step(step) for step in build.steps],
    }
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


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
