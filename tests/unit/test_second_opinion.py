"""What is told where TensorFlow and the IR disagree, by what a second comparison without OpenVINO's fused kernels gives.

What a build does, keeps and says is real; the figures, which a container would have measured, are given here.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from done_build import ENVIRONMENT, PARITY, ROOT, DoneBuilder, tuned

from bertir.builder import Layout
from bertir.errors import EngineError, ParityError, StepError
from bertir.fetch import Fetcher
from bertir.interruption import Interrupted
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.parity import judge
from bertir.pipeline import build_and_verify, build_ir
from bertir.preflight import Rehearsal
from bertir.progress import SILENT, Progress
from bertir.report import Request
from bertir.second_opinion import diagnosed
from bertir.steps import unfused
from bertir.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.container_step import ContainerStep
    from bertir.derivation import Realised

AGREES = {**PARITY, "max_abs_difference": 1e-6, "max_abs_difference_rounded": 3e-7, "processor": "AMD EPYC"}
DISAGREES = {
    **PARITY,
    "max_abs_difference": 0.12,
    "max_abs_difference_rounded": 0.12,
    "processor": "AMD EPYC",
}
FIRST = "TensorFlow and the IR disagree: max abs difference 1.20e-01, allowed for fp16 weights 5.0e-03"
IR_RIGHT, IR_WRONG = "the IR is right", "the IR itself is wrong"
AS_BEFORE = "Try --precision fp32 and another --seq-len; if that fails too, please report the model."


def first_of(report: dict[str, Any], request: Request | None = None) -> ParityError:
    with pytest.raises(ParityError) as raised:
        judge(json.dumps(report).encode(), request or Request())
    return raised.value


def told(
    second: dict[str, Any], request: Request | None = None, first: dict[str, Any] = DISAGREES
) -> ParityError:
    asked = request or Request()
    return diagnosed(first_of(first, asked), json.dumps(second).encode(), asked, 6, openvino="2024.6.0")


# what is made of two reports


@pytest.mark.parametrize(
    ("precision", "figure"), [("fp16", "3.00e-07"), ("fp32", "1.00e-06")], ids=["fp16", "fp32"]
)
def test_what_agrees_without_fused_kernels_is_right_and_run_wrongly_by_this_processor(
    precision: str, figure: str
) -> None:
    error = told(AGREES, Request(precision=precision))
    first, second = str(error).splitlines()
    assert first.startswith("TensorFlow and the IR disagree: max abs difference 1.20e-01")
    assert f"they agree, to {figure}: {IR_RIGHT}" in second
    assert second.endswith("OpenVINO 2024.6.0 runs it wrongly on this processor, AMD EPYC")
    assert error.exit_status == 8
    assert "Nothing was published" in error.advice
    assert "another --seq-len, or another processor, with a store of its own" in error.advice
    assert "SNIPPETS_MODE to DISABLE" in error.advice


def test_a_graph_of_which_nobody_chooses_the_length_is_not_to_be_tried_with_another() -> None:
    advice = told(AGREES, Request(recipe="meta-graph")).advice
    assert "Try another processor" in advice
    assert "--seq-len" not in advice


@pytest.mark.parametrize("name", [None, ""])
def test_a_processor_that_has_no_name_is_this_one(name: str | None) -> None:
    assert str(told({**AGREES, "processor": name})).endswith("on this processor")
    assert str(told(dict(PARITY))).endswith("on this processor")


def test_what_disagrees_there_as_well_is_wrong_and_the_advice_stays() -> None:
    first = first_of(DISAGREES)
    error = told({**DISAGREES, "max_abs_difference": 0.34})
    assert str(error).startswith(FIRST)
    assert "max abs difference 3.40e-01" in str(error)
    assert IR_WRONG in str(error)
    assert IR_RIGHT not in str(error)
    assert (error.advice, error.exit_status) == (first.advice, 8)
    assert AS_BEFORE in error.advice


@pytest.mark.parametrize(
    "first",
    [
        DISAGREES,
        {**DISAGREES, "max_abs_difference": 1e-4},  # by more than rounding
        {**DISAGREES, "all_finite": False},
        {**DISAGREES, "max_abs_difference": None},
    ],
    ids=["much", "more than rounding", "not finite", "no figure"],
)
def test_the_first_comparison_is_told_whatever_the_second_gives(first: dict[str, Any]) -> None:
    for second in (AGREES, DISAGREES):
        assert str(told(second, first=first)).startswith(str(first_of(first)))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"discrimination": 0.0}, "agreement proves nothing"),
        ({"free_dimensions": [], "fixed_dimensions": {"batch": 1}}, "promises a free batch"),
        ({"tensorflow_finite": False}, "TensorFlow itself gives numbers that aren't finite"),
        ({"rounded_finite": False}, "larger than fp16 holds"),
        ({"discrimination": None}, "has no words"),
    ],
    ids=["proves nothing", "fixed batch", "not finite", "not finite when rounded", "no words"],
)
def test_where_something_else_is_amiss_the_ir_is_neither_right_nor_wrong(
    fault: dict[str, Any], said: str
) -> None:
    error = told({**AGREES, **fault})
    assert str(error).startswith(FIRST)
    assert said in str(error)
    assert IR_RIGHT not in str(error)
    assert IR_WRONG not in str(error)


# what a build makes of it


class Measured(DoneBuilder):
    """A builder whose comparisons give these reports, or end so."""

    def __init__(
        self, tmp_path: Path, *, progress: Progress = SILENT, **ends: dict[str, Any] | BaseException
    ) -> None:
        store = Store(tmp_path / "store")
        super().__init__(
            layout=Layout(root=ROOT, models=ROOT / "models.toml"),
            store=store,
            fetcher=Fetcher(store=store, environment=ENVIRONMENT, progress=SILENT, offline=True),
            environment=ENVIRONMENT,
            progress=progress,
        )
        self.ends = ends
        self.asked: list[ContainerStep] = []

    def run(self, step: ContainerStep, **given: object) -> Realised:
        self.asked.append(step)
        if isinstance(end := self.ends.get(step.name), BaseException):
            raise end
        return super().run(step, **given)

    def content(self, step: str, name: str) -> bytes:
        end = self.ends.get(step)
        return json.dumps(end).encode() if isinstance(end, dict) else super().content(step, name)

    @property
    def compared(self) -> list[str]:
        return [step.name for step in self.asked if step.name in ("verify", "unfused")]


def refused(builder: Measured, tmp_path: Path) -> ParityError:
    """Build from a user's checkpoint, and give the refusal; nothing may be published."""
    folder = tmp_path / "tuned"
    if not folder.exists():
        tuned(folder)
    with builder, pytest.raises(ParityError) as raised:
        build_ir(builder, Request(), tmp_path / "dist", find_checkpoint(Options(path=folder)))
    assert not (tmp_path / "dist").exists()
    return raised.value


