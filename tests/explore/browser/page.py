"""Parts of the page, and steps that stories share."""

from playwright.sync_api import expect


def button(tab, name, **options):
    return tab.get_by_role("button", name=name, **({"exact": True} | options))


def idle(tab):
    expect(tab.locator("body")).not_to_have_class("working")


def slide(tab, label, value):
    tab.get_by_label(label, exact=True).fill(str(value))


def example(user, tab, name):
    user.click(button(tab, name, exact=False))
    expect(tab.locator(".columns")).to_be_visible()
    idle(tab)


def upload(tab, name, data):
    tab.get_by_label("Drop a CSV file, or choose one").set_input_files({"name": name, "mimeType": "text/csv", "buffer": data})
    expect(tab.locator(".columns")).to_be_visible()
    idle(tab)


def train(user, tab, name="Train", **sliders):
    for label, value in sliders.items():
        slide(tab, label.capitalize(), value)
    user.click(button(tab, name))
    expect(tab.locator("#network .edge").first).to_be_visible()
    idle(tab)


def begin_a_long_training(user, tab):
    example(user, tab, "Toy function")
    for label, value in {"Grid": 20, "Steps": 50, "Hidden nodes": 10}.items():
        slide(tab, label, value)
    user.click(button(tab, "Train"))
    expect(tab.locator("#losses .plot")).to_be_visible()


def session_of(tab):
    return tab.evaluate("Object.values(sessionStorage)[0]")


def csv(**columns):
    names = ",".join('"' + name.replace('"', '""') + '"' for name in columns)
    return (names + "\n" + "\n".join(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)) + "\n").encode()
