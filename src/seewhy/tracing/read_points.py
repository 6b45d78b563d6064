"""Where a convolution is read: at its own output, or at the activation that follows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from seewhy.errors import UnknownName
from seewhy.tracing.layer_selection import Item, LayerSelection
from seewhy.tracing.trace import LayerCall, Trace
from seewhy.tracing.twin import named_modules

CONVOLUTION, ACTIVATION = READ_POINTS = ("convolution", "activation")
NOT_ACTIVATIONS = (activation.MultiheadAttention, activation.Softmax, activation.Softmax2d, activation.LogSoftmax)
ACTIVATIONS = tuple(
    kind
    for name in activation.__all__
    if isinstance(kind := getattr(activation, name), type) and kind not in NOT_ACTIVATIONS
)


@dataclass(frozen=True)
class AtActivation(Item):
    """The layers of `item`, each convolution read at the first activation after it: before the next convolution of the same
    parent, with the same grid and channels, and fed by nothing else. Where there is none (a functional ReLU, a residual sum)
    the convolution itself."""

    item: Item
    activations: frozenset[str]
    convolutions: frozenset[str]

    @property
    def watched(self) -> frozenset[str]:
        return self.item.watched | self.activations | self.convolutions

    def calls(self, trace: Trace) -> list[LayerCall]:
        return list(dict.fromkeys(self.moved(call, trace) for call in self.item.calls(trace)))

    def moved(self, call: LayerCall, trace: Trace) -> LayerCall:
        if call.module not in self.convolutions or call.grid is None:
            return call
        parent = call.module.rpartition(".")[0]
        for other in trace.calls[trace.calls.index(call) + 1 :]:
            if other.module in self.convolutions and other.module.rpartition(".")[0] == parent:
                break
            if other.module in self.activations and other.output.shape == call.output.shape and other.grid is not None:
                return other if self.feeds_alone(call, other, trace) else call
        return call

    def feeds_alone(self, early: LayerCall, late: LayerCall, trace: Trace) -> bool:
        """Whether all that reaches `late` comes through `early`: the activation of a residual sum is not the convolution's own.

        Seen in autograd's graph, walked back from `late`: no other convolution or activation lies on the way.
        """
        kinds = self.convolutions | self.activations
        others = {call.output.grad_fn for call in trace.calls if call.module in kinds and call not in (late, early)}
        seen, waiting = {late.output.grad_fn, early.output.grad_fn}, [late.output.grad_fn]
        while waiting and (node := waiting.pop()) is not None:
            for before, _ in node.next_functions:
                if before in others:
                    return False
                if before is not None and before not in seen:
                    seen.add(before)
                    waiting.append(before)
        return True


def at_read_point(selection: LayerSelection, read_at: str, model: nn.Module) -> LayerSelection:
    """Return the selection read at `read_at`: "convolution" (unchanged) or "activation".

    Raises UnknownName for another value.

    >>> from seewhy.tracing.layer_selection import parse_layers
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> sorted(at_read_point(parse_layers("0", net), "activation", net).request.names)
    ['0', '2']
    """
    if read_at not in READ_POINTS:
        raise UnknownName(
            "read point",
            read_at,
            READ_POINTS,
            hint="Use read_at='convolution' (the output of the convolution) or 'activation' (of the activation after it).",
        )
    if read_at == CONVOLUTION:
        return selection
    modules = dict(named_modules(model))
    activations = frozenset(name for name, module in modules.items() if is_activation(module))
    convolutions = frozenset(name for name, module in modules.items() if isinstance(module, _ConvNd))
    return replace(selection, items=tuple(AtActivation(item, activations, convolutions) for item in selection.items))


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation, or a normalisation with one inside, as timm has them."""
    inside = getattr(module, "act", None)
    fused = isinstance(module, _BatchNorm) and isinstance(inside, nn.Module) and not isinstance(inside, nn.Identity)
    return fused or isinstance(module, ACTIVATIONS) or type(module).__module__.startswith("timm.layers.activations")
