"""Networks that crop, pad, resize, mirror or transpose their input: heat lies where the network looked."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import MethodError
from seewhy.places.region import Region
from seewhy.tracing.seen_region import seen_region

SIZE = (20, 26)
Arrange = Callable[[Tensor], Tensor]


def warped(x: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = torch.tensor([matrix]).to(x).repeat(len(x), 1, 1)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


# Each position of what the network sees is a position of the input, or padding.
COPIES: dict[str, Arrange] = {
    "crop": lambda x: x[:, :, 4:16, 2:20],
    "center crop and normalization": lambda x: (x[:, :, 3:17, 5:21] - 0.5) / 0.2,
    "padding": lambda x: F.pad(x, (3, 5, 2, 2)),
    "padding to a square": lambda x: F.pad(x, (0, 6, 0, 12)),
    "padding and crop": lambda x: F.pad(x, (4, 0, 0, 0))[:, :, 6:],
    "flip": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "half turn": lambda x: x.flip(2, 3),
    "transposed": lambda x: x.transpose(2, 3),
    "quarter turn": lambda x: x.rot90(1, (2, 3)),
    "transposed crop": lambda x: x[:, :, 4:16].transpose(2, 3).flip(3),
}  # fmt: skip
RESIZED: dict[str, Arrange] = {
    "resize and crop": lambda x: F.interpolate(x, (40, 52), mode="bilinear", antialias=True)[:, :, 8:32, 14:38],
    "crop and resize": lambda x: F.interpolate(x[:, :, :12, 10:22], (24, 24), mode="bicubic"),
    "zoom": lambda x: warped(x, [[0.5, 0, 0.2], [0, 0.5, -0.1]]),
    "letterbox": lambda x: F.pad(F.interpolate(x, (20, 26), mode="bilinear"), (0, 0, 3, 3)),
}  # fmt: skip
ENTIRE: dict[str, Arrange] = {
    "same": lambda x: x,
    "normalization": lambda x: (x - 0.5) / 0.2,
    "standardized images": lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True),
    "order of colors": lambda x: x.flip(1),
    "gray": lambda x: x.mean(1, keepdim=True).repeat(1, 3, 1, 1),
    "saturated": lambda x: x.clamp(-0.5, 0.5),
    "rounded": lambda x: (x * 255).round() / 255,
    "blurred": lambda x: F.conv2d(x, torch.ones(3, 1, 5, 5).to(x) / 25, padding=2, groups=3),
    "half": lambda x: F.interpolate(x, (10, 13), mode="bilinear", antialias=True),
    "every second": lambda x: x[:, :, ::2, ::2],
    "nearest": lambda x: F.interpolate(x, (10, 13)),
    "twice": lambda x: F.interpolate(x, (40, 52), mode="bicubic"),
    "aligned corners": lambda x: F.interpolate(x, (40, 52), mode="bilinear", align_corners=True),
    "space to depth": lambda x: x[:, :, ::2, ::2] + x[:, :, 1::2, 1::2],
}


class Network(nn.Module):
    """A CNN that sees its input as `arrange` returns it."""

    def __init__(self, arrange: Arrange) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.arrange, self.first = arrange, nn.Conv2d(3, 6, 3, 1, 1)
        self.cnn, self.fc = nn.Conv2d(6, 8, 3, 2, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.arrange(x)))

    def features(self, seen: Tensor) -> Tensor:
        return self.cnn(self.first(seen).relu()).relu()  # type: ignore[no-any-return]

    def head(self, features: Tensor) -> Tensor:
        # The weights depend on the place, or the gradient would be the same everywhere.
        weights = torch.linspace(0, 1, features.shape[2])[:, None] + torch.linspace(0, 2, features.shape[3]).square()
        return self.fc((features * weights.to(features)).mean((2, 3)))  # type: ignore[no-any-return]


def make(arrange: Arrange, images: int = 2) -> tuple[Network, Tensor]:
    torch.manual_seed(1)
    return Network(arrange).double().eval(), torch.randn(images, 3, *SIZE, dtype=torch.float64)


def reference(net: Network, inputs: Tensor, target: int) -> Tensor:
    """HiResCAM at the input of `head`, without hooks: (B, *grid) of what the network sees."""
    features = net.features(net.arrange(inputs)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(features)[:, target].sum(), features)
    return (gradient * features).sum(1).detach()


def position_of(arrange: Arrange) -> Tensor:
    """Return for each position that the network sees the number of the input's position; -1 for padding."""
    numbers = torch.arange(1.0, SIZE[0] * SIZE[1] + 1, dtype=torch.float64).reshape(1, 1, *SIZE).repeat(1, 3, 1, 1)
    zero = arrange(torch.zeros_like(numbers))
    scale = arrange(torch.ones_like(numbers)) - zero
    values = (arrange(numbers) - zero) / scale.max()
    return values[0, 0].round().long() - 1


