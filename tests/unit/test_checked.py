"""What a check says at its end: a figure of rebuilds, one of published digests, and the error that it ends with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bertir.checked import Checked, Result
from bertir.compare import Difference, Stage
from bertir.digest import Digest
from bertir.errors import BertirError, EngineError, ReproducibilityError
from bertir.golden import Golden, compare_with_golden
from bertir.launch import Rebuilt
from bertir.prepare import Place
from bertir.report import Request
from bertir.show_check import check_facts, check_text

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = Digest.of_bytes(b"1"), Digest.of_bytes(b"2")
REQUEST = Request(model="m")


@pytest.fixture
def baseline(tmp_path: Path) -> Rebuilt:
    stages = (
        Stage(name="freeze", cached=False, files={"inference_graph.pb": ONE}),
        Stage(name="convert", cached=False, files={"model.xml": ONE, "model.bin": OTHER}),
    )
    place = Place(checkout=tmp_path, store=tmp_path, output=tmp_path, environment={})
    folder = tmp_path / "m" / REQUEST.variant
    return Rebuilt(place=place, stages=stages, observed={}, seconds=61.5, folder=folder)


def result(*varied: str) -> Result:
    return Result(varied=varied, rebuilt=("freeze", "convert"), taken=(), seconds=60.0, measured_equal=True)


DIFFERENT = replace(
    result("umask", "tz"),
    difference=Difference(
        stage="freeze", file="inference_graph.pb", expected=ONE, found=OTHER, offset=7, place="node a: inputs"
    ),
)
FAILED = replace(result("podman"), failed=EngineError("it fell over", advice="lift it"))
UNSEEN = replace(result("clock"), without_effect=("container clock (2026)",))


def checked(baseline: Rebuilt, *results: Result, golden: Golden | None = None) -> Checked:
    return Checked(
        model="m",
        request=REQUEST,
        baseline=baseline,
        results=results,
        not_done={"user": "only root can"},
        golden=golden,
    )


def test_equal_rebuilds_are_no_error_and_what_was_not_done_is_said(baseline: Rebuilt) -> None:
    outcome = checked(baseline, result("umask"), result("tz"))
    assert outcome.error() is None
    text = check_text(outcome)
    assert "rebuilt here  2 of 2 equal" in text
    assert "not done      user: only root can" in text
    assert "as published  this checkout publishes no digests of this build" in text
    facts = check_facts(outcome)
    assert (facts["rebuilt"], facts["equal"], facts["not_done"]) == (2, 2, {"user": "only root can"})
    assert "error" not in facts
    assert json.loads(json.dumps(facts)) == facts


def test_a_difference_is_status_104_with_its_place_even_if_something_else_failed(baseline: Rebuilt) -> None:
    outcome = checked(baseline, FAILED, UNSEEN, DIFFERENT)
    error = outcome.error()
    assert isinstance(error, ReproducibilityError)
    assert error.exit_status == 104
    assert "umask + tz: freeze: inference_graph.pb differs at byte 7, node a: inputs" in str(error)
    assert "invoke check --each" in error.advice
    assert "rebuilt here  0 of 3 equal" in check_text(outcome)
    assert check_facts(outcome)["error"]["exit_status"] == 104


def test_each_rebuild_that_differs_is_named(baseline: Rebuilt) -> None:
    again = replace(DIFFERENT, varied=("cpus",), diffoscope="/logs/report.txt")
    error = checked(baseline, DIFFERENT, again).error()
    assert error is not None
    assert "umask + tz: freeze:" in str(error)
    assert "cpus: freeze:" in str(error)
    assert "/logs/report.txt" in error.advice


def test_a_rebuild_that_failed_is_not_counted_as_equal_and_its_status_is_kept(baseline: Rebuilt) -> None:
    outcome = checked(baseline, result("umask"), FAILED)
    error = outcome.error()
    assert type(error) is EngineError
    assert str(error) == "podman: it fell over"
    assert "rebuilt here  1 of 2 equal" in check_text(outcome)


def test_a_variation_that_was_not_seen_proves_nothing(baseline: Rebuilt) -> None:
    outcome = checked(baseline, UNSEEN)
    error = outcome.error()
    assert type(error) is BertirError
    assert "container clock (2026)" in str(error)
    assert "rebuilt here  0 of 1 equal" in check_text(outcome)


def test_rebuilt_here_and_as_published_are_separate(baseline: Rebuilt) -> None:
    golden = Golden(file="tests/golden/m.json", compared=3, different=("frozen_graph: published a, found b",))
    outcome = checked(baseline, result("umask"), golden=golden)
    text = check_text(outcome)
    assert "rebuilt here  1 of 1 equal" in text
    assert "as published  2 of 3 digests equal (tests/golden/m.json)" in text
    error = outcome.error()
    assert isinstance(error, ReproducibilityError)
    assert "frozen_graph: published a, found b" in str(error)


def write_golden(root: Path, digests: dict[str, str]) -> None:
    folder = root / "tests" / "golden"
    folder.mkdir(parents=True)
    (folder / "m.json").write_text(json.dumps(digests), encoding="utf-8")


def test_published_digests_are_compared_key_by_key(baseline: Rebuilt, tmp_path: Path) -> None:
    variant = REQUEST.variant
    write_golden(
        tmp_path,
        {
            "frozen_graph": str(ONE),
            f"{variant}/model.xml": str(ONE),
            f"{variant}/model.bin": str(ONE),
            "of another build": str(ONE),
        },
    )
    golden = compare_with_golden(tmp_path, baseline, REQUEST)
    assert golden is not None
    assert golden.compared == 3
    assert golden.different == (f"{variant}/model.bin: published {ONE}, found {OTHER}",)


def test_published_digests_of_another_variant_are_not_these(baseline: Rebuilt, tmp_path: Path) -> None:
    write_golden(tmp_path, {"frozen_graph": str(OTHER), "reshapable-fp32/model.xml": str(OTHER)})
    assert compare_with_golden(tmp_path, baseline, REQUEST) is None


def test_without_published_digests_nothing_is_compared(baseline: Rebuilt, tmp_path: Path) -> None:
    assert compare_with_golden(tmp_path, baseline, REQUEST) is None
