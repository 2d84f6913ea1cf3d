"""`invoke doctor`: what a build relies on, of each thing what was found and what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from file_server import Fault, serve_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from file_server import FileServer

NOBODY = "http://127.0.0.1:9"
WHEEL = "invoke-9.0-py3-none-any.whl"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_files() as server:
        server.lenient = True  # to pip
        server.files["/debian/dists/bookworm/InRelease"] = b"a release"
        server.files["/simple/invoke/"] = f'<a href="/{WHEEL}">{WHEEL}</a>'.encode()
        server.files["/git"] = b"a repository"
        yield server


def looked(
    tmp_path: Path, *options: str, root: Path = ROOT, **environment: str
) -> tuple[int, dict[str, Any]]:
    """The exit status, and the findings by name."""
    given = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {
        "HOME": str(tmp_path),
        "BERTIR_STORE": str(tmp_path / "store"),
        "BERTIR_DEBIAN_MIRROR": f"{NOBODY}/debian",
        "BERTIR_MIRROR": f"{NOBODY}/models",
        "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{NOBODY}/simple",
        "PYTHONPATH": str(root / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "doctor", "--format", "json", *options],
        cwd=root,
        env=given | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_each_thing_has_a_verdict_and_what_is_not_good_has_advice(tmp_path: Path) -> None:
    status, findings = looked(tmp_path, "--offline")
    assert status == 6
    assert findings["engine"]["verdict"] == "wrong"
    assert "make engine" in findings["engine"]["advice"]
    good = {name for name, finding in findings.items() if finding["verdict"] == "good"}
    assert good == {"python", "git", "store", "image lock", "source lock", "host lock", "job lock"} | (
        good & {"disk"}
    )
    for finding in findings.values():
        assert bool(finding["advice"]) == (finding["verdict"] != "good")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the tests' own Python isn't 3.11")
def test_by_the_local_engine_no_container_engine_is_wanted(tmp_path: Path) -> None:
    status, findings = looked(tmp_path, "--offline", BERTIR_ENGINE="local")
    assert status == 0
    assert findings["engine"]["verdict"] == findings["virtualenv"]["verdict"] == "note"
    assert "with little isolation" in findings["engine"]["found"]
    assert findings["virtualenv"]["found"] == "not made"
    assert "image" not in findings


def test_a_stale_lock_is_named_with_what_writes_it(checkout: Path, tmp_path: Path) -> None:
    intent = checkout / "docker" / "image.toml"
    intent.write_text(intent.read_text(encoding="utf-8").replace("protobuf==4.25.9", "protobuf==4.25.8"))
    status, findings = looked(tmp_path, "--offline", root=checkout)
    assert status == 3
    assert findings["image lock"]["verdict"] == "wrong"
    assert "invoke lock" in findings["image lock"]["advice"]


def test_servers_that_answer_are_good(tmp_path: Path, server: FileServer) -> None:
    _, findings = looked(
        tmp_path,
        BERTIR_DEBIAN_MIRROR=f"{server.url}/debian",
        BERTIR_MIRROR=f"{server.url}/models",  # which has none of them, and says so
        PIP_INDEX_URL=f"{server.url}/simple",
    )
    for name in ("debian mirror", "package index", "7 models"):
        assert findings[name] == {"name": name, "verdict": "good", "found": "answers", "advice": ""}
    assert {"/debian/dists/bookworm/InRelease", "/simple/invoke/"} <= {asked.path for asked in server.asked}


def test_servers_that_do_not_answer_are_noted_with_what_is_missing_and_what_else_there_is(
    tmp_path: Path, server: FileServer
) -> None:
    server.faults += [Fault(status=503)]
    _, findings = looked(tmp_path, BERTIR_DEBIAN_MIRROR=f"{server.url}/debian")
    assert findings["debian mirror"]["found"].startswith("it answers 503; ")
    assert "BERTIR_DEBIAN_MIRROR" in findings["debian mirror"]["advice"]
    for name, advice in (("package index", "Configure pip"), ("7 models", "--mirror")):
        assert findings[name]["verdict"] == "note"
        assert "materials of it are missing" in findings[name]["found"]
        assert advice in findings[name]["advice"]


def test_the_place_that_bert_is_to_come_from_is_asked_and_not_the_pinned_one(tmp_path: Path) -> None:
    _, findings = looked(tmp_path, BERTIR_BERT_URL="https://127.0.0.1:9/bert", PIP_NO_INDEX="1")
    assert "source" not in findings
    assert "refused" in findings["chosen source"]["found"]
    assert "unset it" in findings["chosen source"]["advice"]  # a build works around the pinned one alone
    _, findings = looked(tmp_path, BERTIR_BERT_URL=str(tmp_path), PIP_NO_INDEX="1")
    assert findings["chosen source"]["verdict"] == "good"


def test_a_mirror_that_is_a_folder_is_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    _, findings = looked(
        tmp_path, BERTIR_MIRROR=str(tmp_path / "models"), BERTIR_DEBIAN_MIRROR=f"file://{tmp_path}"
    )
    assert "7 models" not in findings
    assert findings["debian mirror"]["verdict"] == "good"


def test_a_login_in_an_address_is_not_shown(tmp_path: Path) -> None:
    _, findings = looked(
        tmp_path,
        BERTIR_DEBIAN_MIRROR="http://user:password@127.0.0.1:9/debian",
        PIP_INDEX_URL="http://user:password@127.0.0.1:9/simple",
    )
    assert "password" not in json.dumps(findings)
