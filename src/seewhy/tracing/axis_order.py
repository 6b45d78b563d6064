"""Which axes of a model's input are channels and which are positions, observed at its first convolution.

Maps need inputs (B, C, *size). Many models take other orders: clips (B, T, C, H, W), spectrograms (B, time, mel) without a
channel axis, waveforms (B, time), images with channels last. `find_axis_order` moves one step along each axis of the
first convolution's input, and observes with gradients which axis of the model's input moves with it. For sequences through
models without convolutions, it is the first layer that reads features on the last axis.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seewhy.tensors.nested import first_tensor
from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.model_properties import input_key, model_of
from seewhy.tracing.single_input import for_image
from seewhy.tracing.torch_private import CONVOLUTION
from seewhy.tracing.twin import make_twin, named_modules
from seewhy.tracing.twin_hooks import call_before_modules

SEQUENCE = 3  # axes of (B, T, C) or (B, C, T)


@dataclass(frozen=True)
class AxisOrder:
    """The axes of an input in the order (batch, channel, *positions). `channel` is None if the input has no such axis.

    >>> order = AxisOrder(channel=2, positions=(1, 3, 4))
    >>> clip = torch.zeros(1, 8, 3, 64, 48)
    >>> order.to_channels_first(clip).shape, order.restore(order.to_channels_first(clip)).shape
    (torch.Size([1, 3, 8, 64, 48]), torch.Size([1, 8, 3, 64, 48]))
    """

    channel: int | None
    positions: tuple[int, ...]

    def to_channels_first(self, inputs: Tensor) -> Tensor:
        """Return an input in the model's own order as (B, C, *size)."""
        if self.channel is None:
            return inputs.permute(0, *self.positions)[:, None]
        return inputs.permute(0, self.channel, *self.positions)

    def restore(self, inputs: Tensor) -> Tensor:
        """Return an input (B, C, *size) in the model's own order."""
        if self.channel is None:
            inputs, axes = inputs[:, 0], (0, *self.positions)
        else:
            axes = (0, self.channel, *self.positions)
        return inputs.permute(*(axes.index(axis) for axis in range(len(axes))))

    def __str__(self) -> str:
        channel = "no channel axis" if self.channel is None else f"channels on axis {self.channel}"
        return f"{channel}, positions on {'axis' if len(self.positions) == 1 else 'axes'} {', '.join(map(str, self.positions))}"


UNKNOWN = AxisOrder(None, ())


