"""Networks exported with their map: the file gives the scores and maps of `explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, MethodError, OptionError, TargetError, UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.integrations import ExportedModel, export_model
from seewhy.integrations.model_export import verification
from seewhy.models.loaded_model import LoadedModel
from seewhy.storage import has_mark
from seewhy.targets import ClassScore
from support.small_architectures import ARCHITECTURES

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TOLERANCE = 1e-5  # of the maximum of a map
FAST = ("ResNet", "VGG", "ConvNeXt")
# The map that fits the end of each network: closed forms where one linear layer follows the mean, gradients elsewhere.
CASES = [(name, "cam") for name in ("ResNet", "ResNeXt", "MobileNetV2", "ShuffleNet", "RegNet", "RepVGG")] + [
    (name, "hirescam") for name in ("VGG", "ConvNeXt", "MobileNetV3", "DenseNet", "ViT", "LeViT", "pre-activation")
]


class Small(nn.Module):
    """A convolution, a ReLU in place, mean pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act = nn.Conv2d(3, 6, 3, 2), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.act(self.conv(images)).mean((2, 3)))


class TwoLayers(Small):
    """The same with a second linear layer behind the first one, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(nn.functional.hardswish(super().forward(images)))


def run(path: Path, images: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})  # type: ignore[no-any-return]


def assert_equal(found: np.ndarray, expected: Tensor) -> None:
    difference = np.abs(found - expected.numpy()).max()
    assert difference <= TOLERANCE * expected.abs().max(), difference / expected.abs().max()


def check_file(path: Path, model: Any, exported: ExportedModel, images: Tensor) -> None:
    """Compare a file with `explain` on images that the exporter has not seen."""
    scores, classes, maps = run(path, images)[:3]
    with torch.no_grad():
        assert_equal(scores, model(images))
    np.testing.assert_array_equal(classes[:, 0], scores.argmax(1))
    target = ClassScore(torch.from_numpy(classes[:, 0]))
    e = seewhy.explain(model, images, methods=exported.method, layers=exported.layer, targets=target)
    assert_equal(maps[:, 0], e.map())


@pytest.mark.parametrize(
    ("name", "map"), [pytest.param(*case, marks=[] if case[0] in FAST else pytest.mark.full) for case in CASES]
)
def test_onnx_equals_ours(name: str, map: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = ARCHITECTURES[name]().eval()
    images = torch.randn(5, 3, 64, 64)
    exported = export_model(network, tmp_path / "net.onnx", map=map, inputs=images[:2])
    assert exported.difference <= TOLERANCE and exported.score_difference <= TOLERANCE
    check_file(tmp_path / "net.onnx", network, exported, images[2:])


@pytest.mark.parametrize("map", ["cam", "reciprocam", "hirescam", "gradcam"])
def test_closed_forms_and_gradients(map: Any, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 16, 16)
    networks = [Small()] if map in ("cam", "reciprocam") else [Small(), TwoLayers()]
    for network in networks:
        network.train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        path = tmp_path / f"{type(network).__name__}.onnx"
        exported = export_model(network, path, map=map, layer="act", inputs=images[:2])
        assert network.training and not any(module._forward_hooks for module in network.modules())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        check_file(path, network, exported, images[1:])


@pytest.mark.parametrize("format", ["onnx", "pt2", "torchscript"])
@pytest.mark.parametrize("network", [Small(), TwoLayers()], ids=["closed form", "gradient"])
def test_all_formats_and_heatmaps(format: Any, network: nn.Module, tmp_path: Path) -> None:
    images, path = torch.randn(3, 3, 16, 16), tmp_path / "net"
    arguments: dict[str, Any] = {"map": "hirescam", "to": format, "layer": "act", "inputs": images, "targets": "top2"}
    if format == "torchscript" and isinstance(network, TwoLayers):
        with pytest.raises(UsageError, match=r"TorchScript.*closed form.*--to onnx"):
            export_model(network, path, **arguments)
        assert not path.exists()
        return
    exported = export_model(network, path, heatmap=True, **arguments)
    assert exported.outputs["heatmap"] == ("batch", 2, 16, 16) and exported.outputs["map"] == ("batch", 2, 7, 7)
    assert exported.size == path.stat().st_size and has_mark(path)
    export_model(network, path, **arguments)  # it may be replaced


def test_heatmap_is_that_of_the_explanation(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 16, 16)
    network = Small()
    export_model(network, tmp_path / "net.onnx", inputs=images, targets=[1, 3], heatmap=True, layer="act")
    *_, heatmap = run(tmp_path / "net.onnx", images)
    e = seewhy.explain(network, images, methods="cam", targets=[1, 3], layers="act")
    for number, target in enumerate((1, 3)):
        assert_equal(heatmap[:, number], torch.stack([one.heatmap(target=target) for one in e]))


@pytest.mark.parametrize(("targets", "count"), [("top3", 3), ("all", 5), (["dog", 0, 1], 2)])
def test_targets(targets: Any, count: int, tmp_path: Path) -> None:
    model = LoadedModel(Small(), labels=("cat", "dog", "bird", "bus", "car"))
    images, path = torch.randn(2, 3, 16, 16), tmp_path / "net.onnx"
    exported = export_model(model, path, inputs=images, targets=targets)
    scores, classes, maps = run(path, images)
    assert maps.shape[1] == classes.shape[1] == count and exported.outputs["map"][1] == count
    if targets == "top3":
        np.testing.assert_array_equal(classes, torch.from_numpy(scores).topk(3).indices)
    if targets == ["dog", 0, 1]:  # one class twice
        np.testing.assert_array_equal(classes, [[1, 0], [1, 0]])


def test_metadata_is_enough_to_run_the_file(tmp_path: Path) -> None:
    import onnx

    preprocess = Preprocess((16, 16), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear", 18)
    model = LoadedModel(Small(), preprocess, ("cat", "dog", "bird", "bus", "car"), uri="small")
    export_model(model, tmp_path / "net.onnx")  # compared on the sample images
    file = onnx.load(tmp_path / "net.onnx")
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["seewhy.method"] == "cam" and metadata["seewhy.model"] == "small"
    assert json.loads(metadata["seewhy.labels"])[1] == "dog"
    values = json.loads(metadata["seewhy.preprocess"])
    assert values["size"] == [16, 16] and values["mean"] == [0.5] * 3 and values["resize"] == 18
    assert "site-packages" not in str(file.SerializeToString())  # no paths of the machine that exported it
    loaded = seewhy.load_model(str(tmp_path / "net.onnx"))
    assert loaded.preprocess == preprocess and loaded.labels == model.labels


def test_weights_are_not_stored_twice(tmp_path: Path) -> None:
    class Wide(Small):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 20_000)

    exported = export_model(Wide(), tmp_path / "net.onnx", inputs=torch.randn(2, 3, 16, 16))
    assert exported.size < 1.5 * 4 * 7 * 20_000


def test_the_default_layer_of_cam_is_the_last_one_before_the_head(tmp_path: Path) -> None:
    exported = export_model(Small(), tmp_path / "net.pt2", to="pt2", inputs=torch.randn(2, 3, 16, 16))
    assert exported.layer == "act"


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TOLERANCE", -1.0)
    with pytest.raises(UsageError, match="nothing was written: the exported network differs from the model"):
        export_model(Small(), tmp_path / "net.pt2", to="pt2", inputs=torch.randn(2, 3, 16, 16))
    assert not list(tmp_path.iterdir())


def test_the_random_state_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(3)
    images = torch.randn(2, 3, 16, 16)
    before = torch.get_rng_state()
    network = TwoLayers().eval()
    torch.set_rng_state(before)
    export_model(network, tmp_path / "net.onnx", map="gradcam", layer="act", inputs=images)
    assert torch.equal(torch.get_rng_state(), before)


class Fixed(Small):
    """A network that computes with its number of images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.stack(list(images)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"map": "scorecam"}, UnknownName, "no map 'scorecam'.*cam, hirescam, gradcam, reciprocam"),
        ({"to": "tflite"}, UnknownName, "no format 'tflite'.*onnx, pt2, torchscript"),
        ({"layer": "conv9"}, UnknownName, "no layer 'conv9' - did you mean 'conv'"),
        ({"layer": "*"}, LayerError, "selects 3 layers|selects 2 layers"),
        ({"layer": "conv"}, MethodError, "cannot be exported at layer 'conv'.*--map hirescam"),
        ({"targets": "top9"}, TargetError, "the model has 5 classes"),
        ({"targets": ["top2", 1]}, TargetError, "cannot be combined"),
        ({"targets": []}, TargetError, "the list is empty"),
        ({"targets": 7}, TargetError, "the model has 5 classes"),
        ({"batch": 0}, OptionError, "at least 1"),
        ({"opset": -1}, OptionError, "at least 1"),
        ({"inputs": None}, UsageError, "the size of the input is unknown"),
        ({"inputs": torch.zeros(1, 3, 16)}, UsageError, "float32 images"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message) as info:
        export_model(Small(), tmp_path / "net.onnx", **{"inputs": torch.randn(2, 3, 16, 16), **arguments})
    assert "\n" not in str(info.value)
    assert not list(tmp_path.iterdir())


