"""What is around a step in its container and should not matter: varied by `invoke check`, in no derivation."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from bertir.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """As every build has them, unless told otherwise.

    Args:
        environment: over the image's own and the step's.
        cpus: which processors the step may use, as Linux lists them (`0-3,5`); empty is all of them.
        mounts: path inside the container -> file on the host, read-only, beside the step's inputs.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = "bertir"
    cpus: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "environment": dict(self.environment),
            "hostname": self.hostname,
            "cpus": self.cpus,
            "mounts": dict(self.mounts),
        }
