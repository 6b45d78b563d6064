"""Groups of layers (`layers="blocks"`), and where convolutions are read (`read_at`)."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, UnknownName


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = torchvision.models.resnet18(weights=None, num_classes=3)
    return net.eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=3).eval()


IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def layers(net: nn.Module, group: str, **settings: object) -> list[str]:
    return list(seewhy.explain(net, IMAGE, layers=group, targets=1, **settings).layers)  # type: ignore[arg-type]


def test_groups_of_a_convolutional_network(resnet: nn.Module) -> None:
    assert layers(resnet, "blocks") == [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert layers(resnet, "stages") == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    convs = layers(resnet, "convs")
    assert convs == layers(resnet, "every") and len(convs) == 20
    everything = layers(resnet, "all")
    assert {*convs, "relu", "layer4", "maxpool"} - {"relu"} <= set(everything) and "fc" not in everything


def test_groups_of_a_transformer(vit: nn.Module) -> None:
    assert layers(vit, "blocks") == ["blocks.0", "blocks.1", "blocks.2"]
    assert layers(vit, "stages") == [
        "blocks.0",
        "blocks.1",
        "blocks.2",
    ]  # a single grid size: quarters, here of three blocks
    assert layers(vit, "blocks#1") == ["blocks"]  # the module with that name


def test_a_suggested_layer_can_have_the_name_of_a_group() -> None:
    net = timm.create_model("test_convnext", num_classes=3).eval()
    e = seewhy.explain(net, IMAGE, targets=1)
    assert e.suggested == "stages.3" and e.layers == ("stages.3",)  # "stages" is a module and a group
    assert len(layers(net, "stages")) == 4 and layers(net, "stages#1") == ["stages"]


def test_stages_of_a_single_grid_size_are_quarters() -> None:
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=6, num_classes=3).eval()
    assert layers(net, "stages") == ["blocks.0", "blocks.2", "blocks.3", "blocks.5"]


def test_a_stage_is_a_sequence_of_blocks_with_one_grid() -> None:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.ModuleList(Block() for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            x = self.pair[1](self.pair[0](x))
            x = self.pair[3](self.pair[2](nn.functional.avg_pool2d(x, 2)))
            x = self.pair[5](self.pair[4](nn.functional.interpolate(x, scale_factor=2)))
            return x.mean((2, 3))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.conv(x).relu()
            return output

    assert layers(UNet().eval(), "stages") == ["pair.1", "pair.3", "pair.5"]


def test_stages_without_blocks_are_convolutions() -> None:
    net = torchvision.models.vgg11(weights=None, num_classes=3).eval()
    assert layers(net, "stages") == ["features.0", "features.3", "features.8", "features.13", "features.18"]


def test_a_model_without_repeated_blocks_is_an_error() -> None:
    with pytest.raises(LayerError, match="no repeated blocks; use 'convs'"):
        seewhy.explain(nn.Sequential(nn.Conv2d(3, 4, 3)), IMAGE, layers="blocks")


class ActivationNet(nn.Module):
    """A convolution with BatchNorm and ReLU modules, one with a functional ReLU, and one with a SiLU module."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.two = nn.Conv2d(4, 4, 3)
        self.three = nn.Conv2d(4, 4, 3)
        self.act = nn.SiLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x)).relu()
        output: Tensor = self.head(self.act(self.three(x)).mean((2, 3)))
        return output


def test_a_convolution_is_read_at_its_activation() -> None:
    torch.manual_seed(0)
    net = ActivationNet().eval()
    e = seewhy.explain(net, IMAGE, layers="convs", read_at="activation", targets=1)
    assert list(e.layers) == ["one.2", "two", "act"]
    assert "no activation module follows it" in e.layer_info["two"].note and e.layer_info["act"].note == ""
    plain = seewhy.explain(net, IMAGE, layers=["one.2", "two", "act"], targets=1)
    for layer in e.layers:
        assert torch.equal(e.map(layer=layer), plain.map(layer=layer))


def test_a_shared_activation_module_is_read_at_the_right_call(resnet: nn.Module) -> None:
    assert layers(resnet, "layer1.0.conv1", read_at="activation") == ["layer1.0.relu#1"]
    # conv2 is followed by the residual sum, whose activation belongs to two paths.
    e = seewhy.explain(resnet, IMAGE, layers="layer1.0.conv2", read_at="activation", targets=1)
    assert list(e.layers) == ["layer1.0.conv2"]
    assert "no activation module follows it" in e.layer_info["layer1.0.conv2"].note


class TwoPaths(nn.Module):
    """An activation of a sum: of a convolution and its input, or of two convolutions."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.first, self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), other
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        output: Tensor = self.head(self.act(self.conv(x) + self.other(x)).mean((2, 3)))
        return output


@pytest.mark.parametrize("other", [nn.Identity(), nn.Conv2d(4, 4, 1), nn.Hardtanh()])
def test_the_activation_of_a_sum_is_not_used(other: nn.Module) -> None:
    assert layers(TwoPaths(other).eval(), "conv", read_at="activation") == ["conv"]


def test_the_activation_after_a_functional_normalization_is_used() -> None:
    class Net(ActivationNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.two(self.one(x)).relu()
            x = self.three(x)
            output: Tensor = self.head(self.act((x - x.mean()) / x.std()).mean((2, 3)))
            return output

    assert layers(Net().eval(), "three", read_at="activation") == ["act"]


def test_unknown_read_point_lists_the_choices(resnet: nn.Module) -> None:
    with pytest.raises(UnknownName, match=r"no read_at 'act'.*convolution or activation"):
        seewhy.explain(resnet, IMAGE, layers="every", read_at="act")


def test_the_read_point_does_not_depend_on_other_selected_layers() -> None:
    net = ActivationNet().eval()
    assert (
        "0" not in layers(net, "all", read_at="activation")
        and layers(net, "all", read_at="activation").count("one.2") == 1
    )
    assert layers(net, "one.0", read_at="activation") == layers(net, "one.2") == ["one.2"]
    vgg = torchvision.models.vgg11(
        weights=None, num_classes=3
    ).eval()  # its ReLUs work in place on the output of the convolutions
    assert layers(vgg, "features.3", read_at="activation") == ["features.4"]
    timm_net = timm.create_model("test_resnet", num_classes=3).eval()
    assert layers(timm_net, "layer1.0.conv1", read_at="activation") == ["layer1.0.act1"]
    assert layers(timm_net, "layer1.0.conv2", read_at="activation") == ["layer1.0.conv2"]
