"""Inputs with another order of axes than (B, C, *size): the order is observed, and maps lie on the right axes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.tracing.axis_order import AxisOrder, find_axis_order


class Reordered(nn.Module):
    """A convolutional network that changes the order of its input's axes first."""

    def __init__(self, reorder: Callable[[Tensor], Tensor], channels: int, rank: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.reorder = reorder
        self.body = nn.Sequential(conv(channels, 6, 3, 2, 1), nn.ReLU(), conv(6, 8, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.reorder(x)).flatten(2).mean(2))  # type: ignore[no-any-return]


CASES = {
    "clips (B, T, C, H, W)": ((8, 3, 16, 12), lambda x: x.transpose(1, 2), 3, AxisOrder(2, (1, 3, 4))),
    "three frames": ((3, 3, 16, 12), lambda x: x.transpose(1, 2), 3, AxisOrder(2, (1, 3, 4))),
    "clips with channels last": ((8, 16, 12, 3), lambda x: x.permute(0, 4, 1, 2, 3), 3, AxisOrder(4, (1, 2, 3))),
    "images with channels last": ((16, 12, 3), lambda x: x.permute(0, 3, 1, 2), 3, AxisOrder(3, (1, 2))),
    "normalized images with channels last": (
        (16, 12, 3), lambda x: ((x - x.mean((1, 2), keepdim=True)) / 0.3).movedim(-1, 1).contiguous(), 3, AxisOrder(3, (1, 2)),
    ),
    "spectrograms (B, time, mel)": ((40, 16), lambda x: x[:, None], 1, AxisOrder(None, (1, 2))),
    "spectrograms, transposed": ((40, 16), lambda x: x[:, None].transpose(2, 3), 1, AxisOrder(None, (2, 1))),
    "signals with channels last": ((50, 5), lambda x: x.transpose(1, 2), 5, AxisOrder(2, (1,))),
    "waveforms (B, time)": ((200,), lambda x: x[:, None], 1, AxisOrder(None, (1,))),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_maps_are_those_of_the_network_with_the_usual_order(case: str) -> None:
    shape, reorder, channels, order = CASES[case]
    rank = len(order.positions)
    net = Reordered(reorder, channels, rank).double().eval()
    inputs = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    usual = Reordered(lambda x: x, channels, rank).double().eval()
    usual.load_state_dict(net.state_dict())
    methods = ["gradcam", "layercam", "ablationcam", "scorecam", "occlusion", "smooth(samples=2)"]
    e = seewhy.explain(net, inputs, methods=methods, targets=1)
    expected = seewhy.explain(usual, reorder(inputs), methods=methods, layers="body", targets=1)
    assert e.logits is not None and torch.allclose(e.logits, net(inputs))
    for method in methods[:3]:
        torch.testing.assert_close(e.map(method=method), expected.map(method=method))
    # Positions are in the order in which the convolutions see them.
    size = tuple(shape[axis - 1] for axis in order.positions)
    assert e.size == size and tuple(e.heatmap(method="gradcam").shape[1:]) == size
    assert any(str(order) in note for note in e.notes)
    if "normalized" not in case:  # those methods change the input, and its mean is not that of the changed one
        for method in methods[3:]:
            torch.testing.assert_close(e.map(method=method), expected.map(method=method))


@pytest.mark.parametrize(
    ("shape", "channels", "rank"),
    [((3, 16, 12), 3, 2), ((3, 3, 12), 3, 2), ((1, 16, 12), 1, 2), ((4, 50), 4, 1), ((3, 8, 9, 10), 3, 3)],
)  # fmt: skip
def test_the_usual_order_is_not_changed(shape: tuple[int, ...], channels: int, rank: int) -> None:
    net = Reordered(lambda x: x, channels, rank).eval()
    inputs = torch.randn(1, *shape)
    assert find_axis_order(net, inputs) is None
    assert not any("axes" in note for note in seewhy.explain(net, inputs).notes)


class Pitch(nn.Module):
    """A signal (B, length) through convolutions with two axes, of which the second has length 1, as in pitch trackers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, (64, 1), (4, 1)), nn.BatchNorm2d(8)
        self.second, self.pool, self.fc = nn.Conv2d(8, 16, (16, 1)), nn.MaxPool2d((2, 1)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x[:, None, :, None])))
        return self.fc(self.tail(x))  # type: ignore[no-any-return]

    def tail(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.second(x))).mean((2, 3)) ** 2  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["gradcam", "ablationcam", "scorecam"])
def test_axes_of_length_one_that_the_input_does_not_have(method: str) -> None:
    torch.manual_seed(0)
    net, signal = Pitch().double().eval(), torch.randn(2, 512, dtype=torch.float64)
    for layer, length in (("first", 113), ("norm", 113), ("second", 98), ("pool", 49)):
        e = seewhy.explain(net, signal, layers=layer, targets=1, methods=method)
        assert e.map().shape == (2, length) and e.heatmap().shape == (2, 512)
    e = seewhy.explain(net, signal, targets=1, methods=["gradcam", "ablationcam"])
    assert e.layers == ("pool",)
    pooled = net.pool(torch.relu(net.second(torch.relu(net.norm(net.first(signal[:, None, :, None])))))).detach()
    leaf = pooled.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(leaf.mean((2, 3)) ** 2)[:, 1].sum(), leaf)
    want = (gradient.mean((2, 3), keepdim=True) * pooled).sum(1)[:, :, 0]
    assert torch.allclose(e.map(method="gradcam"), want, atol=1e-12)


@pytest.mark.parametrize(
    "front",
    [
        lambda x: x.mean(1, keepdim=True),
        lambda x: 0.3 * x[:, :1] + 0.6 * x[:, 1:2] + 0.1 * x[:, 2:],
        lambda x: nn.functional.conv2d(x.mean(1, keepdim=True), torch.tensor([[[[-1.0, 0, 1]]]]).to(x), padding=(0, 1)),
        lambda x: x.amax(1, keepdim=True),
    ],
)
def test_a_network_that_makes_a_gray_image(front: Callable[[Tensor], Tensor]) -> None:
    class Gray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.cnn, self.fc = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.cnn(front(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]

    for layers in (None, "cnn"):
        e = seewhy.explain(Gray().eval(), torch.randn(2, 3, 14, 12), layers=layers, targets=1)
        assert e.map().shape == (2, 12, 10)
        assert e.size == (14, 12)
        assert not e.notes


class StepsOfSensors(nn.Module):
    """A sequence (B, T, C) through layers that read features on the last axis, without a convolution."""

    def __init__(self, kind: str, hidden: int, sensors: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.norm = kind, nn.LayerNorm(sensors)
        self.embed = nn.Linear(sensors, hidden)
        if kind.startswith("gru"):
            self.block: nn.Module = nn.GRU(
                hidden, hidden, batch_first=kind == "gru", bidirectional=kind == "gru both ways"
            )
        elif kind == "transformer":
            self.block = nn.TransformerEncoderLayer(hidden, 1, 2 * hidden, 0.0, batch_first=True)
        else:
            self.block = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.fc = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.embed(self.norm(x) if self.kind == "norm" else x)
        is_turned = self.kind.startswith("gru ")  # steps first
        steps = self.block(steps.transpose(0, 1) if is_turned else steps)
        steps = steps[0] if isinstance(steps, tuple) else steps
        return self.fc(steps.mean(0 if is_turned else 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["linear", "norm", "gru", "gru, steps first", "gru both ways", "transformer"])
@pytest.mark.parametrize(
    ("hidden", "sensors", "length"), [(8, 6, 50), (25, 6, 50), (50, 6, 50), (8, 12, 12), (8, 50, 6)]
)
def test_hidden_units_of_a_sequence_are_no_positions(kind: str, hidden: int, sensors: int, length: int) -> None:
    net = StepsOfSensors(kind, hidden, sensors).double().eval()
    x = torch.randn(2, length, sensors, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net(x)
    e = seewhy.explain(net, x, targets=1, methods="hirescam")
    assert e.size == (length,) and any("channels on axis 2, positions on axis 1" in note for note in e.notes)
    kept: list[Tensor] = []
    handle = net.get_submodule(e.layers[0]).register_forward_hook(
        lambda *call: kept.append(call[2][0] if isinstance(call[2], tuple) else call[2])
    )
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), kept)
    handle.remove()
    expected = (kept[0] * gradient).sum(2).detach()
    torch.testing.assert_close(e.map(), expected.T if kind.startswith("gru ") else expected)


class Mixer(nn.Module):
    """A sequence without a layer that reads features on its last axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.act, self.fc = nn.Parameter(torch.randn(6, 8)), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(x @ self.weights).mean(1))  # type: ignore[no-any-return]


def test_an_order_of_axes_that_no_layer_shows_is_noted() -> None:
    turned = nn.Sequential(Turn(), Mixer()).double().eval()
    x = torch.randn(2, 6, 50, dtype=torch.float64)
    e = seewhy.explain(turned, x, targets=1, methods="hirescam")
    steps = (x.mT @ turned[1].weights).relu().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(turned[1].fc(steps.mean(1))[:, 1].sum(), steps)
    torch.testing.assert_close(e.map(), (steps * gradient).sum(2).detach())
    assert any("assumed to be (batch, channels, positions)" in note for note in e.notes)
    # Read like that, the input of the mixer alone has 50 channels and 6 positions.
    with pytest.raises(seewhy.errors.LayerError, match="axes of the input are not") as refused:
        seewhy.explain(Mixer().double().eval(), x.mT, layers="act", targets=1)
    assert "grid=" not in str(refused.value)


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT


class Spectrogram(nn.Module):
    """A waveform whose spectrogram the model computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 64, 16, window=torch.hann_window(64), return_complex=True).abs()[:, None]
        return self.fc(self.cnn(spectrum).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("grid", [None, "31x49"])
@pytest.mark.parametrize("layers", ["cnn", None])
def test_a_grid_over_a_spectrogram_of_the_model_is_refused_with_the_reason(
    layers: str | None, grid: str | None
) -> None:
    with pytest.raises(seewhy.errors.LayerError, match=r"2 axes of positions, and an input \(1, 800\) has 1"):
        seewhy.explain(Spectrogram().eval(), torch.randn(2, 800), layers=layers, grid=grid)
    with pytest.raises(seewhy.errors.LayerError) as refused:
        seewhy.explain(Spectrogram().eval(), torch.randn(2, 800), layers="all", grid=grid)
    assert "or 'all'" not in str(refused.value)


class Reader(nn.Module):
    """A column-wise convolution of an image of text, and a recurrent network along its rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.columns = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, (16, 1))
        self.rnn, self.fc = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(self.columns(self.cnn(x)).squeeze(2).mT)[0].mean(1))  # type: ignore[no-any-return]


def test_tokens_have_the_grid_of_a_convolution_rather_than_half_of_another() -> None:
    net, x = Reader().double().eval(), torch.randn(2, 1, 32, 80, dtype=torch.float64)
    e = seewhy.explain(net, x, layers="rnn", targets=1, methods="hirescam")
    steps = net.rnn(net.columns(net.cnn(x)).squeeze(2).mT)[0].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(steps.mean(1))[:, 1].sum(), steps)
    torch.testing.assert_close(e.map(), (steps * gradient).sum(2)[:, None].detach())
