"""Signals and volumes: maps at known positions, boxes, masks, drawings and files. Shared scale of several targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.video import SwinTransformer3d

import seewhy
from seewhy import OverlayStyle
from seewhy.cli.run_options import DrawingOptions
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.images.regions import largest_box
from seewhy.rendering import curves, slices
from support.docs_scripts import load_docs_script
from support.networks import Conv1dNet, Conv3dNet, tiny_network

METHODS = ["gradcam", "hirescam", "layercam", "eigencam", "scorecam", "ablationcam", "smooth(gradcam,samples=2)"]


DATA = load_docs_script("make_dimensions")  # the data and networks of docs/other_dimensions.md


@pytest.fixture(scope="module")
def beat() -> seewhy.Explanation:
    return seewhy.explain(DATA.ecg_net(), DATA.ecg(), layers="1", targets=[0, 1], labels=["normal", "ventricular"])


@pytest.fixture(scope="module")
def blob() -> seewhy.Explanation:
    return seewhy.explain(DATA.volume_net(), DATA.volume(), layers="2", targets=[0, 1], labels=["bright", "dark"])


class Tokens(nn.Module):
    """A 1-D transformer: patch convolution, `prefix` tokens before the grid, and one attention block."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.patches = nn.Conv1d(2, 12, 8, stride=8)
        self.first = nn.Parameter(torch.randn(1, prefix, 12)) if prefix else None
        self.block = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).transpose(1, 2)
        if self.first is not None:
            x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        return self.head(self.norm(self.block(x)).mean(1))


# Maps


@pytest.mark.parametrize("net", [Conv1dNet, Conv3dNet])
@pytest.mark.parametrize("method", METHODS)
def test_maps_have_the_rank_of_the_input(net: type[nn.Module], method: str) -> None:
    model, inputs = tiny_network(net)
    e = seewhy.explain(model, inputs, methods=method, layers="every", targets=1)
    for layer in e.layers:
        assert e.map(layer=layer).shape == (len(inputs), *e.layer_info[layer].grid)
        heatmap = e.heatmap(layer=layer)
        assert heatmap.shape == (len(inputs), *inputs.shape[2:])
        assert heatmap.isfinite().all() and heatmap.max() <= 1


@pytest.mark.parametrize("layer", ["norm", "block", "block.linear1"])
@pytest.mark.parametrize("prefix", [0, 1])
def test_token_maps_of_a_signal(prefix: int, layer: str) -> None:
    e = seewhy.explain(Tokens(prefix).eval(), torch.randn(1, 2, 128), layers=layer, targets=0)[0]
    assert e.map().shape == (16,) and e.heatmap().shape == (128,)


def test_map_of_a_signal_peaks_at_the_ventricular_beat(beat: seewhy.Explanation) -> None:
    e = beat[0]
    assert abs(int(e.heatmap(target="ventricular").argmax()) - DATA.EARLY) < 25
    start, end = e.box(target="ventricular")
    assert start < DATA.EARLY < end < start + 80
    assert e.mask(target="ventricular").shape == (1080,)
    normal = int(e.heatmap(target="normal").argmax())
    assert min(abs(normal - other) for other in DATA.BEATS if other != DATA.EARLY) < 10


def test_map_of_a_volume_peaks_in_the_blob_of_the_target(blob: seewhy.Explanation) -> None:
    e = blob[0]
    for target, center in (("bright", DATA.BRIGHT), ("dark", DATA.DARK)):
        heatmap = e.heatmap(target=target)
        peak = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
        assert np.abs(np.subtract(peak, center)).max() <= 2
        left, top, front, right, bottom, back = e.box(target=target)
        assert front <= center[0] < back and top <= center[1] < bottom and left <= center[2] < right
        assert e.mask(target=target).shape == (40, 64, 64)


# Boxes


def test_largest_box_equals_an_exhaustive_search() -> None:
    generator = np.random.default_rng(0)
    for shape in ((17,), (7, 8), (4, 5, 6), (3, 1, 9), (1, 6, 1)):
        for fraction in (0.0, 0.1, 0.2, 0.5, 1.0):
            for _ in range(8):
                mask = generator.random(shape) < fraction
                assert largest_box(mask) == search_largest_box(mask)


