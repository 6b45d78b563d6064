"""Layer specifications select the expected layers, and invalid ones raise errors that say what to do."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.engine.suggestion import suggest
from seewhy.errors import LayerError, UnknownName, UsageError
from seewhy.tracing.grid import Grid
from seewhy.tracing.grid_inference import find_grid
from support.layers import Block, Transpose, small_network

INPUTS = torch.rand(2, 3, 16, 16)


class Stages(nn.Module):
    """Four convolutions in named stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)) for _ in range(3)
        )
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def stages() -> nn.Module:
    return Stages()


def layers_of(model: nn.Module, spec: object) -> tuple[str, ...]:
    return seewhy.explain(model, INPUTS, layers=spec, targets=1).layers


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("every", ("stem", "layer1.0", "layer2.0", "layer3.0")),
        ("layer2", ("layer2",)),
        (["layer2", "stem"], ("stem", "layer2")),  # in execution order, not in the order given
        ("layer*.0", ("layer1.0", "layer2.0", "layer3.0")),
        ("Conv2d", ("stem", "layer1.0", "layer2.0", "layer3.0")),
        (nn.ReLU, ("layer1.1", "layer2.1", "layer3.1")),
        (-1, ("layer3.0",)),
        ("-2", ("layer2.0",)),
        (0, ("stem",)),
        (["every", "layer3.0"], ("stem", "layer1.0", "layer2.0", "layer3.0")),
        ("module.layer1.0", ("layer1.0",)),  # names with the prefixes of DataParallel and torch.compile
        ("layer1._orig_mod.0", ("layer1.0",)),
        (None, ("layer3",)),
        ("suggested", ("layer3",)),
    ],
)
def test_a_specification_selects_layers(stages: nn.Module, spec: object, expected: tuple[str, ...]) -> None:
    assert layers_of(stages, spec) == expected


def test_a_module_of_the_model_is_a_specification(stages: nn.Module) -> None:
    assert layers_of(stages, stages.layer2[0]) == ("layer2.0",)
    with pytest.raises(UsageError, match="not a module of the explained model"):
        layers_of(stages, nn.Conv2d(1, 1, 1))


def test_text_is_a_module_name_before_it_is_a_position() -> None:
    assert layers_of(small_network(), "3") == ("3",)
    assert layers_of(small_network(), 1) == ("3",)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("layer5", UnknownName, "did you mean 'layer[123]'"),
        ("layerX*", UnknownName, "no layer 'layerX\\*'"),
        ("Conv3d", UnknownName, "did you mean 'Conv2d'"),
        (nn.Conv3d, UnknownName, "Conv3d"),
        (9, LayerError, "there are 4 layers, 0 to 3"),
        ("head", LayerError, "has no grid"),
        ("hea*", LayerError, "none of these layers has an output"),
        ([], UsageError, "name at least one"),
        (3.5, UsageError, "layers=3.5"),
        (True, UsageError, "layers=True"),
        ("stem#x", UsageError, "'name#2'"),
    ],
)
def test_an_invalid_specification_is_an_error(
    stages: nn.Module, spec: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        layers_of(stages, spec)


def test_a_module_that_is_never_called_is_an_error() -> None:
    model = Stages()
    model.spare = nn.Conv2d(3, 3, 3)
    assert "spare" not in layers_of(model, "every")
    with pytest.raises(LayerError, match="never calls it"):
        layers_of(model, "spare")


def test_a_model_without_convolutions_and_blocks_is_an_error() -> None:
    with pytest.raises(LayerError, match="neither convolutions nor repeated blocks"):
        layers_of(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "every")


# Transformers


class TinyViT(nn.Module):
    """A class token before the patches; the head reads only that token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.blocks, self.head = nn.Sequential(*(Block() for _ in range(3))), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0])


def test_every_selects_the_blocks_of_a_transformer() -> None:
    e = seewhy.explain(TinyViT(), torch.rand(1, 3, 16, 32), layers="every", targets=1)
    assert e.layers == ("blocks.0", "blocks.1", "blocks.2")
    assert [info.grid for info in e.layer_info.values()] == [(4, 8)] * 3
    assert "first 1 tokens" in e.layer_info["blocks.0"].note
    # After the last block only the class token matters, so the map there has the flag `no_gradient`.
    assert [e[0].flags(layer=layer) for layer in e.layers] == [(), (), ("no_gradient",)]
    assert suggest(TinyViT(), torch.rand(1, 3, 16, 32)).layer == "blocks.2.norm"


def test_a_head_with_zero_weights_is_analyzed_at_its_input() -> None:
    model = TinyViT()
    nn.init.zeros_(model.head.weight)
    suggestion = suggest(model, torch.rand(1, 3, 16, 16))
    assert suggestion.layer == "blocks.2.norm" and "zero" in suggestion.note
    nn.init.normal_(model.head.weight)  # training goes on
    assert suggest(model, torch.rand(1, 3, 16, 16)).note == ""


class OptionalActivation(nn.Module):
    """A network whose activation module can be removed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        output: Tensor = self.head((x.relu() if self.act is None else self.act(x)).mean((2, 3)))
        return output


def test_the_suggestion_is_recomputed_if_its_module_is_gone() -> None:
    model, inputs = OptionalActivation(), torch.rand(1, 3, 16, 16)
    assert suggest(model, inputs).layer == "act"
    model.act = None  # type: ignore[assignment]
    assert seewhy.explain(model, inputs, targets=1).layers == ("conv",)


def test_an_order_of_tokens_that_cannot_be_checked_is_noted() -> None:
    class Mixed(TinyViT):
        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            return self.head(self.blocks(0 * x + x.mean(1, keepdim=True)).mean(1))

    model, inputs = Mixed(), torch.rand(1, 3, 32, 32)
    assert suggest(model, inputs).layer == "patch"
    note = seewhy.explain(model, inputs, layers="blocks.2").layer_info["blocks.2"].note
    assert "their order could not be checked; row order is assumed" in note


def test_shuffled_tokens_are_an_error() -> None:
    class Shuffled(TinyViT):
        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
            return self.head(self.blocks(x[:, order]).mean(1))

    model, inputs = Shuffled(), torch.rand(1, 3, 32, 32)
    assert suggest(model, inputs).layer == "patch"
    with pytest.raises(LayerError, match="are not in that order"):
        seewhy.explain(model, inputs, layers="blocks.2")
    # A grid given by the user is not checked.
    e = seewhy.explain(model, inputs, targets=1, grid="8x8")
    assert e.layer_info[e.layers[0]].grid == (8, 8)


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("resnet18", "layer4", (4, 4)),
        ("vgg11", "features", (7, 7)),
        ("mobilenet_v2", "features", (4, 4)),
        ("densenet121", "features", (4, 4)),
        ("swin_t", "permute", (4, 4)),
        ("vit_b_32", "encoder.layers.encoder_layer_11.ln_1", (7, 7)),
    ],
)
def test_the_suggested_layer_of_torchvision_families(name: str, layer: str, grid: tuple[int, int]) -> None:
    side = 224 if name.startswith("v") else 128
    model = torchvision.models.get_model(name)
    if name.startswith("vit"):
        nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero
    e = seewhy.explain(model, torch.rand(1, 3, side, side))
    assert e.suggested == layer and e.layer_info[layer].grid == grid


