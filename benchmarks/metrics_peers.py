"""The photos, maps and scores of metrics_check.py, and calls of the other packages with given maps."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.models.loaded_model import LoadedModel
from seewhy.trust.fillers import Fill, replace_with
from seewhy.trust.metrics.removal import Build, RemovalCurves, Score, removal_curves

Array = NDArray[np.float64]
Rule = Callable[[Tensor], Tensor]  # logits (n, classes) -> scores (n, classes)
PHOTOS = ("coffee", "chelsea", "cat_espresso")
BATCH = 16


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def logits(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True, eq=False)
class Case:
    """Three photos at one size, and their Grad-CAM maps in pixels.

    Attributes:
        signed, rectified: Maps (3, H, W), interpolated to pixels; `rectified` before, as heatmaps are.
        distinct: The order of `signed` without ties, which are broken at random: ranks in (0, 1].
    """

    net: nn.Module
    layer: str
    inputs: Tensor
    classes: list[int]
    signed: Array
    rectified: Array
    distinct: Array

    @property
    def side(self) -> int:
        return self.inputs.shape[-1]

    @property
    def x(self) -> NDArray[np.float32]:
        return self.inputs.numpy().copy()

    @property
    def y(self) -> NDArray[np.int64]:
        return np.array(self.classes)

    def explain_one(self, net: nn.Module, images: Tensor, target: int) -> Tensor:
        """Return signed maps (n, h, w) of images for one class, at the resolution of the layer."""
        with torch.enable_grad():  # captum switches gradients off around its metrics
            found = seewhy.explain(net, images, methods="gradcam", layers=self.layer, targets=target)
        return next(iter(found.maps.values()))

    def explain_pixels(self, net: nn.Module, images: Tensor, target: int) -> Tensor:
        return in_pixels(self.explain_one(net, images, target), self.side)

    def quantus_explain(self, model: nn.Module, inputs: Any, targets: Any, **_: Any) -> NDArray[np.float32]:
        """The signature that Quantus requires: one class for each image, maps (n, 1, H, W)."""
        images = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
        maps = [
            self.explain_pixels(model, image[None], int(target)) for image, target in zip(images, targets, strict=True)
        ]
        return torch.cat(maps)[:, None].numpy()

    def scorer(self, number: int, rule: Rule) -> Score:
        """Return a function that scores changed versions of one photo for its class."""

        def score(count: int, build: Build) -> Tensor:
            with torch.inference_mode():
                parts = [
                    rule(self.net(build(slice(at, min(at + BATCH, count)))))[:, self.classes[number]]
                    for at in range(0, count, BATCH)
                ]
            return torch.cat(parts)

        return score

    def scores(self, rule: Rule) -> Array:
        """Return the scores of the photos themselves."""
        with torch.inference_mode():
            return rule(self.net(self.inputs)).numpy()[np.arange(len(self.classes)), self.classes].astype(float)

    def curves(self, number: int, values: Array, fill: Fill, steps: int, rule: Rule = softmax) -> RemovalCurves:
        """Return seewhy's curves of one photo, with pixels as units."""
        size = (self.side, self.side)
        return removal_curves(self.scorer(number, rule), fill, values.ravel(), grid=size, size=size, steps=steps)

    def constant_fill(self, number: int, value: float) -> Fill:
        image = self.inputs[number]
        return replace_with(image, torch.full_like(image, value))


def in_pixels(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def load_case(model: LoadedModel, side: int, layer: str) -> Case:
    """Return the photos at one size with the maps of their most probable class."""
    tensors = [model.preprocess(seewhy.load_image(seewhy.sample(name)))[0] for name in PHOTOS]  # type: ignore[misc]
    inputs = F.interpolate(torch.cat(tensors), (side, side), mode="bilinear", antialias=True)
    with torch.inference_mode():
        classes = model.module(inputs).argmax(1).tolist()
    case = Case(model.module, layer, inputs, classes, *[np.zeros(0)] * 3)
    maps = torch.cat(
        [case.explain_one(model.module, inputs[at : at + 1], target) for at, target in enumerate(classes)]
    ).double()
    maps = maps / maps.abs().amax((1, 2), keepdim=True)
    signed, rectified = (in_pixels(one, side).numpy() for one in (maps, maps.clamp(min=0)))
    random = np.random.default_rng(0)
    distinct = np.empty_like(signed)
    for number, values in enumerate(signed):
        order = np.lexsort((random.permutation(values.size), values.ravel()))
        distinct[number].flat[order] = np.arange(1, values.size + 1) / values.size
    return Case(model.module, layer, inputs, classes, signed, rectified, distinct)


def load_cases() -> tuple[Case, Case]:
    """Return the photos at 224 pixels with maps of the suggested layer, and at 120 pixels for tests of single pixels."""
    model = seewhy.load_model()
    return load_case(model, 224, "bn2"), load_case(model, 120, "blocks.4.2.conv_pwl")


def ellipse(side: int, fraction: float) -> NDArray[np.bool_]:
    """Return an ellipse around a point left of the center, which covers a fraction of the pixels."""
    axis = (np.arange(side) + 0.5) / side
    distance = ((axis[:, None] - 0.55) / 1.2) ** 2 + (axis - 0.45) ** 2
    return distance <= np.quantile(distance, fraction)


class GivenMap:
    """What the metrics of torchcam require of an extractor, with maps that are given."""

    def __init__(self, net: nn.Module, maps: Array) -> None:
        self.model = net
        self.maps = torch.from_numpy(maps.copy())

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def run_quantus(
    metric: Any, case: Case, maps: Array, *, masks: NDArray[np.bool_] | None = None, probabilities: bool = True,
    explain: Any = None,
) -> Any:  # fmt: skip
    """Call a metric of Quantus with given maps (n, H, W)."""
    segmentation = None if masks is None else np.broadcast_to(masks, maps.shape)[:, None].copy()
    with quiet():
        return metric(
            model=case.net, x_batch=case.x, y_batch=case.y, a_batch=maps[:, None].copy(), s_batch=segmentation,
            explain_func=explain, softmax=probabilities, device="cpu", channel_first=True,
        )  # fmt: skip


def grad_cam_targets(case: Case, rule: Rule) -> list[Callable[[Tensor], Tensor]]:
    return [lambda output, target=target: rule(output[None])[0, target] for target in case.classes]


@contextlib.contextmanager
def quiet() -> Any:
    """Hide the messages of the peers."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def error_of(call: Callable[[], Any]) -> str:
    """Return the error that a call raises, in one line; an empty text if it raises none."""
    try:
        with quiet():
            call()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def largest(first: Sequence[float] | Array, second: Sequence[float] | Array) -> float:
    """Return the largest absolute difference; where both are NaN they are equal."""
    a, b = (np.asarray(values, dtype=float).ravel() for values in (first, second))
    both = np.isnan(a) & np.isnan(b)
    return float(np.nan_to_num(np.abs(a - b)[~both], nan=np.inf).max(initial=0))