@pytest.mark.parametrize("layers", ["cnn", "suggested", "all"])
@pytest.mark.parametrize("name", COPIES)
def test_heat_lies_where_the_network_looked(name: str, layers: str) -> None:
    net, inputs = make(COPIES[name])
    e = seewhy.explain(net, inputs, layers=layers, methods="hirescam", targets=1)
    raw = reference(net, inputs, 1)
    assert e.layers[-1] == "cnn"
    want = raw.clamp(min=0)
    assert torch.allclose(e.map(layer="cnn"), raw, atol=1e-12)  # ReLU passes the values that have a gradient
    where = position_of(COPIES[name])
    upsampled = F.interpolate(want[:, None], where.shape, mode="bilinear")[:, 0].flatten(1)
    flat, inside = torch.zeros(len(inputs), SIZE[0] * SIZE[1], dtype=torch.float64), where.flatten() >= 0
    flat[:, where.flatten()[inside]] = upsampled[:, inside]
    expected = flat.reshape(-1, *SIZE)
    got = e.heatmap(layer="cnn").double()
    assert torch.allclose(got, expected / expected.amax((1, 2), keepdim=True), atol=1e-6)
    assert "of the input it sees" in e.layer_info["cnn"].note


@pytest.mark.parametrize("name", COPIES)
def test_methods_that_change_the_input_change_what_the_network_sees(name: str) -> None:
    """Score-CAM by hand: masks of the channels over what the network sees."""
    net, inputs = make(COPIES[name], 1)
    e = seewhy.explain(net, inputs, layers="cnn", methods=["scorecam", "ablationcam", "guided-gradcam"], targets=1)
    seen = net.arrange(inputs)
    offset = net.arrange(torch.zeros_like(inputs))
    own = net.cnn(net.first(seen).relu()).detach()
    total = torch.zeros_like(own[:, 0])
    for channel in range(own.shape[1]):
        mask = F.interpolate(own[:, channel : channel + 1], seen.shape[2:], mode="bilinear")
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        total += net.head(net.features((seen - offset) * mask + offset)).softmax(1)[0, 1].detach() * own[:, channel]
    assert torch.allclose(e.map(method="scorecam"), total, atol=1e-9)
    assert e.map(method="ablationcam").shape == total.shape
    assert e.heatmap(method="guided-gradcam").shape == (1, *SIZE)


@pytest.mark.parametrize("name", RESIZED)
def test_resized_regions(name: str) -> None:
    """A bright square in the input has its heat there."""
    arrange = RESIZED[name]
    net = Network(arrange).double().eval()
    net.head = lambda features: features.mean((2, 3))  # type: ignore[method-assign]
    weights = torch.zeros_like(net.first.weight)
    weights[:, :, 1, 1] = 1
    net.first.weight.data, net.cnn.weight.data = weights, torch.ones_like(net.cnn.weight)
    net.first.bias.data, net.cnn.bias.data = torch.zeros(6).double(), torch.zeros(8).double()  # type: ignore[union-attr]
    for top, left in ((7, 13), (9, 14), (6, 16)):
        inputs = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
        inputs[..., top : top + 3, left : left + 3] = 1
        heat = seewhy.explain(net, inputs, layers="cnn", targets=1).heatmap()[0].double()
        rows, columns = heat.sum(1), heat.sum(0)
        center = [float((line * (torch.arange(len(line)) + 0.5)).sum() / line.sum()) for line in (rows, columns)]
        assert abs(center[0] - top - 1.5) < 0.8
        assert abs(center[1] - left - 1.5) < 0.8


@pytest.mark.parametrize("name", ENTIRE)
def test_what_shows_the_entire_input_changes_nothing(name: str) -> None:
    net, inputs = make(ENTIRE[name])
    e = seewhy.explain(net, inputs, layers="cnn", targets=1)
    assert e.layer_info["cnn"].region is None
    assert not any("sees" in note or "see " in note for note in e.notes)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: torch.fft.fft2(x).abs(),
        lambda x: warped(x, [[0.7, 0.7, 0], [-0.7, 0.7, 0]]),
    ],
)
def test_what_is_no_rectangle_is_stated(arrange: Arrange) -> None:
    net, inputs = make(arrange)
    e = seewhy.explain(net, inputs, layers="cnn", targets=1)
    assert e.notes == (
        "what 'first' sees is not a rectangle of the input: heat is drawn as if it saw all of the input",
    )


class TwoStems(nn.Module):
    def __init__(self, one: Arrange, other: Arrange) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(3, 4, 3, 1, 1)
        self.arrange, self.fc = (one, other), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        views = [stem(own(x)).relu() for stem, own in zip((self.one, self.other), self.arrange, strict=True)]
        return self.fc(torch.cat([view.mean((2, 3)) for view in views], 1))  # type: ignore[no-any-return]


def test_two_convolutions_with_the_same_region() -> None:
    net, inputs = TwoStems(COPIES["crop"], COPIES["crop"]).double().eval(), make(COPIES["crop"])[1]
    e = seewhy.explain(net, inputs, layers=["one", "other"], targets=1)
    assert e.layer_info["other"].region == e.layer_info["one"].region == Region(((4, 16), (2, 20)), (0, 1))


