"""Debian's Chromium, driven by Playwright; what a page must never do fails the test that did it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-dev-shm-usage"]  # containers give /dev/shm 64 MB
LOCAL_HOSTS = ("127.0.0.1", "localhost")
DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 360, "height": 740}


@dataclass
class Watch:
    """What a page did that no page of ours may do.

    Attributes:
        offences: Console errors, uncaught errors, dialogs, and requests to other hosts.
        expected: Patterns of console errors that the test provokes.
    """

    offences: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def allow(self, pattern: str) -> None:
        """Expect console errors that match a pattern, such as the one of a refused request."""
        self.expected.append(pattern)

    def unexpected(self) -> list[str]:
        """The offences that no pattern matches."""
        return [o for o in self.offences if not any(re.search(p, o) for p in self.expected)]

    def follow(self, context: Any) -> None:
        """Watch all pages of a context, and block requests to other hosts."""
        context.route(lambda url: not is_local(url), self._block)
        context.on("console", self._console)
        context.on("weberror", lambda e: self.offences.append(f"error: {e.error}"))
        context.on("dialog", self._dialog)
        context.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.offences.append(f"console: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.offences.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not is_local(request.url):
            self.offences.append(f"request: {request.url}")

    def _block(self, route: Any) -> None:
        self.offences.append(f"request: {route.request.url}")
        route.abort()


def is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in LOCAL_HOSTS


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser for the tests of a module."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `test`)")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Fails the test whose pages print an error, raise one, open a dialog or leave the machine."""
    watch = Watch()
    yield watch
    assert watch.unexpected() == []


@pytest.fixture
def new_page(chromium: Any, watch: Watch) -> Iterator[Callable[..., Any]]:
    """Opens a watched page of its own: `new_page(viewport=PHONE, color_scheme="dark")`.

    Our Content-Security-Policy holds for `wait_for_function`, too; wait for locators instead.
    """
    contexts = []

    def open_page(**options: Any) -> Any:
        defaults = {"viewport": DESKTOP, "reduced_motion": "reduce"}
        context = chromium.new_context(**defaults | options)
        contexts.append(context)
        watch.follow(context)
        context.set_default_timeout(15_000)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Any]:
    from page_server import PageServer

    with PageServer() as server:
        yield server


@pytest.fixture
def server(shared_server: Any) -> Any:
    """The page with a scripted agent, as it was when it started."""
    shared_server.requests.clear()
    shared_server.replies.clear()
    shared_server.key, shared_server.model = None, "scripted"
    return shared_server


@pytest.fixture
def page(server: Any, new_page: Callable[..., Any]) -> Any:
    """The page, ready for a question."""
    page = new_page()
    page.goto(server.url)
    page.locator("#model:not(:empty)").wait_for()
    return page


@pytest.fixture
def check_axe() -> Callable[[Any], None]:
    """Asserts that axe finds nothing serious or critical on a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe").Axe()

    def check(page: Any) -> None:
        found = axe.run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious] == []

    return check


@pytest.fixture
def fits_width() -> Callable[[Any], None]:
    """Asserts that a page does not scroll sideways, and says what sticks out."""

    def check(page: Any) -> None:
        wide = page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll("body *")]
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
                .slice(0, 9).map((e) => e.outerHTML.slice(0, 120))"""
        )
        assert wide == []

    return check
