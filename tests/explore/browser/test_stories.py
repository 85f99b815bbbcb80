"""Whole stories as users live them, on a wide and on a narrow screen."""

import json
import re

import numpy as np
from playwright.sync_api import expect

from kat_zoo.explore.examples import example_csv

from .page import begin_a_long_training, button, csv, example, idle, slide, train, upload


def test_from_an_example_to_its_verified_latex_in_few_clicks(user):
    tab = user.open()
    example(user, tab, "Toy function")
    user.click(button(tab, "Find a formula"))
    expect(tab.get_by_text("exact on 200 held-out rows")).to_be_visible()
    idle(tab)
    user.click(button(tab, "Copy LaTeX"))
    expect(tab.get_by_text("LaTeX copied.")).to_be_visible()
    assert tab.evaluate("navigator.clipboard.readText()") == r"z = e^{y^{2} + \sin{\left(\pi x \right)}}"
    assert user.clicks <= 10
    user.click(tab.get_by_role("button", name="Take formula 1,", exact=False))
    expect(tab.get_by_text("not exact", exact=True)).to_be_visible()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Save Python script").click()
    assert "KAN.from_formula" in download.value.path().read_text()


def test_the_buttons_of_the_paper(user):
    """Sparsify, prune, set a symbol on an edge, train on, read the formula."""
    tab = user.open()
    example(user, tab, "Toy function")
    train(user, tab)
    slide(tab, "Prune below this score", -1)
    expect(tab.locator("#prune-preview")).to_contain_text("12 edges would go; 2 – 1 – 1 left")
    user.click(button(tab, "Prune"))
    expect(tab.locator("#network .edge")).to_have_count(3)
    idle(tab)
    user.click(button(tab, "Polish"))
    idle(tab)
    for place, function in (("y → node 1.1", "x^2"), ("x → node 1.1", "sin"), ("node 1.1 → z", "exp")):
        user.click(button(tab, f"Edge {place}", exact=False))
        user.click(tab.locator("#symbols").get_by_role("button", name=f"Fix as {function},", exact=False))
        expect(button(tab, f"Edge {place}: {function}", exact=False)).to_be_visible()
        idle(tab)
    user.click(button(tab, "Polish"))
    idle(tab)
    expect(tab.get_by_text("exact on 200 held-out rows")).to_be_visible()


def test_a_messy_file(user):
    tab = user.open()
    upload(tab, "messung.csv", example_csv("messy"))
    user.click(tab.get_by_text("remarks about the file"))
    for note in ("Cells are separated by semicolons.", "Numbers have decimal commas.", "'place' holds words"):
        expect(tab.get_by_text(note, exact=False)).to_be_visible()
    expect(tab.get_by_label("unit of temperature [°C]")).to_have_value("°C")
    expect(tab.get_by_label("place explains")).to_be_disabled()
    train(user, tab, steps=2)
    expect(tab.get_by_text("some edges are splines")).to_be_visible()


def test_a_dropped_file_and_a_pointer_on_an_edge(user):
    tab = user.open()
    dropped = tab.evaluate_handle(
        """text => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([text], "dropped.csv", { type: "text/csv" }));
            return transfer;
        }""",
        csv(x=np.linspace(0, 1, 40), y=np.linspace(0, 1, 40) ** 2).decode(),
    )
    tab.locator("#data .drop").dispatch_event("drop", {"dataTransfer": dropped})
    expect(tab.get_by_text("dropped.csv", exact=True)).to_be_visible()
    idle(tab)
    train(user, tab, steps=1)
    tab.locator("#network .edge").first.hover()
    expect(tab.locator(".peek .plot .density").first).to_be_visible()
    tab.mouse.move(2, 2)
    expect(tab.locator(".peek")).to_have_count(0)


def test_stop_and_go_on(user):
    tab = user.open()
    begin_a_long_training(user, tab)
    user.click(button(tab, "Stop"))
    expect(button(tab, "Train on")).to_be_enabled()
    tab.get_by_text("History").click()
    entry = tab.locator("#history li").nth(1)
    expect(entry).to_contain_text("Train [2, 10, 1]")
    steps = int(entry.inner_text().split(",")[3].split()[0])
    assert 0 < steps < 500
    tab.keyboard.press("Escape")
    slide(tab, "Steps", 1)
    user.click(button(tab, "Train on"))
    idle(tab)
    tab.get_by_text("History").click()
    expect(tab.locator("#history li").nth(2)).to_contain_text("Train on, 10 steps")


