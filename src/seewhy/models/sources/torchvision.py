"""torchvision's networks: classifiers, and those that segment and detect."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from seewhy.errors import ModelError, UnknownName
from seewhy.images.preprocess import Preprocess
from seewhy.models.sources.arch import DAMAGED, Architecture
from seewhy.models.weights import Log, Weights, fetch, reading

TASKS = ("segmentation", "detection")
# converted from Caffe2, where batch norms have no epsilon; torchvision does this for these weights too
EPS_0 = (
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)


@dataclass(frozen=True)
class TorchvisionArch(Architecture):
    weights: str = "DEFAULT"

    @functools.cached_property
    def entry(self) -> Any:
        """torchvision's own record of the weights: url, transforms, meta."""
        from torchvision.models import get_model_weights  # type: ignore[import-untyped]

        entries = get_model_weights(self.name)
        if self.weights not in entries.__members__:
            hint = f"torchvision/{self.name} has {', '.join(entries.__members__)}."
            raise UnknownName("weights", self.weights, entries.__members__, hint)
        return entries[self.weights]

    @property
    def uri(self) -> str:
        return f"torchvision/{self.name}@{self.entry.name}"

    @property
    def classes(self) -> int:
        return len(self.entry.meta["categories"] or ())

    def preprocess(self) -> Preprocess:
        preset = self.entry.transforms()
        if self.task == "segmentation":
            size = (preset.resize_size[0],) * 2
            return Preprocess(size, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, size)
        if self.task == "detection":
            size = detector_size(self.name)
            return Preprocess(size, (0.0,) * 3, (1.0,) * 3, "bilinear", size)
        return Preprocess.from_torchvision(preset)

    def notes(self) -> list[str]:
        if self.task == "segmentation":
            short = self.entry.transforms().resize_size[0]
            return [f"preprocessing: squashed to {short}x{short}; torchvision's own keeps the photo's proportions"]
        if self.task == "detection":
            return [
                "preprocessing: squashed to a square of a size that the network's own resize leaves as it is; it "
                "normalizes by itself, and boxes are in pixels of the input"
            ]
        return []

    @functools.cached_property
    def task(self) -> str:
        """ "segmentation", "detection" or "" for a classifier."""
        return next((task for task in TASKS if self.name in names_of(task)), "")

    def labels(self) -> tuple[str, ...] | None:
        return tuple(self.entry.meta["categories"] or ()) or None

    def fetch(self, log: Log) -> Weights:
        if not self.classes:
            raise ModelError(self.uri, "these weights have no classifier; choose others, or leave '@...' out")
        path = fetch(self.entry.url, self.uri, log)
        with reading(path, DAMAGED):
            # its own reader, for it also knows the files of before PyTorch 1.6
            weights: Weights = self.entry.get_state_dict(
                weights_only=True, check_hash=True, progress=False, map_location="cpu"
            )
        return weights

    def count_classes(self, weights: Weights) -> int | None:
        usual = r"(?:fc|head|heads\.head|classifier(?:\.(\d+))?)\.weight"
        for name in ("roi_heads.box_predictor.cls_score.weight", "classifier.low_classifier.weight"):
            if name in weights:
                return weights[name].shape[0]
        if self.task == "detection":
            return None  # one-stage detectors: classes times anchors
        found = [(int(match[1] or 0), key) for key in weights if (match := re.fullmatch(usual, key))]
        return weights[max(found)[1]].shape[0] if found else None

    def make(self, weights: Weights, classes: int) -> nn.Module:
        from torchvision.models import get_model

        # saved after the heads that only training uses had been thrown away
        if self.heads and not any(key.lower().startswith("aux") for key in weights):
            network = self.blank(classes)
            network.load_state_dict(weights)
        else:
            network = get_model(self.name, weights=stand_in(self.entry, weights, classes))
        if self.name in EPS_0:
            from torchvision.models.detection._utils import overwrite_eps  # type: ignore[import-untyped]

            overwrite_eps(network, 0.0)
        return network

    @property
    def heads(self) -> dict[str, Any]:
        """What leaves the training-only heads out, for networks that have such heads."""
        if self.name in ("googlenet", "inception_v3"):
            return dict(aux_logits=False, transform_input=True, init_weights=False)
        return dict(aux_loss=False) if self.name.startswith(("fcn_", "deeplabv3_")) else {}

    def blank(self, classes: int) -> nn.Module:
        from torchvision.models import get_model

        if self.task:
            network: nn.Module = get_model(
                self.name, weights=None, weights_backbone=None, num_classes=classes, **self.heads
            )
            return network
        network = get_model(self.name, weights=None, num_classes=classes, **self.heads)
        return network


def detector_size(name: str) -> tuple[int, int]:
    """The square of the shorter side, or of the fixed size, to which a detector resizes pictures by itself.

    >>> detector_size("ssd300_vgg16"), detector_size("fcos_resnet50_fpn")
    ((300, 300), (800, 800))
    """
    number = re.search(r"(300|320)", name)
    return (int(number[1]) if number else 800,) * 2


def stand_in(entry: Any, weights: Weights, classes: int) -> Any:
    """A record like `entry` that hands out `weights`.

    torchvision makes some networks differently when they are given weights (input size, auxiliary heads, channel
    order, old names of layers), but would read the file with pickle itself. So its builder gets a record of the same
    kind that has read the file already.
    """
    record = object.__new__(type(entry))
    record._name_ = entry.name
    record._value_ = dataclasses.replace(entry.value, meta={**entry.meta, "categories": range(classes)})
    record.get_state_dict = lambda *args, **options: weights
    return record


def torchvision_names() -> list[str]:
    """The models of torchvision that classify, segment or detect."""
    return sorted([*names_of(""), *(name for task in TASKS for name in names_of(task))])


@functools.cache
def names_of(task: str) -> tuple[str, ...]:
    """
    >>> names_of("segmentation")[0]
    'deeplabv3_mobilenet_v3_large'
    """
    import torchvision  # type: ignore[import-untyped]

    models = torchvision.models
    return tuple(models.list_models(module=getattr(models, task) if task else models))
