"""Independent float64 references for methods of pixels, of several layers and of attention, written as plain loops.

Each function takes one image x (C, *size) and one class and returns one signed map. Activations and gradients of layers
come from `reference.ReferenceNetwork`, one layer at a time. Attention comes from `vit_networks.ReferenceViT`, and its
gradients are computed by `autograd.grad` with respect to the tensors that the forward pass records.
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

from support.reference import CONVOLUTIONS, FORMULAS, ReferenceNetwork, logits_of
from support.vit_networks import ForwardRecord, ReferenceViT

Array = np.ndarray
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


# --- Shared helpers ----------------------------------------------------------------------------------------------------


def resize(values: Array, size: Sequence[int], corners: bool = False) -> Array:
    """Linearly resize the last axes, with aligned corners if `corners`."""
    out = np.asarray(values, dtype=np.float64)
    for axis, new_size in zip(range(out.ndim - len(size), out.ndim), size, strict=True):
        count, lines = out.shape[axis], []
        for i in range(new_size):
            place = i * (count - 1) / max(new_size - 1, 1) if corners else max((i + 0.5) * count / new_size - 0.5, 0.0)
            low = min(int(place), count - 1)
            high, share = min(low + 1, count - 1), place - low
            lines.append((1 - share) * out.take(low, axis) + share * out.take(high, axis))
        out = np.stack(lines, axis)
    return out


def normalize(values: Array) -> Array:
    """Scale to [0, 1]; a constant becomes 0."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


def relu(values: Array) -> Array:
    return np.maximum(values, 0.0)


class ClassScorer:
    """Score and probability of one class, with one forward pass per image."""

    def __init__(self, net: nn.Module, class_index: int) -> None:
        self.net, self.class_index = net, class_index

    def score(self, image: Array) -> float:
        return float(self._logits(image)[self.class_index])

    def probability(self, image: Array) -> float:
        return float(torch.softmax(self._logits(image), 0)[self.class_index])

    def _logits(self, image: Array) -> Tensor:
        with torch.no_grad():
            return logits_of(self.net(torch.from_numpy(image)[None]))[0]


# --- pixels -----------------------------------------------------------------------------------------------------------


def occlusion(
    net: nn.Module, x: Array, class_index: int, window: float = 2 / 7, stride: float = 1 / 28, baseline: float = 0.0
) -> Array:
    """At each pixel, the mean decrease of the score over the windows that cover it."""
    class_scorer, size = ClassScorer(net, class_index), x.shape[1:]
    sides = [max(1, round(window * side)) for side in size]
    steps = [max(1, round(stride * side)) for side in size]
    counts = [math.ceil((size[d] - sides[d]) / steps[d]) + 1 for d in range(len(size))]
    full_score = class_scorer.score(x)
    total, counts_of_windows = np.zeros(size), np.zeros(size)
    for corner in itertools.product(*(range(count) for count in counts)):
        place = tuple(slice(i * step, i * step + side) for i, step, side in zip(corner, steps, sides, strict=True))
        hidden = x.copy()
        hidden[(slice(None), *place)] = baseline
        total[place] += full_score - class_scorer.score(hidden)
        counts_of_windows[place] += 1
    return np.where(counts_of_windows > 0, total / np.maximum(counts_of_windows, 1), 0.0)


def rise(
    net: nn.Module, x: Array, class_index: int, masks: int = 4000, grid: int = 7, p: float = 0.5, seed: int = 0
) -> Array:
    """Sum of random smooth masks weighted by the probability of the masked image, divided by their number and p."""
    class_scorer, size = ClassScorer(net, class_index), x.shape[1:]
    cells = [math.ceil(side / grid) for side in size]
    random = torch.Generator().manual_seed(seed)
    bits = (torch.rand(masks, *[grid] * len(size), generator=random, dtype=torch.float64) < p).double().numpy()
    shifts = [torch.randint(0, cell, (masks,), generator=random).tolist() for cell in cells]
    out = np.zeros(size)
    for i in range(masks):
        large = resize(bits[i], [(grid + 1) * cell for cell in cells])
        crop = tuple(slice(shifts[d][i], shifts[d][i] + size[d]) for d in range(len(size)))
        out += class_scorer.probability(x * large[crop]) * large[crop]
    return out / (masks * p)


