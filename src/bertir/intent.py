"""What should be in the image, as a person wrote it in `docker/image.toml`.

Strict: a misspelt key would otherwise be ignored, and the image lack something silently.
"""

from __future__ import annotations

from dataclasses import asdict, field
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.frozen import dataclass
from bertir.small_file import read_small_text
from bertir.toml_table import RELATIVE, Table
from bertir.toml_text import parse_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMAGE_TOML = "image.toml"
IMAGE_NAME_FORM = r"[a-z0-9]+(?:[._/-][a-z0-9]+)*"
PACKAGE_FORM = r"[a-z0-9][a-z0-9+.-]+"
USER_FORM = r"\d+:\d+"


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
    def prefix(self) -> str:
        """The folder, two below the root, that wheels are laid out in."""
        return "usr/local"

    @property
    def site(self) -> str:
        """Where Debian's interpreter looks for modules that are not Debian's (PEP 668 leaves it to us)."""
        return f"{self.prefix}/lib/python{self.version}/dist-packages"

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
    return parse_intent(intent_text(path), name=str(path))


def intent_text(path: Path) -> str:
    """Give the text of a file that says what an image should be.

    Raises:
        ConfigurationError: it can't be read.
    """
    try:
        return read_small_text(path)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigurationError(
            f"can't read {path}: {error.strerror}", advice="It is part of the repository: git checkout it."
        ) from error


def parse_intent(text: str, *, name: str = IMAGE_TOML) -> ImageIntent:
    """Parse the text of an `image.toml`; `name` is for messages. Raises as `load_intent` does."""
    table = intent_table(text, name)
    intent = ImageIntent(
        name=table.text("name", IMAGE_NAME_FORM),
        platform=table.text("platform", r"linux/[a-z0-9]+"),
        source_date_epoch=table.number("source_date_epoch", most=2**33 - 1),  # what a tar header holds
        user=table.text("user", USER_FORM),
        workdir=table.text("workdir", r"/.*"),
        command=table.texts("command"),
        labels=table.text_table("labels"),
        environment=table.text_table("environment"),
        debian=_debian(table.table("debian")),
        python=_python(table.table("python")),
        files=tuple(own_file(item) for item in table.tables("file")),
        folders=tuple(own_folder(item) for item in table.tables("folder")),
    )
    table.refuse_the_rest()
    return intent


def intent_table(text: str, name: str) -> Table:
    """Give the outermost table of such a text; `name` is for messages. Raises as `load_intent` does."""
    try:
        return Table(parse_toml(text), name)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _debian(table: Table) -> DebianIntent:
    debian = DebianIntent(
        suite=table.text("suite", r"[a-z]+"),
        component=table.text("component", r"[a-z-]+"),
        architecture=table.text("architecture", r"[a-z0-9-]+"),
        packages=table.texts("packages", PACKAGE_FORM),
        exclude=table.texts("exclude", RELATIVE),
        keep=table.texts("keep", RELATIVE),
    )
    table.refuse_the_rest()
    return debian


def _python(table: Table) -> PythonIntent:
    python = PythonIntent(
        version=table.text("version", r"3\.\d+"),
        glibc=table.text("glibc", r"2\.\d+"),
        machine=table.text("machine", r"[a-z0-9_]+"),
        # A leading letter: a line such as `--index-url …` would otherwise reach the resolver as an option.
        requirements=table.texts("requirements", r"[A-Za-z0-9][^\n]*"),
        exclude=table.texts("exclude", RELATIVE),
        owners=table.text_table("owners"),
    )
    table.refuse_the_rest()
    return python


def own_file(table: Table) -> File:
    file = File(path=table.text("path", RELATIVE), text=table.text("text").removeprefix("\n"))
    table.refuse_the_rest()
    return file


def own_folder(table: Table) -> Folder:
    folder = Folder(path=table.text("path", RELATIVE), mode=table.number("mode", most=0o1777))
    table.refuse_the_rest()
    return folder
