"""The score of a target when the output of one layer is set to zero: the reference of the explained fraction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seewhy.engine.rescoring import Rescoring
from seewhy.signals.scoring import TargetScore
from seewhy.tensors.nested import map_tensors
from seewhy.tracing.single_input import for_image
from seewhy.tracing.twin import make_twin, named_modules
from seewhy.trust.metrics.not_defined import NotDefined


def score_without_layer(rescoring: Rescoring, target: str, image: int, layer: str) -> float:
    """Return the score of a target for one image, with the output of a layer replaced by zeros.

    Args:
        layer: A name as in `named_modules`, or "name#2" for the second call of a module.

    Raises:
        NotDefined: No module has this name, or it was not called.
    """
    evaluator = rescoring.evaluator
    name, _, number = layer.partition("#")
    twin = make_twin(for_image(evaluator.original or evaluator.module, image))
    module = dict(named_modules(twin)).get(name)
    if module is None:
        raise NotDefined(f"'{layer}' is no module of the model")
    calls, forward = 0, module.forward

    def forward_with_zeros(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        output = forward(*arguments, **keywords)
        return map_tensors(output, torch.zeros_like) if calls == int(number or 1) else output

    module.forward = forward_with_zeros  # of the twin: the user's module keeps its own
    with torch.no_grad():
        output = twin(rescoring.inputs[image : image + 1].clone())
    if calls < int(number or 1):
        raise NotDefined(f"'{layer}' was not called")
    evaluator.on_progress(1)
    score: Tensor = TargetScore()(rescoring.targets[target].for_image(output, image, 1), output)
    return float(score[0])
