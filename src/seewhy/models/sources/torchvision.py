"""Networks of torchvision: classification, segmentation and detection."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from seewhy.errors import ModelError, UnknownName
from seewhy.images.preprocess import Preprocess
from seewhy.models.downloads import Log, download_from_url
from seewhy.models.sources.architecture import CORRUPT_HINT, Architecture, first_length
from seewhy.models.weights import Weights, convert_read_errors

TASKS = ("segmentation", "detection")
# Converted from Caffe2, whose batch norms have no epsilon; torchvision sets it to 0 for these weights too.
ZERO_EPSILON = (
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)


@dataclass(frozen=True)
class TorchvisionArchitecture(Architecture):
    """A network of torchvision with one set of its published weights."""

    weights: str = "DEFAULT"

    @functools.cached_property
    def entry(self) -> Any:
        """torchvision's enum member of the weights: url, transforms, meta."""
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
    def num_classes(self) -> int:
        return len(self.entry.meta["categories"] or ())

    def preprocess(self) -> Preprocess:
        preset = self.entry.transforms()
        if self.task == "segmentation":
            size = (preset.resize_size[0],) * 2
            return Preprocess(size, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, size)
        if self.task == "detection":
            size = get_detector_size(self.name)
            return Preprocess(size, (0.0,) * 3, (1.0,) * 3, "bilinear", size)
        return Preprocess.from_torchvision(preset)

    def notes(self) -> list[str]:
        if self.task == "segmentation":
            short = self.entry.transforms().resize_size[0]
            return [f"preprocessing: squashed to {short}x{short}; torchvision's own keeps the aspect ratio"]
        if self.task == "detection":
            return [
                "preprocessing: squashed to a square of the size that the network resizes to internally; the network "
                "normalizes the image itself, and boxes are in input pixels"
            ]
        return []

    @functools.cached_property
    def task(self) -> str:
        """ "segmentation", "detection" or "" for a classifier."""
        return next((task for task in TASKS if self.name in list_names(task)), "")

    def labels(self) -> tuple[str, ...] | None:
        return tuple(self.entry.meta["categories"] or ()) or None

    def load_weights(self, log: Log) -> Weights:
        if not self.num_classes:
            raise ModelError(self.uri, "these weights have no classifier; choose other weights, or omit '@...'")
        path = download_from_url(self.entry.url, self.uri, log)
        with convert_read_errors(path, CORRUPT_HINT):
            # torchvision's reader also supports files from before PyTorch 1.6.
            weights: Weights = self.entry.get_state_dict(
                weights_only=True, check_hash=True, progress=False, map_location="cpu"
            )
        return weights

    def count_classes(self, weights: Weights) -> int | None:
        pattern = r"(?:fc|head|heads\.head|classifier(?:\.(\d+))?)\.weight"
        for name in ("roi_heads.box_predictor.cls_score.weight", "classifier.low_classifier.weight"):
            if name in weights:
                return first_length(weights[name])
        if self.task == "detection":
            return None  # one-stage detectors: the head has classes x anchors outputs
        heads = [(int(match[1] or 0), key) for key in weights if (match := re.fullmatch(pattern, key))]
        return first_length(weights[max(heads)[1]]) if heads else None

    def build_with_weights(self, weights: Weights, num_classes: int) -> nn.Module:
        from torchvision.models import get_model

        # weights saved without the auxiliary heads, which only training uses
        if self.no_auxiliary_heads and not any(key.lower().startswith("aux") for key in weights):
            network = self.build_without_weights(num_classes)
            network.load_state_dict(weights)
        else:
            network = get_model(self.name, weights=enum_member_with_weights(self.entry, weights, num_classes))
        if self.name in ZERO_EPSILON:
            from torchvision.models.detection._utils import overwrite_eps  # type: ignore[import-untyped]

            overwrite_eps(network, 0.0)
        return network

    @property
    def no_auxiliary_heads(self) -> dict[str, Any]:
        """Arguments that build a network without its auxiliary heads; empty if it has none."""
        if self.name in ("googlenet", "inception_v3"):
            return dict(aux_logits=False, transform_input=True, init_weights=False)
        return dict(aux_loss=False) if self.name.startswith(("fcn_", "deeplabv3_")) else {}

    def build_without_weights(self, num_classes: int) -> nn.Module:
        from torchvision.models import get_model

        if self.task:
            network: nn.Module = get_model(
                self.name, weights=None, weights_backbone=None, num_classes=num_classes, **self.no_auxiliary_heads
            )
            return network
        network = get_model(self.name, weights=None, num_classes=num_classes, **self.no_auxiliary_heads)
        return network


def get_detector_size(name: str) -> tuple[int, int]:
    """Return the square that a detector's internal resize does not change.

    >>> get_detector_size("ssd300_vgg16"), get_detector_size("fcos_resnet50_fpn")
    ((300, 300), (800, 800))
    """
    fixed = re.search(r"(300|320)", name)
    return (int(fixed[1]) if fixed else 800,) * 2


def enum_member_with_weights(entry: Any, weights: Weights, num_classes: int) -> Any:
    """Return a copy of torchvision's weights enum member whose `get_state_dict` returns `weights`.

    torchvision builds some networks differently if they get weights (input size, auxiliary heads, channel order,
    layer names of old files), but would unpickle the file itself. A member with the loaded weights avoids that.
    """
    member = object.__new__(type(entry))
    member._name_ = entry.name
    member._value_ = dataclasses.replace(entry.value, meta={**entry.meta, "categories": range(num_classes)})
    member.get_state_dict = lambda *args, **options: weights
    return member


def list_torchvision_names() -> list[str]:
    """Return the models of torchvision for classification, segmentation and detection."""
    return sorted([*list_names(""), *(name for task in TASKS for name in list_names(task))])


@functools.cache
def list_names(task: str) -> tuple[str, ...]:
    """
    >>> list_names("segmentation")[0]
    'deeplabv3_mobilenet_v3_large'
    """
    import torchvision  # type: ignore[import-untyped]

    models = torchvision.models
    return tuple(models.list_models(module=getattr(models, task) if task else models))
