"""The data types of a recording: what to record (`RecordingRequest`) and what one forward pass produced (`Trace`).

`record` fills them. They hold plain data and tensors with their autograd graph; no code here touches a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from seewhy.tensors.map_functions import broadcast_over_grid, nearly_equal, to_float32
from seewhy.tracing.folded_norm import FoldedNorm
from seewhy.tracing.function_modes import AttentionCall
from seewhy.tracing.grid import Grid
from seewhy.tracing.torch_private import version_of


@dataclass(frozen=True)
class RecordingRequest:
    """What to record in one forward pass.

    Calls of the modules in `names` (None: of all modules); `only_with_grid` drops calls whose grid is missing or has a
    single cell. `attention` also records every attention call, `linear_calls` the inputs and outputs of each `nn.Linear`,
    and `bias_terms` the biases that convolutions and BatchNorm add.
    """

    names: frozenset[str] | None = None
    only_with_grid: bool = False
    attention: bool = False
    linear_calls: bool = False
    bias_terms: bool = False

    @property
    def is_group(self) -> bool:
        """True if no layer was selected by its name, so that layers without a map can be skipped."""
        return self.names is None or self.only_with_grid


class GradientListener:
    """A tensor hook that calls `on_gradient`, which may return a replacement for the gradient.

    It is a separate object so that the hook holds no reference to its tensor.
    """

    __slots__ = ("on_gradient",)

    def __init__(self) -> None:
        self.on_gradient: Callable[[Tensor], Tensor | None] | None = None

    def __call__(self, gradient: Tensor | None) -> Tensor | None:
        # None comes from a custom `autograd.Function` that is not differentiable.
        return None if self.on_gradient is None or gradient is None else self.on_gradient(gradient)


@dataclass(eq=False)
class LayerCall:
    """One call of one recorded module: its `output`, and the `listener` for the gradient at that output."""

    module: str
    module_class: type[nn.Module]
    number: int  # 1 for the first call of the module
    output: Tensor
    grid: Grid | None
    version: int  # version counter of `output` right after the call
    listener: GradientListener
    edge: GradientEdge | None = None  # where gradients arrive; None: the model computed it without a graph
    snapshot: Tensor | None = None  # the value of `output` right after the call, if it is overwritten later
    input: Tensor | None = None  # the first argument, if all modules are recorded
    is_view: bool = False  # `output` shares memory with another tensor
    is_input: bool = False  # the module returned one of its inputs
    obstacle: str = ""  # why it has no gradient, although the score may depend on it
    refused_grid: Grid | None = None  # a token grid that the changes of the input contradict
    has_unknown_order: bool = False  # each token reacts to the entire input alike, so their order could not be checked
    is_sole_output: bool = True  # False if the module returned this tensor in a tuple, mapping or dataclass
    norm: FoldedNorm | None = None  # what the output contains although the model applies it later
    is_permuted: bool = False  # the memory shows that its channels were last in a layer before
    name: str = ""  # "relu", or "relu#2" if the module was called more than once

    @property
    def is_overwritten(self) -> bool:
        """Whether an in-place operation changed `output` after the call."""
        return version_of(self.output) != self.version

    @property
    def value(self) -> Tensor:
        """The output right after the call, without its graph."""
        return self.output.detach() if self.snapshot is None else self.snapshot

    @property
    def deviation(self) -> Tensor:
        """The change of the output if its activations grew from 0: `value`, without the shift of a folded norm."""
        if self.norm is None:
            return self.value
        return self.value - broadcast_over_grid(self.norm.shift[None], self.value)

    def release(self) -> None:
        """Free the output and its graph. The call cannot be read afterwards."""
        del self.output
        self.edge = self.snapshot = None


@dataclass(eq=False)
class AttentionRecord:
    """One attention call, the module it ran in, and the grid of its N tokens (None if they have no grid).

    `running` holds the modules that contain the call, each with the number of its call.
    """

    module: str
    call: AttentionCall
    running: Mapping[str, int]
    grid: Grid | None = None

    @property
    def token_count(self) -> int:
        """The number N of tokens."""
        return self.call.weights.shape[-1]


@dataclass(eq=False)
class BiasTerm:
    """The bias `values` (K,) of one convolution or BatchNorm, and the listener for the gradient (B, K, *grid) at its output."""

    values: Tensor
    listener: GradientListener


@dataclass(eq=False)
class LinearCall:
    """One call of an `nn.Linear`: `weight` (classes, K), `bias` (classes,) and `inputs` (B, K).

    A 1x1 convolution counts as one, with the means of its input over the cells. What the module computes is not known: a
    subclass, a hook or padding can change it.
    """

    weight: Tensor
    bias: Tensor | None
    inputs: Tensor

    def predicts(self, scores: Tensor, inputs: Tensor | None = None) -> bool:
        """Return True if `scores` (N, classes) are inputs @ weight.T + bias, up to rounding."""
        inputs = self.inputs if inputs is None else inputs
        shape = (scores.shape[1], inputs.shape[1])
        if self.weight.shape != shape or len(scores) != len(inputs) or not self.weight.is_floating_point():
            return False
        if self.bias is not None and self.bias.shape != shape[:1]:
            return False
        with torch.no_grad():
            weight, bias = to_float32(self.weight), self.bias
            expected = inputs.to(weight.dtype) @ weight.T
            expected = expected if bias is None else expected + bias.to(weight.dtype)
        # On a GPU, convolutions compute in TF32 by default.
        return nearly_equal(scores.detach(), expected, 1e-3 if scores.is_cuda else 1e-4)


@dataclass(eq=False)
class Trace:
    """One recorded forward pass: the requested calls in execution order, and the output of the model.

    Everything recorded depends on the tensors in `leaves`. `call_counts` holds the number of calls per recorded module.
    """

    inputs: Tensor
    output: Any
    calls: list[LayerCall]
    leaves: tuple[Tensor, ...]
    call_counts: Counter[str] = field(default_factory=Counter)
    attentions: list[AttentionRecord] = field(default_factory=list)
    linear_calls: list[LinearCall] = field(default_factory=list)
    bias_terms: list[BiasTerm] = field(default_factory=list)
    grid_sources: Mapping[tuple[int, ...], Sequence[tuple[str, int]]] = field(default_factory=dict)
    cross_attention_ranks: Set[int] = frozenset()  # of attention whose queries are not the same tokens as its keys
    has_keys_first: bool = False  # a softmax over the second last axis of square matrices
