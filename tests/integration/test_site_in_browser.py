"""The site of the documentation in a real browser: without a request elsewhere, on a phone too, and without an obstacle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import DESKTOP, PHONE, opened
from checkout import ROOT

from docs.site.make import build

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

# The first page, one that is made from code, and one with what is wider than a phone.
SEEN = [
    ("docs/index", DESKTOP, "light"),
    ("docs/index", PHONE, "dark"),
    ("docs/reference/tasks", PHONE, "light"),
    ("docs/how-to/corporate-ca", PHONE, "dark"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "docs"
    build(ROOT, folder, os.environ)
    return folder


@pytest.mark.parametrize(("name", "size", "scheme"), SEEN)
def test_axe_finds_no_serious_violation_and_nothing_is_asked_for_elsewhere(
    browser: Browser, site: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, site / f"{name}.html", size, scheme) as (shown, heard):
        assert heard
        assert [said for said in heard if not said.startswith(site.as_uri())] == []
        found = Axe().run(shown).response
        grave = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave] == []
        assert len(found["passes"]) > 20  # it did look
        assert shown.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_a_word_of_a_page_is_found_and_the_first_page_leads_to_the_start(
    browser: Browser, site: Path
) -> None:
    with opened(browser, site / "index.html", DESKTOP, "light") as (shown, _):
        shown.wait_for_url("**/docs/index.html")
        shown.locator("h1", has_text="bertir").wait_for()
    with opened(browser, site / "search.html", DESKTOP, "light") as (shown, _):
        shown.goto(f"{(site / 'search.html').as_uri()}?q=GIT_SSL_CAINFO")
        shown.locator("#search-results a[href*='corporate-ca']").first.wait_for()
