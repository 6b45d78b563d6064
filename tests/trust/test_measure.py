"""`measure`: every metric of the catalog, compared with loops in float64 that call the model directly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

import seewhy
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.explanation.result import Explanation
from seewhy.images.samples import sample
from seewhy.methods.base import Method
from seewhy.signals.layer import Signals
from seewhy.trust.metrics.measurements import Measurements
from seewhy.trust.metrics.metric_list import METRICS
from support.docs_scripts import load_docs_script
from support.paths import ROOT

SIZE, SIDE, STEPS = 28, 7, 10


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 5, stride=2, padding=2)
        self.tail = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(F.gelu(self.tail(F.relu(self.conv(x)))).mean((2, 3)))
        return scores


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Net().double().eval()


@pytest.fixture(scope="module")
def explained(net: nn.Module) -> Explanation:
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()
    everything = covered(image[0], list(range(SIDE**2)))
    drops = [probability(net, image[0], target) - probability(net, everything, target) for target in range(4)]
    target = int(np.argmax(drops))  # MAS needs a score that drops
    return seewhy.explain(net, image, layers=["conv", "tail"], methods=["gradcam", "hirescam"], targets=target)


@pytest.fixture(scope="module")
def measured(net: nn.Module, explained: Explanation) -> Measurements:
    return seewhy.trust.measure(net, explained, "all", fillers="mean")


def unit_values(e: Explanation, method: str, layer: str) -> list[float]:
    """Return the sum of a map in each of 7 x 7 units, after linear interpolation of its 14 x 14 cells to 56 x 56."""
    signed = e.map(method, layer=layer)[0].numpy()
    at = (np.arange(56) + 0.5) / 4 - 0.5
    rows = np.stack([np.interp(at, np.arange(14), row) for row in signed])
    fine = np.stack([np.interp(at, np.arange(14), column) for column in rows.T]).T
    sums = [
        float(fine[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].sum()) / 16
        for row in range(SIDE)
        for column in range(SIDE)
    ]
    return sums


def covered(image: Tensor, units: list[int]) -> Tensor:
    """Return the image with units of 4 x 4 pixels replaced by the mean color."""
    changed = image.clone()
    for unit in units:
        row, column = divmod(unit, SIDE)
        for channel in range(3):
            changed[channel, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = image[channel].mean()
    return changed


def probability(net: nn.Module, image: Tensor, target: int) -> float:
    with torch.no_grad():
        scores = net(image[None])[0]
    weights = [math.exp(score) for score in scores.tolist()]
    return weights[target] / sum(weights)


def log_odds(net: nn.Module, image: Tensor, target: int) -> float:
    p = probability(net, image, target)
    return math.log(p / (1 - p))


def slow_curve(
    net: nn.Module, e: Explanation, values: list[float], *, descending: bool
) -> tuple[list[float], list[float]]:
    """Return fractions and probabilities while units are covered, in the order of their values."""
    assert e.inputs is not None
    order = sorted(range(len(values)), key=lambda unit: values[unit], reverse=descending)
    counts = [round(step * len(values) / STEPS) for step in range(STEPS + 1)]
    scores = [probability(net, covered(e.inputs[0], order[:count]), int(e.targets[0])) for count in counts]
    return [count / len(values) for count in counts], scores


def slow_area(fractions: list[float], scores: list[float]) -> float:
    pairs = zip(zip(fractions, scores, strict=True), list(zip(fractions, scores, strict=True))[1:], strict=False)
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairs)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("layer", ["conv", "tail"])
def test_removal_metrics(
    net: nn.Module, explained: Explanation, measured: Measurements, method: str, layer: str
) -> None:
    values = unit_values(explained, method, layer)
    first = slow_curve(net, explained, values, descending=True)
    last = slow_curve(net, explained, values, descending=False)
    where = {"method": method, "layer": layer}
    assert measured.value("deletion", **where) == pytest.approx(slow_area(*first), abs=1e-9)
    assert measured.value("insertion", **where) == pytest.approx(slow_area(*last), abs=1e-9)
    assert measured.value("srg", **where) == pytest.approx(slow_area(*last) - slow_area(*first), abs=1e-9)
    at = [step / STEPS for step in range(1, STEPS)]
    expected = [np.interp(x, *last) - np.interp(x, *first) for x in at]
    assert measured.value("road", **where) == pytest.approx(sum(expected) / len(expected) / 2, abs=1e-9)


@pytest.mark.parametrize("layer", ["conv", "tail"])
def test_metrics_with_shared_masks(net: nn.Module, explained: Explanation, measured: Measurements, layer: str) -> None:
    assert explained.inputs is not None
    image, target = explained.inputs[0], int(explained.targets[0])
    values, own = unit_values(explained, "hirescam", layer), log_odds(net, image, target)
    drops = [own - log_odds(net, covered(image, [unit]), target) for unit in range(SIDE**2)]
    where = {"method": "hirescam", "layer": layer}
    assert measured.value("single_deletion", **where) == pytest.approx(stats.spearmanr(values, drops)[0], abs=1e-9)

    random = np.random.default_rng(0)
    subsets = [np.nonzero(random.permutation(SIDE**2) < SIDE**2 // 2)[0].tolist() for _ in range(32)]
    sums = [sum(values[unit] for unit in subset) for subset in subsets]
    drops = [own - log_odds(net, covered(image, subset), target) for subset in subsets]
    assert measured.value("sensitivity_n", **where) == pytest.approx(stats.pearsonr(sums, drops)[0], abs=1e-9)
    product = sum(s * d for s, d in zip(sums, drops, strict=True))
    r = product / math.sqrt(sum(s * s for s in sums) * sum(d * d for d in drops))
    assert measured.value("infidelity", **where) == pytest.approx(1 - r * abs(r), abs=1e-9)


@pytest.mark.parametrize("layer", ["conv", "tail"])
def test_metrics_of_the_dimmed_image(
    net: nn.Module, explained: Explanation, measured: Measurements, layer: str
) -> None:
    assert explained.inputs is not None
    image, target = explained.inputs[0], int(explained.targets[0])
    heatmap = explained.heatmap("gradcam", layer=layer)[0].double()
    p = probability(net, image, target)
    kept, removed = probability(net, image * heatmap, target), probability(net, image * (1 - heatmap), target)
    where = {"method": "gradcam", "layer": layer}
    drop = max(0.0, p - kept) / p
    assert measured.value("average_drop", **where) == pytest.approx(drop, abs=1e-6)
    assert measured.value("increase", **where) == float(kept > p)
    assert measured.value("average_gain", **where) == pytest.approx(max(0.0, kept - p) / (1 - p), abs=1e-6)
    assert measured.value("drop_in_deletion", **where) == pytest.approx((p - removed) / p, abs=1e-6)
    complexity = float(heatmap.mean())
    assert measured.value("complexity", **where) == pytest.approx(complexity, abs=1e-6)

    again = seewhy.explain(net, (image * heatmap)[None], methods="gradcam", layers=layer, targets=target).heatmap()[0]
    coherency = (float(np.corrcoef(heatmap.flatten(), again.double().flatten())[0, 1]) + 1) / 2
    assert measured.value("coherency", **where) == pytest.approx(coherency, abs=1e-6)
    harmonic = 3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - drop))
    assert measured.value("adcc", **where) == pytest.approx(harmonic, abs=1e-5)


def test_explained_fraction_of_a_mean_pooled_layer(
    net: nn.Module, explained: Explanation, measured: Measurements
) -> None:
    """The score without the layer is computed by a second network, in which the layer's output is zero."""
    assert explained.inputs is not None
    target = int(explained.targets[0])
    with torch.no_grad():
        score = float(net(explained.inputs)[0, target])
        without = float(net.head(F.gelu(torch.zeros(1, 8, 14, 14).double()).mean((2, 3)))[0, target])
    expected = float(explained.map("hirescam", layer="tail").sum()) / (score - without)
    assert measured.value("explained_fraction", method="hirescam", layer="tail") == pytest.approx(expected, abs=1e-9)


