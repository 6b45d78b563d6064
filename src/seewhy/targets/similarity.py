"""Targets for embeddings: the similarity to a text, another image, or a vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import ImageError, TargetError
from seewhy.targets.base import ResolvedTarget, Target, TargetContext
from seewhy.targets.names import Labels
from seewhy.tensors.nested import named_tensor

NAMED = ("embedding", "image_embeds", "image_features", "pooler_output")


@final
@dataclass(frozen=True, eq=False)
class Similarity(Target):
    """The cosine similarity, in [-1, 1], between the embedding of each image and a vector or another image.

    The embedding is the output's `embedding`, `image_embeds`, `image_features` or `pooler_output`; else its first tensor.

    Args:
        to: A vector `(D,)`, or an image (path, PIL image, array `(H, W, 3)`), which the model embeds.
        title: Name of the target. Default: from the file name.

    Raises:
        TargetError: The image cannot be read or the model has no preprocessing. From `resolve`: the output is not an
            embedding `(B, D)`.

    Example:
        >>> Similarity(torch.tensor([1.0, 0.0])).resolve(torch.tensor([[3.0, 4.0]]), None).scores
        tensor([0.6000])
    """

    to: Tensor | str | Path | Image.Image | NDArray[np.generic]
    title: str = ""

    def bind(self, context: TargetContext) -> Target:
        if isinstance(self.to, Tensor):
            return self
        if context.output_for is None:
            raise TargetError(
                self.name,
                "comparing with another image needs a model with preprocessing: pass preprocess=.",
            )
        try:
            output = context.output_for(self.to)
        except ImageError as error:  # as an ImageError, it would count as a failure of the explained image
            raise TargetError(self.name, f"the image to compare with cannot be read: {error}.") from None
        return Similarity(find_embedding(output, self.name).detach()[0], self.title or self.name)

    @property
    def name(self) -> str:
        if self.title:
            return self.title
        return f"like {Path(self.to).name}" if isinstance(self.to, (str, Path)) else "like that"

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        vector = self.to
        if not isinstance(vector, Tensor):
            raise TargetError(
                self.name, "only explain() can read an image to compare with; pass its vector (D,) to resolve()."
            )
        if vector.dim() != 1:
            raise TargetError(self.name, f"the vector to compare with has shape {tuple(vector.shape)}; pass (D,).")

        def rescore(other: object, images: Tensor) -> Tensor:
            embedding = find_embedding(other, self.name)
            if embedding.shape[1] != len(vector):
                raise TargetError(
                    self.name, f"the model's embedding has {embedding.shape[1]} numbers, and the vector {len(vector)}."
                )
            return nn.functional.cosine_similarity(embedding, vector.to(embedding)[None], dim=1)

        scores = rescore(output, torch.arange(len(find_embedding(output, self.name))))
        key = self.name.replace("|", "/")
        return ResolvedTarget(key, self.name, scores, rescore, target=self, notes=embedding_notes(output))


@final
@dataclass(frozen=True)
class TextScore(Target):
    """The cosine similarity of each image with a text, for models of images and texts such as CLIP.

    Args:
        text: The text, for example "a red bus".

    Raises:
        TargetError: The model has no text encoder. `load_model("open_clip/NAME")` loads models that have one.

    Example:
        >>> TextScore("a red bus")
        TextScore(text='a red bus')
    """

    text: str

    def bind(self, context: TargetContext) -> Target:
        if context.embed_text is None:
            raise TargetError(
                f"text:{self.text}",
                "the model has no text encoder; load a model of images and texts, such as open_clip/NAME.",
            )
        return Similarity(context.embed_text([self.text])[0].detach(), self.text)

    def resolve(self, output: object, labels: Labels) -> ResolvedTarget:
        raise TargetError(
            f"text:{self.text}", "only explain() can resolve a text, with a model that has a text encoder."
        )


def embedding_notes(output: object) -> tuple[str, ...]:
    """Return a note if the output does not name an embedding."""
    if isinstance(output, Mapping) and set(NAMED) & set(output):
        return ()
    return (
        "similarity is computed on the model's output, which names no embedding; for a classifier, that is its class scores: "
        "to compare features, pass a model that returns them",
    )


def find_embedding(output: object, target: object) -> Tensor:
    """Return the embedding (B, D) in a model's output. Raises TargetError without one."""
    embedding = named_tensor(output, NAMED)
    if embedding is None or embedding.dim() != 2 or not embedding.is_floating_point():
        shape = type(output).__name__ if embedding is None else tuple(embedding.shape)
        raise TargetError(target, f"the model's output is {shape}, not an embedding (B, D).")
    return embedding
