"""Notes about layers and methods that have no map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from seewhy.engine.map_collector import NETWORK
from seewhy.tracing.trace import LayerCall


def independent_notes(calls: Sequence[LayerCall]) -> list[str]:
    """Return notes about the layers that no gradient reached."""
    notes = []
    for obstacle, group in groupby(sorted(calls, key=lambda call: call.obstacle), key=lambda call: call.obstacle):
        names = ", ".join(call.name for call in group)
        reason = f"without a gradient, because {obstacle}" if obstacle else "skipped because no target depends on them"
        notes.append(f"layers {reason}: {names}")
    return notes


def unsupported_notes(unsupported: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return one note per method that was skipped at some layers, with the reason at the last of them."""
    notes = []
    for name, reasons in unsupported.items():
        layer, reason = list(reasons.items())[-1]
        where = f" at {len(reasons)} layers" if len(reasons) > 1 else f" at {layer}" if layer != NETWORK else ""
        notes.append(f"{name} is skipped{where}: {reason}")
    return notes
