"""Which rows of a network's batch axis are parts of which input, and where in the input: observed with gradients.

`find_parts` runs one forward pass, and follows the corners of each row of a convolution's input back to the model's input. It
runs only for models that have more rows than inputs in some convolution, once per model and input shape.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from seewhy.parts import Part, Parts
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.recorder import call_before_convolutions
from seewhy.tracing.twin import make_twin

MAX_FOLLOWED = 256  # rows that are followed one by one

Seen = tuple[GradientEdge, torch.Size]
_cache: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], Mapping[int, Parts]]] = weakref.WeakKeyDictionary()


def known_parts(model: nn.Module, inputs: Tensor) -> Mapping[int, Parts] | None:
    """Return what `find_parts` found earlier; None if it has not run for this model and shape."""
    return _cache.get(model_of(model), {}).get(cache_key(inputs))


def cache_key(inputs: Tensor) -> tuple[int, ...]:
    # The order of rows shows with at least two inputs only.
    return min(len(inputs), 2), *inputs.shape[1:]


def find_parts(model: nn.Module, inputs: Tensor) -> Mapping[int, Parts]:
    """Return the parts by their number per input; without those whose places could not be observed."""
    cached = _cache.setdefault(model_of(model), {})
    key = cache_key(inputs)
    if key not in cached:
        cached[key] = observe(model, inputs[:2] if not has_row_arguments(model) else inputs)
    return cached[key]


def has_row_arguments(model: nn.Module) -> bool:
    return bool(getattr(model, "args", ()) or getattr(model, "kwargs", ()))


def observe(model: nn.Module, inputs: Tensor) -> dict[int, Parts]:
    """Observe the parts at the first convolution that has them."""
    twin, images = make_twin(model), len(inputs)
    seen: dict[int, Seen] = {}

    def hook(module: nn.Module, args: tuple[object, ...]) -> None:
        rows = args[0] if args else None
        if not isinstance(rows, Tensor) or rows.dim() < 3 or not rows.requires_grad:
            return
        count, rest = divmod(len(rows), images)
        if count > 1 and not rest and count not in seen:
            seen[count] = get_gradient_edge(rows), rows.shape

    call_before_convolutions(twin, hook)
    leaf = inputs.detach().clone().requires_grad_()
    try:
        twin(leaf.clone())
        found = {count: follow(*where, leaf, count) for count, where in seen.items()}
    except Exception:  # the model rejects the input, which the recorded pass reports, or has no gradient there
        return {}
    return {count: parts for count, parts in found.items() if parts is not None}


def follow(edge: GradientEdge, shape: torch.Size, leaf: Tensor, count: int) -> Parts | None:
    """Return the parts that rows of `shape` (B * count, C, *size) are; None if they are no boxes of the input."""
    size = tuple(shape[2:])
    first = sources(edge, shape, leaf, tuple(0 for _ in size))
    last = sources(edge, shape, leaf, tuple(length - 1 for length in size))
    if first is None or last is None:
        return None
    images, order = len(leaf), torch.arange(shape[0])
    is_image_major = torch.equal(first[:, 0], order // count)
    if not is_image_major and not torch.equal(first[:, 0], order % images):
        return None
    axes = []
    for axis, length in enumerate(size):
        if length == 1:
            return None
        moved = sources(edge, shape, leaf, tuple((length - 1) * (own == axis) for own in range(len(size))))
        changed = None if moved is None else (moved[:, 1:] != first[:, 1:])
        if changed is None or (changed != changed[0]).any() or changed[0].sum() != 1:
            return None
        axes.append(int(changed[0].nonzero()))
    if axes != sorted(set(axes)):
        return None
    rows = torch.stack([first[:, 1:], last[:, 1:]], 1)  # (rows, 2, axes of the input)
    rows = Parts((Part(()),) * count, (), (), is_image_major).image_major(rows)
    rows = rows.reshape(images, count, 2, -1)
    if (rows != rows[0]).any():  # other places for other images, such as random crops
        return None
    places = [place_between(start.tolist(), stop.tolist()) for start, stop in rows[0]]
    lengths = [tuple(stop - start for start, stop in part.box) for part in places]
    expected = tuple(size[axes.index(axis)] if axis in axes else 1 for axis in range(leaf.dim() - 2))
    return Parts(tuple(places), tuple(axes), size, is_image_major, all(own == expected for own in lengths))


def place_between(first: list[int], last: list[int]) -> Part:
    """Return the part between two corners.

    >>> place_between([0, 7], [3, 4])
    Part(box=((0, 4), (4, 8)), mirrored=(1,))
    """
    box = tuple((min(pair), max(pair) + 1) for pair in zip(first, last, strict=True))
    return Part(box, tuple(axis for axis, (a, b) in enumerate(zip(first, last, strict=True)) if a > b))


def sources(edge: GradientEdge, shape: torch.Size, leaf: Tensor, place: tuple[int, ...]) -> Tensor | None:
    """Return for each row which image and position (rows, 1 + axes) its value at `place` comes from; None if it has none."""
    one = gradient_at(edge, shape, leaf, place, torch.ones(shape[0]))
    found = one.nonzero()
    if len(found) == shape[0]:  # each row is the copy of one value: two passes follow all rows
        numbered = gradient_at(edge, shape, leaf, place, torch.arange(1.0, shape[0] + 1))
        at = tuple(found.T)
        rows = (numbered[at] / one[at]).round().long().cpu() - 1
        if torch.equal(rows.sort().values, torch.arange(shape[0])):
            return found.cpu()[rows.argsort()][:, [0, *range(2, leaf.dim())]]
    if shape[0] > MAX_FOLLOWED:
        return None
    places = []
    for row in range(shape[0]):
        weights = torch.zeros(shape[0])
        weights[row] = 1
        influence = gradient_at(edge, shape, leaf, place, weights).abs().sum(1)
        if not influence.any():
            return None
        places.append(torch.stack(torch.unravel_index(influence.argmax(), influence.shape)))
    return torch.stack(places).cpu()


def gradient_at(edge: GradientEdge, shape: torch.Size, leaf: Tensor, place: tuple[int, ...], weights: Tensor) -> Tensor:
    """Return the gradient of the first channel at `place` of all rows, times `weights`, with respect to the input."""
    direction = leaf.new_zeros(shape)
    at: tuple[slice | int, ...] = (slice(None), 0, *place)
    direction[at] = weights.to(leaf)
    (gradient,) = torch.autograd.grad([edge], [leaf], [direction], retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient
