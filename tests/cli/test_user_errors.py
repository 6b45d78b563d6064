"""What a user can cause with a network, an input or labels that do not fit: one line that says so, and the rest still done."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError, ModelError, UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models.inspection import count_classes
from support.command import run

# Factories, as "test_what_users_cause:gray"


def net(channels: int = 3, axes: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](channels, 4, 3)
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1](1)
    return nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 5))


def small(side: int = 32) -> nn.Sequential:
    """Takes inputs of one size only."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, 5))


class Reddish(nn.Module):
    """Scores on a grid: the second of two classes wins where there is red."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight.zero_()
                assert layer.bias is not None
                layer.bias.zero_()
            self.first.weight[0, 0] = self.second.weight[1] = 1

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.second(self.first(inputs))
        return found


class Infinite(nn.Module):
    """The score of its second class is no finite number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.inner(inputs) * torch.tensor([1, torch.inf, 1, 1, 1])
        return found


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, red in (("red", 200), ("dark", 0)):
        Image.new("RGB", (60, 40), (red, 20, 20)).save(f"{name}.png")


def job(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    factory, *others = arguments
    return run(capsys, *others, "--model", f"test_what_users_cause:{factory}", "--allow-code")


# One picture that cannot answer


def test_a_picture_that_cannot_answer_does_not_end_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("Reddish?labels=sky,bus", "-t", "region:bus")
    code, out, err = job(capsys, *asked, "dark.png", "red.png", "--json")
    bad, good = map(json.loads, out.splitlines())
    assert code == 1 and "1 of 2 failed" in err
    assert bad["picture"] == "dark.png" and "bus wins in no cell" in bad["error"]
    assert good["picture"] == "red.png" and Path("cam/red/overlay.jpg").exists() and not Path("cam/dark").exists()
    Image.open("dark.png").save("darker.png")
    code, out, err = job(capsys, *asked, "dark.png", "darker.png")
    assert code == 2 and out == "" and "dark.png: " in err and "2 of 2 failed" in err
    code, out, err = job(capsys, *asked, "dark.png")
    assert (
        code == 2 and out == "" and "bus wins in no cell" in err and len(err.splitlines()) == 2
    )  # and the preprocessing


@pytest.mark.parametrize(
    ("target", "message"), [("bsu", "did you mean 'bus'"), ("box:bus@1,2", "left,top,right,bottom")]
)
def test_what_no_picture_can_answer_ends_it_at_once(
    capsys: pytest.CaptureFixture[str], target: str, message: str
) -> None:
    code, out, err = job(capsys, "Reddish?labels=sky,bus", "-t", target, "dark.png", "red.png", "--quiet")
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1


# Inputs that the model does not take


def test_an_input_that_the_model_refuses_is_one_line_with_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = job(capsys, "small", "red.png", "--quiet")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "Sequential: its forward fails on inputs of shape (1, 3, 224, 224)" in err and "cannot be multiplied" in err
    with pytest.raises(ModelError, match=r"shape \(1, 3, 9, 9\)") as raised:
        seewhy.explain(small(), torch.rand(1, 3, 9, 9))
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert "linear.py" in "".join(traceback.format_exception(raised.value))  # where it happened is not lost


@pytest.mark.parametrize("layers", [None, "0"])
def test_a_forgotten_batch_axis(layers: str | None) -> None:
    with pytest.raises(ModelError, match=r"add the batch axis: x\[None\]"):
        seewhy.explain(net(), torch.rand(3, 9, 9), layers=layers)
    with pytest.raises(ModelError, match="pass inputs that the model accepts"):
        seewhy.explain(net(), torch.rand(1, 4, 9, 9), layers=layers)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_list_of_tensors_with_or_without_a_batch_axis(axes: int) -> None:
    inputs = torch.rand(2, 1, *[9] * axes)
    network = net(1, axes)
    whole = seewhy.explain(network, inputs, layers="0", targets=1).map()
    for listed in (list(inputs), list(inputs.split(1))):
        assert torch.equal(seewhy.explain(network, listed, layers="0", targets=1).map(), whole)


def test_other_errors_of_a_model_pass_as_they_are() -> None:
    class Full(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        seewhy.explain(Full(3, 4, 3), torch.rand(1, 3, 9, 9))
    with pytest.raises(IndexError) as raised:  # of the kind that it was
        seewhy.explain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(5)), torch.rand(1, 3, 9, 9))
    assert isinstance(raised.value, ModelError)
    with pytest.raises(MethodError, match="the model does not take inputs of size"):  # which tries other sizes
        seewhy.explain(small(), torch.rand(1, 3, 32, 32), methods="cameras")


# Networks from a factory


def test_grey_networks_from_a_factory_get_grey_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = job(capsys, "net?channels=1", "red.png")
    assert code == 0 and "in grayscale is assumed" in err and Path("cam/red/overlay.jpg").exists()
    loaded = seewhy.load_model("test_what_users_cause:net?channels=1", allow_code=True)
    assert isinstance(loaded.preprocess, Preprocess) and loaded.preprocess.mean == pytest.approx((0.449,), abs=1e-3)
    code, _, err = job(capsys, "net?channels=5", "red.png", "--quiet")
    assert code == 2 and "brings no preprocessing for pictures" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "size", "shape"),
    [
        ("channels=1", "28", [1, 28, 28]),
        ("channels=5", "28", [5, 28, 28]),
        ("channels=1&axes=1", "1000", [1, 1000]),
        ("channels=2&axes=3", "12", [2, 12, 12, 12]),
        ("channels=2&axes=3", "12x10x8", [2, 12, 10, 8]),
    ],
)
def test_layers_of_networks_of_any_rank(
    capsys: pytest.CaptureFixture[str], options: str, size: str, shape: list[int]
) -> None:
    factory = f"test_what_users_cause:net?{options}"
    code, out, err = run(capsys, "layers", factory, "--allow-code", "--size", size, "--json")
    assert code == 0, err
    assert json.loads(out)["input"] == shape and json.loads(out)["layers"][0]["name"] == "0"