def test_class_sensitivity(net: nn.Module, explained: Explanation, measured: Measurements) -> None:
    assert explained.logits is not None
    order = explained.logits[0].argsort(descending=True).tolist()
    second = next(index for index in order if index != int(explained.targets[0]))
    other = seewhy.explain(net, explained.inputs, methods="hirescam", layers="conv", targets=second).map()
    expected = stats.spearmanr(explained.map("hirescam", layer="conv").flatten(), other.flatten())[0]
    assert measured.value("class_sensitivity", method="hirescam", layer="conv") == pytest.approx(expected, abs=1e-9)


def test_stability_and_random_weights(measured: Measurements) -> None:
    for name in ("max_sensitivity", "mprt", "efficient_mprt", "sparseness", "entropy"):
        values = [row.values[name] for row in measured.rows]
        assert all(math.isfinite(value) for value in values), name
        assert len({round(value, 9) for value in values}) > 1, name  # not one constant
    assert all(abs(row.values["mprt"]) < 1 for row in measured.rows)


def test_every_metric_has_a_value_and_a_complete_card(measured: Measurements) -> None:
    assert measured.columns == tuple(metric.name for metric in METRICS)
    assert len(set(measured.columns)) == len(METRICS)
    assert all(not row.reasons for row in measured.rows)
    for metric in METRICS:
        for fact in ("formula", "paper", "chance", "cost", "trap", "undefined"):
            assert getattr(metric.card, fact), (metric.name, fact)