@pytest.mark.parametrize("first", ["same", "crop"])
def test_two_convolutions_with_different_regions(first: str) -> None:
    one = COPIES.get(first, ENTIRE["same"])
    net, inputs = TwoStems(one, COPIES["flip"]).double().eval(), make(one)[1]
    e = seewhy.explain(net, inputs, layers=["one", "other"], targets=1)
    assert "'one' and 'other' see different regions of the input, but heat is drawn as if they saw all of it" in e.notes
    assert e.layer_info["other"].region is e.layer_info["one"].region is None


def test_layers_before_the_crop_show_the_entire_input() -> None:
    class Modules(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.crop = nn.Sequential(nn.BatchNorm2d(3)), nn.ZeroPad2d((-4, -4, -2, -2))
            self.cnn, self.fc = nn.Conv2d(3, 6, 3, 1, 1), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.cnn(self.crop(self.scale(x))).relu().mean((2, 3)))  # type: ignore[no-any-return]

    e = seewhy.explain(Modules().eval(), torch.randn(1, 3, *SIZE), layers="all", targets=1)
    assert e.layer_info["scale"].region is None
    assert e.layer_info["cnn"].region == Region(((2, 18), (4, 22)), (0, 1))


class Patches(nn.Module):
    """A transformer without attention that sees the center of its input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.block, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x[:, :, 2:18, 3:23]).flatten(2).mT
        tokens = self.block(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)).relu()
        return self.fc(tokens.mean(1))  # type: ignore[no-any-return]


def test_tokens_of_a_region() -> None:
    e = seewhy.explain(Patches().eval(), torch.randn(1, 3, *SIZE), layers="block", targets=1)
    info = e.layer_info["block"]
    assert info.grid == (4, 5)
    assert info.region == Region(((2, 18), (3, 23)), (0, 1))
    assert not e.heatmap()[0][:2].any()
    assert not e.heatmap()[0][:, 23:].any()


def test_a_saved_explanation_keeps_the_region(tmp_path: Path) -> None:
    net, inputs = make(COPIES["quarter turn"], 1)
    e = seewhy.explain(net, inputs, layers=["first", "cnn"], targets=1)
    e.save(tmp_path)
    loaded = seewhy.load_explanation(tmp_path)
    assert loaded.layer_info["cnn"].region == e.layer_info["cnn"].region
    assert torch.allclose(loaded.heatmap(layer="cnn"), e.heatmap(layer="cnn").float(), atol=1e-6)


def test_methods_that_move_the_input_need_a_centered_region() -> None:
    net, inputs = make(lambda x: x[:, :, 4:16, 5:21])
    assert seewhy.explain(net, inputs, layers="cnn", methods="augmented", targets=1).map().shape == (2, 6, 8)
    net, inputs = make(COPIES["crop"])
    with pytest.raises(MethodError, match="it moves or resizes the input, of which this layer sees a region"):
        seewhy.explain(net, inputs, layers="cnn", methods="augmented", targets=1)


def test_network_methods_and_channels() -> None:
    net, inputs = make(COPIES["crop"], 1)
    e = seewhy.explain(
        net, inputs, layers=["first", "cnn"], methods=["gradcam", "fullgrad", "layercamfusion"], channels=2, targets=1
    )
    for method, layer in (("gradcam", "cnn"), ("fullgrad", None), ("layercamfusion", None)):
        assert e.heatmap(method=method, layer=layer).shape == (1, *SIZE)
    assert e.channel_features["cnn"].maps.shape == (1, 2, *SIZE)
    assert not e.channel_features["cnn"].maps[..., :4, :].any()


def test_a_box_in_fractions_of_the_region() -> None:
    box = torch.tensor([0.25, 0.5, 0.75, 1.0])  # left, top, right, bottom of an image of 8 x 16
    assert Region(((4, 8), (4, 12)), (0, 1)).fractions(box, (8, 16)).tolist() == [0, 0, 1, 1]
    assert Region(((0, 8), (0, 16)), (0, 1), (0,)).fractions(box, (8, 16)).tolist() == [0.25, 0, 0.75, 0.5]
    assert Region(((0, 8), (0, 16)), (1, 0)).fractions(box, (8, 16)).tolist() == [0.5, 0.25, 1, 0.75]


def test_the_first_call_ends_at_the_first_convolution() -> None:
    net, inputs = make(ENTIRE["same"])
    calls: list[str] = []
    net.cnn.register_forward_pre_hook(lambda *_: calls.append("cnn"))
    seen_region(net, inputs)
    assert calls == []


class Pair(nn.Module):
    """Two inputs with one network each; the second one is cropped."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.fc = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(3, 4, 3, 1, 1), nn.Linear(8, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        features = [self.left(a).relu(), self.right(b[:, :, 4:16]).relu()]
        return self.fc(torch.cat([one.mean((2, 3)) for one in features], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_observed_of_one_input_is_not_used_for_another(order: tuple[int, int]) -> None:
    net, inputs = Pair().eval(), (torch.randn(1, 3, *SIZE), torch.randn(1, 3, *SIZE))
    for main in order:
        e = seewhy.explain(net, inputs, main=main, targets=1)
        assert e.suggested == ("left", "right")[main] or e.layers == (("left", "right")[main],)
        assert (e.layer_info[e.layers[0]].region is None) == (main == 0)
