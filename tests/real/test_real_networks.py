"""Real networks asked as docs/real_networks.md asks them: the page's own snippets run, and their maps lie where they must."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import UnknownName
from seewhy.tracing.resume import PartialForward
from support.paths import DATA, ROOT

# The loader of .tflite files leaves its file to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PAGE = ROOT / "docs" / "real_networks.md"
needs_data = pytest.mark.skipif(
    not (DATA / "models").exists(), reason=f"the data folder is absent ({DATA}; set SEEWHY_DATA)"
)


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_real_networks", ROOT / "docs" / "make_real_networks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = maker()


@pytest.fixture(scope="module")
def ran() -> dict[str, dict[str, Any]]:
    """What each snippet of the page leaves behind."""
    return dict(zip(["deeplab", "fastestdet", "cifar", "dinov2"], MAKER.run_snippets(), strict=True))


def inside(heat: np.ndarray[Any, Any], box: tuple[int, int, int, int]) -> tuple[float, bool]:
    """The share of a heat map that lies in a box of the photo, and whether its maximum does."""
    left, top, right, bottom = box
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    return heat[top:bottom, left:right].sum() / heat.sum(), bool(left <= x < right and top <= y < bottom)


def test_the_page_is_short_and_its_pictures_are_there() -> None:
    assert len(MAKER.snippets()) == 4
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 12 for code in MAKER.snippets())
    pictures = [line.split("](")[1].rstrip(")") for line in PAGE.read_text("utf-8").splitlines() if line[:2] == "!["]
    assert len(pictures) == 4
    assert all((ROOT / "docs" / name).exists() for name in pictures)


@needs_data
def test_deeplab_bus_and_persons(ran: dict[str, dict[str, Any]]) -> None:
    names, e = ran["deeplab"], ran["deeplab"]["e"]
    assert (e.suggested, e.methods) == ("op067_conv_2d", ("hirescam",))
    won = names["deeplab"](e.inputs)[0].argmax(0)

    def shares(e: seewhy.Explanation, method: str) -> list[float]:
        regions = {name: won == names["voc"].index(name) for name in ("bus", "person")}
        heats = {name: e.heatmap(method, name) for name in regions}
        return [float(heats[name][region].sum() / heats[name].sum()) for name, region in regions.items()]

    bus, person = shares(e, "hirescam")
    assert bus >= 0.9 and person >= 0.8  # .96, .82

    with MAKER.in_data_folder():
        coarse = MAKER.again(names, names["deeplab"], "bus.jpg", targets=["bus", "person"], methods="gradcam")
        early = MAKER.again(names, names["deeplab"], "bus.jpg", targets=["bus", "person"], layers="op060_conv_2d")
    assert any("gradcam gives each channel a single weight" in note for note in coarse.notes)
    assert max(shares(coarse, "gradcam")) < 0.6  # .46, .19
    # At the layer above, evidence from outside of the region is nearly impossible. Here every cell reaches every pixel.
    bus, person = shares(early, "hirescam")
    assert bus >= 0.7 and person >= 0.3  # .80, .41; the areas are .30, .12


@needs_data
def test_fastestdet_each_person_by_its_box(ran: dict[str, dict[str, Any]]) -> None:
    names, e = ran["fastestdet"], ran["fastestdet"]["e"]
    assert (e.suggested, e.methods) == ("Relu_250", ("hirescam",))
    asked = [seewhy.BoxScore(box, classes=0, decode=names["decode"]) for box in MAKER.PERSONS]
    net = names["load_fastestdet"].load()
    layers = ["Relu_250", "Concat_230", "Relu_169"]  # a box's own cell depends on 5 x 5, 17 x 17 and all 22 x 22 cells
    with MAKER.in_data_folder():
        e = MAKER.again(
            names, net, "bus.jpg", targets=asked, methods=["gradcam", "hirescam", "layercam"], layers=layers
        )

    def right(method: str, layer: str) -> list[bool]:
        boxes = zip(e.targets, MAKER.PERSONS, strict=True)
        return [inside(e.on_photo(method, target, layer), box)[1] for target, box in boxes]

    for layer in layers:
        assert all(right("hirescam", layer)), layer
        assert all(right("layercam", layer)), layer
    assert right("gradcam", "Relu_250") == [True, False, False]
    for target in e.targets:
        assert inside(e.on_photo("gradcam", target, "Relu_250"), MAKER.PERSONS[0])[1]


@needs_data
@pytest.mark.parametrize("method", ["ablationcam", "occlusion(window=0.25,stride=0.125)"])
def test_fastestdet_takes_one_picture_only_and_is_asked_again(ran: dict[str, dict[str, Any]], method: str) -> None:
    names, layer = ran["fastestdet"], "Conv_253"  # of the objectness alone, with one channel
    net = names["load_fastestdet"].load()
    with MAKER.in_data_folder():
        e = MAKER.again(names, net, "bus.jpg", targets=names["person"], methods=method, layers=layer)
    assert bool(e.map().isfinite().all()) and float(e.map().abs().amax()) > 0


@needs_data
def test_cifar_resnet(ran: dict[str, dict[str, Any]]) -> None:
    names, e = ran["cifar"], ran["cifar"]["e"]
    assert e.suggested == "layer3" and e.layer_info["layer3"].grid == (8, 8)
    assert e.top(1)[0][1] == "cat" and e.top(1)[0][2] >= 0.99
    with MAKER.in_data_folder():
        bus = MAKER.again(names, names["net"], "bus.jpg")
        squashed = MAKER.again(names, names["net"], "bus.jpg", fit="squash")
    share, highest = inside(bus.on_photo(), MAKER.BUS)
    assert bus.top(1)[0][1] == "automobile" and share >= 0.75 and highest  # .84
    assert squashed.top(1)[0][1] == "ship"


@needs_data
def test_dinov2(ran: dict[str, dict[str, Any]]) -> None:
    names, e = ran["dinov2"], ran["dinov2"]["e"]
    assert e.top(1)[0][1] == "vehicle" and e.suggested == "blocks.11.norm1"
    share, highest = inside(e.on_photo(), MAKER.BUS)
    assert share >= 0.85 and highest  # .91; the box is .47 of the photo
    both = MAKER.again(names, names["vit"], seewhy.sample("cat_espresso"), targets=["cat", "food"])
    half = both.size[1] // 2
    cat, food = both.heatmap(target="cat"), both.heatmap(target="food")
    assert cat[:, :half].sum() / cat.sum() >= 0.9  # .997
    assert food[:, half:].sum() / food.sum() >= 0.9  # .989


@pytest.mark.parametrize(
    ("target", "rival", "right"), [("espresso", "Egyptian cat", 0.950), ("Egyptian cat", "espresso", 0.011)]
)
def test_one_class_rather_than_another(embedded: seewhy.LoadedModel, target: str, rival: str, right: float) -> None:
    """`demo_cat_espresso_cc0.png` of the data folder is the sample in the package: cat left, espresso right."""
    contrast = seewhy.Contrast(target, against=[rival])
    e = seewhy.explain(embedded, seewhy.sample("cat_espresso"), targets=contrast, fit="squash")
    heat = e.heatmap()
    assert float(heat[:, e.size[1] // 2 :].sum() / heat.sum()) == pytest.approx(right, abs=0.02)


class OnePicture(nn.Module):
    """Like an exported graph: a shape in it is that of one picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shuffled = self.first(x).reshape(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8)
        found: Tensor = self.last(shuffled).mean((2, 3))
        return found


