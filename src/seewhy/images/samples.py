"""Sample images that come with the package (CC0)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from seewhy.errors import UnknownName

SAMPLES = ("cat_espresso", "coffee", "chelsea")


def sample(name: str) -> Path:
    """Return the path of a sample image.

    Args:
        name: "cat_espresso" (a cat and a cup, two classes), "coffee" or "chelsea" (a cat).

    Returns:
        The path of a PNG file.

    Raises:
        UnknownName: No sample has this name.

    Example:
        >>> sample("coffee").name
        'coffee.png'
    """
    if name not in SAMPLES:
        raise UnknownName("sample", name, SAMPLES, hint=f"There are {', '.join(SAMPLES)}.")
    return Path(str(files("seewhy"))) / "images" / "data" / f"{name}.png"
