"""A checkpoint of the user's own: which files belong to it, under which fixed names the steps see them.

Only names, digests, two small JSON or text files are looked at here: a checkpoint and a graph are opened in
the container alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertir.store import Blob, Store

# Whatever the user's prefix is (model.ckpt-343), the steps see this one, so that no digest depends on it.
PREFIX = "bert_model.ckpt"
GOOGLE, HUGGING_FACE = "google", "hugging-face"
CASES = ("cased", "uncased")
# Far more than any: the multilingual vocabulary has 1 MB, a configuration 1 kB, a state file 100 bytes a step.
_TEXT_BYTES = 64 << 20
_JSON_BYTES = 1 << 20
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})")
_STATE = re.compile(r'^model_checkpoint_path:\s*"([^"]+)"', re.MULTILINE)
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_SPECIAL = re.compile(r"\[.*\]")
_PICKLED = ("pytorch_model.bin", "*.bin", "*.pt", "*.pth", "*.pkl")


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
        name: the directory's; the published folder gets it.
        kind: `google` or `hugging-face`.
        files: the name that a step sees -> the user's file.
        lower_case_from: who decided on `lower_case`: `--case` or `vocab.txt`.
    """

    name: str
    kind: str
    files: Mapping[str, Path]
    lower_case: bool
    lower_case_from: str
    layers: int
    max_positions: int


def find_checkpoint(options: Options) -> LocalCheckpoint:
    """Find out which files make up the checkpoint.

    Raises:
        ConfigurationError: some are missing, or it isn't clear which are meant; says what to pass.
    """
    if options.case and options.case not in CASES:
        raise ConfigurationError(f"--case must be cased or uncased, and is {options.case!r}")
    folder, prefix = _folder_and_prefix(options.path)
    if prefix is None and (folder / "model.safetensors").is_file():
        kind, files = HUGGING_FACE, {"model.safetensors": folder / "model.safetensors"}
        # Before anything is missed that another architecture hasn't got.
        _refuse_other_architectures(options.bert_config or folder / "config.json")
    else:
        kind, files = GOOGLE, _tensors(folder, prefix or _prefix_in(folder))
    files |= _beside(folder, options, kind)
    configuration = _configuration(files["config.json" if kind == HUGGING_FACE else "bert_config.json"])
    tokens = _tokens(files["vocab.txt"])
    if len(tokens) > configuration["vocab_size"]:
        raise ConfigurationError(
            f"{files['vocab.txt']} has {len(tokens)} lines, and the model embeds {configuration['vocab_size']} tokens",
            advice="Give the vocabulary that belongs to this checkpoint by --vocab-file.",
        )
    return LocalCheckpoint(
        name=_name(folder),
        kind=kind,
        files=files,
        lower_case=options.case == "uncased" if options.case else not _is_cased(tokens),
        lower_case_from="--case" if options.case else "vocab.txt",
        layers=configuration["num_hidden_layers"],
        max_positions=configuration["max_position_embeddings"],
    )


def add_checkpoint(store: Store, local: LocalCheckpoint) -> Artifact:
    """Copy the files into the store, where they aren't there yet.

    Raises:
        ConfigurationError: one can't be read.
    """
    return Artifact(files={name: _add(store, path) for name, path in local.files.items()})


def _add(store: Store, path: Path) -> Blob:
    try:
        digest = Digest.of_file(path)
        # Expected: a file that is written to in these moments is not what was read.
        return store.find(digest) or store.add_file(path, expected=digest)
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error


def _folder_and_prefix(path: Path) -> tuple[Path, str | None]:
    if path.is_dir():
        return path, None
    prefix = _SUFFIX.sub("", path.name)  # a file of a checkpoint names it as well
    if (path.parent / f"{prefix}.index").is_file():
        return path.parent, prefix
    if path.name == "model.safetensors" and path.is_file():
        return path.parent, None
    _refuse_pickled([path] if path.is_file() else [])
    raise ConfigurationError(
        f"--checkpoint {path} is neither a directory nor the prefix of a checkpoint",
        advice=f"Give a directory, or DIR/PREFIX where DIR/PREFIX.index lies.{_there_are(_prefixes(path.parent))}",
    )


def _prefixes(folder: Path) -> list[str]:
    return sorted(item.name.removesuffix(".index") for item in folder.glob("*.index") if item.is_file())


def _there_are(prefixes: list[str]) -> str:
    return f" There are: {', '.join(prefixes)}." if prefixes else ""


