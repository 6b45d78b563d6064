"""The local app in a real browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import seewhy
from support.browser import DOUBLE, FAINT, NAMELESS, Watched, needs_browser
from support.local_app import Served, picture_bytes, small_net

pytestmark = needs_browser
PICTURE = {"name": "one.png", "mimeType": "image/png", "buffer": picture_bytes()}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    found = Served([seewhy.load_model(), small_net()])
    yield found
    found.close()


class App(Watched):
    """The app in the browser."""

    def __init__(self, browser: Any, address: str, width: int = 1300, scheme: str = "light") -> None:
        super().__init__(browser, address, width, scheme)
        self.page.evaluate("window.app.ready")

    def until(self, question: str) -> Any:
        """Wait until a question to the page is answered with something true."""
        for _ in range(300):
            if found := self.page.evaluate(question):
                return found
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never: {question}; status {self.page.inner_text('#status')!r}, {self.problem!r}")

    def give(self, picture: Any = PICTURE) -> Any:
        self.page.set_input_files("#file", picture)
        return self.shown()

    def shown(self, count: int | None = None) -> Any:
        """The page of the picture, once it is there; with `count`, the one after so many before it."""
        if count is not None:
            self.until(f"document.getElementById('earlier').length === {count}")
        self.until("document.querySelector('iframe') !== null && document.getElementById('stop').hidden")
        frame = self.page.frames[-1]
        frame.wait_for_function("window.seewhy")  # a slow machine shows the frame before its script has run
        frame.evaluate("window.seewhy.ready")
        return frame

    @property
    def problem(self) -> str:
        return str(self.page.inner_text("#problem")) if self.page.locator("#problem").is_visible() else ""


@pytest.fixture
def opened(browser: Any, served: Served) -> Iterator[App]:
    found = App(browser, served.address)
    yield found
    assert found.said == []
    origin = served.address.partition("#")[0]
    assert all(address.startswith((origin, "data:", "blob:", "about:")) for address in found.asked)
    found.page.context.close()


def test_a_picture_that_is_chosen_is_explained(opened: App) -> None:
    assert "Drop a picture" in opened.page.inner_text("#start")
    frame = opened.give()
    assert frame.inner_text("h1") == "one.png"
    targets = frame.evaluate("window.seewhy.page.targets.length")
    assert targets == 3 and frame.evaluate("window.seewhy.page.layers.length") >= 49
    assert not opened.page.locator("#start").is_visible() and opened.problem == ""
    assert re.fullmatch(r"[\d.]+ s", opened.page.inner_text("#status"))


TRANSFER = """(type) => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(BYTES), (c) => c.charCodeAt(0));
  data.items.add(new File([bytes], "given.png", { type: "image/png" }));
  const event = type === "paste" ? new ClipboardEvent(type, { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def transfer(data: bytes) -> str:
    return TRANSFER.replace("BYTES", f'"{base64.b64encode(data).decode()}"')


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted(opened: App, kind: str) -> None:
    opened.page.evaluate(transfer(picture_bytes("green")), kind)
    frame = opened.shown(1)
    assert frame.inner_text("h1") == "given.png"
    # and onto the page of that picture, which is a frame: it hands it on
    frame.evaluate(transfer(picture_bytes("blue")), kind)
    assert opened.shown(2).inner_text("h1") == "given.png"


def test_dragging_says_that_one_may_let_go(opened: App) -> None:
    opened.page.evaluate(transfer(picture_bytes()), "dragover")
    assert opened.page.evaluate("document.body.classList.contains('over')")
    opened.page.evaluate(transfer(picture_bytes()), "dragleave")
    assert not opened.page.evaluate("document.body.classList.contains('over')")


def test_what_is_asked_is_what_comes(opened: App) -> None:
    page = opened.page
    page.click("#asks")
    page.get_by_label("The likeliest").select_option("2")
    page.get_by_label("and these").fill("minibus")
    page.get_by_label("and these").press("Tab")
    page.get_by_label("hirescam", exact=True).check()
    page.get_by_label("Layers").select_option("suggested")
    assert page.inner_text("#asks") == "gradcam, hirescam · 2 likeliest, minibus · the suggested one only"
    page.set_input_files("#file", PICTURE)
    frame = opened.shown(1)
    shown = frame.evaluate("window.seewhy.page")
    assert [one["key"] for one in shown["methods"]] == ["gradcam", "hirescam"] and len(shown["layers"]) == 1
    assert [one["name"] for one in shown["targets"]][2] == "minibus"
    page.get_by_role("button", name="Leave out minibus").click()
    page.get_by_label("gradcam", exact=True).uncheck()
    page.get_by_role("button", name="Explain", exact=True).click()
    shown = opened.shown(2).evaluate("window.seewhy.page")
    assert len(shown["targets"]) == 2 and [one["key"] for one in shown["methods"]] == ["hirescam"]
    assert not page.locator("#question").is_visible()


def test_another_model_of_the_list(opened: App) -> None:
    opened.page.locator("#model").select_option("1")
    opened.give()
    frame = opened.page.frames[-1]
    assert frame.evaluate("window.seewhy.page.layers.length") <= 3
    assert "</script><script>alert(1)</script>" in frame.evaluate(
        "window.seewhy.page.targets.map(t => t.name)"
    ) + frame.evaluate("window.seewhy.page.top.map(t => t.name)")
    opened.page.locator("#model").select_option("0")  # asks at once
    assert opened.shown(2).evaluate("window.seewhy.page.layers.length") >= 49


def test_what_was_chosen_on_the_page_stays_for_the_next_picture(opened: App) -> None:
    frame = opened.give()
    frame.get_by_label("Colours").select_option("viridis")
    frame.evaluate("window.seewhy.change({layer: 7}, true)")
    opened.page.wait_for_timeout(400)
    opened.page.set_input_files("#file", {**PICTURE, "name": "two.png", "buffer": picture_bytes("blue")})
    later = opened.shown(2)
    assert later.inner_text("h1") == "two.png"
    state = later.evaluate("window.seewhy.state")
    assert state["colors"] == "viridis" and state["panels"][0]["layer"] == 7
    later.get_by_role("button", name="Compare").click()
    opened.page.wait_for_timeout(400)
    for place, name, panels in ((1, "one.png", 1), (0, "two.png", 2)):  # each as it was left
        opened.page.get_by_label("Earlier").select_option(index=place)
        opened.page.wait_for_timeout(500)
        assert opened.page.frames[-1].inner_text("h1") == name
        assert len(opened.page.frames[-1].evaluate("window.seewhy.state.panels")) == panels


def test_the_page_can_be_saved_and_opened_from_disk(opened: App, browser: Any, tmp_path: Path) -> None:
    opened.give()
    with opened.page.expect_download() as waiting:
        opened.page.get_by_role("button", name="Save the page").click()
    waiting.value.save_as(tmp_path / "saved.html")
    assert (
        waiting.value.suggested_filename
        == "one.png-EfficientNet-Lite0-embedded-gradcam-3-likeliest-every-convolution.html"
    )
    page = browser.new_context().new_page()
    page.goto((tmp_path / "saved.html").as_uri())
    page.wait_for_function("window.seewhy")
    page.evaluate("window.seewhy.ready")
    assert page.inner_text("h1") == "one.png"


def test_problems_are_said_and_go_away(opened: App) -> None:
    opened.page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"junk"})
    opened.until("!document.getElementById('problem').hidden")
    assert "not an image" in opened.problem
    opened.said = [text for text in opened.said if "415" not in text]  # Chromium itself reports the status
    opened.page.set_input_files("#file", {"name": "big.png", "mimeType": "image/png", "buffer": b"0" * (3 * 2**20)})
    opened.until("document.getElementById('problem').textContent.includes('2 MB')")
    opened.page.keyboard.press("Escape")
    assert opened.problem == ""


