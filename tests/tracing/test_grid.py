"""Grids of layers: stated by the user, stated by the model, inferred, or ambiguous."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import seewhy
from seewhy.engine.suggestion import suggest
from seewhy.errors import LayerError, UsageError
from seewhy.tracing.grid import Grid, GridHint, parse_grid
from seewhy.tracing.grid_inference import find_grid, possible_token_grids
from seewhy.tracing.token_hints import token_grid_hint
from support.layers import Block

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """A transformer without convolutions: unfolded patches, `extra` tokens before them, and a head on the mean token."""

    def __init__(self, patch: tuple[int, int] = (16, 16), extra: int = 0, *, batch_second: bool = False) -> None:
        super().__init__()
        self.patch, self.batch_second = patch, batch_second
        self.embed = nn.Linear(3 * patch[0] * patch[1], 8)
        self.extra = nn.Parameter(torch.randn(1, extra, 8))
        self.first, self.second = (BatchSecondBlock() if batch_second else Block() for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), self.embed(x)], 1)
        if self.batch_second:
            x = x.transpose(0, 1)
        x = self.second(self.first(x))
        output: Tensor = self.head(x.mean(0 if self.batch_second else 1))
        return output


class BatchSecondBlock(Block):
    """A block with tokens first (N, B, K), the default of `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.swapped = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.swapped(super().forward(x.transpose(0, 1)))
        return output.transpose(0, 1)


class BatchSecondViT(nn.Module):
    """A patch convolution, a class token and blocks with the batch second, as in the first CLIP models."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 16, 16), nn.Parameter(torch.randn(1, 1, 8))
        self.block, self.other, self.head = BatchSecondBlock(), BatchSecondBlock(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        x = self.other(self.block(torch.cat([self.token.expand(-1, x.shape[1], -1), x])))
        output: Tensor = self.head(x[0])
        return output


# Grids stated by the user


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("14x14", GridHint((14, 14))),
        (" 7 × 9 + 5 ", GridHint((7, 9), 5)),
        ((7, 9), GridHint((7, 9))),
        ([4, 4, 4], GridHint((4, 4, 4))),
        (Grid((7, 9), "tokens", 2), GridHint((7, 9), 2)),
    ],
)
def test_a_grid_has_several_notations(value: object, expected: GridHint) -> None:
    assert parse_grid(value) == expected and parse_grid(str(expected)).shape == expected.shape


@pytest.mark.parametrize("value", ["14", "x", "14x14+", "0x7", (), (7, 1.5), (True, 2), 14, "14x14+1+2"])
def test_an_invalid_grid_is_an_error_with_the_valid_notations(value: object) -> None:
    if value == "14":
        assert parse_grid(value).shape == (14,)  # of a signal
        return
    with pytest.raises(UsageError, match=r"pass rows and columns, such as '14x14'"):
        seewhy.explain(Tokens(), IMAGE, grid=value)


def test_a_given_grid_takes_precedence_over_an_inferred_one() -> None:
    torch.manual_seed(0)
    net = Tokens((8, 32))  # 8 rows of 2 patches; 4x4 would be inferred
    with pytest.raises(LayerError, match="read as a 4x4 grid, but they are not in that order"):
        seewhy.explain(net, IMAGE, layers="first", targets=1)
    for grid in ("8x2", (8, 2), Grid((8, 2), "tokens")):
        e = seewhy.explain(net, IMAGE, targets=1, grid=grid)
        assert [info.grid for info in e.layer_info.values()] == [(8, 2)]
        assert "as given" in e.layer_info[e.layers[0]].note
    with pytest.raises(LayerError, match="are not in that order"):
        suggest(net, IMAGE)


def test_a_grid_that_fits_no_layer_is_an_error() -> None:
    with pytest.raises(LayerError, match=r"grid 5x5 does not fit its output \(1, 16, 8\).*inferred: 4x4"):
        seewhy.explain(Tokens(), IMAGE, layers="first", targets=1, grid="5x5")


def test_a_long_prefix_must_be_given() -> None:
    with pytest.raises(LayerError, match=r"\(1, 8, 8\) has no grid.*grid='14x14\+1'"):
        seewhy.explain(Tokens((32, 32), 4), IMAGE, layers="first", targets=1)
    e = seewhy.explain(Tokens(extra=20), IMAGE, layers="first", targets=1, grid="4x4+20")
    assert e.layer_info["first"].grid == (4, 4) and "first 20 tokens" in e.layer_info["first"].note


def test_a_given_grid_decides_the_order_of_the_axes() -> None:
    output = torch.zeros(1, 6, 6, 8)
    assert find_grid(output, (1, 3, 24, 24), [(6, 8)]) == Grid((6, 8))
    assert find_grid(output, (1, 3, 24, 24), [(6, 8)], [GridHint((6, 6))]) == Grid((6, 6), "channels_last")


# Inferred grids


@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    [
        (196, (224, 224), ["14x14"]),
        (197, (224, 224), ["14x14+1"]),
        (201, (224, 224), ["14x14+5"]),
        (261, (224, 224), ["16x16+5"]),
        (252, (224, 288), ["14x18"]),
        (253, (224, 288), ["14x18+1"]),
        (52, (64, 64), ["7x7+3", "6x6+16"]),
        (8, (64, 64), []),
    ],
)
def test_token_grids_without_a_convolution(tokens: int, size: tuple[int, int], expected: list[str]) -> None:
    assert [str(GridHint(grid.shape, grid.prefix)) for grid in possible_token_grids(tokens, size)] == expected


def test_an_ambiguous_grid_is_an_error_with_its_alternatives() -> None:
    image, net = torch.rand(1, 3, 63, 63), Tokens((9, 9), 3)
    grid = find_grid(torch.zeros(1, 52, 8), (1, 3, 64, 64), [])
    assert grid is not None and grid.alternatives == (Grid((6, 6), "tokens", 16),)
    e = seewhy.explain(net, image, layers="first", targets=1)
    assert e.layer_info["first"].grid == (7, 7)  # the only alternative with square patches
    padded = nn.Sequential(nn.ConstantPad2d((0, -1, 0, -1), 0), net)
    words = r"its 52 tokens fit more than one grid: 7x7\+3 or 6x6\+16 .*choose one with grid='7x7\+3' or --grid 7x7\+3"
    for layers in ("1.first", None):
        with pytest.raises(LayerError, match=words):
            seewhy.explain(padded, torch.rand(1, 3, 64, 64), layers=layers, targets=1)
    e = seewhy.explain(padded, torch.rand(1, 3, 64, 64), layers="1.first", targets=1, grid="7x7+3")
    assert e.layer_info["1.first"].grid == (7, 7)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_tokens_with_the_batch_second(batch: int) -> None:
    torch.manual_seed(0)
    net, image = BatchSecondViT().eval(), torch.rand(batch, 3, 64, 48)
    e = seewhy.explain(net, image, layers=["block", "block.swapped"], targets=1, methods=["gradcam", "hirescam"])
    assert e.layer_info["block"].grid == (4, 3) and "first 1 tokens" in e.layer_info["block"].note
    for method in e.methods:  # block.swapped is the same tensor with the batch first
        assert e.map(method=method, layer="block").any()
        assert torch.allclose(e.map(method=method, layer="block"), e.map(method=method, layer="block.swapped"))


@pytest.mark.parametrize("method", ["ablationcam", "reciprocam", "scorecam"])
def test_perturbation_methods_support_the_batch_second(method: str) -> None:
    torch.manual_seed(0)
    e = seewhy.explain(BatchSecondViT().eval(), IMAGE, layers=["block", "block.swapped"], targets=1, methods=method)
    assert e.map(layer="block").any()
    assert torch.allclose(e.map(layer="block"), e.map(layer="block.swapped"), atol=1e-6)


def test_restore_inverts_channels_first_with_the_batch_second() -> None:
    grid, output = Grid((2, 3), "batch_second", 1), torch.rand(7, 1, 4)
    values = grid.channels_first(output)
    assert values.shape == (1, 4, 2, 3)
    assert torch.equal(grid.restore(values, output), output)
    two = grid.restore(torch.cat([values, values]), output)
    assert two.shape == (7, 2, 4) and torch.equal(two[:, 1:], output)


# Grids stated by the model


def test_timm_states_prefix_and_patch_size() -> None:
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, reg_tokens=20, num_classes=3).eval()
    e = seewhy.explain(net, IMAGE, layers="blocks.0", targets=1)  # a longer prefix than can be inferred
    note = e.layer_info["blocks.0"].note
    assert e.layer_info["blocks.0"].grid == (4, 4) and "from timm's num_prefix_tokens" in note and "first 21" in note


def test_timm_models_with_dynamic_input_size() -> None:
    net = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, depth=1, num_classes=3).eval()
    image = torch.rand(1, 3, 64, 96)
    assert token_grid_hint(net.modules(), (64, 96)) == GridHint((4, 6), 1)
    assert seewhy.explain(net, image, layers="blocks.0", targets=1).layer_info["blocks.0"].grid == (4, 6)
    padded = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True, depth=1).eval()
    assert token_grid_hint(padded.modules(), (60, 90)) == GridHint((4, 6), 1)


def test_channels_last_has_a_grid_and_windows_have_none() -> None:
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1), num_heads=(1, 2), embed_dim=8,
        num_classes=3,
    ).eval()  # fmt: skip
    e = seewhy.explain(net, IMAGE, targets=1)
    assert e.layer_info[e.suggested].grid == (8, 8)
    with pytest.raises(LayerError, match="16 rows for each input"):  # the tokens of windows, not of the image
        seewhy.explain(net, IMAGE, layers="layers.0.blocks.0.attn", targets=1)


def test_hybrids_have_the_grid_of_their_convolutions() -> None:
    net = timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, depth=1, num_classes=3).eval()
    assert token_grid_hint(net.modules(), (64, 64)) is None
    e = seewhy.explain(net, IMAGE, layers="blocks.0", targets=1)
    assert "like the convolutions" in e.layer_info["blocks.0"].note


def test_transformers_and_open_clip_state_the_patch_size() -> None:
    class Config:
        model_type, image_size, patch_size = "vit", 224, 16

    model = nn.Module()
    model.config = Config()  # type: ignore[assignment]
    assert token_grid_hint([model], (64, 96)) == GridHint((4, 6), None)
    clip_model = nn.Module()
    clip_model.grid_size, clip_model.patch_size = (14, 14), (16, 16)  # type: ignore[assignment]
    clip_model.class_embedding = nn.Parameter(torch.zeros(8))
    assert token_grid_hint([clip_model], (224, 224)) == GridHint((14, 14), 1)
    assert token_grid_hint([nn.Linear(1, 1)], (224, 224)) is None and token_grid_hint([clip_model], (224,)) is None
