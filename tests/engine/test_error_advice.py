"""What messages advise: axes and types of inputs, missing gradients, arguments of another type, targets in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, ModelError, SeewhyError, TargetError, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.tracing.failure_advice import advice_for
from support.factories import classifier, fixed_size_classifier

IMAGES = torch.rand(2, 3, 9, 9)


class Changed(nn.Module):
    """A classifier whose scores are changed by a function."""

    def __init__(self, change: Callable[[Tensor], Tensor], head: bool = True) -> None:
        super().__init__()
        self.inner: nn.Module = classifier() if head else nn.Conv2d(3, 4, 3)
        self.change, self.head = change, head

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.inner(images)
        return self.change(scores if self.head else scores.mean((2, 3)))


# Shapes


@pytest.mark.parametrize("layers", [None, "0"])
@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((3, 9, 9), "add the batch axis: x[None]."),
        ((9, 9, 3), "add the batch axis and move the channels to the front: x.movedim(-1, 0)[None]."),
        ((9, 9), "pass inputs of shape (B, 3, height, width)."),
        ((1, 9, 9, 3), "move the channels to axis 1: x.movedim(-1, 1)."),
        ((2, 1, 9, 9), "repeat the channel: x.expand(-1, 3, -1, -1)."),
        ((2, 4, 9, 9), "drop the fourth channel, if it is transparency: x[:, :3]."),
        ((2, 7, 9, 9), "pass inputs of shape (B, 3, height, width)."),
        ((2, 1, 3, 9, 9), "pass inputs of shape (B, 3, height, width)."),
    ],
)
def test_inputs_with_other_axes(shape: tuple[int, ...], advice: str, layers: str | None) -> None:
    with pytest.raises(ModelError) as error:
        seewhy.explain(classifier(), torch.rand(shape), layers=layers)
    assert f"inputs of shape {shape} (" in str(error.value)  # as given, not the first image or another order of axes
    assert str(error.value).endswith(advice)


@pytest.mark.parametrize("shape", [(3, 9, 9), (9, 9, 3), (1, 9, 9, 3), (2, 1, 9, 9), (2, 4, 9, 9)])
def test_the_advice_on_axes_works(shape: tuple[int, ...]) -> None:
    inputs = torch.rand(shape)
    with pytest.raises(ModelError) as error:
        seewhy.explain(classifier(), inputs)
    expression = str(error.value).rpartition(": x")[2].removesuffix(".")
    changed = eval(f"x{expression}", {"x": inputs})
    assert seewhy.explain(classifier(), changed).map().dim() == 3


def test_inputs_of_another_size() -> None:
    with pytest.raises(ModelError, match=r"shape \(2, 3, 9, 9\).* of the size that the model was built for"):
        seewhy.explain(fixed_size_classifier(), IMAGES)
    with pytest.raises(ModelError, match="too small for it: pass larger ones"):
        seewhy.explain(nn.Sequential(nn.Conv2d(3, 4, 12), nn.Flatten()), IMAGES)


def test_another_name_of_an_argument() -> None:
    with pytest.raises(ModelError, match=r"\(TypeError: .*'pixels'\); its forward takes 'images'"):
        seewhy.explain(Changed(torch.relu), {"pixels": IMAGES})


def test_a_program_exported_for_one_number_of_images() -> None:
    network = classifier().eval()
    fixed = torch.export.unflatten(torch.export.export(network, (IMAGES,)))
    with pytest.raises(ModelError, match=r"dynamic_shapes=\(\{0: torch.export.Dim.DYNAMIC\},\)"):
        seewhy.explain(fixed, IMAGES)
    exported = torch.export.export(network, (IMAGES,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert len(seewhy.explain(torch.export.unflatten(exported), IMAGES[:1])) == 1
    with pytest.raises(ModelError, match="it is an exported program"):
        seewhy.explain(torch.export.export(network, (IMAGES,)).module(), IMAGES)


def test_channels_of_another_layer_are_no_advice_on_the_inputs() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3))
    error = RuntimeError(
        "Given groups=1, weight of size [4, 5, 3, 3], expected ... to have 5 channels, but got 4 channels"
    )
    assert advice_for(error, network, IMAGES) == "pass inputs that the model accepts."


def test_a_module_without_a_forward() -> None:
    class Empty(nn.Module):
        pass

    with pytest.raises(ModelError, match="Empty defines no forward"):
        seewhy.explain(Empty(), IMAGES)


# Gradients


@pytest.mark.parametrize("layers", [None, "inner.0"])
@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores.detach(),
        lambda scores: (scores > 0).float(),
        lambda scores: torch.from_numpy(scores.detach().numpy()),
        lambda scores: torch.zeros(len(scores), 3),
    ],
)
def test_an_output_without_gradient(change: Callable[[Tensor], Tensor], layers: str | None) -> None:
    with pytest.raises(LayerError, match=r"no gradient leads from the model's output to its input.*such as occlusion"):
        seewhy.explain(Changed(change), IMAGES, layers=layers)
    assert seewhy.explain(Changed(change), IMAGES, methods="occlusion(window=0.3)").map().shape == (2, 9, 9)


def test_class_indices_as_output() -> None:
    with pytest.raises(TargetError, match=r"\(2,\) int64, not class scores .*before argmax or rounding"):
        seewhy.explain(Changed(lambda scores: scores.argmax(1)), IMAGES)


def test_an_output_that_is_not_a_number() -> None:
    with pytest.raises(LayerError, match="the model's output is NaN or infinite for this input"):
        seewhy.explain(Changed(lambda scores: scores * float("nan"), head=False), IMAGES)


def test_a_gradient_that_is_zero_everywhere() -> None:
    with pytest.raises(LayerError, match="zero at nearly all positions"):
        seewhy.explain(Changed(lambda scores: scores * 0, head=False), IMAGES)


def test_a_model_without_positions() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(243, 4))
    with pytest.raises(LayerError, match=r"no layer of this model has positions.*\(1, 243\), \(1, 4\)"):
        seewhy.explain(network, IMAGES)
    assert seewhy.explain(network, IMAGES, methods="occlusion(window=0.3)").map().shape == (2, 9, 9)


def test_a_grid_with_one_cell() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten())
    with pytest.raises(LayerError, match=r"reduced to one cell at layer '0', \(1, 4, 1, 1\)\. Pass larger inputs"):
        seewhy.explain(network, IMAGES)
    assert seewhy.explain(network[:1], torch.rand(1, 3, 12, 12), targets="value:mean").map().shape == (1, 4, 4)


# Arguments of another type


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seewhy.explain(classifier(), None), "inputs=None: pass a float tensor"),
        (lambda: seewhy.explain(classifier(), [42]), "inputs=42: pass a float tensor"),
        (lambda: seewhy.explain(None, IMAGES), "model=None: pass a module"),
        (lambda: seewhy.explain(nn.Conv2d, IMAGES), r"This is the class: pass an instance, Conv2d\(...\)"),
        (lambda: seewhy.explain(classifier().state_dict(), IMAGES), "A state dict has weights and no layers"),
        (lambda: seewhy.explain(IMAGES, classifier()), "The model is the first argument"),
        (lambda: seewhy.explain(torch.relu, IMAGES), "pass the module that it calls"),
        (
            lambda: seewhy.explain(classifier(), "photo.jpg", preprocess=224),
            r"preprocess=224: pass a seewhy.Preprocess",
        ),
        (lambda: seewhy.explain(classifier(), IMAGES, memory="lots"), "memory=.lots.: give a number"),
        (lambda: seewhy.explain(classifier(), IMAGES, channels="all"), "channels=.all.: give a number"),
        (lambda: seewhy.explain_all(None, IMAGES, "run"), "inputs=Tensor: pass a folder.*use seewhy.explain"),
        (lambda: seewhy.explain_all(None, None, "run"), "inputs=None: pass a folder"),
        (lambda: seewhy.OverlayStyle("classic"), "no mode 'classic'. Choose fade or blend"),
        (lambda: seewhy.OverlayStyle(opacity=80), "opacity=80: pass a number from 0 to 1"),
        (lambda: seewhy.OverlayStyle(colors="hott"), "no color table 'hott'"),
        (
            lambda: seewhy.explain(classifier(), IMAGES)[0].overlay(style="fade"),
            "style='fade': pass a seewhy.OverlayStyle",
        ),
        (lambda: Preprocess.imagenet("big"), "size 'big': pass the side"),
        (lambda: Preprocess(9, (0.5,), (0.5,), "bilinear", 9), r"size 9 .*: pass \(height, width\)"),
        (lambda: seewhy.explain(classifier(), IMAGES)[0].top("five"), r"top\('five'\): pass the number of classes"),
        (lambda: seewhy.explain(classifier(), IMAGES)[0].top(0), r"top\(0\): pass the number of classes"),
    ],
)
def test_arguments_of_another_type(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_an_image_number_that_does_not_exist() -> None:
    with pytest.raises(IndexError, match=r"e\[5\]: the explanation has 2 images, 0 to 1"):
        seewhy.explain(classifier(), IMAGES)[5]


@pytest.mark.parametrize(
    ("package", "name", "hint"),
    [
        (seewhy, "GradCam", "it is in seewhy.methods: seewhy.methods.GradCAM"),
        (seewhy.methods, "GradCam", "did you mean seewhy.methods.GradCAM"),
        (seewhy, "expalin", "did you mean seewhy.explain"),
    ],
)
def test_misspelled_names_of_the_package(package: Any, name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(package, name)


def test_keywords_of_other_libraries() -> None:
    with pytest.raises(TypeError, match="'target_layers'; did you mean 'layers'"):
        seewhy.explain(classifier(), IMAGES, target_layers=["0"])  # type: ignore[call-arg]


# Targets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region:1", "'region:1': it needs a segmentation model, and this model returns one score per class"),
        ("point:1@4,4", "'point:1@4,4': it needs a segmentation model"),
        ("box:1@1,2,3,4", "'box:1@1,2,3,4': it needs a detector"),
        ("peak:0", "it needs an output with values at each position"),
        ("text:a bus", "'text:a bus': the model has no text encoder"),
        ("point:1", "'point:1': write the location"),
        ("box:1,2,3", "'box:1,2,3': write a box"),
        ("value:x", "'value:x': pass a channel"),
        ("output:x", "'output:x': an output is a number"),
        ("-1", "-1: the model has"),
        ("output:9", "returns 5 numbers per image, 0 to 4"),
        ("value:9", "has 5 channels, 0 to 4"),
    ],
)
def test_targets_are_shown_as_they_were_given(text: str, message: str) -> None:
    with pytest.raises(SeewhyError) as error:
        seewhy.explain(classifier(), IMAGES, targets=text)
    assert message in str(error.value)
