"""report.html in a real browser: light and dark, on a phone and on paper, without a request and without an obstacle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import DESKTOP, PHONE, opened
from checkout import ROOT
from some_build import some_build

from bertir.page import page
from bertir.report import report

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = json.loads(report(some_build(ROOT / "models.toml")))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(page(told))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_axe_finds_no_violation_and_the_page_asks_for_nothing(
    browser: Browser, written: Path, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, written, size, scheme) as (shown, heard):
        assert heard == []
        for details in shown.locator("details").all():
            details.evaluate("element => { element.open = true }")
        found = Axe().run(shown)
        assert found.violations_count == 0, found.generate_report()
        assert len(found.response["passes"]) > 20  # it did look
        assert shown.screenshot(path=tmp_path / "page.png", full_page=True)


def test_axe_would_find_a_violation(browser: Browser, written: Path, tmp_path: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert text.count("--soft: #566072") == 1
    (tmp_path / "faint.html").write_text(text.replace("--soft: #566072", "--soft: #c8ccd4"), encoding="utf-8")
    with opened(browser, tmp_path / "faint.html", DESKTOP, "light") as (shown, _):
        assert "color-contrast" in {item["id"] for item in Axe().run(shown).response["violations"]}


def test_on_a_phone_the_page_is_as_wide_as_the_screen_and_wide_things_move_by_themselves(
    browser: Browser, written: Path
) -> None:
    with opened(browser, written, PHONE, "light") as (shown, _):
        assert shown.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        graph = shown.locator("[aria-label='Graph of materials and steps']")
        assert graph.evaluate("element => element.scrollWidth > element.clientWidth")


def test_dark_and_light_are_other_colours(browser: Browser, written: Path) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        with opened(browser, written, DESKTOP, scheme) as (shown, _):
            colours.add(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_it_can_be_printed(browser: Browser, written: Path) -> None:
    with opened(browser, written, DESKTOP, "dark") as (shown, _):
        shown.emulate_media(media="print")
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert shown.pdf(format="A4").startswith(b"%PDF")
