"""`ZeroShot`: the picture side of CLIP as a classifier, whose classes are texts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.nested import first_tensor

EmbedText = Callable[[Sequence[str]], Tensor]
PROMPT = "a photo of a {}"
SIGMOID = "the model scores each text by itself (SigLIP): for its own probabilities pass multilabel=True (--multilabel)"


class ZeroShot(nn.Module):
    """Pictures to `embedding` (B, D) of length 1, and where there are texts, to `logits` (B, K), the same as CLIP's.

    >>> ZeroShot(nn.Flatten(), scale=100.0)(torch.ones(1, 1, 2, 2))
    {'embedding': tensor([[0.5000, 0.5000, 0.5000, 0.5000]])}
    """

    scale: Tensor
    bias: Tensor
    text: Tensor | None

    def __init__(self, visual: nn.Module, scale: float, bias: float = 0.0) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("bias", torch.tensor(float(bias)))
        self.register_buffer("text", None)

    @property
    def num_classes(self) -> int | None:
        return None if self.text is None else len(self.text)

    def with_text(self, text: Tensor) -> ZeroShot:
        """The same network, sharing its weights, for the classes whose texts were embedded as `text` (K, D)."""
        other = copy.copy(self)
        other._buffers = {**self._buffers, "text": text.to(self.scale.device)}
        return other

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        embedding = normalized(self.visual(pixels))
        if self.text is None:
            return {"embedding": embedding}
        logits = self.scale * embedding @ self.text.T.to(embedding) + self.bias
        return {"logits": logits, "embedding": embedding}


def normalized(features: Any) -> Tensor:
    """The first tensor in `features`, each row of length 1."""
    found = first_tensor(features)
    assert found is not None
    return nn.functional.normalize(found, dim=-1)


def prompts(labels: Sequence[str]) -> list[str]:
    """
    >>> prompts(["cat"])
    ['a photo of a cat']
    """
    return [PROMPT.format(label) for label in labels]