def _prefix_in(folder: Path) -> str:
    """Give the prefix that TensorFlow would take: the state file's, or else the only one."""
    prefixes = _prefixes(folder)
    latest = _latest(folder / "checkpoint")
    if latest in prefixes:
        return latest
    if len(prefixes) == 1:
        return prefixes[0]
    if prefixes:
        raise ConfigurationError(
            f"{folder} holds several checkpoints: {', '.join(prefixes)}",
            advice=f"Choose one: --checkpoint {folder / prefixes[-1]}",
        )
    if (folder / "model.safetensors.index.json").is_file():
        raise ConfigurationError(
            f"{folder} holds a model.safetensors in several parts, and bertir reads one",
            advice="Save it as one: model.save_pretrained(DIR, max_shard_size='100GB').",
        )
    _refuse_pickled([item for pattern in _PICKLED for item in sorted(folder.glob(pattern))])
    raise ConfigurationError(
        f"{folder} holds no checkpoint: neither PREFIX.index and PREFIX.data-00000-of-00001 nor model.safetensors",
        advice="Give a directory of google-research/bert or of a Hugging Face BertModel.",
    )


def _refuse_pickled(found: list[Path]) -> None:
    for path in found:
        if any(path.match(pattern) for pattern in _PICKLED):
            raise ConfigurationError(
                f"{path} is pickled: to open it is to run whatever program is in it, so bertir doesn't",
                advice="Where you trust it: BertModel.from_pretrained(DIR).save_pretrained(OTHER),"
                " which writes model.safetensors.",
            )


def _latest(state: Path) -> str:
    """Give the prefix that a `checkpoint` file names; it may hold a path of the machine that trained."""
    if not state.is_file():
        return ""
    found = _STATE.search(_text(state, _JSON_BYTES))
    return re.split(r"[/\\]", found[1])[-1] if found else ""


def _tensors(folder: Path, prefix: str) -> dict[str, Path]:
    """Give .index, all parts of .data, and .meta if there is one (only the recipe meta-graph reads it)."""
    files = {f"{PREFIX}.index": folder / f"{prefix}.index"}
    parts: dict[int, set[int]] = {}
    for item in folder.iterdir():
        found = _SHARD.fullmatch(item.name.removeprefix(prefix)) if item.name.startswith(prefix) else None
        if found:
            parts.setdefault(int(found[2]), set()).add(int(found[1]))
            files[f"{PREFIX}{found[0]}"] = item
    whole = [count for count, numbers in parts.items() if numbers == set(range(count))]
    if len(parts) != 1 or not whole:
        there = ", ".join(sorted(path.name for name, path in files.items() if ".data-" in name)) or "none"
        raise ConfigurationError(
            f"the parts of {folder / prefix}.data don't make up a whole: there are {there}",
            advice=f"All of {prefix}.data-00000-of-0000N must lie beside {prefix}.index, of one saving.",
        )
    meta = folder / f"{prefix}.meta"
    return files | ({f"{PREFIX}.meta": meta} if meta.is_file() else {})


def _refuse_other_architectures(path: Path) -> None:
    """Name the architecture of a Hugging Face directory that is none of BERT's."""
    if not path.is_file():
        return
    try:
        value = json.loads(_text(path, _JSON_BYTES))
    except (ValueError, RecursionError):
        return  # said where it is read
    kind = value.get("model_type") if isinstance(value, dict) else "bert"
    if isinstance(kind, str) and kind != "bert":  # what says nothing is looked at in the container
        raise ConfigurationError(
            f"{path}: its model_type is {kind!r} (architectures: {value.get('architectures')!r}), and bertir builds 'bert' alone",
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


def _configuration(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path, _JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
    for name in ("max_position_embeddings", "num_hidden_layers", "vocab_size"):
        number = value.get(name) if isinstance(value, dict) else None
        if type(number) is not int or number < 1:
            raise ConfigurationError(
                f"{path} is no configuration of a BERT: its {name} is {number!r}",
                advice="Give the bert_config.json that belongs to this checkpoint by --bert-config.",
            )
    return dict(value)


def _tokens(path: Path) -> list[str]:
    # As tokenization.load_vocab reads it: a line ends at "\n" only, and its ends are stripped.
    lines = _text(path, _TEXT_BYTES).split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def _is_cased(tokens: list[str]) -> bool:
    # Not the special ones: [CLS] is in every vocabulary.
    return any(token != token.lower() for token in tokens if not _SPECIAL.fullmatch(token))


def _text(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ConfigurationError(f"{path} has more than {most} bytes, and can't be what it is taken for")
        return data.decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error


def _name(folder: Path) -> str:
    name = folder.resolve().name
    if not name or name.startswith("."):
        raise ConfigurationError(
            f"the published folder gets the name of the checkpoint's, and {name or '/'!r} is none",
            advice="Move the checkpoint into a folder with a name.",
        )
    return name
