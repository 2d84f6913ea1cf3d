"""A second opinion, where TensorFlow and the IR disagree: is the IR wrong, or does OpenVINO run it wrongly?

OpenVINO's CPU plugin makes one kernel of several operations, attention's among them, and on some processor one of these
kernels may give wrong numbers (docs/decisions.md). So what disagrees is compared once more without them. Whatever comes of it,
nothing is published: who loads the IR there, by OpenVINO's defaults, would get the wrong numbers. Only what is told differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.errors import BertirError, ParityError
from bertir.parity import judge
from bertir.redact import line
from bertir.report import META_GRAPH, VERIFY
from bertir.steps import read, unfused

if TYPE_CHECKING:
    from bertir.builder import Builder
    from bertir.container_step import ContainerStep
    from bertir.derivation import Realised
    from bertir.parity import Parity
    from bertir.report import Request

WITHOUT = "without OpenVINO's fused kernels (SNIPPETS_MODE=DISABLE)"


def judged(
    builder: Builder, comparing: ContainerStep, compared: Realised, request: Request, layers: int
) -> Parity:
    """Judge what a comparison measured. Where the numbers disagree, it is run once more without OpenVINO's fused kernels.

    Raises:
        ParityError: see `judge`; where the numbers disagree, it says what the second comparison says of them, if that
            could be made.
        StepError: the report isn't one.
    """
    try:
        return judge(read(builder, compared, "parity.json"), request, layers)
    except ParityError as first:
        if first.numbers and (told := _asked(builder, comparing, first, request, layers)):
            raise told from first
        raise


def _asked(
    builder: Builder, comparing: ContainerStep, first: ParityError, request: Request, layers: int
) -> ParityError | None:
    """Compare once more, and give the error that tells of both; None if it can't be done: the first one stands."""
    builder.progress.say(VERIFY, f"{_first_line(first)}; comparing once more, {WITHOUT}")
    try:
        second = read(builder, builder.run(unfused(comparing)), "parity.json")
        openvino = next((pin.version for pin in builder.lock.wheels if pin.name == "openvino"), "")
        return diagnosed(first, second, request, layers, openvino=openvino)
    except (BertirError, OSError) as error:
        builder.progress.say(VERIFY, f"it can't be compared once more: {_first_line(error)}")
        return None


def diagnosed(
    first: ParityError, second: bytes, request: Request, layers: int, *, openvino: str
) -> ParityError:
    """Give the error of a disagreement, `first`, with what the report of the second comparison makes of it.

    Raises:
        StepError: the second report isn't one.
    """
    try:
        parity = judge(second, request, layers)
    except ParityError as error:
        # That the numbers agree isn't enough where something else is amiss: then nobody is said to be at fault.
        verdict = "\n  so the IR itself is wrong, or the fault lies elsewhere" if error.numbers else ""
        return ParityError(f"{first}\n  {WITHOUT}: {error}{verdict}", advice=first.advice, numbers=True)
    difference = parity.max_abs_difference if parity.rounded is None else parity.rounded
    processor = parity.report.get("processor")
    name = f", {line(str(processor))}" if processor else ""
    return ParityError(
        f"{first}\n  {WITHOUT} they agree, to {difference:.2e}: the IR is right, and OpenVINO {openvino} runs it"
        f" wrongly on this processor{name}",
        advice=_other_ways(request),
        numbers=True,
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _other_ways(request: Request) -> str:
    """Say what may do better, where the IR is right."""
    length = "another --seq-len, or " if request.recipe != META_GRAPH else ""
    return (
        "Nothing was published: who loads the IR on such a processor, by OpenVINO's defaults, gets wrong numbers."
        f" Try {length}another processor, with a store of its own: this one keeps what was measured here. Who runs such an IR"
        " here has to set SNIPPETS_MODE to DISABLE when it is compiled."
    )
