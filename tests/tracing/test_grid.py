"""How outputs lie on the picture: what the user says, what the model says, what is inferred, and what is refused."""

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

PICTURE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """A transformer without any convolution: patches by unfolding, `extra` tokens before them, every token pooled."""

    def __init__(self, patch: tuple[int, int] = (16, 16), extra: int = 0, *, batch_second: bool = False) -> None:
        super().__init__()
        self.patch, self.batch_second = patch, batch_second
        self.embed = nn.Linear(3 * patch[0] * patch[1], 8)
        self.extra = nn.Parameter(torch.randn(1, extra, 8))
        self.first, self.second = (Turned() if batch_second else Block() for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), self.embed(x)], 1)
        if self.batch_second:
            x = x.transpose(0, 1)
        x = self.second(self.first(x))
        found: Tensor = self.head(x.mean(0 if self.batch_second else 1))
        return found


class Turned(Block):
    """The same with tokens first (N, B, K), as torch's attention has them by default."""

    def __init__(self) -> None:
        super().__init__()
        self.swapped = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.swapped(super().forward(x.transpose(0, 1)))
        return found.transpose(0, 1)


class OldClip(nn.Module):
    """A convolution for patches, then a class token and blocks with the batch second."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 16, 16), nn.Parameter(torch.randn(1, 1, 8))
        self.block, self.other, self.head = Turned(), Turned(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        x = self.other(self.block(torch.cat([self.token.expand(-1, x.shape[1], -1), x])))
        found: Tensor = self.head(x[0])
        return found


# What a user says


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
def test_a_grid_can_be_written_in_several_ways(value: object, expected: GridHint) -> None:
    assert parse_grid(value) == expected and parse_grid(str(expected)).shape == expected.shape


@pytest.mark.parametrize("value", ["14", "x", "14x14+", "0x7", (), (7, 1.5), (True, 2), 14, "14x14+1+2"])
def test_what_is_no_grid_says_how_one_is_written(value: object) -> None:
    if value == "14":
        assert parse_grid(value).shape == (14,)  # of a signal
        return
    with pytest.raises(UsageError, match=r"pass rows and columns as \(14, 14\) or '14x14'"):
        seewhy.explain(Tokens(), PICTURE, grid=value)


def test_the_grid_that_is_given_comes_first() -> None:
    torch.manual_seed(0)
    net = Tokens((8, 32))  # 8 rows of 2 patches: read as 4x4, which is wrong
    assert seewhy.explain(net, PICTURE, layers="first", targets=1).layer_info["first"].grid == (4, 4)
    for grid in ("8x2", (8, 2), seewhy.tracing.grid.Grid((8, 2), "tokens")):
        e = seewhy.explain(net, PICTURE, targets=1, grid=grid)
        assert [info.grid for info in e.layer_info.values()] == [(8, 2)]
        assert "as given" in e.layer_info[e.layers[0]].note
    with pytest.raises(LayerError, match="do not lie in that order"):
        suggest(net, PICTURE)


def test_a_grid_that_fits_no_layer() -> None:
    with pytest.raises(LayerError, match=r"grid 5x5 does not fit its output \(1, 16, 8\).*the inferred grid is 4x4"):
        seewhy.explain(Tokens(), PICTURE, layers="first", targets=1, grid="5x5")


def test_many_tokens_before_the_cells_need_to_be_said() -> None:
    with pytest.raises(LayerError, match=r"\(1, 8, 8\) has no grid.*grid='14x14\+1'"):
        seewhy.explain(Tokens((32, 32), 4), PICTURE, layers="first", targets=1)
    e = seewhy.explain(Tokens(extra=20), PICTURE, layers="first", targets=1, grid="4x4+20")
    assert e.layer_info["first"].grid == (4, 4) and "first 20 of its tokens" in e.layer_info["first"].note


def test_axes_of_a_grid_that_is_given() -> None:
    output = torch.zeros(1, 6, 6, 8)
    assert find_grid(output, (1, 3, 24, 24), [(6, 8)]) == Grid((6, 8))
    assert find_grid(output, (1, 3, 24, 24), [(6, 8)], [GridHint((6, 6))]) == Grid((6, 6), "channels_last")


# What is inferred


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
def test_tokens_without_a_convolution_before_them(tokens: int, size: tuple[int, int], expected: list[str]) -> None:
    assert [str(GridHint(grid.shape, grid.prefix)) for grid in possible_token_grids(tokens, size)] == expected


def test_several_readings_are_an_error_that_names_them() -> None:
    picture, net = torch.rand(1, 3, 63, 63), Tokens((9, 9), 3)
    found = find_grid(torch.zeros(1, 52, 8), (1, 3, 64, 64), [])
    assert found is not None and found.alternatives == (Grid((6, 6), "tokens", 16),)
    assert seewhy.explain(net, picture, layers="first", targets=1).layer_info["first"].grid == (7, 7)  # whole patches
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
    net, picture = OldClip().eval(), torch.rand(batch, 3, 64, 48)
    e = seewhy.explain(net, picture, layers=["block", "block.swapped"], targets=1, methods=["gradcam", "hirescam"])
    assert e.layer_info["block"].grid == (4, 3) and "first 1 of its tokens" in e.layer_info["block"].note
    for method in e.methods:  # the same tensor with the batch first, inside the block
        assert e.map(method=method, layer="block").any()
        assert torch.allclose(e.map(method=method, layer="block"), e.map(method=method, layer="block.swapped"))


@pytest.mark.parametrize("method", ["ablationcam", "reciprocam", "scorecam"])
def test_methods_that_ask_again_keep_the_batch_second(method: str) -> None:
    torch.manual_seed(0)
    e = seewhy.explain(OldClip().eval(), PICTURE, layers=["block", "block.swapped"], targets=1, methods=method)
    assert e.map(layer="block").any()
    assert torch.allclose(e.map(layer="block"), e.map(layer="block.swapped"), atol=1e-6)


def test_grid_round_trip_with_the_batch_second() -> None:
    grid, output = Grid((2, 3), "batch_second", 1), torch.rand(7, 1, 4)
    values = grid.channels_first(output)
    assert values.shape == (1, 4, 2, 3)
    assert torch.equal(grid.restore(values, output), output)
    two = grid.restore(torch.cat([values, values]), output)
    assert two.shape == (7, 2, 4) and torch.equal(two[:, 1:], output)


# What the model says


def test_timm_says_prefix_and_patches() -> None:
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1, reg_tokens=20, num_classes=3).eval()
    e = seewhy.explain(net, PICTURE, layers="blocks.0", targets=1)  # more tokens than would be inferred
    note = e.layer_info["blocks.0"].note
    assert e.layer_info["blocks.0"].grid == (4, 4) and "from timm's num_prefix_tokens" in note and "first 21" in note


def test_timm_with_inputs_of_any_size() -> None:
    net = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, depth=1, num_classes=3).eval()
    picture = torch.rand(1, 3, 64, 96)
    assert token_grid_hint(net.modules(), (64, 96)) == GridHint((4, 6), 1)
    assert seewhy.explain(net, picture, layers="blocks.0", targets=1).layer_info["blocks.0"].grid == (4, 6)
    padded = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, dynamic_img_pad=True, depth=1).eval()
    assert token_grid_hint(padded.modules(), (60, 90)) == GridHint((4, 6), 1)


def test_windows_and_channels_last() -> None:
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1), num_heads=(1, 2), embed_dim=8,
        num_classes=3,
    ).eval()  # fmt: skip
    e = seewhy.explain(net, PICTURE, targets=1)
    assert e.layer_info[e.suggested].grid == (8, 8)
    with pytest.raises(LayerError, match="no grid"):  # of windows, not of the picture
        seewhy.explain(net, PICTURE, layers="layers.0.blocks.0.attn", targets=1)


def test_hybrids_take_the_grid_of_their_convolutions() -> None:
    net = timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, depth=1, num_classes=3).eval()
    assert token_grid_hint(net.modules(), (64, 64)) is None
    e = seewhy.explain(net, PICTURE, layers="blocks.0", targets=1)
    assert "like the convolutions" in e.layer_info["blocks.0"].note


def test_transformers_and_open_clip_say_the_patch_size() -> None:
    class Config:
        model_type, image_size, patch_size = "vit", 224, 16

    holder = nn.Module()
    holder.config = Config()  # type: ignore[assignment]
    assert token_grid_hint([holder], (64, 96)) == GridHint((4, 6), None)
    visual = nn.Module()
    visual.grid_size, visual.patch_size = (14, 14), (16, 16)  # type: ignore[assignment]
    visual.class_embedding = nn.Parameter(torch.zeros(8))
    assert token_grid_hint([visual], (224, 224)) == GridHint((14, 14), 1)
    assert token_grid_hint([nn.Linear(1, 1)], (224, 224)) is None and token_grid_hint([visual], (224,)) is None
