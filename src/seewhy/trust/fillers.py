"""Fillers: what replaces the parts of an image that a mask covers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seewhy.errors import UnknownName, UsageError

Fill = Callable[[Tensor], Tensor]  # covered (N, *size) in [0, 1], 1 = covered -> changed inputs (N, C, *size)

REACH = 2.5  # of a Gaussian, in standard deviations
# Weights of the neighbors of a pixel in ROAD
DIRECT, DIAGONAL = 1 / 6, 1 / 12


@dataclass(frozen=True)
class Filler(ABC):
    """What a covered part of an image shows instead. Instances are values."""

    @abstractmethod
    def bind(self, image: Tensor) -> Fill:
        """Return a function that covers parts of one input `(C, *size)`."""


@final
@dataclass(frozen=True)
class Blur(Filler):
    """A blurred copy of the image.

    Args:
        sigma: Standard deviation of the Gaussian as a fraction of each side of the image.

    Example:
        >>> Blur().bind(torch.ones(3, 8, 8))(torch.ones(1, 8, 8)).shape
        torch.Size([1, 3, 8, 8])
    """

    sigma: float = 13 / 224

    def bind(self, image: Tensor) -> Fill:
        return replace_with(image, gaussian_blur(image[None], [self.sigma * side for side in image.shape[1:]])[0])


@final
@dataclass(frozen=True)
class Mean(Filler):
    """The mean color of the image."""

    def bind(self, image: Tensor) -> Fill:
        return replace_with(image, image.flatten(1).mean(1).reshape(-1, *[1] * (image.dim() - 1)).expand_as(image))


@final
@dataclass(frozen=True)
class LinearImputation(Filler):
    """Each covered pixel is the weighted mean of its eight neighbors, plus noise.

    This is the filler of ROAD (Rong et al., ICML 2022): one sparse linear system for each mask. Direct neighbors have the
    weight 1/6, diagonal ones 1/12; at the border, the weights are divided by their sum. Pixels that are covered by half or
    more are replaced; if all are covered, they show the mean color. It takes about a second for an image of 224 x 224, most
    of which is covered.

    Args:
        noise: Standard deviation of the noise, in units of the model's input.
        seed: Seed of the noise.
    """

    noise: float = 0.01
    seed: int = 0

    def bind(self, image: Tensor) -> Fill:
        if image.dim() != 3:
            raise UsageError(f"the filler 'linear' is defined for images, and this input has {image.dim() - 1} axes.")
        pixels = image.detach().double().cpu().numpy()

        def fill(covered: Tensor) -> Tensor:
            random = np.random.default_rng(self.seed)
            rows = [impute(pixels, mask) for mask in (covered >= 0.5).cpu().numpy()]
            noise = random.normal(0, self.noise, size=pixels.shape)
            images = [
                np.where(mask, row + noise, row) for row, mask in zip(rows, covered.cpu().numpy() >= 0.5, strict=True)
            ]
            return torch.from_numpy(np.stack(images)).to(image)

        return fill


def replace_with(image: Tensor, filler: Tensor) -> Fill:
    """Return a function that replaces covered parts of `image` by the same parts of `filler`."""
    return lambda covered: torch.lerp(image, filler, covered[:, None].to(image))


def gaussian_blur(images: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Blur `(N, C, *size)` with one Gaussian per axis. Borders are mirrored, or repeated where an image is too small."""
    for axis, sigma in enumerate(sigmas, 2):
        radius = max(1, int(REACH * sigma))
        steps = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
        weights = torch.exp(-(steps**2) / (2 * max(sigma, 1e-6) ** 2))
        moved = images.movedim(axis, -1)
        rows = moved.reshape(-1, 1, moved.shape[-1])
        mode = "reflect" if radius < rows.shape[-1] else "replicate"
        blurred = F.conv1d(F.pad(rows, (radius, radius), mode=mode), (weights / weights.sum())[None, None])
        images = blurred.reshape(moved.shape).movedim(-1, axis)
    return images


def impute(image: NDArray[np.float64], covered: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return `image` (C, H, W) with the pixels of `covered` (H, W) computed from their neighbors."""
    from scipy.sparse import coo_array  # imported on first use: the check needs another filler
    from scipy.sparse.linalg import splu

    if covered.all():
        return np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape).copy()
    if not covered.any():
        return image.copy()
    height, width = covered.shape
    rows, columns = np.nonzero(covered)
    count = len(rows)
    number = np.full(covered.shape, -1)
    number[rows, columns] = np.arange(count)
    total, known = np.zeros(count), np.zeros((count, len(image)))
    entries: list[tuple[NDArray[np.intp], NDArray[np.intp], float]] = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if not down and not right:
                continue
            weight = DIAGONAL if down and right else DIRECT
            y, x = rows + down, columns + right
            inside = np.nonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))[0]
            neighbors = number[y[inside], x[inside]]
            total[inside] += weight
            is_known = neighbors < 0
            at = inside[is_known]
            known[at] += weight * image[:, y[at], x[at]].T
            entries.append((inside[~is_known], neighbors[~is_known], -weight))
    values = np.concatenate([np.full(len(at), weight) for at, _, weight in entries])
    at, neighbor = (np.concatenate([entry[axis] for entry in entries]) for axis in (0, 1))
    diagonal = np.arange(count)
    matrix = coo_array(
        (np.concatenate([values, total]), (np.concatenate([at, diagonal]), np.concatenate([neighbor, diagonal]))),
        shape=(count, count),
    )
    result = image.copy()
    result[:, rows, columns] = (
        splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(known).T
    )
    return result


FILLERS = {"blur": Blur(), "mean": Mean(), "linear": LinearImputation()}


def as_filler(filler: Filler | str) -> Filler:
    """Return a filler from its name. Raises UnknownName for another name."""
    if isinstance(filler, Filler):
        return filler
    if filler not in FILLERS:
        raise UnknownName("filler", str(filler), FILLERS, hint=f"Use {', '.join(FILLERS)}.")
    return FILLERS[filler]
