"""Networks of timm, by name or from a config.json."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seewhy.errors import ModelError
from seewhy.images.preprocess import Preprocess
from seewhy.models.downloads import Log, download_from_hub, download_from_url
from seewhy.models.imagenet import imagenet_labels
from seewhy.models.sources.architecture import CORRUPT_HINT, HINT, Architecture, first_length
from seewhy.models.weights import Weights, read_weights


@dataclass(frozen=True)
class TimmArchitecture(Architecture):
    """A network of timm with one set of its published weights."""

    @functools.cached_property
    def config(self) -> Any:
        """timm's `PretrainedCfg`: location of the weights, input size, mean, classifier, ..."""
        import timm

        return timm.get_pretrained_cfg(self.name)

    @property
    def uri(self) -> str:
        return f"timm/{self.config.architecture}" + (f".{self.config.tag}" if self.config.tag else "")

    @property
    def num_classes(self) -> int:
        return int(self.config.num_classes)

    def preprocess(self) -> Preprocess:
        return preprocess_from_timm(self.config.to_dict())

    def labels(self) -> tuple[str, ...] | None:
        return imagenet_labels(self.num_classes)

    def load_weights(self, log: Log) -> Weights:
        config = self.config
        if config.hf_hub_id:
            # the same names in the same order as timm
            names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
            path = download_from_hub(config.hf_hub_id, names, self.uri, log)
        elif config.url:
            path = download_from_url(config.url, self.uri, log)
        else:
            raise ModelError(
                self.uri, f"timm has no weights for it; pass your own: 'weights.pth?arch={self.uri}'. {HINT}"
            )
        return read_weights(path, CORRUPT_HINT)[0]

    def count_classes(self, weights: Weights) -> int | None:
        names = self.config.classifier or ()
        first = names if isinstance(names, str) else next(iter(names), "")
        classifier = weights.get(f"{first}.weight")
        return None if classifier is None else first_length(classifier)

    def build_with_weights(self, weights: Weights, num_classes: int) -> nn.Module:
        import timm

        # Passed as if published, timm renames layers of old files, resizes position embeddings and checks names.
        overlay = dict(state_dict=weights, num_classes=num_classes)
        network: nn.Module = timm.create_model(
            self.name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay
        )
        record: Any = network.pretrained_cfg
        record.pop("state_dict", None)  # a second copy of all weights
        return network

    def build_without_weights(self, num_classes: int) -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(self.name, pretrained=False, num_classes=num_classes)
        return network


def build_from_folder(folder: Path, weights: Weights | None) -> nn.Module:
    """Build the network of a `config.json` in the format of timm's `save_for_hf` and of the hub."""
    import timm

    source = f"local-dir:{folder}"
    if weights is None:
        network: nn.Module = timm.create_model(source, pretrained=False)
        return network
    network = timm.create_model(source, pretrained=True, pretrained_cfg_overlay=dict(state_dict=weights, source=""))
    record: Any = network.pretrained_cfg
    record.pop("state_dict", None)
    return network


def labels_from_config(config: Mapping[str, Any], num_classes: int) -> tuple[str, ...] | None:
    """Return the labels in a `pretrained_cfg` of the hub: descriptions if it has any, otherwise names.

    >>> labels_from_config({"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat"}}, 2)
    ('cat', 'n2')
    """
    names, descriptions = config.get("label_names"), config.get("label_descriptions")
    if isinstance(names, list | tuple) and names and len(names) == num_classes:
        if isinstance(descriptions, Mapping):
            return tuple(str(descriptions.get(str(name), name)) for name in names)
        if isinstance(descriptions, list | tuple) and len(descriptions) == num_classes:
            names = descriptions
        return tuple(map(str, names))
    return imagenet_labels(num_classes)


def preprocess_from_timm(config: dict[str, Any]) -> Preprocess:
    """Return the preprocessing of a timm `pretrained_cfg`."""
    from timm.data.config import resolve_data_config

    resolve: Any = resolve_data_config
    return Preprocess.from_timm(resolve(pretrained_cfg=config))


def list_timm_names() -> list[str]:
    """Return "NAME.TAG" for each set of published weights in timm."""
    import timm

    return list(timm.list_models(pretrained=True))
