"""Methods that wrap another method: for a contrast of classes, with guided backpropagation, or reduced to its main pattern."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from seewhy.methods.base import Elementwise, Method, MethodCard, VariantMethod, Weighted
from seewhy.methods.gradient import GradCAM, LayerCAM
from seewhy.methods.setting_checks import check_base
from seewhy.signals.layer import Need, Signals
from seewhy.signals.scoring import AgainstNearest, Scoring, TargetScore
from seewhy.tensors.map_functions import align_sign, first_component, rectify, resize


@final
@dataclass(frozen=True)
class FinerCAM(Method):
    """Explain the difference to the most similar classes: `base` for z_c - gamma * mean(z_d).

    The classes d are those with the logits closest to that of c.

    Args:
        base: A method that uses the score's gradient.
        references: Number of classes d, at least 1.
        gamma: Weight of their mean. 0 gives the base.

    References:
        Zhang et al., "Finer-CAM", CVPR 2025, section 3.2, https://arxiv.org/abs/2501.11309
    """

    base: Method = field(default_factory=GradCAM)
    references: int = 3
    gamma: float = 0.6

    card = MethodCard(
        "Zhang et al., Finer-CAM, CVPR 2025", "base for z_c − γ·mean(z_d)",
        "Shows evidence for this class that is not evidence for the most similar classes.",
        cost="1 extra forward + backward",
        source="The paper (uniform mean, γ 0.6, 3 classes). The authors' current code weights by probability with γ 1.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.check(self.references >= 1, f"references={self.references}: must be at least 1.")
        check_base(self, self.base)
        uses_gradient = bool(self.base.needs & Need.GRADIENTS) and self.base.scoring == TargetScore()
        runs_model = bool(self.base.needs & Need.EVALUATOR) and not isinstance(self.base, VariantMethod)
        self.check(
            uses_gradient and not runs_model, f"base={self.base} does not follow the score's gradient. Use gradcam."
        )

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
    """Multiply guided backpropagation by the rectified base: sum over colors of R * U(relu(base)), at the input's size.

    U is bilinear.

    Args:
        base: A method with one map per layer.

    References:
        Springenberg et al., 2015, https://arxiv.org/abs/1412.6806
        Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.3, https://doi.org/10.1109/ICCV.2017.74
    """

    base: Method = field(default_factory=GradCAM)

    card = MethodCard(
        "Springenberg et al., 2015; Selvaraju et al., ICCV 2017", "Σ_colors R ⊙ U(relu(base))",
        "Fine lines inside the region of the base map.",
        cost="1 extra forward + backward, for all layers",
        works_on="models whose activations are ReLU",
        source="The authors' Lua code: ReLU before upsampling, no scaling in between.",
        pitfalls="Guided backpropagation hardly depends on class and weights (Adebayo et al., 2018): it draws edges.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_base(self, self.base)

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
    """Compute the first principal component of the terms that the channels add to the base's map.

    Its sign correlates positively with the sum of the terms.

    Args:
        base: A method whose map is a sum over channels.
        centered: Subtract the mean of each channel first.

    References:
        No paper. Known as "eigen smooth" from the package grad-cam.
    """

    base: Method = field(default_factory=GradCAM)
    centered: bool = True

    card = MethodCard(
        "no paper: package grad-cam (eigen smooth)", "first component of base's terms",
        "The main pattern of a map, without its noise.",
        cost="as its base", works_on="as its base",
        source="The package's definition (centered), which leaves the sign to chance.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        is_sum = isinstance(self.base, (Weighted, Elementwise))
        has_tanh = isinstance(self.base, LayerCAM) and self.base.gamma is not None
        self.check(is_sum and not has_tanh, f"{self.base} is no sum over channels. Use gradcam, hirescam or layercam.")

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
        return align_sign(first_component(terms, centered=self.centered), terms)
