"""bertir's tasks: TensorFlow BERT checkpoints to OpenVINO IR, reproducibly. `invoke --help TASK` says more."""

from __future__ import annotations

import os
import signal


def _end_at_once(number: int, _frame: object) -> None:
    """End before anything is begun, or after all is done: `interruptions` takes over in between."""
    os.write(2, b"interrupted\n" if number == signal.SIGINT else b"terminated\n")
    os._exit(128 + number)


# Before anything else is imported, which takes a moment in which Ctrl-C would end in a traceback.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) in (signal.SIG_DFL, signal.default_int_handler):  # not what is to be ignored
        signal.signal(_number, _end_at_once)

import contextlib
import io
import shlex
import sys
from dataclasses import replace
from functools import partial
from gc import freeze
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context  # noqa: TC002 - invoke looks at the signature
from invoke.exceptions import Exit
from invoke.tasks import task as invoke_task

# The code of this checkout with the pins of this checkout: a virtualenv that was copied along names another one.
# (In an installed wheel this file lies beside the pins too, in bertir/project, and the code where pip put it.)
ROOT = Path(__file__).resolve().parent
if (ROOT / "src").is_dir():
    sys.path.insert(0, str(ROOT / "src"))

# What only some tasks need is imported by them: a build with nothing to do is to answer at once.
from bertir.errors import BertirError, ConfigurationError
from bertir.interruption import Interrupted, interruptions
from bertir.refusal import explain_refusals
from bertir.report import DEFAULT_HEAD, RESHAPABLE, Request
from bertir.session import open_session
from bertir.show import error_json, error_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertir.local_checkpoint import Options

if (
    running := sys.modules.get("invoke.main")
) is not None:  # it is: `bertir` (program.py) sees to that by itself
    explain_refusals(running.program)
    # What is imported by now is used until the end: nothing is to search it for garbage meanwhile, or take it apart then.
    freeze()

# All arguments are options, with long names alone, but for those that a task calls positional.
task = partial(invoke_task, auto_shortflags=False, positional=())
FORMAT_HELP = "text or json (default: text); progress goes to standard error either way"
MIRROR_HELP = "URL or folder that has the models' zips or files (default: BERTIR_MIRROR, or their publishers)"
PARANOID_HELP = "read every byte again: believe no remembered digest of a large file (or BERTIR_PARANOID=1)"
ENGINE_HELP = "what runs the steps: docker, or local (default: BERTIR_ENGINE, or local inside bertir's image and else docker)"
QUIET_HELP = "tell errors alone (or BERTIR_PROGRESS=quiet)"
VERBOSE_HELP = "tell what the steps print, too (or BERTIR_PROGRESS=verbose)"
OFFLINE_HELP = "use the store only, and name what is missing"
PLAIN_HTTP_HELP = (
    "speak http, where nobody listens in between (default: https; http with a registry of this machine)"
)
# Of the tasks that build: what is to be built.
WHAT_HELP = {
    "model": "a model of `invoke models` (default: its first)",
    "checkpoint": "your own instead: a directory, or DIR/PREFIX of one of those in it (default: none)",
    "vocab-file": "with --checkpoint: its vocabulary (default: vocab.txt beside it)",
    "bert-config": "with --checkpoint: its configuration (default: bert_config.json beside it)",
    "case": "with --checkpoint: cased or uncased (default: as the vocabulary has upper-case letters or none)",
    "recipe": "reshapable (free batch) or meta-graph (the published graph as it is) (default: reshapable)",
    "head": "pooled, sequence (the last layer) or classifier (a fine-tuned checkpoint's probabilities) (default: pooled)",
    "precision": "of the weights: fp16 or fp32 (default: fp16)",
    "batch": "rows of the inputs as converted; the IR reshapes to others (default: 1)",
    "seq-len": "tokens a row; fixed in the graph, at most the model's positions (default: 128)",
    "task-data": "what run_classifier.py reads: mrpc, or a folder with a dev.tsv (default: bertir's own two rows)",
    "mirror": MIRROR_HELP,
}


