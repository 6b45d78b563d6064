"""Localization: does a map lie on an object? This is plausibility, not faithfulness.

A correct map of a model that looks at the background scores low: a finding about the model. All values are in [0, 1] and
higher is better; the chance value is the fraction of the image that the object covers, unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seewhy.errors import UsageError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

THRESHOLDS = 100
OVERLAPS = (0.3, 0.5, 0.7)


def box_mask(boxes: Sequence[Box], size: tuple[int, int]) -> Mask:
    """Return the pixels (H, W) whose centers are in one of `boxes`.

    Raises:
        UsageError: There are no boxes, or one of them has no pixel inside the image.
    """
    if not len(boxes):
        raise UsageError("no boxes: pass at least one box (left, top, right, bottom) in pixels.")
    height, width = size
    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    mask = np.zeros(size, bool)
    for box in boxes:
        left, top, right, bottom = box
        inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]
        if not inside.any():
            raise UsageError(f"box {tuple(box)}: no pixel of the image ({width} x {height}) is inside.")
        mask |= inside
    return mask


def check_mask(heatmap: Array, mask: Mask) -> None:
    """Raise UsageError if a mask has another size than the heatmap, or marks nothing."""
    if heatmap.shape != mask.shape:
        raise UsageError(f"the mask has size {mask.shape}, and the heatmap {heatmap.shape}: resize the mask.")
    if not mask.any():
        raise UsageError("the mask marks no pixel, so localization is not defined.")


def pointing_game(heatmap: Array, mask: Mask) -> float:
    """Return whether the maximum of a map lies on the object; with several maxima, the fraction of them that do.

    NaN for a map without positive values.

    References:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018
    """
    check_mask(heatmap, mask)
    if not heatmap.max() > 0:
        return math.nan
    return float(mask[heatmap == heatmap.max()].mean())


def energy(heatmap: Array, mask: Mask) -> float:
    """Return the fraction of the positive values of a map that lies on the object.

    With a box it is the energy pointing game, with a mask the relevance mass accuracy (RMA). NaN for a map without
    positive values.

    References:
        Wang et al., "Score-CAM", CVPR Workshops 2020; Arras et al., "CLEVR-XAI", Information Fusion 2022
    """
    check_mask(heatmap, mask)
    positive = np.maximum(heatmap, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else math.nan


def rank_accuracy(heatmap: Array, mask: Mask) -> float:
    """Return the fraction of the n largest values of a map that lie on the object, which has n pixels (RRA).

    If equal values are at the limit, each counts by the same fraction.

    References:
        Arras et al., "CLEVR-XAI", Information Fusion 2022
    """
    check_mask(heatmap, mask)
    count = int(mask.sum())
    limit = np.partition(heatmap.ravel(), -count)[-count]
    above, equal = heatmap > limit, heatmap == limit
    fraction = (count - above.sum()) / equal.sum()
    return float((mask[above].sum() + fraction * mask[equal].sum()) / count)


def box_overlaps(heatmap: Array, boxes: Sequence[Box], thresholds: int = THRESHOLDS) -> Array:
    """Return for each threshold the best intersection over union (IoU) of the map's box with one of `boxes`, `(thresholds,)`.

    The box surrounds the largest connected region of heatmap >= threshold times its maximum.
    """
    best = np.zeros(thresholds)
    if not heatmap.max() > 0:
        return best
    scaled = heatmap / heatmap.max()
    for number in range(thresholds):
        labels, count = ndimage.label(scaled >= max(number / thresholds, 1e-12))
        if not count:
            continue
        largest = np.bincount(labels.ravel())[1:].argmax() + 1
        rows, columns = ndimage.find_objects(labels)[largest - 1]
        found = (columns.start, rows.start, columns.stop, rows.stop)
        best[number] = max(box_iou(found, box) for box in boxes)
    return best


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def max_box_accuracy(overlaps: Array, levels: Sequence[float] = OVERLAPS) -> float:
    """Return MaxBoxAccV2: the mean over IoU levels of the best fraction of images that reach the level at one threshold.

    The threshold is chosen on the same images, which is optimistic.

    Args:
        overlaps: `box_overlaps` of each image, `(images, thresholds)`.
        levels: IoU from which a box counts.

    References:
        Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020
    """
    return float(np.mean([(overlaps >= level).mean(0).max() for level in levels]))
