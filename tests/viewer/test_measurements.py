"""What was measured, on the page: the measured map, the covered windows, and removal curves."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.explanation.page_effects import measured_page_maps
from seewhy.explanation.windows import MODES, WindowDrops
from seewhy.rendering.overlays import OverlayStyle, draw_overlay
from seewhy.tensors import map_functions
from seewhy.trust.metrics.removal_metrics import srg
from seewhy.viewer import pack, unpack
from support.browser import DUPLICATE_IDS, LOW_CONTRAST, UNNAMED_CONTROLS, BrowserPage, each_window, needs_browser
from support.removal import with_curves

SETTLE = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))"


@pytest.fixture(scope="module")
def plain(embedded: seewhy.LoadedModel) -> seewhy.Explanation:
    return seewhy.explain(
        embedded, seewhy.sample("cat_espresso"), methods=["gradcam", "hirescam"], layers=["blocks.2.1", "blocks.4.2"],
        targets=["espresso", "Egyptian cat"], include_suggested=True, fit="crop",
    )  # fmt: skip


@pytest.fixture(scope="module")
def e(plain: seewhy.Explanation, embedded: seewhy.LoadedModel) -> seewhy.Explanation:
    checked = with_curves(seewhy.trust.check(embedded, plain), embedded.module)
    last = (checked.methods[1], checked.targets[0], checked.layers[0])
    return dataclasses.replace(checked, curves={key: value for key, value in checked.curves.items() if key != last})


class MeasuredPage(BrowserPage):
    def __init__(
        self, browser: Any, e: seewhy.Explanation, folder: Path, width: int = 1280, scheme: str = "light"
    ) -> None:
        e.report(folder / "report.html")
        super().__init__(browser, (folder / "report.html").as_uri(), width, scheme)
        self.page.evaluate("window.seewhy.ready")
        self.page.evaluate(SETTLE)

    def run(self, script: str) -> Any:
        result = self.page.evaluate(script)
        self.page.evaluate(SETTLE)
        return result

    def select(self, **panel: int) -> None:
        self.run(f"window.seewhy.updatePanel({json.dumps(panel)})")

    def pixels(self) -> np.ndarray[Any, Any]:
        url = self.page.evaluate("document.querySelector('#panels canvas').toDataURL('image/png')")
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            return np.array(image.convert("RGB")).astype(int)


@pytest.fixture
def page(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> Iterator[MeasuredPage]:
    opened = MeasuredPage(browser, e, tmp_path)
    yield opened
    assert opened.messages == [] and len(opened.requests) == 1
    opened.close()


def data_of(e: seewhy.Explanation) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', e.report())
    assert match is not None
    return dict(json.loads(match[1]))


# The measured map


@needs_browser
def test_the_measured_map_is_drawn_as_in_python(page: MeasuredPage, e: seewhy.Explanation) -> None:
    page.run("window.seewhy.updateState({opacity: 0})")
    photo = Image.fromarray(page.pixels().astype(np.uint8))
    size = (photo.height, photo.width)
    page.run("window.seewhy.updateState({opacity: 0.85})")
    for target, result in enumerate(e.target_results):
        page.select(target=target, layer=len(e.layers), method=target)
        positive = unpack(pack(e.measured_map(result.key).numpy())).clip(min=0)
        maximum = float(map_functions.resize(torch.from_numpy(positive)[None], e.size).amax())
        heatmap = (e.view.to_photo(positive, size) / maximum).clip(0, 1)
        expected = np.array(draw_overlay(photo, heatmap, OverlayStyle(), e.view.visible_box_at(size))).astype(int)
        assert np.abs(page.pixels() - expected).max() <= 3
        assert np.abs(expected - np.array(photo)).max() > 50
    assert page.page.evaluate("window.seewhy.state.panels[0].method") == 1  # any method selects the same map


@needs_browser
def test_the_measured_map_is_labeled(page: MeasuredPage, e: seewhy.Explanation) -> None:
    assert page.page.inner_text("#least-label") == "none"
    page.select(layer=len(e.layers))
    text = page.page.inner_text("figcaption")
    assert text == "espresso · measured map · coarse: regions of 3/8 of the side"
    assert page.page.inner_text("#least-label") == "average or less"
    assert page.page.inner_text("#evidence-label") == 'covering lowers "espresso" most'
    assert page.page.inner_text("#verdict").startswith("Measured: where covering parts of the image lowers the score")
    assert page.page.inner_text("#layer-details") == "4 of 4 · coarse: regions of 3/8 of the side · 14×14"
    statistics = page.page.inner_text("#layer-statistics")
    assert "correlation" in statistics and "peak 0" not in statistics and "evidence" not in statistics
    titles = page.run("[...document.querySelectorAll('#chart title')].map((title) => title.textContent)")
    assert titles[-1].startswith("measured map: correlation 0.") or titles[-1].startswith(
        "measured map: correlation -0."
    )
    page.run("window.seewhy.updateState({chart: 'evidence'})")
    titles = page.run("[...document.querySelectorAll('#chart title')].map((title) => title.textContent)")
    assert titles[-1] == "measured map: not defined" and page.page.locator("#chart .bar.measured.current").count() == 1
    with page.page.expect_download() as download:
        page.page.get_by_role("button", name="NPY", exact=True).click()
    assert download.value.suggested_filename == "cat_espresso.png_espresso_measured-map.npy"
    expected = unpack(pack(e.measured_map("espresso").numpy()))
    np.testing.assert_allclose(np.load(download.value.path()), expected, rtol=1e-4, atol=1e-6)
    canvas = page.page.locator("#panels canvas")
    frame, (left, top, right, bottom) = canvas.bounding_box(), e.view.box
    height, width = e.view.photo_size
    row, column = divmod(int(e.measured_map("espresso").argmin()), 14)
    x, y = left + (column + 0.5) / 14 * (right - left), top + (row + 0.5) / 14 * (bottom - top)
    canvas.hover(position={"x": x / width * frame["width"], "y": y / height * frame["height"]})
    assert page.page.inner_text("#cursor-values").startswith(f"cell {row},{column}: -")
    assert page.page.inner_text("#cursor-values").endswith("(less than average)")


@needs_browser
def test_the_measured_map_follows_the_last_layer(page: MeasuredPage, e: seewhy.Explanation) -> None:
    last = len(e.layers)
    assert (
        page.page.evaluate("window.seewhy.state.panels[0].layer") == last - 1
    )  # the suggested layer is selected at first
    page.page.locator("#panels canvas").focus()
    for key, layer in {"ArrowRight": last, "ArrowLeft": last - 1, "End": last, "Home": 0}.items():
        page.page.keyboard.press(key)
        assert page.page.evaluate("window.seewhy.state.panels[0].layer") == layer, key
    page.page.get_by_role("button", name="Measured map").click()
    page.run("0")
    assert page.page.inner_text("#layer-name") == "measured map"
    assert page.page.locator("#filmstrip button.measured[aria-current=true] canvas").count() == 1
    page.page.get_by_label("Compare with").select_option(label="Egyptian cat")  # a difference was not measured
    page.run("0")
    assert page.page.inner_text("#layer-name") == e.suggested
    assert not page.page.get_by_role("button", name="Measured map").is_visible()
    assert page.page.evaluate("document.getElementById('layer').max") == str(last - 1)
    page.select(versus=-1, layer=last)
    link = page.page.evaluate("new Promise((done) => setTimeout(() => done(location.href), 200))")
    other = BrowserPage(page.page.context.browser, link)
    other.page.evaluate("window.seewhy.ready")
    assert other.page.inner_text("#layer-name") == "measured map" and other.messages == []
    other.close()


@needs_browser
def test_scales_of_the_measured_map_and_of_methods_do_not_mix(page: MeasuredPage, e: seewhy.Explanation) -> None:
    page.select(layer=len(e.layers))
    own = page.pixels()
    page.run("window.seewhy.updateState({scale: 'layer'})")
    shared = page.pixels()
    page.run("window.seewhy.updateState({scale: 'all'})")
    assert np.array_equal(page.pixels(), shared)
    peaks = [float(e.measured_map(target).max()) for target in e.targets]
    assert np.array_equal(own, shared) == (peaks[0] >= peaks[1] - 0.01)


@needs_browser
def test_a_target_without_a_measured_map(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> None:
    drops = {e.targets[0]: e.drops[e.targets[0]], e.targets[1]: (WindowDrops(reason="the model fails"),)}
    page = MeasuredPage(browser, dataclasses.replace(e, drops=drops), tmp_path)
    button = page.page.locator("#filmstrip button.measured")
    assert button.is_visible()
    page.page.locator("#covering summary").click()
    page.select(target=1)
    assert not button.is_visible() and not page.page.is_visible("#window-groups")
    assert page.page.inner_text("#window-text") == "Nothing to compare: the model fails."
    page.select(target=0)
    assert button.is_visible() and page.page.is_visible("#window-groups") and page.messages == []
    page.close()


class Cropping(nn.Module):
    """Sees a part of its input only."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.net(image[..., 8:40, 16:40])
        return result


