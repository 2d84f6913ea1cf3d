from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.builder import Builder, Layout
from bertir.derivation import Derivation, Outcome, realise
from bertir.digest import Digest
from bertir.fetch import Fetcher
from bertir.progress import Progress
from bertir.store import Artifact, Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE, OTHER = Digest.of_bytes(b"one"), Digest.of_bytes(b"other")
BASE: dict[str, Any] = {
    "step": "freeze",
    "version": 1,
    "image": ONE,
    "parameters": {"arguments": ["a", "b"]},
    "inputs": {"x": ONE, "y": OTHER},
}
DIGESTS = st.sampled_from([ONE, OTHER])
DERIVATIONS = st.builds(
    Derivation,
    step=st.sampled_from(["freeze", "convert"]),
    version=st.integers(1, 2),
    image=st.none() | DIGESTS,
    parameters=st.dictionaries(
        st.sampled_from("ab"), st.integers(0, 1) | st.lists(st.text("ab,", max_size=2)), max_size=2
    ),
    inputs=st.dictionaries(st.sampled_from(["x", "y"]), DIGESTS, max_size=2),
)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "convert"},
        {"version": 2},
        {"image": OTHER},
        {"image": None},
        {"parameters": {}},
        {"parameters": {"arguments": ["b", "a"]}},
        {"parameters": {"arguments": ["a b"]}},
        {"inputs": {}},
        {"inputs": {"x": OTHER, "y": ONE}},
        {"inputs": {"x": ONE, "z": OTHER}},
        {"image": None, "inputs": {"x": ONE, "y": OTHER, "image": ONE}},
    ],
    ids=str,
)
def test_any_other_field_gives_another_key(change: dict[str, Any]) -> None:
    assert Derivation(**BASE | change).key != Derivation(**BASE).key


@given(DERIVATIONS, DERIVATIONS)
def test_keys_are_equal_just_when_derivations_are(one: Derivation, other: Derivation) -> None:
    assert (one.key == other.key) == (one == other)


def test_a_key_has_one_known_value() -> None:
    # Pinned: another form of derivations must raise FORMAT, or old records would be taken for new ones.
    derivation = Derivation(step="freeze", version=1, image=ONE, parameters={"a": [1]}, inputs={"x": OTHER})
    text = (
        f'{{"format":2,"image":"{ONE}","inputs":{{"x":"{OTHER}"}},"parameters":{{"a":[1]}},'
        '"step":"freeze","version":1}'
    )
    assert derivation.key == Digest.of_bytes(text.encode())


def test_the_order_of_inputs_and_the_kind_of_sequence_do_not_count() -> None:
    same = Derivation(**BASE | {"parameters": {"arguments": ("a", "b")}, "inputs": {"y": OTHER, "x": ONE}})
    assert same.key == Derivation(**BASE).key


class Counted:
    """A step that counts its runs."""

    def __init__(self, store: Store, data: bytes = b"result") -> None:
        self.runs = 0
        self._store = store
        self._data = data

    def __call__(self) -> Outcome:
        self.runs += 1
        return Outcome(
            artifact=Artifact(files={"out": self._store.add_bytes(self._data)}), facts={"seconds": self.runs}
        )


def test_a_step_runs_once_and_is_then_found(store: Store) -> None:
    step = Counted(store)
    first = realise(store, Derivation(**BASE), step)
    second = realise(Store(store.root), Derivation(**BASE), step)
    assert (first.cached, second.cached, step.runs) == (False, True, 1)
    assert first.artifact == second.artifact
    assert first.facts == second.facts == {"seconds": 1}  # those of the run, not of the look-up


def test_another_derivation_runs(store: Store) -> None:
    step = Counted(store)
    realise(store, Derivation(**BASE), step)
    assert not realise(store, Derivation(**BASE | {"version": 2}), step).cached
    assert step.runs == 2


def test_a_step_that_fails_leaves_no_record_and_no_held_lock(store: Store) -> None:
    def fail() -> Outcome:
        store.add_bytes(b"half of it")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        realise(store, Derivation(**BASE), fail)
    assert not realise(store, Derivation(**BASE), Counted(store)).cached


def test_a_step_runs_again_when_its_record_is_damaged_or_its_object_is_gone(store: Store) -> None:
    step = Counted(store)
    derivation = Derivation(**BASE)
    first = realise(store, derivation, step)
    (store.root / "records" / "freeze" / f"{derivation.key.hex}.json").write_bytes(b"{")
    assert not realise(store, derivation, step).cached
    store.path(first.artifact["out"].digest).unlink()
    assert not realise(store, derivation, step).cached
    assert realise(store, derivation, step).cached
    assert step.runs == 3


def test_two_processes_that_want_the_same_derivation_run_it_once(store: Store, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from bertir.derivation import Derivation, Outcome, realise\n"
        "from bertir.store import Artifact, Store\n"
        "store, runs = Store(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "def run():\n"
        "    with runs.open('a') as file: file.write('run\\n')\n"
        "    time.sleep(0.5)\n"
        "    return Outcome(artifact=Artifact(files={'out': store.add_bytes(b'x')}))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "result = realise(store, Derivation(step='freeze', version=1), run)\n"
        "print(result.cached, result.artifact['out'].size)\n"
    )
    command = [sys.executable, "-c", program, str(store.root), str(tmp_path / "runs")]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=30)[0] for process in processes)
    assert said == ["False 1\n", "True 1\n", "True 1\n"]
    assert (tmp_path / "runs").read_text() == "run\n"


class Telling(io.StringIO):
    """A stream that does something as soon as it is told a certain word."""

    def __init__(self, word: str, do: Callable[[], None]) -> None:
        super().__init__()
        self.word, self.do = word, do

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.word in text:
            self.do()
        return written


def test_who_waits_for_the_step_of_another_process_is_told_so_once(store: Store, tmp_path: Path) -> None:
    program = (
        "import select, sys\n"
        "from pathlib import Path\n"
        "from bertir.derivation import Derivation, Outcome, realise\n"
        "from bertir.store import Artifact, Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "def run():\n"
        "    print('running', flush=True)\n"
        "    select.select([sys.stdin], [], [], 30)\n"  # until the other one was told that it waits
        "    return Outcome(artifact=Artifact(files={'out': store.add_bytes(b'x')}), facts={'seconds': 1.0})\n"
        "realise(store, Derivation(step='freeze', version=1), run)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "running\n"
        progress = Progress(stream=(stream := Telling("waiting", other.stdin.close)))
        with Builder(
            layout=Layout(root=tmp_path, models=tmp_path / "models.toml"),
            store=store,
            fetcher=Fetcher(store=store, environment={}, progress=progress),
            environment={},
            progress=progress,
        ) as builder:
            realised = builder.realise(Derivation(step="freeze", version=1), not_run)
    assert realised.cached
    first, second = stream.getvalue().splitlines()
    assert first.endswith("freeze     waiting for another process that runs this step")
    assert second.endswith("freeze     nothing to do, in the store")


def not_run() -> Outcome:
    pytest.fail("the other process has run it")
