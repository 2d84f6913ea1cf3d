"""A checkpoint of the user's own: which files belong to it, under which fixed names the steps see them.

Only names, digests, two small JSON or text files are looked at here: a checkpoint and a graph are opened in
the container alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from codecs import BOM_UTF8
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from bertir.checkpoint_files import SMALL_BYTES, choose, read_text
from bertir.configuration import google_problems, integer_problems
from bertir.digest import read_chunks
from bertir.errors import ConfigurationError, DigestMismatchError
from bertir.frozen import dataclass
from bertir.hint import LARGE_BYTES
from bertir.model import HUGGING_FACE, encoder_parameters
from bertir.nearest import did_you_mean
from bertir.redact import shown
from bertir.steady import Marks
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bertir.checkpoint_files import Chosen
    from bertir.digest import Digest
    from bertir.store import Blob, Store

CASES = ("cased", "uncased")
# Far more than any: the multilingual vocabulary has 1 MB.
_VOCABULARY_BYTES = 64 << 20
_TEXTS = ("bert_config.json", "config.json", "vocab.txt")
_TOKEN_SHOWN = 40
_COPY_IT = "Is a training still running? Copy the checkpoint when it is saved, then build from the copy."
# google-research/bert puts them into every row, or may have to.
_NEEDED = ("[UNK]", "[CLS]", "[SEP]")
_SPECIAL = re.compile(r"\[.*\]")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says of a checkpoint.

    Args:
        path: a directory, or DIR/PREFIX of one of the checkpoints in it.
        vocab_file: if it doesn't lie there as `vocab.txt`.
        bert_config: if it doesn't lie there as `bert_config.json` (Hugging Face: `config.json`).
        case: `cased`, `uncased`, or empty: uncased if no token of the vocabulary has an upper-case letter.
    """

    path: Path
    vocab_file: Path | None = None
    bert_config: Path | None = None
    case: str = ""


def absolute(options: Options) -> Options:
    """Give the same for a process in another folder."""
    return replace(
        options,
        path=options.path.absolute(),
        vocab_file=options.vocab_file and options.vocab_file.absolute(),
        bert_config=options.bert_config and options.bert_config.absolute(),
    )


@dataclass(frozen=True, kw_only=True)
class LocalCheckpoint:
    """What was found.

    Args:
        name: the directory's, with the prefix where there may be several; the published folder gets it.
        prefix: of a checkpoint of TensorFlow's; empty for Hugging Face's.
        kind: `google` or `hugging-face`.
        files: the name that a step sees -> the user's file.
        parameters: numbers in the encoder that its configuration describes.
        marks: how the files were before any of them was read.
        lower_case_from: who decided on `lower_case`: `--case` or `vocab.txt`.
        upper_case: of vocab.txt, the first token that made it cased; empty if none did.
    """

    name: str
    prefix: str
    kind: str
    files: Mapping[str, Path]
    lower_case: bool
    lower_case_from: str
    layers: int
    max_positions: int
    parameters: int = 0
    upper_case: str = ""
    marks: Marks = field(default_factory=lambda: Marks(files={}))

    @property
    def weight_bytes(self) -> int:
        """The bytes of the encoder's weights, four each; at most as many as the files have.

        A checkpoint of a training holds three times as many, of which nothing is frozen.
        """
        return min(4 * self.parameters, sum(mark.size for mark in self.marks.files.values()))

    @property
    def case(self) -> str:
        """What was decided, and by what, for the user to overrule."""
        if self.lower_case_from == "--case":
            return f"{'uncased' if self.lower_case else 'cased'}, as --case says"
        if self.lower_case:
            return "uncased, as vocab.txt has no upper-case letter; --case cased overrules"
        return f"cased, by the token {shown(self.upper_case[:_TOKEN_SHOWN])} of vocab.txt; --case uncased overrules"


