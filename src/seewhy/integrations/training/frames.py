"""From an explanation to the images that are logged: an overlay and four lines of caption."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from seewhy.explanation.components import TargetResult
from seewhy.explanation.data import most_likely, positive_maps
from seewhy.explanation.flags import FLAGS, find_flags
from seewhy.explanation.result import Explanation
from seewhy.integrations.sinks.base import LoggedImage
from seewhy.rendering.backgrounds import Background
from seewhy.rendering.heatmaps import Heatmap, shared_maximum
from seewhy.rendering.overlays import FAINT, INK, PAPER, OverlayStyle
from seewhy.rendering.text import write_text
from seewhy.storage.paths import safe_name

MIN_WIDTH = 288  # pixels of a frame, for its caption
MARGIN = 8
BAND = 85  # height of the caption
FIRST_CLAUSE = {name: text.partition(":")[0].partition(",")[0] for name, text in FLAGS.items()}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One map of one image at one step, before it is drawn.

    `maps` (1, *cells) has the axes of the input, of which the positive values are drawn; `size` is the size of the input.
    `background` is None for a map of an earlier process, until the image is explained again.
    """

    name: str
    step: int
    lines: tuple[str, str, str]
    maps: Tensor
    size: tuple[int, ...]
    background: Background | None = None

    @property
    def maximum(self) -> float:
        """The largest value of the heatmap, in the units of the method."""
        top = float(shared_maximum([self.maps], self.size)[0])
        return top if 0 < top < math.inf else 0.0  # also for NaN

    def draw(self, style: OverlayStyle, side: int, maximum: float | None) -> LoggedImage:
        """Draw it. `maximum` is the value with the strongest color; None: the map's own."""
        assert self.background is not None
        scale = None if maximum is None else torch.tensor([maximum])
        overlay = self.background.draw_overlay(Heatmap(self.maps, self.size, scale), style, side)
        numbers = f"max {self.maximum:.3g}" + ("" if maximum is None else f" of {maximum:.3g}")
        lines = (f"step {self.step:,}   {numbers}", *self.lines)
        return LoggedImage(self.name, with_caption(enlarge(overlay, side), lines), " · ".join(filter(None, lines)))


def take_snapshots(
    e: Explanation, names: Sequence[str], step: int, backgrounds: dict[str, Background], *, has_classes: bool
) -> Iterator[Snapshot]:
    """Yield the snapshots of all maps of an explanation.

    Args:
        e: The explanation of a batch.
        names: Names of its images.
        step: Number of the step.
        backgrounds: The photos that were scaled at earlier steps, by image and layer; new ones are added.
        has_classes: The target is the true class of each image.
    """
    for index, image in enumerate(names):
        one = e[index]
        for method, target, layer in e.maps:
            rank = e.targets.index(target)
            result = e.target_results[rank].for_image(index, e.labels)
            key = method, result.key, layer
            used = {f"target{rank + 1}": len(e.targets), layer: len(e.layers), method: len(e.methods)}
            suffixes = [safe_name(part) for part, count in used.items() if count > 1]
            flags = [FIRST_CLAUSE[flag] for flag in find_flags(one.maps[key], one.has_gradient.get(key[1:]))[0]]
            yield Snapshot(
                name="_".join([image, *suffixes]),
                step=step,
                lines=(*describe_classes(one, result, has_classes=has_classes), " · ".join([layer, method, *flags])),
                maps=positive_maps(one, key).detach().float().cpu(),
                size=e.size,
                background=backgrounds.setdefault(f"{image}/{layer}", one.background),
            )


def describe_classes(e: Explanation, result: TargetResult, *, has_classes: bool) -> tuple[str, str]:
    """Return the explained class with its probability, and the predicted class if it is another one."""
    target = named(result.name, None if result.probabilities is None else float(result.probabilities[0]))
    best = most_likely(e, 1)
    if not best or result.classes is None:
        return target, ""
    index, name, chance = best[0]
    explained = f"{'true class' if has_classes else 'class'}: {target}"
    if index == int(result.classes[0]):
        return explained, "predicted: the same class"
    return explained, f"predicted: {named(name, chance)}"


def named(name: str, chance: float | None) -> str:
    return name if chance is None else f"{name} ({chance:.1%})"


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """Repeat the pixels of a small image, such as 32 x 32, so that its longer side approaches `side`."""
    factor = max(1, side // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def with_caption(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Draw an image above lines of text. The size depends on that of the image only."""
    width = max(image.width, MIN_WIDTH)
    frame = Image.new("RGB", (width, image.height + BAND), PAPER)
    frame.paste(image, ((width - image.width) // 2, 0))
    for number, line in enumerate(lines):
        position = (MARGIN, image.height + 6 + 19 * number)
        write_text(frame, position, line, 14, INK if number < 3 else FAINT, width - 2 * MARGIN)
    return frame