@contextlib.contextmanager
def exit_statuses(format_: str = "text") -> Iterator[None]:
    """With `tell`, the only place that turns errors into exit statuses."""
    as_json = format_ == "json"
    _make_streams_fit()
    try:
        if format_ not in ("text", "json"):
            raise Exit(f"error: --format must be text or json, and is {format_!r}", 2)
        with interruptions():
            yield
    except BertirError as error:
        if as_json:
            with contextlib.suppress(Exit):  # what failed first is what it ends with, and is told below
                tell(error_json(error))
        raise Exit(error_text(error), error.exit_status) from error
    except Interrupted as error:
        raise Exit(str(error), error.exit_status) from error
    except OSError as error:
        # What no module foresaw: still no traceback, for a folder that may not be entered, say.
        where = f"{error.filename}: " if error.filename is not None else ""
        raise Exit(f"error: {where}{error.strerror or error}", 1) from error
    except MemoryError as error:
        raise Exit("error: there is not enough memory", 1) from error
    except RecursionError as error:
        raise Exit("error: something that was read is nested too deeply", 1) from error


def tell(text: str) -> None:
    """Print what a task gives.

    Raises:
        Exit: it can't be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        # Whoever read the output has gone; Python would say so once more when it closes the stream.
        _forget_stdout()
        raise Exit(code=128 + signal.SIGPIPE) from error
    except OSError as error:
        _forget_stdout()
        raise Exit(f"error: can't write the result: {error.strerror or error}", 1) from error


def _make_streams_fit() -> None:
    """Let every text be written: a stream may be closed (`>&-`), or have an encoding that lacks some characters.

    A folder's name may be any bytes; what can't be encoded is told as numbers.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nothing = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process lasts
            setattr(sys, name, nothing)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def whole_number(option: str, text: str) -> int:
    # invoke's own conversion of integers ends in a traceback.
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{option} must be a whole number, and is {text!r}") from None


def shaped(request: Request, batch: str, seq_len: str) -> Request:
    return replace(
        request,
        batch=whole_number("--batch", batch) if batch else None,
        seq_len=whole_number("--seq-len", seq_len) if seq_len else None,
    )


def checkpoint_options(path: str, vocab_file: str, bert_config: str, case: str) -> Options | None:
    if not path:
        for name, value in (("--vocab-file", vocab_file), ("--bert-config", bert_config), ("--case", case)):
            if value:
                raise ConfigurationError(f"{name} belongs to --checkpoint, and there is none")
        return None
    from bertir.local_checkpoint import Options

    return Options(
        path=Path(path),
        vocab_file=Path(vocab_file) if vocab_file else None,
        bert_config=Path(bert_config) if bert_config else None,
        case=case,
    )


@task(
    help=WHAT_HELP
    | {
        "output": "folder to publish under, as MODEL/RECIPE-PRECISION[-HEAD] (default: dist)",
        "offline": OFFLINE_HELP,
        "bundle": "take the materials from this file of `invoke fetch --bundle`, and no network (default: none)",
        "paranoid": PARANOID_HELP,
        "memory": "bytes that its steps may take together, or with a unit as 2G (default: what is free); short of it they run one after another",
        "engine": ENGINE_HELP,
        "quiet": QUIET_HELP,
        "verbose": VERBOSE_HELP,
        "format": FORMAT_HELP,
    },
)
def build_ir(
    _: Context,
    model: str = "",
    checkpoint: str = "",
    vocab_file: str = "",
    bert_config: str = "",
    case: str = "",
    recipe: str = RESHAPABLE,
    head: str = DEFAULT_HEAD,
    precision: str = "fp16",
    batch: str = "",
    seq_len: str = "",
    output: str = "dist",
    offline: bool = False,
    bundle: str = "",
    mirror: str = "",
    task_data: str = "",
    paranoid: bool = False,
    memory: str = "",
    engine: str = "",
    quiet: bool = False,
    verbose: bool = False,
    format_: str = "text",
) -> None:
    """Build and verify OpenVINO IR of a BERT, and publish it. Example: `invoke build-ir --precision fp32`."""
    from bertir import commands

    with exit_statuses(format_):
        request = shaped(
            Request(model=model, recipe=recipe, precision=precision, head=head, task_data=task_data),
            batch,
            seq_len,
        )
        tell(
            commands.build_ir(
                open_session(ROOT, os.environ, live=True, quiet=quiet, verbose=verbose),
                request,
                checkpoint=checkpoint_options(checkpoint, vocab_file, bert_config, case),
                output=output,
                offline=offline,
                bundle=bundle,
                mirror=mirror,
                paranoid=paranoid,
                engine=engine,
                memory=memory,
                as_json=format_ == "json",
            )
        )