def test_progress_ends_at_the_total(net: nn.Module, explained: Explanation) -> None:
    calls: list[tuple[int, int]] = []
    seewhy.trust.measure(
        net, explained, ["srg", "single_deletion", "sensitivity_n", "infidelity", "deletion"],
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls[-1][0] == calls[-1][1]


def test_several_images_and_targets(net: nn.Module, explained: Explanation) -> None:
    """Each row equals that of the image alone."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(2, 3, SIZE, SIZE, generator=generator).double()
    together = seewhy.trust.measure(
        net, seewhy.explain(net, images, layers="conv", targets=[0, 2]), ["srg", "single_deletion"]
    )
    assert together.columns == ("srg(blur)", "srg(mean)", "single_deletion(blur)", "single_deletion(mean)")
    assert len(together.rows) == 4
    for index in range(2):
        e = seewhy.explain(net, images[index : index + 1], layers="conv", targets=[0, 2])
        alone = seewhy.trust.measure(net, e, ["srg", "single_deletion"])
        for target in ("0", "2"):
            for column in together.columns:
                assert together.value(column, target=target, image=index) == pytest.approx(
                    alone.value(column, target=target), abs=1e-9
                )
    with pytest.raises(ChoiceError, match="2 maps match"):
        together.value("srg(blur)", target="0")
    with pytest.raises(UnknownName, match=r"srg\(blur\)"):
        together.value("srg")


@dataclass(frozen=True)
class ConstantCAM(Method):
    def __call__(self, signals: Signals) -> Tensor:
        return torch.ones_like(signals.activations[:, 0])


@dataclass(frozen=True)
class NegativeCAM(Method):
    def __call__(self, signals: Signals) -> Tensor:
        return -signals.activations.abs().sum(1)


def test_values_that_are_not_defined_have_a_reason(net: nn.Module, explained: Explanation) -> None:
    e = seewhy.explain(net, explained.inputs, layers="tail", methods=[ConstantCAM(), NegativeCAM()])
    measured = seewhy.trust.measure(net, e, "all", fillers="mean")
    constant, negative = measured.rows
    assert set(constant.reasons.values()) == {"the map has the same value everywhere"}
    assert all(math.isnan(value) for value in constant.values.values())
    assert math.isfinite(negative.values["srg"])  # a negative map has an order
    assert negative.reasons["average_drop"] == "the map has no positive evidence"
    assert "cannot be computed again" in negative.reasons["class_sensitivity"]
    assert "not in the catalog" in negative.reasons["mprt"]
    assert measured.to_dict()["rows"][0]["values"]["srg"] is None
    assert measured.to_csv().splitlines()[1] == f"0,constantcam,{e.targets[0]},tail" + "," * len(METRICS)


class LayerCAM(Method):
    """A method without classes that has the name of one in the catalog."""

    def __call__(self, signals: Signals) -> Tensor:
        return signals.activations.sum(1)


def test_a_method_that_cannot_be_repeated_has_no_repeated_values(net: nn.Module, explained: Explanation) -> None:
    """The other methods keep theirs, and a method with the name of another one is not replaced by it."""
    methods = ["gradcam", "deepfeaturefactorization(concepts=2)", LayerCAM()]
    e = seewhy.explain(net, explained.inputs, layers="tail", methods=methods)
    measured = seewhy.trust.measure(
        net, e, ["class_sensitivity", "mprt", "max_sensitivity", "coherency"], fillers="mean"
    )
    for row in measured.rows:
        for name, value in row.values.items():
            assert math.isfinite(value) == (row.method == "gradcam"), (row.method, name)
    reasons = {row.method: row.reasons for row in measured.rows}
    assert "gives another map when it is computed again" in reasons["layercam"]["mprt"]
    assert "not in the catalog" in reasons["deepfeaturefactorization(concepts=2)#1"]["mprt"]


def test_values_that_do_not_add_up_have_no_explained_fraction(net: nn.Module, explained: Explanation) -> None:
    e = seewhy.explain(net, explained.inputs, layers="tail", methods=["gradcam++", "fullgrad", "xgradcam"])
    rows = {row.method: row for row in seewhy.trust.measure(net, e, "explained_fraction").rows}
    assert "do not add up to the score" in rows["gradcam++"].reasons["explained_fraction"]
    assert math.isnan(rows["fullgrad"].values["explained_fraction"])
    assert math.isfinite(rows["xgradcam"].values["explained_fraction"])


class Fragile(nn.Module):
    """Scores are not finite numbers for a smooth image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.conv(x).mean((2, 3))
        is_smooth = (x - x.mean((1, 2, 3), keepdim=True)).abs().amax((1, 2, 3)) < 1e-3
        return torch.where(is_smooth[:, None], torch.nan, scores)


def test_scores_that_are_not_finite_are_the_reason() -> None:
    image = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    net = Fragile().eval()
    measured = seewhy.trust.measure(
        net, seewhy.explain(net, image, layers="conv"), ["srg", "single_deletion"], fillers="mean"
    )
    assert measured.rows[0].reasons["srg"] == "the score is not a finite number when parts of the image are covered"


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.conv(x).relu())
        return scores


