"""`Explainer`: from a model and inputs to an `Explanation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import or_

import torch
from torch import Tensor, nn

from seewhy.engine.feature_output import classifier_note, length_note
from seewhy.engine.input_groups import with_row_groups
from seewhy.engine.inputs import Inputs, InputSpec, NamedImage, read_inputs, with_fit
from seewhy.engine.layer_choice import LayerChoice, choose_layers, split_suggested
from seewhy.engine.layer_descriptions import describe_layer, layers_with_maps, model_as_layer, strongest_channels
from seewhy.engine.map_collector import MapCollector, in_order
from seewhy.engine.notes import blank_notes, independent_notes, other_input_notes, unsupported_notes, without_others
from seewhy.engine.options import Options
from seewhy.engine.output_kind import OutputKind, find_output_kind, number_note
from seewhy.engine.passes import Passes
from seewhy.engine.progress import Progress, counter, estimate_rows
from seewhy.engine.row_checks import check_rows, check_targets
from seewhy.engine.row_order import check_row_order
from seewhy.engine.suggestion import discard_suggestion, suggest
from seewhy.engine.target_resolution import (
    bind_targets,
    default_methods,
    other_targets,
    resolve_targets,
    target_notes,
    target_result,
)
from seewhy.errors import INPUT_ERRORS, ModelError, one_line
from seewhy.explanation.components import LayerInfo
from seewhy.explanation.result import Explanation
from seewhy.explanation.selection import layer_text
from seewhy.fast.folding import PathChanged
from seewhy.fast.prepared import PreparedModel
from seewhy.methods.base import AnyMethod, NetworkMethod
from seewhy.methods.parsing import as_methods, with_seed
from seewhy.models.labels import check_labels
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.provenance import collect_provenance
from seewhy.signals.evaluator import Evaluator
from seewhy.signals.layer import Need
from seewhy.signals.recorded import request_for
from seewhy.targets import ResolvedTarget, as_targets
from seewhy.targets.class_scores import class_scores
from seewhy.tracing.cell_places import cell_notes
from seewhy.tracing.field_of_view import field_of_view
from seewhy.tracing.grid import parse_grid
from seewhy.tracing.input_dependence import independent_calls
from seewhy.tracing.layer_selection import NotCalled, check_hint_used
from seewhy.tracing.model_errors import explain_failures, retry_with_copies
from seewhy.tracing.part_places import parts_note
from seewhy.tracing.record import record_forward
from seewhy.tracing.single_input import for_image
from seewhy.tracing.token_places import TokensPlaced, check_tokens
from seewhy.tracing.trace import LayerCall, Trace

MEGABYTE = 2**20


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
        """Explain inputs that were read."""
        while True:
            try:
                return self.explain_on_twin(given, progress, command)
            except TokensPlaced:  # from now on they are known
                continue
            except NotCalled as error:  # perhaps the suggestion for an input that took another path
                if not discard_suggestion(given.module, error.layer):
                    raise

    def explain_on_twin(self, given: Inputs, progress: Progress | None, command: str | None) -> Explanation:
        """Explain inputs with the prepared twin, if the model is prepared; if that fails, with the model itself."""
        fast = self.model.fast if isinstance(self.model, PreparedModel) else None
        network = None if fast is None else fast.module_for(given.module, given.tensor)
        if fast is None or network is None:
            return self.explain_once(given, given.module, progress, command)
        try:
            return self.explain_once(given, network, progress, command)
        except torch.OutOfMemoryError:
            raise
        except (PathChanged, ModelError, *INPUT_ERRORS) as error:
            explanation = self.explain_once(
                given, given.module, progress, command
            )  # raises the same error if it is the model's
            fast.disable()
            reason = "it takes other paths for other inputs" if isinstance(error, PathChanged) else one_line(error)
            return replace(explanation, notes=(*explanation.notes, f"the model runs unprepared: {reason}"))

    def explain_once(
        self, given: Inputs, network: nn.Module, progress: Progress | None, command: str | None
    ) -> Explanation:
        """Explain inputs. `network` computes what the module of `given` computes.

        Raises TokensPlaced if a layer's tokens have other places than those that were recorded.
        """
        options, loaded = self.options, self.model
        tensor, module = given.tensor, given.module
        targets = bind_targets(self.targets, given, loaded, multilabel=options.multilabel)
        choice = choose_layers(options, self.methods, module, tensor, self.grid, targets, loaded.labels)
        evaluator = Evaluator(network, tensor, int(options.memory * MEGABYTE), grid=self.grid, original=module)
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
            added = [] if classes_note else other_targets(options, methods, resolved, logits)
            if added:
                bound = bind_targets(added, given, loaded, **meaning)
                resolved += resolve_targets(bound, trace, loaded.labels, requested=added, **meaning)
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
        main = resolved[: len(resolved) - len(added)]
        maps = collector.maps
        layer_info = layers_with_maps(layer_info, maps, entire=model_as_layer(loaded.module, tuple(tensor.shape[2:])))
        suggested = choice.suggestion.layer if choice.suggestion else None
        provenance = collect_provenance(loaded, hash_weights=self.hash_weights)
        if network is not module and isinstance(loaded, PreparedModel):
            provenance["prepared"] = loaded.fast.precision
        return Explanation(
            maps={key: maps[key] for key in in_order(maps, list(methods), resolved, list(layer_info))},
            target_results=tuple(
                target_result(target, logits, for_comparison=target not in main) for target in resolved
            ),
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
                *target_notes(main, methods, are_default=options.methods is None),
                *independent_notes(passes.independent),
                *cell_notes(module, tensor, calls),
                *other_input_notes(others),
                *blank_notes(collector.has_gradient, main, partial(self.suggest_for, given)),
                *unsupported_notes(collector.unsupported),
            ),
            channel_features={layer: kept for layer, kept in features.items() if layer in layer_info},
            provenance=provenance if command is None else {**provenance, "command": command},
            selected_layers=selected_layers,
        )

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
