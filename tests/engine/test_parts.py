"""Layers with several rows per input: one map for each frame, patch or crop, in its place."""

import pytest
import torch
from torch.nn import functional as F

import seewhy
from seewhy.errors import MethodError
from support.part_networks import CASES, make, reference, rows_of

NAMES = list(CASES)
CLASSES = torch.tensor([1, 3])


def explain(name, images, **options):
    network, inputs = make(name, images)
    return network, inputs, seewhy.explain(network, inputs, targets="0" if images == 1 else None, **options)


def same(got, want, tolerance=1e-6):
    assert got.shape == want.shape
    assert torch.allclose(got.double(), want, rtol=tolerance, atol=tolerance * float(want.abs().max()))


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_each_part_has_its_own_map(name, images):
    network, inputs = make(name, images)
    classes = network(inputs).argmax(1)
    activations, gradients = reference(name, network, inputs, classes)
    grid_axes = tuple(range(3, activations.dim()))
    gradcam = (gradients.mean(grid_axes, keepdim=True) * activations).sum(2)
    hirescam = (gradients * activations).sum(2)
    for layers in ("suggested", "cnn", "all"):
        e = seewhy.explain(network, inputs, layers=layers, methods=["gradcam", "hirescam"])
        assert e.layers[-1] == "cnn" or layers == "all"
        same(e.map(method="gradcam", layer="cnn"), gradcam)
        same(e.map(method="hirescam", layer="cnn"), hirescam)
        assert len(e) == images
        assert e.layer_info["cnn"].grid == gradcam.shape[1:]
        assert tuple(part.box for part in e.layer_info["cnn"].parts) == CASES[name].boxes


@pytest.mark.parametrize("name", NAMES)
def test_heat_lies_in_the_place_of_its_part(name):
    """Each part is painted into its box by hand; where parts overlap, their maps are averaged."""
    network, inputs = make(name, 1)
    e = seewhy.explain(network, inputs, targets=1, methods="hirescam")
    activations, gradients = reference(name, network, inputs, torch.tensor([1]))
    parts = (gradients * activations).sum(2)[0]
    size = inputs.shape[2:] if name not in ("recurrent", "time major", "bag", "maximum") else (
        inputs.shape[1], *inputs.shape[3:]
    )  # fmt: skip
    cells = torch.zeros(size, dtype=torch.float64)
    count = torch.zeros(size)
    is_tiled = name in ("tiles", "zooms", "windows")
    for number, (part, box) in enumerate(zip(parts, CASES[name].boxes, strict=True)):
        part = part.flip(-1) if name == "flips" and number == 1 else part
        lengths = [stop - start for start, stop in box if stop - start > 1]
        at = tuple(slice(*ends) if ends[1] - ends[0] > 1 else ends[0] for ends in box)
        mode = "linear" if part.dim() == 1 else "bilinear"
        cells[at] += F.interpolate(part[None, None], lengths, mode=mode)[0, 0]
        count[at] += 1
    assert (count > 0).all() or name == "crops"
    want = (cells / count.clamp(min=1)).clamp(min=0)
    got = e.heatmap()[0].double()
    assert got.shape == size
    if is_tiled:  # interpolated across the borders of tiles, so only their inner part is equal
        assert torch.corrcoef(torch.stack([got.flatten(), want.flatten()]))[0, 1] > 0.8
    elif name in ("crops", "flips"):
        same(got, want / want.max())
    else:
        frames = torch.stack(
            [F.interpolate(one.clamp(min=0)[None, None], size[1:], mode="bilinear")[0, 0] for one in parts]
        )
        same(got, frames / frames.max())


