"""Use the twin of a prepared model again instead of copying the module tree for each call.

A forward pass may write to its modules. After a call, the twin is therefore compared with its state before, and dropped if
anything differs. Threads that run at the same time get separate twins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import is_
from typing import Any

from torch import Tensor, nn

from seewhy.tracing.torch_private import BUFFERS, CHILDREN, FORWARD_HOOK_TABLES, PARAMETERS, version_of
from seewhy.tracing.twin import make_twin, unwrap

IDLE_TWINS = "_idle_twins"  # the entry in the `__dict__` of a module whose twins are used again
MAX_IDLE = 8
CONTAINERS = (list, dict, set)
END = object()


class IdleTwins:
    """The twins of one prepared model that no call uses at the moment."""

    def __init__(self) -> None:
        self.twins: list[tuple[nn.Module, TwinState]] = []

    def take(self, prepared: nn.Module) -> tuple[nn.Module, TwinState]:
        """Return an idle twin of `prepared`, or a new one."""
        try:
            return self.twins.pop()
        except IndexError:
            twin = make_twin(prepared)
            return twin, TwinState(twin)

    def give_back(self, twin: nn.Module, state: TwinState) -> None:
        """Remove the hooks of a twin and keep it, if a call changed nothing else."""
        if state.restore() and len(self.twins) < MAX_IDLE:
            self.twins.append((twin, state))


@contextmanager
def borrowed_twin(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a twin of `model` for one call: a used one if the model is prepared, else a new one."""
    prepared = unwrap(model)
    idle: IdleTwins | None = prepared.__dict__.get(IDLE_TWINS)
    if idle is None:
        yield make_twin(model)
        return
    twin, state = idle.take(prepared)
    try:
        yield twin if model is prepared else make_twin(model, {id(prepared): twin})
    finally:
        idle.give_back(twin, state)


class TwinState:
    """The state of a new twin, without hooks of a call."""

    def __init__(self, twin: nn.Module) -> None:
        attributes = [module.__dict__ for module in twin.modules()]
        self.hooks = [(table[name], list(table[name].items())) for table in attributes for name in FORWARD_HOOK_TABLES]
        names = (PARAMETERS, BUFFERS, CHILDREN)
        self.tables = [*attributes, *(table[name] for table in attributes for name in names)]
        self.lengths = list(map(len, self.tables))
        self.values = list(chain.from_iterable(map(dict.values, self.tables)))
        self.tensors = [value for value in self.values if isinstance(value, Tensor)]
        self.versions = list(map(version_of, self.tensors))
        own = set(map(id, self.tables)) | {id(table) for table, _ in self.hooks}
        self.containers = [value for value in self.values if isinstance(value, CONTAINERS) and id(value) not in own]
        self.contents = list(contents_of(self.containers))

    def restore(self) -> bool:
        """Remove the hooks of a call. Return False if anything else has changed."""
        for table, items in self.hooks:
            if len(table) != len(items):
                table.clear()
                table.update(items)
        return (
            self.lengths == list(map(len, self.tables))
            and all(map(is_, self.values, chain.from_iterable(map(dict.values, self.tables))))
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
