"""Draw the contact sheet of docs/methods.md: all methods that support the embedded network, at its suggested layer.

    .venv/bin/python docs/make_sheets.py IMAGE TARGET OUT [crop|squash]

The slowest methods use fewer samples than by default; their captions show the settings. It takes several minutes.
"""

from __future__ import annotations

import dataclasses
import sys

import seewhy
from seewhy.methods.base import NetworkMethod
from seewhy.methods.catalog import METHODS
from seewhy.methods.parsing import as_methods

LAYER = "bn2"
STAGES = ["blocks.1.1.conv_pwl", "blocks.2.1.conv_pwl", "blocks.4.2.conv_pwl", LAYER]  # for methods that combine layers
JOINING = ("refinecam", "layercamfusion", "polycam")
FEWER = {"sscam": "sscam(samples=2)", "iscam": "iscam(steps=2)", "rise": "rise(masks=1000)", "sess": "sess(scales=6)"}


def sheet(image: str, target: str, out: str, fit: str) -> None:
    """Explain with both groups of methods, merge the results, and draw."""
    model = seewhy.load_model()
    names = [FEWER.get(entry.name, entry.name) for entry in METHODS if entry.name not in JOINING]
    supported = [name for name in names if is_supported(model, name)]
    progress = lambda done, total: print(f"\r{done} of about {total}", end="", file=sys.stderr)  # noqa: E731
    joined = seewhy.explain(model, image, methods=list(JOINING), layers=STAGES, targets=target, fit=fit)
    e = seewhy.explain(model, image, methods=supported, layers=LAYER, targets=target, fit=fit, progress=progress)
    e = dataclasses.replace(
        e, maps={**e.maps, **joined.maps}, layer_info={**e.layer_info, "network": joined.layer_info["network"]}
    )  # fmt: skip
    e.comparison(LAYER, side=190).save(out, quality=82)


def is_supported(model: seewhy.LoadedModel, name: str) -> bool:
    """Return False for methods that raise an error for this network: those for transformers."""
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
