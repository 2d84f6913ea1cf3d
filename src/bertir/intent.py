"""What should be in the image, as a person wrote it in `docker/image.toml`.

Strict: a misspelt key would otherwise be ignored, and the image lack something silently.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.redact import shown
from bertir.small_file import read_small_text
from bertir.toml_text import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMAGE_TOML = "image.toml"


@dataclass(frozen=True, kw_only=True)
class DebianIntent:
    """The Debian packages to ask for (apt adds what they depend on), and what of them to leave out."""

    suite: str
    component: str
    architecture: str
    packages: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def resolution(self) -> Digest:
        """Digest of what decides the versions, and of nothing else."""
        return Digest.of_json([self.suite, self.component, self.architecture, sorted(self.packages)])


@dataclass(frozen=True, kw_only=True)
class PythonIntent:
    """The Python requirements to ask for, and the interpreter and C library that wheels are chosen for.

    Args:
        exclude: patterns of paths to leave out.
        owners: for a path that several wheels have with different contents, the one whose file is taken.
    """

    version: str
    glibc: str
    machine: str
    requirements: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)

    @property
    def resolution(self) -> Digest:
        """Digest of what decides the versions, and of nothing else."""
        return Digest.of_json([self.version, self.glibc, self.machine, sorted(self.requirements)])

    @property
    def site(self) -> str:
        """Where Debian's interpreter looks for modules that are not Debian's (PEP 668 leaves it to us)."""
        return f"usr/local/lib/python{self.version}/dist-packages"

    @property
    def interpreter(self) -> str:
        return f"/usr/bin/python{self.version}"

    @property
    def source_roots(self) -> tuple[str, ...]:
        """Folders whose modules are compiled beforehand."""
        return ("usr/lib/python3", f"usr/lib/python{self.version}", self.site)


@dataclass(frozen=True, kw_only=True)
class File:
    """A small text file of our own."""

    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of our own: a mount point."""

    path: str
    mode: int


@dataclass(frozen=True, kw_only=True)
class ImageIntent:
    """All of `docker/image.toml`. Equal data, equal digest: comments and order of keys don't count."""

    name: str
    platform: str
    source_date_epoch: int
    user: str
    workdir: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    debian: DebianIntent
    python: PythonIntent
    files: tuple[File, ...] = ()
    folders: tuple[Folder, ...] = ()

    @property
    def digest(self) -> Digest:
        return Digest.of_json(asdict(self))

    @property
    def os(self) -> str:
        return self.platform.split("/")[0]

    @property
    def architecture(self) -> str:
        return self.platform.split("/")[1]


def load_intent(docker_folder: Path) -> ImageIntent:
    """Read `image.toml` in a folder.

    Raises:
        ConfigurationError: it is missing, no TOML, or says something unknown or of the wrong type.
    """
    path = docker_folder / IMAGE_TOML
    try:
        text = read_small_text(path)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigurationError(
            f"can't read {path}: {error.strerror}", advice="It is part of the repository: git checkout it."
        ) from error
    return parse_intent(text, name=str(path))


def parse_intent(text: str, *, name: str = IMAGE_TOML) -> ImageIntent:
    """Parse the text of an `image.toml`; `name` is for messages. Raises as `load_intent` does."""
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    table = _Table(data, name)
    intent = ImageIntent(
        name=table.text("name", r"[a-z0-9]+(?:[._/-][a-z0-9]+)*"),
        platform=table.text("platform", r"linux/[a-z0-9]+"),
        source_date_epoch=table.number("source_date_epoch", most=2**33 - 1),  # what a tar header holds
        user=table.text("user", r"\d+:\d+"),
        workdir=table.text("workdir", r"/.*"),
        command=table.texts("command"),
        labels=table.text_table("labels"),
        environment=table.text_table("environment"),
        debian=_debian(table.table("debian")),
        python=_python(table.table("python")),
        files=tuple(_file(item) for item in table.tables("file")),
        folders=tuple(_folder(item) for item in table.tables("folder")),
    )
    table.refuse_the_rest()
    return intent


