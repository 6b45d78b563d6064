"""The report page in a browser."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import seewhy
from seewhy.cli import main as cli
from seewhy.errors import UsageError
from seewhy.explanation import report
from seewhy.explanation.strips import Strip, draw_strip, strip_of
from seewhy.images.view import View
from seewhy.rendering.colors import table
from seewhy.rendering.overlays import OverlayStyle, draw_overlay
from seewhy.tensors import map_functions
from seewhy.viewer import pack, unpack
from support.browser import DUPLICATE_IDS, LOW_CONTRAST, UNNAMED_CONTROLS, BrowserPage, each_window, needs_browser
from support.part_networks import make

METHODS = ["gradcam", "hirescam", "layercam"]
MARKUP = "</script><img src=x onerror=alert(1)>\u202eشجرة🌳 Donaudampfschifffahrtsgesellschaftskapitän.jpg"


@pytest.fixture(scope="module")
def e() -> seewhy.Explanation:
    return seewhy.explain(
        seewhy.load_model(), seewhy.sample("cat_espresso"), methods=METHODS, layers=["blocks.*.0.conv_dw", "conv_stem"],
        targets=["espresso", "Egyptian cat", "tabby"], include_suggested=True, fit="crop",
    )  # fmt: skip


class ReportPage(BrowserPage):
    """The page of an explanation in the browser."""

    def __init__(self, browser: Any, address: str, *, width: int = 1280, scheme: str = "light") -> None:
        super().__init__(browser, address, width, scheme)
        self.page.evaluate("window.seewhy.ready")
        self.settle()

    def settle(self) -> None:
        """Wait until the page is rendered: two frames for the overlay, then a timer for the chart."""
        self.page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))"
        )

    def run(self, script: str) -> Any:
        """Run a script and wait until its result is rendered."""
        result = self.page.evaluate(script)
        self.settle()
        return result

    def select_layer(self, number: int) -> None:
        self.run(f"window.seewhy.updatePanel({{layer: {number}}})")

    @property
    def state(self) -> Any:
        return self.page.evaluate("window.seewhy.state")

    def pixels(self, panel: int = 0) -> NDArray[np.uint8]:
        """Return the canvas of a panel, (H, W, 3)."""
        url = self.page.evaluate(f"document.querySelectorAll('#panels canvas')[{panel}].toDataURL('image/png')")
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            return np.array(image.convert("RGB"))


@pytest.fixture(scope="module")
def address(e: seewhy.Explanation, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    e.report(path)
    return path.as_uri()


@pytest.fixture
def report_page(browser: Any, address: str) -> Iterator[ReportPage]:
    page = ReportPage(browser, address)
    yield page
    assert page.messages == [] and page.requests == [address]
    page.close()


# Packing


@pytest.mark.parametrize("shape", [(7, 7), (56, 3), (112, 112), (57, 113), (1, 1)])
def test_packing_keeps_the_resolution_of_each_sign(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*shape, generator=generator)
    values = torch.where(values > 0, values, values * 1000)
    unpacked = unpack(pack(values.numpy()))
    size = tuple(min(56, length) for length in shape)
    assert unpacked.shape == size
    expected = values if shape == size else None
    if shape == (112, 112):
        expected = torch.nn.functional.interpolate(values[None, None], size, mode="area")[0, 0]
    if expected is not None:
        for sign in (1, -1):
            part = (expected * sign).clamp(min=0)
            error = ((torch.from_numpy(unpacked) * sign).clamp(min=0) - part).abs().max()
            assert error <= part.max() / 253, sign
    assert float(unpacked.mean(dtype=np.float64)) == pytest.approx(float(values.double().mean()), rel=0.02, abs=2)


def test_packing_of_constant_and_non_finite_maps() -> None:
    assert unpack(pack(np.zeros((2, 2), np.float32))).tolist() == [[0, 0], [0, 0]]
    assert unpack(pack(np.full((1, 2), -3.0, np.float32))).tolist() == [[-3, -3]]
    assert np.isfinite(unpack(pack(np.array([[np.nan, np.inf, 1.0]], np.float32)))).all()


# The page


@needs_browser
def test_page_opens_from_disk_without_requests(report_page: ReportPage, e: seewhy.Explanation) -> None:
    assert report_page.page.title() == "cat_espresso.png"
    suggested = e.layers.index(e.suggested or "")
    assert report_page.state["panels"] == [{"method": 0, "target": 0, "versus": -1, "layer": suggested}]
    assert report_page.page.inner_text("#layer-name") == e.suggested
    report_page.wait_for("location.hash !== ''")  # the state is saved last; the fixture then checks the requests


@needs_browser
def test_overlay_equals_that_of_python(report_page: ReportPage, e: seewhy.Explanation) -> None:
    report_page.run("window.seewhy.updateState({opacity: 0})")
    photo = Image.fromarray(report_page.pixels())
    report_page.run("window.seewhy.updateState({opacity: 0.85})")
    size = (photo.height, photo.width)
    for layer in map(str, (e.layers[0], e.layers[3], e.suggested)):
        for method in ("gradcam", "layercam"):
            numbers = f"layer: {e.layers.index(layer)}, method: {e.methods.index(method)}"
            report_page.run(f"window.seewhy.updatePanel({{{numbers}}})")
            positive = unpack(pack(e.map(method, "espresso", layer).numpy())).clip(min=0)
            maximum = float(map_functions.resize(torch.from_numpy(positive)[None], e.size).amax())
            heatmap = (e.view.to_photo(positive, size) / maximum).clip(0, 1)
            expected = np.array(draw_overlay(photo, heatmap, OverlayStyle(), e.view.visible_box_at(size))).astype(int)
            assert np.abs(report_page.pixels().astype(int) - expected).max() <= 3
            assert np.abs(expected - np.array(photo)).max() > 50


@needs_browser
def test_a_classic_page_equals_the_classic_overlay(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> None:
    e.report(tmp_path / "classic.html", classic=True)
    report_page = ReportPage(browser, (tmp_path / "classic.html").as_uri())
    report_page.run("window.seewhy.updateState({opacity: 0})")
    height, width = e.size
    photo = report_page.pixels().astype(float)
    assert photo.shape == (height, width, 3)
    report_page.run("window.seewhy.updateState({opacity: 0.4})")
    for layer in map(str, (e.layers[3], e.suggested)):
        report_page.run(f"window.seewhy.updatePanel({{layer: {e.layers.index(layer)}, method: 0, target: 0}})")
        positive = torch.from_numpy(unpack(pack(e.map("gradcam", "espresso", layer).numpy()))).clamp(min=0)
        low = (positive - positive.amin()) / (positive.amax() - positive.amin())
        levels = (255 * map_functions.resize(low[None], e.size)[0].numpy()).astype(int)
        expected = 0.6 * photo + 0.4 * table("jet")[levels]
        assert np.abs(report_page.pixels() - expected).max() <= 3  # rounding moves a level by 1
    assert report_page.page.inner_text("#least-label") == "least"
    report_page.close()


@needs_browser
def test_layers_are_selected_by_keys_filmstrip_slider_wheel_and_playback(
    report_page: ReportPage, e: seewhy.Explanation
) -> None:
    page, last = report_page.page, len(e.layers) - 1
    canvas = page.locator("#panels canvas").first
    canvas.focus()
    presses = {"Home": 0, "ArrowRight": 1, "ArrowUp": 2, "ArrowLeft": 1, "End": last}
    for key, number in [*presses.items(), ("ArrowRight", last)]:
        page.keyboard.press(key)
        report_page.settle()
        assert page.inner_text("#layer-name") == e.layers[number]
    page.locator("#filmstrip button").nth(1).click()
    assert report_page.state["panels"][0]["layer"] == 1
    report_page.settle()
    assert page.locator("#filmstrip button[aria-current=true]").count() == 1
    page.locator("#layer").fill("3")
    report_page.settle()
    assert page.inner_text("#layer-name") == e.layers[3]
    canvas.hover()
    page.mouse.wheel(0, -50)
    report_page.wait_for("window.seewhy.state.panels[0].layer === 2")
    page.get_by_role("button", name="Play layers").click()
    report_page.wait_for(f"window.seewhy.state.panels[0].layer === {last}")
    page.get_by_role("button", name="Play layers").wait_for()


@needs_browser
def test_comparing_two_classes_shows_the_difference_of_their_maps(
    report_page: ReportPage, e: seewhy.Explanation
) -> None:
    page = report_page.page
    page.get_by_role("radio", name="Egyptian cat").check()
    page.get_by_label("Compare with").select_option(label="espresso")
    report_page.settle()
    assert "Egyptian cat vs. espresso" in page.inner_text("figcaption")
    assert page.inner_text("#evidence-label") == 'evidence for "Egyptian cat" minus evidence for "espresso"'
    values = report_page.run("Object.values(window.seewhy.getMap(window.seewhy.state.panels[0]).values)")
    contrast = seewhy.explain(
        seewhy.load_model(), seewhy.sample("cat_espresso"), layers="suggested", targets="Egyptian cat", versus="espresso",
        fit="crop",
    )  # fmt: skip
    expected = contrast.map().flatten()
    assert (torch.tensor(values) - expected).abs().max() <= expected.abs().max() / 60
    assert page.locator("#versus option:disabled").inner_text() == "Egyptian cat"  # not with itself
    page.get_by_role("button", name="Swap the two classes").click()
    report_page.settle()
    assert "espresso vs. Egyptian cat" in page.inner_text("figcaption")
    page.get_by_label("Method").select_option("layercam")  # not linear
    report_page.settle()
    assert page.get_by_label("Compare with").is_disabled() and report_page.state["panels"][0]["versus"] == -1


@needs_browser
def test_chart_shows_the_statistics_of_each_layer(report_page: ReportPage, e: seewhy.Explanation) -> None:
    page = report_page.page

    def read_bars(statistic: str) -> list[str]:
        page.get_by_label("Bars:").select_option(statistic)
        report_page.settle()
        titles: list[str] = report_page.run("[...document.querySelectorAll('#chart title')].map((t) => t.textContent)")
        return [title.partition(": ")[2] for title in titles]

    def value(text: str) -> float:
        return float(text.split()[-1].rstrip("%"))

    maps = [unpack(pack(e.map("gradcam", "espresso", layer).numpy())) for layer in e.layers]
    evidence = [100 * e.positive_evidence("gradcam", "espresso", layer) for layer in e.layers]
    titles = report_page.run("[...document.querySelectorAll('#chart title')].map((t) => t.textContent)")
    assert [title.partition(": ")[0] for title in titles] == list(e.layers)
    for text, expected in zip(read_bars("evidence"), evidence, strict=True):
        assert text.startswith("positive evidence") and value(text) == pytest.approx(expected, abs=0.06)
    for text, one in zip(read_bars("peak"), maps, strict=True):
        peak = float(one.max())
        assert text == "no evidence" if peak <= 0 else value(text) == pytest.approx(peak, rel=0.06)
    for text, one in zip(read_bars("area"), maps, strict=True):
        area = 100 * float((one >= one.max() / 2).mean())
        assert one.max() <= 0 or value(text) == pytest.approx(area, abs=0.06)
    resized = [map_functions.resize(torch.from_numpy(one)[None].clamp(min=0), (28, 28)).flatten() for one in maps]
    correlations = [float(torch.corrcoef(torch.stack([one, resized[-1]]))[0, 1]) for one in resized]
    for text, expected, one in zip(read_bars("correlation"), correlations, maps, strict=True):
        assert one.max() <= 0 or value(text) == pytest.approx(expected, abs=0.006)
    assert min(correlations) < 0.3
    buttons = page.locator("#first-correlated button").all_inner_texts()
    first, lasting = buttons[0], buttons[-1]
    correlated = [c >= 0.5 and one.max() > 0 for c, one in zip(correlations, maps, strict=True)]
    assert first == e.layers[correlated.index(True)]
    assert all(correlated[e.layers.index(lasting) :]) and not correlated[e.layers.index(lasting) - 1]
    page.locator("#first-correlated button").first.click()
    report_page.settle()
    assert page.inner_text("#layer-name") == first
    assert page.inner_text("#layer-statistics").count("·") == 3 and page.locator("#more-targets").is_hidden()
    report_page.run("window.seewhy.updatePanel({target: 1, versus: 0})")
    assert value(page.inner_text("#layer-statistics").split(" · ")[0]) != pytest.approx(evidence[-1], abs=0.5)


@needs_browser
def test_red_mark_is_explained_only_if_a_layer_has_flags(report_page: ReportPage, e: seewhy.Explanation) -> None:
    has_flags = [bool(e.flags("gradcam", "espresso", layer)) for layer in e.layers]
    assert report_page.page.locator("#chart .red-mark").count() == sum(has_flags)
    assert report_page.page.locator("#red-mark").is_visible() == any(has_flags)
    if any(has_flags):
        report_page.select_layer(has_flags.index(True))
        assert report_page.page.locator("#flags li").count() > 0


@needs_browser
def test_method_of_the_full_network_has_no_layer_controls(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    e = seewhy.explain(
        seewhy.load_model(), seewhy.sample("coffee"), methods=["fullgrad", "gradcam"], layers="conv_head",
        include_suggested=True,
    )  # fmt: skip
    e.report(path)
    report_page = ReportPage(browser, path.as_uri())
    page = report_page.page
    assert page.inner_text("#layer-name") == "network" and "no map" not in page.inner_text("#flags")
    assert page.locator("#filmstrip button:visible").count() == 0
    pixels = report_page.pixels()
    page.get_by_label("Method").select_option(label="gradcam")
    report_page.settle()
    assert page.inner_text("#layer-name") == e.suggested and not np.array_equal(pixels, report_page.pixels())
    assert page.locator("#filmstrip button:visible").count() == 2 and report_page.messages == []
    report_page.close()


@needs_browser
def test_printing_opens_all_details(report_page: ReportPage) -> None:
    assert report_page.page.locator("details[open]").count() == 0
    assert report_page.page.pdf()[:4] == b"%PDF"
    assert report_page.page.locator("details[open]").count() == 3


@needs_browser
def test_page_of_one_class_shows_the_option_for_more_and_a_default_run_has_three(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    seewhy.explain(seewhy.load_model(), seewhy.sample("coffee")).report(path)
    with pytest.raises(SystemExit):
        cli.main(["-q", "-l", "suggested", "-o", str(tmp_path), str(seewhy.sample("coffee"))])
    report_page = ReportPage(browser, path.as_uri())
    assert 'targets="top5"' in report_page.page.inner_text("#more-targets") and report_page.messages == []
    report_page.close()
    report_page = ReportPage(browser, (tmp_path / "coffee" / "report.html").as_uri())
    page = report_page.page
    assert page.locator("#more-targets").is_hidden() and page.locator("#targets input").count() == 3
    page.get_by_label("Compare with").select_option("cup")
    report_page.wait_for("document.querySelector('figcaption').textContent.startsWith('espresso vs. cup')")
    assert report_page.messages == []
    report_page.close()


@needs_browser
def test_panels_have_a_linked_cursor(report_page: ReportPage, e: seewhy.Explanation) -> None:
    page = report_page.page
    for _ in range(3):
        page.get_by_role("button", name="Add panel").click()
    assert page.get_by_role("button", name="Add panel").is_disabled()
    page.get_by_label("Method").select_option("hirescam")
    report_page.settle()
    assert [panel["method"] for panel in report_page.state["panels"]] == [0, 0, 0, 1]
    canvas = page.locator("#panels canvas").nth(0)
    frame = canvas.bounding_box()
    canvas.hover(position={"x": frame["width"] * 0.55, "y": frame["height"] * 0.5})
    left, top, right, bottom = e.view.box
    x, y = 0.55 * e.view.photo_size[1], 0.5 * e.view.photo_size[0]
    row, column = int((y - top) / (bottom - top) * 7), int((x - left) / (right - left) * 7)
    texts = page.inner_text("#cursor-values").split("|")
    assert len(texts) == 4 and all(f"cell {row},{column}:" in text for text in texts)
    for text, method in ((texts[0], "gradcam"), (texts[3], "hirescam")):
        value = float(text.split(":")[1].split("(")[0])
        signed_map = e.map(method, "espresso", e.suggested)
        assert value == pytest.approx(float(signed_map[row, column]), abs=float(signed_map.abs().max()) / 100)
    report_page.select_layer(0)  # the pointer does not move
    changed = page.inner_text("#cursor-values").split("|")
    assert changed[:3] == texts[:3] and changed[3] != texts[3]
    report_page.select_layer(e.layers.index(str(e.suggested)))
    canvas.hover(position={"x": 2, "y": frame["height"] * 0.5})
    assert page.inner_text("#cursor-values") == "Outside the model's input"
    page.get_by_role("button", name="Close this panel").first.click()
    assert len(report_page.state["panels"]) == 3


@needs_browser
def test_link_restores_the_state(browser: Any, report_page: ReportPage, address: str) -> None:
    report_page.page.get_by_role("button", name="Add panel").click()
    report_page.run("window.seewhy.updatePanel({layer: 2, target: 1, versus: 0})")
    changes = "{opacity: 0.5, colors: 'viridis', scale: 'all', smooth: false, threshold: 0.25}"
    report_page.run(f"window.seewhy.updateState({changes})")
    report_page.wait_for("location.hash.includes('threshold=0.25')")
    other = ReportPage(browser, report_page.page.evaluate("location.href"))
    for key in ("panels", "opacity", "colors", "scale", "smooth", "threshold", "active"):
        assert other.state[key] == report_page.state[key], key
    assert np.array_equal(other.pixels(1), report_page.pixels(1)) and other.messages == []
    other.close()
    for link in ("#panels=x", "#panels=%E0%A4%A,1,2,3&opacity=seven", "#active=99&colors=__proto__&scale=big", "#"):
        damaged = ReportPage(browser, address + link)
        assert damaged.messages == [] and len(damaged.state["panels"]) == 1 and damaged.state["scale"] == "own"
        assert damaged.state["colors"] == "inferno"
        damaged.close()


@needs_browser
def test_map_and_panels_can_be_downloaded(report_page: ReportPage, e: seewhy.Explanation, tmp_path: Path) -> None:
    for kind in ("NPY", "CSV", "PNG"):
        with report_page.page.expect_download() as download:
            report_page.page.get_by_role("button", name=kind, exact=True).click()
        name = f"cat_espresso.png_espresso_gradcam_{e.suggested}.{kind.lower()}"
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / kind)
    expected = unpack(pack(e.map("gradcam", "espresso", e.suggested).numpy()))
    np.testing.assert_allclose(np.load(tmp_path / "NPY"), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "CSV", delimiter=","), expected, rtol=1e-4, atol=1e-6)
    with Image.open(tmp_path / "PNG") as image:
        assert np.array_equal(np.array(image.convert("RGB")), report_page.pixels())


@needs_browser
@each_window
def test_page_fits_the_window(browser: Any, address: str, width: int, scheme: str) -> None:
    report_page = ReportPage(browser, address, width=width, scheme=scheme)
    assert report_page.width <= width
    report_page.page.get_by_role("button", name="Add panel").click()
    report_page.settle()
    assert report_page.width <= width and report_page.messages == []
    background = report_page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    report_page.close()


@needs_browser
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_page_is_accessible(browser: Any, address: str, scheme: str) -> None:
    report_page = ReportPage(browser, address, scheme=scheme)
    assert [report_page.run(check) for check in (UNNAMED_CONTROLS, DUPLICATE_IDS, LOW_CONTRAST)] == [[], [], []]
    report_page.close()


@needs_browser
def test_markup_in_names_is_displayed_as_text(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> None:
    image = dataclasses.replace(e.images[0], source=MARKUP)  # type: ignore[index]
    results = tuple(dataclasses.replace(result, name=f"{MARKUP}{result.key}") for result in e.target_results)
    changed = dataclasses.replace(e, images=(image,), target_results=results, notes=(MARKUP, "{data}{script}"))
    assert changed.report(tmp_path / "report.html").isascii()
    report_page = ReportPage(browser, (tmp_path / "report.html").as_uri(), width=360)
    page = report_page.page
    assert report_page.messages == [] and len(report_page.requests) == 1 and page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == Path(MARKUP).name
    assert page.locator("#targets bdi").first.inner_text() == f"{MARKUP}{e.target_results[0].key}"
    assert report_page.width <= 360
    report_page.close()


# Notebooks


@needs_browser
def test_notebook_shows_the_page_in_a_frame(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> None:
    bundle = e._repr_mimebundle_()
    assert bundle["text/plain"] == repr(e) and bundle["text/html"].isascii()
    (tmp_path / "notebook.html").write_text(f"<!doctype html><body>{bundle['text/html']}</body>")
    notebook = BrowserPage(browser, (tmp_path / "notebook.html").as_uri())
    frame = notebook.page.frames[1]
    frame.evaluate("window.seewhy.ready")
    frame.locator("#filmstrip button").nth(0).click()
    assert frame.evaluate("window.seewhy.state.panels[0].layer") == 0
    frame.evaluate("new Promise((done) => setTimeout(done, 150))")  # the state is saved 120 ms after the last change
    assert notebook.messages == []
    notebook.close()


def test_single_map_has_an_image_for_notebooks_without_html() -> None:
    e = seewhy.explain(seewhy.load_model(), seewhy.sample("coffee"))
    assert base64.b64decode(e._repr_mimebundle_()["image/png"])[:4] == b"\x89PNG"


def test_notebook_names_the_alternative_for_a_too_large_page(monkeypatch: pytest.MonkeyPatch) -> None:
    e = seewhy.explain(seewhy.load_model(), seewhy.sample("coffee"))
    monkeypatch.setattr(report, "MAX_FRAME", 1000)
    assert 'e.report("report.html")' in e._repr_mimebundle_()["text/html"]


def test_signal_has_no_page() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten()
    )
    e = seewhy.explain(net, torch.rand(1, 1, 20))
    assert "text/html" not in e._repr_mimebundle_() and not report.has_page(e)
    with pytest.raises(UsageError, match="the page needs an image"):
        e.report()


# Strips


def clip_explanation(frames: int = 5) -> seewhy.Explanation:
    """Explain a network whose map is bright in the last frame."""
    network, clip = make("recurrent", 1)
    moving = torch.stack([clip[0, 0] * 0.1 + number for number in range(frames)])[None]
    return seewhy.explain(network, moving, targets=[1, 2], layers=["cnn.0", "cnn"], methods=["gradcam", "hirescam"])


def test_strip_arranges_slices_and_maps() -> None:
    strip = Strip((6, 4, 3), (0, 2, 5), 2)
    assert strip.view.input_size == (8, 6)
    slices = np.arange(3)[:, None, None] * np.ones((3, 4, 3))
    assert (
        strip.arrange(slices).tolist()[0] == [0, 0, 0, 1, 1, 1]
        and strip.arrange(slices).tolist()[4] == [2] * 3 + [0] * 3
    )
    maps = torch.arange(6.0)[:, None, None] * torch.ones(6, 2, 1)
    assert strip.arrange_map(maps).tolist() == [[0, 2], [0, 2], [5, 0], [5, 0]]
    large = torch.rand(6, 100, 3)
    assert strip.arrange_map(large).shape == (2 * 28, 6)
    assert strip.arrange_map(large)[28:, :3].mean() == pytest.approx(float(large[5].mean()), rel=1e-5)


def test_a_long_clip_has_evenly_spaced_frames() -> None:
    e = clip_explanation(90)
    assert len(strip_of(e).chosen) == 36 and strip_of(e).chosen[-1] > 85
    assert report.has_page(e) and "<iframe" in e._repr_mimebundle_()["text/html"]


@needs_browser
def test_frames_of_a_strip_do_not_mix(browser: Any, tmp_path: Path) -> None:
    """Each frame shows its own map, resized within the frame, on one scale for the clip."""
    e = clip_explanation()
    e.report(tmp_path / "clip.html")
    page = ReportPage(browser, (tmp_path / "clip.html").as_uri())
    strip = strip_of(e)
    page.run("window.seewhy.updateState({opacity: 0})")
    photo = Image.fromarray(page.pixels())
    assert photo.size == draw_strip(e, strip).size
    page.run("window.seewhy.updateState({opacity: 0.85})")
    tile = photo.height // strip.rows, photo.width // strip.columns
    for method in ("gradcam", "hirescam"):
        page.run(f"window.seewhy.updatePanel({{layer: 1, method: {e.methods.index(method)}}})")
        found = page.pixels().astype(int)
        clipped = e.map(method, 1, "cnn")[0].clamp(min=0).float()
        maximum = max(float(map_functions.resize(one[None], e.size[1:]).amax()) for one in clipped)
        for place, number in enumerate(strip.chosen):
            row, column = divmod(place, strip.columns)
            at = (slice(row * tile[0], (row + 1) * tile[0]), slice(column * tile[1], (column + 1) * tile[1]))
            part = Image.fromarray(np.array(photo)[at])
            heatmap = (View.identity(e.size[1:]).to_photo(clipped[number].numpy(), tile) / maximum).clip(0, 1)
            expected = np.array(draw_overlay(part, heatmap, OverlayStyle(), (0, 0, *part.size))).astype(int)
            assert np.abs(found[at] - expected).max() <= 6, (method, number)
    assert page.messages == []
    page.close()


# The index


@needs_browser
def test_index_lists_all_images_and_sorts(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    special = "<b>&{data} 100% #1 🌳.png"
    for name, source in (("a.png", "coffee"), (special, "cat_espresso")):
        with Image.open(seewhy.sample(source)) as image:
            image.resize((160, 120)).save(name)
    Path("broken.png").write_text("not an image")
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["a.png", "broken.png", special, "-l", "suggested", "-q", "-o", "out here"])
    assert exit_info.value.code == 1
    index = BrowserPage(browser, (tmp_path / "out here" / "index.html").as_uri(), width=700)
    page = index.page

    def names() -> list[str]:
        return [text.strip() for text in page.locator("tbody td:nth-child(2)").all_inner_texts()]

    assert sorted(names()) == sorted(["a.png", "broken.png", special])
    page.get_by_role("button", name="Probability").click()
    assert names() == ["broken.png", special, "a.png"]
    page.get_by_role("button", name="Probability").click()
    assert names() == ["a.png", special, "broken.png"]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Probability")
    broken = page.locator("tbody tr").nth(2)
    assert "not an image" in broken.inner_text() and broken.get_by_role("link").count() == 0
    page.set_viewport_size({"width": 360, "height": 800})
    assert index.width <= 360 and page.evaluate(LOW_CONTRAST) == []
    page.locator("tbody tr").nth(1).get_by_role("link").first.click()
    page.wait_for_url("**/report.html*")
    assert page.title() == special and index.messages == []
    index.close()
