"""Inputs, labels and arguments that do not fit the model, in Python."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_list_of_tensors_with_or_without_a_batch_axis(axes: int) -> None:
    inputs = torch.rand(2, 1, *[9] * axes)
    network = classifier(1, axes)
    batch = seewhy.explain(network, inputs, layers="0", targets=1).map()
    for tensors in (list(inputs), list(inputs.split(1))):
        assert torch.equal(seewhy.explain(network, tensors, layers="0", targets=1).map(), batch)


def test_out_of_memory_keeps_its_type() -> None:
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


# Code of the model that fails, and what each message says


class Custom(nn.Module):
    """A classifier with a layer that it never calls, and a function in its forward."""

    def __init__(self, function: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.inner = classifier()
        self.unused = nn.Conv2d(3, 4, 3)
        self.function = function

    def forward(self, image: Tensor) -> object:
        return self.function(self.inner, image)


def raising(error: BaseException) -> Custom:
    def fail(inner: nn.Module, image: Tensor) -> object:
        raise error

    return Custom(fail)


IMAGE = torch.rand(1, 3, 9, 9)


@pytest.mark.parametrize(
    "error",
    [KeyError("k"), ZeroDivisionError("zero"), FileNotFoundError(2, "gone", "x"), StopIteration(), Exception("a\nb")],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_in_a_forward_is_one_line_with_its_place(error: Exception) -> None:
    with pytest.raises(
        ModelError, match=r"Custom: its forward fails on inputs of shape .*test_model_errors.py, line \d+"
    ) as raised:
        seewhy.explain(raising(error), IMAGE)
    assert "\n" not in str(raised.value)
    for kind in (LookupError, ArithmeticError):
        assert isinstance(raised.value, kind) == isinstance(error, kind)


def test_sys_exit_in_a_forward_does_not_end_the_process() -> None:
    with pytest.raises(ModelError, match=r"its forward calls sys.exit\(3\)"):
        seewhy.explain(raising(SystemExit(3)), IMAGE)
    with pytest.raises(KeyboardInterrupt):
        seewhy.explain(raising(KeyboardInterrupt()), IMAGE)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
        MemoryError(),
    ],
)
def test_full_memory_is_one_line_with_advice(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"memory ran out on cpu .*explain fewer images") as raised:
        seewhy.explain(raising(error), IMAGE)
    assert isinstance(raised.value, torch.OutOfMemoryError) and "\n" not in str(raised.value)


def test_an_exception_in_a_hook() -> None:
    network = classifier()
    network[0].register_forward_hook(lambda *_: {}["missing"])
    with pytest.raises(ModelError, match=r"its forward fails .*'missing'"):
        seewhy.explain(network, IMAGE)


class FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: object, image: Tensor) -> Tensor:
        return image.clone()

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        raise ValueError("no gradient\nhere")


@pytest.mark.parametrize("layers", [None, "every"])
def test_an_exception_in_a_backward_function(layers: str | None) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), Custom(lambda inner, x: FailingBackward.apply(x)), nn.Flatten(), nn.LazyLinear(3)
    )
    network(IMAGE)
    with pytest.raises(
        ValueError, match=r"its backward pass fails \(ValueError: no gradient\); correct test_model_errors.py"
    ) as raised:
        seewhy.explain(network, IMAGE, layers=layers)
    assert isinstance(raised.value, ModelError) and "\n" not in str(raised.value)


@pytest.mark.parametrize("layers", [None, "every", "inner.0"])
def test_reentrant_checkpointing(layers: str | None) -> None:
    network = Custom(lambda inner, image: checkpoint(inner, image.requires_grad_(), use_reentrant=True))
    with pytest.raises(UsageError, match="use_reentrant=True"):
        seewhy.explain(network, IMAGE.clone(), layers=layers)
    network = Custom(lambda inner, image: checkpoint(inner, image, use_reentrant=False))
    assert seewhy.explain(network, IMAGE, layers=layers).map() is not None


@pytest.mark.parametrize("output", [None, "cat", 0.5, {}, ["a"]])
def test_an_output_without_tensors(output: object) -> None:
    kind = "None" if output is None else f"{type(output).__name__} without a tensor"
    for network in (Custom(lambda inner, image: (inner(image), output)[1]), Custom(lambda inner, image: output)):
        with pytest.raises(
            UsageError, match=f"the model's output is {kind}, not class scores .* its forward must return them"
        ):
            seewhy.explain(network, IMAGE)


def test_class_indices_as_output() -> None:
    with pytest.raises(UsageError, match=r"the model's output is \(1,\) int64, not class scores"):
        seewhy.explain(Custom(lambda inner, image: inner(image).argmax(1)), IMAGE)


def test_weights_of_another_type_or_without_values() -> None:
    with pytest.raises(
        ModelError, match=r"float32 on cpu and the weights float64 on cpu: pass inputs.to\(torch.float64\)"
    ):
        seewhy.explain(classifier().double(), IMAGE)
    with pytest.raises(ModelError, match="some weights are on the meta device"):
        seewhy.explain(classifier().to("meta"), IMAGE)


def test_a_model_with_more_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier()

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            result: Tensor = self.inner(image) * scale
            return result

    with pytest.raises(ModelError, match=r"'scale'.*it needs more inputs: pass all of them as a tuple or a dict"):
        seewhy.explain(Two(), IMAGE)


def test_a_layer_that_is_never_called() -> None:
    with pytest.raises(UsageError, match=r"layer 'unused': the model never calls it .* Select a layer that it calls"):
        seewhy.explain(Custom(lambda inner, image: inner(image)), IMAGE, layers="unused")


@pytest.mark.parametrize("layers", [None, "every", "0", "conv2d"])
def test_layers_of_an_exported_program(layers: str | None) -> None:
    program = torch.export.export(classifier(), (IMAGE,))
    with pytest.raises(ModelError, match=r"exported program.*torch.export.unflatten\(program\)"):
        seewhy.explain(program.module(), IMAGE, layers=layers)
    with pytest.raises(UsageError, match=r"model=ExportedProgram.*torch.export.unflatten\(program\)"):
        seewhy.explain(program, IMAGE, layers=layers)  # type: ignore[arg-type]
    e = seewhy.explain(torch.export.unflatten(program), IMAGE, layers="0", targets=1)
    assert torch.allclose(e.map(), seewhy.explain(program_source(program), IMAGE, layers="0", targets=1).map())


def program_source(program: torch.export.ExportedProgram) -> nn.Module:
    network = classifier()
    network.load_state_dict(program.state_dict)
    return network


def test_a_class_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"target 7: the model has 5 classes, 0 to 4"):
        seewhy.explain(classifier(), IMAGE, targets=7)
    with pytest.raises(UsageError, match="the model has 5 classes; use top5 or fewer"):
        seewhy.explain(classifier(), IMAGE, targets="top9")


class OwnError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class OneArgument(Exception):
    pass


@pytest.mark.parametrize(
    "error", [KeyError("key"), AttributeError("name"), MemoryError(), OneArgument("x"), OwnError(1, "x")]
)
def test_the_type_of_a_models_exception_is_kept(error: Exception) -> None:
    """Callers may catch what their model raises. The message is that of ModelError, also for KeyError, which quotes."""

    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    with pytest.raises(ModelError) as caught:
        seewhy.explain(Raises(), torch.rand(1, 3, 8, 8))
    assert isinstance(caught.value, type(error))
    assert str(caught.value).startswith("Raises: ") and len(str(caught.value).splitlines()) == 1
