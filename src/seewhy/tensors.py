"""Arithmetic on maps: pure functions of tensors that know no model and no method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

SMALL_MATRIX = 128  # up to here all eigenvectors cost less than a millisecond
SMALL_TRACE = 1e-20
Arithmetic = TypeVar("Arithmetic", bound=Callable[..., Any])
INTERPOLATION_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def without_autocast(function: Arithmetic) -> Arithmetic:
    """A function of tensors that computes in their own precision, also where the caller has switched autocast on."""

    @wraps(function)
    def full(tensor: Tensor, *others: Any, **settings: Any) -> Any:
        if not torch.is_autocast_enabled(tensor.device.type):
            return function(tensor, *others, **settings)
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *others, **settings)

    return cast(Arithmetic, full)


@without_autocast
def weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    """Sum over channels of `weights` (B, K) times `activations` (B, K, *grid), as a map (B, *grid).

    >>> weighted_sum(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2, 3, 3)).shape
    torch.Size([1, 3, 3])
    """
    grid = activations.shape[2:]
    return torch.bmm(weights[:, None], activations.flatten(2)).reshape(-1, *grid)


def broadcast_over_grid(values: Tensor, like: Tensor) -> Tensor:
    """`values` (B, K) with one axis of length 1 for each grid axis of `like` (B, K, *grid), to broadcast over the grid."""
    return values.reshape(*values.shape, *[1] * (like.dim() - 2))


def is_not_constant(maps: Tensor) -> Tensor:
    """Whether a map (B, *grid) differs from place to place by more than rounding (B,)."""
    flat = maps.flatten(1)
    rounding = 8 * torch.finfo(maps.dtype).eps * flat.abs().amax(1)
    return (flat.amax(1) - flat.amin(1)) > rounding


def normalize_minmax(maps: Tensor) -> Tensor:
    """Each map (B, *grid) from its minimum to its maximum on [0, 1]; one that does not vary comes back as zeros.

    Masks are made so; heat maps are not (see `divide_by_max`), as it would hide evidence that is the same everywhere.
    """
    flat = maps.flatten(1)
    low, span = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True) - flat.amin(1, keepdim=True)
    known = is_not_constant(maps)[:, None]
    return (torch.where(known, flat - low, 0.0) / torch.where(known, span, 1.0)).reshape(maps.shape)


@without_autocast
def first_component(terms: Tensor, *, centered: bool) -> Tensor:
    """The projection (B, *grid) of cells on the first right singular vector of `terms` (B, K, *grid), cells by channels.

    `centered` takes each channel's mean over the grid away first. Through the smaller of the two Gram matrices. Its sign is
    arbitrary: `align_sign` settles it.
    """
    matrix = terms.flatten(2)
    if centered:
        matrix = matrix - matrix.mean(2, keepdim=True)
    channels, cells = matrix.shape[1:]
    gram = matrix @ matrix.mT if channels <= cells else matrix.mT @ matrix
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    if not bool((trace > SMALL_TRACE).all()):  # squares of small numbers are lost in float32: of the scale of 1, then
        scale = matrix.abs().amax((1, 2))[:, None, None]
        if not bool(((scale == 0) | (scale == 1) | ~scale.isfinite()).all()):
            scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
            whole = scale.reshape(-1, *[1] * (terms.dim() - 1))
            return first_component(terms / whole, centered=centered) * whole[:, 0]
    values, vectors = top_eigenpair(gram)
    if channels <= cells:
        projected: Tensor = matrix.mT @ vectors
    else:
        projected = vectors * values.clamp(min=0).sqrt()[:, None, None]
    return projected.reshape(-1, *terms.shape[2:])


@without_autocast
def top_eigenpair(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue (B,) of symmetric matrices (B, n, n), and its vector (B, n, 1); NaN for one that is not finite.

    Of large matrices by Lanczos' method, as all eigenvectors would cost many times that; where it does not converge, by `eigh`.
    """
    finite = matrices.sum((1, 2)).isfinite()
    if not bool(finite.all()):  # what is not a number has no component either
        values, vectors = top_eigenpair(torch.where(finite[:, None, None], matrices, 0.0))
        return values, torch.where(finite[:, None, None], vectors, torch.nan)
    if matrices.shape[1] > SMALL_MATRIX:
        pairs = [lanczos(matrix) for matrix in matrices]
        values, vectors = torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
        missed = (matrices @ vectors - values[:, None, None] * vectors).norm(dim=1)[:, 0]
        if bool((missed <= 64 * torch.finfo(matrices.dtype).eps * values.abs()).all()):
            return values, vectors
    all_values, all_vectors = torch.linalg.eigh(matrices)
    return all_values[:, -1], all_vectors[:, :, -1:]


