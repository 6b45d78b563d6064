"""`Explanation.plot`, `figure` and `caption`: selection, scales, files, captions and errors."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.figure
import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import OverlayStyle
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.explanation import panel_grid
from seewhy.explanation.components import InputImage, LayerInfo, TargetResult
from seewhy.explanation.figure_captions import escape_latex
from seewhy.explanation.panel_selection import arrange
from seewhy.explanation.result import Explanation
from seewhy.images.view import View
from seewhy.rendering.colors import table
from support.docs_scripts import load_docs_script
from support.networks import Conv1dNet, tiny_network

SVG = "{http://www.w3.org/2000/svg}"


def noise(size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_explanation(names: tuple[str, ...] = ("cat.jpg",), *, factor: float = 1.0) -> Explanation:
    """Return an explanation with known maps: two targets, two methods, layers of 3x3 and 6x6 cells."""
    generator = torch.Generator().manual_seed(0)
    views = [View((60 + 20 * number, 100), (32, 32), (20.0, 0.0, 80.0, 60.0)) for number in range(len(names))]
    maps = {
        (method, target, layer): factor * torch.randn(len(names), side, side, generator=generator)
        for method in ("gradcam", "layercam")
        for target in ("1", "top2" if len(names) > 1 else "2")
        for layer, side in (("early", 6), ("late", 3))
    }
    second = torch.tensor([2, 0, 2, 0])[: len(names)]
    scores = torch.ones(len(names))
    return Explanation(
        maps=maps,
        target_results=(
            TargetResult("1", "cat", scores, torch.ones(len(names), dtype=torch.long), scores / 2),
            TargetResult(
                "top2" if len(names) > 1 else "2", "top2" if len(names) > 1 else "bird", scores, second, scores / 4
            ),
        ),
        layer_info={"early": LayerInfo("Conv2d", (6, 6), 4), "late": LayerInfo("ReLU", (3, 3), 4)},
        has_gradient={},
        size=(32, 32),
        labels=("dog", "cat", "bird"),
        inputs=torch.zeros(len(names), 3, 32, 32),
        images=tuple(
            InputImage(f"in/{name}", noise(view.photo_size), view) for name, view in zip(names, views, strict=True)
        ),
        single=len(names) == 1,
        provenance={"model": "tiny", "class": "nets.Tiny"},
    )


def one_image(factor: float = 1.0) -> Explanation:
    return make_explanation(factor=factor)


def texts(figure: matplotlib.figure.Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


# One panel


def test_plot_draws_into_the_axes_of_a_figure() -> None:
    figure = matplotlib.figure.Figure(figsize=(6, 3), dpi=100)
    left, right = figure.subplots(1, 2)
    e = one_image()
    assert e.plot(left, method="gradcam", target="cat", layer="late", title="A", box=0.5) is left
    e.plot(right, method="gradcam", target="cat", layer="late", color_bar=False)
    assert left.get_xlim() == (0, 100) and left.get_ylim() == (60, 0)  # pixels of the photo
    box = e.box(0.5, method="gradcam", target="cat", layer="late")
    assert box is not None
    assert left.patches[0].get_bbox().extents.tolist() == list(box)  # type: ignore[attr-defined]
    assert len(left.child_axes) == 1 and not right.child_axes
    assert left.get_position().width < right.get_position().width  # the color bar is in the place of the axes
    with pytest.raises(UsageError, match="too narrow for a panel with a color bar"):
        e.plot(matplotlib.figure.Figure(figsize=(0.5, 1)).subplots(), method="gradcam", target="cat", layer="late")


def test_a_photo_and_its_map_are_the_overlay() -> None:
    """The two images of a panel, blended, are the pixels of `overlay`."""
    e = one_image()
    choice = {"method": "gradcam", "target": "cat", "layer": "late"}
    height, width = e.view.photo_size
    for style in (OverlayStyle(), OverlayStyle("blend", "viridis", 0.4)):
        axes = e.plot(**choice, style=style, color_bar=False, width=width / 100 + 0.04, dpi=100)  # type: ignore[arg-type]
        photo, layer = (np.asarray(image.get_array()).astype(float) for image in axes.images)
        assert photo.shape == (height, width, 3) and layer.shape == (height, width, 4)
        alpha = layer[..., 3:] / 255
        blended = photo * (1 - alpha) + layer[..., :3] * alpha
        expected = np.asarray(e.overlay(**choice, style=style, longest=None)).astype(float)
        assert np.abs(blended - expected).max() <= 1  # rounding


def test_plot_needs_one_image_and_one_map() -> None:
    e = make_explanation(("a.jpg", "b.jpg"))
    with pytest.raises(ChoiceError, match=r"plot needs one image, and this explanation has 2"):
        e.plot(method="gradcam", target=1, layer="late")
    axes = e.plot(image=-1, method="gradcam", target=1, layer="late")
    assert axes.get_ylim() == (80, 0)
    with pytest.raises(UsageError, match="there is no image 2; the explanation has 2, 0 to 1"):
        e.plot(image=2, method="gradcam", target=1, layer="late")
    with pytest.raises(ChoiceError, match="2 methods"):
        e[0].plot()


# Grids


def test_dimensions_are_placed_on_rows_and_columns() -> None:
    sizes = {"images": 1, "targets": 2, "methods": 2, "layers": 1}
    assert arrange(sizes, None, None) == (("targets",), ("methods",))
    assert arrange(sizes, "methods", None) == (("methods",), ("targets",))
    assert arrange(sizes, None, ["targets", "methods"]) == ((), ("targets", "methods"))
    assert arrange({**sizes, "targets": 1}, None, None) == ((), ("methods",))
    with pytest.raises(UsageError, match="there are 2 targets: add 'targets' to rows= or columns=, or select one"):
        arrange(sizes, "methods", "layers")
    with pytest.raises(UsageError, match="'methods' is on rows and on columns"):
        arrange(sizes, "methods", ["methods", "targets"])
    with pytest.raises(UnknownName, match="no rows 'method' - did you mean 'methods'"):
        arrange(sizes, "method", None)


def test_the_grid_shows_images_by_targets_and_methods() -> None:
    e = make_explanation(("a.jpg", "b.jpg"))
    figure = e.figure(layers="late", columns=("methods", "targets"), names={"gradcam": "Grad-CAM"}, width=6.9)
    assert len(figure.axes) == 9  # eight panels and the color bar
    assert texts(figure) == ["Grad-CAM", "Grad-CAM", "layercam", "layercam", "a", "b"]
    # The second target is another class in each image, so each panel has its class as a title.
    assert [axes.get_title() for axes in figure.axes[:8]] == ["cat", "bird"] * 2 + ["cat", "dog"] * 2
    for number, image in enumerate((0, 0, 0, 0, 1, 1, 1, 1)):
        single, axes = e[image], figure.axes[number]
        key = (("gradcam", "layercam")[number // 2 % 2], axes.get_title(), "late")
        layer = np.asarray(axes.images[1].get_array())
        heatmap = single.on_photo(*key, size=layer.shape[:2])
        levels = np.floor(heatmap * 255 + 0.5).astype(int)
        inside = layer[..., 3] > 0
        assert inside.any() and np.abs(layer[inside][:, :3].astype(int) - table("inferno")[levels[inside]]).max() <= 12
    row = {round(axes.get_position().y1, 6) for axes in figure.axes[:4]}
    assert len(row) == 1
    assert figure.axes[0].images[1].get_array() is not None


def test_images_and_explanations_share_one_scale() -> None:
    first, second = make_explanation(("a.jpg",)), make_explanation(("b.jpg",), factor=10.0)
    figure = first.figure(
        second, methods="gradcam", targets=["cat"], layers="late", scale="shared", interpolation="nearest"
    )
    tops = [float(e.map("gradcam", "cat", "late").max()) for e in (first, second)]
    assert tops[1] == pytest.approx(10 * tops[0])
    low, high = (np.asarray(axes.images[1].get_array()) for axes in figure.axes[:2])
    highest = [layer[..., 3].max() for layer in (low, high)]
    assert highest[1] == 217 and highest[0] == pytest.approx(217 * 1.6 * 0.1, abs=2)  # opacity 0.85, and a tenth of it
    assert figure.axes[2].get_ylim() == pytest.approx((0, tops[1])) and figure.axes[2].get_ylabel() == "gradcam"
    assert f"one scale from 0 to {tops[1]:.3g}, the maximum over the panels, in the units of gradcam" in figure.caption
    fixed = first.figure(methods="gradcam", targets=["cat"], layers="late", scale=100.0)
    assert fixed.axes[1].get_ylim() == (0, 100) and "one scale from 0 to 100, in the units" in fixed.caption
    with pytest.raises(UsageError, match=r"scale='shared' with gradcam and layercam: methods have different units"):
        first.figure(layers="late", scale="shared")


def test_the_scale_of_one_panel_is_that_of_the_overlay() -> None:
    e = one_image()
    choice = {"method": "gradcam", "target": "cat", "layer": "late"}
    axes = e.plot(**choice, scale="shared", dpi=100, width=1.04, color_bar=False)  # type: ignore[arg-type]
    layer = np.asarray(axes.images[1].get_array())
    expected = e.on_photo(**choice, scale="shared", size=layer.shape[:2])  # type: ignore[arg-type]
    np.testing.assert_allclose(layer[..., 3], np.clip(1.6 * expected, 0, 1) * 0.85 * 255, atol=2)


def test_signed_maps_have_a_symmetric_color_bar() -> None:
    figure = one_image().figure(methods="gradcam", layers="late", signed=True, scale="shared")
    low, high = figure.axes[-1].get_ylim()
    assert low == -high and "signed values, zero at the center" in figure.caption
    own = one_image().figure(methods="gradcam", layers="late", signed=True)
    assert own.axes[-1].get_ylim() == (-1, 1) and own.axes[-1].get_ylabel() == "fraction of\nmax. |value|"
    blue = np.asarray(own.axes[0].images[1].get_array())
    assert ((blue[..., 2] > blue[..., 0]) & (blue[..., 3] > 100)).any()


def test_small_units_get_an_exponent() -> None:
    figure = one_image(1e-5).figure(methods="gradcam", targets="cat", layers="late", scale="shared")
    assert (
        re.fullmatch(r"gradcam \(1e-[56]\)", figure.axes[-1].get_ylabel()) and 1 <= figure.axes[-1].get_ylim()[1] < 10
    )


def test_blank_maps_are_marked_and_do_not_change_the_shared_scale() -> None:
    e = one_image()
    clean = e.figure(methods="gradcam", layers="late", targets="bird", scale="shared").axes[-1].get_ylim()
    maps = {key: maps.clone() for key, maps in e.maps.items()}
    maps["gradcam", "1", "early"][0, 0, 0] = torch.nan
    maps["gradcam", "1", "late"][:] = -1
    figure = dataclasses.replace(e, maps=maps).figure(rows="layers", methods="gradcam", scale="shared")
    marks = [[text.get_text() for text in axes.texts] for axes in figure.axes[:4]]
    assert marks == [["not finite"], [], ["no positive evidence"], []]
    assert not np.asarray(figure.axes[0].images[1].get_array())[..., 3].any()
    assert figure.axes[-1].get_ylim()[1] >= clean[1] > 0
    assert "Blank (no positive evidence): gradcam, cat (class 1), late." in figure.caption
    assert "Blank (contains values that are not finite numbers): gradcam, cat (class 1), early." in figure.caption


def test_cropped_panels_of_different_photos_have_one_size() -> None:
    e = make_explanation(("a.jpg", "b.jpg"))
    figure = e.figure(methods="gradcam", targets="cat", layers="late", crop=True, box=0.4)
    assert len({tuple(np.round(axes.get_position().size, 6)) for axes in figure.axes[:2]}) == 1
    assert figure.axes[0].get_xlim() == (20, 80)  # still pixels of the photo


def test_methods_of_the_entire_model_are_in_every_column() -> None:
    e = one_image()
    maps = {key: value for key, value in e.maps.items() if key[0] == "gradcam"}
    maps["fullgrad", "1", "network"] = torch.rand(1, 32, 32)
    info = {**e.layer_info, "network": LayerInfo("Tiny", (32, 32), 0)}
    e = dataclasses.replace(e, maps=maps, layer_info=info, target_results=e.target_results[:1])
    figure = e.figure(rows="methods", columns="layers")
    assert texts(figure) == ["early", "late", "gradcam", "fullgrad"] and len(figure.axes) == 5
    assert "output of early (Conv2d, 6×6)" in figure.caption and "the entire model (32×32)" in figure.caption
    maps["fullgrad", "1", "early"] = torch.rand(1, 6, 6)
    figure = dataclasses.replace(e, maps=maps).figure(methods="fullgrad", layers=["early", "late"])
    assert len(figure.axes) == 2  # one panel, an empty place, and the color bar


# Files


def test_pdf_has_its_size_its_images_and_its_fonts(tmp_path: Path) -> None:
    figure = one_image().figure(methods="gradcam", layers="late", width=3.3, dpi=300, captions=True)
    figure.savefig(tmp_path / "a.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", data)
    assert box is not None
    width, height = figure.get_size_inches()
    assert float(box[1]) == pytest.approx(3.3 * 72) and float(box[2]) == pytest.approx(height * 72) and width == 3.3
    panel = round(figure.axes[0].get_position().width * 3.3 * 300)
    sizes = [(int(w), int(h)) for w, h in re.findall(rb"/Subtype /Image /Width (\d+) /Height (\d+)", data)]
    assert sizes.count((panel, round(panel * 0.6))) >= 2  # a map for each panel, with 300 dots per inch
    assert (100, 60) in sizes  # the photo has no more pixels
    assert b"/Type3" not in data and b"/CIDFontType2" in data
    assert b"CreationDate" not in data


def test_svg_has_text_images_and_lines(tmp_path: Path) -> None:
    e = dataclasses.replace(one_image(), labels=None)
    figure = e.figure(methods="gradcam", layers="late", names={"cat": "a $cat$ & <dog>_1"}, captions=True)
    figure.savefig(tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    found = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert {"a $cat$ & <dog>_1", "bird", "fraction of", "maximum", "0.0", "1.0"} <= set(found)
    assert any("Class activation maps of tiny" in text for text in found)
    assert len(list(root.iter(f"{SVG}image"))) == 5  # two panels with photo and map, and the color bar
    assert root.attrib["width"].endswith("pt") and float(root.attrib["width"][:-2]) == pytest.approx(3.3 * 72)
    figure.savefig(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_png_has_the_dpi(tmp_path: Path) -> None:
    figure = one_image().figure(methods="gradcam", layers="late", width=2.0, dpi=150)
    figure.savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 300 and image.info["dpi"] == pytest.approx((150, 150), abs=0.1)


# Other inputs


def test_a_loaded_explanation_is_drawn(tmp_path: Path) -> None:
    e = one_image()
    e.save(tmp_path / "run")
    loaded = seewhy.load_explanation(tmp_path / "run")
    figure = loaded.figure(layers="late")
    assert len(figure.axes) == 5 and figure.caption == e.figure(layers="late").caption
    (tmp_path / "run" / "photo.jpg").unlink()
    with pytest.raises(UsageError, match=r"photo\.jpg of this saved explanation is missing"):
        seewhy.load_explanation(tmp_path / "run").figure(layers="late")


def test_signals_and_volumes_are_drawn() -> None:
    net, inputs = tiny_network(Conv1dNet)
    e = seewhy.explain(net, inputs[:1], targets=1)
    axes = e.plot(layer=e.layers[-1], interpolation="nearest", box=0.5)
    assert axes.get_xlim() == (0, e.size[0]) and len(axes.lines) >= 1
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    volume = seewhy.explain(network, torch.rand(1, 1, 6, 8, 8), layers="0", targets=1)
    for interpolation in ("linear", "nearest"):
        figure = volume.figure(depth=2, signed=True, interpolation=interpolation)
        assert figure.axes[0].get_xlim() == (0, 8) and "Slice along the first axis, from 0: 2 of 6." in figure.caption
    with pytest.raises(UsageError, match="depth=6: the volume has 6 slices along its first axis, 0 to 5"):
        volume.figure(depth=6)
    with pytest.raises(UsageError, match="depth=1: only volumes have slices"):
        one_image().figure(methods="gradcam", layers="late", depth=1)


# Captions


def test_captions_state_model_method_target_layer_and_scale() -> None:
    text = one_image().caption("gradcam", "cat", "late")
    assert text.startswith(
        "Class activation maps of tiny (Tiny). Method: gradcam, Σₖ mean(Gₖ) Aₖ (Selvaraju et al., Grad-CAM, ICCV 2017). "
        "Target: cat (class 1). Layer: output of late (ReLU, 3×3). Colors: positive values, each map divided by its maximum ("
    )
    latex = one_image().caption("gradcam", "cat", "late", latex=True, scale=2.0, signed=True)
    assert "Σ" not in latex and r"3$\times$3" in latex and "from $-$2 to 2, in the units of gradcam" in latex
    assert escape_latex(r"a_b{c}\~^#&%$<>") == (
        r"a\_b\{c\}\textbackslash{}\textasciitilde{}\textasciicircum{}\#\&\%\$\textless{}\textgreater{}"
    )
    e = one_image()
    own = dataclasses.replace(e, maps={("mine", *key[1:]): value for key, value in e.maps.items()}, provenance={})
    assert "a model without a name. Method: mine. " in own.caption("mine", "cat", "late")
    numbered = {
        (f"dff#{number}", *key[1:]): value for number in (1, 2) for key, value in e.maps.items() if key[0] == "gradcam"
    }
    several = dataclasses.replace(e, maps=numbered, labels=None).figure(layers="late").caption
    assert several.count("Collins et al.") == 1 and "dff#1;" in several  # one method with two maps
    assert "maximum over all targets of this image" in e.caption("gradcam", "cat", "late", scale="shared")


# Errors


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"methods": []}, r"methods=\[\]: a figure needs at least one"),
        ({"images": []}, r"images=\[\]: a figure needs at least one"),
        ({"methods": "gradcm"}, "no method 'gradcm' - did you mean 'gradcam'"),
        ({"layers": ["lat"]}, "no layer 'lat' - did you mean 'late'"),
        ({"layers": "late", "width": 0}, "width=0: pass a number of inches, above 0 and at most 100"),
        ({"layers": "late", "dpi": float("nan")}, "dpi=nan: pass a number of dots per inch"),
        ({"layers": "late", "font_size": "8"}, "font_size='8': pass a number of points"),
        ({"layers": "late", "scale": "own "}, "no scale 'own '"),
        ({"layers": "late", "scale": -1}, "scale=-1: pass 'own' or 'shared', or the value that gets the last color"),
        ({"layers": "late", "scale": True}, "scale=True"),
        ({"layers": "late", "box": 2}, "box=2: pass a fraction"),
        ({"layers": "late", "box": True}, "box=True: pass a fraction"),
        ({"layers": "late", "rows": 3}, "no rows 'int'|no rows '3'"),
        ({"layers": "late", "images": [np.int64(1)]}, "images: there is no image"),
        ({"layers": "late", "names": "x"}, "names='x': pass a dict"),
        ({"layers": "late", "style": "blend"}, "style='blend': pass a seewhy.OverlayStyle"),
        ({"rows": ["targets"], "columns": ["methods"]}, "there are 2 layers: add 'layers'"),
    ],
)
def test_bad_arguments_are_one_line(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        one_image().figure(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_other_explanations_are_checked() -> None:
    e, other = one_image(), make_explanation(("b.jpg",))
    with pytest.raises(UsageError, match=r"figure\('x'\): pass explanations"):
        e.figure("x")  # type: ignore[arg-type]
    fewer = dataclasses.replace(other, target_results=other.target_results[:1])
    with pytest.raises(UsageError, match=r"the explanations have 1 and 2 targets: select as many of each"):
        e.figure(fewer)
    only = dataclasses.replace(e, maps={key: value for key, value in e.maps.items() if key[0] == "layercam"})
    with pytest.raises(UnknownName, match="no method 'gradcam'"):
        e.figure(only)


def test_too_many_panels_are_one_line() -> None:
    e = one_image()
    maps = {("gradcam", "1", f"layer{number}"): torch.rand(1, 2, 2) for number in range(201)}
    info = {layer: LayerInfo("Conv2d", (2, 2), 1) for _, _, layer in maps}
    many = dataclasses.replace(e, maps=maps, layer_info=info, target_results=e.target_results[:1])
    with pytest.raises(UsageError, match=r"a figure of 201 panels \(201 layers\): select at most 200"):
        many.figure()


def test_missing_matplotlib_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")

    monkeypatch.setattr(panel_grid.importlib, "import_module", fail)
    with pytest.raises(
        UsageError, match=r"figures need matplotlib, which is not installed: pip install 'seewhy\[figures\]'"
    ):
        one_image().figure(layers="late")


def test_seewhy_does_not_import_matplotlib_and_figures_do_not_import_pyplot() -> None:
    code = """
import sys, torch, seewhy
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
e = seewhy.explain(net, torch.rand(1, 3, 8, 8), layers="0", targets=1)
assert "matplotlib" not in sys.modules
e.plot()
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_images_of_the_docs_are_drawn_by_its_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_docs_script("make_figures")
    figure = one_image().figure(layers="late")
    monkeypatch.setattr(script, "run_examples", lambda: dict.fromkeys(script.FIGURES, figure))
    script.draw(tmp_path)
    page = script.PAGE.read_text("utf-8")
    for variable, file in script.FIGURES.items():
        assert f"images/{file}" in page and (tmp_path / file).exists()
        assert re.search(rf"\b{variable}\b.* = ", page)
