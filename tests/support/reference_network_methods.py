"""A slow, independent reference for the methods that look at pixels, at several layers at once, or at attention.

As in `slow`: plain loops, float64, one image at a time, signed maps. A function here takes one image x (C, *size) and
one class and gives one map. Pixels are changed by hand and the net is run on what comes out; what is wanted of layers
is taken from `slow.Slow`, which asks one layer at a time; attention is that of `vit_networks.ReferenceViT`, which writes the
transformer out, and its gradients are `autograd.grad` by the tensors that it keeps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from support.reference import CONVOLUTIONS, FORMULAS, Slow, logits_of
from support.vit_networks import ForwardRecord, ReferenceViT

Array = np.ndarray
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


# --- what they share --------------------------------------------------------------------------------------------------


def stretch(values: Array, size: Sequence[int], corners: bool = False) -> Array:
    """U: the last axes at another size, linear. A pixel's centre is at its middle, or (`corners`) the outer ones meet."""
    out = np.asarray(values, dtype=np.float64)
    for axis, wanted in zip(range(out.ndim - len(size), out.ndim), size, strict=True):
        count, lines = out.shape[axis], []
        for i in range(wanted):
            place = i * (count - 1) / max(wanted - 1, 1) if corners else max((i + 0.5) * count / wanted - 0.5, 0.0)
            low = min(int(place), count - 1)
            high, share = min(low + 1, count - 1), place - low
            lines.append((1 - share) * out.take(low, axis) + share * out.take(high, axis))
        out = np.stack(lines, axis)
    return out


def unit(values: Array) -> Array:
    """N: the lowest value to 0, the highest to 1; 0 where all are the same."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


def relu(values: Array) -> Array:
    return np.maximum(values, 0.0)


class Asker:
    """Score and probability of one class for images, one forward each."""

    def __init__(self, net: nn.Module, chosen: int) -> None:
        self.net, self.chosen = net, chosen

    def score(self, image: Array) -> float:
        return float(self._logits(image)[self.chosen])

    def chance(self, image: Array) -> float:
        return float(torch.softmax(self._logits(image), 0)[self.chosen])

    def _logits(self, image: Array) -> Tensor:
        with torch.no_grad():
            return logits_of(self.net(torch.from_numpy(image)[None]))[0]


# --- pixels -----------------------------------------------------------------------------------------------------------


def occlusion(
    net: nn.Module, x: Array, chosen: int, window: float = 2 / 7, stride: float = 1 / 28, baseline: float = 0.0
) -> Array:
    """At each pixel the mean, over the windows that cover it, of what the score loses where they hide the image."""
    score_function, size = Asker(net, chosen), x.shape[1:]
    sides = [max(1, round(window * side)) for side in size]
    steps = [max(1, round(stride * side)) for side in size]
    counts = [math.ceil((size[d] - sides[d]) / steps[d]) + 1 for d in range(len(size))]
    whole = score_function.score(x)
    total, times = np.zeros(size), np.zeros(size)
    for corner in itertools.product(*(range(count) for count in counts)):
        place = tuple(slice(i * step, i * step + side) for i, step, side in zip(corner, steps, sides, strict=True))
        hidden = x.copy()
        hidden[(slice(None), *place)] = baseline
        total[place] += whole - score_function.score(hidden)
        times[place] += 1
    return np.where(times > 0, total / np.maximum(times, 1), 0.0)


def rise(
    net: nn.Module, x: Array, chosen: int, masks: int = 4000, grid: int = 7, p: float = 0.5, seed: int = 0
) -> Array:
    """Random smooth masks, each weighted by the probability that it leaves, over their number and p."""
    score_function, size = Asker(net, chosen), x.shape[1:]
    cells = [math.ceil(side / grid) for side in size]
    random = torch.Generator().manual_seed(seed)
    bits = (torch.rand(masks, *[grid] * len(size), generator=random, dtype=torch.float64) < p).double().numpy()
    shifts = [torch.randint(0, cell, (masks,), generator=random).tolist() for cell in cells]
    out = np.zeros(size)
    for i in range(masks):
        large = stretch(bits[i], [(grid + 1) * cell for cell in cells])
        crop = tuple(slice(shifts[d][i], shifts[d][i] + size[d]) for d in range(len(size)))
        out += score_function.chance(x * large[crop]) * large[crop]
    return out / (masks * p)


def polycam(slow: Slow, image: int, layers: Sequence[str], variant: str = "+") -> Array:
    """From the coarsest layer to the finest: each layer's map, relative to its own coarse version, times the one before."""
    score_function, x, size = (
        Asker(slow.net, int(slow.classes[image])),
        slow.inputs[image].numpy(),
        slow.inputs.shape[2:],
    )
    last = {tuple(slow.activation(layer).shape[2:]): layer for layer in layers}  # a later layer takes the place
    fine_to_coarse = [last[grid] for grid in sorted(last, key=math.prod, reverse=True)]
    whole = score_function.chance(x)
    so_far = None
    for layer in reversed(fine_to_coarse):
        a = slow.activation(layer)[image].numpy()
        own = np.zeros(a.shape[1:])
        for channel in a:
            low, high = np.percentile(channel, [0.1, 99.9])
            mask = stretch(np.clip((channel - low) / max(high, 1e-12), 0, 1), size)
            kept = score_function.chance(x * mask) if variant != "-" else 0.0
            lost = whole - score_function.chance(x * (1 - mask)) if variant != "+" else 0.0
            own += max(kept + lost, 0.0) * channel  # the probability kept is never negative: "+" needs no ReLU
        own = relu(own)
        if so_far is None:
            so_far = own
        else:
            coarse = stretch(stretch(own, so_far.shape), own.shape)
            so_far = relu(own / np.maximum(coarse, 1e-12) * stretch(so_far, own.shape))
    assert so_far is not None
    return so_far


