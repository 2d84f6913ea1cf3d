"""What `invoke bench` does: measure, keep the results, and write the page with its plots."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.page import page, text
from benchmarks.results import dump_results, load_results
from bertir.errors import ConfigurationError
from bertir.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.results import Results
    from bertir.session import Session

PAGE = Path("docs/benchmarks.md")
RESULTS = Path("benchmarks/results")


def bench(
    session: Session, *, quick: bool, rounds: int | None, cache: str, render: str, as_json: bool
) -> str:
    """Run the suite, or with `render` only write the page of results that are there; give what to print.

    Raises:
        BertirError: one of its kinds; nothing is written.
    """
    root = session.layout.root
    if render:
        if quick or cache or rounds is not None:
            raise ConfigurationError("--render measures nothing, and takes no --quick, --rounds or --cache")
        path = Path(render)
        results = load_results(path)
        _write_page(root, results, path.name)
        return _told(results, f"written: {PAGE} and its plots, from {path}", as_json=as_json)
    if rounds is not None and rounds < 1:
        raise ConfigurationError(f"--rounds must be at least 1, and is {rounds}")
    from benchmarks.suite import run_suite

    kept = Path(cache).absolute() if cache else cache_folder(session.environment)
    results = run_suite(root, session.environment, kept, session.progress, quick=quick, rounds=rounds)
    # A quick run is no result: its table is printed, and nothing of the project changes.
    name = f"{results.date[:10]}.json"
    path = kept / "quick.json" if quick else root / RESULTS / name
    _write(path, dump_results(results).encode())
    if quick:
        return _told(results, f"{path}; a quick run changes no page", as_json=as_json)
    _write_page(root, results, name)
    return _told(results, f"written: {path.relative_to(root)}, {PAGE} and its plots", as_json=as_json)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Give `bertir-bench` under the user's cache directory.

    Raises:
        ConfigurationError: there is no home directory.
    """
    base = environment.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "bertir-bench"
    home = environment.get("HOME", "")
    if not home:
        raise ConfigurationError(
            "no place for the benchmarks' cache: HOME is not set", advice="Name one: --cache DIR"
        )
    return Path(home) / ".cache" / "bertir-bench"


def _told(results: Results, written: str, *, as_json: bool) -> str:
    return dump_results(results).rstrip() if as_json else f"{text(results)}\n\n{written}"


def _write_page(root: Path, results: Results, name: str) -> None:
    from benchmarks.plot import write_plots

    write_plots(results, root / PAGE.parent)
    _write(root / PAGE, page(results, name).encode())


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"can't write {path}: {os.strerror(error.errno or 0)}") from error
    with whole_file(path, ConfigurationError, size=len(data)) as file:
        file.write(data)
