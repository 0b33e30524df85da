"""A headless Chromium for tests of pages; they skip, with the reason, where Playwright or Chromium is missing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPENED = "#masked:has-text('left out')"
"""What is there once the viewer shows an image."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """A page opened from disk, with what must not happen while it is open: dialogs, errors, requests elsewhere."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", lambda told: told.type == "error" and self.wrong.append(f"console: {told.text}"))
        self.page.on("request", lambda request: self._request(request.url))
        self.page.goto(path.absolute().as_uri())
        self.page.locator("#found", has_text="image").wait_for()

    def _request(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.wrong.append(f"request: {url}")

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        if error[0] is None:
            assert not self.wrong, self.wrong

    def cards(self) -> list[str]:
        """The names on the cards, in order."""
        return list(self.page.locator("#cards .about b").all_text_contents())

    def found(self) -> str:
        """How many the gallery says that it has."""
        return str(self.page.locator("#found").text_content())

    def open(self, name: str) -> None:
        """Open the image whose card has this name."""
        self.page.locator("#cards button.tile", has_text=name).first.click()
        self.page.locator(OPENED).wait_for()

    def drop(self, per_cent: float, scope: str) -> str:
        """Move the slider and choose a scope; what the page says of the mask."""
        self.page.locator(f"input[name=scope][value={scope}]").check()
        self.page.locator("#drop").fill(f"{per_cent:g}")
        return str(self.page.locator("#masked").text_content())

    def pixels(self, canvas: str) -> tuple[int, int, bytes]:
        """Height, width and RGBA of a canvas."""
        read = """id => {
            const canvas = document.getElementById(id);
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return [canvas.height, canvas.width, Array.from(data)];
        }"""
        height, width, values = self.page.evaluate(read, canvas)
        return height, width, bytes(values)
