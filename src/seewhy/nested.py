"""Finding and replacing a tensor in what a module returns: tensor, tuple, list, mapping or dataclass, nested at will."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor in a module's output, depth first; None where there is none.

    >>> import torch
    >>> first_tensor({"aux": None, "out": (torch.ones(2), torch.zeros(3))})
    tensor([1., 1.])
    """
    if isinstance(output, Tensor):
        return output
    for _, item in items(output):
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def named_tensor(output: Any, names: Iterable[str]) -> Tensor | None:
    """The tensor that a mapping or dataclass keeps under the first of `names` that it has; else the first tensor in it.

    >>> import torch
    >>> named_tensor({"hidden": torch.ones(2), "logits": torch.zeros(1)}, ["logits"])
    tensor([0.])
    """
    if isinstance(output, Mapping) or dataclasses.is_dataclass(output):
        table = dict(items(output))
        for name in names:
            if isinstance(table.get(name), Tensor):
                return table[name]  # type: ignore[no-any-return]
    return first_tensor(output)


def map_tensors(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A copy of `output` with `function` applied to each tensor in it."""
    if isinstance(output, Tensor):
        return function(output)
    for key, item in items(output):
        output = put(output, key, map_tensors(item, function))
    return output


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Every tensor in `output`, depth first."""
    if isinstance(output, Tensor):
        yield output
    for _, item in items(output):
        yield from tensors_in(item)


def replace_first(output: Any, new: Tensor) -> Any:
    """A copy of `output` whose first tensor is `new`; everything else is shared."""
    if isinstance(output, Tensor):
        return new
    for key, item in items(output):
        if first_tensor(item) is not None:
            return put(output, key, replace_first(item, new))
    return output


def items(output: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(output, Mapping):  # also the ModelOutput of transformers
        yield from output.items()
    elif isinstance(output, (tuple, list)):
        yield from enumerate(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from ((field.name, getattr(output, field.name)) for field in dataclasses.fields(output))


def put(output: Any, key: Any, value: Any) -> Any:
    if isinstance(output, tuple):
        values = [value if index == key else item for index, item in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    new = copy.copy(output)
    if isinstance(output, (list, Mapping)):
        new[key] = value
    else:
        object.__setattr__(new, key, value)  # a dataclass, frozen or not
    return new
