"""Captions of figures: which model, methods, targets, layers and scale the panels show, as text or for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from seewhy.errors import UsageError
from seewhy.explanation.components import NETWORK
from seewhy.explanation.flags import FLAGS
from seewhy.explanation.panel_maps import PanelMap
from seewhy.methods.parsing import as_methods
from seewhy.tracing.grid import format_grid

MAX_LISTED = 4  # targets or layers that a caption lists by name
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "×": r"$\times$",
}  # fmt: skip


def describe_panels(panels: Sequence[PanelMap], maximum: float | None, *, latex: bool = False) -> str:
    """Return the caption of the panels of a figure.

    Args:
        panels: All panels.
        maximum: The value that gets the last color; None if each map has its own.
        latex: Escape the text for LaTeX. Formulas are omitted then: they contain characters that pdflatex does not know.
    """
    sentences = [
        f"Class activation maps of {join(describe_model(one) for one in panels)}.",
        f"{plural('Method', {method_of(one) for one in panels})}: {list_methods(panels, formula=not latex)}.",
        f"{plural('Target', {describe_target(one) for one in panels})}: {join(describe_target(one) for one in panels)}.",
        f"{plural('Layer', {one.key[2] for one in panels})}: {join(describe_layer(one) for one in panels)}.",
        f"{describe_scale(panels, maximum)}.",
        *describe_slices(panels),
        *describe_marks(panels),
    ]
    text = " ".join(sentences)
    return escape_latex(text) if latex else text


def join(texts: Iterable[str], separator: str = ", ") -> str:
    """Join different texts; of more than MAX_LISTED, the first ones, the last one and their number.

    >>> join(["a", "b", "a"]), join("abcdefg")
    ('a, b', 'a, b, c, ..., g (7)')
    """
    unique = list(dict.fromkeys(texts))
    if len(unique) > MAX_LISTED:
        unique = [*unique[: MAX_LISTED - 1], "...", f"{unique[-1]} ({len(unique)})"]
    return separator.join(unique)


def plural(word: str, values: set[str]) -> str:
    return word if len(values) == 1 else f"{word}s"


def describe_model(panel: PanelMap) -> str:
    """Return the model's name and the name of its class."""
    name, kind = panel.e.provenance.get("model"), str(panel.e.provenance.get("class", "")).rpartition(".")[2]
    if not name or str(name).rpartition(".")[2] == kind:  # a module without another name
        return kind or "a model without a name"
    return f"{name} ({kind})" if kind else str(name)


def method_of(panel: PanelMap) -> str:
    """Return the method of a map, without the number of one of its several maps."""
    return panel.key[0].partition("#")[0]


def list_methods(panels: Sequence[PanelMap], *, formula: bool) -> str:
    """Return all methods: in contrast to targets and layers, none is omitted."""
    return "; ".join(describe_method(name, formula=formula) for name in dict.fromkeys(map(method_of, panels)))


def describe_method(name: str, *, formula: bool) -> str:
    """Return a method's name, formula and paper; the name alone for a method that is not in the catalog.

    >>> describe_method("gradcam", formula=False)
    'gradcam (Selvaraju et al., Grad-CAM, ICCV 2017)'
    """
    try:
        (method,) = as_methods(name).values()
    except (UsageError, ValueError):
        return name
    card = method.card
    shown = f", {card.formula}" if formula and card.formula else ""
    return f"{name}{shown}" + (f" ({card.paper})" if card.paper else "")


def describe_target(panel: PanelMap) -> str:
    """Return the name of a target, and its class index if it is a class."""
    result = panel.e.target_results[panel.e.targets.index(panel.key[1])]
    number = None if result.classes is None else f"class {int(result.classes[0])}"
    return result.name if number in (None, result.name) else f"{result.name} ({number})"


def describe_layer(panel: PanelMap) -> str:
    """Return where a map was read: the output of a layer, with its class and grid."""
    name, info = panel.key[2], panel.e.layer_info[panel.key[2]]
    grid = format_grid(panel.e.maps[panel.key].shape[1:]).replace("x", "×")
    return f"the entire model ({grid})" if name == NETWORK else f"output of {name} ({info.kind}, {grid})"


def describe_scale(panels: Sequence[PanelMap], maximum: float | None) -> str:
    """Return what the colors mean, with the range in the units of the method."""
    signed, scale = panels[0].settings.signed, panels[0].settings.scale
    values = "signed values, zero at the center" if signed else "positive values"
    top = "largest absolute value" if signed else "maximum"
    if maximum is None:
        text = f"Colors: {values}, each map divided by its {top} ({describe_peaks(panels)})"
    else:
        low = f"−{maximum:.3g}" if signed else "0"
        which = "the panels" if len(panels) > 1 else "all targets of this image"
        source = f", the {top} over {which}" if isinstance(scale, str) else ""
        units = join(one.key[0] for one in panels)
        text = f"Colors: {values} on one scale from {low} to {maximum:.3g}{source}, in the units of {units}"
    nearest = panels[0].settings.interpolation == "nearest"
    return f"{text}; {'one color per cell' if nearest else 'interpolated linearly between cells'}"


def describe_slices(panels: Sequence[PanelMap]) -> list[str]:
    """Return a sentence that states which slices of volumes are drawn; none for images and signals."""
    drawn = [f"{one.depth} of {one.e.size[0]}" for one in panels if len(one.e.size) == 3]
    return [f"{plural('Slice', set(drawn))} along the first axis, from 0: {join(drawn)}."] if drawn else []


def describe_peaks(panels: Sequence[PanelMap]) -> str:
    """Return the range of the maxima of each method: "0.53 to 0.726 in the units of gradcam"."""
    peaks: dict[str, list[float]] = {}
    for one in panels:
        peaks.setdefault(one.key[0], []).append(one.peak)
    texts = []
    for method, values in peaks.items():
        low, high = f"{min(values):.3g}", f"{max(values):.3g}"
        texts.append(f"{low if low == high else f'{low} to {high}'} in the units of {method}")
    return "; ".join(texts)


def describe_marks(panels: Sequence[PanelMap]) -> list[str]:
    """Return a sentence for each kind of blank panel, with its maps."""
    by_flag: dict[str, list[str]] = {}
    for one in panels:
        if one.mark:
            flag = next(flag for flag in FLAGS if flag in one.flags)
            by_flag.setdefault(flag, []).append(f"{one.key[0]}, {describe_target(one)}, {one.key[2]}")
    return [f"Blank ({FLAGS[flag].partition(':')[0]}): {join(names, '; ')}." for flag, names in by_flag.items()]


def escape_latex(text: str) -> str:
    """Return a text with the special characters of LaTeX escaped.

    >>> escape_latex("blocks_3 & 50%, 7×7")
    'blocks\\\\_3 \\\\& 50\\\\%, 7$\\\\times$7'
    """
    text = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"−", r"$-$", text)