def test_the_suggestion_is_cached() -> None:
    calls: list[int] = []
    model = small_network()
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    seewhy.explain(model, INPUTS)
    before = len(calls)
    seewhy.explain(model, INPUTS)
    assert len(calls) == before + 1


def test_a_suggested_layer_that_was_not_requested_is_marked(stages: nn.Module) -> None:
    e = seewhy.explain(stages, INPUTS, layers="every", targets=1, include_suggested=True)
    assert e.suggested == "layer3" and e.layers[-1] == "layer3"
    assert [info.requested for info in e.layer_info.values()] == [True] * 4 + [False]


# Grids


@pytest.mark.parametrize(
    ("shape", "inputs", "known", "expected"),
    [
        ((2, 8, 4, 4), (2, 3, 16, 16), [(4, 4)], Grid((4, 4))),
        ((2, 4, 4, 8), (2, 3, 16, 16), [(4, 4)], Grid((4, 4), "channels_last")),
        ((2, 8, 2, 2), (2, 3, 16, 16), [(4, 4)], Grid((2, 2))),  # half of a known grid, as after merging patches
        ((2, 17, 8), (2, 3, 16, 16), [(4, 4)], Grid((4, 4), "tokens", 1)),
        ((2, 8, 16), (2, 3, 16, 16), [(4, 4)], Grid((4, 4), "tokens_last")),
        ((2, 50, 8), (2, 3, 64, 64), [], Grid((7, 7), "tokens", 1)),
        ((2, 8, 6, 6), (2, 3, 16, 16), [(4, 4)], Grid((6, 6), is_confirmed=False)),
        ((2, 8), (2, 3, 16, 16), [(4, 4)], None),
        ((6, 8, 4, 4), (2, 3, 16, 16), [(4, 4)], None),  # another batch size
        ((2, 8, 1, 9), (2, 3, 16, 16), [(4, 4)], None),
    ],
)
def test_the_grid_is_inferred_from_shapes(
    shape: tuple[int, ...], inputs: tuple[int, ...], known: list[tuple[int, ...]], expected: Grid | None
) -> None:
    assert find_grid(torch.zeros(shape), inputs, known) == expected


def test_channels_first_preserves_every_position() -> None:
    values = torch.rand(2, 3, 4, 5)
    assert torch.equal(Grid((4, 5)).channels_first(values), values)
    assert torch.equal(Grid((4, 5), "channels_last").channels_first(values.permute(0, 2, 3, 1)), values)
    tokens = torch.cat([torch.zeros(2, 2, 3), values.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(Grid((4, 5), "tokens", 2).channels_first(tokens), values)
    assert torch.equal(Grid((4, 5), "tokens_last", 2).channels_first(tokens.transpose(1, 2)), values)
    assert Transpose()(tokens).shape == (2, 3, 22)
