"""`explain`: from a model and inputs to an `Explanation`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import or_

from torch import Tensor, nn

from seewhy.engine.feature_output import classifier_note, length_note
from seewhy.engine.input_groups import with_row_groups
from seewhy.engine.inputs import Inputs, InputSpec, NamedImage, read_inputs, with_fit
from seewhy.engine.keywords import suggest_keywords
from seewhy.engine.layer_choice import LayerChoice, choose_layers, split_suggested
from seewhy.engine.layer_descriptions import describe_layer, layers_with_maps, model_as_layer, strongest_channels
from seewhy.engine.map_collector import MapCollector, in_order
from seewhy.engine.notes import blank_notes, independent_notes, other_input_notes, unsupported_notes, without_others
from seewhy.engine.options import Fit, Options, ReadAt, Scores
from seewhy.engine.output_kind import OutputKind, find_output_kind, number_note
from seewhy.engine.passes import Passes
from seewhy.engine.progress import Progress, counter, estimate_rows
from seewhy.engine.row_checks import check_rows, check_targets
from seewhy.engine.row_order import check_row_order
from seewhy.engine.suggestion import discard_suggestion, suggest
from seewhy.engine.target_resolution import (
    bind_targets,
    default_methods,
    resolve_targets,
    target_notes,
    target_result,
)
from seewhy.errors import UsageError
from seewhy.explanation.components import LayerInfo
from seewhy.explanation.result import Explanation
from seewhy.explanation.selection import layer_text
from seewhy.fast.prepared import PreparedModel
from seewhy.images.preprocess import Preprocess
from seewhy.methods.base import AnyMethod, NetworkMethod
from seewhy.methods.parsing import MethodSpec, as_methods, with_seed
from seewhy.models.labels import check_labels
from seewhy.models.loaded_model import LoadedModel, PreprocessFunction
from seewhy.models.loading import load_model
from seewhy.models.provenance import collect_provenance
from seewhy.signals.evaluator import Evaluator
from seewhy.signals.layer import Need
from seewhy.signals.recorded import request_for
from seewhy.targets import ResolvedTarget, as_targets
from seewhy.targets.class_scores import class_scores
from seewhy.targets.parsing import TargetSpec
from seewhy.tracing.cell_places import cell_notes
from seewhy.tracing.field_of_view import field_of_view
from seewhy.tracing.grid import GridSpec, parse_grid
from seewhy.tracing.input_dependence import independent_calls
from seewhy.tracing.layer_selection import NotCalled, check_hint_used
from seewhy.tracing.layer_specs import LayerSpec
from seewhy.tracing.model_errors import explain_failures, retry_with_copies
from seewhy.tracing.part_places import parts_note
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import for_image
from seewhy.tracing.token_places import TokensPlaced, check_tokens
from seewhy.tracing.trace import LayerCall, Trace

MEGABYTE = 2**20


RENAMED = {"site": "read_at", "suggested": "include_suggested", "features": "channels"}


@suggest_keywords(RENAMED)
def explain(
    model: nn.Module | LoadedModel,
    inputs: InputSpec,
    *,
    methods: MethodSpec = None,
    layers: LayerSpec = None,
    read_at: ReadAt = "convolution",
    grid: GridSpec = None,
    targets: TargetSpec = None,
    versus: TargetSpec = None,
    scores: Scores | None = None,
    multilabel: bool = False,
    arguments: Mapping[str, object] | None = None,
    main: str | int | None = None,
    preprocess: Preprocess | PreprocessFunction | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    fit: Fit | None = None,
    include_suggested: bool = False,
    channels: int = 0,
    seed: int = 0,
    memory: float = 256,
    progress: Progress | None = None,
) -> Explanation:
    """Compute class activation maps for every combination of method, target and layer.

    All gradient-based methods and all layers share one forward pass and one backward pass per target. The model is never
    modified: hooks run on a twin that shares its parameters.

    Args:
        model: An `nn.Module`, or a `LoadedModel` from `seewhy.load_model`.
        inputs: A float tensor `(B, C, *size)` that is ready for the model; or an image (path, PIL image, `uint8` array
            `(H, W, 3)`, bytes) or a list of images, which the model's preprocessing turns into one. For a model with
            several inputs: all of them, as a tuple or a dict.
        methods: Method names with settings, such as "scorecam(batch_size=64)", or `Method` instances, or a list. "all" and
            "fast" select groups of methods; those that do not fit the model are skipped. Default: Grad-CAM, or HiResCAM
            for targets that have a location.
        layers: Layer names, glob patterns, module classes, positions, "every", "convs", "blocks", "stages", "all", or
            "suggested" (default). "branches" adds the layers of branches parallel to the suggested one.
        read_at: Read convolutions at their own output ("convolution"), or at the "activation" after them.
        grid: How tokens map to the image, if that cannot be inferred: `(14, 14)`, or "14x14+1" with one token before
            the grid.
        targets: Classes by index or name, "topK", texts such as "region:bus", `Target` instances, or functions of the
            output that return one score per row. Each entry of a list is one target, computed for every image. Default: the
            predicted class of each image.
        versus: Classes to subtract, to answer "why A and not B".
        scores: What the class scores of the model are: "logits" or "probabilities". Default: probabilities if they lie in
            [0, 1] for any input, as after a softmax or sigmoid; else logits.
        multilabel: True if classes are not exclusive, so that each has its own sigmoid probability.
        arguments: Keyword arguments for the model, in addition to `inputs`.
        main: Which of several inputs is explained: a name or a position.
        preprocess: Turns an image into a model input. Default: the preprocessing of the loaded model.
        labels: Class names, or a file with one name per line. Default: the labels of the loaded model.
        fit: How an image is fitted to the input size: "crop" (the model's own), "squash" (distorted) or "pad".
        include_suggested: Also explain the suggested layer, and store its name in `Explanation.suggested`.
        channels: Number of strongest channels to keep per layer, for `Explanation.features`.
        seed: Seed of methods that draw random numbers and whose own seed is not set.
        memory: Megabytes for one batch of changed images, in methods that run extra passes.
        progress: Called with (rows done, rows in total) by methods that run extra passes.

    Returns:
        An `Explanation` with signed maps `(B, *grid)`, in the units of each method.

    Raises:
        UsageError: An argument is invalid, or a combination is not supported (`UnknownName`, `LayerError`, `MethodError`,
            `TargetError` and `ModelError` are subclasses).
        ImageError: An image cannot be read.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> e = explain(net, torch.rand(1, 3, 8, 8), methods=["gradcam", "hirescam"], layers="every", targets=[0, 1])
        >>> e.map(method="gradcam", target=1).shape
        torch.Size([1, 6, 6])

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, https://doi.org/10.1109/ICCV.2017.74
    """
    options = Options(
        methods=methods,
        layers=layers,
        read_at=read_at,
        grid=grid,
        targets=targets,
        versus=versus,
        scores=scores,
        multilabel=multilabel,
        fit=fit,
        include_suggested=include_suggested,
        channels=channels,
        seed=seed,
        memory=memory,
    )
    if model is None:  # load_model would return the embedded model
        raise UsageError("model=None: pass a module, or a name such as 'embedded'.")
    loaded = load_model(model, preprocess=preprocess, labels=labels)
    # A bare module may be in training, and hashing its weights would take longer than the maps.
    explainer = Explainer(loaded, options, hash_weights=isinstance(model, LoadedModel))
    return explainer.explain(inputs, arguments=arguments, main=main, progress=progress)


class Explainer:
    """Explains any number of inputs of one model with the same options, which are parsed once."""

    def __init__(self, model: LoadedModel, options: Options, *, hash_weights: bool = True) -> None:
        self.model = model if options.fit is None else with_fit(model, options.fit)
        self.options = options
        self.hash_weights = hash_weights
        self.grid = None if options.grid is None else parse_grid(options.grid)
        self.methods = as_methods(options.methods)
        if options.seed:
            seeds = [with_seed(method, options.seed) for method in self.methods.values()]
            self.methods = {str(method): method for method in seeds}
        self.targets = as_targets(options.targets, options.versus)

    def explain(
        self,
        inputs: InputSpec | NamedImage,
        *,
        arguments: Mapping[str, object] | None = None,
        main: str | int | None = None,
        progress: Progress | None = None,
        command: str | None = None,
    ) -> Explanation:
        """Explain one batch of inputs. `command` is stored in the provenance. See `seewhy.explain`."""
        given = read_inputs(inputs, self.model, arguments, main)
        explain_given = partial(with_row_groups, partial(self.explain_inputs, progress=progress, command=command))
        with explain_failures(given.module, given.tensor):
            return retry_with_copies(given.module, partial(explain_given, given))

    def explain_inputs(self, given: Inputs, progress: Progress | None, command: str | None) -> Explanation:
        """Explain prepared inputs."""
        while True:
            try:
                return self.explain_once(given, progress, command)
            except TokensPlaced:  # from now on they are known
                continue
            except NotCalled as error:  # perhaps the suggestion for an input that took another path
                if not discard_suggestion(given.module, error.layer):
                    raise

    def explain_once(self, given: Inputs, progress: Progress | None, command: str | None) -> Explanation:
        """Explain prepared inputs. Raises TokensPlaced if a layer's tokens have other places than those that were recorded."""
        options, loaded = self.options, self.model
        tensor, module = given.tensor, given.module
        targets = bind_targets(self.targets, given, loaded, multilabel=options.multilabel)
        choice = choose_layers(options, self.methods, module, tensor, self.grid, targets, loaded.labels)
        network = self.network_for(given)
        evaluator = Evaluator(network, tensor, int(options.memory * MEGABYTE), grid=self.grid)
        needs = reduce(or_, (method.needs for method in with_bases(self.methods)), Need.NOTHING)
        with record_forward(network, tensor, request_for(needs, choice.recorded.request), grid=self.grid) as trace:
            calls = choice.recorded.matching_calls(trace)
            others = independent_calls(module, tensor, calls)
            calls = without_others(calls, others)
            check_hint_used(self.grid, calls)
            check_tokens(module, tensor, calls, self.grid)
            layer_info = self.describe_layers(calls, trace, choice)
            selected_layers = self.find_selected(trace, choice)
            trace.calls = calls  # frees the outputs of all other calls
            check_rows(module, tensor, trace.output)
            check_row_order(trace, calls)
            scores = class_scores(trace.output)
            scores = None if scores is None or len(scores) != len(tensor) else scores
            is_stated = bool(loaded.labels or options.scores)
            classes_note = "" if is_stated else length_note(module, tensor, scores)
            output_kind = self.find_kind(module, tensor, None if classes_note else scores)
            if not (is_stated or classes_note or output_kind.note):
                classes_note = classifier_note(module, tensor, scores) or number_note(scores, options.multilabel)
            logits = None if scores is None else scores.detach()
            del scores  # it would keep the graph alive
            meaning = {"multilabel": options.multilabel, "normalized": output_kind.is_probability}
            targets = bind_targets(self.targets, given, loaded, **meaning)
            resolved = resolve_targets(targets, trace, loaded.labels, requested=self.targets, **meaning)
            check_targets(module, tensor, trace.output, resolved)
            # Both defaults need gradients only, so the same recording serves either.
            methods = default_methods(resolved) if options.methods is None else self.methods
            if loaded.labels is not None and logits is not None and any(t.classes is not None for t in resolved):
                check_labels(loaded.labels, logits.shape[1])
            if progress is not None:
                rows = estimate_rows(methods, layer_info.values(), len(tensor) * len(resolved))
                evaluator.on_progress = counter(progress, rows)
            features = {
                call.name: strongest_channels(call, trace, options.channels) for call in calls if options.channels
            }
            collector = MapCollector(options.selects_group, tuple(tensor.shape[2:]))
            passes = Passes(evaluator, trace, calls, methods, choice.selected, collector)
            passes.run(resolved)
        maps = collector.maps
        layer_info = layers_with_maps(layer_info, maps, entire=model_as_layer(loaded.module, tuple(tensor.shape[2:])))
        suggested = choice.suggestion.layer if choice.suggestion else None
        provenance = collect_provenance(loaded, hash_weights=self.hash_weights)
        return Explanation(
            maps={key: maps[key] for key in in_order(maps, list(methods), resolved, list(layer_info))},
            target_results=tuple(target_result(target, logits) for target in resolved),
            layer_info=layer_info,
            has_gradient=collector.has_gradient,
            size=tuple(tensor.shape[2:]),
            logits=logits,
            labels=loaded.labels,
            inputs=tensor,
            images=given.images,
            suggested=suggested if suggested in layer_info else None,
            single=given.is_single,
            multilabel=options.multilabel,
            normalized=output_kind.is_probability,
            notes=(
                *loaded.notes,
                *choice.notes,
                *given.notes,
                *filter(
                    None, {field_of_view(module, tensor).note: 0, parts_note(module, tensor): 0, output_kind.note: 0}
                ),
                *(note for note in (classes_note,) if note and any(one.classes is not None for one in resolved)),
                *target_notes(resolved, methods, are_default=options.methods is None),
                *independent_notes(passes.independent),
                *cell_notes(module, tensor, calls),
                *other_input_notes(others),
                *blank_notes(collector.has_gradient, resolved, partial(self.suggest_for, given)),
                *unsupported_notes(collector.unsupported),
            ),
            channel_features={layer: kept for layer, kept in features.items() if layer in layer_info},
            provenance=provenance if command is None else {**provenance, "command": command},
            selected_layers=selected_layers,
        )

    def network_for(self, given: Inputs) -> nn.Module:
        """Return the module that runs: the prepared one, if the model is prepared."""
        prepared = (
            self.model.fast.module_for(given.module, given.tensor) if isinstance(self.model, PreparedModel) else None
        )
        return given.module if prepared is None else prepared

    def suggest_for(self, given: Inputs, image: int, target: ResolvedTarget) -> str:
        """Return the layer that is suggested for one image and one target."""
        at = slice(image, image + 1)
        images = None if given.images is None else given.images[at]
        one = replace(given, tensor=given.tensor[at], module=for_image(given.module, image), images=images)
        targets = bind_targets(target.requested, one, self.model, multilabel=self.options.multilabel)
        return suggest(one.module, one.tensor, self.grid, targets=targets, labels=self.model.labels).layer

    def find_kind(self, module: nn.Module, inputs: Tensor, scores: Tensor | None) -> OutputKind:
        """Return whether the class scores are probabilities already, with a note."""
        match self.options.scores:
            case "logits":
                return OutputKind()
            case "probabilities":
                return OutputKind("the class scores are shown as probabilities, as requested", True)
        return find_output_kind(module, inputs, scores)

    def describe_layers(self, calls: Sequence[LayerCall], trace: Trace, choice: LayerChoice) -> dict[str, LayerInfo]:
        """Return the `LayerInfo` of each recorded layer."""
        selected = {call.name for call in choice.selected.matching_calls(trace)}
        return {
            call.name: describe_layer(call, trace, self.options.read_at, requested=call.name in selected)
            for call in calls
        }

    def find_selected(self, trace: Trace, choice: LayerChoice) -> dict[str, tuple[str, ...]]:
        """Return the names of the layers that each entry of `layers=` selected."""
        entries = split_suggested(self.options.layers)[1]
        pairs = zip(entries, choice.selected.selectors, strict=False)  # the suggested layer comes after the entries
        return {layer_text(entry): tuple(call.name for call in selector.select(trace)) for entry, selector in pairs}


def with_bases(methods: Mapping[str, AnyMethod]) -> Iterator[AnyMethod]:
    """Yield all methods, and the base methods of network methods."""
    for method in methods.values():
        yield method
        if isinstance(method, NetworkMethod) and method.base_method is not None:
            yield method.base_method
