"""The snippets of docs/real_networks.md run as printed, and their maps are where the objects are.

Numbers in comments are the measured values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import seewhy
from support.docs_scripts import load_docs_script
from support.paths import DATA, ROOT

# The loader of .tflite files leaves its file to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PAGE = ROOT / "docs" / "real_networks.md"
SCRIPT = load_docs_script("make_real_networks")
needs_data = pytest.mark.skipif(
    not (DATA / "models").exists(), reason=f"the data folder does not exist ({DATA}; set SEEWHY_DATA)"
)

Names = dict[str, Any]  # the variables of a snippet


@pytest.fixture(scope="module")
def snippets() -> dict[str, Names]:
    """Run all snippets of the page and return their variables."""
    return dict(zip(["deeplab", "fastestdet", "cifar", "dinov2"], SCRIPT.run_snippets(), strict=True))


def inside(heatmap: np.ndarray[Any, Any], box: tuple[int, int, int, int]) -> tuple[float, bool]:
    """Return the fraction of a heatmap that lies in a box of the photo, and whether the maximum does."""
    left, top, right, bottom = box
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    return heatmap[top:bottom, left:right].sum() / heatmap.sum(), bool(left <= x < right and top <= y < bottom)


def test_page_has_short_snippets_and_existing_images() -> None:
    assert len(SCRIPT.snippets()) == 4
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 12 for code in SCRIPT.snippets())
    images = [line.split("](")[1].rstrip(")") for line in PAGE.read_text("utf-8").splitlines() if line[:2] == "!["]
    assert len(images) == 4
    assert all((ROOT / "docs" / name).exists() for name in images)


@needs_data
def test_deeplab_bus_and_persons(snippets: dict[str, Names]) -> None:
    names, e = snippets["deeplab"], snippets["deeplab"]["e"]
    assert (e.suggested, e.methods) == ("op067_conv_2d", ("hirescam",))
    predicted = names["deeplab"](e.inputs)[0].argmax(0)

    def fractions_inside(e: seewhy.Explanation, method: str) -> list[float]:
        regions = {name: predicted == names["voc"].index(name) for name in ("bus", "person")}
        heatmaps = {name: e.heatmap(method, name) for name in regions}
        return [float(heatmaps[name][region].sum() / heatmaps[name].sum()) for name, region in regions.items()]

    bus, person = fractions_inside(e, "hirescam")
    assert bus >= 0.9 and person >= 0.8  # .96, .82

    targets = ["bus", "person"]
    with SCRIPT.in_data_folder():
        gradcam = SCRIPT.explain_with(names, names["deeplab"], "bus.jpg", targets=targets, methods="gradcam")
        early = SCRIPT.explain_with(names, names["deeplab"], "bus.jpg", targets=targets, layers="op060_conv_2d")
    assert any("gradcam gives each channel a single weight" in note for note in gradcam.notes)
    assert max(fractions_inside(gradcam, "gradcam")) < 0.6  # .46, .19
    # After the suggested layer, a pixel depends on few cells, so the maps above can hardly lie elsewhere. Here each
    # pixel depends on all cells.
    bus, person = fractions_inside(early, "hirescam")
    assert bus >= 0.7 and person >= 0.3  # .80, .41; the areas are .30, .12


@needs_data
def test_fastestdet_separates_persons_by_their_boxes(snippets: dict[str, Names]) -> None:
    names, e = snippets["fastestdet"], snippets["fastestdet"]["e"]
    assert (e.suggested, e.methods) == ("Relu_250", ("hirescam",))
    targets = [seewhy.BoxScore(box, classes=0, decode=names["decode"]) for box in SCRIPT.PERSONS]
    net = names["load_fastestdet"].load()
    layers = ["Relu_250", "Concat_230", "Relu_169"]  # a box depends on 5 x 5, 17 x 17 and all 22 x 22 cells
    methods = ["gradcam", "hirescam", "layercam"]
    with SCRIPT.in_data_folder():
        e = SCRIPT.explain_with(names, net, "bus.jpg", targets=targets, methods=methods, layers=layers)

    def maxima_inside(method: str, layer: str) -> list[bool]:
        boxes = zip(e.targets, SCRIPT.PERSONS, strict=True)
        return [inside(e.on_photo(method, target, layer), box)[1] for target, box in boxes]

    for layer in layers:
        assert all(maxima_inside("hirescam", layer)), layer
        assert all(maxima_inside("layercam", layer)), layer
    assert maxima_inside("gradcam", "Relu_250") == [True, False, False]
    for target in e.targets:
        assert inside(e.on_photo("gradcam", target, "Relu_250"), SCRIPT.PERSONS[0])[1]


@needs_data
@pytest.mark.parametrize("method", ["ablationcam", "occlusion(window=0.25,stride=0.125)"])
def test_fastestdet_runs_image_by_image(snippets: dict[str, Names], method: str) -> None:
    """The exported graph accepts only one image at a time."""
    names, layer = snippets["fastestdet"], "Conv_253"  # the objectness score only, one channel
    net = names["load_fastestdet"].load()
    with SCRIPT.in_data_folder():
        e = SCRIPT.explain_with(names, net, "bus.jpg", targets=names["person"], methods=method, layers=layer)
    assert bool(e.map().isfinite().all()) and float(e.map().abs().amax()) > 0


@needs_data
def test_cifar_resnet(snippets: dict[str, Names]) -> None:
    names, e = snippets["cifar"], snippets["cifar"]["e"]
    assert e.suggested == "layer3" and e.layer_info["layer3"].grid == (8, 8)
    assert e.top(1)[0][1] == "cat" and e.top(1)[0][2] >= 0.99
    with SCRIPT.in_data_folder():
        bus = SCRIPT.explain_with(names, names["net"], "bus.jpg")
        squashed = SCRIPT.explain_with(names, names["net"], "bus.jpg", fit="squash")
    fraction, is_maximum_inside = inside(bus.on_photo(), SCRIPT.BUS)
    assert bus.top(1)[0][1] == "automobile" and fraction >= 0.75 and is_maximum_inside  # .84
    assert squashed.top(1)[0][1] == "ship"


@needs_data
def test_dinov2(snippets: dict[str, Names]) -> None:
    names, e = snippets["dinov2"], snippets["dinov2"]["e"]
    assert e.top(1)[0][1] == "vehicle" and e.suggested == "blocks.11.norm1"
    fraction, is_maximum_inside = inside(e.on_photo(), SCRIPT.BUS)
    assert fraction >= 0.85 and is_maximum_inside  # .91; the box is .47 of the photo
    both = SCRIPT.explain_with(names, names["vit"], seewhy.sample("cat_espresso"), targets=["cat", "food"])
    half = both.size[1] // 2
    cat, food = both.heatmap(target="cat"), both.heatmap(target="food")
    assert cat[:, :half].sum() / cat.sum() >= 0.9  # .997
    assert food[:, half:].sum() / food.sum() >= 0.9  # .989