class _Reached(Exception):
    """Ends a forward pass at the first convolution."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.inputs = inputs


_cache: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, AxisOrder | None]] = weakref.WeakKeyDictionary()


def find_axis_order(model: nn.Module, inputs: Tensor) -> AxisOrder | None:
    """Return the axis order of an input; None if it is (B, C, *size), or if it could not be observed."""
    cached = _cache.setdefault(model_of(model), {})
    key = input_key(model, inputs)
    if key not in cached:
        cached[key] = None if is_usual(model, inputs) else observe(model, inputs)
    order = cached[key]
    return None if order == UNKNOWN else order


def is_unknown(model: nn.Module, inputs: Tensor) -> bool:
    """Return True if the axis order of a sequence could not be observed by `find_axis_order`."""
    return _cache.get(model_of(model), {}).get(input_key(model, inputs)) == UNKNOWN


def is_usual(model: nn.Module, inputs: Tensor) -> bool:
    """Return True if the shapes of the input and of the convolutions leave no doubt that it is (B, C, *size)."""
    convolutions = [module for _, module in named_modules(model) if isinstance(module, CONVOLUTION)]
    if not convolutions:
        return inputs.dim() != SEQUENCE
    channels = {
        convolution.in_channels for convolution in convolutions if len(convolution.kernel_size) + 2 == inputs.dim()
    }
    return inputs.shape[1] in channels and channels.isdisjoint(inputs.shape[2:])


def observe(model: nn.Module, inputs: Tensor) -> AxisOrder | None:
    """Observe the axis order in a forward pass that ends at the first convolution.

    Without convolutions, it ends at the first layer that reads the last axis of a sequence as features.
    """
    twin = make_twin(for_image(model, 0))
    has_convolutions = any(isinstance(module, CONVOLUTION) for _, module in named_modules(twin))

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        seen = first_tensor((args, kwargs))
        if seen is None or not seen.requires_grad:
            return
        if has_convolutions:
            raise _Reached(seen)
        if seen.dim() == SEQUENCE and feature_count(module) == seen.shape[-1] and 1 in seen.shape[:2]:
            raise _Reached(seen.transpose(1, 2) if len(seen) == 1 else seen.permute(1, 2, 0))  # or steps come first

    call_before_modules(twin, hook, CONVOLUTION if has_convolutions else nn.Module)
    leaf = inputs[:1].detach().clone().requires_grad_()
    with torch.inference_mode(False), torch.enable_grad(), preserve_rng(inputs.device):
        try:
            twin(leaf.clone())
        except _Reached as end:
            return order_from(end.inputs, leaf)
        except Exception:  # the model rejects the input, which the recorded pass reports
            return None
    return None if has_convolutions else UNKNOWN


def feature_count(module: nn.Module) -> int:
    """Return how many features a layer reads on the last axis; 0 if it has no fixed number.

    >>> feature_count(nn.GRU(6, 8)), feature_count(nn.LayerNorm(6)), feature_count(nn.ReLU())
    (6, 6, 0)
    """
    match module:
        case nn.Linear():
            return module.in_features
        case nn.RNNBase():
            return module.input_size
        case nn.LayerNorm() if len(module.normalized_shape) == 1:
            return int(module.normalized_shape[0])
        case nn.MultiheadAttention():
            return int(module.embed_dim)
    return 0


def depends_on_all_channels(seen: Tensor, leaf: Tensor, place: tuple[int, ...]) -> bool:
    """Return True if one value of `seen` depends on several entries of axis 1 of `leaf` (B, ..., *size)."""
    (gradient,) = torch.autograd.grad(seen[place], leaf, retain_graph=True)
    return int((gradient[0].flatten(1) != 0).any(1).sum()) > 1


def order_from(seen: Tensor, leaf: Tensor) -> AxisOrder | None:
    """Return the axis order of `leaf` from the input (rows, C, *positions) of a convolution that depends on it."""

    def source(*place: int) -> tuple[int, ...]:
        (gradient,) = torch.autograd.grad(seen[place], leaf, retain_graph=True)
        return tuple(int(index) for index in torch.unravel_index(gradient.abs().argmax(), gradient.shape))

    center = [length // 2 for length in seen.shape]
    center[0], center[1] = 0, 0
    start = source(*center)
    moved: list[int | None] = []
    for axis in range(1, seen.dim()):
        if seen.shape[axis] < 2:
            moved.append(None)
            continue
        place = list(center)
        place[axis] += 1 if place[axis] + 1 < seen.shape[axis] else -1
        changed = [own for own, (old, new) in enumerate(zip(start, source(*place), strict=True)) if old != new]
        if len(changed) != 1:
            return None
        moved.append(changed[0])
    if moved[0] is None and seen.dim() == leaf.dim() and depends_on_all_channels(seen, leaf, tuple(center)):
        moved[0] = 1  # the network makes one channel of several, as a gray image of a color image
    channel, *others = moved
    positions = [axis for axis in others if axis is not None]
    rest = [axis for axis in range(1, leaf.dim()) if axis != channel and axis not in positions]
    if channel is None and seen.shape[1] == 1:
        # One channel: an axis of length 1 that nothing moves along is that of the channels, if there is one.
        channel = next((axis for axis in rest if leaf.shape[axis] == 1), None)
        rest = [axis for axis in rest if axis != channel]
    if len(set(positions)) < len(positions) or channel in positions or 0 in (channel, *positions):
        return None
    # Axes that the convolution does not see, such as the frames of a clip, come before those that it sees.
    order = AxisOrder(channel, (*rest, *positions))
    return None if order.channel == 1 and order.positions == tuple(range(2, leaf.dim())) else order
