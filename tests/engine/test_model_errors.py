"""Inputs, labels and arguments that do not fit the model, in Python."""

from __future__ import annotations

import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

import seewhy
from seewhy.errors import MethodError, ModelError, UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models.inspection import count_classes
from support.factories import classifier, fixed_size_classifier

# Inputs


def test_a_model_that_fails_on_its_inputs() -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 3, 9, 9\)") as error:
        seewhy.explain(fixed_size_classifier(), torch.rand(1, 3, 9, 9))
    assert isinstance(error.value.__cause__, RuntimeError)
    assert "linear.py" in "".join(traceback.format_exception(error.value))  # the model's traceback is kept


@pytest.mark.parametrize("layers", [None, "0"])
def test_a_missing_batch_axis(layers: str | None) -> None:
    with pytest.raises(ModelError, match=r"add the batch axis: x\[None\]"):
        seewhy.explain(classifier(), torch.rand(3, 9, 9), layers=layers)
    with pytest.raises(ModelError, match="pass inputs that the model accepts"):
        seewhy.explain(classifier(), torch.rand(1, 4, 9, 9), layers=layers)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_list_of_tensors_with_or_without_a_batch_axis(axes: int) -> None:
    inputs = torch.rand(2, 1, *[9] * axes)
    network = classifier(1, axes)
    batch = seewhy.explain(network, inputs, layers="0", targets=1).map()
    for tensors in (list(inputs), list(inputs.split(1))):
        assert torch.equal(seewhy.explain(network, tensors, layers="0", targets=1).map(), batch)


def test_out_of_memory_is_not_wrapped() -> None:
    class OutOfMemory(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        seewhy.explain(OutOfMemory(3, 4, 3), torch.rand(1, 3, 9, 9))


def test_model_errors_keep_the_type_of_the_original_exception() -> None:
    with pytest.raises(IndexError) as error:
        seewhy.explain(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(5)), torch.rand(1, 3, 9, 9))
    assert isinstance(error.value, ModelError)


def test_a_method_that_needs_other_input_sizes() -> None:
    with pytest.raises(MethodError, match="the model does not accept inputs of size"):
        seewhy.explain(fixed_size_classifier(), torch.rand(1, 3, 32, 32), methods="cameras")


def test_notes_about_the_fit_are_dropped_with_another_fit() -> None:
    notes = ("preprocessing: squashed to 9x9; the model itself crops", "preprocessing taken from somewhere")
    loaded = seewhy.LoadedModel(classifier(), Preprocess.imagenet(9), notes=notes)
    image = np.zeros((20, 30, 3), np.uint8)
    assert seewhy.explain(loaded, image).notes[:2] == notes
    assert seewhy.explain(loaded, image, fit="pad").notes[:1] == notes[1:]


def test_an_input_with_many_channels_is_saved_as_an_array(tmp_path: Path) -> None:
    inputs = torch.rand(1, 5, 12, 10)
    e = seewhy.explain(classifier(5), inputs, layers="0")
    assert {path.name for path in e.save(tmp_path)} == {"maps.npz", "input.npz", "explanation.json"}
    loaded = seewhy.load_explanation(tmp_path)
    assert loaded.inputs is not None and torch.equal(loaded.inputs, inputs)
    assert torch.equal(loaded.map(), e.map()[0]) and loaded.box() == e.box()
    with pytest.raises(UsageError, match=r"\(5, 12, 10\) cannot be drawn as an image.*Use map\(\) or heatmap\(\)"):
        loaded.overlay()


def test_scores_of_an_input_that_is_not_finite() -> None:
    e = seewhy.explain(classifier(), torch.full((1, 3, 9, 9), torch.nan))
    assert e.to_dict()["targets"][0]["probability"] is None
    finite = seewhy.explain(classifier(), torch.rand(1, 3, 9, 9))
    assert not any("finite" in note for note in finite.to_dict()["notes"])


def test_arguments_with_one_row_per_image_get_a_note() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier()

        def forward(self, image: Tensor, weights: Tensor, scale: float = 1.0) -> Tensor:
            scores: Tensor = self.inner(image) * weights.mean() * scale
            return scores

    def row_notes(*inputs: object) -> list[str]:
        return [note for note in seewhy.explain(Weighted(), inputs).notes if "one row per image" in note]

    assert row_notes(torch.rand(2, 3, 9, 9), torch.ones(2)) == ["assumed to hold one row per image: 1"]
    assert row_notes(torch.rand(2, 3, 9, 9), torch.ones(5), 2.0) == []
    assert row_notes(torch.rand(1, 3, 9, 9), torch.ones(1, 5)) == []
    e = seewhy.explain(Weighted(), torch.rand(2, 3, 9, 9), arguments={"weights": torch.ones(2)})
    assert "assumed to hold one row per image: weights" in e.notes


# Labels


def test_number_of_labels_is_checked_when_a_model_is_loaded() -> None:
    import transformers

    with pytest.raises(UsageError, match="3 labels for a model with 7 classes"):
        seewhy.load_model("torchvision/resnet18?pretrained=false&num_classes=7&labels=a,b,c")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=2)
    with pytest.raises(UsageError, match="5 labels for a model with 2 classes"):
        seewhy.load_model(transformers.ResNetForImageClassification(config), labels=list("abcde"))


def test_number_of_classes_is_inferred_for_torchvision_classifiers() -> None:
    models = torchvision.models
    assert count_classes(models.vit_b_32(num_classes=7)) == count_classes(models.resnet18(num_classes=7)) == 7
    headless = models.vit_b_32()
    headless.heads = nn.Identity()
    ambiguous = models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert count_classes(headless) is count_classes(ambiguous) is count_classes(classifier()) is None


def test_number_of_labels_is_checked_against_the_output() -> None:
    network = classifier()
    with pytest.raises(UsageError, match=r"3 labels.*5"):
        seewhy.explain(network, torch.rand(1, 3, 8, 8), labels=["a", "b", "c"])
    assert seewhy.explain(network, torch.rand(1, 3, 8, 8), labels=list("abcde"), targets="e").targets == ("4",)


def test_labels_are_the_only_option_of_the_embedded_network(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(f"thing {number}" for number in range(1000)))
    loaded = seewhy.load_model(f"embedded?labels={path}")
    assert loaded.labels is not None and loaded.labels[7] == "thing 7" and loaded.uri == f"embedded?labels={path}"
    with pytest.raises(UsageError, match="2 labels for a model with 1000 classes"):
        seewhy.load_model("embedded?labels=a,b")
    with pytest.raises(UnknownName, match="no option 'pretrained'"):
        seewhy.load_model("embedded?pretrained=false")


def test_global_pooling_output_has_no_grid() -> None:
    network = nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    assert seewhy.suggest(network, torch.rand(1, 1, 20)).layer == "1"
