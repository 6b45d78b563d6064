"""Class scores that are probabilities already are recognized, and not normalized a second time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.targets import ClassLogProbability, ClassProbability


class Scores(nn.Module):
    """A small network with the given last layer."""

    def __init__(self, last: nn.Module, classes: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.fc, self.last = nn.Linear(8, classes), last
        with torch.no_grad():
            self.fc.weight.mul_(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.body(x).mean((2, 3))))  # type: ignore[no-any-return]


class Ensemble(nn.Module):
    """The mean of the probabilities of several networks, and a temperature: no softmax is the last operation."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList([Scores(nn.Softmax(1)), Scores(nn.Softmax(-1))])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


class Spherical(nn.Module):
    """Hyperspherical scores: squares that sum to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1).square()


INPUTS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "net",
    [
        Scores(nn.Softmax(1)), Scores(nn.Sigmoid()), Scores(nn.Sigmoid(), classes=1), Ensemble(), Scores(Spherical()),
        Scores(nn.Sequential(nn.Softmax(1), nn.Identity())), Scores(nn.Hardsigmoid()),
    ],
    ids=["softmax", "sigmoid", "one sigmoid", "ensemble", "squares", "softmax and identity", "hardsigmoid"],
)  # fmt: skip
@pytest.mark.parametrize("multilabel", [False, True])
def test_probabilities_are_those_of_the_network(net: nn.Module, multilabel: bool) -> None:
    own = net.eval()(INPUTS).detach()
    e = seewhy.explain(net, INPUTS, layers="every", targets=0, multilabel=multilabel)
    assert torch.equal(e.probabilities, own) and e.normalized
    assert e.target_results[0].probabilities is not None
    assert torch.equal(e.target_results[0].probabilities, own[:, 0])
    assert any("shown as probabilities" in note for note in e.notes)


@pytest.mark.parametrize("last", [nn.Identity(), nn.LogSoftmax(1), nn.Tanh(), nn.ReLU(), nn.Softplus()])
def test_other_scores_are_logits(last: nn.Module) -> None:
    net = Scores(last).eval()
    e = seewhy.explain(net, INPUTS, layers="every", targets=0)
    assert not e.normalized and torch.allclose(e.probabilities, net(INPUTS).softmax(1))


def test_logits_that_happen_to_lie_in_the_unit_interval() -> None:
    net = Scores(nn.Identity()).eval()
    with torch.no_grad():
        net.fc.weight.mul_(1e-3)
        net.fc.bias.uniform_(0.3, 0.6)
    assert not seewhy.explain(net, INPUTS, layers="every").normalized


def test_targets_and_methods_use_the_networks_own_probabilities() -> None:
    """A Score-CAM of probabilities weights with them; a second softmax would give other weights."""
    logits, softmax = Scores(nn.Identity()).eval(), Scores(nn.Softmax(1)).eval()
    softmax.load_state_dict(logits.state_dict())
    for method in ("scorecam", "reciprocam"):
        expected = seewhy.explain(logits, INPUTS, methods=method, layers="body.1", targets=2).map()
        torch.testing.assert_close(
            seewhy.explain(softmax, INPUTS, methods=method, layers="body.1", targets=2).map(), expected
        )
    for target in (ClassProbability(2), ClassLogProbability(2)):
        e, other = (seewhy.explain(net, INPUTS, layers="body.1", targets=target) for net in (softmax, logits))
        torch.testing.assert_close(e.target_results[0].scores, other.target_results[0].scores)
        torch.testing.assert_close(e.map(), other.map(), rtol=1e-4, atol=1e-6)


def test_the_meaning_of_scores_can_be_overridden() -> None:
    net = Scores(nn.Softmax(1)).eval()
    e = seewhy.explain(net, INPUTS, layers="every", scores="logits")
    assert not e.normalized and torch.allclose(e.probabilities, net(INPUTS).softmax(1))
    net = Scores(nn.Identity()).eval()
    assert seewhy.explain(net, INPUTS, layers="every", scores="probabilities").normalized
    with pytest.raises(seewhy.UsageError, match="scores"):
        seewhy.explain(net, INPUTS, scores="logit")  # type: ignore[arg-type]


def test_the_check_runs_once_per_model() -> None:
    net, calls = Scores(nn.Softmax(1)).eval(), list[int]()
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    seewhy.explain(net, INPUTS, layers="every")
    first = len(calls)
    seewhy.explain(net, INPUTS, layers="every")
    assert len(calls) == first + 1


class Features(nn.Module):
    """A small CNN whose features (B, 8) `head` turns into the output; `front` changes the input first."""

    def __init__(
        self, head: Callable[[nn.Module, Tensor], Tensor], front: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cnn, self.fc, self.gate, self.experts = (
            nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(8, 3), nn.Linear(8, 12)
        )  # fmt: skip
        self.head, self.front = head, front

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, self.cnn(self.front(x)).relu().mean((2, 3)))


def mixture(net: nn.Module, y: Tensor) -> Tensor:
    experts = net.experts(y).unflatten(1, (3, 4)).sigmoid()  # type: ignore[operator]
    return torch.einsum("be,bek->bk", net.gate(y).softmax(1), experts)  # type: ignore[operator]


def written_out(net: nn.Module, y: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-net.fc(y)))  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize("head", [mixture, written_out, lambda net, y: torch.exp(-net.fc(y).square())])
def test_probabilities_that_are_computed_in_other_ways(head: Callable[[nn.Module, Tensor], Tensor]) -> None:
    net, inputs = Features(head).eval(), torch.rand(2, 3, 12, 10)
    assert torch.allclose(seewhy.explain(net, inputs).probabilities, net(inputs).detach())


@pytest.mark.parametrize("front", [torch.log, torch.sqrt, lambda x: (x + 1).log().exp()])
def test_models_for_positive_inputs(front: Callable[[Tensor], Tensor]) -> None:
    """Random inputs with negative values have no finite scores."""
    net = Features(lambda net, y: net.fc(y).softmax(1), front).eval()  # type: ignore[operator]
    inputs = torch.rand(2, 3, 12, 10) + 0.1
    assert torch.allclose(seewhy.explain(net, inputs).probabilities, net(inputs).detach())


def test_a_model_that_checks_the_range_of_its_input() -> None:
    def checked(x: Tensor) -> Tensor:
        assert x.min() >= 0 and x.max() <= 1
        return x

    net, inputs = Features(lambda net, y: net.fc(y).softmax(1), checked).eval(), torch.rand(2, 3, 12, 10)  # type: ignore[operator]
    assert seewhy.explain(net, inputs, targets=1).map().shape[0] == 2


def test_a_head_that_is_trained_after_the_first_call() -> None:
    net, inputs = Features(lambda net, y: net.fc(y).softmax(1)).eval(), torch.rand(1, 3, 12, 10)  # type: ignore[operator]
    weights = net.fc.weight.detach().clone()
    nn.init.zeros_(net.fc.weight)
    nn.init.zeros_(net.fc.bias)
    seewhy.explain(net, inputs)
    net.fc.weight.data = weights * 10
    assert torch.allclose(seewhy.explain(net, inputs).probabilities, net(inputs).detach())


class Mask(nn.Module):
    """A segmentation network with one class."""

    def __init__(self, *, with_sigmoid: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.cnn, self.out, self.with_sigmoid = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 1, 1), with_sigmoid

    def forward(self, x: Tensor) -> Tensor:
        logits = self.out(self.cnn(x).relu())
        return logits.sigmoid() if self.with_sigmoid else logits  # type: ignore[no-any-return]


def test_a_mask_of_probabilities() -> None:
    """The region is where the probability is larger than one half."""
    inputs = torch.randn(1, 3, 16, 16)
    net = Mask(with_sigmoid=True).eval()
    output = net(inputs).detach()
    assert 0 < (output > 0.5).float().mean() < 1
    e = seewhy.explain(net, inputs)
    assert torch.allclose(e.target_results[0].scores, output[output > 0.5].sum()[None])
    logits = Mask(with_sigmoid=False).eval()
    scores = seewhy.explain(logits, inputs).target_results[0].scores
    assert torch.allclose(scores, logits(inputs).detach().clamp(min=0).sum()[None])


class UnitLength(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1)


class Trunk(nn.Module):
    """A residual network without its classifier."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), norm

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return (y + self.norm(self.body(y))).relu().mean((2, 3))  # type: ignore[no-any-return]


