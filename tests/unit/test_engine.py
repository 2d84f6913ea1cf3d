from __future__ import annotations

import gc
import json
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bertir.container import Command, Limits
from bertir.digest import Digest
from bertir.engine import STEP_USER, Engine, connect
from bertir.engines import ImageGoneError
from bertir.errors import (
    BertirError,
    ConfigurationError,
    EngineError,
    ImageError,
    MissingOutputError,
    StepError,
    StepTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.conftest import Server

ID, MANIFEST, OTHER = (Digest.of_bytes(text) for text in (b"id", b"manifest", b"other"))
COMMAND = Command(name="convert", arguments=("mo",), inputs={}, outputs=("model.bin",))
API = "1.44"


def test_a_step_does_not_run_as_root() -> None:
    assert "0" not in STEP_USER.split(":")


# finding an engine


# docker-py doesn't close its session when its constructor fails.
leaking = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@leaking
@pytest.mark.parametrize(
    "host",
    [
        "unix:///nonexistent/docker.sock",
        "tcp://127.0.0.1:9",
        "tcp://127.0.0.1:99999",
        "tcp://",
        "nonsense://x",
        "no host at all",
        "ssh://nobody@127.0.0.1:9",
    ],
)
def test_an_engine_that_does_not_answer_is_one_error_that_names_it(tmp_path: Path, host: str) -> None:
    with pytest.raises(EngineError) as raised, connect({"DOCKER_HOST": host}, folder=tmp_path):
        pass
    assert raised.value.exit_status == 6
    assert f"no container engine answers (asked: DOCKER_HOST={host})" in str(raised.value)
    assert "make engine" in raised.value.advice
    gc.collect()  # so that what leaks is found here and not in another test


def test_a_socket_without_an_engine_behind_it_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError), connect({"DOCKER_HOST": f"unix://{tmp_path}/file"}, folder=tmp_path):
        pass


@leaking
def test_a_server_that_is_no_engine_is_no_engine(tmp_path: Path, server: Server) -> None:
    server.answer("/version", b"<html>welcome</html>")
    with (
        pytest.raises(BertirError) as raised,
        connect({"DOCKER_HOST": server.url.replace("http", "tcp")}, folder=tmp_path),
    ):
        pass
    assert raised.value.exit_status == 6
    gc.collect()


def test_a_context_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with (
        pytest.raises(ConfigurationError, match="no docker context named 'absent'"),
        connect({"DOCKER_CONTEXT": "absent"}, folder=tmp_path),
    ):
        pass


# against a loopback server that speaks as much of the Docker API as each test needs


@pytest.fixture
def docker_api(server: Server) -> Server:
    version = {"Version": "20.10.24", "ApiVersion": API, "Arch": "amd64", "Components": [{"Name": "Engine"}]}
    for path in ("/version", f"/v{API}/version"):
        answer(server, path, version)
    server.answer(f"/v{API}/_ping", b"OK")
    answer(server, f"/v{API}/info", {"MemoryLimit": True, "SwapLimit": True, "PidsLimit": True})
    return server


def answer(server: Server, path: str, value: Any, status: int = 200) -> None:
    server.answer(
        path, json.dumps(value).encode(), status=status, headers={"Content-Type": "application/json"}
    )


@pytest.fixture
def engine(docker_api: Server, tmp_path: Path) -> Iterator[Engine]:
    environment = {"DOCKER_HOST": docker_api.url.replace("http", "tcp")}
    with connect(environment, folder=tmp_path) as connected:
        yield connected


def image_path(reference: object) -> str:
    return f"/v{API}/images/{reference}/json"


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    facts = engine.facts()
    assert (facts.name, facts.version, facts.api_version, facts.architecture) == (
        "Engine",
        "20.10.24",
        API,
        "amd64",
    )


def test_an_engine_of_another_processor_is_refused(engine: Engine) -> None:
    engine.require_architecture("amd64")
    with pytest.raises(EngineError, match="the engine runs on amd64, and the image is for arm64"):
        engine.require_architecture("arm64")


def test_what_an_engine_can_not_limit_is_in_its_facts_and_only_then(
    docker_api: Server, tmp_path: Path, engine: Engine
) -> None:
    assert engine.not_limited == ()
    assert "not_limited" not in engine.facts().to_json()
    docker_api.answers[f"/v{API}/info"].clear()
    answer(docker_api, f"/v{API}/info", {"MemoryLimit": False, "SwapLimit": True, "PidsLimit": False})
    with connect({"DOCKER_HOST": docker_api.url.replace("http", "tcp")}, folder=tmp_path) as another:
        assert another.facts().to_json()["not_limited"] == "memory, processes"


@pytest.mark.parametrize("reported", [ID, MANIFEST])
def test_an_image_is_found_under_either_of_its_digests(
    engine: Engine, docker_api: Server, reported: Digest
) -> None:
    for digest in (ID, MANIFEST):
        answer(docker_api, image_path(digest), {"message": "No such image"}, 404)
    assert engine.find_image([ID, MANIFEST]) is None
    docker_api.answers[image_path(reported)].clear()
    answer(docker_api, image_path(reported), {"Id": str(reported)})
    assert engine.find_image([ID, MANIFEST]) == str(reported)


