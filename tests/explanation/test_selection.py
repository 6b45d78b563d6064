"""An explanation accepts methods, targets and layers in every form in which `explain` accepts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ChoiceError, MethodError, TargetError, UnknownName, UsageError
from seewhy.explanation.result import Explanation
from seewhy.methods import GradCAM, HiResCAM, RandomCAM, ScoreCAM, Smooth
from seewhy.methods.base import Method
from seewhy.signals.layer import Signals
from seewhy.targets import (
    ClassLogProbability,
    ClassProbability,
    ClassScore,
    Contrast,
    FunctionScore,
    OutputScore,
    TopScore,
)
from support.parameters import stable_id

LABELS = ("tench, Tinca tinca", "crane", "Egyptian cat", "dog")


class Reused(nn.Module):
    """Calls `conv` and `relu` twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(self.stem(x)))
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Reused:
    torch.manual_seed(0)
    return Reused().eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def explain(net: nn.Module, inputs: Tensor, **options: Any) -> Explanation:
    return seewhy.explain(net, inputs, **{"labels": LABELS, "layers": "stem", "targets": 1, **options})


def saved(e: Explanation, folder: Path) -> Explanation:
    e.save(folder)
    return seewhy.load_explanation(folder)


# Methods


@pytest.mark.parametrize(
    ("requested", "answers"),
    [
        ("gradcam", ["gradcam", "Grad-CAM", " GRADCAM ", GradCAM(), "gradcam()"]),
        ("gradcamplusplus", ["gradcamplusplus", "gradcampp", "Grad-CAM++", "gradcam++"]),
        ("layer", ["layer", "layercam", "LayerCAM"]),
        ("random", ["random", "randomcam", RandomCAM()]),
        (
            "scorecam(batch_size = 2)",
            ["scorecam(batch_size = 2)", "ScoreCAM( batch_size=2 )", ScoreCAM(batch_size=2), "scorecam", ScoreCAM()],
        ),
        (
            "smooth(Grad-CAM, samples = 2)",
            ["smooth(gradcam,samples=2)", "smooth(base=gradcam, samples=2)", Smooth(GradCAM(), samples=2), "smooth"],
        ),
        (HiResCAM(), [HiResCAM(), "hirescam", "HiRes-CAM"]),
    ],
    ids=stable_id,
)
def test_methods_in_any_spelling(
    net: Reused, image: Tensor, requested: Any, answers: list[Any], tmp_path: Path
) -> None:
    other = "lafam"
    e = explain(net, image, methods=[other, requested])
    name = e.methods[1]
    for one in (e, e[0], saved(e[0], tmp_path)):
        for answer in answers:
            assert one.key(method=answer)[0] == name, answer
    for answer in answers:
        e = e[0]
        assert torch.equal(e.heatmap(method=answer), e.heatmap(name)) and e.layers_of(answer) == e.layers_of(name)
        assert e.flags(answer) == e.flags(name) and e.positive_evidence(answer) == e.positive_evidence(name)
        assert (e.mask(method=answer) == e.mask(method=name)).all() and e.box(method=answer) == e.box(method=name)
        assert e.overlay(answer).tobytes() == e.overlay(name).tobytes()
        assert e.contact_sheet(answer).tobytes() == e.contact_sheet(name).tobytes()


def test_a_method_with_other_settings_is_not_selected(net: Reused, image: Tensor) -> None:
    e = explain(
        net, image, methods=["scorecam(batch_size=2)", "scorecam(batch_size=3)", "scorecam(variant=paper)", "gradcam"]
    )
    assert e.key(method="scorecam(batch_size=3)")[0] == "scorecam(batch_size=3)"
    assert e.key(method=ScoreCAM(variant="paper"))[0] == "scorecam(variant=paper)"
    with pytest.raises(ChoiceError, match=r"'scorecam' matches 3 methods.*scorecam\(batch_size=3\)"):
        e.map(method="scorecam")
    with pytest.raises(UnknownName, match=r"no method 'scorecam\(batch_size=4\)'.*This explanation has"):
        e.map(method="scorecam(batch_size=4)")
    with pytest.raises(UnknownName, match="no method 'gradcamm' - did you mean 'gradcam'"):
        e.map(method="gradcamm")
    with pytest.raises(UnknownName, match="no method 'layercam'"):
        e.map(method="layercam")
    with pytest.raises(MethodError, match="batch_size"):
        e.map(method="scorecam(batchsize=3)")


