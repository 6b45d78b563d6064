"""A slow, independent reference for the methods that need more than A and G of one run: float64, plain loops.

One image at a time, one channel, mask, sample or cell at a time: nothing is batched, nothing is shared between
layers, and no run is resumed in the middle. A is (K, *grid), G = dy/dA, both of one call of one convolution, had as in
`slow`. A map is signed, before any ReLU, on the layer's grid or (where said) at the size of the input.

The letters are those of the papers: z a logit, p the softmax probability of the class, y the score that is explained,
U linear resizing (pixel centers kept, as F.interpolate without align_corners), N min-max to [0, 1].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support import reference as slow
from support.reference import Array, Slow, logits_of

Formula = Callable[[Array, Array], Array]  # of A and G
ScoreFunction = Callable[[Tensor, int], Tensor]  # of the logits (1, classes) and the class, to the score (1,)


# --- one image ------------------------------------------------------------------------------------------------------


def logit(logits: Tensor, c: int) -> Tensor:
    return logits[:, c]


def probability(logits: Tensor, c: int) -> Tensor:
    return logits.softmax(1)[:, c]


def everything(logits: Tensor, c: int) -> Tensor:
    return logits


class ReferenceImage(Slow):
    """One image x (1, C, *size) of a net, its class c, and `score_function`: what of the logits is the score."""

    def __init__(self, net: nn.Module, x: Tensor, c: int, score_function: ScoreFunction = logit) -> None:
        self.score_function, self.c = score_function, c
        super().__init__(net, x, torch.tensor([c]))

    def scores(self) -> Tensor:
        return self.score_function(logits_of(self.net(self.inputs)), self.c)

    @property
    def x(self) -> Tensor:
        """(C, *size)."""
        return self.inputs[0]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def with_score(self, score_function: ScoreFunction) -> ReferenceImage:
        """The same run, another score."""
        other = copy.copy(self)
        other.score_function, other.gradients = score_function, {}
        return other

    def at(self, x: Tensor) -> ReferenceImage:
        """The same net, class and score, another image (C, *size): everything anew."""
        return ReferenceImage(self.net, x[None], self.c, self.score_function)

    def a(self, layer: str) -> Array:
        return self.activation(layer)[0].numpy()

    def g(self, layer: str) -> Array:
        return self.gradient(layer)[0].numpy()

    def run(self, x: Tensor, score_function: ScoreFunction = logit) -> float:
        """A score of the full net for a image (C, *size)."""
        with torch.no_grad():
            return float(score_function(logits_of(self.net(x[None].clone())), self.c))

    def rerun(self, layer: str, a: Array, score_function: ScoreFunction) -> float:
        """A score of the net when the layer returns `a`."""
        with torch.no_grad():
            return float(self.with_score(score_function).tail(layer, torch.from_numpy(a)[None]))


Map = Callable[[ReferenceImage, str], Array]


def of(formula: Formula) -> Map:
    """A formula of A and G as a map of a image and a layer."""
    return lambda image, layer: formula(image.a(layer), image.g(layer))


# --- small parts ------------------------------------------------------------------------------------------------------


def line(count: int, size: int, corners: bool = False) -> Tensor:
    """Linear resizing of one axis from `count` cells to `size`, as a matrix (size, count)."""
    matrix = torch.zeros(size, count, dtype=torch.float64)
    for i in range(size):
        apart = (count - 1) / max(size - 1, 1)  # with corners, the outermost cells stay where they are
        place = i * apart if corners else max((i + 0.5) * count / size - 0.5, 0.0)
        low = min(int(place), count - 1)
        high = min(low + 1, count - 1)
        matrix[i, low] += 1 - (place - low)
        matrix[i, high] += place - low
    return matrix


def resize(value: Tensor, size: Sequence[int], corners: bool = False) -> Tensor:
    """U of (..., *grid) to the last axes of `size`: axis after axis."""
    for axis, side in enumerate(size, value.dim() - len(size)):
        value = torch.movedim(torch.movedim(value, axis, -1) @ line(value.shape[axis], side, corners).T, -1, axis)
    return value


def resized(value: Array, size: Sequence[int], corners: bool = False) -> Array:
    return resize(torch.from_numpy(np.ascontiguousarray(value)), size, corners).numpy()


def normalize(value: Array) -> Array:
    """N; of a constant 0."""
    low, high = value.min(), value.max()
    return (value - low) / (high - low) if high > low else np.zeros_like(value)


def relu(value: Array) -> Array:
    return np.maximum(value, 0)


def flat(value: Array) -> Array:
    """(K, *grid) as cells by channels."""
    return value.reshape(len(value), -1).T


def weighted(weights: Sequence[float], a: Array) -> Array:
    """Sum over k of w_k A_k."""
    out = np.zeros(a.shape[1:])
    for w, channel in zip(weights, a, strict=True):
        out += w * channel
    return out


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def component(x: Array, centered: bool) -> Array:
    """Projection of the rows of x (cells, K) on the first right singular vector. The sign is the caller's."""
    x = x - x.mean(0) if centered else x
    return x @ np.linalg.svd(x, full_matrices=False)[2][0]