def _debian(table: _Table) -> DebianIntent:
    debian = DebianIntent(
        suite=table.text("suite", r"[a-z]+"),
        component=table.text("component", r"[a-z-]+"),
        architecture=table.text("architecture", r"[a-z0-9-]+"),
        packages=table.texts("packages", r"[a-z0-9][a-z0-9+.-]+"),
        exclude=table.texts("exclude", _RELATIVE),
        keep=table.texts("keep", _RELATIVE),
    )
    table.refuse_the_rest()
    return debian


def _python(table: _Table) -> PythonIntent:
    python = PythonIntent(
        version=table.text("version", r"3\.\d+"),
        glibc=table.text("glibc", r"2\.\d+"),
        machine=table.text("machine", r"[a-z0-9_]+"),
        # A leading letter: a line such as `--index-url …` would otherwise reach the resolver as an option.
        requirements=table.texts("requirements", r"[A-Za-z0-9][^\n]*"),
        exclude=table.texts("exclude", _RELATIVE),
        owners=table.text_table("owners"),
    )
    table.refuse_the_rest()
    return python


def _file(table: _Table) -> File:
    file = File(path=table.text("path", _RELATIVE), text=table.text("text").removeprefix("\n"))
    table.refuse_the_rest()
    return file


def _folder(table: _Table) -> Folder:
    folder = Folder(path=table.text("path", _RELATIVE), mode=table.number("mode", most=0o1777))
    table.refuse_the_rest()
    return folder


# Paths are those of a layer: relative to the root, no `..`, no empty part.
_RELATIVE = r"(?!\.\.?(?:/|$))[^/\n]+(?:/(?!\.\.?(?:/|$))[^/\n]+)*"


class _Table:
    """A TOML table that hands out each key once, with its type checked, and then refuses what is left."""

    def __init__(self, data: dict[str, Any], name: str) -> None:
        self._data = dict(data)
        self._name = name

    def _take(self, key: str, kind: type, expected: str) -> Any:  # noqa: ANN401 - its callers know the type
        if key not in self._data:
            raise ConfigurationError(f"{self._name}: `{key}` is missing; expected {expected}")
        value = self._data.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key, expected, value)
        return value

    def _wrong(self, key: str, expected: str, value: object) -> ConfigurationError:
        return ConfigurationError(
            f"{self._name}: `{shown(key)[1:-1]}` must be {expected}, and is {shown(value)}"
        )

    def text(self, key: str, pattern: str = r"(?s).*") -> str:
        value: str = self._take(key, str, "a string")
        if not re.fullmatch(pattern, value):
            raise self._wrong(key, f"a string of the form {pattern}", value)
        return value

    def number(self, key: str, *, most: int) -> int:
        value: int = self._take(key, int, "an integer")
        if not 0 <= value <= most:
            raise self._wrong(key, f"an integer from 0 to {most}", value)
        return value

    def texts(self, key: str, pattern: str = r"(?s).*") -> tuple[str, ...]:
        expected = "a list of different strings" + ("" if pattern == r"(?s).*" else f" of the form {pattern}")
        values: list[Any] = self._take(key, list, expected)
        if not all(isinstance(value, str) and re.fullmatch(pattern, value) for value in values):
            raise self._wrong(key, expected, values)
        if len(set(values)) != len(values):
            raise self._wrong(key, expected, values)
        return tuple(values)

    def table(self, key: str) -> _Table:
        return _Table(self._take(key, dict, "a table"), f"{self._name}, [{key}]")

    def text_table(self, key: str) -> dict[str, str]:
        table = self.table(key)
        return {name: table.text(name) for name in sorted(table._data)}  # noqa: SLF001 - its own class

    def tables(self, key: str) -> list[_Table]:
        if key not in self._data:
            return []
        values = self._take(key, list, "a list of tables")
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(key, "a list of tables", values)
        return [_Table(value, f"{self._name}, [[{key}]]") for value in values]

    def refuse_the_rest(self) -> None:
        if self._data:
            unknown = ", ".join(f"`{shown(key)[1:-1]}`" for key in sorted(self._data))
            raise ConfigurationError(f"{self._name}: unknown {unknown}", advice="Is it misspelt?")