def test_a_class_that_the_model_does_not_have_is_not_taken(opened: App) -> None:
    page = opened.page
    page.click("#asks")
    field = page.get_by_label("and these")
    field.fill("minibuss")
    field.press("Enter")
    assert "minibuss" in page.evaluate("document.getElementById('class').validationMessage")
    page.get_by_role("button", name="Explain", exact=True).click()
    assert page.locator("#question").is_visible() and opened.asked[-1].endswith("/choices")
    for name in ("1000", "MINIBUS", "3"):  # the first is one too many
        field.fill(name)
        field.press("Enter")
    assert "3 likeliest, MINIBUS, 3 ·" in page.inner_text("#asks")
    field.fill("")
    page.set_input_files("#file", PICTURE)
    names = opened.shown().evaluate("window.seewhy.page.targets.map(t => t.name)")
    assert "minibus" in names and len(names) >= 4


def test_a_wrong_file_does_not_take_the_place_of_the_picture(opened: App) -> None:
    opened.give()
    opened.page.set_input_files("#file", {"name": "x.txt", "mimeType": "text/plain", "buffer": b"words"})
    opened.until("!document.getElementById('problem').hidden")
    opened.said = [text for text in opened.said if "415" not in text]
    opened.page.get_by_role("button", name="Close this message").click()
    opened.page.click("#asks")
    opened.page.get_by_label("hirescam", exact=True).check()
    opened.page.get_by_role("button", name="Explain", exact=True).click()
    assert opened.shown(2).inner_text("h1") == "one.png" and opened.problem == ""


