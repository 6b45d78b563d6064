"""The references of methods of the entire model, checked against closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support import reference_network_methods as network_references
from support.network_method_cases import (
    TRANSFORMER_NAMES,
    reference_network_for,
    transformer_case,
)
from support.reference import CONVOLUTIONS
from support.vit_networks import (
    VIT_CONFIGS,
    ReferenceViT,
    TinyViTConfig,
    draw_weights,
    random_inputs,
)


@pytest.mark.parametrize("net", TRANSFORMER_NAMES)
def test_reference_transformer_equals_the_library(net: str) -> None:
    case = transformer_case(net)
    with torch.no_grad():
        torch.testing.assert_close(
            case.reference_vit.run(case.inputs).logits, case.net(case.inputs), rtol=0, atol=1e-12
        )


def test_reference_of_network_methods_resizes_as_torch() -> None:
    """Compare `resize` with torch for one to three axes."""
    for grid, size, mode in [
        ((7,), (31,), "linear"),
        ((4, 7), (20, 9), "bilinear"),
        ((3, 2, 5), (8, 8, 3), "trilinear"),
    ]:
        values = torch.randn(1, 2, *grid, dtype=torch.float64)
        for corners in (False, True):
            expected = F.interpolate(values, size, mode=mode, align_corners=corners)[0].numpy()
            np.testing.assert_allclose(
                network_references.resize(values[0].numpy(), size, corners), expected, atol=1e-13
            )


@pytest.mark.parametrize("net", ["ThreeGridNet", "resnet18", "squeezenet1_1"])
def test_reference_full_gradients_are_complete(net: str) -> None:
    """For ReLU networks y = x dy/dx + the sum of all biases, including the last, times their gradients."""
    reference_network = reference_network_for(net)
    scores = reference_network.scores().tolist()
    kinds = (*CONVOLUTIONS, *network_references.NORMS, nn.Linear)
    for x, class_index, score in zip(
        reference_network.inputs.numpy(), reference_network.classes.tolist(), scores, strict=True
    ):
        gradient, bias_gradients = network_references.full_gradients(reference_network.net, x, class_index, kinds)
        shares = [(gradient * bias.reshape(-1, *[1] * (gradient.ndim - 1))).sum() for bias, gradient in bias_gradients]
        assert len(bias_gradients) == sum(
            isinstance(m, kinds) and network_references.implied_bias(m) is not None
            for m in reference_network.net.modules()
        )
        assert abs(sum(shares)) > 1e-3 * abs(score)  # otherwise the biases would not be tested
        assert (x * gradient).sum() + sum(shares) == pytest.approx(score, rel=1e-10)


def test_reference_occlusion_of_a_linear_network() -> None:
    """With windows of one pixel the map is weight times pixel, summed over channels."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 5)).double()
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    expected = (net[1].weight[2].reshape(x.shape) * x).sum(0).detach().numpy()
    bias_gradients = network_references.occlusion(net, x.numpy(), 2, window=0.01, stride=0.01)
    np.testing.assert_allclose(bias_gradients, expected, atol=1e-12)


def test_reference_attention_gradients_in_closed_form() -> None:
    """The gradient of A in a head is (dy/do) v^T, an independent way to compute it."""
    for config in VIT_CONFIGS.values():
        reference_vit, x = ReferenceViT(config, draw_weights(config)), random_inputs(config)
        run = reference_vit.run(x[:1].clone().requires_grad_())
        by_a = torch.autograd.grad(run.logits[0, 1], run.a, retain_graph=True)
        by_o = torch.autograd.grad(run.logits[0, 1], run.o)
        for a, o, v in zip(by_a, by_o, run.v, strict=True):
            split = o.reshape(1, o.shape[1], config.heads, -1).transpose(1, 2)
            torch.testing.assert_close(split @ v.transpose(2, 3), a, rtol=0, atol=1e-12)


def test_reference_legrad_gradient_equals_central_differences() -> None:
    """Central differences of LeGrad's score, which depends on a block's attention only through that block."""
    config = TinyViTConfig()
    reference_vit, x = ReferenceViT(config, draw_weights(config)), random_inputs(config)[:1]
    run = reference_vit.run(x.clone().requires_grad_())
    block, at = 1, (0, 1, 4, 7)

    def score(a: Tensor) -> Tensor:
        """Recompute block 1 from its input and another A."""
        tokens = run.tokens[block - 1].detach()
        o = (a @ run.v[block].detach()).transpose(1, 2).flatten(2)
        here = f"blocks.{block}."
        y = tokens + reference_vit._linear(here + "attn.proj", o)
        hidden = F.gelu(reference_vit._linear(here + "mlp.fc1", reference_vit._norm(here + "norm2", y)))
        y = y + reference_vit._linear(here + "mlp.fc2", hidden)
        return reference_vit.read(y.mean(1, keepdim=True).expand_as(y))[0, 2]

    a = run.a[block].detach()
    ends = []
    for step in (1e-6, -1e-6):
        moved = a.clone()
        moved[at] += step
        ends.append(score(moved))
    everywhere = run.tokens[block].mean(1, keepdim=True).expand_as(run.tokens[block])
    (gradient,) = torch.autograd.grad(reference_vit.read(everywhere)[0, 2], run.a[block])
    assert float(gradient[at]) == pytest.approx(float((ends[0] - ends[1]) / 2e-6), rel=1e-6)
    assert abs(float(gradient[at])) > 1e-6


def test_reference_rollout_rows_sum_to_one() -> None:
    """The patches of the class row sum to less than 1, the patches of the mean row to 1."""
    config = VIT_CONFIGS["average"]
    reference_vit = ReferenceViT(config, draw_weights(config))
    assert network_references.attention_rollout(reference_vit, random_inputs(config)[0], 0).sum() == pytest.approx(
        1, abs=1e-12
    )
    assert (
        network_references.attention_rollout(
            transformer_case("timm class plain").reference_vit, random_inputs(TinyViTConfig())[0], 0
        ).sum()
        < 1
    )


@pytest.mark.parametrize("net", ["ThreeGridNet", "InplaceNet"])
def test_reference_rise_converges_to_the_mean_mask(net: str) -> None:
    """If no mask changes the probability, the map is the mean mask divided by p, which is 1 everywhere."""

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[50.0, 0.0]], dtype=torch.float64).expand(len(x), 2)

    bias_gradients = network_references.rise(Sure(), reference_network_for(net).inputs[0].numpy(), 0, masks=1500)
    assert abs(bias_gradients.mean() - 1) < 0.02
    assert abs(bias_gradients - 1).max() < 0.2
