"""One image of a reference network, and float64 array operations that the references of methods share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from support.reference import Array, ReferenceNetwork, logits_of

Formula = Callable[[Array, Array], Array]  # of A and G
ScoreFunction = Callable[[Tensor, int], Tensor]  # of the logits (1, classes) and the class, to the score (1,)


def logit(logits: Tensor, c: int) -> Tensor:
    return logits[:, c]


def probability(logits: Tensor, c: int) -> Tensor:
    return logits.softmax(1)[:, c]


class ReferenceImage(ReferenceNetwork):
    """One image x (1, C, *size) of a network, its class c, and the score as a function of the logits."""

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
        """Return the same pass with another score."""
        other = copy.copy(self)
        other.score_function, other.gradients = score_function, {}
        return other

    def with_input(self, x: Tensor) -> ReferenceImage:
        """Return a new reference with the same network, class and score for another image (C, *size)."""
        return ReferenceImage(self.net, x[None], self.c, self.score_function)

    def a(self, layer: str) -> Array:
        return self.activation(layer)[0].numpy()

    def g(self, layer: str) -> Array:
        return self.gradient(layer)[0].numpy()

    def run(self, x: Tensor, score_function: ScoreFunction = logit) -> float:
        """Return the score of the full network for an image (C, *size)."""
        with torch.no_grad():
            return float(score_function(logits_of(self.net(x[None].clone())), self.c))

    def rerun(self, layer: str, a: Array, score_function: ScoreFunction) -> float:
        """Return the score of the network with the output of the layer replaced by `a`."""
        with torch.no_grad():
            return float(self.with_score(score_function).tail(layer, torch.from_numpy(a)[None]))


Map = Callable[[ReferenceImage, str], Array]


def formula_map(map_from_formula: Formula) -> Map:
    """Return a formula of A and G as a function of an image and a layer."""
    return lambda image, layer: map_from_formula(image.a(layer), image.g(layer))


def resize_matrix(count: int, size: int, corners: bool = False) -> Tensor:
    """Return the matrix (size, count) that linearly resizes one axis from `count` cells to `size`."""
    matrix = torch.zeros(size, count, dtype=torch.float64)
    for i in range(size):
        apart = (count - 1) / max(size - 1, 1)  # with corners, the outermost cells keep their positions
        place = i * apart if corners else max((i + 0.5) * count / size - 0.5, 0.0)
        low = min(int(place), count - 1)
        high = min(low + 1, count - 1)
        matrix[i, low] += 1 - (place - low)
        matrix[i, high] += place - low
    return matrix


def resize(value: Tensor, size: Sequence[int], corners: bool = False) -> Tensor:
    """Resize the last axes of (..., *grid) to `size`, one axis at a time."""
    for axis, side in enumerate(size, value.dim() - len(size)):
        value = torch.movedim(
            torch.movedim(value, axis, -1) @ resize_matrix(value.shape[axis], side, corners).T, -1, axis
        )
    return value


def resized(value: Array, size: Sequence[int], corners: bool = False) -> Array:
    return resize(torch.from_numpy(np.ascontiguousarray(value)), size, corners).numpy()


def normalize(value: Array) -> Array:
    """Scale to [0, 1]; a constant becomes 0."""
    low, high = value.min(), value.max()
    return (value - low) / (high - low) if high > low else np.zeros_like(value)


def relu(value: Array) -> Array:
    return np.maximum(value, 0)


def cells_by_channels(value: Array) -> Array:
    """Return (K, *grid) as a matrix of cells by channels."""
    return value.reshape(len(value), -1).T


def weighted(weights: Sequence[float], a: Array) -> Array:
    """Return the sum over k of w_k A_k."""
    out = np.zeros(a.shape[1:])
    for w, channel in zip(weights, a, strict=True):
        out += w * channel
    return out


def softmax(values: Sequence[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def first_component(x: Array, centered: bool) -> Array:
    """Project the rows of x (cells, K) on the first right singular vector; the sign is arbitrary."""
    x = x - x.mean(0) if centered else x
    return x @ np.linalg.svd(x, full_matrices=False)[2][0]


def align_with_row_sums(m: Array, x: Array) -> Array:
    """Return m with the sign of its product with the row sums of x."""
    return -m if m @ x.sum(1) < 0 else m


def align_with_larger_extreme(m: Array) -> Array:
    return -m if abs(m.min()) > abs(m.max()) else m


def gaussian(count: int, sigma: float) -> Array:
    weights = np.array([math.exp(-((i - count // 2) ** 2) / (2 * sigma**2)) for i in range(count)])
    return weights / weights.sum()


def gaussian_blur(value: Array, count: int, sigma: float, border: str) -> Array:
    """Gaussian blur of (*size) along each axis, with a kernel of at most 2 * side - 1 entries."""
    for axis, side in enumerate(value.shape):
        kernel = gaussian(min(count, 2 * side - 1), sigma)
        half = len(kernel) // 2
        padded = np.pad(value, [(half, half) if i == axis else (0, 0) for i in range(value.ndim)], mode=border)
        value = sum(w * np.take(padded, range(i, i + side), axis) for i, w in enumerate(kernel))
    return value


def noise(seed: int, shape: Sequence[int]) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