def test_a_slow_method_shows_how_far_it_is_and_can_be_stopped(opened: App) -> None:
    opened.page.click("#asks")
    opened.page.get_by_label("rise").check()
    opened.page.set_input_files("#file", PICTURE)
    opened.until("!document.getElementById('progress').hidden && document.getElementById('progress').value > 0")
    assert re.search(r"[\d,]+ of [\d,]+ forwards, .+ left", opened.page.inner_text("#status"))
    opened.page.get_by_role("button", name="Stop").click()
    opened.until("document.getElementById('status').textContent === 'stopped'")
    opened.page.get_by_label("rise").uncheck()
    assert opened.give().inner_text("h1") == "one.png"


@pytest.mark.parametrize("name", ["</script><img src=x onerror=alert(1)>.png", "Donaudampfschifffahrt🚢حافلة.png"])
def test_names_are_text(opened: App, name: str) -> None:
    frame = opened.give({**PICTURE, "name": name.replace("/", "∕")})
    assert frame.locator("img").count() == 0 and name.rpartition("/")[2][-10:] in frame.inner_text("h1")


def test_another_model_is_asked_of_the_picture_on_its_way(opened: App) -> None:
    opened.give()
    opened.page.evaluate(
        """() => {
      const data = new DataTransfer();
      data.items.add(new File([BYTES], "two.png", { type: "image/png" }));
      document.getElementById("file").files = data.files;
      document.getElementById("file").dispatchEvent(new Event("change"));
      document.getElementById("model").value = "1";
      document.getElementById("model").dispatchEvent(new Event("change"));
    }""".replace("BYTES", f"Uint8Array.from({list(picture_bytes('blue'))})")
    )
    frame = opened.shown(2)
    assert frame.inner_text("h1") == "two.png" and frame.evaluate("window.seewhy.page.layers.length") <= 3


def test_the_right_address_pasted_into_the_wrong_page_is_taken(browser: Any, served: Served) -> None:
    found = App(browser, served.address.partition("#")[0])
    assert "terminal" in found.problem
    found.page.evaluate("(address) => { location.href = address; }", served.address)
    found.page.locator("#samples button").nth(2).wait_for()  # it loads itself again
    assert found.problem == ""


def test_without_a_token_the_page_says_where_to_find_it(browser: Any, served: Served) -> None:
    for address in (served.address.partition("#")[0], served.address[:-3]):
        found = App(browser, address)
        assert "terminal" in found.problem and not found.page.locator("#choose").is_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_the_window_and_can_be_read(browser: Any, served: Served, width: int, scheme: str) -> None:
    found = App(browser, served.address, width, scheme)
    for step in ("", "#asks"):
        if step:
            found.page.click(step)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        assert [found.page.evaluate(question) for question in (NAMELESS, DOUBLE, FAINT)] == [[], [], []]
    found.page.click("#asks")
    frame = found.give()
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width and found.said == []
    assert frame.evaluate("document.documentElement.scrollWidth") <= width