def test_cells_of_a_volume_are_connected_at_corners() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 0, 2] = mask[3, 3, 0] = True
    assert largest_box(mask) == (0, 0, 0, 3, 2, 3)


def search_largest_box(mask: np.ndarray) -> tuple[int, ...] | None:
    """Return the box of the largest connected component, found by flood fill."""
    unvisited = {tuple(cell) for cell in np.argwhere(mask).tolist()}
    best: list[tuple[int, ...]] = []
    for start in sorted(unvisited):
        if start not in unvisited:
            continue
        component, waiting = [], [start]
        unvisited.discard(start)
        while waiting:
            component.append(waiting.pop())
            neighbors = {tuple(np.add(component[-1], step).tolist()) for step in np.ndindex(*(3,) * mask.ndim)}
            neighbors = {tuple(axis - 1 for axis in cell) for cell in neighbors} & unvisited
            unvisited -= neighbors
            waiting += neighbors
        best = component if len(component) > len(best) else best
    if not best:
        return None
    axes = list(zip(*best, strict=True))[::-1]
    return tuple(min(axis) for axis in axes) + tuple(max(axis) + 1 for axis in axes)


# Drawings


def colorfulness(image: Image.Image) -> np.ndarray:
    """Return the difference between the largest and the smallest channel of each pixel."""
    pixels = np.asarray(image).astype(int)
    return pixels.max(2) - pixels.min(2)


def test_only_the_ventricular_beat_is_colored(beat: seewhy.Explanation) -> None:
    overlay = beat[0].overlay(target="ventricular")
    assert overlay.width == 1024
    columns = colorfulness(overlay)[20:200].mean(0)
    x = 64 + (DATA.EARLY + 0.5) / 1080 * (1024 - 64 - 10)
    assert columns[int(x)] > 25 and abs(int(columns.argmax()) - x) < 20
    assert columns[: int(x) - 60].max() < 12 and columns[int(x) + 60 :].max() < 12


