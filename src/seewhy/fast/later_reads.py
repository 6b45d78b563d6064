"""Find activations in place whose input is read again after them.

In a model, `elu(inplace=True)` after a BatchNorm overwrites the output of the norm, so whatever reads that output later gets
the activated values. In a folded twin the activation works on a copy, and a later reader would get the values before it. Such
an activation must stay in place. The model itself does not show this, because an operation in place returns its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy.tensors.nested import tensors_in
from seewhy.tracing.twin import find_module
from seewhy.tracing.twin_hooks import call_after_modules, call_before_modules


class LaterReads(TorchFunctionMode):
    """Observes one forward pass of a twin in which `activations` work on copies. The twin is of no use afterwards.

    Attributes:
        found: After the block: the activations whose input was read again.
    """

    def __init__(self, twin: nn.Module, activations: Iterable[str]) -> None:
        super().__init__()
        self.names = {id(find_module(twin, name)): name for name in activations}
        self.overwritten: dict[int, tuple[Tensor, str]] = {}  # inputs of activations that have run, by id
        self.found: set[str] = set()
        call_before_modules(twin, lambda module, args, kwargs: self.read((args, kwargs)))
        call_after_modules(twin, self.after_call)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.read((args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def read(self, values: Any) -> None:
        """Store the activations that should have overwritten one of the tensors in `values`."""
        if self.overwritten:
            self.found |= {self.overwritten[id(one)][1] for one in tensors_in(values) if id(one) in self.overwritten}

    def after_call(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self.names.get(id(module))
        if name is None:
            self.read(output)
        elif args and isinstance(args[0], Tensor) and args[0] is not output:
            self.overwritten[id(args[0])] = args[0], name


def find_later_reads(twin: nn.Module, activations: Iterable[str], run: Callable[[], object]) -> set[str]:
    """Return the activations whose input is read again after them. `run` runs the twin on an input."""
    observer = LaterReads(twin, activations)
    with torch.no_grad(), observer:
        run()
    return observer.found
