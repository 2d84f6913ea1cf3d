from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertir.errors import DigestMismatchError, FetchError
from bertir.model import load_models
from bertir.show import build_text, error_json, error_text, model_facts, models_text, table, to_json

if TYPE_CHECKING:
    from pathlib import Path

FACTS: dict[str, Any] = {
    "request": {"model": "tiny", "recipe": "reshapable", "precision": "fp16", "head": "pooled"},
    "free_dimensions": ["batch"],
    "fixed_dimensions": {"sequence": 128},
    "folder": "dist/tiny/reshapable-fp16",
    "unchanged": False,
    "files": {"model.xml": "sha256:" + "1" * 64, "model.bin": "sha256:" + "2" * 64},
    "parity": {
        "max_abs_difference": 1.93e-4,
        "threshold": 5e-3,
        "max_abs_difference_rounded": 3.1e-7,
        "threshold_rounded": 1e-5,
        "batches": [1, 4],
        "batches_inferred": [8, 32],
    },
    "steps": [
        {"name": "source", "cached": True, "seconds": 1.0},
        {"name": "freeze", "cached": False, "seconds": 14.04},
        {"name": "convert", "cached": False, "seconds": 15.0},
    ],
    "seconds": 29.31,
}


def test_columns_are_aligned_and_the_last_one_is_left_as_it_is() -> None:
    rows = [("name", "value"), ("a", "1  2"), ("longest one", "")]
    assert table(rows) == "name         value\na            1  2\nlongest one"


def test_an_error_is_its_message_then_its_advice() -> None:
    assert error_text(FetchError("no", advice="do this")) == "error: no\ndo this"
    assert error_text(FetchError("no")) == "error: no"


def test_an_error_in_json_has_kind_message_advice_and_status() -> None:
    error = DigestMismatchError("no\n  é \x1b[31m", advice="do this")
    text = error_json(error)
    assert json.loads(text) == {
        "error": {
            "kind": "DigestMismatchError",
            "message": "no\n  é \\x1b[31m",
            "advice": "do this",
            "exit_status": 102,
        }
    }
    assert text.isascii()
    assert "\x1b" not in text


def test_a_build_says_where_what_how_well_and_how_long() -> None:
    text = build_text(FACTS)
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert lines["IR"] == "dist/tiny/reshapable-fp16/model.xml"
    assert lines["model.xml"] == FACTS["files"]["model.xml"]
    assert lines["model.bin"] == FACTS["files"]["model.bin"]
    assert lines["parity"] == (
        "max abs difference 1.9e-04, allowed 5e-03; but for rounding 3.1e-07, allowed 1e-05; batches 1, 4; reshapes to 8, 32"
    )
    assert lines["inputs"] == "batch free, sequence 128"
    assert lines["steps"] == "freeze 14.0 s, convert 15.0 s"
    assert lines["seconds"] == "29.3"
    assert lines["model"] == "tiny, reshapable, fp16, pooled"


def test_a_build_with_nothing_to_do_says_so() -> None:
    cached = [step | {"cached": True} for step in FACTS["steps"]]
    text = build_text(FACTS | {"steps": cached, "unchanged": True})
    assert "nothing to do" in text
    assert "no container was run" in text
    assert "model.xml (unchanged)" in text


def test_a_model_in_text_and_in_json_says_the_same(root: Path) -> None:
    models = list(load_models(root / "models.toml").values())
    facts = [model_facts(model, default=index == 0, fetched=True) for index, model in enumerate(models)]
    text = models_text(facts)
    assert len(text.splitlines()) == 1 + len(models)
    for model in json.loads(to_json(facts)):
        [line] = [line for line in text.splitlines() if line.startswith(f"{model['name']} ")]
        assert ("(default)" in line) is model["default"]
        assert str(model["hidden"]) in line
        assert model["title"] in line


def test_json_is_sorted_so_that_two_runs_can_be_compared() -> None:
    assert to_json({"b": 1, "a": [1]}) == to_json({"a": [1], "b": 1})
