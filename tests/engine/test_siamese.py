"""Networks that process two inputs as rows of one batch: the map of an input is that of its own row."""

import pytest
import torch
from torch import Tensor, nn

import seewhy

METHODS = ["gradcam", "hirescam", "scorecam", "ablationcam"]


class Siamese(nn.Module):
    """One CNN for an image and one or several others, whose rows are in the order of `order`."""

    def __init__(self, order: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.order = order
        self.stem, self.cnn, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 1, 1), nn.LazyLinear(4)

    def rows_of(self, inputs: int, images: int) -> Tensor:
        """Return which rows belong to each input: (inputs, images)."""
        table = torch.arange(inputs * images)
        if self.order == "stack":
            return table.reshape(images, inputs).T
        return table.reshape(inputs, images) if self.order == "first" else table.reshape(inputs, images).flip(0)

    def forward(self, *inputs: Tensor) -> Tensor:
        rows = self.rows_of(len(inputs), len(inputs[0]))
        batch = torch.cat(inputs)[rows.flatten().argsort()]
        self.features = self.cnn(self.stem(batch).relu())
        return self.compare(self.features, rows)

    def compare(self, features: Tensor, rows: Tensor) -> Tensor:
        return self.fc(features.tanh().mean((2, 3))[rows].movedim(0, 1).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("main", [0, 1])
@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("order", ["first", "last", "stack"])
def test_two_inputs_in_one_batch(order: str, count: int, images: int, main: int) -> None:
    net = Siamese(order).double().eval()
    inputs = tuple(torch.randn(images, 3, 16, 20, dtype=torch.float64) for _ in range(count))
    net(*inputs)  # sets the size of the last layer
    rows = net.rows_of(count, images)
    e = seewhy.explain(net, inputs, main=main, targets=1, methods=METHODS, layers="cnn")
    scores = net(*inputs)[:, 1]
    features = net.features
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    own, gradient = features[rows[main]].detach(), gradient[rows[main]]
    assert torch.allclose(e.map(method="hirescam"), (gradient * own).sum(1))
    assert torch.allclose(e.map(method="gradcam"), (gradient.mean((2, 3), keepdim=True) * own).sum(1))
    assert e.heatmap(method="scorecam").shape == (images, 16, 20)
    assert e.layer_info["cnn"].parts == ()
    for image in range(images):
        total = torch.zeros_like(own[0, 0])
        for channel in range(own.shape[1]):
            changed = features.detach().clone()
            changed[rows[main, image], channel] = 0
            drop = (scores[image] - net.compare(changed, rows)[image, 1]) / scores[image]
            total += drop.detach() * own[image, channel]
        assert torch.allclose(e.map(method="ablationcam")[image], total)


def test_the_default_call() -> None:
    net, inputs = Siamese("first").eval(), (torch.randn(1, 3, 16, 20), torch.randn(1, 3, 16, 20))
    net(*inputs)
    e = seewhy.explain(net, inputs, include_suggested=True)
    assert e.suggested == "cnn"
    assert "one of its 2 rows per input shows the explained input" in e.layer_info["cnn"].note
