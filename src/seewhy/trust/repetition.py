"""Explain changed images or changed models again, with the method, layer and target of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from seewhy.engine.explain import explain
from seewhy.errors import UnknownName, UsageError
from seewhy.explanation.components import NETWORK
from seewhy.explanation.data import MapKey
from seewhy.explanation.result import Explanation
from seewhy.methods.parsing import as_methods
from seewhy.models.loaded_model import LoadedModel
from seewhy.targets import ClassScore, Target


@dataclass(frozen=True, eq=False)
class Repetition:
    """Explains changed versions of the images of an explanation.

    Attributes:
        model: The model that was explained.
        explanation: The explanation of the batch.
        arguments: Keyword arguments for the model.
        memory: Megabytes for one batch of changed images.
    """

    model: LoadedModel
    explanation: Explanation
    arguments: Mapping[str, object] | None = None
    memory: float = 256

    def explanation_of(self, inputs: Tensor, key: MapKey, image: int) -> Explanation:
        """Return the explanation of changed versions `(n, C, *size)` of one image, with one map each."""
        return self._explain(self.model, inputs, [key], self._target(key[1], image))

    def explain(self, inputs: Tensor, key: MapKey, image: int) -> Tensor:
        """Return the signed maps `(n, *cells)` of changed versions `(n, C, *size)` of one image."""
        (maps,) = self.explanation_of(inputs, key, image).maps.values()
        return maps

    def explain_with(self, module: nn.Module, key: MapKey, image: int) -> Tensor:
        """Return the signed map `(*cells)` of one image with a changed copy of the model."""
        e = self._explain(module, self._inputs(image), [key], self._target(key[1], image))
        (maps,) = e.maps.values()
        return maps[0]

    def explain_class(self, image: int, target: str, other: int) -> dict[MapKey, Tensor]:
        """Return the signed maps `(1, *cells)` of another class, by the keys of `target`."""
        keys = [key for key in self.explanation.maps if key[1] == target]
        e = self._explain(self.model, self._inputs(image), keys, ClassScore(other))
        found = {(method, target, layer): maps for (method, _, layer), maps in e.maps.items()}
        return {key: found[key] for key in keys if key in found}

    def _inputs(self, image: int) -> Tensor:
        assert self.explanation.inputs is not None  # `open_rescoring` checks this
        return self.explanation.inputs[image : image + 1]

    def _target(self, key: str, image: int) -> Target:
        result = next(result for result in self.explanation.target_results if result.key == key)
        if result.classes is not None:
            return ClassScore(int(result.classes[image]))
        target = result.requested[0]
        assert isinstance(target, Target)  # only a loaded explanation contains texts
        return target

    def _explain(
        self, model: nn.Module | LoadedModel, inputs: Tensor, keys: Sequence[MapKey], target: Target
    ) -> Explanation:
        methods = list(dict.fromkeys(method for method, _, _ in keys))
        layers = list(dict.fromkeys(layer for _, _, layer in keys if layer != NETWORK))
        for method in methods:
            try:
                as_methods(method)
            except UnknownName:
                raise UsageError(
                    f"method '{method}' cannot be computed again, because it is not in the catalog of methods."
                ) from None
        e = self.explanation
        return explain(
            model, inputs.clone(), methods=methods, layers=layers or None, targets=[target], multilabel=e.multilabel,
            scores="probabilities" if e.normalized else None, arguments=self.arguments, memory=self.memory,
        )  # fmt: skip
