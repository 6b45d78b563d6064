"""Models that fail on covered images, take other paths for them, or work in place: maps are kept, with a reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.explanation.checks import MapCheck
from seewhy.targets import ClassScore
from seewhy.trust.statistic import correlation, judge


class Fragile(nn.Module):
    """A small network that treats an image of low contrast in another way. Images for `explain` have high contrast."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, image: Tensor) -> object:
        if self.how == "in place":
            image.sub_(0.5)
        is_covered = bool((image.flatten(1).std(1) < 1.2).any())
        if is_covered and self.how in ("ValueError", "AssertionError", "OSError"):
            raise {"ValueError": ValueError, "AssertionError": AssertionError, "OSError": OSError}[self.how](
                "low contrast"
            )
        features = self.conv(image)
        if not (is_covered and self.how == "other path"):
            features = self.norm(features)
        scores: Tensor = self.fc(features.relu().mean((2, 3)))
        if is_covered and self.how == "other output":
            return {"loss": scores.sum()}
        return scores[:, :2] if is_covered and self.how == "fewer classes" else scores


def images(count: int = 1) -> Tensor:
    return (torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.5).float() * 3


@pytest.mark.parametrize("how", ["ValueError", "AssertionError", "OSError", "other output", "fewer classes"])
@pytest.mark.parametrize("is_prepared", [False, True], ids=["plain", "prepared"])
def test_a_model_that_fails_on_covered_images_is_not_checked(how: str, is_prepared: bool) -> None:
    net = Fragile(how).eval()
    model = seewhy.prepare(net) if is_prepared else net
    e = seewhy.trust.check(model, seewhy.explain(model, images(), layers="conv", targets=3))
    check = e[0].check()
    assert isinstance(check, MapCheck) and check.verdict == "not checked"
    assert check.reason.startswith("the model fails on covered images (")


def same_checks(first: seewhy.Explanation, second: seewhy.Explanation) -> int:
    """Compare the checks of two explanations of one image, and return how many maps were checked."""
    assert first.checks.keys() == second.checks.keys()
    for key, (one,) in first.checks.items():
        (other,) = second.checks[key]
        assert one.verdict == other.verdict and one.r == pytest.approx(other.r, abs=1e-3, nan_ok=True)
    return sum(one.verdict != "not checked" for (one,) in first.checks.values())


def test_another_path_for_covered_images_runs_unprepared() -> None:
    net = Fragile("other path").eval()
    settings = {"layers": "conv", "targets": [0, 1, 2, 3]}
    plain = seewhy.trust.check(net, seewhy.explain(net, images(), **settings))  # type: ignore[arg-type]
    model = seewhy.prepare(net)
    prepared = seewhy.trust.check(model, seewhy.explain(model, images(), **settings))  # type: ignore[arg-type]
    assert same_checks(plain[0], prepared[0]) > 0


@pytest.mark.parametrize("count", [1, 2])
def test_inputs_stay_as_they_are(count: int) -> None:
    net, inputs = Fragile("in place").eval(), images(count)
    e = seewhy.explain(net, inputs, layers="conv", targets=1)
    first = seewhy.trust.check(net, e)
    assert torch.equal(inputs, images(count))
    assert seewhy.trust.check(net, e).checks == first.checks


def test_an_image_of_a_batch_with_a_class_for_each() -> None:
    net = Fragile("").eval()
    checked = 0
    for classes in ([1, 2, 3], [0, 3, 2], [2, 0, 1]):
        e = seewhy.explain(net, images(3), layers="conv", targets=ClassScore(torch.tensor(classes)))
        together = seewhy.trust.check(net, e)
        checked += sum(same_checks(together[number], seewhy.trust.check(net, e[number])) for number in range(3))
    assert checked > 0


def test_correlations_stay_within_their_range() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(300):
        values = torch.randn(27, generator=random).double().numpy()
        assert -1 <= correlation(3 * values, values) <= 1


def test_a_small_correlation_is_never_confirmed() -> None:
    assert judge(0.02, 1 / 64).verdict == "inconclusive" and judge(0.2, 1 / 64).verdict == "confirmed"
