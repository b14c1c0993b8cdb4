"""A headless Chromium for the page tests, driven by Playwright: keys, clicks, what is focused, what is announced."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium")


@contextlib.contextmanager
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Page:
    """A report's page, opened from the disk; what its console said and what it asked the network for.

    Args:
        started: a browser.
        file: index.html.
        width: of the window, in px.
        view: what stands behind `#`.
    """

    def __init__(self, started, file: Path, width: int = 1280, view: str = "", dark: bool = False):
        scheme = "dark" if dark else "light"
        self.page = started.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"file://{file.resolve()}{view}")
        self.page.wait_for_selector("html[data-explorer=ready]", timeout=30_000)

    def __getattr__(self, name: str):
        return getattr(self.page, name)

    def lines(self) -> list[list[str]]:
        """The table's cells as read."""
        rows = "[...document.querySelectorAll('.lines tbody tr')]"
        text = "cell.querySelector('button.open')?.title || cell.innerText.trim()"  # of a run the name of its folder
        return self.page.evaluate(f"{rows}.map(row => [...row.cells].slice(1).map(cell => {text}))")

    def heads(self) -> list[str]:
        script = "[...document.querySelectorAll('.lines thead button')].map(b => b.title)"
        return self.page.evaluate(script)

    def column(self, name: str) -> list[str]:
        at = self.heads().index(name)
        return [line[at] for line in self.lines()]

    def status(self) -> str:
        return self.page.locator("#explorer-said").inner_text()

    def filter(self, text: str) -> str:
        self.page.fill("#explorer-filter", text)
        self.page.wait_for_timeout(250)
        return self.status()
