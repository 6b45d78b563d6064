"""Stand-ins for packages that the code in docs/asked.md imports and that tests do not install: only the names that it uses."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy

NAMES = ("ultralytics", "detectron2", "nibabel", "fastapi", "peft")
CLASSES = 3


def install(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Make the stand-ins importable that the code imports."""
    zoo = module("detectron2.model_zoo", get=lambda config, trained: GeneralizedRCNN())
    for one in (
        module("ultralytics", YOLO=YOLO),
        module("detectron2", model_zoo=zoo),
        zoo,
        module("nibabel", load=load_nifti, save=save_nifti, Nifti1Image=Nifti1Image),
        module("fastapi", FastAPI=FastAPI, Request=object, Response=Response),
        module("peft", LoraConfig=SimpleNamespace, get_peft_model=Adapted),
    ):
        if one.__name__.partition(".")[0] in code:
            monkeypatch.setitem(sys.modules, one.__name__, one)


def module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(names)
    return made


# ultralytics


class Detect(nn.Module):
    """The head of YOLO11: in eval mode, (table (B, 4 + classes, N), dict)."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.end2end = [1, 2], True
        self.boxes = nn.ModuleList(branch(4) for _ in self.f)
        self.classes = nn.ModuleList(branch(CLASSES) for _ in self.f)

    def forward(self, features: list[Tensor]) -> Any:
        boxes, scores = [], []
        for stride, one, box, classify in zip((16, 32), features, self.boxes, self.classes, strict=True):
            height, width = one.shape[2:]
            y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            center = stride * torch.stack([x, y]).expand(len(one), 2, height, width)
            size = 2 * stride * box(one)[:, 2:].exp()
            boxes.append(torch.cat([center, size], 1).flatten(2))
            scores.append(classify(one).sigmoid().flatten(2))
        return torch.cat([torch.cat(boxes, 2), torch.cat(scores, 2)], 1), {"feats": features}


def branch(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, outputs, 1)
    )


class DetectionModel(nn.Module):
    """Layers `model.0`, `model.1`, ..., as in ultralytics."""

    def __init__(self) -> None:
        super().__init__()
        down = [nn.Sequential(nn.Conv2d(count, 8, 3, 2, 1), nn.SiLU(inplace=True)) for count in (3, 8, 8)]
        self.model = nn.Sequential(nn.Sequential(nn.AvgPool2d(4), *down[:1]), down[1], down[2], Detect())

    def forward(self, x: Tensor) -> Any:
        first = self.model[1](self.model[0](x))
        return self.model[3]([first, self.model[2](first)])


class YOLO:
    """`ultralytics.YOLO`: `model`, `names` and `predict`."""

    def __init__(self, weights: str) -> None:
        self.names = {0: "cat", 1: "cup", 2: "spoon"}
        assert weights.endswith(".pt")
        torch.manual_seed(0)
        self.model = DetectionModel().eval()

    def predict(self, image: Image.Image, verbose: bool = True) -> list[Any]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            (table,), _ = self.model(pixels)
        best = table[4:].amax(0).topk(5)
        center, size = table[:2, best.indices], table[2:4, best.indices]
        corners = torch.cat([center - size / 2, center + size / 2]).T
        boxes = SimpleNamespace(xyxy=corners, cls=table[4:, best.indices].argmax(0).float(), conf=best.values)
        return [SimpleNamespace(boxes=boxes)]


# detectron2


class GeneralizedRCNN(nn.Module):
    """A detector with the inputs and outputs of detectron2."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(8, CLASSES, 3, padding=1)

    def forward(self, batch: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
        found = []
        for one in batch:
            scores = self.head(self.backbone(one["image"][None] / 255))[0].sigmoid().flatten(1)
            best = scores.amax(0).topk(4)
            boxes = torch.stack([best.indices, best.indices, best.indices + 32, best.indices + 32], 1).float()
            instances = SimpleNamespace(
                pred_boxes=SimpleNamespace(tensor=boxes),
                scores=best.values,
                pred_classes=scores[:, best.indices].argmax(0),
            )
            found.append({"instances": instances})
        return found


# nibabel


class Nifti1Image:
    """An array with an affine."""

    def __init__(self, data: Any, affine: Any) -> None:
        self.data, self.affine = np.asarray(data), affine

    def get_fdata(self, dtype: str = "float64") -> Any:
        return self.data.astype(dtype)


def load_nifti(path: str) -> Nifti1Image:
    volume = np.random.default_rng(0).random((12, 16, 20))
    volume[3:6, 4:9, 5:10] += 2
    return Nifti1Image(volume, np.diag([1.0, 1.0, 2.5, 1.0]))


def save_nifti(image: Nifti1Image, path: str) -> None:
    assert image.data.shape == (12, 16, 20) and image.affine[2, 2] == 2.5
    np.save(path, image.data)
    assert Path(f"{path}.npy").exists()


# fastapi


class Response:
    def __init__(self, content: bytes, media_type: str) -> None:
        self.content, self.media_type = content, media_type


class FastAPI:
    """Calls each route once, with a photo."""

    def post(self, path: str) -> Any:
        def register(route: Any) -> Any:
            self.route = route
            return route

        return register

    def answer(self) -> Response:
        async def body() -> bytes:
            return seewhy.sample("coffee").read_bytes()

        response: Response = asyncio.run(self.route(SimpleNamespace(body=body)))
        return response


# peft


class Adapted(nn.Module):
    """A network with low-rank updates of the linear layers that the config names."""

    def __init__(self, net: nn.Module, config: Any) -> None:
        super().__init__()
        self.base_model, self.config = net, config

    def merge_and_unload(self) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        for name, layer in self.base_model.named_modules():
            if name.endswith(tuple(self.config.target_modules)) and isinstance(layer, nn.Linear):
                left = torch.randn(layer.out_features, self.config.r, generator=generator)
                right = torch.randn(self.config.r, layer.in_features, generator=generator)
                layer.weight.data += 0.01 * left @ right
        return self.base_model


# An ONNX file, as the reader of the page has one


def write_example(path: str) -> None:
    """Write a convolution, a ReLU, pooling and a linear layer as ONNX."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weights = {"w": draw.normal(size=(4, 3, 3, 3)), "v": draw.normal(size=(4, 2))}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["conv"], kernel_shape=[3, 3], pads=[0, 0, 0, 0], strides=[1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
