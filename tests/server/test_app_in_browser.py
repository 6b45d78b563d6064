"""The local app in a browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import seewhy
from support.app_page import IMAGE, App
from support.browser import DUPLICATE_IDS, LOW_CONTRAST, UNNAMED_CONTROLS, each_window, needs_browser
from support.local_app import LocalApp, make_image, make_small_model

pytestmark = needs_browser
LAYERS = 49  # of the embedded network


@pytest.fixture(scope="module")
def server() -> Iterator[LocalApp]:
    server = LocalApp([seewhy.load_model(), make_small_model()])
    yield server
    server.close()


@pytest.fixture
def app(browser: Any, server: LocalApp) -> Iterator[App]:
    app = App(browser, server.address)
    yield app
    assert app.messages == []
    origin = server.address.partition("#")[0]
    assert all(url.startswith((origin, "data:", "blob:", "about:")) for url in app.requests)
    app.close()


def test_uploaded_image_is_explained(app: App) -> None:
    assert "Drop an image" in app.page.inner_text("#start")
    frame = app.upload()
    assert frame.inner_text("h1") == "one.png"
    assert frame.evaluate("window.seewhy.page.targets.length") == 3
    assert frame.evaluate("window.seewhy.page.layers.length") >= LAYERS
    assert not app.page.locator("#start").is_visible() and app.problem == ""
    assert re.fullmatch(r"[\d.]+ s", app.page.inner_text("#status"))


TRANSFER = """(type) => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(BYTES), (c) => c.charCodeAt(0));
  data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  const event = type === "paste" ? new ClipboardEvent(type, { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def transfer(data: bytes) -> str:
    return TRANSFER.replace("BYTES", f'"{base64.b64encode(data).decode()}"')


@pytest.mark.parametrize("kind", ["drop", pytest.param("paste", marks=pytest.mark.full)])
def test_dropped_or_pasted_image_is_explained(app: App, kind: str) -> None:
    app.page.evaluate(transfer(make_image("green")), kind)
    frame = app.wait_for_report(1)
    assert frame.inner_text("h1") == "dropped.png"
    # The frame of the report forwards the file to the app.
    frame.evaluate(transfer(make_image("blue")), kind)
    assert app.wait_for_report(2).inner_text("h1") == "dropped.png"


def test_dragging_shows_where_to_drop(app: App) -> None:
    app.page.evaluate(transfer(make_image()), "dragover")
    assert app.page.evaluate("document.body.classList.contains('dragging')")
    app.page.evaluate(transfer(make_image()), "dragleave")
    assert not app.page.evaluate("document.body.classList.contains('dragging')")


def test_settings_determine_the_report(app: App) -> None:
    page = app.page
    page.click("#settings-button")
    page.get_by_label("Most likely classes").select_option("2")
    page.get_by_label("Additional class").fill("minibus")
    page.get_by_label("Additional class").press("Tab")
    page.get_by_label("hirescam", exact=True).check()
    page.get_by_label("Layers").select_option("suggested")
    assert page.inner_text("#settings-button") == "gradcam, hirescam · top 2, minibus · suggested layer only"
    page.set_input_files("#file", IMAGE)
    data = app.wait_for_report(1).evaluate("window.seewhy.page")
    assert [one["key"] for one in data["methods"]] == ["gradcam", "hirescam"] and len(
        data["layers"]
    ) == 2  # and the measured map
    assert [one["name"] for one in data["targets"]][2] == "minibus"
    page.get_by_role("button", name="Remove minibus").click()
    page.get_by_label("gradcam", exact=True).uncheck()
    page.get_by_role("button", name="Explain", exact=True).click()
    data = app.wait_for_report(2).evaluate("window.seewhy.page")
    assert len(data["targets"]) == 2 and [one["key"] for one in data["methods"]] == ["hirescam"]
    assert not page.locator("#settings").is_visible()


def test_changing_the_model_explains_the_image_again(app: App) -> None:
    app.page.locator("#model").select_option("1")
    frame = app.upload()
    assert frame.evaluate("window.seewhy.page.layers.length") <= 4
    names = frame.evaluate("[...window.seewhy.page.targets, ...window.seewhy.page.top].map((target) => target.name)")
    assert "</script><script>alert(1)</script>" in names
    app.page.locator("#model").select_option("0")
    assert app.wait_for_report(2).evaluate("window.seewhy.page.layers.length") >= LAYERS


def test_page_state_is_kept_for_the_next_image(app: App) -> None:
    frame = app.upload()
    frame.get_by_label("Colors").select_option("viridis")
    frame.evaluate("window.seewhy.updatePanel({layer: 7})")
    app.wait_for_fragment("colors=viridis")
    app.page.set_input_files("#file", {**IMAGE, "name": "two.png", "buffer": make_image("blue")})
    later = app.wait_for_report(2)
    assert later.inner_text("h1") == "two.png"
    state = later.evaluate("window.seewhy.state")
    assert state["colors"] == "viridis" and state["panels"][0]["layer"] == 7
    later.get_by_role("button", name="Add panel").click()
    app.wait_for_fragment(";")
    for place, name, panels in ((1, "one.png", 1), (0, "two.png", 2)):  # each report keeps its own state
        app.page.get_by_label("History").select_option(index=place)
        report = app.wait_for_report()
        assert report.inner_text("h1") == name
        assert len(report.evaluate("window.seewhy.state.panels")) == panels


def test_report_can_be_saved_and_opened_from_disk(app: App, browser: Any, tmp_path: Path) -> None:
    app.upload()
    with app.page.expect_download() as download:
        app.page.get_by_role("button", name="Save page").click()
    download.value.save_as(tmp_path / "saved.html")
    name = "one.png-EfficientNet-Lite0-embedded-gradcam-top-3-every-convolution.html"
    assert download.value.suggested_filename == name
    page = browser.new_context().new_page()
    page.goto((tmp_path / "saved.html").as_uri())
    page.wait_for_function("window.seewhy")
    page.evaluate("window.seewhy.ready")
    assert page.inner_text("h1") == "one.png"


def test_problems_are_shown_until_closed(app: App) -> None:
    app.page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"junk"})
    app.wait_for("!document.getElementById('problem').hidden")
    assert "not an image" in app.problem
    app.messages = [text for text in app.messages if "415" not in text]  # Chromium logs the status
    app.page.set_input_files("#file", {"name": "big.png", "mimeType": "image/png", "buffer": b"0" * (3 * 2**20)})
    app.wait_for("document.getElementById('problem').textContent.includes('2 MB')")
    app.page.keyboard.press("Escape")
    assert app.problem == ""


