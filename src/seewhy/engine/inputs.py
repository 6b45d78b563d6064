"""What a user gives to be explained, a tensor, pictures or all arguments of a model, as the tensor that is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import UnknownName, UsageError
from seewhy.explanation.answer import Picture
from seewhy.images.loading import load_image, name_of
from seewhy.images.preprocess import Fit, Preprocess
from seewhy.models.loaded import input_form
from seewhy.models.loading import LoadedModel
from seewhy.tracing.single_input import SingleInputModel
from seewhy.tracing.twin import twin

PICTURES = (
    "pixel_values",
    "images",
    "image",
    "x",
    "inputs",
    "input",
)  # usual names of the argument that is the picture

FIT_NOTES = ("preprocessing: squashed", "preprocessing: what a photo does not fill")


@dataclass(frozen=True, eq=False)
class Given:
    """What was given: the `tensor` (B, C, *size) that is explained, the `module` that takes it, the `pictures` it was made
    from, whether a `single` picture was given, and `notes` on what was inferred."""

    tensor: Tensor
    module: nn.Module
    pictures: tuple[Picture, ...] | None = None
    single: bool = False
    notes: tuple[str, ...] = ()


def read_inputs(
    inputs: Any, loaded: LoadedModel, arguments: Mapping[str, Any] | None = None, main: str | int | None = None
) -> Given:
    """The tensor that is explained, and the module that takes it alone.

    `arguments` go to the model beside the inputs; `main` says which of several inputs is explained. Raises UsageError.
    """
    if isinstance(inputs, Mapping) or (isinstance(inputs, tuple) and any(isinstance(one, Tensor) for one in inputs)):
        given = read_arguments(inputs, arguments or {}, main, loaded.module)
    else:
        if main is not None:
            raise UsageError(f"main={main!r}: there is one input; say main only for a tuple or dict of several.")
        tensor, pictures, single = read(inputs, loaded)
        module = SingleInputModel(loaded.module, (None,), arguments, 0, len(tensor)) if arguments else loaded.module
        given = Given(tensor, module, pictures, single)
    if isinstance(given.module, SingleInputModel) and (rows := given.module.by_row()):
        given = replace(given, notes=(*given.notes, f"taken to have a row for each picture: {', '.join(rows)}"))
    if given.tensor.is_inference():  # or it could never be part of a graph
        with torch.inference_mode(False):
            given = replace(given, tensor=given.tensor.clone())
    return given


def read_arguments(
    inputs: Mapping[str, Any] | tuple[Any, ...], arguments: Mapping[str, Any], main: str | int | None, module: nn.Module
) -> Given:
    """All arguments of a model: a dict of its keyword arguments, or a tuple of its positional ones."""
    named: dict[Any, Any] = dict(inputs) if isinstance(inputs, Mapping) else dict(enumerate(inputs))
    usable = [place for place, value in named.items() if is_picture(value)]
    if main is not None:
        if main not in usable:
            raise UnknownName("input", str(main), map(str, usable), "It must be floats (B, C, *size).")
        place = main
    elif len(usable) == 1:
        place = usable[0]
    else:
        usual = [name for name in PICTURES if name in usable]
        if not usable or not usual:
            found = ", ".join(f"{place!r} {kind_of(value)}" for place, value in named.items())
            which = "none is floats (B, C, *size)" if not usable else f"say which is explained: main={usable[0]!r}"
            raise UsageError(f"inputs {found}: {which}.")
        place = usual[0]
    others = [str(name) for name in named if name != place]
    notes = (f"explained on the input {place!r}; given with it: {', '.join(others)}",) if others else ()
    tensor: Tensor = named[place]
    if isinstance(place, str):
        fed = SingleInputModel(module, (), {**named, **arguments}, place, len(tensor))
    else:
        fed = SingleInputModel(module, tuple(named.values()), arguments, place, len(tensor))
    return Given(tensor, fed, notes=notes)


def is_picture(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() >= 3 and value.is_floating_point()


def kind_of(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def read(inputs: Any, loaded: LoadedModel) -> tuple[Tensor, tuple[Picture, ...] | None, bool]:
    if isinstance(inputs, Sequence) and inputs and all(isinstance(one, Tensor) for one in inputs):
        inputs = stacked(inputs, loaded.module)
    if isinstance(inputs, Tensor):
        if inputs.dim() < 3 or not inputs.is_floating_point():
            raise UsageError(
                f"inputs of shape {tuple(inputs.shape)}, {inputs.dtype}: give floats (B, C, height, width)."
            )
        return inputs, None, False
    single = not isinstance(inputs, (list, tuple))
    sources = [inputs] if single else list(inputs)
    if not sources:
        raise UsageError("no pictures: the list is empty.")
    if loaded.preprocess is None:
        raise UsageError(
            f"{loaded.uri} brings no preprocessing for pictures: pass preprocess=seewhy.Preprocess.imagenet(224), or a tensor."
        )
    pairs = [read_picture(source, loaded.preprocess) for source in sources]
    tensor = torch.cat([pair[0] for pair in pairs])
    like = next(loaded.module.parameters(), tensor)
    pictures = tuple(pair[1] for pair in pairs if pair[1] is not None)
    return tensor.to(like.device, like.dtype), pictures if len(pictures) == len(pairs) else None, single


def stacked(tensors: Sequence[Tensor], module: nn.Module) -> Tensor:
    """A list of tensors (C, *size), as detectors take it, or (1, C, *size), as one batch."""
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))
    if len(shapes) > 1:
        listed = " and ".join(map(str, shapes[:2]))
        raise UsageError(f"a list of tensors of different shapes, {listed}: explain them one by one.")
    axes = (input_form(module) or (3, 2))[1]
    batches = tensors[0].dim() == axes + 2 and len(tensors[0]) == 1
    return torch.cat(list(tensors)) if batches else torch.stack(list(tensors))


def read_picture(source: Any, preprocess: Any) -> tuple[Tensor, Picture | None]:
    image = load_image(source)
    if isinstance(preprocess, Preprocess):
        tensor, view = preprocess(image)
        return tensor, Picture(name_of(source), image, view)
    tensor = preprocess(Image.fromarray(image))  # any other function tells nothing about where things went
    if not isinstance(tensor, Tensor) or tensor.dim() not in (3, 4):
        raise UsageError(f"the preprocess gave {type(tensor).__name__}; it must give a tensor (C, H, W).")
    return tensor if tensor.dim() == 4 else tensor[None], None


def output_for(picture: Any, loaded: LoadedModel) -> Any:
    """What the model answers to another picture."""
    given = read_inputs(picture, loaded)
    with torch.inference_mode(False), torch.no_grad():
        return twin(given.module)(given.tensor)


def with_fit(loaded: LoadedModel, fit: Fit) -> LoadedModel:
    """The same with another `fit`, and without what was said about the model's own."""
    if not isinstance(loaded.preprocess, Preprocess):
        raise UsageError(f"fit={fit!r}: only a seewhy.Preprocess can change how a picture meets the input size.")
    notes = tuple(note for note in loaded.notes if not note.startswith(FIT_NOTES))
    return replace(loaded, preprocess=loaded.preprocess.with_fit(fit), notes=notes)
