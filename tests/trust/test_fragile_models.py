"""Models that fail on covered images, take other paths for them, or work in place: maps are kept, with a reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import UsageError
from seewhy.explanation.checks import MapCheck
from seewhy.targets import ClassScore
from seewhy.trust.map_checks.statistic import correlation, judge


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


class Drawing(Fragile):
    """Draws random numbers: always, or only for covered images."""

    def __init__(self, when: str) -> None:
        super().__init__("")
        self.when = when

    def forward(self, image: Tensor) -> object:
        is_covered = bool((image.flatten(1).std(1) < 1.2).any())
        if self.when == "always" or is_covered:
            image = image + 1e-6 * torch.rand_like(image)
        return super().forward(image)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("is_prepared", [False, True], ids=["plain", "prepared"])
def test_a_model_that_draws_random_numbers_is_not_checked(count: int, is_prepared: bool) -> None:
    """`explain` and the check start with the same random state, so the scores of one image would be equal by chance."""
    net = Drawing("always").eval()
    model = seewhy.prepare(net) if is_prepared else net
    e = seewhy.explain(model, images(count), layers="conv", targets=1)
    before = torch.get_rng_state()
    with pytest.raises(UsageError, match="Drawing draws random numbers, so its scores change each time"):
        seewhy.trust.check(model, e)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("is_prepared", [False, True], ids=["plain", "prepared"])
@pytest.mark.parametrize("message", ["DefaultCPUAllocator: can't allocate memory", "CUDA error: device-side assert"])
def test_lack_of_memory_and_a_lost_device_are_errors(message: str, is_prepared: bool) -> None:
    """They do not depend on the image, so they are no reason why its maps are not checked."""

    class Failing(Fragile):
        def forward(self, image: Tensor) -> object:
            if (image.flatten(1).std(1) < 1.2).any():
                raise RuntimeError(message)
            return super().forward(image)

    net = Failing("").eval()
    model = seewhy.prepare(net) if is_prepared else net
    e = seewhy.explain(model, images(), layers="conv", targets=1)
    with pytest.raises(RuntimeError, match=message):
        seewhy.trust.check(model, e)


def test_scores_of_other_rows_are_not_compared() -> None:
    class Squeezed(Fragile):
        def forward(self, image: Tensor) -> object:
            scores = super().forward(image)
            assert isinstance(scores, Tensor)
            return scores.squeeze()  # (4,) for one image

    net = Squeezed("").eval()
    e = seewhy.explain(net, images(2), layers="conv", targets=0)
    (checks,) = seewhy.trust.check(net, e).checks.values()
    assert [check.verdict for check in checks] == ["not checked"] * 2
    assert all("the model returns 112 rows of scores for 28 inputs" in check.reason for check in checks)


def test_scores_in_half_precision_are_compared_with_their_tolerance() -> None:
    """The scores of an image in a batch and alone differ by more than those of other types."""

    class Half(Fragile):
        def forward(self, image: Tensor) -> object:
            noise = 0.004 if len(image) == 1 else 0.0  # relative, as of another kernel
            scores = super().forward(image.bfloat16())
            assert isinstance(scores, Tensor)
            return scores * (1 + noise)

    net = Half("").eval().bfloat16()
    e = seewhy.explain(net, images(2), layers="conv", targets=1)
    assert all(check.verdict for check in next(iter(seewhy.trust.check(net, e[0]).checks.values())))