@pytest.mark.parametrize("layer", [None, "first", "last"])
def test_a_network_that_takes_one_picture_only_is_asked_row_by_row(layer: str | None) -> None:
    net, x = OnePicture().eval(), torch.rand(1, 3, 8, 8)
    tail = PartialForward(net, x, layer)
    with torch.no_grad():
        rows = torch.cat([tail.original, 0 * tail.original, tail.original])
        found = tail(rows)
    assert tail.runs_one_by_one == (layer != "last")
    torch.testing.assert_close(found[[0, 2]], net(x).expand(2, -1))
    assert not torch.allclose(found[0], found[1])


def test_a_failure_of_a_single_row_is_told() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("no such row")
            return x

    net = Never().eval()
    net.broken = False
    tail = PartialForward(net, torch.rand(1, 3, 8, 8))
    tail.twin.broken = True
    with pytest.raises(RuntimeError, match="no such row"):
        tail(torch.rand(3, 3, 8, 8))


def test_bgr_pictures() -> None:
    photo = np.zeros((4, 6, 3), np.uint8)
    photo[..., 0], photo[..., 1], photo[..., 2] = 255, 128, 51
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)  # of blue, green, red
    prepare = seewhy.Preprocess((4, 4), mean, std, "bilinear", 4, fit="squash", channels="BGR")
    inputs, _ = prepare(photo)
    expected = (torch.tensor([51, 128, 255]) / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(inputs[0, :, 0, 0], expected)
    assert (prepare.denormalize(inputs[0]) == photo[:, :4]).all()
    filled = seewhy.Preprocess((4, 4), mean, std, "bilinear", (2, 4), rule="contain", channels="BGR")
    assert prepare.denormalize(filled(photo)[0][0])[0, 0].tolist() == [76, 51, 26]  # mean, as red, green, blue
    with pytest.raises(UnknownName, match="GRB"):
        seewhy.Preprocess((4, 4), mean, std, "bilinear", 4, channels="GRB")  # type: ignore[arg-type]