@pytest.mark.parametrize("name", NAMES)
def test_methods_that_change_activations_change_one_part(name):
    network, inputs = make(name, 2)
    activations, _ = reference(name, network, inputs, CLASSES)
    e = seewhy.explain(
        network, inputs, layers="cnn", targets=1, methods=["ablationcam(batch_size=3)", "reciprocam(score=logit)"]
    )
    parts, channels = activations.shape[1:3]

    def score_with(image, part, changed):
        rows = activations.clone()
        rows[image, part] = changed
        flat = rows.transpose(0, 1).flatten(0, 1) if CASES[name].is_part_major else rows.flatten(0, 1)
        return network.join(flat, inputs)[image, 1]

    with torch.no_grad():
        own = network(inputs)[:, 1]
        for image, part in ((0, 0), (1, parts - 1), (1, 1)):
            values = activations[image, part]
            weights = []
            for channel in range(channels):
                changed = values.clone()
                changed[channel] = 0
                weights.append((own[image] - score_with(image, part, changed)) / own[image])
            cam = (torch.stack(weights).reshape(-1, *[1] * (values.dim() - 1)) * values).sum(0)
            same(e.map(method="ablationcam")[image, part], cam, 1e-5)
            kept = torch.zeros_like(values)
            place = tuple(length // 2 for length in values.shape[1:])
            kept[(slice(None), *place)] = values[(slice(None), *place)]
            got = e.map(method="reciprocam")[image, part][place]
            assert float(got) == pytest.approx(float(score_with(image, part, kept)), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].is_exact])
def test_methods_that_mask_the_input_mask_one_part(name):
    network, inputs = make(name, 2)
    activations, _ = reference(name, network, inputs, CLASSES)
    seen = rows_of(name, network.split(inputs), 2)
    e = seewhy.explain(network, inputs, layers="cnn", targets=1, methods="scorecam(batch_size=4)")
    is_sequence = name in ("recurrent", "time major", "bag", "maximum")
    image, part = 1, seen.shape[1] - 1
    values, weights = activations[image, part], []
    with torch.no_grad():
        for channel in values:
            mode = "linear" if channel.dim() == 1 else "bilinear"
            mask = F.interpolate(channel[None, None], seen.shape[3:], mode=mode)[0]
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            masked = inputs[image : image + 1].clone()
            own = mask.flip(-1) if name == "flips" else mask
            box = CASES[name].boxes[part]
            if is_sequence:
                masked[0, part] *= own
            elif name == "slices":
                masked[0, :, part] *= own
            else:
                masked[(0, slice(None), *(slice(*ends) for ends in box))] *= own
            weights.append(network(masked).softmax(1)[0, 1])
    cam = (torch.stack(weights).reshape(-1, *[1] * (values.dim() - 1)) * values).sum(0)
    same(e.map()[image, part], cam, 1e-5)


def test_resized_parts_are_not_masked():
    network, inputs = make("zooms", 1)
    with pytest.raises(MethodError, match="4 rows per input of 'cnn' are resized parts"):
        seewhy.explain(network, inputs, layers="cnn", methods="scorecam")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("cam", "are not read by a linear layer"),
        ("fullgrad", "have several rows per input"),
        ("augmented", "moves or resizes the input"),
        ("cameras", "moves or resizes the input"),
        ("polycam", "several rows per input"),
    ],
)
def test_methods_that_do_not_fit_say_why(method, reason):
    network, inputs = make("recurrent", 1)
    with pytest.raises(MethodError, match=reason):
        seewhy.explain(network, inputs, layers="every", methods=method)


def test_smoothed_maps_keep_parts_apart():
    network, inputs = make("time major", 2)
    e = seewhy.explain(network, inputs, layers="cnn", targets=1, methods=["gradcam", "smooth(sigma=0,samples=2)"])
    same(e.map(method="smooth(sigma=0.0,samples=2)"), e.map(method="gradcam"))


@pytest.mark.parametrize("name", ["recurrent", "tiles", "crops", "windows", "flips"])
def test_save_and_load_keep_parts(name, tmp_path):
    network, inputs = make(name, 1)
    e = seewhy.explain(network, inputs, targets=1, channels=2)
    e.save(tmp_path)
    loaded = seewhy.load_explanation(tmp_path)
    assert loaded.layer_info == e.layer_info
    same(loaded.map(), e.map()[0].double(), 1e-5)
    same(loaded.heatmap(), e.heatmap()[0].double(), 1e-5)
    assert e.overlay().size == loaded.overlay().size
    assert e.features_sheet().width > 0


