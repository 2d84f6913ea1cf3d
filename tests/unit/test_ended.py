"""What many builds say at their end: a row each, the errors in full, and one exit status."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from checkout import ROOT
from some_build import some_build

from bertir.ended import BUILT, FAILED, REFUSED, UNCHANGED, Ended, Matrix
from bertir.errors import BertirError, ConfigurationError, DigestMismatchError, EngineError, StepError
from bertir.local_checkpoint import Options
from bertir.publish import Published
from bertir.report import Request
from bertir.show import build_facts, error_facts
from bertir.show_matrix import matrix_facts, matrix_text
from bertir.targets import Target


def target(**request: Any) -> Target:
    return Target(who="m", request=Request(model="m", **request))


def good(one: Target, result: str = BUILT) -> Ended:
    build = some_build(ROOT / "models.toml")
    facts = build_facts(build, Published(folder=ROOT / "dist" / one.name, unchanged=False), 61.5)
    return Ended(target=one, result=result, seconds=61.5, facts=facts)


def bad(one: Target, error: BertirError) -> Ended:
    result = REFUSED if isinstance(error, ConfigurationError) else FAILED
    return Ended(target=one, result=result, seconds=0.25, error=error_facts(error)["error"])


def matrix(*ended: Ended) -> Matrix:
    return Matrix(ended=ended, jobs=2, memory=12_000_000_000, seconds=70.0)


STEP = StepError("freeze: no\n  of two lines", advice="look there")
NO = ConfigurationError("meta-graph takes no shape", advice="leave it out")


def test_all_well_is_no_error() -> None:
    assert matrix(good(target()), good(target(precision="fp32"), UNCHANGED)).error() is None


@pytest.mark.parametrize(
    ("errors", "status", "name"),
    [
        ([None, STEP], 7, "m/reshapable-fp32"),
        ([STEP, EngineError("gone")], 7, "m/reshapable-fp16"),
        ([EngineError("gone"), STEP], 6, "m/reshapable-fp16"),
        ([None, NO], 2, "m/reshapable-fp32"),
        ([NO, STEP], 7, "m/reshapable-fp32"),  # what failed goes before what can't be
        ([DigestMismatchError("other bytes"), None], 102, "m/reshapable-fp16"),
    ],
)
def test_the_first_that_failed_decides_on_the_status_and_else_the_first_that_was_refused(
    errors: list[BertirError | None], status: int, name: str
) -> None:
    targets = [target(), target(precision="fp32")]
    error = matrix(
        *(bad(one, wrong) if wrong else good(one) for one, wrong in zip(targets, errors, strict=True))
    ).error()
    assert error is not None
    assert error.exit_status == status
    assert f"\n  {name}: " in str(error)
    assert f"{sum(wrong is not None for wrong in errors)} of 2 builds published nothing" in str(error)


def test_the_table_has_a_row_for_each_with_what_came_of_it() -> None:
    text = matrix_text(
        matrix_facts(
            matrix(
                good(target()),
                bad(target(head="classifier"), STEP),
                bad(target(recipe="meta-graph", seq_len=64), NO),
            )
        )
    )
    lines = text.splitlines()
    assert re.split(r" +", lines[0])[5:] == ["result", "seconds", "parity", "folder"]
    assert lines[1].split() == [
        *("m", "reshapable", "fp16", "pooled", "1x128", "built", "61.5", "1.0e-04/5e-03"),
        f"{ROOT}/dist/m/reshapable-fp16",
    ]
    assert lines[2].split()[3:] == ["classifier", "1x128", "failed", "0.2", "-", "freeze:", "no"]
    assert lines[3].split()[1:6] == ["meta-graph", "fp16", "pooled", "-", "refused"]
    assert "builds   3: 1 built, 1 failed, 1 refused" in lines
    assert "seconds  70.0, 2 at once at most, in 12.00 GB of memory" in lines


def test_every_error_is_told_in_full_below_the_table() -> None:
    text = matrix_text(matrix_facts(matrix(bad(target(), STEP), bad(target(precision="fp32"), NO))))
    assert "\n\nm/reshapable-fp16: exit status 7\nfreeze: no\n  of two lines\nlook there\n\n" in text
    assert text.endswith("m/reshapable-fp32: exit status 2\nmeta-graph takes no shape\nleave it out")


def test_the_json_has_the_same_facts() -> None:
    mine = Target(who="m", request=Request(), checkpoint=Options(path=ROOT / "m"))
    facts = matrix_facts(matrix(good(mine), bad(target(precision="fp32"), STEP)))
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["exit_status"], facts["results"], facts["jobs"]) == (7, {"built": 1, "failed": 1}, 2)
    first, second = facts["targets"]
    assert (first["name"], first["checkpoint"]) == ("m/reshapable-fp16", f"{ROOT}/m")
    assert first["request"]["model"] == second["request"]["model"] == "m"
    assert first["build"]["parity"]["threshold"] == 5e-3
    assert (first["error"], second["build"], second["checkpoint"]) == (None, None, None)
    assert second["error"] == {
        "kind": "StepError",
        "message": "freeze: no\n  of two lines",
        "advice": "look there",
        "exit_status": 7,
    }
