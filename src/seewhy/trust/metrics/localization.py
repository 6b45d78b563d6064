"""Localization: does a map lie on an object? This is plausibility, not faithfulness.

A correct map of a model that looks at the background scores low: a finding about the model. All values are in [0, 1] and
higher is better; the chance value is the fraction of the image that the object covers, unless stated otherwise. A map with
values that are not finite numbers has NaN everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from seewhy.errors import UsageError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

THRESHOLDS = 100
OVERLAPS = (0.3, 0.5, 0.7)


def check_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> Array:
    """Return boxes clipped to an image `(H, W)`, as an array (boxes, 4).

    Raises:
        UsageError: There are no boxes, one of them is not four finite numbers, or one has no pixel inside the image.
    """
    if not len(boxes):
        raise UsageError("no boxes: pass at least one box (left, top, right, bottom) in pixels.")
    height, width = size
    clipped = []
    for box in boxes:
        try:
            corners = np.asarray(box, dtype=float)
        except (TypeError, ValueError):
            corners = np.zeros(0)
        if corners.shape != (4,) or not np.isfinite(corners).all():
            raise UsageError(f"box {box!r}: pass a list of boxes (left, top, right, bottom) in pixels.")
        found = np.clip(corners, 0, [width, height, width, height])
        if not pixels_inside(found, size).any():
            numbers = ", ".join(f"{corner:g}" for corner in corners)
            raise UsageError(
                f"box ({numbers}): no pixel of the image ({width} x {height}) is inside. The order is left, top, right, bottom."
            )
        clipped.append(found)
    return np.array(clipped)


def pixels_inside(box: Array, size: tuple[int, int]) -> Mask:
    """Return the pixels (H, W) whose centers are in a box."""
    left, top, right, bottom = box
    y, x = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    inside: Mask = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None]
    return inside


def box_mask(boxes: Sequence[Box], size: tuple[int, int]) -> Mask:
    """Return the pixels (H, W) whose centers are in one of `boxes`.

    Raises:
        UsageError: There are no boxes, or one of them is not four finite numbers or has no pixel inside the image.

    Example:
        >>> box_mask([(1, 0, 3, 2)], (2, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0]]
    """
    inside: Mask = np.logical_or.reduce([pixels_inside(box, size) for box in check_boxes(boxes, size)])
    return inside


def check_heatmap(heatmap: ArrayLike) -> Array:
    """Return one map (H, W) as an array in float64. Raises UsageError for another number of axes, or without pixels."""
    values = np.asarray(heatmap, dtype=float)
    if values.ndim != 2 or not values.size:
        raise UsageError(f"localization needs one map (height, width); this one has shape {values.shape}.")
    return values


def check_pair(heatmap: ArrayLike, mask: ArrayLike) -> tuple[Array, Mask]:
    """Return a map and a mask as arrays.

    Raises:
        UsageError: The mask is not boolean, has another size than the map, or marks nothing.
    """
    values, marked = check_heatmap(heatmap), np.asarray(mask)
    if marked.dtype != bool:
        raise UsageError(
            f"the mask has values of type {marked.dtype}: pass True and False, such as image == class_value."
        )
    if values.shape != marked.shape:
        raise UsageError(f"the mask has size {marked.shape}, and the map {values.shape}: resize the mask.")
    if not marked.any():
        raise UsageError("the mask marks no pixel, so localization is not defined.")
    return values, marked


def has_evidence(values: Array) -> bool:
    """Return True if all values of a map are finite and one is positive."""
    return bool(np.isfinite(values).all()) and bool(values.max() > 0)


def pointing_game(heatmap: ArrayLike, mask: ArrayLike) -> float:
    """Return whether the maximum of a map lies on the object; with several maxima, the fraction of them that do.

    There is no tolerance around the object. NaN for a map without positive values.

    Args:
        heatmap: The map `(H, W)`.
        mask: Where the object is, boolean, `(H, W)`.

    Raises:
        UsageError: The mask is not boolean, has another size than the map, or marks nothing.

    Example:
        >>> pointing_game([[0.2, 0.9]], [[False, True]])
        1.0

    References:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018
    """
    values, marked = check_pair(heatmap, mask)
    return float(marked[values == values.max()].mean()) if has_evidence(values) else math.nan


def energy(heatmap: ArrayLike, mask: ArrayLike) -> float:
    """Return the fraction of the positive values of a map that lies on the object.

    With a box it is the energy pointing game, with a mask the relevance mass accuracy (RMA). NaN for a map without
    positive values.

    Args:
        heatmap: The map `(H, W)`.
        mask: Where the object is, boolean, `(H, W)`.

    Raises:
        UsageError: The mask is not boolean, has another size than the map, or marks nothing.

    Example:
        >>> energy([[-1.0, 1.0, 3.0]], [[True, True, False]])
        0.25

    References:
        Wang et al., "Score-CAM", CVPR Workshops 2020; Arras et al., "CLEVR-XAI", Information Fusion 2022
    """
    values, marked = check_pair(heatmap, mask)
    if not has_evidence(values):
        return math.nan
    positive = np.maximum(values / values.max(), 0)  # so that the sum of large values is finite
    return float(positive[marked].sum() / positive.sum())


def rank_accuracy(heatmap: ArrayLike, mask: ArrayLike) -> float:
    """Return the fraction of the n largest values of a map that lie on the object, which has n pixels (RRA).

    If equal values are at the limit, each counts by the same fraction. So a constant map has the chance value. NaN for a map
    with values that are not finite.

    Args:
        heatmap: The map `(H, W)`.
        mask: Where the object is, boolean, `(H, W)`.

    Raises:
        UsageError: The mask is not boolean, has another size than the map, or marks nothing.

    Example:
        >>> rank_accuracy([[0.1, 0.9, 0.5, 0.7]], [[False, True, True, False]])
        0.5

    References:
        Arras et al., "CLEVR-XAI", Information Fusion 2022
    """
    values, marked = check_pair(heatmap, mask)
    if not np.isfinite(values).all():
        return math.nan
    count = int(marked.sum())
    limit = np.partition(values.ravel(), -count)[-count]
    above, equal = values > limit, values == limit
    fraction = (count - above.sum()) / equal.sum()
    return float((marked[above].sum() + fraction * marked[equal].sum()) / count)


def box_overlaps(heatmap: ArrayLike, boxes: Sequence[Box], thresholds: int = THRESHOLDS) -> Array:
    """Return for each threshold the best intersection over union (IoU) of the map's box with one of `boxes`, `(thresholds,)`.

    The map's box surrounds the largest connected region of heatmap >= threshold times its maximum. `boxes` are clipped to the
    image. NaN for a map without positive values.

    Args:
        heatmap: The map `(H, W)`.
        boxes: Where the objects are, in pixels.
        thresholds: Number of thresholds, from 0 in steps of 1 / thresholds.

    Raises:
        UsageError: There are no boxes, or one of them is not four finite numbers or has no pixel inside the image.

    Example:
        >>> box_overlaps(np.eye(4), [(0, 0, 2, 2)], thresholds=2).tolist()
        [0.25, 0.25]
    """
    values = check_heatmap(heatmap)
    height, width = values.shape
    known = check_boxes(boxes, (height, width)).tolist()
    if not has_evidence(values):
        return np.full(thresholds, np.nan)
    scaled = values / values.max()
    best = np.zeros(thresholds)
    for number in range(thresholds):
        labels = ndimage.label(scaled >= max(number / thresholds, 1e-12))[0]
        largest = np.bincount(labels.ravel())[1:].argmax() + 1
        rows, columns = ndimage.find_objects(labels)[largest - 1]
        found = (columns.start, rows.start, columns.stop, rows.stop)
        best[number] = max(box_iou(found, box) for box in known)
    return best


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def max_box_accuracy(overlaps: ArrayLike, levels: Sequence[float] = OVERLAPS) -> float:
    """Return MaxBoxAccV2: the mean over IoU levels of the best fraction of images that reach the level at one threshold.

    The threshold is chosen on the same images, which is optimistic; see `crossfit_box_accuracy`.

    Args:
        overlaps: `box_overlaps` of each image, `(images, thresholds)`. Rows of NaN do not count.
        levels: IoU from which a box counts.

    Returns:
        In [0, 1]; NaN if no map has a box.

    Raises:
        UsageError: `overlaps` is not `(images, thresholds)`.

    References:
        Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020
    """
    hits = box_hits(overlaps, levels)
    return float(hits.mean(1).max(1).mean()) if hits.shape[1] else math.nan


def crossfit_box_accuracy(overlaps: ArrayLike, levels: Sequence[float] = OVERLAPS) -> Array:
    """Return for each image how many of the IoU levels its box reaches, with thresholds chosen on other images, `(images,)`.

    Images at even positions use the best thresholds of those at odd positions, and vice versa. The mean over images is
    MaxBoxAccV2 without the optimism of `max_box_accuracy`. If several thresholds are equally good, their mean result counts.

    Args:
        overlaps: As for `max_box_accuracy`.
        levels: IoU from which a box counts.

    Returns:
        In [0, 1]; NaN for images without a box, and for all of them if one half has no box.

    Raises:
        UsageError: `overlaps` is not `(images, thresholds)`.

    Example:
        >>> crossfit_box_accuracy([[0.6, 0.2], [0.2, 0.6]], [0.5]).tolist()
        [0.0, 0.0]
    """
    hits = box_hits(overlaps, levels)
    kept = np.isfinite(np.asarray(overlaps, dtype=float)).all(1)
    halves = np.nonzero(kept)[0] % 2
    results = np.full(len(kept), np.nan)
    if not (halves == 0).any() or not (halves == 1).any():
        return results
    values = np.zeros(hits.shape[1])
    for half in (0, 1):
        rates = hits[:, halves != half].mean(1)
        is_best = rates == rates.max(1, keepdims=True)
        chosen = (hits[:, halves == half] * is_best[:, None]).sum(2) / is_best.sum(1)[:, None]
        values[halves == half] = chosen.mean(0)
    results[kept] = values
    return results


def box_hits(overlaps: ArrayLike, levels: Sequence[float]) -> Array:
    """Return where each image with a box reaches each level, 0 or 1, `(levels, images, thresholds)`."""
    table = np.asarray(overlaps, dtype=float)
    if table.ndim != 2 or not table.size:
        raise UsageError(f"overlaps have shape {table.shape}: pass one row of box_overlaps for each image.")
    table = table[np.isfinite(table).all(1)]
    hits: Array = (table >= np.reshape(levels, (-1, 1, 1))).astype(float)
    return hits
