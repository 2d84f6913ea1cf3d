"""Parity: does the IR compute what TensorFlow computes from the source and the checkpoint?

The figures come from `docker/steps/reference.py` and `verify.py`, which run in the container; here they are judged.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from bertir.errors import ParityError, StepError
from bertir.frozen import dataclass
from bertir.redact import shown
from bertir.report import META_GRAPH, Request

if TYPE_CHECKING:
    from collections.abc import Mapping


# Largest absolute difference of one number, by head and precision of the weights, for up to six layers; rounding adds
# up over more of them. For `sequence` and `classifier` in units of the output's size (see `_scale`).
# docs/decisions.md has what was measured, and why these. Those of fp16 bound the rounding of weights alone; that nothing
# else is wrong is seen by rounding TensorFlow's weights too, and holding that to the figures of fp32.
LAYERS = 6
THRESHOLDS: Mapping[str, Mapping[str, float]] = {
    "pooled": {"fp32": 1e-5, "fp16": 5e-3},
    "sequence": {"fp32": 5e-5, "fp16": 3e-2},
    "classifier": {"fp32": 1e-5, "fp16": 5e-3},
}
# Other words must give another output by more than what parity allows, or agreement proves nothing.
DISCRIMINATION_FACTOR = 2.0
# Each is tried, and one more if the user asks for it: run, on as many of the seven rows; but of the last two the shapes are
# inferred through the graph alone, as their rows would take longer than all else (docs/decisions.md).
RUN_BATCHES, INFERRED_BATCHES = (1, 2, 4), (8, 32)
VERIFIED_BATCHES = (*RUN_BATCHES, *INFERRED_BATCHES)
# What each recipe is for. The graph of meta-graph is what its publisher made it: the report says what is free.
PROMISED: Mapping[str, tuple[str, ...]] = {"reshapable": ("batch",), "meta-graph": ()}


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What was compared, and the figures.

    Args:
        max_abs_difference: over all rows, all batches and all numbers of the output.
        threshold: what it may be at most.
        rounded: the same against TensorFlow with its weights rounded to fp16; none for fp32.
        exact_threshold: what that may be at most, and what fp32 may: nothing is left in it but the order of sums.
        batches: the batch sizes that were run.
        inferred: those whose shapes were inferred through the graph, and that weren't run.
        report: everything that the step measured.
    """

    max_abs_difference: float
    threshold: float
    rounded: float | None
    exact_threshold: float
    batches: tuple[int, ...]
    inferred: tuple[int, ...]
    report: Mapping[str, Any]


def _other_ways(request: Request) -> str:
    """Say what may do better. Another length: OpenVINO may run one wrongly (docs/decisions.md)."""
    ways = [
        *(["--precision fp32"] if request.precision == "fp16" else []),
        *(["another --seq-len"] if request.recipe != META_GRAPH else []),
    ]
    if not ways:
        return "Nothing was published. Please report the model."
    return f"Nothing was published. Try {' and '.join(ways)}; if that fails too, please report the model."


