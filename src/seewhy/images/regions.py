"""The box around the largest connected part of a mask, for any number of axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_box(mask: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Return the box around the largest connected part of a mask (*size), or None for an empty mask.

    The box lists the starts, then the ends (exclusive), with the last axis first: (left, top, right, bottom) of an image,
    (start, end) of a signal, (left, top, front, right, bottom, back) of a volume (depth, height, width). Cells that touch
    at a face, an edge or a corner are connected. Of equally large parts, the one that starts first in reading order wins.

    >>> largest_box(np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool))
    (2, 1, 4, 3)
    >>> largest_box(np.array([0, 1, 0, 1, 1, 1], bool))
    (3, 6)
    """
    from scipy import ndimage  # imported on first use: takes 0.25 s

    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, bool))
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    in_largest = (sizes == sizes.max())[labels.ravel()]
    label = labels.ravel()[in_largest.argmax()]
    ranges = ndimage.find_objects(labels, max_label=label)[label - 1]
    return (*(axis.start for axis in reversed(ranges)), *(axis.stop for axis in reversed(ranges)))
