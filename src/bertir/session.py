"""From the command line to a builder: options and environment are read here, once, and passed down."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.builder import Builder, Layout
from bertir.engines import DOCKER
from bertir.errors import ConfigurationError
from bertir.fetch import Fetcher
from bertir.frozen import dataclass
from bertir.origin import chosen_origin
from bertir.progress import Level, Progress, chosen_level, is_for_a_person
from bertir.redact import PASSPHRASE, shown
from bertir.store import Store
from bertir.store_folder import default_root

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST_PYTHON = (3, 11)
PARANOID = "BERTIR_PARANOID"


@dataclass(frozen=True, kw_only=True)
class Session:
    """What every task starts from."""

    layout: Layout
    environment: Mapping[str, str]
    progress: Progress

    def store(self, *, paranoid: bool = False) -> Store:
        """Give the store; `paranoid`, or BERTIR_PARANOID=1, believes no hint.

        Raises:
            ConfigurationError: BERTIR_STORE or BERTIR_PARANOID can't be.
        """
        said = self.environment.get(PARANOID, "")
        if said not in ("", "0", "1"):
            raise ConfigurationError(f"{PARANOID} must be 0 or 1, and is {shown(said)}")
        return Store(default_root(self.environment), paranoid=paranoid or said == "1")

    def builder(
        self,
        *,
        offline: bool = False,
        mirror: str = "",
        paranoid: bool = False,
        engine: str = DOCKER,
        memory: int | None = None,
    ) -> Builder:
        """Give a builder; use it as a context manager. Its steps are run by the engine of that name (engines.py), in `memory` bytes.

        Raises:
            ConfigurationError: `mirror`, or BERTIR_MIRROR, or what `store` reads can't be.
        """
        origin = chosen_origin(mirror, self.environment)
        store = self.store(paranoid=paranoid)
        fetcher = Fetcher(
            store=store,
            environment=self.environment,
            progress=self.progress,
            offline=offline,
            origin=origin,
        )
        return Builder(
            layout=self.layout,
            store=store,
            fetcher=fetcher,
            environment=self.environment,
            progress=self.progress,
            chosen=engine,
            memory=memory,
        )


def open_session(
    root: Path,
    environment: Mapping[str, str],
    *,
    live: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> Session:
    """Read the environment. Of `os.environ` the passphrase is taken away: no program that bertir runs gets to see it.

    Args:
        root: the project's folder.
        environment: the variables.
        live: show a live view on a terminal; not for what has other processes print there.
        quiet: tell errors alone.
        verbose: tell what the steps print, too.

    Raises:
        ConfigurationError: this Python is too old, or BERTIR_PROGRESS can't be.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise ConfigurationError(
            f"bertir needs Python 3.11 or newer, and this is {sys.version.split()[0]}",
            advice="Make the virtualenv anew with a newer one: make PYTHON=python3.12 all",
        )
    taken = dict(environment)
    if environment is os.environ:
        os.environ.pop(PASSPHRASE, None)
    models = Path(environment.get("BERTIR_MODELS") or root / "models.toml")
    return Session(
        layout=Layout(root=root, models=models),
        environment=taken,
        progress=_progress(taken, live=live, quiet=quiet, verbose=verbose),
    )


def _progress(environment: Mapping[str, str], *, live: bool, quiet: bool, verbose: bool) -> Progress:
    level = chosen_level(environment, quiet=quiet, verbose=verbose)
    view = None
    if live and level is Level.NORMAL and is_for_a_person(sys.stderr, environment):
        from bertir.live import LiveView

        view = LiveView(sys.stderr)
    return Progress(stream=sys.stderr, level=level, view=view)