def test_a_wrapper_by_its_bare_name(net: Reused, image: Tensor) -> None:
    e = explain(net, image, methods=["smooth(layercam,samples=2)", "gradcam"])
    assert e.key(method="smooth") == e.key(method="smooth(layercam)") == e.key(method=Smooth(samples=2))
    with pytest.raises(UnknownName):
        e.map(method="smooth(hirescam)")


def test_default_settings_win_over_refinements(net: Reused, image: Tensor) -> None:
    e = explain(net, image, methods=["scorecam", "scorecam(batch_size=2)"])
    assert e.key(method="Score-CAM")[0] == "scorecam"


def test_a_seed_of_the_run_does_not_change_the_name_in_answers(net: Reused, image: Tensor) -> None:
    e = explain(net, image, methods=["randomcam", "gradcam", "smooth(gradcam,samples=2)"], seed=5)
    assert e.methods[0] == "randomcam(seed=5)"
    assert e.key(method="random")[0] == "randomcam(seed=5)" == e.key(method=RandomCAM())[0]
    assert e.key(method="smooth(gradcam, samples=2)")[0] == e.methods[2]


def test_methods_with_several_maps(net: Reused, image: Tensor) -> None:
    e = explain(net, image, methods=["deepfeaturefactorization(concepts=2)"])
    assert len(e.methods) == 2
    with pytest.raises(ChoiceError, match=r"matches 2 methods: choose one.*#1.*#2"):
        e.map(method="dff")
    for number in (1, 2):
        assert e.key(method=f"dff#{number}") == e.key(method=e.methods[number - 1])


@dataclass(frozen=True)
class OwnCAM(Method):
    """A method that is not in the catalog."""

    power: int = 1

    def __call__(self, at: Signals) -> Tensor:
        return at.activations.mean(1) ** self.power


def test_methods_of_the_user(net: Reused, image: Tensor) -> None:
    e = explain(net, image, methods=[OwnCAM(), OwnCAM(power=2), "gradcam"])
    assert e.key(method=OwnCAM(power=2))[0] == "owncam(power=2)" and e.key(method="OwnCAM")[0] == "owncam"


# Layers


def test_a_module_called_twice_by_its_name(net: Reused, image: Tensor, tmp_path: Path) -> None:
    e = explain(net, image, layers=["conv", "stem"])
    assert e.layers == ("stem", "conv#2")
    for one in (e, e[0], saved(e[0], tmp_path)):
        assert one.key(layer="conv") == one.key(layer="conv#2") == ("gradcam", "1", "conv#2")
    both = explain(net, image, layers="all")
    with pytest.raises(ChoiceError, match=r"'conv' matches 2 layers: choose one, layer='conv#1' or conv#2"):
        both.map(layer="conv")
    assert both.key(layer="conv#1")[2] == "conv#1"
    with pytest.raises(UnknownName, match=r"no layer 'con'.*This explanation has"):
        both.map(layer="con")


def test_the_selected_call_wins_over_the_other_call(net: Reused, image: Tensor, tmp_path: Path) -> None:
    """Both calls have maps, but the entry "conv" selected the last one."""
    e = explain(net, image, layers=["conv", "conv#1"])
    assert e.layers == ("conv#1", "conv#2")
    for one in (e, e[0], saved(e[0], tmp_path)):
        assert one.key(layer="conv")[2] == "conv#2"


@pytest.mark.parametrize(
    ("requested", "expected"),
    [("-1", "conv#2"), (-1, "conv#2"), (0, "stem"), ("stem*", "stem"), ("st?m", "stem"), ("Linear", None)],
    ids=stable_id,
)
def test_layers_as_they_were_selected(
    net: Reused, image: Tensor, requested: Any, expected: str | None, tmp_path: Path
) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            explain(net, image, layers=[requested, "relu"])
        return
    e = explain(net, image, layers=[requested, "relu"])
    for one in (e, e[0], saved(e[0], tmp_path)):
        assert one.key(layer=requested)[2] == expected and one.key(layer="relu")[2] == "relu#2"


