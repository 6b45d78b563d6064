"""Arithmetic on maps: pure functions of tensors.

Shapes use the same letters throughout: B images, K channels, C input channels, `*grid` the one to three spatial axes of a
layer, and `*size` those of an image in pixels. Maps are signed, (B, *grid), in the units of their method unless stated
otherwise. No function here uses a model, a method or the random state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

SMALL_MATRIX = 128  # side up to which `eigh` takes less than a millisecond
SMALL_TRACE = 1e-20  # of a Gram matrix: below it, squares of its entries underflow in float32
TensorFunction = TypeVar("TensorFunction", bound=Callable[..., Any])
INTERPOLATION_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def without_autocast(function: TensorFunction) -> TensorFunction:
    """Make `function` compute in the precision of its tensors, even if the caller has enabled autocast."""

    @wraps(function)
    def wrapper(tensor: Tensor, *others: Any, **settings: Any) -> Any:
        if not torch.is_autocast_enabled(tensor.device.type):
            return function(tensor, *others, **settings)
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *others, **settings)

    return cast(TensorFunction, wrapper)


@without_autocast
def weighted_sum(weights: Tensor, activations: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return the sum over channels of `weights` (B, K) times `activations` (B, K, *grid): a map (B, *grid).

    `offset` (B, 1) is added to each map.

    >>> weighted_sum(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, 3, 3)).shape
    torch.Size([1, 3, 3])
    """
    cells = activations.flatten(2)
    rows = weights[:, None]
    maps = torch.bmm(rows, cells) if offset is None else torch.baddbmm(offset[:, None], rows, cells)
    return maps.view(-1, *activations.shape[2:])


def broadcast_over_grid(values: Tensor, like: Tensor) -> Tensor:
    """Return `values` (B, K) with an axis of length 1 for each grid axis of `like` (B, K, *grid)."""
    return values.reshape(*values.shape, *[1] * (like.dim() - 2))


def nearly_equal(values: Tensor, expected: Tensor, tolerance: float, rounding: int = 8) -> bool:
    """Return True if two tensors differ by rounding at most. Values that are not finite are ignored.

    The allowed difference is the larger of `tolerance` and `rounding` units of the type of `values`, times the maximum of
    `expected`.
    """
    if values.shape != expected.shape:
        return False
    if not values.is_floating_point() or not values.numel():
        return torch.equal(values, expected)
    allowed = max(tolerance, rounding * torch.finfo(values.dtype).eps)
    values, expected = values.to(expected.dtype).nan_to_num(0, 0, 0), expected.nan_to_num(0, 0, 0)
    return bool((values - expected).abs().amax() <= allowed * expected.abs().amax())


def is_not_constant(maps: Tensor) -> Tensor:
    """Return for each map (B, *grid) whether its values differ by more than rounding: bool (B,)."""
    flat = maps.flatten(1)
    rounding = 8 * torch.finfo(maps.dtype).eps * flat.abs().amax(1)
    return (flat.amax(1) - flat.amin(1)) > rounding


def normalize_minmax(maps: Tensor) -> Tensor:
    """Scale each map (B, *grid) linearly so that its minimum is 0 and its maximum 1; a constant map becomes zeros.

    For masks. Heatmaps use `divide_by_max`, because subtracting the minimum would hide uniform evidence.
    """
    flat = maps.flatten(1)
    low, span = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True) - flat.amin(1, keepdim=True)
    varies = is_not_constant(maps)[:, None]
    return (torch.where(varies, flat - low, 0.0) / torch.where(varies, span, 1.0)).reshape(maps.shape)


@without_autocast
def first_component(terms: Tensor, *, centered: bool) -> Tensor:
    """Project `terms` (B, K, *grid) on their first principal component over channels: a map (B, *grid).

    The component is the first right singular vector of the matrix (cells, K), computed from the smaller of the two Gram
    matrices. `centered` subtracts each channel's mean over the grid first. The sign of the map is arbitrary; use `align_sign`.
    """
    matrix = terms.flatten(2)
    if centered:
        matrix = matrix - matrix.mean(2, keepdim=True)
    channels, cells = matrix.shape[1:]
    gram = matrix @ matrix.mT if channels <= cells else matrix.mT @ matrix
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    if not bool((trace > SMALL_TRACE).all()):  # rescale the terms to a maximum of 1 and the result back
        scale = matrix.abs().amax((1, 2))[:, None, None]
        if not bool(((scale == 0) | (scale == 1) | ~scale.isfinite()).all()):
            scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
            factor = scale.reshape(-1, *[1] * (terms.dim() - 1))
            return first_component(terms / factor, centered=centered) * factor[:, 0]
    values, vectors = top_eigenpair(gram)
    if channels <= cells:
        projected: Tensor = matrix.mT @ vectors
    else:
        projected = vectors * values.clamp(min=0).sqrt()[:, None, None]
    return projected.reshape(-1, *terms.shape[2:])


