"A real browser for the pages that people open: Debian's Chromium, through Playwright."
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("AERIALSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: sudo apt install chromium, or AERIALSEG_CHROMIUM=/path/to/it")


@contextmanager
def open_browser():
    "Headless Chromium, closed at the end; it may not leave the machine."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try: yield browser
        finally: browser.close()


class Watched:
    "A page, and what it complained of or asked the network for since it was opened."
    def __init__(self, browser, viewport=WIDE, **context):
        self.page = browser.new_context(viewport=viewport, **context).new_page()
        self.errors, self.external = [], []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self.external.append(r.url) if self._leaves(r.url) else None)

    @staticmethod
    def _leaves(url: str) -> bool:
        return not url.startswith(("file:", "data:", "blob:", "about:", "http://localhost", "ws://localhost", "http://127.0.0.1", "ws://127.0.0.1"))

    def open(self, where: str | Path):
        "Go there, a path on disk or an address on this machine."
        self.page.goto(where.resolve().as_uri() if isinstance(where, Path) else where, wait_until="load")
        return self.page

    def violations(self, **options) -> list[str]:
        "What axe-core finds wrong, one line each: rule, how many places, the first of them."
        from axe_playwright_python.sync_playwright import Axe
        found = Axe().run(self.page, options=options or None).response["violations"]
        return [f"{v['id']} ({len(v['nodes'])}): {v['nodes'][0]['html'][:120]} · {v['nodes'][0]['failureSummary'][:200]}" for v in found]

    def overflow(self) -> int:
        "How many pixels wider than the window the page is: 0 where nobody has to scroll sideways."
        return self.page.evaluate("Math.max(0, document.documentElement.scrollWidth - window.innerWidth)")
