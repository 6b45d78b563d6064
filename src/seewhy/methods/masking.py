"""Methods that mask the input with a layer's channels and compute the score of the masked input.

Notation: x (C, *size) one input, A (K, *grid), U linear resizing to the input's size, N min-max scaling to [0, 1], p the
probability of the class, z its logit. A masked input is x * mask: 0 in the model's input space, which for normalized inputs
is the mean color. Constant channels mask nothing and are skipped.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from seewhy.methods.base import MethodCard, Weighted
from seewhy.methods.setting_checks import check_batch
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import Probability, Scoring, TargetScore
from seewhy.tensors.map_functions import (
    INTERPOLATION_MODES,
    is_not_constant,
    normalize_minmax,
    resize,
)

MEAN_COLOR = "Masked pixels become 0 in the model's input space (the mean color), which is not a neutral input."


@dataclass(frozen=True)
class Masking(Weighted):
    """Base class: weight each channel by a score of the input masked with it."""

    needs = Need.EVALUATOR

    def weights(self, signals: Signals) -> Tensor:
        return torch.stack([self.weights_of(signals, index) for index in range(len(signals.activations))])

    @abstractmethod
    def weights_of(self, signals: Signals, index: int) -> Tensor:
        """Return the weight of each channel `(K,)` for one image."""


@final
@dataclass(frozen=True)
class ScoreCAM(Masking):
    """Weight each channel by the score of the input masked with it: w_k = p(x * N(U(A_k))).

    Args:
        variant: "authors" is their code, as above. "paper" is equation 4: the softmax over channels of the logits
            z(x * N(U(A_k))); a baseline's logit would cancel. "gradcam" and "torchcam" are what those packages compute: the
            softmax too, with aligned corners and constant channels (gradcam), or with masks made before resizing (torchcam).
        batch_size: Rows per forward pass, at least 1. None: as many as fit in the memory budget.

    References:
        Wang et al., "Score-CAM", CVPRW 2020, equation 4, https://arxiv.org/abs/1910.01279
    """

    variant: Literal["authors", "paper", "gradcam", "torchcam"] = "authors"
    batch_size: int | None = None

    card = MethodCard(
        "Wang et al., Score-CAM, CVPRW 2020", "Σₖ p(x ⊙ N(U(Aₖ))) Aₖ",
        "No gradients, so no noise from them; broad maps.",
        cost="K forwards of the full model",
        source="The default is the authors' code, not the paper, whose softmax over channels (variant=paper) is nearly one-hot "
        "for a thousand channels.",
        pitfalls=MEAN_COLOR,
    )  # fmt: skip

    def __post_init__(self) -> None:
        choices = ("authors", "paper", "gradcam", "torchcam")
        self.check(self.variant in choices, f"variant={self.variant!r}: must be one of {', '.join(choices)}.")
        check_batch(self, self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels

    def weights_of(self, signals: Signals, index: int) -> Tensor:
        own, image = signals.activations[index], signals.inputs[index]
        size = image.shape[1:]
        alive = varying_maps(own)
        channels_used = torch.arange(len(own), device=own.device) if self.variant == "gradcam" else alive

        def masked(rows: slice) -> Tensor:
            maps = own[channels_used[rows]]
            if self.variant == "torchcam":
                masks = resize(normalize_minmax(maps), size)
            elif self.variant == "gradcam":
                mode = INTERPOLATION_MODES[maps.dim() - 1]
                masks = normalize_minmax(
                    F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=True)[:, 0]
                )
                masks[~torch.isin(channels_used[rows], alive)] = 0  # rounding of a constant is not a mask
            else:
                masks = normalize_minmax(resize(maps, size))
            return image * masks[:, None].to(image.dtype)

        scoring: Scoring = Probability() if self.variant == "authors" else TargetScore()
        scores = signals.score_inputs(
            index, len(channels_used), masked, scoring=scoring, batch_size=self.batch_size, shared=self
        )
        weights = own.new_zeros(len(own))
        weights[channels_used] = (scores if self.variant == "authors" else scores.softmax(0)).to(own.dtype)
        return weights


@final
@dataclass(frozen=True)
class SSCAM(Masking):
    """Score-CAM with noise: w_k is the mean of p over noisy versions of the masked input.

    The standard deviation of the noise is (sigma / spread)^2, where spread is the range of what it is added to.

    Args:
        samples: Noisy versions per channel, at least 1.
        sigma: 0 or more.
        on: "input" adds noise to x * N(U(A_k)); "map" adds it to U(A_k), which then masks without being scaled.
        seed: Seed of the noise.
        batch_size: Rows per forward pass, at least 1. None: as many as fit in the memory budget.

    References:
        Wang et al., "SS-CAM", 2020, https://arxiv.org/abs/2006.14255
    """

    samples: int = 35
    sigma: float = 2.0
    on: Literal["input", "map"] = "input"
    seed: int = 0
    batch_size: int | None = None

    card = MethodCard(
        "Wang et al., SS-CAM, 2020", "Σₖ mean p(x ⊙ N(U(Aₖ)) + noise) Aₖ",
        "A smoother Score-CAM at 35 times its cost.",
        cost="35 K forwards of the full model",
        source="A notebook by an author of IS-CAM; package torchcam adds noise of 2 to masks in [0, 1].",
        pitfalls=MEAN_COLOR,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.samples >= 1, f"samples={self.samples}: must be at least 1.")
        self.check(self.sigma >= 0, f"sigma={self.sigma}: must be 0 or more.")
        self.check(self.on in ("input", "map"), f"on={self.on!r}: must be 'input' or 'map'.")
        check_batch(self, self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels * self.samples

    def weights_of(self, signals: Signals, index: int) -> Tensor:
        own, image = signals.activations[index], signals.inputs[index]
        weights = own.new_zeros(len(own))
        for channel in varying_maps(own).tolist():
            shown = resize(own[channel : channel + 1], image.shape[1:]).to(image.dtype)
            base = image * normalize_minmax(shown) if self.on == "input" else shown
            spread = base.amax() - base.amin()
            deviation = torch.where(spread > 0, (self.sigma / spread) ** 2, 0.0)
            generator = torch.Generator().manual_seed(self.seed + channel)
            noise = torch.randn(self.samples, *base.shape, generator=generator, dtype=torch.float64)

            def noisy(rows: slice, base: Tensor = base, spread: Tensor = deviation, noise: Tensor = noise) -> Tensor:
                moved = base + spread * noise[rows].to(base)
                return moved if self.on == "input" else image * moved

            scores = signals.score_inputs(
                index, self.samples, noisy, scoring=Probability(), batch_size=self.batch_size, shared=(self, channel)
            )
            weights[channel] = scores.mean().to(own.dtype)
        return weights


@final
@dataclass(frozen=True)
class ISCAM(Masking):
    """Score-CAM along a path: w_k is the mean of p(a_i x * N(U(A_k))) over i = 1 ... steps.

    Args:
        steps: Steps of the path, at least 1.
        schedule: "linear": a_i = i / steps. "cumulative": a_i = i (i + 1) / (2 steps), which grows to 5.5 for 10 steps, as in
            an author's notebook and in the package torchcam.
        batch_size: Rows per forward pass, at least 1. None: as many as fit in the memory budget.

    References:
        Naidu et al., "IS-CAM", 2020, https://arxiv.org/abs/2010.03023
    """

    steps: int = 10
    schedule: Literal["linear", "cumulative"] = "linear"
    batch_size: int | None = None

    card = MethodCard(
        "Naidu et al., IS-CAM, 2020", "Σₖ meanᵢ p(aᵢ x ⊙ N(U(Aₖ))) Aₖ",
        "Score-CAM with fewer accidental high scores, at 10 times its cost.",
        cost="10 K forwards of the full model",
        source="The integral of the abstract; the author's notebook sums the factors up: schedule=cumulative.",
        pitfalls=MEAN_COLOR,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.steps >= 1, f"steps={self.steps}: must be at least 1.")
        choices = ("linear", "cumulative")
        self.check(self.schedule in choices, f"schedule={self.schedule!r}: must be 'linear' or 'cumulative'.")
        check_batch(self, self.batch_size)

    def forwards(self, channels: int, cells: int) -> int:
        return channels * self.steps

    def weights_of(self, signals: Signals, index: int) -> Tensor:
        own, image = signals.activations[index], signals.inputs[index]
        channels_used = varying_maps(own)
        steps = torch.arange(1, self.steps + 1, dtype=torch.float64)
        factors = steps / self.steps if self.schedule == "linear" else steps * (steps + 1) / (2 * self.steps)

        def masked(rows: slice) -> Tensor:
            row = torch.arange(rows.start, rows.stop)
            masks = normalize_minmax(resize(own[channels_used[row // self.steps]], image.shape[1:]))
            by = factors[row % self.steps].reshape(-1, *[1] * image.dim()).to(image)
            return image * masks[:, None].to(image.dtype) * by

        count = len(channels_used) * self.steps
        scores = signals.score_inputs(
            index, count, masked, scoring=Probability(), batch_size=self.batch_size, shared=self
        )
        weights = own.new_zeros(len(own))
        weights[channels_used] = scores.reshape(len(channels_used), self.steps).mean(1).to(own.dtype)
        return weights


def varying_maps(maps: Tensor) -> Tensor:
    """Return the indices of the maps `(N, *grid)` that are not constant."""
    return is_not_constant(maps).nonzero()[:, 0]
