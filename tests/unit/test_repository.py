"""What holds for the files of the project as they are committed."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The one module that calls each library; urllib3 and requests' exceptions come up through docker-py too.
OWNERS = {
    "docker": {"engine", "login"},  # the one speaks to an engine, the other reads what `docker login` left
    "git": {"source"},
    "requests": {"web", "engine"},
    "urllib3": {"web", "engine"},
    "installer": {"wheel"},
    "debian": {"deb", "licences"},
    "cyclonedx": {"sbom"},
    "packageurl": {"sbom"},
    "packaging": {"inventory", "licences", "versions"},
}
LOCAL = {"localhost", "127.0.0.1", ""}


def files_of(root: Path) -> list[Path]:
    """What Git tracks, and what it would."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip("this is no Git checkout")
    found = [root / name for name in run.stdout.split("\0") if name]
    return [path for path in found if path.is_file()]


def hosts_in(text: str) -> set[str]:
    return {urlsplit(url).hostname or "" for url in re.findall(r"\w+://[^\s'\"\]]+", text)}


def registry_hosts() -> set[str]:
    """The registries that this machine uses, asked of pip and apt: no test names one either."""
    hosts: set[str] = set()
    if importlib.util.find_spec("pip") is not None:
        defaults = (
            "from pip._internal.models.index import PyPI; print('https://' + PyPI.netloc);"
            "print('https://' + PyPI.file_storage_domain)"
        )
        for arguments in (["-m", "pip", "config", "list"], ["-c", defaults]):
            run = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
            hosts |= hosts_in(run.stdout)
    if shutil.which("apt-get") is not None:
        run = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)"],
            check=False,
            capture_output=True,
            text=True,
        )
        hosts |= hosts_in(run.stdout)
    return hosts - LOCAL


def modules(root: Path) -> list[Path]:
    return sorted((root / "src" / "bertir").glob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Top-level names of all that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.module.split(".")[0]


def test_no_file_names_a_registrys_host(root: Path) -> None:
    hosts = registry_hosts()
    if not hosts:
        pytest.skip("this machine has neither pip nor apt to ask for registries")
    named = []
    for path in files_of(root):
        text = path.read_bytes().decode("utf-8", errors="replace").lower()
        named += [f"{path.relative_to(root)}: {host}" for host in hosts if host in text]
    assert named == []


def test_no_lock_holds_a_url(root: Path) -> None:
    locks = [path for path in files_of(root) if path.suffix == ".lock"]
    assert len(locks) >= 6
    for path in locks:
        assert "://" not in path.read_text(encoding="utf-8"), path
        assert "--index" not in path.read_text(encoding="utf-8"), path


def sha256_fields(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if "sha256" in key:
                yield f"{where}.{key}", item
            yield from sha256_fields(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from sha256_fields(item, where)


@pytest.mark.parametrize("name", ["models.toml", "task_data.toml", "patches/upstream.toml"])
def test_every_sha256_of_the_hand_written_pins_is_one(root: Path, name: str) -> None:
    fields = list(sha256_fields(tomllib.loads((root / name).read_text(encoding="utf-8"))))
    assert fields
    for where, value in fields:
        assert isinstance(value, str), where
        assert re.fullmatch(r"[0-9a-f]{64}", value), where


def test_every_file_of_a_model_is_pinned(root: Path) -> None:
    for name, model in tomllib.loads((root / "models.toml").read_text(encoding="utf-8")).items():
        assert "zip" in model or "sha256" in model["wheel"], name
        assert all("sha256" in file for file in model["files"].values()), name


@pytest.mark.parametrize("folder", ["patches", "patches/mirror"])
def test_a_series_names_exactly_the_patches_beside_it_in_their_order(root: Path, folder: str) -> None:
    lines = (root / folder / "series").read_text(encoding="utf-8").splitlines()
    named = [name for line in lines if (name := line.partition("#")[0].strip())]
    assert named == sorted(path.name for path in (root / folder).glob("*.patch"))


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_is_called_by_one_module_alone(root: Path, library: str) -> None:
    callers = {path.stem for path in modules(root) if library in set(imports(path))}
    assert callers <= OWNERS[library]


def test_every_dependency_is_declared_and_every_declared_one_is_used(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=!~ ;\[]", item)[0] for item in project["dependencies"]}
    named_otherwise = {
        "git": "gitpython",
        "debian": "python-debian",
        "urllib3": "requests",
        "cyclonedx": "cyclonedx-python-lib",
        "packageurl": "packageurl-python",
    }
    used = {name for path in [*modules(root), root / "tasks.py"] for name in imports(path)}
    used -= {"yaml"}  # of the dev group: `invoke audit --database` alone reads records in YAML
    third_party = used - sys.stdlib_module_names - {"bertir", "benchmarks", "docs", "__future__"}
    assert {named_otherwise.get(name, name) for name in third_party} == declared


def test_the_steps_import_nothing_of_the_host(root: Path) -> None:
    steps = sorted((root / "docker" / "steps").glob("*.py"))
    assert steps
    for path in steps:
        assert "bertir" not in set(imports(path)), path


def test_only_the_tasks_print_and_end_the_process(root: Path) -> None:
    for path in modules(root):
        calls = [
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        allowed = (
            {"print"} if path.stem == "program" else set()
        )  # the command: it prints help, as invoke does
        assert not ({"print", "exit", "quit"} - allowed) & set(calls), path
        if path.stem != "rebuild":  # a process of its own, which `invoke check` starts
            assert "sys.exit" not in path.read_text(encoding="utf-8"), path


def test_no_module_imports_another_in_a_circle(root: Path) -> None:
    """Imports for types alone don't count; those inside functions do."""
    needs: dict[str, set[str]] = {}
    for path in modules(root):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        needs[path.stem] = {
            node.module.removeprefix("bertir.")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and node not in for_types
            and (node.module or "").startswith("bertir.")
            and node.module is not None
        }
    waiting = dict(needs)
    while free := [name for name, wanted in waiting.items() if not wanted & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert waiting == {}


def test_what_is_built_or_cached_is_not_committed(root: Path) -> None:
    for path in files_of(root):
        assert path.suffix not in {".pyc", ".whl", ".deb", ".safetensors", ".bin", ".pb", ".tar"}, path
        assert path.stat().st_size < 2_000_000, path


def test_every_task_of_the_readme_exists(root: Path) -> None:
    readme = root / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md yet")
    text = readme.read_text(encoding="utf-8")
    tasks = {
        node.name.replace("_", "-")
        for node in ast.parse((root / "tasks.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`invoke ([a-z][a-z-]*)", text)) <= tasks
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
