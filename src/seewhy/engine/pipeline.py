"""The main function: a model and pictures in, an Explanation out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from math import prod
from operator import or_
from typing import Any

from torch import Tensor, nn

from seewhy.engine.inputs import read_inputs, with_fit
from seewhy.engine.passes import NETWORK, Passes
from seewhy.engine.suggestion import Suggestion, suggest
from seewhy.engine.target_resolution import answer, bound, class_logits, default_methods, notes_on, resolve
from seewhy.errors import LayerError
from seewhy.explanation.components import ChannelFeatures, LayerInfo
from seewhy.explanation.result import Explanation
from seewhy.explanation.selection import MapKey
from seewhy.images.preprocess import Fit
from seewhy.methods.base import AnyMethod, NetworkMethod, VariantMethod
from seewhy.methods.catalog import GROUPS
from seewhy.methods.parsing import as_methods, seeded
from seewhy.models.loaded import check_labels
from seewhy.models.loading import LoadedModel, load_model
from seewhy.models.provenance import provenance
from seewhy.signals.evaluator import MEMORY, Evaluator
from seewhy.signals.layer import Need, request_for
from seewhy.targets import ResolvedTarget, as_targets
from seewhy.tracing.grid import GridHint, parse_grid
from seewhy.tracing.layer_selection import LayerSelection, check_hint_used, parse_layers
from seewhy.tracing.read_points import at_read_point
from seewhy.tracing.record import record_forward
from seewhy.tracing.torch_private import CONVOLUTION
from seewhy.tracing.trace import LayerCall, Trace

SUGGESTED = "suggested"
NO_LAYERS = LayerSelection(())
Progress = Callable[[int, int], None]


def explain(
    model: nn.Module | LoadedModel,
    inputs: Any,
    *,
    methods: Any = None,
    layers: Any = None,
    read_at: str = "convolution",
    grid: Any = None,
    targets: Any = None,
    versus: Any = None,
    multilabel: bool = False,
    arguments: Mapping[str, Any] | None = None,
    main: str | int | None = None,
    preprocess: Any = None,
    labels: Any = None,
    fit: Fit | None = None,
    suggested: bool = False,
    features: int = 0,
    seed: int = 0,
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> Explanation:
    """Why the model answers as it does: maps for every method, target and layer from one forward and one backward a target.

    `model` is an nn.Module or what `load_model` gives; it is not touched. `inputs` is a tensor (B, C, *size), ready for the
    model, or a picture (path, PIL image, array, bytes), or a list of pictures; a picture needs a `preprocess`, which a
    loaded model brings. All arguments of a model with several are a tuple or a dict of them, of which `main` is explained
    where more than one could be; `arguments` go to the model beside pictures. `methods` are names or Method values
    (Grad-CAM; for questions about a place HiResCAM), `layers` as in `layer_selection.parse_layers` or "suggested" (the default),
    `targets` as in `seewhy.targets.as_targets` (the predicted class), each rather than `versus` where that is given. `read_at`
    "activation" reads convolutions at the activation after them. `grid` says how tokens lie on the picture: (14, 14), "14x14+1".
    `multilabel`: each class has a probability of its own. `fit`
    "crop" (the model's own), "squash" or "pad" says how pictures meet the input size. `suggested` explains that layer too, and
    names it in the result. `features` channels, the strongest, are kept of each layer. Methods that ask the network again
    do so in batches that take about `memory` bytes, and tell `progress` how many rows of how many are done. Of `methods`
    "all" and "fast" what does not fit is left out. `seed` is that of methods that draw random numbers and name none.

    Raises UsageError and its kinds for a call that cannot be carried out, ImageError for a picture that cannot be read.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> explain(net, torch.rand(1, 3, 8, 8), methods=["gradcam", "hirescam"], layers="every", targets=[0, 1])
    <Explanation of 1 picture: gradcam, hirescam, 2 targets, layer 0>
    """
    loaded = load_model(model, preprocess=preprocess, labels=labels)
    if fit is not None:
        loaded = with_fit(loaded, fit)
    hinted = None if grid is None else parse_grid(grid)
    chosen, questions = as_methods(methods), as_targets(targets, versus)
    if seed:
        chosen = {str(method): method for method in (seeded(method, seed) for method in chosen.values())}
    given = read_inputs(inputs, loaded, arguments, main)
    tensor, module = given.tensor, given.module
    questions = bound(questions, given, loaded, multilabel=multilabel)
    layered = any(looks_at_layers(method) for method in chosen.values())
    if not layered and (given_layers := split_suggested(layers)[1]):
        parse_layers(given_layers, module)  # a misspelt name is an error, even if no method looks at layers
    picked, hint, doubt = choose_layers(layers, module, tensor, suggested, hinted) if layered else (NO_LAYERS, None, "")
    picked = at_read_point(picked, read_at, module)
    selection = picked if hint is None else picked.with_layer(hint.layer)
    evaluator = Evaluator(module, tensor, memory, grid=hinted)
    needs = reduce(or_, (method.needs for method in all_methods(chosen)), Need.NOTHING)
    with record_forward(module, tensor, request_for(needs, selection.request), grid=hinted) as trace:
        calls = selection.matching_calls(trace)
        check_hint_used(hinted, calls)
        unasked = {call.name for call in calls} - {call.name for call in picked.matching_calls(trace)}
        trace.calls = calls  # the others' outputs are free to go
        asked = resolve(questions, trace, loaded.labels, multilabel=multilabel)
        if methods is None:  # both need gradients only, so the recording serves either
            chosen = default_methods(asked)
        classes = class_logits(trace)
        if loaded.labels is not None and classes is not None and any(item.classes is not None for item in asked):
            check_labels(loaded.labels, classes.shape[1])
        infos = {call: info(call, trace, read_at, asked=call.name not in unasked) for call in calls}
        if progress is not None:
            evaluator.on_progress = counter(progress, rows_of(chosen, infos.values(), len(tensor) * len(asked)))
        shown = {call.name: strongest(call, features) for call in calls} if features else {}
        passes = Passes(evaluator, trace, calls, chosen, picked, lenient=is_group(methods))
        passes.run(asked)
    silent, maps = passes.silent, passes.maps
    inferred = [*given.notes, *notes_on(asked, chosen, chosen=methods is not None)]
    with_maps = {layer for _, _, layer in maps}
    layer_info = {call.name: infos[call] for call in calls if call.name in with_maps}
    if NETWORK in with_maps:
        whole = LayerInfo(type(loaded.module).__name__, tuple(tensor.shape[2:]), 0, "the whole network")
        layer_info.setdefault(NETWORK, whole)  # a module may have that name
    return Explanation(
        maps={key: maps[key] for key in ordered(maps, list(chosen), asked, tuple(layer_info))},
        target_results=tuple(answer(item, classes, multilabel) for item in asked),
        layer_info=layer_info,
        has_gradient=passes.reached,
        size=tuple(tensor.shape[2:]),
        logits=classes,
        labels=loaded.labels,
        inputs=tensor,
        images=given.pictures,
        suggested=hint.layer if hint and hint.layer in layer_info else None,
        single=given.single,
        multilabel=multilabel,
        notes=(*loaded.notes, *filter(None, [doubt]), *inferred, *silent_notes(silent), *unfit_notes(passes.unfit)),
        channel_features={layer: found for layer, found in shown.items() if layer in layer_info},
        provenance=provenance(loaded, hashed=isinstance(model, LoadedModel)),
    )


def looks_at_layers(method: AnyMethod) -> bool:
    return not isinstance(method, NetworkMethod) or method.base_method is not None or method.keeps_layers


def choose_layers(
    layers: Any, module: nn.Module, inputs: Tensor, extra: bool, grid: GridHint | None
) -> tuple[LayerSelection, Suggestion | None, str]:
    """The selection that was asked for, the suggested layer where it is wanted, and what to say about that."""
    wanted, others = split_suggested(layers)
    hint, doubt = find_hint(module, inputs, grid, asked=wanted, extra=extra)
    selection = parse_layers(others, module) if others or not wanted else NO_LAYERS
    # Added by its name: a module may be called "stages", which as a specification is a group.
    return selection.with_layer(hint.layer) if hint and wanted else selection, hint, doubt


def split_suggested(layers: Any) -> tuple[bool, list[Any]]:
    """Whether a specification asks for the suggested layer, as None does, and what else is in it."""
    entries = layers if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
    others = [entry for entry in entries if not (entry is None or (isinstance(entry, str) and entry == SUGGESTED))]
    return len(others) < len(entries), others


def all_methods(methods: Mapping[str, AnyMethod]) -> Iterator[AnyMethod]:
    for method in methods.values():
        yield method
        if isinstance(method, NetworkMethod) and method.base_method is not None:
            yield method.base_method


def find_hint(
    module: nn.Module, inputs: Tensor, grid: GridHint | None, *, asked: bool, extra: bool
) -> tuple[Suggestion | None, str]:
    """The suggested layer, and what to say about it; only where it was `asked` for is it an error that there is none."""
    if not (asked or extra):
        return None, ""
    try:
        hint = suggest(module, inputs, grid)
        return hint, hint.note
    except LayerError as error:
        if asked:
            raise
        return None, f"no layer is suggested: {error.reason}"


def strongest(call: LayerCall, count: int) -> ChannelFeatures:
    assert call.grid is not None
    return ChannelFeatures.strongest(call.grid.channels_first(call.output.detach()), count)


def silent_notes(silent: Sequence[LayerCall]) -> list[str]:
    return [f"left out, as no target depends on them: {', '.join(call.name for call in silent)}"] if silent else []


def unfit_notes(unfit: dict[str, dict[str, str]]) -> list[str]:
    """Where a method gave no map, and why: one line a method, with the reason at the last layer."""
    notes = []
    for name, reasons in unfit.items():
        layer, reason = list(reasons.items())[-1]
        where = f"at {len(reasons)} layers" if len(reasons) > 1 else f"at {layer}" if layer != NETWORK else "here"
        notes.append(f"{name} is left out {where}: {reason}")
    return notes


def ordered(
    maps: Iterable[MapKey], wanted: Sequence[str], asked: Sequence[ResolvedTarget], layers: Sequence[str]
) -> list[MapKey]:
    """The keys by method (as they were asked for), then target, then layer in execution order."""
    names = sorted(
        {method for method, _, _ in maps}, key=lambda name: (wanted.index(name.partition("#")[0]), len(name), name)
    )
    methods = {name: place for place, name in enumerate(names)}
    targets = [item.key for item in asked]
    places = {name: number for number, name in enumerate(layers)}
    return sorted(maps, key=lambda key: (methods[key[0]], targets.index(key[1]), places[key[2]]))


def rows_of(methods: Mapping[str, AnyMethod], layers: Iterable[LayerInfo], pictures: int) -> int:
    """About how many rows the methods will send through the network, beside the shared pass."""
    sizes = [(info.channels, prod(info.grid)) for info in layers]
    sizes.append(sizes[-1] if sizes else (0, 0))  # for those that run once, whatever the layers
    total = 0
    for method in methods.values():
        once = isinstance(method, (VariantMethod, NetworkMethod))  # all layers share their passes
        for channels, cells in sizes[-1:] if once else sizes[:-1]:
            total += method.forwards(channels, cells)
    return total * pictures


def counter(progress: Progress, total: int) -> Callable[[int], None]:
    """A function that counts rows and tells `progress` (done, total)."""
    done = 0

    def count_rows(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    progress(0, total)
    return count_rows


def is_group(methods: Any) -> bool:
    """Whether methods were named as a group, of which only some may fit."""
    entries = [methods] if isinstance(methods, str) else methods if isinstance(methods, (list, tuple)) else []
    return any(isinstance(entry, str) and entry.strip().lower() in GROUPS for entry in entries)


def info(call: LayerCall, trace: Trace, read_at: str, *, asked: bool) -> LayerInfo:
    assert call.grid is not None
    notes = []
    if read_at == "activation" and issubclass(call.module_class, CONVOLUTION):
        notes.append("no activation module follows it: read at the convolution itself")
    if not call.grid.is_confirmed:
        notes.append("its axes were taken to be channels first; no convolution confirms that")
    if call.grid.source:
        notes.append(f"read as a {call.grid} grid, {call.grid.source}")
    if call.grid.prefix:
        notes.append(f"the first {call.grid.prefix} of its tokens stand for no place")
    if (times := trace.call_counts[call.module]) > 1:
        notes.append(f"call {call.number} of {times}")
    channels = call.grid.channels_first(call.output).shape[1]
    return LayerInfo(call.module_class.__name__, call.grid.shape, channels, "; ".join(notes), asked)