def test_a_disagreement_is_compared_once_more_by_the_same_step_with_one_argument_more(tmp_path: Path) -> None:
    builder = Measured(tmp_path, verify=DISAGREES, unfused=AGREES)
    error = refused(builder, tmp_path)
    assert IR_RIGHT in str(error)
    assert "OpenVINO 2024.6.0 runs it wrongly" in str(error)
    assert builder.compared == ["verify", "unfused"]
    first, second = builder.asked[-2:]
    assert second == unfused(first)
    assert second.arguments == (*first.arguments, "--unfused")
    assert (second.inputs, second.outputs) == (first.inputs, first.outputs)


def test_a_good_build_and_one_refused_for_other_reasons_are_compared_once(tmp_path: Path) -> None:
    folder = tuned(tmp_path / "tuned").folder
    good = Measured(tmp_path)
    with good:
        build_ir(good, Request(), tmp_path / "good", find_checkpoint(Options(path=folder)))
    assert good.compared == ["verify"]
    for fault, said in (
        ({"discrimination": 0.0}, "proves nothing"),
        ({"free_dimensions": [], "fixed_dimensions": {"batch": 1}}, "promises a free batch"),
        ({"tensorflow_finite": False}, "TensorFlow itself gives numbers"),
        ({"rounded_finite": False}, "larger than fp16 holds"),
        ({"discrimination": None}, "has no words"),
    ):
        builder = Measured(tmp_path / said, verify={**PARITY, **fault})
        assert said in str(refused(builder, tmp_path))
        assert builder.compared == ["verify"]


