"""Networks that crop, pad, resize, mirror or transpose their input: heat lies where the network looked."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import MethodError
from seewhy.explanation.report import build_page
from seewhy.places.region import Region
from seewhy.tracing import cell_places
from seewhy.tracing.field_of_view import field_of_view

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
    assert any("the network sees" in note for note in e.notes)


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


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_an_input_that_is_mirrored_in_place(axes: tuple[int, ...]) -> None:
    """The first convolution receives the very tensor that the model received, with other values."""
    methods = ["gradcam", "scorecam"]
    mirrored, inputs = make(lambda x: x.flip(axes), 1)
    in_place, _ = make(lambda x: x.copy_(x.flip(axes)), 1)
    want, got = (seewhy.explain(net, inputs.clone(), methods=methods, targets=1) for net in (mirrored, in_place))
    assert got.layer_info[got.layers[0]].region == want.layer_info[want.layers[0]].region is not None
    for method in methods:
        assert torch.allclose(got.heatmap(method=method), want.heatmap(method=method))
    unchanged = seewhy.explain(make(lambda x: x.sub_(0.5).div_(0.2), 1)[0], inputs.clone(), targets=1)
    assert unchanged.layer_info[unchanged.layers[0]].region is None


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
    assert not e.notes


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
        "what 'first' sees is not a rectangle of the input: heatmaps assume that it is the entire input",
    )


def crop_to_content(x: Tensor) -> Tensor:
    """Return the 8 x 8 positions from the first bright one, of each image."""
    starts = [(image[0] > 3).nonzero()[0].tolist() for image in x]
    return torch.stack(
        [image[:, row : row + 8, column : column + 8] for image, (row, column) in zip(x, starts, strict=True)]
    )


def test_a_crop_that_depends_on_the_image() -> None:
    net = Network(crop_to_content).eval()
    inputs = torch.randn(2, 3, *SIZE).clamp(max=2)
    inputs[0, 0, 2, 3] = inputs[1, 0, 9, 15] = 5
    for image, start in ((0, (2, 3)), (1, (9, 15)), (0, (2, 3))):
        e = seewhy.explain(net, inputs[image : image + 1], layers="cnn", targets=1)
        assert e.layer_info["cnn"].region == Region(tuple((one, one + 8) for one in start), (0, 1))
    e = seewhy.explain(net, inputs, layers="cnn", targets=1)
    assert e.layer_info["cnn"].region is None
    assert "the network sees another region of each image: heatmaps assume that it is the entire input" in e.notes


def test_edges_of_a_crop() -> None:
    """What the network sees does not resemble the image, so it cannot be compared with the crop."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).repeat(3, 1, 1, 1)
    net = Network(lambda x: F.conv2d(x, kernel, padding=1, groups=3)[:, :, 4:16]).eval()
    for seed in range(3):
        inputs = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
        e = seewhy.explain(net, inputs, layers="cnn", targets=1)
        assert e.notes == ("the network sees rows 4 to 15",)


