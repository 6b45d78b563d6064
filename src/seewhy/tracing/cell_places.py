"""Where the cells of a convolution's grid lie in the input, if that is not evenly over all of it.

A heatmap stretches the grid over the entire input. Convolutions without padding, and features that are cropped between layers,
give grids whose cells lie closer together: those of a U-Net without padding cover the center of the image. Gradients of two
strips of cells per axis show where they are.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Hashable, Iterable, Sequence

from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.tracing.followed_tensor import FollowedTensor, center
from seewhy.tracing.grid import TOKEN_LAYOUTS
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import for_image
from seewhy.tracing.token_cache import CallKey
from seewhy.tracing.trace import LayerCall, RecordingRequest

MAX_LAYERS = 3  # the last ones that are selected; each costs four backward passes
MIN_CELLS = 6  # per axis; with fewer, a cell is larger than any shift that could be observed
MAX_STRIDE = 64
FAR = 0.05  # of an axis; and more than one cell, and a position for the error of the gradients

Span = tuple[int, int]
_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, tuple[Span, ...] | None]] = weakref.WeakKeyDictionary()


def cell_notes(model: nn.Module, inputs: Tensor, calls: Iterable[LayerCall]) -> list[str]:
    """Return a note about the layers whose cells lie in another place than a heatmap shows.

    Runs one forward and a few backward passes for new layers, once per model and input shape, and only where the lengths of the
    grid are not those of an input that is divided into equal cells.
    """
    cached, key = _cache.setdefault(model_of(model), {}), input_key(model, inputs)
    unusual = {(call.module, call.number): call for call in calls if is_unusual(call, inputs.shape[2:])}
    names = dict(list(unusual.items())[-MAX_LAYERS:])
    if new := [own for own in names if (key, own) not in cached]:
        cached.update({(key, own): span for own, span in observe(for_image(model, 0), inputs[:1], new).items()})
    notes = []
    for own, call in names.items():
        if spans := cached.get((key, own)):
            where = ", ".join(
                f"positions {low} to {high} of {length} on axis {axis + 1}"
                for axis, ((low, high), length) in enumerate(zip(spans, inputs.shape[2:], strict=True))
            )
            notes.append(
                f"the cells of '{call.name}' lie at about {where}: heatmaps stretch them over the entire input"
            )
    return notes


def is_unusual(call: LayerCall, size: Sequence[int]) -> bool:
    """Return True for a grid over the entire input whose lengths are no fraction or multiple of the input's."""
    grid = call.grid
    if grid is None or grid.layout in TOKEN_LAYOUTS or grid.parts or grid.region or len(grid.shape) != len(size):
        return False
    if min(grid.shape) < MIN_CELLS:
        return False
    return not all(map(is_evenly_divided, grid.shape, size))


@functools.cache
def is_evenly_divided(cells: int, length: int) -> bool:
    """Return True if a number of cells is a multiple of the length of an axis, or a fraction of it."""
    return not cells % length or any(-(-length // stride) == cells for stride in range(1, MAX_STRIDE + 1))


def observe(model: nn.Module, inputs: Tensor, keys: Sequence[CallKey]) -> dict[CallKey, tuple[Span, ...] | None]:
    """Return where the cells of layers lie on each axis of the input; None if that is near where a heatmap shows them."""
    found: dict[CallKey, tuple[Span, ...] | None] = dict.fromkeys(keys)
    request = RecordingRequest(frozenset(module for module, _ in keys))
    try:
        with record_forward(model, inputs, request, from_input=True, exact=False) as trace:
            for call in trace.calls:
                key = call.module, call.number
                if key in found and call.edge is not None and call.grid is not None:
                    found[key] = spans_of(call, trace.inputs)
    except SeewhyError:  # which the recorded pass reports
        pass
    return found


def spans_of(call: LayerCall, leaf: Tensor) -> tuple[Span, ...] | None:
    """Return the first and last position of a layer's cells on each axis; None if they are evenly spread over the input."""
    assert call.edge is not None and call.grid is not None
    shape = call.output.shape if call.grid.layout == "channels_first" else call.output.movedim(-1, 1).shape
    if call.grid.layout != "channels_first" or call.grid.unit_axes:
        return None
    followed = FollowedTensor(call.edge, shape, leaf)
    spans, is_far = list[Span](), False
    for axis, (cells, length) in enumerate(zip(call.grid.shape, leaf.shape[2:], strict=True)):
        places = cells // 3, cells - 1 - cells // 3
        profiles = [followed.profiles(axis, at)[axis] for at in places]
        if any(profile[0] > 0 or profile[-1] > 0 or not profile.any() for profile in profiles):
            return None  # cells that see up to the border of the input have no clear center
        low, high = (center(profile) for profile in profiles)
        stride = (high - low) / (places[1] - places[0])
        start = low - stride * (places[0] + 0.5)
        stop = start + stride * cells
        is_far |= max(abs(start), abs(stop - length)) > max(abs(stride) + 1, FAR * length)
        spans.append((round(start), round(stop)))
    return tuple(spans) if is_far else None
