"""A real browser against a real server: every story ends without an error in the console and without a request off this machine."""

import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from kat_zoo.explore.command import Page
from kat_zoo.explore.server import Limits, Server

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 90_000  # milliseconds: two busy cores are slow
WIDTHS = (1280, 390)


def pytest_collection_modifyitems(items):
    for item in items:
        if "/explore/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("no Chromium: expected the package `chromium` of Debian, or another with one of the commands " + ", ".join(NAMES))
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server():
    return Server(Limits(sessions=100))


@pytest.fixture(scope="session")
def url(server):
    page = Page(server).start()
    yield page.url
    page.close()


@pytest.fixture(params=WIDTHS)
def width(request):
    return request.param


class User:
    """Someone at the page: clicks are counted, and trouble is kept."""

    def __init__(self, context, url):
        self.context, self.url = context, url
        self.clicks, self.trouble = 0, []
        self.allowed = ()  # parts of console errors that a story brings about on purpose

    def open(self) -> Tab:
        tab = self.context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("console", lambda message: message.type in ("error", "warning") and self.note(message.text))
        tab.on("pageerror", lambda error: self.note(str(error)))
        tab.on("request", lambda request: self.check(request.url))
        tab.goto(self.url)
        expect(tab.get_by_role("heading", name="Data")).to_be_visible()
        return tab

    def note(self, text):
        if not any(part in text for part in self.allowed):
            self.trouble.append(text)

    def check(self, address):
        parts = urlsplit(address)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.trouble.append(f"a request to {address}")

    def click(self, place):
        self.clicks += 1
        place.click()


@pytest.fixture
def user(browser, url, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, permissions=["clipboard-read", "clipboard-write"])
    user = User(context, url)
    yield user
    for tab in context.pages:
        fits = "document.documentElement.scrollWidth <= window.innerWidth"
        assert tab.evaluate(fits), f"the page is wider than {width} pixels"
    context.close()
    assert user.trouble == []
