"""Use the twin of a prepared model again instead of copying the module tree for each call.

A forward pass may write to its modules. After a call, the twin is therefore compared with its state before, and dropped if
anything differs. Threads that run at the same time get separate twins.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain, compress
from operator import is_, ne
from typing import Any

from torch import Tensor, nn

from seewhy.tracing.module_tables import TableState
from seewhy.tracing.torch_private import (
    BACKWARD_HOOK_TABLES,
    BUFFERS,
    CHILDREN,
    FORWARD_HOOK_TABLES,
    PARAMETERS,
    STATE_DICT_TABLES,
    version_of,
)
from seewhy.tracing.twin import make_twin, named_modules, unwrap

IDLE_TWINS = "_idle_twins"  # the entry in the `__dict__` of a module whose twins are used again
MAX_IDLE = 8
CONTAINERS = (list, dict, set)
UNREAD_TABLES = (*BACKWARD_HOOK_TABLES, *STATE_DICT_TABLES)  # a forward pass of a twin does not read them
END = object()


class IdleTwins:
    """The twins of one prepared model that no call uses at the moment."""

    def __init__(self) -> None:
        self.twins: list[ReusableTwin] = []

    def take(self, prepared: nn.Module) -> ReusableTwin:
        """Return an idle twin of `prepared`, or a new one."""
        try:
            return self.twins.pop()
        except IndexError:
            return ReusableTwin(make_twin(prepared))

    def give_back(self, twin: ReusableTwin) -> None:
        """Remove the hooks of a twin and keep it, if a call changed nothing else."""
        if twin.restore() and len(self.twins) < MAX_IDLE:
            self.twins.append(twin)


@dataclass(frozen=True, eq=False)
class BorrowedTwin:
    """A twin for one call.

    Attributes:
        module: The twin.
        modules: Its modules by name.
        memory: Returns the addresses of its parameters and buffers.
    """

    module: nn.Module
    modules: Mapping[str, nn.Module]
    memory: Callable[[], Set[int]]


def is_prepared(model: nn.Module) -> bool:
    """Return True for a model whose twins are used again."""
    return IDLE_TWINS in unwrap(model).__dict__


@contextmanager
def borrowed_twin(model: nn.Module) -> Iterator[BorrowedTwin]:
    """Yield a twin of `model` for one call: a used one if the model is prepared, else a new one."""
    prepared = unwrap(model)
    idle: IdleTwins | None = prepared.__dict__.get(IDLE_TWINS)
    if idle is None:
        twin = make_twin(model)
        yield BorrowedTwin(twin, dict(named_modules(twin)), memory_of(twin))
        return
    reusable = idle.take(prepared)
    try:
        if model is prepared:
            yield BorrowedTwin(reusable.twin, reusable.modules, reusable.memory)
        else:
            twin = make_twin(model, {id(prepared): reusable.twin})
            yield BorrowedTwin(twin, reusable.modules, memory_of(twin))
    finally:
        idle.give_back(reusable)


def memory_of(model: nn.Module) -> Callable[[], Set[int]]:
    """Return a function that returns the addresses of the parameters and buffers of a model; they are read once."""
    reference = weakref.ref(model)  # hooks of the model hold this function, so a reference would be a cycle

    @cache
    def addresses() -> Set[int]:
        model = reference()
        owned = () if model is None else (*model.parameters(), *model.buffers())
        return {tensor.untyped_storage().data_ptr() for tensor in owned}

    return addresses


class ReusableTwin:
    """A twin, and its state before it was used: without the hooks of a call."""

    def __init__(self, twin: nn.Module) -> None:
        self.twin, self.modules, self.memory = twin, dict(named_modules(twin)), memory_of(twin)
        attributes = [module.__dict__ for module in twin.modules()]
        self.hooks = [table[name] for table in attributes for name in FORWARD_HOOK_TABLES]
        self.kept_hooks = [list(table.items()) for table in self.hooks]
        self.hook_counts = list(map(len, self.hooks))
        tables = [*attributes, *(table[name] for table in attributes for name in (PARAMETERS, BUFFERS, CHILDREN))]
        self.tables = TableState(tables)
        self.tensors = [value for value in self.tables.values if isinstance(value, Tensor)]
        self.versions = list(map(version_of, self.tensors))
        ignored = {id(table[name]) for table in attributes for name in UNREAD_TABLES}
        ignored |= {*map(id, tables), *map(id, self.hooks)}
        self.containers = [
            value for value in self.tables.values if isinstance(value, CONTAINERS) and id(value) not in ignored
        ]
        self.contents = list(contents_of(self.containers))

    def restore(self) -> bool:
        """Remove the hooks of a call. Return False if anything else has changed."""
        changed = map(ne, self.hook_counts, map(len, self.hooks))
        for index in compress(range(len(self.hooks)), changed):
            self.hooks[index].clear()
            self.hooks[index].update(self.kept_hooks[index])
        return (
            self.tables.is_current()
            and self.versions == list(map(version_of, self.tensors))
            and are_same(self.contents, list(contents_of(self.containers)))
        )


def contents_of(containers: Iterable[Any]) -> Iterator[Any]:
    """Yield everything that containers hold, at any depth, with a mark where each container ends."""
    for container in containers:
        for item in chain(container.keys(), container.values()) if isinstance(container, dict) else container:
            if isinstance(item, CONTAINERS):
                yield from contents_of([item])
            else:
                yield item
        yield END


def are_same(known: list[Any], current: list[Any]) -> bool:
    """Return True if two lists hold identical objects."""
    return len(known) == len(current) and all(map(is_, known, current))
