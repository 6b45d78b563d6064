"""Run a model once without changing it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seewhy.tensors.random_state import preserve_rng
from seewhy.tracing.twin import make_twin


def output_of(model: nn.Module, inputs: Tensor) -> Any:
    """Return the output of the model in eval mode, without gradients.

    Args:
        model: The model. A twin of it runs.
        inputs: The inputs `(B, C, *size)`, on the device of the model.
    """
    with torch.inference_mode(False), torch.no_grad(), preserve_rng(inputs.device):
        return make_twin(model)(inputs)
