"""The methods of `Explanation` for the measured map, which no method computed: it shows what covering the image did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewhy.errors import UsageError
from seewhy.explanation.data import ExplanationData, require_single_image
from seewhy.explanation.maps import ExplanationMaps
from seewhy.explanation.selection import TargetChoice, choose, find_target_key
from seewhy.explanation.window_fit import fit_map
from seewhy.rendering.heatmaps import Heatmap
from seewhy.rendering.overlays import LONGEST, OverlayStyle, as_style


@dataclass(frozen=True, eq=False)
class MeasuredMaps(ExplanationMaps):
    """The methods of `Explanation` that fit a map to the effect of covering parts of the image."""

    def measured_map(self, target: TargetChoice = None) -> Tensor:
        """Return where covering the image lowers the score of a target, as measured by `seewhy.trust.check`.

        The map is fitted to the drops of the score under the 27 masks of the check. It depends on no method, layer or
        gradient. It is coarse, because the masks are windows of 1/2 and 3/8 of the side. A negative value means less than the
        average of the image; it is no evidence against the target.

        Args:
            target: Key, class name, class index, text, or `Target`. Optional if there is only one.

        Returns:
            Shape `(14, 14)` over the input for a single image, else `(B, 14, 14)`. The unit is the standard deviation of a
            cell in the prior of the fit, and 0 is the average of the image: compare places, not the strength of two maps.

        Raises:
            UsageError: `seewhy.trust.check` was not called, or covering an image has no effect that can be fitted.

        Example:
            >>> import seewhy
            >>> model = seewhy.load_model()
            >>> e = seewhy.trust.check(model, seewhy.explain(model, seewhy.sample("coffee")))
            >>> e.measured_map().shape
            torch.Size([14, 14])
        """
        maps = fit_maps(self, target)
        return maps[0] if self.single else maps

    def measured_heatmap(self, target: TargetChoice = None) -> Tensor:
        """Return the measured map after ReLU, resized to the input and divided by its maximum.

        Args:
            target: As for `measured_map`.

        Returns:
            Values in [0, 1], shape `(H, W)` for a single image, else `(B, H, W)`.

        Raises:
            UsageError: As for `measured_map`.
        """
        heatmaps = Heatmap(fit_maps(self, target), self.size).at_input()
        return heatmaps[0] if self.single else heatmaps

    def measured_overlay(
        self, target: TargetChoice = None, *, style: OverlayStyle | None = None, longest: int | None = LONGEST
    ) -> Image.Image:
        """Draw the measured map over the entire photo, in the same way as `overlay` draws the map of a method.

        Args:
            target: As for `measured_map`.
            style: Colors and opacity. Measured maps are not drawn on a shared scale.
            longest: Maximum of the longer side in pixels; None: the photo's own size.

        Returns:
            An RGB image.

        Raises:
            UsageError: As for `measured_map`.
            ChoiceError: Several targets match, or the explanation has several images.
        """
        require_single_image(self, "measured_overlay")
        return self.background.draw_overlay(Heatmap(fit_maps(self, target), self.size), as_style(style), longest)


def fit_maps(e: ExplanationData, target: TargetChoice) -> Tensor:
    """Return the measured maps `(B, 14, 14)` of one target."""
    key = choose("target", None, e.main_targets) if target is None else find_target_key(e, target)
    if key not in e.drops:
        raise UsageError("nothing was measured: call e = seewhy.trust.check(model, e) first.")
    name = e.target_results[e.targets.index(key)].name
    for image, drops in enumerate(e.drops[key]):
        if drops.reason:
            which = "" if len(e) == 1 else f" in image {image}"
            raise UsageError(f"there is no measured map for {name}{which}: {drops.reason}.")
    return torch.from_numpy(np.stack([fit_map(drops) for drops in e.drops[key]])).float()
