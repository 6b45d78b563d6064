"""The methods' cards, read from their classes: what `seewhy methods` prints, and docs/methods.md."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.methods.base import AnyMethod, MethodCard, MultiMapMethod, NetworkMethod
from seewhy.methods.catalog import METHODS, MethodEntry, find_method
from seewhy.methods.parsing import class_of
from seewhy.signals.layer import Need

GROUPS = {
    "gradient": "Gradients and activations of one layer",
    "activation": "Activations of one layer",
    "masking": "Masking the picture with a layer's channels",
    "ablation": "Changing a layer's activations",
    "pixels": "Changing the picture",
    "network": "The whole network",
    "transformer": "Transformers",
    "wrappers": "Made of another method",
    "variants": "Another method, seen through changed inputs",
    "scales": "Several sizes of the picture",
}
WORDS = {
    Need.GRADIENTS: "gradients",
    Need.CURVATURE: "second derivatives",
    Need.HEAD: "the linear head",
    Need.EVALUATOR: "forwards of its own",
}


@dataclass(frozen=True)
class Card:
    """All that is known of a method: its entry, its card, the first lines of its docstring, its settings and needs."""

    entry: MethodEntry
    about: MethodCard
    doc: str
    settings: tuple[str, ...]
    needs: tuple[str, ...]
    answers: str

    def to_dict(self) -> dict[str, Any]:
        """The card for JSON."""
        return {
            "name": self.entry.name, "class": self.entry.cls, "aliases": list(self.entry.aliases),
            **dataclasses.asdict(self.about), "doc": self.doc, "settings": list(self.settings),
            "needs": list(self.needs), "answers": self.answers,
        }  # fmt: skip


def cards(name: str | None = None) -> list[Card]:
    """The cards of all methods, or of one by its name. Raises UnknownName.

    >>> cards("gradcam")[0].about.formula
    'Σₖ mean(Gₖ) Aₖ'
    """
    return [card(entry) for entry in (METHODS if name is None else [find_method(name)])]


def card(entry: MethodEntry) -> Card:
    cls = class_of(entry)
    made: AnyMethod = cls()
    settings = tuple(f"{item.name}={shown(getattr(made, item.name))}" for item in dataclasses.fields(cls))
    needs = tuple(word for need, word in WORDS.items() if need in made.needs)
    answers = (
        "several maps of each layer" if isinstance(made, MultiMapMethod)
        else "one map of the whole network" if isinstance(made, NetworkMethod)
        else "one map of each layer"
    )  # fmt: skip
    return Card(entry, made.about, inspect.getdoc(cls) or "", settings, needs or ("activations only",), answers)


def shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def markdown(found: Sequence[Card]) -> str:
    """The cards as the generated part of docs/methods.md."""
    lines = []
    for module, heading in GROUPS.items():
        some = [one for one in found if one.entry.module.endswith(f".{module}")]
        lines += [f"## {heading}", "", "| name | formula | paper | cost |", "|---|---|---|---|"]
        lines += [
            f"| [`{c.entry.name}`](#{anchor(c)}) | {cell(c.about.formula)} | {c.about.paper} | {c.about.cost} |"
            for c in some
        ]
        lines.append("")
        for one in some:
            lines += [f"### {one.entry.cls}", "", f"`{one.entry.name}`{settings_text(one)}: {first(one.doc)}", ""]
            lines += [f"* *What to expect*: {one.about.expect}"]
            lines += [f"* *Paper*: {' '.join(one.doc.split())[len(first(one.doc)) :].split('>>>')[0].strip()}"]
            lines += [f"* *Needs*: {', '.join(one.needs)}. *Cost*: {one.about.cost}. *Gives*: {one.answers}."]
            lines += [f"* *Works on*: {one.about.works_on}."]
            lines += [f"* *What decided*: {one.about.source}"] if one.about.source else []
            lines += [f"* *Pitfalls*: {one.about.pitfalls}"] if one.about.pitfalls else []
            lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def anchor(one: Card) -> str:
    return one.entry.cls.lower()


def first(doc: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(doc.split("\n\n")[0].split())


def settings_text(one: Card) -> str:
    return f" with `{', '.join(one.settings)}`" if one.settings else ""
