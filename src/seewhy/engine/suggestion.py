"""The layer to look at first, found by watching the network: the last grid that the score's gradient still reaches."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import LayerError
from seewhy.nested import first_tensor
from seewhy.targets.dense import is_dense
from seewhy.tracing.grid import TOKENS, GridHint, parse_grid
from seewhy.tracing.layer_selection import LIST_THEM, WORDS, check_unambiguous, has_grid
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import SingleInputModel, for_image
from seewhy.tracing.torch_private import has_own_parameters
from seewhy.tracing.trace import LayerCall, RecordingRequest, Trace
from seewhy.tracing.twin import find_module, named_modules

CELLS = 4  # of a token grid, whose places are checked
VAGUE = 1.5  # a cell whose strongest place is less than this times the mean looks at no place
REACHED = 0.5  # share of cells that must get a gradient
TRIED = 16  # layers before the head of a dense output

ZERO_HEAD = "the head passes no gradient (are its weights still zero?); its input was asked instead"

Key = tuple[tuple[int, ...], GridHint | None]  # the input's shape, and the grid that was given
_known: weakref.WeakKeyDictionary[nn.Module, dict[Key, Suggestion]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Suggestion:
    """The suggested `layer` and, where something had to be inferred, a `note` in words."""

    layer: str
    note: str = ""


def suggest(model: nn.Module, inputs: Tensor, grid: Any = None) -> Suggestion:
    """The layer of `model` whose map says most about `inputs` (B, C, *size), found from one picture without any names.

    Of all modules whose output is a grid on the picture of at least 2 cells an axis, the last in execution order where a
    random direction of the model's output sends a gradient to at least half of the cells; of modules that give the same
    tensor, the outermost. Where the head is all zeros (just initialised), the input of the last linear layer is asked
    instead. Costs one forward and one backward the first time; the answer is kept for the model and the input's shape.
    `grid` as in `seewhy.explain`.

    Raises LayerError where no layer qualifies.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> suggest(net, torch.rand(1, 3, 8, 8)).layer
    '1'
    """
    known = _known.setdefault(model, {})
    hint = None if grid is None else parse_grid(grid)
    key = tuple(inputs.shape[1:]), hint
    found = known.get(key)
    if found is None or find_module(model, found.layer) is None:  # layers may be taken out of a model
        model_of_one = for_image(model, 0)
        with record_forward(model_of_one, inputs[:1], RecordingRequest(), from_input=True, exact=False, grid=hint) as trace:
            found = observe(trace, learned(model), hint, alone=not isinstance(model, SingleInputModel))
        if found.note != ZERO_HEAD:  # which training changes
            known[key] = found
    return found


def learned(model: nn.Module) -> frozenset[str]:
    """The modules that have weights of their own."""
    return frozenset(name for name, module in named_modules(model) if has_own_parameters(module))


def observe(trace: Trace, learned: frozenset[str], given: GridHint | None, *, alone: bool) -> Suggestion:
    """The suggestion from one forward of a model that takes the picture `alone`, or with other inputs; `given` is the grid
    that the user gave."""
    generator = torch.Generator().manual_seed(0)
    calls = [call for call in trace.calls if has_grid(call) and not issubclass(call.module_class, nn.Linear)]
    output = first_tensor(trace.output)
    reached = reached_by(output, calls, trace, generator)
    note = ""
    if not reached:  # a head of zeros: ask what goes into it
        heads = [call.linear_input for call in trace.calls if call.linear_input is not None]
        if heads:
            reached = reached_by(heads[-1], calls, trace, generator)
            note = ZERO_HEAD
    if not reached:
        raise LayerError("suggested", f"no layer with a grid gets a gradient from the model's output. {LIST_THEM}")
    while not alone and not sees_picture(reached[-1], trace):  # a text beside the picture has layers of its own
        reached.pop()
        if not reached:
            raise LayerError("suggested", f"no layer with a grid depends on the picture. {LIST_THEM}")
    last = reached[-1]
    if is_dense(trace.output, trace.inputs.dim() - 2):
        last, note = entering_the_head(reached, trace, learned, generator)
    same = [call for call in reached if gave_the_same(call, last)]
    # A module that gives several tensors may hand on others than this one, such as what it pooled from it.
    best = min(same, key=lambda call: (not call.is_sole_output, is_awkward_name(call), call.name.count(".")))
    assert best.grid is not None
    check_unambiguous(best)
    if best.grid.layout in TOKENS and not (given and best.grid.source == given.source):
        note = "; ".join(filter(None, (note, checked_order(best, trace, generator))))
    return Suggestion(best.name, note)


def reached_by(output: Tensor | None, calls: list[LayerCall], trace: Trace, generator: torch.Generator) -> list[LayerCall]:
    """The calls where a random direction of `output` sends a finite gradient to at least half of the cells."""
    found: dict[LayerCall, bool] = {}
    if output is None or not output.requires_grad:
        return []

    def listen(call: LayerCall) -> None:
        def receive(gradient: Tensor) -> None:
            assert call.grid is not None
            cells = call.grid.channels_first(gradient).abs().sum(1)
            found[call] = bool(torch.isfinite(cells).all()) and float((cells > 0).float().mean()) >= REACHED

        call.listener.on_gradient = receive

    for call in calls:
        listen(call)
    direction = torch.randn(output.shape, generator=generator).to(output)
    torch.autograd.grad((output * direction).sum(), trace.leaves, retain_graph=True, allow_unused=True)
    for call in calls:
        call.listener.on_gradient = None
    return [call for call in calls if found.get(call)]


def entering_the_head(
    reached: list[LayerCall], trace: Trace, learned: frozenset[str], generator: torch.Generator
) -> tuple[LayerCall, str]:
    """For an output that is a grid itself: the last layer that a learned layer still reads and that everything passes.

    The last grid of all would be the output, whose map repeats the question. That everything passes is seen by one backward
    pass with the layer's gradient set to zero: nothing may reach the input then. Several heads would else share the answer.
    """
    output = first_tensor(trace.output)
    assert output is not None
    order = {call: number for number, call in enumerate(trace.calls)}
    readers = [
        number for call, number in order.items() if call.module in learned and (call in reached or call.grid is None)
    ]
    before = [call for call in reached if order[call] < max(readers, default=0)]
    if not before:
        return reached[-1], "the output is a grid itself, and nothing comes before it: its map repeats the question"
    direction = torch.randn(output.shape, generator=generator).to(output)
    for call in before[: -TRIED - 1 : -1]:
        call.listener.on_gradient = torch.zeros_like
        gradient = torch.autograd.grad((output * direction).sum(), trace.inputs, retain_graph=True, allow_unused=True)[
            0
        ]
        call.listener.on_gradient = None
        if gradient is None or not gradient.any():
            return call, "the output is a grid itself: this is the last layer that all of it passes before its head"
    return before[-1], "the output is a grid itself: this is what its last layer reads, though other paths pass it by"


def sees_picture(call: LayerCall, trace: Trace) -> bool:
    """Whether what a layer gave depends on the inputs."""
    gradient = torch.autograd.grad(call.output.sum(), trace.inputs, retain_graph=True, allow_unused=True)
    return gradient[0] is not None


def is_awkward_name(call: LayerCall) -> bool:
    """Whether another module that gave the same is a better answer: a group's name cannot be copied and pasted, and an
    Identity says nothing."""
    return call.name in WORDS or issubclass(call.module_class, nn.Identity)


def gave_the_same(one: LayerCall, other: LayerCall) -> bool:
    if one.output is other.output:
        return one.version == other.version  # or a later in-place operation stands between them
    if one.is_overwritten or other.is_overwritten:
        return False
    return one.output.shape == other.output.shape and torch.equal(one.output, other.output)


def checked_order(call: LayerCall, trace: Trace, generator: torch.Generator) -> str:
    """Whether a few random cells of a token grid look mostly at their own place in the picture: "" where they do.

    What to say where a cell looks at no place more than at others, so that nothing can be told; LayerError where one looks
    at another place.
    """
    assert call.grid is not None
    tokens = call.grid.channels_first(call.output).flatten(2)
    rows, columns = call.grid.shape
    vague = False
    for cell in torch.randperm(call.grid.cell_count, generator=generator)[:CELLS].tolist():
        direction = torch.randn(tokens.shape[:2], generator=generator).to(tokens)
        gradient = torch.autograd.grad((tokens[:, :, cell] * direction).sum(), trace.inputs, retain_graph=True)[0]
        seen = nn.functional.adaptive_avg_pool2d(gradient.abs().sum(1, keepdim=True), (rows, columns)).flatten()
        peak = int(seen.argmax())
        if seen[peak] < VAGUE * seen.mean():
            vague = True
        elif max(abs(peak // columns - cell // columns), abs(peak % columns - cell % columns)) > 1:
            raise LayerError(
                call.name,
                f"its tokens were read as a {call.grid} grid, but do not lie in that order; name a layer before they are "
                f"shuffled, or say the grid as grid='{call.grid}'. {LIST_THEM}",
            )
    order = "each of its tokens looks at all of the picture alike, so their order could not be checked: row by row was assumed"
    return order if vague else ""
