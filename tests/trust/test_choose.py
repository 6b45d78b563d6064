"""`choose` on planted networks, for which the right layer or method is known, and on null cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import UnknownName, UsageError
from seewhy.methods.base import Method
from seewhy.signals.layer import Signals
from seewhy.trust.choices.choice import Choice
from seewhy.trust.choices.choice_record import read_choice
from support.planted import CASES, Case, NoiseMap, Planted, make_images

IMAGES = 32


def choose_case(case: Case, seed: int = 0, **settings: Any) -> Choice:
    images = make_images(IMAGES, 100 + seed, both_sides=case.both_sides)
    return seewhy.trust.choose(
        case.network().eval(),
        images,
        methods=case.methods,
        layers=case.layers,
        targets=case.target,
        seed=seed,
        **settings,
    )


@pytest.mark.parametrize("case", [case for case in CASES if case.good], ids=lambda case: case.name)
def test_the_planted_answer_is_recommended(case: Case) -> None:
    choice = choose_case(case)
    assert (choice.method, choice.layer) in case.good
    assert choice.verdict in ("better", "no difference")


@pytest.mark.parametrize("case", [case for case in CASES if not case.good], ids=lambda case: case.name)
def test_nothing_is_preferred_in_null_cases(case: Case) -> None:
    """5 % of false preferences are expected per run: one of two runs may have one (probability of two: 0.3 %)."""
    verdicts = [choose_case(case, seed).verdict for seed in range(2)]
    assert verdicts.count("better") <= 1


def test_equal_methods_are_counted_once() -> None:
    choice = choose_case(next(case for case in CASES if "equal methods" in case.name))
    assert choice.verdict == "equal maps" and choice.method == "gradcam" and choice.runner_up is None
    assert len(choice.finalists[0].equal) == 3 and any("hirescam at last" in note for note in choice.notes)


def test_the_fresh_images_did_not_select(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of the confirmation are not scored before it, and all finalists have the same ones."""
    from seewhy.trust.choices.candidates import CandidateScores

    seen: list[int] = []
    screen, srg = CandidateScores.screen, CandidateScores.srg
    monkeypatch.setattr(CandidateScores, "screen", lambda self, image: (seen.append(image), screen(self, image))[1])
    monkeypatch.setattr(
        CandidateScores, "srg", lambda self, image, *rest: (seen.append(image), srg(self, image, *rest))[1]
    )
    choice = choose_case(CASES[0])
    order = np.random.default_rng(0).permutation(IMAGES).tolist()
    fresh = set(order[IMAGES // 2 :])
    first = next(number for number, image in enumerate(seen) if image in fresh)
    assert set(seen[:first]) == set(order[: IMAGES // 2])
    assert choice.record["images_confirming"] == IMAGES - IMAGES // 2
    assert {len(one.values) for one in choice.finalists} == {IMAGES - IMAGES // 2}


def test_progress_and_cost() -> None:
    calls: list[tuple[int, int]] = []
    choice = choose_case(CASES[0], progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] <= calls[-1][1] and choice.record["passes"] <= calls[-1][1]
    assert choice.record["full_passes"] == 6 * IMAGES * 18
    assert choice.record["candidates"] == 6


def test_images_that_fail_are_skipped_and_named(tmp_path: Any) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    random = np.random.default_rng(0)
    images: list[Any] = [Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(19)]
    squash = seewhy.Preprocess((32, 32), (0, 0, 0), (1, 1, 1), "bilinear", (32, 32), fit="squash")
    model = seewhy.load_model(Planted().eval(), preprocess=squash)
    choice = seewhy.trust.choose(model, [str(broken), *images], methods=["gradcam", "layercam"], layers=["last"])
    assert choice.record["images"] == 19 and choice.record["images_failed"] == 1
    assert any("1 image was not used; image 1:" in note for note in choice.notes)


@dataclass(frozen=True)
class NaNMap(Method):
    def __call__(self, signals: Signals) -> Tensor:
        return signals.activations.sum(1) * torch.nan


def test_candidates_without_finite_maps_are_dropped() -> None:
    images = make_images(16, 0)
    methods = [NaNMap(), "hirescam", "layercam"]
    choice = seewhy.trust.choose(Planted().eval(), images, methods=methods, layers=["last"], targets=0)
    assert choice.method == "hirescam" and choice.record["candidates"] == 2
    assert any("nanmap at last was not compared" in note for note in choice.notes)
    with pytest.raises(UsageError, match="no map is finite"):
        seewhy.trust.choose(Planted().eval(), images, methods=[NaNMap()], layers=["last"], targets=0)
    with pytest.raises(UsageError, match=r"one candidate, gradcam at last.*nanmap at last has no finite map"):
        seewhy.trust.choose(Planted().eval(), images, methods=[NaNMap(), "gradcam"], layers=["last"], targets=0)


@pytest.mark.parametrize("half", ["search", "fresh"])
def test_an_image_with_nan_is_skipped(half: str) -> None:
    images = make_images(24, 0)
    order = np.random.default_rng(0).permutation(24)
    images[order[0 if half == "search" else -1]][:] = torch.nan
    choice = seewhy.trust.choose(Planted().eval(), images, methods=["hirescam", "layercam"], layers=["last"], targets=0)
    assert choice.method == "hirescam" and choice.record["images_failed"] == 1
    assert any("1 image was not used" in note and "finite" in note for note in choice.notes)


@pytest.mark.parametrize("position", [0, 5])
def test_a_list_item_with_two_images_is_not_used(position: int) -> None:
    images = make_images(20, 0)
    images[position] = torch.cat([images[position]] * 2)
    choice = seewhy.trust.choose(Planted().eval(), images, methods=["hirescam", "layercam"], layers=["last"], targets=0)
    assert choice.record["images"] == 19
    assert any(f"image {position + 1}: 2 images in one item" in note for note in choice.notes)


def test_an_image_of_another_size_without_a_map_is_skipped() -> None:
    """At 8 x 8 pixels, the layer "last" has another grid; at 3 x 3 the network fails."""
    images: list[Tensor] = make_images(24, 0)
    order = np.random.default_rng(0).permutation(24)
    images[order[-1]] = torch.rand(1, 3, 1, 1)
    choice = seewhy.trust.choose(Planted().eval(), images, methods=["hirescam", "layercam"], layers=["last"], targets=0)
    assert choice.method == "hirescam" and choice.record["images_confirming"] == 11


def test_sixteen_images_of_which_one_is_broken(tmp_path: Any) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    squash = seewhy.Preprocess((32, 32), (0, 0, 0), (1, 1, 1), "bilinear", (32, 32), fit="squash")
    model = seewhy.load_model(Planted().eval(), preprocess=squash)
    images: list[Any] = [Image.new("RGB", (32, 32), (number, 0, 0)) for number in range(15)]
    with pytest.raises(UsageError, match="15 of 16 images can be used, and choosing needs 16"):
        seewhy.trust.choose(model, [*images, str(broken)], methods=["gradcam", "layercam"], layers=["last"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": "fullgrad"}, "explains the entire model"),
        ({"methods": "gradcan"}, "no method 'gradcan'"),
        ({"layers": "lats"}, "lats"),
        ({"targets": [0, 1]}, "several targets"),
    ],
)
def test_usage_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, UnknownName), match=message):
        seewhy.trust.choose(Planted().eval(), make_images(16, 0), **settings)


def test_too_few_images() -> None:
    with pytest.raises(UsageError, match="too few images to choose: 15"):
        seewhy.trust.choose(Planted().eval(), make_images(15, 0))


def test_a_choice_is_saved_and_read(tmp_path: Any) -> None:
    choice = choose_case(CASES[5])
    path = tmp_path / "choice.json"
    choice.save(path)
    record = read_choice(path)
    assert (record["method"], record["layer"]) == (choice.method, choice.layer)
    choice.save(path)  # it may be replaced
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(UsageError, match="did not write it"):
        choice.save(other)
    with pytest.raises(UsageError):
        read_choice(other)


class Random(nn.Module):
    """The scores have nothing to do with the layer's places: no map is better than chance."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.conv.weight.data = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        trace = (x * 1e4).sum((1, 2, 3)).sin()
        scores: Tensor = torch.stack([trace * 3, -trace * 3], 1) + 1e-6 * self.conv(x).mean((1, 2, 3))[:, None]
        return scores


def test_chance_is_named() -> None:
    choice = seewhy.trust.choose(Random().eval(), make_images(40, 0), methods=["gradcam", "layercam"], layers=["conv"])
    assert choice.verdict != "better" and any("may be chance" in note for note in choice.notes)


def test_noise_loses_against_a_method() -> None:
    choice = seewhy.trust.choose(
        Planted().eval(),
        make_images(IMAGES, 3),
        methods=[NoiseMap(1), NoiseMap(2), "hirescam"],
        layers=["last"],
        targets=0,
    )
    assert (choice.method, choice.verdict) == ("hirescam", "better")
