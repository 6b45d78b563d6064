"""Which rows of a network's batch axis are parts of which input, and where in the input: observed with gradients.

`find_parts` runs one forward pass, and follows each row of a convolution's input back to the model's input. It runs only for
models that have more rows than inputs in some convolution, once per model and input shape.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge, saved_tensors_hooks

from seewhy.places.parts import Parts, PartsOfModel
from seewhy.tensors.nested import first_tensor
from seewhy.tracing.followed_tensor import FollowedTensor, ancestors, follows_convolution
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.part_rows import SeenRows
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.token_cache import CallKey
from seewhy.tracing.torch_private import CONVOLUTION
from seewhy.tracing.twin import make_twin, named_modules
from seewhy.tracing.twin_hooks import call_after_modules, call_before_modules

SELECTING = ("IndexBackward", "IndexSelect", "Gather", "MaskedSelect", "IndexPut")  # beginnings of names of graph nodes

_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, PartsOfModel]] = weakref.WeakKeyDictionary()


def known_parts(model: nn.Module, inputs: Tensor) -> PartsOfModel | None:
    """Return what `find_parts` found earlier; None if it has not run for this model and shape."""
    return _cache.get(model_of(model), {}).get(cache_key(model, inputs))


def cache_key(model: nn.Module, inputs: Tensor) -> Hashable:
    # The order of rows shows with at least two inputs only.
    return min(len(inputs), 2), input_key(model, inputs)


def find_parts(model: nn.Module, inputs: Tensor) -> PartsOfModel:
    """Return the parts of a model, without those whose places could not be observed."""
    cached = _cache.setdefault(model_of(model), {})
    key = cache_key(model, inputs)
    if key not in cached or cached[key].depends_on_values:
        has_other_inputs = isinstance(model, SingleInputModel) and bool(model.per_image_arguments())
        needs_all = has_other_inputs or key in cached
        found = Observer(model, inputs if needs_all else inputs[:2]).run()
        is_partial = found.depends_on_values and not needs_all and len(inputs) > 2
        cached[key] = Observer(model, inputs).run() if is_partial else found
    return cached[key]


def parts_note(model: nn.Module, inputs: Tensor) -> str:
    """Return what `find_parts` found to note, or ""."""
    parts = known_parts(model, inputs)
    return "" if parts is None else parts.note


class Observer:
    """One forward pass, in which the inputs of all convolutions are followed to the model's input."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.twin, self.images = make_twin(model), len(inputs)
        self.leaf = inputs.detach().clone().requires_grad_()
        self.names = {module: name for name, module in named_modules(self.twin)}
        self.batches: dict[int, list[SeenRows]] = {}  # inputs with several rows per input, by their number
        self.looped: dict[nn.Module, list[SeenRows]] = {}  # of fewer axes than the input, before any of all axes
        self.again: dict[nn.Module, list[SeenRows]] = {}  # of all axes of the input
        self.has_all_axes = False
        self.counts: Counter[str] = Counter()
        self.outputs: dict[CallKey, tuple[GradientEdge, torch.Size]] = {}

    def run(self) -> PartsOfModel:
        """Return the parts whose places could be observed."""
        call_before_modules(self.twin, self.enter_convolution, CONVOLUTION)
        call_after_modules(self.twin, self.leave_module)
        try:
            with saved_tensors_hooks(
                torch.clone, lambda saved: saved
            ):  # in-place operations may overwrite saved values
                self.twin(self.leaf.clone())
            by_count = {count: follow_all(rows, count) for count, rows in self.batches.items()}
            by_call, stem = self.follow_calls()
            calls = self.calls_of(stem) if by_call else {}
            note = "" if by_call else self.note_on_repeated_calls()
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the model rejects the input, which the recorded pass reports, or has no gradient there
            return PartsOfModel()
        return PartsOfModel(
            {count: parts for count, parts in by_count.items() if parts is not None},
            by_call,
            calls,
            note,
            depends_on_values=(bool(by_call) or any(by_count.values())) and self.selects_parts(),
        )

    def selects_parts(self) -> bool:
        """Return True if the network selects what it sees by indices, as a network that skips padded frames."""
        first = [seen[0] for seen in (*self.batches.values(), *self.looped.values(), *self.again.values())]
        names = {node.name() for rows in first for node in ancestors(rows.edge.node)}
        return any(name.startswith(SELECTING) for name in names)

    def enter_convolution(self, module: nn.Module, args: object, kwargs: object) -> None:
        rows = first_tensor((args, kwargs))
        if rows is None or rows.dim() < 3 or not rows.requires_grad:
            return
        count, rest = divmod(len(rows), self.images)
        if rest:
            return
        seen, has_all_axes = SeenRows(get_gradient_edge(rows), rows.shape, self.leaf), rows.dim() == self.leaf.dim()
        self.has_all_axes |= count == 1 and has_all_axes
        if count > 1:
            self.batches.setdefault(count, []).append(seen)
        elif count == 1 and has_all_axes:
            self.again.setdefault(module, []).append(seen)
        elif count == 1 and not self.has_all_axes and rows.dim() < self.leaf.dim():
            self.looped.setdefault(module, []).append(seen)

    def leave_module(self, module: nn.Module, args: object, output: object) -> None:
        name, tensor = self.names[module], first_tensor(output)
        self.counts[name] += 1
        if tensor is not None and tensor.requires_grad and tensor.dim() and len(tensor) == self.images:
            self.outputs[name, self.counts[name]] = get_gradient_edge(tensor), tensor.shape

    def follow_calls(self) -> tuple[tuple[Parts, ...], str]:
        """Return the parts that the first convolution in a loop sees, call by call, and its name; empty if it sees none."""
        for module, seen in self.looped.items():
            calls = [rows.follow(1) for rows in seen]
            others = (rows for other in self.looped.values() for rows in zip(other, calls, strict=False))
            if any(parts is not None and rows.contradicts(parts, 1) for rows, parts in others):
                break  # another module has other parts in its calls
            return distinct(calls), self.names[module]
        for module, seen in self.again.items():
            if views := distinct(views_of(seen)):
                return views, self.names[module]
        return (), ""

    def calls_of(self, stem: str) -> dict[CallKey, int]:
        """Return which part each module call belongs to: that of the only call of `stem` that its output depends on."""
        stems = [own for (name, _), own in self.outputs.items() if name == stem]
        edges = [edge for edge, _ in stems]
        before = [self.used_by(edge, shape, edges) - {number} for number, (edge, shape) in enumerate(stems)]
        found = {}
        for key, (edge, shape) in self.outputs.items():
            used = self.used_by(edge, shape, edges)
            used -= set().union(*(before[number] for number in used))  # one part may be computed from another
            if len(used) == 1:
                found[key] = used.pop()
        return found

    def used_by(self, edge: GradientEdge, shape: Sequence[int], edges: Sequence[GradientEdge]) -> set[int]:
        """Return the numbers of the edges that a tensor depends on."""
        direction = torch.ones(tuple(shape)).to(self.leaf)
        gradients = torch.autograd.grad([edge], list(edges), [direction], retain_graph=True, allow_unused=True)
        return {number for number, gradient in enumerate(gradients) if gradient is not None}

    def note_on_repeated_calls(self) -> str:
        """Return a note if calls of a convolution see different regions of the input."""
        for module, seen in self.again.items():
            direct = [one for one in seen if not follows_convolution(one.edge.node)] if len(seen) > 1 else []
            regions = {FollowedTensor(one.edge, one.shape, self.leaf).region() for one in direct}
            if len(regions - {None}) > 1:
                return (
                    f"the calls of '{self.names[module]}' see different regions of the input: heatmaps assume that they see "
                    "the entire input"
                )
        return ""


def distinct(calls: Sequence[Parts | None]) -> tuple[Parts, ...]:
    """Return the parts of calls; () if one has no place, or two have the same."""
    parts = tuple(own for own in calls if own is not None)
    return parts if len(set(parts)) == len(calls) else ()


def views_of(seen: list[SeenRows]) -> list[Parts | None]:
    """Return what the calls of a convolution see, if they are tiles, crops or mirrored copies of the input; else []."""
    if len(seen) < 2 or any(rows.from_corners() is None for rows in seen):
        return []
    views = [rows.follow(1) for rows in seen]
    entire = tuple((0, length) for length in seen[0].input_size)
    is_plain = all(view is None or (view.places[0].box == entire and not view.places[0].mirrored) for view in views)
    return [] if is_plain else list(views)


def follow_all(seen: list[SeenRows], count: int) -> Parts | None:
    """Return the parts that the rows of the first convolution are; None if those of a later one are other parts."""
    parts = seen[0].follow(count)
    return None if parts is None or any(rows.contradicts(parts, count) for rows in seen[1:]) else parts
