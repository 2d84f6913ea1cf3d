"""Which builds a matrix is: lists of options' values, and every combination of them once."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertir import pipeline
from bertir.errors import ConfigurationError
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.model import find_model
from bertir.redact import shown
from bertir.report import RECIPES, RESHAPABLE, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.model import Model
    from bertir.wanted import Lists


@dataclass(frozen=True, kw_only=True)
class Target:
    """One build of a matrix.

    Args:
        who: the model's name, or that of the user's checkpoint; the published folder gets it.
        found: that checkpoint, as it was when the lists were read: all builds of it are of what was found then, and say
            so if it has changed since. Or what is wrong with it.
    """

    who: str
    request: Request
    checkpoint: Options | None = None
    found: LocalCheckpoint | ConfigurationError | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Its published folder, under the output."""
        return f"{self.who}/{self.request.variant}"

    @property
    def local(self) -> LocalCheckpoint | None:
        """The user's checkpoint; None if it is a model's.

        Raises:
            ConfigurationError: no build can be made of what was found.
        """
        if isinstance(self.found, ConfigurationError):
            raise self.found
        return self.found


def expand(lists: Lists, models: Mapping[str, Model]) -> tuple[Target, ...]:
    """Give every combination once, in the order of the lists: models and checkpoints first, precisions last.

    Raises:
        ConfigurationError: a list has an item that no build can have; or two would be published to one folder. A
            combination that can't be, of items which can, is none of these, nor is a checkpoint that can't be read: its
            build says so.
    """
    found: dict[tuple[str, str], Target] = {}
    for who, recipe, head, seq_len, batch, precision in itertools.product(
        [*_models(lists, models), *_checkpoints(lists)],
        items("--recipes", lists.recipes),
        items("--heads", lists.heads),
        _numbers("--seq-lens", lists.seq_lens),
        _numbers("--batches", lists.batches),
        items("--precisions", lists.precisions),
    ):
        request = replace(
            who.request, recipe=recipe, head=head, seq_len=seq_len, batch=batch, precision=precision
        )
        # By a recipe that takes everything: what is refused is a value then, and not a combination.
        pipeline.check(replace(request, recipe=RESHAPABLE) if recipe in RECIPES else request)
        target = replace(who, request=request)
        # What can't be built takes nobody's place.
        place = _origin(target) if isinstance(target.found, ConfigurationError) else ""
        other = found.setdefault((target.name, place), target)
        if _origin(other) != _origin(target):
            raise ConfigurationError(
                f"{_origin(other)} and {_origin(target)} would both be published as {target.name}",
                advice="Rename one of them, or build them one after the other with an --output each.",
            )
    return tuple(found.values())


def items(option: str, text: str) -> list[str]:
    """Give the items of a list with commas between, each once.

    Raises:
        ConfigurationError: one is empty.
    """
    listed = [item.strip() for item in text.split(",")]
    if not all(listed):
        raise ConfigurationError(
            f"{option} must be a list with commas between, and is {shown(text)}: an item is empty"
        )
    return list(dict.fromkeys(listed))


def in_turn(targets: Iterable[Target]) -> list[Target]:
    """Give them in the order in which they are to begin: those that share a step as far apart as can be.

    Of two that want a step at the same time the one waits for the other. Models share nothing, and of one model those
    that differ in precision or batch share most: the frozen graph.
    """

    def graph(target: Target) -> object:
        return target.request.recipe, target.request.head, target.request.seq_len

    return _dealt(_dealt(_groups(of_one, graph)) for of_one in _groups(targets, lambda target: target.who))


def _groups(targets: Iterable[Target], key: Callable[[Target], object]) -> list[list[Target]]:
    found: dict[object, list[Target]] = {}
    for target in targets:
        found.setdefault(key(target), []).append(target)
    return list(found.values())


def _dealt(groups: Iterable[Sequence[Target]]) -> list[Target]:
    """Give the first of each group, then the second of each, and so on."""
    return [target for row in itertools.zip_longest(*groups) for target in row if target is not None]


def _models(lists: Lists, models: Mapping[str, Model]) -> list[Target]:
    if lists.models:
        names = [find_model(models, name).name for name in items("--models", lists.models)]
    else:
        names = [] if lists.checkpoints else [next(iter(models))]
    return [Target(who=name, request=Request(model=name, task_data=lists.task_data)) for name in names]


def _checkpoints(lists: Lists) -> list[Target]:
    if not lists.checkpoints:
        for name, value in (
            ("--vocab-file", lists.vocab_file),
            ("--bert-config", lists.bert_config),
            ("--case", lists.case),
        ):
            if value:
                raise ConfigurationError(f"{name} belongs to --checkpoints, and there are none")
        return []
    return [
        _checkpoint(
            Options(
                path=Path(path),
                vocab_file=Path(lists.vocab_file) if lists.vocab_file else None,
                bert_config=Path(lists.bert_config) if lists.bert_config else None,
                case=lists.case,
            ),
            lists.task_data,
        )
        for path in items("--checkpoints", lists.checkpoints)
    ]


def _checkpoint(options: Options, task_data: str) -> Target:
    found: LocalCheckpoint | ConfigurationError
    try:
        found = find_checkpoint(options)
        who = found.name
    except ConfigurationError as error:  # its build says so; the others are none the worse for it
        found = error
        who = options.path.name or str(options.path)
    return Target(who=who, request=Request(task_data=task_data), checkpoint=options, found=found)


def _origin(target: Target) -> str:
    # Path.resolve raises at links that lead in a circle; they are their build's to tell.
    return os.path.realpath(target.checkpoint.path) if target.checkpoint else f"the model {target.who}"


def _numbers(option: str, text: str) -> list[int | None]:
    try:
        return [int(item) for item in items(option, text)] if text else [None]
    except ValueError:
        raise ConfigurationError(
            f"{option} must be whole numbers with commas between, and is {shown(text)}"
        ) from None
