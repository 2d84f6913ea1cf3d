from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.errors import BertirError, ParityError, StepError
from bertir.graph import HEADS
from bertir.parity import DISCRIMINATION_FACTOR, INFERRED_BATCHES, PROMISED, RUN_BATCHES, THRESHOLDS, judge
from bertir.pipeline import PRECISIONS
from bertir.report import RECIPES, Request

GOOD: dict[str, Any] = {
    "max_abs_difference": 1e-7,
    "max_abs_difference_rounded": 1e-7,
    "discrimination": 0.5,
    "all_finite": True,
    "shapes": [{"batch": batch, "sequence": 128, "max_abs_difference": 1e-7} for batch in RUN_BATCHES],
    "inferred": [{"batch": batch, "sequence": 128} for batch in INFERRED_BATCHES],
    "free_dimensions": ["batch"],
    "fixed_dimensions": {"sequence": 128},
    "refused": [{"batch": 2, "sequence": 64, "refused_by": "TensorFlow: no"}],
    "rms": 0.5,
    "sentences": 4,
    "rounded_finite": True,
    "tensorflow_finite": True,
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


def asked(precision: str = "fp16", **changes: Any) -> Request:
    return Request(precision=precision, **changes)


def test_every_head_and_precision_has_a_threshold_that_leaves_room_to_tell_sentences_apart() -> None:
    assert set(THRESHOLDS) == set(HEADS)
    for thresholds in THRESHOLDS.values():
        assert set(thresholds) == set(PRECISIONS)
        assert thresholds["fp32"] < thresholds["fp16"]
        assert all(DISCRIMINATION_FACTOR * threshold < 0.1 for threshold in thresholds.values())


def test_every_recipe_promises_what_is_free() -> None:
    assert set(PROMISED) == set(RECIPES)


def test_a_good_report_passes_with_its_figures() -> None:
    parity = judge(report(), asked("fp32"))
    assert (parity.max_abs_difference, parity.threshold) == (1e-7, 1e-5)
    assert (parity.batches, parity.inferred) == (RUN_BATCHES, INFERRED_BATCHES)
    assert parity.report == GOOD


def test_more_layers_round_more_and_fewer_are_allowed_no_less() -> None:
    allowed = [judge(report(), asked("fp32"), layers).threshold for layers in (2, 6, 12, 24)]
    assert allowed == [1e-5, 1e-5, 2e-5, 4e-5]


@pytest.mark.parametrize(
    ("head", "rms", "scale"),
    [
        ("pooled", 3.0, 1.0),
        ("sequence", 3.0, 3.0),
        ("sequence", 0.5, 0.5),
        ("classifier", 3.0, 3.0),
        ("classifier", 0.01, 1.0),
    ],
)
def test_a_threshold_is_in_units_of_an_output_that_nothing_bounds(
    head: str, rms: float, scale: float
) -> None:
    threshold = THRESHOLDS[head]["fp32"] * scale
    assert judge(report(rms=rms), asked("fp32", head=head)).threshold == pytest.approx(threshold)
    with pytest.raises(ParityError, match="disagree"):
        judge(report(rms=rms, max_abs_difference=threshold * 1.01), asked("fp32", head=head))


@pytest.mark.parametrize("head", ["sequence", "classifier"])
@pytest.mark.parametrize("rms", [None, "1", [], float("nan")])
def test_without_a_size_of_the_output_nothing_passes(head: str, rms: object) -> None:
    with pytest.raises(BertirError) as raised:
        judge(report(rms=rms), asked(head=head))
    assert isinstance(raised.value, ParityError | StepError)


def test_a_reshapable_ir_whose_batch_is_fixed_is_refused_with_who_refused() -> None:
    fixed = report(
        free_dimensions=[],
        fixed_dimensions={"batch": 1, "sequence": 128},
        refused=[{"batch": 2, "sequence": 128, "refused_by": "OpenVINO: shapes do not match"}],
    )
    with pytest.raises(ParityError, match=r"promises a free batch.*OpenVINO: shapes do not match"):
        judge(fixed, asked())
    assert judge(fixed, asked(recipe="meta-graph")).report["fixed_dimensions"] == {
        "batch": 1,
        "sequence": 128,
    }


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_threshold_itself_passes_and_a_little_more_does_not(precision: str) -> None:
    threshold = THRESHOLDS["pooled"][precision]
    judge(report(max_abs_difference=threshold), asked(precision))
    with pytest.raises(ParityError, match=f"disagree.*allowed for {precision} weights") as raised:
        judge(report(max_abs_difference=threshold * 1.01), asked(precision))
    assert raised.value.exit_status == 8
    assert "Nothing was published" in raised.value.advice


@pytest.mark.parametrize(
    ("precision", "recipe", "advice"),
    [
        (
            "fp16",
            "reshapable",
            "Try --precision fp32 and another --seq-len; if that fails too, please report",
        ),
        ("fp32", "reshapable", "Try another --seq-len; if that fails too, please report"),
        ("fp16", "meta-graph", "Try --precision fp32; if that fails too, please report"),
        ("fp32", "meta-graph", "Nothing was published. Please report the model."),
    ],
)
def test_who_is_refused_is_told_to_try_what_was_not_tried(precision: str, recipe: str, advice: str) -> None:
    request = asked(precision, recipe=recipe)
    shapes: dict[str, Any] = {}
    if recipe == "meta-graph":
        shapes = {"free_dimensions": [], "fixed_dimensions": {}}
    with pytest.raises(ParityError, match="disagree") as raised:
        judge(report(max_abs_difference=1.0, **shapes), request)
    assert advice in raised.value.advice


def test_fp16_may_differ_by_rounding_and_by_nothing_else() -> None:
    exact = THRESHOLDS["pooled"]["fp32"]
    parity = judge(report(max_abs_difference=1e-3, max_abs_difference_rounded=exact), asked("fp16"))
    assert (parity.rounded, parity.exact_threshold) == (exact, exact)
    with pytest.raises(ParityError, match="disagree by more than rounding") as raised:
        judge(report(max_abs_difference=1e-3, max_abs_difference_rounded=exact * 1.01), asked("fp16"))
    assert raised.value.exit_status == 8


def test_of_fp32_nothing_is_rounded() -> None:
    assert judge(report(max_abs_difference_rounded=None), asked("fp32")).rounded is None


def test_sentences_are_told_apart_by_more_than_what_only_rounding_may_hide() -> None:
    # The sharp comparison is what proves something: its threshold is what outputs must differ by.
    judge(report(discrimination=1e-3), asked("fp16"))
    with pytest.raises(ParityError, match="proves nothing"):
        judge(report(discrimination=1.9 * THRESHOLDS["pooled"]["fp32"]), asked("fp16"))


def test_what_passes_for_fp16_does_not_for_fp32() -> None:
    between = report(max_abs_difference=1e-4)
    judge(between, asked("fp16"))
    with pytest.raises(ParityError):
        judge(between, asked("fp32"))


@pytest.mark.parametrize(
    "change",
    [
        {"max_abs_difference": None},
        {"max_abs_difference": float("nan")},
        {"max_abs_difference": float("inf")},
        {"max_abs_difference_rounded": None},
        {"max_abs_difference_rounded": float("nan")},
        {"max_abs_difference_rounded": float("inf")},
        {"all_finite": False},
    ],
    ids=str,
)
def test_numbers_that_are_not_finite_never_pass_and_it_is_told_whose_they_are(change: dict[str, Any]) -> None:
    with pytest.raises(
        ParityError, match="the IR gives numbers that aren't finite, where TensorFlow's are"
    ) as ir:
        judge(report(**change), asked("fp16"))
    assert ir.value.numbers
    assert "report the model" in ir.value.advice
    with pytest.raises(ParityError, match="TensorFlow itself gives numbers that aren't finite") as weights:
        judge(report(**change, tensorflow_finite=False), asked("fp16"))
    assert not weights.value.numbers  # another way to run the IR would tell nothing
    assert "a trained model" in weights.value.advice
    with pytest.raises(
        ParityError, match="rounded to fp16 TensorFlow gives numbers that aren't finite"
    ) as large:
        judge(report(**change, rounded_finite=False), asked("fp16"))
    assert not large.value.numbers
    assert large.value.advice.startswith("Nothing was published. Try --precision fp32, ")


def test_where_no_weight_was_rounded_nothing_is_said_of_it() -> None:
    assert judge(report(rounded_finite=None), asked("fp32")).rounded is None


@pytest.mark.parametrize("discrimination", [0.0, 1.9e-5, float("nan"), -1.0])
def test_equal_outputs_for_different_sentences_prove_nothing(discrimination: float) -> None:
    with pytest.raises(BertirError) as raised:
        judge(report(discrimination=discrimination), asked("fp16"))
    assert isinstance(raised.value, ParityError | StepError)


def test_a_vocabulary_without_words_is_not_taken_for_weights_that_tell_nothing_apart() -> None:
    with pytest.raises(ParityError, match=r"vocab\.txt has no words") as raised:
        judge(report(discrimination=None), asked("fp16"))
    assert "vocabulary of this model" in raised.value.advice
    assert not raised.value.numbers


def test_a_report_that_left_out_a_batch_is_not_complete() -> None:
    some = [{"batch": batch, "sequence": 128} for batch in RUN_BATCHES]
    # One that should have been run isn't there because its shapes were inferred.
    with pytest.raises(StepError, match="not complete"):
        judge(report(shapes=some[:-1], inferred=[*GOOD["inferred"], some[-1]], refused=[]), asked())
    with pytest.raises(StepError, match="not complete"):
        judge(report(inferred=[]), asked())
    judge(
        report(shapes=[*some, {"batch": 32, "sequence": 128}], inferred=GOOD["inferred"][:-1]),
        asked(batch=32),
    )
    for shapes in (some[:-1], some[1:]):
        with pytest.raises(StepError, match="not complete"):
            judge(report(shapes=shapes, refused=[]), asked())
    with pytest.raises(StepError, match="not complete"):
        judge(report(), asked(batch=5))
    judge(report(shapes=[*some, {"batch": 5, "sequence": 128}]), asked(batch=5))


def test_a_report_that_compared_nothing_does_not_pass() -> None:
    with pytest.raises(BertirError) as raised:
        judge(report(shapes=[]), asked("fp16"))
    assert isinstance(raised.value, ParityError | StepError)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_report_that_lacks_a_figure_is_no_report(key: str) -> None:
    with pytest.raises(StepError, match=r"its report (can't be read|is not complete)"):
        judge(
            json.dumps({name: value for name, value in GOOD.items() if name != key}).encode(), asked("fp16")
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
        report(shapes=[{"batch": float("inf")}]),
    ],
    ids=["empty", "list", "null", "cut", "no text", "string", "nested", "infinite"],
)
def test_what_is_no_report_is_one_step_error(data: bytes) -> None:
    with pytest.raises(StepError, match=r"its report (can't be read|is not complete)"):
        judge(data, asked("fp16"))


@given(st.sampled_from(sorted(GOOD)), JSON, st.sampled_from(PRECISIONS))
def test_whatever_a_report_says_it_passes_only_within_the_threshold(
    key: str, value: Any, precision: str
) -> None:
    try:
        parity = judge(report(**{key: value}), asked(precision))
    except (ParityError, StepError):
        return
    assert 0 <= parity.max_abs_difference <= parity.threshold == THRESHOLDS["pooled"][precision]
    if precision == "fp16":
        assert parity.rounded is not None
        assert 0 <= parity.rounded <= parity.exact_threshold == THRESHOLDS["pooled"]["fp32"]
    assert parity.batches
