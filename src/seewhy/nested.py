"""Find and replace tensors in the output of a module: a tensor, tuple, list, mapping or dataclass, nested to any depth.

Nothing is modified in place. Functions that replace a tensor return a copy of the containers around it and share the rest.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

LONG = 4  # equal token ids that count as a run


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor in `output`, depth first, or None without one.

    >>> import torch
    >>> first_tensor({"aux": None, "out": (torch.ones(2), torch.zeros(3))})
    tensor([1., 1.])
    """
    return next(tensors_in(output), None)


def named_tensor(output: Any, names: Iterable[str]) -> Tensor | None:
    """Return the tensor under the first of `names` that a mapping or dataclass holds, else its first tensor.

    >>> import torch
    >>> named_tensor({"hidden": torch.ones(2), "logits": torch.zeros(1)}, ["logits"])
    tensor([0.])
    """
    if isinstance(output, Mapping) or dataclasses.is_dataclass(output):
        table = dict(children(output))
        for name in names:
            if isinstance(table.get(name), Tensor):
                return table[name]  # type: ignore[no-any-return]
    return first_tensor(output)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield every tensor in `output`, depth first."""
    if isinstance(output, Tensor):
        yield output
    for _, child in children(output):
        yield from tensors_in(child)


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
    """Return the shapes of the tensors in `value` and its numbers and texts, as a key for a cache.

    Of a table of token ids, the longest run of one id counts as well: placeholders of an image, or padding.

    >>> import torch
    >>> outline({"mode": "depth", "mask": torch.ones(1, 4)})
    (('mode', 'depth'), ('mask', (1, 4)))
    """
    if isinstance(value, Tensor):
        return (
            (*value.shape, longest_run(value)) if value.dtype == torch.long and value.dim() == 2 else tuple(value.shape)
        )
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    items = tuple((key, outline(child)) for key, child in children(value))
    return items or type(value).__name__


def longest_run(ids: Tensor) -> tuple[int, ...]:
    """Return start and end of the longest run of one id in the first row of a table, () if it is short."""
    if not ids.numel():
        return ()
    _, counts = torch.unique_consecutive(ids[0], return_counts=True)
    longest = int(counts.argmax())
    start = int(counts[:longest].sum())
    return (start, start + int(counts[longest])) if counts[longest] >= LONG else ()


def with_child(output: Any, key: Any, value: Any) -> Any:
    """Return a copy of a container with `value` as its child `key`."""
    if isinstance(output, tuple):
        values = [value if index == key else child for index, child in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    new = copy.copy(output)
    if isinstance(output, (list, Mapping)):
        new[key] = value
    else:
        object.__setattr__(new, key, value)  # also works for a frozen dataclass
    return new
