"""Numbers of a map alone, coherency, dimming and localization, next to those of other packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import quantus
import torch
from pytorch_grad_cam.metrics import arcc, cam_mult_image
from pytorch_grad_cam.metrics.road import ROADCombined
from quantus.functions.complexity_func import discrete_entropy
from torchcam import metrics as tc

from metrics_peers import (
    Array,
    Case,
    GivenMap,
    ellipse,
    error_of,
    grad_cam_targets,
    logits,
    quiet,
    run_quantus,
    softmax,
)
from metrics_rows import Row, each
from seewhy.trust import localization, map_metrics
from seewhy.trust.metrics.dimming import Dimming


def first_constant(case: Case, value: float) -> Array:
    """Return the maps, the first of them constant. Quantus refuses a batch of constant maps only."""
    maps = case.signed.copy()
    maps[0] = value
    return maps


def of_maps(case: Case) -> list[Row]:
    rows = []
    for name, maps in (("signed", case.signed), ("rectified", case.rectified)):
        theirs = run_quantus(quantus.Sparseness(disable_warnings=True), case, maps)
        rows.append(Row("`sparseness`", "Quantus Sparseness", name, each(map_metrics.sparseness, maps), theirs))
        theirs = run_quantus(quantus.Complexity(disable_warnings=True), case, maps)
        rows.append(Row("`entropy`", "Quantus Complexity", name, each(map_metrics.entropy, maps), theirs))
        theirs = each(lambda one: discrete_entropy(one, one), maps)
        rows.append(
            Row(
                "`histogram_entropy`",
                "Quantus discrete_entropy",
                name,
                each(map_metrics.histogram_entropy, maps),
                theirs,
            )
        )
    ours = each(map_metrics.complexity, case.rectified)
    rows.append(Row("`complexity`", "grad-cam Complexity", "rectified", ours, arcc.Complexity()(case.rectified)))
    theirs = run_quantus(quantus.Complexity(disable_warnings=True), case, case.rectified)
    what = "another metric of this name: the entropy of the map"
    again = each(map_metrics.entropy, case.rectified)
    rows.append(Row("`complexity`", "Quantus Complexity", "rectified", ours, theirs, what, again))
    maps = first_constant(case, 0)
    theirs = run_quantus(quantus.Sparseness(disable_warnings=True, normalise=False), case, maps)[0]
    what = "adds 1e-7 to each value, so a blank map is called uniform (a batch of blank maps only is refused)"
    again = map_metrics.sparseness(maps[0] + 1e-7)
    rows.append(
        Row("`sparseness`", "Quantus Sparseness", "blank", map_metrics.sparseness(maps[0]), theirs, what, again)
    )
    return rows


def of_coherency(case: Case) -> list[Row]:
    """Coherency and ADCC: the second map is that of the image multiplied by its heatmap."""
    heat = case.rectified / case.rectified.max((1, 2), keepdims=True)
    dimmed = case.inputs * torch.from_numpy(heat)[:, None].float()
    again = torch.cat([case.explain_pixels(case.net, dimmed[at : at + 1], c) for at, c in enumerate(case.classes)])
    second = again.clamp(min=0).double().numpy()
    ours = each(map_metrics.coherency, heat, second)
    theirs = (arcc.batch_pearson_coherency(second, heat) + 1) / 2
    rows = [Row("`coherency`", "grad-cam Coherency", "rectified", ours, theirs)]
    drops = [dimming.average_drop for dimming in dimmings(case, softmax)]
    simple = each(map_metrics.complexity, heat)
    with quiet():
        combined = ROADCombined([20, 40, 60, 80])(
            case.inputs, heat.astype(np.float32), grad_cam_targets(case, softmax), case.net
        )
    third = np.clip(2 * combined, 0, 1)
    values = 3 / (1 / (np.array(ours) + 1e-8) + 1 / (1 - np.array(simple) + 1e-8) + 1 / (third + 1e-8))
    what = "another third part: twice ROAD, clipped to [0, 1], instead of 1 - average drop"
    rows.append(
        Row(
            "`adcc`",
            "grad-cam ARCC (its formula)",
            "rectified",
            each(map_metrics.adcc, ours, simple, drops),
            values,
            what,
        )
    )
    return rows


def dimmings(case: Case, rule: Any) -> list[Dimming]:
    heat = torch.from_numpy(case.rectified / case.rectified.max((1, 2), keepdims=True)).float()[:, None]
    own, found = case.scores(rule), []
    for at, (image, mask) in enumerate(zip(case.inputs, heat, strict=True)):
        images = torch.stack([image * mask, image * (1 - mask)])
        kept, removed = case.scorer(at, rule)(2, lambda part, images=images: images[part]).tolist()
        found.append(Dimming(float(own[at]), kept, removed))
    return found


def of_dimming(case: Case) -> list[Row]:
    heat = (case.rectified / case.rectified.max((1, 2), keepdims=True)).astype(np.float32)
    ours = dimmings(case, softmax)
    drops, rises = [one.average_drop for one in ours], [one.increase for one in ours]
    rows = []
    metric = tc.ClassificationMetric(GivenMap(case.net, heat), lambda out: out.softmax(1))
    metric.update(case.inputs, case.classes)
    found = metric.summary()
    rows.append(
        Row(
            "`average_drop`, mean",
            "torchcam ClassificationMetric (softmax)",
            "rectified",
            float(np.mean(drops)),
            found["avg_drop"],
        )
    )
    rows.append(
        Row(
            "`increase`, mean",
            "torchcam ClassificationMetric (softmax)",
            "rectified",
            float(np.mean(rises)),
            found["conf_increase"],
        )
    )
    targets = grad_cam_targets(case, softmax)
    theirs = cam_mult_image.IncreaseInConfidence()(case.inputs, heat, targets, case.net)
    rows.append(Row("`increase`", "grad-cam IncreaseInConfidence (softmax)", "rectified", rises, theirs))
    theirs = cam_mult_image.DropInConfidence()(case.inputs, heat, targets, case.net)
    again = np.array(drops) * [one.image for one in ours]
    rows.append(
        Row(
            "`average_drop`",
            "grad-cam DropInConfidence (softmax)",
            "rectified",
            drops,
            theirs,
            "not divided by the probability of the image",
            again,
        )
    )
    metric = tc.ClassificationMetric(GivenMap(case.net, heat))
    metric.update(case.inputs, case.classes)
    again = float(np.mean([one.average_drop for one in dimmings(case, logits)]))
    rows.append(
        Row(
            "`average_drop`, mean",
            "torchcam ClassificationMetric",
            "rectified",
            float(np.mean(drops)),
            metric.summary()["avg_drop"],
            "default: logits instead of probabilities",
            again,
        )
    )
    return [*rows, of_negative_logit(case, heat)]


def of_negative_logit(case: Case, heat: Array) -> Row:
    """Average drop for the class with a negative logit that falls most."""
    with torch.inference_mode():
        outputs = [
            case.net(images).double().numpy() for images in (case.inputs, case.inputs * torch.from_numpy(heat)[:, None])
        ]
    falls = np.where(outputs[0] < 0, outputs[0] - outputs[1], -np.inf)
    chosen = falls.argmax(1)
    metric = tc.ClassificationMetric(GivenMap(case.net, heat))
    metric.update(case.inputs, chosen.tolist())
    photos = np.arange(len(chosen))
    own, fall = outputs[0][photos, chosen], falls[photos, chosen]
    chances = [torch.from_numpy(one).softmax(1).numpy()[photos, chosen] for one in outputs]
    ours = float(np.mean([Dimming(float(a), float(b), 0.0).average_drop for a, b in zip(*chances, strict=True)]))
    what = "default: a drop divided by a negative logit is negative"
    again = float((np.maximum(fall, 0) / (own + 1e-7)).mean())
    return Row(
        "`average_drop`, mean",
        "torchcam ClassificationMetric",
        "rectified, class with a negative logit",
        ours,
        metric.summary()["avg_drop"],
        what,
        again,
    )


def of_localization(case: Case) -> list[Row]:
    mask = ellipse(case.side, 0.2)
    rows = []

    def compare(
        metric: str,
        ours: Callable[..., float],
        peer: Any,
        name: str,
        maps: Array,
        what: str = "",
        again: Any = None,
        where: Any = mask,
    ) -> None:
        values = each(lambda one: ours(one, where), maps)
        theirs = run_quantus(peer, case, maps, masks=where)
        found = None if again is None else each(lambda one: again(one, where), maps)
        rows.append(Row(metric, f"Quantus {type(peer).__name__}", name, values, np.array(theirs, float), what, found))

    mass = quantus.RelevanceMassAccuracy(disable_warnings=True)
    rank = quantus.RelevanceRankAccuracy(disable_warnings=True)
    pointing = quantus.PointingGame(disable_warnings=True)
    energy = quantus.AttributionLocalisation(disable_warnings=True, abs=False, positive_attributions=True)
    compare("`energy` (RMA)", localization.energy, mass, "rectified", case.rectified)
    compare("`energy`", localization.energy, energy, "signed", case.signed)
    compare("`rank_accuracy`", localization.rank_accuracy, rank, "distinct", case.distinct)
    compare("`pointing_game`", localization.pointing_game, pointing, "distinct", case.distinct)

    compare(
        "`energy` (RMA)",
        localization.energy,
        mass,
        "signed",
        case.signed,
        "divides signed sums: no fraction",
        lambda one, where: one[where].sum() / one.sum(),
    )
    energy = quantus.AttributionLocalisation(disable_warnings=True)
    compare(
        "`energy`",
        localization.energy,
        energy,
        "signed",
        case.signed,
        "default: absolute values, so evidence against the class counts",
        lambda one, where: localization.energy(np.abs(one), where),
    )
    energy = quantus.AttributionLocalisation(
        disable_warnings=True, abs=False, positive_attributions=True, weighted=True
    )
    wrong = case.x[2:].size  # a slice of the batch instead of the size of one image
    compare(
        "`energy`",
        localization.energy,
        energy,
        "signed",
        case.signed,
        "`weighted=True` multiplies by the object's pixels / the size of the batch without its first two images",
        lambda one, where: localization.energy(one, where) * where.sum() / wrong,
    )
    large = ellipse(case.side, 0.8)
    compare(
        "`rank_accuracy`",
        localization.rank_accuracy,
        rank,
        "rectified, object of 80 %",
        case.rectified,
        "equal values count in the order of an unstable sort",
        lambda one, where: where.ravel()[np.argsort(-one.ravel())][: where.sum()].mean(),
        large,
    )
    plain = quantus.PointingGame(disable_warnings=True, normalise=False)
    for name, value in (("constant", 0.5), ("blank", 0.0)):
        maps = first_constant(case, value)
        found = float(run_quantus(plain, case, maps, masks=mask)[0])
        what = "any of several maxima counts as a hit" + ("" if value else ", also those of a blank map")
        ours = localization.pointing_game(maps[0], mask)
        rows.append(
            Row(
                "`pointing_game`",
                "Quantus PointingGame",
                name,
                ours,
                found,
                what,
                float(mask[maps[0] == maps[0].max()].any()),
            )
        )
    weighted = quantus.PointingGame(disable_warnings=True, weighted=True)
    message = error_of(lambda: run_quantus(weighted, case, case.distinct, masks=mask))
    if message:
        hits = each(lambda one: localization.pointing_game(one, mask), case.distinct)
        rows.append(
            Row(
                "`pointing_game`",
                "Quantus PointingGame",
                "distinct",
                hits,
                np.nan,
                f"`weighted=True` fails: `{message}`",
            )
        )
    empty = np.zeros_like(mask)
    found = np.array(run_quantus(pointing, case, case.distinct, masks=empty), float)
    what = "NaN is stored in a boolean array and becomes True: a hit; seewhy raises an error"
    rows.append(Row("`pointing_game`", "Quantus PointingGame", "distinct, empty mask", np.full(3, np.nan), found, what))
    return rows
