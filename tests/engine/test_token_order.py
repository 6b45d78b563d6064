"""Tokens lie where the grid places them, to the exact cell; other orders are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError

CELLS = 5 * 6  # rows times columns


class Tokens(nn.Module):
    """Patches as tokens, in the order that `arrange` gives them, and one transformer layer with skip connections."""

    def __init__(self, arrange: Callable[[Tensor], Tensor], patch: int = 8, stride: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.arrange, self.embed = arrange, nn.Conv2d(3, 16, patch, stride)
        self.special = nn.Parameter(torch.randn(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 4)

    def with_token(self, tokens: Tensor, place: int) -> Tensor:
        special = self.special.expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :place], special, tokens[:, place:]], 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.arrange(self.embed(x)) if not hasattr(self, "place") else self.with_token(
            self.arrange(self.embed(x)), self.place
        )  # fmt: skip
        return self.fc(self.norm(self.block(tokens)).mean(1))  # type: ignore[no-any-return]


def by_rows(cells: Tensor) -> Tensor:
    return cells.flatten(2).transpose(1, 2)


def by_columns(cells: Tensor) -> Tensor:
    return cells.transpose(2, 3).flatten(2).transpose(1, 2)


def reversed_rows(cells: Tensor) -> Tensor:
    return by_rows(cells.flip(2))


def there_and_back(cells: Tensor) -> Tensor:
    cells = cells.clone()
    cells[:, :, 1::2] = cells[:, :, 1::2].flip(3)
    return by_rows(cells)


def shifted(cells: Tensor) -> Tensor:
    return by_rows(cells).roll(1, 1)


def in_windows(cells: Tensor) -> Tensor:
    return torch.cat([by_rows(part) for part in cells.split(3, 3)], 1)


def shuffled(cells: Tensor) -> Tensor:
    return by_rows(cells)[:, torch.randperm(CELLS, generator=torch.Generator().manual_seed(1))]


INPUTS = torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("place", [None, 0])
@pytest.mark.parametrize(("patch", "stride"), [(8, 8), (12, 7)])
def test_tokens_row_by_row(place: int | None, patch: int, stride: int) -> None:
    net = Tokens(by_rows, patch, stride).eval()
    if place is not None:
        net.place = place
    e = seewhy.explain(net, INPUTS)
    assert tuple(e.map().shape[1:]) == (5, 6)
    assert not any("could not be checked" in note for note in e.notes)


@pytest.mark.parametrize("arrange", [by_columns, reversed_rows, there_and_back, shifted, in_windows, shuffled])
def test_other_orders_are_refused(arrange: Callable[[Tensor], Tensor]) -> None:
    net = Tokens(arrange).eval()
    e = seewhy.explain(net, INPUTS)
    assert e.layers == ("embed",)  # the last layer with cells in the order of the input
    assert any("later layers, such as 'norm', have no tokens in the order of the input" in note for note in e.notes)
    for layer in ("block", "norm"):
        with pytest.raises(LayerError, match="not in that order"):
            seewhy.explain(Tokens(arrange).eval(), INPUTS, layers=layer)
    assert "block" not in seewhy.explain(net, INPUTS, layers="all").layers
    given = seewhy.explain(net, INPUTS, layers="block", grid="5x6")  # what the user states is not checked
    assert given.layer_info["block"].grid == (5, 6)


@pytest.mark.parametrize("layers", ["suggested", "norm", "all"])
@pytest.mark.parametrize("place", [0, CELLS // 2, CELLS // 2 + 3, 1, CELLS])
def test_a_class_token_before_between_or_after_the_patches(place: int, layers: str) -> None:
    """Vision Mamba has it in the middle. Read as a first token, it would move half of the cells, or all, by one."""
    net = Tokens(by_rows).double().eval()
    net.place = place
    inputs = INPUTS.double()
    e = seewhy.explain(
        net, inputs, layers=layers, targets=2, methods=["gradcam", "hirescam", "ablationcam", "reciprocam"]
    )
    tokens = net.norm(net.block(net.with_token(by_rows(net.embed(inputs)), place))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(tokens.mean(1))[0, 2], tokens)
    cells = [number for number in range(CELLS + 1) if number != place]
    a, g = tokens[0, cells].detach(), gradient[0, cells]
    assert torch.allclose(e.map(layer="norm", method="hirescam")[0], (a * g).sum(1).reshape(5, 6), atol=1e-12)
    assert torch.allclose(e.map(layer="norm", method="gradcam")[0], (a * g.mean(0)).sum(1).reshape(5, 6), atol=1e-12)
    ablated = tokens.detach().repeat(16, 1, 1)
    for channel in range(16):
        ablated[channel, cells, channel] = 0
    with torch.no_grad():
        score = net.fc(tokens.mean(1))[0, 2]
        weights = (score - net.fc(ablated.mean(1))[:, 2]) / score
    assert torch.allclose(e.map(layer="norm", method="ablationcam")[0], (a * weights).sum(1).reshape(5, 6), atol=1e-9)


class Caption(Tokens):
    """Text tokens and patches in one sequence, and a text branch that sees no patch."""

    def __init__(self, texts: int) -> None:
        super().__init__(by_rows)
        self.words, self.texts = nn.Embedding(50, 16), texts
        self.reader = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        words = self.words(ids)
        read = self.reader(words)
        before, after = words[:, : self.texts], words[:, self.texts :]
        tokens = self.block(torch.cat([before, by_rows(self.embed(x)), after], 1))
        return self.fc(self.norm(tokens).mean(1) + read.mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("texts", [0, 3, 7])
def test_text_around_the_patches_is_no_part_of_the_map(texts: int) -> None:
    net = Caption(texts).double().eval()
    inputs, ids = INPUTS.double(), torch.arange(7)[None]
    e = seewhy.explain(
        net, {"x": inputs, "ids": ids}, targets=1, layers=["norm", "suggested"], grid=None, methods="hirescam"
    )
    words = net.words(ids)
    tokens = torch.cat([words[:, :texts], by_rows(net.embed(inputs)), words[:, texts:]], 1)
    tokens = net.norm(net.block(tokens)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(tokens.mean(1))[0, 1], tokens)
    want = (tokens * gradient).sum(2)[0, texts : texts + CELLS].reshape(5, 6).detach()
    assert torch.allclose(e.map(layer="norm")[0], want, atol=1e-12)


def test_as_many_words_as_patches_are_not_laid_over_the_image() -> None:
    net = Caption(0).eval()
    ids = torch.arange(CELLS)[None]
    e = seewhy.explain(net, {"x": INPUTS, "ids": ids}, targets=1, layers="all")
    assert "reader" not in e.layers and "words" not in e.layers
    with pytest.raises(LayerError, match="it does not depend on the explained input"):
        seewhy.explain(net, {"x": INPUTS, "ids": ids}, targets=1, layers="reader")


class Video(nn.Module):
    """Tokens of small blocks of a clip."""

    def __init__(self, *, time_last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time_last, self.embed = time_last, nn.Conv3d(3, 16, (2, 8, 8), (2, 8, 8))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.embed(x)
        tokens = (cells.movedim(2, -1) if self.time_last else cells).flatten(2).transpose(1, 2)
        return self.fc(self.norm(self.block(tokens)).mean(1))  # type: ignore[no-any-return]


def test_tokens_of_clips() -> None:
    clip = torch.randn(1, 3, 6, 32, 40)
    e = seewhy.explain(Video(time_last=False).eval(), clip)
    assert tuple(e.map().shape[1:]) == (3, 4, 5) and tuple(e.heatmap().shape[1:]) == (6, 32, 40)
    net = Video(time_last=True).eval()
    assert seewhy.explain(net, clip).layers == ("embed",)
    with pytest.raises(LayerError, match="not in that order"):
        seewhy.explain(net, clip, layers="block")


class DeepTokens(Tokens):
    """Three blocks, whose attention methods of the entire model read."""

    def __init__(self, arrange: Callable[[Tensor], Tensor], place: int) -> None:
        super().__init__(arrange)
        self.place = place
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.with_token(self.arrange(self.embed(x)), self.place)
        for block in self.blocks:
            tokens = block(tokens)
        return self.fc(self.norm(tokens).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["attentionrollout", "legrad", "attentionrelevance"])
def test_attention_of_tokens_in_another_place_is_refused(method: str) -> None:
    assert seewhy.explain(DeepTokens(by_rows, 0).eval(), INPUTS, methods=method, targets=1).map().shape == (1, 5, 6)
    for place in (CELLS // 2, CELLS):
        with pytest.raises(seewhy.errors.MethodError, match="come between or after the patches"):
            seewhy.explain(DeepTokens(by_rows, place).eval(), INPUTS, methods=method, targets=1)
    with pytest.raises(seewhy.errors.MethodError, match="not patches in the order of the input"):
        seewhy.explain(DeepTokens(shuffled, 0).eval(), INPUTS, methods=method, targets=1)


class Captioner(nn.Module):
    """Words, with the patches of the image in place of the words that are 9."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.words = nn.Conv2d(3, 8, 4, 4), nn.Embedding(20, 8)
        self.block, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        patches, tokens = self.embed(x).flatten(2).mT, self.words(words)
        if (words == 9).any():
            tokens = tokens.masked_scatter((words == 9)[..., None], patches)
        else:
            tokens = torch.cat([tokens, patches], 1)
        tokens = self.block(tokens)
        weights = torch.arange(1.0, tokens.shape[1] + 1)[:, None]
        return self.fc((weights.to(tokens) * tokens.tanh()).sum(1))  # type: ignore[no-any-return]


