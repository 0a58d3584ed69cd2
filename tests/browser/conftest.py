"""A real browser, Debian's Chromium, and pages in it that nothing may go wrong on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
LOCAL = ("file:", "data:", "blob:")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "these tests need Chromium: apt-get install chromium, or CHROMIUM=its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, page: Any, allowed: str) -> None:
        self.page, self.wrong, self.downloads = page, [], []
        page.on("console", lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith((*LOCAL, allowed)) else self.wrong.append(request.url))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def until(self, condition: str, seconds: float = 40.0) -> None:
        """Waits for a condition in JavaScript; not by `wait_for_function`, which the pages' policy forbids."""
        started = time.monotonic()
        while not self.page.evaluate(condition):
            assert time.monotonic() - started < seconds, (
                f"never: {condition}; the page says: {self.page.inner_text('main')[:800]}"
            )
            self.page.wait_for_timeout(30)

    def violations(self) -> list[str]:
        """Of the rules for accessible pages (WCAG 2 A and AA), as axe-core finds them."""
        from axe_playwright_python.sync_playwright import Axe

        options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
        found = Axe().run(self.page, options=options).response["violations"]
        return [f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}" for each in found]


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """Opens an address; `wrong` of what it gives has to be empty in the end."""
    contexts, pages = [], []

    def go(address: str, **options: Any) -> Watched:
        contexts.append(chromium.new_context(**{"viewport": {"width": 1360, "height": 900}, **options}))
        watched = Watched(contexts[-1].new_page(), "/".join(address.split("/")[:3]))
        pages.append(watched)
        watched.goto(address)
        return watched

    yield go
    for context in contexts:
        context.close()
    assert [page.wrong for page in pages if page.wrong] == []
