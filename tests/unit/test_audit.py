"""The audit: nothing pinned that wasn't held against advisories, nothing named without an answer, no answer left over."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from debian.debian_support import Version as DebianVersion
from osv_server import osv_server

from bertir.audit import (
    ADVISORIES,
    EXAMINED,
    LOCKS,
    audit,
    examine,
    load_advisories,
    load_pins,
)
from bertir.errors import ConfigurationError, FetchError, VerificationError
from bertir.online_audit import ask
from bertir.osv import is_affected, read_database
from bertir.requirements import dump_requirements, parse_requirements
from bertir.show_audit import audit_facts, audit_markdown, audit_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).parents[2]
SECURITY_MD = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout as far as the audit sees it."""
    for name in (*LOCKS.values(), ADVISORIES, EXAMINED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def repin(root: Path, place: str, name: str, version: str) -> None:
    path = root / LOCKS[place]
    lock = parse_requirements(path.read_text(), name="lock")
    pins = tuple(
        type(pin)(name=pin.name, version=version, marker=pin.marker, digests=pin.digests)
        if pin.name == name
        else pin
        for pin in lock.pins
    )
    assert pins != lock.pins
    path.write_text(dump_requirements(type(lock)(made_from=lock.made_from, pins=pins)))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def record(
    package: str, *events: Mapping[str, str], versions: Iterable[str] = (), **rest: Any
) -> dict[str, Any]:
    return {
        "id": "GHSA-0000-0000-0000",
        "modified": "2026-11-24T00:00:00Z",
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": package},
                "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
                "versions": list(versions),
            }
        ],
        **rest,
    }


def database(folder: Path, *records: Mapping[str, Any]) -> Path:
    folder.mkdir()
    for number, one in enumerate(records):
        (folder / f"{number}.json").write_text(json.dumps(one))
    environment = {
        **os.environ,
        "GIT_AUTHOR_DATE": "2026-07-23T00:00:00Z",
        "GIT_COMMITTER_DATE": "2026-07-23T00:00:00Z",
    }
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        [*identity, "commit", "--quiet", "--message", "records"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True, env=environment)
    return folder


# What is in the repository


def test_every_pin_was_examined_and_every_known_advisory_is_answered() -> None:
    found = audit(ROOT)
    assert {finding.package for finding in found.findings} == {"keras", "protobuf"}
    assert found.examined.pins == load_pins(ROOT)


def test_the_page_is_what_the_answers_give() -> None:
    page = (ROOT / "docs" / "vulnerabilities.md").read_text(encoding="utf-8")
    assert page == audit_markdown(audit(ROOT)) + "\n", (
        "invoke audit --format markdown > docs/vulnerabilities.md"
    )


def test_whatever_is_reported_says_of_what_day_it_is() -> None:
    found = audit(ROOT)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found.examined.date)
    assert f"as of {found.examined.date}" in audit_text(found)
    assert f"as of {found.examined.date}" in audit_markdown(found)
    assert audit_facts(found)["as_of"] == found.examined.date


def test_pip_audit_reads_the_same_from_the_locks_and_the_answers() -> None:
    """The real pip-audit, asking a service that knows what the answers say."""
    advisories = load_advisories(ROOT)
    known = {
        (name, version): [
            record(name, {"introduced": "0"}) | {"id": one.id, "aliases": list(one.aliases)}
            for one in advisories
            if one.affects(name, version)
        ]
        for pins in load_pins(ROOT).values()
        for name, version in pins.items()
    }
    with osv_server(known) as url:
        found = ask(ROOT, url)
    ours: dict[str, dict[str, list[str]]] = {}
    for finding in audit(ROOT).findings:
        ours.setdefault(finding.place, {}).setdefault(finding.package, []).append(finding.advisory.id)
    assert {place: {name: sorted(ids) for name, ids in names.items()} for place, names in found.items()} == {
        place: {name: sorted(ids) for name, ids in names.items()} for place, names in ours.items()
    }


# What must not pass


def test_a_pin_that_was_not_examined_is_refused(root: Path) -> None:
    repin(root, "host", "requests", "2.34.3")
    with pytest.raises(VerificationError, match=r"build\.lock: requests 2\.34\.3 was not held against any"):
        audit(root)


def test_a_pin_that_is_gone_is_told(root: Path) -> None:
    edit(root / EXAMINED, '"requests": "2.34.2"', '"requests": "2.34.2",\n   "leftover": "1.0"')
    with pytest.raises(VerificationError, match="leftover is no longer in"):
        audit(root)


def test_an_advisory_without_an_answer_is_refused(root: Path) -> None:
    edit(root / ADVISORIES, 'id = "PYSEC-2026-1805"', 'id = "PYSEC-2026-9999"')
    with pytest.raises(VerificationError, match=r"PYSEC-2026-1805 is about protobuf 4\.25\.9 of the image"):
        audit(root)


