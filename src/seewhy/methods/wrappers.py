"""Methods made of another method: for another question, through guided backpropagation, or its main pattern only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from seewhy.methods.base import Elementwise, Method, MethodCard, VariantMethod, Weighted
from seewhy.methods.gradient import GradCAM, LayerCAM
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import AgainstNearest, Scoring, TargetScore
from seewhy.tensors import align_sign, first_component, rectify, resize


@final
@dataclass(frozen=True)
class FinerCAM(Method):
    """What tells a class from those most like it: `base` for z_c - gamma * mean(z_d) over the nearest classes d.

    Zhang et al., CVPR 2025 (arXiv 2501.11309), section 3.2: `references` classes with the closest logits, gamma 0.6. With
    gamma 0 it is the base.
    """

    base: Method = field(default_factory=GradCAM)
    references: int = 3
    gamma: float = 0.6

    card = MethodCard(
        "Zhang et al., Finer-CAM, CVPR 2025", "base for z_c − γ·mean(z_d)",
        "Shows what speaks for this class and not for the classes most like it.",
        cost="1 forward + 1 backward of its own",
        source="The paper (uniform mean, γ 0.6, 3 classes). The authors' current code weights by probability with γ 1.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.references >= 1, f"references={self.references}: give at least 1.")
        self.check_base(self.base)
        follows = bool(self.base.needs & Need.GRADIENTS) and self.base.scoring == TargetScore()
        asks = bool(self.base.needs & Need.EVALUATOR) and not isinstance(self.base, VariantMethod)
        self.check(follows and not asks, f"base={self.base} does not follow the score's gradient; take gradcam.")

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs

    @property
    def scoring(self) -> Scoring:
        return AgainstNearest(self.references, self.gamma)

    def forwards(self, channels: int, cells: int) -> int:
        return self.base.forwards(channels, cells)

    def __call__(self, signals: Signals) -> Tensor:
        return self.base(signals)


@final
@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided backpropagation where the base is positive: sum over colours of R * U(relu(base)), at the input's size.

    Springenberg et al., 2015, and Selvaraju et al., ICCV 2017, section 3.3. U is bilinear.
    """

    base: Method = field(default_factory=GradCAM)

    card = MethodCard(
        "Springenberg et al., 2015; Selvaraju et al., ICCV 2017", "Σ_colours R ⊙ U(relu(base))",
        "Fine lines inside the region of the base map.",
        cost="1 forward + 1 backward of its own, for all layers",
        works_on="networks whose activations are ReLU",
        source="The authors' Lua code: ReLU before upsampling, no scaling in between.",
        pitfalls="Guided backpropagation hardly depends on class and weights (Adebayo et al., 2018): it draws edges.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check_base(self.base)

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs | Need.EVALUATOR

    @property
    def scoring(self) -> Scoring:
        return self.base.scoring

    def forwards(self, channels: int, cells: int) -> int:
        return self.base.forwards(channels, cells)

    def __call__(self, signals: Signals) -> Tensor:
        where = resize(rectify(self.base(signals)), signals.inputs.shape[2:])
        return signals.guided_gradients.sum(1).to(where.dtype) * where


@final
@dataclass(frozen=True)
class EigenSmooth(Method):
    """The first principal component of what the channels add to the base's map, turned to face their sum.

    Known as "eigen smooth" from the package grad-cam. The base must be a sum over channels.
    """

    base: Method = field(default_factory=GradCAM)
    centered: bool = True

    card = MethodCard(
        "package grad-cam (eigen smooth)", "first component of base's terms",
        "The main pattern of a map, without its noise.",
        cost="as its base", works_on="as its base",
        source="The package's definition (centred); it leaves the sign to chance.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        sums = isinstance(self.base, (Weighted, Elementwise))
        lifted = isinstance(self.base, LayerCAM) and self.base.gamma is not None
        self.check(sums and not lifted, f"{self.base} is no sum over channels; take gradcam, hirescam or layercam.")

    @property
    def needs(self) -> Need:  # type: ignore[override]
        return self.base.needs

    @property
    def scoring(self) -> Scoring:
        return self.base.scoring

    def forwards(self, channels: int, cells: int) -> int:
        return self.base.forwards(channels, cells)

    def __call__(self, signals: Signals) -> Tensor:
        assert isinstance(self.base, (Weighted, Elementwise))
        terms = self.base.terms(signals)
        return align_sign(first_component(terms, centered=self.centered), terms.sum(1))