def test_an_engine_that_hangs_is_waited_for_once_and_not_for_each_container(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertir.engine.ANSWER_SECONDS", 2)
    monkeypatch.setattr("bertir.engine.AGAIN_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        engine._client.api.base_url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        begun = time.monotonic()
        for name in "abcdef":
            engine.remove(name)
        assert 2 <= time.monotonic() - begun < 2 * 5


def test_an_image_of_another_id_is_not_the_one(engine: Engine, docker_api: Server) -> None:
    answer(docker_api, image_path(ID), {"Id": str(OTHER)})
    assert engine.find_image([ID]) is None


def test_the_loaded_image_must_have_the_locked_id(engine: Engine, docker_api: Server) -> None:
    answer(docker_api, f"/v{API}/images/load", {"stream": "Loaded"})
    answer(docker_api, image_path("bertir:1"), {"Id": str(OTHER)})
    with pytest.raises(ImageError, match="reports another ID than the lock for bertir:1") as raised:
        engine.load_image(iter([b"an archive"]), "bertir:1", (ID, MANIFEST))
    assert all(str(digest) in str(raised.value) for digest in (ID, MANIFEST, OTHER))
    docker_api.answers[image_path("bertir:1")].clear()
    answer(docker_api, image_path("bertir:1"), {"Id": str(MANIFEST)})
    assert engine.load_image(iter([b"an archive"]), "bertir:1", (ID, MANIFEST)) == str(MANIFEST)


def test_an_image_that_did_not_come_is_an_error(engine: Engine, docker_api: Server) -> None:
    answer(docker_api, f"/v{API}/images/load", {"stream": "Loaded"})
    answer(docker_api, image_path("bertir:1"), {"message": "No such image: bertir:1"}, 404)
    with pytest.raises(ImageError, match="found    no image"):
        engine.load_image(iter([b"an archive"]), "bertir:1", (ID,))


@pytest.mark.parametrize("status", [200, 500])
def test_an_engine_that_refuses_an_archive_is_quoted(engine: Engine, docker_api: Server, status: int) -> None:
    value = {"error": "invalid tar header"} if status == 200 else {"message": "invalid tar header"}
    answer(docker_api, f"/v{API}/images/load", value, status)
    with pytest.raises(ImageError, match="invalid tar header"):
        engine.load_image(iter([b"an archive"]), "bertir:1", (ID,))


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ((500, "no space left on device"), "docker system df"),
        ((400, 'bind source path does not exist: "/store/objects"'), "BERTIR_STORE"),
        ((404, "No such image: sha256:0"), ""),
        ((409, "conflict"), ""),
    ],
)
def test_a_container_that_can_not_be_made_is_an_engine_error(
    engine: Engine, docker_api: Server, tmp_path: Path, refused: tuple[int, str], words: str
) -> None:
    status, message = refused
    answer(docker_api, f"/v{API}/containers/create", {"message": message}, status)
    with pytest.raises(EngineError) as raised, engine.run(str(ID), COMMAND, tmp_path):
        pass
    assert message.split(":", maxsplit=1)[0] in str(raised.value)
    assert words in raised.value.advice
    assert isinstance(raised.value, ImageGoneError) == message.startswith("No such image")


def test_an_engine_that_breaks_off_is_an_engine_error(engine: Engine, docker_api: Server) -> None:
    docker_api.answer(image_path(ID), b'{"Id"', length=500)
    with pytest.raises(EngineError, match="no longer answers"):
        engine.find_image([ID])


def ended(
    docker_api: Server,
    log: bytes,
    status: int,
    *,
    out_of_memory: bool = False,
    seconds: float = 0.0,
    running: int = 0,
) -> None:
    """A container that printed `log` and ended with `status`, after so many answers that it is running."""
    container = f"/v{API}/containers/{'c' * 64}"
    answer(docker_api, f"/v{API}/containers/create", {"Id": "c" * 64, "Warnings": []}, 201)
    for runs in [True] * running + [False]:
        state = {"Running": runs, "OOMKilled": out_of_memory}
        known = {"Id": "c" * 64, "Config": {"Tty": False}, "State": state, "HostConfig": {}}
        answer(docker_api, f"{container}/json", known)
    docker_api.answer(f"{container}/start", status=204)
    frame = b"\x01\0\0\0" + len(log).to_bytes(4, "big") + log
    docker_api.answer(
        f"{container}/logs", frame, headers={"Content-Type": "application/octet-stream"}, delay=seconds
    )
    docker_api.answer(f"{container}/kill", status=204)
    answer(docker_api, f"{container}/wait", {"StatusCode": status})
    docker_api.answer(container, status=204)


def removed(docker_api: Server) -> bool:
    """Whether the last thing asked of the engine was to remove the container, by the name that bertir gave it."""
    return re.fullmatch(rf"/v{API}/containers/bertir-[0-9a-f]{{32}}", docker_api.asked[-1]) is not None


@dataclass(frozen=True)
class Failure:
    log: bytes
    status: int
    message: str
    out_of_memory: bool = False


