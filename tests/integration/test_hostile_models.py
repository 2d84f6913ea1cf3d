"""Hostile graphs, checkpoints and Hugging Face models, given to the steps' own programs in the container."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import tiny_bert
from checkout import ROOT, Checkout

from bertir.container import Command
from bertir.errors import StepError
from bertir.report import Request
from bertir.steps import examine, freeze
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builds import TinyBuild

    from bertir.builder import Builder
    from bertir.derivation import Realised

pytestmark = pytest.mark.engine

SEED = 20200312
# Random cases of each kind; a checkpoint's are given to whatever reads one. What is written down comes on top.
GRAPHS, CHECKPOINTS, MODELS = 80, 50, 60
SOUND = 6
WRITTEN = {
    "written graphs": 80,
    "written checkpoints": 10,
    "written checkpoints, frozen": 10,
    "written checkpoints, fed": 9,
    "written models": 180,
}
SUPPORT = ROOT / "tests" / "support" / "steps"


def read_bytes(builder: Builder, build: TinyBuild, name: str) -> bytes:
    return builder.store.checked(build.checkpoint[name], what=name).read_bytes()


@pytest.fixture(scope="module")
def outcomes(
    builder: Builder, tiny_build: TinyBuild, run_program: Callable[..., Realised]
) -> dict[str, list[list[Any]]]:
    """Every case's outcome by kind; see the program."""
    inputs = {
        f"/in/checkpoint/{name}": read_bytes(builder, tiny_build, name)
        for name in tiny_build.checkpoint.files
    }
    inputs |= {f"/in/model/{name}": data for name, data in tiny_bert.files().items()}
    inputs |= {
        f"/in/source/{name}": builder.store.checked(blob, what=name).read_bytes()
        for name, blob in tiny_build.source.artifact.files.items()
    }
    inputs |= {f"/in/steps/{path.name}": path.read_bytes() for path in builder.layout.steps.glob("*.py")}
    inputs |= {"/step/hostile_graphs.py": (SUPPORT / "hostile_graphs.py").read_bytes()}
    ran = run_program(
        (SUPPORT / "hostile_models.py").read_text(encoding="utf-8"),
        *map(str, (SEED, GRAPHS, CHECKPOINTS, MODELS)),
        "/out/outcomes.json",
        inputs=inputs,
        outputs=["outcomes.json"],
    )
    found: dict[str, list[list[Any]]] = json.loads(
        builder.store.checked(ran.artifact["outcomes.json"], what="outcomes").read_bytes()
    )
    for kind, cases in found.items():
        print(kind, len(cases), dict(Counter(outcome for _, outcome, *_ in cases)))  # noqa: T201 - the figures
    return found


def test_each_hostile_graph_that_is_written_down_is_refused_for_what_is_wrong_with_it(
    outcomes: dict[str, list[list[Any]]],
) -> None:
    for kind, count in WRITTEN.items():
        assert len(outcomes[kind]) >= count
        assert [case for case in outcomes[kind] if case[1] != "said"] == []


def test_an_operation_that_is_refused_is_named_with_its_node(outcomes: dict[str, list[list[Any]]]) -> None:
    said = {name: lines for name, _, lines, *_ in outcomes["written graphs"]}
    assert said["PyFunc before save/restore_all"] == [
        "bert_model.ckpt.meta would run operations that no BERT has, and is not opened.",
        "not allowed: PyFunc (node planted)",
        "Use --recipe reshapable: it makes an inference graph of the same weights, and reads no .meta.",
    ]


def test_sound_graphs_are_taken_whatever_lies_beside_the_path(outcomes: dict[str, list[list[Any]]]) -> None:
    assert len(outcomes["sound graphs"]) == SOUND
    assert [case for case in outcomes["sound graphs"] if case[1] != "right"] == []


def test_whatever_is_damaged_at_random_is_refused_in_the_steps_own_words_or_right(
    outcomes: dict[str, list[list[Any]]],
) -> None:
    counts = {
        "random graphs": GRAPHS,
        "random checkpoints": CHECKPOINTS,
        "random checkpoints, frozen": CHECKPOINTS,
        "random checkpoints, fed": CHECKPOINTS,
        "random models": MODELS,
    }
    for kind, count in counts.items():
        assert len(outcomes[kind]) == count
        # `right` is for damage that doesn't matter (a hint in a graph), or that no format could tell (a weight's bits).
        # A crash in the sandbox would be allowed and counted here; there is none.
        assert [case for case in outcomes[kind] if case[1] not in {"said", "right"}] == []
        assert any(case[1] == "said" for case in outcomes[kind])


def test_what_is_said_is_plain_and_bearable(outcomes: dict[str, list[list[Any]]]) -> None:
    for cases in outcomes.values():
        for _, _, lines, seconds, megabytes in cases:
            assert all(line.isprintable() and len(line) < 2000 for line in lines)
            assert seconds < 60
            assert megabytes < 2048


# the sandbox, without the list