# Scores that are no numbers


def test_scores_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = job(capsys, "Infinite", "red.png", "-t", "1", "--json")
    record = json.loads(out)
    assert code == 0 and record["targets"][0]["score"] is None
    assert any("score of class 1" in note and "not a finite number" in note for note in record["notes"])
    loaded = seewhy.load_explanation("cam/red")
    assert loaded.target_results[0].scores.isnan().all()
    assert loaded.to_dict()["notes"] == record["notes"]
    code, out, _ = job(capsys, "Infinite", "red.png", "-t", "1", "--label", "2")
    assert code == 0 and "not a finite number" in " ".join(out.split())
    e = seewhy.explain(net(), torch.full((1, 3, 9, 9), torch.nan))
    assert e.to_dict()["targets"][0]["probability"] is None
    assert not any("finite" in note for note in seewhy.explain(net(), torch.rand(1, 3, 9, 9)).to_dict()["notes"])


# Labels and preprocessing


def test_what_was_said_about_the_fit_goes_with_it() -> None:
    said = ("preprocessing: squashed to 9x9; the model itself crops", "preprocessing taken from somewhere")
    loaded = seewhy.LoadedModel(net(), Preprocess.imagenet(9), notes=said)
    picture = np.zeros((20, 30, 3), np.uint8)
    assert seewhy.explain(loaded, picture).notes[:2] == said
    assert seewhy.explain(loaded, picture, fit="pad").notes[:1] == said[1:]


def test_labels_must_be_as_many_as_the_classes() -> None:
    import torchvision  # type: ignore[import-untyped]
    import transformers

    with pytest.raises(UsageError, match="3 labels for a model with 7 classes"):
        seewhy.load_model("torchvision/resnet18?pretrained=false&num_classes=7&labels=a,b,c")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=2)
    with pytest.raises(UsageError, match="5 labels for a model with 2 classes"):
        seewhy.load_model(transformers.ResNetForImageClassification(config), labels=list("abcde"))
    models = torchvision.models
    assert count_classes(models.vit_b_32(num_classes=7)) == count_classes(models.resnet18(num_classes=7)) == 7
    headless = models.vit_b_32()
    headless.heads = nn.Identity()
    unsure = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert count_classes(headless) is count_classes(unsure) is count_classes(net()) is None


def test_the_embedded_network_takes_labels_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.txt").write_text("\n".join(f"thing {number}" for number in range(1000)))
    loaded = seewhy.load_model("embedded?labels=names.txt")
    assert loaded.labels is not None and loaded.labels[7] == "thing 7" and loaded.uri == "embedded?labels=names.txt"
    with pytest.raises(UsageError, match="2 labels for a model with 1000 classes"):
        seewhy.load_model("embedded?labels=a,b")
    with pytest.raises(UnknownName, match="no option 'pretrained'"):
        seewhy.load_model("embedded?pretrained=false")
    code, _, err = run(capsys, "red.png", "-m", "embedded", "--num-classes", "7")
    assert code == 2 and "no option 'num_classes'. 'embedded?' takes labels." in err


# Inputs that are no pictures, and other arguments


def test_an_input_of_many_channels_is_kept_as_it_is() -> None:
    inputs = torch.rand(1, 5, 12, 10)
    e = seewhy.explain(net(5), inputs, layers="0")
    assert {path.name for path in e.save("run")} == {"maps.npz", "input.npz", "explanation.json"}
    loaded = seewhy.load_explanation("run")
    assert loaded.inputs is not None and torch.equal(loaded.inputs, inputs)
    assert torch.equal(loaded.map(), e.map()[0]) and loaded.box() == e.box()
    with pytest.raises(UsageError, match=r"\(5, 12, 10\) cannot be drawn as an image.*Use map\(\) or heatmap\(\)"):
        loaded.overlay()


def test_other_arguments_with_a_row_for_each_picture_are_named() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, image: Tensor, weights: Tensor, scale: float = 1.0) -> Tensor:
            found: Tensor = self.inner(image) * weights.mean() * scale
            return found

    def rows(*given: object) -> list[str]:
        return [note for note in seewhy.explain(Weighed(), given).notes if "a row for each" in note]

    assert rows(torch.rand(2, 3, 9, 9), torch.ones(2)) == ["taken to have a row for each picture: 1"]
    assert rows(torch.rand(2, 3, 9, 9), torch.ones(5), 2.0) == rows(torch.rand(1, 3, 9, 9), torch.ones(1, 5)) == []
    named = seewhy.explain(Weighed(), torch.rand(2, 3, 9, 9), arguments={"weights": torch.ones(2)})
    assert "taken to have a row for each picture: weights" in named.notes


def test_labels_are_counted_once_the_output_is_known() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    with pytest.raises(UsageError, match=r"3 labels.*5"):
        seewhy.explain(net, torch.rand(1, 3, 8, 8), labels=["a", "b", "c"])
    assert seewhy.explain(net, torch.rand(1, 3, 8, 8), labels=list("abcde"), targets="e").targets == ("4",)


def test_what_is_pooled_to_one_cell_is_no_grid() -> None:
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    assert seewhy.suggest(net, torch.rand(1, 1, 20)).layer == "1"
