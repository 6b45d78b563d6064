"""Find the BatchNorms that can be folded into the convolution before them, by observing one forward pass.

Folding requires that nothing but the norm reads the output of the convolution. Names and the order of modules do not show that,
so `NormObserver` follows the output of each convolution through all torch functions, and compares the folded convolution with
the output of the norm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seewhy.fast.folding import Pair, activate, fold_weights, has_activation, is_foldable, is_norm
from seewhy.tensors.map_functions import nearly_equal
from seewhy.tensors.nested import first_tensor, tensors_in
from seewhy.tracing.grid_inference import has_channels_inside
from seewhy.tracing.twin import named_modules
from seewhy.tracing.twin_hooks import call_after_modules, call_before_modules

TOLERANCE = 1e-4  # relative difference between the folded convolution and the output of the norm
METADATA = frozenset({"shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad", "grad_fn", "is_sparse"})
METADATA_METHODS = frozenset({"dim", "size", "stride", "numel", "is_floating_point", "is_contiguous", "is_complex"})


@dataclass(eq=False)
class Produced:
    """The output of one call of a convolution, and what happened to it."""

    convolution: str
    inputs: Tensor
    output: Tensor
    norm: str = ""  # the norm that read it
    aliases: set[str] = field(default_factory=set)  # other modules that returned it before the norm read it
    has_other_use: bool = False


class NormObserver(TorchFunctionMode):
    """Observes one forward pass of a twin, as a context manager. The twin is of no use afterwards: its hooks stay.

    Attributes:
        pairs: After the block: the pairs that can be folded.
        permuted: The modules that read or return a tensor with its channels last in memory.
        refused: By convolution, why its norm cannot be folded.
        activations: The modules that work in place on the output of a folded convolution.
    """

    def __init__(self, twin: nn.Module) -> None:
        super().__init__()
        self.modules = dict(named_modules(twin))
        self.names = {id(module): name for name, module in self.modules.items()}
        # Before this class registers its own hooks.
        self.convolutions = {name for name, module in self.modules.items() if is_foldable(module)}
        self.norms = {name for name, module in self.modules.items() if is_norm(module)}
        self.produced: dict[int, Produced] = {}
        self.normalized: dict[int, tuple[Tensor, str]] = {}  # outputs of norms, by id, with their convolution
        self.calls: Counter[str] = Counter()
        self.in_place: dict[str, str] = {}  # activations that work in place on the output of a norm: their convolution
        self.refused: dict[str, str] = {}
        self.permuted: set[str] = set()
        self.pairs: list[Pair] = []
        self.activations: list[str] = []
        self.reading: Tensor | None = None  # the input of the norm that runs
        self.is_paused = False
        call_before_modules(twin, self.before_call)
        call_after_modules(twin, self.after_call)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if error[0] is None:
            self.collect()
        self.produced.clear()
        self.normalized.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.is_paused and not is_metadata(func):
            for tensor in tensors_in((args, kwargs or {})):
                produced = self.produced.get(id(tensor))
                if produced is not None and tensor is not self.reading:
                    produced.has_other_use = True
        return func(*args, **(kwargs or {}))

    def before_call(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Store that a norm is going to read the output of a convolution, or an activation to overwrite that of a norm."""
        name, tensor = self.names[id(module)], first_argument(args)
        if tensor is None:
            return
        if name in self.norms and id(tensor) in self.produced:
            self.reading = tensor
        if getattr(module, "inplace", None) is True and id(tensor) in self.normalized:
            self.in_place[name] = self.normalized[id(tensor)][1]

    def after_call(self, module: nn.Module, args: Any, output: Any) -> None:
        """Store the output of a convolution, and which norm or other module returned something for it."""
        self.is_paused = True
        try:
            name, tensor, inputs = self.names[id(module)], first_tensor(output), first_argument(args)
            self.calls[name] += 1
            if any(map(has_channels_inside, (tensor, inputs))):
                self.permuted.add(name)
            if tensor is None or inputs is None:
                return
            if inputs is self.reading and name in self.norms:
                self.reading = None
                self.record_norm(name, module, self.produced[id(inputs)], tensor)
            elif name in self.convolutions and output is tensor and tensor is not inputs:
                self.produced[id(tensor)] = Produced(name, inputs, tensor)
            elif (produced := self.produced.get(id(tensor))) is not None:
                # A module around the convolution returns its output, before or after the norm has read it.
                produced.has_other_use |= bool(produced.norm)
                produced.aliases.add(name)
        finally:
            self.is_paused = False

    def record_norm(self, name: str, norm: nn.Module, produced: Produced, output: Tensor) -> None:
        """Store that a norm read the output of a convolution, if folding gives the same result."""
        if produced.norm:
            produced.has_other_use = True
            return
        produced.norm = name
        self.normalized[id(output)] = output, produced.convolution
        convolution = self.modules[produced.convolution]
        folded = fold_weights(convolution, norm)
        if isinstance(folded, str):
            self.refused[produced.convolution] = folded
            return
        expected = folded.run(convolution, produced.inputs)
        expected = activate(norm, expected) if has_activation(norm) else expected
        if not nearly_equal(expected, output, TOLERANCE):
            self.refused[produced.convolution] = f"'{name}' computes something else than a BatchNorm"

    def collect(self) -> None:
        """Fill `pairs`, `refused` and `activations` after the pass."""
        by_convolution: dict[str, list[Produced]] = {}
        for produced in self.produced.values():
            by_convolution.setdefault(produced.convolution, []).append(produced)
        norms = Counter(produced.norm for produced in self.produced.values())
        for convolution, calls in by_convolution.items():
            norm = calls[0].norm
            if not norm or convolution in self.refused:
                continue
            if len(calls) > 1 or self.calls[convolution] > 1 or norms[norm] > 1 or self.calls[norm] > 1:
                self.refused[convolution] = "it is called several times"
            elif calls[0].has_other_use:
                self.refused[convolution] = f"its output has other uses than '{norm}'"
            else:
                self.pairs.append(Pair(convolution, norm, tuple(sorted(calls[0].aliases))))
        folded = {pair.convolution for pair in self.pairs}
        self.activations = [name for name, convolution in self.in_place.items() if convolution in folded]


def first_argument(args: Iterable[Any]) -> Tensor | None:
    tensor = next(iter(args), None)
    return tensor if isinstance(tensor, Tensor) else None


def is_metadata(func: Any) -> bool:
    """Return True for a torch function that reads no values of a tensor, such as its shape."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") in METADATA
    return name in METADATA_METHODS


def observe_norms(twin: nn.Module, run: Callable[[], object]) -> NormObserver:
    """Return what one forward pass of a twin shows about its norms. `run` runs the twin on an input."""
    observer = NormObserver(twin)
    with torch.no_grad(), observer:
        run()
    return observer