def test_operations_that_the_list_refuses_do_no_harm_even_if_they_run(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTIR_TEST_SECRET", "of the host")
    scratch, host = tmp_path / "scratch", tmp_path / "host"
    scratch.mkdir(mode=0o700)
    host.mkdir()
    secret, given = host / "secret", host / "given"
    secret.write_text("of the host", encoding="utf-8")
    given.write_text("given", encoding="utf-8")
    program = SUPPORT / "run_anyway.py"
    command = Command(
        name="run-anyway",
        arguments=("python3", "/step/program.py", str(secret)),
        inputs={"/step/program.py": program, "/in/secret": given},
        outputs=("tried.json",),
    )
    before = program.read_bytes()
    with builder.engine.run(builder.load_image(), command, scratch) as finished:
        tried: dict[str, str] = json.loads(finished.outputs["tried.json"].read())
        left = {path.name for path in (scratch / "out").iterdir()}
        published = set(finished.outputs)
    # They do run: what may be done is done. A path under /tmp is in the container's own, made in memory.
    tried.pop("write host")
    assert {name for name, told in tried.items() if told.startswith("done")} == {
        "read environ",
        "list host",
        "write out",
        "python links",
    }
    assert tried["list host"].startswith("done: array([], ")
    assert "of the host" not in json.dumps(tried)
    assert left == {"tried.json", "planted", "link"}
    assert published == {"tried.json"}
    assert (secret.read_text(encoding="utf-8"), given.read_text(encoding="utf-8")) == ("of the host", "given")
    assert program.read_bytes() == before
    assert sorted(path.name for path in host.iterdir()) == ["given", "secret"]


# whole builds


@pytest.mark.parametrize(
    "program", ["import os; os.abort()", "import ctypes; ctypes.string_at(0)"], ids=["abort", "address"]
)
def test_a_crash_in_the_sandbox_is_told_as_one(run_program: Callable[..., Realised], program: str) -> None:
    with pytest.raises(StepError, match=r"the program crashed \(SIG(ABRT|SEGV)\)"):
        run_program(program)


def damaged_checkpoint(
    builder: Builder, build: TinyBuild, name: str, change: Callable[[bytes], bytes]
) -> Artifact:
    changed = builder.store.add_bytes(change(read_bytes(builder, build, name)))
    return Artifact(files=dict(build.checkpoint.files) | {name: changed})


@pytest.mark.parametrize("name", ["bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_refused_by_the_whole_step_of_either_recipe(
    builder: Builder, tiny_build: TinyBuild, name: str
) -> None:
    short = damaged_checkpoint(builder, tiny_build, name, lambda data: data[: len(data) // 2])
    runs: list[Callable[[], Realised]] = [
        lambda: builder.run(
            freeze(builder, tiny_build.request, tiny_build.weights, tiny_build.source.artifact, short)
        ),
        lambda: builder.run(examine(builder, Request(recipe="meta-graph"), short)),
    ]
    for run in runs:
        with pytest.raises(
            StepError, match=r"the checkpoint .*bert_model\.ckpt (cannot be read|is not whole)"
        ) as caught:
            run()
        assert "Traceback" not in str(caught.value)


def containers(builder: Builder) -> set[str]:
    """The ids of the containers of a builder's store, those that have ended among them."""
    ours: dict[str, str | list[str] | bool] = {"label": f"bertir.folder={builder.store.root}"}
    return {str(one.id) for one in builder.containers._client.containers.list(all=True, filters=ours)}


def test_a_hostile_graph_ends_invoke_build_ir_with_one_message_and_publishes_nothing(
    builder: Builder, tiny_build: TinyBuild, run_program: Callable[..., Realised], tmp_path: Path
) -> None:
    plant = (
        "import sys; from pathlib import Path; sys.path.insert(0, '/step')\n"
        "import tensorflow.compat.v1 as tf, hostile_graphs\n"
        "meta = tf.MetaGraphDef.FromString(Path('/in/meta').read_bytes())\n"
        "hostile_graphs.REFUSED['WriteFile before the restoring'][0](meta)\n"
        "Path('/out/meta').write_bytes(meta.SerializeToString(deterministic=True))\n"
    )
    hostile = run_program(
        plant,
        inputs={
            "/in/meta": read_bytes(builder, tiny_build, "bert_model.ckpt.meta"),
            "/step/hostile_graphs.py": (SUPPORT / "hostile_graphs.py").read_bytes(),
        },
        outputs=["meta"],
    ).artifact
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name, blob in {**tiny_build.checkpoint.files, "bert_model.ckpt.meta": hostile["meta"]}.items():
        builder.store.copy_out(blob, folder / name, what=name)
    checkout = Checkout(root=ROOT, environment={"BERTIR_STORE": str(builder.store.root)})
    before = containers(builder)  # this builder's own: what is left of a step lasts until the next one runs
    done = checkout.invoke(
        *(
            "build-ir",
            "--checkpoint",
            str(folder),
            "--recipe",
            "meta-graph",
            "--output",
            str(tmp_path / "dist"),
        )
    )
    assert done.status == 7
    assert "not allowed: WriteFile (node planted)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dist").exists()
    assert containers(builder) == before
