"""The tutorial, typed as it stands, and the service that it ends with: what it refuses, and how it is ended."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT, Checkout
from documented import commands, given
from hand import clone
from programs import needed
from typing_in import Ended, type_in

from bertir.materials import load_pins
from bertir.pipeline import patch_source
from bertir.steps import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

PAGE = ROOT / "docs" / "tutorial.md"
EXAMPLES = ROOT / "examples"
LENGTH = 48
# What tokenizers and tokenization.py might take for different things.
HARD = (
    "Crème brûlée à l'Élysée, naïve façade",
    "e\u0301 A\u030a ﬁ ﬀ Straße İstanbul \u0131I Σίσυφος",
    "我的包裹在哪里\uff1f 東京タワーとｶﾀｶﾅ 안녕하세요",
    "[SEP] [CLS] no [MASK] and [UNK] ##ing",
    "a\u0000b\ufffdc\u200dd\u00ade\u200bf \u0007",
    "tab\tand\u00a0space\u3000and\u2028line\r\nend",
    "don't—stop… $5.00 ^_^ `code` ~|<>= 100%/50€ «quoted»",
    "🙂👍🏽 é️ №5 ½ x² ™",
    "y" * 101,
    "z" * 200,
    "w" * 201,
    "one sentence that has far more words than " * 5,
    "مرحباً كيف حالك؟ สวัสดี नमस्ते Tiếng Việt",
    ".",
)


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A clone in which the page was followed, but for its last command, which removes what it made."""

    clone: Checkout
    ended: list[Ended]

    @property
    def python(self) -> str:
        return str(self.clone.root / "tutorial/service/bin/python")

    @property
    def published(self) -> Path:
        [folder] = self.clone.root.glob("dist/*/*")
        return folder

    def example(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self.python, str(EXAMPLES / "serving" / name), *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def followed(
    engine_environment: dict[str, str], store_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Followed]:
    del engine_environment  # asked for, so that there is an engine
    for name in ("curl", "docker"):  # with which the page is typed
        needed(name)
    folder = tmp_path_factory.mktemp("tutorial")
    *typed, last = commands(PAGE)
    assert last.command == "rm -r tutorial"
    try:
        with clone(folder, store_root, given(PAGE)) as made:
            yield Followed(clone=made, ended=type_in(typed, made.root, made.environment))
            [removed] = type_in([last], made.root, made.environment)
            assert removed.objection == ""
    finally:
        shutil.rmtree(folder)  # a gigabyte, of which pytest would keep three


def test_every_command_of_the_tutorial_does_what_the_page_says(followed: Followed) -> None:
    assert [one.objection for one in followed.ended if one.objection] == []


def test_the_service_cuts_sentences_as_they_were_cut_for_the_training(
    followed: Followed, builder: Builder, run_program: Callable[..., Any]
) -> None:
    tutorial = followed.clone.root / "tutorial"
    source = patch_source(builder, load_pins(builder)).artifact["tokenization.py"]
    given = {
        "/in/source/tokenization.py": builder.store.path(source.digest),
        "/in/vocab.txt": tutorial / "base/vocab.txt",
        "/in/predict.tf_record": tutorial / "tuned/predict.tf_record",
        "/step/rows.py": ROOT / "docker/steps/rows.py",
        "/step/said.py": ROOT / "docker/steps/said.py",
    }
    ran = run_program(
        (ROOT / "tests/support/steps/tokenized.py").read_text(encoding="utf-8"),
        "/in/source",
        "/in/vocab.txt",
        "/in/predict.tf_record",
        "/in/sentences.json",
        str(LENGTH),
        "/out/rows.json",
        inputs={path: file.read_bytes() for path, file in given.items()}
        | {"/in/sentences.json": json.dumps(HARD).encode()},
        outputs=["rows.json"],
    )
    expected = json.loads(read(builder, ran, "rows.json"))
    lines = (EXAMPLES / "fine_tuning/test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    sentences = [*(line.split("\t")[1] for line in lines), *HARD]
    program = (
        "import json, sys; from pathlib import Path; from tokens import Tokens\n"
        "rows = Tokens(Path(sys.argv[1]), lower_case=True, length=int(sys.argv[2])).rows(json.load(sys.stdin))\n"
        "json.dump([column.tolist() for column in rows], sys.stdout)"
    )
    done = subprocess.run(
        [followed.python, "-c", program, str(followed.published / "vocab.txt"), str(LENGTH)],
        input=json.dumps(sentences),
        env={"PYTHONPATH": str(EXAMPLES / "serving")},
        check=True,
        capture_output=True,
        text=True,
    )
    found = [list(row) for row in zip(*json.loads(done.stdout), strict=True)]
    assert len(expected) == len(sentences)
    different = [text for text, one, other in zip(sentences, found, expected, strict=True) if one != other]
    assert different == []


# the service


@dataclass(frozen=True, kw_only=True)
class Service:
    """A running one."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/v2/{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def probabilities(self, sentence: str) -> list[float]:
        status, answer = self.ask("models/classifier/infer", asking(sentence))
        assert status == 200
        data: list[float] = answer["outputs"][0]["data"]
        return data


def asking(*sentences: str) -> bytes:
    given = {"name": "sentences", "datatype": "BYTES", "shape": [len(sentences)], "data": sentences}
    return json.dumps({"inputs": [given]}).encode()


@contextlib.contextmanager
def serving(followed: Followed, log: Path) -> Iterator[Service]:
    serve = EXAMPLES / "serving/serve.py"
    command = [followed.python, str(serve), str(followed.published), "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(r"Uvicorn running on \S+:(\d+) ", log.read_text(encoding="utf-8"))):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        yield Service(process=process, port=int(found[1]), log=log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service(followed: Followed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(followed, tmp_path_factory.mktemp("service") / "log") as running:
        yield running


def test_the_service_tells_what_it_is(service: Service) -> None:
    assert service.ask("health/live") == (200, {"live": True})
    assert service.ask("models/classifier/ready") == (200, {"name": "classifier", "ready": True})
    status, told = service.ask("models/classifier")
    assert (status, told["name"]) == (200, "classifier")
    assert told["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("models/classifier/infer", b"{", 400, "Invalid JSON"),
        ("models/classifier/infer", asking(), 400, "inputs.0.data: List should have at least 1 item"),
        ("models/classifier/infer", asking(" "), 400, "inputs.0.data.0: String should match pattern"),
        ("models/classifier/infer", asking(*["a"] * 65), 400, "at most 64 items"),
        ("models/classifier/infer", asking("a" * 10_001), 400, "at most 10000 characters"),
        ("models/classifier/infer", b" " * (1 << 20) + b"{}", 413, "more than 1048576 bytes"),
        ("models/classifier/infer", None, 405, "Method Not Allowed"),
        ("models/another/infer", asking("a"), 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(
    service: Service, path: str, body: bytes | None, status: int, told: str
) -> None:
    found, answer = service.ask(path, body)
    assert found == status
    assert list(answer) == ["error"]
    assert told in answer["error"]


def test_sentences_that_are_asked_at_once_get_their_own_probabilities(service: Service) -> None:
    alone = [service.probabilities(sentence) for sentence in HARD]
    status, answer = service.ask("models/classifier/infer", asking(*HARD))
    assert status == 200
    assert answer["outputs"][0]["data"] == pytest.approx([one for row in alone for one in row], abs=1e-6)
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(service.probabilities, HARD * 4))
    assert at_once == [pytest.approx(row, abs=1e-6) for row in alone * 4]


def test_another_models_results_and_too_few_right_answers_end_the_comparison_with_1(
    service: Service, followed: Followed, tmp_path: Path
) -> None:
    url, rows = f"http://127.0.0.1:{service.port}/v2/models/classifier", EXAMPLES / "fine_tuning/dev.tsv"
    results = followed.clone.root / "tutorial/tuned/test_results.tsv"
    assert followed.example("compare.py", url, rows, results, "--least-right", "1.1").returncode == 1
    other = tmp_path / "results.tsv"
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
    other.write_text("".join(reversed(lines)), encoding="utf-8")
    done = followed.example("compare.py", url, rows, other)
    assert (done.returncode, done.stderr) == (1, "")
    [difference] = re.findall(r"^difference  at most (\S+) from", done.stdout, re.MULTILINE)
    assert float(difference) > 0.5
    assert followed.example("compare.py", url, rows, other, "--allowed", "1").returncode == 0
    other.write_text("".join(lines[1:]), encoding="utf-8")
    done = followed.example("compare.py", url, rows, other)
    assert (done.returncode, done.stderr) == (1, "error: 39 rows of results, and 40 were served\n")


def test_a_service_that_is_told_to_end_answers_what_it_was_asked_and_ends_with_0(
    followed: Followed, tmp_path: Path
) -> None:
    body = asking("Where is my refund?")
    head = f"POST /v2/models/classifier/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(followed, tmp_path / "log") as running:
        address = ("127.0.0.1", running.port)
        with socket.create_connection(address) as gone:
            gone.sendall(head.encode() + body[:9])
        with socket.create_connection(address) as slow:
            slow.sendall(head.encode() + body[:9])
            assert running.ask("health/ready")[0] == 200  # by then the one above was heard
            running.process.send_signal(signal.SIGTERM)
            while b"Waiting for connections to close" not in running.log.read_bytes():
                assert running.process.poll() is None
                time.sleep(0.05)
            slow.sendall(body[9:])
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        assert running.process.wait(30) == 0
        assert b"Traceback" not in running.log.read_bytes()


def test_a_folder_that_cannot_be_served_ends_in_one_message(followed: Followed, tmp_path: Path) -> None:
    report = json.loads((followed.published / "report.json").read_text(encoding="utf-8"))
    report["request"]["head"] = "pooled"
    whole = (followed.published / "model.xml").read_bytes()
    for name, file, data, told in (
        ("empty", "vocab.txt", b"", "report.json"),
        ("pooled", "report.json", json.dumps(report).encode(), "has the head pooled: build it with --head"),
        ("damaged", "model.xml", whole[: len(whole) // 2], "can be loaded: RuntimeError"),
        ("others", "vocab.txt", b"[CLS]\n[SEP]\n", "lacks [UNK]"),
    ):
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        else:
            shutil.copytree(followed.published, folder)
        (folder / file).write_bytes(data)
        done = followed.example("predict.py", folder, "Where is my refund?")
        assert (done.returncode, done.stdout) == (1, ""), name
        assert done.stderr.startswith("error: "), done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