@task(
    help={
        "models": "of `invoke models` (default: its first, if there are no checkpoints)",
        "checkpoints": "your own: directories, or DIR/PREFIX (default: none)",
        "vocab-file": "of each of the checkpoints (default: vocab.txt beside it)",
        "bert-config": "of each of the checkpoints (default: bert_config.json beside it)",
        "case": "of each of the checkpoints: cased or uncased (default: as its vocabulary has it)",
        "recipes": "reshapable, meta-graph (default: reshapable)",
        "precisions": "fp16, fp32 (default: fp16)",
        "heads": "pooled, sequence, classifier (default: pooled)",
        "batches": "rows of the inputs as converted (default: 1)",
        "seq-lens": "tokens a row (default: 128)",
        "task-data": "one for all: mrpc, or a folder with a dev.tsv (default: bertir's own two rows)",
        "jobs": "how many builds at once (default: one a processor)",
        "memory": "bytes that they may take together, or with a unit as 12G (default: what is free); what takes more by itself runs alone, its steps one after another",
        "output": "folder to publish under, as MODEL/RECIPE-PRECISION[-HEAD] (default: dist)",
        "offline": OFFLINE_HELP,
        "bundle": "take the materials from this file of `invoke fetch --bundle`, and no network (default: none)",
        "mirror": MIRROR_HELP,
        "paranoid": PARANOID_HELP,
        "engine": ENGINE_HELP,
        "quiet": QUIET_HELP,
        "verbose": VERBOSE_HELP,
        "format": FORMAT_HELP,
    },
)
def build_matrix(
    _: Context,
    models: str = "",
    checkpoints: str = "",
    vocab_file: str = "",
    bert_config: str = "",
    case: str = "",
    recipes: str = RESHAPABLE,
    precisions: str = "fp16",
    heads: str = DEFAULT_HEAD,
    batches: str = "",
    seq_lens: str = "",
    task_data: str = "",
    jobs: str = "",
    memory: str = "",
    output: str = "dist",
    offline: bool = False,
    bundle: str = "",
    mirror: str = "",
    paranoid: bool = False,
    engine: str = "",
    quiet: bool = False,
    verbose: bool = False,
    format_: str = "text",
) -> None:
    """Build every combination of lists (commas between), several at once; a failure stops no other. Example: `invoke build-matrix --precisions fp16,fp32 --heads pooled,sequence --jobs 2`."""
    from bertir import commands
    from bertir.wanted import Lists, Work

    with exit_statuses(format_):
        text, error = commands.build_matrix(
            open_session(ROOT, os.environ, live=True, quiet=quiet, verbose=verbose),
            Lists(
                models=models,
                checkpoints=checkpoints,
                vocab_file=vocab_file,
                bert_config=bert_config,
                case=case,
                recipes=recipes,
                precisions=precisions,
                heads=heads,
                batches=batches,
                seq_lens=seq_lens,
                task_data=task_data,
            ),
            Work(
                jobs=jobs,
                memory=memory,
                output=output,
                offline=offline,
                bundle=bundle,
                mirror=mirror,
                paranoid=paranoid,
                engine=engine,
            ),
            as_json=format_ == "json",
        )
    with exit_statuses():  # the JSON tells the errors already
        tell(text)
        if error:
            raise error


