"""`LoadedModel`: a module with its preprocessing, labels and URI."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import ModelError, shorten_error
from seewhy.images.preprocess import Preprocess

PreprocessFunction = Callable[[Image.Image], Tensor]  # its crop of the photo is unknown
EmbedText = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class LoadedModel:
    """A model with its preprocessing and labels, as `load_model` returns it.

    Attributes:
        module: The network.
        preprocess: A `Preprocess`, or a function from a PIL image to a tensor `(C, height, width)`, such as a transform
            of torchvision. Only a `Preprocess` can map results back to the photo. None if unknown.
        labels: One label per class, such as "tench, Tinca tinca". None if unknown.
        uri: The model URI; `load_model(uri)` loads the same model again. For a module: its class name.
        notes: What was inferred while loading, one sentence each.
        embed_text: For CLIP models: maps N texts to unit-length embeddings, shape `(N, D)`, on the CPU. They are
            comparable with the model output "embedding". None for other models.

    Example:
        >>> from seewhy.models.loading import load_model
        >>> load_model().labels[654]
        'minibus'
    """

    module: nn.Module
    preprocess: Preprocess | PreprocessFunction | None = None
    labels: tuple[str, ...] | None = None
    uri: str = ""
    notes: tuple[str, ...] = ()
    embed_text: EmbedText | None = None

    @functools.cached_property
    def weights_hash(self) -> str:
        """The SHA-256 of the weights as "sha256:..."; independent of the device.

        Covers the names, dtypes, shapes and bytes of all tensors of the state dict. Computed on first use and cached:
        after further training, load the module again.

        Returns:
            "sha256:" followed by 64 hexadecimal digits.

        Raises:
            ModelError: The weights have no values yet (device "meta", or lazy modules).

        Example:
            >>> from seewhy.models.loading import load_model
            >>> load_model(nn.Linear(2, 2)).weights_hash[:7]
            'sha256:'
        """
        digest = hashlib.sha256()
        state = self.module.state_dict()
        try:
            for name in sorted(state):
                if isinstance(tensor := state[name], torch.Tensor):
                    digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
                    flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
                    digest.update(flat.view(torch.uint8).numpy().data)  # as bytes: NumPy has no bfloat16
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ModelError(self.uri, f"its weights have no values to hash ({shorten_error(error)})") from None
        return f"sha256:{digest.hexdigest()}"