def test_targets_that_are_selected_again_have_no_repeated_maps() -> None:
    torch.manual_seed(0)
    net = Pixels().eval()
    e = seewhy.explain(net, torch.rand(1, 3, 24, 24), layers="conv")
    (row,) = seewhy.trust.measure(net, e, ["srg", "mprt", "max_sensitivity", "average_drop"], fillers="mean").rows
    assert math.isfinite(row.values["srg"])
    assert "selected" in row.reasons["mprt"] and "selected" in row.reasons["max_sensitivity"]
    assert "not a class" in row.reasons["average_drop"]


class WithMeta(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.cat([self.conv(x).relu().mean((2, 3)), meta], 1))
        return scores


def test_arguments_of_each_image_are_repeated_with_it() -> None:
    torch.manual_seed(0)
    net, images, meta = WithMeta().eval(), torch.rand(2, 3, 20, 20), torch.randn(2, 4)
    names = ["class_sensitivity", "max_sensitivity", "mprt", "coherency", "srg"]
    e = seewhy.explain(net, images, layers="conv", arguments={"meta": meta})
    together = seewhy.trust.measure(net, e, names, fillers="mean", arguments={"meta": meta})
    for image in range(2):
        one = {"meta": meta[image : image + 1]}
        alone = seewhy.explain(net, images[image : image + 1], layers="conv", arguments=one)
        measured = seewhy.trust.measure(net, alone, names, fillers="mean", arguments=one)
        for name in names:
            assert together.value(name, image=image) == pytest.approx(measured.value(name), abs=1e-5), name


class Dim(nn.Module):
    """Class 1 is a dark image: covering anything with a darker color raises its score."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        brightness = self.conv(x).mean((1, 2, 3))
        return torch.stack([torch.zeros_like(brightness), 4 - 8 * brightness], 1)


def test_a_filler_that_does_not_lower_the_score_is_noted() -> None:
    image = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.2
    net = Dim()
    measured = seewhy.trust.measure(net, seewhy.explain(net, image, layers="conv"), "srg", fillers="mean")
    assert len(measured.notes) == 1
    assert "covering the entire image changes class 1 from" in measured.notes[0]


class AnyChange(nn.Module):
    """Any large smooth area changes the class, wherever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, (1, 2), bias=False)
        self.conv.weight.data = torch.tensor([[[[1.0, -1.0]]]])

    def forward(self, x: Tensor) -> Tensor:
        smooth = (self.conv(x).abs() < 1e-6).float().mean((1, 2, 3))
        edges = self.conv(x).abs().mean((1, 2, 3))
        return torch.stack([200 * smooth - 8, edges], 1)


def test_a_filler_that_imitates_another_class_is_noted() -> None:
    image = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    net = AnyChange()
    measured = seewhy.trust.measure(net, seewhy.explain(net, image, layers="conv", targets=1), "srg", fillers="mean")
    assert len(measured.notes) == 1
    assert "covering a random 20% of the image lowers class 1" in measured.notes[0]


def test_unknown_names(net: nn.Module, explained: Explanation) -> None:
    with pytest.raises(UnknownName, match=r"no metric 'sgr'.*srg"):
        seewhy.trust.measure(net, explained, "sgr")
    with pytest.raises(UnknownName, match=r"no filler 'blurr'.*blur"):
        seewhy.trust.measure(net, explained, "srg", fillers="blurr")
    with pytest.raises(UsageError, match=r"no metrics"):
        seewhy.trust.measure(net, explained, [])
    with pytest.raises(UsageError, match=r"no fillers"):
        seewhy.trust.measure(net, explained, "srg", fillers=[])


def test_the_model_is_not_changed(net: nn.Module, explained: Explanation) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seewhy.trust.measure(net, explained, ["mprt", "explained_fraction", "srg"])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_prepared_models_give_the_same_values() -> None:
    model = seewhy.load_model()
    e = seewhy.explain(model, str(sample("coffee")), layers="suggested")
    plain = seewhy.trust.measure(model, e, ["srg", "single_deletion"], fillers="mean")
    fast = seewhy.trust.measure(seewhy.prepare(model), e, ["srg", "single_deletion"], fillers="mean")
    for column in plain.columns:
        assert fast.value(column) == pytest.approx(plain.value(column), abs=2e-3)


def test_the_page_of_metrics_is_current() -> None:
    script = load_docs_script("make_metrics")
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert page == script.page(), "update the page: python docs/make_metrics.py"