def test_prune_too_much_and_undo(user):
    tab = user.open()
    example(user, tab, "Toy function")
    train(user, tab, steps=3)
    before = tab.locator("#network .heading .muted").inner_text()
    slide(tab, "Prune below this score", 0)
    expect(tab.locator("#prune-preview")).to_contain_text("edges would go")
    assert tab.locator("#network .edge.going").count() > 10
    user.click(button(tab, "Prune"))
    expect(tab.locator("#network .edge")).not_to_have_count(15)
    idle(tab)
    user.click(button(tab, "Undo"))
    expect(tab.locator("#network .heading .muted")).to_have_text(before)
    user.click(button(tab, "Redo"))
    expect(tab.locator("#network .edge")).not_to_have_count(15)
    idle(tab)
    tab.keyboard.press("Control+z")
    expect(tab.locator("#network .heading .muted")).to_have_text(before)
    idle(tab)
    tab.get_by_text("History").click()
    user.click(tab.locator("#history li button").last)
    expect(tab.locator("#network .edge")).not_to_have_count(15)


def test_remove_an_edge_and_restore_it(user):
    tab = user.open()
    example(user, tab, "Toy function")
    train(user, tab, steps=3)
    edge = button(tab, "Edge x → node 1.1", exact=False)
    user.click(edge)
    user.click(tab.locator("#symbols").get_by_role("button", name="Remove", exact=True))
    expect(edge).to_have_attribute("aria-label", "Edge x → node 1.1: removed, score 0")
    idle(tab)
    user.click(tab.get_by_role("button", name=re.compile("^node 1.5")))
    expect(edge).to_have_attribute("aria-pressed", "false")
    edge.scroll_into_view_if_needed()
    box = edge.locator("rect").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(edge).to_have_attribute("aria-pressed", "true")
    user.click(button(tab, "Restore"))
    expect(button(tab, "Edge x → node 1.1: spline", exact=False)).to_be_visible()
    idle(tab)
    user.click(tab.get_by_role("button", name=re.compile("^node 1.5")))
    user.click(button(tab, "Remove node"))
    expect(button(tab, "node 1.5, removed, score 0")).to_be_visible()
    idle(tab)
    user.click(button(tab, "Restore node"))
    expect(button(tab, "Remove node")).to_be_visible()
    idle(tab)
    user.click(button(tab, "Add a node"))
    expect(tab.locator("#network .heading .muted")).to_contain_text("2 – 6 – 1")


def test_an_error_without_a_number(user):
    """A row of 1e300 makes every error infinite: a dash, and the page is there after a reload."""
    x = np.linspace(-1, 1, 60)
    tab = user.open()
    upload(tab, "outlier.csv", csv(x=[*x, 1], y=[*x, 1e300]))
    train(user, tab, steps=1)
    expect(tab.locator("#network .heading .muted")).to_contain_text("error –")
    expect(tab.locator("#losses .plot")).to_be_visible()
    expect(tab.get_by_role("alert")).to_be_empty()
    tab.reload()
    expect(tab.locator("#network .heading .muted")).to_contain_text("error –")


def test_a_column_of_gaps(user):
    x = np.linspace(0, 1, 40)
    tab = user.open()
    upload(tab, "gaps.csv", csv(x=x, empty=[""] * 40, half=["nan" if n % 2 else "3.5" for n in range(40)], y=x**2))
    user.click(tab.get_by_text("remarks about the file"))
    expect(tab.get_by_text("Column 'empty' is empty and is left out.")).to_be_visible()
    expect(tab.get_by_text("20 gaps")).to_be_visible()
    expect(tab.get_by_label("empty explains")).to_be_disabled()
    tab.get_by_label("half explains").uncheck()
    user.click(button(tab, "Use these columns"))
    expect(tab.get_by_text("32 rows to fit, 8 held out")).to_be_visible()
    user.click(button(tab, "Find a formula"))
    expect(tab.get_by_text("exact on 8 held-out rows")).to_be_visible()
    refused = tab.get_by_role("alert")
    user.click(button(tab, "Change"))
    user.allowed = ("422",)
    tab.get_by_label("Drop a CSV file, or choose one").set_input_files(
        {"name": "words.csv", "mimeType": "text/csv", "buffer": b"a,b\nx,y\n"}
    )
    expect(refused).to_contain_text("no column of numbers")
    expect(tab.get_by_text("exact on 8 held-out rows")).to_be_visible()


