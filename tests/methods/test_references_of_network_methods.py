"""The references of methods of the entire model, checked against closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support import reference_network_methods as slow_network
from support.network_method_cases import (
    INSTALLED,
    slow_of,
    vit,
)
from support.reference import CONVOLUTIONS
from support.vit_networks import (
    VIT_CONFIGS,
    ReferenceViT,
    TinyViTConfig,
    draw_weights,
    random_inputs,
)


@pytest.mark.parametrize("net", INSTALLED)
def test_the_transformer_by_hand_is_the_real_one(net: str) -> None:
    case = vit(net)
    with torch.no_grad():
        torch.testing.assert_close(case.hand.run(case.inputs).logits, case.net(case.inputs), rtol=0, atol=1e-12)


def test_the_reference_stretches_as_torch_does() -> None:
    """The one formula that each map at the image's size goes through."""
    for grid, size, mode in [
        ((7,), (31,), "linear"),
        ((4, 7), (20, 9), "bilinear"),
        ((3, 2, 5), (8, 8, 3), "trilinear"),
    ]:
        values = torch.randn(1, 2, *grid, dtype=torch.float64)
        for corners in (False, True):
            expected = F.interpolate(values, size, mode=mode, align_corners=corners)[0].numpy()
            np.testing.assert_allclose(slow_network.stretch(values[0].numpy(), size, corners), expected, atol=1e-13)


@pytest.mark.parametrize("net", ["Stages", "resnet18", "squeezenet1_1"])
def test_full_gradients_are_complete(net: str) -> None:
    """The paper's identity, for a net of ReLUs: y = x dy/dx + all biases times their gradients, the last layer's too."""
    slow = slow_of(net)
    scores = slow.scores().tolist()
    kinds = (*CONVOLUTIONS, *slow_network.NORMS, nn.Linear)
    for x, chosen, score in zip(slow.inputs.numpy(), slow.classes.tolist(), scores, strict=True):
        slope, found = slow_network.full_gradients(slow.net, x, chosen, kinds)
        shares = [(gradient * bias.reshape(-1, *[1] * (gradient.ndim - 1))).sum() for bias, gradient in found]
        assert len(found) == sum(
            isinstance(m, kinds) and slow_network.implied_bias(m) is not None for m in slow.net.modules()
        )
        assert abs(sum(shares)) > 1e-3 * abs(score)  # the biases matter
        assert (x * slope).sum() + sum(shares) == pytest.approx(score, rel=1e-10)


def test_occlusion_of_a_linear_network_is_what_is_hidden() -> None:
    """One pixel at a time: weight times pixel, summed over channels."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 5)).double()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    expected = (net[1].weight[2].reshape(x.shape) * x).sum(0).detach().numpy()
    found = slow_network.occlusion(net, x.numpy(), 2, window=0.01, stride=0.01)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_relevance_and_eclip_agree_with_the_closed_form_of_the_gradient() -> None:
    """dA of a head is (dy/d its output) v^T: another way to each gradient of the reference."""
    for config in VIT_CONFIGS.values():
        hand, x = ReferenceViT(config, draw_weights(config)), random_inputs(config)
        run = hand.run(x[:1].clone().requires_grad_())
        by_a = torch.autograd.grad(run.logits[0, 1], run.a, retain_graph=True)
        by_o = torch.autograd.grad(run.logits[0, 1], run.o)
        for a, o, v in zip(by_a, by_o, run.v, strict=True):
            split = o.reshape(1, o.shape[1], config.heads, -1).transpose(1, 2)
            torch.testing.assert_close(split @ v.transpose(2, 3), a, rtol=0, atol=1e-12)


def test_gradients_by_attention_are_slopes() -> None:
    """LeGrad's score is a function of a block's attention through that block only: central differences."""
    config = TinyViTConfig()
    hand, x = ReferenceViT(config, draw_weights(config)), random_inputs(config)[:1]
    run = hand.run(x.clone().requires_grad_())
    block, at = 1, (0, 1, 4, 7)

    def score(a: Tensor) -> Tensor:
        """Block 1 once more, from its input and another A."""
        tokens = run.tokens[block - 1].detach()
        o = (a @ run.v[block].detach()).transpose(1, 2).flatten(2)
        here = f"blocks.{block}."
        y = tokens + hand._linear(here + "attn.proj", o)
        hidden = F.gelu(hand._linear(here + "mlp.fc1", hand._norm(here + "norm2", y)))
        y = y + hand._linear(here + "mlp.fc2", hidden)
        return hand.read(y.mean(1, keepdim=True).expand_as(y))[0, 2]

    a = run.a[block].detach()
    ends = []
    for step in (1e-6, -1e-6):
        moved = a.clone()
        moved[at] += step
        ends.append(score(moved))
    everywhere = run.tokens[block].mean(1, keepdim=True).expand_as(run.tokens[block])
    (slope,) = torch.autograd.grad(hand.read(everywhere)[0, 2], run.a[block])
    assert float(slope[at]) == pytest.approx(float((ends[0] - ends[1]) / 2e-6), rel=1e-6)
    assert abs(float(slope[at])) > 1e-6


def test_rollout_rows_sum_to_one() -> None:
    """The class row without its first columns: what is left of one."""
    config = VIT_CONFIGS["average"]
    hand = ReferenceViT(config, draw_weights(config))
    assert slow_network.attention_rollout(hand, random_inputs(config)[0], 0).sum() == pytest.approx(1, abs=1e-12)
    assert slow_network.attention_rollout(vit("timm class plain").hand, random_inputs(TinyViTConfig())[0], 0).sum() < 1


@pytest.mark.parametrize("net", ["Stages", "InplaceNet"])
def test_rise_converges_to_the_mean_over_masks(net: str) -> None:
    """For a class that any mask leaves alike, the map is the mean mask over p: 1 everywhere."""

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[50.0, 0.0]], dtype=torch.float64).expand(len(x), 2)

    found = slow_network.rise(Sure(), slow_of(net).inputs[0].numpy(), 0, masks=1500)
    assert abs(found.mean() - 1) < 0.02
    assert abs(found - 1).max() < 0.2
