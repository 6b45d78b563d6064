"""Which region of its input a network sees, observed at its first convolutions.

Networks crop, pad, resize, mirror or transpose their input in front of the first convolution. A position of what it sees then
is a linear function of the position in the input, axis by axis: two gradients per axis show it.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge, saved_tensors_hooks

from seewhy.places.region import Region, Seen
from seewhy.random_state import preserve_rng
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.part_places import find_parts
from seewhy.tracing.recorder import call_before_convolutions
from seewhy.tracing.single_input import for_image
from seewhy.tracing.torch_private import CONVOLUTION
from seewhy.tracing.twin import make_twin, named_modules

QUARTERS = (1 / 4, 3 / 4)  # of an axis, where gradients are computed
SIXTEENTHS = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 15 / 16)  # the same if padding is there
SMALL = 0.05  # of the largest gradient: smaller ones come from statistics of the image
SPREAD = 3  # positions of the input per step, of which a resized value is a mean
LOCAL = 0.5  # of an axis: a value that depends on more of it has no place
EXACT = 0.01  # difference from a scale of 1 of networks that do not resize
ROUNDING = 0.55  # steps of a resized axis that its ends may be off, depending on the kind of interpolation


_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, Seen]] = weakref.WeakKeyDictionary()


def seen_region(model: nn.Module, inputs: Tensor) -> Seen:
    """Return what a model sees of inputs (B, C, *size).

    The first call for a model and shape runs the model up to its first convolution; entirely if that does not see exactly the
    input, or if other convolutions may see it.
    """
    cached = _cache.setdefault(model_of(model), {})
    key = input_key(model, inputs)
    if key not in cached:
        with torch.inference_mode(False), torch.enable_grad(), preserve_rng(inputs.device):
            cached[key] = observe(for_image(model, 0), inputs[:1])
    return cached[key]


class _Reached(Exception):
    """Ends a forward pass at the first convolution."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What a convolution sees: a tensor (1, C, *size), with the graph from the model's input `leaf`."""

    name: str
    edge: GradientEdge
    shape: torch.Size
    leaf: Tensor

    def region(self) -> Region | None:
        """Return the region of the input; None if positions are not a linear function of those in the input."""
        size, rank = self.leaf.shape[2:], self.leaf.dim() - 2
        spans: dict[int, tuple[int, float, float]] = {}  # by axis of the input: own axis, first position and end
        for axis, length in enumerate(self.shape[2:]):
            found = self.span(axis) if length > 1 else None
            if length > 1 and (found is None or found[0] in spans):
                return None
            if found is not None:
                spans[found[0]] = axis, *found[1:]
        single = iter(axis for axis, length in enumerate(self.shape[2:]) if length < 2)
        for axis in range(rank):  # an axis of length 1 shows all of the axis that is left
            if axis not in spans:
                spans[axis] = next(single), 0.0, float(size[axis])
        order = tuple(sorted(range(rank), key=lambda axis: spans[axis][0]))
        mirrored = tuple(axis for axis in range(rank) if spans[axis][1] > spans[axis][2])
        box = []
        for axis in range(rank):
            own, *ends = spans[axis]
            box.append(rounded(min(ends), max(ends), self.shape[2 + own], size[axis]))
        return Region(tuple(box), order, mirrored)

    def is_connected(self) -> bool:
        """Return True if any gradient reaches the input."""
        return bool(self.pull_back(torch.ones(self.shape)).any())

    def span(self, axis: int) -> tuple[int, float, float] | None:
        """Return which axis of the input an own axis is, and the positions of its first and last edge there."""
        length = self.shape[2 + axis]
        for fractions in (QUARTERS, SIXTEENTHS):
            seen = {at: self.profiles(axis, at) for at in sorted({int(fraction * length) for fraction in fractions})}
            seen = {at: profiles for at, profiles in seen.items() if all(profile.any() for profile in profiles)}
            if len(seen) > 1:
                break
        else:
            return None
        first, last = min(seen), max(seen)
        moved = [center(after) - center(before) for before, after in zip(seen[first], seen[last], strict=True)]
        own = max(range(len(moved)), key=lambda other: abs(moved[other]))
        step = moved[own] / (last - first)
        widths = [int(profiles[own].nonzero()[-1] - profiles[own].nonzero()[0]) + 1 for profiles in seen.values()]
        if not step or max(widths) > max(SPREAD * max(1.0, abs(step)) + 1, LOCAL * self.leaf.shape[2 + own]):
            return None
        start = center(seen[first][own]) - step * (first + 0.5)
        return own, start, start + step * length

    def profiles(self, axis: int, at: int) -> list[Tensor]:
        """Return along each axis of the input how much one position of an own axis depends on it."""
        direction = torch.zeros(self.shape)
        direction[:, 0].select(axis + 1, at).fill_(1)
        gradient = self.pull_back(direction).double().abs()
        sums = [gradient.transpose(0, 2 + axis).flatten(1).sum(1) for axis in range(self.leaf.dim() - 2)]
        return [without_background(profile) for profile in sums]

    def pull_back(self, direction: Tensor) -> Tensor:
        """Return the gradient of a sum of values with respect to the input."""
        (gradient,) = torch.autograd.grad(
            [self.edge], [self.leaf], [direction.to(self.leaf)], retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(self.leaf) if gradient is None else gradient


def without_background(profile: Tensor) -> Tensor:
    """Return a profile without what every position adds: a network may subtract the mean of the image."""
    above = profile - profile.sort()[0][len(profile) // 4]
    above = torch.where(above > SMALL * profile.max(), above, 0.0)
    return above if above.any() else profile


def center(profile: Tensor) -> float:
    positions = torch.arange(len(profile)).to(profile) + 0.5
    return float((profile * positions).sum() / profile.sum())


def rounded(start: float, stop: float, steps: int, length: int) -> tuple[int, int]:
    """Return the first position of a span and the one after the last; those of the entire axis if it is nearly all of it.

    >>> rounded(0.4, 31.6, 224, 32), rounded(3.9, 228.1, 224, 232), rounded(-0.5, 223.5, 112, 224)
    ((0, 32), (4, 228), (0, 224))
    """
    scale = (stop - start) / steps
    if abs(scale - 1) < EXACT:
        return round(start), round(start) + steps
    margin = max(0.75, ROUNDING * scale)
    return (0 if abs(start) <= margin else round(start)), (length if abs(stop - length) <= margin else round(stop))


def observe(model: nn.Module, inputs: Tensor) -> Seen:
    twin = make_twin(model)
    leaf = inputs.detach().clone().requires_grad_()
    passed = leaf.clone()
    names: dict[nn.Module, str] = {
        module: name for name, module in named_modules(twin) if isinstance(module, CONVOLUTION)
    }
    sights: list[Sight] = []

    def hook(module: nn.Module, args: tuple[object, ...]) -> None:
        seen = args[0] if args else None
        if not isinstance(seen, Tensor) or not seen.requires_grad:
            return
        if not sights:
            is_comparable = len(seen) == 1 and seen.dim() == leaf.dim()
            is_input = is_comparable and seen.data_ptr() == passed.data_ptr() and seen.stride() == passed.stride()
            others = [other for other in names if other is not module and channels_of(other) == seen.shape[1]]
            if not is_comparable or (is_input and seen.shape == passed.shape and not others):
                raise _Reached
        elif seen.shape[:2] != sights[0].shape[:2] or seen.dim() != leaf.dim() or follows_convolution(seen):
            return
        sights.append(Sight(names[module], get_gradient_edge(seen), seen.shape, leaf))

    call_before_convolutions(twin, hook)
    try:
        with saved_tensors_hooks(torch.clone, lambda saved: saved):  # in-place operations may overwrite saved values
            twin(passed)
        regions = [sight.region() for sight in sights]
    except Exception:  # the end, or the model rejects the input, which the recorded pass reports
        return Seen()
    if not sights:
        return Seen()
    name, region = sights[0].name, regions[0]
    if region is None and not sights[0].is_connected():
        return Seen()
    if region is None:
        note = f"what '{name}' sees is not a rectangle of the input: heat is drawn as if it saw all of the input"
        return Seen(note=note)
    if other := next((sight for sight, own in zip(sights, regions, strict=True) if own != region), None):
        if find_parts(model, inputs).by_call:
            return Seen()  # each call has its own place
        where = f"'{name}' and '{other.name}'" if other.name != name else f"the calls of '{name}'"
        return Seen(note=f"{where} see different regions of the input, but heat is drawn as if they saw all of it")
    if region == Region(tuple((0, length) for length in leaf.shape[2:]), tuple(range(leaf.dim() - 2))):
        return Seen()
    return Seen(region, tuple(sights[0].shape[2:]))


def channels_of(module: nn.Module) -> int:
    assert isinstance(module, CONVOLUTION)
    return module.in_channels


def follows_convolution(tensor: Tensor) -> bool:
    """Return True if a convolution lies between the model's input and a tensor."""
    return any("Convolution" in node.name() for node in ancestors(tensor.grad_fn))


def ancestors(start: Node | None) -> Iterator[Node]:
    """Return the nodes of the graph that a tensor was computed with."""
    waiting, known = [start], set[Node]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in known:
            known.add(node)
            yield node
            waiting += [before for before, _ in node.next_functions]
