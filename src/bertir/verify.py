"""Parity: does the IR compute what TensorFlow computes from the same frozen graph?

The figures come from `docker/steps/verify.py`, which runs both in the container; here they are judged.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertir.errors import ParityError, StepError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Largest absolute difference of one number of the pooled output, which lies in [-1, 1] (it is a tanh).
# fp32: both sides compute in f32 with other orders of summation. One unit in the last place at 1 is 1.2e-7;
# measured 2e-7 over 6 layers, and rounding grows with depth, at most linearly: 24 layers stay under 1e-5.
# fp16: each weight is rounded to 11 significant bits, a relative error of up to 2^-11 = 4.9e-4, of either sign;
# the output moves by about as much as one weight does. Measured 2e-4 over 6 layers; ten times a weight's error
# leaves room for depth, and is still far below what a wrong layer, mask or vocabulary does (over 1e-1).
THRESHOLDS: Mapping[str, float] = {"fp32": 1e-5, "fp16": 5e-3}
# Different sentences must give different outputs by more than what parity allows, or agreement proves nothing.
DISCRIMINATION_FACTOR = 2.0


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was compared, and the figures.

    Args:
        max_abs_difference: over all rows, all batches and all numbers of the output.
        threshold: what it may be at most.
        batches: the batch sizes that were run.
        report: everything that the step measured.
    """

    max_abs_difference: float
    threshold: float
    batches: tuple[int, ...]
    report: Mapping[str, Any]


def judge(data: bytes, precision: str, expected_batches: tuple[int, ...]) -> Parity:
    """Read a parity report and see that it is good enough.

    Raises:
        ParityError: TensorFlow and the IR disagree, or the comparison could not have told.
        StepError: the report isn't one.
    """
    try:
        report = json.loads(data)
        # The step writes null where a number isn't finite (JSON has no NaN) and where no two rows differ.
        largest = report["max_abs_difference"]
        difference = math.inf if largest is None else float(largest)
        discrimination = float(report["discrimination"] or 0.0)
        finite = bool(report["all_finite"])
        batches = tuple(int(entry["batch"]) for entry in report["batches"])
        signature = report["signature"]
        complete = bool(signature["inputs"] and signature["outputs"] and report["sentences"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StepError(f"verify: its report can't be read: {error!r}") from error
    if not complete or batches != expected_batches:
        raise StepError("verify: its report is not complete")
    threshold = THRESHOLDS[precision]
    if not finite or not math.isfinite(difference):
        raise ParityError("the IR or the TensorFlow graph gives numbers that aren't finite")
    if not 0 <= difference <= threshold:  # so that a NaN fails too
        raise ParityError(
            f"TensorFlow and the IR disagree: max abs difference {difference:.2e},"
            f" allowed for {precision} weights {threshold:.0e}",
            advice="Nothing was published. Try --precision fp32; if that fails too, please report the model.",
        )
    if not discrimination >= DISCRIMINATION_FACTOR * threshold:
        raise ParityError(
            "the model gives nearly the same output for different sentences"
            f" (they differ by {discrimination:.2e}), so that agreement proves nothing",
            advice="Nothing was published. Are these the weights of a trained model?",
        )
    return Parity(max_abs_difference=difference, threshold=threshold, batches=batches, report=report)
