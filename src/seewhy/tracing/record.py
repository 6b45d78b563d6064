"""One forward through a twin, keeping what the wanted layers gave. The only hooks of seewhy are here, and only on twins."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from seewhy.errors import REFUSALS, LayerError, ModelError, SeewhyError
from seewhy.models.loaded import input_form
from seewhy.models.weights import first_line
from seewhy.nested import first_tensor, replace_first
from seewhy.tracing.function_modes import AttentionCall, CaptureAttention, CaptureBias, GuidedReLU
from seewhy.tracing.grid import Grid, Hint, find_grid
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.token_hints import token_grid_hint
from seewhy.tracing.trace import Attention, Bias, Call, GradientListener, LinearHead, Trace, Wanted
from seewhy.tracing.twin import named_modules, twin

# So who catches IndexError of his own model still does, and who tries inputs of other sizes catches REFUSALS.
REFUSED: dict[type[Exception], Any] = {kind: type("Refused", (ModelError, kind), {}) for kind in REFUSALS}
SHAPERS = (_ConvNd, _MaxPoolNd, _AvgPoolNd)  # modules whose output is channels first by definition
ADAPTIVE = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)  # as well, but of a size that says nothing about other layers


@dataclass(frozen=True)
class _Quirks:
    """What a first forward taught about a model, so that the next needs no repetition."""

    overwritten: frozenset[str] = frozenset()  # layers whose output a later in-place operation changes: hand on a copy
    dark: bool = False  # a wanted layer runs under no_grad inside the model: switch gradients on again


_quirks: weakref.WeakKeyDictionary[nn.Module, _Quirks] = weakref.WeakKeyDictionary()


@contextmanager
def recording(
    model: nn.Module,
    inputs: Tensor,
    wanted: Wanted,
    *,
    from_input: bool = False,
    exact: bool = True,
    guided: GuidedReLU | None = None,
    grid: Hint | None = None,
) -> Iterator[Trace]:
    """Run a twin of `model` on `inputs` once and keep every wanted call's output, with its graph, until the block ends.

    The graph starts at the earliest wanted call (`from_input`: at the input). Kept outputs are safe from later in-place
    operations: where one was overwritten, the forward is repeated once with copies of those layers, and that is
    remembered for the model. Without `exact` it is not repeated: gradients are right all the same, and an output whose
    version is no longer `call.version` is not what the layer gave. Gradients are on inside the block, whatever the
    caller's mode; RNG state is put back. `guided` ReLUs pass back positive gradients only. `grid` is how the user says that
    tokens lie on the picture.

    Raises ModelError for a model that cannot be watched or does not take the inputs, LayerError for a layer that runs in
    inference mode.
    """
    with torch.inference_mode(False), torch.enable_grad(), unchanged_rng(inputs.device):
        while True:  # a second forward may see what the first could not: each adds to what is known, so this ends
            trace, learnt = _run(model, inputs, wanted, from_input, guided, grid)
            if learnt is None:
                break
            darker = learnt.dark and not _quirks.get(model, _Quirks()).dark
            _quirks[model] = learnt
            if not (exact or darker):
                break
            del trace
        with clear_errors(model):
            yield trace


def _run(
    model: nn.Module, inputs: Tensor, wanted: Wanted, from_input: bool, guided: GuidedReLU | None, grid: Hint | None
) -> tuple[Trace, _Quirks | None]:
    """One forward, and the quirks under which it should be repeated, if it showed any new ones."""
    known = _quirks.get(model, _Quirks())
    leaf = inputs.detach().clone().requires_grad_(from_input)
    copy = twin(model)
    watch = _Watch(leaf, wanted, known, copy, grid)
    watch.attach(copy)
    attention = CaptureAttention(watch.hear)
    with (
        attention if wanted.attention else nullcontext(),
        CaptureBias(watch.hear_bias) if wanted.biases else nullcontext(),
        guided or nullcontext(),
        clear_refusals(model, inputs),
    ):
        output = copy(leaf.clone() if from_input else leaf)  # a leaf could not be overwritten
    watch.open = False  # a checkpointed model calls its modules again in the backward pass: the same, but not recorded
    for call in watch.calls:
        call.name = f"{call.module}#{call.index}" if watch.counts[call.module] > 1 else call.module
    roots = (watch.spark, leaf) if from_input else (watch.spark,)
    learnt = known
    if watch.dark and not known.dark:
        learnt = replace(learnt, dark=True)
    hurt = {call.module for call in watch.calls if call.output._version != call.version}
    if hurt:
        learnt = replace(learnt, overwritten=known.overwritten | hurt)
    trace = Trace(
        leaf, output, watch.calls, roots, watch.counts, watch.attentions, watch.linears, watch.biases, attention.pooled
    )  # fmt: skip
    return trace, None if learnt == known else learnt


@contextmanager
def clear_refusals(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """The model's own error on these inputs as a ModelError in one line, which is still of the kind that it was."""
    try:
        yield
    except (SeewhyError, torch.OutOfMemoryError):
        raise
    except REFUSALS as error:
        network = model.model if isinstance(model, SingleInputModel) else model
        form = input_form(network)
        unbatched = form is not None and inputs.dim() == form[1] + 1
        advice = "add the batch axis: x[None]" if unbatched else "give inputs that it takes"
        reason = f"its forward fails on inputs of shape {tuple(inputs.shape)} ({first_line(error)}); {advice}."
        kind = next(kind for kind in REFUSALS if isinstance(error, kind))
        raise REFUSED[kind](type(network).__name__, reason) from error


