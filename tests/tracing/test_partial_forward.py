"""`PartialForward` with models that accept a single image only, as exported graphs do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy.tracing.resume import PartialForward


class FixedBatchSize(nn.Module):
    """Reshapes to a batch of one, like an exported graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shuffled = self.first(x).reshape(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8)
        scores: Tensor = self.last(shuffled).mean((2, 3))
        return scores


@pytest.mark.parametrize("layer", [None, "first", "last"])
def test_batches_run_row_by_row_if_the_model_accepts_one_image(layer: str | None) -> None:
    net, x = FixedBatchSize().eval(), torch.rand(1, 3, 8, 8)
    forward = PartialForward(net, x, layer)
    with torch.no_grad():
        rows = torch.cat([forward.original, 0 * forward.original, forward.original])
        scores = forward(rows)
    assert forward.runs_one_by_one == (layer != "last")
    torch.testing.assert_close(scores[[0, 2]], net(x).expand(2, -1))
    assert not torch.allclose(scores[0], scores[1])


def test_errors_of_a_single_row_are_raised() -> None:
    class FailsWhenBroken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("no such row")
            return x

    net = FailsWhenBroken().eval()
    net.broken = False
    forward = PartialForward(net, torch.rand(1, 3, 8, 8))
    forward.twin.broken = True
    with pytest.raises(RuntimeError, match="no such row"):
        forward(torch.rand(3, 3, 8, 8))


class WritesToView(nn.Module):
    """Sets some pixels to 0 through a view of its input. Channels-last memory has no such view, only a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.reshape(len(x), -1)[:, :30] = 0
        return self.fc(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


class ChangesInputAndRejectsBatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5)
        if len(x) > 1:
            raise RuntimeError("one image at a time")
        return self.fc(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("net_class", [WritesToView, ChangesInputAndRejectsBatches])
def test_inputs_that_the_model_changes(net_class: type[nn.Module]) -> None:
    net, inputs = net_class().eval().double(), torch.rand(5, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.cat([net(image.clone()) for image in inputs.split(1)])
    rest = PartialForward(net, inputs[:1])
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(rest.run_channels_last(inputs.clone()), expected)
