"""The step that says what a byte belongs to, for all that can be read without TensorFlow."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from types import ModuleType

PROGRAM = Path(__file__).parents[2] / "docker" / "steps" / "locate.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("locate", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


locate: Any = load()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property; they write the same files again."""
    return tmp_path_factory.mktemp("examples")


def ir(layers: int) -> str:
    rows = (
        f'<layer id="{number}" name="layer {number}" type="Const">'
        f'<data element_type="f32" offset="{number * 16}" size="16" /></layer>'
        for number in range(layers)
    )
    return f'<?xml version="1.0"?><net name="model" version="11"><layers>{"".join(rows)}</layers></net>'


@given(layers=st.integers(1, 6), data=st.data())
def test_a_byte_of_a_layers_name_is_in_that_layer(scratch: Path, layers: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, layers - 1))
    text = ir(layers)
    path = scratch / "model.xml"
    path.write_text(text, encoding="utf-8")
    offset = text.index(f'name="layer {number}"') + len('name="')
    assert (
        locate.in_xml(path, path, offset)
        == f'element /net[@name="model"]/layers/layer[@id="{number}"][@name="layer {number}"], attribute name'
    )


@given(layers=st.integers(1, 6), data=st.data())
def test_a_byte_of_the_weights_is_in_the_constant_that_has_its_place(
    scratch: Path, layers: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, layers * 16 - 1))
    path = scratch / "model.bin"
    path.with_suffix(".xml").write_text(ir(layers), encoding="utf-8")
    assert locate.in_weights(path, path, offset) == f"constant layer {offset // 16}"
    assert locate.in_weights(path, path, layers * 16) == "no constant"


@pytest.mark.parametrize(
    ("left", "right", "place"),
    [
        ({"a": 1, "b": [1, {"c": 2}]}, {"a": 1, "b": [1, {"c": 3}]}, ".b[1].c: 2 and 3"),
        ({"a": 1}, {"a": 1, "b": 2}, ".b: None and 2"),
        ([1], [1, 2], "[1]: None and 2"),
        ({"a": 1}, [1], ".: {'a': 1} and [1]"),
        ({"a": 1}, {"a": 1}, "only in how it is written"),
    ],
)
def test_json_is_located_by_path(tmp_path: Path, left: object, right: object, place: str) -> None:
    for name, value in (("left", left), ("right", right)):
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    assert locate.in_json(tmp_path / "left", tmp_path / "right", 0) == place


def test_a_layer_of_the_image_is_located_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "layer.tar"
    with tarfile.open(path, "w:") as tar:
        for name in ("first", "second"):
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes(700)))
    assert locate.in_tar(path, path, 5) == "entry first, its header"
    assert locate.in_tar(path, path, 512 + 3) == "entry first, byte 3 of it"
    assert locate.in_tar(path, path, 1536 + 5) == "entry second, its header"
    assert locate.in_tar(path, path, 1536 + 512 + 699) == "entry second, byte 699 of it"
    assert locate.in_tar(path, path, 9000) == "the end of the archive"


def test_a_file_that_cannot_be_read_still_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "model.xml").write_text(f"<{side}", encoding="utf-8")
    monkeypatch.setattr(locate, "LEFT", tmp_path / "left")
    monkeypatch.setattr(locate, "RIGHT", tmp_path / "right")
    assert locate.main(["model.xml", "1", str(tmp_path / "place.json")]) == 0
    assert "can't be read as .xml" in json.loads((tmp_path / "place.json").read_bytes())["place"]


def test_what_no_reader_is_for_has_no_place(tmp_path: Path) -> None:
    assert locate.main(["vocab.txt", "1", str(tmp_path / "place.json")]) == 0
    assert json.loads((tmp_path / "place.json").read_bytes()) == {"place": ""}
