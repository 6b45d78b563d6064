"""An explanation: the signed maps of one call, and everything one asks of them. A value; it holds no model."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy import storage, tensors
from seewhy.errors import ChoiceError, UsageError
from seewhy.explanation import drawing, report, saved
from seewhy.explanation import heatmap as heat
from seewhy.explanation.components import ChannelFeatures, InputImage, LayerInfo, TargetResult
from seewhy.explanation.flags import find_flags
from seewhy.explanation.selection import MapKey as MapKey
from seewhy.explanation.selection import choose, counted, fields_of, find_key
from seewhy.images.view import View
from seewhy.rendering import overlays as render
from seewhy.rendering.overlays import LONGEST
from seewhy.targets import class_name, probabilities


@dataclass(frozen=True, eq=False)
class Explanation:
    """The signed maps (B, *grid) of one call of `explain`, by (method, target, layer), in the methods' own units.

    `target_results` are the targets as they were understood, `layer_info` the layers in execution order; `has_gradient` (B,) says for
    blank maps, by (target, layer), whether any gradient came there. `logits` (B, K) are the model's scores where it gives
    class scores, `inputs` (B, C, *size) is what the network saw, `pictures` what that was made from. `suggested` names the
    suggested layer if it was asked for, `notes` say in words what was inferred, `about` is the provenance (model, weights,
    versions, preprocessing), `channel_features` the strongest channels by layer where they were asked for, `top_classes` the
    likeliest classes where the logits are not kept (after `load`). `single`: one
    picture was given, so results have no batch axis; `e[i]` is one of a batch.

    >>> import seewhy, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> e = seewhy.explain(net, torch.rand(2, 3, 8, 8), layers="0", targets=1)
    >>> e, e.map().shape, e[0].heatmap.shape
    (<Explanation of 2 pictures: gradcam, target 1, layer 0>, torch.Size([2, 6, 6]), torch.Size([8, 8]))
    """

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
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    channel_features: Mapping[str, ChannelFeatures] = field(default_factory=dict)
    top_classes: tuple[tuple[int, str, float], ...] = ()

    # What there is to choose from

    @cached_property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for method, _, _ in self.maps))

    @cached_property
    def targets(self) -> tuple[str, ...]:
        return tuple(answer.key for answer in self.target_results)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.layer_info)

    def key(self, method: str | None = None, target: str | int | None = None, layer: str | None = None) -> MapKey:
        """The key of one map. What is left out must have one value only; a target is a key, a class name or its index.

        Raises ChoiceError where several maps are left, UnknownName for a choice that does not exist.
        """
        return find_key(self, method, target, layer)

    def layers_of(self, method: str) -> tuple[str, ...]:
        """The layers at which a method has maps; "network" stands for the whole of it."""
        found = {layer for name, _, layer in self.maps if name == method}
        return tuple(layer for layer in self.layers if layer in found)

    # Maps

    def map(self, method: str | None = None, target: str | int | None = None, layer: str | None = None) -> Tensor:
        """The signed map at the layer's own resolution: (*grid), or (B, *grid) for a batch; in the paper's own units."""
        maps = self.maps[self.key(method, target, layer)]
        return maps[0] if self.single else maps

    def heatmap(
        self,
        method: str | None = None,
        target: str | int | None = None,
        layer: str | None = None,
        *,
        scale: str = "own",
    ) -> Tensor:
        """The map rectified, resized to the input and divided by its maximum: (*size) in [0, 1], or (B, *size).

        `scale` "shared" divides by the largest value over all targets (same picture, method and layer), so that maps of
        several targets can be compared: a weak answer has weak heat.
        """
        found = heat.at_input(self, self.key(method, target, layer), scale)
        return found[0] if self.single else found

    def positive_evidence(self, method: str | None = None, target: str | int | None = None, layer: str | None = None) -> Any:
        """Share of positive evidence in a map, in [0, 1]: sum of positives / sum of absolutes; a list for a batch."""
        shares = tensors.positive_evidence(self.maps[self.key(method, target, layer)]).tolist()
        return shares[0] if self.single else shares

    def flags(self, method: str | None = None, target: str | int | None = None, layer: str | None = None) -> Any:
        """What is odd about a map, as names of `seewhy.explanation.flags.FLAGS`; a list of them for a batch."""
        key = self.key(method, target, layer)
        found = find_flags(self.maps[key], self.has_gradient.get(key[1:]))
        return found[0] if self.single else found

    # Places (one picture)

    def on_photo(
        self,
        method: str | None = None,
        target: str | int | None = None,
        layer: str | None = None,
        *,
        size: tuple[int, int] | None = None,
        scale: str = "own",
    ) -> NDArray[np.float32]:
        """The heat map laid on the photo: (H0, W0) in [0, 1], or at `size`; 0 where the network saw nothing.

        The same function as `heat()`, read at the photo's pixels. For tensors, which have no photo, on the input.
        """
        self.require_single_image("on_photo")
        return heat.on_photo(self, self.key(method, target, layer), size, scale)

    def mask(self, threshold: float = 0.5, *, scale: str = "own", **choice: Any) -> NDArray[np.bool_]:
        """Where the heat is at least `threshold` of its maximum, or of the maximum over all targets (`scale` "shared").

        (H0, W0) bool on the photo; of signals (length,) and volumes (depth, height, width), on the input.
        """
        self.require_single_image("mask")
        return heat.mask(self, self.key(**choice), threshold, scale)

    def box(self, threshold: float = 0.5, *, scale: str = "own", **choice: Any) -> tuple[int, ...] | None:
        """The box around the largest connected part of `mask(threshold)`: starts, then exclusive ends, the last axis first.

        (left, top, right, bottom) in photo pixels; (start, end) in a signal's samples; (left, top, front, right, bottom,
        back) in a volume, where depth goes from front to back. None where nothing reaches the threshold.
        """
        self.require_single_image("box")
        return heat.box(self, self.key(**choice), threshold, scale)

    @property
    def view(self) -> View:
        """The rectangle of the photo that the network saw."""
        if self.images is not None:
            return self.images[0].view
        if len(self.size) != 2:
            raise UsageError(
                f"a view is of photos, and this input has {len(self.size)} axes: box() and mask() are on it."
            )
        return View.whole(self.size)

    # Pictures

    def overlay(
        self,
        method: str | None = None,
        target: str | int | None = None,
        layer: str | None = None,
        *,
        style: render.OverlayStyle | None = None,
        longest: int | None = LONGEST,
    ) -> Image.Image:
        """The heat map over the whole photo; what the network did not see is dimmed.

        A signal is drawn as curves, a volume as a mosaic of slices. `longest` limits the longer side in pixels (None: the
        photo's own size).
        """
        return drawing.overlay(self, self.key(method, target, layer), style or render.OverlayStyle(), longest)

    def classic_overlay(
        self, method: str | None = None, target: str | int | None = None, layer: str | None = None
    ) -> Image.Image:
        """The tutorial's picture: the map rectified, min-max scaled at low resolution, resized to the input, jet, 60:40."""
        return drawing.classic_overlay(self, self.key(method, target, layer))

    def contact_sheet(
        self,
        method: str | None = None,
        target: str | int | None = None,
        *,
        layers: Sequence[str] | None = None,
        style: render.OverlayStyle | None = None,
        side: int = 220,
    ) -> Image.Image:
        """Every layer's overlay on one sheet, in execution order; `side` is the longer side of a tile in pixels."""
        method = choose("method", method, self.methods)
        known = self.layers_of(method)
        shown = [layer for layer in layers or known if layer in known] or known
        keys = [self.key(method, target, layer) for layer in shown]
        return drawing.contact_sheet(self, keys, style or render.OverlayStyle(), side)

    def comparison(
        self, layer: str | None = None, *, style: render.OverlayStyle | None = None, side: int = 320
    ) -> Image.Image:
        """Methods and targets side by side at one layer: a row for each target, a column for each method.

        Methods of the whole network are shown as such; many methods of one target fill several rows.
        """
        return drawing.comparison(self, layer, style or render.OverlayStyle(), side)

    def features(self, layer: str | None = None) -> ChannelFeatures:
        """The strongest channels of a layer, as they are: what one looked at before there were class maps.

        Raises UsageError where none were kept: say explain(..., features=8).
        """
        if not self.channel_features:
            raise UsageError("no channels were kept: say explain(..., features=8) for the 8 strongest of each layer.")
        return self.channel_features[choose("layer", layer, tuple(self.channel_features))]

    def features_sheet(
        self,
        method: str | None = None,
        target: str | int | None = None,
        *,
        style: render.OverlayStyle | None = None,
        side: int = 200,
    ) -> Image.Image:
        """A row for each layer: the class map, and beside it the layer's strongest channels."""
        method = choose("method", method, self.methods)
        self.features(next(iter(self.channel_features), None))
        keys = [self.key(method, target, layer) for layer in self.channel_features]
        return drawing.features_sheet(self, keys, style or render.OverlayStyle(), side)

    # One picture of many

    def __len__(self) -> int:
        return len(self.target_results[0].scores)

    def __getitem__(self, index: int) -> Explanation:
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        return dataclasses.replace(self, **fields_of(self, index % len(self)))

    def __iter__(self) -> Iterator[Explanation]:
        return (self[index] for index in range(len(self)))

    def top(self, count: int = 5) -> list[tuple[int, str, float]]:
        """The likeliest classes of one picture: (index, name, probability), best first."""
        self.require_single_image("top")
        if self.logits is None and self.top_classes:
            return list(self.top_classes[:count])
        if self.logits is None:
            raise UsageError("this model gives no class scores, so there are no top classes.")
        chances = self.probabilities[0]
        best = chances.topk(min(count, len(chances)))
        return [
            (i, class_name(i, self.labels), p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    @property
    def probabilities(self) -> Tensor:
        """The probability (B, K) of each class in [0, 1]: softmax, or where classes do not exclude each other (`multilabel`,
        or a single logit) their sigmoids. Raises UsageError where the model gives no class scores."""
        if self.logits is None:
            raise UsageError("this model gives no class scores, so there are no probabilities.")
        return probabilities(self.logits.float(), self.multilabel)

    def require_single_image(self, what: str) -> None:
        """Raise ChoiceError unless this is an explanation of one picture."""
        if len(self) != 1:
            raise ChoiceError(
                f"{what} is of one picture, and this is a batch of {len(self)}: say e[0].", map(str, range(len(self)))
            )

    # Outside

    def save(self, folder: str | Path, *, also: Mapping[str, storage.Content] | None = None) -> list[Path]:
        """Write `maps.npz`, `explanation.json` and `photo.jpg` into `folder`, and what `also` adds (name: content).

        Of a signal, a volume or an input of many channels that itself is kept instead of a photo, as `input.npz` (float32).
        Files appear whole or not at all. What an earlier run wrote there is replaced, other files stay. Gives the paths.
        """
        self.require_single_image("save")
        return storage.write_run(folder, saved.document(self), {**saved.files(self), **(also or {})})

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """An explanation that `save` wrote. The photo comes back at the size it was drawn at, maps in float32."""
        return cls(**saved.read(folder))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON takes it: about, view, targets, layers and one entry for each map."""
        self.require_single_image("to_dict")
        return saved.document(self)

    def report(self, path: str | Path | None = None, *, style: render.OverlayStyle | None = None) -> str:
        """The explorable page of one picture as HTML, which needs nothing else; written to `path` where that is given."""
        text = report.page(self, style)
        if path is not None:
            storage.write_file(Path(path), text.encode("ascii"))
        return text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a notebook shows: the page; where it shows no pages, the overlay of the only map or the sheet of all layers."""
        shown: dict[str, Any] = {"text/plain": repr(self)}
        if (picture := self._repr_png_()) is not None:
            shown["image/png"] = base64.b64encode(picture).decode()
        if report.has_page(self):
            shown["text/html"] = report.frame(self)
        return shown

    def _repr_png_(self) -> bytes | None:
        if len(self) != 1 or len(self.methods) != 1 or len(self.targets) != 1:
            return None
        return storage.png(self.overlay() if len(self.layers) == 1 else self.contact_sheet())

    def __repr__(self) -> str:
        several = "1 picture" if len(self) == 1 else f"{len(self)} pictures"
        parts = [", ".join(self.methods), counted("target", self.targets), counted("layer", self.layers)]
        return f"<Explanation of {several}: {', '.join(parts)}>"


load_explanation = Explanation.load