def test_groups_and_modules_as_layers(net: Reused, image: Tensor) -> None:
    e = explain(net, image, layers=[net.conv, nn.ReLU, "stem"])
    assert e.key(layer=net.conv)[2] == "conv#2"
    with pytest.raises(ChoiceError, match="'ReLU' matches 2 layers"):
        e.map(layer=nn.ReLU)
    with pytest.raises(UnknownName):
        e.map(layer=net.stem)


def test_the_suggested_layer(net: Reused, image: Tensor, tmp_path: Path) -> None:
    e = explain(net, image, layers=["suggested", "stem"])
    for one in (e, e[0], saved(e[0], tmp_path)):
        assert one.key(layer="suggested")[2] == e.suggested


def test_a_convolution_that_is_read_at_its_activation(image: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    e = explain(net, image, layers=["0", "2"], read_at="activation")
    assert e.layers == ("1", "3")
    for one in (e, e[0], saved(e[0], tmp_path)):
        assert one.key(layer="0")[2] == "1" and one.key(layer="2")[2] == "3"


def test_contact_sheets_and_comparisons_take_the_same_layers(net: Reused, image: Tensor) -> None:
    e = explain(net, image, layers=["conv", "stem"])[0]
    assert e.contact_sheet(layers=["conv"]).tobytes() == e.contact_sheet(layers=["conv#2"]).tobytes()
    assert e.comparison("conv").tobytes() == e.comparison("conv#2").tobytes()
    both = explain(net, image, layers="all")[0]
    expected = both.contact_sheet(layers=["conv#1", "conv#2"]).tobytes()
    for layers in ("conv", "con*", ["conv"], ["conv#1", "conv#2", "conv"], "conv#*"):
        assert both.contact_sheet(layers=layers).tobytes() == expected
    with pytest.raises(UnknownName, match="no layer 'cnv'"):
        both.contact_sheet(layers=["conv", "cnv"])


# Targets


def margin(output: Tensor) -> Tensor:
    return output[:, 0] - output[:, 1]


@pytest.mark.parametrize(
    ("requested", "answers"),
    [
        (2, [2, "2", np.int64(2), np.uint8(2), torch.tensor(2), np.array(2), "egyptian CAT", ClassScore("Egyptian cat")]),
        ("Tinca tinca", [0, "tench", "Tench", "Tinca tinca", "tench, Tinca tinca", ClassScore(np.int32(0))]),
        (np.int16(3), [3, np.int64(3), "dog", torch.tensor(3, dtype=torch.int16)]),
        (torch.tensor(3), [3, "dog", torch.tensor(3)]),
        ("top1", ["top1", "TOP-1", TopScore(1), TopScore()]),
        (TopScore(4), [TopScore(4), "top4"]),
        ("probability:dog", ["probability:dog", "Probability: dog", ClassProbability("dog"), "probability_3"]),
        (ClassLogProbability(3), ["logprobability:3", ClassLogProbability(3)]),
        ("output:0", ["output:0", OutputScore(), OutputScore(0), "output_0"]),
        (margin, [margin, FunctionScore(margin), "margin"]),
        (Contrast("dog", "tench"), [Contrast("dog", "tench"), "dog rather than tench", "3-0", "dog", 3]),
        (ClassScore(2) - 0.5 * ClassScore(0), [ClassScore(2) - 0.5 * ClassScore(0), "2-0.5*0"]),
        (ClassScore([3]), [ClassScore([3]), ClassScore(torch.tensor([3])), ClassScore(range(3, 4)), 3]),
    ],
    ids=stable_id,
)  # fmt: skip
def test_targets_in_any_form(net: Reused, image: Tensor, requested: Any, answers: list[Any], tmp_path: Path) -> None:
    (key,) = explain(net, image, targets=requested).targets
    other = next(
        index for index in range(4) if explain(net, image, targets=index).targets[0] not in (key, *key.split("-"))
    )
    e = explain(net, image, targets=[other, requested])
    assert e.targets == (str(other), key)
    for one in (e, e[0]):
        for answer in answers:
            assert one.key(target=answer)[1] == key, answer
    loaded = saved(e[0], tmp_path)
    for answer in filter(is_saved, answers):
        assert loaded.key(target=answer)[1] == key, answer


def is_saved(answer: Any) -> bool:
    """A file holds no functions, no tensors, and no synonyms except the one that was passed to `explain`."""
    if callable(answer) or isinstance(answer, FunctionScore):
        return False
    if isinstance(answer, ClassScore) and isinstance(answer.classes, Tensor):
        return False
    return not (isinstance(answer, str) and "tinca" in answer.casefold() and answer != "Tinca tinca")


def test_classes_of_any_target_by_name_or_index(net: Reused, image: Tensor, tmp_path: Path) -> None:
    e = explain(net, image, targets=["probability:dog", Contrast(3, ["tench"]), ClassScore("tench") - ClassScore(3), 1])
    for one in (e, e[0], saved(e[0], tmp_path)):
        for answer in ("probability:3", ClassProbability("DOG"), "probability_3"):
            assert one.key(target=answer)[1] == "probability_3"
        for answer in (Contrast("dog", "tench"), Contrast(3, [ClassScore(0)]), Contrast(ClassScore("Dog"), ["tench"])):
            assert one.key(target=answer)[1] == "3-0"
        assert one.key(target=ClassScore(0) - ClassScore(3))[1] == "0-3"
    # A file has no labels, so names and indices cannot be mixed there.
    assert e.key(target=Contrast("dog", 0))[1] == "3-0" and e.key(target=ClassScore(0) - ClassScore("dog"))[1] == "0-3"


def test_the_first_target_of_a_contrast(net: Reused, image: Tensor, tmp_path: Path) -> None:
    e = explain(net, image, targets=["dog", 2], versus="tench")
    for one in (e, e[0], saved(e[0], tmp_path)):
        assert one.key(target="dog")[1] == one.key(target=3)[1] == "3-0"
        assert one.key(target=np.int64(2))[1] == "2-0"
    with pytest.raises(UnknownName, match=r"no target 'tench'.*This explanation has 3-0, 2-0"):
        e.map(target="tench")
    several = explain(net, image, targets=[Contrast(3, 0), Contrast(3, 2)])
    with pytest.raises(ChoiceError, match="'dog' matches 2 targets"):
        several.map(target="dog")


def test_ranks_in_a_batch_and_in_one_image(net: Reused, tmp_path: Path) -> None:
    inputs = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 9, 99]).view(
        3, 1, 1, 1
    )
    e = explain(net, inputs, targets="top2")
    for index, one in enumerate(e):
        best = e.logits[index].topk(2).indices.tolist()  # type: ignore[index]
        for rank in (1, 2):
            for answer in (f"top{rank}", TopScore(rank), best[rank - 1], LABELS[best[rank - 1]]):
                assert torch.equal(one.map(target=answer), e.map(target=f"top{rank}")[index])
        again = saved(one, tmp_path / str(index))
        assert again.key(target="top2")[1] == str(best[1])


