"""Draws the sheets of docs/methods.md: all methods that fit the network in the package, at the layer it suggests.

.venv/bin/python docs/make_sheets.py PICTURE TARGET OUT [crop|squash]

The slowest methods take fewer samples than by default, as their captions say; it still takes minutes.
"""

from __future__ import annotations

import dataclasses
import sys

import seewhy
from seewhy.methods.base import NetworkMethod
from seewhy.methods.catalog import METHODS
from seewhy.methods.parsing import as_methods

LAYER = "bn2"
STAGES = ["blocks.1.1.conv_pwl", "blocks.2.1.conv_pwl", "blocks.4.2.conv_pwl", LAYER]  # for methods that join layers
JOINING = ("refinecam", "layercamfusion", "polycam")
FEWER = {"sscam": "sscam(samples=2)", "iscam": "iscam(steps=2)", "rise": "rise(masks=1000)", "sess": "sess(scales=6)"}


def sheet(picture: str, target: str, out: str, fit: str) -> None:
    """Explain, join the two explanations, and draw."""
    model = seewhy.load_model()
    names = [FEWER.get(entry.name, entry.name) for entry in METHODS if entry.name not in JOINING]
    fitting = [name for name in names if fits(model, name)]
    said = lambda done, total: print(f"\r{done} of about {total}", end="", file=sys.stderr)  # noqa: E731
    joined = seewhy.explain(model, picture, methods=list(JOINING), layers=STAGES, targets=target, fit=fit)
    e = seewhy.explain(model, picture, methods=fitting, layers=LAYER, targets=target, fit=fit, progress=said)
    e = dataclasses.replace(
        e, maps={**e.maps, **joined.maps}, layer_info={**e.layer_info, "network": joined.layer_info["network"]}
    )  # fmt: skip
    e.comparison(LAYER, side=190).save(out, quality=82)


def fits(model: seewhy.LoadedModel, name: str) -> bool:
    """Whether a method has a map here: those for transformers have none."""
    (method,) = as_methods(name).values()
    if not isinstance(method, NetworkMethod) or not method.card.works_on.startswith("transformers"):
        return True
    try:
        seewhy.explain(model, seewhy.sample("coffee"), methods=name, layers=LAYER)
    except seewhy.errors.MethodError:
        return False
    return True


if __name__ == "__main__":
    sheet(*sys.argv[1:4], fit=sys.argv[4] if len(sys.argv) > 4 else "crop")
