"""The tutorial's data set, and what its programs refuse before anything is done."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "examples" / "fine_tuning"


def rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "count"), [("train.tsv", 64), ("dev.tsv", 40)])
def test_the_rows_are_colas_and_half_of_them_are_of_each_label(name: str, count: int) -> None:
    found = rows(name)
    assert len(found) == count
    assert {(len(row), row[0], row[2]) for row in found} == {(4, "own", "")}
    assert sorted(row[1] for row in found) == ["0"] * (count // 2) + ["1"] * (count // 2)
    assert all(row[3] == row[3].strip() and row[3][-1] in ".?" for row in found)


def test_no_sentence_that_is_judged_was_learned_from_and_those_to_predict_are_the_same() -> None:
    learned, judged = ([row[3] for row in rows(name)] for name in ("train.tsv", "dev.tsv"))
    assert len({*learned, *judged}) == len(learned) + len(judged)
    header, *to_predict = rows("test.tsv")
    assert header == ["index", "sentence"]
    assert to_predict == [[str(index), sentence] for index, sentence in enumerate(judged)]


def test_the_service_imports_what_it_declares_and_each_of_it_in_one_module() -> None:
    modules = {path.stem: path for path in (ROOT / "examples" / "serving").glob("*.py")}
    importers: dict[str, list[str]] = {}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported = {(node.module or "").partition(".")[0]}
            else:
                continue
            for one in imported - sys.stdlib_module_names - modules.keys():
                importers.setdefault(one, []).append(name)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert set(importers) == {re.split(r"[<>=]", item)[0] for item in groups["serving"]}
    assert {one: set(names) for one, names in importers.items() if len(set(names)) > 1} == {}


def lay_out(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "lay_out.py"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_what_a_training_starts_from_is_laid_out_in_a_new_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    environment = {"BERTIR_STORE": str(tmp_path / "store")}
    done = lay_out(tmp_path / "there", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: {tmp_path}/there is there already\nName a new folder, or remove this one.\n"
    )
    done = lay_out(tmp_path / "new", "--model", "all-minilm", **environment)
    assert done.returncode == 2
    assert "Did you mean all-minilm-l6-v2?" in done.stderr
    assert not (tmp_path / "new").exists()