def test_a_rank_selects_the_class_that_has_it(net: Reused, image: Tensor) -> None:
    """Targets that were passed as classes can be selected by their rank."""
    e = explain(net, image, targets=[0, 1, 2, 3])[0]
    order = e.logits[0].argsort(descending=True).tolist()  # type: ignore[index]
    assert [e.key(target=f"top{rank}")[1] for rank in (1, 2, 3, 4)] == list(map(str, order))


def test_duplicate_targets_are_all_accepted(net: Reused, image: Tensor) -> None:
    e = explain(net, image, targets=["dog", 3, OutputScore(3), ClassScore([3])])
    assert e.key(target="dog") == e.key(target=3) == e.key(target=ClassScore([3])) == ("gradcam", "3", "stem")
    assert e.key(target=OutputScore(3))[1] == "output_3"


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("dgo", UnknownName, "no class 'dgo' - did you mean 'dog'"),
        (2, UnknownName, "no target '2'.*This explanation has 3, 0"),
        ("Egyptian cat", UnknownName, "no target 'Egyptian cat'.*This explanation has 3, 0"),
        (ClassProbability(3), UnknownName, "no target"),
        ([3, 0], ChoiceError, "a map has one target, but this is a list of 2"),
        (torch.tensor([3, 0]), TargetError, "ambiguous"),
        (3.5, TargetError, "pass a class index"),
    ],
    ids=stable_id,
)
def test_targets_without_a_map(net: Reused, image: Tensor, target: Any, error: type[Exception], words: str) -> None:
    e = explain(net, image, targets=[3, 0])
    with pytest.raises(error, match=words):
        e.map(target=target)
