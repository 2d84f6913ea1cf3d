"""Whose weights a build is made of: a model of `models.toml`, or a checkpoint of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertir.errors import ConfigurationError
from bertir.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.model import Model
    from bertir.store import Artifact


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the steps and the report have to know of it.

    Args:
        name: of the published folder.
        lower_case: whether its vocabulary is uncased (`--do_lower_case` of google-research/bert).
        layers: encoder layers.
        max_positions: the longest sequence, in tokens.
        size: bytes of the encoder's weights.
        facts: for the report.
    """

    name: str
    lower_case: bool
    layers: int
    max_positions: int
    size: int
    facts: Mapping[str, Any]


def of_model(model: Model) -> Weights:
    return Weights(
        name=model.name,
        lower_case=model.lower_case,
        layers=model.layers,
        max_positions=model.max_positions,
        size=model.weight_bytes,
        facts={
            "name": model.name,
            "title": model.title,
            "licence": model.licence,
            "lower_case": model.lower_case,
            "archive": model.archive.to_json(),
            "files": {name: str(digest) for name, digest in model.files.items()},
        },
    )


def of_checkpoint(local: LocalCheckpoint, stored: Artifact) -> Weights:
    return Weights(
        name=local.name,
        lower_case=local.lower_case,
        layers=local.layers,
        max_positions=local.max_positions,
        size=local.weight_bytes,
        facts={
            "name": local.name,
            "title": "a checkpoint of the user's own",
            "kind": local.kind,
            "prefix": local.prefix or None,
            "lower_case": local.lower_case,
            "lower_case_from": local.lower_case_from,
            # The names as bertir mounts them; what they were called doesn't matter to any step.
            "files": {name: str(blob.digest) for name, blob in stored.files.items()},
        },
    )


def require_length(weights: Weights, tokens: int) -> None:
    """Refuse a sequence length that the model has no position embeddings for.

    Raises:
        ConfigurationError: it is longer than the model's `max_position_embeddings`.
    """
    if tokens > weights.max_positions:
        raise ConfigurationError(
            f"{weights.name} has {weights.max_positions} positions, and --seq-len is {tokens}",
            advice=f"Choose --seq-len {weights.max_positions} or less.",
        )
