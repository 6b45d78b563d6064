"""Deletion, insertion and ROAD, next to those of other packages."""

from __future__ import annotations

import dataclasses

import numpy as np
import quantus
import torch
from pytorch_grad_cam.metrics import road as gc_road
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from quantus.functions.perturb_func import noisy_linear_imputation
from torch import Tensor, nn
from torchcam import metrics as tc

from metrics_peers import Array, Case, GivenMap, error_of, grad_cam_targets, logits, quiet, run_quantus, softmax
from metrics_rows import Row, each
from seewhy.trust import removal_metrics
from seewhy.trust.fillers import LinearImputation, impute
from seewhy.trust.metrics.removal import area

STEPS = 20
PERCENTILES = [10, 20, 30, 40, 50, 60, 70, 80, 90]


def of_deletion(case: Case) -> list[Row]:
    """Deletion and insertion with a constant filler; units are pixels."""
    rows = []
    inputs, indices = case.inputs, case.classes
    for name, maps in (("distinct", case.distinct), ("signed", case.signed), ("rectified", case.rectified)):
        metric = tc.DeletionInsertionMetric(GivenMap(case.net, maps), lambda out: out.softmax(1), steps=STEPS)
        metric.update(inputs, indices)
        found = metric.summary()
        curves = [case.curves(at, maps[at], case.constant_fill(at, 0.0), STEPS) for at in range(len(maps))]
        # Raster order: the ranks of a stable sort.
        raster = [-np.argsort(np.argsort(-one.ravel(), kind="stable"), kind="stable").astype(float) for one in maps]
        again = [case.curves(at, raster[at], case.constant_fill(at, 0.0), STEPS) for at in range(len(maps))]
        for label, ours, key in (
            ("`deletion`", removal_metrics.deletion, "deletion_auc"),
            ("`insertion`", removal_metrics.insertion, "insertion_auc"),
        ):
            theirs = found[key]
            mine, redone = float(np.mean(each(ours, curves))), float(np.mean(each(ours, again)))
            what = (
                "" if name == "distinct" else "equal values are removed in raster order; seewhy removes them together"
            )
            if label == "`insertion`" and what:
                # torchcam inserts the largest first, so ties are in raster order there as well.
                forward = [
                    area(insertion_scores(case, at, raster[at]), np.arange(STEPS + 1) / STEPS)
                    for at in range(len(maps))
                ]
                redone = float(np.mean(forward))
            rows.append(
                Row(label, "torchcam DeletionInsertionMetric", name, mine, theirs, what, redone if what else None)
            )
    metric = tc.DeletionInsertionMetric(GivenMap(case.net, case.distinct), steps=STEPS)
    metric.update(inputs, indices)
    curves = [case.curves(at, case.distinct[at], case.constant_fill(at, 0.0), STEPS) for at in range(len(indices))]
    of_logits = [
        case.curves(at, case.distinct[at], case.constant_fill(at, 0.0), STEPS, logits) for at in range(len(indices))
    ]
    what = "default: the logit, whose area is not in [0, 1]"
    rows.append(
        Row(
            "`deletion`",
            "torchcam DeletionInsertionMetric",
            "distinct",
            each(removal_metrics.deletion, curves),
            np.full(3, metric.summary()["deletion_auc"]),
            what,
            np.full(3, np.mean(each(removal_metrics.deletion, of_logits))),
        )
    )
    return rows + of_pixel_flipping(case)


def insertion_scores(case: Case, number: int, values: Array) -> Array:
    """Return the scores while pixels are revealed in descending order, from none to all."""
    return case.curves(number, -values, case.constant_fill(number, 0.0), STEPS).most_first.scores[::-1]