@without_autocast
def top_eigenpair(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue (B,) of symmetric matrices (B, n, n) and its eigenvector (B, n, 1).

    The eigenvector of a matrix that is not finite is NaN. Large matrices use the Lanczos method, which is many times faster
    than `eigh`; if it does not converge, `eigh` computes all matrices.
    """
    finite = matrices.sum((1, 2)).isfinite()
    if not bool(finite.all()):
        values, vectors = top_eigenpair(torch.where(finite[:, None, None], matrices, 0.0))
        return values, torch.where(finite[:, None, None], vectors, torch.nan)
    if matrices.shape[1] > SMALL_MATRIX:
        pairs = [lanczos(matrix) for matrix in matrices]
        values, vectors = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
        residuals = (matrices @ vectors - values[:, None, None] * vectors).norm(dim=1)[:, 0]
        if bool((residuals <= 64 * torch.finfo(matrices.dtype).eps * values.abs()).all()):
            return values, vectors
    all_values, all_vectors = torch.linalg.eigh(matrices)
    return all_values[:, -1], all_vectors[:, :, -1:]


def lanczos(matrix: Tensor, max_steps: int = 64) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue () of a symmetric matrix (n, n) and its vector (n, 1), with the Lanczos method.

    The vector is in the Krylov space of at most `max_steps` dimensions. Convergence is tested every 8 steps.
    """
    size, precision = len(matrix), torch.finfo(matrix.dtype).eps
    basis, projected = matrix.new_zeros(max_steps, size), matrix.new_zeros(max_steps, max_steps)
    # A deterministic start vector that is unlikely to be orthogonal to any eigenvector.
    vector = torch.cos(torch.arange(1, size + 1, dtype=matrix.dtype, device=matrix.device) ** 2)
    basis[0] = vector / vector.norm()
    for step in range(max_steps):
        previous = basis[: step + 1]
        product = matrix @ basis[step]
        coefficients = previous @ product
        projected[step, : step + 1] = coefficients
        product = product - previous.mT @ coefficients
        product = product - previous.mT @ (previous @ product)  # a single pass loses orthogonality to rounding
        length = product.norm()
        is_last = step == max_steps - 1
        if step % 8 == 7 or is_last:
            values, vectors = torch.linalg.eigh(projected[: step + 1, : step + 1])
            if is_last or float(length * vectors[-1, -1].abs()) <= 4 * precision * float(values[-1].abs()):
                break
        basis[step + 1] = product / length.clamp(min=torch.finfo(matrix.dtype).tiny)
    return values[-1], previous.mT @ vectors[:, -1:]


def align_sign(maps: Tensor, terms: Tensor) -> Tensor:
    """Negate each map (B, *grid) whose inner product with the sum over the channels of `terms` (B, K, *grid) is negative.

    Behind a LayerNorm that sum consists of rounding errors. Then the value that is largest in magnitude becomes positive.
    """
    flat, sums = maps.flatten(1), terms.sum(1).flatten(1)
    product = (flat * sums).sum(1)
    # Bounds the rounding error of the product; the sum over channels can cancel to nothing.
    rounding = (flat.abs() * terms.abs().sum(1).flatten(1)).sum(1) * 64 * torch.finfo(maps.dtype).eps
    largest = flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0]
    sign = torch.where(torch.where(product.abs() > rounding, product, largest) < 0, -1.0, 1.0).to(maps.dtype)
    return maps * sign.reshape(-1, *[1] * (maps.dim() - 1))


@without_autocast
def gaussian_blur(images: Tensor, size: int, sigma: float, border: str = "reflect") -> Tensor:
    """Blur `images` (B, C, *size) with a Gaussian kernel, separably.

    `size` is the kernel's width and `sigma` its standard deviation, both in pixels; `border` is a padding mode of `F.pad`.
    Along an axis of length n the kernel is at most 2n - 1 wide, the limit of reflecting padding.
    """
    for axis in range(2, images.dim()):
        length = images.shape[axis]
        width = min(size, 2 * length - 1)
        steps = torch.arange(width, dtype=images.dtype, device=images.device) - width // 2
        kernel = torch.exp(-(steps**2) / (2 * sigma**2))
        lines = images.movedim(axis, -1)
        flat = lines.reshape(-1, 1, length)
        padded = F.pad(flat, (width // 2, width // 2), mode=border)
        flat = F.conv1d(padded, (kernel / kernel.sum())[None, None])
        images = flat.reshape(lines.shape).movedim(-1, axis)
    return images


def to_float32(tensor: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; return other tensors unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def rectify(maps: Tensor) -> Tensor:
    """Set negative values to zero, which keeps only the evidence for the target."""
    return maps.clamp(min=0)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate maps (B, *grid) to (B, *size): linear along each axis, align_corners=False.

    >>> resize(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), (4, 4))[0, 0]
    tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    if maps.dim() - 1 not in INTERPOLATION_MODES:  # more axes than PyTorch interpolates: one after the other
        for axis, length in enumerate(size, 1):
            lines = maps.movedim(axis, -1)
            flat = F.interpolate(lines.flatten(0, -2)[:, None], length, mode="linear", align_corners=False)
            maps = flat.reshape(*lines.shape[:-1], length).movedim(-1, axis)
        return maps
    mode = INTERPOLATION_MODES[maps.dim() - 1]
    return F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]


def divide_by_max(maps: Tensor) -> Tensor:
    """Divide each map (B, *grid) by its own maximum, so that it is at most 1.

    Uniform evidence stays visible. A map without a positive value becomes zeros.
    """
    top = maps.flatten(1).amax(1)
    scale = torch.where(top > 0, 1 / top, torch.zeros_like(top))
    return maps * scale.reshape(-1, *[1] * (maps.dim() - 1))


def positive_evidence(maps: Tensor) -> Tensor:
    """Return the fraction of positive evidence per map: `sum(relu(map)) / sum(abs(map))`.

    Shape (B,), range [0, 1]; NaN where the map is all zeros.
    """
    flat = maps.flatten(1)
    return flat.clamp(min=0).sum(1) / flat.abs().sum(1)
