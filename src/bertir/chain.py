"""The steps of one build, before they are run: what follows what, and what can be started before its inputs are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.container_step import PENDING
from bertir.frozen import dataclass
from bertir.graph import frozen_graph
from bertir.model import CHECKPOINT_FILES, HUGGING_FACE
from bertir.report import META_GRAPH
from bertir.steps import (
    FROZEN,
    GRAPH,
    IR,
    META,
    REFERENCE,
    compare,
    convert,
    examine,
    freeze,
    import_checkpoint,
    reference,
)
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bertir.builder import Builder
    from bertir.container_step import ContainerStep
    from bertir.graph import Graph
    from bertir.report import Request
    from bertir.weights import Weights


def later(*names: str) -> Artifact:
    """Files of these names that aren't there yet."""
    return Artifact(files=dict.fromkeys(names, PENDING))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The steps of the recipe that freezes, and those that both recipes have.

    Args:
        weights: of a user's checkpoint that isn't in the store yet, what its files say without its digests.
    """

    builder: Builder
    request: Request
    weights: Weights
    source: Artifact

    @property
    def graph(self) -> Graph:
        """What the frozen graph will be."""
        return frozen_graph(self.request.head, self.request.tokens(self.weights.max_positions))

    def importing(self, given: Artifact) -> ContainerStep:
        return import_checkpoint(self.builder, given, self.source)

    def freezing(self, checkpoint: Artifact) -> ContainerStep:
        return freeze(self.builder, self.request, self.weights, self.source, checkpoint)

    def converting(self, frozen: Artifact) -> ContainerStep:
        return convert(self.builder, self.request, frozen, self.graph)

    def examining(self, checkpoint: Artifact) -> ContainerStep:
        return examine(self.builder, self.request, checkpoint)

    def expecting(self, checkpoint: Artifact, examined: Artifact | None = None) -> ContainerStep:
        """What TensorFlow says of the checkpoint, or of the published graph that was examined."""
        return reference(
            self.builder,
            self.request,
            self.weights,
            source=self.source,
            checkpoint=checkpoint,
            examined=examined,
        )

    def comparing(self, graph: Graph, ir: Artifact, expected: Artifact) -> ContainerStep:
        return compare(self.builder, self.request, self.weights, graph=graph, ir=ir, expected=expected)

    # beside and ahead; described only when they are asked for: a build with nothing to do asks for none, and one that hasn't the memory gets none

    def _overlaps(self) -> bool:
        return self.builder.overlaps(self.weights.size)

    def beside(self, step: ContainerStep) -> Iterator[ContainerStep]:
        """A step that is wanted later, while another runs."""
        if self._overlaps():
            yield step

    def first(self, kind: str, names: Iterable[str]) -> Iterator[ContainerStep]:
        """The first steps, while the checkpoint's files, of these names, are being stored."""
        if not self._overlaps():
            return
        if kind == HUGGING_FACE:
            yield self.importing(later(*names))
            names = CHECKPOINT_FILES
        yield from self._of_checkpoint(later(*names))

    def after_import(self) -> Iterator[ContainerStep]:
        """What follows the import, while it runs."""
        if self._overlaps():
            yield from self._of_checkpoint(later(*CHECKPOINT_FILES))
            if self.request.recipe != META_GRAPH:
                yield from self.after_freeze()

    def _of_checkpoint(self, checkpoint: Artifact) -> Iterator[ContainerStep]:
        if self.request.recipe != META_GRAPH:
            yield self.freezing(checkpoint)
            yield self.expecting(checkpoint)
        elif META in checkpoint.files:  # else it is refused, when it is its turn
            yield self.examining(checkpoint)
            yield from self.after_examine(checkpoint)

    def after_examine(self, checkpoint: Artifact) -> Iterator[ContainerStep]:
        """What follows the look at the published graph, while that is looked at."""
        if self._overlaps():
            yield self.expecting(checkpoint, later(GRAPH))

    def after_freeze(self) -> Iterator[ContainerStep]:
        """What follows the freeze, while it runs."""
        if self._overlaps():
            yield self.converting(later(FROZEN))
            yield from self.after_convert(self.graph, later(*IR))

    def after_convert(self, graph: Graph, ir: Artifact) -> Iterator[ContainerStep]:
        """What begins with the IR, while TensorFlow computes still."""
        yield self.comparing(graph, ir, later(REFERENCE))
