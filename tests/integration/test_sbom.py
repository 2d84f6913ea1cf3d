"""The bills of materials of the real image and of a real build."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bertir import pipeline
from bertir.digest import Digest
from bertir.image_sbom import locked_image_sbom
from bertir.job import load_job
from bertir.job_sbom import locked_job_sbom
from bertir.model_sbom import published_sbom
from bertir.report import Request
from bertir.sbom import serialised

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from builds import TinyBuild

    from bertir.builder import Builder

pytestmark = pytest.mark.engine


def assert_valid(value: Mapping[str, Any]) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(serialised(value).decode())
    assert error is None, repr(error)


@pytest.fixture(scope="module")
def image(builder: Builder) -> dict[str, Any]:
    return locked_image_sbom(builder)


def test_the_real_images_document_is_valid_and_lists_every_locked_file(
    builder: Builder, image: dict[str, Any]
) -> None:
    assert_valid(image)
    listed = {
        component["hashes"][0]["content"]
        for component in image["components"]
        if component["bom-ref"].startswith("pkg:")
    }
    debian = {package.digest.hex for package in builder.lock.debian}
    assert listed == debian | {pin.digest.hex for pin in builder.lock.wheels}


def test_the_job_images_document_is_valid_and_lists_what_that_has_over_the_image(
    builder: Builder, image: dict[str, Any]
) -> None:
    value = locked_job_sbom(builder)
    assert_valid(value)
    lock = load_job(builder.layout.root, builder.intent, builder.lock).lock
    packages = [component for component in value["components"] if component["bom-ref"].startswith("pkg:")]
    listed = {component["hashes"][0]["content"] for component in packages}
    assert listed == {package.digest.hex for package in lock.debian} | {pin.digest.hex for pin in lock.wheels}
    assert [component["name"] for component in packages if not component.get("licenses")] == []
    [step] = [component for component in value["components"] if component["bom-ref"] == "step-image"]
    assert step["purl"] == image["metadata"]["component"]["purl"]
    link = step["externalReferences"][0]["url"]
    assert link.startswith(image["serialNumber"].replace("urn:uuid:", "urn:cdx:"))


def test_every_package_of_the_real_image_says_something_of_its_licence(image: dict[str, Any]) -> None:
    unknown = [
        component["name"]
        for component in image["components"]
        if component["bom-ref"].startswith("pkg:") and not component.get("licenses")
    ]
    assert unknown == []


def test_every_dependency_that_the_real_image_declares_is_met_within_it(image: dict[str, Any]) -> None:
    unmet = {
        (component["name"], item["value"])
        for component in image["components"]
        for item in component.get("properties", [])
        if item["name"] == "bertir:dependency:unmet"
    }
    assert unmet == set()
    graph = {item["ref"]: item.get("dependsOn", []) for item in image["dependencies"]}
    reached, waiting = set(), ["image"]
    while waiting:
        ref = waiting.pop()
        reached.add(ref)
        waiting += [other for other in graph.get(ref, []) if other not in reached]
    assert reached == {"image", *(component["bom-ref"] for component in image["components"])}


def test_the_bits_of_the_golden_bill_of_materials(
    image: dict[str, Any], golden: Callable[[str, dict[str, str]], None]
) -> None:
    """Other bytes of the same image: raise EDITION in sbom.py with them."""
    golden(
        "image-sbom",
        {
            "link": f"{image['serialNumber']}/{image['version']}",
            "document": str(Digest.of_bytes(serialised(image))),
        },
    )


def test_a_real_builds_document_is_valid_and_links_to_the_images(
    builder: Builder, tiny_build: TinyBuild, image: dict[str, Any], tmp_path: Path
) -> None:
    request = Request(model=tiny_build.weights.name, precision="fp32")
    _, published = pipeline.build_ir(builder, request, tmp_path)
    value = published_sbom(published.folder)
    assert_valid(value)
    parts = value["metadata"]["component"]["components"]
    assert {part["name"]: part["hashes"][0]["content"] for part in parts} == {
        part["name"]: Digest.of_file(published.folder / part["name"]).hex for part in parts
    }
    number = image["serialNumber"].removeprefix("urn:uuid:")
    assert f"urn:cdx:{number}/{image['version']}#image" in json.dumps(value["formulation"])
