"""Notice that a model has changed since it was prepared: its weights, modules, hooks or settings.

The check runs before every use of a prepared model, so it has to be fast. Values are compared by identity, and weights by their
version counter and address. Changes that PyTorch does not count (through `tensor.data` or `tensor.numpy()`), and changes inside
objects of other libraries, are not noticed.
"""

from __future__ import annotations

import copy
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
from seewhy.tracing.twin import SHARED_TYPES

TABLES = (PARAMETERS, BUFFERS, CHILDREN, *FORWARD_HOOK_TABLES)
UNREAD_TABLES = (*BACKWARD_HOOK_TABLES, *STATE_DICT_TABLES)  # the forward pass of a twin does not depend on them
CHANGEABLE = (list, dict, set)


class ModelState:
    """The state of the modules of a model at one time.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> state = ModelState(net)
    >>> before = state.is_current()
    >>> _ = nn.init.zeros_(net[0].weight)
    >>> before, state.is_current()
    (True, False)
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        attributes = [module.__dict__ for module in modules]
        self.tables = TableState([*attributes, *(table[name] for table in attributes for name in TABLES)])
        values = self.tables.values
        self.tensors = list({id(value): value for value in values if isinstance(value, Tensor)}.values())
        self.versions = list(map(version_of, self.tensors))
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]
        # Lists and dicts that can change in place, such as settings. Those that hold other objects are not compared.
        tables = {*map(id, self.tables.tables), *(id(table[name]) for table in attributes for name in UNREAD_TABLES)}
        self.containers = [
            value for value in values if type(value) in CHANGEABLE and id(value) not in tables and is_data(value)
        ]
        self.copies = copy.deepcopy(self.containers)

    def is_current(self) -> bool:
        """Return True if the model has not changed since this object was created."""
        return self.has_current_weights() and self.has_current_modules()

    def has_current_weights(self) -> bool:
        """Return True if no weights were changed in place."""
        return self.versions == list(map(version_of, self.tensors)) and self.addresses == [
            tensor.data_ptr() for tensor in self.tensors
        ]

    def has_current_modules(self) -> bool:
        """Return True if the model consists of the same modules with the same parameters, hooks and settings."""
        return self.tables.is_current() and self.containers == self.copies


def is_data(value: Any) -> bool:
    """Return True for numbers and text, and for lists, dicts, sets and tuples of them."""
    if type(value) is dict:
        return all(map(is_data, value.values()))
    if type(value) in (list, set, tuple):
        return all(map(is_data, value))
    return type(value) in SHARED_TYPES
