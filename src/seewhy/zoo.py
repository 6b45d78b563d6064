"""The networks that torchvision and timm can build, as values: name -> preprocessing, labels, weights, network."""

from __future__ import annotations

import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import nn

from seewhy.errors import ModelError, UnknownName
from seewhy.preprocess import Preprocess
from seewhy.weights import Say, Weights, fetch, fetch_from_hub, read_weights, reading

EMBEDDED = "embedded"
EMBEDDED_NAMES = (EMBEDDED, "seewhy/efficientnet-lite0")

HINT = "List them: seewhy models [PATTERN]"
DAMAGED = "delete it, and it will be downloaded again"


@dataclass(frozen=True)
class Arch(ABC):
    """An architecture with its published weights. `classes` is how many classes those weights tell apart."""

    name: str

    @property
    @abstractmethod
    def uri(self) -> str: ...

    @property
    @abstractmethod
    def classes(self) -> int: ...

    @abstractmethod
    def preprocess(self) -> Preprocess: ...

    @abstractmethod
    def labels(self) -> tuple[str, ...] | None: ...

    @abstractmethod
    def fetch(self, say: Say) -> Weights:
        """The published weights, from this machine or downloaded."""

    @abstractmethod
    def count_classes(self, weights: Weights) -> int | None:
        """How many classes the classifier in `weights` has; None where there is none under its usual name."""

    @abstractmethod
    def make(self, weights: Weights, classes: int) -> nn.Module: ...

    def build(self, weights: Weights, classes: int, source: str) -> nn.Module:
        """The network with these weights, in eval mode. Raises `ModelError` (about `source`) where they do not fit."""
        try:
            return self.make(weights, classes).eval()
        except Exception as error:  # each library has its own way to fail on weights of another network
            raise ModelError(
                source,
                f"its weights do not fit {self.uri} with {classes} classes: {misfit(error)}; check the architecture "
                f"(?arch=...), the number of classes (num_classes=...) and that the names are those of its state dict",
            ) from None


@dataclass(frozen=True)
class TorchvisionArch(Arch):
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
        return Preprocess.from_torchvision(self.entry.transforms())

    def labels(self) -> tuple[str, ...] | None:
        return tuple(self.entry.meta["categories"] or ()) or None

    def fetch(self, say: Say) -> Weights:
        if not self.classes:
            raise ModelError(self.uri, "these weights have no classifier; choose others, or leave '@...' out")
        path = fetch(self.entry.url, self.uri, say)
        with reading(path, DAMAGED):
            # its own reader, for it also knows the files of before PyTorch 1.6
            weights: Weights = self.entry.get_state_dict(
                weights_only=True, check_hash=True, progress=False, map_location="cpu"
            )
        return weights

    def count_classes(self, weights: Weights) -> int | None:
        usual = r"(?:fc|head|heads\.head|classifier(?:\.(\d+))?)\.weight"
        found = [(int(match[1] or 0), key) for key in weights if (match := re.fullmatch(usual, key))]
        return weights[max(found)[1]].shape[0] if found else None

    def make(self, weights: Weights, classes: int) -> nn.Module:
        from torchvision.models import get_model

        if self.name in ("googlenet", "inception_v3") and not any(key.lower().startswith("aux") for key in weights):
            # saved after torchvision had thrown the training-only heads away
            choices = dict(aux_logits=False, transform_input=True, init_weights=False)
            network: nn.Module = get_model(self.name, weights=None, num_classes=classes, **choices)
            network.load_state_dict(weights)
            return network
        network = get_model(self.name, weights=stand_in(self.entry, weights, classes))
        return network


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


@dataclass(frozen=True)
class TimmArch(Arch):
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

    def fetch(self, say: Say) -> Weights:
        config = self.config
        if config.hf_hub_id:
            # the names, in the order, that timm itself tries
            names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
            path = fetch_from_hub(config.hf_hub_id, names, self.uri, say)
        elif config.url:
            path = fetch(config.url, self.uri, say)
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


def misfit(error: Exception) -> str:
    """What `load_state_dict` complains about, with a few names instead of all."""
    text = str(error)
    parts = []
    for kind in ("Missing", "Unexpected"):
        if match := re.search(rf"{kind} key\(s\) in state_dict: (.*)", text):
            names = re.findall(r'"([^"]+)"', match[1])
            parts.append(f"{kind.lower()} {a_few(names)}")
    shapes = r"size mismatch for (\S+): .*?torch\.Size\((.*?)\) from checkpoint.*?torch\.Size\((.*?)\)"
    if wrong := re.findall(shapes, text):
        parts.append("of another shape " + a_few([f"{name} ({given}, not {needed})" for name, given, needed in wrong]))
    return "; ".join(parts) or f"{type(error).__name__} ({text.splitlines()[0] if text else ''})"


def a_few(names: list[str], count: int = 3) -> str:
    """
    >>> a_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def torchvision_names() -> list[str]:
    """The classification models of torchvision."""
    import torchvision  # type: ignore[import-untyped]

    return sorted(torchvision.models.list_models(module=torchvision.models))


def timm_names() -> list[str]:
    """The models of timm, each with each name of its published weights."""
    import timm

    return list(timm.list_models(pretrained=True))


def find_arch(text: str) -> tuple[Arch, list[str]]:
    """`torchvision/NAME[@WEIGHTS]`, `timm/NAME` or a bare `NAME`, and what was decided about it, in words.

    Raises `UnknownName` with close matches over both libraries, `ModelError` for a network of another kind.

    >>> find_arch("torchvision/resnet18")[0].uri
    'torchvision/resnet18@IMAGENET1K_V1'
    """
    import timm
    import torchvision

    source, slash, name = text.partition("/")
    if not slash:
        source, name = "", text
    base, at, weights = name.partition("@")
    if source in ("", "torchvision"):
        if base in torchvision_names():
            arch = TorchvisionArch(base, weights if at else "DEFAULT")
            return arch, [] if source else [f"'{text}' taken from torchvision: {arch.uri}"]
        if base in torchvision.models.list_models():
            raise ModelError(
                f"torchvision/{base}",
                "no image classifier; segmentation, detection and the like come later: until then build it yourself "
                "and give the module",
            )
    architectures = timm.list_models()
    if source in ("", "timm") and (name in architectures or name in timm_names()):
        found = TimmArch(name)
        return found, [] if source else [f"'{text}' taken from timm: {found.uri}"]
    if source not in ("", "torchvision", "timm"):
        raise UnknownName(
            "model source", source, ["torchvision", "timm"], f"A model is torchvision/NAME, timm/NAME or a file. {HINT}"
        )
    hint = HINT
    if source:
        choices = [f"torchvision/{name}" for name in torchvision_names()]
        choices += [f"timm/{name}" for name in [*architectures, *timm_names()]]
        if (other := f"{'timm' if source == 'torchvision' else 'torchvision'}/{name}") in choices:
            hint = f"There is '{other}'. {HINT}"
    else:
        choices = [*EMBEDDED_NAMES, *torchvision_names(), *architectures, *timm_names()]
    raise UnknownName("model", text, choices, hint)