@pytest.mark.parametrize("length", [2, 3, 40, 1000, 100_000])
@pytest.mark.parametrize("width", [60, 220, 1024])
def test_drawings_of_signals_of_any_length(length: int, width: int) -> None:
    signal = np.sin(np.arange(length, dtype=np.float32) / 5)[None].repeat(2, 0)
    signal[1] = 3.0
    heatmap = np.zeros(length, np.float32)
    heatmap[length // 2] = 1
    drawing = curves.draw_signal(signal, heatmap, OverlayStyle(), width)
    assert drawing.width == width and drawing.height > 40
    assert colorfulness(drawing).max() > 60  # one sample of 100,000 is visible
    assert (np.asarray(drawing).min(2) > 180).any()


def test_curves_with_a_narrow_spike_or_gaps() -> None:
    values = np.zeros(50_000, np.float32)
    values[20_000] = 1
    mask = np.asarray(curves.draw_curve(values, 500, 100, 1.5))
    assert mask[12, 200] > 60 and mask[80:95, 300].max() > 200  # the spike reaches the top; the rest is at the bottom
    for length in (100, 5000):
        gap = np.ones(length, np.float32)
        gap[length // 4 : length // 2] = np.nan
        drawn = np.asarray(curves.draw_curve(gap, 500, 50, 1.5)).max(0)
        assert drawn[60] > 100 and drawn[130:240].max() == 0 and drawn[300] > 100
    assert not np.asarray(curves.draw_curve(np.full(9, np.nan, np.float32), 50, 20, 1.5)).any()


def test_omitted_channels_are_counted_in_a_line_of_text() -> None:
    few, many = (curves.draw_signal(np.random.rand(n, 99), np.zeros(99), OverlayStyle(), 700) for n in (12, 64))
    assert many.height > few.height  # a line of text


def test_slices_are_evenly_spaced_and_include_the_peak() -> None:
    assert slices.choose_slices(100, 16, None) == [3, 9, 15, 21, 28, 34, 40, 46, 53, 59, 65, 71, 78, 84, 90, 96]
    for depth in (1, 2, 15, 16, 17, 33, 200):
        for peak in range(depth):
            chosen = slices.choose_slices(depth, 16, peak)
            assert peak in chosen and chosen == sorted(set(chosen)) and len(chosen) == min(depth, 16)


def test_only_slices_through_the_blob_are_colored(blob: seewhy.Explanation) -> None:
    overlay = blob[0].overlay(target="bright", style=OverlayStyle(colors="viridis"), longest=884)
    colors = colorfulness(overlay)
    chosen = slices.choose_slices(40, 16, int(blob[0].heatmap(target="bright").amax((1, 2)).argmax()))
    side = 220
    for position, number in enumerate(chosen):
        x, y = 4 + position % 4 * side, 4 + position // 4 * side
        tile = colors[y + 24 : y + side - 10, x + 10 : x + side - 10]
        distance = abs(number - DATA.BRIGHT[0])
        assert tile.max() > 40 if distance <= 2 else tile.max() == 0 if distance >= 9 else True, number


@pytest.mark.parametrize("net", [Conv1dNet, Conv3dNet])
def test_contact_sheets_comparisons_and_features(net: type[nn.Module]) -> None:
    model, inputs = tiny_network(net)
    e = seewhy.explain(model, inputs, methods=["gradcam", "layercam"], layers="every", targets=[0, 1], channels=2)
    with pytest.raises(ChoiceError, match=r"use e\[0\]"):
        e.overlay("gradcam", 0, "first")
    one = e[0]
    sheet, comparison = one.contact_sheet("gradcam", 0), one.comparison("first", style=OverlayStyle(scale="shared"))
    assert sheet.width > 300 and comparison.width > 600 and one.features_sheet("gradcam", 0).width > 600
    with pytest.raises(UsageError, match="needs an image"):
        one.classic_overlay("gradcam", 0, "first")
    with pytest.raises(UsageError, match=r"on_photo.*axes"):
        one.on_photo("gradcam", 0, "first")
    with pytest.raises(UsageError, match="axes"):
        _ = one.view
    plain = seewhy.explain(model, inputs[:1], layers="every", targets=0)
    assert plain._repr_png_()[:4] == b"\x89PNG"


# Files


@pytest.mark.parametrize("net", [Conv1dNet, Conv3dNet])
def test_a_loaded_explanation_equals_the_saved_one(net: type[nn.Module], tmp_path: Path) -> None:
    model, inputs = tiny_network(net)
    e = seewhy.explain(model, inputs[:1], layers="first", targets=1)[0]
    assert {path.name for path in e.save(tmp_path)} == {"maps.npz", "input.npz", "explanation.json"}
    loaded = seewhy.load_explanation(tmp_path)
    assert loaded.size == e.size and torch.equal(loaded.inputs, e.inputs.detach().float())
    assert (np.asarray(loaded.overlay()) == np.asarray(e.overlay())).all() and loaded.box() == e.box()
    assert {path.name for path in loaded.save(tmp_path)} == {"maps.npz", "input.npz", "explanation.json"}


# Shared scale


def test_a_weaker_target_has_a_lower_maximum_on_the_shared_scale() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    net[0].weight.data.fill_(1.0)
    net[3].weight.data = torch.tensor([[4.0], [1.0]])
    inputs = torch.zeros(2, 1, 8, 8)
    inputs[0, 0, 2:5, 3:6], inputs[1, 0, 6:, 6:] = 1.0, 9.0
    e = seewhy.explain(net, inputs, layers="0", targets=[0, 1])
    assert e.heatmap(target=1).amax() == 1
    shared = [e.heatmap(target=target, scale="shared") for target in (0, 1)]
    torch.testing.assert_close(shared[0], e.heatmap(target=0))
    torch.testing.assert_close(shared[1].flatten(1).amax(1), torch.tensor([0.25, 0.25]))
    one = e[0]
    assert one.on_photo(target=1, scale="shared").max() == pytest.approx(0.25)
    assert one.mask(0.2, target=1, scale="shared").sum() == 9 and one.box(target=1, scale="shared") is None
    weak, own = (
        colorfulness(one.overlay(target=1, style=OverlayStyle(scale=scale))).max() for scale in ("shared", "own")
    )
    assert weak < own
    blank = seewhy.explain(net, -inputs, layers="0", targets=[0, 1])
    assert (blank.heatmap(target=1, scale="shared") == 0).all() and not blank[0].mask(target=0, scale="shared").any()


def test_unknown_scales_are_refused(beat: seewhy.Explanation) -> None:
    for call in (
        lambda: OverlayStyle(scale="shard"),
        lambda: beat.heatmap(target=0, scale="shard"),
        lambda: beat[0].mask(target=0, scale="shard"),
        lambda: DrawingOptions(scale="shard"),
    ):
        with pytest.raises(UnknownName, match="did you mean 'shared'"):
            call()
    assert DrawingOptions(scale="shared").overlay_style.scale == "shared"
    with pytest.raises(UsageError, match="classic"):
        DrawingOptions(scale="shared", style="classic")


def test_dense_output_of_a_signal() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(1, 6, 5, padding=2), nn.ReLU(), nn.Conv1d(6, 6, 5, padding=2), nn.ReLU(), nn.Conv1d(6, 3, 1)
    )
    signal = torch.randn(1, 1, 40)
    e = seewhy.explain(net.eval(), signal)
    scores = net(signal).detach()[0]
    winner = int(scores.argmax(0).bincount(minlength=3).argmax())
    torch.testing.assert_close(e.target_results[0].scores[0], scores[winner, scores.argmax(0) == winner].sum())
    assert e.methods == ("hirescam",) and e.map().shape == (1, 40) and e.layers == ("3",)
    other = (winner + 1) % 3
    assert (
        seewhy.explain(net, signal, targets=winner, versus=other)
        .target_results[0]
        .name.endswith(f"rather than class {other}")
    )


class ChannelAttention(nn.Module):
    """A 1-D network with efficient channel attention: a convolution along the channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.eca, self.gate, self.fc = (
            nn.Conv1d(2, 16, 3, 2, 1),
            nn.Conv1d(1, 1, 3, 1, 1),
            nn.Sigmoid(),
            nn.Linear(16, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.cnn(x).relu()
        gates = self.gate(self.eca(y.mean(2)[:, None]))[:, 0, :, None]
        return self.fc((y * gates).mean(2))  # type: ignore[no-any-return]


def test_attention_along_the_channels_is_no_grid() -> None:
    net, inputs = ChannelAttention().eval(), torch.randn(1, 2, 64)
    assert seewhy.explain(net, inputs).layers == ("cnn",)
    assert seewhy.explain(net, inputs, layers="all").layers == ("cnn",)


class Merging(nn.Module):
    """Cells with channels last, of which pairs along some axes are merged without a convolution, as in Swin transformers."""

    def __init__(self, axes: tuple[int, ...], rank: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.axes = axes
        self.embed = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank](3, 12, 2, 2)
        self.merge, self.norm = nn.Linear(12 * 2 ** len(axes), 20), nn.LayerNorm(20)
        self.fc = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.embed(x).movedim(1, -1)
        for axis in self.axes:
            cells = cells.unflatten(axis, (-1, 2)).movedim(axis + 1, -1).flatten(-2)
        cells = self.norm(self.merge(cells))
        return self.fc(cells.tanh().flatten(1, -2).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("axes", "size"),
    [
        ((2, 3), (8, 16, 24)), ((1, 2, 3), (8, 16, 24)), ((3,), (6, 16, 24)), ((2, 3), (8, 16, 16)), ((1,), (8, 8, 8)),
        ((1,), (16, 24)), ((2,), (16, 24)), ((1,), (16, 16)), ((1, 2), (16, 16)), ((1,), (40,)),
    ],
)  # fmt: skip
def test_grids_of_which_some_axes_are_halved(axes: tuple[int, ...], size: tuple[int, ...]) -> None:
    net = Merging(axes, len(size)).double().eval()
    x = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    e = seewhy.explain(net, x, targets=1, methods="hirescam")
    kept: list[Tensor] = []
    handle = net.norm.register_forward_hook(lambda *call: kept.append(call[2]))
    (gradient,) = torch.autograd.grad(net(x)[0, 1], kept)
    handle.remove()
    assert e.layers == ("norm",)
    torch.testing.assert_close(e.map()[0], (kept[0] * gradient)[0].sum(-1).detach())


def test_the_suggested_layer_of_a_swin_transformer_for_clips_is_its_last_one() -> None:
    torch.manual_seed(0)
    net = SwinTransformer3d([2, 4, 4], 16, [1, 1, 1], [1, 2, 2], [4, 4, 4], num_classes=5).eval()
    nn.init.normal_(net.head.weight)
    x, kept = torch.rand(1, 3, 8, 64, 96), list[Tensor]()
    e = seewhy.explain(net, x, targets=1, methods="hirescam")
    handle = net.norm.register_forward_hook(lambda *call: kept.append(call[2]))
    (gradient,) = torch.autograd.grad(net(x)[0, 1], kept)
    handle.remove()
    assert e.layers == ("norm",)
    torch.testing.assert_close(e.map()[0], (kept[0] * gradient)[0].sum(-1).detach())
    assert seewhy.explain(net, x, targets=1, layers=["features.2", "features.4"]).layers == ("features.2", "features.4")


class Heads(nn.Module):
    """Attention heads in the batch axis, which a convolution reads one by one, as in MViT."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.pool, self.fc = nn.Conv3d(3, 8, 2, 2), nn.Conv3d(4, 4, 3, 1, 1, groups=4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.pool(self.embed(x).unflatten(1, (2, 4)).flatten(0, 1))
        return self.fc(heads.relu().unflatten(0, (-1, 2)).mean((3, 4, 5)).flatten(1))  # type: ignore[no-any-return]


def test_rows_that_see_the_entire_input_are_no_tiles() -> None:
    e = seewhy.explain(Heads().eval(), torch.randn(1, 3, 4, 12, 16), layers="pool")
    assert "2 rows per input: one 2x6x8 map for each row, which sees the entire input" in e.layer_info["pool"].note


def halve_rows(cells: Tensor) -> Tensor:
    return (cells[:, :, ::2] + cells[:, :, 1::2]) / 2


RESIZE: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "adaptive pooling": (2, nn.AdaptiveAvgPool2d((7, 5))),
    "adaptive maximum": (2, nn.AdaptiveMaxPool2d((5, 7))),
    "one column": (2, nn.AdaptiveAvgPool2d((8, 1))),
    "function": (2, lambda cells: nn.functional.adaptive_avg_pool2d(cells, (6, 4))),
    "interpolation": (2, lambda cells: nn.functional.interpolate(cells, size=(9, 6), mode="bilinear")),
    "mean of rows": (2, lambda cells: cells.mean(2, keepdim=True)),
    "mean of columns": (2, lambda cells: cells.mean(3, keepdim=True)),
    "half of the rows": (2, halve_rows),
    "volume": (3, nn.AdaptiveAvgPool3d((2, 7, 3))),
    "frames": (3, lambda cells: cells.mean(2, keepdim=True)),
    "signal": (1, nn.AdaptiveAvgPool1d(9)),
}