def find_checkpoint(options: Options) -> LocalCheckpoint:
    """Find out which files make up the checkpoint.

    Raises:
        ConfigurationError: some are missing or can't be read, or it isn't clear which are meant; says what to pass.
    """
    if options.case and options.case not in CASES:
        raise ConfigurationError(
            f"--case must be cased or uncased, and is {shown(options.case)}",
            advice=did_you_mean(options.case, CASES),
        )
    try:
        return _find(options)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        where = options.path if error.filename is None else error.filename
        raise ConfigurationError(f"can't read {where}: {error.strerror or error}") from error


def _find(options: Options) -> LocalCheckpoint:
    chosen = choose(options.path)
    if chosen.kind == HUGGING_FACE:
        # Before anything is missed that another architecture hasn't got.
        _refuse_other_architectures(options.bert_config or chosen.folder / "config.json")
    files = {**chosen.files, **_beside(chosen.folder, options, chosen.kind)}
    marks = Marks.of(files.values())
    configuration = _configuration(
        files["config.json" if chosen.kind == HUGGING_FACE else "bert_config.json"], chosen.kind
    )
    tokens = _tokens(files["vocab.txt"])
    if len(tokens) > configuration["vocab_size"]:
        raise ConfigurationError(
            f"{files['vocab.txt']} has {len(tokens)} lines, and the model embeds {configuration['vocab_size']} tokens",
            advice="Give the vocabulary that belongs to this checkpoint by --vocab-file.",
        )
    if missing := [token for token in _NEEDED if token not in tokens]:
        raise ConfigurationError(
            f"{files['vocab.txt']} lacks {', '.join(missing)}",
            advice="Give the vocabulary that belongs to this checkpoint by --vocab-file.",
        )
    upper_case = "" if options.case else _first_cased(tokens)
    return LocalCheckpoint(
        name=_name(chosen),
        prefix=chosen.prefix,
        kind=chosen.kind,
        files=files,
        lower_case=options.case == "uncased" if options.case else not upper_case,
        lower_case_from="--case" if options.case else "vocab.txt",
        layers=configuration["num_hidden_layers"],
        max_positions=configuration["max_position_embeddings"],
        parameters=encoder_parameters(
            layers=configuration["num_hidden_layers"],
            hidden=configuration.get("hidden_size", 768),  # modeling.BertConfig's default
            vocabulary=configuration["vocab_size"],
            max_positions=configuration["max_position_embeddings"],
        ),
        upper_case=upper_case,
        marks=marks,
    )


def add_checkpoint(
    store: Store, local: LocalCheckpoint, copying: Callable[[], object] = lambda: None
) -> Artifact:
    """Copy the files into the store, where they aren't there yet.

    `copying` is called before a large one is copied, once for each.

    Raises:
        ConfigurationError: one can't be read, or one has changed since the checkpoint was found.
    """
    local.marks.require_unchanged(_COPY_IT)  # 1 GB is read for nothing otherwise
    stored = Artifact(
        files={name: _add(store, name, path, local.marks, copying) for name, path in local.files.items()}
    )
    # Once more for all: .data may have been another saving's when .index was read, and have been whole since.
    local.marks.require_unchanged(_COPY_IT)
    return stored