def test_who_asks_again_is_told_the_same_and_nothing_is_run(tmp_path: Path) -> None:
    first = refused(Measured(tmp_path, verify=DISAGREES, unfused=DISAGREES), tmp_path)
    assert IR_WRONG in str(first)
    again = Measured(tmp_path)
    assert str(refused(again, tmp_path)) == str(first)
    assert again.ran == 0


@pytest.mark.parametrize(
    "end",
    [
        EngineError("no engine\n  at all"),
        StepError("unfused: refused"),
        OSError(28, "No space left on device"),
        {"a report": "of nothing"},
    ],
    ids=["engine", "step", "disk", "report"],
)
def test_where_nothing_can_be_compared_once_more_the_first_error_stands(
    tmp_path: Path, end: dict[str, Any] | BaseException
) -> None:
    said = io.StringIO()
    builder = Measured(tmp_path, progress=Progress(stream=said), verify=DISAGREES, unfused=end)
    error = refused(builder, tmp_path)
    first = first_of(DISAGREES)
    assert (str(error), error.advice) == (str(first), first.advice)
    [why] = [line for line in said.getvalue().splitlines() if "can't be compared once more" in line]
    word = {EngineError: "no engine", StepError: "unfused: refused", OSError: "No space left"}.get(
        type(end), "report can't be read"
    )
    assert word in why


def test_who_interrupts_the_second_comparison_interrupts_the_build(tmp_path: Path) -> None:
    folder = tuned(tmp_path / "tuned").folder
    builder = Measured(tmp_path, verify=DISAGREES, unfused=Interrupted(2))
    with builder, pytest.raises(Interrupted):
        build_ir(builder, Request(), tmp_path / "dist", find_checkpoint(Options(path=folder)))


def test_who_looks_through_the_store_alone_runs_no_second_comparison(tmp_path: Path) -> None:
    """`invoke build-matrix` does, before it builds; the build itself then compares once more."""
    builder = Measured(tmp_path, verify=DISAGREES, unfused=EngineError("no engine"))
    refused(builder, tmp_path)
    local = find_checkpoint(Options(path=tmp_path / "tuned"))
    with builder, pytest.raises(ParityError) as raised:
        build_and_verify(Rehearsal.of(builder), Request(), builder.pins, local)
    assert str(raised.value) == FIRST


@pytest.mark.parametrize(
    ("second", "said"), [(AGREES, IR_RIGHT), (DISAGREES, IR_WRONG)], ids=["right", "wrong"]
)
def test_json_has_the_same_facts_and_status_8(tmp_path: Path, second: dict[str, Any], said: str) -> None:
    error = refused(Measured(tmp_path, verify=DISAGREES, unfused=second), tmp_path)
    assert said in str(error)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "invoke", "build-ir", "--format=json", f"--output={tmp_path / 'dist'}"),
            f"--checkpoint={tmp_path / 'tuned'}",
        ],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, "BERTIR_STORE": str(tmp_path / "store")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 8, ended.stderr
    assert json.loads(ended.stdout)["error"] == {
        "kind": "ParityError",
        "message": str(error),
        "advice": error.advice,
        "exit_status": 8,
    }
    assert "without OpenVINO's fused kernels" in ended.stderr
