"""What the fixtures that build give to the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.chain import Chain

if TYPE_CHECKING:
    from pathlib import Path

    from checkout import Checkout, Result

    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.report import Request
    from bertir.store import Artifact
    from bertir.weights import Weights


@dataclass(frozen=True, kw_only=True)
class MainJob:
    """What `make all` gave in a clone."""

    checkout: Checkout
    result: Result

    @property
    def published(self) -> Path:
        return self.checkout.root / "dist" / "all-minilm-l6-v2" / "reshapable-fp16"


@dataclass(frozen=True, kw_only=True)
class TinyBuild:
    """Each step's result for the tiny model, in fp32."""

    weights: Weights
    request: Request
    source: Realised
    checkpoint: Artifact
    frozen: Realised
    ir: Realised

    def chain(self, builder: Builder, request: Request | None = None) -> Chain:
        """The steps of a build of this model, as it is or as another request has it."""
        return Chain(
            builder=builder,
            request=request or self.request,
            weights=self.weights,
            source=self.source.artifact,
        )
