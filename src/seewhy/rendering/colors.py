"""Colour tables, shared by the pictures and the page: 256 RGB triples each, from low to high."""

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
    """All colour tables by name, each (256, 3) uint8.

    viridis, inferno, magma and plasma are by S. van der Walt and N. Smith (CC0), cividis by J. Nuñez et al., turbo by
    A. Mikhailov (Apache-2.0); jet is the old MATLAB table, whose two ends are equally dark: by name only.
    """
    raw = json.loads(files("seewhy").joinpath("rendering/colors.json").read_text("ascii"))
    return {name: np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(256, 3) for name, digits in raw.items()}


def table(name: str) -> NDArray[np.uint8]:
    """The colour table `name`, (256, 3) uint8; UnknownName where there is none.

    >>> table("gray")[[0, 128, 255], 0].tolist()
    [0, 128, 255]
    """
    if name not in tables():
        raise UnknownName("colour table", name, tables(), hint=f"There are {', '.join(tables())}.")
    return tables()[name]
