"""The first difference of two builds, and what of a published directory isn't compared."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir import compare, publish
from bertir.compare import VOLATILE, Stage, first_difference, first_offset, published_stage, settled
from bertir.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = Digest.of_bytes(b"1"), Digest.of_bytes(b"2")
REPORT: dict[str, Any] = {
    "format": 2,
    "ir": {"model.xml": "sha256:aa"},
    "parity": {
        "max_abs_difference": 0.1,
        "discrimination": 0.2,
        "threshold": 0.5,
        "shapes": [{"batch": 1, "max_abs_difference": 0.1, "mean_abs_difference": 0.1, "min_cosine": 0.9}],
    },
    "steps": [
        {"name": "convert", "outputs": {"model.xml": "sha256:aa"}, "facts": {"seconds": 1.0, "log": "x"}},
        {"name": "verify", "outputs": {"parity.json": "sha256:bb"}, "facts": {"seconds": 1.0}},
    ],
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Give the path of every number and text in a JSON value."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


def changed(path: tuple[Any, ...]) -> bytes:
    value = copy.deepcopy(REPORT)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "another"
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property; they write the same files again."""
    return tmp_path_factory.mktemp("examples")


NOT_COMPARED = {
    ("parity", "max_abs_difference"),
    ("parity", "discrimination"),
    ("parity", "shapes", 0, "max_abs_difference"),
    ("parity", "shapes", 0, "mean_abs_difference"),
    ("parity", "shapes", 0, "min_cosine"),
    ("steps", 0, "facts", "seconds"),
    ("steps", 0, "facts", "log"),
    ("steps", 1, "facts", "seconds"),
    ("steps", 1, "outputs", "parity.json"),
}


@pytest.mark.parametrize("path", leaves(REPORT), ids=str)
def test_of_a_report_everything_is_compared_but_what_is_listed(path: tuple[Any, ...]) -> None:
    equal = settled("report.json", changed(path)) == settled("report.json", json.dumps(REPORT).encode())
    assert equal == (path in NOT_COMPARED)


def test_a_report_without_what_is_volatile_is_compared_all_the_same() -> None:
    assert settled("report.json", b'{"format": 2}') == b'{\n "format": 2\n}\n'


def test_a_published_directory_is_a_stage_with_every_file(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes(b"<net/>")
    (tmp_path / "report.json").write_text(json.dumps(REPORT), encoding="utf-8")
    stage = published_stage(tmp_path)
    assert stage.files["model.xml"] == Digest.of_bytes(b"<net/>")
    assert stage.files["report.json"] == Digest.of_bytes(settled("report.json", json.dumps(REPORT).encode()))
    assert stage.files.keys() == {"model.xml", "report.json"}


def test_of_a_statement_everything_is_compared_but_who_ran_it_and_when() -> None:
    whole = {"subject": [], "predicate": {"buildDefinition": {"x": 1}, "runDetails": {"metadata": {}}}}
    other = {"subject": [], "predicate": {"buildDefinition": {"x": 1}, "runDetails": {"builder": {}}}}
    third = {"subject": [], "predicate": {"buildDefinition": {"x": 2}, "runDetails": {"metadata": {}}}}
    one, two, three = (
        settled("provenance.json", json.dumps(value).encode()) for value in (whole, other, third)
    )
    assert one == two != three


def test_what_is_volatile_is_what_the_sums_leave_out() -> None:
    # The page says what the report says, and is compared by it.
    assert set(VOLATILE) == {*publish.VOLATILE} - {publish.PAGE}


@given(left=st.binary(max_size=40), right=st.binary(max_size=40), chunk=st.integers(1, 9))
def test_the_first_offset_is_where_the_common_beginning_ends(
    scratch: Path, left: bytes, right: bytes, chunk: int
) -> None:
    folder = scratch
    (folder / "left").write_bytes(left)
    (folder / "right").write_bytes(right)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "CHUNK", chunk)
        offset = first_offset(folder / "left", folder / "right")
    if left == right:
        assert offset is None
    else:
        assert offset is not None
        assert left[:offset] == right[:offset]
        assert left[offset : offset + 1] != right[offset : offset + 1]


def test_a_difference_far_into_a_file_is_found_at_its_byte(tmp_path: Path) -> None:
    data = bytes(3 * compare.CHUNK)
    (tmp_path / "left").write_bytes(data)
    (tmp_path / "right").write_bytes(data[:-2] + b"\1\0")
    assert first_offset(tmp_path / "left", tmp_path / "right") == len(data) - 2


FILES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from([ONE, OTHER]))


@given(FILES, FILES)
def test_stages_differ_at_the_first_name_that_is_new_gone_or_other(
    left: dict[str, Digest], right: dict[str, Digest]
) -> None:
    found = first_difference(
        Stage(name="freeze", cached=False, files=left), Stage(name="freeze", cached=True, files=right)
    )
    differing = [name for name in "abc" if left.get(name) != right.get(name)]
    assert (found.file if found else None) == (differing[0] if differing else None)
    if found:
        assert (found.stage, found.expected, found.found) == (
            "freeze",
            left.get(found.file),
            right.get(found.file),
        )
        assert str(found).startswith(f"freeze: {found.file} ")


def test_what_is_measured_is_not_compared() -> None:
    stages = [Stage(name="verify", cached=False, files={"parity.json": digest}) for digest in (ONE, OTHER)]
    assert first_difference(*stages) is None
