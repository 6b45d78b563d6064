"""The pictures that come with the package (CC0)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from seewhy.errors import UnknownName

SAMPLES = ("cat_espresso", "coffee", "chelsea")


def sample(name: str) -> Path:
    """The path of a picture that comes with the package: "cat_espresso" (two classes), "coffee" or "chelsea" (a cat).

    >>> sample("coffee").name
    'coffee.png'
    """
    if name not in SAMPLES:
        raise UnknownName("sample", name, SAMPLES, hint=f"There are {', '.join(SAMPLES)}.")
    return Path(str(files("seewhy"))) / "images" / "data" / f"{name}.png"