def with_the_sum(m: Array, x: Array) -> Array:
    """The sign that points with the row sums of x."""
    return -m if m @ x.sum(1) < 0 else m


def with_the_larger_end(m: Array) -> Array:
    return -m if abs(m.min()) > abs(m.max()) else m


def gaussian(count: int, sigma: float) -> Array:
    weights = np.array([math.exp(-((i - count // 2) ** 2) / (2 * sigma**2)) for i in range(count)])
    return weights / weights.sum()


def blurred(value: Array, count: int, sigma: float, border: str) -> Array:
    """Gaussian blur of (*size) along each axis, with a kernel of at most 2 * side - 1 entries."""
    for axis, side in enumerate(value.shape):
        kernel = gaussian(min(count, 2 * side - 1), sigma)
        half = len(kernel) // 2
        padded = np.pad(value, [(half, half) if i == axis else (0, 0) for i in range(value.ndim)], mode=border)
        value = sum(w * np.take(padded, range(i, i + side), axis) for i, w in enumerate(kernel))
    return value


def noise(seed: int, shape: Sequence[int]) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- gradient ---------------------------------------------------------------------------------------------------------


def layercam_scaled(a: Array, g: Array, gamma: float) -> Array:
    """LayerCAM, Eq. 9: tanh(gamma M / max M) of the rectified map; 0 where its maximum is 0."""
    m = relu(slow.layercam(a, g))
    return np.tanh(gamma * m / m.max()) if m.max() > 0 else m


def gradcam_plusplus_normalized(a: Array, g: Array) -> Array:
    """As the authors' code: the alphas of the cells with g > 0 divided by their sum."""
    weights = []
    for channel, slopes in zip(a, g, strict=True):
        up = slopes[slopes > 0]
        alphas = 1 / (2 + up * channel.sum())
        weights.append((alphas / alphas.sum() * up).sum() if len(up) else 0.0)
    return weighted(weights, a)


def eigengradcam(a: Array, g: Array, centered: bool = True) -> Array:
    x = flat(g * a)
    return with_the_sum(component(x, centered), x).reshape(a.shape[1:])


def segeigencam(a: Array, g: Array, centered: bool = True) -> Array:
    x = flat(np.abs(g) * a)
    return with_the_larger_end(component(x, centered)).reshape(a.shape[1:])


def rest(logits: Tensor, c: int) -> Tensor:
    """ShapleyCAM's score: z_c + log p_c."""
    return logits[:, c] + logits.log_softmax(1)[:, c]


_hessians: dict[tuple[int, str], tuple[ReferenceImage, Array]] = {}


def hessian_times_a(image: ReferenceImage, layer: str) -> Array:
    """H A with all of H = d2y/dA2 written out, row after row: (K n) x (K n) second derivatives."""
    if (id(image), layer) not in _hessians:
        leaf = image.activation(layer).clone().requires_grad_()
        (g,) = torch.autograd.grad(image.with_score(rest).tail(layer, leaf).sum(), leaf, create_graph=True)
        rows = [torch.autograd.grad(one, leaf, retain_graph=True)[0].flatten() for one in g.flatten()]
        product = torch.stack(rows) @ leaf.detach().flatten()
        # The image is kept beside it, so that no other gets its id.
        _hessians[id(image), layer] = image, product.reshape(leaf.shape[1:]).numpy()
    return _hessians[id(image), layer][1]


def shapleycam(image: ReferenceImage, layer: str, variant: str = "mean") -> Array:
    """T = G - HA / 2 in place of Grad-CAM's, HiResCAM's or the elementwise Grad-CAM's G, for the score z + log p."""
    t = image.with_score(rest).g(layer) - hessian_times_a(image, layer) / 2
    formula = {"mean": slow.gradcam, "hires": slow.hirescam, "elementwise": slow.gradcam_elementwise}[variant]
    return formula(image.a(layer), t)


def finercam(image: ReferenceImage, layer: str, base: Map, references: int = 3, gamma: float = 0.6) -> Array:
    """The base for z_c - gamma times the mean of z_d, d the classes whose logits are nearest to that of c."""
    with torch.no_grad():
        logits = logits_of(image.net(image.inputs))[0].tolist()
    others = [d for d in range(len(logits)) if d != image.c]
    near = sorted(others, key=lambda d: abs(logits[d] - logits[image.c]))[:references]
    return base(image.with_score(lambda z, c: z[:, c] - gamma * z[:, near].mean(1)), layer)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        out = x.clamp_(min=0) if inplace else x.clamp(min=0)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return slope * (out > 0) * (slope > 0), None


class _Guided(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return _GuidedReLU.apply(x, self.inplace)


def guided_backprop(image: ReferenceImage) -> Array:
    """dy/dx (C, *size) where each nn.ReLU of the net hands back only what is above 0."""
    net = copy.deepcopy(image.net)
    for parent in list(net.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.ReLU):
                setattr(parent, name, _Guided(module.inplace))
    x = image.inputs.clone().requires_grad_()
    return torch.autograd.grad(image.score_function(logits_of(net(x)), image.c).sum(), x)[0][0].numpy()


def guided_gradcam(image: ReferenceImage, layer: str, base: Map) -> Array:
    """At the input's size: sum over the input's channels of guided backprop times U(relu(base))."""
    cam = resized(relu(base(image, layer)), image.size)
    return sum(channel * cam for channel in guided_backprop(image))


# --- activation -------------------------------------------------------------------------------------------------------


def cam(image: ReferenceImage, layer: str, head: str) -> Array:
    """Sum over k of W[c, k] A_k, W the weight of the linear layer `head`; no bias."""
    return weighted(image.net.get_submodule(head).weight[image.c].tolist(), image.a(layer))


def eigencam(a: Array, g: Array, centered: bool = False) -> Array:
    x = flat(a)
    return with_the_sum(component(x, centered), x).reshape(a.shape[1:])


def kpcacam(
    a: Array, g: Array, kernel: str = "sigmoid", gamma: float | None = None, coef0: float = 1.0, degree: int = 3
) -> Array:
    """The first component of kernel PCA, as scikit-learn's KernelPCA, of the cells centered by channel."""
    x = flat(a) - flat(a).mean(0)
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
        if constant(channel):  # its mean is not above itself, whatever rounding makes of the sum
            continue
        mu, sigma = channel.mean(), channel.std()
        out += mu * (channel > mu + k * sigma)
    return out


def lafam(a: Array, g: Array) -> Array:
    return weighted([1 / len(a)] * len(a), a)


def factorized(v: Array, w: Array, h: Array, iterations: int) -> tuple[Array, Array]:
    """Lee and Seung's multiplicative updates of V ~ W H from a start: W first, then H with the new W. 0 / 0 is 0."""

    def share(above: Array, below: Array) -> Array:
        return np.divide(above, below, out=np.zeros_like(above), where=below != 0)

    for _ in range(iterations):
        w = share(w * (v @ h.T), w @ h @ h.T)
        h = share(h * (w.T @ v), w.T @ w @ h)
    return w, h


def concepts(w: Array, h: Array) -> Array:
    """Deep Feature Factorization's maps (concepts, cells): W's columns in the units of A, the largest first."""
    columns = [w[:, j] * np.linalg.norm(h[j]) for j in range(len(h))]
    return np.stack(sorted(columns, key=np.linalg.norm, reverse=True))


# --- masking ----------------------------------------------------------------------------------------------------------


def masked(x: Tensor, mask: Array) -> Tensor:
    return x * torch.from_numpy(mask)


def constant(channel: Array) -> bool:
    """Of A_k, not of U(A_k): there rounding makes a constant not quite one, and N would blow that up."""
    return channel.min() == channel.max()


def scorecam(image: ReferenceImage, layer: str, variant: str = "authors") -> Array:
    a = image.a(layer)
    scores: dict[int, float] = {}
    for k, channel in enumerate(a):
        if constant(channel) and variant != "gradcam":
            continue
        if variant == "torchcam":
            mask = resized(normalize(channel), image.size)
        else:
            mask = normalize(resized(channel, image.size, corners=variant == "gradcam"))
        if constant(channel):
            mask = np.zeros(image.size)
        scores[k] = image.run(masked(image.x, mask), probability if variant == "authors" else logit)
        if variant == "torchcam":
            scores[k] -= image.run(image.x)
    found = list(scores.values()) if variant == "authors" else softmax(list(scores.values()))
    weights = dict(zip(scores, found, strict=True))
    return weighted([weights.get(k, 0.0) for k in range(len(a))], a)


def sscam(
    image: ReferenceImage, layer: str, samples: int = 35, sigma: float = 2.0, on: str = "input", seed: int = 0
) -> Array:
    a, weights = image.a(layer), []
    for k, channel in enumerate(a):
        if constant(channel):
            weights.append(0.0)
            continue
        large = resized(channel, image.size)
        found = []
        if on == "input":
            base = masked(image.x, normalize(large))
            std = (sigma / float(base.max() - base.min())) ** 2
            for one in noise(seed + k, (samples, *image.x.shape)):
                found.append(image.run(base + std * one, probability))
        else:
            std = (sigma / (large.max() - large.min())) ** 2
            for one in noise(seed + k, (samples, 1, *image.size)):
                found.append(image.run(image.x * (torch.from_numpy(large) + std * one), probability))
        weights.append(sum(found) / samples)
    return weighted(weights, a)


def iscam(image: ReferenceImage, layer: str, steps: int = 10, schedule: str = "linear") -> Array:
    a, weights = image.a(layer), []
    for channel in a:
        weight = 0.0
        for i in range(1, steps + 1) if not constant(channel) else ():
            share = i / steps if schedule == "linear" else sum(range(1, i + 1)) / steps
            x = share * masked(image.x, normalize(resized(channel, image.size)))
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
    soft = torch.from_numpy(np.stack([blurred(channel, blur, sigma, "reflect") for channel in image.x.numpy()]))
    out = np.zeros(a.shape[1:])
    for start in range(0, len(a), each):
        m = relu(slow.gradcam(a[start : start + each], g[start : start + each]))
        if percentile is not None:
            m = np.where(m > np.percentile(m, percentile), m, 0.0)
        if constant(m):
            continue
        mask = torch.from_numpy(normalize(resized(m, image.size)))
        x = image.x * mask + soft * (1 - mask)
        out += (image.run(x, probability) - image.run(soft, probability)) * m
    return out


def opticam(image: ReferenceImage, layer: str, steps: int = 50, lr: float = 0.1) -> Array:
    """Adam written out; its gradient by autograd through the full net."""
    f = torch.from_numpy(relu(image.a(layer)))
    u = torch.full((len(f),), 0.5, dtype=torch.float64)
    first, second = torch.zeros_like(u), torch.zeros_like(u)
    for step in range(1, steps + 1):
        u = u.detach().requires_grad_()
        large = resize(torch.tensordot(u.softmax(0), f, 1), image.size)
        mask = (large - large.min()) / (large.max() - large.min())
        logits = logits_of(image.net((image.x * mask)[None]))
        loss = image.run(image.x) - logit(logits, image.c).sum()
        (slope,) = torch.autograd.grad(loss, u)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
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
    """The score of the net that keeps of A one cell, or the cells around it weighted 1, 2, 1 quarters an axis."""
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


# --- wrappers: the same on changed inputs -----------------------------------------------------------------------------


def _noisy(image: ReferenceImage, samples: int, sigma: float, seed: int) -> Iterator[ReferenceImage]:
    std = sigma * float(image.x.max() - image.x.min())
    for i in range(samples):
        yield image.at(image.x + std * noise(seed * 100003 + i, (1, *image.x.shape))[0])


def smooth(
    image: ReferenceImage, layer: str, base: Map, samples: int = 16, sigma: float = 0.15, seed: int = 0
) -> Array:
    return sum(base(near, layer) for near in _noisy(image, samples, sigma, seed)) / samples


def smooth_gradcam_plusplus(
    image: ReferenceImage, layer: str, samples: int = 16, sigma: float = 0.15, seed: int = 0
) -> Array:
    """alpha = D2 / (2 D2 + S_k D3), D1 to D3 the means of g, g^2 and g^3 over the samples; A of the clean image."""
    a = image.a(layer)
    slopes = [near.g(layer) for near in _noisy(image, samples, sigma, seed)]
    first, second, third = (sum(g**power for g in slopes) / samples for power in (1, 2, 3))
    weights = []
    for k, channel in enumerate(a):
        some = second[k] != 0
        alpha = second[k][some] / (2 * second[k][some] + channel.sum() * third[k][some])
        weights.append((alpha * relu(first[k][some])).sum())
    return weighted(weights, a)


def integrated(
    image: ReferenceImage, layer: str, base: Formula, steps: int = 20, rectified: bool = True, difference: bool = False
) -> Array:
    """The mean of the rectified base over x i / steps, i = 0 to steps - 1; of A_i - A_0 where `difference`."""
    start = image.at(0 * image.x).a(layer) if difference else 0.0
    out = np.zeros(image.a(layer).shape[1:])
    for i in range(steps):
        part = image.at(image.x * (i / steps))
        m = base(part.a(layer) - start, part.g(layer))
        out += (relu(m) if rectified else m) / steps
    return out


def augmented(
    image: ReferenceImage,
    layer: str,
    base: Map,
    flip: bool = True,
    factors: Sequence[float] = (0.9, 1.0, 1.1),
    sizes: Sequence[float] = (1.0,),
) -> Array:
    grid = image.a(layer).shape[1:]
    found = []
    for turned, factor, size in product((False, True) if flip else (False,), factors, sizes):
        x = resize(factor * image.x, [round(side * size) for side in image.size])
        m = base(image.at(x.flip(-1) if turned else x), layer)
        found.append(resized(m[..., ::-1] if turned else m, grid))
    return sum(found) / len(found)


# The terms of each channel, whose sum over k is the method's map.
TERMS: dict[str, Formula] = {
    "hirescam": lambda a, g: g * a,
    "layercam": lambda a, g: relu(g) * a,
    "gradcamelementwise": lambda a, g: relu(g * a),
    **{
        name: lambda a, g, formula=slow.FORMULAS[name]: np.stack(
            [formula(a[k : k + 1], g[k : k + 1]) for k in range(len(a))]
        )
        for name in ("gradcam", "gradcam++", "xgradcam")  # weighted channels: each channel's own map
    },
}


def eigensmooth(a: Array, g: Array, base: str = "gradcam", centered: bool = True) -> Array:
    x = flat(TERMS[base](a, g))
    return with_the_sum(component(x, centered), x).reshape(a.shape[1:])


def cameras(image: ReferenceImage, layer: str, sizes: int = 8, step: float = 100 / 224) -> Array:
    """At the input's size: sum over k of mean U(A) times mean U(G), the means over inputs of several sizes."""
    a = g = np.zeros(())
    for i in range(sizes):
        size = [round(side * (1 + i * step)) for side in image.size]
        large = F.interpolate(image.inputs, size, mode="bicubic", align_corners=False)[0] if i else image.x
        seen = image.at(large)
        a = a + resized(seen.a(layer), image.size) / sizes
        g = g + resized(seen.g(layer), image.size) / sizes
    return slow.hirescam(a, g)


def sess(
    image: ReferenceImage, layer: str, base: Map, scales: int = 12, step: float = 64 / 224, discard: float = 0.0
) -> Array:
    """At the input's size: the base of windows of enlarged images, each put back into its place."""
    windows = []
    for i in range(scales):
        large = resize(image.x, [round(side * (1 + i * step)) for side in image.size])
        starts = [
            [min(j * side, whole - side) for j in range(math.ceil(whole / side))]
            for side, whole in zip(image.size, large.shape[1:], strict=True)
        ]
        for corner in product(*starts):
            place = tuple(slice(start, start + side) for start, side in zip(corner, image.size, strict=True))
            window = large[(slice(None), *place)]
            windows.append((image.run(window, probability), window, place, large.shape[1:]))
    windows.sort(key=lambda entry: entry[0])
    kept = windows[int(len(windows) * discard) :]
    best = kept[-1][0]
    total, count = np.zeros(image.size), np.zeros(image.size)
    for q, window, place, whole in kept:
        canvas = np.zeros(whole)
        canvas[place] = normalize(resized(relu(base(image.at(window), layer)), image.size)) * q / best
        part = resized(canvas, image.size)
        total += np.where(part > 0, part, 0)
        count += part > 0
    return blurred(np.where(count > 0, total / np.maximum(count, 1), 0), 11, 5, "edge")
