"""What a matrix makes of its builds before any of them begins: published from the store, refused, or left to be built."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from done_build import CONFIG, ENVIRONMENT, ROOT, done_builder, tuned

from bertir import local_checkpoint
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