def of_pixel_flipping(case: Case) -> list[Row]:
    steps = 30
    metric = quantus.PixelFlipping(features_in_step=case.side**2 // 10, disable_warnings=True, normalise=False)
    theirs = np.array(run_quantus(metric, case, case.distinct))
    curves = [
        case.curves(at, case.distinct[at], case.constant_fill(at, float(case.inputs[at].min())), steps)
        for at in range(len(case.classes))
    ]
    ours = np.array([curve.most_first.scores[1:] for curve in curves])
    rows = [
        Row("curve of `deletion`", "Quantus PixelFlipping (filler: the minimum of the input)", "distinct", ours, theirs)
    ]
    metric = quantus.PixelFlipping(
        features_in_step=case.side**2 // 10, disable_warnings=True, return_auc_per_sample=True
    )
    message = error_of(lambda: run_quantus(metric, case, case.distinct))
    if message:
        what = f"its area fails: `{message}`"
        rows.append(
            Row("`deletion`", "Quantus PixelFlipping", "distinct", each(removal_metrics.deletion, curves), np.nan, what)
        )
    return rows


def of_road(case: Case) -> list[Row]:
    rows = []
    random = np.random.default_rng(0)
    covered = random.random((case.side, case.side)) < 0.7
    images = case.inputs.double().numpy()
    ours = np.array([impute(image, covered) for image in images])
    imputer = gc_road.NoisyLinearImputer(noise=0)
    theirs = np.array([imputer(image, torch.from_numpy(~covered).float()).numpy() for image in case.inputs])
    rows.append(
        Row("`LinearImputation`, values of pixels", "grad-cam NoisyLinearImputer", "random mask of 70 %", ours, theirs)
    )
    with quiet():
        theirs = np.array([noisy_linear_imputation(image, np.nonzero(covered.ravel())[0], noise=0) for image in images])
    rows.append(
        Row(
            "`LinearImputation`, values of pixels",
            "Quantus noisy_linear_imputation",
            "random mask of 70 %",
            ours,
            theirs,
        )
    )
    for name, maps in (("distinct", case.distinct), ("rectified", case.rectified)):
        ours = [
            removal_metrics.road(case.curves(at, maps[at], LinearImputation(noise=0).bind(case.inputs[at]), 10))
            for at in range(len(maps))
        ]
        theirs, removed = grad_cam_road(case, maps)
        if name == "distinct":
            rows.append(Row("`road`", "grad-cam ROADCombined, without noise", name, ours, theirs))
            continue
        again = peer_road(case, maps)
        what = (
            f"removes values above a percentile: at nominal {nominal(PERCENTILES)} % it removes {removed} % of the pixels of "
            "the first photo"
        )
        rows.append(Row("`road`", "grad-cam ROADCombined, without noise", name, ours, theirs, what, again))
    torch.manual_seed(0)
    with quiet():
        theirs = gc_road.ROADCombined()(case.inputs, case.distinct, grad_cam_targets(case, softmax), case.net)
    ours = [
        removal_metrics.road(case.curves(at, case.distinct[at], LinearImputation().bind(case.inputs[at]), 10))
        for at in range(len(case.classes))
    ]
    rows.append(Row("`road`", "grad-cam ROADCombined", "distinct", ours, theirs, "other random noise (0.01)"))
    metric = quantus.ROAD(percentages=PERCENTILES, noise=0, disable_warnings=True)
    message = error_of(lambda: run_quantus(metric, case, case.distinct))
    if message:
        what = f"sorts the copies of a pixel in the color channels as separate pixels, and fails: `{message}`"
        rows.append(Row("`road`", "Quantus ROAD", "distinct", ours, np.nan, what))
    gray = gray_case(case)
    metric = quantus.ROAD(percentages=PERCENTILES, noise=0, disable_warnings=True)
    found = run_quantus(metric, gray, gray.distinct)
    theirs = np.array([float(found[percentage]) for percentage in PERCENTILES])
    ours = [
        removal_metrics.road(gray.curves(at, gray.distinct[at], LinearImputation(noise=0).bind(gray.inputs[at]), 10))
        for at in range(len(gray.classes))
    ]
    what = (
        "with gray images it runs: the fraction of photos whose class stays the most probable, for one order only (mean over "
        "fractions)"
    )
    rows.append(
        Row(
            "`road`",
            "Quantus ROAD, gray images",
            "distinct",
            np.full(len(theirs), np.mean(ours)),
            theirs,
            what,
            most_first_accuracy(gray),
        )
    )
    return rows


class OfGray(nn.Module):
    """A network for color images, with images of one channel."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.expand(-1, 3, -1, -1))


def gray_case(case: Case) -> Case:
    """Return the photos in gray, with the same maps."""
    net, inputs = OfGray(case.net).eval(), case.inputs.mean(1, keepdim=True)
    with torch.inference_mode():
        classes = net(inputs).argmax(1).tolist()
    return dataclasses.replace(case, net=net, inputs=inputs, classes=classes)


def nominal(percentiles: list[int]) -> str:
    return ", ".join(str(100 - percentile) for percentile in percentiles)


def grad_cam_road(case: Case, maps: Array) -> tuple[Array, str]:
    """Return ROADCombined without noise, and which percentages are removed for the first photo."""
    found = {}
    for order in (RemoveMostRelevantFirst, RemoveLeastRelevantFirst):
        scores = []
        for percentile in PERCENTILES:
            metric = PerturbationConfidenceMetric(order(percentile, gc_road.NoisyLinearImputer(noise=0)))
            with quiet():
                scores.append(metric(case.inputs, maps, grad_cam_targets(case, softmax), case.net))
        found[order] = np.mean(scores, axis=0)
    removed = [100 * (maps[0] >= np.percentile(maps[0], percentile)).mean() for percentile in PERCENTILES]
    return (found[RemoveLeastRelevantFirst] - found[RemoveMostRelevantFirst]) / 2, ", ".join(
        f"{one:.0f}" for one in removed
    )


def peer_road(case: Case, maps: Array) -> list[float]:
    """Compute ROAD with seewhy's imputation and scores, and the threshold of grad-cam."""
    found = []
    for at, one in enumerate(maps):
        sides = []
        for values in (1 - one, one):
            masks = torch.from_numpy(
                np.array([values >= np.percentile(values, percentile) for percentile in PERCENTILES])
            )
            image = case.inputs[at].double().numpy()
            # A singular system: SciPy returns zeros if no pixel is left.
            filled = [np.zeros_like(image) if bool(mask.all()) else impute(image, mask.numpy()) for mask in masks]
            images = torch.from_numpy(np.array(filled)).float()
            sides.append(float(case.scorer(at, softmax)(len(images), lambda part, images=images: images[part]).mean()))
        found.append((sides[0] - sides[1]) / 2)
    return found


def most_first_accuracy(case: Case) -> Array:
    """Return the fraction of photos whose class remains the most probable, after each fraction of pixels."""
    right = np.zeros(len(PERCENTILES))
    for at, one in enumerate(case.distinct):
        order = np.argsort(-one.ravel())
        for number, percentage in enumerate(PERCENTILES):
            covered = np.zeros(one.size, bool)
            covered[order[: one.size * percentage // 100]] = True
            image = torch.from_numpy(impute(case.inputs[at].double().numpy(), covered.reshape(one.shape))).float()
            with torch.inference_mode():
                right[number] += int(case.net(image[None])[0].argmax()) == case.classes[at]
    return right / len(case.classes)
