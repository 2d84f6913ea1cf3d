from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.digest import Digest
from bertir.errors import ConfigurationError, LockError, StaleLockError
from bertir.host_lock import check_host_locks, check_optimum_lock, host_requirements
from bertir.intent import load_intent
from bertir.lock import (
    DebianLock,
    DebianPackage,
    ImageLock,
    LayerPin,
    dump_debian_lock,
    dump_image_lock,
    load_image_lock,
    parse_debian_lock,
    parse_image_lock,
    read_lock,
)
from bertir.requirements import Requirements, dump_requirements, parse_pins, parse_requirements

ROOT = Path(__file__).parents[2]

digests = st.binary(max_size=8).map(Digest.of_bytes)
sizes = st.integers(min_value=0, max_value=2**40)
packages = st.builds(
    DebianPackage,
    name=st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,9}", fullmatch=True),
    version=st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,9}", fullmatch=True),
    architecture=st.sampled_from(["amd64", "all"]),
    pool_path=st.from_regex(
        r"pool/main/[a-z]/[a-z][a-z0-9]{0,5}/[a-z][A-Za-z0-9+~_.]{0,9}\.deb", fullmatch=True
    ),
    size=sizes,
    digest=digests,
)
layers = st.builds(LayerPin, name=st.sampled_from(["debian", "wheels", "pyc"]), digest=digests, size=sizes)
image_locks = st.builds(
    ImageLock,
    inputs=st.dictionaries(st.sampled_from(["image.toml", "debian.lock"]), digests),
    platform=st.sampled_from(["linux/amd64", "linux/arm64"]),
    debian=st.just(()),
    wheels=st.just(()),
    layers=st.lists(layers, max_size=3).map(tuple),
    image_id=digests,
    manifest=digests,
)


@given(st.builds(DebianLock, made_from=digests, packages=st.lists(packages, max_size=4).map(tuple)))
def test_a_dumped_debian_lock_is_parsed_back(lock: DebianLock) -> None:
    assert parse_debian_lock(dump_debian_lock(lock)) == lock


@given(image_locks)
def test_a_dumped_image_lock_is_parsed_back(lock: ImageLock) -> None:
    assert parse_image_lock(dump_image_lock(lock), debian=(), wheels=()) == lock


PACKAGE = DebianPackage(
    name="dash",
    version="0.5.12-2",
    architecture="amd64",
    pool_path="pool/main/d/dash/dash_0.5.12-2_amd64.deb",
    size=1,
    digest=Digest("a" * 64),
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", None),
        ("sha256", "md5:abc"),
        ("size", "1"),
        ("size", True),
        ("size", -1),
        ("pool_path", "https://mirror.example/dash.deb"),
        ("pool_path", "pool/../../dash.deb"),
        ("pool_path", "pool/main/dash.deb?x"),
        ("version", "1 2"),
        ("name", "Dash"),
    ],
)
def test_a_debian_pin_of_another_form_is_refused(key: str, value: object) -> None:
    data = json.loads(dump_debian_lock(DebianLock(made_from=Digest("b" * 64), packages=(PACKAGE,))))
    data["packages"][0][key] = value
    with pytest.raises(LockError, match=rf"x\.lock, packages\[0\]: `{key}` must be"):
        parse_debian_lock(json.dumps(data), name="x.lock")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"packages": 1}', '{"packages": [1]}', "{}"])
def test_what_is_no_lock_is_refused_by_one_message(text: str) -> None:
    with pytest.raises(LockError, match=r"x\.lock") as caught:
        parse_debian_lock(text, name="x.lock")
    assert "invoke lock" in caught.value.advice


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A copy of the project's own docker folder, to be edited."""
    return Path(shutil.copytree(ROOT / "docker", tmp_path / "docker"))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_locks_of_the_project_are_not_stale(docker: Path) -> None:
    lock = load_image_lock(docker)
    assert [layer.name for layer in lock.layers] == ["debian", "wheels", "pyc"]
    assert {"python3", "libc6"} <= {package.name for package in lock.debian}
    assert {"tensorflow-cpu", "openvino-dev"} <= {pin.name for pin in lock.wheels}
    check_host_locks(ROOT)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "image.toml",
            'TZ = "UTC"',
            'TZ = "CET"',
            r"image\.lock is stale: changed since it was made: .*image\.toml$",
        ),
        ("image.toml", '"dash",', '"bash",', r"debian\.lock is stale: \[debian\]"),
        ("image.toml", '"numpy==1.26.4"', '"numpy==1.26.3"', r"requirements\.lock is stale: \[python\]"),
        (
            "debian.lock",
            '"version": "0.5.12-2"',
            '"version": "0.5.12-3"',
            r"image\.lock is stale: .*debian\.lock$",
        ),
        (
            "steps/precompile.py",
            "FILES_PER_PART = 250",
            "FILES_PER_PART = 251",
            r"image\.lock is stale: .*precompile\.py$",
        ),
    ],
)
def test_a_stale_lock_is_refused_and_says_what_changed(
    docker: Path, file: str, old: str, new: str, message: str
) -> None:
    _edit(docker / file, old, new)
    with pytest.raises(StaleLockError, match=message) as caught:
        load_image_lock(docker)
    assert caught.value.advice == "Run: invoke lock"
    assert caught.value.exit_status == 3