@task(
    help={
        "job": "the image that a CI job runs bertir in, instead of the one that steps run in",
        "archive": "write the image to this file, for Docker, podman and skopeo (default: none, it is loaded)",
        "offline": OFFLINE_HELP,
        "quiet": QUIET_HELP,
        "verbose": VERBOSE_HELP,
        "format": FORMAT_HELP,
    },
)
def image(
    _: Context,
    job: bool = False,
    archive: str = "",
    offline: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    format_: str = "text",
) -> None:
    """Assemble the pinned image and load it into the engine. Example: `invoke image --archive bertir.tar`."""
    from bertir import commands

    with exit_statuses(format_):
        tell(
            commands.image(
                open_session(ROOT, os.environ, live=True, quiet=quiet, verbose=verbose),
                job=job,
                archive=archive,
                offline=offline,
                as_json=format_ == "json",
            )
        )


@task(
    help={
        "model": "whose materials (default: the first of `invoke models`)",
        "bundle": "write them to this file too (default: none)",
        "mirror": MIRROR_HELP,
        "task-data": "mrpc: its files too, split as run_classifier.py reads them (default: none)",
        "output": "write train.tsv, dev.tsv and test.tsv to this folder (default: none, they stay in the store)",
        "quiet": QUIET_HELP,
        "verbose": VERBOSE_HELP,
        "format": FORMAT_HELP,
    },
)
def fetch(
    _: Context,
    model: str = "",
    bundle: str = "",
    mirror: str = "",
    task_data: str = "",
    output: str = "",
    quiet: bool = False,
    verbose: bool = False,
    format_: str = "text",
) -> None:
    """Fetch every material of a build into the store. Example: `invoke fetch --bundle materials.tar`."""
    from bertir import commands

    with exit_statuses(format_):
        tell(
            commands.fetch(
                open_session(ROOT, os.environ, live=True, quiet=quiet, verbose=verbose),
                model=model,
                bundle=bundle,
                mirror=mirror,
                task_data=task_data,
                output=output,
                as_json=format_ == "json",
            )
        )


@task(
    positional=["folder"],
    help={
        "folder": "needed: a published one, as dist/MODEL/VARIANT",
        "key": "a public key (PEM) that must have signed it (default: none, no signature is asked for)",
        "rebuild": "build it again from its provenance alone, in a fresh store, and compare the bits",
        "checkpoint": "with --rebuild of a checkpoint of your own: where it is (default: none)",
        "vocab-file": "with --checkpoint: its vocabulary (default: vocab.txt beside it)",
        "bert-config": "with --checkpoint: its configuration (default: bert_config.json beside it)",
        "task-data": "with --rebuild of what was built with a folder of your own: where it is (default: none)",
        "bundle": "with --rebuild: take the materials from this file, and no network (default: none)",
        "mirror": MIRROR_HELP,
        "format": FORMAT_HELP,
    },
)
def verify(
    _: Context,
    folder: str,
    key: str = "",
    rebuild: bool = False,
    checkpoint: str = "",
    vocab_file: str = "",
    bert_config: str = "",
    task_data: str = "",
    bundle: str = "",
    mirror: str = "",
    format_: str = "text",
) -> None:
    """See that a published folder is whole and true to its provenance. Example: `invoke verify dist/M/V --key k.pub`."""
    from bertir import evidence
    from bertir.wanted import Given

    with exit_statuses(format_):
        given = Given(
            checkpoint=checkpoint_options(checkpoint, vocab_file, bert_config, ""), task_data=task_data
        )
        tell(
            evidence.verify(
                open_session(ROOT, os.environ),
                folder,
                key=key,
                rebuild=rebuild,
                given=given,
                bundle=bundle,
                mirror=mirror,
                as_json=format_ == "json",
            )
        )


