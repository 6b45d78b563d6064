"""DiFull on mosaics: how much of a map lies in the cell that the score depends on. Writes benchmarks/DIFULL.md.

    .venv/bin/python benchmarks/difull.py [--mosaics 200]

Each of four photos goes through the first part of EfficientNet-Lite0 alone, and the activations are put together. The class
score of one cell cannot depend on the others, so evidence there is wrong. Photos are read from the data folder (SEEWHY_DATA, or
../shared/data); the figure shows the sample images of the package.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.engine.inputs import with_fit
from seewhy.rendering.contact_sheets import Tile, contact_sheet
from seewhy.rendering.overlays import OverlayStyle, draw_overlay
from seewhy.tensors import map_functions
from seewhy.trust.metrics.mosaic_scores import difull
from seewhy.trust.metrics.mosaics import CellTail, cell_fractions, make_mosaic

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data"))
PAGE, FIGURE = HERE / "DIFULL.md", HERE.parent / "docs" / "images" / "difull.jpg"
METHODS = ["hirescam", "layercam", "gradcam", "xgradcam", "gradcamplusplus"]
SIDE, CELL = 2, 3
LEAST = 0.9  # probability of each photo


def parts(model: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Return by layer the part of EfficientNet-Lite0 up to it, and the rest."""
    steps = [model.conv_stem, model.bn1, *model.blocks, model.conv_head, model.bn2, model.global_pool, model.classifier]
    at = {"blocks.1": 4, "blocks.3": 6, "blocks.5": 8, "bn2": 11}
    return {name: (nn.Sequential(*steps[:number]), nn.Sequential(*steps[number:])) for name, number in at.items()}


def load_inputs(model: seewhy.LoadedModel) -> tuple[list[Tensor], list[int]]:
    """Return the inputs and classes of photos that the network recognizes with at least 90 %."""
    inputs, classes = [], []
    for path in sorted((DATA / "imagenet").glob("*.jpg")):
        tensor = model.preprocess(seewhy.load_image(path))[0]  # type: ignore[misc]
        with torch.inference_mode():
            chances = model.module(tensor)[0].softmax(0)
        if chances.max() >= LEAST:
            inputs.append(tensor)
            classes.append(int(chances.argmax()))
    return inputs, classes


def explain_cell(first: nn.Module, model: CellTail, images: Tensor, target: int) -> seewhy.Explanation:
    """Return the maps at the stitched activations of four images, for the class of one of them."""
    with torch.no_grad():
        activations = make_mosaic(first(images))
    return seewhy.explain(model, activations, layers="stitched", methods=METHODS, targets=target)


def measure(count: int) -> tuple[dict[str, dict[str, list[float]]], int]:
    """Return the fraction of each map in its cell, by layer and method, and the number of photos."""
    loaded = seewhy.load_model()
    inputs, classes = load_inputs(loaded)
    random = np.random.default_rng(0)
    table: dict[str, dict[str, list[float]]] = {}
    mosaics = [random.choice(len(inputs), SIDE**2, replace=False) for _ in range(count)]
    for name, (first, rest) in parts(loaded.module).items():
        rows = table.setdefault(name, {})
        for chosen in mosaics:
            images = torch.cat([inputs[number] for number in chosen])
            for method, value in difull(first, rest, images, classes[chosen[CELL]], cell=CELL, methods=METHODS).items():
                rows.setdefault(method, []).append(value)
    return table, len(inputs)


def draw() -> Image.Image:
    """Draw a mosaic of the sample images, and the maps for "espresso" of its last cell."""
    loaded = with_fit(seewhy.load_model(), "squash")
    photos = [seewhy.load_image(seewhy.sample(name)) for name in ("chelsea", "cat_espresso", "cat_espresso", "coffee")]
    photos[2] = photos[2][:, ::-1]
    images = torch.cat([loaded.preprocess(photo)[0] for photo in photos])  # type: ignore[misc]
    first, rest = parts(loaded.module)["bn2"]
    e = explain_cell(first, CellTail(rest, SIDE, CELL), images, 967)
    pixels = ((make_mosaic(images)[0] * 0.5 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    mosaic = Image.fromarray(pixels)
    tiles = [Tile("mosaic", "the score depends on the lower right cell", mosaic)]
    for method in ("gradcam", "hirescam"):
        signed = e[0].map(method=method)
        fraction = float(cell_fractions(signed, SIDE)[CELL])
        heatmap = map_functions.resize(signed[None].clamp(min=0), mosaic.size[::-1])[0]
        overlay = draw_overlay(mosaic, (heatmap / heatmap.max()).numpy(), OverlayStyle(), (0, 0, *mosaic.size))
        tiles.append(Tile(method, f"{fraction:.0%} of the evidence in that cell", overlay))
    return contact_sheet(tiles, "DiFull: evidence for espresso", "EfficientNet-Lite0, bn2", 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mosaics", type=int, default=200)
    count = parser.parse_args().mosaics
    table, photos = measure(count)
    lines = [
        "# DiFull: evidence where it cannot be",
        "",
        "Generated by `benchmarks/difull.py`; do not edit.",
        "",
        f"{count} mosaics of 2 x 2 photos, drawn from {photos} that EfficientNet-Lite0 recognizes with at least {LEAST:.0%}.",
        "The class score of one cell depends on that cell only. The table shows the mean fraction of the positive values of a",
        "map that lies there, with its standard error, at the layer's resolution. A uniform map has 0.25 (Rao et al., 2022).",
        "",
        f"| layer | {' | '.join(METHODS)} |",
        f"|---|{'---|' * len(METHODS)}",
    ]
    for name, rows in table.items():
        cells = []
        for values in rows.values():
            finite = np.array(values)[np.isfinite(values)]
            blank = f", {len(values) - len(finite)} blank" if len(finite) < len(values) else ""
            cells.append(f"{finite.mean():.2f} ± {finite.std(ddof=1) / np.sqrt(len(finite)):.2f}{blank}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    PAGE.write_text("\n".join(lines) + "\n")
    draw().save(FIGURE, quality=88)


if __name__ == "__main__":
    main()
