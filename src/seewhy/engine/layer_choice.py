"""Which layers of a model are recorded: those that the user selected, and the suggested one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from seewhy.engine.options import Options
from seewhy.engine.suggestion import Suggestion, suggest
from seewhy.errors import LayerError
from seewhy.methods.base import AnyMethod, NetworkMethod
from seewhy.targets import Target
from seewhy.targets.names import Labels
from seewhy.tracing.grid import GridHint
from seewhy.tracing.layer_selection import LayerSelection
from seewhy.tracing.layer_specs import LayerSpec, OneLayer, parse_layers
from seewhy.tracing.read_points import at_read_point

SUGGESTED, BRANCHES = "suggested", "branches"  # the suggested layer; the same and those of all parallel branches


@dataclass(frozen=True)
class LayerChoice:
    """The layers of one call.

    Attributes:
        selected: The layers that the user selected.
        recorded: The same, and the suggested layer if it is added.
        suggestion: The suggested layer; None if it is not needed, or if the model has none.
        notes: Why there is no suggestion, or what is uncertain about it.
    """

    selected: LayerSelection
    recorded: LayerSelection
    suggestion: Suggestion | None = None
    notes: tuple[str, ...] = ()


def choose_layers(
    options: Options,
    methods: Mapping[str, AnyMethod],
    module: nn.Module,
    inputs: Tensor,
    grid: GridHint | None,
    targets: Sequence[Target] = (),
    labels: Labels = None,
) -> LayerChoice:
    """Resolve the layers of `options` against the model. The suggested layer depends on `targets`.

    Raises:
        UnknownName: A layer name matches nothing.
        LayerError: The suggested layer was selected and there is none.
    """
    is_suggested, others = split_suggested(options.layers)
    if not any(reads_layers(method) for method in methods.values()):
        if others:
            parse_layers(others, module)  # a misspelled name is an error even if no method reads it
        return LayerChoice(LayerSelection(()), LayerSelection(()))
    suggestion: Suggestion | None = None
    notes: tuple[str, ...] = ()
    if is_suggested or options.include_suggested:
        suggestion, notes = find_suggestion(
            partial(suggest, module, inputs, grid, targets=targets, labels=labels), is_required=is_suggested
        )
    selected = parse_layers(others, module) if others or not is_suggested else LayerSelection(())
    if suggestion and is_suggested:
        # Added by its exact name: as a specification, a module called "stages" would mean a group.
        selected = selected.with_layer(suggestion.layer)
        for branch in suggestion.branches if selects_branches(options.layers) else ():
            selected = selected.with_layer(branch)
    selected = at_read_point(selected, options.read_at, module)
    recorded = selected if suggestion is None else selected.with_layer(suggestion.layer)
    return LayerChoice(selected, recorded, suggestion, notes)


def reads_layers(method: AnyMethod) -> bool:
    """Return False for a network method that reads no layer."""
    return not isinstance(method, NetworkMethod) or method.base_method is not None or method.keeps_layers


def split_suggested(layers: LayerSpec) -> tuple[bool, list[OneLayer]]:
    """Return whether a specification selects the suggested layer, as None does, and its other entries."""
    entries = entries_of(layers)
    others = [
        entry
        for entry in entries
        if entry is not None and not (isinstance(entry, str) and entry in (SUGGESTED, BRANCHES))
    ]
    return len(others) < len(entries), others


def selects_branches(layers: LayerSpec) -> bool:
    return any(isinstance(entry, str) and entry == BRANCHES for entry in entries_of(layers))


def entries_of(layers: LayerSpec) -> Sequence[OneLayer | None]:
    return layers if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]


def find_suggestion(find: Callable[[], Suggestion], *, is_required: bool) -> tuple[Suggestion | None, tuple[str, ...]]:
    """Return the suggested layer and notes about it. Only if it `is_required`, having none is an error."""
    try:
        suggestion = find()
    except LayerError as error:
        if is_required:
            raise
        return None, (f"no layer is suggested: {error.reason}",)
    return suggestion, (suggestion.note,) if suggestion.note else ()