def _add(store: Store, name: str, path: Path, marks: Marks, copying: Callable[[], object]) -> Blob:
    if name in _TEXTS:  # google-research/bert takes a byte order mark for part of the text
        with _reading(path):
            data = path.read_bytes()
        marks.require_unchanged(_COPY_IT)
        return store.add_bytes(data.removeprefix(BOM_UTF8), what=name)
    with _reading(path):
        size = path.stat().st_size
    digest = None

    def is_stored(hint: Digest) -> bool:
        with store.writing("look an object up"):  # what keeps it from that isn't the checkpoint
            return store.find(hint) is not None

    if size < LARGE_BYTES or store.has_one_of_size(size):  # else it isn't there, and is read once
        # Hashed first: a checkpoint that is in the store already isn't written again. What is remembered of it says so
        # only of what is there: to be copied, it is read, and what was remembered may be wrong.
        with _reading(path):
            digest = store.hints.digest(path, built_from=True, only=is_stored)
        if (present := store.find(digest)) is not None:
            return present
    if size >= LARGE_BYTES:
        copying()
    begun = time.time_ns()
    try:
        stored = store.add(_steadily(path, marks), expected=digest, what=path.name, size=size)
    except DigestMismatchError as error:  # unchanged by its times, or it would have been said
        raise ConfigurationError(f"{path} was read twice, and gave other bytes", advice=_COPY_IT) from error
    store.hints.read(path, marks.files[path], stored.digest, begun)
    return stored


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within it nothing is done but to read a file of the user's: an `OSError` is of that."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error


def _steadily(path: Path, marks: Marks) -> Iterator[bytes]:
    """Give a file's bytes, and end with an error if it changed: what is being stored is thrown away then."""
    with _reading(path), path.open("rb") as file:
        yield from read_chunks(file)
    marks.require_unchanged(_COPY_IT)


def _refuse_other_architectures(path: Path) -> None:
    """Name the architecture of a Hugging Face directory that is none of BERT's."""
    if not path.is_file():
        return
    try:
        value = json.loads(read_text(path, SMALL_BYTES))
    except (ValueError, RecursionError):
        return  # said where it is read
    kind = value.get("model_type") if isinstance(value, dict) else "bert"
    if isinstance(kind, str) and kind != "bert":  # what says nothing is looked at in the container
        raise ConfigurationError(
            f"{path}: its model_type is {shown(kind)} (architectures: {shown(value.get('architectures'))}), and bertir builds 'bert' alone",
            advice="google-research/bert computes no other architecture.",
        )


def _beside(folder: Path, options: Options, kind: str) -> dict[str, Path]:
    """Find vocabulary and configuration, and say at once which are missing."""
    config = "config.json" if kind == HUGGING_FACE else "bert_config.json"
    wanted = {
        "vocab.txt": (options.vocab_file, "--vocab-file"),
        config: (options.bert_config, "--bert-config"),
    }
    files = {name: given or folder / name for name, (given, _) in wanted.items()}
    missing = [name for name, path in files.items() if not path.is_file()]
    if missing:
        raise ConfigurationError(
            "there is no " + " and no ".join(str(files[name]) for name in missing),
            advice="Name them: "
            + " ".join(f"{wanted[name][1]} FILE" for name in missing)
            + " (those of the model that this checkpoint was trained from).",
        )
    return files


def _configuration(path: Path, kind: str) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path, SMALL_BYTES))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
    given = value if isinstance(value, dict) else {}
    # Of Hugging Face's the container says the rest: what google-research/bert can't compute.
    if problems := integer_problems(given) if kind == HUGGING_FACE else google_problems(given):
        raise ConfigurationError(
            f"{path} is no configuration of a BERT: {'; '.join(problems)}",
            advice="Give the configuration that belongs to this checkpoint by --bert-config.",
        )
    return given


def _tokens(path: Path) -> list[str]:
    # As tokenization.load_vocab reads it: a line ends at "\n" only, and its ends are stripped.
    lines = read_text(path, _VOCABULARY_BYTES).split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def _first_cased(tokens: list[str]) -> str:
    # Not the special ones: [CLS] is in every vocabulary.
    cased = (token for token in tokens if token != token.lower() and not _SPECIAL.fullmatch(token))
    return next(cased, "")


def _name(chosen: Chosen) -> str:
    name = chosen.folder.resolve().name
    if not name or name.startswith("."):
        raise ConfigurationError(
            f"the published folder gets the name of the checkpoint's, and {shown(name or '/')} is none",
            advice="Move the checkpoint into a folder with a name.",
        )
    return f"{name}-{chosen.prefix}" if chosen.is_one_of_several else name
