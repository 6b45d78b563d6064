"""Methods that read only a layer's activations A. Except CAM they do not depend on the class.

Notation: A (B, K, *grid); n the number of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from seewhy.errors import MethodError
from seewhy.methods.base import Method, MethodCard, MultiMapMethod, Weighted
from seewhy.signals.layer import Need, Signals
from seewhy.tensors.map_functions import (
    align_sign,
    broadcast_over_grid,
    first_component,
    is_not_constant,
    top_eigenpair,
    weighted_sum,
)

MAX_CELLS = 4096  # kernel PCA stores a number for each pair of cells
CLASS_FREE = "Independent of the class: the same map for every target."


@final
@dataclass(frozen=True)
class CAM(Weighted):
    """Weight each channel by the linear head's weight for the class: sum_k W_ck A_k, without the bias.

    References:
        Zhou et al., "CAM", CVPR 2016, equation 2, https://arxiv.org/abs/1512.04150
    """

    card = MethodCard(
        "Zhou et al., CAM, CVPR 2016", "Σₖ W_ck Aₖ",
        "The evidence that the head sums up; equal to Grad-CAM times the number of cells.",
        cost="shared: 1 forward", works_on="models that end in mean pooling and one linear layer, at the layer before",
    )  # fmt: skip
    needs = Need.HEAD

    def weights(self, signals: Signals) -> Tensor:
        return signals.head_weights


@final
@dataclass(frozen=True)
class EigenCAM(Method):
    """Compute the first principal component of the activations: project the cells on the first right singular vector.

    The paper leaves the sign open; here it correlates positively with the sum of the activations.

    Args:
        centered: Subtract the mean of each channel first.

    References:
        Muhammad and Yeasin, "Eigen-CAM", IJCNN 2020, https://arxiv.org/abs/2008.00299
    """

    centered: bool = False

    card = MethodCard(
        "Muhammad & Yeasin, Eigen-CAM, IJCNN 2020", "first component of A",
        "The main pattern of the layer: usually the most salient object.",
        cost="shared: 1 forward", pitfalls=CLASS_FREE,
        source="Not centered, as in the paper; package grad-cam centers and leaves the sign to chance.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        return align_sign(first_component(signals.activations, centered=self.centered), signals.activations)


@final
@dataclass(frozen=True)
class KPCACAM(Method):
    """Compute the first kernel principal component of the cells: sqrt(lambda) v, with the largest entry positive.

    Cells are vectors of K centered channels; kernels are those of scikit-learn. At most 4,096 cells.

    Args:
        kernel: "sigmoid" tanh(gamma x.z + coef0), "rbf" exp(-gamma |x - z|^2), "poly" (gamma x.z + coef0)^degree, "linear"
            or "cosine".
        gamma: Scale of the kernel. None: 1 / K.
        coef0: Offset of the kernels "sigmoid" and "poly".
        degree: Exponent of "poly".

    References:
        Karmani et al., "KPCA-CAM", MMSP 2024, https://arxiv.org/abs/2410.00267
    """

    kernel: Literal["sigmoid", "rbf", "poly", "linear", "cosine"] = "sigmoid"
    gamma: float | None = None
    coef0: float = 1.0
    degree: int = 3

    card = MethodCard(
        "Karmani et al., KPCA-CAM, MMSP 2024", "first kernel component of A",
        "A nonlinear Eigen-CAM: sharper where the channels do not depend linearly on the object.",
        cost="shared: 1 forward, and the eigenvectors of a matrix of cells by cells",
        source="The author's own version in the package grad-cam (sigmoid); the sign convention is that of scikit-learn.",
        pitfalls=CLASS_FREE + " Slow for large grids.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __post_init__(self) -> None:
        choices = ("sigmoid", "rbf", "poly", "linear", "cosine")
        self.check(self.kernel in choices, f"kernel={self.kernel!r}: must be one of {', '.join(choices)}.")

    def __call__(self, signals: Signals) -> Tensor:
        cells = signals.activations.flatten(2).mT
        if cells.shape[1] > MAX_CELLS:
            raise MethodError(
                "",
                f"it compares all pairs of cells: {cells.shape[1]:,} cells are too many (at most {MAX_CELLS:,}). Use eigencam.",
            )
        cells = cells - cells.mean(1, keepdim=True)
        kernel = self.products(cells)
        rows = kernel.mean(2, keepdim=True)
        kernel = kernel - rows - rows.mT + rows.mean(1, keepdim=True)
        values, vectors = top_eigenpair(kernel)
        maps = vectors[:, :, 0] * values.clamp(min=0).sqrt()[:, None]
        peak = maps.gather(1, maps.abs().argmax(1, keepdim=True))
        turned: Tensor = maps * torch.where(peak < 0, -1.0, 1.0).to(maps.dtype)
        return turned.reshape(-1, *signals.activations.shape[2:])

    def products(self, cells: Tensor) -> Tensor:
        gamma = 1 / cells.shape[2] if self.gamma is None else self.gamma
        match self.kernel:
            case "cosine":
                cells = torch.nn.functional.normalize(cells, dim=2)
                return cells @ cells.mT
            case "linear":
                return cells @ cells.mT
            case "rbf":
                return torch.exp(-gamma * torch.cdist(cells, cells) ** 2)
            case "poly":
                return torch.pow(gamma * cells @ cells.mT + self.coef0, self.degree)
        return torch.tanh(gamma * cells @ cells.mT + self.coef0)


@final
@dataclass(frozen=True)
class FEM(Method):
    """Sum the masks of unusually high activations, weighted by channel means: sum_k mean(A_k) [A_k > mean + k std].

    Args:
        k: Threshold in standard deviations over the grid.

    References:
        Fuad et al., "FEM", IPTA 2020.
    """

    k: float = 2.0

    card = MethodCard(
        "Fuad et al., FEM, IPTA 2020", "Σₖ mean(Aₖ) [Aₖ > μₖ + 2σₖ]",
        "A few strong places; needs no gradient.",
        cost="shared: 1 forward", pitfalls=CLASS_FREE,
        source="Two independent reimplementations agree; package grad-cam computes something else.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        cells = signals.activations.flatten(2)
        means = cells.mean(2)
        deviations = (cells - means[:, :, None]).square().mean(2).sqrt()  # many times faster than std()
        limits = means + self.k * deviations
        limits[~is_not_constant(cells.flatten(0, 1)).reshape(means.shape)] = (
            torch.inf
        )  # a constant may lie above its rounded mean
        striking = signals.activations > broadcast_over_grid(limits, signals.activations)
        return weighted_sum(means, striking.to(means.dtype))


@final
@dataclass(frozen=True)
class LaFAM(Method):
    """Compute the mean activation over all channels: mean_k A_k.

    References:
        Karjauv and Albayrak, "LaFAM", 2024, https://arxiv.org/abs/2407.06059
    """

    card = MethodCard(
        "Karjauv & Albayrak, LaFAM, 2024", "meanₖ Aₖ",
        "Where the layer is active at all: a baseline for every CAM.",
        cost="shared: 1 forward", pitfalls=CLASS_FREE,
    )  # fmt: skip
    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        return signals.activations.mean(1)


@final
@dataclass(frozen=True)
class RandomCAM(Weighted):
    """Weight the channels at random, uniformly in [-1, 1]: a control for other methods.

    The weights depend only on `seed` and the number of channels.

    Args:
        seed: Seed of the weights.

    References:
        No paper. Known from the package grad-cam.
    """

    seed: int = 0

    card = MethodCard(
        "no paper: package grad-cam", "Σₖ rₖ Aₖ, r uniform in [−1, 1]",
        "The control: a method whose maps look no better than these shows nothing.",
        cost="shared: 1 forward", pitfalls=CLASS_FREE,
    )  # fmt: skip
    needs = Need.NOTHING

    def weights(self, signals: Signals) -> Tensor:
        batch, channels = signals.activations.shape[:2]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(channels, generator=generator, dtype=torch.float64) * 2 - 1
        return drawn.to(signals.activations).expand(batch, channels)


@final
@dataclass(frozen=True)
class DeepFeatureFactorization(MultiMapMethod):
    """Factorize a layer into a few concepts: non-negative factors W H of relu(A), one map per concept.

    Lee and Seung's multiplicative updates of the squared error, from a random start, for each image separately. A concept's
    map is its column of W times the norm of its row of H; concepts are sorted by the norm of their map.

    Args:
        concepts: Number of maps, at least 1.
        iterations: Number of updates.
        seed: Seed of the start.

    References:
        Collins et al., "Deep Feature Factorization", ECCV 2018, https://arxiv.org/abs/1806.10206
    """

    concepts: int = 4
    iterations: int = 200
    seed: int = 0

    card = MethodCard(
        "Collins et al., Deep Feature Factorization, ECCV 2018", "relu(A) ≈ W H, W ≥ 0, H ≥ 0",
        "Splits a layer into parts: legs, faces, sky.",
        cost="shared: 1 forward, and some hundred matrix products",
        source="The authors' nmf.py; scale and order of the concepts are seewhy's, as the factors leave them open.",
        pitfalls=CLASS_FREE + " Another seed may give another split.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __post_init__(self) -> None:
        self.check(self.concepts >= 1, f"concepts={self.concepts}: must be at least 1.")

    def __call__(self, signals: Signals) -> Tensor:
        cells = signals.activations.flatten(2).mT.clamp(min=0)
        maps = torch.stack([self.factorize(image_cells) for image_cells in cells])
        return maps.reshape(len(maps), self.concepts, *signals.activations.shape[2:])

    def factorize(self, cells: Tensor) -> Tensor:
        """Return the concept maps `(concepts, n)` of one image's cells `(n, K)`."""
        generator = torch.Generator().manual_seed(self.seed)
        scale = (cells.mean() / self.concepts).sqrt()

        def start(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).abs().to(cells) * scale

        left, right = start(len(cells), self.concepts), start(self.concepts, cells.shape[1])
        for _ in range(self.iterations):
            left = left * ratio(cells @ right.mT, left @ (right @ right.mT))
            right = right * ratio(left.mT @ cells, (left.mT @ left) @ right)
        maps: Tensor = left.mT * right.norm(dim=1)[:, None]
        return maps[maps.norm(dim=1).argsort(descending=True, stable=True)]


def ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below, 1.0)