def test_a_measured_map_is_cropped_to_the_region_that_the_network_sees() -> None:
    torch.manual_seed(0)
    model, image = Cropping(), torch.rand(1, 1, 48, 48)
    image[..., 20:30, 20:30] *= 5
    target = next(number for number in (0, 1) if not check_target(model, image, number).drops[str(number)][0].reason)
    e = check_target(model, image, target)
    region = e.layer_info["net.0"].region
    assert region is not None and region.box == ((8, 40), (16, 40))
    (one,) = measured_page_maps(e, region)
    full = map_functions.resize(e.measured_map()[None], (48, 48))[0]
    np.testing.assert_allclose(unpack(one.values), full[8:40, 16:40].numpy(), atol=float(full.abs().max()) / 120)
    data = data_of(e)
    assert data["view"]["box"] == [16, 8, 40, 40] and data["covering"]["box"] == [0, 0, 48, 48]


def check_target(model: nn.Module, image: Tensor, target: int) -> seewhy.Explanation:
    return seewhy.trust.check(model, seewhy.explain(model, image, layers="net.0", targets=target))[0]


# Windows


@needs_browser
def test_windows_are_outlined_and_described(page: MeasuredPage, e: seewhy.Explanation) -> None:
    assert not page.page.locator("#covering").evaluate("(node) => node.open")  # quiet until it is opened
    page.page.locator("#covering summary").click()
    drops = e.drops[e.targets[0]][0]
    text = page.page.inner_text("#window-text")
    assert (
        text.startswith('Everything covered: the log-odds of "espresso" drop by') and f"{drops.everything:.3g}" in text
    )
    buttons = page.page.locator(".window-grid button")
    assert buttons.count() == 27 and page.page.locator(".window-layer").count() == 0
    (_, width), (left, top, right, bottom) = e.view.photo_size, e.view.box
    frame = page.page.locator("#panels canvas").bounding_box()
    for index in (0, 5, 13, 18, 26):
        mode, (row, column) = MODES[index // 9], divmod(index % 9, 3)
        buttons.nth(index).hover()
        start = "Only this window visible" if mode.keeps else "This window covered"
        verb = "rise" if drops.values[index] < 0 else "drop"
        shown = page.page.inner_text("#window-text")
        assert shown.startswith(f'{start}: the log-odds of "espresso" {verb} by ')
        assert float(shown.rstrip(".").split()[-1]) == pytest.approx(abs(drops.values[index]), rel=0.01)
        box = page.page.locator(".window-marker").bounding_box()
        x, y = left + mode.starts[column] * (right - left), top + mode.starts[row] * (bottom - top)
        found = [box["x"] - frame["x"], box["y"] - frame["y"], box["width"], box["height"]]
        scale = frame["width"] / width
        expected = [x * scale, y * scale, mode.side * (right - left) * scale, mode.side * (bottom - top) * scale]
        assert found == pytest.approx(expected, abs=1.5)
    page.page.mouse.move(5, 5)
    assert page.page.locator(".window-layer").count() == 0
    strengths = page.run(
        "[...document.querySelectorAll('.window-grid button')].map((b) => parseInt(b.style.getPropertyValue('--strength')))"
    )
    for number, mode in enumerate(MODES):
        values = np.array(drops.values[9 * number : 9 * number + 9])
        own = strengths[9 * number : 9 * number + 9]
        assert own[int(values.argmin())] == (100 if mode.keeps else 0)
        assert own[int(values.argmax())] == (0 if mode.keeps else 100)
    page.select(target=1)
    other = e.drops[e.targets[1]][0]
    assert f"{other.everything:.3g}" in page.page.inner_text("#window-text")
    assert '"Egyptian cat"' in str(buttons.nth(0).get_attribute("aria-label"))


@needs_browser
def test_windows_are_selected_with_the_keyboard(page: MeasuredPage, e: seewhy.Explanation) -> None:
    page.page.locator("#covering summary").focus()
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("Tab")  # each of the three modes is one tab stop
    layer = page.page.evaluate("window.seewhy.state.panels[0].layer")
    focused = "[...document.querySelectorAll('.window-grid button')].indexOf(document.activeElement)"
    for key, index in [
        ("ArrowRight", 1),
        ("ArrowDown", 4),
        ("ArrowDown", 7),
        ("ArrowDown", 7),
        ("ArrowLeft", 6),
        ("Tab", 9),
    ]:
        page.page.keyboard.press(key)
        assert page.page.evaluate(focused) == index, key
        assert page.page.locator(".window-marker").count() == 1
    assert page.page.evaluate("window.seewhy.state.panels[0].layer") == layer
    assert page.page.inner_text("#window-text") == page.page.locator(".window-grid button").nth(9).get_attribute(
        "aria-label"
    )
    page.page.keyboard.press("Shift+Tab")
    assert page.page.evaluate(focused) == 6  # the window that had the focus before


@needs_browser
def test_pointing_at_the_map_marks_the_windows_there(page: MeasuredPage, e: seewhy.Explanation) -> None:
    canvas = page.page.locator("#panels canvas")
    canvas.hover()
    assert page.page.locator(".at-pointer").count() == 0  # the windows are hidden
    page.page.locator("#covering summary").click()
    frame, (left, top, right, bottom) = canvas.bounding_box(), e.view.box
    x, y = left + 0.9 * (right - left), top + 0.2 * (bottom - top)
    height, width = e.view.photo_size
    canvas.hover(position={"x": x / width * frame["width"], "y": y / height * frame["height"]})
    marked = page.run(
        "[...document.querySelectorAll('.window-grid button')].flatMap((b, i) => b.className.includes('at-pointer') ? [i] : [])"
    )
    assert marked == [2, 11, 20]  # the windows in the upper right corner
    drop = e.drops[e.targets[0]][0].values[20]
    text = page.page.inner_text("#window-text")
    assert text.startswith("The window around the pointer covered: ") and f"{abs(drop):.3g}" in text
    page.page.mouse.move(5, 5)
    assert page.page.locator(".at-pointer").count() == 0 and "Everything covered" in page.page.inner_text(
        "#window-text"
    )


# Removal curves


def shown_area(page: MeasuredPage) -> float:
    return float(page.page.inner_text("#removal-area").rpartition(" ")[2])


@needs_browser
def test_curves_of_the_selected_map_are_drawn(page: MeasuredPage, e: seewhy.Explanation) -> None:
    for (method, target, layer), (fillers,) in e.curves.items():
        page.select(method=e.methods.index(method), target=e.targets.index(target), layer=e.layers.index(layer))
        for filler, curves in fillers.items():
            page.page.get_by_label("Covered parts show:").select_option(filler)
            assert shown_area(page) == pytest.approx(srg(curves), abs=0.001)
    titles = page.run("[...document.querySelectorAll('.curve-point.most title')].map((title) => title.textContent)")
    curve = curves.most_first
    assert len(titles) == len(curve.fractions)
    for text, fraction, score in zip(titles, curve.fractions, curve.scores, strict=True):
        words = text.replace(":", "").split()
        assert text.startswith("most important first, ") and float(words[3].rstrip("%")) == pytest.approx(
            100 * fraction, abs=0.6
        )
        assert float(words[-1]) == pytest.approx(score, rel=0.01, abs=1e-6)
    random = e.random_curves[target][0][filler]
    assert page.page.locator(".curve-point.random").count() == len(random.fractions)
    text = page.page.locator("#removal").inner_text()
    for words in ("fraction covered", "score", "most important first", "least important first", "random order"):
        assert words in text
    page.select(layer=len(e.layers))
    assert not page.page.is_visible("#removal")  # the measured map orders nothing
    page.select(layer=0, method=1, target=0)
    assert not page.page.is_visible("#removal")  # this map has no curves
    page.select(layer=0, method=0, target=0)
    assert page.page.is_visible("#removal") and page.page.get_by_label("Covered parts show:").input_value() == "mean"
    page.select(versus=1)
    assert not page.page.is_visible("#removal")


@needs_browser
def test_one_filler_needs_no_choice_and_random_curves_may_be_missing(
    browser: Any, plain: seewhy.Explanation, e: seewhy.Explanation, tmp_path: Path
) -> None:
    curves = {key: ({"__proto__": fillers["blur"]},) for key, (fillers,) in e.curves.items()}  # a name like any other
    changed = dataclasses.replace(plain, curves=curves, random_curves=e.random_curves)
    page = MeasuredPage(browser, changed, tmp_path)
    assert page.page.is_visible("#removal-chart svg") and not page.page.is_visible("#filler-row")
    assert page.page.locator(".curve-point.random").count() == 0
    assert "random order" not in page.page.locator(".curve-keys").inner_text()
    assert page.page.locator("#covering, #filmstrip .measured").count() == 0 and page.messages == []
    page.close()


# The page


@needs_browser
@each_window
def test_the_page_fits_and_is_accessible(
    browser: Any, e: seewhy.Explanation, tmp_path: Path, width: int, scheme: str
) -> None:
    page = MeasuredPage(browser, e, tmp_path, width, scheme)
    page.page.locator("#covering summary").click()
    for layer in (len(e.layers) - 1, len(e.layers)):
        page.select(layer=layer)
        assert page.width <= width
        assert [page.run(check) for check in (UNNAMED_CONTROLS, DUPLICATE_IDS, LOW_CONTRAST)] == [[], [], []]
    assert page.messages == []
    page.close()


def test_a_page_without_check_and_curves_contains_neither(plain: seewhy.Explanation, e: seewhy.Explanation) -> None:
    data, full = data_of(plain), data_of(e)
    assert not {"covering", "random_curves"} & data.keys() and {"covering", "random_curves"} <= full.keys()
    assert len(data["layers"]) == len(plain.layers) and len(full["layers"]) == len(plain.layers) + 1
    assert {len(entry) for entry in data["maps"]} == {11} and len(data["maps"]) == len(plain.maps)
    assert len(json.dumps(full)) - len(json.dumps(data)) < 40_000


def test_clips_have_no_measured_map() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    e = seewhy.trust.check(model, seewhy.explain(model, torch.rand(1, 1, 6, 16, 16), layers="0", targets=0))
    data = data_of(e[0])
    assert "covering" not in data and len(data["layers"]) == 1


def test_loaded_explanations_have_the_same_page(e: seewhy.Explanation, tmp_path: Path) -> None:
    e.save(tmp_path / "run")
    loaded, data = data_of(seewhy.load_explanation(tmp_path / "run")), data_of(e)
    for name in ("covering", "random_curves", "layers"):
        assert loaded[name] == data[name]
    assert [entry[11:] for entry in loaded["maps"]] == [entry[11:] for entry in data["maps"]]