# --- several layers at once -------------------------------------------------------------------------------------------


def full_gradients(
    net: nn.Module, x: Array, chosen: int, kinds: tuple[type[nn.Module], ...] = (*CONVOLUTIONS, *NORMS)
) -> tuple[Array, list[tuple[Array, Array]]]:
    """dy/dx, and for each call of a module of these kinds that adds a bias: b (C,) and dy/d(its output) (C, *grid).

    Each such module returns its output plus a zero of its own, and the gradient is the one by that zero.
    """
    leaf = torch.from_numpy(x)[None].clone().requires_grad_()
    found: list[tuple[Tensor, Tensor]] = []

    def answer(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        out = type(module).forward(module, *args, **kwargs)
        bias = implied_bias(module)
        if bias is None:
            return out
        zero = torch.zeros_like(out, requires_grad=True)
        found.append((bias, zero))
        return out + zero

    with _answering([m for m in net.modules() if isinstance(m, kinds)], answer):
        score = logits_of(net(leaf))[0, chosen]
    slopes = torch.autograd.grad(score, [leaf, *(zero for _, zero in found)])
    pairs = zip((bias for bias, _ in found), slopes[1:], strict=True)
    return slopes[0][0].numpy(), [(bias.numpy(), slope[0].numpy()) for bias, slope in pairs]


def implied_bias(module: nn.Module) -> Tensor | None:
    """What the module adds to a multiple of its input, for each channel; None if it adds nothing."""
    if not isinstance(module, NORMS):
        return None if module.bias is None else module.bias.detach()
    assert module.running_mean is not None and module.running_var is not None and not module.training
    gamma = torch.ones_like(module.running_mean) if module.weight is None else module.weight.detach()
    beta = torch.zeros_like(module.running_mean) if module.bias is None else module.bias.detach()
    return beta - module.running_mean * gamma / (module.running_var + module.eps).sqrt()


def fullgrad(net: nn.Module, x: Array, chosen: int, biases: bool = True) -> Array:
    """psi of x dy/dx, and of b dy/d(output) of each convolution and BatchNorm, stretched to the image's size."""
    slope, found = full_gradients(net, x, chosen)
    out = psi(x * slope).sum(0)
    for bias, gradient in found:
        parts = gradient * bias.reshape(-1, *[1] * (gradient.ndim - 1)) if biases else gradient
        out += stretch(psi(parts), x.shape[1:], corners=True).sum(0)
    return out


def psi(values: Array) -> Array:
    """The size, less the lowest of all channels and cells, over the highest that is then left."""
    sizes = np.abs(values)
    sizes = sizes - sizes.min()
    return sizes / sizes.max() if sizes.max() > 0 else sizes


def refinecam(slow: Slow, image: int, layers: Sequence[str], base: str = "gradcam++") -> Array:
    """The product of the layers' rectified maps, each from 0 to 1 before and after it is stretched."""
    out = np.ones(slow.inputs.shape[2:])
    for layer in layers:
        out = out * unit(stretch(unit(relu(_base(slow, image, layer, base))), out.shape))
    return out


def layercam_fusion(slow: Slow, image: int, layers: Sequence[str], gamma: float = 2.0, base: str = "layercam") -> Array:
    """At each pixel the highest of the layers' rectified maps over their maximum; tanh lifts all but the last layer's."""
    out = np.zeros(slow.inputs.shape[2:])
    for layer in layers:
        own = relu(_base(slow, image, layer, base))
        if own.max() > 0:
            own = own / own.max()
        if layer != layers[-1]:
            own = np.tanh(gamma * own)
        out = np.maximum(out, stretch(own, out.shape))
    return out


def _base(slow: Slow, image: int, layer: str, method: str) -> Array:
    return FORMULAS[method](slow.activation(layer)[image].numpy(), slow.gradient(layer)[image].numpy())


# --- transformers: `hand` is the net, x one image (3, height, width), the map is on the grid of patches ------------


def attention_rollout(hand: ReferenceViT, x: Tensor, chosen: int, heads: str = "mean", discard: float = 0.0) -> Array:
    """The attentions of all blocks multiplied, each mixed with the identity for the skip connection."""
    fuse = {"mean": np.mean, "max": np.max, "min": np.min}[heads]
    rolled = None
    for a in hand.run(x[None]).a:
        fused = fuse(a[0].detach().numpy(), axis=0)
        count = len(fused)
        order = sorted((fused[i, j], i, j) for i in range(count) for j in range(count))
        for _, i, j in order[: math.floor(discard * count * count)]:
            if (i, j) != (0, 0):
                fused[i, j] = 0.0
        mixed = fused + np.eye(count)
        for row in mixed:
            row /= row.sum()
        rolled = mixed if rolled is None else mixed @ rolled
    assert rolled is not None
    return _what_is_read(hand, rolled)


def attention_relevance(hand: ReferenceViT, x: Tensor, chosen: int) -> Array:
    """R starts as the identity; each block adds the mean over heads of relu(dA A) times R."""
    run = _watched(hand, x)
    slopes = torch.autograd.grad(run.logits[0, chosen], run.a)
    relevance = np.eye(run.a[0].shape[-1])
    for a, slope in zip(run.a, slopes, strict=True):
        mean = np.zeros_like(relevance)
        for own, by in zip(a[0].detach().numpy(), slope[0].numpy(), strict=True):
            mean += relu(by * own) / hand.config.heads
        relevance = relevance + mean @ relevance
    return _what_is_read(hand, relevance)


def legrad(hand: ReferenceViT, x: Tensor, chosen: int, last: int | None = 2) -> Array:
    """For each of the last blocks: what the class gains from its attention, were the mean of its tokens all there is."""
    run = _watched(hand, x)
    depth = hand.config.depth
    out = np.zeros(run.tokens[0].shape[1])
    for block in range(depth if last is None else last):
        a, tokens = run.a[depth - 1 - block], run.tokens[depth - 1 - block]
        everywhere = tokens.mean(1, keepdim=True).expand(-1, tokens.shape[1], -1)
        score = hand.read(everywhere)[0, chosen]
        (slope,) = torch.autograd.grad(score, a, retain_graph=True)
        gained = relu(slope[0].numpy())
        for head in gained:
            for query in head:
                out += query / (len(gained) * len(head))
    return _on_grid(hand, out)


def grad_eclip(hand: ReferenceViT, x: Tensor, chosen: int) -> Array:
    """For each patch of the last block: how much the class token's gradient points along its value, times how much its
    key looks like the class token's query."""
    assert hand.config.class_token
    run = _watched(hand, x)
    (slope,) = torch.autograd.grad(run.logits[0, chosen], run.o[-1])
    # Heads side by side, as in o.
    query, key, value = (t[-1][0].detach().transpose(0, 1).flatten(1).numpy() for t in (run.q, run.k, run.v))
    along, alike = [], []
    for i in range(len(key)):
        along.append(float(slope[0, 0].numpy() @ value[i]))
        alike.append(float(query[0] @ key[i]) / float(np.linalg.norm(query[0]) * np.linalg.norm(key[i])))
    prefix = hand.config.prefix
    weights = np.concatenate([np.zeros(prefix), unit(np.array(alike[prefix:]))])
    return _on_grid(hand, weights * np.array(along))


def vit_reciprocam(
    hand: ReferenceViT, x: Tensor, chosen: int, block: int = -2, kernel: str = "gaussian", score: str = "probability"
) -> Array:
    """The class score where, of the patches that enter one block's attention, only those around a place are left."""
    config, at = hand.config, block % hand.config.depth
    bell = {-1: 0.25, 0: 0.5, 1: 0.25}
    out = np.zeros(config.grid)
    for place in np.ndindex(*config.grid):
        mask = np.zeros(config.grid)
        if kernel == "point":
            mask[place] = 1.0
        else:
            for cell in np.ndindex(*config.grid):
                away = [c - p for c, p in zip(cell, place, strict=True)]
                mask[cell] = math.prod(bell.get(step, 0.0) for step in away)
        kept = torch.from_numpy(np.concatenate([np.ones(config.prefix), mask.reshape(-1)]))

        def edit(number: int, tokens: Tensor, kept: Tensor = kept) -> Tensor:
            return tokens * kept[None, :, None] if number == at else tokens

        logits = hand.run(x[None], edit).logits[0]
        out[place] = float(torch.softmax(logits, 0)[chosen] if score == "probability" else logits[chosen])
    return out


def _watched(hand: ReferenceViT, x: Tensor) -> ForwardRecord:
    """A run whose tensors are all parts of a graph."""
    return hand.run(x[None].clone().requires_grad_())


def _what_is_read(hand: ReferenceViT, table: Array) -> Array:
    """Of (tokens, tokens) the class token's row, or the mean of all rows; of that the patches."""
    return _on_grid(hand, table[0] if hand.config.prefix else table.mean(0))


def _on_grid(hand: ReferenceViT, tokens: Array) -> Array:
    return tokens[hand.config.prefix :].reshape(hand.config.grid)


# --- a net whose modules answer otherwise -----------------------------------------------------------------------------


@contextmanager
def _answering(modules: Sequence[nn.Module], answer: Callable[..., Tensor]) -> Iterator[None]:
    """Within, each of these modules runs `answer(module, ...)`; its class and weights are not touched."""
    for module in modules:
        module.forward = partial(answer, module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward
