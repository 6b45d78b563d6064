"""Hooks and functions of a model that refer to the model: in its twin, they refer to the twin.

A hook may store features in a dict that the model reads, or a replaced `forward` may call layers through its closure.
"""

from __future__ import annotations

import dis
import operator
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from torch import nn

WRITES = ("STORE_GLOBAL", "DELETE_GLOBAL")


def redirect_functions(
    places: Iterable[tuple[dict[Any, Any], Any]], copies: dict[int, Any], copy_module: Callable[[nn.Module], nn.Module]
) -> None:
    """Replace functions by ones that refer to copies.

    Args:
        places: Tables, and the keys of functions in them.
        copies: The copy of each object of the model, by the id of the original. Extended by the functions.
        copy_module: Copies a module that is not in the model but contains modules of it.
    """
    redirect = _Redirect(copies, copy_module)
    for table, key in places:
        if isinstance(table[key], types.FunctionType):
            table[key] = redirect.function(table[key])


class _Redirect:
    def __init__(self, copies: dict[int, Any], copy_module: Callable[[nn.Module], nn.Module]) -> None:
        self.copies, self.copy_module = copies, copy_module

    def function(self, original: types.FunctionType) -> types.FunctionType:
        if id(original) in self.copies:  # it refers to itself
            return cast(types.FunctionType, self.copies[id(original)])
        self.copies[id(original)] = original
        cells = original.__closure__ or ()
        new_cells = tuple(self.cell(cell) for cell in cells)
        globals_, code = original.__globals__, original.__code__
        changed = {
            name: new
            for name in names_in(code)
            if name in globals_ and (new := self.redirected_global(globals_[name], globals_)) is not globals_[name]
        }
        if changed and any(instruction.opname in WRITES for instruction in dis.get_instructions(code)):
            changed = {}  # other functions read what it writes
        defaults = self.redirected(original.__defaults__)
        if not changed and defaults is original.__defaults__ and all(map(operator.is_, cells, new_cells)):
            return original
        new = types.FunctionType(
            code, {**globals_, **changed} if changed else globals_, original.__name__, defaults, new_cells
        )
        new.__kwdefaults__ = original.__kwdefaults__
        new.__dict__.update(original.__dict__)
        self.copies[id(original)] = new
        return new

    def redirected_global(self, value: Any, globals_: dict[str, Any]) -> Any:
        """Return the copy of a global. Of functions, only those of the same file are followed, not those of libraries."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        is_own = type(value) is types.FunctionType and value.__globals__ is globals_
        return self.function(value) if is_own else value

    def cell(self, cell: types.CellType) -> types.CellType:
        try:
            contents = cell.cell_contents
        except ValueError:  # empty
            return cell
        new = self.redirected(contents)
        return cell if new is contents else types.CellType(new)

    def redirected(self, value: Any) -> Any:
        """Return the copy of what a function refers to; the same object if it was not copied."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        if type(value) is types.FunctionType:
            return self.function(value)
        if type(value) is types.MethodType and id(value.__self__) in self.copies:
            return types.MethodType(value.__func__, self.copies[id(value.__self__)])
        if isinstance(value, nn.Module) and any(id(module) in self.copies for module in value.modules()):
            return self.copy_module(value)  # a part of the model, such as net[:4]
        if type(value) in (list, tuple) and any(id(item) in self.copies for item in value):
            return type(value)(map(self.redirected, value))
        return value


def names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names in a function's code, and in functions inside it, which share its globals.

    >>> sorted(set(names_in((lambda x: [len(y) for y in (lambda: sum)()]).__code__)))
    ['len', 'sum']
    """
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)