@contextmanager
def clear_errors(model: nn.Module) -> Iterator[None]:
    """What PyTorch says of a backward pass that a model does not allow, with the way out."""
    try:
        yield
    except RuntimeError as error:
        if "use_reentrant=True" not in str(error):
            raise
        raise ModelError(
            type(model).__name__,
            "it recomputes layers with checkpoint(use_reentrant=True), which hides them from autograd; say "
            "use_reentrant=False, as PyTorch advises, or switch checkpointing off while explaining.",
        ) from None


class _StartGraph(torch.autograd.Function):
    """Starts a graph at a tensor that has none: in place, so nothing is copied and no leaf blocks a later operation."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, spark: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient.new_zeros(())


class _Watch:
    """The hooks of one forward."""

    def __init__(
        self, inputs: Tensor, wanted: Wanted, quirks: _Quirks, model: nn.Module, grid: Hint | None = None
    ) -> None:
        self.inputs = inputs.shape
        self.model, self.given = weakref.ref(model), grid  # its hooks hold this object, and so would never be free
        self.wanted = wanted
        self.quirks = quirks
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.grids: list[tuple[int, ...]] = []  # of convolutions and poolings, latest first
        self.spark = torch.zeros((), dtype=inputs.dtype, device=inputs.device, requires_grad=True)
        self.dark = False
        self.open = True
        self.attentions: list[Attention] = []
        self.linears: list[LinearHead] = []
        self.biases: list[Bias] = []
        self.running: list[str] = []  # modules, outermost first; followed for attention only

    def attach(self, model: nn.Module) -> None:
        chosen = dict(named_modules(model))
        if self.wanted.names is not None:
            chosen = {name: chosen[name] for name in self.wanted.names}
        for name, module in chosen.items():
            module.register_forward_hook(self.keep(name, module))
        if not all(isinstance(module, SHAPERS) for module in chosen.values()):
            for name, module in named_modules(model):  # a layer's grid is told by those of the convolutions before it
                if isinstance(module, SHAPERS) and name not in chosen:
                    module.register_forward_hook(self.note_grid)
        if self.wanted.heads:
            for _, module in named_modules(model):
                if isinstance(module, nn.Linear):
                    module.register_forward_hook(self.keep_linear)
        if self.wanted.attention:
            for name, module in named_modules(model):
                module.register_forward_pre_hook(self.enter(name))
                module.register_forward_hook(self.leave)
        if self.quirks.dark:
            for _, module in named_modules(model):
                module.register_forward_pre_hook(switch_gradients_on)

    def keep_linear(self, module: nn.Module, args: Any, output: Any) -> None:
        assert isinstance(module, nn.Linear)
        if args and args[0].dim() == 2:
            self.linears.append(LinearHead(module.weight, module.bias, args[0].detach(), output))

    def hear(self, heads: AttentionCall) -> None:
        self.attentions.append(Attention(self.running[-1] if self.running else "", heads))

    def hear_bias(self, values: Tensor, output: Tensor) -> None:
        if output.requires_grad:
            bias = Bias(values, GradientListener())
            output.register_hook(bias.ear)  # type: ignore[no-untyped-call]
            self.biases.append(bias)

    def enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, args: self.running.append(name)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name, tensor = self.running.pop(), first_tensor(output)
        for attention in self.attentions:
            if attention.grid is None and attention.module == name and tensor is not None and tensor.dim() == 3:
                attention.grid = self.grid_of(tensor, shaper=False)

    def note_grid(self, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and self.spans_input(output):
            grid = tuple(output.shape[2:])
            if grid not in self.grids[:1]:
                self.grids.insert(0, grid)

    def spans_input(self, output: Tensor) -> bool:
        # A convolution along channels (as in ECA) has another rank, one over patches another batch.
        return output.dim() == len(self.inputs) and output.shape[0] == self.inputs[0]

    @cached_property
    def hints(self) -> list[Hint]:
        """What is said about the grid of tokens: by the user, then by the model."""
        model = self.model()
        told = None if model is None else token_grid_hint(model.modules(), self.inputs[2:])
        return [hint for hint in (self.given, told) if hint is not None]

    def grid_of(self, output: Tensor, shaper: bool) -> Grid | None:
        if not shaper:
            return find_grid(output, self.inputs, self.grids, self.hints)
        return Grid(tuple(output.shape[2:])) if self.spans_input(output) else None

    def keep(self, name: str, module: nn.Module) -> Callable[[nn.Module, Any, Any], Any]:
        copied = name in self.quirks.overwritten
        shaper, conv = isinstance(module, SHAPERS), isinstance(module, _ConvNd)
        channels_first = shaper or isinstance(module, ADAPTIVE)

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if self.open:
                self.counts[name] += 1
                if shaper:
                    self.note_grid(module, args, output)
            tensor = first_tensor(output)
            if tensor is None or not tensor.is_floating_point():
                return None
            grid = self.grid_of(tensor, channels_first)
            if self.wanted.gridded and (grid is None or not grid.shape or min(grid.shape) < 2):
                return None
            if tensor.is_inference():
                raise LayerError(name, "the model runs this layer in inference mode; take that out of its forward.")
            if not torch.is_grad_enabled():
                self.dark = True
                return None
            kept = tensor
            if not kept.requires_grad:
                # Only a convolution's output is sure to be nobody else's tensor: an Identity hands on its input.
                kept = _StartGraph.apply(kept if conv and not kept._is_view() else kept.clone(), self.spark)
            if self.open:
                ear = GradientListener()
                kept.register_hook(ear)  # type: ignore[no-untyped-call]
                argument = args[0] if isinstance(module, nn.Linear) and args else None
                number, plain = self.counts[name], isinstance(output, Tensor)
                self.calls.append(Call(name, type(module), number, kept, grid, kept._version, ear, argument, plain))
            if copied:
                return replace_first(output, kept.clone())
            return None if kept is tensor else replace_first(output, kept)

        return hook


def switch_gradients_on(module: nn.Module, args: Any) -> None:
    # The model's own `with torch.no_grad()` puts the mode back when it ends.
    torch._C._set_grad_enabled(True)


@contextmanager
def unchanged_rng(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was; it is written only if the block moved it, as other threads may be drawing too."""
    before = torch.get_rng_state()
    gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        if not torch.equal(before, torch.get_rng_state()):
            torch.set_rng_state(before)
        if gpu is not None and not torch.equal(gpu, torch.cuda.get_rng_state(device)):
            torch.cuda.set_rng_state(gpu, device)
