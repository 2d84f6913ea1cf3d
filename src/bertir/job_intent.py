"""What the job image has over the step image, as a person wrote it in `docker/job.toml`.

A CI job runs bertir in it. What the two have in common is in `docker/image.toml` alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.intent import (
    IMAGE_NAME_FORM,
    PACKAGE_FORM,
    USER_FORM,
    DebianIntent,
    File,
    Folder,
    ImageIntent,
    PythonIntent,
    intent_table,
    intent_text,
    own_file,
    own_folder,
)
from bertir.toml_table import RELATIVE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertir.toml_table import Table

JOB_TOML = "job.toml"
VIRTUALENV = "opt/bertir"
# Says which lock's wheels are in the virtualenv: bootstrap.sh reads it.
STAMP = f"{VIRTUALENV}/build.lock.digest"
# Says which step image lies below: by it bertir knows that it runs inside.
MARKER = "usr/local/share/bertir/image.json"


class VirtualenvIntent(PythonIntent):
    """The same interpreter, and wheels in a virtualenv of their own, which that interpreter knows nothing of by itself."""

    @property
    def prefix(self) -> str:
        return VIRTUALENV

    @property
    def site(self) -> str:
        return f"{VIRTUALENV}/lib/python{self.version}/site-packages"

    @property
    def interpreter(self) -> str:
        return f"/{VIRTUALENV}/bin/python"

    @property
    def source_roots(self) -> tuple[str, ...]:
        return (self.site,)


@dataclass(frozen=True, kw_only=True)
class Link:
    """A symbolic link of our own."""

    path: str
    target: str


@dataclass(frozen=True, kw_only=True)
class JobIntent:
    """All of `docker/job.toml`. Equal data, equal digest.

    Args:
        without: Debian packages that others depend on and that are left out.
        restore: patterns of paths that `image.toml` leaves out of its packages, and that are wanted here.
        exclude: patterns of paths of Debian packages to leave out, `keep` of those that stay for all that.
        wheels_exclude: patterns of paths of wheels to leave out.
    """

    name: str
    user: str
    workdir: str
    command: tuple[str, ...]
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    packages: tuple[str, ...]
    without: tuple[str, ...]
    restore: tuple[str, ...]
    exclude: tuple[str, ...]
    keep: tuple[str, ...]
    wheels_exclude: tuple[str, ...]
    files: tuple[File, ...] = ()
    folders: tuple[Folder, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def digest(self) -> Digest:
        return Digest.of_json(asdict(self))

    def debian(self, step: ImageIntent) -> DebianIntent:
        """Give the packages to ask for over those of the step image, from the same suite."""
        return replace(step.debian, packages=self.packages, exclude=self.exclude, keep=self.keep)

    def over(self, step: ImageIntent) -> ImageIntent:
        """Give the intent of the whole image, as far as it differs from that of the step image below."""
        return ImageIntent(
            name=self.name,
            platform=step.platform,
            source_date_epoch=step.source_date_epoch,
            user=self.user,
            workdir=self.workdir,
            command=self.command,
            labels=self.labels,
            environment=self.environment,
            debian=self.debian(step),
            python=VirtualenvIntent(
                version=step.python.version,
                glibc=step.python.glibc,
                machine=step.python.machine,
                requirements=(),  # the host's lock says which
                exclude=self.wheels_exclude,
            ),
            files=self.files,
            folders=self.folders,
        )


def load_job_intent(docker_folder: Path) -> JobIntent:
    """Read `job.toml` in a folder.

    Raises:
        ConfigurationError: it is missing, no TOML, or says something unknown or of the wrong type.
    """
    path = docker_folder / JOB_TOML
    return parse_job_intent(intent_text(path), name=str(path))


def parse_job_intent(text: str, *, name: str = JOB_TOML) -> JobIntent:
    """Parse the text of a `job.toml`; `name` is for messages. Raises as `load_job_intent` does."""
    table = intent_table(text, name)
    debian, python = table.table("debian"), table.table("python")
    intent = JobIntent(
        name=table.text("name", IMAGE_NAME_FORM),
        user=table.text("user", USER_FORM),
        workdir=table.text("workdir", r"/.*"),
        command=table.texts("command"),
        labels=table.text_table("labels"),
        environment=table.text_table("environment"),
        packages=debian.texts("packages", PACKAGE_FORM),
        without=debian.texts("without", PACKAGE_FORM),
        restore=debian.texts("restore", RELATIVE),
        exclude=debian.texts("exclude", RELATIVE),
        keep=debian.texts("keep", RELATIVE),
        wheels_exclude=python.texts("exclude", RELATIVE),
        files=tuple(own_file(item) for item in table.tables("file")),
        folders=tuple(own_folder(item) for item in table.tables("folder")),
        links=tuple(_link(item) for item in table.tables("link")),
    )
    for read in (debian, python, table):
        read.refuse_the_rest()
    return intent


def _link(table: Table) -> Link:
    link = Link(path=table.text("path", RELATIVE), target=table.text("target", r"[^\n]+"))
    table.refuse_the_rest()
    return link
