"""What fuzzing found, each as the smallest case: all of it ended in a traceback, or filled the memory."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from packages import make_wheel, small_intent

from bertir.apt import parse_uris
from bertir.errors import BertirError, ConfigurationError, ImageError, LockError
from bertir.intent import load_intent, parse_intent
from bertir.lock import parse_image_lock
from bertir.model import load_models
from bertir.task_data import read_dev_tsv
from bertir.upstream import load_series, load_source_lock, load_upstream
from bertir.wheel import opened_wheel

if TYPE_CHECKING:
    from pathlib import Path

SHA = "SHA256:" + "a" * 64


@pytest.mark.parametrize(
    "line",
    [
        f"'https://m/pool/main/b/base_12_amd64.deb' base.deb 1 {SHA}",
        f"'https://m/pool/main/b/base_12_amd64.deb' a_b_c_d.deb 1 {SHA}",
        f"'https://m/pool/../../x_1_amd64.deb' x_1_amd64.deb 1 {SHA}",
        f"'https://m/pool/main/%2e%2e/x.deb' x_1_amd64.deb 1 {SHA}",
        f"'https://m/pool/main/x.deb' x_1_a%0amd64.deb 1 {SHA}",
        f"'https://m/pool/main/x.deb' x_1_amd64.deb {'9' * 5_000} {SHA}",
    ],
)
def test_a_file_of_apts_with_an_odd_name_is_no_pin(line: str) -> None:
    with pytest.raises(LockError, match="can't be pinned"):
        parse_uris(line, "https://m")


@pytest.mark.parametrize(
    "text", ["[console_scripts]\nx", "[a]\n[a]\n", "x = 1", "[console_scripts]\na = %(b)s"]
)
def test_entry_points_that_are_none_are_one_message(tmp_path: Path, text: str) -> None:
    pin, path = make_wheel(tmp_path, {"small.py": b""}, entry_points=text)
    with (
        pytest.raises(ImageError, match="can't read the wheel"),
        opened_wheel(pin, path, small_intent().python),
    ):
        pass


def test_a_dotted_key_without_end_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("a." * 100_000 + "a = 1\n")
    with pytest.raises(ConfigurationError, match="line 1 has more than 1000 characters"):
        load_models(tmp_path / "models.toml")


@pytest.mark.parametrize("text", ["x = " + "[" * 400 + "]" * 400, "x = 0x" + "f" * 900, "x = '\x1b[31m'"])
def test_deep_and_long_values_are_one_message(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_intent(text)
    assert str(raised.value).isprintable()


def test_an_image_toml_in_another_encoding_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigurationError, match=r"image\.toml is not UTF-8"):
        load_intent(tmp_path)


def test_a_lock_that_nests_without_end_is_one_message() -> None:
    with pytest.raises(LockError, match="is no JSON"):
        parse_image_lock('{"a":' * 100_000, debian=(), wheels=())


@pytest.mark.parametrize("name", [float("nan"), 5, None, []])
def test_a_source_lock_whose_patches_have_no_names_is_one_message(checkout: Path, name: Any) -> None:
    path = checkout / "patches" / "source.lock"
    value = json.loads(path.read_bytes())
    value["patches"][0][0] = name
    path.write_text(json.dumps(value))
    with pytest.raises(LockError, match="is not a source lock"):
        load_source_lock(checkout / "patches", load_upstream(checkout / "patches"))


@pytest.mark.parametrize("what", ["series", "0001-a.patch"])
def test_a_pipe_in_a_series_is_not_waited_for(tmp_path: Path, what: str) -> None:
    (tmp_path / "series").write_text("0001-a.patch\n")
    (tmp_path / what).unlink(missing_ok=True)
    os.mkfifo(tmp_path / what)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        load_series(tmp_path)


def test_no_message_moves_the_cursor() -> None:
    error = BertirError("a \x1b[2J\x07 b\n  found \u202ec\r\td", advice="run \x9b31m")
    assert str(error) == "a \\x1b[2J\\x07 b\n  found \\u202ec\\r d"
    assert error.advice == "run \\x9b31m"


# a user's dev.tsv

HEAD = b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
ROW = b"1\t1\t2\tone\ttwo\n"


def test_a_million_rows_are_read_without_keeping_them(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes(HEAD + ROW * 1_000_000)
    assert len(read_dev_tsv(tmp_path)) == len(HEAD) + len(ROW) * 1_000_000


@pytest.mark.parametrize(
    ("head", "piece", "times", "message"),
    [
        (HEAD + b"1\t1\t2\tone\t", b"x", 200_000, "field larger than field limit"),
        (HEAD, b"x", 50_000_000, "field larger than field limit"),
        (HEAD, b"\n", 50_000_000, "line 2: expected a label"),
        (HEAD, b"\t", 5_000_000, "line 2: expected a label"),
        (b"", b"\0", 1_000_000, "field larger than field limit"),
        (HEAD, b"\0\t1\t2\ta\tb\n", 1, "line 2: expected a label"),
    ],
    ids=["a long field", "a line without end", "empty lines", "tabs", "NULs", "a NUL for a label"],
)
def test_a_dev_tsv_that_is_a_bomb_is_one_message(
    tmp_path: Path, head: bytes, piece: bytes, times: int, message: str
) -> None:
    (tmp_path / "dev.tsv").write_bytes(head + piece * times)
    with pytest.raises(ConfigurationError, match=message):
        read_dev_tsv(tmp_path)


def test_a_dev_tsv_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "dev.tsv").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigurationError, match="has over 100 MB"):
        read_dev_tsv(tmp_path)
