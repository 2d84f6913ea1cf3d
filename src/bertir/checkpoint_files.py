"""Which of a folder's files are the checkpoint that the user means. Only names are looked at, and two small files."""

from __future__ import annotations

import errno
import json
import os
import re
from codecs import BOM_UTF8
from typing import TYPE_CHECKING

from bertir.errors import ConfigurationError
from bertir.frozen import dataclass
from bertir.model import GOOGLE, HUGGING_FACE
from bertir.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Whatever the user's prefix is (model.ckpt-343), the steps see this one, so that no digest depends on it.
PREFIX = "bert_model.ckpt"
SAFETENSORS = "model.safetensors"
# Far more than any: a configuration has 1 kB, a state file 100 bytes a step.
SMALL_BYTES = 1 << 20
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})")
_STATE = r'^model_checkpoint_path:\s*"((?:[^"\\]|\\.)+)"'
_ESCAPED = rb"\\(?:([0-7]{1,3})|(.))"
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_PICKLED = ("pytorch_model.bin", "*.bin", "*.pt", "*.pth", "*.pkl")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The checkpoint proper, without vocabulary and configuration.

    Args:
        prefix: of a checkpoint of TensorFlow's; empty for Hugging Face's.
        is_one_of_several: the folder's name doesn't say which: a prefix was given, or others lie there.
        files: the name that a step sees -> the user's file.
    """

    folder: Path
    kind: str
    prefix: str = ""
    is_one_of_several: bool = False
    files: Mapping[str, Path]


def choose(path: Path) -> Chosen:
    """Find the checkpoint that a directory holds, or that DIR/PREFIX or one of its files names.

    Raises:
        ConfigurationError: there is none, or it isn't clear which is meant; says what to pass.
    """
    if path.is_dir():
        if not (path / SAFETENSORS).is_file():
            prefixes = _prefixes(path)
            return _google(path, _prefix_in(path, prefixes), is_one_of_several=len(prefixes) > 1)
        if prefixes := _prefixes(path):
            raise ConfigurationError(
                f"{path} holds {SAFETENSORS} and a checkpoint of TensorFlow: {', '.join(prefixes)}",
                advice=f"Choose one: --checkpoint {path / SAFETENSORS}, or --checkpoint {path / prefixes[-1]}",
            )
        return _hugging_face(path)
    prefix = _SUFFIX.sub("", path.name)  # a file of a checkpoint names it as well
    if (path.parent / f"{prefix}.index").is_file():
        return _google(path.parent, prefix, is_one_of_several=True)
    if path.name == SAFETENSORS and path.is_file():
        return _hugging_face(path.parent)
    _refuse_pickled([path] if path.is_file() else [])
    raise ConfigurationError(
        f"--checkpoint {path} is neither a directory nor the prefix of a checkpoint",
        advice=f"Give a directory, or DIR/PREFIX where DIR/PREFIX.index lies.{_there_are(_prefixes(path.parent))}",
    )


def _hugging_face(folder: Path) -> Chosen:
    return Chosen(folder=folder, kind=HUGGING_FACE, files={SAFETENSORS: folder / SAFETENSORS})


def _google(folder: Path, prefix: str, *, is_one_of_several: bool) -> Chosen:
    return Chosen(
        folder=folder,
        kind=GOOGLE,
        prefix=prefix,
        is_one_of_several=is_one_of_several,
        files=_tensors(folder, prefix),
    )


def _prefixes(folder: Path) -> list[str]:
    # Not by glob, which takes a folder that can't be read for an empty one.
    names = [item.name for item in folder.iterdir() if item.is_file()] if folder.is_dir() else []
    return sorted(name.removesuffix(".index") for name in names if name.endswith(".index"))


def _there_are(prefixes: list[str]) -> str:
    return f" There are: {', '.join(prefixes)}." if prefixes else ""


def _prefix_in(folder: Path, prefixes: list[str]) -> str:
    """Give the prefix that TensorFlow would take: the state file's; without one, the only one."""
    latest = _latest(folder / "checkpoint")
    if latest in prefixes:
        return latest
    if latest and prefixes:  # somebody took the latest away, or brought another: which is meant isn't clear
        raise ConfigurationError(
            f"{folder / 'checkpoint'} names {latest}, which isn't there; there are: {', '.join(prefixes)}",
            advice=f"Choose one: --checkpoint {folder / prefixes[-1]}",
        )
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
                advice=_how_to_save(path.parent),
            )


def _how_to_save(folder: Path) -> str:
    """Say how to get safetensors of a pickle: by the class that it was saved by.

    Of another one's model, transformers drops what it has no place for, and makes up at random what it misses.
    """
    if not (name := _class_in(folder / "config.json")):
        return (
            "Where you trust it: load it by the class of transformers that it was saved by, and save_pretrained(OTHER),"
            " which writes model.safetensors. Another class may fill it up with random numbers."
        )
    return (
        f"Where you trust it: {name}.from_pretrained(DIR).save_pretrained(OTHER), which writes model.safetensors."
        " Don't build from OTHER if transformers says that it initialized weights newly: those are random numbers."
    )


def _class_in(config: Path) -> str:
    """Give the class that a config.json names, if it names one, and it can be one's name."""
    try:
        value = json.loads(read_text(config, SMALL_BYTES))
    except (ConfigurationError, ValueError, RecursionError):
        return ""
    names = value.get("architectures") if isinstance(value, dict) else None
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    return name if isinstance(name, str) and name.isascii() and name.isidentifier() else ""


def _latest(state: Path) -> str:
    """Give the prefix that a `checkpoint` file names; it may hold a path of the machine that trained."""
    if not state.is_file():
        return ""
    found = re.search(_STATE, read_text(state, SMALL_BYTES), re.MULTILINE)
    return re.split(r"[/\\]", _unescaped(found[1]))[-1] if found else ""


def _unescaped(text: str) -> str:
    """Give what a string of protobuf's text format stands for: other bytes than ASCII are octal numbers in it."""

    def byte(found: re.Match[bytes]) -> bytes:
        return found[2] or bytes([int(found[1], 8) & 0xFF])

    return os.fsdecode(re.sub(_ESCAPED, byte, text.encode()))


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


def read_text(path: Path, most: int) -> str:
    """Give a small file's text, without a byte order mark (Windows' editors put one).

    Raises:
        ConfigurationError: it can't be read, has over `most` bytes, or isn't UTF-8.
    """
    try:
        return read_small(path, most).removeprefix(BOM_UTF8).decode()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigurationError(
                f"{path} has more than {most} bytes, and can't be what it is taken for"
            ) from error
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error
