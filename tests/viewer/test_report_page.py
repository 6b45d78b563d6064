"""The explorable page in a real browser."""

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
from seewhy import tensors
from seewhy.cli import main as cli
from seewhy.errors import UsageError
from seewhy.explanation import report
from seewhy.rendering import overlays as render
from seewhy.viewer import pack, unpack
from support.browser import DOUBLE, FAINT, NAMELESS, Watched, needs_browser

METHODS = ["gradcam", "hirescam", "layercam"]


@pytest.fixture(scope="module")
def e() -> seewhy.Explanation:
    return seewhy.explain(
        seewhy.load_model(), seewhy.sample("cat_espresso"), methods=METHODS, layers=["blocks.*.0.conv_dw", "conv_stem"],
        targets=["espresso", "Egyptian cat", "tabby"], include_suggested=True, fit="crop",
    )  # fmt: skip


class Opened(Watched):
    """The page of an explanation in the browser."""

    def __init__(self, browser: Any, address: str, *, width: int = 1280, scheme: str = "light") -> None:
        super().__init__(browser, address, width, scheme)
        self.page.evaluate("window.seewhy.ready")
        self.settle()

    def settle(self) -> None:
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))"
        )

    def do(self, script: str) -> Any:
        found = self.page.evaluate(script)
        self.settle()
        return found

    def until(self, expected: Any, *path: Any) -> None:
        """Wait until a part of the state is as expected."""
        for _ in range(200):
            found = self.state
            for part in path:
                found = found[part]
            if found == expected:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{path} is {found}, not {expected}")

    @property
    def state(self) -> Any:
        return self.page.evaluate("window.seewhy.state")

    def pixels(self, panel: int = 0) -> NDArray[np.uint8]:
        """A panel's canvas, (H, W, 3)."""
        text = self.page.evaluate(f"document.querySelectorAll('#panels canvas')[{panel}].toDataURL('image/png')")
        with Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))) as picture:
            return np.array(picture.convert("RGB"))


