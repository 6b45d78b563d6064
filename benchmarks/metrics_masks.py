"""Infidelity, sensitivity-n and completeness, next to those of other packages."""

from __future__ import annotations

from typing import Any

import captum.metrics
import numpy as np
import quantus
import torch
from torch import Tensor

from metrics_peers import Array, Case, largest, logits, run_quantus
from metrics_rows import Row
from seewhy.trust import map_metrics, shared_masks
from seewhy.trust.metrics.units import cover_units


def of_infidelity(case: Case) -> list[Row]:
    """Infidelity against captum: the same 32 random subsets of the cells of a 7 x 7 grid, filled with zeros."""
    grid, units = (7, 7), 49
    covered = shared_masks.subset_masks(units, units // 4)
    side = case.side // 7
    masks = cover_units(torch.from_numpy(covered), grid, (case.side, case.side))
    cells = case.rectified.reshape(3, 7, side, 7, side).mean((2, 4))

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        part = masks[:, None].expand_as(inputs)
        return part, inputs * (1 - part)

    ours, theirs, plain, doubled = [], [], [], []
    for at, target in enumerate(case.classes):
        values = cells[at].ravel()
        fill = case.constant_fill(at, 0.0)
        drops = shared_masks.score_drops(case.scorer(at, logits), fill, covered, grid, (case.side, case.side))
        ours.append(float(shared_masks.infidelity(values[None], drops, covered)[0]))
        attribution = torch.zeros(1, 3, case.side, case.side)  # in one channel, so that it counts once
        attribution[0, 0] = torch.from_numpy(np.kron(values.reshape(grid), np.ones((side, side)))) / side**2

        def infidelity(
            scale: float, *, normalize: bool, at: int = at, target: int = target, map_of: Tensor = attribution
        ) -> float:
            return float(
                captum.metrics.infidelity(
                    case.net, perturb, case.inputs[at : at + 1], scale * map_of, target=target,
                    n_perturb_samples=len(covered), normalize=normalize,
                )
            )  # fmt: skip

        theirs.append(infidelity(1, normalize=True) / float((drops**2).mean()))
        plain.append(infidelity(1, normalize=False))
        doubled.append(infidelity(2, normalize=False))
    mine, peer, name = (
        np.array(ours),
        np.array(theirs),
        "captum infidelity (normalize=True), divided by the mean square of the drops",
    )
    positive = mine <= 1
    rows = [
        Row(
            "`infidelity`",
            name,
            f"rectified, {positive.sum()} photos with a positive best scale",
            mine[positive],
            peer[positive],
        ),
        Row(
            "`infidelity`",
            "captum infidelity",
            "rectified",
            ours,
            plain,
            "default: no scale is fitted, so the value depends on the units of the map",
        ),
        Row("`infidelity`", "captum infidelity", "rectified, doubled", ours, doubled, "the same maps in other units"),
    ]
    if not positive.all():
        what = "covering parts raises the score, so the map predicts the opposite: the square hides it; seewhy returns 1 + r²"
        rows.append(
            Row(
                "`infidelity`",
                name,
                f"rectified, {(~positive).sum()} photo with a negative best scale",
                mine[~positive],
                peer[~positive],
                what,
                2 - mine[~positive],
            )
        )
    return rows


def of_quantus_faithfulness(case: Case) -> list[Row]:
    rows = [of_subsets(case)]
    blocks, size = 6, (case.side, case.side)
    patch = case.side // blocks
    metric = quantus.Infidelity(perturb_patch_sizes=[patch], n_perturb_samples=1, disable_warnings=True)
    theirs = run_quantus(metric, case, case.signed, probabilities=False)
    metric = quantus.Infidelity(perturb_patch_sizes=[patch], n_perturb_samples=3, disable_warnings=True)
    spread = largest(theirs, run_quantus(metric, case, case.signed, probabilities=False))
    ours, again = [], []
    single, nested = np.eye(blocks**2, dtype=bool), np.tril(np.ones((blocks**2,) * 2, bool))
    for at in range(len(case.classes)):
        image = case.inputs[at]
        fill, score = case.constant_fill(at, float(image.min())), case.scorer(at, logits)
        pixels = case.signed[at] * (image - image.min()).double().sum(0).numpy()
        sums = pixels.reshape(blocks, patch, blocks, patch).sum((1, 3)).ravel()
        drops = shared_masks.score_drops(score, fill, single, (blocks, blocks), size)
        ours.append(float(shared_masks.infidelity(sums[None], drops, single)[0]))
        drops = shared_masks.score_drops(score, fill, nested, (blocks, blocks), size)
        again.append(float(((nested @ sums - drops) ** 2).mean()))
    what = (
        "blocks are removed one after the other and never restored; no scale is fitted; its samples are equal "
        f"(largest difference of 1 and 3 samples: {spread:.0e})"
    )
    rows.append(Row("`infidelity`", "Quantus Infidelity", "signed", ours, theirs, what, again))
    return [*rows, *of_quantus_sensitivity_n(case), *of_completeness(case)]


def of_subsets(case: Case) -> Row:
    """Sensitivity-n against Quantus FaithfulnessCorrelation: the subsets that it drew are used again."""
    drawn: list[Array] = []

    def perturb(arr: Array, indices: Array, **_: Any) -> Array:
        drawn.append(indices)
        changed = arr.copy()
        changed[np.arange(len(arr))[:, None], indices] = 0
        return changed

    np.random.seed(0)
    features = 3 * case.side**2
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=32, subset_size=features // 12, perturb_func=perturb, return_aggregate=False, disable_warnings=True
    )
    theirs = run_quantus(metric, case, case.signed, probabilities=False)
    ours = []
    for at in range(len(case.classes)):
        covered = np.zeros((len(drawn), features), bool)
        for row, indices in enumerate(drawn):
            covered[row, indices[at]] = True
        kept = torch.from_numpy(~covered).reshape(-1, *case.inputs[at].shape)
        scores = (
            case.scorer(at, logits)(len(kept), lambda part, at=at, kept=kept: case.inputs[at] * kept[part])
            .double()
            .numpy()
        )
        drops = case.scores(logits)[at] - scores
        sums = np.tile(case.signed[at].ravel(), 3)[None]
        ours.append(float(shared_masks.sensitivity_n(sums, drops, covered)[0]))
    return Row("`sensitivity_n`", "Quantus FaithfulnessCorrelation, same subsets", "signed", ours, theirs)


