"""Rows, parts and axes that look alike: the map is right, or there is one clear line."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, ModelError, TargetError


class Clips(nn.Module):
    """Two CNNs that see the frames of clips (B, T, C, H, W)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.cnn, self.other = kind, nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.second, self.fc = nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "reversed":
                rows = self.cnn(x.flatten(0, 1)) * self.other(x.flip(1).flatten(0, 1))
            case "reordered":  # the second layer has the frames first
                rows = self.cnn(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(0, 1)
                rows = self.second(rows.flatten(0, 1)).unflatten(0, (x.shape[1], -1)).transpose(0, 1).flatten(0, 1)
            case "loop":
                frames = range(x.shape[1])
                calls = [self.cnn(x[:, n]) * self.other(x[:, len(frames) - 1 - n]) for n in frames]
                rows = torch.stack(calls, 1).flatten(0, 1)
            case _:
                rows = self.cnn(x.flatten(0, 1))
        return self.fc(rows.mean((2, 3)).unflatten(0, x.shape[:2]).tanh().cumsum(1)[:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["reversed", "reordered", "loop"])
def test_layers_with_other_parts_are_not_drawn_in_the_wrong_place(kind: str) -> None:
    net, clips = Clips(kind).eval(), torch.randn(2, 4, 3, 12, 10)
    for layers in ("suggested", "second" if kind == "reordered" else "other"):
        with pytest.raises(LayerError):
            seewhy.explain(net, clips, targets=1, layers=layers)


class FrameTokens(nn.Module):
    """Frames as rows, the first frames of all clips first; a transformer layer for the patches of each frame."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.block, self.fc = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.tokens = self.block(self.embed(x.transpose(0, 1).flatten(0, 1)).flatten(2).transpose(1, 2))
        return self.fc(self.tokens.mean(1).unflatten(0, (x.shape[1], -1)).tanh().mean(0))  # type: ignore[no-any-return]


def test_the_order_of_rows_does_not_depend_on_earlier_calls() -> None:
    net, clips = FrameTokens().double().eval(), torch.randn(2, 5, 3, 24, 32, dtype=torch.float64)
    for count in (1, 2, 1, 2):  # with one clip, both orders are the same
        inputs = clips[:count]
        e = seewhy.explain(net, inputs, targets=2, layers=["block", "suggested"], methods="hirescam")
        score = net(inputs)[:, 2].sum()
        (gradient,) = torch.autograd.grad(score, net.tokens)
        want = (gradient * net.tokens).sum(2).detach().unflatten(0, (5, count)).transpose(0, 1).unflatten(2, (3, 4))
        assert torch.allclose(e.map(layer="block"), want, atol=1e-12)


class DividedAttention(nn.Module):
    """Attention over time at each place, for as many frames as places: its table of rows looks like that of frames."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.time = nn.Conv2d(3, 16, 8, 8), nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])  # (B, T, N, K)
        tokens = self.time(tokens.transpose(1, 2).flatten(0, 1))
        return self.fc(tokens.unflatten(0, (len(x), -1)).mean((1, 2)))  # type: ignore[no-any-return]


def test_rows_of_places_are_not_rows_of_frames() -> None:
    net, clips = DividedAttention().eval(), torch.randn(1, 6, 3, 16, 24)
    assert seewhy.explain(net, clips, targets=1).layers == ("embed",)
    with pytest.raises(LayerError, match="not in that order"):
        seewhy.explain(net, clips, targets=1, layers="time")


class SquareSequence(nn.Module):
    """A signal as (B, T, K) with as many channels as positions."""

    def __init__(self, length: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv1d(2, length, 8, 8), nn.LayerNorm(length)
        self.fc = nn.Linear(length, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.sequence = self.norm(self.conv(x).transpose(1, 2))
        return self.fc((self.sequence**2).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("length", [8, 16])
def test_as_many_channels_as_positions_are_not_transposed(length: int) -> None:
    net, signal = SquareSequence(length).double().eval(), torch.randn(2, 2, 8 * length, dtype=torch.float64)
    e = seewhy.explain(net, signal, targets=1, methods="hirescam", layers=["norm", "suggested"])
    (gradient,) = torch.autograd.grad(net(signal)[:, 1].sum(), net.sequence)
    assert torch.allclose(e.map(layer="norm"), (gradient * net.sequence).sum(2).detach(), atol=1e-12)


class Head(nn.Module):
    """A CNN whose output is arranged by `arrange`."""

    def __init__(self, arrange: object, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc, self.arrange = nn.Conv2d(3, 8, 3), nn.Linear(8, classes), arrange

    def forward(self, x: Tensor) -> object:
        return self.arrange(self.fc(self.cnn(x).relu().mean((2, 3))))  # type: ignore[operator]


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("method", ["gradcam", "ablationcam"])
def test_squeezed_outputs(classes: int, images: int, method: str) -> None:
    inputs = torch.randn(images, 3, 12, 10, dtype=torch.float64)
    squeezed, plain = Head(Tensor.squeeze, classes).double().eval(), Head(lambda y: y, classes).double().eval()
    e = seewhy.explain(squeezed, inputs, targets=0, methods=method)
    assert len(e) == images and e.logits.shape == (images, classes)
    assert torch.allclose(e.map(), seewhy.explain(plain, inputs, targets=0, methods=method).map())


@pytest.mark.parametrize("images", [1, 2])
def test_more_rows_than_inputs_are_refused(images: int) -> None:
    net = Head(lambda y: y[None].expand(12, -1, -1)).eval()  # (time, B, classes)
    with pytest.raises(ModelError, match=f"has 12 rows for {images} inputs"):
        seewhy.explain(net, torch.randn(images, 3, 12, 10))


def test_other_tensors_of_an_output_are_not_counted() -> None:
    net = Head(lambda y: {"text_features": torch.ones(2, 5), "logits": y}).eval()
    assert len(seewhy.explain(net, torch.randn(4, 3, 12, 10))) == 4


def test_embeddings_as_values() -> None:
    net, inputs = Head(lambda y: y).double().eval(), torch.randn(2, 3, 12, 10, dtype=torch.float64)
    for target, score in (("value:mean", lambda y: y.norm(dim=1)), ("value:2", lambda y: y[:, 2])):
        e = seewhy.explain(net, inputs, targets=target)
        assert torch.allclose(e.target_results[0].scores, score(net(inputs)).detach())
        assert torch.allclose(e.map(), seewhy.explain(net, inputs, targets=score).map())


class FusedFrames(nn.Module):
    """A CNN for each frame, and a convolution for the sum of their features, which belongs to no frame."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fuse, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.cnn(x[:, number]).tanh() for number in range(x.shape[1])]
        return self.fc(self.fuse(torch.stack(features).sum(0)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def test_a_layer_after_the_loop_is_no_frame() -> None:
    net, clips = FusedFrames().eval(), torch.randn(1, 4, 3, 12, 10)
    e = seewhy.explain(net, clips, targets=1)
    assert e.layers[0].startswith("cnn#")
    with pytest.raises(LayerError, match="has fewer axes than an input"):
        seewhy.explain(net, clips, targets=1, layers="fuse")
    assert seewhy.explain(net, clips, targets=1, layers="all").layers == tuple(
        f"cnn#{number}" for number in (1, 2, 3, 4)
    )


class Repeated(nn.Module):
    """One CNN for several views of an image, in separate calls, and a convolution for all of them."""

    def __init__(self, views: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fuse, self.fc, self.views = nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4), views

    def forward(self, x: Tensor) -> Tensor:
        self.outputs = [self.cnn(view) for view in self.views(x)]  # type: ignore[operator]
        product = self.outputs[0]
        for other in self.outputs[1:]:
            product = product * other
        return self.fc(self.fuse(product).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("views", "boxes", "mirrored"),
    [
        (lambda x: [x, x.flip(-1)], [((0, 12), (0, 16))] * 2, [(), (1,)]),
        (
            lambda x: [x[:, :, :6, :8], x[:, :, 6:, 8:], x[:, :, 6:, :8]],
            [((0, 6), (0, 8)), ((6, 12), (8, 16)), ((6, 12), (0, 8))],
            [(), (), ()],
        ),
    ],
)
def test_calls_of_one_module_on_views_of_the_image(views: object, boxes: list[object], mirrored: list[object]) -> None:
    net, inputs = Repeated(views).double().eval(), torch.randn(2, 3, 12, 16, dtype=torch.float64)
    e = seewhy.explain(net, inputs, targets=1, layers="all", methods="hirescam")
    gradients = torch.autograd.grad(net(inputs)[:, 1].sum(), net.outputs)
    for number, (output, gradient) in enumerate(zip(net.outputs, gradients, strict=True), 1):
        layer = f"cnn#{number}"
        want = (gradient * output).sum(1).detach()
        assert torch.allclose(e.map(layer=layer)[:, 0], want, atol=1e-12)
        (part,) = e.layer_info[layer].parts
        assert (part.box, part.mirrored) == (boxes[number - 1], mirrored[number - 1])
        heat, (rows, columns) = e.heatmap(layer=layer), part.box
        inside = heat[:, rows[0] : rows[1], columns[0] : columns[1]]
        shown = want.clamp(min=0).flip(2) if part.mirrored else want.clamp(min=0)
        assert torch.allclose(inside, shown / shown.amax((1, 2), keepdim=True), atol=1e-12)
        assert torch.allclose(inside.sum(), heat.sum())
    assert e.layer_info["fuse"].parts == () and e.map(layer="fuse").dim() == 3


def test_two_calls_on_the_entire_image_have_no_parts() -> None:
    net = Repeated(lambda x: [x, x * 2]).eval()
    e = seewhy.explain(net, torch.randn(1, 3, 12, 16), targets=1, layers="all")
    assert e.map(layer="cnn#2").shape == (1, 12, 16)


class Reordered(torch.nn.Module):
    """Sorts the rows of its batch, as for packed sequences, and restores their order at the end."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc, self.order = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4), order

    def forward(self, x, lengths=None):
        order = self.order(x) if lengths is None else lengths.argsort()
        return self.fc(self.cnn(x[order]).relu().mean((2, 3)))[order.argsort()]


ORDERS = {
    "reversed": lambda x: torch.arange(len(x) - 1, -1, -1),
    "shifted": lambda x: torch.arange(len(x)).roll(1),
    "last two swapped": lambda x: torch.tensor([0, 2, 1][: len(x)]),
    "by brightness": lambda x: x.mean((1, 2, 3)).argsort(),
}


@pytest.mark.parametrize("layers", ["suggested", "cnn", "all"])
@pytest.mark.parametrize("name", ORDERS)
def test_rows_in_another_order_inside_the_network_are_refused(name, layers):
    net, inputs = Reordered(ORDERS[name]).eval(), torch.randn(3, 3, 12, 12) - torch.arange(3.0).reshape(3, 1, 1, 1)
    with pytest.raises(seewhy.errors.LayerError, match="its rows are in another order than the images"):
        seewhy.explain(net, inputs, layers=layers)
    assert len(seewhy.explain(net, inputs[:1], layers=layers)) == 1


def test_an_order_that_depends_on_the_values_is_checked_in_each_call():
    net, inputs = (
        Reordered(ORDERS["by brightness"]).eval(),
        torch.randn(2, 3, 12, 12) + torch.tensor([0.0, 9.0]).reshape(2, 1, 1, 1),
    )
    assert len(seewhy.explain(net, inputs)) == 2
    with pytest.raises(seewhy.errors.LayerError, match="another order"):
        seewhy.explain(net, inputs.flip(0))
    lengths = Reordered(None).eval()
    assert len(seewhy.explain(lengths, (inputs, torch.tensor([3, 7])), main=0)) == 2
    with pytest.raises(seewhy.errors.LayerError, match="another order"):
        seewhy.explain(lengths, (inputs, torch.tensor([7, 3])), main=0)


def test_selections_that_keep_the_order_are_accepted():
    class Selects(Reordered):
        def forward(self, x):
            features = self.cnn(x[torch.arange(len(x))]).relu().mean((2, 3))
            return self.fc(features)[torch.arange(len(x)), :].roll(1, 1)

    net, inputs = Selects(None).eval(), torch.randn(3, 3, 12, 12)
    e = seewhy.explain(net, inputs, targets=1)
    for image in range(3):
        alone = seewhy.explain(net, inputs[image : image + 1], targets=1)
        assert torch.allclose(e.map()[image], alone.map()[0], atol=1e-6)


class Loop(torch.nn.Module):
    """Calls its CNN with a few images of the batch at a time."""

    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc, self.size = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4), size

    def forward(self, x):
        return torch.cat([self.fc(self.cnn(one).relu().mean((2, 3))) for one in x.split(self.size)])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_layer_that_is_called_with_some_of_the_images(size):
    net, inputs = Loop(size).eval(), torch.randn(4, 3, 12, 12)
    with pytest.raises(
        seewhy.errors.LayerError, match=r"calls it with \d of 4 images: explain the images one at a time"
    ):
        seewhy.explain(net, inputs)
    assert len(seewhy.explain(net, inputs[:1])) == 1


def test_a_network_that_takes_another_path_for_another_image():
    """The layer suggested for the first image is not called for the second."""

    class EarlyExit(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.fc = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, 2), torch.nn.Linear(8, 4)

        def forward(self, x):
            y = self.a(x).relu()
            return self.fc((y if x.abs().mean() > 1 else self.b(y).relu()).mean((2, 3)))

    hard, easy, net = torch.randn(1, 3, 12, 12) / 2, torch.randn(1, 3, 12, 12) * 5, EarlyExit().eval()
    assert [seewhy.explain(net, x).layers for x in (hard, easy, hard, easy)] == [("b",), ("a",), ("b",), ("a",)]
    with pytest.raises(seewhy.errors.LayerError, match="never calls it"):
        seewhy.explain(net, easy, layers="b")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "arrange",
    [
        lambda y: y.double(),
        lambda y: y.softmax(1, dtype=torch.float64),
        lambda y: y.double().log_softmax(1),
        lambda y: y.float(),
        lambda y: {"logits": y.double()},
    ],
)
def test_an_output_of_a_finer_type_is_compared_in_the_type_of_the_model(arrange: object, dtype: torch.dtype) -> None:
    for seed in range(3):
        net = Head(arrange).to(dtype).eval()
        torch.manual_seed(seed)
        assert len(seewhy.explain(net, torch.randn(3, 3, 32, 32, dtype=dtype), layers="cnn")) == 3


def test_a_dependence_larger_than_the_type_of_the_model_is_refused() -> None:
    net = Head(lambda y: (y + 1e-3 * y.mean(0)).double()).eval()
    with pytest.raises(ModelError, match="depends on the other inputs"):
        seewhy.explain(net, torch.randn(3, 3, 12, 10))


ROW_LISTS = {
    "tensors": list,
    "tuple": tuple,
    "rows": lambda y: [row[None] for row in y],
    "dicts": lambda y: [{"logits": row} for row in y],
    "dicts with features": lambda y: [{"hidden": row * 2, "logits": row} for row in y],
    "dicts of rows": lambda y: [{"hidden": row[None] * 2, "logits": row[None]} for row in y],
    "pairs": lambda y: [(row, row.exp()) for row in y],
}


@pytest.mark.parametrize("form", ROW_LISTS)
@pytest.mark.parametrize("images", [1, 2, 4])  # there are four classes
@pytest.mark.parametrize("method", ["gradcam", "ablationcam"])
def test_one_output_per_image_in_a_list(form: str, images: int, method: str) -> None:
    inputs = torch.randn(images, 3, 12, 10, dtype=torch.float64)
    net, plain = Head(ROW_LISTS[form]).double().eval(), Head(lambda y: y).double().eval()
    for _ in range(2):  # what the first call observed is cached
        e, same = (seewhy.explain(one, inputs, methods=method) for one in (net, plain))
        assert e.target_results[0].name == same.target_results[0].name and e[0].top() == same[0].top()
        assert torch.allclose(e.map(), same.map()) and torch.allclose(e.logits, same.logits)
        is_ordinary = form == "rows" and images == 1
        assert any("list with one output per input" in note for note in e.notes) != is_ordinary


@pytest.mark.parametrize("images", [1, 2, 4])
def test_one_number_or_one_map_per_image_in_a_list(images: int) -> None:
    inputs = torch.randn(images, 3, 12, 10)
    numbers = seewhy.explain(Head(lambda y: list(y[:, 0])).eval(), inputs)
    assert len(numbers.target_results[0].scores) == images
    net, plain = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)).eval() for _ in range(2))
    plain.load_state_dict(net.state_dict())
    net.register_forward_hook(lambda module, args, output: list(output))
    maps = [seewhy.explain(one, inputs, targets=1, layers="0").map() for one in (net, plain)]
    assert torch.equal(*maps)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_list_with_one_output_per_head(images: int) -> None:
    """Three heads with a number per image, or with class scores, are no images."""
    inputs = torch.randn(images, 3, 12, 10)
    for arrange in (lambda y: list(y[:, :3].unbind(1)), lambda y: [y, y * 2, y * 3], lambda y: [y]):
        net, calls = Head(arrange).eval(), []
        for expected in (None, 1):
            calls.clear()
            handle = net.register_forward_hook(lambda module, args, output: calls.append(len(output)))  # noqa: B023
            e = seewhy.explain(net, inputs, layers="cnn")
            handle.remove()
            assert expected in (None, len(calls))
            assert len(e.target_results[0].scores) == images and e.logits.shape == (images, e.logits.shape[1])
            first = arrange(net.fc(net.cnn(inputs).relu().mean((2, 3))))[0]
            assert torch.allclose(e.logits, first.reshape(images, -1))
            assert not any("list" in note for note in e.notes)


def test_boxes_in_a_list_are_not_stacked() -> None:
    net = Head(lambda y: [{"boxes": row.repeat(3, 1), "scores": row[:3]} for row in y]).eval()
    kept = []
    seewhy.explain(
        net, torch.randn(2, 3, 12, 10), targets=lambda y: kept.append(y) or torch.stack([r["scores"][0] for r in y])
    )
    assert isinstance(kept[-1], list)


class Halves(nn.Module):
    """A network that classifies both halves of an image: two rows per input."""

    def __init__(self, arrange: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc, self.arrange = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), arrange

    def forward(self, x: Tensor) -> object:
        halves = torch.cat(x.chunk(2, 3))
        return self.arrange(self.fc(self.cnn(halves).relu().mean((2, 3))))  # type: ignore[operator]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    "arrange",
    [
        lambda y: y,
        lambda y: {"logits": y},
        lambda y: (y, y.exp()),
        lambda y: {"loss": y.sum(), "scores": y},
        lambda y: [[y]],
    ],
)
def test_more_rows_than_inputs_in_any_output(images: int, arrange: object) -> None:
    net, inputs = Halves(arrange).eval(), torch.randn(images, 3, 12, 16)
    with pytest.raises(ModelError, match=f"has {2 * images} rows for {images} inputs"):
        seewhy.explain(net, inputs, targets=0)


