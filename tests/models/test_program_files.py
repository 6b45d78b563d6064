"""ONNX files and programs of torch.export as models: they give the maps of the original network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ModelError, UnknownName
from seewhy.models.loading import load_model
from support.small_architectures import ARCHITECTURES

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
FAST = ("ResNet", "ConvNeXt")
NAMES = ("ResNet", "VGG", "DenseNet", "MobileNetV2", "MobileNetV3", "ShuffleNet", "RegNet", "ConvNeXt", "ViT")
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def write_onnx(network: nn.Module, path: Path, *, images: int | None = None, opset: int | None = None) -> Path:
    """Export a network for a fixed number of images, or for any number."""
    shapes = ({0: torch.export.Dim.DYNAMIC},) if images is None else None
    inputs = IMAGES if images is None else IMAGES[:images]
    program = torch.onnx.export(
        network.eval(), (inputs,), dynamo=True, verbose=False, dynamic_shapes=shapes, opset_version=opset
    )
    assert program is not None
    program.save(path)
    return path


def small(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), *layers, *head).eval()


def save_nodes(path: Path, *nodes: Any, **settings: Any) -> Path:
    """Write a model with these operators from `x` (1, 3, 8, 8) to `y`."""
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        list(nodes),
        "graph",
        settings.pop("inputs", [shape("x", 1, [1, 3, 8, 8])]),
        [shape("y", 1, ["a", "b", "c", "d"])],
        settings.pop("initializer", []),
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", settings.pop("version", 20))])
    onnx.save(model, path)
    return path


@quiet
@pytest.mark.parametrize("name", [pytest.param(one, marks=[] if one in FAST else pytest.mark.full) for one in NAMES])
def test_onnx_gives_the_maps_of_the_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = ARCHITECTURES[name]().eval()
    loaded = load_model(write_onnx(network, tmp_path / "net.onnx"))
    assert any("equal to onnxruntime" in note for note in loaded.notes)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(IMAGES), network(IMAGES), rtol=1e-3, atol=1e-5)
    if name == "ResNet":
        own = seewhy.explain(network, IMAGES, layers="layer3", methods="hirescam").map()
        read = seewhy.explain(loaded, IMAGES, layers="layer3.0.relu*", methods="hirescam")
        last = list(read.layer_info)[-1]
        torch.testing.assert_close(read.map(layer=last), own, rtol=1e-3, atol=1e-5)
        assert "layer1.0.conv1" in dict(loaded.module.named_modules())


@quiet
def test_a_file_for_one_image_accepts_several(tmp_path: Path) -> None:
    network = small(nn.ReLU())
    loaded = load_model(write_onnx(network, tmp_path / "net.onnx", images=1))
    torch.testing.assert_close(loaded.module(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
    assert not any("at once" in note for note in loaded.notes)


@quiet
def test_a_file_for_two_images_rejects_others(tmp_path: Path) -> None:
    loaded = load_model(write_onnx(small(nn.ReLU()), tmp_path / "net.onnx", images=2))
    assert "the file was exported for 2 images at once" in loaded.notes
    with pytest.raises(ModelError, match="exported for 2 images at once, and this batch has"):
        seewhy.explain(loaded, torch.rand(3, 3, 64, 64), methods="gradcam", layers="0")
    own = seewhy.explain(small(nn.ReLU()), IMAGES, layers="0", targets=1).map()
    read = seewhy.explain(loaded, IMAGES, layers="0", targets=1).map()
    torch.testing.assert_close(read, own, rtol=1e-3, atol=1e-5)


@quiet
def test_newer_operators_are_rewritten(tmp_path: Path) -> None:
    network = small(nn.GELU())
    path = write_onnx(network, tmp_path / "net.onnx", opset=20)
    assert "Gelu" in {node.op_type for node in onnx.load(path).graph.node}
    torch.testing.assert_close(load_model(path).module(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


def test_an_exported_model_can_be_loaded_again(tmp_path: Path) -> None:
    from seewhy.integrations import export_model

    network = small(nn.ReLU())
    export_model(network, tmp_path / "net.onnx", inputs=IMAGES)
    loaded = load_model(tmp_path / "net.onnx")
    torch.testing.assert_close(loaded.module(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
    assert list(seewhy.explain(loaded, IMAGES, layers="every").layer_info) == ["0"]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (("Det", ["x"], ["y"]), r"does not support the operator Det \(node 'odd'\)"),
        (("Gelu", ["x"], ["y"]), r"operator Gelu \(node 'odd'\): approximate='tanh'"),
    ],
)
def test_unsupported_operators_are_named(node: Any, message: str, tmp_path: Path) -> None:
    settings = {"approximate": "tanh"} if node[0] == "Gelu" else {}
    path = save_nodes(tmp_path / "net.onnx", onnx.helper.make_node(*node, name="odd", **settings))
    with pytest.raises(ModelError, match=message) as error:
        load_model(path)
    assert "\n" not in str(error.value) and "load the original PyTorch model" in str(error.value)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    identity = onnx.helper.make_node("Relu", ["x"], ["y"])
    content = save_nodes(path, identity).read_bytes()
    for data, message in (
        (b"", "the file is empty"),
        (b"<!doctype html><html>", "web page"),
        (content[:-20], "not an ONNX file|corrupt"),
        (b"\x00" * 100, "not an ONNX file"),
    ):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=message) as error:
            load_model(path)
        assert "\n" not in str(error.value)
    value = onnx.helper.make_tensor_value_info
    save_nodes(path, identity, inputs=[value("x", 1, [1, 3, 8, 8]), value("z", 1, [1])])
    with pytest.raises(ModelError, match=r"has 2 inputs \(x, z\)"):
        load_model(path)
    save_nodes(path, identity, inputs=[value("x", 1, [1, 3, 8])])
    with pytest.raises(ModelError, match=r"its input has the shape \[1, 3, 8\]"):
        load_model(path)
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "missing.onnx")
    with pytest.raises(UnknownName, match=r"no option 'arch'.*takes labels"):
        load_model(f"{path}?arch=resnet18")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "a\0b"])
def test_weights_outside_of_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weight = onnx.TensorProto(name="w", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    path = folder / "net.onnx"
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [shape("x", 1, [1, 3, 8, 8])],
        [shape("y", 1, None)],
        [weight],
    )
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match="refers to weights outside of its folder"):
        load_model(path)


@pytest.mark.parametrize("count", [1, 30])
def test_functions_that_never_end_are_rejected(count: int, tmp_path: Path) -> None:
    """One function calls itself, or each of 30 functions calls the next one twice."""
    make, opset = onnx.helper.make_node, onnx.helper.make_opsetid
    names = [f"f{number}" for number in range(count)]
    targets = names if count == 1 else [*names[1:], "Relu"]
    functions = [
        onnx.helper.make_function(
            "own", name, ["x"], ["y"],
            [make(target, ["x"], ["z"], domain="" if target == "Relu" else "own"),
             make(target, ["z"], ["y"], domain="" if target == "Relu" else "own")],
            [opset("", 17), opset("own", 1)],
        )
        for name, target in zip(names, targets, strict=True)
    ]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [make("f0", ["x"], ["y"], domain="own")], "g", [value("x", 1, [1, 3, 8, 8])], [value("y", 1, [1, 3, 8, 8])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[opset("", 17), opset("own", 1)], functions=functions)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"function that calls itself|expand to [\d,]+ operators"):
        load_model(tmp_path / "net.onnx")


@quiet
def test_weights_in_another_file_of_the_folder(tmp_path: Path) -> None:
    path = write_onnx(small(nn.ReLU()), tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=0)
    torch.testing.assert_close(load_model(tmp_path / "big.onnx").module(IMAGES), load_model(path).module(IMAGES))
    (tmp_path / "big.bin").unlink()
    with pytest.raises(ModelError, match=r"its weights are in another file, .*big.bin, which is missing"):
        load_model(tmp_path / "big.onnx")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    path = save_nodes(tmp_path / "net.onnx", onnx.helper.make_node("Relu", ["x"], ["y"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"need onnx and onnx2torch: pip install 'seewhy\[onnx\]'"):
        load_model(path)


class Blocks(nn.Module):
    """Two named blocks, whose layers a program keeps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(self.stem(images)).mean((2, 3)))


