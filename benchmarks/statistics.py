"""Median and spread of a few repetitions."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Of so few values no more can be said than these."""

    median: float
    least: float
    most: float
    count: int


def summary(values: Iterable[float | None]) -> Summary | None:
    """Summarise what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    if not measured:
        return None
    return Summary(
        median=statistics.median(measured), least=min(measured), most=max(measured), count=len(measured)
    )