class Resized(nn.Module):
    """A convolutional network whose last layers follow a resized grid."""

    def __init__(self, rank: int, resize: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.cnn = nn.Sequential(conv(3, 6, 3, 2, 1), nn.ReLU(), conv(6, 8, 3, 1, 1), nn.ReLU())
        self.norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank](8)
        self.pool, self.act, self.fc = resize, nn.ReLU(), nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.norm(self.pool(self.cnn(x)))).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", RESIZE)
def test_layers_after_a_resized_grid_have_that_grid(case: str) -> None:
    rank, resize = RESIZE[case]
    x = torch.randn(1, 3, *{1: (64,), 2: (64, 32), 3: (8, 32, 24)}[rank], dtype=torch.float64)
    net = Resized(rank, resize).double().eval()
    net(x)
    e = seewhy.explain(net, x, targets=1, methods="hirescam", layers=["norm", "act"])
    cells = net.norm(net.pool(net.cnn(x))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.fc(cells.relu().flatten(1))[0, 1], cells)
    torch.testing.assert_close(e.map(layer="norm")[0], (cells * gradient)[0].sum(0).detach())
    assert e.layer_info["norm"].grid == e.layer_info["act"].grid == tuple(cells.shape[2:])
    assert not any(info.note for info in e.layer_info.values())