@pytest.fixture(scope="module")
def address(e: seewhy.Explanation, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    e.report(path)
    return path.as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    found = Opened(browser, address)
    yield found
    assert found.said == [] and found.asked == [address]
    found.page.context.close()


# Packing


@pytest.mark.parametrize("shape", [(7, 7), (56, 3), (112, 112), (57, 113), (1, 1)])
def test_packed_maps_keep_each_sign(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*shape, generator=generator)
    values = torch.where(values > 0, values, values * 1000)  # little evidence among much that speaks against
    found = unpack(pack(values.numpy()))
    size = tuple(min(56, length) for length in shape)
    assert found.shape == size
    expected = (
        torch.nn.functional.interpolate(values[None, None], size, mode="area")[0, 0] if shape == (112, 112) else None
    )
    if shape == size:
        expected = values
    if expected is not None:
        for sign in (1, -1):
            part = (expected * sign).clamp(min=0)
            error = ((torch.from_numpy(found) * sign).clamp(min=0) - part).abs().max()
            assert error <= part.max() / 253, sign
    assert float(found.mean(dtype=np.float64)) == pytest.approx(float(values.double().mean()), rel=0.02, abs=2)


def test_maps_without_a_sign_or_a_number() -> None:
    assert unpack(pack(np.zeros((2, 2), np.float32))).tolist() == [[0, 0], [0, 0]]
    assert unpack(pack(np.full((1, 2), -3.0, np.float32))).tolist() == [[-3, -3]]
    assert np.isfinite(unpack(pack(np.array([[np.nan, np.inf, 1.0]], np.float32)))).all()


# The page


@needs_browser
def test_it_opens_from_disk_and_asks_for_nothing(opened: Opened, e: seewhy.Explanation) -> None:
    assert opened.page.title() == "cat_espresso.png"
    shown = opened.state["panels"]
    assert shown == [{"method": 0, "target": 0, "versus": -1, "layer": e.layers.index(e.suggested or "")}]
    assert opened.page.inner_text("#layer-name") == e.suggested
    opened.page.wait_for_timeout(300)


@needs_browser
def test_the_overlay_is_that_of_python(opened: Opened, e: seewhy.Explanation) -> None:
    opened.do("window.seewhy.change({opacity: 0})")
    photo = Image.fromarray(opened.pixels())
    opened.do("window.seewhy.change({opacity: 0.8})")
    size = (photo.height, photo.width)
    for layer in (e.layers[0], e.layers[3], e.suggested):
        for method in ("gradcam", "layercam"):
            opened.do(
                f"window.seewhy.change({{layer: {e.layers.index(str(layer))}, method: {e.methods.index(method)}}}, true)"
            )
            low = unpack(pack(e.map(method, "espresso", layer).numpy())).clip(min=0)
            top = float(tensors.resize(torch.from_numpy(low)[None], e.size).amax())
            heat = (e.view.to_photo(low, size) / top).clip(0, 1)
            expected = render.draw_overlay(photo, heat, render.OverlayStyle(), e.view.visible_box_at(size))
            difference = np.abs(opened.pixels().astype(int) - np.array(expected).astype(int))
            assert difference.max() <= 3 and np.abs(np.array(expected).astype(int) - np.array(photo)).max() > 50


@needs_browser
def test_one_moves_through_the_layers(opened: Opened, e: seewhy.Explanation) -> None:
    last = len(e.layers) - 1
    canvas = opened.page.locator("#panels canvas").first
    canvas.focus()
    for key, place in (
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", last),
        ("ArrowRight", last),
    ):
        opened.page.keyboard.press(key)
        opened.settle()
        assert opened.page.inner_text("#layer-name") == e.layers[place]
    opened.page.locator("#strip button").nth(1).click()
    assert opened.state["panels"][0]["layer"] == 1
    opened.settle()
    assert opened.page.locator("#strip button[aria-current=true]").count() == 1
    opened.page.locator("#layer").fill("3")
    opened.settle()
    assert opened.page.inner_text("#layer-name") == e.layers[3]
    canvas.hover()
    opened.page.mouse.wheel(0, -50)
    opened.until(2, "panels", 0, "layer")
    opened.page.get_by_role("button", name="Play the depth").click()
    opened.until(last, "panels", 0, "layer")
    opened.page.get_by_role("button", name="Play the depth").wait_for()


@needs_browser
def test_a_contrast_is_the_difference_of_two_maps(opened: Opened, e: seewhy.Explanation) -> None:
    opened.page.get_by_role("radio", name="Egyptian cat").check()
    opened.page.get_by_label("rather than").select_option(label="espresso")
    opened.settle()
    assert "Egyptian cat rather than espresso" in opened.page.inner_text("figcaption")
    shown = opened.do("Object.values(window.seewhy.mapOf(window.seewhy.state.panels[0]).values)")
    asked = seewhy.explain(
        seewhy.load_model(), seewhy.sample("cat_espresso"), layers="suggested", targets="Egyptian cat", versus="espresso",
        fit="crop",
    )  # fmt: skip
    expected = asked.map().flatten()
    assert (torch.tensor(shown) - expected).abs().max() <= expected.abs().max() / 60
    assert opened.page.locator("#versus option:disabled").inner_text() == "Egyptian cat"  # not rather than itself
    opened.page.get_by_role("button", name="The other way round").click()
    opened.settle()
    assert "espresso rather than Egyptian cat" in opened.page.inner_text("figcaption")
    opened.page.get_by_label("Method").select_option("layercam")
    opened.settle()
    assert opened.page.get_by_label("rather than").is_disabled() and opened.state["panels"][0]["versus"] == -1


@needs_browser
def test_the_chart_shows_numbers_of_each_layer(opened: Opened, e: seewhy.Explanation) -> None:
    def shown(kind: str) -> list[str]:
        opened.page.get_by_label("Bars:").select_option(kind)
        opened.settle()
        texts: list[str] = opened.do("[...document.querySelectorAll('#chart title')].map(title => title.textContent)")
        return texts

    maps = [e.map("gradcam", "espresso", layer) for layer in e.layers]
    shares = [100 * e.positive_evidence("gradcam", "espresso", layer) for layer in e.layers]
    for text, layer, share in zip(shown("share"), e.layers, shares, strict=True):
        assert text.startswith(f"{layer}: ") and text.endswith(" % positive")
        assert float(text.split(": ")[1].split(" ")[0]) == pytest.approx(share, abs=0.06)
    for text, layer, map_ in zip(shown("peak"), e.layers, maps, strict=True):
        top = float(unpack(pack(map_.numpy())).max())
        assert (
            text == f"{layer}: nothing" if top <= 0 else float(text.split("peak ")[1]) == pytest.approx(top, rel=0.06)
        )
    spread = [unpack(pack(map_.numpy())) for map_ in maps]
    expected = [100 * float((one >= one.max() / 2).mean()) for one in spread]
    for text, value, one in zip(shown("spread"), expected, spread, strict=True):
        assert one.max() <= 0 or float(text.split(": ")[1].split(" ")[0]) == pytest.approx(value, abs=0.06)
    ends = [tensors.resize(torch.from_numpy(one)[None].clamp(min=0), (28, 28)).flatten() for one in spread]
    likes = [float(torch.corrcoef(torch.stack([heat, ends[-1]]))[0, 1]) for heat in ends]
    for text, like, one in zip(shown("like"), likes, spread, strict=True):
        assert one.max() <= 0 or float(text.split("likeness ")[1]) == pytest.approx(like, abs=0.006)
    assert min(likes) < 0.3  # an even wash is like nothing
    buttons = opened.page.locator("#arrival button").all_inner_texts()
    first, lasting = buttons[0], buttons[-1]
    clear = [like >= 0.5 and one.max() > 0 for like, one in zip(likes, spread, strict=True)]
    assert first == e.layers[clear.index(True)]
    assert all(clear[e.layers.index(lasting) :]) and not clear[e.layers.index(lasting) - 1]
    opened.page.locator("#arrival button").first.click()
    opened.settle()
    assert opened.page.inner_text("#layer-name") == first
    assert opened.page.inner_text("#numbers").count("·") == 3 and opened.page.locator("#more").is_hidden()
    opened.do("window.seewhy.change({target: 1, versus: 0}, true)")
    assert float(opened.page.inner_text("#numbers").split(" %")[0]) != pytest.approx(shares[-1], abs=0.5)


@needs_browser
def test_a_method_of_the_whole_network_comes_first(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    e = seewhy.explain(
        seewhy.load_model(),
        seewhy.sample("coffee"),
        methods=["fullgrad", "gradcam"],
        layers="conv_head",
        include_suggested=True,
    )
    e.report(path)
    found = Opened(browser, path.as_uri())
    assert found.page.inner_text("#layer-name") == "network" and "no map" not in found.page.inner_text("#flags")
    assert found.page.locator("#strip button:visible").count() == 0  # nothing to choose
    plain = found.pixels()
    found.page.get_by_label("Method").select_option(label="gradcam")
    found.settle()
    assert found.page.inner_text("#layer-name") == e.suggested and not np.array_equal(plain, found.pixels())
    assert found.page.locator("#strip button:visible").count() == 2 and found.said == []


@needs_browser
def test_all_of_it_is_printed(opened: Opened) -> None:
    assert opened.page.locator("details[open]").count() == 0
    assert opened.page.pdf()[:4] == b"%PDF"
    assert opened.page.locator("details[open]").count() == 3


@needs_browser
def test_of_one_class_the_page_says_how_to_get_others(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    seewhy.explain(seewhy.load_model(), seewhy.sample("coffee")).report(path)
    found = Opened(browser, path.as_uri())
    assert 'targets="top5"' in found.page.inner_text("#more") and found.said == []
    with pytest.raises(SystemExit):
        cli.main(["-q", "-l", "suggested", "-o", str(tmp_path), str(seewhy.sample("coffee"))])
    found = Opened(browser, (tmp_path / "coffee" / "report.html").as_uri())
    assert "--targets top5" in found.page.inner_text("#more") and found.said == []


@needs_browser
def test_panels_side_by_side_share_a_cursor(opened: Opened, e: seewhy.Explanation) -> None:
    for _ in range(3):
        opened.page.get_by_role("button", name="Compare").click()
    assert opened.page.get_by_role("button", name="Compare").is_disabled()
    opened.page.get_by_label("Method").select_option("hirescam")
    opened.settle()
    assert [panel["method"] for panel in opened.state["panels"]] == [0, 0, 0, 1]
    canvas = opened.page.locator("#panels canvas").nth(0)
    frame = canvas.bounding_box()
    canvas.hover(position={"x": frame["width"] * 0.55, "y": frame["height"] * 0.5})
    left, top, right, bottom = e.view.box
    x, y = 0.55 * e.view.photo_size[1], 0.5 * e.view.photo_size[0]
    row, column = int((y - top) / (bottom - top) * 7), int((x - left) / (right - left) * 7)
    said = opened.page.inner_text("#reading").split("|")
    assert len(said) == 4 and all(f"cell {row},{column}:" in text for text in said)
    for text, method in ((said[0], "gradcam"), (said[3], "hirescam")):
        value = float(text.split(":")[1].split("(")[0])
        map_ = e.map(method, "espresso", e.suggested)
        assert value == pytest.approx(float(map_[row, column]), abs=float(map_.abs().max()) / 100)
    opened.do("window.seewhy.change({layer: 0}, true)")  # under a pointer that stands still
    changed = opened.page.inner_text("#reading").split("|")
    assert changed[:3] == said[:3] and changed[3] != said[3]
    opened.do(f"window.seewhy.change({{layer: {e.layers.index(str(e.suggested))}}}, true)")
    canvas.hover(position={"x": 2, "y": frame["height"] * 0.5})
    assert opened.page.inner_text("#reading") == "The network did not see this place."
    opened.page.get_by_role("button", name="Close this panel").first.click()
    assert len(opened.state["panels"]) == 3


@needs_browser
def test_a_link_restores_what_was_seen(browser: Any, opened: Opened, address: str) -> None:
    opened.page.get_by_role("button", name="Compare").click()
    opened.do("window.seewhy.change({layer: 2, target: 1, versus: 0}, true)")
    opened.do("window.seewhy.change({opacity: 0.5, colors: 'viridis', scale: 'all', smooth: false, threshold: 0.25})")
    opened.page.wait_for_timeout(300)
    link = opened.page.evaluate("location.href")
    other = Opened(browser, link)
    for key in ("panels", "opacity", "colors", "scale", "smooth", "threshold", "active"):
        assert other.state[key] == opened.state[key], key
    assert np.array_equal(other.pixels(1), opened.pixels(1)) and other.said == []
    for broken in ("#panels=x", "#panels=%E0%A4%A,1,2,3&opacity=seven", "#active=99&colors=__proto__&scale=big", "#"):
        damaged = Opened(browser, address + broken)
        assert damaged.said == [] and len(damaged.state["panels"]) == 1 and damaged.state["scale"] == "own"
        assert damaged.state["colors"] == "inferno"


@needs_browser
def test_what_one_sees_can_be_saved(opened: Opened, e: seewhy.Explanation, tmp_path: Path) -> None:
    for kind in ("NPY", "CSV", "PNG"):
        with opened.page.expect_download() as waiting:
            opened.page.get_by_role("button", name=kind, exact=True).click()
        assert waiting.value.suggested_filename == f"cat_espresso.png_espresso_gradcam_{e.suggested}.{kind.lower()}"
        waiting.value.save_as(tmp_path / kind)
    expected = unpack(pack(e.map("gradcam", "espresso", e.suggested).numpy()))
    np.testing.assert_allclose(np.load(tmp_path / "NPY"), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "CSV", delimiter=","), expected, rtol=1e-4, atol=1e-6)
    with Image.open(tmp_path / "PNG") as picture:
        assert np.array_equal(np.array(picture.convert("RGB")), opened.pixels())


@needs_browser
@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_the_window(browser: Any, address: str, width: int, scheme: str) -> None:
    found = Opened(browser, address, width=width, scheme=scheme)
    assert found.do("document.documentElement.scrollWidth") <= width
    found.page.get_by_role("button", name="Compare").click()
    found.settle()
    assert found.do("document.documentElement.scrollWidth") <= width and found.said == []
    background = found.do("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")


@needs_browser
def test_every_control_has_a_name_and_text_can_be_read(browser: Any, address: str) -> None:
    for scheme in ("dark", "light"):
        found = Opened(browser, address, scheme=scheme)
        assert found.do(NAMELESS) == [] and found.do(DOUBLE) == [] and found.do(FAINT) == []


@needs_browser
def test_names_are_text_whatever_they_hold(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>\u202eشجرة🌳 Donaudampfschifffahrtsgesellschaftskapitän.jpg"
    picture = dataclasses.replace(e.images[0], source=evil)  # type: ignore[index]
    answers = tuple(dataclasses.replace(answer, name=f"{evil}{answer.key}") for answer in e.target_results)
    strange = dataclasses.replace(e, images=(picture,), target_results=answers, notes=(evil, "{data}{script}"))
    text = strange.report(tmp_path / "report.html")
    assert text.isascii()
    found = Opened(browser, (tmp_path / "report.html").as_uri(), width=360)
    assert found.said == [] and len(found.asked) == 1 and found.page.locator("img").count() == 0
    assert found.page.locator("h1").inner_text() == Path(evil).name
    assert found.page.locator("#targets bdi").first.inner_text() == f"{evil}{e.target_results[0].key}"
    assert found.do("document.documentElement.scrollWidth") <= 360


@needs_browser
def test_a_notebook_shows_it_in_a_frame(browser: Any, e: seewhy.Explanation, tmp_path: Path) -> None:
    bundle = e._repr_mimebundle_()
    assert bundle["text/plain"] == repr(e) and bundle["text/html"].isascii()
    (tmp_path / "notebook.html").write_text(f"<!doctype html><body>{bundle['text/html']}</body>")
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "notebook.html").as_uri())
    inside = page.frames[1]
    inside.evaluate("window.seewhy.ready")
    inside.locator("#strip button").nth(0).click()
    assert inside.evaluate("window.seewhy.state.panels[0].layer") == 0
    page.wait_for_timeout(300)
    assert said == []


def test_a_single_map_has_a_picture_for_notebooks_that_show_no_pages() -> None:
    e = seewhy.explain(seewhy.load_model(), seewhy.sample("coffee"))
    assert base64.b64decode(e._repr_mimebundle_()["image/png"])[:4] == b"\x89PNG"


def test_a_page_that_is_too_large_for_a_cell_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    e = seewhy.explain(seewhy.load_model(), seewhy.sample("coffee"))
    monkeypatch.setattr(report, "LARGEST", 1000)
    assert 'e.report("why.html")' in e._repr_mimebundle_()["text/html"]


def test_what_is_no_picture_has_no_page() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten()
    )
    e = seewhy.explain(net, torch.rand(1, 1, 20))
    assert "text/html" not in e._repr_mimebundle_() and not report.has_page(e)
    with pytest.raises(UsageError, match="the page needs an image"):
        e.report()


