"""timm's networks, by name and by a config.json."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seewhy.errors import ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.sources.arch import DAMAGED, HINT, Architecture
from seewhy.models.weights import Log, Weights, fetch, fetch_from_hub, read_weights


@dataclass(frozen=True)
class TimmArch(Architecture):
    @functools.cached_property
    def config(self) -> Any:
        """timm's own record of the weights: where they are, input size, mean, classifier, ..."""
        import timm

        return timm.get_pretrained_cfg(self.name)

    @property
    def uri(self) -> str:
        return f"timm/{self.config.architecture}" + (f".{self.config.tag}" if self.config.tag else "")

    @property
    def classes(self) -> int:
        return int(self.config.num_classes)

    def preprocess(self) -> Preprocess:
        return timm_preprocess(self.config.to_dict())

    def labels(self) -> tuple[str, ...] | None:
        return imagenet_labels(self.classes)

    def fetch(self, log: Log) -> Weights:
        config = self.config
        if config.hf_hub_id:
            # the names, in the order, that timm itself tries
            names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
            path = fetch_from_hub(config.hf_hub_id, names, self.uri, log)
        elif config.url:
            path = fetch(config.url, self.uri, log)
        else:
            raise ModelError(self.uri, f"timm has no weights for it; give yours: 'weights.pth?arch={self.uri}'. {HINT}")
        return read_weights(path, DAMAGED)[0]

    def count_classes(self, weights: Weights) -> int | None:
        names = self.config.classifier or ()
        first = names if isinstance(names, str) else next(iter(names), "")
        classifier = weights.get(f"{first}.weight")
        return None if classifier is None else classifier.shape[0]

    def make(self, weights: Weights, classes: int) -> nn.Module:
        import timm

        # as if they were the published weights: timm renames old layers, resizes position embeddings, checks names
        overlay = dict(state_dict=weights, num_classes=classes)
        network: nn.Module = timm.create_model(
            self.name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay
        )
        record: Any = network.pretrained_cfg
        record.pop("state_dict", None)  # a second copy of every weight
        return network

    def blank(self, classes: int) -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(self.name, pretrained=False, num_classes=classes)
        return network


def from_folder(folder: Path, weights: Weights | None) -> nn.Module:
    """The network that `config.json` in the folder describes, as timm's `save_for_hf` and the hub have it."""
    import timm

    source = f"local-dir:{folder}"
    if weights is None:
        network: nn.Module = timm.create_model(source, pretrained=False)
        return network
    network = timm.create_model(source, pretrained=True, pretrained_cfg_overlay=dict(state_dict=weights, source=""))
    record: Any = network.pretrained_cfg
    record.pop("state_dict", None)
    return network


def named_labels(config: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    """The labels in a `pretrained_cfg` of the hub: descriptions where there are some, else the names.

    >>> named_labels({"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat"}}, 2)
    ('cat', 'n2')
    """
    names, described = config.get("label_names"), config.get("label_descriptions")
    if names and len(names) == classes:
        if isinstance(described, Mapping):
            return tuple(str(described.get(name, name)) for name in names)
        return tuple(map(str, described if described and len(described) == classes else names))
    return imagenet_labels(classes)


def timm_preprocess(config: dict[str, Any]) -> Preprocess:
    """What a timm `pretrained_cfg` says about the picture."""
    from timm.data.config import resolve_data_config

    resolve: Any = resolve_data_config
    return Preprocess.from_timm(resolve(pretrained_cfg=config))


@functools.cache
def imagenet_labels(classes: int) -> tuple[str, ...] | None:
    """The classes of the ImageNet variant with that many; None where there is none.

    >>> imagenet_labels(1000)[0], imagenet_labels(7)
    ('tench, Tinca tinca', None)
    """
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes})
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else None


def timm_names() -> list[str]:
    """The models of timm, each with each name of its published weights."""
    import timm

    return list(timm.list_models(pretrained=True))
