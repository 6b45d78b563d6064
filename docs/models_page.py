"""docs/models.md from what make_models.py found."""

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
    """docs/models.md."""
    rows, failures = [], []
    reasons: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    remarks: dict[str, list[str]] = defaultdict(list)
    for name in NAMES:
        found = results.get(name)
        if found is None:
            continue
        if "error" in found:
            failures.append((name, "all", found["error"]))
            rows.append(f"| {name} | none | | | | | | |")
            continue
        fits = found["fits"] | {f"{method} in full": why for method, (why, _) in found.get("full", {}).items()}
        for method, why in fits.items():
            if why.startswith("failed: "):
                failures.append((name, method, why.removeprefix("failed: ")))
            elif why and not why.startswith("not tried"):
                reasons[plain(method)][general(why)].append(name)
        for said in found["said"]:
            remarks[general(said)].append(name)
        difference = found["difference"]
        failures += [(name, "reference", text) for text in difference["skipped"]]
        if difference["worst"] > REFERENCE:
            failures.append((name, "reference", f"Grad-CAM differs by {difference['worst']:.1e}"))
        shown = f"{difference['worst']:.0e}" if difference["layers"] else "not compared"
        rows.append(
            f"| {name} | `{found['layer']}` | {found['grid']} | {found['prefix'] or ''} | {found['seconds']:.1f} "
            f"| {share(fits, f'{GRADIENT} {VARIANTS}')} | {share(fits, f'{MASKS} {CHANNELS}')} | {shown} |"
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
    """A reason without what differs from network to network."""
    text = re.sub(r" \(its attention is in windows\)", "", text)
    text = re.sub(r"this network has ((?!no |none).*?); take", "this network has others; take", text)
    text = re.sub(r"of size \d+x\d+ \(.*\)", "of another size", text)
    text = re.sub(r"holds the attention in '.*?'", "holds its attention", text)
    return " ".join(re.sub(r"`.*?` was", "the head was", text).split())


def share(fits: dict[str, str], methods: str) -> str:
    tried = [fits[method] for method in methods.split() if not fits.get(method, "not tried").startswith("not tried")]
    return f"{sum(not why for why in tried)} of {len(tried)}"


def reason_lines(reasons: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    everything = f"{GRADIENT} {VARIANTS} {OTHERS} {JOINING} {MASKS} {CHANNELS} {IN_FULL}"
    order = [plain(method) for method in everything.split()]
    for method in dict.fromkeys(order):
        for why, names in sorted(reasons.get(method, {}).items(), key=lambda item: -len(set(item[1]))):
            yield f"| {method} | {why.replace('|', '/')} | {networks(names)} |"


def remark_lines(remarks: dict[str, list[str]]) -> Iterator[str]:
    for said, names in remarks.items():
        yield f"* {said[0].upper()}{said[1:]}: {', '.join(dict.fromkeys(names))}."


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
    values = [found["difference"]["worst"] for found in results.values() if "difference" in found]
    return f"{max(values, default=0):.0e}"
