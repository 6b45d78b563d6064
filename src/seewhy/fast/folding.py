"""Fold BatchNorms into the convolutions before them, in a twin whose layers keep their names and their meaning.

In eval mode a BatchNorm computes scale * A + shift for each channel. With other weights, its convolution computes that itself,
and the norm passes its input on. What the convolution returned in the model is known from its new output (`FoldedNorm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.fast.layer_forward import FORWARD, run_layer
from seewhy.tracing.folded_norm import FOLDED_NORM, PASSES_ON, FoldedNorm
from seewhy.tracing.memory_format import LayoutFix, remove_layout_fix
from seewhy.tracing.torch_private import CONVOLUTION, has_call_wrapper, has_hooks, parameter_table
from seewhy.tracing.twin import find_module

PENDING = "_pending_output"  # in the `__dict__` of a folded convolution: its output, until the norm has read it
FOLDED = "_folded_convolutions"  # in that of the root
MAX_LOSS = 256.0  # how much larger rounding errors may become where the output of the convolution is computed back


class PathChanged(Exception):
    """A prepared model took another path than when its norms were folded, so its result is wrong."""


@dataclass(frozen=True)
class Pair:
    """A convolution and the norm after it. `aliases`: modules around the convolution that return its output."""

    convolution: str
    norm: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FoldedWeights:
    """The weights of a convolution with the norm after it."""

    weight: Tensor
    bias: Tensor
    norm: FoldedNorm

    def run(self, convolution: nn.Module, inputs: Tensor) -> Tensor:
        """Return what `convolution` of a twin computes with these weights; its own weights stay."""
        own = dict(parameter_table(convolution))
        try:
            self.store(convolution)
            output: Tensor = type(convolution).forward(convolution, inputs)
        finally:
            parameter_table(convolution).update(own)
        return output

    def store(self, convolution: nn.Module) -> None:
        """Give these weights to a convolution of a twin."""
        parameter_table(convolution).update(weight=self.weight, bias=self.bias)


def is_foldable(module: nn.Module) -> bool:
    """Return True for a convolution whose weights can be replaced: its own parameters, read by its class's forward."""
    is_plain = isinstance(module, CONVOLUTION) and FORWARD not in module.__dict__ and not has_hooks(module)
    return is_plain and not module.transposed and {"weight", "bias"} <= parameter_table(module).keys()


def is_norm(module: nn.Module) -> bool:
    """Return True for a BatchNorm with running statistics, of PyTorch or another library, without hooks of the user."""
    found = [getattr(module, name, None) for name in ("running_mean", "running_var")]
    has_statistics = all(isinstance(value, Tensor) for value in found) and hasattr(module, "eps")
    return has_statistics and FORWARD not in module.__dict__ and not has_hooks(module, except_of=LayoutFix)


def fold_weights(convolution: Any, norm: Any) -> FoldedWeights | str:
    """Return the weights of `convolution` with `norm` in them, or the reason why they cannot be folded."""
    weight = convolution.weight.detach()
    if weight.dtype not in (torch.float32, torch.float64):
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    sigma = (norm.running_var.double() + norm.eps).sqrt()
    mean = norm.running_mean.double()
    gamma = norm.weight.double() if getattr(norm, "weight", None) is not None else torch.ones_like(mean)
    beta = norm.bias.double() if getattr(norm, "bias", None) is not None else torch.zeros_like(mean)
    if len(gamma) != len(weight):
        return "the norm has another number of channels"
    scale = gamma / sigma
    shift = beta - mean * scale
    # Rounding errors of A = (A' - shift) / scale, compared with the size of A in its largest channel.
    loss = (shift.abs() + beta.abs()) / scale.abs()
    if not bool(scale.abs().min() > 0) or not bool(loss.max() <= MAX_LOSS * (sigma + mean.abs()).max()):
        return "a channel of the norm has a scale of almost 0"
    bias = torch.zeros_like(mean) if convolution.bias is None else convolution.bias.double()
    norm_of_output = FoldedNorm(scale.to(weight.dtype), shift.to(weight.dtype))
    folded = weight * norm_of_output.scale.reshape(-1, *[1] * (weight.dim() - 1))
    return FoldedWeights(folded, (scale * bias + shift).to(weight.dtype), norm_of_output)


def has_activation(norm: Any) -> bool:
    """Return True for a norm with an activation inside, as timm's BatchNormAct2d."""
    return isinstance(getattr(norm, "act", None), nn.Module) and isinstance(getattr(norm, "drop", None), nn.Module)


def activate(norm: Any, values: Tensor) -> Tensor:
    """Return what such a norm computes after its normalization."""
    result: Tensor = norm.act(norm.drop(values))
    return result


def fold(root: nn.Module, pairs: Sequence[Pair], activations: Sequence[str]) -> None:
    """Fold pairs in the twin `root`. `activations` names modules that would overwrite the output of a folded convolution.

    These work on a copy instead: in the model, the norm made one.
    """
    convolutions = []
    for pair in pairs:
        convolution, norm = find_module(root, pair.convolution), find_module(root, pair.norm)
        assert convolution is not None and norm is not None
        folded = fold_weights(convolution, norm)
        if isinstance(folded, str):  # weights have changed since the pair was found
            continue
        folded.store(convolution)
        convolution.__dict__[FORWARD] = partial(run_convolution, convolution)
        norm.__dict__[FORWARD] = partial(pass_on, norm, convolution, has_activation(norm))
        norm.__dict__[PASSES_ON] = True
        remove_layout_fix(norm)
        for name in (pair.convolution, *pair.aliases):
            module = find_module(root, name)
            assert module is not None
            module.__dict__[FOLDED_NORM] = folded.norm
        convolutions.append(convolution)
        if has_activation(norm) and getattr(norm.act, "inplace", None) is True:
            norm.act.__dict__["inplace"] = False
    for name in activations:
        module = find_module(root, name)
        assert module is not None
        module.__dict__["inplace"] = False
    root.__dict__[FOLDED] = convolutions
    root.__dict__[FORWARD] = partial(run_root, root)


# What modules of a folded twin run


def run_root(root: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run the model, and raise PathChanged if a folded convolution was not followed by its norm."""
    output = type(root).forward(root, *args, **kwargs)
    unread = [module.__dict__.pop(PENDING) for module in root.__dict__[FOLDED] if PENDING in module.__dict__]
    if unread:
        raise PathChanged
    return output


def run_convolution(convolution: nn.Module, inputs: Tensor) -> Tensor:
    output = run_layer(convolution, inputs)
    if PENDING in convolution.__dict__:
        raise PathChanged
    convolution.__dict__[PENDING] = output
    return output


def pass_on(norm: Any, convolution: nn.Module, is_activated: bool, values: Tensor) -> Tensor:
    """Return what the norm returns in the model: its convolution has normalized the values already."""
    output = convolution.__dict__.pop(PENDING, None)
    # Where a model is resumed after a layer, recorded values replace those of the convolution.
    is_own = has_call_wrapper(convolution) if output is None else output.data_ptr() == values.data_ptr()
    if not is_own:
        raise PathChanged
    return activate(norm, values) if is_activated else values
