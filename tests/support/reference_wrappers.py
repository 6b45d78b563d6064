"""Independent float64 references for methods that apply another method to modified inputs, written as plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch.nn.functional as F

from support import reference as base_formulas
from support.reference import Array
from support.reference_image import (
    Formula,
    Map,
    ReferenceImage,
    align_with_row_sums,
    cells_by_channels,
    first_component,
    gaussian_blur,
    noise,
    normalize,
    probability,
    relu,
    resize,
    resized,
    weighted,
)


def _noisy(image: ReferenceImage, samples: int, sigma: float, seed: int) -> Iterator[ReferenceImage]:
    std = sigma * float(image.x.max() - image.x.min())
    for i in range(samples):
        yield image.with_input(image.x + std * noise(seed * 100003 + i, (1, *image.x.shape))[0])


def smooth(
    image: ReferenceImage, layer: str, base: Map, samples: int = 16, sigma: float = 0.15, seed: int = 0
) -> Array:
    return sum(base(nearest, layer) for nearest in _noisy(image, samples, sigma, seed)) / samples


def smooth_gradcam_plusplus(
    image: ReferenceImage, layer: str, samples: int = 16, sigma: float = 0.15, seed: int = 0
) -> Array:
    """alpha = D2 / (2 D2 + S_k D3), D1 to D3 the means of g, g^2 and g^3 over the samples; A of the clean image."""
    a = image.a(layer)
    gradients = [nearest.g(layer) for nearest in _noisy(image, samples, sigma, seed)]
    first, second, third = (sum(g**power for g in gradients) / samples for power in (1, 2, 3))
    weights = []
    for k, channel in enumerate(a):
        some = second[k] != 0
        alpha = second[k][some] / (2 * second[k][some] + channel.sum() * third[k][some])
        weights.append((alpha * relu(first[k][some])).sum())
    return weighted(weights, a)


def integrated(
    image: ReferenceImage, layer: str, base: Formula, steps: int = 20, rectified: bool = True, difference: bool = False
) -> Array:
    """The mean of the rectified base over x i / steps, i = 0 to steps - 1; of A_i - A_0 if `difference`."""
    start = image.with_input(0 * image.x).a(layer) if difference else 0.0
    out = np.zeros(image.a(layer).shape[1:])
    for i in range(steps):
        part = image.with_input(image.x * (i / steps))
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
    values = []
    for turned, factor, size in product((False, True) if flip else (False,), factors, sizes):
        x = resize(factor * image.x, [round(side * size) for side in image.size])
        m = base(image.with_input(x.flip(-1) if turned else x), layer)
        values.append(resized(m[..., ::-1] if turned else m, grid))
    return sum(values) / len(values)


# The term of each channel; the sum over channels is the map of the method.
TERMS: dict[str, Formula] = {
    "hirescam": lambda a, g: g * a,
    "layercam": lambda a, g: relu(g) * a,
    "gradcamelementwise": lambda a, g: relu(g * a),
    **{
        name: lambda a, g, map_from_formula=base_formulas.FORMULAS[name]: np.stack(
            [map_from_formula(a[k : k + 1], g[k : k + 1]) for k in range(len(a))]
        )
        for name in ("gradcam", "gradcam++", "xgradcam")  # weighted channels: the map of each channel
    },
}


def eigensmooth(a: Array, g: Array, base: str = "gradcam", centered: bool = True) -> Array:
    x = cells_by_channels(TERMS[base](a, g))
    return align_with_row_sums(first_component(x, centered), x).reshape(a.shape[1:])


def cameras(image: ReferenceImage, layer: str, sizes: int = 8, step: float = 100 / 224) -> Array:
    """At the size of the input: sum over k of mean U(A) times mean U(G), with means over several input sizes."""
    a = g = np.zeros(())
    for i in range(sizes):
        size = [round(side * (1 + i * step)) for side in image.size]
        large = F.interpolate(image.inputs, size, mode="bicubic", align_corners=False)[0] if i else image.x
        scaled = image.with_input(large)
        a = a + resized(scaled.a(layer), image.size) / sizes
        g = g + resized(scaled.g(layer), image.size) / sizes
    return base_formulas.hirescam(a, g)


def sess(
    image: ReferenceImage, layer: str, base: Map, scales: int = 12, step: float = 64 / 224, discard: float = 0.0
) -> Array:
    """At the size of the input: maps of windows of enlarged images, each at the position of its window."""
    windows = []
    for i in range(scales):
        large = resize(image.x, [round(side * (1 + i * step)) for side in image.size])
        starts = [
            [min(j * side, full_size - side) for j in range(math.ceil(full_size / side))]
            for side, full_size in zip(image.size, large.shape[1:], strict=True)
        ]
        for corner in product(*starts):
            place = tuple(slice(start, start + side) for start, side in zip(corner, image.size, strict=True))
            window = large[(slice(None), *place)]
            windows.append((image.run(window, probability), window, place, large.shape[1:]))
    windows.sort(key=lambda entry: entry[0])
    kept = windows[int(len(windows) * discard) :]
    best = kept[-1][0]
    total, count = np.zeros(image.size), np.zeros(image.size)
    for q, window, place, full_size in kept:
        canvas = np.zeros(full_size)
        canvas[place] = normalize(resized(relu(base(image.with_input(window), layer)), image.size)) * q / best
        part = resized(canvas, image.size)
        total += np.where(part > 0, part, 0)
        count += part > 0
    return gaussian_blur(np.where(count > 0, total / np.maximum(count, 1), 0), 11, 5, "edge")
