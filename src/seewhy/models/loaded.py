"""`LoadedModel`: a network with its preprocessing, its labels and how to load it again."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from seewhy.errors import ModelError, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models.weights import shorten_error

TORCHVISION = re.compile(r"torchvision\.models\.[a-z]\w*")  # classifiers; others lie deeper


@dataclass(frozen=True)
class LoadedModel:
    """A network with what it takes to use it.

    `preprocess` turns a picture into its inputs, `labels` names its classes ("tench, Tinca tinca"); both are None where
    nobody knows. `uri` is how to load it again, `notes` say in words what was decided on the way. `embed_text`, for models
    like CLIP, gives texts as (N, D) of length 1 on the CPU, to be compared with the model's `embedding`.

    >>> from seewhy.models.loading import load_model
    >>> load_model().labels[654]
    'minibus'
    """

    module: nn.Module
    preprocess: Preprocess | Callable[..., Any] | None = None
    labels: tuple[str, ...] | None = None
    uri: str = ""
    notes: tuple[str, ...] = ()
    embed_text: Callable[[Sequence[str]], Tensor] | None = None

    @functools.cached_property
    def weights_hash(self) -> str:
        """`sha256:...` over the names, dtypes, shapes and bytes of the state dict's tensors; the same on every device.

        Computed at the first use and kept: after training the module further, load it again. Raises `ModelError` for
        weights that have no values yet.

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
                    # bytes, because NumPy knows no bfloat16
                    digest.update(
                        tensor.detach()
                        .cpu()
                        .clone(memory_format=torch.contiguous_format)
                        .reshape(-1)
                        .view(torch.uint8)
                        .numpy()
                        .data
                    )
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ModelError(self.uri, f"its weights have no values to hash ({shorten_error(error)})") from None
        return f"sha256:{digest.hexdigest()}"


def read_labels(labels: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Labels from a sequence, from a text with commas, or from a text file with one a line.

    Raises `UsageError` where the file cannot be read.

    >>> read_labels(["cat", "dog"])
    ('cat', 'dog')
    >>> read_labels("cat,dog")
    ('cat', 'dog')
    """
    if not isinstance(labels, str | os.PathLike):
        return tuple(str(label) for label in labels)
    if isinstance(labels, str) and "," in labels and not Path(labels).expanduser().exists():
        return tuple(label.strip() for label in labels.split(","))
    try:
        lines = Path(labels).expanduser().read_text("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(
            f"labels {os.fspath(labels)}: {reason}; give a text file with one label a line, or 'cat,dog'"
        ) from None
    return tuple(line.strip() for line in lines)


def check_labels(labels: tuple[str, ...], classes: int | None) -> None:
    if classes and len(labels) != classes:
        raise UsageError(f"{len(labels)} labels for a model with {classes} classes; give one for each, in their order")


def count_classes(module: nn.Module) -> int | None:
    """How many classes a module has, where that is sure: it says so, as those of timm do, or it is a classifier of
    transformers, or one of torchvision that ends with a linear layer.

    >>> import torchvision
    >>> count_classes(torchvision.models.resnet18(num_classes=7))
    7
    """
    kind, known = type(module), getattr(module, "num_classes", None)
    if kind.__module__.startswith("transformers.") and "Classification" in kind.__name__:
        known = getattr(module.config, "num_labels", None)
    elif TORCHVISION.fullmatch(kind.__module__) and (parts := list(module.children())):
        heads = [layer.out_features for layer in parts[-1].modules() if isinstance(layer, nn.Linear)]
        known = heads[-1] if heads else None
    return known if isinstance(known, int) and known > 0 else None


def infer_input_layout(module: nn.Module) -> tuple[int, int] | None:
    """The channels, and the number of axes behind them, of what the first convolution takes; None where there is none.

    >>> infer_input_layout(nn.Sequential(nn.Conv1d(1, 4, 3)))
    (1, 1)
    """
    found = next((layer for layer in module.modules() if isinstance(layer, _ConvNd)), None)
    return None if found is None else (found.in_channels, len(found.kernel_size))
