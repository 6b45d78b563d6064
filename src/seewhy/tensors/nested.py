"""Find and replace tensors in the output of a module: a tensor, tuple, list, mapping or dataclass, nested to any depth.

Nothing is modified in place. Functions that replace a tensor return a copy of the containers around it and share the rest.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

FREQUENT = 4  # equal token ids that may be placeholders
SMALL = 16  # values of a tensor that may be a setting, such as a box


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor in `output`, depth first, or None without one.

    >>> import torch
    >>> first_tensor({"aux": None, "out": (torch.ones(2), torch.zeros(3))})
    tensor([1., 1.])
    """
    return output if isinstance(output, Tensor) else next(tensors_in(output), None)


def first_values(output: Any) -> Tensor | None:
    """Return the first float tensor with axes in `output`, not a loss or class indices; without one, its first tensor.

    >>> import torch
    >>> first_values({"loss": torch.tensor(0.5), "reconstruction": torch.zeros(1)})
    tensor([0.])
    """
    with_axes = (tensor for tensor in tensors_in(output) if tensor.is_floating_point() and tensor.dim())
    return next(with_axes, first_tensor(output))


def tensor_under(output: Any, names: Iterable[str]) -> Tensor | None:
    """Return the tensor under the first of `names` that a mapping, dataclass or named tuple holds, or None."""
    if isinstance(output, tuple):
        table = dict(zip(getattr(output, "_fields", ()), output, strict=False))
    else:
        table = dict(children(output)) if isinstance(output, Mapping) or dataclasses.is_dataclass(output) else {}
    return next((table[name] for name in names if isinstance(table.get(name), Tensor)), None)


def named_tensor(output: Any, names: Iterable[str]) -> Tensor | None:
    """Return the tensor under the first of `names` that `output` holds, else its first values.

    >>> import torch
    >>> named_tensor({"hidden": torch.ones(2), "logits": torch.zeros(1)}, ["logits"])
    tensor([0.])
    """
    named = tensor_under(output, names)
    return first_values(output) if named is None else named


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield every tensor in `output`, depth first."""
    if isinstance(output, Tensor):
        yield output
    for _, child in children(output):
        yield from tensors_in(child)


def tensors_with_places(output: Any, place: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in `output` with the expression that selects it, depth first.

    >>> import torch
    >>> [place for place, _ in tensors_with_places({"seg": torch.ones(1), "aux": [torch.ones(2)]})]
    ["output['seg']", "output['aux'][0]"]
    """
    if isinstance(output, Tensor):
        yield place, output
    fields = getattr(output, "_fields", ())
    for key, child in children(output):
        if isinstance(output, (Mapping, list, tuple)):
            yield from tensors_with_places(child, f"{place}.{fields[key]}" if fields else f"{place}[{key!r}]")
        else:
            yield from tensors_with_places(child, f"{place}.{key}")


def map_tensors(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of `output` with `function` applied to each tensor in it."""
    if isinstance(output, Tensor):
        return function(output)
    for key, child in children(output):
        output = with_child(output, key, map_tensors(child, function))
    return output


def replace_first(output: Any, new: Tensor) -> Any:
    """Return a copy of `output` with `new` in place of its first tensor."""
    if isinstance(output, Tensor):
        return new
    for key, child in children(output):
        if first_tensor(child) is not None:
            return with_child(output, key, replace_first(child, new))
    return output


def children(output: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (key, child) of a container: key, index or field name. Other values have no children."""
    if isinstance(output, Mapping):  # includes ModelOutput of transformers, which is a dataclass too
        yield from output.items()
    elif isinstance(output, (tuple, list)):
        yield from enumerate(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from ((field.name, getattr(output, field.name)) for field in dataclasses.fields(output))


def outline(value: Any) -> Hashable:
    """Return the shapes of the tensors in `value`, small tensors, numbers and texts, as a key for a cache.

    Of a longer table of token ids, the places of its most frequent id count: placeholders of an image, or padding.

    >>> import torch
    >>> outline({"mode": "depth", "mask": torch.ones(1, 100)})
    (('mode', "'depth'"), ('mask', (1, 100, ())))
    """
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value) if value.dtype.kind in "biuf" else repr(value)
    if isinstance(value, Tensor):
        return (*value.shape, contents(value)) if value.numel() else tuple(value.shape)
    if value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum, slice, np.generic, torch.dtype)):
        return repr(value)
    items = tuple((key, outline(child)) for key, child in children(value))
    return items or type(value).__name__


def contents(tensor: Tensor) -> Hashable:
    """Return the values of a small tensor, or where the most frequent id of a table of token ids is; else ().

    Numbers about each image (B, n) are no settings.
    """
    is_ids = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
    if is_ids and tensor.dim() == 2:
        where = tensor == tensor.flatten().mode().values
        return tuple(where.nonzero().flatten().tolist()) if int(where.sum()) >= FREQUENT else ()
    return tuple(tensor.flatten().tolist()) if tensor.dim() < 2 and tensor.numel() <= SMALL else ()


def with_child(output: Any, key: Any, value: Any) -> Any:
    """Return a copy of a container with `value` as its child `key`."""
    if isinstance(output, tuple):
        values = [value if index == key else child for index, child in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    # The lists of programs of torch.export cannot be changed.
    new: Any = list(output) if isinstance(output, list) else copy.copy(output)
    if isinstance(output, (list, Mapping)):
        new[key] = value
    else:
        object.__setattr__(new, key, value)  # also works for a frozen dataclass
    return new
