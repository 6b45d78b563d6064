"""Covering parts of an image in the browser: with the mouse, the keyboard and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import seewhy
from seewhy.trust import CoverTest, Rectangle
from support.app_page import IMAGE, App
from support.browser import DUPLICATE_IDS, LOW_CONTRAST, UNNAMED_CONTROLS, each_window, needs_browser
from support.local_app import LocalApp, make_dense_model, make_image, make_small_model

pytestmark = needs_browser
COFFEE = {"name": "coffee.png", "mimeType": "image/png", "buffer": seewhy.sample("coffee").read_bytes()}
Row = tuple[str, str, str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalApp]:
    server = LocalApp([seewhy.load_model(), make_small_model(), make_dense_model()])
    server.explain(make_image(), model=0)  # prepares the network
    yield server
    server.close()


class Cover:
    """The panel of the app, with an image that was explained."""

    def __init__(self, app: App, image: Any = COFFEE) -> None:
        self.app, self.page = app, app.page
        app.upload(image)
        self.page.get_by_role("button", name="Cover parts").click()
        self.wait()

    def wait(self) -> None:
        """Wait for the answer to the last request."""
        self.app.wait_for("!document.getElementById('cover').hasAttribute('aria-busy')")
        self.app.wait_for("document.getElementById('cover-photo').complete")

    @property
    def rows(self) -> list[Row]:
        """Name, before, now and change of each class."""
        script = """() => [...document.querySelectorAll("#changes tbody tr")].map((row) =>
          [row.querySelector("bdi").textContent, ...[...row.querySelectorAll("td")].map((cell) => cell.textContent)])"""
        return [tuple(row) for row in self.page.evaluate(script)]

    @property
    def summary(self) -> str:
        return str(self.page.inner_text("#cover-summary"))

    @property
    def photo(self) -> str:
        return str(self.page.evaluate("document.getElementById('cover-photo').src"))

    def drag(self, *points: tuple[float, float]) -> None:
        """Drag the mouse through points, in fractions of the photo."""
        self.page.locator("#cover-photo").scroll_into_view_if_needed()
        box = self.page.locator("#cover-photo").bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        self.page.mouse.up()
        self.wait()


@pytest.fixture
def app(browser: Any, server: LocalApp) -> Iterator[App]:
    app = App(browser, server.address)
    yield app
    assert app.messages == []
    app.close()


@pytest.fixture
def cover(app: App) -> Cover:
    return Cover(app)


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def test_dragging_a_rectangle_changes_the_answer_and_undo_restores_it(app: App, server: LocalApp, cover: Cover) -> None:
    first, photo = cover.rows, cover.photo
    assert len(first) == 5 and first[0][0] == "espresso" and {row[3] for row in first} == {"0.0"}
    assert cover.summary == f"Predicted: espresso, {first[0][1]}."
    undo, reset = (cover.page.get_by_role("button", name=name, exact=True) for name in ("Undo", "Reset"))
    assert undo.is_disabled() and reset.is_disabled()

    cover.drag((0.25, 0.25), (0.4, 0.4), (0.75, 0.75))
    rows = cover.rows
    assert [row[:2] for row in rows[:5]] == [row[:2] for row in first] and rows[0][2] != first[0][2]
    assert cover.summary.startswith(f"espresso: {first[0][1]} → {rows[0][2]}.") and cover.photo != photo
    test = CoverTest(server.models[0], seewhy.load_image(seewhy.sample("coffee")))
    changes = test.run([Rectangle(0.25, 0.25, 0.75, 0.75)]).changes
    for (_, before, now, change), expected in zip(rows, changes, strict=False):
        assert before == percent(expected.before)
        assert abs(float(now[:-1]) - 100 * expected.after) < 1.5  # the mouse moves by pixels of the screen
        assert abs(float(change.replace("−", "-")) - (float(now[:-1]) - float(before[:-1]))) < 0.11

    cover.drag((0.1, 0.1), (0.3, 0.3))
    second = cover.rows
    assert second != rows
    undo.click()
    cover.wait()
    assert cover.rows == rows
    reset.click()
    cover.wait()
    assert cover.rows == first and cover.photo == photo and reset.is_disabled()
    cover.page.keyboard.press("Control+z")  # also undoes the reset
    cover.wait()
    assert cover.rows == rows
    undo.click()
    cover.wait()
    assert cover.rows == first and undo.is_disabled()


def test_a_click_covers_nothing(cover: Cover) -> None:
    first = cover.rows
    cover.drag((0.5, 0.5))
    assert cover.rows == first and cover.page.locator("#undo").is_disabled()
    assert cover.page.locator("#cover-marks rect").count() == 0


def test_brush_paints_a_stroke(app: App, cover: Cover) -> None:
    first = cover.rows
    cover.page.get_by_label("Brush", exact=True).check()
    cover.page.get_by_label("Size", exact=True).fill("30")
    cover.drag((0.5, 0.5))  # a click is a disk
    disk = cover.rows
    assert disk != first
    cover.drag((0.1, 0.5), (0.5, 0.5), (0.9, 0.9))
    assert cover.rows not in (first, disk)
    for _ in range(2):
        cover.page.locator("#undo").click()
        cover.wait()
    assert cover.rows == first


def test_filler_can_be_changed(app: App, cover: Cover) -> None:
    cover.drag((0.1, 0.1), (0.9, 0.9))
    answers = {cover.photo: cover.rows}
    assert not cover.page.get_by_label("Color of covered parts").is_visible()
    for filler in ("mean", "color"):
        cover.page.get_by_label("Fill").select_option(filler)
        cover.wait()
        answers[cover.photo] = cover.rows
    color = cover.page.get_by_label("Color of covered parts")
    color.fill("#00ff00")
    cover.wait()
    answers[cover.photo] = cover.rows
    assert len(answers) == 4 and len({tuple(rows) for rows in answers.values()}) == 4
    pixel = cover.page.evaluate("""() => {
      const canvas = document.createElement("canvas"), photo = document.getElementById("cover-photo");
      canvas.getContext("2d").drawImage(photo, 0, 0);
      return [...canvas.getContext("2d").getImageData(150, 100, 1, 1).data];
    }""")
    assert np.abs(np.array(pixel[:3]) - (0, 255, 0)).max() < 10


def test_keyboard(app: App, server: LocalApp, cover: Cover) -> None:
    first = cover.rows
    cover.page.locator("#cover-stage").focus()
    keys = cover.page.keyboard
    keys.press("ArrowLeft")
    assert cover.page.locator("#cover-marks rect.draft").count() == 1
    keys.press("Escape")
    assert cover.page.locator("#cover-marks rect").count() == 0
    keys.press("Enter")  # without a rectangle
    for _ in range(5):
        keys.press("ArrowLeft")
        keys.press("ArrowUp")
    for _ in range(15):
        keys.press("Shift+ArrowRight")
        keys.press("Shift+ArrowDown")
    keys.press("Shift+ArrowLeft")
    keys.press("Enter")
    cover.wait()
    assert cover.page.locator("#cover-marks rect").count() == 0
    test = CoverTest(server.models[0], seewhy.load_image(seewhy.sample("coffee")))
    changes = test.run([Rectangle(0.3, 0.3, 0.78, 0.8)]).changes
    assert [row[2] for row in cover.rows] == [percent(one.after) for one in changes]
    keys.press("Control+z")
    cover.wait()
    assert cover.rows == first


def test_numbers(app: App, server: LocalApp, cover: Cover) -> None:
    cover.page.get_by_text("Rectangle in numbers").click()
    for label, value in (("Left %", "10"), ("Top %", "20"), ("Width %", "50.5"), ("Height %", "60")):
        cover.page.get_by_label(label).fill(value)
    assert cover.page.locator("#cover-marks rect.draft").count() == 1
    cover.page.locator("#rectangle button").click()
    cover.wait()
    test = CoverTest(server.models[0], seewhy.load_image(seewhy.sample("coffee")))
    changes = test.run([Rectangle(0.1, 0.2, 0.605, 0.8)]).changes
    assert [row[2] for row in cover.rows] == [percent(one.after) for one in changes]
    names = [one.name for one in changes if one.is_new]
    assert cover.page.locator("#changes tr", has_text="new in the top 5").count() == len(names)
    cover.page.get_by_label("Width %").fill("0")
    cover.page.locator("#rectangle button").click()  # the form reports the range
    assert cover.page.locator("#cover-marks rect.draft").count() == 0
    assert [row[2] for row in cover.rows] == [percent(one.after) for one in changes]


def test_each_report_is_covered_with_its_own_photo_and_model(app: App, cover: Cover) -> None:
    cover.drag((0.1, 0.1), (0.9, 0.9))
    app.page.locator("#model").select_option("1")
    app.wait_for_report(2)
    app.wait_for("document.querySelector('#changes tbody').textContent.includes('alert(1)')")
    cover.wait()
    names = {row[0] for row in cover.rows}
    assert names == {"cat", "</script><script>alert(1)</script>", "dog", "like:/etc/passwd", "bus"}
    assert app.page.locator("#undo").is_disabled()
    app.page.get_by_label("History").select_option(index=1)
    app.wait_for("document.querySelector('#changes tbody').textContent.includes('espresso')")
    app.page.get_by_role("button", name="Close", exact=True).click()
    assert not app.page.locator("#cover").is_visible()


def test_sample_and_fit_of_the_report_are_used(app: App, server: LocalApp) -> None:
    app.page.click("#settings-button")
    app.page.get_by_label("Fit").select_option("pad")
    app.page.click("#settings-button")
    app.page.get_by_role("button", name="chelsea").click()
    app.wait_for_report(1)
    app.page.evaluate("document.getElementById('fit').value = 'squash'")  # for the next image only
    app.page.get_by_role("button", name="Cover parts").click()
    app.wait_for("!document.getElementById('cover-work').hidden")
    test = CoverTest(server.models[0], seewhy.load_image(seewhy.sample("chelsea")), fit="pad")
    (change, *_) = test.run([]).changes
    assert app.page.inner_text("#cover-summary") == f"Predicted: {change.name}, {percent(change.before)}."
    assert "does not receive" not in app.page.inner_text("#cover-help")


def test_model_without_class_scores_is_explained_in_one_line(app: App) -> None:
    app.page.click("#settings-button")
    app.page.get_by_label("Most likely classes").select_option("1")
    app.page.click("#settings-button")
    app.page.locator("#model").select_option("2")
    app.upload(IMAGE)
    app.page.get_by_role("button", name="Cover parts").click()
    app.wait_for("!document.getElementById('cover-problem').hidden")
    text = app.page.inner_text("#cover-problem")
    assert text.startswith("Parts of this image cannot be covered: the model returns no class scores")
    assert not app.page.locator("#cover-work").is_visible()


def test_too_many_parts_are_refused_before_they_are_sent(app: App, cover: Cover) -> None:
    app.page.evaluate("document.getElementById('cover-stage').focus()")
    app.page.get_by_text("Rectangle in numbers").click()
    for label, value in (("Left %", "10"), ("Top %", "20"), ("Width %", "5"), ("Height %", "6")):
        cover.page.get_by_label(label).fill(value)
    app.page.evaluate("""() => {
      for (let count = 0; count < 101; count += 1) document.querySelector("#rectangle button").click();
    }""")
    cover.wait()
    assert "More than 100 parts" in app.page.inner_text("#cover-problem")
    assert "100 covered parts" in app.page.locator("#cover-photo").get_attribute("alt")


@each_window
def test_panel_fits_the_window_and_is_accessible(browser: Any, server: LocalApp, width: int, scheme: str) -> None:
    app = App(browser, server.address, width, scheme)
    cover = Cover(app)
    cover.page.get_by_label("Brush", exact=True).check()
    cover.page.get_by_label("Fill").select_option("color")
    cover.page.get_by_text("Rectangle in numbers").click()
    cover.drag((0.2, 0.3), (0.8, 0.7))
    assert app.width <= width and app.messages == []
    assert (
        app.page.evaluate("document.getElementById('cover').scrollWidth - document.getElementById('cover').clientWidth")
        <= 0
    )
    assert [app.page.evaluate(check) for check in (UNNAMED_CONTROLS, DUPLICATE_IDS, LOW_CONTRAST)] == [[], [], []]
    app.close()