def test_three_hundred_columns(user):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 300))
    tab = user.open()
    upload(tab, "wide.csv", csv(**{f"gene {n}": X[:, n].round(4) for n in range(300)}, y=(2 * X[:, 41] + X[:, 7] ** 2).round(4)))
    expect(tab.get_by_text("8 inputs explain y.")).to_be_visible()
    tab.get_by_label("Find a column").fill("gene 41")
    expect(tab.get_by_label("gene 41 explains")).to_be_checked()
    tab.get_by_label("Find a column").fill("gene 123")
    tab.get_by_label("gene 123 explains").check()
    user.click(button(tab, "Use these columns"))
    expect(tab.get_by_text("9 inputs explain y.")).to_be_visible()
    idle(tab)
    train(user, tab, steps=2)
    expect(tab.get_by_text("9 – 5 – 1")).to_be_visible()


def test_names_of_any_alphabet_and_intent(user):
    x = np.linspace(-1, 1, 60)
    evil = "<img src=x onerror=\"document.title='hacked'\">"
    tab = user.open()
    upload(tab, "<b>名前.csv", csv(**{"температура": x, evil: np.sin(9 * x), "π": 3 * x + np.sin(9 * x)}))
    expect(tab.locator(".columns").get_by_text(evil)).to_be_visible()
    user.click(button(tab, "Find a formula"))
    expect(tab.locator("#formula .math").first).to_contain_text("температура")
    idle(tab)
    assert tab.title() == "kat-zoo explore" and tab.locator("img").count() == 0
    user.click(button(tab, "Copy NumPy"))
    expect(tab.get_by_text("NumPy copied.")).to_be_visible()
    assert "x_1 is" in tab.evaluate("navigator.clipboard.readText()")


def test_the_keyboard_alone(user):
    tab = user.open()

    def press_until(name, key="Tab", most=60):
        for _ in range(most):
            tab.keyboard.press(key)
            if name in (tab.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText") or ""):
                return
        raise AssertionError(f"{key} does not lead to {name}")

    press_until("Skip to the page")
    press_until("Product")
    tab.keyboard.press("Enter")
    expect(tab.locator(".columns")).to_be_visible()
    idle(tab)
    press_until("Find a formula")
    slide(tab, "Steps", 2)
    press_until("Train")
    tab.keyboard.press("Space")
    expect(tab.locator("#network .edge").first).to_be_visible()
    idle(tab)
    press_until("Edge ")
    first = tab.evaluate("document.activeElement.getAttribute('data-edge')")
    tab.keyboard.press("ArrowRight")
    second = tab.evaluate("document.activeElement.getAttribute('data-edge')")
    assert first != second
    for key in ("Enter", "Space"):
        tab.keyboard.press(key)
        assert tab.evaluate("document.activeElement.getAttribute('data-edge')") == second  # the focus stays
        expect(tab.locator(f"[data-edge='{second}']")).to_have_attribute("aria-pressed", "true")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("ArrowRight")
    expect(tab.locator("#symbols .plot")).to_be_visible()
    press_until("Remove")
    tab.keyboard.press("Enter")
    expect(tab.locator("#symbols .badge")).to_have_text("removed")
    unnamed = "[...document.querySelectorAll('button, input, select, [role=button]')].filter((one) => !one.closest('[hidden]') && "
    unnamed += "!(one.textContent || one.getAttribute('aria-label') || one.closest('label')?.innerText || '').trim()).length"
    assert tab.evaluate(unnamed) == 0


def test_the_focus_stays_where_it_was(user):
    """A step makes every button wait; who pressed one with a key is still there afterwards, and a second press does nothing."""

    def focused():
        return tab.evaluate("document.activeElement.closest('[data-key]')?.dataset.key ?? document.activeElement.id")

    tab = user.open()
    example(user, tab, "Toy function")
    assert focused() == "data"  # the examples are gone, but not the panel
    slide(tab, "Steps", 3)
    tab.locator("[data-key=train]").focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("[data-key=train]")).to_have_attribute("aria-disabled", "true")
    assert focused() == "train"
    tab.keyboard.press("Enter")
    expect(tab.locator("#network .edge").first).to_be_visible()
    idle(tab)
    assert focused() == "train"
    expect(tab.locator("[data-key=train]")).to_be_enabled()
    tab.get_by_text("History").click()
    expect(tab.locator("#history li")).to_have_count(2)
    assert focused() == "history"
    user.click(button(tab, "Edge x → node 1.1", exact=False))
    expect(tab.locator("#symbols .plot")).to_be_visible()
    assert tab.evaluate("document.activeElement.tagName") == "g"
    tab.locator("[data-key=remove]").focus()
    tab.keyboard.press("Enter")
    expect(button(tab, "Restore")).to_be_visible()
    idle(tab)
    assert focused() == "symbols"  # where the button was, and another stands now
    tab.locator("[data-key=undo]").focus()
    for _ in range(3):
        tab.keyboard.press("Space")
        idle(tab)
        assert focused() == "undo"
    expect(tab.get_by_text("Or begin with an example:")).to_be_visible()
    expect(tab.locator("[data-key=undo]")).to_be_disabled()


