"""The targets of an explanation, resolved again, to score changed versions of its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seewhy.engine.inputs import Inputs
from seewhy.engine.row_checks import precision
from seewhy.engine.target_resolution import bind_targets, resolve_target
from seewhy.errors import UsageError
from seewhy.explanation.result import Explanation
from seewhy.fast.prepared import PreparedModel
from seewhy.models.loaded_model import LoadedModel
from seewhy.models.loading import load_model
from seewhy.signals.evaluator import MEMORY, Evaluator
from seewhy.signals.scoring import Scoring
from seewhy.targets import ClassScore, ResolvedTarget, Target
from seewhy.tensors.nested import map_tensors
from seewhy.tensors.random_state import is_changed, preserve_rng, read_states
from seewhy.tracing.model_errors import explain_failures
from seewhy.tracing.model_properties import model_of
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.twin import make_twin

SAME_SCORE = 1e-3  # relative difference of the scores of one image in two calls, such as with another batch size


@dataclass(frozen=True, eq=False)
class Rescoring:
    """Scores changed versions of the images of an explanation.

    Attributes:
        inputs: The inputs that were explained, `(B, C, *size)`.
        targets: The targets of the explanation by key, with the scores of `inputs`.
        evaluator: Runs the model on changed inputs.
    """

    inputs: Tensor
    targets: Mapping[str, ResolvedTarget]
    evaluator: Evaluator

    def scores(self, target: str, scoring: Scoring) -> Tensor:
        """Return the scores of the images themselves, `(B,)`."""
        return scoring(self.targets[target], self.evaluator.output)


def open_rescoring(
    model: nn.Module | LoadedModel,
    explanation: Explanation,
    *,
    arguments: Mapping[str, object] | None = None,
    memory: int = MEMORY,
) -> Rescoring:
    """Run the model on the inputs of an explanation, and resolve the targets of the explanation again.

    Args:
        model: The model that was explained.
        explanation: As `explain` returned it.
        arguments: Further keyword arguments that were passed to `explain`.
        memory: Bytes for one batch of changed images.

    Raises:
        UsageError: The explanation contains no inputs, the model draws random numbers, or it does not return the scores in
            the explanation.
    """
    inputs = explanation.inputs
    if inputs is None:
        raise UsageError(
            "a loaded explanation does not contain the model's input: explain the image again, then check that."
        )
    loaded = load_model(model)
    module: nn.Module = loaded.module
    if arguments:
        module = SingleInputModel(module, (None,), arguments, 0, len(inputs))
    network = loaded.fast.module_for(module, inputs) if isinstance(loaded, PreparedModel) else None
    network = module if network is None else network
    evaluator = Evaluator(network, inputs, memory, original=module)
    with explain_failures(module, inputs), torch.no_grad(), preserve_rng(inputs.device):
        before = read_states(inputs.device)
        # A single image is run in any case to prepare for changed versions of it.
        output = evaluator.partial_forward(0).output if len(inputs) == 1 else make_twin(network)(inputs.clone())
        is_random = is_changed(inputs.device, before)
    if is_random:
        raise UsageError(
            f"{type(model_of(module)).__name__} draws random numbers, so its scores change each time. Only a model that "
            "returns the same scores for the same image can be checked."
        )
    evaluator.output = map_tensors(output, torch.Tensor.detach)
    accepted = max(SAME_SCORE, precision(module, inputs))
    given = Inputs(inputs, module, explanation.images, explanation.single)
    meaning = {"multilabel": explanation.multilabel, "normalized": explanation.normalized}
    targets = {}
    for result in explanation.target_results:
        requested = result.requested[0] if result.classes is None else ClassScore(result.classes)
        assert isinstance(requested, Target)  # only a loaded explanation contains texts
        (bound,) = bind_targets([requested], given, loaded, **meaning)
        target = resolve_target(bound, requested, evaluator.output, explanation.labels, **meaning)
        if not same_scores(target.scores, result.scores, accepted):
            raise UsageError(
                f"the model returns other scores for {result.name} than the explanation contains. Pass the model that was "
                "explained, and its arguments. Axes that explain() changed cannot be checked."
            )
        targets[result.key] = dataclasses.replace(target, key=result.key, name=result.name)
    evaluator.has_several_targets = len(targets) > 1
    return Rescoring(inputs, targets, evaluator)


def same_scores(found: Tensor, recorded: Tensor, accepted: float = SAME_SCORE) -> bool:
    """Return True if scores differ by rounding at most (`accepted`, relative or absolute), or both are not finite."""
    found, recorded = (scores.detach().double().cpu() for scores in (found, recorded))
    return found.shape == recorded.shape and torch.allclose(found, recorded, accepted, accepted, equal_nan=True)
