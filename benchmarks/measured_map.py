"""How well the measured map predicts masks that it did not see, compared with maps of methods. Writes benchmarks/MEASURED.md.

    .venv/bin/python benchmarks/measured_map.py [--photos 40]

The measured map is fitted to the drops of the score under the 27 masks of the check. Then other windows of each photo are
kept or hidden, and the drops are compared with the values that each map has in the hidden parts. Photos are read from the
data folder (SEEWHY_DATA, or ../shared/data).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import seewhy
from seewhy.engine.rescoring import Rescoring, open_rescoring
from seewhy.explanation.data import positive_maps
from seewhy.explanation.window_fit import fit_map
from seewhy.trust.fillers import Blur, gaussian_blur
from seewhy.trust.map_checks.map_check import find_drops
from seewhy.trust.map_checks.windows import EDGE
from seewhy.trust.metrics.units import resample
from seewhy.trust.scorer import ImageScorer, log_odds_of

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data"))
PAGE = HERE / "MEASURED.md"
LEAST = 0.5  # probability of the class of a tested photo
GRID = 56  # cells per side on which maps and masks are compared
METHODS = ["gradcam", "layercam", "lafam", "eigencam"]
MEASURED = "measured map"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Windows of one size that the fit did not see: the image outside them is covered (keep), or they are (hide)."""

    name: str
    keeps: bool
    side: float
    steps: int
    skips_corners: bool = False

    def masks(self, size: tuple[int, int]) -> Tensor:
        """Return the masks `(n, H, W)`, 1 = covered, with the soft edges of the check."""
        rows, columns = (self.intervals(length) for length in size)
        windows = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)
        masks = 1 - windows if self.keeps else windows
        last = self.steps - 1
        corners = {0, last, self.steps * last, self.steps**2 - 1} if self.skips_corners else set()
        return masks[[at for at in range(len(masks)) if at not in corners]]

    def intervals(self, length: int) -> Tensor:
        part = round(length * self.side)
        lines = torch.zeros(self.steps, 1, length, dtype=torch.double)
        for step, line in enumerate(lines):
            start = round(step * (length - part) / (self.steps - 1))
            line[0, start : start + part] = 1
        return gaussian_blur(lines, [EDGE * length])[:, 0]


GROUPS = (
    Group("kept, 2/7, 4 x 4", True, 2 / 7, 4),
    Group("kept, 3/8, 4 x 4 without the corners, which the check has too", True, 3 / 8, 4, skips_corners=True),
    Group("hidden, 2/7, 4 x 4", False, 2 / 7, 4),
    Group("hidden, 1/2, 3 x 3", False, 1 / 2, 3),
)


def correlation(a: Array, b: Array) -> float:
    """Return Pearson's correlation; 0 if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def held_out_drops(rescoring: Rescoring, target: str) -> list[Array]:
    """Return by how much each mask of each group lowers the score."""
    scorer = ImageScorer(rescoring, 0, target, log_odds_of(rescoring.targets[target]))
    fill = Blur().bind(scorer.input)
    found = []
    for group in GROUPS:
        masks = group.masks((scorer.size[0], scorer.size[1]))
        scores = scorer(len(masks), lambda at, masks=masks: fill(masks[at]))
        found.append(scorer.own - scores.double().cpu().numpy())
    return found


def center_blob() -> Tensor:
    axis = (torch.arange(GRID).double() - (GRID - 1) / 2) / GRID
    return torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 0.2**2))


def collect(limit: int) -> tuple[dict[str, Array], int]:
    """Return the correlations (photos, groups) of each map, and how many photos have no measured map."""
    model = seewhy.prepare(seewhy.load_model())
    masks = [group.masks((4 * GRID, 4 * GRID)) for group in GROUPS]
    coarse = [torch.nn.functional.adaptive_avg_pool2d(one[:, None], GRID)[:, 0] for one in masks]
    rows: dict[str, list[list[float]]] = {}
    missing = 0
    paths = sorted((DATA / "imagenet").glob("*.jpg"))  # sorted by class, so a part of them is taken in random order
    for path in [paths[number] for number in np.random.default_rng(0).permutation(len(paths))]:
        e = seewhy.explain(model, path, methods=METHODS, targets="top1")
        if e.top(1)[0][2] <= LEAST:
            continue
        rescoring = open_rescoring(model, e)
        drops = find_drops(rescoring, e.targets[0], 0)
        if drops.reason:
            missing += 1
            continue
        maps = {key[0]: positive_maps(e, key).double().clamp(min=0) for key in e.maps}
        maps[MEASURED] = torch.from_numpy(fit_map(drops))[None]
        maps[f"{MEASURED}, without its negative values"] = maps[MEASURED].clamp(min=0)
        maps["a blob in the center"] = center_blob()[None]
        held_out = held_out_drops(rescoring, e.targets[0])
        for name, one in maps.items():
            fine = resample(one, (GRID, GRID))[0]
            sums = [(group * fine).sum((1, 2)).numpy() for group in coarse]
            rows.setdefault(name, []).append([correlation(a, b) for a, b in zip(sums, held_out, strict=True)])
        if len(rows[MEASURED]) == limit:
            break
    return {name: np.array(values) for name, values in rows.items()}, missing


def build_page(table: dict[str, Array], missing: int) -> str:
    count = len(table[MEASURED])
    head = [
        "map",
        "mean r",
        "in two halves of the photos",
        *(group.name for group in GROUPS),
        "lower than the measured map",
    ]
    lines = [
        "# The measured map, tested with masks that it did not see",
        "",
        "Generated by `benchmarks/measured_map.py`; do not edit. [How far to trust a map](../docs/trust.md) explains the",
        "check.",
        "",
        f"{count} photos that EfficientNet-Lite0 recognizes with more than {LEAST:.0%}; {missing} more have no measured map.",
        "The map is fitted to the 27 masks of the check. *r*: correlation of a map's sum in the hidden part of other masks",
        "with the drop of the log-odds, averaged over the four groups of masks and over the photos, with its standard error.",
        "*Two halves*: every other photo. Maps of methods are those of the suggested layer, without their negative values.",
        "*Lower*: in how many photos the map predicts the other masks less well than the measured map does.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    measured = table[MEASURED].mean(1)
    for name, values in sorted(table.items(), key=lambda entry: -entry[1].mean()):
        means = values.mean(1)
        error = means.std(ddof=1) / np.sqrt(count)
        lower = "" if name == MEASURED else f"{(means < measured).mean():.0%}"
        halves = f"{means[::2].mean():.2f}, {means[1::2].mean():.2f}"
        cells = [
            name,
            f"**{means.mean():.2f}** ± {error:.2f}",
            halves,
            *(f"{one:.2f}" for one in values.mean(0)),
            lower,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=40, help="how many photos to use")
    table, missing = collect(parser.parse_args().photos)
    PAGE.write_text(build_page(table, missing))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