def test_too_many_gradients(tmp_path: Path) -> None:
    class Many(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(5, 30)

    with pytest.raises(UsageError, match="a gradient for each of 30 classes, at most 20; choose fewer: --targets top5"):
        export_model(
            Many(), tmp_path / "net.onnx", map="hirescam", layer="act", targets="all", inputs=torch.randn(2, 3, 16, 16)
        )


def test_a_fixed_number_of_images(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 16, 16)
    with pytest.raises(UsageError, match=r"number of images; export it for a fixed number: --batch 1 \(batch=1\)"):
        export_model(Fixed(), tmp_path / "net.onnx", inputs=images, layer="act")
    exported = export_model(Fixed(), tmp_path / "net.onnx", inputs=images, layer="act", batch=2)
    assert exported.outputs["map"] == (2, 1, 7, 7)


def test_foreign_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("mine")
    with pytest.raises(UsageError, match="did not write it"):
        export_model(Small(), tmp_path / "net.onnx", inputs=torch.randn(2, 3, 16, 16))
    assert (tmp_path / "net.onnx").read_text() == "mine"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seewhy.integrations.model_export import file_formats

    monkeypatch.setattr(file_formats, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(UsageError, match=r"needs no_such_package: pip install 'seewhy\[onnx\]'"):
        export_model(Small(), tmp_path / "net.onnx", inputs=torch.randn(2, 3, 16, 16))
