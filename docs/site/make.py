"""What `invoke docs` does: the pages that are made from code, and then the site of all pages, strictly."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.errors import ConfigurationError
from bertir.intent import load_intent
from bertir.whole_file import whole_file
from docs.site.tasks_page import PAGE, load_tasks, tasks_page

if TYPE_CHECKING:
    from collections.abc import Mapping

# A site of Sphinx's has it: by it, an earlier one is known again, and may be replaced.
_INVENTORY = "objects.inv"
_ADVICE = "Run: make dev"


def make_site(root: Path, output: str, environment: Mapping[str, str], *, as_json: bool) -> str:
    """Write the pages that are made from code, and the site; give what to print.

    Raises:
        ConfigurationError: Sphinx isn't there, a page has a fault, or the folder holds something else. No site is written.
    """
    if find_spec("sphinx") is None:
        raise ConfigurationError("the site needs sphinx, which isn't in this virtualenv", advice=_ADVICE)
    written = write_pages(root)
    folder = root / output
    build(root, folder, environment)
    facts = {"site": str(folder), "start": str(folder / "index.html"), "written": written}
    if as_json:
        return json.dumps(facts, indent=1, sort_keys=True)
    changed = [f"changed   {name}, from code" for name in written]
    return "\n".join([*changed, f"site      {folder / 'index.html'}"])


def write_pages(root: Path) -> list[str]:
    """Write the pages that are made from code, where they differ; give their names."""
    text = tasks_page(load_tasks(root))
    path = root / PAGE
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, ConfigurationError) as file:
        file.write(text.encode())
    return [PAGE]


def build(root: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Have Sphinx make the site, for which every warning is an error; it replaces an earlier one when it is whole.

    Raises:
        ConfigurationError: a page has a fault, or the folder holds something else.
    """
    if folder.exists() and not (folder / _INVENTORY).is_file():
        raise ConfigurationError(
            f"{folder} is to be the site, and holds something else",
            advice="Name a folder that isn't there, or an earlier site, by --output.",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=folder.parent) as work:
        made = Path(work) / "site"
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "sphinx",
                    "--quiet",
                    "--fail-on-warning",
                    "--keep-going",
                    "--nitpicky",
                ),
                *("--conf-dir", str(root / "docs" / "site"), "--doctree-dir", str(Path(work) / "doctrees")),
                *(str(root), str(made)),
            ],
            env=dict(environment)
            | {"SOURCE_DATE_EPOCH": str(load_intent(root / "docker").source_date_epoch)},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode:
            raise ConfigurationError(
                f"the documentation has faults, and no site was made:\n{done.stdout.strip()}",
                advice="Mend the pages, and run the same again.",
            )
        if folder.exists():
            folder.rename(Path(work) / "before")
        made.rename(folder)
