"""The fields of an explanation, without the methods that draw, save or select."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy import storage
from seewhy.errors import ChoiceError, UsageError
from seewhy.explanation.checks import MapCheck
from seewhy.explanation.components import ChannelFeatures, InputImage, LayerInfo, TargetResult
from seewhy.explanation.curves import RemovalCurve, RemovalCurves
from seewhy.explanation.windows import WindowDrops
from seewhy.images.view import View
from seewhy.places.parts import place_maps
from seewhy.places.region import Region
from seewhy.rendering.backgrounds import Background, PhotoBackground, SignalBackground, VolumeBackground
from seewhy.rendering.heatmaps import Heatmap, shared_maximum
from seewhy.rendering.overlays import Bytes, check_scale, input_pixels
from seewhy.targets.class_scores import probabilities
from seewhy.targets.names import class_name
from seewhy.tensors import map_functions

MapKey = tuple[str, str, str]  # method, target, layer


@dataclass(frozen=True, eq=False)
class ExplanationData:
    """The fields of `Explanation`, which documents them."""

    maps: Mapping[MapKey, Tensor]
    target_results: tuple[TargetResult, ...]
    layer_info: Mapping[str, LayerInfo]
    has_gradient: Mapping[tuple[str, str], Tensor]
    size: tuple[int, ...]
    logits: Tensor | None = None
    labels: tuple[str, ...] | None = None
    inputs: Tensor | None = None
    images: tuple[InputImage, ...] | None = None
    suggested: str | None = None
    single: bool = False
    multilabel: bool = False
    normalized: bool = False
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    channel_features: Mapping[str, ChannelFeatures] = field(default_factory=dict)
    top_classes: tuple[tuple[int, str, float], ...] = ()
    selected_layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    checks: Mapping[MapKey, tuple[MapCheck, ...]] = field(default_factory=dict)
    drops: Mapping[str, tuple[WindowDrops, ...]] = field(default_factory=dict)
    curves: Mapping[MapKey, tuple[Mapping[str, RemovalCurves], ...]] = field(default_factory=dict)
    random_curves: Mapping[str, tuple[Mapping[str, RemovalCurve], ...]] = field(default_factory=dict)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""
        return tuple(dict.fromkeys(method for method, _, _ in self.maps))

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The keys of the targets."""
        return tuple(result.key for result in self.target_results)

    @cached_property
    def main_targets(self) -> tuple[str, ...]:
        """The keys of the targets that were requested: all but those that were added for comparison."""
        requested = tuple(result.key for result in self.target_results if not result.for_comparison)
        return requested or self.targets

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers in execution order."""
        return tuple(self.layer_info)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.target_results[0].scores)

    @property
    def view(self) -> View:
        """The rectangle of the photo that the model received. Raises UsageError for signals and volumes."""
        if self.images is not None:
            return self.images[0].view
        if len(self.size) != 2:
            raise UsageError(
                f"only images have a view, and this input has {len(self.size)} axes: use box() or mask(), which return "
                "input coordinates."
            )
        return View.identity(self.size)

    @property
    def probabilities(self) -> Tensor:
        """The probability of each class, shape (B, K).

        Softmax; sigmoid for `multilabel` models and for a single logit; the scores themselves if they are `normalized`.
        Raises UsageError if the model has no class scores.
        """
        if self.logits is None:
            raise UsageError(
                "the explained output is not a table of class scores (B, K), so there are no probabilities."
            )
        return probabilities(self.logits.float(), self.multilabel, normalized=self.normalized)

    @cached_property
    def background(self) -> Background:
        """The photo, signal or volume that heatmaps of one image are drawn over."""
        require_single_image(self, "drawing")
        if len(self.size) == 1:
            return SignalBackground(self._input_array())
        if len(self.size) == 3:
            return VolumeBackground(self._input_array(), self.provenance.get("preprocess"))
        photo = self.input_pixels() if self.images is None else self.images[0].photo
        return PhotoBackground(photo, self.view, view_of_region(self))

    def _input_array(self) -> NDArray[np.float32]:
        """Return the model input (C, *size) of one image. Raises UsageError if it was not saved."""
        check_photo(self)
        if self.inputs is None:
            raise UsageError("a loaded explanation does not contain the model's input: draw it with overlay().")
        numbers: NDArray[np.float32] = self.inputs[0].detach().float().cpu().numpy()
        return numbers

    def input_pixels(self) -> Bytes:
        """Return the model's input of one image as pixels.

        Returns:
            uint8 `(H, W, 3)`, RGB, with the normalization undone if the preprocessing is known.

        Raises:
            UsageError: The explanation was loaded, and the input is not saved with it.
        """
        return input_pixels(self._input_array(), self.provenance.get("preprocess"))


# Helpers for the modules that draw, save and select


def on_input(e: ExplanationData) -> ExplanationData:
    """Return the explanation with the model's input as its photo. Raises UsageError if a loaded one does not contain it."""
    if e.images is None:
        return e
    image = InputImage(e.images[0].source, e.input_pixels(), View.identity(e.size))
    return dataclasses.replace(e, images=(image,))