def test_words_of_another_number_or_order_move_the_patches() -> None:
    """What was observed with other words is not used."""
    net, x = Captioner().double().eval(), torch.randn(1, 3, 16, 20, dtype=torch.float64)
    image = [9] * 20
    rows = [9, 9, 9, 9, 9, 4] * 3  # a word after each row of patches
    texts = ([1, 2], [1, 2, 3, 4, 5], [3], [1, *image, 2, 3], [1, 2, 3, *image], [*image, 1, 2, 3], [*rows, *[9] * 5])
    for number, words in enumerate(texts):
        ids = torch.tensor([words], dtype=torch.int32 if number % 2 else torch.long)
        first = words.index(9) if 9 in words else len(words)
        e = seewhy.explain(net, (x, ids), methods="hirescam", layers="block", targets=1)
        kept: list[Tensor] = []
        handle = net.block.register_forward_hook(lambda *call, kept=kept: kept.append(call[2]))
        score = net(x, ids)[0, 1]
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept[0])
        places = (ids[0] == 9).nonzero().flatten() if 9 in words else torch.arange(first, first + 20)
        expected = (gradient * kept[0]).sum(2)[0, places].reshape(4, 5)
        assert torch.allclose(e.map()[0], expected)


def test_texts_with_placeholders_in_different_places_in_one_batch() -> None:
    net, x = Captioner().double().eval(), torch.randn(2, 3, 16, 20, dtype=torch.float64)
    image = [9] * 20
    same, other = torch.tensor([[1, *image, 2], [3, *image, 4]]), torch.tensor([[1, *image, 2], [1, 2, *image]])
    assert seewhy.explain(net, (x, same), layers="block", targets=1).map().shape == (2, 4, 5)
    with pytest.raises(LayerError, match="its tokens of image 1 have other places than those of image 0"):
        seewhy.explain(net, (x, other), layers="block", targets=1)


