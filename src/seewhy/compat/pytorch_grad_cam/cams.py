"""The methods of pytorch-grad-cam under their names there. Each has a method of seewhy and states how it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from seewhy import methods
from seewhy.compat.differences import log_once
from seewhy.compat.pytorch_grad_cam.base_cam import BaseCAM
from seewhy.compat.pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputReST,
    ClassifierOutputTarget,
    Targets,
    as_functions,
)
from seewhy.methods.base import AnyMethod
from seewhy.targets.parsing import TargetSpec

Transform = Callable[..., Any] | None


class SimpleCAM(BaseCAM):
    """A method without settings. Args: see `BaseCAM`."""

    def __init__(
        self, model: nn.Module, target_layers: Iterable[nn.Module], reshape_transform: Transform = None
    ) -> None:
        super().__init__(model, target_layers, reshape_transform)


class GradCAM(SimpleCAM):
    """Grad-CAM: `seewhy.methods.GradCAM`. Args: see `BaseCAM`."""

    method = methods.GradCAM()


class HiResCAM(SimpleCAM):
    """HiResCAM: `seewhy.methods.HiResCAM`. Args: see `BaseCAM`."""

    method = methods.HiResCAM()


class GradCAMElementWise(SimpleCAM):
    """Elementwise Grad-CAM: `seewhy.methods.GradCAMElementwise`. Args: see `BaseCAM`."""

    method = methods.GradCAMElementwise()


class LayerCAM(SimpleCAM):
    """LayerCAM: `seewhy.methods.LayerCAM`. Args: see `BaseCAM`."""

    method = methods.LayerCAM()


class XGradCAM(SimpleCAM):
    """XGrad-CAM: `seewhy.methods.XGradCAM`. Args: see `BaseCAM`."""

    method = methods.XGradCAM()


class GradCAMPlusPlus(SimpleCAM):
    """Grad-CAM++: `seewhy.methods.GradCAMPlusPlus`. Args: see `BaseCAM`."""

    method = methods.GradCAMPlusPlus()
    difference = (
        "Grad-CAM++ of pytorch-grad-cam adds 1e-6 to a denominator that is often smaller; here it is computed exactly, so maps "
        "differ, most in early layers."
    )


class EigenCAM(SimpleCAM):
    """Eigen-CAM of the centered activations: `seewhy.methods.EigenCAM(centered=True)`. Args: see `BaseCAM`."""

    method = methods.EigenCAM(centered=True)
    difference = (
        "pytorch-grad-cam leaves the sign of Eigen-CAM to chance; here the map correlates with the mean activation."
    )


class EigenGradCAM(SimpleCAM):
    """Eigen-Grad-CAM: `seewhy.methods.EigenGradCAM`. Args: see `BaseCAM`."""

    method = methods.EigenGradCAM()
    difference = "pytorch-grad-cam leaves the sign of EigenGradCAM to chance; here the map correlates with HiResCAM."


class SegEigenCAM(SimpleCAM):
    """Seg-Eigen-CAM: `seewhy.methods.SegEigenCAM`. Args: see `BaseCAM`."""

    method = methods.SegEigenCAM()


class FEM(BaseCAM):
    """FEM: `seewhy.methods.FEM`.

    Args:
        model: See `BaseCAM`.
        target_layers: See `BaseCAM`.
        reshape_transform: See `BaseCAM`.
        k: An activation is salient if it is more than `k` standard deviations above the mean of its channel.
    """

    difference = (
        "FEM of pytorch-grad-cam weights all activations by the fraction of salient cells; the paper, and this map, weights "
        "the salient cells by the mean activation."
    )

    def __init__(
        self, model: nn.Module, target_layers: Iterable[nn.Module], reshape_transform: Transform = None, k: float = 2
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)
        self.k = k

    def method_for(self, eigen_smooth: bool) -> AnyMethod:
        return methods.FEM(k=self.k)


class KPCA_CAM(BaseCAM):
    """KPCA-CAM: `seewhy.methods.KPCACAM`.

    Args:
        model: See `BaseCAM`.
        target_layers: See `BaseCAM`.
        reshape_transform: See `BaseCAM`.
        kernel: "sigmoid", "rbf", "linear", "poly" or "cosine".
        gamma: Scale of the kernel. Default: 1 / number of channels.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Iterable[nn.Module],
        reshape_transform: Transform = None,
        kernel: str = "sigmoid",
        gamma: float | None = None,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)
        self.kernel, self.gamma = kernel, gamma

    def method_for(self, eigen_smooth: bool) -> AnyMethod:
        return methods.KPCACAM(kernel=self.kernel, gamma=self.gamma)  # type: ignore[arg-type]  # it checks the name