def test_an_answer_that_is_about_nothing_any_more_is_refused(root: Path) -> None:
    repin(root, "image", "protobuf", "5.29.6")
    edit(root / EXAMINED, '"protobuf": "4.25.9"', '"protobuf": "5.29.6"')
    with pytest.raises(VerificationError, match="PYSEC-2026-1805 is about no pinned version of protobuf"):
        audit(root)


def test_an_answer_that_claims_less_than_the_database_is_refused(root: Path) -> None:
    edit(root / ADVISORIES, 'affected = ["<5.29.6", ">=6.30.0rc1,<6.33.5"]', 'affected = ["<4", ">=7,<8"]')
    with pytest.raises(VerificationError, match=r"PYSEC-2026-1805 doesn't say that protobuf 4\.25\.9"):
        audit(root)


def test_an_answer_that_the_database_does_not_back_is_refused(root: Path) -> None:
    edit(root / EXAMINED, '"PYSEC-2025-121",', "")
    with pytest.raises(VerificationError, match="names PYSEC-2025-121 for nothing that is pinned"):
        audit(root)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (ADVISORIES, "no TOML ["),
        (ADVISORIES, ""),
        (ADVISORIES, '[[advisory]]\nid = "X"\naffected = ["<1"]\nverdict = "contained"'),
        (ADVISORIES, "advisory = 3"),
        (EXAMINED, "no JSON"),
        (EXAMINED, "[]"),
        (EXAMINED, '{"database": {}}'),
    ],
)
def test_a_malformed_file_ends_in_one_message(root: Path, file: str, text: str) -> None:
    (root / file).write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(str(root / file))):
        audit(root)


def test_an_unknown_verdict_a_wrong_version_and_a_second_answer_are_refused(root: Path) -> None:
    for old, new in (
        ('verdict = "not-reached"', 'verdict = "fine"'),
        ('affected = ["<=3.7.0"]', 'affected = ["up to 3.7"]'),
        ('affected = ["<=3.7.0"]', "affected = []"),
        ('id = "PYSEC-2026-2324"', 'id = "CVE-2024-55459"'),
    ):
        shutil.copy(ROOT / ADVISORIES, root / ADVISORIES)
        edit(root / ADVISORIES, old, new)
        with pytest.raises(ConfigurationError):
            load_advisories(root)


# Reading a database


def test_versions_are_matched_as_the_osv_specification_has_it() -> None:
    protobuf = record(
        "Protobuf",
        {"introduced": "6.30.0rc1"},
        {"fixed": "6.33.5"},
        {"introduced": "0"},
        {"fixed": "5.29.6"},
    )
    affected = {
        version: is_affected(protobuf, "protobuf", version)
        for version in ("4.25.9", "5.29.6", "5.29.6rc1", "6.30.0rc1", "6.33.4", "6.33.5", "0.1a1")
    }
    assert [version for version, yes in affected.items() if yes] == [
        "4.25.9",
        "5.29.6rc1",
        "6.30.0rc1",
        "6.33.4",
        "0.1a1",
    ]
    last = record("keras", {"introduced": "0"}, {"last_affected": "3.7.0"}, versions=["9.9"])
    assert is_affected(last, "keras", "3.7.0")
    assert not is_affected(last, "keras", "3.7.1")
    assert is_affected(last, "keras", "9.9")
    assert not is_affected(last, "other", "3.7.0")