class Transformer(Network):
    """A spatial transformer, whose convolution computes where to look."""

    def __init__(self, *, on_features: bool) -> None:
        super().__init__(lambda x: x)
        self.where, self.angle, self.on_features = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), on_features
        nn.init.zeros_(self.angle.weight)
        self.angle.bias.data = torch.tensor([0.5, 0, 0.4, 0, 0.5, 0.4])

    def warp(self, x: Tensor, values: Tensor) -> Tensor:
        theta = self.angle(self.where(x).relu().mean((2, 3))).unflatten(1, (2, 3))
        return F.grid_sample(values, F.affine_grid(theta, list(values.shape), align_corners=False), align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.on_features:
            return self.head(self.cnn(self.warp(x, self.first(x)).relu()).relu())
        return self.head(self.features(self.warp(x, x)))


def test_a_spatial_transformer_is_stated() -> None:
    inputs = torch.randn(1, 3, *SIZE)
    e = seewhy.explain(Transformer(on_features=False).eval(), inputs, targets=1)
    assert "what 'first' sees is not a rectangle of the input: heatmaps assume that it is the entire input" in e.notes
    assert not seewhy.explain(Transformer(on_features=True).eval(), inputs, targets=1, layers="first").notes


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
    assert e.notes[0] == (
        "'one' and 'other' see different regions of the input: heatmaps assume that they see the entire input"
    )
    assert any("the cells of 'one' lie at about positions 4 to 16 of 20" in note for note in e.notes) == (
        first == "crop"
    )
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


@pytest.mark.parametrize("method", ["augmented", "cameras", "sess"])
def test_methods_that_move_the_input_need_all_of_it(method: str) -> None:
    net, inputs = make(COPIES["crop"])
    with pytest.raises(MethodError, match="it moves or resizes the input, but this layer sees only a region of it"):
        seewhy.explain(net, inputs, layers="cnn", methods=method, targets=1)


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
    field_of_view(net, inputs)
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


NORMALIZED = {
    "to the range 0 to 1": lambda x: (
        (x - x.amin((1, 2, 3), keepdim=True)) / (x.amax((1, 2, 3), keepdim=True) - x.amin())
    ),
    "logarithm": lambda x: x.abs().log(),
    "coordinates": lambda x: torch.cat(
        [torch.zeros_like(x[:, :1]) + torch.linspace(0, 1, x.shape[3]).to(x), x[:, :2]], 1
    ),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", NORMALIZED)
def test_statistics_of_the_image_are_no_crop(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    inputs = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    for crop in (False, True):
        net = make(lambda x, crop=crop: NORMALIZED[name](x)[:, :, 4:20, 6:22] if crop else NORMALIZED[name](x))[0]
        e = seewhy.explain(net, inputs, layers="cnn", targets=1)
        assert e.layer_info["cnn"].region == (Region(((4, 20), (6, 22)), (0, 1)) if crop else None)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.roll(13, 3),
        lambda x: x.roll(5, 3),
        lambda x: torch.fft.fftshift(x, (2, 3)),
        lambda x: torch.cat([x[..., :8], x[..., 18:]], 3),
        lambda x: x[..., [0, 2, 4, 6, 8, 10, 11, 12, 13, 14, 15, 17, 19, 21, 23]],
    ],
)
def test_other_orders_of_positions_are_stated(arrange: Arrange) -> None:
    net, inputs = make(arrange)
    e = seewhy.explain(net, inputs, layers="cnn", targets=1)
    assert e.layer_info["cnn"].region is None
    assert "is not a rectangle of the input" in e.notes[0]


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_with_values_of_the_image(mode: str) -> None:
    net, inputs = make(lambda x: F.pad(x, (6, 6, 4, 4), mode=mode))
    e = seewhy.explain(net, inputs, layers="cnn", targets=1)
    assert e.layer_info["cnn"].region == Region(((-4, 24), (-6, 32)), (0, 1))


class OwnCrop(nn.Module):
    """A network whose crop is an argument."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc = nn.Conv2d(3, 6, 3, 1, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor, start: object) -> Tensor:
        first = int(np.ravel(np.asarray(start))[0])
        return self.fc(self.cnn(x[:, :, first : first + 8]).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", [int, np.int64, lambda n: [n], lambda n: np.array([n]), lambda n: torch.tensor([n])])
def test_a_crop_that_is_an_argument(form: Callable[[int], object]) -> None:
    net, inputs = OwnCrop().eval(), torch.randn(1, 3, *SIZE)
    for start in (2, 9):
        e = seewhy.explain(net, inputs, arguments={"start": form(start)}, targets=1)
        assert e.layer_info["cnn"].region == Region(((start, start + 8), (0, 26)), (0, 1))


def test_an_image_that_shows_nothing_is_not_remembered() -> None:
    """Where the logarithm of an image is cut off, it has no gradient."""
    net, inputs = make(lambda x: x[:, :, 4:16].clamp(min=0).sqrt(), 1)
    seewhy.explain(net, torch.full_like(inputs, -1.0), layers="cnn", targets=1)
    assert seewhy.explain(net, inputs, layers="cnn", targets=1).layer_info["cnn"].region == Region(
        ((4, 16), (0, 26)), (0, 1)
    )


def test_a_crop_without_gradients() -> None:
    def crop(x: Tensor) -> Tensor:
        with torch.no_grad():
            return x[:, :, 4:16]

    net, inputs = make(crop)
    assert seewhy.explain(net, inputs, layers="cnn", targets=1).layer_info["cnn"].region == Region(
        ((4, 16), (0, 26)), (0, 1)
    )
    net, inputs = make(lambda x: (x[:, :, 4:16] * 255).detach().round())
    e = seewhy.explain(net, inputs, layers="cnn", targets=1)
    assert "what the first convolution sees has no gradient: heatmaps assume that it is the entire input" in e.notes


class OtherStem(nn.Module):
    """A gray image of the center next to the full image in colors."""

    def __init__(self, *, gray_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gray, self.colors, self.gray_first = nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(3, 4, 3, 1, 1), gray_first
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        def gray() -> Tensor:
            return self.gray(x.mean(1, keepdim=True)[:, :, 4:16, 6:22]).relu().mean((2, 3))  # type: ignore[no-any-return]

        first = gray() if self.gray_first else None
        colors = self.colors(x).relu().mean((2, 3))
        small = self.pool(x).mean((2, 3))
        return self.fc(torch.cat([gray() if first is None else first, colors, small], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("gray_first", [True, False])
def test_convolutions_with_other_channels_see_another_region(gray_first: bool) -> None:
    e = seewhy.explain(OtherStem(gray_first=gray_first).eval(), torch.randn(1, 3, *SIZE), layers="all", targets=1)
    assert any("see different regions of the input" in note for note in e.notes)
    assert all(info.region is None for info in e.layer_info.values())


def test_a_pooling_of_the_entire_input_after_a_convolution_of_a_crop() -> None:
    class Pooled(Network):
        def __init__(self) -> None:
            super().__init__(COPIES["crop"])
            self.pool = nn.AvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.pool(x).mean((1, 2, 3), keepdim=True)[:, :, 0, 0]

    e = seewhy.explain(Pooled().eval(), torch.randn(1, 3, *SIZE), layers=["cnn", "pool"], targets=1)
    assert e.layer_info["cnn"].region == Region(((4, 16), (2, 20)), (0, 1))
    assert e.layer_info["pool"].region is None


def test_a_layer_between_the_crop_and_the_first_convolution() -> None:
    class Blurred(Network):
        def __init__(self) -> None:
            super().__init__(COPIES["crop"])
            self.blur = nn.AvgPool2d(3, 1, 1)

        def features(self, seen: Tensor) -> Tensor:
            return super().features(self.blur(seen))

    e = seewhy.explain(Blurred().eval(), torch.randn(1, 3, *SIZE), layers=["blur", "cnn"], targets=1)
    assert e.layer_info["blur"].region == e.layer_info["cnn"].region == Region(((4, 16), (2, 20)), (0, 1))


def test_a_combined_map_keeps_the_sum_of_each_map() -> None:
    net, inputs = make(COPIES["crop"])
    e = seewhy.explain(net, inputs, layers=["first", "cnn"], methods="hirescam", targets=1)
    sums = sum(e.map(layer=layer).sum((1, 2)) for layer in e.layers)
    assert torch.allclose(e.combined_map().sum((1, 2)), sums, rtol=0.02)  # up to the ends of the region


def test_the_page_and_the_overlay_show_the_same_place() -> None:
    """The page gets the map and the rectangle of the photo that it covers."""
    net, inputs = make(COPIES["crop"], 1)
    e = seewhy.explain(net.float(), inputs.float(), layers="cnn", targets=1)
    text = build_page(e)
    assert '"box": [2.0, 4.0, 20.0, 16.0]' in text or '"box":[2.0,4.0,20.0,16.0]' in text


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank: int) -> None:
    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            kind = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
            self.cnn, self.fc = kind(2, 4, 3, 1, 1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.cnn(x[:, :, 3:11].flip(2)).relu().flatten(2).mean(2))  # type: ignore[no-any-return]

    e = seewhy.explain(Line().eval(), torch.randn(2, 2, *[12] * rank), methods=["gradcam", "scorecam"], targets=1)
    assert e.layer_info["cnn"].region == Region(((3, 11), *[(0, 12)] * (rank - 1)), tuple(range(rank)), (0,))
    raw = e.map(method="gradcam").clamp(min=0)
    placed = torch.zeros(2, *[12] * rank)
    placed[:, 3:11] = raw.flip(1)
    top = placed.flatten(1).amax(1).reshape(-1, *[1] * rank).clamp(min=1e-12)
    assert torch.allclose(e.heatmap(method="gradcam"), placed / top, atol=1e-6)


FRONTS: dict[str, Arrange] = {
    "window": lambda x: ((x - x.amin((1, 2, 3), keepdim=True)) / x.amax((1, 2, 3), keepdim=True)).clamp(0.2, 0.8),
    "opponent colors": lambda x: torch.stack([x[:, 0] - x[:, 1], x[:, 2] - x[:, 1], x[:, 0] - x[:, 2]], 1),
    "shares of colors": lambda x: x / x.sum(1, keepdim=True),
}


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("images", [1, 3])
def test_preprocessing_and_a_crop(name: str, images: int) -> None:
    """An object on a black background comes first: most of what the network sees then has no gradient."""
    net = Network(lambda x: FRONTS[name](x[:, :, 4:16, 6:22])).eval()
    first = torch.full((images, 3, *SIZE), 0.01)
    first[:, :, 6:11, 8:15] += torch.rand(images, 3, 5, 7)
    for inputs in (first, torch.rand(images, 3, *SIZE) + 0.1):
        e = seewhy.explain(net, inputs, layers="cnn", targets=1)
        assert e.layer_info["cnn"].region == Region(((4, 16), (6, 22)), (0, 1))
        assert e.notes == ("the network sees rows 4 to 15; columns 6 to 21",)


@pytest.mark.parametrize("name", FRONTS)
def test_preprocessing_of_an_object_on_a_black_background(name: str) -> None:
    inputs = torch.full((1, 3, *SIZE), 0.01)
    inputs[:, :, 6:11, 8:15] += torch.rand(1, 3, 5, 7)
    assert not seewhy.explain(Network(FRONTS[name]).eval(), inputs, layers="cnn", targets=1).notes


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
def test_no_resizing_of_the_input_is_a_crop(mode: str) -> None:
    """Nearest neighbors are up to a position off."""
    for size in (32, 47, 50, 64):
        for seen in (24, 32, 45, 64, 100, 224):
            net = Network(lambda x, seen=seen: F.interpolate(x, (seen, seen), mode=mode)).eval()
            view = field_of_view(net, torch.rand(1, 3, size, size))
            assert view.region is None and not view.note, (size, seen, view)


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (1, 1, 1, 1), (2, 2, 2, 2)])
def test_padding_of_the_first_convolution_is_no_region(sides: tuple[int, int, int, int]) -> None:
    net = Network(lambda x: F.pad(x, sides)).eval()
    e = seewhy.explain(net, torch.rand(1, 3, *SIZE), layers="cnn", targets=1)
    assert e.layer_info["cnn"].region is None and not e.notes


class Unpadded(nn.Module):
    """A U-Net without padding: each level is cropped to the one below, and the output shows the center of the input."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)

        def block(channels: int, out: int) -> nn.Sequential:
            layers = [nn.Conv2d(channels, out, 3, 1, padding), nn.ReLU(), nn.Conv2d(out, out, 3, 1, padding), nn.ReLU()]
            return nn.Sequential(*layers)

        self.down, self.middle, self.up = block(3, 8), block(8, 16), nn.ConvTranspose2d(16, 8, 2, 2)
        self.last, self.out = block(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down(x)
        low = self.up(self.middle(F.max_pool2d(high, 2)))
        rows, columns = ((a - b) // 2 for a, b in zip(high.shape[2:], low.shape[2:], strict=True))
        cropped = high[:, :, rows : rows + low.shape[2], columns : columns + low.shape[3]]
        return self.out(self.last(torch.cat([cropped, low], 1)))  # type: ignore[no-any-return]


def test_cells_that_do_not_cover_the_input_are_stated() -> None:
    inputs = torch.randn(2, 3, 60, 80)
    e = seewhy.explain(Unpadded().eval(), inputs)
    (note,) = [note for note in e.notes if "the cells of" in note]
    assert e.layers == ("last",) and e.layer_info["last"].grid == (44, 64)
    low, high, left, right = (
        int(number) for number in re.findall(r"positions (\d+) to (\d+)", note) for number in number
    )
    for position, expected in zip((low, high, left, right), (8, 52, 8, 72), strict=True):  # 8 are lost on each side
        assert abs(position - expected) <= 1
    padded = seewhy.explain(Unpadded(1).eval(), inputs, layers="all")
    assert not any("the cells of" in note for note in padded.notes)


@pytest.mark.parametrize(("crop", "expected"), [((8, 24), "8 to 24"), ((3, 17), "3 to 17"), ((15, 32), "15 to 32")])
def test_features_that_are_cropped_between_layers_are_stated(crop: tuple[int, int], expected: str) -> None:
    class Cropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).relu()[:, :, slice(*crop), 4:27]
            return self.fc(self.b(y).relu().mean((2, 3)))  # type: ignore[no-any-return]

    e = seewhy.explain(Cropped().eval(), torch.randn(1, 3, 32, 32), targets=1, layers=["a", "b"])
    (note,) = [note for note in e.notes if "the cells of" in note]
    assert (
        f"the cells of 'b' lie at about positions {expected} of 32 on axis 1, positions 4 to 27 of 32 on axis 2" in note
    )


def test_cells_are_observed_once_and_only_where_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    observed: list[object] = []
    observe = cell_places.observe
    monkeypatch.setattr(cell_places, "observe", lambda *args: observed.append(args) or observe(*args))
    net, inputs = Unpadded().eval(), torch.randn(1, 3, 60, 80)
    for _ in range(2):
        seewhy.explain(net, inputs)
    assert len(observed) == 1
    seewhy.explain(make(ENTIRE["same"])[0].float(), inputs, targets=1, layers="all")
    assert len(observed) == 1
