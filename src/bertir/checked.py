"""What a check found, as data, and which error it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertir.errors import BertirError, ReproducibilityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.compare import Difference
    from bertir.golden import Golden
    from bertir.launch import Rebuilt
    from bertir.report import Request


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one rebuild compares.

    Args:
        varied: names of variations; none is a rebuild with nothing varied.
        rebuilt: the stages that ran; `taken`: those that were in the store.
        without_effect: what was to be varied and was seen as before; such a rebuild proves nothing.
        measured_equal: whether what is measured, and not promised, was the same too; None if it didn't come so far.
    """

    varied: tuple[str, ...]
    rebuilt: tuple[str, ...]
    taken: tuple[str, ...]
    seconds: float
    difference: Difference | None = None
    diffoscope: str = ""
    failed: BertirError | None = None
    without_effect: tuple[str, ...] = ()
    measured_equal: bool | None = None

    @property
    def equal(self) -> bool:
        return not (self.difference or self.failed or self.without_effect)

    @property
    def verdict(self) -> str:
        if self.difference:
            return str(self.difference)
        if self.failed:
            return f"failed: {self.failed}"
        return "nothing was varied" if self.without_effect else "equal"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found.

    Args:
        not_done: variations that this machine can't do, with the reason.
        golden: None if the checkout publishes no digests of this build.
    """

    model: str
    request: Request
    baseline: Rebuilt
    results: tuple[Result, ...]
    not_done: Mapping[str, str] = field(default_factory=dict)
    golden: Golden | None = None

    def error(self) -> BertirError | None:
        """What is wrong, if something is: a difference before a failure, as it is what was looked for."""
        differing = [result for result in self.results if result.difference]
        if differing:
            lines = [
                f"{' + '.join(result.varied) or 'nothing varied'}: {result.difference}"
                for result in differing
            ]
            told = [f"diffoscope's report: {result.diffoscope}" for result in differing if result.diffoscope]
            several = any(len(result.varied) > 1 for result in differing)
            advice = ["`invoke check --each` says which variation it is."] if several else []
            return ReproducibilityError(
                "a rebuild gave other bits\n  " + "\n  ".join(lines), advice="\n".join([*told, *advice])
            )
        for result in self.results:
            name = " + ".join(result.varied) or "nothing varied"
            if result.failed:
                return type(result.failed)(f"{name}: {result.failed}", advice=result.failed.advice)
            if result.without_effect:
                return BertirError(
                    f"{name}: nothing was proven, as this was the same as in the baseline: "
                    + ", ".join(result.without_effect),
                    advice="Something on this machine undoes the variation; leave it out by --vary.",
                )
        if self.golden and self.golden.different:
            return ReproducibilityError(
                f"rebuilt equal here, and yet not as published in {self.golden.file}:\n  "
                + "\n  ".join(self.golden.different),
                advice="If the change is meant: invoke golden.",
            )
        return None
