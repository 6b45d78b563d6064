"""Independent float64 references for methods of one layer with extra passes, written from the papers as plain loops.

They process one image and one channel, mask, sample or cell at a time, without batches, without sharing between layers
and without partial forward passes. A is (K, *grid) and G = dy/dA of one call of one convolution, as in `reference`.
Maps are signed and have the grid of the layer or, where noted, the size of the input.

Notation of the papers: z is a logit, p the softmax probability of the class, y the explained score, U linear resizing
(as F.interpolate without align_corners), N min-max scaling to [0, 1].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from support import reference as base_formulas
from support.reference import Array, logits_of
from support.reference_image import (
    Map,
    ReferenceImage,
    align_with_larger_extreme,
    align_with_row_sums,
    cells_by_channels,
    first_component,
    gaussian_blur,
    logit,
    noise,
    normalize,
    probability,
    relu,
    resize,
    resized,
    softmax,
    weighted,
)

# --- gradient ---------------------------------------------------------------------------------------------------------


def layercam_scaled(a: Array, g: Array, gamma: float) -> Array:
    """LayerCAM, Eq. 9: tanh(gamma M / max M) of the rectified map; 0 if its maximum is 0."""
    m = relu(base_formulas.layercam(a, g))
    return np.tanh(gamma * m / m.max()) if m.max() > 0 else m


def gradcam_plusplus_normalized(a: Array, g: Array) -> Array:
    """As in the authors' code, divide the alphas of the cells with g > 0 by their sum."""
    weights = []
    for channel, gradients in zip(a, g, strict=True):
        up = gradients[gradients > 0]
        alphas = 1 / (2 + up * channel.sum())
        weights.append((alphas / alphas.sum() * up).sum() if len(up) else 0.0)
    return weighted(weights, a)


def eigengradcam(a: Array, g: Array, centered: bool = True) -> Array:
    x = cells_by_channels(g * a)
    return align_with_row_sums(first_component(x, centered), x).reshape(a.shape[1:])


def segeigencam(a: Array, g: Array, centered: bool = True) -> Array:
    x = cells_by_channels(np.abs(g) * a)
    return align_with_larger_extreme(first_component(x, centered)).reshape(a.shape[1:])


def shapley_score(logits: Tensor, c: int) -> Tensor:
    """ShapleyCAM's score: z_c + log p_c."""
    return logits[:, c] + logits.log_softmax(1)[:, c]


_hessians: dict[tuple[int, str], tuple[ReferenceImage, Array]] = {}


def hessian_times_a(image: ReferenceImage, layer: str) -> Array:
    """Return H A from the full Hessian H = d2y/dA2 of (K n) x (K n) second derivatives."""
    if (id(image), layer) not in _hessians:
        leaf = image.activation(layer).clone().requires_grad_()
        (g,) = torch.autograd.grad(image.with_score(shapley_score).tail(layer, leaf).sum(), leaf, create_graph=True)
        rows = [torch.autograd.grad(one, leaf, retain_graph=True)[0].flatten() for one in g.flatten()]
        product = torch.stack(rows) @ leaf.detach().flatten()
        # Keep a reference to the image, so that its id is not reused.
        _hessians[id(image), layer] = image, product.reshape(leaf.shape[1:]).numpy()
    return _hessians[id(image), layer][1]


def shapleycam(image: ReferenceImage, layer: str, variant: str = "mean") -> Array:
    """Replace G by T = G - HA / 2 in Grad-CAM, HiResCAM or elementwise Grad-CAM, for the score z + log p."""
    t = image.with_score(shapley_score).g(layer) - hessian_times_a(image, layer) / 2
    map_from_formula = {
        "mean": base_formulas.gradcam,
        "hires": base_formulas.hirescam,
        "elementwise": base_formulas.gradcam_elementwise,
    }[variant]
    return map_from_formula(image.a(layer), t)


def finercam(image: ReferenceImage, layer: str, base: Map, references: int = 3, gamma: float = 0.6) -> Array:
    """The base for z_c - gamma times the mean of z_d over the classes d with the nearest logits."""
    with torch.no_grad():
        logits = logits_of(image.net(image.inputs))[0].tolist()
    others = [d for d in range(len(logits)) if d != image.c]
    nearest = sorted(others, key=lambda d: abs(logits[d] - logits[image.c]))[:references]
    return base(image.with_score(lambda z, c: z[:, c] - gamma * z[:, nearest].mean(1)), layer)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        out = x.clamp_(min=0) if inplace else x.clamp(min=0)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return gradient * (out > 0) * (gradient > 0), None


