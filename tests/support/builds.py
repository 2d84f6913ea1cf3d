"""What the fixtures that build give to the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiny_bert import config, files

from bertir.chain import Chain
from bertir.store import Artifact

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from checkout import Checkout, Result

    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.report import Request
    from bertir.store import Blob
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


def given(builder: Builder, tensors: dict[str, np.ndarray], **changes: object) -> Artifact:
    """A Hugging Face directory's files, in the store."""
    contents = files(tensors, config(**changes))
    return Artifact(files={name: builder.store.add_bytes(data) for name, data in contents.items()})


def read_bytes(builder: Builder, blob: Blob) -> bytes:
    return builder.store.checked(blob, what="a test's file").read_bytes()