@task(
    positional=["reference"],
    help={
        "reference": "needed: HOST[:PORT]/NAME[:TAG]; without a tag it is there by its digest alone",
        "folder": "this published model, as dist/MODEL/VARIANT (default: none, the image is pushed)",
        "job": "the image that a CI job runs bertir in, instead of the one that steps run in",
        "gzip": "compress the layers: a quarter of the bytes, and a digest that nobody knows beforehand",
        "plain-http": PLAIN_HTTP_HELP,
        "quiet": QUIET_HELP,
        "verbose": VERBOSE_HELP,
        "format": FORMAT_HELP,
    },
)
def push(
    _: Context,
    reference: str,
    folder: str = "",
    job: bool = False,
    gzip: bool = False,
    plain_http: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    format_: str = "text",
) -> None:
    """Push the image, or a model with its provenance, to a registry; the last line names it by digest. Example: `invoke push HOST/NAME:TAG --folder dist/MODEL/VARIANT`."""
    from bertir import transfer

    with exit_statuses(format_):
        tell(
            transfer.push(
                open_session(ROOT, os.environ, live=True, quiet=quiet, verbose=verbose),
                reference,
                folder=folder,
                job=job,
                gzip=gzip,
                plain_http=plain_http,
                as_json=format_ == "json",
            )
        )


@task(
    positional=["reference"],
    help={
        "reference": "needed: HOST[:PORT]/NAME@sha256:… as push printed it, or HOST[:PORT]/NAME:TAG",
        "folder": "it is a model, and goes here once it was verified (default: none, it is the image)",
        "job": "the image that a CI job runs bertir in, instead of the one that steps run in",
        "key": "the public key that must have signed the model, as `invoke verify --key` has it (default: none)",
        "plain-http": PLAIN_HTTP_HELP,
        "quiet": QUIET_HELP,
        "verbose": VERBOSE_HELP,
        "format": FORMAT_HELP,
    },
)
def pull(
    _: Context,
    reference: str,
    folder: str = "",
    job: bool = False,
    key: str = "",
    plain_http: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    format_: str = "text",
) -> None:
    """Pull the locked image into the store and the engine, or a model into a folder, from a registry. Example: `invoke pull HOST/NAME:TAG --folder models/bert`."""
    from bertir import transfer

    with exit_statuses(format_):
        tell(
            transfer.pull(
                open_session(ROOT, os.environ, live=True, quiet=quiet, verbose=verbose),
                reference,
                folder=folder,
                job=job,
                key=key,
                plain_http=plain_http,
                as_json=format_ == "json",
            )
        )


@task(
    positional=["folder"],
    help={
        "folder": "needed: a published one, as dist/MODEL/VARIANT",
        "key": "needed: your private key (PEM, ed25519; BERTIR_KEY_PASSPHRASE if it has one)",
        "format": FORMAT_HELP,
    },
)
def sign(_: Context, folder: str, key: str = "", format_: str = "text") -> None:
    """Sign a published folder's provenance. Example: `invoke sign dist/MODEL/VARIANT --key release.key`."""
    from bertir import evidence

    with exit_statuses(format_):
        tell(evidence.sign(open_session(ROOT, os.environ), folder, key=key, as_json=format_ == "json"))


@task(
    help={
        "key": "needed: file of the private key; the public one is put beside it as .pub",
        "format": FORMAT_HELP,
    },
)
def keygen(_: Context, key: str = "", format_: str = "text") -> None:
    """Make a key pair to sign with. Example: `invoke keygen --key release.key`."""
    from bertir import evidence

    with exit_statuses(format_):
        tell(evidence.keygen(open_session(ROOT, os.environ), key=key, as_json=format_ == "json"))


@task(
    help={
        # Not positional: invoke has no positional argument that may be left out.
        "folder": "of this published model, as dist/MODEL/VARIANT (default: of the image)",
        "job": "of the image that a CI job runs bertir in",
        "output": "write it to this file (default: standard output)",
        "offline": OFFLINE_HELP,
        "format": "json, the document itself, or text, a table (default: json; with --output: of what was written, text)",
    },
)
def sbom(
    _: Context,
    folder: str = "",
    job: bool = False,
    output: str = "",
    offline: bool = False,
    format_: str = "",
) -> None:
    """Give the CycloneDX bill of materials of the image or of a model. Example: `invoke sbom --output image.cdx.json`."""
    from bertir import evidence

    with exit_statuses(format_ or "text"):
        tell(
            evidence.sbom(
                open_session(ROOT, os.environ),
                folder,
                job=job,
                output=output,
                offline=offline,
                as_json=(format_ or ("text" if output else "json")) == "json",
            )
        )