@quiet
def test_programs_keep_the_names_of_layers_and_give_the_same_maps(tmp_path: Path) -> None:
    network = Blocks().eval()
    program = torch.export.export(network, (IMAGES,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(
        ModelError, match=r"can run code while it loads a .pt2 file; if you trust it, pass --allow-code"
    ):
        load_model(tmp_path / "net.pt2")
    loaded = load_model(tmp_path / "net.pt2", allow_code=True)
    assert isinstance(loaded.module.get_submodule("block.0"), nn.Conv2d)
    every = seewhy.explain(loaded, IMAGES, layers="every").layer_info
    assert list(every) == list(seewhy.explain(network, IMAGES, layers="every").layer_info) == ["stem", "block.0"]
    for layer in ("stem", "block", "block.0"):
        methods = ["gradcam", "hirescam", *(["cam"] if layer == "block" else [])]
        own, read = (
            seewhy.explain(model, IMAGES[:1], layers=layer, methods=methods, targets=1) for model in (network, loaded)
        )
        for method in methods:
            torch.testing.assert_close(read.map(method=method), own.map(method=method))


@quiet
def test_an_exported_program_can_be_loaded_again(tmp_path: Path) -> None:
    from seewhy.integrations import export_model

    network = small(nn.ReLU())
    export_model(network, tmp_path / "net.pt2", to="pt2", inputs=IMAGES)
    loaded = load_model(tmp_path / "net.pt2", allow_code=True)
    own = seewhy.explain(network, IMAGES[:1], layers="0", targets=1, methods="gradcam").map()
    read = seewhy.explain(loaded, IMAGES[:1], layers="network.network.0", targets=1, methods="gradcam").map()
    torch.testing.assert_close(read, own)


@quiet
def test_a_damaged_program_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ModelError, match="PyTorch cannot load it") as error:
        load_model(tmp_path / "net.pt2", allow_code=True)
    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "net.pt2", allow_code=True)
