"""The frames of a clip, or the slices of a volume, side by side: one image and one map for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy.explanation.data import ExplanationData
from seewhy.images.view import View
from seewhy.rendering.contact_sheets import choose_columns
from seewhy.rendering.overlays import Bytes
from seewhy.rendering.slices import choose_slices, label_slice, volume_pixels
from seewhy.tensors import map_functions
from seewhy.viewer.packed_maps import average_rows

MAX_SLICES = 36
MAX_CELLS = 28  # per side of a slice; larger maps are averaged down
LONGEST = 1600  # pixels of the longer side


@dataclass(frozen=True)
class Strip:
    """Slices `chosen` along the first axis of an input (D, H, W), in rows of `columns`.

    >>> Strip((4, 8, 6), (0, 1, 2, 3), 2).view.input_size
    (16, 12)
    """

    size: tuple[int, int, int]
    chosen: tuple[int, ...]
    columns: int

    @property
    def rows(self) -> int:
        return -(-len(self.chosen) // self.columns)

    @property
    def view(self) -> View:
        """The image counts as the photo and as the input."""
        return View.identity((self.rows * self.size[1], self.columns * self.size[2]))

    def arrange(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Return slices (count, h, w, ...) as one array (rows * h, columns * w, ...); empty places are 0."""
        missing = self.rows * self.columns - len(slices)
        slices = np.concatenate([slices, np.zeros((missing, *slices.shape[1:]), slices.dtype)])
        height, width, *rest = slices.shape[1:]
        lines = slices.reshape(self.rows, self.columns, height, width, *rest).swapaxes(1, 2)
        return lines.reshape(self.rows * height, self.columns * width, *rest)

    def arrange_map(self, maps: Tensor) -> NDArray[np.float32]:
        """Return one map (cells, h, w) of the input as a map of the image."""
        slices = map_functions.resize(maps[None], (self.size[0], *maps.shape[1:]))[0, list(self.chosen)]
        arrays = [average_rows(average_rows(one, MAX_CELLS).T, MAX_CELLS).T for one in slices.float().cpu().numpy()]
        result: NDArray[np.float32] = self.arrange(np.stack(arrays))
        return result

    def draw(self, volume: Bytes) -> Image.Image:
        """Return the slices of pixels (D, H, W, 3) as one image, with their numbers."""
        image = Image.fromarray(self.arrange(volume[list(self.chosen)]))
        zoom = min(LONGEST / max(image.size), 4.0)
        width, height = round(image.width * zoom), round(image.height * zoom)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        for place, number in enumerate(self.chosen):
            row, column = divmod(place, self.columns)
            left, top = width * column // self.columns, height * row // self.rows
            tile = image.crop((left, top, width * (column + 1) // self.columns, height * (row + 1) // self.rows))
            label_slice(tile, str(number), is_peak=False)
            image.paste(tile, (left, top))
        return image


def strip_of(e: ExplanationData) -> Strip:
    """Return the strip of a clip or volume: all slices, or evenly spaced ones."""
    depth, height, width = e.size
    chosen = tuple(choose_slices(depth, MAX_SLICES, None))
    return Strip((depth, height, width), chosen, choose_columns(len(chosen), width, height))


def draw_strip(e: ExplanationData, strip: Strip) -> Image.Image:
    """Draw the image of a strip from the input. Raises UsageError if the input was not saved."""
    return strip.draw(volume_pixels(e._input_array(), e.provenance.get("preprocess")))
