"""report.html: the report for people, from report.json alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st
from some_build import FACTS, VIRTUALENV, some_build

from bertir.lineage import lineage, slots
from bertir.page import page
from bertir.report import report

if TYPE_CHECKING:
    from collections.abc import Callable

VOID = {"meta", "link", "br", "img"}


class Read(HTMLParser):
    """A page's elements, and its text; it fails if an element isn't closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture
def told() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(report(some_build(ROOT / "models.toml")))
    return value


def read(told: dict[str, Any]) -> Read:
    return Read(page(told).decode())


def test_the_page_has_what_the_report_has(told: dict[str, Any]) -> None:
    text = read(told).text
    for wanted in (
        "all-minilm-l6-v2, reshapable, fp16",
        "1.0e-04 of 5e-03 allowed",
        "IteratorGetNext:4",
        "bert/pooler/dense/Tanh:0",
        "TensorFlow: Cannot feed value of shape (2, 64)",
        "32 rows of 128 tokens",
        "0001-b.patch",
        "Engine 20.10.24, amd64",
        "numpy 1.26.4",
        told["ir"]["model.bin"].removeprefix("sha256:"),
    ):
        assert wanted in text, wanted


def test_the_page_is_the_same_for_the_same_report_whatever_the_hash_seed(
    told: dict[str, Any],
) -> None:
    program = (
        "import json, sys; from bertir.page import page; sys.stdout.buffer.write(page(json.load(sys.stdin)))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(told).encode(),
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")},
        ).stdout
        for seed in ("1", "2")
    }
    assert shown == {page(told)}


def test_the_page_asks_for_nothing_and_runs_nothing(told: dict[str, Any]) -> None:
    shown = read(told)
    assert not {tag for tag, _ in shown.tags} & {"script", "link", "img", "iframe", "object", "form", "base"}
    names = {name for _, attributes in shown.tags for name in attributes}
    assert not names & {"src", "href", "srcset", "action", "background"}
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in page(told).decode()
    [policy] = [given["content"] for tag, given in shown.tags if given.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def _texts(value: Any, change: Callable[[str], str], path: str = "") -> Any:
    """Change the texts that strangers may choose: names of a checkpoint's and a graph's, and what a step said."""
    if isinstance(value, dict):
        return {key: _texts(item, change, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item, change, path) for item in value]
    chosen = re.search(r"\.(title|names|refused_by|kernel|version)$|from\.model\.name$", path)
    return change(value) if chosen and isinstance(value, str) else value


@given(
    text=st.text(min_size=1, max_size=40)
    | st.sampled_from(["</style><script>alert(1)</script>", "\x00\x1b[2J", "]]>", '"><b x="'])
)
def test_no_name_of_a_strangers_becomes_part_of_the_page(text: str) -> None:
    told = json.loads(report(some_build(ROOT / "models.toml")))
    plain = read(_texts(told, lambda _: "x"))
    hostile = read(_texts(told, lambda _: text))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", hostile.text)


def test_an_fp32_report_and_one_of_the_published_graph_have_pages_too(told: dict[str, Any]) -> None:
    told["parity"]["max_abs_difference_rounded"] = None
    for shape in told["parity"]["shapes"]:
        del shape["max_abs_difference_rounded"]
        shape["max_abs_difference"] = 0.0  # bit for bit
    told["request"] |= {"recipe": "meta-graph", "precision": "fp32", "batch": None, "seq_len": None}
    told["frozen_graph"] = None
    told["free_dimensions"] = []
    text = read(told).text
    assert "but for rounding" not in text
    assert "free to changenothing" in text


def test_what_was_made_of_what_follows_from_digests(told: dict[str, Any]) -> None:
    def step(name: str, inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
        return {"name": name, "derivation": {"inputs": inputs}, "outputs": outputs, "facts": {}}

    pristine = next(iter(told["from"]["source"]["pristine"].values()))
    patch = told["from"]["source"]["patches"][0]["digest"]
    model = next(iter(told["from"]["model"]["files"].values()))
    told["steps"] = [
        step("source", {"p": patch, "m": pristine}, {"m": "patched"}),
        step("freeze", {"/in/c": model, "/in/m": "patched", "/step/freeze.py": model}, {"g": "graph"}),
        step(
            "convert",
            {"/in/g": "graph", "/in/rows": "of nobody"},
            {"x": told["ir"]["model.xml"], "b": told["ir"]["model.bin"]},
        ),
        step("reference", {"/in/c": model, "/in/m": "patched"}, {"r": "reference"}),
        step("verify", {"/in/x": told["ir"]["model.xml"], "/in/r": "reference"}, {"parity": "parity"}),
    ]
    of = lineage(told)
    assert set(of.edges) == {
        ("patches", "source"),
        ("BERT source", "source"),
        ("model", "freeze"),
        ("source", "freeze"),
        ("freeze", "convert"),
        ("model", "reference"),
        ("source", "reference"),
        ("convert", "verify"),
        ("reference", "verify"),
        ("convert", "published IR"),
        ("verify", "published IR"),
    }
    columns = {node.name: node.column for node in of.nodes}
    assert all(columns[before] < columns[after] for before, after in of.edges)
    placed, ways = slots(of)
    for way in ways.values():
        assert [number for number, column in enumerate(placed) if {*way} & {*column}] == list(
            range(columns[way[0]], columns[way[-1]] + 1)
        )


def test_what_ran_in_a_virtualenv_is_not_said_to_have_run_in_the_image() -> None:
    build = some_build(ROOT / "models.toml")
    [step] = build.steps
    engine = {**FACTS["engine"], "name": "local", "without": "a network of its own"}
    local = replace(step, facts={**FACTS, "engine": engine})
    text = read(json.loads(report(replace(build, steps=(local,), virtualenv=VIRTUALENV)))).text
    short = VIRTUALENV["digest"][7:19]
    assert f"ran in the virtualenv {short}" in text
    assert "Wheels of the virtualenv, 1" in text
    assert f"{short}, Python 3.11.2, glibc 2.36" in text
    assert "without a network of its own" in text
    assert "of the image" not in text
    assert str(build.image.image_id)[7:19] not in text