@needs_browser
def test_many_pictures_have_a_page_that_sorts(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    strange = "<b>&{data} 100% #1 🌳.png"
    for name, source in (("a.png", "coffee"), (strange, "cat_espresso")):
        with Image.open(seewhy.sample(source)) as picture:
            picture.resize((160, 120)).save(name)
    Path("broken.png").write_text("no picture")
    with pytest.raises(SystemExit) as left:
        cli.main(["a.png", "broken.png", strange, "-l", "suggested", "-q", "-o", "out here"])
    assert left.value.code == 1
    context = browser.new_context(viewport={"width": 700, "height": 800})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((tmp_path / "out here" / "index.html").as_uri())

    def names() -> list[str]:
        return [text.strip() for text in page.locator("tbody td:nth-child(2)").all_inner_texts()]

    assert sorted(names()) == sorted(["a.png", "broken.png", strange])
    page.get_by_role("button", name="Probability").click()
    assert names() == ["broken.png", strange, "a.png"]
    page.get_by_role("button", name="Probability").click()
    assert names() == ["a.png", strange, "broken.png"]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Probability")
    broken = page.locator("tbody tr").nth(2)
    assert "not an image" in broken.inner_text() and broken.get_by_role("link").count() == 0
    page.locator("tbody tr").nth(1).get_by_role("link").first.click()
    page.wait_for_url("**/report.html*")
    assert page.title() == strange and said == []
