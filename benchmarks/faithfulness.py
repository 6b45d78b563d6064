"""Methods and metrics on photos: which differences are real, and do metrics agree? Writes benchmarks/FAITHFULNESS.md.

    .venv/bin/python benchmarks/faithfulness.py [--photos 200] [--linear 24] [--raw FILE]

Maps of EfficientNet-Lite0 at the activation of the last stage (`bn2`, with its activation) and at its bare convolution
(`conv_head`), on the photos that the network recognizes with more than 50 %. Photos are read from the data folder (SEEWHY_DATA,
or ../shared/data). `--linear` is the number of photos for the filler of ROAD, which takes a second per covered image. `--raw`
keeps the values, and reads them if the file exists.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

import seewhy
from seewhy.engine.rescoring import open_rescoring
from seewhy.explanation.data import MapKey
from seewhy.explanation.result import Explanation
from seewhy.models.loaded_model import LoadedModel
from seewhy.trust.fillers import gaussian_blur
from seewhy.trust.metrics.agreement import krippendorff_alpha
from seewhy.trust.metrics.evidence import ImageEvidence, MapEvidence
from seewhy.trust.metrics.metric_list import ADDITIVE, METRICS
from seewhy.trust.metrics.repetition import Repetition

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data"))
PAGE = HERE / "FAITHFULNESS.md"
METHODS = [
    "gradcam", "hirescam", "xgradcam", "gradcam++", "layercam", "eigengradcam", "eigencam", "lafam", "randomcam",
]  # fmt: skip
LAYERS = {"bn2": "activation of the last stage", "conv_head": "bare convolution of the last stage"}
EARLY = (
    "blocks.3.2.conv_pwl"  # where maps have many negative values: signed maps are compared with rectified ones there
)
COVERING = ("srg", "deletion", "insertion", "road", "mas", "single_deletion", "sensitivity_n", "infidelity")
DIMMING = ("average_drop", "increase", "average_gain", "drop_in_deletion", "complexity", "explained_fraction")
FILLERS = ("blur", "mean")
LINEAR_MAPS = (
    "gradcam", "gradcam++", "layercam", "eigengradcam", "eigencam", "lafam", "randomcam", "gradcam blurred",
    "gradcam rectified",
)  # fmt: skip
BLUR = 1.0  # standard deviation in cells of the layer
LEAST = 0.5  # probability of the class of a photo
Row = dict[str, float]
Table = dict[str, Row]  # by "map, layer": values by "metric(filler)"
Array = NDArray[np.float64]


@cache
def load() -> LoadedModel:
    torch.set_num_threads(1)
    return seewhy.prepare(seewhy.load_model())


def with_changed_maps(e: Explanation, other: Explanation | None) -> Explanation:
    """Return the explanation with further maps: rectified and blurred ones, all ones, and those of another photo."""
    maps: dict[MapKey, Tensor] = dict(e.maps)
    target = e.targets[0]
    for layer in LAYERS:
        for method in ("gradcam", "hirescam"):
            signed = e.maps[method, target, layer]
            maps[f"{method} rectified", target, layer] = signed.clamp(min=0)
            maps[f"{method} blurred", target, layer] = gaussian_blur(signed[:, None], [BLUR, BLUR])[:, 0]
        maps["all ones", target, layer] = torch.ones_like(signed)
        if other is not None:
            maps["gradcam of another photo", target, layer] = other.maps["gradcam", other.targets[0], layer]
    return dataclasses.replace(e, maps=maps)


def explain(path: Path) -> Explanation:
    return seewhy.explain(load(), path, methods=METHODS, layers=list(LAYERS))


def measure_photo(path: Path, other: Path, linear: bool) -> Table | None:
    """Return all values of one photo; None if the network does not recognize it."""
    e = explain(path)
    if e.top(1)[0][2] <= LEAST:
        return None
    e = with_changed_maps(e, explain(other))
    rescoring = open_rescoring(load(), e)
    shared = ImageEvidence(rescoring, e, 0, e.targets[0], Repetition(load(), e))
    metrics = {metric.name: metric for metric in METRICS}
    table: Table = {}
    for key in e.maps:
        evidence = MapEvidence(shared, key)
        row: Row = {}
        for name in COVERING:
            for filler in FILLERS:
                row[f"{name}({filler})"] = metrics[name].value(evidence, filler)[0]
        for name in DIMMING:
            row[name] = metrics[name].value(evidence)[0]
        if linear and key[0] in LINEAR_MAPS and key[2] == "bn2":
            for name in ("srg", "deletion", "insertion", "road"):
                row[f"{name}(linear)"] = metrics[name].value(evidence, "linear")[0]
        table[f"{key[0]}, {key[2]}"] = row
    for filler in FILLERS:
        curve = shared.random(filler)
        table[f"random order, {filler}"] = {"deletion": curve.area, "at 10 %": float(curve.at(np.array([0.1]))[0])}
    return {**table, **measure_early(path)}


def measure_early(path: Path) -> Table:
    """Return the values of signed and rectified maps at an earlier layer of one photo."""
    e = seewhy.explain(load(), path, methods=["gradcam", "hirescam"], layers=EARLY)
    rectified = {(f"{method} rectified", *rest): maps.clamp(min=0) for (method, *rest), maps in e.maps.items()}
    e = dataclasses.replace(e, maps={**e.maps, **rectified})
    shared = ImageEvidence(open_rescoring(load(), e), e, 0, e.targets[0], Repetition(load(), e))
    metrics = {metric.name: metric for metric in METRICS}
    names = [(name, filler) for name in ("srg", "single_deletion") for filler in FILLERS]
    return {
        f"{key[0]}, {key[2]}": {
            f"{name}({filler})": metrics[name].value(MapEvidence(shared, key), filler)[0] for name, filler in names
        }
        for key in e.maps
    }


def collect(count: int, linear: int) -> list[Table]:
    """Return the values of all photos that are recognized."""
    paths = sorted((DATA / "imagenet").glob("*.jpg"))[:count]
    others = [*paths[1:], paths[0]]
    found: list[Table] = []
    with ProcessPoolExecutor(2) as pool:
        is_linear = [number < linear for number in range(len(paths))]
        for number, table in enumerate(pool.map(measure_photo, paths, others, is_linear)):
            if table is not None:
                found.append(table)
            print(f"{number + 1}/{len(paths)} photos, {len(found)} used", end="\r", flush=True)
    print()
    return found


def column(tables: list[Table], name: str, metric: str) -> Array:
    """Return the values `(photos,)` of a map and a metric; NaN where there is none."""
    return np.array([table[name].get(metric, math.nan) for table in tables])


def mean_and_error(values: Array) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    return (
        (float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))
        if len(values) > 1
        else (math.nan,) * 2
    )


def cell(values: Array) -> str:
    mean, error = mean_and_error(values)
    return "-" if math.isnan(mean) else f"{mean:.3f} ± {error:.3f}"


def difference(tables: list[Table], first: str, second: str, metric: str) -> str:
    """Return the paired mean difference with its standard error."""
    values = column(tables, first, metric) - column(tables, second, metric)
    mean, error = mean_and_error(values)
    return f"{mean:+.3f} ± {error:.3f} (n = {int(np.isfinite(values).sum())})"


def maps_at(tables: list[Table], layer: str) -> list[str]:
    names = [name.removesuffix(f", {layer}") for name in tables[0] if name.endswith(f", {layer}")]
    return sorted(names, key=lambda name: (" " in name, names.index(name)))


def values_of(tables: list[Table], layer: str, metric: str, names: list[str]) -> Array:
    """Return the values `(photos, maps)` of the photos that have all of them."""
    rows = np.stack([column(tables, f"{name}, {layer}", metric) for name in names], axis=1)
    return rows[np.isfinite(rows).all(1)]


def layer_table(tables: list[Table], layer: str, metrics: list[str]) -> list[str]:
    """Return a table of maps and metrics, with alpha in the last line."""
    names = maps_at(tables, layer)
    lines = [f"| map | {' | '.join(metrics)} |", "|---|" + "---:|" * len(metrics)]
    for name in names:
        # The values of other methods have no unit of the score, so their sum has no meaning.
        is_additive = name.partition(" ")[0] in ADDITIVE
        cells = [
            cell(column(tables, f"{name}, {layer}", metric)) if is_additive or metric != "explained_fraction" else "-"
            for metric in metrics
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    alphas = []
    for metric in metrics:
        rows = values_of(tables, layer, metric, unlike(layer))
        alphas.append(f"{krippendorff_alpha(rows):.2f}" if len(rows) > 1 else "-")
    return [*lines, f"| *alpha* | {' | '.join(alphas)} |"]


def unlike(layer: str) -> list[str]:
    """Return methods whose maps are not equal at a layer."""
    return [name for name in METHODS if layer != "bn2" or name not in ("hirescam", "xgradcam")]


def steadiness(tables: list[Table], metric: str, names: list[str], fillers: list[str]) -> tuple[float, float]:
    """Return the mean rank correlation between fillers: of the means over photos, and within photos."""
    rows = [
        np.stack([column(tables, f"{name}, bn2", f"{metric}({filler})") for name in names], 1) for filler in fillers
    ]
    usable = np.isfinite(np.stack(rows)).all((0, 2))
    rows = [one[usable] for one in rows]
    pairs = list(combinations(rows, 2))
    of_means = [spearmanr(one.mean(0), two.mean(0))[0] for one, two in pairs]
    within = [np.nanmean([spearmanr(a, b)[0] for a, b in zip(one, two, strict=True)]) for one, two in pairs]
    return float(np.mean(of_means)), float(np.mean(within))


def claims(tables: list[Table]) -> list[str]:
    """Return the section with what was shown or refuted."""
    lines = ["## Claims", ""]
    for layer in LAYERS:
        names = unlike(layer)
        for metric in ("srg(blur)", "srg(mean)", "single_deletion(blur)"):
            means = {name: mean_and_error(column(tables, f"{name}, {layer}", metric))[0] for name in names}
            order = ", ".join(sorted(names, key=lambda name: -means[name]))
            lines.append(f"* **Order at `{layer}`**, {metric}: {order}.")
    gaps = [
        np.nanmax(np.abs(column(tables, "gradcam, bn2", metric) - column(tables, f"{other}, bn2", metric)))
        for other in ("hirescam", "xgradcam")
        for metric in ("srg(blur)", "single_deletion(blur)", "average_drop")
    ]
    lines.append(f"* **Grad-CAM = HiResCAM = XGrad-CAM at `bn2`**: no value differs by more than {max(gaps):.1e}.")
    both = [cell(column(tables, f"{name}, conv_head", "srg(blur)")) for name in ("xgradcam", "gradcam")]
    gap = difference(tables, "xgradcam, conv_head", "gradcam, conv_head", "srg(blur)")
    lines.append(
        f"* **XGrad-CAM at the bare convolution**, srg(blur): {both[0]}, Grad-CAM {both[1]}; difference {gap}."
    )
    comparable = [name for name in LINEAR_MAPS if " " not in name]
    for fillers, names in ((list(FILLERS), unlike("bn2")), ([*FILLERS, "linear"], comparable)):
        parts = []
        for metric in ("srg", "deletion", "insertion"):
            of_means, within = steadiness(tables, metric, names, fillers)
            parts.append(f"{metric} {of_means:.2f} and {within:.2f}")
        rule = "rank correlation between fillers, of the means over photos and within a photo"
        lines.append(f"* **Fillers {', '.join(fillers)} at `bn2`** ({rule}): {'; '.join(parts)}.")
    for metric in ("srg(blur)", "srg(mean)", "single_deletion(blur)", "single_deletion(mean)"):
        texts = [
            f"{method} at `{layer}` {difference(tables, f'{method}, {layer}', f'{method} rectified, {layer}', metric)}"
            for layer in (*LAYERS, EARLY)
            for method in (("gradcam",) if layer == "bn2" else ("gradcam", "hirescam"))
        ]
        lines.append(f"* **Signed minus rectified**, {metric}: {'; '.join(texts)}.")
    ones = column(tables, "all ones, bn2", "average_drop")
    lines.append(f"* **A map of ones**: average drop {np.abs(ones).max():.3f} in all photos.")
    for metric in ("road(linear)", "srg(linear)", "road(blur)", "srg(blur)", "srg(mean)", "single_deletion(blur)"):
        texts = [
            f"{method} at `{layer}` {difference(tables, f'{method} blurred, {layer}', f'{method}, {layer}', metric)}"
            for method, layer in (("gradcam", "bn2"), ("gradcam", "conv_head"), ("hirescam", "conv_head"))
            if np.isfinite(column(tables, f"{method} blurred, {layer}", metric)).any()
        ]
        lines.append(f"* **Blurred minus original**, {metric}: {'; '.join(texts)}.")
    for filler in FILLERS:
        early = cell(column(tables, f"random order, {filler}", "at 10 %"))
        area = cell(column(tables, f"random order, {filler}", "deletion"))
        lines.append(f"* **Random order**, filler {filler}: probability with 10 % covered {early}, area {area}.")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--linear", type=int, default=24)
    parser.add_argument("--raw", type=Path)
    settings = parser.parse_args()
    if settings.raw is not None and settings.raw.exists():
        tables: list[Table] = json.loads(settings.raw.read_text())
    else:
        tables = collect(settings.photos, settings.linear)
        if settings.raw is not None:
            settings.raw.write_text(json.dumps(tables))
    write_page(tables)


def write_page(tables: list[Table]) -> None:
    lines = [
        "# Faithfulness of methods, measured",
        "",
        f"Generated by `benchmarks/faithfulness.py` with torch {torch.__version__}; do not edit. {len(tables)} photos that",
        "EfficientNet-Lite0 recognizes with more than 50 %. 7 x 7 units, 10 steps. SRG, deletion, insertion, ROAD and MAS are",
        "of the probability; single deletion, sensitivity-n and infidelity of the log-odds. Mean ± standard error over photos;",
        "differences are paired. *alpha* is Krippendorff's: do photos agree on the order of the methods? It is computed for",
        "methods whose maps are not equal. *gradcam of another photo* is a control without any relation to the photo.",
        "[Metrics](../docs/metrics.md) explains the columns.",
        "",
        *claims(tables),
    ]
    groups = [
        ["srg(blur)", "srg(mean)", "deletion(blur)", "insertion(blur)", "deletion(mean)", "insertion(mean)"],
        ["road(blur)", "mas(blur)", "single_deletion(blur)", "single_deletion(mean)", "sensitivity_n(blur)"],
        ["sensitivity_n(mean)", "infidelity(blur)", "infidelity(mean)"],
        list(DIMMING),
        ["srg(linear)", "deletion(linear)", "insertion(linear)", "road(linear)"],
    ]
    for layer, title in LAYERS.items():
        lines += ["", f"## `{layer}`: {title}"]
        for group in groups:
            if any(np.isfinite(column(tables, f"gradcam, {layer}", metric)).any() for metric in group):
                lines += ["", *layer_table(tables, layer, group)]
    PAGE.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
