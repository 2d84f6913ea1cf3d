"""The bills of materials: against CycloneDX's published schema, and the same bytes wherever they are made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from packages import make_deb, make_wheel, member, small_intent
from packageurl import PackageURL
from some_build import VIRTUALENV

from bertir import evidence
from bertir.digest import Digest
from bertir.errors import ConfigurationError, VerificationError
from bertir.image import describe_image
from bertir.image_sbom import image_sbom, interpreter_version
from bertir.intent import load_intent
from bertir.licences import Licence
from bertir.lock import PRECOMPILE, ImageLock, LayerPin
from bertir.model_sbom import model_sbom
from bertir.report import FORMAT
from bertir.sbom import (
    IMAGE_NAME,
    Item,
    components,
    debian_purl,
    git_purl,
    image_link,
    image_serial,
    numbered,
    oci_purl,
    pypi_purl,
    serialised,
)
from bertir.session import open_session
from bertir.show import sbom_text
from bertir.verify import Verified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bertir.lock import DebianPackage, WheelPin
    from bertir.session import Session

COPYRIGHT = (
    b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
    b"Files: *\nCopyright: somebody\nLicense: GPL-2+ or Expat\n"
)


def assert_valid(value: Mapping[str, Any]) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(serialised(value).decode())
    assert error is None, repr(error)


def digest(text: str) -> Digest:
    return Digest.of_bytes(text.encode())


def properties(component: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(item["name"], item["value"]) for item in component["properties"]}


def every(value: Any, key: str) -> Iterator[Any]:
    """Give every value of a key, however deep."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == key:
                yield item
            yield from every(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from every(item, key)


# the image


def image_files(
    folder: Path,
) -> tuple[list[tuple[DebianPackage, Path]], list[tuple[WheelPin, Path]]]:
    packages = [
        make_deb(
            folder,
            [member("./usr/share/doc/small/copyright", COPYRIGHT)],
            control="Depends: libc6, python3.11\n",
        ),
        make_deb(folder, [], name="libc6", version="2.36-9+deb12u14"),
        make_deb(folder, [], name="python3.11", version="3.11.2-6", control="Depends: gone\n"),
    ]
    wheels = [
        make_wheel(folder, {}, metadata="License: MIT\nRequires-Dist: other-one\nSummary: a small one\n"),
        make_wheel(folder, {}, name="other-one", version="2.0+local"),
    ]
    return packages, wheels


def image_of(
    packages: Sequence[tuple[DebianPackage, Path]], wheels: Sequence[tuple[WheelPin, Path]]
) -> dict[str, Any]:
    layers = tuple(LayerPin(name=name, digest=digest(name), size=1) for name in ("debian", "wheels", "pyc"))
    image = describe_image(small_intent(), layers)
    lock = ImageLock(
        inputs={PRECOMPILE: digest("precompile")},
        platform="linux/amd64",
        debian=tuple(package for package, _ in packages),
        wheels=tuple(pin for pin, _ in wheels),
        layers=layers,
        image_id=image.id,
        manifest=image.manifest_digest,
    )
    return image_sbom(small_intent(), lock, packages, wheels)


@pytest.fixture
def image(tmp_path: Path) -> dict[str, Any]:
    return image_of(*image_files(tmp_path))


def by_name(value: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["bom-ref"]: component for component in value["components"]}


def test_an_images_document_is_what_cyclonedx_publishes(image: dict[str, Any]) -> None:
    assert_valid(image)


def test_the_validator_would_notice_what_the_schema_does_not_have(image: dict[str, Any]) -> None:
    broken = json.loads(serialised(image))
    broken["components"][0]["licence"] = "MIT"
    with pytest.raises(AssertionError, match="licence"):
        assert_valid(broken)


def test_a_debian_package_is_told_with_its_locked_file(image: dict[str, Any], tmp_path: Path) -> None:
    [(package, path), *_], _ = image_files(tmp_path)
    component = by_name(image)["pkg:deb/debian/small@1:1.0-1?arch=amd64&distro=bookworm"]
    assert (component["name"], component["version"]) == ("small", package.version)
    assert component["hashes"] == [{"alg": "SHA-256", "content": Digest.of_file(path).hex}]
    assert component["licenses"] == [{"expression": "GPL-2.0-or-later OR MIT", "acknowledgement": "declared"}]
    assert component["purl"] == component["bom-ref"]


def test_a_wheel_is_told_with_its_locked_file(image: dict[str, Any], tmp_path: Path) -> None:
    _, [(_, path), *_] = image_files(tmp_path)
    component = by_name(image)["pkg:pypi/small@1.0"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": Digest.of_file(path).hex}]
    assert component["licenses"] == [{"license": {"id": "MIT", "acknowledgement": "declared"}}]
    assert component["description"] == "a small one"
    assert ("bertir:licence:declared-in", "License") in properties(component)


def test_a_package_without_a_licence_is_said_to_be_unknown(image: dict[str, Any]) -> None:
    component = by_name(image)["pkg:pypi/other-one@2.0%2Blocal"]
    assert "licenses" not in component
    assert ("bertir:licence", "unknown") in properties(component)


def test_the_image_is_the_subject_by_its_manifest(image: dict[str, Any]) -> None:
    subject = image["metadata"]["component"]
    manifest = subject["hashes"][0]["content"]
    assert subject["type"] == "container"
    purl = PackageURL.from_string(subject["purl"])
    assert (purl.type, purl.version, purl.qualifiers) == ("oci", f"sha256:{manifest}", {"arch": "amd64"})
    assert ("bertir:image:environment:TZ", "UTC") in properties(subject)
    assert {name for name, _ in properties(subject)} >= {
        "bertir:image:id",
        "bertir:image:layer:debian",
        "bertir:image:layer:wheels",
        "bertir:image:layer:pyc",
    }


def test_the_component_has_the_images_real_name(root: Path) -> None:
    assert load_intent(root / "docker").name.rpartition("/")[2] == IMAGE_NAME


def test_what_no_package_brought_is_there_too(image: dict[str, Any]) -> None:
    [passwd] = small_intent().files
    component = by_name(image)["file/etc/passwd"]
    assert component["hashes"][0]["content"] == digest(passwd.text).hex
    assert by_name(image)["layer/pyc"]["hashes"][0]["content"] == digest("pyc").hex


def test_dependencies_lead_from_the_image_to_every_component(image: dict[str, Any]) -> None:
    graph = {item["ref"]: item["dependsOn"] for item in image["dependencies"] if "dependsOn" in item}
    assert graph["pkg:pypi/small@1.0"] == ["pkg:pypi/other-one@2.0%2Blocal"]
    reached, waiting = set(), ["image"]
    while waiting:
        ref = waiting.pop()
        reached.add(ref)
        waiting += [other for other in graph.get(ref, []) if other not in reached]
    assert reached == {"image", *by_name(image)}


def test_what_is_not_known_of_dependencies_is_said(image: dict[str, Any]) -> None:
    said = {item["aggregate"]: item for item in image["compositions"]}
    wheel, python = "pkg:pypi/small@1.0", "pkg:deb/debian/python3.11@3.11.2-6?arch=amd64&distro=bookworm"
    assert {wheel, python} <= {*said["incomplete"]["dependencies"]}
    assert not {wheel, python} & {*said["complete"]["dependencies"]}
    assert {wheel, python} <= {*said["unknown"]["assemblies"]}
    assert ("bertir:dependency:unmet", "gone") in properties(by_name(image)[python])


def test_every_reference_is_one_components_and_one_alone(image: dict[str, Any]) -> None:
    refs = list(every(image, "bom-ref"))
    assert len(refs) == len(set(refs))
    named = {
        ref for key in ("ref", "dependsOn", "assemblies", "dependencies") for ref in flat(every(image, key))
    }
    assert named <= set(refs)


def flat(values: Iterator[Any]) -> set[str]:
    return {
        text
        for value in values
        for text in (value if isinstance(value, list) else [value])
        if isinstance(text, str)
    }


def test_the_same_files_in_another_order_give_the_same_bytes(image: dict[str, Any], tmp_path: Path) -> None:
    packages, wheels = image_files(tmp_path)
    assert serialised(image_of(packages[::-1], wheels[::-1])) == serialised(image)


def test_another_licence_changes_the_document_and_not_the_serial_number(
    image: dict[str, Any], tmp_path: Path
) -> None:
    # The number follows from the image alone; a document that is read better is its next edition.
    packages, wheels = image_files(tmp_path)
    wheels[1] = make_wheel(tmp_path, {}, name="other-one", version="2.0+local", metadata="License: MIT\n")
    other = image_of(packages, wheels)
    assert other["components"] != image["components"]
    assert other["serialNumber"] == image["serialNumber"]


def test_the_interpreters_version_is_upstreams(tmp_path: Path) -> None:
    package, _ = make_deb(tmp_path, [], name="python3.11", version="1:3.11.2-6+deb12u8")
    lock = ImageLock(
        inputs={}, platform="linux/amd64", debian=(package,), wheels=(), layers=(),
        image_id=digest("i"), manifest=digest("m"),
    )  # fmt: skip
    assert interpreter_version(small_intent(), lock) == "3.11.2"
    assert interpreter_version(small_intent(), replace(lock, debian=())) == "3.11"


# the model


def reported(**changes: Any) -> dict[str, Any]:
    """What a report tells, as far as the document takes it."""
    sha = str(digest("x"))
    value: dict[str, Any] = {
        "format": FORMAT,
        "request": {"model": "tiny", "recipe": "reshapable", "precision": "fp16", "head": "pooled",
                    "batch": 1, "seq_len": 128, "task_data": "bertir"},
        "inputs": [{"names": ["IteratorGetNext:0"], "element_type": "i32", "partial_shape": "[1,128]"}],
        "outputs": [{"names": ["bert/pooler/dense/Tanh:0"], "element_type": "f32", "partial_shape": "[1,8]"}],
        "free_dimensions": ["batch"],
        "fixed_dimensions": {"sequence": 128},
        "parity": {
            "max_abs_difference": 1.97090208e-4, "threshold": 5e-3, "discrimination": 0.113, "sentences": 10,
            "shapes": [{"batch": 1, "sequence": 128}, {"batch": 4, "sequence": 128}],
        },
        "frozen_graph": sha,
        "from": {
            "model": {"name": "tiny", "title": "a tiny one", "licence": "Apache-2.0", "lower_case": True,
                      "archive": {"kind": "hugging-face-wheel", "wheel": "tiny-model==1.0", "digest": sha, "size": 1},
                      "files": {"model.safetensors": sha, "vocab.txt": sha}},
            "source": {"url": "https://github.com/somebody/bert", "commit": "c" * 40, "patched_tree": "d" * 40,
                       "pristine": {"modeling.py": sha}, "patches": [{"name": "0001-a.patch", "digest": sha}]},
            "image": {"id": str(digest("id")), "manifest": str(digest("manifest")), "platform": "linux/amd64"},
        },
        "steps": [{"facts": {"seconds": 1.5, "started": "2026-01-01T00:00:00+00:00"}}],
    }  # fmt: skip
    return value | changes


def published(folder: Path, report: Mapping[str, Any], config: Any = None) -> Verified:
    folder.mkdir(exist_ok=True)
    (folder / "bert_config.json").write_text(
        json.dumps({"num_hidden_layers": 2, "hidden_size": 8} if config is None else config)
    )
    files = {name: digest(name) for name in ("model.xml", "model.bin", "vocab.txt", "bert_config.json")}
    return Verified(
        folder=folder,
        subject=digest("sums"),
        files=files,
        stated=b"{}",
        statement={},
        report=json.dumps(report).encode(),
        signed_by=None,
    )


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    return model_sbom(published(tmp_path / "tiny", reported()))


def test_a_models_document_is_what_cyclonedx_publishes(model: dict[str, Any]) -> None:
    assert_valid(model)


def test_a_model_has_its_files_with_their_digests(model: dict[str, Any]) -> None:
    subject = model["metadata"]["component"]
    assert subject["type"] == "machine-learning-model"
    assert {part["name"]: part["hashes"][0]["content"] for part in subject["components"]} == {
        name: digest(name).hex for name in ("model.xml", "model.bin", "vocab.txt", "bert_config.json")
    }
    assert subject["version"] == str(digest("sums"))
    assert subject["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}]


def test_a_card_tells_shapes_and_parity_with_what_they_mean(model: dict[str, Any]) -> None:
    card = model["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["modelArchitecture"] == "BERT: 2 layers, 8 hidden size"
    assert card["modelParameters"]["inputs"] == [{"format": "IteratorGetNext:0: i32 [1,128]"}]
    assert card["modelParameters"]["outputs"] == [{"format": "bert/pooler/dense/Tanh:0: f32 [1,8]"}]
    [parity, accepted, discrimination] = card["quantitativeAnalysis"]["performanceMetrics"]
    assert (parity["value"], accepted["value"], discrimination["value"]) == ("2.0e-04", "5.0e-03", "1.1e-01")
    assert "TensorFlow" in parity["type"]
    assert parity["slice"] == "10 sentences, in batches by tokens of 1x128, 4x128"
    assert "with other words" in discrimination["type"]
    assert discrimination["slice"] == "one row, of no batch"
    limits = card["considerations"]["technicalLimitations"]
    assert limits[0].endswith("batch free, sequence fixed at 128.")


def test_a_model_names_what_it_was_made_from(model: dict[str, Any]) -> None:
    [weights] = model["metadata"]["component"]["pedigree"]["ancestors"]
    assert {part["name"] for part in weights["components"]} == {
        "model.safetensors",
        "vocab.txt",
        "tiny-model",
    }
    assert "pkg:pypi/tiny-model@1.0" in set(every(weights, "purl"))
    [image, source] = model["formulation"][0]["components"]
    assert [patch["diff"]["url"] for patch in source["pedigree"]["patches"]] == ["patches/0001-a.patch"]
    [pristine] = source["pedigree"]["ancestors"]
    assert pristine["purl"] == f"pkg:github/somebody/bert@{'c' * 40}"
    assert image["externalReferences"] == [
        {"type": "bom", "url": image_link(digest("id"), digest("manifest"))}
    ]


def test_the_link_leads_to_the_images_own_document(image: dict[str, Any], tmp_path: Path) -> None:
    subject = image["metadata"]["component"]
    names = dict(properties(subject))
    place = {
        "id": names["bertir:image:id"],
        "manifest": subject["version"],
        "platform": names["bertir:image:platform"],
    }
    changed = reported()
    changed["from"]["image"] = place
    value = model_sbom(published(tmp_path / "tiny", changed))
    [linked] = [item for item in value["formulation"][0]["components"] if item["type"] == "container"]
    number = image["serialNumber"].removeprefix("urn:uuid:")
    assert (
        linked["externalReferences"][0]["url"] == f"urn:cdx:{number}/{image['version']}#{subject['bom-ref']}"
    )
    assert (linked["purl"], linked["hashes"]) == (subject["purl"], subject["hashes"])


def test_no_second_and_no_place_of_the_machine_is_in_a_models_document(
    model: dict[str, Any], tmp_path: Path
) -> None:
    steps = [{"facts": {"seconds": 99.5, "started": "2027-07-07T07:07:07+00:00"}}]
    again = model_sbom(published(tmp_path / "elsewhere", reported(steps=steps)))
    assert serialised(again) == serialised(model)
    assert str(tmp_path) not in serialised(model).decode()


def test_a_digit_of_parity_that_another_cpu_changes_changes_nothing(
    model: dict[str, Any], tmp_path: Path
) -> None:
    parity = reported()["parity"] | {"max_abs_difference": 1.97075e-4}
    assert model_sbom(published(tmp_path / "tiny", reported(parity=parity))) == model


def test_another_model_has_another_serial_number(model: dict[str, Any], tmp_path: Path) -> None:
    other = model_sbom(published(tmp_path / "tiny", reported(frozen_graph=None)))
    assert other["serialNumber"] != model["serialNumber"]


def test_a_published_zip_is_told_by_its_address(tmp_path: Path) -> None:
    changed = reported()
    changed["from"]["model"]["archive"] = {
        "kind": "google-zip",
        "url": "https://localhost/a.zip",
        "size": None,
    }
    value = model_sbom(published(tmp_path / "tiny", changed))
    assert_valid(value)
    [weights] = value["metadata"]["component"]["pedigree"]["ancestors"]
    assert weights["externalReferences"] == [{"type": "distribution", "url": "https://localhost/a.zip"}]


def test_of_a_users_own_checkpoint_no_licence_is_invented(tmp_path: Path) -> None:
    changed = reported()
    changed["request"] |= {"recipe": "meta-graph", "head": "classifier", "precision": "fp32",
                           "batch": None, "seq_len": None}  # fmt: skip
    changed["frozen_graph"] = None
    changed["from"]["model"] = {
        "name": "mine", "title": "a checkpoint of the user's own", "kind": "google", "lower_case": False,
        "files": {"bert_model.ckpt.index": str(digest("i"))},
    }  # fmt: skip
    value = model_sbom(published(tmp_path / "mine", changed))
    assert_valid(value)
    assert list(every(value, "licenses")) == []
    names = {name for name, _ in properties(value["metadata"]["component"])}
    assert names == {"bertir:request:recipe", "bertir:request:precision", "bertir:request:head"}


def test_of_what_ran_in_a_virtualenv_the_wheels_are_told_and_no_image(tmp_path: Path) -> None:
    changed = reported()
    del changed["from"]["image"]
    changed["from"]["virtualenv"] = VIRTUALENV
    value = model_sbom(published(tmp_path / "tiny", changed))
    assert_valid(value)
    [formula] = value["formulation"]
    ran_in = next(item for item in formula["components"] if item["bom-ref"] == "virtualenv")
    assert ran_in["version"] == VIRTUALENV["digest"]
    assert [part["purl"] for part in ran_in["components"]] == ["pkg:pypi/numpy@1.26.4"]
    assert "container" not in {item["type"] for item in formula["components"]}


@pytest.mark.parametrize(
    ("report", "config"),
    [
        ({}, None),
        ([], None),
        (reported(parity={}), None),
        (reported(inputs=None), None),
        (reported(request={"head": "neck"}), None),
        (reported() | {"from": {"model": {}, "source": {}, "image": {"id": "sha256:1"}}}, None),
        (reported(), []),
    ],
)
def test_a_report_that_lacks_something_is_one_error(tmp_path: Path, report: Any, config: Any) -> None:
    with pytest.raises(VerificationError, match="can't be read"):
        model_sbom(published(tmp_path / "tiny", report, config))


def test_a_configuration_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    verified = published(tmp_path / "tiny", reported())
    os.truncate(tmp_path / "tiny" / "bert_config.json", 1 << 40)
    with pytest.raises(VerificationError, match="larger than any that bertir writes"):
        model_sbom(verified)


# purls and licences


NAME = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True)
VERSION = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~]{0,12}(-[0-9a-z+.~]{1,6})?", fullmatch=True)


@given(NAME, VERSION)
def test_a_debian_purl_says_what_went_in(name: str, version: str) -> None:
    purl = PackageURL.from_string(debian_purl(name, version, "amd64", "bookworm"))
    assert (purl.type, purl.namespace, purl.name, purl.version) == ("deb", "debian", name, version)
    assert purl.qualifiers == {"arch": "amd64", "distro": "bookworm"}
    assert purl.to_string() == debian_purl(name, version, "amd64", "bookworm")


@given(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,3}", fullmatch=True), VERSION)
def test_a_pypi_purl_says_what_went_in(name: str, version: str) -> None:
    purl = PackageURL.from_string(pypi_purl(name, version))
    assert (purl.type, purl.namespace, purl.name, purl.version) == ("pypi", None, name, version)


def test_an_oci_purl_has_the_manifest_and_no_registry() -> None:
    purl = PackageURL.from_string(oci_purl("bertir", digest("m"), "linux/arm64"))
    assert (purl.namespace, purl.name, purl.version) == (None, "bertir", str(digest("m")))
    assert purl.qualifiers == {"arch": "arm64"}


def test_only_a_host_that_purls_know_gives_a_git_purl() -> None:
    assert git_purl("https://github.com/a/b.git", "c" * 40) == f"pkg:github/a/b@{'c' * 40}"
    for url in ("https://example.org/a/b", "file:///a/b", "https://github.com/a/b/c", "/a/b"):
        assert git_purl(url, "c" * 40) == ""


def test_a_licence_that_cyclonedx_does_not_list_is_a_name() -> None:
    licences = [Licence(kind="id", value="MIT"), Licence(kind="id", value="Made-Up-9.9")]
    [component] = components([Item(ref="r", kind="library", name="n", licences=licences)])
    assert {entry["license"].get("id", entry["license"].get("name")) for entry in component["licenses"]} == {
        "MIT",
        "Made-Up-9.9",
    }
    assert [entry for entry in component["licenses"] if entry["license"].get("id") == "Made-Up-9.9"] == []


def test_a_serial_number_follows_from_the_content_and_an_images_from_its_digests() -> None:
    assert numbered({"a": 1})["serialNumber"] == numbered({"a": 1})["serialNumber"]
    assert numbered({"a": 1})["serialNumber"] != numbered({"a": 2})["serialNumber"]
    one = image_serial(digest("id"), digest("manifest"))
    assert one == image_serial(digest("id"), digest("manifest"))
    assert (
        len({one, image_serial(digest("x"), digest("manifest")), image_serial(digest("id"), digest("x"))})
        == 3
    )


# another process, another machine

PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from bertir.sbom import serialised
from test_sbom import image_files, image_of, model_sbom, published, reported
folder = Path(sys.argv[1])
folder.mkdir()
sys.stdout.buffer.write(serialised(image_of(*image_files(folder))))
sys.stdout.buffer.write(serialised(model_sbom(published(folder / "tiny", reported()))))
"""


def test_hash_seed_zone_locale_and_place_change_no_byte(
    image: dict[str, Any], model: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    folders = [str(root / "src"), str(root / "tests" / "support"), str(root / "tests" / "unit")]
    varied = (
        {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "1", "TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1"},
        {"PYTHONHASHSEED": "271828", "TZ": "Asia/Tokyo", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0"},
    )
    for number, environment in enumerate(varied):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / f"place {number}"), *folders],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == serialised(image) + serialised(model)


# the command line


@pytest.fixture
def session(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session for which every folder is a published one with nothing wrong."""
    monkeypatch.setattr("bertir.model_sbom.verify_folder", lambda folder: published(folder, reported()))
    return open_session(root, {"BERTIR_STORE": str(tmp_path / "store")})


def test_without_output_the_document_itself_is_given(
    session: Session, model: dict[str, Any], tmp_path: Path
) -> None:
    text = evidence.sbom(session, str(tmp_path / "tiny"), output="", offline=False, as_json=True)
    assert f"{text}\n".encode() == serialised(model)


def test_with_output_the_file_holds_it_whole_and_the_rest_is_told(
    session: Session, model: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "tiny.cdx.json"
    text = evidence.sbom(session, str(tmp_path / "tiny"), output=str(place), offline=False, as_json=True)
    assert place.read_bytes() == serialised(model)
    facts = json.loads(text)
    assert facts["sbom"] == str(place)
    assert facts["digest"] == str(Digest.of_file(place))
    assert facts["serial"] == model["serialNumber"]
    rows = evidence.sbom(session, str(tmp_path / "tiny"), output=str(place), offline=False, as_json=False)
    assert dict(line.split(maxsplit=1) for line in rows.splitlines()) == {
        name: str(value) for name, value in facts.items()
    }


def test_a_folder_and_the_job_image_exclude_each_other(session: Session, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--folder and --job exclude each other"):
        evidence.sbom(session, str(tmp_path / "tiny"), job=True, output="", offline=False, as_json=True)


def test_an_output_that_can_not_be_written_leaves_nothing(session: Session, tmp_path: Path) -> None:
    place = tmp_path / "absent" / "tiny.cdx.json"
    with pytest.raises(ConfigurationError, match="No such file"):
        evidence.sbom(session, str(tmp_path / "tiny"), output=str(place), offline=False, as_json=True)
    assert not place.parent.exists()


def test_as_text_each_component_has_a_line_with_its_licences(
    session: Session, image: dict[str, Any], tmp_path: Path
) -> None:
    text = evidence.sbom(session, str(tmp_path / "tiny"), output="", offline=False, as_json=False)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["type", "name", "version", "licence"]
    assert ["file", "model.bin", digest("model.bin").short, "-"] in lines
    assert ["machine-learning-model", "tiny", digest("sums").short, "Apache-2.0"] in lines
    rows = {
        line.split()[1]: line.split(maxsplit=3)[3]
        for line in sbom_text(image).splitlines()[1:]
        if "." in line
    }
    assert rows["small"] in {"GPL-2.0-or-later OR MIT", "MIT"}
    assert rows["other-one"] == "-"


@pytest.fixture
def run(checkout: Path, tmp_path: Path) -> Any:
    """Run `invoke sbom` in a copy of the checkout, with an empty store and no network."""
    environment = {
        name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "VIRTUAL_ENV"}
    }
    environment |= {
        "HOME": str(tmp_path), "BERTIR_STORE": str(tmp_path / "store"), "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INDEX": "1", "BERTIR_DEBIAN_MIRROR": "http://127.0.0.1:9",
    }  # fmt: skip

    def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "invoke", "sbom", *arguments],
            cwd=checkout, env=environment, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return invoke


def test_offline_every_package_that_is_missing_is_named_at_once(run: Any) -> None:
    done = run("--offline")
    assert (done.returncode, done.stdout) == (4, "")
    assert "debian/libstdc++6_" in done.stderr
    assert "wheel/tensorflow-cpu-" in done.stderr


def test_a_package_that_can_not_be_fetched_is_status_4(run: Any) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (4, "")
    assert "base-files" in done.stderr


@pytest.mark.parametrize(
    ("folder", "status", "message"),
    [("absent", 2, "can't read the folder absent"), ("Makefile", 2, "can't read the folder Makefile"),
     ("src", 8, "SHA256SUMS: missing")],
)  # fmt: skip
def test_a_folder_that_is_none_of_ours_is_one_message(
    run: Any, folder: str, status: int, message: str
) -> None:
    done = run("--folder", folder)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    asked = run("--folder", folder, "--format", "json")
    assert json.loads(asked.stdout)["error"]["exit_status"] == status


def test_a_file_in_the_published_folder_is_refused_as_output(run: Any, checkout: Path) -> None:
    done = run("--folder", "docker", "--output", "docker/sbom.json")
    assert done.returncode == 2
    assert "docker/sbom.json is in the published folder" in done.stderr
    assert not (checkout / "docker" / "sbom.json").exists()


def test_a_format_that_is_none_is_status_2(run: Any) -> None:
    done = run("--format", "xml")
    assert done.returncode == 2
    assert "--format must be text or json, and is 'xml'" in done.stderr