@task(help={"format": FORMAT_HELP})
def models(_: Context, format_: str = "text") -> None:
    """List the models that bertir knows. Example: `invoke models --format json`."""
    from bertir import commands

    with exit_statuses(format_):
        tell(commands.models(open_session(ROOT, os.environ), as_json=format_ == "json"))


@task(
    help={
        "only": "source, image, host, job (the image for CI jobs) or bench (what `invoke bench` compares with, which no other call writes) (default: the first four; with --check, all)",
        "check": "write nothing, fail if a lock is stale",
        "format": FORMAT_HELP,
    },
)
def lock(_: Context, only: str = "", check: bool = False, format_: str = "text") -> None:
    """Resolve the locks anew, the only task that chooses versions. Example: `invoke lock --check`."""
    from bertir import commands

    with exit_statuses(format_):
        tell(commands.lock(open_session(ROOT, os.environ), only=only, check=check, as_json=format_ == "json"))


@task(
    help={
        "output": "folder of published builds (default: dist)",
        "store": "remove the store too, all of it",
        "image": "and the loaded image",
    },
)
def clean(_: Context, output: str = "dist", store: bool = False, image: bool = False) -> None:
    """Remove what was published. Example: `invoke clean --store --image`."""
    from bertir import housekeeping

    with exit_statuses():
        tell(housekeeping.clean(open_session(ROOT, os.environ), output=output, store=store, image=image))


@task(
    help={
        "older-than": "not used for so long: a number with a unit of s, m, h, d, w (default: 30d, if --max-size isn't given)",
        "max-size": "then the longest unused, until so much is left: bytes, or with a unit as 500M, 20G, 20Gi (default: no limit)",
        "dry-run": "say what would be removed, and remove nothing",
        "format": FORMAT_HELP,
    },
)
def gc(
    _: Context, older_than: str = "", max_size: str = "", dry_run: bool = False, format_: str = "text"
) -> None:
    """Remove what wasn't used for long from the store, and nothing that a running build uses. Example: `invoke gc --max-size 20G`."""
    from bertir import housekeeping

    with exit_statuses(format_):
        tell(
            housekeeping.gc(
                open_session(ROOT, os.environ),
                older_than=older_than,
                max_size=max_size,
                dry_run=dry_run,
                as_json=format_ == "json",
            )
        )


@task(
    help={
        "store": "read all of the store; what is damaged is removed, and made anew by the next build",
        "offline": "ask no server whether it answers",
        "format": FORMAT_HELP,
    },
)
def doctor(_: Context, store: bool = False, offline: bool = False, format_: str = "text") -> None:
    """See whether what builds rely on is there and sound, and what to do if not. Example: `invoke doctor`."""
    from bertir import housekeeping

    with exit_statuses(format_):
        text, error = housekeeping.doctor(
            open_session(ROOT, os.environ), whole_store=store, offline=offline, as_json=format_ == "json"
        )
    with exit_statuses():  # the JSON tells the findings already
        tell(text)
        if error:
            raise error


@task(
    help=WHAT_HELP
    | {
        "vary": "names of variations, with commas between (default: all that this machine can vary)",
        "each": "one rebuild a variation, and one with nothing varied, instead of one with all of them",
        "times": "how often each rebuild is done (default: 1)",
        "skip-image": "don't assemble the image anew",
        "keep": "do it in this empty folder, and leave it there to look at (default: a temporary one)",
        "format": FORMAT_HELP,
    },
)
def check(
    _: Context,
    model: str = "",
    checkpoint: str = "",
    vocab_file: str = "",
    bert_config: str = "",
    case: str = "",
    recipe: str = RESHAPABLE,
    head: str = DEFAULT_HEAD,
    precision: str = "fp16",
    batch: str = "",
    seq_len: str = "",
    task_data: str = "",
    mirror: str = "",
    vary: str = "",
    each: bool = False,
    times: str = "1",
    skip_image: bool = False,
    keep: str = "",
    format_: str = "text",
) -> None:
    """Rebuild from nothing under varied conditions, and compare every bit. Example: `invoke check --vary umask,tz`."""
    from bertir import evidence
    from bertir.wanted import Wanted

    with exit_statuses(format_):
        text, error = evidence.check(
            open_session(ROOT, os.environ),
            shaped(
                Request(model=model, recipe=recipe, precision=precision, head=head, task_data=task_data),
                batch,
                seq_len,
            ),
            checkpoint=checkpoint_options(checkpoint, vocab_file, bert_config, case),
            mirror=mirror,
            wanted=Wanted(
                vary=vary,
                each=each,
                times=whole_number("--times", times),
                skip_image=skip_image,
                keep=keep,
            ),
            as_json=format_ == "json",
        )
    with exit_statuses():  # the JSON tells the error already
        tell(text)
        if error:
            raise error