def polycam(network: ReferenceNetwork, image: int, layers: Sequence[str], variant: str = "+") -> Array:
    """From the coarsest to the finest layer: each map, relative to its coarse version, times the previous result."""
    class_scorer, x, size = (
        ClassScorer(network.net, int(network.classes[image])),
        network.inputs[image].numpy(),
        network.inputs.shape[2:],
    )
    last = {tuple(network.activation(layer).shape[2:]): layer for layer in layers}  # the last layer of each grid
    fine_to_coarse = [last[grid] for grid in sorted(last, key=math.prod, reverse=True)]
    full_score = class_scorer.probability(x)
    so_far = None
    for layer in reversed(fine_to_coarse):
        a = network.activation(layer)[image].numpy()
        own = np.zeros(a.shape[1:])
        for channel in a:
            low, high = np.percentile(channel, [0.1, 99.9])
            mask = resize(np.clip((channel - low) / max(high, 1e-12), 0, 1), size)
            kept = class_scorer.probability(x * mask) if variant != "-" else 0.0
            lost = full_score - class_scorer.probability(x * (1 - mask)) if variant != "+" else 0.0
            own += max(kept + lost, 0.0) * channel  # the probability kept is never negative: "+" needs no ReLU
        own = relu(own)
        if so_far is None:
            so_far = own
        else:
            coarse = resize(resize(own, so_far.shape), own.shape)
            so_far = relu(own / np.maximum(coarse, 1e-12) * resize(so_far, own.shape))
    assert so_far is not None
    return so_far


# --- several layers at once -------------------------------------------------------------------------------------------


def full_gradients(
    net: nn.Module, x: Array, class_index: int, kinds: tuple[type[nn.Module], ...] = (*CONVOLUTIONS, *NORMS)
) -> tuple[Array, list[tuple[Array, Array]]]:
    """dy/dx, and for each call of a module with a bias: b (C,) and dy/d(output) (C, *grid).

    Each module returns its output plus a zero tensor, and the gradient is with respect to that tensor.
    """
    leaf = torch.from_numpy(x)[None].clone().requires_grad_()
    bias_gradients: list[tuple[Tensor, Tensor]] = []

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        out = type(module).forward(module, *args, **kwargs)
        bias = implied_bias(module)
        if bias is None:
            return out
        zero = torch.zeros_like(out, requires_grad=True)
        bias_gradients.append((bias, zero))
        return out + zero

    with _replaced_forward([m for m in net.modules() if isinstance(m, kinds)], forward):
        score = logits_of(net(leaf))[0, class_index]
    gradients = torch.autograd.grad(score, [leaf, *(zero for _, zero in bias_gradients)])
    pairs = zip((bias for bias, _ in bias_gradients), gradients[1:], strict=True)
    return gradients[0][0].numpy(), [(bias.numpy(), gradient[0].numpy()) for bias, gradient in pairs]


def implied_bias(module: nn.Module) -> Tensor | None:
    """Return the constant that the module adds per channel, or None without one."""
    if not isinstance(module, NORMS):
        return None if module.bias is None else module.bias.detach()
    assert module.running_mean is not None and module.running_var is not None and not module.training
    gamma = torch.ones_like(module.running_mean) if module.weight is None else module.weight.detach()
    beta = torch.zeros_like(module.running_mean) if module.bias is None else module.bias.detach()
    return beta - module.running_mean * gamma / (module.running_var + module.eps).sqrt()


def fullgrad(net: nn.Module, x: Array, class_index: int, biases: bool = True) -> Array:
    """psi of x dy/dx, and of b dy/d(output) of each convolution and BatchNorm, resized to the size of the image."""
    gradient, bias_gradients = full_gradients(net, x, class_index)
    out = psi(x * gradient).sum(0)
    for bias, gradient in bias_gradients:
        parts = gradient * bias.reshape(-1, *[1] * (gradient.ndim - 1)) if biases else gradient
        out += resize(psi(parts), x.shape[1:], corners=True).sum(0)
    return out


def psi(values: Array) -> Array:
    """Scale absolute values to [0, 1] over all channels and cells."""
    sizes = np.abs(values)
    sizes = sizes - sizes.min()
    return sizes / sizes.max() if sizes.max() > 0 else sizes


def refinecam(network: ReferenceNetwork, image: int, layers: Sequence[str], base: str = "gradcam++") -> Array:
    """Product of the rectified maps of the layers, each scaled to [0, 1] before and after resizing."""
    out = np.ones(network.inputs.shape[2:])
    for layer in layers:
        out = out * normalize(resize(normalize(relu(_base(network, image, layer, base))), out.shape))
    return out


def layercam_fusion(
    network: ReferenceNetwork, image: int, layers: Sequence[str], gamma: float = 2.0, base: str = "layercam"
) -> Array:
    """Maximum over layers of the rectified, scaled maps; tanh increases those of all layers but the last."""
    out = np.zeros(network.inputs.shape[2:])
    for layer in layers:
        own = relu(_base(network, image, layer, base))
        if own.max() > 0:
            own = own / own.max()
        if layer != layers[-1]:
            own = np.tanh(gamma * own)
        out = np.maximum(out, resize(own, out.shape))
    return out


def _base(network: ReferenceNetwork, image: int, layer: str, method: str) -> Array:
    return FORMULAS[method](network.activation(layer)[image].numpy(), network.gradient(layer)[image].numpy())


