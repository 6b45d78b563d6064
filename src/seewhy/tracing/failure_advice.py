"""What to change so that a model's forward does not fail, found from its error, its first convolution and the inputs."""

from __future__ import annotations

import inspect
import os
import re
import traceback

import torch
from torch import Tensor, nn

from seewhy.tracing.torch_private import CONVOLUTION

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TORCH = os.path.dirname(os.path.abspath(torch.__file__))

MISSING_ARGUMENT = re.compile("missing [0-9]+ required (positional|keyword-only) argument")
OTHER_ARGUMENT = re.compile("got an unexpected keyword argument")
# In PyTorch's error messages:
VIEW_IN_PLACE = re.compile("view.* modified inplace")
WRONG_CHANNELS = re.compile(r"weight of size (\[[^]]*\]).* channels, but got \d+ channels")
WRONG_AXES = re.compile(r"^Expected \d+D \(unbatched\) or \d+D \(batched\) input")
WRONG_FEATURES = re.compile("shapes cannot be multiplied")
TOO_SMALL = re.compile("Kernel size can't be greater than actual input size|[Oo]utput size is too small")
FIXED_BATCH = re.compile(r"^(Guard failed: \w+\.size\(\)\[0\]|Expected input at \*args\[0\]\.shape\[0\])")

SHAPES = {1: "(B, C, length)", 2: "(B, C, height, width)", 3: "(B, C, depth, height, width)"}


def advice_for(error: Exception, network: nn.Module, inputs: Tensor) -> str:
    """Return what to change so that a model's forward does not fail."""
    if advice := advice_on_axes(error, network, inputs):
        return advice
    if VIEW_IN_PLACE.search(str(error)):
        return "it changes a part of a tensor in place, which PyTorch cannot differentiate: change a copy (x.clone())."
    if MISSING_ARGUMENT.search(str(error)):
        return "it needs more inputs: pass all of them as a tuple or a dict, or the others as arguments=."
    if OTHER_ARGUMENT.search(str(error)):
        names = [repr(name) for name in inspect.signature(network.forward).parameters]
        return f"its forward takes {', '.join(names)}."
    if FIXED_BATCH.search(str(error)):
        return (
            "it was exported for one number of images: export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), "
            "or pass the original Python model."
        )
    weight = next((one for one in network.parameters() if one.is_floating_point()), inputs)
    if any(one.is_meta for one in network.parameters()):
        return "some weights are on the meta device, where they have no values: load them first."
    if (weight.dtype, weight.device) != (inputs.dtype, inputs.device):
        return advice_on_type(weight, inputs)
    if WRONG_FEATURES.search(str(error)):
        return "a linear layer fits another number of features: pass inputs of the size that the model was built for."
    if TOO_SMALL.search(str(error)):
        return "the inputs are too small for it: pass larger ones."
    if isinstance(error, NotImplementedError) and "forward" not in vars(type(network)):
        return f"{type(network).__name__} defines no forward."
    place = raised_at(error)
    return "pass inputs that the model accepts" + (f", or correct {place}." if place else ".")


def advice_on_axes(error: Exception, network: nn.Module, inputs: Tensor) -> str:
    """Return how to bring inputs to the axes and channels of the first convolution; "" if they fit, or are not the cause."""
    convolutions = [module for module in network.modules() if isinstance(module, CONVOLUTION)]
    if not convolutions:
        return ""
    first, shape = convolutions[0], inputs.shape
    axes, channels = len(first.kernel_size) + 2, first.in_channels
    expected = SHAPES[axes - 2].replace("C", str(channels))
    if len(shape) == axes - 1 and shape[0] == channels:
        return "add the batch axis: x[None]."
    if len(shape) == axes - 1 and shape[-1] == channels:
        return "add the batch axis and move the channels to the front: x.movedim(-1, 0)[None]."
    if WRONG_AXES.search(str(error)) and len(shape) != axes:
        return f"pass inputs of shape {expected}."
    match = WRONG_CHANNELS.search(str(error))
    if not match or match[1] != str(list(first.weight.shape)) or len(shape) != axes or shape[1] == channels:
        return ""
    if shape[-1] == channels:
        return "move the channels to axis 1: x.movedim(-1, 1)."
    if shape[1] == 1:
        return f"repeat the channel: x.expand({', '.join(['-1', str(channels), *['-1'] * (axes - 2)])})."
    if (shape[1], channels) == (4, 3):
        return "drop the fourth channel, if it is transparency: x[:, :3]."
    return f"pass inputs of shape {expected}."


def advice_on_type(weight: Tensor, inputs: Tensor) -> str:
    """Return how to bring inputs to the type and device of the weights."""
    kind, other = (f"{str(one.dtype).removeprefix('torch.')} on {one.device}" for one in (inputs, weight))
    call = ", ".join(
        text
        for text, differs in (
            (repr(str(weight.device)), weight.device != inputs.device),
            (str(weight.dtype), weight.dtype != inputs.dtype),
        )
        if differs
    )
    return f"the inputs are {kind} and the weights {other}: pass inputs.to({call})."


def raised_at(error: BaseException) -> str:
    """Return the file and line that raised an error, "" if that is in PyTorch or in this package."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or frames[-1].filename.startswith((f"{PACKAGE}{os.sep}", f"{TORCH}{os.sep}", "<")):
        return ""
    return f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}"