class TokensFirst(nn.Module):
    """Features of a signal as a sequence (N, B, K), as `nn.LSTM` takes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.block, self.fc = nn.Conv1d(2, 8, 3, 2, 1), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.block(self.cnn(x).permute(2, 0, 1))
        return self.fc(tokens.tanh().mean(0))  # type: ignore[no-any-return]


@pytest.mark.parametrize("layers", ["block", "all", ["cnn", "block"]])
def test_as_many_tokens_as_images(layers: str | list[str]) -> None:
    net = TokensFirst().eval()
    with pytest.raises(LayerError, match="has as many tokens as there are images, with the tokens first"):
        seewhy.explain(net, torch.randn(16, 2, 32), layers=layers, targets=1)
    for images in (1, 15):
        e = seewhy.explain(net, torch.randn(images, 2, 32), layers=layers, targets=1)
        assert e.map(layer="block").shape == (images, 16)
    assert seewhy.explain(Tokens(by_rows).eval(), torch.randn(30, 3, 40, 48), targets=1).map().shape[0] == 30


class TwoImages(nn.Module):
    """The patches of two images, which one convolution or one for each embeds; those of the second have another order."""

    def __init__(self, arrange: Callable[[Tensor], Tensor], *, is_shared: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 8, 8)
        self.second = self.first if is_shared else nn.Conv2d(3, 16, 8, 8)
        self.arrange, self.norm, self.fc = arrange, nn.LayerNorm(16), nn.Linear(16, 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        first = self.first(a).tanh().mean((2, 3))
        return self.fc(first + self.norm(self.block(self.arrange(self.second(b)))).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("arrange", [by_rows, by_columns, reversed_rows, shuffled])
def test_tokens_are_not_compared_with_a_convolution_of_another_input(
    arrange: Callable[[Tensor], Tensor], is_shared: bool
) -> None:
    net = TwoImages(arrange, is_shared=is_shared).double().eval()
    a, b = INPUTS.double(), INPUTS.double().flip(0, 3)
    if arrange is not by_rows:
        assert seewhy.explain(net, (a, b), main=1).layers == ("first#2" if is_shared else "second",)
        with pytest.raises(LayerError, match="not in that order"):
            seewhy.explain(net, (a, b), main=1, layers="norm")
        return
    e = seewhy.explain(net, (a, b), main=1, targets=2, methods="hirescam")
    tokens = net.norm(net.block(by_rows(net.second(b)))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(tokens.mean(1))[0, 2], tokens)
    assert e.layers == ("norm",)
    assert torch.allclose(e.map()[0], (tokens * gradient).sum(2).reshape(5, 6), atol=1e-12)


class TwoImagesInOneSequence(Tokens):
    """As many hidden units as patches plus two, and twice as many tokens: the hidden units are no patches."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        tokens = self.block(torch.cat([by_rows(self.embed(a)), by_rows(self.embed(b))], 1))
        return self.fc(self.norm(tokens).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("main", [0, 1])
def test_hidden_units_are_no_patches(main: int) -> None:
    net = TwoImagesInOneSequence(by_rows).eval()
    e = seewhy.explain(net, (INPUTS, INPUTS.flip(3)), main=main, layers="all")
    for layer in e.layers:
        output: list[Tensor] = []
        handle = net.get_submodule(layer.partition("#")[0]).register_forward_hook(
            lambda *call, output=output: output.append(call[2])
        )
        net(INPUTS, INPUTS)
        handle.remove()
        assert output[0].shape[-1] != 32 or e.layer_info[layer].channels == 32, layer


class Axial(nn.Module):
    """Attention along the rows, then along the columns of a grid with channels last, which the second one transposes."""

    def __init__(self, finish: Callable[[Tensor], Tensor], *, is_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.finish, self.is_first = nn.Conv2d(3, 16, 8, 8), finish, is_first
        self.rows, self.columns = (nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(2))
        self.norm: nn.Module = nn.BatchNorm2d(16) if is_first else nn.LayerNorm(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.embed(x).permute(0, 2, 3, 1)
        batch, height, width, _ = cells.shape
        cells = self.rows(cells.flatten(0, 1)).unflatten(0, (batch, height)).transpose(1, 2)
        cells = self.finish(self.columns(cells.flatten(0, 1)).unflatten(0, (batch, width)))
        cells = self.norm(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if self.is_first else self.norm(cells)
        return self.fc(cells.tanh().mean((1, 2)))  # type: ignore[no-any-return]


ORIENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda cells: cells,
    "upright": lambda cells: cells.transpose(1, 2),
    "upside down": lambda cells: cells.transpose(1, 2).flip(1),
    "mirrored": lambda cells: cells.transpose(1, 2).flip(2),
    "turned": lambda cells: cells.flip(1),
    "transposed and turned": lambda cells: cells.flip(1, 2),
}


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_cells_with_swapped_or_reversed_axes_are_refused(orientation: str, is_first: bool) -> None:
    """The cell of the input that a cell of the layer depends on most, by gradients, is its own only if upright."""
    net = Axial(ORIENTATIONS[orientation], is_first=is_first).double().eval()
    square = torch.randn(1, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    leaf, kept = square.clone().requires_grad_(), list[Tensor]()
    handle = net.norm.register_forward_hook(lambda *call: kept.append(call[2]))
    score = net(leaf)[0, 1]
    handle.remove()
    cells = kept[0][0].permute(1, 2, 0) if is_first else kept[0][0]
    right = 0
    for row, column in ((0, 5), (5, 0), (1, 3), (4, 2)):
        direction = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(row))
        (gradient,) = torch.autograd.grad(cells[row, column] @ direction, leaf, retain_graph=True)
        seen = nn.functional.avg_pool2d(gradient.abs().sum(1), 8)[0]
        right += int(seen.argmax()) == row * 6 + column
    assert (right == 4) == (orientation == "upright")
    if orientation != "upright":
        assert seewhy.explain(net, square).layers == ("embed",)
        with pytest.raises(LayerError, match="its axes are swapped or reversed"):
            seewhy.explain(net, square, layers="norm")
        assert "norm" not in seewhy.explain(net, square, layers="all").layers
        return
    (gradient,) = torch.autograd.grad(score, kept[0])
    e = seewhy.explain(net, square, targets=1, methods="hirescam")
    assert e.layers == ("norm",) and not e.layer_info["norm"].note
    torch.testing.assert_close(e.map()[0], (gradient * kept[0])[0].sum(0 if is_first else 2))


class Sequences(nn.Module):
    """A signal through a convolution, then through layers with channels last, in the order of time or reversed."""

    def __init__(self, channels: int, *, is_reversed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.is_reversed = nn.Conv1d(2, channels, 3, 1, 1), is_reversed
        self.block, self.fc = nn.Linear(channels, channels), nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.cnn(x).mT
        return self.fc(self.block(steps.flip(1) if self.is_reversed else steps).tanh().mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", [5, 16, 32, 64])  # 16 is half of the length, 32 all of it
def test_steps_of_a_signal_with_channels_last(channels: int) -> None:
    x = torch.randn(1, 2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert seewhy.explain(Sequences(channels, is_reversed=True).double().eval(), x).layers == ("cnn",)
    net = Sequences(channels, is_reversed=False).double().eval()
    e = seewhy.explain(net, x, targets=1, methods="hirescam", layers="block")
    steps = net.block(net.cnn(x).mT).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(steps.tanh().mean(1))[0, 1], steps)
    torch.testing.assert_close(e.map()[0], (steps * gradient)[0].sum(1).detach())


class Merged(nn.Module):
    """Means of neighboring patches as tokens, at the second of two transformer layers."""

    def __init__(self, size: tuple[int, int], merge: tuple[int, int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size, self.merge, self.embed = size, merge, nn.Conv2d(3, 16, 4, 4)
        self.first, self.block = (nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(2))
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.first(by_rows(self.embed(x))).mT.unflatten(2, self.size)
        tokens = self.norm(self.block(by_rows(nn.functional.avg_pool2d(patches, self.merge))))
        weights = torch.arange(1.0, tokens.shape[1] + 1)[:, None].to(tokens)
        return self.fc((weights * tokens).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("size", "merge", "grid"),
    [
        ((5, 6), (1, 2), (5, 3)), ((6, 5), (2, 1), (3, 5)), ((9, 10), (3, 2), (3, 5)), ((6, 6), (3, 2), (2, 3)),
        ((12, 12), (3, 3), None), ((9, 15), (3, 3), None), ((10, 15), (5, 5), None), ((6, 12), (1, 4), None),
    ],
)  # fmt: skip
def test_merged_patches_have_their_own_grid_or_none(
    size: tuple[int, int], merge: tuple[int, int], grid: tuple[int, int] | None
) -> None:
    net = Merged(size, merge).double().eval()
    x = torch.randn(1, 3, 4 * size[0], 4 * size[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    e = seewhy.explain(net, x, methods="hirescam", targets=1)
    if grid is None:
        assert e.layer_info[e.layers[0]].grid == size  # that of the patches before they are merged
        return
    kept: list[Tensor] = []
    handle = net.norm.register_forward_hook(lambda *call: kept.append(call[2]))
    (gradient,) = torch.autograd.grad(net(x)[0, 1], kept)
    handle.remove()
    assert e.layers == ("norm",) and e.layer_info["norm"].grid == grid
    torch.testing.assert_close(e.map()[0], (kept[0] * gradient)[0].sum(1).reshape(grid).detach())


class Latents(Tokens):
    """As many latent vectors as patches, which read them all."""

    def __init__(self) -> None:
        super().__init__(by_rows)
        self.latents, self.read = (
            nn.Parameter(torch.randn(1, CELLS, 16)),
            nn.MultiheadAttention(16, 2, batch_first=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens, latents = by_rows(self.embed(x)), self.latents.expand(len(x), -1, -1)
        return self.fc(self.norm(self.block(latents + self.read(latents, tokens, tokens)[0])).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(6))
def test_latent_vectors_are_not_placed_by_chance(seed: int) -> None:
    net = Latents()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    assert seewhy.explain(net.eval(), INPUTS).layers == ("embed",)


@pytest.mark.parametrize("words", [17, 20, 30])
def test_hidden_units_next_to_many_words_are_no_grid(words: int) -> None:
    """16 hidden units could be a 3x3 grid, half of that of the patches, with seven tokens before it."""
    net = Caption(words).eval()
    given = {"x": INPUTS, "ids": torch.arange(words)[None]}
    assert seewhy.explain(net, given).layers == ("embed",)
    with pytest.raises(LayerError) as refused:
        seewhy.explain(net, given, layers="norm")
    assert "3x3" not in str(refused.value)
    e = seewhy.explain(net, given, layers="norm", grid=f"5x6+{words}")
    assert e.layer_info["norm"].channels == 16
