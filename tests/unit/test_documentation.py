"""The pages beside the code that they tell of, and the site that is made of them."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from checkout import ROOT, Checkout, copy_checkout
from documented import pages

import bertir
from bertir.errors import BertirError, ConfigurationError
from bertir.parity import INFERRED_BATCHES, RUN_BATCHES
from docs.site.make import build, make_site
from docs.site.tasks_page import PAGE, load_tasks, tasks_page

if TYPE_CHECKING:
    from pathlib import Path

# Read by programs of ours inside of a container, or by workflows; no user sets them.
OURS = {"BERTIR_READY", "BERTIR_JOB_IMAGE"}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """The cells of a page's tables, headings aside."""
    lines = [line for line in text_of(name).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_tasks_are_told_as_they_are() -> None:
    assert text_of(PAGE) == tasks_page(load_tasks(ROOT)), "run: invoke docs"


def test_the_readme_lists_every_task_and_no_other() -> None:
    section = text_of("README.md").partition("\n## Tasks\n")[2].partition("\n## ")[0]
    listed = [
        name
        for line in section.splitlines()
        if line.startswith("| ")
        for name in re.findall(r"`invoke ([a-z-]+)`", line.split(" | ")[0])
    ]
    names = {str(context.name) for context in load_tasks(ROOT).to_contexts()}
    assert sorted(listed) == sorted(names)


def test_the_batches_that_a_build_runs_and_infers_are_told_as_they_are() -> None:
    run, inferred = ([str(batch) for batch in batches] for batches in (RUN_BATCHES, INFERRED_BATCHES))
    said = f"batches {', '.join(run)}; reshapes to {', '.join(inferred)}"
    for name in ("README.md", "docs/tutorial.md"):
        lines = [line for line in text_of(name).splitlines() if re.match(r"parity +max abs difference", line)]
        assert lines
        assert all(line.endswith(said) for line in lines)
    page = " ".join(text_of("docs/documentation-recipe.md").split())
    assert f"in batches of {', '.join(run[:-1])} and {run[-1]} in OpenVINO" in page
    assert f"infers the shapes of batches {' and '.join(inferred)} without" in page


def test_every_variable_is_told_and_no_other() -> None:
    sources = [*(ROOT / "src" / "bertir").glob("*.py"), ROOT / "tasks.py", ROOT / "bootstrap.sh"]
    read = {name for path in sources for name in re.findall(r"\bBERTIR_[A-Z_]+\b", path.read_text("utf-8"))}
    told = {
        name
        for row in rows("docs/reference/variables.md")
        for name in re.findall(r"`(BERTIR_[A-Z_]+)`", row[0])
    }
    assert told == read - OURS
    assert len(told) >= 9


def test_every_exit_status_is_told_with_its_errors() -> None:
    for module in pkgutil.iter_modules(bertir.__path__):
        importlib.import_module(f"bertir.{module.name}")
    told: dict[str, set[str]] = {}
    for status, _, classes in rows("docs/exit-statuses.md")[1:]:
        told.setdefault(status, set()).update(re.findall(r"`(\w+Error)`", classes))
    waiting = [BertirError]
    for kind in waiting:
        waiting += kind.__subclasses__()
    for kind in waiting:
        family = {parent.__name__ for parent in kind.__mro__ if issubclass(parent, BertirError)}
        assert family & told[str(kind.exit_status)], (kind, kind.exit_status)
    known = {kind.__name__ for kind in waiting}
    assert {name for names in told.values() for name in names} <= known


def test_what_a_page_says_to_invoke_is_a_task_with_these_options() -> None:
    contexts = {str(one.name): one for one in load_tasks(ROOT).to_contexts()}
    seen = 0
    for page in pages():
        prose = re.sub(
            r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        for called in re.findall(r"`(?:invoke|bertir) ([a-z][^`]*)`", prose):
            name, *arguments = called.split()
            assert name in contexts, (page, called)
            flags = set(contexts[name].flags)
            for option in arguments:
                if option.startswith("--") and option != "--help":
                    assert option.partition("=")[0].rstrip(",") in flags, (page, called)
                    seen += 1
    assert seen > 20


# the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "docs"
    build(ROOT, folder, os.environ)
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return copy_checkout(tmp_path_factory.mktemp("elsewhere") / "clone")


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        target = told.get("href") or told.get("src") or told.get("srcset") or told.get("data") or ""
        if tag in ("a", "use"):
            self.links.add(target)
        elif target and not (tag == "link" and told.get("rel") in ("index", "search", "next", "prev")):
            self.loads.add(target)


@pytest.fixture(scope="module")
def made(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_on_the_site(made: dict[Path, Page], site: Path) -> None:
    there = {path.relative_to(site).with_suffix("").as_posix() for path in made}
    expected = {page.relative_to(ROOT).with_suffix("").as_posix() for page in pages()} | {"CHANGELOG"}
    assert len(expected) > 25
    assert expected <= there
    assert "index" in there


def test_every_link_within_the_site_leads_somewhere(made: dict[Path, Page], site: Path) -> None:
    followed = 0
    for path, page in made.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme or link in ("", "#"):
                assert parts.scheme in ("", "https", "data", "mailto"), (path, link)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_relative_to(site.resolve()), (path, link)
            assert target.is_file(), (path, link)
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in made[site / target.relative_to(site.resolve())].anchors, (
                    path,
                    link,
                )
            followed += 1
    assert followed > 500


def test_the_site_loads_nothing_from_anywhere_else(made: dict[Path, Page], site: Path) -> None:
    for path, page in made.items():
        assert page.loads or path == site / "index.html"
        for target in page.loads:
            assert urlsplit(target)[:2] in (("", ""), ("data", "")), (path, target)
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        for target in re.findall(r"url\(([^)]*)\)|@import\s+([^;]+)", style.read_text(encoding="utf-8")):
            assert not re.match(r"[\"']?(https?:)?//", "".join(target)), (style, target)


def test_made_again_elsewhere_the_site_is_the_same_byte_by_byte(
    site: Path, clone: Checkout, tmp_path: Path
) -> None:
    around = dict(os.environ) | {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    build(clone.root, tmp_path / "site", around)

    def digests(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }

    assert digests(tmp_path / "site") == digests(site)


def test_a_link_that_leads_nowhere_is_an_error_and_the_site_before_stays(
    clone: Checkout, site: Path, tmp_path: Path
) -> None:
    page = clone.root / "docs" / "ci.md"
    before = page.read_text(encoding="utf-8")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "objects.inv").write_bytes((site / "objects.inv").read_bytes())
    page.write_text(
        f"{before}\n[gone](gone.md) and [nowhere](security.md#no-such-heading)\n", encoding="utf-8"
    )
    try:
        with pytest.raises(ConfigurationError, match="no site was made") as caught:
            build(clone.root, tmp_path / "site", os.environ)
    finally:
        page.write_text(before, encoding="utf-8")
    assert "gone.md" in str(caught.value)
    assert "no-such-heading" in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["site", "objects.inv"]


def test_a_folder_that_is_no_site_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds something else"):
        make_site(ROOT, str(tmp_path), os.environ, as_json=False)
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]
