"""Explain changed images or changed models again, with the method, layer and target of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from seewhy.engine.explain import explain
from seewhy.errors import UsageError
from seewhy.explanation.components import NETWORK
from seewhy.explanation.data import MapKey
from seewhy.explanation.result import Explanation
from seewhy.methods.parsing import as_methods
from seewhy.models.loaded_model import LoadedModel
from seewhy.targets import ClassScore, Target, TopScore
from seewhy.tracing.single_input import SingleInputModel
from seewhy.trust.metrics.not_defined import NotDefined

SAME = 0.01  # of the largest value: difference of a map that is computed a second time


@dataclass(frozen=True, eq=False)
class Repetition:
    """Explains changed versions of the images of an explanation.

    A map is computed a second time by the name of its method. The result is compared with the map itself first: a method that
    is not in the catalog, or that another one replaced there, has no repeated maps.

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
    _reasons: dict[tuple[MapKey, int], str] = field(default_factory=dict)  # why a map cannot be repeated; "" if it can

    def explanation_of(self, inputs: Tensor, key: MapKey, image: int) -> Explanation:
        """Return the explanation of changed versions `(n, C, *size)` of one image, with one map each."""
        self._check(key, image)
        return self._explain(self.model, inputs, [key], [self._target(key[1], image)], image)

    def explain(self, inputs: Tensor, key: MapKey, image: int) -> Tensor:
        """Return the signed maps `(n, *cells)` of changed versions `(n, C, *size)` of one image."""
        (maps,) = self.explanation_of(inputs, key, image).maps.values()
        return maps

    def explain_with(self, module: nn.Module, key: MapKey, image: int) -> Tensor:
        """Return the signed map `(*cells)` of one image with a changed copy of the model."""
        self._check(key, image)
        e = self._explain(module, self._inputs(image), [key], [self._target(key[1], image)], image)
        (maps,) = e.maps.values()
        return maps[0]

    def explain_class(self, image: int, target: str, other: int) -> dict[MapKey, Tensor]:
        """Return the signed maps `(1, *cells)` of another class, by the keys of `target`; without those of unknown methods."""
        keys = [key for key in self.explanation.maps if key[1] == target and is_known(key[0])]
        if not keys:
            return {}
        own = self._target(target, image)
        e = self._explain(self.model, self._inputs(image), keys, [own, ClassScore(other)], image)
        found: dict[MapKey, Tensor] = {}
        for method, _, layer in keys:
            key = (method, target, layer)
            both = [e.maps.get((method, name, layer)) for name in e.targets]
            if both[0] is not None and both[-1] is not None and self._is_same(key, image, both[0]):
                found[key] = both[-1]
        return found

    def _check(self, key: MapKey, image: int) -> None:
        """Raise NotDefined if the map of the image itself is another one when it is computed a second time."""
        if (key, image) not in self._reasons:
            reason = ""
            if not is_known(key[0]):
                reason = f"method '{key[0]}' cannot be computed again, because it is not in the catalog of methods"
            else:
                e = self._explain(self.model, self._inputs(image), [key], [self._target(key[1], image)], image)
                maps = list(e.maps.values())
                if len(maps) != 1 or not self._is_same(key, image, maps[0]):
                    reason = f"method '{key[0]}' gives another map when it is computed again"
            self._reasons[key, image] = reason
        if self._reasons[key, image]:
            raise NotDefined(self._reasons[key, image])

    def _is_same(self, key: MapKey, image: int, maps: Tensor) -> bool:
        recorded = self.explanation.maps[key][image].double()
        if maps[0].shape != recorded.shape:
            return False
        limit = SAME * float(recorded.abs().max())
        return torch.allclose(maps[0].double().to(recorded), recorded, 0, limit, equal_nan=True)

    def _inputs(self, image: int) -> Tensor:
        assert self.explanation.inputs is not None  # `open_rescoring` checks this
        return self.explanation.inputs[image : image + 1]

    def _target(self, key: str, image: int) -> Target:
        result = next(result for result in self.explanation.target_results if result.key == key)
        if result.classes is not None:
            return ClassScore(int(result.classes[image]))
        target = result.requested[0]
        assert isinstance(target, Target)  # only a loaded explanation contains texts
        if isinstance(target, TopScore):
            raise NotDefined(
                "the target is the most likely class of each image, and a changed image may have another one"
            )
        return target

    def _explain(
        self,
        model: nn.Module | LoadedModel,
        inputs: Tensor,
        keys: Sequence[MapKey],
        targets: Sequence[Target],
        image: int,
    ) -> Explanation:
        if self.arguments:  # those of this image, for any number of its versions
            module = model.module if isinstance(model, LoadedModel) else model
            model = SingleInputModel(module, (None,), self.arguments, 0, len(self.explanation)).for_image(image)
        e = self.explanation
        methods = list(dict.fromkeys(method for method, _, _ in keys))
        layers = list(dict.fromkeys(layer for _, _, layer in keys if layer != NETWORK))
        return explain(
            model, inputs.clone(), methods=methods, layers=layers or None, targets=list(targets), multilabel=e.multilabel,
            scores="probabilities" if e.normalized else None, memory=self.memory,
        )  # fmt: skip


def is_known(method: str) -> bool:
    """Return True if a method can be computed by its name."""
    try:
        as_methods(method)
    except UsageError:  # an unknown name, or "#1": one of several maps of a method
        return False
    return True