@task
def engine(_: Context) -> None:
    """See that a container engine answers; root on Debian or Ubuntu: install and start one if none does. Example: `invoke engine`."""
    from bertir import commands

    with exit_statuses():
        tell(commands.engine(open_session(ROOT, os.environ)))


@task(
    help={
        "quick": "the tiny shape alone, each once: to see that it works; no page changes",
        "rounds": "at most so many repetitions of each (default: 3 to 7, and 1 of what takes very long)",
        "cache": "folder of what is kept between runs (default: ~/.cache/bertir-bench; it takes 7 GB)",
        "render": "measure nothing, and write the page of this file of benchmarks/results (default: none)",
        "format": FORMAT_HELP,
    },
)
def bench(
    _: Context,
    quick: bool = False,
    rounds: str = "",
    cache: str = "",
    render: str = "",
    format_: str = "text",
) -> None:
    """Measure bertir beside other ways to the same IR, for docs/benchmarks.md. Example: `invoke bench --quick`."""
    with exit_statuses(format_):
        session = open_session(ROOT, os.environ)
        # The suite makes its checkpoints as the tests do, and needs what they need: `make dev`.
        sys.path[1:1] = [str(ROOT), str(ROOT / "tests" / "support")]
        try:
            from benchmarks import command
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"benchmarks need {error.name}, which isn't in this virtualenv", advice="Run: make dev"
            ) from error
        tell(
            command.bench(
                session,
                quick=quick,
                rounds=whole_number("--rounds", rounds) if rounds else None,
                cache=cache,
                render=render,
                as_json=format_ == "json",
            )
        )


@task(
    help={
        "output": "folder of the site (default: build/docs)",
        "format": FORMAT_HELP,
    },
)
def docs(_: Context, output: str = "build/docs", format_: str = "text") -> None:
    """Make the site of the documentation, and before it the pages that are made from code; a fault of a page is an error. Example: `invoke docs --output site`."""
    with exit_statuses(format_):
        sys.path[1:1] = [str(ROOT)]
        from docs.site.make import make_site

        tell(make_site(ROOT, output, os.environ, as_json=format_ == "json"))


@task
def golden(context: Context) -> None:
    """Rewrite the expected digests of tests/golden from real builds; needs what the tests need. Example: `invoke golden`."""
    with exit_statuses():
        context.run(
            f"{shlex.quote(sys.executable)} -m pytest tests/integration tests/e2e --rewrite-golden -k golden"
        )


@task(
    help={
        "database": "hold the pins against this Git checkout of an advisory database, and write security/examined.json (default: none)",
        "online": "ask pip-audit's service too, what is known today",
        "service": "with --online: URL of another service with OSV's interface (default: pip-audit's own)",
        "format": "text, json, or markdown as in docs/vulnerabilities.md (default: text)",
    },
)
def audit(
    _: Context, database: str = "", online: bool = False, service: str = "", format_: str = "text"
) -> None:
    """List the known advisories about what is pinned, with their answers. Example: `invoke audit --format json`."""
    from bertir import evidence

    with exit_statuses("text" if format_ == "markdown" else format_):
        session = open_session(ROOT, os.environ)
        tell(evidence.audit(session, database=database, online=online, service=service, format_=format_))