def check_photo(e: ExplanationData) -> None:
    """Raise UsageError if a loaded explanation has lost its photo: it has neither an image nor the model's input."""
    if e.images is None and e.inputs is None:
        name = storage.PHOTO if len(e.size) == 2 else storage.INPUT
        raise UsageError(
            f"{name} of this saved explanation is missing, so only its maps can be read. Restore the file, or explain the "
            "image again."
        )


def require_single_image(e: ExplanationData, action: str) -> None:
    """Raise ChoiceError if an explanation is of several images."""
    if len(e) != 1:
        raise ChoiceError(
            f"{action} needs one image, and this explanation has {len(e)}: use e[0].", map(str, range(len(e)))
        )


def most_likely(e: ExplanationData, count: int) -> list[tuple[int, str, float]]:
    """Return (index, name, probability) of the most likely classes of one image; empty without class scores."""
    if e.logits is None:
        return list(e.top_classes[:count])
    chances = e.probabilities[0]
    best = chances.topk(min(count, len(chances)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(index, class_name(index, e.labels), chance) for index, chance in pairs]


def heatmap_of(e: ExplanationData, key: MapKey, scale: str) -> Heatmap:
    """Return the heatmap of one map; `scale` "shared" divides by the maximum over all targets."""
    maximum, maps = None, positive_maps(e, key)
    if check_scale(scale) == "shared":
        method, _, layer = key
        keys = [(method, target, layer) for target in e.targets]
        maximum = shared_maximum([positive_maps(e, other) for other in keys if other in e.maps], e.size)
    return Heatmap(maps, e.size, maximum)


def placed_maps(e: ExplanationData, key: MapKey) -> Tensor:
    """Return signed maps (B, *cells) with the axes of the input; those of parts are put together to one map of the input."""
    info = e.layer_info[key[2]]
    return place_maps(e.maps[key], e.size, info.parts, info.region)


def positive_maps(e: ExplanationData, key: MapKey) -> Tensor:
    """Return maps as `placed_maps`, of which the positive values are drawn.

    A map that `place_maps` resizes to its region is rectified before, as all maps are before they are resized.
    """
    info = e.layer_info[key[2]]
    return placed_maps(e, key) if info.region is None else info.region.place(map_functions.rectify(e.maps[key]), e.size)


def maps_in_view(e: ExplanationData, key: MapKey, region: Region | None) -> Tensor:
    """Return signed maps (B, *cells) that cover the view of `region`; of the entire input if it is None."""
    return placed_maps(e, key) if region is None else region.upright(e.maps[key])


def covered_fraction(e: ExplanationData, key: MapKey) -> float:
    """Return the fraction of the input that a map covers, as the crops or the region that the layer sees."""
    info = e.layer_info[key[2]]
    return float((place_maps(torch.ones_like(e.maps[key][:1]), e.size, info.parts, info.region) > 0).float().mean())


def view_of_region(e: ExplanationData) -> View | None:
    """Return the view of the region that all layers see; None for the entire input."""
    region = shared_region(e, e.layers)
    return None if region is None else e.view.crop(*region.box)


def shared_region(e: ExplanationData, layers: Iterable[str]) -> Region | None:
    """Return the region that all of `layers` see; None for the entire input, or for several regions."""
    regions = {e.layer_info[layer].region for layer in layers}
    return regions.pop() if len(regions) == 1 else None
