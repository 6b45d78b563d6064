"""From what a user passes to `explain`, images, tensors or all arguments of a model, to the tensor that is explained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import UnknownName, UsageError, describe_argument
from seewhy.explanation.components import InputImage
from seewhy.images.files import describe_source
from seewhy.images.loading import load_image
from seewhy.images.preprocess import Fit, Preprocess
from seewhy.images.types import ImageArray, ImageSource
from seewhy.models.inspection import infer_input_layout
from seewhy.models.loaded_model import LoadedModel, PreprocessFunction
from seewhy.tracing.axis_order import AxisOrder, find_axis_order, is_unknown
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.twin import make_twin

# What `explain(inputs=)` accepts: a tensor, an image, a list of either, or all arguments of a model as a tuple or dict.
InputSpec = Tensor | ImageSource | Sequence[Tensor | ImageSource] | tuple[object, ...] | Mapping[str, object]

# Usual names of the argument that holds the image, most specific first.
IMAGE_ARGUMENTS = ("pixel_values", "images", "image", "x", "inputs", "input")

FIT_NOTES = ("preprocessing: squashed", "preprocessing: padding")

ONE_ROW_PER_IMAGE = "assumed to hold one row per image"


@dataclass(frozen=True, eq=False)
class NamedImage:
    """A decoded image `pixels` (H, W, 3) uint8 and the name to show for it."""

    source: str
    pixels: ImageArray


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of one call of `explain`.

    `tensor` (B, C, *size) is explained; `module` takes that tensor alone, its other arguments are bound. `images` are what
    the tensor was made from, if it was made from images. `is_single`: one image was passed, not a list. `notes` name what
    was inferred.
    """

    tensor: Tensor
    module: nn.Module
    images: tuple[InputImage, ...] | None = None
    is_single: bool = False
    notes: tuple[str, ...] = ()


IMAGE_TYPES = (Tensor, NamedImage, str, os.PathLike, bytes, bytearray, np.ndarray, Image.Image)


def read_inputs(
    inputs: InputSpec | NamedImage,
    loaded: LoadedModel,
    arguments: Mapping[str, object] | None = None,
    main: str | int | None = None,
) -> Inputs:
    """Return the tensor that is explained, and a module that takes it as its only argument.

    `arguments` are passed to the model in addition to images; `main` selects which of several inputs is explained.
    Raises UsageError for inputs that cannot be explained, ImageError for an image that cannot be read.
    """
    if isinstance(inputs, Mapping) or (isinstance(inputs, tuple) and any(isinstance(item, Tensor) for item in inputs)):
        result = read_arguments(inputs, arguments or {}, main, loaded.module)
    else:
        if main is not None:
            raise UsageError(f"main={main!r}: there is only one input; pass main only with a tuple or dict of inputs.")
        result = read_main_input(inputs, loaded)
        if arguments:
            model = SingleInputModel(loaded.module, (None,), arguments, 0, len(result.tensor))
            result = replace(result, module=model)
    if isinstance(result.module, SingleInputModel) and (names := result.module.per_image_arguments()):
        result = replace(result, notes=(*result.notes, f"{ONE_ROW_PER_IMAGE}: {', '.join(names)}"))
    if result.images is None:
        result = with_usual_axes(result)
    if result.tensor.is_inference():  # an inference tensor cannot be part of a graph
        with torch.inference_mode(False):
            result = replace(result, tensor=result.tensor.clone())
    return result


ASSUMED_AXES = (
    "the axes of the input are assumed to be (batch, channels, positions): no layer of the model shows their order"
)


def with_usual_axes(inputs: Inputs) -> Inputs:
    """Return inputs (B, C, *size), and a module that takes them, for a model that takes another order of axes."""
    if inputs.tensor.dim() == 2:
        order: AxisOrder | None = AxisOrder(None, (1,))
    else:
        order = find_axis_order(inputs.module, inputs.tensor)
    if order is None:
        return (
            replace(inputs, notes=(*inputs.notes, ASSUMED_AXES)) if is_unknown(inputs.module, inputs.tensor) else inputs
        )
    module = inputs.module
    if not isinstance(module, SingleInputModel):
        module = SingleInputModel(module, (None,), {}, 0, len(inputs.tensor))
    tensor = order.to_channels_first(inputs.tensor)
    note = (
        f"axes of the input {tuple(inputs.tensor.shape)}: {order}; maps and inputs are in the order (B, C, *positions)"
    )
    return replace(inputs, tensor=tensor, module=module.with_restore(order.restore), notes=(*inputs.notes, note))


def read_arguments(
    inputs: Mapping[str, object] | tuple[object, ...],
    arguments: Mapping[str, object],
    main: str | int | None,
    module: nn.Module,
) -> Inputs:
    """Read all arguments of a model: a dict of keyword arguments, or a tuple of positional ones."""
    pairs = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    named: dict[str | int, object] = dict(pairs)
    tensors = {place: value for place, value in named.items() if isinstance(value, Tensor) and is_explainable(value)}
    tensors = {place: value for place, value in tensors.items() if value.dim() > 2} or tensors
    place = choose_main(named, list(tensors), main)
    others = [str(name) for name in named if name != place]
    notes = [f"explained input: {place!r}; other arguments: {', '.join(others)}"] if others else []
    if main is None and place not in IMAGE_ARGUMENTS and len(tensors) > 1:
        other = next(other for other in tensors if other != place)
        notes = [f"{note} (main={other!r} explains another)" for note in notes]
    tensor = tensors[place]
    if isinstance(place, str):
        bound = SingleInputModel(module, (), {**named, **arguments}, place, len(tensor))  # type: ignore[dict-item]
    else:
        bound = SingleInputModel(module, tuple(named.values()), arguments, place, len(tensor))
    return Inputs(tensor, bound, notes=tuple(notes))