def judge(data: bytes, request: Request, layers: int = LAYERS) -> Parity:
    """Read a parity report and see that it is good enough for what was asked.

    Raises:
        ParityError: TensorFlow and the IR disagree, the comparison could not have told, or the IR has a fixed
            dimension that its recipe promises to be free.
        StepError: the report isn't one.
    """
    try:
        report = json.loads(data)
        # The step writes null where a number isn't finite (JSON has no NaN), and where there is none.
        largest = report["max_abs_difference"]
        difference = math.inf if largest is None else float(largest)
        rounded = None
        if request.precision == "fp16":
            rounded = (
                math.inf
                if report["max_abs_difference_rounded"] is None
                else float(report["max_abs_difference_rounded"])
            )
        told = report["discrimination"]
        discrimination = None if told is None else float(told)
        finite = bool(report["all_finite"])
        sound = bool(report["tensorflow_finite"])
        rounds = report["rounded_finite"] is None or bool(report["rounded_finite"])
        scale = _scale(request.head, report["rms"])
        batches = tuple(dict.fromkeys(int(shape["batch"]) for shape in report["shapes"]))
        signature = report["signature"]
        free = {str(name) for name in report["free_dimensions"]}
        refusals = "; ".join(str(refusal["refused_by"]) for refusal in report["refused"])
        inferred = tuple(int(shape["batch"]) for shape in report["inferred"])
        run = {*batches, *(refusal["batch"] for refusal in report["refused"])}
        complete = bool(
            batches
            and {*RUN_BATCHES, request.rows} <= run
            and {*INFERRED_BATCHES} <= run.union(inferred)
            and signature["inputs"]
            and signature["outputs"]
            and report["sentences"]
            and free.isdisjoint(report["fixed_dimensions"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StepError(f"verify: its report can't be read: {shown(error)}") from error
    if not complete:
        raise StepError("verify: its report is not complete")
    allowed = THRESHOLDS[request.head]
    threshold, exact = (
        allowed[name] * scale * max(1.0, layers / LAYERS) for name in (request.precision, "fp32")
    )
    _require_numbers(sound=sound, rounds=rounds)
    if not finite or not math.isfinite(difference) or not math.isfinite(rounded or 0.0):
        raise ParityError(
            "the IR gives numbers that aren't finite, where TensorFlow's are",
            advice=_other_ways(request),
            numbers=True,
        )
    if not 0 <= difference <= threshold:  # so that a NaN fails too
        raise ParityError(
            f"TensorFlow and the IR disagree: max abs difference {difference:.2e},"
            f" allowed for {request.precision} weights {threshold:.1e}",
            advice=_other_ways(request),
            numbers=True,
        )
    if rounded is not None and not 0 <= rounded <= exact:
        raise ParityError(
            f"TensorFlow and the IR disagree by more than rounding: with its weights rounded to fp16 as well,"
            f" max abs difference {rounded:.2e}, allowed {exact:.1e}",
            advice=_other_ways(request),
            numbers=True,
        )
    _require_discrimination(discrimination, DISCRIMINATION_FACTOR * exact)
    if missing := [name for name in PROMISED[request.recipe] if name not in free]:
        raise ParityError(
            f"the recipe {request.recipe} promises a free {' and '.join(missing)}, and the IR has a fixed one: {refusals}",
            advice="Nothing was published. Please report the model.",
        )
    return Parity(
        max_abs_difference=difference,
        threshold=threshold,
        rounded=rounded,
        exact_threshold=exact,
        batches=batches,
        inferred=inferred,
        report=report,
    )


def _require_numbers(*, sound: bool, rounds: bool) -> None:
    """Refuse weights by which TensorFlow gives none: as they are, or rounded."""
    if not sound:
        raise ParityError(
            "TensorFlow itself gives numbers that aren't finite, by these weights",
            advice="Nothing was published. Are these the weights of a trained model?",
        )
    if not rounds:
        raise ParityError(
            "by weights rounded to fp16 TensorFlow gives numbers that aren't finite: one of them may be larger than fp16 holds (65504)",
            advice="Nothing was published. Try --precision fp32, which tells whether they are finite as they are.",
        )


def _require_discrimination(discrimination: float | None, least: float) -> None:
    """Refuse what gives nearly the same with other words."""
    if discrimination is None:
        raise ParityError(
            "vocab.txt has no words, so that nothing can be read: agreement proves nothing",
            advice="Nothing was published. Is it the vocabulary of this model?",
        )
    if not discrimination >= least:  # so that a NaN fails too
        raise ParityError(
            f"the model gives nearly the same output whatever it reads: with other words it differs by {discrimination:.2e},"
            " so that agreement proves nothing",
            advice="Nothing was published. Are these the weights of a trained model?",
        )


def _scale(head: str, rms: object) -> float:
    """Give the unit of a head's threshold.

    The pooled output is a tanh: 1. A layer's output has whatever size its last layer norm gives it: its root
    mean square. A classifier's logits too, but those near 0 are no reason to ask for more: at least 1.
    """
    if head == "pooled":
        return 1.0
    size = float(rms) if isinstance(rms, int | float) else math.nan  # the threshold is then passed by nothing
    return max(1.0, size) if head == "classifier" and not math.isnan(size) else size
