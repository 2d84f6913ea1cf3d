"""What the command line says of a check or a rebuild; small, as every task imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertir.local_checkpoint import Options


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How to check.

    Args:
        vary: names of variations with commas between; empty is all that this machine can do.
        each: one rebuild a variation, and one with nothing varied; else all are varied together.
        times: how often each rebuild is done.
        skip_image: take the image as the engine has it.
        keep: a folder for the rebuilds, to look at; empty is one that is removed.
    """

    vary: str = ""
    each: bool = False
    times: int = 1
    skip_image: bool = False
    keep: str = ""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a provenance can only name by digest, and the user has to hand over for a rebuild."""

    checkpoint: Options | None = None
    task_data: str = ""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """What to build, as the command line says it: each is a list with commas between, and every combination is meant.

    Args:
        models: names; empty is the first one, if there are no checkpoints either.
        checkpoints: directories, or DIR/PREFIX.
        vocab_file: and the next two: of each of the checkpoints.
        batches: and `seq_lens`: empty is the default.
        task_data: one for all.
    """

    models: str = ""
    checkpoints: str = ""
    vocab_file: str = ""
    bert_config: str = ""
    case: str = ""
    recipes: str
    precisions: str
    heads: str
    batches: str = ""
    seq_lens: str = ""
    task_data: str = ""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How to build it.

    Args:
        jobs: how many at once, as the command line says it; empty is as many as there are processors.
        memory: what they may take together, as the command line says it; empty is what is free.
        output: the folder to publish under.
        bundle: a file that has the materials; empty is none.
        mirror: where models are from; empty is their publishers.
        paranoid: believe no remembered digest.
        engine: what runs the steps, as the command line says it.
    """

    jobs: str = ""
    memory: str = ""
    output: str = "dist"
    offline: bool = False
    bundle: str = ""
    mirror: str = ""
    paranoid: bool = False
    engine: str = ""
