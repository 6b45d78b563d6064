"""Color tables of the images and the HTML page: 256 RGB triples each, from low to high."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from seewhy.errors import UnknownName

DEFAULT = "inferno"


@cache
def tables() -> dict[str, NDArray[np.uint8]]:
    """Load all color tables by name, each (256, 3) uint8.

    viridis, inferno, magma and plasma are by S. van der Walt and N. Smith (CC0), cividis by J. Nuñez et al., turbo by
    A. Mikhailov (Apache-2.0); jet is that of MATLAB and OpenCV, whose two ends are equally dark: it is never a
    default.
    """
    raw = json.loads(files("seewhy").joinpath("rendering/colors.json").read_text("ascii"))
    return {name: np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(256, 3) for name, digits in raw.items()}


def table(name: str) -> NDArray[np.uint8]:
    """Return the color table `name`, (256, 3) uint8. Raises UnknownName if it does not exist.

    >>> table("gray")[[0, 128, 255], 0].tolist()
    [0, 128, 255]
    """
    if name not in tables():
        raise UnknownName("color table", name, tables(), hint=f"Choose one of {', '.join(tables())}.")
    return tables()[name]
