"""docs/reference/file-formats.md beside the files: each field that is written or read is listed, and no other."""

from __future__ import annotations

import json
import re
import tarfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from done_build import done_builder, tuned
from fields import PAGE, compare, fields, listed
from some_build import FACTS, VIRTUALENV, some_build

from bertir.bundle import INDEX, write_bundle
from bertir.digest import Digest
from bertir.engines import EngineFacts
from bertir.hint import FOLDER as HINTS
from bertir.job_lock import JOB_LOCK
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.mark import Mark
from bertir.model import GoogleZip, load_models
from bertir.pipeline import build_ir
from bertir.progress import SILENT
from bertir.publish import LISTED, PROVENANCE, REPORT, SIGNATURES, SUMS
from bertir.publish import PAGE as REPORT_PAGE
from bertir.report import FORMAT, Request, report
from bertir.signature import generate_key, load_private_key, sign
from bertir.store import FOLDERS
from bertir.store_folder import IDENTITY, TAG
from bertir.weights import of_model

if TYPE_CHECKING:
    from bertir.store import Store

SAME: tuple[set[str], set[str]] = (set(), set())


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def toml_of(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def test_every_field_of_a_report_is_listed_whatever_was_built(store: Store, tmp_path: Path) -> None:
    models = load_models(ROOT / "models.toml")
    made = some_build(ROOT / "models.toml")
    step = made.steps[0]
    told = EngineFacts(**(FACTS["engine"] | {"not_limited": "memory", "without": "a network"})).to_json()
    zipped = next(model for model in models.values() if isinstance(model.archive, GoogleZip))
    with done_builder(store) as builder:
        own, _ = build_ir(
            builder,
            Request(),
            tmp_path / "dist",
            find_checkpoint(Options(path=tuned(tmp_path / "tuned").folder)),
        )
    code = FACTS["bertir"] | {"commit": "c" * 40}
    builds = [
        made,
        replace(made, weights=of_model(zipped)),
        replace(made, virtualenv=VIRTUALENV),
        replace(made, steps=(replace(step, facts=FACTS | {"bytes_in": 1, "engine": told, "bertir": code}),)),
        own,
    ]
    assert compare("`report.json`", [json.loads(report(one)) for one in builds]) == SAME
    assert f"| `format` | {FORMAT}: " in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("`patches/source.lock`", ["patches/source.lock"]),
        ("`docker/image.lock` and `docker/job.lock`", ["docker/image.lock", f"docker/{JOB_LOCK}"]),
        (
            "`docker/debian.lock` and `docker/job-debian.lock`",
            ["docker/debian.lock", "docker/job-debian.lock"],
        ),
    ],
)
def test_every_field_of_a_lock_is_listed(heading: str, names: list[str]) -> None:
    for name in names:
        assert compare(heading, [json_of(ROOT / name)]) == SAME


def test_every_lock_has_its_place_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    locks = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*.lock")]
    assert len(locks) >= 9
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    named = {name for heading in headings for name in re.findall(r"`([^`]+)`", heading)}
    for lock in locks:
        assert any(Path(lock).match(name) for name in named), lock


@pytest.mark.parametrize("name", ["task_data.toml", "patches/upstream.toml"])
def test_every_field_of_what_is_written_by_hand_is_listed(name: str) -> None:
    assert compare(f"`{name}`", [toml_of(name)]) == SAME


def test_every_field_of_the_models_is_listed() -> None:
    models = list(toml_of("models.toml").values())
    assert {"wheel", "zip"} <= {key for model in models for key in model}
    with_size = [model | {"zip": model["zip"] | {"size": 1}} for model in models if "zip" in model]
    assert compare("`models.toml`", [*models, *with_size]) == SAME


def test_every_field_of_an_envelope_is_listed(tmp_path: Path) -> None:
    generate_key(tmp_path / "a.key")
    envelope = sign(b'{"_type": "https://in-toto.io/Statement/v1"}\n', load_private_key(tmp_path / "a.key"))
    assert compare(f"`{SIGNATURES}`", [json.loads(envelope)]) == SAME


def test_every_field_of_a_bundle_is_listed_and_its_members_are_in_the_order_that_is_told(
    store: Store, tmp_path: Path
) -> None:
    materials = {
        name: store.add_bytes(data).digest for name, data in {"b": b"1", "a": b"2", "c": b"1"}.items()
    }
    write_bundle(store, materials, tmp_path / "bundle.tar", SILENT)
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        first, *others = tar.getmembers()
        file = tar.extractfile(first)
        assert file
        index = json.load(file)
    assert compare("A bundle", [index]) == SAME
    assert first.name == INDEX
    assert [member.name for member in others] == [f"objects/{materials[name].hex}" for name in ("a", "b")]


def test_everything_in_a_store_and_in_a_published_folder_is_listed(store: Store, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(Options(path=tuned(tmp_path / "tuned").folder))
    with done_builder(store) as builder:
        _, published = build_ir(builder, Request(), tmp_path / "dist", checkpoint)
    store.hints._save(Mark.of(PAGE.stat()), Digest.of_file(PAGE), Digest.of_file(PAGE))
    places = {place.split("/")[0] for place in listed("The store")}
    assert places == {*FOLDERS, TAG, IDENTITY} == {path.name for path in store.root.iterdir()}
    records = [json_of(path) for path in store.root.glob("records/*/*.json")]
    assert len(records) >= 5
    assert compare("A record", records) == SAME
    assert compare("A hint", [json_of(path) for path in (store.root / HINTS).iterdir()]) == SAME
    files = set(listed("What is published"))
    assert files == {*LISTED, REPORT, REPORT_PAGE, PROVENANCE, SUMS, SIGNATURES}
    assert {path.name for path in published.folder.iterdir()} == files - {SIGNATURES}


def test_a_field_that_is_not_listed_and_one_that_is_nowhere_are_told() -> None:
    assert list(fields({"a": [{"b": 1}, {"c": []}], "d": {}})) == ["a[].b"]
    lacking, unseen = compare("`task_data.toml`", [{"mrpc": {"x.txt": {"url": "", "size": 1, "new": 2}}}])
    assert (lacking, unseen) == ({"mrpc.x.txt.new"}, {"mrpc.….sha256"})