def test_units_as_they_are_typed(user):
    """They count at once, whatever the columns are called, and a search never takes a missing one for none."""
    x = np.linspace(1, 2, 30)
    tab = user.open()
    upload(tab, "names.csv", csv(constructor=x, __proto__=x**2, valueOf=3 * x))
    for name in ("constructor", "__proto__", "valueOf"):
        expect(tab.get_by_label(f"unit of {name}", exact=True)).to_have_value("")
    agree = tab.locator("[data-key=agree]")
    expect(agree).to_be_disabled()
    for name in ("constructor", "__proto__", "valueOf"):
        tab.get_by_label(f"unit of {name}", exact=True).fill("m^2" if name == "__proto__" else "m")
    expect(agree).to_be_enabled()
    agree.check()
    searches = []
    tab.on("request", lambda request: request.url.endswith("/steps") and searches.append(json.loads(request.post_data)["options"]))
    user.click(button(tab, "Find a formula"))
    expect(tab.locator("#formula .math").first).to_be_visible()
    idle(tab)
    tab.get_by_label("unit of constructor", exact=True).fill("")
    expect(agree).to_be_disabled()
    expect(agree).not_to_be_checked()
    user.click(button(tab, "Find a formula"))
    expect(tab.locator("#history li")).to_have_count(3)
    idle(tab)
    assert searches == [{"units": {"constructor": "m", "__proto__": "m^2"}, "target_units": "m"}, {}]


def test_marked_columns_stay_until_the_table_changes(user):
    tab = user.open()
    example(user, tab, "Toy function")
    train(user, tab, steps=1)
    tab.get_by_label("y explains", exact=True).uncheck()
    user.click(button(tab, "Edge x → node 1.1", exact=False))
    expect(button(tab, "Use these columns")).to_be_visible()
    expect(tab.get_by_label("y explains", exact=True)).not_to_be_checked()
    train(user, tab, name="Train on")
    user.click(button(tab, "Use these columns"))
    expect(tab.get_by_text("1 input explain z.")).to_be_visible()
    idle(tab)
    expect(button(tab, "Use these columns")).to_be_hidden()
    user.click(button(tab, "Undo"))
    expect(tab.get_by_label("y explains", exact=True)).to_be_checked()
    idle(tab)
    tab.get_by_label("y explains", exact=True).uncheck()
    user.click(button(tab, "Change"))
    example(user, tab, "Toy function")
    expect(tab.get_by_label("y explains", exact=True)).to_be_checked()


def test_images(user):
    tab = user.open()
    user.click(tab.get_by_role("tab", name="Vision"))
    user.click(button(tab, "Sample 4: Trouser"))
    expect(tab.locator(".model")).to_have_count(4)
    expect(tab.locator(".model .answer").first).to_contain_text("Trouser")
    assert tab.locator(".maps img").count() >= 8
    for model, text in {"kat_pico": "8 groups", "karat_pico": "functions", "vit_kan_pico": "strongest of 9,216 splines"}.items():
        learned = tab.get_by_label(f"Learned functions of {model}", exact=False)
        expect(learned.locator(".plot").first).to_be_visible()
        expect(learned.get_by_text(text, exact=False).first).to_be_visible()
    user.allowed = ("422",)
    tab.get_by_label("Drop an image, or choose one").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(tab.get_by_text("cannot be read as an image", exact=False)).to_be_visible()
    expect(tab.locator(".model")).to_have_count(0)  # the answers to the picture before
