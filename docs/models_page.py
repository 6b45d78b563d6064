"""The text of docs/models.md, from the results of make_models.py."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from models_tried import (
    CHANNELS,
    CLASSES,
    GRADIENT,
    IN_FULL,
    JOINING,
    MASKS,
    NAMES,
    OTHERS,
    REFERENCE,
    VARIANTS,
)

HERE = Path(__file__).parent


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the text of docs/models.md."""
    rows, failures = [], []
    reasons: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    remarks: dict[str, list[str]] = defaultdict(list)
    for name in NAMES:
        result = results.get(name)
        if result is None:
            continue
        if "error" in result:
            failures.append((name, "all", result["error"]))
            rows.append(f"| {name} | none | | | | | | |")
            continue
        tried = result["reasons"] | {f"{method} in full": why for method, (why, _) in result.get("full", {}).items()}
        for method, why in tried.items():
            if why.startswith("failed: "):
                failures.append((name, method, why.removeprefix("failed: ")))
            elif why and not why.startswith("not tried"):
                reasons[plain(method)][general(why)].append(name)
        for remark in result["remarks"]:
            remarks[general(remark)].append(name)
        difference = result["difference"]
        failures += [(name, "reference", text) for text in difference["skipped"]]
        if difference["worst"] > REFERENCE:
            failures.append((name, "reference", f"Grad-CAM differs by {difference['worst']:.1e}"))
        shown = f"{difference['worst']:.0e}" if difference["layers"] else "not compared"
        gradient, passes = (
            count_supported(tried, f"{GRADIENT} {VARIANTS}"),
            count_supported(tried, f"{MASKS} {CHANNELS}"),
        )
        rows.append(
            f"| {name} | `{result['layer']}` | {result['grid']} | {result['prefix'] or ''} | {result['seconds']:.1f} "
            f"| {gradient} | {passes} | {shown} |"
        )
    return (HERE / "models.in.md").read_text("utf-8").format(
        count=len(rows), rows="\n".join(rows), gradient=len(f"{GRADIENT} {VARIANTS}".split()),
        masks=len(f"{MASKS} {CHANNELS}".split()),
        reasons="\n".join(reason_lines(reasons)), remarks="\n".join(remark_lines(remarks)),
        failures="\n".join(f"| {name} | {method} | {why.replace('|', '/')} |" for name, method, why in failures)
        or "| none | | |",
        full=full_table(results), classes=CLASSES, torch=torch.__version__.partition("+")[0],
        torchvision=torchvision.__version__.partition("+")[0], timm=timm.__version__, worst=worst_of(results),
    )  # fmt: skip


def plain(method: str) -> str:
    return re.sub(r"\(.*?\)", "", method).removesuffix(" in full")


def general(text: str) -> str:
    """Return a reason without details that differ between networks."""
    text = re.sub(r" \(its attention is in windows\)", "", text)
    text = re.sub(r"this model has ((?!no |none).*?)\. Use", "this model has other activations. Use", text)
    text = re.sub(r"of size \d+x\d+ \(.*\)", "of another size", text)
    text = re.sub(r"holds the attention in '.*?'", "holds its attention", text)
    return " ".join(re.sub(r"`.*?` was", "the head was", text).split())


def count_supported(reasons: dict[str, str], methods: str) -> str:
    tried = [reasons[name] for name in methods.split() if not reasons.get(name, "not tried").startswith("not tried")]
    return f"{sum(not why for why in tried)} of {len(tried)}"


def reason_lines(reasons: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    everything = f"{GRADIENT} {VARIANTS} {OTHERS} {JOINING} {MASKS} {CHANNELS} {IN_FULL}"
    order = [plain(method) for method in everything.split()]
    for method in dict.fromkeys(order):
        for why, names in sorted(reasons.get(method, {}).items(), key=lambda item: -len(set(item[1]))):
            yield f"| {method} | {why.replace('|', '/')} | {networks(names)} |"


def remark_lines(remarks: dict[str, list[str]]) -> Iterator[str]:
    for remark, names in remarks.items():
        yield f"* {remark[0].upper()}{remark[1:]}: {', '.join(dict.fromkeys(names))}."


def networks(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} networks"


def full_table(results: dict[str, dict[str, Any]]) -> str:
    names = [name for name in NAMES if "full" in results.get(name, {})]
    lines = [f"| method | {' | '.join(name.partition('/')[2] for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for method in IN_FULL.split():
        cells = []
        for name in names:
            why, seconds = results[name]["full"][method]
            cells.append(f"{seconds:.1f} s" if not why else "failed" if why.startswith("failed") else "no")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst_of(results: dict[str, dict[str, Any]]) -> str:
    values = [result["difference"]["worst"] for result in results.values() if "difference" in result]
    return f"{max(values, default=0):.0e}"
