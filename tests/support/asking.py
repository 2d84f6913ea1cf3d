"""A session that tells how it was asked for a builder, and gives none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertir.session import Session

if TYPE_CHECKING:
    from bertir.builder import Builder


class AskedError(Exception):
    """A builder was asked for."""

    def __init__(self, *, paranoid: bool, memory: int | None) -> None:
        super().__init__()
        self.paranoid = paranoid
        self.memory = memory


class Asking(Session):
    """Raises `AskedError` where another session gives a builder."""

    def builder(self, *, paranoid: bool = False, memory: int | None = None, **_: Any) -> Builder:
        raise AskedError(paranoid=paranoid, memory=memory)