@pytest.mark.parametrize(
    "failure",
    [
        Failure(
            b"noise\nbertir-step: no variable x\nbertir-step: in the checkpoint\n",
            3,
            "no variable x\n  in the",
        ),
        Failure(
            b"Traceback\nValueError: no\n",
            1,
            r"exit status 1; its last lines:\n  Traceback\n  ValueError: no",
        ),
        Failure(b"", 137, r"want of memory \(limit 8.0 GiB\)", out_of_memory=True),
        Failure(b"", 137, r"exit status 137 \(killed, and not by bertir\)"),
        Failure(b"\xff\xfe not text\n", 1, "not text"),
        Failure(b"", 1, "status 1; the kernel ended a process of it for want of memory", out_of_memory=True),
        Failure(b"bertir-step: no\n", 1, "no\n  the kernel ended a process of it", out_of_memory=True),
        Failure(b"OSError: No space left on device\n", 1, "its /tmp, in memory, holds 2.15 GB at most"),
    ],
    ids=["said", "crashed", "out of memory", "killed", "no text", "child", "child, said", "no space"],
)
def test_a_failed_step_says_why_and_keeps_its_log(
    engine: Engine, docker_api: Server, tmp_path: Path, failure: Failure
) -> None:
    ended(docker_api, failure.log, failure.status, out_of_memory=failure.out_of_memory)
    with (
        pytest.raises(StepError, match=failure.message) as raised,
        engine.run(str(ID), COMMAND, tmp_path),
    ):
        pass
    [log] = (tmp_path / "logs").iterdir()
    assert log.read_bytes() == failure.log
    assert str(log) in raised.value.advice
    assert removed(docker_api)


def test_of_two_failures_in_the_same_step_neither_takes_the_others_log(
    engine: Engine, docker_api: Server, tmp_path: Path
) -> None:
    logs = (b"one\n", b"other\n", b"one\n")
    for number, log in enumerate(logs):
        docker_api.answers = {
            path: known for path, known in docker_api.answers.items() if "/containers/" not in path
        }
        scratch = tmp_path / str(number)
        scratch.mkdir()
        ended(docker_api, log, 1)
        with pytest.raises(StepError), engine.run(str(ID), COMMAND, scratch):
            pass
    kept = sorted((tmp_path / "logs").iterdir())
    assert sorted(path.read_bytes() for path in kept) == [b"one\n", b"other\n"]
    assert all(path.name.startswith("convert-") for path in kept)


def test_a_log_can_not_speak_to_the_terminal(engine: Engine, docker_api: Server, tmp_path: Path) -> None:
    # What a step prints may come from a stranger's graph: escape codes could hide or forge lines.
    for log in (b"bertir-step: \x1b[2Jall is well\n", b"\x1b]0;title\x07\x9b31m\n"):
        docker_api.answers = {
            path: known for path, known in docker_api.answers.items() if "/containers/" not in path
        }
        scratch = tmp_path / str(len(log))
        scratch.mkdir()
        ended(docker_api, log, 1)
        with pytest.raises(StepError) as raised, engine.run(str(ID), COMMAND, scratch):
            pass
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", str(raised.value))


def test_a_step_over_its_time_is_killed_and_status_101(
    engine: Engine, docker_api: Server, tmp_path: Path
) -> None:
    ended(docker_api, b"still at it\n", 137, seconds=0.05, running=9)
    command = Command(name="convert", arguments=("mo",), inputs={}, outputs=(), limits=Limits(seconds=0.1))
    with (
        pytest.raises(StepTimeoutError, match="convert: stopped after 0 s, its time limit") as raised,
        engine.run(str(ID), command, tmp_path),
    ):
        pass
    assert raised.value.exit_status == 101
    assert f"/v{API}/containers/{'c' * 64}/kill" in docker_api.asked
    [log] = (tmp_path / "logs").iterdir()
    assert log.read_bytes() == b"still at it\n"


def test_only_the_last_lines_of_a_long_log_are_shown(
    engine: Engine, docker_api: Server, tmp_path: Path
) -> None:
    ended(docker_api, b"".join(b"line %d\n" % number for number in range(100)), 1)
    with pytest.raises(StepError) as raised, engine.run(str(ID), COMMAND, tmp_path):
        pass
    shown = str(raised.value).splitlines()[1:]
    assert shown == [f"  line {number}" for number in range(80, 100)]


def test_a_step_that_ends_well_without_its_output_is_an_error(
    engine: Engine, docker_api: Server, tmp_path: Path
) -> None:
    ended(docker_api, b"done\n", 0)
    with pytest.raises(MissingOutputError), engine.run(str(ID), COMMAND, tmp_path):
        pass


def test_the_container_is_removed_even_when_the_caller_fails(
    engine: Engine, docker_api: Server, tmp_path: Path
) -> None:
    ended(docker_api, b"done\n", 0)
    command = Command(name="convert", arguments=("mo",), inputs={}, outputs=())
    with pytest.raises(RuntimeError), engine.run(str(ID), command, tmp_path) as finished:  # noqa: PT012
        assert finished.log.read_bytes() == b"done\n"
        raise RuntimeError
    assert removed(docker_api)
