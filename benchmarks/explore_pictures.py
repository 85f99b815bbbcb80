"""Pictures of kat-zoo explore for docs/explore.md, taken in Chromium; a minute on two cores.

    python benchmarks/explore_pictures.py

The page finds a formula, trains and prunes a network by hand, and shows an image to the shipped models.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from kat_zoo.explore.command import Page
from kat_zoo.explore.server import Limits, Server

FOLDER = Path(__file__).parent.parent / "docs" / "explore"
PATIENCE = 120_000  # milliseconds
SIZE = {"width": 1280, "height": 900}


def idle(tab: Tab) -> None:
    expect(tab.locator("body")).not_to_have_class("working")


def click(tab: Tab, name: str, exact: bool = True) -> None:
    tab.get_by_role("button", name=name, exact=exact).first.click()
    idle(tab)


def save(tab: Tab, name: str, whole: bool = True) -> None:
    tab.mouse.move(2, 2)
    tab.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    tab.screenshot(path=FOLDER / name, full_page=whole)
    print(FOLDER / name)


def by_hand(tab: Tab) -> None:
    click(tab, "Toy function", exact=False)
    click(tab, "Train")
    click(tab, "Edge y → node 1.5", exact=False)
    tab.get_by_label("Prune below this score", exact=True).fill("-1")
    expect(tab.locator("#prune-preview")).to_contain_text("edges would go")
    expect(tab.locator("#symbols .candidates")).to_be_visible()
    save(tab, "network.png")


def formula(tab: Tab) -> None:
    click(tab, "Toy function", exact=False)
    click(tab, "Find a formula")
    expect(tab.get_by_text("exact on 200 held-out rows")).to_be_visible()
    click(tab, "Edge x → node 1.1", exact=False)
    expect(tab.locator("#symbols .plot")).to_be_visible()
    save(tab, "formula.png")


def images(tab: Tab) -> None:
    tab.get_by_role("tab", name="Vision").click()
    click(tab, "Sample 13", exact=False)
    expect(tab.locator(".model")).to_have_count(4)
    tab.set_viewport_size({"width": SIZE["width"], "height": 1720})  # without the splines, the last section
    save(tab, "vision.png", whole=False)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium: expected the package `chromium` of Debian")
    FOLDER.mkdir(exist_ok=True)
    expect.set_options(timeout=PATIENCE)
    page = Page(Server(Limits())).start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for story, scheme in ((by_hand, "light"), (formula, "light"), (images, "dark")):
                tab = browser.new_context(viewport=SIZE, color_scheme=scheme).new_page()
                tab.set_default_timeout(PATIENCE)
                tab.goto(page.url)
                story(tab)
            browser.close()
    finally:
        page.close()


if __name__ == "__main__":
    main()