def of_quantus_sensitivity_n(case: Case) -> list[Row]:
    step = case.side**2 // 10
    maps = case.signed + 1e-9 * case.distinct
    metric = quantus.SensitivityN(features_in_step=step, normalise=False, return_aggregate=False, disable_warnings=True)
    theirs = np.array(run_quantus(metric, case, maps, probabilities=False))
    pixels, steps, kept = step // 3, 30, 8  # 80 % of the pixels, counted in steps of features: 8 of 30 steps
    drops, sums = [], []
    for at, one in enumerate(maps):
        curve = case.curves(at, one, case.constant_fill(at, float(case.inputs[at].min())), steps, logits).most_first
        drops.append(curve.scores[0] - curve.scores[1:])
        sums.append(3 * np.sort(one.ravel())[::-1].reshape(steps, pixels).sum(1))
    again = [np.corrcoef(np.array(drops)[:, at], np.array(sums)[:, at])[0, 1] for at in range(kept)]
    grid, covered = (6, 6), shared_masks.subset_masks(36, 12)
    cells = maps.reshape(3, 6, case.side // 6, 6, case.side // 6).sum((2, 4)).reshape(3, 36)
    ours = []
    for at in range(len(case.classes)):
        fill = case.constant_fill(at, float(case.inputs[at].min()))
        found = shared_masks.score_drops(case.scorer(at, logits), fill, covered, grid, (case.side, case.side))
        ours.append(float(shared_masks.sensitivity_n(cells[at : at + 1], found, covered)[0]))
    what = (
        "correlates over images: the sum of the last step with the drop of all steps so far (mean over 8 of 30 steps)"
    )
    return [
        Row(
            "`sensitivity_n`",
            "Quantus SensitivityN",
            "signed, ties broken",
            np.full(kept, np.mean(ours)),
            theirs,
            what,
            again,
        )
    ]


def of_completeness(case: Case) -> list[Row]:
    theirs = run_quantus(
        quantus.Completeness(disable_warnings=True, normalise=False), case, case.signed, probabilities=False
    )
    own = case.scores(logits)
    reference = [
        float(
            case.scorer(at, logits)(
                1, lambda part, at=at: torch.full_like(case.inputs[at : at + 1], float(case.inputs[at].min()))
            )[0]
        )
        for at in range(3)
    ]
    ours = [
        map_metrics.explained_fraction(one, float(a), b) for one, a, b in zip(case.signed, own, reference, strict=True)
    ]
    again = [float(fraction == 1) for fraction in ours]
    return [
        Row(
            "`explained_fraction`",
            "Quantus Completeness",
            "signed",
            ours,
            np.array(theirs, float),
            "whether the sums are equal as floating-point numbers (0 is False); a map scaled to 1 explains no score",
            again,
        )
    ]
