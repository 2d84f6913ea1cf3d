"""What a matrix makes of its builds before any of them begins: published from the store, refused, or left to be built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from done_build import ENVIRONMENT, ROOT, done_builder, tuned

from bertir import checkpoint_files, local_checkpoint, targets
from bertir.builder import Layout
from bertir.errors import ConfigurationError
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.matrix import build_matrix
from bertir.pipeline import build_ir
from bertir.progress import SILENT
from bertir.report import Request
from bertir.session import Session
from bertir.wanted import Lists, Work

if TYPE_CHECKING:
    from pathlib import Path

    from done_build import Tuned

    from bertir.ended import Matrix
    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.store import Store

PLAIN = Lists(recipes="reshapable", precisions="fp16", heads="pooled")


@pytest.fixture
def session(store: Store) -> Session:
    environment = ENVIRONMENT | {"BERTIR_STORE": str(store.root)}
    return Session(
        layout=Layout(root=ROOT, models=ROOT / "models.toml"), environment=environment, progress=SILENT
    )


@pytest.fixture
def mine(store: Store, tmp_path: Path) -> Tuned:
    """A checkpoint of which every step is in the store, in fp16."""
    made = tuned(tmp_path / "mine")
    with done_builder(store) as builder:
        build_ir(builder, Request(model=""), tmp_path / "first", find_checkpoint(Options(path=made.folder)))
    return made


def again(session: Session, mine: Tuned, tmp_path: Path) -> Matrix:
    """Build it in both precisions, of which one is in the store; no engine answers."""
    lists = replace(PLAIN, checkpoints=str(mine.folder), precisions="fp16,fp32")
    work = Work(output=str(tmp_path / "dist"), jobs="1", memory="0", offline=True)
    return build_matrix(session, lists, work)


def results(matrix: Matrix) -> list[str]:
    return [ended.result for ended in matrix.ended]


def message(matrix: Matrix, place: int) -> str:
    error = matrix.ended[place].error
    assert error is not None
    return str(error["message"])


@pytest.mark.parametrize("jobs", ["9" * 5000, "62", "0", "-1", "two", "\u0661"], ids=len)
def test_a_number_of_jobs_that_can_not_be_is_one_message(session: Session, jobs: str) -> None:
    with pytest.raises(ConfigurationError, match="--jobs must be a whole number from 1 to 61, and is"):
        build_matrix(session, PLAIN, Work(jobs=jobs))


def test_paths_at_which_there_is_no_checkpoint_are_rows_of_their_own(
    session: Session, mine: Tuned, tmp_path: Path
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    paths = [tmp_path / ("x" * 256), mine.folder, tmp_path / "circle", tmp_path / "circle" / "inside"]
    lists = replace(PLAIN, checkpoints=",".join(map(str, paths)))
    matrix = build_matrix(session, lists, Work(output=str(tmp_path / "dist")))
    assert results(matrix) == ["refused", "published", "refused", "refused"]
    assert message(matrix, 0).endswith(": File name too long")
    for place in (2, 3):
        assert f"{paths[place]} is neither a directory nor the prefix of a checkpoint" in message(
            matrix, place
        )
    error = matrix.error()
    assert error is not None
    assert error.exit_status == 2


def test_what_can_not_be_is_refused_before_anything_of_it_begins(
    session: Session, mine: Tuned, tmp_path: Path
) -> None:
    lists = replace(
        PLAIN,
        checkpoints=str(mine.folder),
        recipes="meta-graph,reshapable",
        seq_lens="513",
        models="bert-base-cased",
    )
    matrix = build_matrix(session, lists, Work(output=str(tmp_path / "dist")))
    assert results(matrix) == ["refused"] * 4
    assert message(matrix, 1) == "bert-base-cased has 512 positions, and --seq-len is 513"
    assert message(matrix, 3) == "mine has 512 positions, and --seq-len is 513"


def test_what_is_in_the_way_of_a_build_is_its_failure_and_not_that_it_can_not_be(
    session: Session, mine: Tuned, tmp_path: Path
) -> None:
    (tmp_path / "dist" / "mine" / "reshapable-fp16").mkdir(parents=True)
    (tmp_path / "dist" / "mine" / "reshapable-fp16" / "thesis.tex").touch()
    matrix = again(session, mine, tmp_path)
    assert results(matrix) == ["failed", "failed"]
    assert "holds something that bertir did not publish" in message(matrix, 0)
    error = matrix.error()
    assert error is not None
    assert error.exit_status == 2  # its own


@pytest.mark.parametrize(
    ("change", "said"), [("written to", "changed while it was read"), ("removed", "can't read ")]
)
def test_a_checkpoint_that_changes_while_a_matrix_is_built_fails_its_own_builds_that_come_after(
    session: Session, mine: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, change: str, said: str
) -> None:
    find = local_checkpoint.find_checkpoint

    def found(options: Options) -> LocalCheckpoint:
        given = find(options)
        if change == "removed":
            mine.data.unlink()
        else:
            mine.data.write_bytes(mine.data.read_bytes()[::-1])
        return given

    monkeypatch.setattr(targets, "find_checkpoint", found)
    matrix = again(session, mine, tmp_path)
    assert results(matrix) == ["failed", "failed"]
    for place in (0, 1):
        assert said in message(matrix, place)


def test_a_checkpoint_is_looked_for_once_however_many_builds_are_made_of_it(
    session: Session, mine: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = checkpoint_files.choose
    looked: list[Path] = []

    def counted(path: Path) -> Any:
        looked.append(path)
        return choose(path)

    monkeypatch.setattr(local_checkpoint, "choose", counted)
    assert results(again(session, mine, tmp_path)) == ["published", "failed"]  # as no engine answers
    assert looked == [mine.folder]