# --- transformers: `reference_vit` is the net, x one image (3, height, width), the map is on the grid of patches ------------


def attention_rollout(
    reference_vit: ReferenceViT, x: Tensor, class_index: int, heads: str = "mean", discard: float = 0.0
) -> Array:
    """Product of the attention matrices of all blocks, each averaged with the identity for the skip connection."""
    fuse = {"mean": np.mean, "max": np.max, "min": np.min}[heads]
    rolled = None
    for a in reference_vit.run(x[None]).a:
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
    return _relevance_of_patches(reference_vit, rolled)


def attention_relevance(reference_vit: ReferenceViT, x: Tensor, class_index: int) -> Array:
    """R starts as the identity; each block adds the mean over heads of relu(dA A), times R."""
    run = _run_with_graph(reference_vit, x)
    gradients = torch.autograd.grad(run.logits[0, class_index], run.a)
    relevance = np.eye(run.a[0].shape[-1])
    for a, gradient in zip(run.a, gradients, strict=True):
        mean = np.zeros_like(relevance)
        for own, by in zip(a[0].detach().numpy(), gradient[0].numpy(), strict=True):
            mean += relu(by * own) / reference_vit.config.heads
        relevance = relevance + mean @ relevance
    return _relevance_of_patches(reference_vit, relevance)


def legrad(reference_vit: ReferenceViT, x: Tensor, class_index: int, last: int | None = 2) -> Array:
    """Sum over the last blocks of the rectified gradient of the score of the mean token with respect to attention."""
    run = _run_with_graph(reference_vit, x)
    depth = reference_vit.config.depth
    out = np.zeros(run.tokens[0].shape[1])
    for block in range(depth if last is None else last):
        a, tokens = run.a[depth - 1 - block], run.tokens[depth - 1 - block]
        everywhere = tokens.mean(1, keepdim=True).expand(-1, tokens.shape[1], -1)
        score = reference_vit.read(everywhere)[0, class_index]
        (gradient,) = torch.autograd.grad(score, a, retain_graph=True)
        gained = relu(gradient[0].numpy())
        for head in gained:
            for query in head:
                out += query / (len(gained) * len(head))
    return _on_grid(reference_vit, out)


def grad_eclip(reference_vit: ReferenceViT, x: Tensor, class_index: int) -> Array:
    """For each patch of the last block: the product of its value with the gradient of the class token, times the similarity
    of its key to the query of the class token."""
    assert reference_vit.config.class_token
    run = _run_with_graph(reference_vit, x)
    (gradient,) = torch.autograd.grad(run.logits[0, class_index], run.o[-1])
    # Concatenate the heads, as in o.
    query, key, value = (t[-1][0].detach().transpose(0, 1).flatten(1).numpy() for t in (run.q, run.k, run.v))
    along, alike = [], []
    for i in range(len(key)):
        along.append(float(gradient[0, 0].numpy() @ value[i]))
        alike.append(float(query[0] @ key[i]) / float(np.linalg.norm(query[0]) * np.linalg.norm(key[i])))
    prefix = reference_vit.config.prefix
    weights = np.concatenate([np.zeros(prefix), normalize(np.array(alike[prefix:]))])
    return _on_grid(reference_vit, weights * np.array(along))


def vit_reciprocam(
    reference_vit: ReferenceViT,
    x: Tensor,
    class_index: int,
    block: int = -2,
    kernel: str = "gaussian",
    score: str = "probability",
) -> Array:
    """The class score with only the patches around each position kept in the attention of one block."""
    config, at = reference_vit.config, block % reference_vit.config.depth
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

        logits = reference_vit.run(x[None], edit).logits[0]
        out[place] = float(torch.softmax(logits, 0)[class_index] if score == "probability" else logits[class_index])
    return out


def _run_with_graph(reference_vit: ReferenceViT, x: Tensor) -> ForwardRecord:
    """Run with gradients recorded for all tensors."""
    return reference_vit.run(x[None].clone().requires_grad_())


def _relevance_of_patches(reference_vit: ReferenceViT, table: Array) -> Array:
    """Return the patches of the row of the class token; where the head reads the mean of the patches, of their mean row."""
    config = reference_vit.config
    return _on_grid(reference_vit, table[config.prefix :].mean(0) if config.is_mean_pooled else table[0])


def _on_grid(reference_vit: ReferenceViT, tokens: Array) -> Array:
    return tokens[reference_vit.config.prefix :].reshape(reference_vit.config.grid)


# --- Replaced forward -------------------------------------------------------------------------------------------------


@contextmanager
def _replaced_forward(modules: Sequence[nn.Module], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Replace the forward of each module by `forward(module, ...)` within the context."""
    for module in modules:
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward
