"""Which engine is chosen, by whom, and what its steps then run in."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from done_build import ROOT, done_builder

from bertir.engines import DOCKER, LOCAL, chosen
from bertir.errors import ConfigurationError, ImageError
from bertir.laying import relative
from bertir.local_runtime import InImage
from bertir.lock import load_image_lock
from bertir.runtime import Containers, chosen_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.store import Store

LOCKED = str(load_image_lock(ROOT / "docker").image_id)


@pytest.fixture
def builder(store: Store) -> Builder:
    return done_builder(store)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    path = tmp_path / "image.json"
    path.write_text(json.dumps({"image": LOCKED}), encoding="utf-8")
    return path


def test_docker_runs_steps_unless_bertir_runs_inside_its_image(tmp_path: Path, marker: Path) -> None:
    assert chosen("", {}, tmp_path / "nothing") == DOCKER
    assert chosen("", {"BERTIR_ENGINE": ""}, tmp_path / "nothing") == DOCKER
    assert chosen("", {}, marker) == LOCAL


def test_the_option_comes_before_the_environment_and_both_before_the_place(marker: Path) -> None:
    assert chosen("", {"BERTIR_ENGINE": "docker"}, marker) == DOCKER
    assert chosen("local", {"BERTIR_ENGINE": "docker"}, marker) == LOCAL
    assert chosen("docker", {"BERTIR_ENGINE": "local"}, marker) == DOCKER


@pytest.mark.parametrize(
    ("option", "environment", "message", "advice"),
    [
        ("dokcer", {}, "--engine must be docker or local, and is 'dokcer'", "Did you mean docker?"),
        (
            "",
            {"BERTIR_ENGINE": "lokal"},
            "BERTIR_ENGINE must be docker or local, and is 'lokal'",
            "Did you mean local?",
        ),
        ("podman", {}, "--engine must be docker or local, and is 'podman'", ""),
    ],
)
def test_another_name_is_one_message_with_the_nearest(
    tmp_path: Path, option: str, environment: dict[str, str], message: str, advice: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        chosen(option, environment, tmp_path / "nothing")
    assert (str(caught.value), caught.value.advice) == (message, advice)


def test_containers_are_of_the_locked_image_also_inside_it(builder: Builder, marker: Path) -> None:
    runtime = chosen_runtime(builder, DOCKER, marker)
    assert isinstance(runtime, Containers)
    assert (str(runtime.identity), runtime.stated) == (LOCKED, None)


def test_inside_the_image_nothing_is_to_be_made_and_the_keys_are_those_of_containers(
    builder: Builder, marker: Path
) -> None:
    runtime = chosen_runtime(builder, LOCAL, marker)
    assert isinstance(runtime, InImage)
    assert (str(runtime.identity), runtime.stated) == (LOCKED, None)
    assert (runtime.find(), runtime.provide(), runtime.works(), runtime.made_of()) == (LOCKED, LOCKED, [], ())


def test_inside_another_image_than_the_locked_one_is_one_message(builder: Builder, marker: Path) -> None:
    marker.write_text(json.dumps({"image": f"sha256:{'0' * 64}"}), encoding="utf-8")
    with pytest.raises(ImageError, match="inside another image than the locked one") as caught:
        chosen_runtime(builder, LOCAL, marker)
    assert LOCKED in str(caught.value)
    assert f"sha256:{'0' * 64}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"image": 1}', '{"image": "sha256:12"}', "[" * 100_000])
def test_a_marker_that_says_nothing_is_one_message(builder: Builder, marker: Path, text: str) -> None:
    marker.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="should say which image this is, and doesn't"):
        chosen_runtime(builder, LOCAL, marker)


def test_a_marker_that_is_a_pipe_is_not_waited_for(builder: Builder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="should say which image this is"):
        chosen_runtime(builder, LOCAL, tmp_path / "pipe")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("/in/model.xml", "in/model.xml"),
        ("/in", "in"),
        ("/step/freeze.py", "step/freeze.py"),
        ("--output_dir=/out", "--output_dir=out"),
        ("--output-node=/out/x", "--output-node=out/x"),
        ("/input", "/input"),
        ("--output=bert/in/out", "--output=bert/in/out"),
        ("--input=a,/in/b", "--input=a,/in/b"),
        ("--a=--b=/in/c", "--a=--b=/in/c"),
        ("x = '/in/a'", "x = '/in/a'"),
        ("/usr/in/a", "/usr/in/a"),
    ],
)
def test_only_a_path_at_an_arguments_or_a_values_start_is_one(argument: str, expected: str) -> None:
    assert relative(argument) == expected
