"""What one forward through a twin gave: plain data, filled by `record`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from seewhy.tracing.function_modes import AttentionCall
from seewhy.tracing.grid import Grid


@dataclass(frozen=True)
class Wanted:
    """Which calls to keep: those of the modules in `names` (None: of all); `gridded`: only with 2 cells an axis.

    `attention`: every attention as well, worked out step by step. `heads`: what went into each nn.Linear, and came out.
    `biases`: what convolutions and BatchNorm add.
    """

    names: frozenset[str] | None = None
    gridded: bool = False
    attention: bool = False
    heads: bool = False
    biases: bool = False


class GradientListener:
    """Is told the gradient that reaches one tensor, and may answer with another. Its own object, so that the tensor's hook
    does not hold the tensor."""

    __slots__ = ("receive",)

    def __init__(self) -> None:
        self.receive: Callable[[Tensor], Tensor | None] | None = None

    def __call__(self, gradient: Tensor) -> Tensor | None:
        return None if self.receive is None else self.receive(gradient)


@dataclass(eq=False)
class Call:
    """One call of one wanted module: `output` is the tensor it gave, `ear` is told the gradient that reaches it."""

    module: str
    kind: type[nn.Module]
    index: int  # 1 for the module's first call
    output: Tensor
    grid: Grid | None
    version: int
    ear: GradientListener
    argument: Tensor | None = None  # what went into an nn.Linear
    plain: bool = True  # the module gave this tensor alone, not among others
    name: str = ""  # "relu", or "relu#2" where the module was called more than once


@dataclass(eq=False)
class Attention:
    """One attention: in which module, its `heads`, and how its N tokens lie on the picture (None: they do not)."""

    module: str
    heads: AttentionCall
    grid: Grid | None = None


@dataclass(eq=False)
class Bias:
    """What one convolution or BatchNorm adds: `values` (K,); `ear` is told the gradient (B, K, *grid) at its output."""

    values: Tensor
    ear: GradientListener


@dataclass(eq=False)
class LinearHead:
    """A call of an nn.Linear: its weights (classes, K) and bias, what went in (B, K) and what came out."""

    weight: Tensor
    bias: Tensor | None
    argument: Tensor
    output: Tensor


@dataclass(eq=False)
class Trace:
    """What one forward gave: the wanted calls in execution order, and the model's own output.

    `roots` are the leaves on which everything recorded depends; `counts` says how often each wanted module was called.
    """

    inputs: Tensor
    output: Any
    calls: list[Call]
    roots: tuple[Tensor, ...]
    counts: Counter[str] = field(default_factory=Counter)
    attentions: list[Attention] = field(default_factory=list)
    linears: list[LinearHead] = field(default_factory=list)
    biases: list[Bias] = field(default_factory=list)
    pooled: bool = False  # attention whose queries and keys are not the same tokens was heard too
