"""`GuidedBackpropReLUModel` of pytorch-grad-cam."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seewhy.compat.kept_tensors import KeepTensor
from seewhy.engine.explain import explain
from seewhy.errors import UsageError
from seewhy.signals.layer import Need


class GuidedBackpropReLUModel:
    """Guided backpropagation: the gradient of a class at the input, with ReLUs that pass only positive gradients back.

    Args:
        model: A network with ReLU. It is not modified; pytorch-grad-cam replaces its ReLU modules.
        device: Where the input is moved. Default: the device of the model.

    References:
        Springenberg et al., "Striving for simplicity", 2015, https://arxiv.org/abs/1412.6806
    """

    def __init__(self, model: nn.Module, device: str | torch.device | None = None) -> None:
        self.model = model
        self.device = device or next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def __call__(self, input_img: Tensor, target_category: int | None = None) -> NDArray[Any]:
        """Return the gradient of the first image of a batch.

        Args:
            input_img: `(B, 3, height, width)`, ready for the model.
            target_category: The class, from 0. Default: the predicted one.

        Returns:
            Array `(height, width, 3)`.

        Raises:
            UsageError: The network has no ReLU, other activations, or no such class.
        """
        if not isinstance(input_img, Tensor) or input_img.dim() != 4:
            raise UsageError("input_img: pass a tensor (B, 3, height, width).")
        kept: list[Tensor] = []
        read = KeepTensor("guidedbackprop", lambda signals: signals.guided_gradients, kept, Need.EVALUATOR)
        inputs = input_img[:1].to(self.device)
        explain(self.model, inputs, methods=read, layers=0, targets=target_category)
        return np.asarray(kept[0][0].permute(1, 2, 0).cpu())
