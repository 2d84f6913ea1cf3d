"""A step that runs in the container, as data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bertir.derivation import Derivation
from bertir.digest import Digest
from bertir.frozen import dataclass
from bertir.store import Blob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# In the place of an input that an earlier step gives, and hasn't given yet.
PENDING = Blob(digest=Digest("0" * 64), size=0)


@dataclass(frozen=True, kw_only=True)
class ContainerStep:
    """A step in the container: its derivation and its command both follow from it.

    Args:
        arguments: the program and its arguments, by paths inside the container.
        inputs: path inside the container -> stored file, mounted there read-only.
        outputs: what the step must leave in `/out`.
        yields: others are waited for meanwhile, and get the processor first if they want it.
        imports: what its program begins with; steps of the same may share a container (together.py).
    """

    name: str
    version: int = 1
    arguments: Sequence[str]
    inputs: Mapping[str, Blob]
    outputs: Sequence[str]
    yields: bool = False
    imports: str = ""

    def derivation(self, image: Digest) -> Derivation:
        return Derivation(
            step=self.name,
            version=self.version,
            image=image,
            parameters={"arguments": list(self.arguments), "outputs": sorted(self.outputs)},
            inputs={path: blob.digest for path, blob in self.inputs.items()},
        )

    def is_ahead_of(self, step: ContainerStep) -> bool:
        """Whether this is that step, with some inputs that aren't there yet."""
        return (
            replace(step, inputs=self.inputs) == self
            and step.inputs.keys() == self.inputs.keys()
            and all(blob in (PENDING, step.inputs[path]) for path, blob in self.inputs.items())
        )