class RandomCAM(SimpleCAM):
    """A control with random weights: `seewhy.methods.RandomCAM`. Args: see `BaseCAM`."""

    method = methods.RandomCAM()
    difference = "RandomCAM draws other weights than pytorch-grad-cam, and the same ones in every call."


class ScoreCAM(SimpleCAM):
    """Score-CAM with the package's weights: `seewhy.methods.ScoreCAM(variant="gradcam")`. Args: see `BaseCAM`.

    `batch_size` can be set as an attribute.
    """

    batch_size = 16

    def method_for(self, eigen_smooth: bool) -> AnyMethod:
        return methods.ScoreCAM(variant="gradcam", batch_size=self.batch_size)


class AblationCAM(BaseCAM):
    """Ablation-CAM: `seewhy.methods.AblationCAM`.

    Args:
        model: See `BaseCAM`.
        target_layers: See `BaseCAM`.
        reshape_transform: See `BaseCAM`.
        ablation_layer: Accepted and not used: seewhy sets channels to 0 in a recorded pass.
        batch_size: Accepted and not used: the memory budget decides.
        ratio_channels_to_ablate: Accepted and not used: all channels are ablated.
    """

    difference = (
        "Ablation-CAM of pytorch-grad-cam replaces a channel of a layer with negative values by a large negative number; here, "
        "as in the paper, it becomes 0."
    )
    method = methods.AblationCAM()

    def __init__(
        self,
        model: nn.Module,
        target_layers: Iterable[nn.Module],
        reshape_transform: Transform = None,
        ablation_layer: object = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
    ) -> None:
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)
        self.batch_size = batch_size
        if ratio_channels_to_ablate != 1:
            log_once("ratio_channels_to_ablate is not used: Ablation-CAM ablates all channels here.")


class ShapleyCAM(SimpleCAM):
    """ShapleyCAM: `seewhy.methods.ShapleyCAM`. Args: see `BaseCAM`.

    It explains the logit plus the log probability of a class, whether the target is `ClassifierOutputReST` or another one.
    """

    method = methods.ShapleyCAM()

    def target_for(self, targets: Targets, images: int) -> TargetSpec:
        given = as_functions(targets, images)
        classes = [target.category for target in given or () if isinstance(target, ClassifierOutputReST)]
        if given is not None and len(classes) == len(given):
            given = [ClassifierOutputTarget(category) for category in classes]  # the method adds the log probability
        else:
            log_once(
                "ShapleyCAM of pytorch-grad-cam is Grad-CAM unless the target is ClassifierOutputReST; here it never is."
            )
        return super().target_for(given, images)


class FullGrad(BaseCAM):
    """FullGrad: `seewhy.methods.FullGrad`.

    Args:
        model: See `BaseCAM`.
        target_layers: Accepted and not used: the map belongs to the entire model.
        reshape_transform: Accepted and not used.
    """

    method = methods.FullGrad()
    difference = (
        "FullGrad of pytorch-grad-cam scales each channel to [0, 1]; here, as in the paper, each layer is scaled."
    )

    def __init__(
        self, model: nn.Module, target_layers: Iterable[nn.Module] = (), reshape_transform: Transform = None
    ) -> None:
        super().__init__(model, (), None)