def test_rows_that_are_no_parts_are_refused():
    """Rows that depend on the values of the input, such as sorted patches, have no place of their own."""

    class Shuffled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn, self.fc = torch.nn.Conv2d(3, 6, 3), torch.nn.Linear(6, 4)

        def forward(self, x):
            mixed = torch.cat([x + x.roll(1, 0), x - x.flip(0)])
            return self.fc(self.cnn(mixed).mean((2, 3)).unflatten(0, (2, -1)).sum(0))

    torch.manual_seed(0)
    with pytest.raises(seewhy.SeewhyError, match="has 2 rows for each input"):
        seewhy.explain(Shuffled().eval(), torch.randn(2, 3, 12, 12), layers="cnn")


class BagAsBatch(torch.nn.Module):
    """Patches (N, C, H, W) of one bag as the batch; one row of scores."""

    def __init__(self, is_flat=False):
        super().__init__()
        self.cnn = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        self.attention, self.fc, self.is_flat = torch.nn.Linear(8, 1), torch.nn.Linear(8, 4), is_flat

    def forward(self, x):
        return self.head(self.cnn(x))

    def head(self, features):
        pooled = features.mean((2, 3))
        scores = self.fc((self.attention(pooled).softmax(0) * pooled).sum(0, keepdim=True))
        return scores[0] if self.is_flat else scores


class Segments(BagAsBatch):
    """Three frames of each clip, next to each other in the batch (B * 3, C, H, W)."""

    def head(self, features):
        return self.fc(features.mean((2, 3)) ** 2).unflatten(0, (-1, 3)).mean(1)


class FrameLoop(BagAsBatch):
    """Frames (B, T, C, H, W), one call of the CNN for each."""

    def forward(self, x):
        self.rows = [self.cnn(x[:, number]) for number in range(x.shape[1])]
        return self.fc(torch.stack([rows.mean((2, 3)) for rows in self.rows], 1).cumsum(1).tanh().mean(1))


def parts_of_batch(net, inputs, target, outputs):
    features = net.cnn(inputs).detach().requires_grad_()
    scores = net.head(features).reshape(outputs, -1)[:, target]
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach().unflatten(0, (outputs, -1))


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam", "occlusion"])
@pytest.mark.parametrize(
    ("net_class", "rows", "outputs"), [(BagAsBatch, 5, 1), (BagAsBatch, 4, 1), (Segments, 6, 2), (Segments, 3, 1)]
)
@pytest.mark.parametrize("is_flat", [False, True])
def test_rows_that_make_one_output_are_parts_of_one_input(net_class, rows, outputs, is_flat, method):
    torch.manual_seed(0)
    net = net_class(is_flat).double().eval()
    inputs = torch.randn(rows, 3, 12, 12, dtype=torch.float64)
    for layers in ("suggested", "cnn"):
        e = seewhy.explain(net, inputs, targets=2, layers=layers, methods=method)
        assert len(e) == outputs and e.logits.shape == (outputs, 4)
        assert any(f"one output for {rows // outputs} rows of its input" in note for note in e.notes)
        assert e.map().shape[:2] == (outputs, rows // outputs)
        if method == "gradcam":
            same(e.map(), parts_of_batch(net, inputs, 2, outputs))


def test_an_output_without_batch_axis_is_one_row():
    torch.manual_seed(0)
    net = BagAsBatch(is_flat=True).double().eval()
    inputs = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    e = seewhy.explain(net, inputs, targets=2)
    assert len(e) == 1 and e.logits.shape == (1, 4)
    assert "the output has no batch axis; one was added" in e.notes
    same(e.map(), parts_of_batch(net, inputs, 2, 1)[:, 0])


@pytest.mark.parametrize("images", [1, 2])
def test_parts_in_a_loop_have_one_call_each(images):
    torch.manual_seed(0)
    net = FrameLoop().double().eval()
    clips = torch.randn(images, 4, 3, 12, 12, dtype=torch.float64)
    e = seewhy.explain(
        net, clips, targets=2, layers=["cnn#1", "cnn#2", "cnn#3", "cnn#4"], methods=["gradcam", "scorecam"]
    )
    scores = net(clips)[:, 2].sum()
    gradients = torch.autograd.grad(scores, net.rows)
    for number, (rows, gradient) in enumerate(zip(net.rows, gradients, strict=True)):
        want = (gradient.mean((2, 3), keepdim=True) * rows).sum(1).detach()
        layer = f"cnn#{number + 1}"
        same(e.map(layer=layer, method="gradcam")[:, 0], want)
        heat = e.heatmap(layer=layer, method="gradcam")
        assert heat.shape == (images, 4, 12, 12)
        assert not heat[:, [other for other in range(4) if other != number]].any()
        assert e.layer_info[layer].parts[0].box == ((number, number + 1), (0, 12), (0, 12))
    e = seewhy.explain(net, clips)
    assert all(f"cnn#{number}" in " ".join([*e.layers, *e.notes]) for number in (1, 2, 3, 4))


class MixesBatch(torch.nn.Module):
    """Normalizes with the statistics of the batch, also in eval mode."""

    def __init__(self):
        super().__init__()
        self.cnn = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8, track_running_stats=False))
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.cnn(x).relu().mean((2, 3)))


