"""The colors of overlays: how far the hottest place is from the color of the table. Writes benchmarks/OVERLAY_COLORS.md.

    .venv/bin/python benchmarks/overlay_colors.py

Photos are read from the data folder (SEEWHY_DATA, or ../shared/data) and from the package: 20 in all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import seewhy
from seewhy.rendering.colors import table, tables
from seewhy.rendering.overlays import OPACITY, OverlayStyle, draw_overlay, opacity_table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.lab import distance  # noqa: E402

DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data"))
PAGE = HERE / "OVERLAY_COLORS.md"
PHOTOS, LONGEST = 20, 512
OPACITIES = (0.8, 0.85, 0.9)

Array = NDArray[np.float64]
Sample = tuple[
    NDArray[np.uint8], NDArray[np.float32]
]  # the model's input in the photo (H, W, 3), and its heatmap (H, W)

TEXT = """# Colors of overlays

Written by `benchmarks/overlay_colors.py`. An overlay should show the colors of its color table: the hottest place looks
hottest, and light yellow over a blue bus does not become green. The table shows the distance in CIELAB (CIE76; 2.3 is just
noticeable) between the overlay at the maximum of the map and the last color of the table, over {photos} photos: mean and
largest of the worst color table. *Any photo* is the largest distance over 729 colors of the RGB cube. *Contrast* is the
difference in lightness L* between a white and a black photo that remains at the maximum: with 0, the object below is
invisible.

| opacity of the maximum | photo | mean | largest | any photo | contrast |
|---|---|---|---|---|---|
{rows}

Default: opacity {opacity}, in proportion to which the photo becomes gray. The largest distance for any photo must stay below
17, which `tests/rendering/test_overlay_colors.py` tests. Most of what remains is lightness, which shows the object: the
contrast of the last column. At opacity 0.9 it is a third less.

By color table, at the default (without desaturation at opacity 0.8, the style before):

| colors | mean | largest | any photo |
|---|---|---|---|
{tables}
"""


def load_samples() -> list[Sample]:
    """Return 20 photos and their heatmaps: Grad-CAM of the embedded network at the suggested layer."""
    model = seewhy.load_model()
    paths = [seewhy.sample(name) for name in ("cat_espresso", "chelsea", "coffee")]
    paths += [path for path in sorted((DATA / "pictures").glob("*")) if path.stem not in ("chelsea", "coffee")][:5]
    rest = sorted((DATA / "imagenet").glob("*.jpg"))
    count = PHOTOS - len(paths)
    paths += rest[:: max(1, len(rest) // count)][:count]
    samples = []
    for path in paths:
        e = seewhy.explain(model, path)
        photo, (left, top, right, bottom) = e.background.scaled(LONGEST)  # type: ignore[union-attr]
        heatmap = e.on_photo(size=(photo.height, photo.width))
        samples.append((np.asarray(photo)[top:bottom, left:right], heatmap[top:bottom, left:right]))
    return samples


def draw_desaturated(photo: NDArray[np.uint8], heatmap: NDArray[np.float32], colors: str, opacity: float) -> Array:
    height, width = heatmap.shape
    style = OverlayStyle(colors=colors, opacity=opacity)
    return np.asarray(draw_overlay(Image.fromarray(photo), heatmap, style, (0, 0, width, height)), np.float64)


def draw_blended(photo: NDArray[np.uint8], heatmap: NDArray[np.float32], colors: str, opacity: float) -> Array:
    """Return the overlay without desaturation."""
    levels = np.rint(255 * heatmap).astype(int)
    alpha = opacity_table(OverlayStyle(opacity=opacity))[levels][..., None] / 255
    result: Array = photo + alpha * (table(colors)[levels].astype(np.float64) - photo)
    return result


Draw = Callable[[NDArray[np.uint8], NDArray[np.float32], str, float], Array]


def measure(draw: Draw, samples: list[Sample], colors: str, opacity: float) -> tuple[float, float, float, float]:
    """Return the mean and largest distance at the maximum, the largest for any photo, and the contrast that remains."""
    hottest = table(colors)[255]
    found = []
    for photo, heatmap in samples:
        peak = np.unravel_index(heatmap.argmax(), heatmap.shape)
        drawn = draw(photo, heatmap, colors, opacity)[peak]
        found.append(float(distance(drawn, table(colors)[round(255 * float(heatmap[peak]))])))
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    drawn = draw(cube, np.ones((27, 27), np.float32), colors, opacity)
    flat = drawn.reshape(-1, 3)
    contrast = float(distance(flat[0], flat[-1]))
    return float(np.mean(found)), max(found), float(distance(drawn, hottest).max()), contrast


def main() -> None:
    samples = load_samples()
    rows, names = [], list(tables())
    for opacity in OPACITIES:
        for text, draw in (("unchanged", draw_blended), ("desaturated", draw_desaturated)):
            found = np.array([measure(draw, samples, colors, opacity) for colors in names])
            mean, largest, any_photo, _ = found.max(0)
            rows.append(
                f"| {opacity:g} | {text} | {mean:.1f} | {largest:.1f} | {any_photo:.1f} | {found[:, 3].min():.1f} |"
            )
    lines = []
    for colors in names:
        new = measure(draw_desaturated, samples, colors, OPACITY)[:3]
        old = measure(draw_blended, samples, colors, 0.8)[:3]
        cells = (f"{one:.1f} ({other:.1f})" for one, other in zip(new, old, strict=True))
        lines.append(f"| {colors} | {' | '.join(cells)} |")
    text = TEXT.format(photos=len(samples), rows="\n".join(rows), tables="\n".join(lines), opacity=OPACITY)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
