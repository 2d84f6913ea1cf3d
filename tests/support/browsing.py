"""Pages as people see them: headless Chromium, on a desktop and on a phone, light and dark."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from programs import needed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

DESKTOP, PHONE = (1280, 900), (360, 740)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. Without one: a failure when CI=true, else a skip."""
    found = needed("chromium", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, size: tuple[int, int], scheme: str
) -> Iterator[tuple[Page, list[str]]]:
    """The page, and what it asked for beside itself or complained of."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    shown = context.new_page()
    heard: list[str] = []
    shown.on("request", lambda request: heard.append(request.url))
    shown.on("console", lambda message: heard.append(message.text))
    shown.on("pageerror", lambda error: heard.append(str(error)))
    shown.goto(path.as_uri())
    heard.remove(path.as_uri())
    yield shown, heard
    context.close()
