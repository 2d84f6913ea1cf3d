"""A build with nothing to do, as a process of its own: what it imports, what it reads, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from damage import flip, lie
from done_build import ENVIRONMENT, LARGE, ROOT, done_builder, tuned
from tiny_bert import files, make_model

from bertir.digest import Digest
from bertir.engines import LOCAL
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.pipeline import build_ir
from bertir.report import Request
from bertir.store import Store

if TYPE_CHECKING:
    from pathlib import Path

# Imports what invoke imports by itself, then runs the task, and tells what that added: modules, and bertir's dataclasses
# of which the standard library compiled the methods.
PROGRAM = """
import json, sys
from invoke.main import program
before = set(sys.modules)
try:
    program.run(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
added = sorted(set(sys.modules) - before)
compiled = {
    f"{value.__module__}.{value.__name__}"
    for name in added if name.partition(".")[0] == "bertir"
    for value in vars(sys.modules[name]).values()
    if isinstance(value, type) and getattr(value, "__dataclass_params__", None) and value.__dataclass_params__.init
}
sys.stderr.write(json.dumps({"modules": added, "compiled": sorted(compiled)}))
"""
# Of the standard library, what takes long to import and a build with nothing to do has no use for.
HEAVY = {"csv", "ctypes", "http", "multiprocessing", "platform", "sqlite3", "ssl", "tarfile", "uuid", "xml"}
# Of bertir, what only those builds and tasks need that have something to do.
UNUSED = {
    *("archive", "assemble", "audit", "bundle", "check", "collect", "container", "deb", "doctor", "download"),
    *(
        "engine",
        "evidence",
        "housekeeping",
        "layer",
        "local",
        "resolve",
        "sbom",
        "signature",
        "source",
        "verify",
        "web",
    ),
    *("job", "job_intent", "job_layer", "job_lock", "resolve_job"),
    *("amount", "page", "virtualenv_making", "wheel", "wheelhouse", "whole_file", "zip_check"),
}


@dataclass(frozen=True)
class Done:
    """A build that is done: how it is asked for again."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


@pytest.fixture
def of_a_model(tmp_path: Path) -> Done:
    """Of a model whose files are in the store."""
    model = make_model(tmp_path)
    store = Store(tmp_path / "store")
    for data in files().values():
        store.add_bytes(data)
    with done_builder(store, model.models_toml) as builder:
        build_ir(builder, Request(model="tiny-bert"), tmp_path / "dist")
    return Done((), {"BERTIR_MODELS": str(model.models_toml)})


@pytest.fixture
def of_a_checkpoint(tmp_path: Path) -> Done:
    """Of a user's own checkpoint."""
    folder = tuned(tmp_path / "tuned").folder
    with done_builder(Store(tmp_path / "store")) as builder:
        build_ir(builder, Request(model=""), tmp_path / "dist", find_checkpoint(Options(path=folder)))
    return Done((f"--checkpoint={folder}",), {})


def started(tmp_path: Path, done: Done, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Build once more."""
    command = ("invoke", "build-ir", f"--output={tmp_path / 'dist'}", "--format=json", *done.arguments)
    store = {"BERTIR_STORE": str(tmp_path / "store")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, *options],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **done.environment, **store, **variables},
        check=False,
        capture_output=True,
        text=True,
    )


def again(tmp_path: Path, done: Done) -> tuple[Any, dict[str, set[str]]]:
    """Build once more; give what it said, and what it imported."""
    ended = started(tmp_path, done)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stderr.splitlines()[-1])
    return json.loads(ended.stdout), {what: set(names) for what, names in told.items()}


@pytest.fixture
def of_the_local_engine(tmp_path: Path) -> Done:
    """Of a model, its steps taken for done in a virtualenv."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the tests' own Python isn't 3.11")
    model = make_model(tmp_path)
    store = Store(tmp_path / "store")
    for data in files().values():
        store.add_bytes(data)
    with done_builder(store, model.models_toml, chosen=LOCAL) as builder:
        build_ir(builder, Request(model="tiny-bert"), tmp_path / "dist")
    return Done(("--engine=local",), {"BERTIR_MODELS": str(model.models_toml)})


@pytest.mark.parametrize("which", ["of_a_model", "of_a_checkpoint", "of_the_local_engine"])
def test_a_build_with_nothing_to_do_imports_no_library_and_nothing_that_only_work_needs(
    request: pytest.FixtureRequest, tmp_path: Path, which: str
) -> None:
    said, added = again(tmp_path, request.getfixturevalue(which))
    imported = added["modules"]
    assert {step["cached"] for step in said["steps"]} == {True}
    assert {"tasks", "bertir.pipeline", "bertir.publish"} <= imported
    tops = {name.partition(".")[0] for name in imported}
    # invoke's own modules apart, of which it imports some more when it runs.
    assert tops - sys.stdlib_module_names - {"bertir", "tasks", "invoke"} == set()
    assert tops & HEAVY == set()
    assert {name for name in UNUSED if f"bertir.{name}" in imported} == set()
    # At 0.7 ms each: `bertir.frozen` has the others. This one is made by a place, not by a name.
    assert added["compiled"] == {"bertir.digest.Digest"}


def test_a_build_of_a_model_does_not_import_what_reads_a_users_checkpoint(
    tmp_path: Path, of_a_model: Done
) -> None:
    _, added = again(tmp_path, of_a_model)
    assert "bertir.local_checkpoint" not in added["modules"]


@pytest.mark.parametrize(
    ("options", "variables", "reads"),
    [
        ((), {}, False),
        ((), {"BERTIR_PARANOID": "0"}, False),
        ((), {"BERTIR_PARANOID": "1"}, True),
        (("--paranoid",), {}, True),
        (("--paranoid",), {"BERTIR_PARANOID": "0"}, True),
    ],
)
def test_what_a_hint_hides_is_seen_by_who_asks_for_it(
    tmp_path: Path,
    of_a_checkpoint: Done,
    options: tuple[str, ...],
    variables: dict[str, str],
    *,
    reads: bool,
) -> None:
    [model] = (tmp_path / "dist").rglob("model.bin")
    flip(model)
    lie(Store(tmp_path / "store"), model, Digest.of_bytes(LARGE))
    assert started(tmp_path, of_a_checkpoint, *options, **variables).returncode == 0
    assert (model.read_bytes() == LARGE) == reads


def test_whether_to_be_paranoid_is_said_by_0_or_1(tmp_path: Path, of_a_checkpoint: Done) -> None:
    ended = started(tmp_path, of_a_checkpoint, BERTIR_PARANOID="yes")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["message"] == "BERTIR_PARANOID must be 0 or 1, and is 'yes'"
    assert "Traceback" not in ended.stderr