class Prototypes(Trunk):
    """A classifier without a layer: the distances of the features from one vector per class."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(8))
        self.centers = nn.Parameter(torch.randn(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(super().forward(x), self.centers)


def notes_about_features(net: nn.Module, **options: object) -> list[str]:
    return [note for note in seewhy.explain(net.eval(), INPUTS, **options).notes if "explained as if" in note]  # type: ignore[arg-type]


def test_an_embedding_of_unit_length_is_no_list_of_classes() -> None:
    net = Scores(UnitLength(), classes=16)
    (note,) = notes_about_features(net)
    assert note.startswith("the output has length 1 for these and for random inputs") and "its 16 numbers" in note
    assert notes_about_features(net) == [note]
    positive = Scores(nn.Sequential(nn.ReLU(), UnitLength()), classes=16)
    assert "length 1" in notes_about_features(positive)[0]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8)])
def test_a_network_without_its_classifier(norm: nn.Module) -> None:
    assert "so the 8 numbers of the output may be features" in notes_about_features(Trunk(norm))[0]


def test_class_scores_have_no_note_about_features() -> None:
    for net in (Scores(nn.Identity()), Scores(nn.Softmax(1)), Scores(nn.Sequential(nn.Linear(6, 4, bias=False)))):
        assert notes_about_features(net) == []
    assert notes_about_features(Prototypes()) == []
    named = [f"class {index}" for index in range(16)]
    assert notes_about_features(Scores(UnitLength(), classes=16), labels=named) == []
    values = seewhy.explain(Scores(UnitLength(), classes=16), INPUTS, targets=lambda output: output[:, :4].sum(1))
    assert not any("explained as if" in note for note in values.notes)


def test_independent_probabilities_of_length_one_by_chance() -> None:
    """Large random inputs saturate the sigmoids, so that one of them is 1 and the others are 0: a length of 1 again."""
    net = Scores(nn.Sigmoid())
    with torch.no_grad():
        net.fc.weight.mul_(4)
    image = INPUTS[:1]
    with torch.no_grad():  # scale the probabilities to a length of exactly 1
        logits = net.fc(net.body(image).mean((2, 3)))
        low, high = -20.0, 20.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if (logits + middle).sigmoid().norm() > 1 else (middle, high)
        assert net.fc.bias is not None
        net.fc.bias.add_(low)
    e = seewhy.explain(net, image)
    assert e.logits is not None and abs(float(e.logits.norm()) - 1) < 1e-5
    assert e.probabilities is not None and torch.allclose(e.probabilities, net(image).detach())
    assert not any("explained as if" in note for note in e.notes)


class Tail(nn.Module):
    """A network whose last layers are normalization and, perhaps, a softmax or sigmoid."""

    def __init__(self, last: nn.Module, *, is_pooled: bool = False, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.fc = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), nn.Linear(8, classes)
        self.maps = nn.Sequential(nn.Conv2d(8, classes, 1), nn.BatchNorm2d(classes), nn.ReLU())
        self.norm, self.last, self.is_pooled = nn.BatchNorm1d(classes), last, is_pooled

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        scores = self.maps(features).mean((2, 3)) if self.is_pooled else self.norm(self.fc(features.mean((2, 3))))
        return self.last(scores)  # type: ignore[no-any-return]


@pytest.mark.parametrize("is_pooled", [False, True])
@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sigmoid()])
def test_probabilities_behind_a_normalization_layer(last: nn.Module, is_pooled: bool) -> None:
    net = Tail(last, is_pooled=is_pooled).eval()
    e = seewhy.explain(net, INPUTS)
    assert e.probabilities is not None and torch.allclose(e.probabilities, net(INPUTS).detach(), atol=1e-6)
    assert not any("explained as if" in note for note in e.notes)


def test_a_normalization_layer_behind_the_classifier() -> None:
    assert notes_about_features(Tail(nn.Identity())) == []
    assert len(notes_about_features(Tail(nn.Identity(), is_pooled=True))) == 1
    assert notes_about_features(Tail(nn.Identity(), is_pooled=True), scores="logits") == []
    assert notes_about_features(Tail(nn.Identity(), is_pooled=True, classes=1)) == []


def test_scores_of_length_one_by_chance() -> None:
    """Only the scores for the inputs at hand have length 1."""
    net = Scores(nn.Identity(), classes=16)
    scores = net(INPUTS[:1]).detach()
    with torch.no_grad():
        net.fc.weight.div_(scores.norm())
        assert net.fc.bias is not None
        net.fc.bias.div_(scores.norm())
    e = seewhy.explain(net, INPUTS[:1])
    assert e.logits is not None and abs(float(e.logits.norm()) - 1) < 1e-5
    assert not any("explained as if" in note for note in e.notes)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


LOG_SIGMOIDS: list[Callable[[Tensor], Tensor]] = [
    nn.functional.logsigmoid,
    lambda y: y.sigmoid().log(),
    lambda y: -nn.functional.softplus(-y),
    lambda y: -torch.log1p(torch.exp(-y.clamp(-50, 50))),
]
IN_UNIT_RANGE: list[Callable[[Tensor], Tensor]] = [
    lambda y: y.atan() / torch.pi + 0.5,
    lambda y: (nn.functional.softsign(y) + 1) / 2,
    lambda y: 1 / (1 + y.square()),
    lambda y: nn.functional.softplus(y) / (1 + nn.functional.softplus(y)),
    lambda y: y.sin().square(),
    lambda y: (y.cos() + 1) / 2,
    lambda y: y.square() / (1 + y.square()),
]


@pytest.mark.parametrize("function", LOG_SIGMOIDS)
@pytest.mark.parametrize("classes", [1, 6])
def test_logarithms_of_the_probabilities_of_labels(function: Callable[[Tensor], Tensor], classes: int) -> None:
    net = Scores(Function(function), classes=classes).eval()
    for _ in range(2):
        for target in (0, ClassProbability(0, multilabel=True)):
            e = seewhy.explain(net, INPUTS, targets=target, multilabel=True)
            assert any("like logarithms of the probabilities" in note for note in e.notes) and not e.normalized
    corrected = Scores(Function(lambda y: function(y).exp()), classes=classes).eval()  # as the note advises
    e = seewhy.explain(corrected, INPUTS, multilabel=True)
    assert torch.allclose(e.probabilities, corrected(INPUTS).detach()) and e.normalized


@pytest.mark.parametrize("function", IN_UNIT_RANGE)
def test_scores_that_may_be_probabilities(function: Callable[[Tensor], Tensor]) -> None:
    net = Scores(Function(function)).eval()
    for _ in range(2):
        e = seewhy.explain(net, INPUTS, layers="every")
        assert any("pass scores='probabilities'" in note for note in e.notes) and not e.normalized
    e = seewhy.explain(net, INPUTS, layers="every", scores="probabilities")
    assert torch.equal(e.probabilities, net(INPUTS).detach()) and not any("if they are" in note for note in e.notes)


def test_percentages() -> None:
    net = Scores(Function(lambda y: 100 * y.softmax(1))).eval()
    assert any("like percentages" in note for note in seewhy.explain(net, INPUTS).notes)
    assert seewhy.explain(Scores(Function(lambda y: 100 * y.softmax(1) / 100)).eval(), INPUTS).normalized


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y,
        lambda y: -y.square(),
        lambda y: -y.abs(),
        lambda y: y.log_softmax(1),
        lambda y: -torch.cdist(y, torch.eye(6)),
        nn.functional.softplus,
        lambda y: y.tanh(),
        lambda y: y - y.amax(1, keepdim=True),
    ],
)
def test_logits_need_no_note_and_one_pass(function: Callable[[Tensor], Tensor]) -> None:
    net, calls = Scores(Function(function)).eval(), list[int]()
    e = seewhy.explain(net, INPUTS, layers="body")
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    assert len(seewhy.explain(net, INPUTS, layers="body").logits) == len(INPUTS) and len(calls) == 1
    assert not e.normalized and not any("class scores" in note for note in e.notes)
    assert torch.equal(e.probabilities, net(INPUTS).detach().softmax(1))