class _Guided(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return _GuidedReLU.apply(x, self.inplace)


def guided_backprop(image: ReferenceImage) -> Array:
    """Return dy/dx (C, *size), with negative gradients set to 0 in each nn.ReLU."""
    net = copy.deepcopy(image.net)
    for parent in list(net.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.ReLU):
                setattr(parent, name, _Guided(module.inplace))
    x = image.inputs.clone().requires_grad_()
    return torch.autograd.grad(image.score_function(logits_of(net(x)), image.c).sum(), x)[0][0].numpy()


def guided_gradcam(image: ReferenceImage, layer: str, base: Map) -> Array:
    """At the size of the input: sum over its channels of guided backpropagation times U(relu(base))."""
    cam = resized(relu(base(image, layer)), image.size)
    return sum(channel * cam for channel in guided_backprop(image))


# --- activation -------------------------------------------------------------------------------------------------------


def cam(image: ReferenceImage, layer: str, head: str) -> Array:
    """Sum over k of W[c, k] A_k, W the weight of the linear layer `head`; no bias."""
    return weighted(image.net.get_submodule(head).weight[image.c].tolist(), image.a(layer))


def eigencam(a: Array, g: Array, centered: bool = False) -> Array:
    x = cells_by_channels(a)
    return align_with_row_sums(first_component(x, centered), x).reshape(a.shape[1:])


def kpcacam(
    a: Array, g: Array, kernel: str = "sigmoid", gamma: float | None = None, coef0: float = 1.0, degree: int = 3
) -> Array:
    """The first component of kernel PCA, as scikit-learn's KernelPCA, of the cells centered by channel."""
    x = cells_by_channels(a) - cells_by_channels(a).mean(0)
    gamma = 1 / len(a) if gamma is None else gamma

    def cosine(u: Array, v: Array) -> float:
        length = np.sqrt((u @ u) * (v @ v))
        return u @ v / length if length > 0 else 0.0

    kernels: dict[str, Callable[[Array, Array], float]] = {
        "linear": lambda u, v: u @ v,
        "poly": lambda u, v: (gamma * (u @ v) + coef0) ** degree,
        "sigmoid": lambda u, v: np.tanh(gamma * (u @ v) + coef0),
        "rbf": lambda u, v: np.exp(-gamma * ((u - v) @ (u - v))),
        "cosine": cosine,
    }
    table = np.array([[kernels[kernel](u, v) for v in x] for u in x])
    table = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    values, vectors = np.linalg.eigh((table + table.T) / 2)  # rising
    if values[-1] <= 0:
        return np.zeros(a.shape[1:])
    m = np.sqrt(values[-1]) * vectors[:, -1]
    return (m * np.sign(m[np.abs(m).argmax()])).reshape(a.shape[1:])


def fem(a: Array, g: Array, k: float = 2.0) -> Array:
    """Sum over channels of mu where A > mu + k sigma."""
    out = np.zeros(a.shape[1:])
    for channel in a:
        if is_constant(channel):  # rounding of the mean must not mark cells of a constant channel
            continue
        mu, sigma = channel.mean(), channel.std()
        out += mu * (channel > mu + k * sigma)
    return out


def lafam(a: Array, g: Array) -> Array:
    return weighted([1 / len(a)] * len(a), a)


def factorized(v: Array, w: Array, h: Array, iterations: int) -> tuple[Array, Array]:
    """Apply multiplicative updates (Lee and Seung) to V ~ W H: W first, then H with the new W; 0 / 0 is 0."""

    def share(above: Array, below: Array) -> Array:
        return np.divide(above, below, out=np.zeros_like(above), where=below != 0)

    for _ in range(iterations):
        w = share(w * (v @ h.T), w @ h @ h.T)
        h = share(h * (w.T @ v), w.T @ w @ h)
    return w, h


def concepts(w: Array, h: Array) -> Array:
    """Return the maps (concepts, cells): columns of W in the units of A, with the largest first."""
    columns = [w[:, j] * np.linalg.norm(h[j]) for j in range(len(h))]
    return np.stack(sorted(columns, key=np.linalg.norm, reverse=True))


# --- masking ----------------------------------------------------------------------------------------------------------


def apply_mask(x: Tensor, mask: Array) -> Tensor:
    return x * torch.from_numpy(mask)


def is_constant(channel: Array) -> bool:
    """Test A_k, not U(A_k): rounding in U makes a constant vary, and N would amplify that."""
    return channel.min() == channel.max()


def scorecam(image: ReferenceImage, layer: str, variant: str = "authors") -> Array:
    a = image.a(layer)
    scores: dict[int, float] = {}
    for k, channel in enumerate(a):
        if is_constant(channel) and variant != "gradcam":
            continue
        if variant == "torchcam":
            mask = resized(normalize(channel), image.size)
        else:
            mask = normalize(resized(channel, image.size, corners=variant == "gradcam"))
        if is_constant(channel):
            mask = np.zeros(image.size)
        scores[k] = image.run(apply_mask(image.x, mask), probability if variant == "authors" else logit)
        if variant == "torchcam":
            scores[k] -= image.run(image.x)
    values = list(scores.values()) if variant == "authors" else softmax(list(scores.values()))
    weights = dict(zip(scores, values, strict=True))
    return weighted([weights.get(k, 0.0) for k in range(len(a))], a)


def sscam(
    image: ReferenceImage, layer: str, samples: int = 35, sigma: float = 2.0, on: str = "input", seed: int = 0
) -> Array:
    a, weights = image.a(layer), []
    for k, channel in enumerate(a):
        if is_constant(channel):
            weights.append(0.0)
            continue
        large = resized(channel, image.size)
        values = []
        if on == "input":
            base = apply_mask(image.x, normalize(large))
            std = (sigma / float(base.max() - base.min())) ** 2
            for one in noise(seed + k, (samples, *image.x.shape)):
                values.append(image.run(base + std * one, probability))
        else:
            std = (sigma / (large.max() - large.min())) ** 2
            for one in noise(seed + k, (samples, 1, *image.size)):
                values.append(image.run(image.x * (torch.from_numpy(large) + std * one), probability))
        weights.append(sum(values) / samples)
    return weighted(weights, a)


def iscam(image: ReferenceImage, layer: str, steps: int = 10, schedule: str = "linear") -> Array:
    a, weights = image.a(layer), []
    for channel in a:
        weight = 0.0
        for i in range(1, steps + 1) if not is_constant(channel) else ():
            share = i / steps if schedule == "linear" else sum(range(1, i + 1)) / steps
            x = share * apply_mask(image.x, normalize(resized(channel, image.size)))
            weight += image.run(x, probability) / steps
        weights.append(weight)
    return weighted(weights, a)


def groupcam(
    image: ReferenceImage,
    layer: str,
    groups: int = 32,
    percentile: float | None = 70,
    blur: int = 51,
    sigma: float = 50,
) -> Array:
    a, g = image.a(layer), image.g(layer)
    each = math.ceil(len(a) / groups)  # as torch.chunk
    soft = torch.from_numpy(np.stack([gaussian_blur(channel, blur, sigma, "reflect") for channel in image.x.numpy()]))
    out = np.zeros(a.shape[1:])
    for start in range(0, len(a), each):
        m = relu(base_formulas.gradcam(a[start : start + each], g[start : start + each]))
        if percentile is not None:
            m = np.where(m > np.percentile(m, percentile), m, 0.0)
        if is_constant(m):
            continue
        mask = torch.from_numpy(normalize(resized(m, image.size)))
        x = image.x * mask + soft * (1 - mask)
        out += (image.run(x, probability) - image.run(soft, probability)) * m
    return out


def opticam(image: ReferenceImage, layer: str, steps: int = 50, lr: float = 0.1) -> Array:
    """Adam written out, with the gradient by autograd through the full network."""
    f = torch.from_numpy(relu(image.a(layer)))
    u = torch.full((len(f),), 0.5, dtype=torch.float64)
    first, second = torch.zeros_like(u), torch.zeros_like(u)
    for step in range(1, steps + 1):
        u = u.detach().requires_grad_()
        large = resize(torch.tensordot(u.softmax(0), f, 1), image.size)
        mask = (large - large.min()) / (large.max() - large.min())
        logits = logits_of(image.net((image.x * mask)[None]))
        loss = image.run(image.x) - logit(logits, image.c).sum()
        (gradient,) = torch.autograd.grad(loss, u)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        u = u.detach() - lr * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return torch.tensordot(u.detach().softmax(0), f, 1).numpy()


# --- ablation ---------------------------------------------------------------------------------------------------------


def ablationcam(image: ReferenceImage, layer: str) -> Array:
    """w_k = (y - y_k) / y, y_k the score with channel k at zero."""
    a, weights = image.a(layer), []
    y = image.rerun(layer, a, image.score_function)
    for k in range(len(a)):
        without = a.copy()
        without[k] = 0
        weights.append((y - image.rerun(layer, without, image.score_function)) / y)
    return weighted(weights, a)


def reciprocam(image: ReferenceImage, layer: str, kernel: str = "point", score: str = "probability") -> Array:
    """The score with A reduced to one cell, or to its neighborhood weighted by (1 2 1) / 4 along each axis."""
    a = image.a(layer)
    score_function = {"probability": probability, "logit": logit}[score]
    out = np.zeros(a.shape[1:])
    for cell in np.ndindex(*out.shape):
        mask = np.zeros(out.shape)
        if kernel == "point":
            mask[cell] = 1
        else:
            for other in np.ndindex(*out.shape):
                apart = [abs(i - j) for i, j in zip(cell, other, strict=True)]
                mask[other] = math.prod({0: 0.5, 1: 0.25}.get(steps, 0.0) for steps in apart)
        out[cell] = image.rerun(layer, a * mask, score_function)
    return out
