"""How Sphinx makes the site of the project's pages, each where it lies: links between them are right there and on a Git host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]

project = "bertir"
author = "The bertir authors"
version = release = re.findall(
    r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
)[0]

extensions = ["myst_parser"]
# The checkout is the source, and these are its pages; nothing else is walked through.
include_patterns = [
    "docs/**.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docker/README.md",
    "tests/e2e/reference/README.md",
    "tests/fuzz/README.md",
]
exclude_patterns = [
    ".venv",
    "build",
    "dist",
    "src",
    "tests/golden",
    "tests/integration",
    "tests/support",
    "tests/unit",
]
root_doc = "docs/index"
nitpicky = True

# Anchors of headings are those that a Git host gives them.
myst_heading_anchors = 4
# What is typed and what is said: the output isn't a language, and a remark after a command isn't wrong.
highlight_language = "text"

smartquotes = False  # `--option` in prose stays what it is

html_theme = "furo"
html_title = f"bertir {version}"
html_baseurl = ""
html_extra_path = ["root"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = None

# What the theme leaves to be said, for who reads with the keyboard or by ear: what scrolls can be reached, a heading has its level.
_SAID = {
    "body": (
        ("<pre>", '<pre tabindex="0">'),
        ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    ),
    "furo_navigation_tree": (('role="heading">', 'role="heading" aria-level="2">'),),
}


def _say(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    for part, replaced in _SAID.items():
        for before, after in replaced if part in context else ():
            context[part] = context[part].replace(before, after)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add to each page what the theme leaves out, after the theme has had its turn."""
    app.connect("html-page-context", _say, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