def test_unknown_class_is_rejected_in_the_form(app: App) -> None:
    page = app.page
    page.click("#settings-button")
    field = page.get_by_label("Additional class")
    field.fill("minibuss")
    field.press("Enter")
    assert "minibuss" in page.evaluate("document.getElementById('class').validationMessage")
    page.get_by_role("button", name="Explain", exact=True).click()
    assert page.locator("#settings").is_visible() and app.requests[-1].endswith("/choices")
    for name in ("1000", "MINIBUS", "3"):  # the indices end at 999
        field.fill(name)
        field.press("Enter")
    assert "top 3, MINIBUS, 3 ·" in page.inner_text("#settings-button")
    field.fill("")
    page.set_input_files("#file", IMAGE)
    names = app.wait_for_report().evaluate("window.seewhy.page.targets.map((target) => target.name)")
    assert "minibus" in names and len(names) >= 4


def test_unreadable_file_does_not_replace_the_image(app: App) -> None:
    app.upload()
    app.page.set_input_files("#file", {"name": "x.txt", "mimeType": "text/plain", "buffer": b"text"})
    app.wait_for("!document.getElementById('problem').hidden")
    app.messages = [text for text in app.messages if "415" not in text]
    app.page.get_by_role("button", name="Close this message").click()
    app.page.click("#settings-button")
    app.page.get_by_label("hirescam", exact=True).check()
    app.page.get_by_role("button", name="Explain", exact=True).click()
    assert app.wait_for_report(2).inner_text("h1") == "one.png" and app.problem == ""


def test_slow_method_shows_progress_and_can_be_stopped(app: App) -> None:
    app.page.click("#settings-button")
    app.page.get_by_label("rise").check()
    app.page.set_input_files("#file", IMAGE)
    app.wait_for("!document.getElementById('progress').hidden && document.getElementById('progress').value > 0")
    assert re.search(r"[\d,]+ of [\d,]+ forward passes, .+ left", app.page.inner_text("#status"))
    app.page.get_by_role("button", name="Stop").click()
    app.wait_for("document.getElementById('status').textContent === 'stopped'")
    app.page.get_by_label("rise").uncheck()
    assert app.upload().inner_text("h1") == "one.png"


@pytest.mark.parametrize("name", ["</script><img src=x onerror=alert(1)>.png", "Donaudampfschifffahrt🚢حافلة.png"])
def test_file_names_are_displayed_as_text(app: App, name: str) -> None:
    frame = app.upload({**IMAGE, "name": name.replace("/", "∕")})
    assert frame.locator("img").count() == 0 and name.rpartition("/")[2][-10:] in frame.inner_text("h1")


def test_changing_the_model_during_an_upload_explains_the_new_image(app: App) -> None:
    app.upload()
    app.page.evaluate(
        """() => {
      const data = new DataTransfer();
      data.items.add(new File([BYTES], "two.png", { type: "image/png" }));
      document.getElementById("file").files = data.files;
      document.getElementById("file").dispatchEvent(new Event("change"));
      document.getElementById("model").value = "1";
      document.getElementById("model").dispatchEvent(new Event("change"));
    }""".replace("BYTES", f"Uint8Array.from({list(make_image('blue'))})")
    )
    frame = app.wait_for_report(2)
    assert frame.inner_text("h1") == "two.png" and frame.evaluate("window.seewhy.page.layers.length") <= 4


def test_page_without_token_explains_where_to_find_it(browser: Any, server: LocalApp) -> None:
    for address in (server.address.partition("#")[0], server.address[:-3]):
        app = App(browser, address)
        assert "terminal" in app.problem and not app.page.locator("#choose").is_visible()
        app.close()


def test_entering_the_correct_address_reloads_the_page(browser: Any, server: LocalApp) -> None:
    app = App(browser, server.address.partition("#")[0])
    app.page.evaluate("(address) => { location.href = address; }", server.address)
    app.page.locator("#samples button").nth(2).wait_for()
    assert app.problem == ""
    app.close()


@each_window
def test_app_fits_the_window_and_is_accessible(browser: Any, server: LocalApp, width: int, scheme: str) -> None:
    app = App(browser, server.address, width, scheme)
    for button in ("", "#settings-button"):
        if button:
            app.page.click(button)
        assert app.width <= width
        assert [app.page.evaluate(check) for check in (UNNAMED_CONTROLS, DUPLICATE_IDS, LOW_CONTRAST)] == [[], [], []]
    app.page.click("#settings-button")
    frame = app.upload()
    assert app.width <= width and app.messages == []
    assert frame.evaluate("document.documentElement.scrollWidth") <= width
    app.close()