def test_a_batch_whose_rows_depend_on_each_other_is_refused():
    torch.manual_seed(0)
    net, inputs = MixesBatch().eval(), torch.randn(3, 3, 12, 12)
    for layers in ("suggested", "cnn"):
        with pytest.raises(seewhy.errors.ModelError, match="depends on the other inputs of the batch"):
            seewhy.explain(net, inputs, layers=layers)
    assert len(seewhy.explain(net, inputs[:1])) == 1


@pytest.mark.parametrize("method", ["scorecam", "occlusion", "ablationcam"])
def test_changed_versions_do_not_depend_on_each_other(method):
    """Where the rows of a batch do, changed versions of an image run one by one."""
    torch.manual_seed(0)
    net, image = MixesBatch().double().eval(), torch.randn(1, 3, 12, 12, dtype=torch.float64)
    e = seewhy.explain(net, image, layers="cnn.0", targets=1, methods=method)
    alone = seewhy.explain(net, image, layers="cnn.0", targets=1, methods=method, memory=1e-6)  # one row at a time
    same(e.map(), alone.map().double())


def test_random_models_are_not_mistaken_for_mixing_ones():
    class Noisy(MixesBatch):
        def forward(self, x):
            return self.fc(self.cnn[0](x).relu().mean((2, 3)) + torch.randn(len(x), 8))

    assert len(seewhy.explain(Noisy().eval(), torch.randn(3, 3, 12, 12))) == 3


class Recurrent(torch.nn.Module):
    """Frames folded into the batch, and a recurrent network, which takes time first unless it has `batch_first`."""

    def __init__(self, is_time_first):
        super().__init__()
        torch.manual_seed(0)
        self.is_time_first = is_time_first
        self.cnn, self.fc = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Linear(8, 4)
        self.rnn = torch.nn.GRU(8, 8, batch_first=not is_time_first)

    def forward(self, x):
        features = self.cnn(x.flatten(0, 1)).relu().mean((2, 3)).reshape(*x.shape[:2], 8)
        states = self.rnn(features)[0]
        return self.fc(states[-1] if self.is_time_first else states[:, -1])


@pytest.mark.parametrize(("frames", "clips"), [(5, 2), (6, 2), (6, 4), (3, 3), (2, 2), (2, 5), (7, 3), (4, 1)])
def test_clips_with_time_first(frames, clips):
    """The batch is the second axis, whether it is longer, shorter or as long as the first."""
    x = torch.randn(clips, frames, 3, 12, 12, dtype=torch.float64)
    usual, other = (Recurrent(is_time_first).double().eval() for is_time_first in (False, True))
    want = seewhy.explain(usual, x, methods=["gradcam", "scorecam"])
    got = seewhy.explain(other, x.transpose(0, 1), methods=["gradcam", "scorecam"])
    assert len(got) == clips and got.layers == want.layers == ("cnn",)
    for method in ("gradcam", "scorecam"):
        same(got.map(method=method), want.map(method=method).double())
        same(got.heatmap(method=method), want.heatmap(method=method).double())
    assert got.layer_info["cnn"].parts == want.layer_info["cnn"].parts
    assert clips == 1 or any("so this axis is the batch" in note for note in got.notes)


