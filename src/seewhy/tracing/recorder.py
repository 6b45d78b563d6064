"""The hooks of one recorded forward pass. They are registered on a twin only, never on the user's model.

A forward hook on each requested module stores its output as a `LayerCall`, together with the grid of that output (`grid`).
Hooks on convolutions and poolings collect the grids seen so far, from which the grids of other layers are inferred. The
hooks pass every output on unchanged: a value that is overwritten later is saved as a snapshot. The only exceptions are
overwritten views, of which a copy is passed on if that does not change the output of the network (`record` compares them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from seewhy.errors import LayerError
from seewhy.tensors.nested import first_tensor, replace_first
from seewhy.tracing.folded_norm import folded_norm
from seewhy.tracing.function_modes import AttentionCall
from seewhy.tracing.graph_start import GraphStart, returns_new_tensor, source_of
from seewhy.tracing.grid import Grid, GridHint
from seewhy.tracing.grid_inference import is_ambiguous
from seewhy.tracing.grid_tracker import GRID_SOURCES
from seewhy.tracing.known_grids import Grids
from seewhy.tracing.layer_groups import is_pointwise
from seewhy.tracing.model_properties import ModelProperties
from seewhy.tracing.token_cache import CallKey, Placement
from seewhy.tracing.torch_private import (
    ADAPTIVE_POOLING,
    CONVOLUTION,
    is_view,
    version_of,
)
from seewhy.tracing.trace import AttentionRecord, BiasTerm, GradientListener, LayerCall, LinearCall, RecordingRequest

UNDER_NO_GRAD = "the model runs it under torch.no_grad or checkpoint(use_reentrant=True)"
SHARED_VIEW = "its output is part of a tensor that the model changes in place later"
CHANNELS_FIRST = (*GRID_SOURCES, *ADAPTIVE_POOLING)  # adaptive pooling sets its own output size, so it is not a source


class Recorder:
    """The hooks of one forward pass, and what they recorded."""

    def __init__(
        self,
        start: GraphStart,
        request: RecordingRequest,
        properties: ModelProperties,
        grids: Grids,
        user_hint: GridHint | None = None,
        placements: Mapping[CallKey, Placement] | None = None,
        permuted: frozenset[str] | None = None,
    ) -> None:
        self.start, self.request, self.properties, self.permuted = start, request, properties, permuted
        self.grids, self.user_hint, self.placements = grids, user_hint, placements or {}
        self.calls: list[LayerCall] = []
        self.call_counts: Counter[str] = Counter()
        self.in_inference_mode: list[str] = []  # layers that are skipped like constants, unless they are named
        self.grad_disabled, self.is_recording = False, True  # whether a requested layer runs under torch.no_grad
        self.attentions: list[AttentionRecord] = []
        self.linear_calls: list[LinearCall] = []
        self.pointwise: tuple[nn.Module, Tensor, int] | None = None
        self.bias_terms: list[BiasTerm] = []
        self.running: list[str] = []  # modules that are being called, outermost first; maintained for attention only

    def attach(self, modules: Mapping[str, nn.Module]) -> None:
        """Register the hooks that the request needs on the modules of a twin, given by name."""
        names = self.request.names
        requested = modules if names is None else {name: modules[name] for name in names}
        for name, module in requested.items():
            source = source_of(module)
            is_new = returns_new_tensor(source)
            if not is_new:
                source.register_forward_pre_hook(self.start.hook_before(name), with_kwargs=True)
            module.register_forward_hook(self.recording_hook(name, module, is_new=is_new and source is module))
        if self.grids.needs_sources and not all(isinstance(module, GRID_SOURCES) for module in requested.values()):
            for name, module in modules.items():
                if isinstance(module, GRID_SOURCES) and name not in requested:
                    module.register_forward_hook(partial(self.record_grid, name))
        if self.request.linear_calls:
            for module in modules.values():
                if isinstance(module, nn.Linear):
                    module.register_forward_hook(self.record_linear)
                elif isinstance(module, CONVOLUTION) and is_pointwise(module):
                    module.register_forward_hook(self.record_pointwise)
        if self.request.attention:
            for name, module in modules.items():
                module.register_forward_pre_hook(self.entering_hook(name))
                module.register_forward_hook(self.leave)

    def recording_hook(self, name: str, module: nn.Module, *, is_new: bool) -> Callable[[nn.Module, Any, Any], Any]:
        """Return the hook that stores the output of `module` as a `LayerCall`."""
        is_overwritten, is_copied = name in self.properties.overwritten, name in self.properties.views
        is_source, is_channels_first = isinstance(module, GRID_SOURCES), isinstance(module, CHANNELS_FIRST)

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if self.is_recording:
                self.call_counts[name] += 1
                if is_source:
                    self.grids.record(name, module, output)
            tensor = first_tensor(output)
            if tensor is None or not tensor.is_floating_point():
                return None
            inferred = self.grids.grid_of(name, tensor, is_channels_first, self.call_counts[name])
            is_guess = inferred is not None and not inferred.is_confirmed
            if is_guess and is_view(tensor) and any(item is tensor for item in args):
                inferred = None  # an empty module that returns queries or keys, for example
            placement = None if is_channels_first else self.placement_of(name, inferred)
            grid = inferred if placement is None else placement.grid
            if self.request.only_with_grid and (grid is None or not grid.shape or max(grid.shape) < 2):
                return None
            if tensor.is_inference():
                self.in_inference_mode.append(name)
                return None
            recorded, obstacle = tensor, SHARED_VIEW if name in self.properties.shared_views else ""
            if torch.is_grad_enabled():
                recorded = self.start.start_at(name, tensor, is_new=is_new)
            else:
                self.grad_disabled, obstacle = True, UNDER_NO_GRAD
            passed_on = recorded.clone() if is_copied else recorded
            if self.is_recording:
                listener = GradientListener()
                # Reading grad_fn is not redundant: without it, PyTorch 2.14 crashes in register_hook on some views.
                has_gradient = recorded.grad_fn is not None and not obstacle
                if has_gradient:
                    recorded.register_hook(listener)  # type: ignore[no-untyped-call]
                self.calls.append(
                    LayerCall(
                        module=name,
                        module_class=type(module),
                        number=self.call_counts[name],
                        output=recorded,
                        grid=grid,
                        version=version_of(recorded),
                        listener=listener,
                        edge=get_gradient_edge(recorded) if has_gradient else None,
                        snapshot=recorded.detach().clone() if is_overwritten and not is_copied else None,
                        input=args[0] if self.request.names is None and args and isinstance(args[0], Tensor) else None,
                        is_view=is_view(recorded),
                        is_input=any(item is tensor for item in args),
                        obstacle=obstacle,
                        refused_grid=inferred if grid is None else None,
                        has_unknown_order=placement is not None and not placement.is_known,
                        norm=folded_norm(module),
                        is_sole_output=isinstance(output, Tensor),
                        is_permuted=not is_channels_first and self.is_permuted(name, (tensor, *args)),
                    )
                )
            return None if passed_on is tensor else replace_first(output, passed_on)

        return hook

    def finish(self) -> None:
        """Stop recording, and name the calls."""
        self.is_recording = False  # checkpointed modules are called again in the backward pass
        for name in [] if self.calls and self.request.is_group else self.in_inference_mode:
            raise LayerError(
                name, "the model runs this layer in inference mode; remove torch.inference_mode from its forward."
            )
        self.start.check_copies()
        self.linear_calls += self.pointwise_head()
        self.pointwise = None
        for call in self.calls:
            is_repeated = self.call_counts[call.module] > 1
            call.name = f"{call.module}#{call.number}" if is_repeated else call.module

    def is_permuted(self, name: str, tensors: Iterable[Any]) -> bool:
        """Return True if the memory of `tensors` shows that their channels were last. That of a prepared twin does not."""
        return any(map(is_ambiguous, tensors)) if self.permuted is None else name in self.permuted

    # Grids

    def record_grid(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self.grids.record(name, module, output)

    def placement_of(self, name: str, grid: Grid | None) -> Placement | None:
        """Return where the tokens of the current call lie, if that was observed and the user did not state it."""
        is_given = self.user_hint is not None and grid is not None and grid.source == self.user_hint.source
        if grid is None or is_given:
            return None
        placement = self.placements.get((name, self.call_counts[name]))
        return None if placement is None else placement.like(grid)

    # Attention, linear layers, biases

    def entering_hook(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, args: self.running.append(name)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name, tensor = self.running.pop(), first_tensor(output)
        for attention in self.attentions if tensor is not None and tensor.dim() == 3 else ():
            is_inside = f"{attention.module}.".startswith(f"{name}.")
            if tensor is not None and is_inside and attention.grid is None and tensor.shape[1] == attention.token_count:
                attention.grid = self.grids.grid_of(name, tensor, is_channels_first=False)

    def record_attention(self, call: AttentionCall) -> None:
        numbers = {name: self.call_counts[name] + 1 for name in self.running}
        self.attentions.append(AttentionRecord(self.running[-1] if self.running else "", call, numbers))

    def record_linear(self, module: nn.Module, args: Any, output: Any) -> None:
        weight = getattr(module, "weight", None)
        if args and isinstance(args[0], Tensor) and args[0].dim() == 2 and isinstance(weight, Tensor):
            self.linear_calls.append(LinearCall(weight, getattr(module, "bias", None), args[0].detach()))

    def record_pointwise(self, module: nn.Module, args: Any, output: Any) -> None:
        """Keep the last 1x1 convolution: if the class scores are linear in the mean of its input, it is a linear head."""
        if args and self.is_recording:
            self.pointwise = module, args[0].detach(), version_of(args[0])

    def pointwise_head(self) -> list[LinearCall]:
        if self.pointwise is None:
            return []
        module, inputs, version = self.pointwise
        weight = getattr(module, "weight", None)
        if version_of(inputs) != version or not isinstance(weight, Tensor):
            return []
        return [LinearCall(weight.flatten(1), getattr(module, "bias", None), inputs.flatten(2).mean(2))]

    def record_bias(self, values: Tensor, output: Tensor) -> None:
        if output.requires_grad:
            bias = BiasTerm(values, GradientListener())
            output.register_hook(bias.listener)  # type: ignore[no-untyped-call]
            self.bias_terms.append(bias)
