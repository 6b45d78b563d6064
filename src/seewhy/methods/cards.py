"""Method references from catalog, card and docstring: what `seewhy methods` prints, and docs/methods.md."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.methods.base import AnyMethod, MethodCard, MultiMapMethod, NetworkMethod
from seewhy.methods.catalog import FILES, METHODS, MethodEntry, file_of, find_method
from seewhy.methods.parsing import load_class
from seewhy.signals.layer import Need

NEED_NAMES = {
    Need.GRADIENTS: "gradients",
    Need.CURVATURE: "second derivatives",
    Need.HEAD: "the linear head",
    Need.EVALUATOR: "extra forward passes",
}
SECTION = re.compile(r"^(Args|Example|References):\n", re.MULTILINE)


@dataclass(frozen=True)
class MethodReference:
    """Everything known about one method: catalog entry, card, docstring, settings with defaults, needs and results."""

    entry: MethodEntry
    card: MethodCard
    doc: str
    settings: tuple[str, ...]
    needs: tuple[str, ...]
    returns: str

    def to_dict(self) -> dict[str, Any]:
        """Return the reference for JSON."""
        return {
            "name": self.entry.name, "class": self.entry.cls, "aliases": list(self.entry.aliases),
            **dataclasses.asdict(self.card), "doc": self.doc, "settings": list(self.settings),
            "needs": list(self.needs), "returns": self.returns,
        }  # fmt: skip

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return on_one_line(self.doc.partition("\n\n")[0])

    @property
    def description(self) -> str:
        """The docstring between the summary and its first section, one paragraph per line."""
        text = SECTION.split(self.doc)[0].partition("\n\n")[2]
        return "\n\n".join(on_one_line(paragraph) for paragraph in text.split("\n\n") if paragraph.strip())

    def section(self, title: str) -> list[str]:
        """Return the entries of a docstring section, each on one line."""
        parts = SECTION.split(self.doc)
        if title not in parts:
            return []
        body = textwrap.dedent(parts[parts.index(title) + 1]).strip()
        return [on_one_line(entry) for entry in re.split(r"\n(?=\S)", body)]


def cards(name: str | None = None) -> list[MethodReference]:
    """Return the references of all methods, or of one by its name. Raises UnknownName.

    >>> cards("gradcam")[0].card.formula
    'Σₖ mean(Gₖ) Aₖ'
    """
    return [reference(entry) for entry in (METHODS if name is None else [find_method(name)])]


def reference(entry: MethodEntry) -> MethodReference:
    cls = load_class(entry)
    method: AnyMethod = cls()
    settings = tuple(f"{item.name}={format_value(getattr(method, item.name))}" for item in dataclasses.fields(cls))
    needs = tuple(name for need, name in NEED_NAMES.items() if need in method.needs)
    returns = (
        "several maps per layer" if isinstance(method, MultiMapMethod)
        else "one map of the full model" if isinstance(method, NetworkMethod)
        else "one map per layer"
    )  # fmt: skip
    return MethodReference(
        entry, cls.card, inspect.getdoc(cls) or "", settings, needs or ("activations only",), returns
    )


def markdown(references: Sequence[MethodReference]) -> str:
    """Return the generated part of docs/methods.md."""
    lines = []
    for file in FILES:
        members = [item for item in references if file_of(item.entry) is file]
        lines += [f"## {file.heading}", "", "| name | formula | paper | cost |", "|---|---|---|---|"]
        lines += [
            f"| [`{item.entry.name}`](#{item.entry.cls.lower()}) | {escape_cell(item.card.formula)} | {item.card.paper} | "
            f"{item.card.cost} |"
            for item in members
        ]
        lines.append("")
        for item in members:
            lines += [f"### {item.entry.cls}", "", f"`{item.entry.name}`: {item.summary}", ""]
            lines += [item.description, ""] if item.description else []
            lines += bullets(item)
            lines.append("")
    return "\n".join(lines)


def bullets(item: MethodReference) -> list[str]:
    """Return settings, card and references of a method as a Markdown list."""
    card, defaults = item.card, dict(setting.split("=", 1) for setting in item.settings)
    lines = [f"* *Expect*: {card.expect}"]
    for argument in item.section("Args"):
        name, _, meaning = argument.partition(": ")
        lines.append(f"* `{name}={defaults[name]}`: {meaning}")
    lines.append(f"* *Needs*: {', '.join(item.needs)}. *Cost*: {card.cost}. *Returns*: {item.returns}.")
    lines.append(f"* *Works on*: {card.works_on}.")
    lines += [f"* *Source*: {card.source}"] if card.source else []
    lines += [f"* *Pitfalls*: {card.pitfalls}"] if card.pitfalls else []
    lines += [f"* *Reference*: {entry}" for entry in item.section("References")]
    return lines


def format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def escape_cell(text: str) -> str:
    return text.replace("|", "\\|")


def on_one_line(text: str) -> str:
    return " ".join(text.split())
