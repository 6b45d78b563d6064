"""The maps of an explanation as numbers: selected, resized, scaled, thresholded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seewhy.errors import UsageError
from seewhy.explanation.checks import MapCheck
from seewhy.explanation.data import (
    ExplanationData,
    MapKey,
    covered_fraction,
    heatmap_of,
    most_likely,
    placed_maps,
    require_single_image,
)
from seewhy.explanation.flags import find_flags
from seewhy.explanation.selection import LayerChoice, MethodChoice, TargetChoice, find_key, layers_of
from seewhy.images.regions import largest_box
from seewhy.rendering.heatmaps import threshold_mask
from seewhy.tensors import map_functions


@dataclass(frozen=True, eq=False)
class ExplanationMaps(ExplanationData):
    """The methods of `Explanation` that return numbers."""

    # Selecting

    def key(self, method: MethodChoice = None, target: TargetChoice = None, layer: LayerChoice = None) -> MapKey:
        """Return the key (method, target, layer) of one map in `maps`.

        Args:
            method: Name, alias, text with settings, or `Method`.
            target: Key, class name, class index, text, or `Target`. "topK" is the class of rank K.
            layer: Name, or an entry that was passed to `explain` as `layers`.

        Returns:
            Method name, target key and layer name as they are stored.

        Raises:
            ChoiceError: Several maps match.
            UnknownName: No map matches.
        """
        return find_key(self, method, target, layer)

    def layers_of(self, method: MethodChoice) -> tuple[str, ...]:
        """Return the layers at which a method has maps; "network" for a method that explains the entire model."""
        return layers_of(self, method)

    # Maps

    def map(self, method: MethodChoice = None, target: TargetChoice = None, layer: LayerChoice = None) -> Tensor:
        """Return the signed map at the layer's resolution, in the units of the method.

        Returns:
            Shape `(*grid)` for a single image, else `(B, *grid)`. At a layer with several rows per input (frames, patches or
            crops), `(parts, *grid)` or `(B, parts, *grid)`: one map for each of `LayerInfo.parts`.

        Raises:
            ChoiceError: Several maps match.
            UnknownName: No map matches.
        """
        maps = self.maps[self.key(method, target, layer)]
        return maps[0] if self.single else maps

    def combined_map(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        layers: Sequence[LayerChoice] | None = None,
    ) -> Tensor:
        """Return the sum of the signed maps of several layers, on their finest grid.

        For layers of parallel branches (`layers="branches"` in `explain`), it is a map of all branches. Each map keeps its sum:
        where a cell is divided, so is its value.

        Args:
            layers: The layers to add. Default: all at which the method has a map.

        Returns:
            Shape `(*grid)` for a single image, else `(B, *grid)`, with the axes of the input.

        Raises:
            ChoiceError: Several methods or targets match.
            UnknownName: A layer has no map.
        """
        names = self.layers_of(method) if layers is None else layers
        keys = [self.key(method, target, name) for name in names]
        maps = [placed_maps(self, key) for key in keys]
        grid = tuple(max(lengths) for lengths in zip(*(one.shape[1:] for one in maps), strict=True))
        # A map that is resized to a part of the input has more cells than before, and covers a fraction of the input.
        cells = [self.maps[key][0].numel() / covered_fraction(self, key) for key in keys]
        terms = [map_functions.resize(one, grid) * (count / prod(grid)) for one, count in zip(maps, cells, strict=True)]
        total = torch.stack(terms).sum(0)
        return total[0] if self.single else total

    def heatmap(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
        *,
        scale: str = "own",
    ) -> Tensor:
        """Return the map after ReLU, resized to the input and divided by its maximum.

        Args:
            scale: "own" divides by the map's maximum; "shared" by the maximum over all targets of the same image, method
                and layer, so that the heatmaps of several targets can be compared.

        Returns:
            Values in [0, 1], shape `(*size)` for a single image, else `(B, *size)`. All zeros without positive evidence.

        Raises:
            ChoiceError: Several maps match.
            UnknownName: No map matches, or `scale` does not exist.
        """
        heatmaps = heatmap_of(self, self.key(method, target, layer), scale).at_input()
        return heatmaps[0] if self.single else heatmaps

    heat = heatmap  # its name in scripts that were written for earlier versions

    def positive_evidence(
        self, method: MethodChoice = None, target: TargetChoice = None, layer: LayerChoice = None
    ) -> float | list[float]:
        """Return the fraction of a map's absolute sum that is positive, in [0, 1]; NaN for an all-zero map.

        A float for a single image, else a list.
        """
        fractions: list[float] = map_functions.positive_evidence(self.maps[self.key(method, target, layer)]).tolist()
        return fractions[0] if self.single else fractions

    def flags(
        self, method: MethodChoice = None, target: TargetChoice = None, layer: LayerChoice = None
    ) -> tuple[str, ...] | list[tuple[str, ...]]:
        """Return the flags of a map, keys of `seewhy.explanation.flags.FLAGS`; a list of them for a batch."""
        key = self.key(method, target, layer)
        flags = find_flags(self.maps[key], self.has_gradient.get(key[1:]))
        return flags[0] if self.single else flags

    def check(
        self, method: MethodChoice = None, target: TargetChoice = None, layer: LayerChoice = None
    ) -> MapCheck | list[MapCheck]:
        """Return how far to trust a map: a verdict with its numbers. One for a single image, else a list.

        Raises:
            UsageError: The maps were not checked; call `seewhy.trust.check(model, explanation)`.
        """
        key = self.key(method, target, layer)
        if key not in self.checks:
            raise UsageError("the maps were not checked: call e = seewhy.trust.check(model, e) first.")
        checks = self.checks[key]
        return checks[0] if self.single else list(checks)

    # Locations (one image)

    def on_photo(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
        *,
        size: tuple[int, int] | None = None,
        scale: str = "own",
    ) -> NDArray[np.float32]:
        """Return the heatmap at the pixels of the photo, or of the input for tensors.

        Args:
            size: (height, width) of the result; default: the photo's.
            scale: As for `heatmap`.

        Returns:
            Values in [0, 1], shape `(H0, W0)`; 0 outside the part of the photo that the model received.

        Raises:
            UsageError: The input is a signal or a volume.
        """
        require_single_image(self, "on_photo")
        return self._on_photo(self.key(method, target, layer), size, scale)

    def mask(
        self,
        threshold: float = 0.5,
        *,
        scale: str = "own",
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
    ) -> NDArray[np.bool_]:
        """Return where the heatmap is at least `threshold` times its maximum.

        Args:
            threshold: Fraction in (0, 1].
            scale: As for `heatmap`; "shared" compares with the maximum over all targets.

        Returns:
            Shape `(H0, W0)` on the photo; `(*size)` on the input for signals and volumes.

        Raises:
            UsageError: `threshold` is outside (0, 1].
        """
        require_single_image(self, "mask")
        key = self.key(method, target, layer)
        is_image = len(self.size) == 2
        heatmap = self._on_photo(key, None, scale) if is_image else heatmap_of(self, key, scale).array()
        return threshold_mask(heatmap, threshold, own_maximum=scale == "own")

    def box(
        self,
        threshold: float = 0.5,
        *,
        scale: str = "own",
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
    ) -> tuple[int, ...] | None:
        """Return the bounding box of the largest connected region of `mask(threshold)`.

        Args:
            threshold: As for `mask`.
            scale: As for `mask`.

        Returns:
            Starts, then exclusive ends, the last axis first: (left, top, right, bottom) in photo pixels, (start, end) in
            samples of a signal, (left, top, front, right, bottom, back) in a volume (depth, height, width). None if the
            mask is empty.

        Raises:
            UsageError: `threshold` is outside (0, 1].
        """
        require_single_image(self, "box")
        return largest_box(self.mask(threshold, scale=scale, method=method, target=target, layer=layer))

    def _on_photo(self, key: MapKey, size: tuple[int, int] | None, scale: str) -> NDArray[np.float32]:
        if len(self.size) != 2:
            raise UsageError(f"on_photo needs an image; these maps have {len(self.size)} axes: use map() or heatmap().")
        return heatmap_of(self, key, scale).on_photo(self.view, size or self.view.photo_size)

    def top(self, count: int = 5) -> list[tuple[int, str, float]]:
        """Return the most likely classes of one image, the most likely first.

        Args:
            count: Maximum number of classes. After `load`, only the saved classes are available.

        Returns:
            Triples (index, name, probability).

        Raises:
            UsageError: The model returns no class scores, or `count` is not a positive integer.
            ChoiceError: The explanation has several images.
        """
        require_single_image(self, "top")
        if not isinstance(count, int) or count < 1:
            raise UsageError(f"top({count!r}): pass the number of classes, at least 1.")
        if self.logits is None and not self.top_classes:
            raise UsageError("the explained output is not a table of class scores (B, K), so there are no top classes.")
        return most_likely(self, count)
