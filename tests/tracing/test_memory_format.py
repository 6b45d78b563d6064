"""Gradients through normalization layers are correct for a batch of one in every memory layout.

Those of PyTorch are wrong in some layouts (seen in 2.14 on CPUs; see `tracing/memory_format.py`). References: the same
image twice in a batch, where PyTorch is correct, and the definition of BatchNorm in eval mode, one factor per channel.
"""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import seewhy
from seewhy.tracing.record import record_forward
from seewhy.tracing.torch_private import BATCH_NORM
from seewhy.tracing.trace import RecordingRequest


class Hybrid(nn.Module):
    """A convolution, a norm and tokens; with a `second` norm, back to a grid and to tokens again."""

    def __init__(self, norm: nn.Module, axes: int, second: nn.Module | None = None) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        self.conv, self.norm, self.second = conv(3, 6, 3), norm, second
        self.tokens, self.head = nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        grid = x.shape[2:]
        x = self.mix(x.flatten(2).transpose(1, 2))
        if self.second is not None:
            x = self.mix(self.second(x.transpose(1, 2).reshape(*x.shape[:1], -1, *grid)).flatten(2).transpose(1, 2))
        output: Tensor = self.head((x * torch.arange(x.shape[1], dtype=x.dtype)[:, None]).sum(1))
        return output

    def mix(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.tokens(x).tanh()
        return output


NORMS = {
    1: (nn.BatchNorm1d, nn.InstanceNorm1d),
    2: (nn.BatchNorm2d, nn.InstanceNorm2d, timm.layers.BatchNormAct2d),
    3: (nn.BatchNorm3d, nn.InstanceNorm3d),
}
CASES = [(axes, norm, second) for axes, norms in NORMS.items() for norm in norms for second in (False, True)]


@pytest.mark.parametrize(("axes", "norm", "second"), CASES)
def test_one_image_has_the_same_map_as_in_a_batch(axes: int, norm: type[nn.Module], second: bool) -> None:
    torch.manual_seed(0)
    make = norm if issubclass(norm, BATCH_NORM) else lambda k: norm(k, affine=True)
    net = Hybrid(make(6), axes, make(6) if second else None).double().train()
    for _ in range(3):  # gives statistics that are not 0 and 1
        net(torch.randn(4, 3, *(7, 6, 5)[:axes], dtype=torch.float64))
    net.eval()
    image = torch.randn(1, 3, *(7, 6, 5)[:axes], dtype=torch.float64)
    maps = [
        seewhy.explain(net, inputs, layers="conv", methods="hirescam", targets=1).map()[0]
        for inputs in (image, torch.cat([image, image]))
    ]
    assert maps[1].abs().max() > 1e-3
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-9, atol=1e-12)


def test_batch_norm_scales_the_gradient_per_channel() -> None:
    torch.manual_seed(0)
    net = Hybrid(nn.BatchNorm2d(6), 2).double().eval()
    nn.init.normal_(net.norm.weight)  # type: ignore[arg-type]
    request = RecordingRequest(frozenset({"conv", "norm"}))
    with record_forward(net, torch.randn(1, 3, 9, 7, dtype=torch.float64), request) as trace:
        before, after = trace.calls
        (output_gradient,) = torch.autograd.grad(trace.output[0, 1], after.output, retain_graph=True)
        (gradient,) = torch.autograd.grad(trace.output[0, 1], before.output)
    factor = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()  # type: ignore[operator,union-attr]
    torch.testing.assert_close(gradient, output_gradient * factor[:, None, None])


@pytest.mark.parametrize("name", ["efficientformer_l1", "levit_128", "xcit_nano_12_p16_224"])
def test_published_networks_have_the_same_map_as_in_a_batch(name: str) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=4).double().eval()
    image = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    maps = [
        seewhy.explain(net, inputs, layers=0, methods="hirescam", targets=1).map()[0]
        for inputs in (image, torch.cat([image, image]))
    ]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-7, atol=1e-9 * float(maps[1].abs().max()))