def test_an_output_whose_rows_belong_to_no_axis():
    """As many rows as images, also for one image."""

    class Queries(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cnn, self.fc = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 12)

        def forward(self, x):
            return self.fc(self.cnn(x).relu().mean((0, 2, 3))).reshape(3, 4)

    with pytest.raises(seewhy.SeewhyError, match="depends on the other inputs"):
        seewhy.explain(Queries().eval(), torch.randn(3, 3, 12, 12))


class SkipsPadding(torch.nn.Module):
    """A CNN for the frames that are not all zeros, and their mean."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Linear(8, 4)

    def forward(self, x):
        used = x.flatten(2).any(2)
        features = x.new_zeros(*used.shape, 8)
        features[used] = self.cnn(x[used]).relu().mean((2, 3)).tanh()
        return self.fc(features.sum(1))


def clips(*paddings):
    inputs = torch.randn(len(paddings), 4, 3, 12, 12, dtype=torch.float64)
    for clip, padding in zip(inputs, paddings, strict=True):
        clip[list(padding)] = 0
    return inputs


def test_frames_that_a_network_skips_have_no_heat():
    """Which frames it sees depends on the values, so places are observed in each call."""
    net = SkipsPadding().double().eval()
    for padding in ([3], [0], [1], [0], [0, 2], [1, 3]):
        e = seewhy.explain(net, clips(padding), targets=1)
        boxes = [part.box[0][0] for part in e.layer_info["cnn"].parts]
        assert boxes == [frame for frame in range(4) if frame not in padding]
        heat = e.heatmap()[0].flatten(1).amax(1)
        assert not heat[padding].any()
    assert len(seewhy.explain(net, clips([3], [3]), targets=1)) == 2
    for different in (clips([3], [3], [0]), clips([2, 3], []), clips([0], [1])):
        with pytest.raises(seewhy.errors.LayerError, match="could not be observed"):
            seewhy.explain(net, different, targets=1)


def test_heat_of_several_clips_per_input():
    """An input with four axes of positions: clips, frames, rows and columns."""

    class Clips(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cnn, self.fc = torch.nn.Conv3d(3, 8, 3, (1, 2, 2), 1), torch.nn.Linear(8, 4)

        def forward(self, x):
            features = self.cnn(x.flatten(0, 1)).tanh().mean((2, 3, 4)).unflatten(0, x.shape[:2])
            return self.fc(features.tanh().mean(1))

    e = seewhy.explain(Clips().eval(), torch.randn(2, 3, 3, 4, 12, 10), targets=1, methods="hirescam")
    assert e.map().shape == (2, 3, 4, 6, 5) and e.heatmap().shape == (2, 3, 4, 12, 10)
    positive = e.map().clamp(min=0)
    want = torch.stack([F.interpolate(clip[None], (4, 12, 10), mode="trilinear")[0] for clip in positive])
    same(e.heatmap(), (want / want.flatten(1).amax(1).reshape(2, 1, 1, 1, 1)).double(), 1e-5)


def test_frames_stacked_as_channels():
    """Rows that see channels of the entire input: a mask over one of them would cover the others as well."""

    class Stacked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cnn, self.fc = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Linear(32, 4)

        def features(self, x):
            return self.cnn(x.reshape(-1, 3, *x.shape[2:])).relu()

        def head(self, features):
            return self.fc(features.mean((2, 3)).reshape(-1, 32).tanh())

        def forward(self, x):
            return self.head(self.features(x))

    net, inputs = Stacked().double().eval(), torch.randn(2, 12, 12, 16, dtype=torch.float64)
    features = net.features(inputs).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(features)[:, 1].sum(), features)
    e = seewhy.explain(net, inputs, targets=1, methods="hirescam")
    same(e.map(), (gradient * features).sum(1).detach().reshape(2, 4, 6, 8))
    assert "some of its channels" in e.layer_info["cnn"].note
    with pytest.raises(MethodError, match="see the same place"):
        seewhy.explain(net, inputs, targets=1, methods="scorecam")
