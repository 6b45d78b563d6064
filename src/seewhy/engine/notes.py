"""Notes about layers and methods that have no map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from torch import Tensor

from seewhy.errors import LayerError, SeewhyError
from seewhy.explanation.components import NETWORK
from seewhy.targets import ResolvedTarget
from seewhy.tracing.layer_selection import LIST_LAYERS
from seewhy.tracing.trace import LayerCall

MAX_BLANK = 3  # targets for which another layer is looked up


def independent_notes(calls: Sequence[LayerCall]) -> list[str]:
    """Return notes about the layers that no gradient reached."""
    notes: list[str] = []
    for obstacle, group in groupby(sorted(calls, key=lambda call: call.obstacle), key=lambda call: call.obstacle):
        names = ", ".join(call.name for call in group)
        reason = f"without a gradient, because {obstacle}" if obstacle else "skipped because no target depends on them"
        notes.append(f"layers {reason}: {names}")
    return notes


def without_others(calls: Sequence[LayerCall], others: Sequence[LayerCall]) -> list[LayerCall]:
    """Return calls without those that do not depend on the explained input. Raises LayerError if there are no others."""
    if others and len(others) == len(calls):
        raise LayerError(
            others[0].name,
            "it does not depend on the explained input; choose another input with main=..., or another layer.",
        )
    return [call for call in calls if call not in others]


def other_input_notes(others: Sequence[LayerCall]) -> list[str]:
    """Return a note about the layers that do not depend on the explained input."""
    names = ", ".join(call.name for call in others)
    return [f"layers skipped because they do not depend on the explained input: {names}"] if others else []


def unsupported_notes(unsupported: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return one note per method that was skipped at some layers, with the reason at the last of them."""
    notes: list[str] = []
    for name, reasons in unsupported.items():
        layer, reason = list(reasons.items())[-1]
        where = f" at {len(reasons)} layers" if len(reasons) > 1 else f" at {layer}" if layer != NETWORK else ""
        notes.append(f"{name} is skipped{where}: {reason.replace(LIST_LAYERS, '').rstrip()}")
    return notes


def blank_notes(
    has_gradient: Mapping[tuple[str, str], Tensor],
    targets: Sequence[ResolvedTarget],
    suggest_for: Callable[[int, ResolvedTarget], str],
) -> list[str]:
    """Return notes about maps that are blank because the score does not depend on the layer.

    Args:
        has_gradient: For blank maps, by target and layer: whether any gradient reached the layer, per image `(B,)`.
        targets: The targets.
        suggest_for: Returns the suggested layer for one image and target; it may raise a SeewhyError.
    """
    notes: list[str] = []
    names = {target.key: target for target in targets}
    for (key, layer), reached in has_gradient.items():
        images = (~reached).nonzero().flatten().tolist()
        if not images or key not in names:
            continue
        where = f" for image {', '.join(map(str, images))}" if len(reached) > 1 else ""
        note = f"the map of '{layer}' is blank{where}: the score of {names[key].name} does not depend on this layer"
        if len(notes) < MAX_BLANK:
            try:
                other = suggest_for(images[0], names[key])
            except SeewhyError:
                other = layer
            note += "" if other == layer else f"; use layers='{other}'"
        notes.append(note)
    return notes
