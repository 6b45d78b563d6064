"""`LoadedModel`: a network with its preprocessing, its labels and how to load it again."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import ModelError, UsageError
from seewhy.preprocess import Preprocess
from seewhy.weights import first_line


@dataclass(frozen=True)
class LoadedModel:
    """A network with what it takes to use it.

    `preprocess` turns a picture into its inputs, `labels` names its classes ("tench, Tinca tinca"); both are None where
    nobody knows. `uri` is how to load it again, `notes` say in words what was decided on the way. `embed_text`, for models
    like CLIP, gives texts as (N, D) of length 1 on the CPU, to be compared with the model's `embedding`.

    >>> from seewhy.models import load_model
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

        >>> from seewhy.models import load_model
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
            raise ModelError(self.uri, f"its weights have no values to hash ({first_line(error)})") from None
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
    """How many classes a module says it has, as those of timm do."""
    known = getattr(module, "num_classes", None)
    return known if isinstance(known, int) and known > 0 else None
