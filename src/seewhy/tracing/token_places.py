"""Which token of a layer belongs to which cell of the input, observed by changing cells of the input.

Nothing in a tensor (B, N, K) shows that its tokens are the patches of the image row by row: they can be in another order,
have a class token in the middle, or come from text. `place_tokens` changes one cell of the input at a time and compares which
token changes most. A shift by one token is visible: class tokens are found before, after and between the patches.

The result is cached for the model and the input's shape, and the recorder reads the grids from there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.tracing.corner_probes import CornerProbes
from seewhy.tracing.grid import TOKEN_LAYOUTS, Grid, GridHint
from seewhy.tracing.model_properties import input_key
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import SingleInputModel, for_image
from seewhy.tracing.token_cache import CallKey, Placement, placements_of
from seewhy.tracing.token_probes import Probes, key_of
from seewhy.tracing.trace import LayerCall, RecordingRequest


def needs_placing(call: LayerCall, hint: GridHint | None) -> bool:
    """Return True for a grid that was inferred from a number of tokens or cells, not given by the user.

    Cells with channels last can have swapped axes, as in axial attention, and so can those that were permuted afterwards.
    """
    grid = call.grid
    is_inferred = grid is not None and (grid.layout != "channels_first" or not grid.is_confirmed or call.is_permuted)
    return is_inferred and not (grid and hint and grid.source == hint.source)


def place_tokens(
    model: nn.Module, inputs: Tensor, calls: Iterable[LayerCall], hint: GridHint | None = None
) -> dict[CallKey, Placement]:
    """Return the placement of the tokens of calls.

    Runs about nine forward passes, on the first image, for all calls that are not cached.

    Args:
        model: The model.
        inputs: Its inputs (B, C, *size).
        calls: Recorded calls with a token grid.
        hint: The `grid` setting of the user.
    """
    cached = placements_of(model, inputs)
    new = {key_of(call): call.grid for call in calls if call.grid is not None and key_of(call) not in cached}
    placed = place_all(model, inputs, new, hint)
    unclear = [key for key, placement in placed.items() if placement.grid is None or not placement.is_known]
    others = {key: other for key in unclear if (other := new[key].other_reading) is not None}
    for key, placement in place_all(model, inputs, others, hint).items():
        if placement.grid is not None and placement.is_known:
            placed[key] = placement
        elif others[key].shape == new[key].shape:  # without a clear answer, channels come first
            placed[key] = Placement(new[key], is_known=False)
        else:
            placed[key] = Placement(None, is_known=True)
    cached.update(placed)
    return {key_of(call): cached[key_of(call)] for call in calls if key_of(call) in cached}


def place_all(
    model: nn.Module, inputs: Tensor, grids: Mapping[CallKey, Grid], hint: GridHint | None
) -> dict[CallKey, Placement]:
    """Return the placement of each call, for its grid."""
    by_kind: dict[Hashable, dict[CallKey, Grid]] = {}
    for key, grid in grids.items():
        kind = grid.layout in TOKEN_LAYOUTS, grid.is_confirmed, grid.parts, grid.region, grid.shape
        by_kind.setdefault(kind, {})[key] = grid
    placed = {}
    for same in by_kind.values():
        first = next(iter(same.values()))
        make = CornerProbes if first.is_confirmed and first.layout not in TOKEN_LAYOUTS else Probes
        probes = make(for_image(model, 0), inputs[:1].detach(), same, hint)
        placed.update({key: probes.place(key) for key in same})
    return placed


def check_batch_axis(model: nn.Module, inputs: Tensor, calls: Iterable[LayerCall]) -> None:
    """Raise LayerError for a layer (N, B, K) with as many tokens N as images B: its axes look like those of (B, N, K)."""
    images = len(inputs)
    unclear = {key_of(call): call for call in calls if images > 1 and call.output.shape[:2] == (images, images)}
    unclear = {key: call for key, call in unclear.items() if call.output.dim() == 3}
    if not unclear:
        return
    names = frozenset(module for module, _ in unclear)
    with record_forward(for_image(model, 0), inputs[:1], RecordingRequest(names)) as trace:
        alone = {key_of(call): call.grid for call in trace.calls}
    for key, call in unclear.items():
        grid = alone.get(key)
        if grid is not None and call.grid is not None and grid.layout != call.grid.layout:
            raise LayerError(
                call.name,
                f"its output {tuple(call.output.shape)} has as many tokens as there are images, with the tokens first, so its "
                "axes look like each other: pass another number of images.",
            )


class TokensPlaced(Exception):
    """Tokens were recorded with another grid than the one that was observed since."""


def check_tokens(model: nn.Module, inputs: Tensor, calls: Iterable[LayerCall], hint: GridHint | None) -> None:
    """Observe the places of tokens, unless they are known.

    Raises:
        TokensPlaced: A call was recorded with another grid.
        LayerError: Tokens have other places in other images of the batch, as with texts of other lengths.
    """
    calls = list(calls)
    check_batch_axis(model, inputs, calls)
    tokens = [call for call in calls if needs_placing(call, hint)]
    # Another thread may have observed them since they were recorded.
    placements = place_tokens(model, inputs, tokens, hint)
    for call in tokens:
        assert call.grid is not None
        placement = placements[key_of(call)].like(call.grid)
        if placement.grid != call.grid or placement.is_known == call.has_unknown_order:
            raise TokensPlaced
    first = input_key(for_image(model, 0), inputs)
    for image in range(1, len(inputs) if isinstance(model, SingleInputModel) else 0):
        own = for_image(model, image)
        if input_key(own, inputs) == first:
            continue
        others = place_tokens(own, inputs[image : image + 1], tokens, hint)
        for call in tokens:
            if others[key_of(call)] != placements[key_of(call)]:
                raise LayerError(
                    call.name,
                    f"its tokens of image {image} have other places than those of image 0, because of the other arguments: "
                    "explain the images one at a time.",
                )
