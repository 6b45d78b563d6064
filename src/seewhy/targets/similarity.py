"""Questions about an embedding: how like a text, another picture, or a vector it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from seewhy.errors import ImageError, TargetError
from seewhy.nested import named_tensor
from seewhy.targets.base import ResolvedTarget, Target, TargetContext
from seewhy.targets.names import Labels

NAMED = ("embedding", "image_embeds", "image_features", "pooler_output")


@final
@dataclass(frozen=True, eq=False)
class Similarity(Target):
    """The cosine between the embedding of each picture and `to`: a vector (D,), or another picture (path, PIL image, array).

    In [-1, 1]. The embedding is the output's `embedding`, `image_embeds`, `image_features` or `pooler_output`, or else the
    first tensor (B, D) in it.

    >>> asked = Similarity(torch.tensor([1.0, 0.0])).resolve(torch.tensor([[3.0, 4.0]]), None)
    >>> asked.scores
    tensor([0.6000])
    """

    to: Any
    title: str = ""

    def bind(self, around: TargetContext) -> Target:
        if isinstance(self.to, Tensor):
            return self
        if around.output_for is None:
            raise TargetError(self.name, "to compare with another picture the model must bring its preprocessing.")
        try:
            output = around.output_for(self.to)
        except ImageError as error:  # which is about pictures to be explained, and would name that
            raise TargetError(self.name, f"the picture to compare with cannot be read: {error}.") from None
        vector = embedding(output, self.name).detach()[0]
        return Similarity(vector, self.title or self.name)

    @property
    def name(self) -> str:
        if self.title:
            return self.title
        return f"like {Path(self.to).name}" if isinstance(self.to, (str, Path)) else "like that"

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        if not isinstance(self.to, Tensor):
            raise TargetError(self.name, "a picture to compare with is read by explain(); here give its vector (D,).")
        if self.to.dim() != 1:
            raise TargetError(self.name, f"the vector to compare with has shape {tuple(self.to.shape)}; give (D,).")

        def rescore(other: Any, pictures: Tensor) -> Tensor:
            found = embedding(other, self.name)
            if found.shape[1] != len(self.to):
                raise TargetError(
                    self.name, f"the model's embedding has {found.shape[1]} numbers, and the vector {len(self.to)}."
                )
            return nn.functional.cosine_similarity(found, self.to.to(found)[None], dim=1)

        batch = len(embedding(output, self.name))
        return ResolvedTarget(
            self.name.replace("|", "/"), self.name, rescore(output, torch.arange(batch)), rescore, origin=self,
            notes=unnamed(output),
        )  # fmt: skip


@final
@dataclass(frozen=True)
class TextScore(Target):
    """How well a text fits each picture, for models of pictures and texts (CLIP): the cosine of their embeddings.

    Raises TargetError where the model has no text encoder. Works with models from `load_model("open_clip/...")`.
    """

    text: str

    def bind(self, around: TargetContext) -> Target:
        if around.embed_text is None:
            raise TargetError(
                self.text, "the model has no text encoder; a text needs a model of pictures and texts: open_clip/NAME."
            )
        return Similarity(around.embed_text([self.text])[0].detach(), self.text)

    def resolve(self, output: Any, labels: Labels) -> ResolvedTarget:
        raise TargetError(self.text, "a text is asked by explain() of a model that brings a text encoder.")


def unnamed(output: Any) -> tuple[str, ...]:
    """What to say where the model does not say that it gives an embedding."""
    if isinstance(output, Mapping) and set(NAMED) & set(output):
        return ()
    return (
        "compared by the model's own output, as it names no embedding; of a classifier those are class scores: for its "
        "features give a model that returns them",
    )


def embedding(output: Any, target: object) -> Tensor:
    """The embedding (B, D) in a model's output. Raises TargetError where there is none."""
    found = named_tensor(output, NAMED)
    if found is None or found.dim() != 2 or not found.is_floating_point():
        shape = type(output).__name__ if found is None else tuple(found.shape)
        raise TargetError(target, f"the model's output is {shape}, not an embedding (B, D).")
    return found
