"""Localization of maps on COCO photos: plausibility, not faithfulness. Writes benchmarks/LOCALIZATION.md.

    .venv/bin/python benchmarks/localization.py

EfficientNet-Lite0 has the classes of ImageNet, and the boxes and masks are those of COCO. KINDS lists which ImageNet classes
are clearly of the same kind as a COCO class. Photos are read from the data folder (SEEWHY_DATA, or ../shared/data).
"""

from __future__ import annotations

import csv
import os
import sys
import textwrap
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import seewhy
from seewhy.trust.metrics.localization import (
    OVERLAPS,
    Box,
    box_mask,
    box_overlaps,
    crossfit_box_accuracy,
    energy,
    max_box_accuracy,
    pointing_game,
    rank_accuracy,
)

HERE = Path(__file__).resolve().parent
COCO = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data")) / "coco"
PAGE = HERE / "LOCALIZATION.md"
METHODS = ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam", "lafam", "randomcam"]
LAYERS = ["bn2", "blocks.4.2.conv_pwl", "blocks.3.2.conv_pwl"]  # the suggested layer first
FEW_CHANNELS = LAYERS[1:]  # Score-CAM needs one forward pass per channel: 1280 at bn2
LEAST, SURE = 0.3, 0.6  # summed probability of the ImageNet classes of a kind
SPREAD = 0.25  # standard deviation of the Gaussian, as a fraction of each side
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# COCO class: ImageNet classes by the first name of their label. A pair is a range: from one class to another.
KINDS: dict[str, list[str | tuple[str, str]]] = {
    "bicycle": ["bicycle-built-for-two", "mountain bike"],
    "car": ["ambulance", "beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "Model T", "racer", "sports car"],
    "motorcycle": ["moped", "motor scooter"],
    "airplane": ["airliner", "warplane"],
    "bus": ["minibus", "school bus", "trolleybus"],
    "train": ["bullet train", "electric locomotive", "freight car", "passenger car", "steam locomotive", "streetcar"],
    "truck": ["fire engine", "garbage truck", "moving van", "pickup", "tow truck", "trailer truck"],
    "boat": [
        "canoe", "catamaran", "container ship", "fireboat", "gondola", "lifeboat", "liner", "pirate", "schooner", "speedboat",
        "trimaran", "yawl",
    ],
    "traffic light": ["traffic light"],
    "parking meter": ["parking meter"],
    "bench": ["park bench"],
    "bird": [("cock", "great grey owl"), ("black grouse", "black swan"), ("white stork", "albatross")],
    "cat": [("tabby", "Egyptian cat")],
    "dog": [("Chihuahua", "Mexican hairless")],
    "horse": ["sorrel"],
    "sheep": ["ram", "bighorn"],
    "cow": ["ox"],
    "elephant": ["tusker", "Indian elephant", "African elephant"],
    "bear": [("brown bear", "sloth bear")],
    "zebra": ["zebra"],
    "backpack": ["backpack"],
    "umbrella": ["umbrella"],
    "handbag": ["purse"],
    "tie": ["bolo tie", "bow tie", "Windsor tie"],
    "skis": ["ski"],
    "sports ball": [
        "baseball", "basketball", "croquet ball", "golf ball", "ping-pong ball", "rugby ball", "soccer ball", "tennis ball",
        "volleyball",
    ],
    "tennis racket": ["racket"],
    "bottle": ["beer bottle", "pill bottle", "pop bottle", "water bottle", "wine bottle"],
    "cup": ["coffee mug", "cup"],
    "spoon": ["wooden spoon"],
    "bowl": ["mixing bowl", "soup bowl"],
    "banana": ["banana"],
    "apple": ["Granny Smith"],
    "orange": ["orange"],
    "broccoli": ["broccoli"],
    "hot dog": ["hotdog"],
    "pizza": ["pizza"],
    "chair": ["barber chair", "folding chair", "rocking chair", "throne"],
    "couch": ["studio couch"],
    "bed": ["four-poster"],
    "dining table": ["dining table"],
    "toilet": ["toilet seat"],
    "tv": ["television"],
    "laptop": ["laptop", "notebook"],
    "mouse": ["mouse"],
    "remote": ["remote control"],
    "keyboard": ["computer keyboard"],
    "cell phone": ["cellular telephone"],
    "microwave": ["microwave"],
    "toaster": ["toaster"],
    "sink": ["washbasin"],
    "refrigerator": ["refrigerator"],
    "clock": ["analog clock", "digital clock", "wall clock"],
    "vase": ["vase"],
    "teddy bear": ["teddy"],
    "hair drier": ["hand blower"],
}  # fmt: skip


def classes_of_kinds(labels: tuple[str, ...]) -> dict[str, list[int]]:
    """Return the ImageNet classes of each COCO class. Raises KeyError for a name in KINDS that no label starts with."""
    first = {label.partition(",")[0]: number for number, label in enumerate(labels)}
    return {
        kind: [
            number
            for name in names
            for number in (range(first[name[0]], first[name[1]] + 1) if isinstance(name, tuple) else [first[name]])
        ]
        for kind, names in KINDS.items()
    }


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo and the objects of one kind in it, in the part that the network sees."""

    path: Path
    kind: str
    target: int
    chance: float
    visible: tuple[int, int, int, int]
    boxes: list[Box]
    mask: Mask | None

    @property
    def size(self) -> tuple[int, int]:
        left, top, right, bottom = self.visible
        return bottom - top, right - left

    def crop(self, values: Array) -> Array:
        left, top, right, bottom = self.visible
        return values[top:bottom, left:right]


def load_boxes(path: Path, names: dict[int, str], size: tuple[int, int]) -> dict[str, list[Box]]:
    """Return boxes in pixels by COCO class, from a file in YOLO format."""
    height, width = size
    boxes: dict[str, list[Box]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        number, x, y, w, h = (float(part) for part in line.split())
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        boxes.setdefault(names[int(number)], []).append(box)
    return boxes


def visible_boxes(boxes: list[Box], visible: tuple[int, int, int, int]) -> list[Box]:
    """Return boxes in pixels of the visible part; those without a visible pixel are dropped."""
    left, top, right, bottom = visible
    moved = [(x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes]
    kept = []
    for box in moved:
        try:
            box_mask([box], (bottom - top, right - left))
        except seewhy.UsageError:
            continue
        kept.append(box)
    return kept


def load_photos(model: seewhy.LoadedModel) -> list[Photo]:
    """Return the photos in which the network recognizes the kind of an object that has a box."""
    rows = list(csv.DictReader((COCO / "classes.csv").open()))
    names = {int(row["box_class"]): row["name"] for row in rows}
    values = {row["name"]: int(row["mask_value"]) for row in rows if row["mask_value"]}
    classes = classes_of_kinds(tuple(model.labels))
    photos = []
    for path in sorted((COCO / "images").glob("*.jpg")):
        e = seewhy.explain(model, path, layers=LAYERS[:1])
        chances, visible = e.probabilities[0], e.view.visible_box
        boxes = load_boxes(COCO / "boxes" / f"{path.stem}.txt", names, e.view.photo_size)
        here = {kind: visible_boxes(boxes[kind], visible) for kind in boxes if kind in classes}
        sums = {kind: float(chances[classes[kind]].sum()) for kind, found in here.items() if found}
        kind = max(sums, key=lambda name: sums[name], default="")
        if not kind or sums[kind] < LEAST:
            continue
        target = max(classes[kind], key=lambda number: float(chances[number]))
        photo = Photo(path, kind, target, sums[kind], visible, here[kind], None)
        file = np.array(Image.open(COCO / "masks" / f"{path.stem}.png"))
        mask = photo.crop(file == values.get(kind, -1))
        photos.append(Photo(path, kind, target, sums[kind], visible, here[kind], mask if mask.any() else None))
    return photos


def maps_of(model: seewhy.LoadedModel, photo: Photo) -> dict[tuple[str, str], Array]:
    """Return the heatmaps of a photo in pixels, in the part that the network sees, by layer and method."""
    found = {}
    for methods, layers in ((METHODS, LAYERS), (["scorecam"], FEW_CHANNELS)):
        e = seewhy.explain(model, photo.path, layers=layers, methods=methods, targets=photo.target)
        for method in methods:
            for layer in layers:
                found[layer, method] = photo.crop(e.on_photo(method=method, layer=layer).astype(float))
    height, width = photo.size
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    found["", "Gaussian in the center"] = np.exp(-(y[:, None] ** 2 + x**2) / (2 * SPREAD**2))
    found["", "uniform map (chance)"] = np.ones(photo.size)
    return found


@dataclass
class Values:
    """The metrics of one method at one layer for all photos."""

    box_energy: list[float] = field(default_factory=list)
    mask_energy: list[float] = field(default_factory=list)
    mass: list[float] = field(default_factory=list)
    rank: list[float] = field(default_factory=list)
    box_hit: list[float] = field(default_factory=list)
    mask_hit: list[float] = field(default_factory=list)
    overlaps: list[Array] = field(default_factory=list)

    def add(self, heatmap: Array, photo: Photo) -> None:
        inside = box_mask(photo.boxes, photo.size)
        self.box_energy.append(energy(heatmap, inside) / inside.mean())
        self.box_hit.append(pointing_game(heatmap, inside))
        self.overlaps.append(box_overlaps(heatmap, photo.boxes))
        mass = rank = hit = area = float("nan")
        if photo.mask is not None:
            mass, rank, hit = (measure(heatmap, photo.mask) for measure in (energy, rank_accuracy, pointing_game))
            area = float(photo.mask.mean())
        self.mass.append(mass)
        self.mask_energy.append(mass / area)
        self.rank.append(rank)
        self.mask_hit.append(hit)


def mean(values: NDArray[np.float64] | list[float], digits: int = 2) -> str:
    """Return a mean with its standard error over images."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    error = finite.std(ddof=1) / np.sqrt(len(finite))
    return f"{finite.mean():.{digits}f} ± {error:.{digits}f}"


def cells(values: Values, reference: Values, kept: NDArray[np.intp]) -> list[str]:
    """Return the cells of one row for some of the photos."""
    columns = [
        np.array(column)[kept]
        for column in (values.box_energy, values.mask_energy, values.mass, values.rank, values.box_hit, values.mask_hit)
    ]
    paired = (np.array(values.mask_energy) - np.array(reference.mask_energy))[kept]
    overlaps = np.array(values.overlaps)[kept]
    same = values is reference
    return [
        mean(columns[0]),
        mean(columns[1]),
        "–" if same else mean(paired),
        *(mean(column) for column in columns[2:]),
        mean(crossfit_box_accuracy(overlaps)),
        f"{max_box_accuracy(overlaps):.2f}",
    ]


HEADER = [
    "method", "energy in box / area", "energy in mask / area", "the same minus Gaussian", "RMA", "RRA", "pointing, box",
    "pointing, mask", "MaxBoxAccV2, cross-fit", "optimistic",
]  # fmt: skip


def table(results: dict[tuple[str, str], Values], layer: str, kept: NDArray[np.intp]) -> list[str]:
    """Return the lines of one table: the references, then the methods of a layer."""
    reference = results["", "Gaussian in the center"]
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    for (where, method), values in results.items():
        if where in ("", layer):
            blank = int(np.isnan(np.array(values.box_energy)[kept]).sum())
            name = f"*{method}*" if not where else f"{method} ({blank} blank)" if blank else method
            lines.append(f"| {' | '.join([name, *cells(values, reference, kept)])} |")
    return [*lines, ""]


def main() -> None:
    start = time.perf_counter()
    model = seewhy.prepare(seewhy.load_model())
    photos = load_photos(model)
    results: dict[tuple[str, str], Values] = {
        ("", "uniform map (chance)"): Values(),
        ("", "Gaussian in the center"): Values(),
    }
    for number, photo in enumerate(photos, 1):
        for key, heatmap in maps_of(model, photo).items():
            results.setdefault(key, Values()).add(heatmap, photo)
        print(f"{number} of {len(photos)}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    PAGE.write_text("\n".join(page(photos, results)))


def page(photos: list[Photo], results: dict[tuple[str, str], Values]) -> list[str]:
    counts = Counter(photo.kind for photo in photos)
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts.most_common())
    total = len(list((COCO / "images").glob("*.jpg")))
    masked = sum(photo.mask is not None for photo in photos)
    sure = np.array([number for number, photo in enumerate(photos) if photo.chance >= SURE])
    areas = np.array([box_mask(photo.boxes, photo.size).mean() for photo in photos])
    levels = ", ".join(f"{level:.0%}" for level in OVERLAPS)
    reference = np.array(results["", "Gaussian in the center"].mask_energy)
    gains = {
        layer: mean(np.array(results[layer, "gradcam"].mask_energy) - reference) for layer in LAYERS
    }  # Grad-CAM: the default method
    paragraphs = [
        "Generated by `benchmarks/localization.py`; do not edit. [How far to trust a map](../docs/trust.md) explains tests of "
        "faithfulness.",
        "A low value means that the map does not lie on the annotated object: the map may be wrong, or the network may use the "
        "background or a part of the object. These numbers cannot distinguish the two.",
        f"**Photos.** {len(photos)} of {total} photos: those with a visible box of a kind to which EfficientNet-Lite0 assigns "
        f"a probability of at least {LEAST}, summed over the ImageNet classes of this kind (`KINDS` in the script; *dog* has "
        f"{len(classes_of_kinds(tuple(seewhy.load_model().labels))['dog'])} breeds). If a photo has several kinds, the most "
        "probable is used. The explained class is the most probable one of the kind. The rule selects photos that the network "
        f"recognizes; for the others there is no class to explain. Kinds: {kinds}.",
        "**Pixels.** Heatmaps are compared in pixels of the photo. The network sees the center of a photo only. Parts outside "
        "have no map and count neither as object nor as background: boxes and masks are clipped to the part that it sees, and "
        "fractions of the area refer to it. All objects of the kind count. Boxes cover "
        f"{areas.mean():.0%} of the visible part on average (from {areas.min():.0%} to {areas.max():.0%}). "
        f"{masked} of the {len(photos)} photos have a mask of the kind.",
        "**Metrics.** *Energy / area*: fraction of the positive values in all boxes or in the mask, divided by the fraction of "
        "the area; chance is 1, and small objects have the highest values. *RMA* is the same fraction in the mask, not "
        "divided. *RRA*: fraction of the n largest values that lie in the mask of n pixels. *Pointing*: how often the maximum "
        "lies in a box or in the mask, without tolerance. *MaxBoxAccV2*: how often the box around the largest region overlaps "
        f"one true box by {levels} (mean of the three). *Cross-fit*: its threshold is chosen on the other half of the photos; "
        "*optimistic*: on the same photos. Values are means with standard errors over photos. Blank maps have no values; their "
        "number is shown, and means are over the others.",
        f"**References.** *Gaussian*: a blob in the center (standard deviation {SPREAD} of each side), the same for all "
        "photos; its maximum is the center point. Photographers center objects, so compare with this row and not with chance "
        "only. *The same minus Gaussian*: mean difference on the same photo. *randomcam*: random weights of the channels.",
        "**Result.** The energy of Grad-CAM in the mask, relative to the area and minus that of the Gaussian: "
        + "; ".join(f"{gain} at {layer}" for layer, gain in gains.items())
        + f". At {LAYERS[0]}, Grad-CAM, HiResCAM and XGrad-CAM are the same map, because the mean over positions and a linear "
        "layer follow.",
    ]
    lines = ["# Localization on COCO photos: plausibility, not faithfulness", ""]
    for paragraph in paragraphs:
        lines += [*textwrap.wrap(paragraph, 128, break_on_hyphens=False), ""]
    everything = np.arange(len(photos))
    for layer in LAYERS:
        note = " (suggested)" if layer == LAYERS[0] else ""
        lines += [f"## {layer}{note}", "", *table(results, layer, everything)]
    lines += [
        "Score-CAM is measured at the earlier layers only, because it needs one forward pass per channel: 1280 at bn2.",
        "",
        f"## {LAYERS[0]}, only the {len(sure)} photos with a summed probability of at least {SURE}",
        "",
        *table(results, LAYERS[0], sure),
    ]
    return lines


if __name__ == "__main__":
    main()
