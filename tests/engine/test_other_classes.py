"""A default run also explains the next most likely classes, so that its page can compare them with the predicted class."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.options import Options
from seewhy.engine.pipeline import Explainer
from seewhy.errors import ChoiceError
from seewhy.models.loading import load_model
from seewhy.trust import check

PASSES: Counter[str] = Counter()


class CountBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        PASSES["backward"] += 1
        return gradients[0]


class Counted(nn.Module):
    """A classifier that counts the images of its forward passes, and its backward passes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        PASSES["images"] += len(inputs)
        scores: Tensor = self.head(CountBackward.apply(self.features(inputs).relu()).mean((2, 3)))
        return scores


IMAGE = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def explain(module: nn.Module, **options: Any) -> seewhy.Explanation:
    return Explainer(load_model(module), Options(layers="every", **options)).explain(IMAGE)


def test_two_more_classes_cost_two_more_backward_passes_and_no_forward_pass() -> None:
    module = Counted(6)
    counts = []
    for number in (0, 2):
        explain(module, other_classes=number)  # what is observed once per model
        PASSES.clear()
        e = explain(module, other_classes=number)
        passes = dict(PASSES)
        check(module, e)
        counts.append((len(e.targets), passes["backward"], passes["images"], PASSES["images"]))
    one, three = counts
    assert (one[0], three[0]) == (1, 3) and three[1] == one[1] + 2
    assert three[2] == one[2]  # one forward pass
    assert three[3] == one[3]  # all targets share the masked passes of the check


def test_added_classes_are_those_of_topk_and_are_not_selected_by_default() -> None:
    module = Counted(6)
    e, top3 = explain(module, other_classes=2), explain(module, targets="top3")
    assert e.targets == top3.targets and e.main_targets == e.targets[:1] and top3.main_targets == top3.targets
    for key, values in top3.maps.items():
        torch.testing.assert_close(e.maps[key], values)
    layer = e.layers[0]
    torch.testing.assert_close(e.map(layer=layer), e.map(target=e.targets[0], layer=layer))
    with pytest.raises(ChoiceError, match="3 targets"):
        top3.map(layer=layer)


@pytest.mark.parametrize(
    ("num_classes", "options", "targets"),
    [
        (6, {"targets": "top1"}, 1),
        (6, {"versus": 2}, 1),
        (6, {"methods": "layercam"}, 1),  # the map of a difference is not the difference of the maps
        (6, {"methods": "hirescam"}, 3),
        (6, {"multilabel": True}, 3),
        (2, {}, 2),
        (1, {}, 1),
    ],
)
def test_which_runs_have_more_classes(num_classes: int, options: dict[str, Any], targets: int) -> None:
    assert len(explain(Counted(num_classes), other_classes=2, **options).targets) == targets


def test_outputs_without_classes_get_no_more_targets() -> None:
    depth = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    regions = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1))
    for module in (depth, regions):
        assert len(explain(module, other_classes=2).targets) == 1


def test_saved_explanations_keep_which_targets_were_requested(tmp_path: Any) -> None:
    e = explain(Counted(6), other_classes=2)
    e.save(tmp_path)
    loaded = seewhy.load_explanation(tmp_path)
    assert loaded.targets == e.targets and loaded.main_targets == e.main_targets
    layer = e.layers[0]
    np.testing.assert_array_equal(loaded.map(layer=layer).numpy(), e.map(layer=layer)[0].numpy())
