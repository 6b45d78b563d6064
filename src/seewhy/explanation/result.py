"""`Explanation`: the maps of one call of `explain`, with methods that select, draw and save them."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from seewhy import storage
from seewhy.errors import UsageError
from seewhy.explanation import figures, report, saved
from seewhy.explanation.components import ChannelFeatures
from seewhy.explanation.data import require_single_image
from seewhy.explanation.paper_figures import PaperFigures
from seewhy.explanation.selection import (
    LayerChoice,
    MethodChoice,
    TargetChoice,
    fields_for_image,
    find_layer,
    find_method_name,
    layers_of,
    match_layers,
)
from seewhy.rendering.overlays import LONGEST, OverlayStyle, as_style
from seewhy.storage.paths import check_null, check_overwrite


@dataclass(frozen=True, eq=False)
class Explanation(PaperFigures):
    """The maps that `explain` computed, by method, target and layer. It contains no model.

    Methods that return one map take `method`, `target` and `layer`, and accept everything that `explain` accepts: a method
    by name, alias, text with settings, or instance; a target by class index, class name, text or `Target`; a layer by
    name, or as it was selected. Each is optional if the explanation has only one.

    Args:
        maps: Signed maps `(B, *grid)` by (method, target, layer), in the units of the method.
        target_results: Name, scores and classes of each target.
        layer_info: Module class, grid and channels of each layer, in execution order.
        has_gradient: For all-zero maps, by (target, layer): whether any gradient reached the layer, `(B,)`.
        size: Size of the input without batch and channel axes.
        logits: Class scores `(B, K)`, or None if the model has none.
        labels: Class names of the model, or None.
        inputs: The model's input `(B, C, *size)`; None after `load`, except for signals and volumes.
        images: The images that the inputs were made from, or None for tensors.
        suggested: Name of the suggested layer, if it was requested.
        single: True for one image: results have no batch axis then.
        multilabel: True if each class has an independent probability (sigmoid).
        normalized: True if the class scores are probabilities already, because the model ends in its own softmax or sigmoid.
        notes: What was inferred, or could not be computed.
        provenance: Model, weights, versions, preprocessing.
        channel_features: The strongest channels of each layer, if `channels` was set.
        top_classes: The most likely classes, where logits are not stored (after `load`).
        selected_layers: For each entry of `layers=`, the names of the layers it selected.
        checks: For each map, how far to trust it in each image, if `seewhy.trust.check` was called.
        drops: For each target, by how much covering parts of each image lowers the score, if `seewhy.trust.check` was called.
        curves: For each map, the score of each image while more and more of it is covered in the order of the map, by filler.
        random_curves: For each target, the same in random order.

    Example:
        >>> import seewhy, torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> e = seewhy.explain(net, torch.rand(2, 3, 8, 8), layers="0", targets=1)
        >>> e, e.map().shape, e[0].heatmap().shape
        (<Explanation of 2 images: gradcam, target 1, layer 0>, torch.Size([2, 6, 6]), torch.Size([8, 8]))
    """

    def __getitem__(self, index: int) -> Explanation:
        """Return the explanation of one image of the batch."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"e[{index}]: the explanation has {len(self)} images, 0 to {len(self) - 1}.")
        return dataclasses.replace(self, **fields_for_image(self, index % len(self)))

    def __iter__(self) -> Iterator[Explanation]:
        return (self[index] for index in range(len(self)))

    # Figures (one image)

    def overlay(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
        *,
        style: OverlayStyle | None = None,
        longest: int | None = LONGEST,
    ) -> Image.Image:
        """Draw the heatmap over the entire photo; the part that the model did not receive is dimmed.

        Signals are drawn as curves, volumes as a mosaic of slices.

        Args:
            style: Colors, opacity and scale.
            longest: Maximum of the longer side in pixels; None: the photo's own size.

        Returns:
            An RGB image.

        Raises:
            ChoiceError: Several maps match, or the explanation has several images.
        """
        return figures.overlay(self, self.key(method, target, layer), as_style(style), longest)

    def classic_overlay(
        self, method: MethodChoice = None, target: TargetChoice = None, layer: LayerChoice = None
    ) -> Image.Image:
        """Draw the overlay of the Grad-CAM tutorials: min-max scaled before resizing, jet colors, 60:40 over the input.

        Returns:
            An RGB image of the size of the input.

        Raises:
            ChoiceError: Several maps match, or the explanation has several images.
            UsageError: The input is a signal or a volume, or was not saved with a loaded explanation.
        """
        return figures.classic_overlay(self, self.key(method, target, layer))

    def contact_sheet(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        *,
        layers: LayerChoice | Sequence[LayerChoice] = None,
        style: OverlayStyle | None = None,
        classic: bool = False,
        side: int = 220,
    ) -> Image.Image:
        """Draw the overlays of all layers on one canvas, in execution order.

        Args:
            layers: Layers to draw; names at which the method has no map are skipped. Default: all of the method.
            style: Colors, opacity and scale.
            classic: Draw each map as `classic_overlay` does; `style` and `side` do not apply.
            side: Longer side of each overlay in pixels.

        Returns:
            An RGB image.
        """
        name = find_method_name(self, method)
        names = layers_of(self, name)
        drawn = [layer for layer in self._find_layers(layers) if layer in names] or names
        keys = [self.key(name, target, layer) for layer in drawn]
        return figures.contact_sheet(self, keys, None if classic else as_style(style), side)

    def _find_layers(self, layers: LayerChoice | Sequence[LayerChoice]) -> list[str]:
        entries = layers if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
        names: dict[str, None] = {}
        for entry in entries:
            if entry is not None:
                matches = match_layers(self.layers, entry, self.selected_layers)
                names.update(dict.fromkeys(matches or [find_layer(self.layers, self, entry)]))
        return list(names)

    def comparison(
        self, layer: LayerChoice = None, *, style: OverlayStyle | None = None, classic: bool = False, side: int = 320
    ) -> Image.Image:
        """Draw all methods and targets at one layer: a row per target, a column per method.

        Methods of the entire model have one map, which is drawn for any layer. Many methods of one target fill several rows.

        Args:
            style: Colors, opacity and scale.
            classic: Draw each map as `classic_overlay` does; `style` and `side` do not apply.
            side: Longer side of each overlay in pixels.

        Returns:
            An RGB image.
        """
        name = None if layer is None else find_layer(self.layers, self, layer)
        return figures.comparison(self, name, None if classic else as_style(style), side)

    def features(self, layer: LayerChoice = None) -> ChannelFeatures:
        """Return the strongest channels of a layer: their indices and activations.

        Raises:
            UsageError: None were recorded; pass `channels=8` to `explain`.
        """
        if not self.channel_features:
            raise UsageError(
                "no channels were recorded: call explain(..., channels=8) for the 8 strongest channels of each layer."
            )
        return self.channel_features[find_layer(tuple(self.channel_features), self, layer)]

    def features_sheet(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        *,
        style: OverlayStyle | None = None,
        side: int = 200,
    ) -> Image.Image:
        """Draw a row per layer: the class map, then the layer's strongest channels.

        Args:
            style: Colors, opacity and scale of the class maps.
            side: Longer side of each cell in pixels.

        Returns:
            An RGB image.

        Raises:
            ChoiceError: Several methods or targets match, or the explanation has several images.
            UsageError: No channels were recorded; pass `channels=8` to `explain`.
        """
        self.features(next(iter(self.channel_features), None))
        name = find_method_name(self, method)
        keys = [self.key(name, target, layer) for layer in self.channel_features]
        return figures.channel_sheet(self, keys, as_style(style), side)

    # Files (one image)

    def save(self, folder: str | Path, *, also: Mapping[str, storage.Content] | None = None) -> list[Path]:
        """Write `explanation.json`, `maps.npz` and `photo.jpg` into a folder.

        Signals, volumes and inputs with other than 1 or 3 channels are stored as `input.npz` (float32) instead of a photo.
        Files of an earlier run in the folder are replaced when all new ones are complete; other files are not touched.

        Args:
            folder: Created if it does not exist.
            also: More files, by name.

        Returns:
            The paths of the written files.

        Raises:
            UsageError: A file cannot be written, or would overwrite a file that seewhy did not write.
        """
        require_single_image(self, "save")
        files = {**saved.build_files(self), **(also or {})}
        check_null(Path(folder))
        self._check_overwrite([Path(folder) / name for name in (storage.RECORD, *files)])
        return storage.write_run(folder, saved.build_record(self), files)

    def _check_overwrite(self, outputs: Sequence[Path]) -> None:
        check_overwrite(outputs, [image.source for image in self.images or ()])

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """Load an explanation that `save` wrote. Maps are float32; the photo has at most 1024 pixels a side.

        Args:
            folder: The folder passed to `save`.

        Returns:
            The explanation of one image, without logits.

        Raises:
            UsageError: The folder contains no readable explanation.
        """
        return cls(**saved.read_fields(folder))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays as JSON: provenance, view, targets, layers and the properties of each map."""
        require_single_image(self, "to_dict")
        return saved.build_record(self)

    def report(
        self, path: str | Path | None = None, *, style: OverlayStyle | None = None, classic: bool = False
    ) -> str:
        """Build the interactive HTML page of one image, clip or volume. It is self-contained.

        Args:
            path: Where to write it; None: it is only returned.
            style: Initial colors and opacity.
            classic: Show the model's input, and start with the settings of `classic_overlay`; `style` does not apply.

        Returns:
            The HTML text.

        Raises:
            UsageError: The input is a signal, or an image with other than 1 or 3 channels; or `path` cannot be written, or is
                a file that seewhy did not write.
        """
        text = report.build_page(self, style, classic=classic)
        if path is not None:
            self._check_overwrite([Path(path)])
            storage.write_file(Path(path), text.encode("ascii"))
        return text

    # Display

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Notebook display: the page; as PNG the only overlay, or the contact sheet."""
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if (image := self._repr_png_()) is not None:
            bundle["image/png"] = base64.b64encode(image).decode()
        if report.has_page(self):
            bundle["text/html"] = report.build_notebook_frame(self)
        return bundle

    def _repr_png_(self) -> bytes | None:
        if len(self) != 1 or len(self.methods) != 1 or len(self.targets) != 1:
            return None
        return storage.encode_png(self.overlay() if len(self.layers) == 1 else self.contact_sheet())

    def __repr__(self) -> str:
        count = "1 image" if len(self) == 1 else f"{len(self)} images"
        parts = [", ".join(self.methods), name_or_count("target", self.targets), name_or_count("layer", self.layers)]
        return f"<Explanation of {count}: {', '.join(parts)}>"


def name_or_count(word: str, names: Sequence[str]) -> str:
    """Return "layer conv1" for one name and "7 layers" for several."""
    return f"{word} {names[0]}" if len(names) == 1 else f"{len(names)} {word}s"


load_explanation = Explanation.load
