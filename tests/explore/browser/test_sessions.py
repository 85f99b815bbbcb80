"""Sessions as tabs, reloads, lost processes and silent streams try them, on a wide and on a narrow screen."""

import os
import re
import signal
import time

from playwright.sync_api import expect

from .page import begin_a_long_training, button, example, idle, session_of, slide, train


def test_a_session_that_the_server_cannot_show(user):
    """The page opens a new one, and says so."""
    user.allowed = ("500", "404")
    tab = user.open()
    example(user, tab, "Planets")
    first = session_of(tab)
    tab.route(f"**/api/sessions/{first}", lambda route: route.fulfill(status=500, body="Internal Server Error"))
    tab.reload()
    expect(tab.get_by_role("alert")).to_contain_text(
        "The session of this page cannot be shown, so this is a new one. The server refused (500)."
    )
    example(user, tab, "Product")
    second = session_of(tab)
    assert second != first
    tab.evaluate(f"fetch('api/sessions/{second}', {{ method: 'DELETE' }})")
    expect(tab.get_by_role("alert")).to_contain_text("has ended")
    tab.reload()
    expect(tab.get_by_role("alert")).to_contain_text("this is a new one")
    example(user, tab, "Product")


def test_two_tabs_do_not_disturb_each_other(user):
    first, second = user.open(), user.open()
    example(user, first, "Product")
    expect(second.get_by_text("Or begin with an example:")).to_be_visible()
    example(user, second, "Planets")
    expect(first.get_by_text("product.csv")).to_be_visible()
    train(user, first, steps=2)
    expect(second.locator("#network .edge")).to_have_count(0)


def hide(tab, value):
    """Bring a tab to the back, or to the front again; without a head every tab of Chromium is seen."""
    tab.evaluate(
        """value => {
            Object.defineProperty(document, "hidden", { value, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        value,
    )


def test_more_tabs_than_a_browser_has_connections(user, server):
    """Of six, the streams of news would keep all; a training goes on in a hidden tab, and shows when the tab is seen again."""
    tabs = [user.open()]
    desk = server.desks[session_of(tabs[0])]
    begin_a_long_training(user, tabs[0])
    assert len(desk.listeners) == 1
    hide(tabs[0], True)
    for _ in range(7):
        tabs.append(user.open())
        hide(tabs[-1], True)
    assert not desk.listeners and desk.busy == "train" and desk.unseen > time.monotonic() + 60
    hide(tabs[-1], False)
    example(user, tabs[-1], "Product")
    hide(tabs[-1], True)
    tabs[0].evaluate("document.querySelector('#status .muted').textContent = 'stale'")
    hide(tabs[0], False)
    expect(tabs[0].locator("#status")).to_contain_text(re.compile(r"step \d+, error"))
    user.click(button(tabs[0], "Stop"))
    expect(tabs[0].locator("#network .edge").first).to_be_visible()
    idle(tabs[0])


def test_a_step_that_ends_while_nobody_looks_or_listens(user, server):
    """A reload forgets the request of the step: only the stream tells of its end, which may come before the stream is there."""
    tab = user.open()
    begin_a_long_training(user, tab)
    desk = server.desks[session_of(tab)]
    held = []
    tab.route("**/events", lambda route: held.append(route))
    tab.reload()
    expect(button(tab, "Stop")).to_be_visible()
    expect(tab.locator("#losses .plot")).to_be_visible()
    tab.evaluate(f"fetch('api/sessions/{desk.name}/stop', {{ method: 'POST' }})")
    while desk.busy or not held:
        tab.wait_for_timeout(100)
    expect(button(tab, "Stop")).to_be_visible()
    held[0].continue_()
    expect(tab.locator("#network .edge").first).to_be_visible()
    idle(tab)


def test_samples_and_files_during_a_training(user):
    """The samples come when it ends; files cannot be saved until then."""
    user.allowed = ("409", "422")  # the latter where nothing was done when it is stopped
    tab = user.open()
    example(user, tab, "Toy function")
    train(user, tab, steps=1)
    save = tab.get_by_role("link", name="Save session")
    with tab.expect_download():
        save.click()
    for label, value in {"Grid": 20, "Steps": 50, "Hidden nodes": 10}.items():
        slide(tab, label, value)
    user.click(button(tab, "New network"))
    expect(save).to_have_attribute("aria-disabled", "true")
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    save.dispatch_event("click")
    user.click(tab.get_by_role("tab", name="Vision"))
    expect(tab.locator("#vision-view").get_by_role("alert")).to_contain_text("A step is being made")
    assert not any("download" in url for url in asked)
    user.click(button(tab, "Stop"))
    expect(button(tab, "Sample 4: Trouser")).to_be_visible()
    expect(tab.locator("#vision-view").get_by_role("alert")).to_have_count(0)
    user.click(tab.get_by_role("tab", name="Formula"))
    with tab.expect_download():
        save.click()


def test_a_reload_in_the_middle_of_a_training(user):
    tab = user.open()
    begin_a_long_training(user, tab)
    tab.reload()
    expect(button(tab, "Stop")).to_be_visible()
    user.click(button(tab, "Stop"))
    expect(tab.locator("#network .edge").first).to_be_visible()
    idle(tab)
    tab.reload()
    expect(tab.locator("#network .edge").first).to_be_visible()


def test_the_process_dies(user, server):
    user.allowed = ("502",)
    tab = user.open()
    begin_a_long_training(user, tab)
    (desk,) = [desk for desk in server.desks.values() if desk.busy]
    os.kill(desk.process.pid, signal.SIGKILL)
    expect(tab.get_by_role("alert")).to_contain_text("ended in the middle of the step")
    expect(tab.get_by_text("toy.csv")).to_be_visible()
    train(user, tab, steps=1)
    expect(tab.get_by_role("alert")).to_be_empty()


def test_a_click_before_the_session_is_there(user):
    """The server takes seconds to start a process; the tab that was asked for is shown then."""
    tab = user.context.new_page()
    tab.set_default_timeout(90_000)
    tab.route("**/api/sessions", lambda route: (time.sleep(1), route.continue_()))
    tab.goto(user.url)
    tab.get_by_role("tab", name="Vision").click()
    expect(button(tab, "Sample 4: Trouser")).to_be_visible()
    expect(tab.get_by_role("heading", name="Data")).to_be_hidden()