def choose_main(named: Mapping[str | int, object], usable: Sequence[str | int], main: str | int | None) -> str | int:
    """Return which argument is explained: the selected one, the only possible one, or the one with a usual name."""
    if main is not None:
        if main not in usable:
            raise UnknownName("input", str(main), map(str, usable), "It must be a float tensor (B, C, *size).")
        return main
    if len(usable) == 1:
        return usable[0]
    usual = [name for name in IMAGE_ARGUMENTS if name in usable]
    if usual:
        return usual[0]
    images = [value for place, value in named.items() if place in usable and isinstance(value, Tensor)]
    if images and images[0].dim() >= 4 and all(image.shape == images[0].shape for image in images):
        return usable[0]  # of two images, as for optical flow
    listed = ", ".join(f"{place!r} {describe(value)}" for place, value in named.items())
    if not usable:
        raise UsageError(f"inputs {listed}: none is a float tensor (B, C, *size).")
    raise UsageError(f"inputs {listed}: several can be explained; choose one, for example main={usable[0]!r}.")


def is_explainable(tensor: Tensor) -> bool:
    """Return True for a float tensor with a batch axis and at least one more."""
    return tensor.dim() >= 2 and tensor.is_floating_point()


def describe(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def read_main_input(inputs: object, loaded: LoadedModel) -> Inputs:
    """Read a tensor, an image, or a list of tensors or images."""
    if isinstance(inputs, Sequence) and inputs and all(isinstance(item, Tensor) for item in inputs):
        inputs = stack(inputs, loaded.module)
    if isinstance(inputs, Tensor):
        if inputs.dim() and not len(inputs):
            raise UsageError(f"inputs of shape {tuple(inputs.shape)}: the batch is empty.")
        if not is_explainable(inputs):
            raise UsageError(
                f"inputs of shape {tuple(inputs.shape)}, {inputs.dtype}: pass a float tensor (B, C, height, width)."
            )
        return Inputs(inputs, loaded.module)
    is_single = not isinstance(inputs, (list, tuple))
    sources = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not sources:
        raise UsageError("inputs: the list of images is empty.")
    for source in sources:
        check_is_image(source)
    if loaded.preprocess is None:
        raise UsageError(
            f"{loaded.uri} has no preprocessing for images: pass preprocess=seewhy.Preprocess.imagenet(224), or a tensor."
        )
    pairs = [read_image(source, loaded.preprocess) for source in sources]
    tensor = torch.cat([pair[0] for pair in pairs])
    images = tuple(pair[1] for pair in pairs if pair[1] is not None)
    like = next(loaded.module.parameters(), tensor)
    tensor = tensor.to(like.device, like.dtype)
    return Inputs(tensor, loaded.module, images if len(images) == len(pairs) else None, is_single)


def check_is_image(source: object) -> None:
    """Raise UsageError for an object that no image can be read from."""
    if isinstance(source, IMAGE_TYPES) or hasattr(source, "read"):
        return
    raise UsageError(
        f"inputs={describe_argument(source)}: pass a float tensor (B, C, height, width), or images: paths, bytes, PIL images "
        "or uint8 arrays (H, W, 3)."
    )


def stack(tensors: Sequence[Tensor], module: nn.Module) -> Tensor:
    """Return one batch from a list of tensors (C, *size), as detectors take it, or (1, C, *size)."""
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) > 1:
        listed = " and ".join(map(str, shapes[:2]))
        raise UsageError(f"a list of tensors with different shapes, {listed}: explain them one at a time.")
    axes = (infer_input_layout(module) or (3, 2))[1]
    has_batch_axis = tensors[0].dim() == axes + 2 and len(tensors[0]) == 1
    return torch.cat(list(tensors)) if has_batch_axis else torch.stack(list(tensors))


def read_image(source: object, preprocess: Preprocess | PreprocessFunction) -> tuple[Tensor, InputImage | None]:
    """Return an image as a model input (1, C, H, W), and the image itself where its position in the photo is known."""
    if not isinstance(source, NamedImage):
        source = NamedImage(describe_source(source), load_image(source))  # type: ignore[arg-type]
    if isinstance(preprocess, Preprocess):
        tensor, view = preprocess(source.pixels)
        return tensor, InputImage(source.source, source.pixels, view)
    tensor = preprocess(Image.fromarray(source.pixels))  # any other function does not report how it crops
    if not isinstance(tensor, Tensor) or tensor.dim() not in (3, 4):
        raise UsageError(f"preprocess returned {type(tensor).__name__}; it must return a tensor (C, H, W).")
    return tensor if tensor.dim() == 4 else tensor[None], None


def output_for(image: InputSpec, loaded: LoadedModel) -> object:
    """Return the model's output for another image."""
    inputs = read_inputs(image, loaded)
    with torch.inference_mode(False), torch.no_grad():
        return make_twin(inputs.module)(inputs.tensor)


def with_fit(loaded: LoadedModel, fit: Fit) -> LoadedModel:
    """Return the model with another `fit` of images to the input size, without notes about its own fit."""
    if not isinstance(loaded.preprocess, Preprocess):
        raise UsageError(f"fit={fit!r}: only a seewhy.Preprocess can change how an image is fitted to the input size.")
    notes = tuple(note for note in loaded.notes if not note.startswith(FIT_NOTES))
    return replace(loaded, preprocess=loaded.preprocess.with_fit(fit), notes=notes)