def test_a_comment_in_image_toml_makes_no_lock_stale(docker: Path) -> None:
    _edit(docker / "image.toml", "[environment]", "# a comment\n[environment]")
    load_image_lock(docker)


def test_a_wheel_with_two_digests_is_refused(docker: Path) -> None:
    _edit(
        docker / "requirements.lock", "six==1.17.0 \\\n", f"six==1.17.0 \\\n    --hash=sha256:{'a' * 64} \\\n"
    )
    path = docker / "requirements.lock"
    text = path.read_text(encoding="utf-8")
    with pytest.raises(LockError, match="was edited"):
        load_image_lock(docker)
    pins = parse_pins(text, name="requirements.lock")
    made_from = load_intent(docker).python.resolution
    path.write_text(dump_requirements(Requirements(made_from=made_from, pins=pins)), encoding="utf-8")
    with pytest.raises(LockError, match=r"six==1\.17\.0 must have one sha256"):
        load_image_lock(docker)


def test_a_version_edited_by_hand_is_noticed(docker: Path) -> None:
    _edit(docker / "requirements.lock", "numpy==1.26.4", "numpy==1.26.3")
    with pytest.raises(LockError, match=r"requirements\.lock was edited"):
        load_image_lock(docker)


@pytest.mark.parametrize("file", ["debian.lock", "requirements.lock", "image.lock"])
def test_a_missing_lock_is_named(docker: Path, file: str) -> None:
    (docker / file).unlink()
    with pytest.raises(LockError, match=f"can't read .*{file}"):
        load_image_lock(docker)


def test_a_missing_step_program_is_named(docker: Path) -> None:
    (docker / "steps" / "precompile.py").unlink()
    with pytest.raises(ConfigurationError, match=r"can't read .*precompile\.py"):
        load_image_lock(docker)


def test_a_changed_dependency_makes_the_host_locks_stale(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    check_host_locks(tmp_path)
    _edit(tmp_path / "pyproject.toml", '"invoke>=', '"invoke>2,>=')
    with pytest.raises(StaleLockError, match=r"build\.lock is stale: the dependencies"):
        check_host_locks(tmp_path)


def test_a_changed_competitor_makes_its_lock_stale_and_no_other(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    check_optimum_lock(tmp_path)
    _edit(tmp_path / "pyproject.toml", '"optimum-intel[openvino]>=', '"optimum-intel[openvino]>2,>=')
    with pytest.raises(StaleLockError, match=r"optimum\.lock is stale") as error:
        check_optimum_lock(tmp_path)
    assert "invoke lock --only bench" in error.value.advice
    check_host_locks(tmp_path)


def test_a_changed_dependency_of_the_service_makes_its_lock_stale(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _edit(tmp_path / "pyproject.toml", '"tokenizers>=', '"tokenizers>0,>=')
    with pytest.raises(StaleLockError, match=r"serving\.lock is stale"):
        check_host_locks(tmp_path)


def test_the_service_runs_with_the_images_openvino_and_numpy_and_without_what_fetches_from_a_hub() -> None:
    served, image = (
        {pin.name: pin.version for pin in parse_requirements(read_lock(ROOT / name), name=name).pins}
        for name in ("requirements/serving.lock", "docker/requirements.lock")
    )
    for name in ("openvino", "numpy"):
        assert served[name] == image[name], name
    assert not served.keys() & {"huggingface-hub", "httpx2"}


def test_an_unknown_dependency_group_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nonsense"):
        host_requirements(ROOT, ["nonsense"])


def test_two_locks_that_differ_in_one_package_differ_in_text() -> None:
    one = DebianLock(made_from=Digest("b" * 64), packages=(PACKAGE,))
    other = replace(one, packages=(replace(PACKAGE, size=2),))
    assert dump_debian_lock(one) != dump_debian_lock(other)
