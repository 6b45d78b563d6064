"""Methods that look at a layer's activations A only. All but CAM know no class: they show what the layer holds.

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
from seewhy.tensors import (
    align_sign,
    broadcast_over_grid,
    first_component,
    is_not_constant,
    top_eigenpair,
    weighted_sum,
)

MOST_CELLS = 4096  # of each two of which kernel PCA makes one number
CLASS_FREE = "Knows no class: the same map for every target."


@final
@dataclass(frozen=True)
class CAM(Weighted):
    """Channels weighted by the linear head's weights for the class: sum_k W_ck A_k (without the bias).

    Zhou et al., CVPR 2016, equation 2. Only where the class scores come from the mean of this layer by one linear layer.
    """

    card = MethodCard(
        "Zhou et al., CAM, CVPR 2016", "Σₖ W_ck Aₖ",
        "What the head reads; equal to Grad-CAM times the number of cells.",
        cost="shared: 1 forward", works_on="networks that end in mean pooling and one linear layer, at the layer before",
    )  # fmt: skip
    needs = Need.HEAD

    def weights(self, signals: Signals) -> Tensor:
        return signals.head_weights


@final
@dataclass(frozen=True)
class EigenCAM(Method):
    """The first principal component of the activations: cells projected on the first right singular vector.

    Muhammad and Yeasin, IJCNN 2020. Not centred; the sign, which the paper leaves open, faces the sum of the activations.
    """

    centered: bool = False

    card = MethodCard(
        "Muhammad & Yeasin, Eigen-CAM, IJCNN 2020", "first component of A",
        "The main pattern of the layer: usually the most striking object.",
        cost="shared: 1 forward", pitfalls=CLASS_FREE,
        source="Uncentred, as in the paper; package grad-cam centres and leaves the sign to chance.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        return align_sign(first_component(signals.activations, centered=self.centered), signals.activations.sum(1))


@final
@dataclass(frozen=True)
class KPCACAM(Method):
    """The first kernel principal component of the cells: sqrt(lambda) v, with the largest entry positive.

    Karmani et al., MMSP 2024 (arXiv 2410.00267). Cells are vectors of K centred channels; kernels as in scikit-learn:
    sigmoid tanh(gamma x.z + coef0), rbf exp(-gamma |x - z|^2), poly (gamma x.z + coef0)^degree, linear, cosine; `gamma`
    None is 1 / K.
    """

    kernel: Literal["sigmoid", "rbf", "poly", "linear", "cosine"] = "sigmoid"
    gamma: float | None = None
    coef0: float = 1.0
    degree: int = 3

    card = MethodCard(
        "Karmani et al., KPCA-CAM, MMSP 2024", "first kernel component of A",
        "Eigen-CAM with a bend: sharper where the channels are not linear in the object.",
        cost="shared: 1 forward, and the eigenvectors of a matrix of cells by cells",
        source="The author's own version in the package grad-cam (sigmoid); the sign as scikit-learn fixes it.",
        pitfalls=CLASS_FREE + " Slow for large grids.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __post_init__(self) -> None:
        known = ("sigmoid", "rbf", "poly", "linear", "cosine")
        self.check(self.kernel in known, f"kernel={self.kernel!r}: give one of {', '.join(known)}.")

    def __call__(self, signals: Signals) -> Tensor:
        cells = signals.activations.flatten(2).mT
        if cells.shape[1] > MOST_CELLS:
            raise MethodError(
                "",
                f"it compares each cell with each: {cells.shape[1]:,} are too many (at most {MOST_CELLS:,}); take eigencam.",
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
    """Where a channel is unusually active, weighted by its mean: sum_k mean(A_k) [A_k > mean + k std].

    Fuad et al., IPTA 2020: k = 2, the standard deviation over the grid.
    """

    k: float = 2.0

    card = MethodCard(
        "Fuad et al., FEM, IPTA 2020", "Σₖ mean(Aₖ) [Aₖ > μₖ + 2σₖ]",
        "Few, strong places; needs no gradient.",
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
    """The mean activation of all channels: mean_k A_k.

    Karjauv and Albayrak, 2024 (arXiv 2407.06059).
    """

    card = MethodCard(
        "Karjauv & Albayrak, LaFAM, 2024", "meanₖ Aₖ",
        "Where the layer is active at all: what every CAM must beat.",
        cost="shared: 1 forward", pitfalls=CLASS_FREE,
    )  # fmt: skip
    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        return signals.activations.mean(1)


@final
@dataclass(frozen=True)
class RandomCAM(Weighted):
    """Channels weighted at random, uniform in [-1, 1]: the control that a method must beat.

    Known from the package grad-cam. The weights depend on `seed` and the number of channels only.
    """

    seed: int = 0

    card = MethodCard(
        "package grad-cam", "Σₖ rₖ Aₖ, r uniform in [−1, 1]",
        "The control: a method that looks no better than this says nothing.",
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
    """A few concepts whose sum is the layer: non-negative factors W H of relu(A), one map for each concept.

    Collins et al., ECCV 2018. Lee and Seung's multiplicative updates of the squared error, from a random start; every
    picture alone. A concept's map is its column of W times the length of its row of H; concepts come in order of their
    share of the whole.
    """

    concepts: int = 4
    iterations: int = 200
    seed: int = 0

    card = MethodCard(
        "Collins et al., Deep Feature Factorization, ECCV 2018", "relu(A) ≈ W H, W ≥ 0, H ≥ 0",
        "Splits a layer into parts: legs, faces, sky.",
        cost="shared: 1 forward, and some hundred products of matrices",
        source="The authors' nmf.py; scale and order of the concepts are seewhy's, as the factors leave them open.",
        pitfalls=CLASS_FREE + " Another seed may split otherwise.",
    )  # fmt: skip
    needs = Need.NOTHING

    def __post_init__(self) -> None:
        self.check(self.concepts >= 1, f"concepts={self.concepts}: give at least 1.")

    def __call__(self, signals: Signals) -> Tensor:
        cells = signals.activations.flatten(2).mT.clamp(min=0)
        maps = torch.stack([self.factorize(picture) for picture in cells])
        return maps.reshape(len(maps), self.concepts, *signals.activations.shape[2:])

    def factorize(self, cells: Tensor) -> Tensor:
        """The concept maps (concepts, n) of one picture's cells (n, K)."""
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
