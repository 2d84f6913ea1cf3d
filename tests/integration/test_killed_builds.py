"""Real builds that are killed in every step, one after the other on one store; each run goes on where the last one was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT
from ground import VARIANT
from running_task import STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ground import Ground
    from running_task import RunningTask

pytestmark = pytest.mark.engine

KINDS = tuple(STATUSES)
# Each step with those before it. `reference` runs beside the freeze and the conversion.
IN_CONTAINERS = {
    "import": ("source",),
    "freeze": ("source", "import"),
    "reference": ("source", "import"),
    "convert": ("source", "import", "freeze"),
    "verify": ("source", "import", "freeze", "convert", "reference"),
}


@dataclass
class Silent:
    """A server that takes connections and never says a word: whoever asks it is in the middle of something."""

    port: int
    taken: list[socket.socket] = field(default_factory=list)

    def until_asked(self) -> Callable[[RunningTask], None]:
        """Ready when there is a new connection."""
        before = len(self.taken)
        return lambda task: task.wait_for(lambda: len(self.taken) > before, "a connection")


@contextlib.contextmanager
def silent_server() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        known = Silent(port=listening.getsockname()[1])

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    known.taken.append(listening.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield known
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in known.taken:
                connection.close()


def test_killed_in_every_step_in_every_way_the_next_run_goes_on(
    ground: Ground, figure: Callable[[str], None]
) -> None:
    kills = 0
    with silent_server() as silent:
        url = f"//127.0.0.1:{silent.port}"
        stalled = {
            "fetch": {"PIP_INDEX_URL": f"http:{url}/simple", "PIP_EXTRA_INDEX_URL": ""},
            "source": {"BERTIR_BERT_URL": f"https:{url}/bert"},
        }
        for environment in stalled.values():
            for kind in KINDS:
                ground.kill(kind, silent.until_asked(), **environment)
                assert ground.published() == ground.old
                kills += 1
            fetched = ground.checkout.invoke("models", "--format", "json")
            assert json.loads(fetched.stdout)[0]["fetched"] == (environment is stalled["source"])
    for step, done in IN_CONTAINERS.items():
        for kind in KINDS:
            said = ground.kill(kind, ground.until_running(step))
            kills += 1
            assert ground.published() == ground.old
            if kind != KINDS[0]:  # the first run in each step finishes the one before
                for name in done:
                    assert re.search(rf"{name} +nothing to do, in the store", said), said
                assert " done in " not in said
    built = ground.checkout.invoke("build-ir", "--format", "json")
    assert built.status == 0, built.stderr
    ground.see_nothing_left()
    for name in IN_CONTAINERS["verify"]:
        assert re.search(rf"{name} +nothing to do, in the store", built.stderr), built.stderr
    golden = json.loads((ROOT / "tests" / "golden" / "tiny-bert.json").read_text(encoding="utf-8"))
    found = json.loads(built.stdout)["files"]
    assert {f"fp16/{name}": digest for name, digest in found.items()}.items() <= golden.items()
    now = ground.published()
    sums = now[f"{VARIANT}/SHA256SUMS"].decode().split()
    for digest, name in zip(sums[::2], sums[1::2], strict=True):
        assert hashlib.sha256(now[f"{VARIANT}/{name}"]).hexdigest() == digest
    assert {name.rpartition("/")[0] for name in now} == {VARIANT}
    figure(f"builds killed: {kills}, in {2 + len(IN_CONTAINERS)} steps")


@pytest.mark.parametrize(
    ("task", "kind"),
    [("verify", "SIGTERM"), ("verify", "SIGKILL"), ("check", "SIGINT twice"), ("check", "SIGKILL")],
)
def test_a_rebuild_that_is_killed_leaves_nothing_after_the_next_start(
    ground: Ground, task: str, kind: str
) -> None:
    arguments = ("verify", f"dist/{VARIANT}", "--rebuild") if task == "verify" else ("check", "--skip-image")
    ready = ground.checkout.invoke("build-ir")
    assert ready.status == 0, ready.stderr
    before = ground.published()
    ground.kill(kind, ground.until_running(), *arguments)
    again = ground.checkout.invoke("build-ir")
    assert again.status == 0, again.stderr
    assert "done in" not in again.stderr
    ground.see_nothing_left()
    assert ground.published() == before
