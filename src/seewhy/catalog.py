"""Names, aliases and one-liners of the methods. Imports no torch, so that listing them is instant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from seewhy.errors import UnknownName


@dataclass(frozen=True)
class MethodEntry:
    """A method's line in the catalog: where its class is, its paper, formula, and what to expect of it."""

    name: str
    module: str
    cls: str
    paper: str
    formula: str
    about: str
    aliases: tuple[str, ...] = ()


GRADIENT = "seewhy.methods.gradient"
METHODS = (
    MethodEntry(
        "gradcam", GRADIENT, "GradCAM", "Selvaraju et al., ICCV 2017", "Σₖ mean(Gₖ) Aₖ",
        "The classic: smooth, class-specific; averages a channel's gradient, which blurs in early layers.",
    ),
    MethodEntry(
        "hirescam", GRADIENT, "HiResCAM", "Draelos & Carin, 2020", "Σₖ Gₖ ⊙ Aₖ",
        "Shows exactly what the layer used, cell by cell; equal to Grad-CAM before pooling and a linear head.",
    ),
    MethodEntry(
        "layercam", GRADIENT, "LayerCAM", "Jiang et al., TIP 2021", "Σₖ relu(Gₖ) ⊙ Aₖ",
        "Fine detail in early layers; counts only cells whose gradient is positive.", ("layer",),
    ),
    MethodEntry(
        "gradcam++", GRADIENT, "GradCAMPlusPlus", "Chattopadhay et al., WACV 2018", "Σₖ (Σ relu(g)/(2+g·Sₖ)) Aₖ",
        "Covers several objects of the class; depends on the scale of the logits.",
        ("gradcamplusplus", "gradcampp"),
    ),
    MethodEntry(
        "xgradcam", GRADIENT, "XGradCAM", "Fu et al., BMVC 2020", "Σₖ (Σ(Gₖ⊙Aₖ)/Sₖ) Aₖ",
        "Keeps the score's total; explodes where a channel's activations nearly cancel (bare convolutions).",
    ),
    MethodEntry(
        "gradcamelementwise", GRADIENT, "GradCAMElementwise", "package grad-cam", "Σₖ relu(Gₖ ⊙ Aₖ)",
        "Only positive contributions; equal to LayerCAM after a ReLU.", ("elementwise",),
    ),
)  # fmt: skip


def find_method(name: str) -> MethodEntry:
    """The catalog entry called `name`, in any letter case, with or without "-", "_" and spaces.

    >>> find_method("Grad-CAM++").cls
    'GradCAMPlusPlus'
    """
    wanted = re.sub(r"[-_\s]", "", name).casefold()
    for entry in METHODS:
        if wanted in (entry.name, entry.cls.casefold(), *entry.aliases):
            return entry
    raise UnknownName("method", name, [entry.name for entry in METHODS], hint="List them: seewhy methods")
