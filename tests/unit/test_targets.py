"""Which builds a matrix is, and in which order they are told and begun."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_bert import files

from bertir.errors import ConfigurationError
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.model import load_models
from bertir.targets import expand, in_turn, items
from bertir.wanted import Lists

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertir.model import Model

PLAIN = Lists(recipes="reshapable", precisions="fp16", heads="pooled")


@pytest.fixture(scope="module")
def models(root: Path) -> Mapping[str, Model]:
    return load_models(root / "models.toml")


def names(lists: Lists, models: Mapping[str, Model]) -> list[str]:
    return [target.name for target in expand(lists, models)]


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in files().items():
        (folder / name).write_bytes(data)
    return folder


def test_with_nothing_said_it_is_the_one_build_that_build_ir_makes(models: Mapping[str, Model]) -> None:
    [target] = expand(PLAIN, models)
    assert (target.name, target.request.model) == ("all-minilm-l6-v2/reshapable-fp16", "all-minilm-l6-v2")


def test_every_combination_is_one_build_in_the_order_of_the_lists(models: Mapping[str, Model]) -> None:
    lists = replace(
        PLAIN,
        models="bert-base-cased,all-minilm-l6-v2",
        precisions="fp32, fp16",
        heads="pooled,sequence",
        seq_lens="64",
        batches="1,2",
    )
    assert names(lists, models) == [
        f"{who}/reshapable-{precision}{head}-{batch}x64"
        for who in ("bert-base-cased", "all-minilm-l6-v2")
        for head in ("", "-sequence")
        for batch in (1, 2)
        for precision in ("fp32", "fp16")
    ]


def test_what_is_said_twice_is_one_build(models: Mapping[str, Model]) -> None:
    lists = replace(
        PLAIN, models="all-minilm-l6-v2,all-minilm-l6-v2", precisions="fp16,fp16", seq_lens="128,128"
    )
    assert names(lists, models) == ["all-minilm-l6-v2/reshapable-fp16"]


def test_a_recipe_that_takes_no_shape_is_one_build_of_all_shapes(models: Mapping[str, Model]) -> None:
    lists = replace(PLAIN, recipes="meta-graph,reshapable", seq_lens="64,32")
    assert names(lists, models) == [
        "all-minilm-l6-v2/meta-graph-fp16",
        "all-minilm-l6-v2/reshapable-fp16-1x64",
        "all-minilm-l6-v2/reshapable-fp16-1x32",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": "all-minilm-l6"}, "there is no model named 'all-minilm-l6'"),
        ({"models": "all-minilm-l6-v2,"}, "--models must be a list with commas between, and is"),
        ({"recipes": "reshapable,magic"}, "--recipe must be reshapable or meta-graph, and is 'magic'"),
        ({"precisions": "fp16,int8"}, "--precision must be fp16 or fp32, and is 'int8'"),
        ({"precisions": ""}, "--precisions must be a list with commas between, and is ''"),
        ({"heads": "neck"}, "--head must be pooled or sequence or classifier, and is 'neck'"),
        ({"batches": "1,0"}, "--batch must be at least 1, and is 0"),
        ({"seq_lens": "64,many"}, "--seq-lens must be whole numbers with commas between, and is '64,many'"),
        ({"seq_lens": "2"}, "--seq-len must be at least 3, and is 2"),
        ({"vocab_file": "v"}, "--vocab-file belongs to --checkpoints, and there are none"),
        ({"case": "cased"}, "--case belongs to --checkpoints, and there are none"),
        ({"task_data": "/nonexistent"}, "/nonexistent"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_item_that_no_build_can_have_is_refused(
    models: Mapping[str, Model], change: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        expand(replace(PLAIN, **change), models)
    assert message in str(refused.value)


def test_such_an_item_is_refused_beside_a_recipe_that_takes_none(models: Mapping[str, Model]) -> None:
    with pytest.raises(ConfigurationError, match="--seq-len must be at least 3, and is 2"):
        expand(replace(PLAIN, recipes="meta-graph", seq_lens="2"), models)


@pytest.mark.parametrize("change", [{"seq_lens": "64"}, {"batches": "2"}, {"task_data": "mrpc"}])
def test_a_combination_that_can_not_be_is_left_to_its_build(
    models: Mapping[str, Model], change: dict[str, str]
) -> None:
    assert len(names(replace(PLAIN, recipes="meta-graph,reshapable", **change), models)) == 2


def test_a_list_has_each_item_once() -> None:
    assert items("--models", " b,a , b") == ["b", "a"]


# checkpoints


def test_checkpoints_are_built_beside_models_and_instead_of_the_default_one(
    models: Mapping[str, Model], tmp_path: Path
) -> None:
    mine = checkpoint(tmp_path / "mine")
    lists = replace(PLAIN, checkpoints=str(mine))
    assert names(lists, models) == ["mine/reshapable-fp16"]
    assert names(replace(lists, models="bert-base-cased"), models) == [
        "bert-base-cased/reshapable-fp16",
        "mine/reshapable-fp16",
    ]
    [target] = expand(replace(lists, case="cased"), models)
    assert target.checkpoint is not None
    assert (target.checkpoint.path, target.checkpoint.case, target.request.model) == (mine, "cased", "")


def test_the_same_checkpoint_by_two_names_is_one_build(models: Mapping[str, Model], tmp_path: Path) -> None:
    mine = checkpoint(tmp_path / "mine")
    (tmp_path / "link").symlink_to(mine)
    lists = replace(PLAIN, checkpoints=f"{mine},{mine}/,{tmp_path}/link")
    assert names(lists, models) == ["mine/reshapable-fp16"]


def test_two_checkpoints_that_would_be_published_to_one_folder_are_refused(
    models: Mapping[str, Model], tmp_path: Path
) -> None:
    one, other = checkpoint(tmp_path / "a" / "tuned"), checkpoint(tmp_path / "b" / "tuned")
    with pytest.raises(ConfigurationError) as refused:
        expand(replace(PLAIN, checkpoints=f"{one},{other}"), models)
    assert f"{one} and {other} would both be published as tuned/reshapable-fp16" in str(refused.value)


def test_nor_can_a_checkpoint_take_a_models_place(models: Mapping[str, Model], tmp_path: Path) -> None:
    mine = checkpoint(tmp_path / "bert-base-cased")
    with pytest.raises(ConfigurationError, match=r"the model bert-base-cased and .* would both be published"):
        expand(replace(PLAIN, models="bert-base-cased", checkpoints=str(mine)), models)


def test_a_checkpoint_that_can_not_be_read_stops_no_other(
    models: Mapping[str, Model], tmp_path: Path
) -> None:
    mine = checkpoint(tmp_path / "mine")
    lists = replace(PLAIN, checkpoints=f"{tmp_path}/gone,{mine}")
    assert names(lists, models) == ["gone/reshapable-fp16", "mine/reshapable-fp16"]


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user who may read nothing of root's, if this is root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that everybody may pass, as pytest's isn't."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def odd(folder: Path, kind: str) -> Path:
    """Give a path at which nothing can be looked for."""
    if kind == "too long a name":
        return folder / ("x" * 256)
    if kind == "a circle of links":
        (folder / "circle").symlink_to("circle")
        return folder / "circle"
    locked = checkpoint(folder / "locked" / "inside")
    locked.parent.chmod(
        {"a folder that may not be entered": 0o600, "one that may not be listed": 0o300}[kind]
    )
    return locked if "entered" in kind else locked.parent


ODD = (
    "too long a name",
    "a circle of links",
    "a folder that may not be entered",
    "one that may not be listed",
)


@pytest.mark.parametrize("kind", ODD)
def test_a_path_at_which_nothing_can_be_looked_for_is_refused_by_name(reachable: Path, kind: str) -> None:
    path = odd(reachable, kind)
    with nobody(), pytest.raises(ConfigurationError) as refused:
        find_checkpoint(Options(path=path))
    assert str(path) in str(refused.value)
    assert "holds no checkpoint" not in str(refused.value)  # who knows?


@pytest.mark.parametrize("kind", ODD)
def test_nor_does_it_stop_any_other(models: Mapping[str, Model], reachable: Path, kind: str) -> None:
    path, mine = odd(reachable, kind), checkpoint(reachable / "mine")
    with nobody():
        targets = expand(replace(PLAIN, checkpoints=f"{path},{mine}"), models)
    assert [target.checkpoint and target.checkpoint.path for target in targets] == [path, mine]


def test_a_checkpoint_that_can_not_be_read_takes_nobodys_place(
    models: Mapping[str, Model], tmp_path: Path
) -> None:
    mine = checkpoint(tmp_path / "a" / "tuned")
    gone = [tmp_path / name / "tuned" for name in "bc"]
    targets = expand(replace(PLAIN, checkpoints=f"{gone[0]},{mine},{gone[1]}"), models)
    assert [target.name for target in targets] == ["tuned/reshapable-fp16"] * 3
    for target, path in zip(targets, (gone[0], mine, gone[1]), strict=True):
        assert target.checkpoint is not None
        assert target.checkpoint.path == path


# the order in which they begin


def test_those_that_share_a_step_begin_far_from_one_another(models: Mapping[str, Model]) -> None:
    lists = replace(
        PLAIN,
        models="all-minilm-l6-v2,bert-base-cased",
        precisions="fp16,fp32",
        heads="pooled,sequence",
    )
    begun = [target.name for target in in_turn(expand(lists, models))]
    assert begun == [
        f"{who}/reshapable-{variant}"
        for variant in ("fp16", "fp16-sequence", "fp32", "fp32-sequence")
        for who in ("all-minilm-l6-v2", "bert-base-cased")
    ]


def test_each_begins_once_however_many_there_are_of_a_model(models: Mapping[str, Model]) -> None:
    lists = replace(PLAIN, models="all-minilm-l6-v2", heads="pooled,sequence", precisions="fp16,fp32")
    targets = (*expand(lists, models), *expand(replace(PLAIN, models="bert-base-cased"), models))
    begun = in_turn(targets)
    assert sorted(begun, key=targets.index) == list(targets)
