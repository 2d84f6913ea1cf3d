from __future__ import annotations

import importlib.util
import io
import marshal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType

PROGRAM = Path(__file__).parents[2] / "docker" / "steps" / "precompile.py"
TAG = sys.implementation.cache_tag


def _run(folder: Path, sources: Mapping[str, bytes], **environment: str) -> subprocess.CompletedProcess[str]:
    with tarfile.open(folder / "sources.tar", "w") as tar:
        for name, content in sources.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return subprocess.run(
        [sys.executable, PROGRAM, "sources.tar", "pyc.tar"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )


def _compiled(folder: Path) -> dict[str, bytes]:
    with tarfile.open(folder / "pyc.tar") as tar:
        return {info.name: file.read() for info in tar if (file := tar.extractfile(info))}


def test_code_has_its_final_path_and_an_unchecked_hash(tmp_path: Path) -> None:
    source = b"def f():\n    return 1\n"
    _run(tmp_path, {"usr/lib/python3.11/a.py": source})
    data = _compiled(tmp_path)[f"usr/lib/python3.11/__pycache__/a.{TAG}.pyc"]
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\x01\x00\x00\x00", "PEP 552: hash-based, not checked"
    assert data[8:16] == importlib.util.source_hash(source)
    code: CodeType = marshal.loads(data[16:])  # noqa: S302 - made a moment ago
    assert code.co_filename == "/usr/lib/python3.11/a.py"


def test_a_file_that_is_no_python_3_is_left_out_and_named(tmp_path: Path) -> None:
    run = _run(tmp_path, {"a.py": b"print 1\n", "b.py": b"x = 1\n", "c.py": b"\xff\xfe"})
    assert list(_compiled(tmp_path)) == [f"__pycache__/b.{TAG}.pyc"]
    assert run.stderr.splitlines() == ["left out: /a.py: SyntaxError", "left out: /c.py: SyntaxError"]


def test_many_files_give_the_same_bytes_on_each_run(tmp_path: Path) -> None:
    sources = {
        f"p/m{number:04}.py": f"s = {{'a', 'b', {number}}}\nx = 'name' in {{'a', 'name'}}\n".encode()
        for number in range(600)
    }
    outcomes = set()
    for seed in ("0", "1", "2"):
        _run(tmp_path, sources, PYTHONHASHSEED=seed)
        outcomes.add((tmp_path / "pyc.tar").read_bytes())
    assert len(outcomes) == 1
    assert len(_compiled(tmp_path)) == 600


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("usage: precompile.py")


@pytest.mark.parametrize("name", ["a.py", "deep/down/b.py"])
def test_folders_in_the_sources_are_passed_over(tmp_path: Path, name: str) -> None:
    _run(tmp_path, {name: b""})
    assert len(_compiled(tmp_path)) == 1
