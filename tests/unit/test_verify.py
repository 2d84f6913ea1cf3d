from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.errors import BertirError, ParityError, StepError
from bertir.pipeline import PRECISIONS, VERIFIED_BATCHES
from bertir.verify import DISCRIMINATION_FACTOR, THRESHOLDS, judge

BATCHES = (1, 4)
GOOD: dict[str, Any] = {
    "max_abs_difference": 1e-7,
    "discrimination": 0.5,
    "all_finite": True,
    "batches": [{"batch": 1, "max_abs_difference": 1e-7}, {"batch": 4, "max_abs_difference": 1e-7}],
    "sentences": 4,
    "signature": {
        "inputs": [{"name": "IteratorGetNext:0", "type": "i32", "shape": "[1,128]"}],
        "outputs": [{"name": "bert/pooler/dense/Tanh", "type": "f32", "shape": "[1,128]"}],
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def report(**change: Any) -> bytes:
    return json.dumps(GOOD | change).encode()


def test_every_precision_has_a_threshold_that_leaves_room_to_tell_sentences_apart() -> None:
    assert set(THRESHOLDS) == set(PRECISIONS)
    assert THRESHOLDS["fp32"] < THRESHOLDS["fp16"]
    assert all(DISCRIMINATION_FACTOR * threshold < 0.1 for threshold in THRESHOLDS.values())


def test_a_good_report_passes_with_its_figures() -> None:
    parity = judge(report(), "fp32", BATCHES)
    assert (parity.max_abs_difference, parity.threshold, parity.batches) == (1e-7, 1e-5, VERIFIED_BATCHES)
    assert parity.report == GOOD


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_threshold_itself_passes_and_a_little_more_does_not(precision: str) -> None:
    threshold = THRESHOLDS[precision]
    judge(report(max_abs_difference=threshold), precision, BATCHES)
    with pytest.raises(ParityError, match=f"disagree.*allowed for {precision} weights") as raised:
        judge(report(max_abs_difference=threshold * 1.01), precision, BATCHES)
    assert raised.value.exit_status == 8
    assert "Nothing was published" in raised.value.advice


def test_what_passes_for_fp16_does_not_for_fp32() -> None:
    between = report(max_abs_difference=1e-4)
    judge(between, "fp16", BATCHES)
    with pytest.raises(ParityError):
        judge(between, "fp32", BATCHES)


@pytest.mark.parametrize(
    "change",
    [
        {"max_abs_difference": None},
        {"max_abs_difference": float("nan")},
        {"max_abs_difference": float("inf")},
        {"all_finite": False},
    ],
    ids=str,
)
def test_numbers_that_are_not_finite_never_pass(change: dict[str, Any]) -> None:
    with pytest.raises(ParityError, match="aren't finite"):
        judge(report(**change), "fp16", BATCHES)


@pytest.mark.parametrize("discrimination", [0.0, 9e-3, float("nan"), -1.0])
def test_equal_outputs_for_different_sentences_prove_nothing(discrimination: float) -> None:
    with pytest.raises(BertirError) as raised:
        judge(report(discrimination=discrimination), "fp16", BATCHES)
    assert isinstance(raised.value, ParityError | StepError)


def test_a_report_that_compared_nothing_does_not_pass() -> None:
    with pytest.raises(BertirError) as raised:
        judge(report(batches=[]), "fp16", BATCHES)
    assert isinstance(raised.value, ParityError | StepError)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_report_that_lacks_a_figure_is_no_report(key: str) -> None:
    with pytest.raises(StepError, match=r"its report (can't be read|is not complete)"):
        judge(
            json.dumps({name: value for name, value in GOOD.items() if name != key}).encode(), "fp16", BATCHES
        )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'"text"',
        b"[" * 100_000,
        report(batches=[{"batch": float("inf")}]),
    ],
    ids=["empty", "list", "null", "cut", "no text", "string", "nested", "infinite"],
)
def test_what_is_no_report_is_one_step_error(data: bytes) -> None:
    with pytest.raises(StepError, match=r"its report (can't be read|is not complete)"):
        judge(data, "fp16", BATCHES)


@given(st.sampled_from(sorted(GOOD)), JSON, st.sampled_from(sorted(THRESHOLDS)))
def test_whatever_a_report_says_it_passes_only_within_the_threshold(
    key: str, value: Any, precision: str
) -> None:
    try:
        parity = judge(report(**{key: value}), precision, BATCHES)
    except (ParityError, StepError):
        return
    assert 0 <= parity.max_abs_difference <= parity.threshold == THRESHOLDS[precision]
    assert parity.batches