def test_a_function_of_an_output_with_other_rows() -> None:
    net, inputs = Halves(lambda y: {"logits": y}).eval(), torch.randn(2, 3, 12, 16)
    e = seewhy.explain(net, inputs, targets=lambda output: output["logits"].unflatten(0, (2, -1))[:, :, 1].sum(0))
    assert len(e) == 2 and e.logits is None and e.map().shape[0] == 2
    with pytest.raises(TargetError, match="has 4 scores for 2 inputs"):
        seewhy.explain(net, inputs, targets=lambda output: output["logits"][:, 0])


class TextMask(nn.Module):
    """An output with three axes for an image and a text: a mask, as of CLIPSeg, or scores of tokens."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.words, self.fc, self.kind = nn.Conv2d(3, 8, 4, 4), nn.Embedding(9, 8), nn.Linear(8, 9), kind

    def forward(self, pixel_values: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        features, text = self.cnn(pixel_values), self.words(input_ids)
        if self.kind == "mask":
            return {"logits": (features * text.mean(1)[:, :, None, None]).sum(1)}
        image = features.flatten(2).transpose(1, 2)
        return {
            "logits": self.fc(
                torch.cat([image, text], 1) if self.kind == "image and text" else text + image.mean(1)[:, None]
            )
        }


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
@pytest.mark.parametrize("tokens", [3, 8])  # a mask can have as many rows as the text has tokens
def test_a_mask_is_no_text(size: tuple[int, int], tokens: int) -> None:
    inputs = {"pixel_values": torch.rand(1, 3, *size), "input_ids": torch.ones(1, tokens, dtype=torch.long)}
    e = seewhy.explain(TextMask("mask").eval(), inputs)
    assert e.target_results[0].name == "value" and not any("next token" in note for note in e.notes)
    for kind in ("text", "image and text"):
        e = seewhy.explain(TextMask(kind).eval(), inputs, layers="cnn")
        assert any("next token" in note for note in e.notes) and e.logits.shape == (1, 9)


def test_a_loss_in_front_of_values() -> None:
    def arrange(y: Tensor) -> dict[str, Tensor]:
        return {"loss": y.sum(), "reconstruction": y[:, :3, None, None].expand(-1, -1, 8, 10)}

    e = seewhy.explain(Head(arrange).eval(), torch.randn(2, 3, 12, 10), targets="value:mean")
    assert any("(2, 3, 8, 10)" in note for note in e.notes)


@pytest.mark.parametrize("name", ["logits", "logits_per_video", "logits_per_image", "out"])
def test_named_scores(name: str) -> None:
    """The scores per text come first, as those of X-CLIP; with one image, the axis of the batch may be missing."""
    inputs = torch.randn(2, 3, 12, 10)
    plain = seewhy.explain(Head(lambda y: y).eval(), inputs)
    named = seewhy.explain(Head(lambda y: {"logits_per_text": y.T, name: y}).eval(), inputs)
    assert torch.equal(named.map(), plain.map()) and torch.equal(named.logits, plain.logits)
    squeezed = seewhy.explain(Head(lambda y: {name: y.squeeze(0)}).eval(), inputs[:1])
    assert torch.allclose(squeezed.map(), plain[0].map()) and squeezed.top() == plain[0].top()


def test_rows_of_detections_are_no_rows_of_the_batch():
    """Two images with two boxes each."""
    import torchvision

    torch.manual_seed(0)
    settings = {"weights": None, "weights_backbone": None, "num_classes": 3, "box_detections_per_img": 2}
    net = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(**settings, box_score_thresh=0.0).eval()
    e = seewhy.explain(net, torch.rand(2, 3, 96, 128))
    assert len(e) == 2 and e.map().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_selections_in_other_types(dtype):
    class Selects(Reordered):
        def forward(self, x):
            return self.fc(self.cnn(x).relu().mean((2, 3)))[torch.arange(len(x))]

    inputs = torch.randn(9, 3, 12, 12).to(dtype)
    assert len(seewhy.explain(Selects(None).to(dtype).eval(), inputs)) == 9
    with pytest.raises(seewhy.errors.LayerError, match="another order"):
        seewhy.explain(Reordered(ORDERS["reversed"]).to(dtype).eval(), inputs)
