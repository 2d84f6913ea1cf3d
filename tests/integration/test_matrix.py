"""Many builds by one command: shared steps once, a failure that stops no other, and an end that leaves nothing."""

from __future__ import annotations

import collections
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
from checkout import ROOT, Checkout, copy_checkout
from running_task import STATUSES, Containers, left_in, running, wait_until
from tiny_bert import files, make_model, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checkout import Result

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

NO_ENGINE = "unix:///nonexistent/docker.sock"
MODELS = ("tiny-bert", "other-bert")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A clone with two models, and a store of its own."""

    checkout: Checkout
    store: Path
    client: docker.DockerClient

    def build(self, *arguments: str, **environment: str) -> tuple[Result, dict[str, Any]]:
        ended = self.checkout.invoke("build-matrix", *arguments, "--format", "json", **environment)
        return ended, json.loads(ended.stdout)


def ran(ended: Result) -> collections.Counter[str]:
    """How many containers were run, by step. (The engine's own events are few: other builds' drive them out.)"""
    return collections.Counter(re.findall(r"\] (\w+) +\S+: running in the container", ended.stderr))


@pytest.fixture(scope="module")
def place(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    builder.load_image()
    folder = tmp_path_factory.mktemp("matrix")
    made = []
    for seed, name in enumerate(MODELS):
        (folder / name).mkdir()
        made.append(make_model(folder / name, files(weights(seed=5 * seed)), name=name))
    models = folder / "models.toml"
    models.write_text("".join(model.models_toml.read_text(encoding="utf-8") for model in made))
    store = folder / "store"
    checkout = copy_checkout(
        folder / "clone",
        BERTIR_STORE=str(store),
        BERTIR_MODELS=str(models),
        PIP_FIND_LINKS=" ".join(str(model.folder) for model in made),
    )
    client = docker.from_env()
    try:
        yield Place(checkout=checkout, store=store, client=client)
    finally:
        client.close()


@pytest.fixture(scope="module")
def built(place: Place) -> tuple[Result, dict[str, Any]]:
    lists = ("--models", ",".join(MODELS), "--precisions", "fp16,fp32")
    ended, facts = place.build(*lists, "--jobs", "2")
    assert ended.status == 0, ended.stderr
    return ended, facts


def test_steps_that_several_builds_share_run_once(place: Place, built: tuple[Result, dict[str, Any]]) -> None:
    ended, facts = built
    assert ran(ended) == {"import": 2, "freeze": 2, "convert": 4, "reference": 4, "verify": 4}
    assert facts["results"] == {"built": 4}
    assert (facts["jobs"], facts["exit_status"]) == (2, 0)
    assert [target["name"] for target in facts["targets"]] == [
        f"{model}/reshapable-{precision}" for model in MODELS for precision in ("fp16", "fp32")
    ]
    golden = json.loads((ROOT / "tests" / "golden" / "tiny-bert.json").read_text(encoding="utf-8"))
    for target in facts["targets"][:2]:
        precision = target["request"]["precision"]
        digests = {f"{precision}/{name}": digest for name, digest in target["build"]["files"].items()}
        assert digests.items() <= golden.items()
    for target in facts["targets"]:
        verified = place.checkout.invoke("verify", target["build"]["folder"])
        assert verified.status == 0, verified.stderr
    # Each line says which build it is of.
    for line in re.findall(
        r"^\[ *[\d.]+ s\] (?:import|freeze|convert|verify) .*", ended.stderr, re.MULTILINE
    ):
        assert re.search(r"\] \w+ +(tiny|other)-bert/reshapable-fp(16|32): ", line), line
    assert left_in(place.store) == []


def test_what_is_in_the_store_is_published_without_an_engine_and_without_another_process(
    place: Place, built: tuple[Result, dict[str, Any]]
) -> None:
    _, facts = built
    lists = ("--models", ",".join(MODELS), "--precisions", "fp16,fp32")
    ended, again = place.build(*lists, DOCKER_HOST=NO_ENGINE)
    assert (ended.status, again["results"], again["memory"]) == (0, {"unchanged": 4}, None)
    ended, elsewhere = place.build(*lists, "--output", "elsewhere", DOCKER_HOST=NO_ENGINE)
    assert (ended.status, elsewhere["results"]) == (0, {"published": 4})
    for one, other in zip(facts["targets"], elsewhere["targets"], strict=True):
        assert one["build"]["files"] == other["build"]["files"]
    assert (place.checkout.root / "elsewhere" / "tiny-bert" / "reshapable-fp16" / "model.xml").exists()


@pytest.mark.usefixtures("built")
def test_one_that_fails_stops_no_other(place: Place) -> None:
    ended, facts = place.build("--heads", "classifier,pooled,sequence", "--jobs", "2")
    results = {target["request"]["head"]: target["result"] for target in facts["targets"]}
    assert results == {"classifier": "failed", "pooled": "unchanged", "sequence": "built"}
    assert ended.status == facts["exit_status"] == 7
    [error] = [target["error"] for target in facts["targets"] if target["error"]]
    assert "the checkpoint has no classifier" in error["message"]
    [log] = re.findall(r"The whole log is (\S+)", error["advice"])
    assert "the checkpoint has no classifier" in Path(log).read_text(encoding="utf-8")
    assert "1 of 3 builds published nothing" in ended.stderr
    assert left_in(place.store) == []


@pytest.mark.usefixtures("built")
def test_one_that_takes_more_than_is_allowed_runs_its_steps_one_after_another(place: Place) -> None:
    for memory, told in (("1G", 1), ("20G", 0)):
        ended, facts = place.build("--batches", str(7 + told), "--memory", memory)
        assert (facts["results"], facts["memory"]) == ({"built": 1}, int(memory[:-1]) * 10**9)
        assert ended.stderr.count("steps run one after another") == told
        assert ("running in the container, beside" in ended.stderr) == (told == 0)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGINT", "SIGINT twice"])
def test_ended_while_two_builds_run_it_leaves_nothing(place: Place, tmp_path: Path, kind: str) -> None:
    containers = Containers(place.client, place.store)
    before = {path.name for path in (place.checkout.root / "dist" / "tiny-bert").iterdir()}
    lists = ("--seq-lens", "32,48,64", "--jobs", "2")
    with running(place.checkout, tmp_path / "log", "build-matrix", *lists) as task:
        task.wait_for(lambda: len(containers.steps(running=True)) > 1, "two containers")
        assert task.end(kind) == STATUSES[kind], task.said
        assert containers.steps() == {}
        assert left_in(place.store) == []
        wait_until(lambda: is_gone(task.process.pid), "the end of every process")
    assert "Traceback" not in task.said
    assert task.said.count("what was finished is in the store") == 1
    assert {path.name for path in (place.checkout.root / "dist" / "tiny-bert").iterdir()} == before


@pytest.mark.usefixtures("built")
def test_killed_while_two_builds_run_the_next_run_clears_away_and_goes_on(
    place: Place, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    containers = Containers(place.client, place.store)
    lists = ("--seq-lens", "32,64", "--jobs", "2")
    with running(place.checkout, tmp_path / "log", "build-matrix", *lists) as task:
        task.wait_for(lambda: len(containers.steps(running=True)) > 1, "two containers")
        assert task.end("SIGKILL") == STATUSES["SIGKILL"]
        wait_until(lambda: is_gone(task.process.pid), "the end of every worker")
    killed = set(containers.steps())
    assert killed  # one of them may have ended meanwhile
    ended, facts = place.build(*lists)
    assert (ended.status, facts["results"]) == (0, {"built": 2}), ended.stderr
    assert not killed & set(containers.steps())
    assert containers.steps() == {}
    assert left_in(place.store) == []
    assert ran(ended)["convert"] == 2
    figure("matrix: 2 builds at once, ended in 4 ways")


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
