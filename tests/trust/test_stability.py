"""Stability and randomization tests against oracles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.trust.metrics.not_defined import NotDefined
from seewhy.trust.metrics.stability import (
    class_sensitivity,
    efficient_mprt,
    fully_random,
    max_sensitivity,
    mprt,
    randomized,
    rank_similarity,
    smooth_mprt,
)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.Flatten(),
        nn.Linear(108, 2),
    )
    net(torch.rand(8, 1, 6, 6))  # running statistics
    return net.eval()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_max_sensitivity_of_known_maps(image: Tensor) -> None:
    assert max_sensitivity(lambda rows: torch.ones_like(rows[:, 0]), image) == 0
    noise = max_sensitivity(lambda rows: rows[:, 0], image, samples=50)
    generator = torch.Generator().manual_seed(0)
    drawn = (2 * torch.rand(50, 1, 6, 6, generator=generator) - 1) * 0.02
    assert noise == pytest.approx(max(float(one.norm() / image.norm()) for one in drawn), rel=1e-5)
    assert max_sensitivity(lambda rows: rows[:, 0], image, samples=5) <= noise
    assert math.isnan(max_sensitivity(lambda rows: 0 * rows[:, 0], image))


def test_layers_are_randomized_from_the_last_to_the_first(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed_names = []
    for name, changed in randomized(model):
        now = changed.state_dict()
        changed_names.append({key.split(".")[0] for key, value in now.items() if not torch.equal(value, before[key])})
        for key in ("1.running_mean", "1.running_var"):
            assert torch.equal(now[key], before[key]), "activations would vanish without the statistics"
        assert name in ("0", "1", "3", "5")
    assert changed_names[0] == {"5"} and changed_names[1] == {"5", "3"} and {"5", "3", "0"} <= changed_names[-1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_map_that_ignores_the_weights_does_not_change(model: nn.Module, image: Tensor) -> None:
    """An edge detector passes no randomization test."""
    values = mprt(lambda changed: image[0].diff(dim=0), model)
    assert list(values) == ["5", "3", "1", "0"] and list(values.values()) == pytest.approx([1, 1, 1, 1])
    assert efficient_mprt(lambda changed: image[0].diff(dim=0), model) == 0


def test_a_map_that_reads_the_last_layer_changes_at_once(model: nn.Module, image: Tensor) -> None:
    values = mprt(lambda changed: changed[5].weight[0].reshape(12, 9), model)  # type: ignore[index]
    assert all(abs(value) < 0.4 for value in values.values())


def test_smooth_mprt_without_noise_is_mprt(model: nn.Module, image: Tensor) -> None:
    def maps(changed: nn.Module, rows: Tensor) -> Tensor:
        return changed[:4](rows).sum(1)  # type: ignore[index]

    plain = mprt(lambda changed: maps(changed, image[None])[0], model)
    assert smooth_mprt(maps, model, image, samples=3, noise=0) == pytest.approx(plain, abs=1e-6)


def test_entropy_reacts_to_values_and_not_to_positions(model: nn.Module, image: Tensor) -> None:
    """A map that becomes blank has the lowest value, although it reacted: the trap of this metric."""
    original = image[0]
    states = {id(model): original}
    assert efficient_mprt(lambda changed: states.get(id(changed), 0 * original), model) == -1
    assert efficient_mprt(lambda changed: states.get(id(changed), original.flip(0)), model) == pytest.approx(0)
    assert math.isnan(efficient_mprt(lambda changed: torch.ones(3, 3), model))


def test_rank_similarity() -> None:
    one = torch.tensor([1.0, 5.0, 2.0])
    assert rank_similarity(one, one.exp()) == pytest.approx(1) and rank_similarity(one, -one) == pytest.approx(-1)
    assert math.isnan(rank_similarity(one, torch.ones(3)))


def test_class_sensitivity_of_opposite_classes() -> None:
    """A head with two logits of opposite sign: the signed maps are opposite, and their absolute values are equal."""
    torch.manual_seed(0)
    conv, head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
    head.weight.data[1] = -head.weight.data[0]
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    e = seewhy.explain(net, torch.rand(1, 1, 9, 9), methods=["gradcam", "lafam"], layers="0", targets=[0, 1])
    one, two = (e.map("gradcam", target=target)[0] for target in (0, 1))
    assert class_sensitivity(one, two) == pytest.approx(-1)
    assert class_sensitivity(one.abs(), two.abs()) == pytest.approx(1)
    assert class_sensitivity(*(e.map("lafam", target=target)[0] for target in (0, 1))) == pytest.approx(1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 16, 4, stride=4))
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        scores: Tensor = self.block(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))[:, 0]
        return scores


def test_all_parameters_become_random() -> None:
    """Also those of attention projections, tokens and parametrized weights, which have no `reset_parameters`."""
    torch.manual_seed(1)
    model = Attention()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = fully_random(model)
    for name, value in changed.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    running = [name for name, _ in changed.named_buffers() if "running" in name]
    assert running and all(torch.equal(changed.get_buffer(name), before[name]) for name in running)


def test_a_model_without_parameters_has_no_random_copy() -> None:
    with pytest.raises(NotDefined, match="no parameters"):
        fully_random(nn.Sequential(nn.ReLU()))