def test_a_database_is_read_and_written_down_with_its_day(root: Path, tmp_path: Path) -> None:
    folder = database(
        tmp_path / "db",
        record("keras", {"introduced": "0"}),
        record("Requests", {"introduced": "0"}, id="GHSA-1111-1111-1111"),
        record("requests", {"introduced": "0"}, id="GHSA-2222-2222-2222", withdrawn="2026-01-01T00:00:00Z"),
        record("nobody-pins-this", {"introduced": "0"}),
    )
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(record("keras", {"introduced": "0"}, id="GHSA-3333-3333-3333")))
    (folder / "link.json").symlink_to(outside)
    os.mkfifo(folder / "pipe.json")
    pins = {pin for versions in load_pins(root).values() for pin in versions.items()}
    found = read_database(folder, pins)
    assert (found.date, found.records) == ("2026-07-23", 2)
    assert found.affected == {
        ("keras", "2.15.0"): ("GHSA-0000-0000-0000",),
        ("requests", "2.34.2"): ("GHSA-1111-1111-1111",),
    }
    examine(root, found)
    with pytest.raises(
        VerificationError, match=r"GHSA-1111-1111-1111 is about requests 2\.34\.2 of the host"
    ):
        audit(root)


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    broken = database(tmp_path / "broken", record("keras", {"introduced": "no version"}))
    empty = database(tmp_path / "empty", record("nobody-pins-this", {"introduced": "0"}))
    for folder, message in (
        (tmp_path / "plain", "no Git checkout"),
        (tmp_path / "missing", "no Git checkout"),
        (broken, "no advisory in OSV's form"),
        (empty, "no advisory about any"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            read_database(folder, {("keras", "2.15.0")})


def test_a_database_runs_no_program_of_its_own(tmp_path: Path) -> None:
    """Its Git configuration has what is missing fetched by a program that it names."""
    folder = database(tmp_path / "db", record("keras", {"introduced": "0"}))
    git = ["git", "-C", str(folder)]
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (folder / ".git" / "objects" / head[:2] / head[2:]).unlink()
    ran = tmp_path / "ran"
    for name, value in (
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.url", str(folder)),
        ("remote.origin.promisor", "true"),
        ("remote.origin.uploadpack", f"touch '{ran}'; git-upload-pack"),
    ):
        subprocess.run([*git, "config", name, value], check=True)
    with pytest.raises(ConfigurationError, match="no Git checkout"):
        read_database(folder, {("keras", "2.15.0")})
    assert not ran.exists()


def test_records_in_yaml_are_read(tmp_path: Path) -> None:
    folder = database(tmp_path / "db", record("other", {"introduced": "0"}))
    (folder / "PYSEC-1.yaml").write_text(
        "id: PYSEC-1\naffected:\n- package: {ecosystem: PyPI, name: keras}\n"
        "  ranges:\n  - type: ECOSYSTEM\n    events:\n    - introduced: '0'\n    - fixed: 3.0.0\n"
    )
    assert read_database(folder, {("keras", "2.15.0")}).affected == {("keras", "2.15.0"): ("PYSEC-1",)}
    (folder / "PYSEC-1.yaml").write_text("name: keras\n\t- [")
    with pytest.raises(ConfigurationError, match="no YAML"):
        read_database(folder, {("keras", "2.15.0")})


# Asking a service


def test_a_service_that_knows_more_than_is_answered_fails_the_audit() -> None:
    known = {("urllib3", load_pins(ROOT)["host"]["urllib3"]): [record("urllib3")]}
    with (
        osv_server(known) as url,
        pytest.raises(VerificationError, match="GHSA-0000-0000-0000 is about urllib3") as refused,
    ):
        ask(ROOT, url)
    assert "of the host" in str(refused.value)
    assert "of the image" in str(refused.value)


def test_a_service_that_does_not_answer_is_not_taken_for_one_that_knows_nothing() -> None:
    with pytest.raises(FetchError, match="nothing is known of today"):
        ask(ROOT, "http://127.0.0.1:9/v1/query")


# The task


def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "invoke", "audit", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_task_tells_people_and_machines_the_same() -> None:
    text, facts = invoke(), json.loads(invoke("--format", "json").stdout)
    assert text.returncode == 0
    for one in facts["advisories"]:
        assert one["id"] in text.stdout
        assert one["answer"]
    assert facts["as_of"] in text.stdout
    refused = invoke("--service", "http://127.0.0.1:9")
    assert (refused.returncode, "--online" in refused.stderr) == (2, True)
    assert "Traceback" not in refused.stderr


# docs/security.md: ruff's S rules, and Debian's packages


def test_each_finding_of_ruffs_security_rules_is_answered_and_nothing_else_is() -> None:
    """Suppressed or not: by rule and file, with how many there are."""
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "ruff",
                "check",
                "--isolated",
                "--ignore-noqa",
                "--select",
                "S",
                "--no-cache",
            ),
            *(
                "--output-format",
                "json",
                "--exit-zero",
                "src",
                "docker",
                "docs",
                "examples",
                "tests",
                "tasks.py",
            ),
        ],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = collections.Counter(
        (finding["code"], str(Path(finding["filename"]).relative_to(ROOT)))
        for finding in json.loads(run.stdout)
    )
    in_tests_by_intent = {"S101", "S108", "S603", "S607"}
    expected = {
        (code, file): count
        for (code, file), count in found.items()
        if not (file.startswith("tests/") and code in in_tests_by_intent)
    }
    rows = re.findall(r"^\| (S\d{3}) \| `([^`]+)` \| (\d+) \| \S.* \|$", SECURITY_MD, re.MULTILINE)
    assert {(code, file): int(count) for code, file, count in rows} == expected
    assert len(rows) == len(expected)


def test_packages_that_debian_has_since_mended_are_listed_as_they_are_locked() -> None:
    locked = {
        package["name"]: package["version"]
        for lock in ("debian.lock", "job-debian.lock")  # no package is in both
        for package in json.loads((ROOT / "docker" / lock).read_text())["packages"]
    }
    rows = re.findall(
        r"^\| (\S+): ((?:`\S+`(?:, )?)+) \| (\S+) \| (\S+) \| \S.* \|$", SECURITY_MD, re.MULTILINE
    )
    assert len(rows) == 5 + 3
    for _, names, version, newer in rows:
        for name in re.findall(r"`(\S+)`", names):
            assert locked[name] == version, (
                f"{name} was locked anew: look whether the security suite has newer"
            )
        assert DebianVersion(newer) > DebianVersion(version)


def test_every_test_that_the_threat_model_names_is_there() -> None:
    names = set(re.findall(r"`(tests/[\w/]+(?:\.py)?)`", SECURITY_MD + (ROOT / "SECURITY.md").read_text()))
    assert names
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []
