"""Which region of its input a network sees, observed at its first convolutions.

Networks crop, pad, resize, mirror or transpose their input in front of the first convolution. A position of what it sees then
is a linear function of the position in the input, axis by axis: a few gradients per axis show it.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge, saved_tensors_hooks

from seewhy.places.region import FieldOfView, Region
from seewhy.tensors import map_functions
from seewhy.tensors.nested import first_tensor
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.followed_tensor import FollowedTensor, follows_convolution
from seewhy.tracing.function_modes import KeepGradients
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.part_places import find_parts
from seewhy.tracing.single_input import for_image
from seewhy.tracing.torch_private import CONVOLUTION, version_of
from seewhy.tracing.twin import find_module, make_twin, named_modules
from seewhy.tracing.twin_hooks import call_after_modules, call_before_modules

NO_GRADIENT = "what the first convolution sees has no gradient: heatmaps assume that it is the entire input"
ALIKE = 0.5  # correlation of what a network sees with the region, after any normalization

_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, FieldOfView]] = weakref.WeakKeyDictionary()


def field_of_view(model: nn.Module, inputs: Tensor) -> FieldOfView:
    """Return what a model sees of inputs (B, C, *size).

    The first call for a model and shape runs the model up to its first convolution; entirely if that sees a region of the
    input, or if other convolutions may see it.
    """
    cached = _cache.setdefault(model_of(model), {})
    key = input_key(model, inputs)
    if key not in cached:
        # Parts of an image can be without a gradient, so random values come first.
        one = for_image(model, 0)
        observed = observe(one, random_like(inputs[:1])) or observe(one, inputs[:1])
        if observed is None:  # perhaps the next image shows it
            return FieldOfView()
        cached[key] = observed
    view = cached[key]
    others = images_unlike(model, inputs, view) if view.can_compare else []
    if not others:
        return view
    own = [observe(for_image(model, image), inputs[image : image + 1]) or FieldOfView() for image in others]
    if all(one.region == view.region for one in own):  # edges or a spectrum do not resemble the image
        cached[key] = replace(view, can_compare=False)
        return view
    if len(inputs) == 1:
        return own[0]
    return FieldOfView(
        note="the network sees another region of each image: heatmaps assume that it is the entire input"
    )


def observe(model: nn.Module, inputs: Tensor) -> FieldOfView | None:
    """Return what a model sees of one input; None if this input does not show it."""
    with torch.inference_mode(False), torch.enable_grad(), preserve_rng(inputs.device):
        return Observer(model, inputs).run()


def random_like(inputs: Tensor) -> Tensor:
    """Return random values in the range of inputs."""
    low, high = inputs.amin(), inputs.amax()
    values = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0)).to(inputs)
    return low + (high - low) * values if high > low else values


def images_unlike(model: nn.Module, inputs: Tensor, view: FieldOfView) -> list[int]:
    """Return the images in which the first convolution sees something unlike the region, perhaps another crop."""
    assert view.region is not None
    twin, seen = make_twin(model), list[Tensor]()
    stem = find_module(twin, view.stem)

    def hook(module: nn.Module, args: object, kwargs: object) -> None:
        tensor = first_tensor((args, kwargs))
        if tensor is not None and module is stem:
            seen.append(tensor)
            raise _Reached

    call_before_modules(twin, hook, CONVOLUTION)
    with torch.inference_mode(False), torch.no_grad(), preserve_rng(inputs.device):
        try:
            twin(inputs.detach().clone())
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the end, or the model rejects the input
            pass
        if not seen or len(seen[0]) != len(inputs):
            return []
        expected = map_functions.resize(view.region.cut(inputs).mean(1), view.size).flatten(1).double()
        values = seen[0].mean(1).flatten(1).double()
        both = [(one - one.mean(1, keepdim=True)) for one in (expected, values)]
        norms = both[0].norm(dim=1) * both[1].norm(dim=1)
        similarity = (both[0] * both[1]).sum(1).abs()
    return [image for image, is_unlike in enumerate((similarity < ALIKE * norms).tolist()) if is_unlike]


class _Reached(Exception):
    """Ends a forward pass."""


class Observer:
    """Observes the field of view of one model for an input (1, C, *size)."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model, self.twin = model, make_twin(model)
        self.leaf = inputs.detach().clone().requires_grad_()
        self.passed = self.leaf.clone()
        self.version = version_of(self.passed)
        self.names: dict[nn.Module, str] = {module: name for name, module in named_modules(self.twin)}
        self.seen: list[tuple[str, FollowedTensor]] = []  # what the first convolutions see
        self.before: dict[str, FollowedTensor] = {}  # outputs of modules before the convolutions
        self.is_input = self.is_blocked = False
        self.warped = ""
        self.first: nn.Module | None = None

    def run(self) -> FieldOfView | None:
        """Return the field of view; None if nothing could be observed with this input."""
        call_before_modules(self.twin, self.enter_convolution, CONVOLUTION)
        call_after_modules(self.twin, self.leave_module)
        try:
            # In-place operations may overwrite saved values.
            with saved_tensors_hooks(torch.clone, lambda saved: saved), KeepGradients():
                self.twin(self.passed)
        except _Reached:
            pass
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the model rejects the input, which the recorded pass reports
            return None
        return self.result()

    def enter_convolution(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        tensor = first_tensor((args, kwargs))
        if tensor is None or self.is_blocked:
            return
        is_comparable = len(tensor) == 1 and tensor.dim() == self.leaf.dim()
        if not self.seen:
            if not tensor.requires_grad:  # detached or rounded
                self.is_blocked = is_comparable and tensor.shape[2:] != self.leaf.shape[2:]
                return
            if not is_comparable:
                raise _Reached
        elif not is_comparable or not tensor.requires_grad:
            return
        elif follows_convolution(tensor.grad_fn):
            # A spatial transformer computes where to sample the input with convolutions.
            self.warped = self.names[module] if samples_input(tensor, self.leaf) else self.warped
            return
        followed = FollowedTensor(get_gradient_edge(tensor), tensor.shape, self.leaf)
        self.seen.append((self.names[module], followed))
        if len(self.seen) > 1:
            return
        self.first = module
        is_same = tensor.data_ptr() == self.passed.data_ptr() and tensor.stride() == self.passed.stride()
        is_unchanged = version_of(self.passed) == self.version  # the network may mirror its input in place
        self.is_input = is_same and tensor.shape == self.passed.shape and is_unchanged
        if (self.is_input or followed.is_entire()) and not self.can_other_see_input(module, tensor):
            raise _Reached

    def can_other_see_input(self, first: nn.Module, tensor: Tensor) -> bool:
        """Return True if another convolution takes as few channels as the input or the first convolution have."""
        most = max(self.leaf.shape[1], tensor.shape[1])
        others = (module for module in self.names if isinstance(module, CONVOLUTION) and module is not first)
        return any(module.in_channels <= most for module in others)

    def leave_module(self, module: nn.Module, args: object, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is None or tensor.dim() != self.leaf.dim() or len(tensor) != 1 or not tensor.requires_grad:
            return
        if not follows_convolution(tensor.grad_fn):
            self.before[self.names[module]] = FollowedTensor(get_gradient_edge(tensor), tensor.shape, self.leaf)

    def result(self) -> FieldOfView | None:
        if self.is_blocked:
            return FieldOfView(note=NO_GRADIENT)
        if not self.seen or (self.is_input and len(self.seen) == 1 and not self.warped):
            return FieldOfView()
        (name, first), size = self.seen[0], tuple(self.leaf.shape[2:])
        if not first.is_connected():
            return None if first.size == size else FieldOfView(note=NO_GRADIENT)
        regions = [followed.region() for _, followed in self.seen]
        region, name = regions[0], self.warped or name
        if region is None or self.warped:
            return FieldOfView(
                note=f"what '{name}' sees is not a rectangle of the input: heatmaps assume that it is the entire input"
            )
        if other := next((other for (other, _), own in zip(self.seen, regions, strict=True) if own != region), None):
            if find_parts(self.model, self.leaf).by_call:
                return FieldOfView()  # each call has its own place
            where = f"'{name}' and '{other}'" if other != name else f"the calls of '{name}'"
            return FieldOfView(
                note=f"{where} see different regions of the input: heatmaps assume that they see the entire input"
            )
        if region == Region.entire(size) or self.is_own_padding(region):
            return FieldOfView()
        return FieldOfView(
            region,
            first.size,
            region.describe(size),
            name,
            can_compare=True,
            before={key: view_of(own) for key, own in self.before.items()},
        )

    def is_own_padding(self, region: Region) -> bool:
        """Return True if a region is the entire input, padded by less than the kernel of the convolution that sees it."""
        assert isinstance(self.first, CONVOLUTION)
        is_turned = region.mirrored or region.order != tuple(range(len(region.box)))
        margins = region.margins(self.leaf.shape[2:])
        sides = [(side, length) for pair, length in zip(margins, self.first.kernel_size, strict=True) for side in pair]
        return not is_turned and all(-length < side <= 0 for side, length in sides)


def view_of(followed: FollowedTensor) -> FieldOfView:
    region = followed.region()
    is_entire = region == Region.entire(followed.leaf.shape[2:])
    return FieldOfView() if region is None or is_entire else FieldOfView(region, followed.size)


def samples_input(tensor: Tensor, leaf: Tensor) -> bool:
    """Return True if `grid_sample` and no convolution lie on a path from the model's input to a tensor."""
    waiting, known = [(tensor.grad_fn, False)], set[tuple[Node, bool]]()
    while waiting:
        node, is_sampled = waiting.pop()
        if node is None or (node, is_sampled) in known or "Convolution" in node.name():
            continue
        known.add((node, is_sampled))
        if is_sampled and getattr(node, "variable", None) is leaf:
            return True
        is_sampled = is_sampled or "GridSampler" in node.name()
        waiting += [(before, is_sampled) for before, _ in node.next_functions]
    return False
