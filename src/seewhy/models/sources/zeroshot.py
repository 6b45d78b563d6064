"""`ZeroShot`: the image encoder of CLIP as a classifier whose classes are texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.tensors.nested import first_tensor

PROMPT = "a photo of a {}"
SIGMOID_NOTE = (
    "the model scores each text independently (SigLIP): for its probabilities pass multilabel=True (--multilabel)"
)


class ZeroShot(nn.Module):
    """Map images to `embedding` (B, D) of unit length and, if texts are set, to CLIP's `logits` (B, K).

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
        """Return a copy with shared weights and the text embeddings `text` (K, D) as classes."""
        shared = {id(item): item for item in (self.visual, *self.buffers(recurse=False))}
        other = copy.deepcopy(self, shared)
        other.text = text.to(self.scale.device)
        return other

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        embedding = normalize_rows(self.visual(pixels))
        if self.text is None:
            return {"embedding": embedding}
        logits = self.scale * embedding @ self.text.T.to(embedding) + self.bias
        return {"logits": logits, "embedding": embedding}


def normalize_rows(features: Any) -> Tensor:
    """Return the first tensor in `features` with each row scaled to unit length."""
    tensor = first_tensor(features)
    assert tensor is not None
    return nn.functional.normalize(tensor, dim=-1)


def build_prompts(labels: Sequence[str]) -> list[str]:
    """
    >>> build_prompts(["cat"])
    ['a photo of a cat']
    """
    return [PROMPT.format(label) for label in labels]