def lanczos(matrix: Tensor, most: int = 64) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue () of a symmetric matrix (n, n) and its vector (n, 1), in the span of its first powers."""
    size, precision = len(matrix), torch.finfo(matrix.dtype).eps
    basis, projected = matrix.new_zeros(most, size), matrix.new_zeros(most, most)
    # A start that no network is likely to be blind to: it has a share in every eigenvector.
    vector = torch.cos(torch.arange(1, size + 1, dtype=matrix.dtype, device=matrix.device) ** 2)
    basis[0] = vector / vector.norm()
    for step in range(most):
        known = basis[: step + 1]
        moved = matrix @ basis[step]
        shares = known @ moved
        projected[step, : step + 1] = shares
        moved = moved - known.mT @ shares
        moved = moved - known.mT @ (known @ moved)  # once is not enough to stay orthogonal
        length = moved.norm()
        if step % 8 == 7 or step == most - 1:
            values, vectors = torch.linalg.eigh(projected[: step + 1, : step + 1])
            if step == most - 1 or float(length * vectors[-1, -1].abs()) <= 4 * precision * float(values[-1].abs()):
                break
        basis[step + 1] = moved / length.clamp(min=torch.finfo(matrix.dtype).tiny)
    return values[-1], known.mT @ vectors[:, -1:]


def align_sign(maps: Tensor, direction: Tensor) -> Tensor:
    """Each map (B, *grid), or its negative, so that its product with `direction` (B, *grid) is not negative."""
    product = (maps * direction).flatten(1).sum(1)
    return maps * torch.where(product < 0, -1.0, 1.0).to(maps.dtype).reshape(-1, *[1] * (maps.dim() - 1))


@without_autocast
def gaussian_blur(images: Tensor, size: int, sigma: float, border: str = "reflect") -> Tensor:
    """Images (B, C, *size) under a Gaussian kernel of `size` cells an axis; smaller where an image is not large enough."""
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
    """float32 for half precision; other tensors as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def rectify(maps: Tensor) -> Tensor:
    """Negatives become zero: only evidence *for* the target is left."""
    return maps.clamp(min=0)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, *grid) on another grid (B, *size): linear in each axis, align_corners=False.

    >>> resize(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), (4, 4))[0, 0]
    tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    mode = INTERPOLATION_MODES[maps.dim() - 1]
    return F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]


def divide_by_max(maps: Tensor) -> Tensor:
    """Each map (B, *grid) divided by its own maximum: at most 1, and uniform evidence stays visible.

    A map without a positive value comes back as zeros.
    """
    top = maps.flatten(1).amax(1)
    scale = torch.where(top > 0, 1 / top, torch.zeros_like(top))
    return maps * scale.reshape(-1, *[1] * (maps.dim() - 1))


def positive_evidence(maps: Tensor) -> Tensor:
    """Share of positive evidence (B,), in [0, 1]: sum of positives / sum of absolutes; NaN for a map of zeros."""
    flat = maps.flatten(1)
    return flat.clamp(min=0).sum(1) / flat.abs().sum(1)
