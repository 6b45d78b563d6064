"""Why no layer can be explained: the output has no gradient or no number, or no layer has a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from seewhy.tensors.nested import tensors_in
from seewhy.tracing.record import has_graph
from seewhy.tracing.trace import LayerCall, Trace

WITHOUT_LAYERS = "use a method that needs no layer, such as occlusion"


def suggestion_obstacle(trace: Trace, calls: Sequence[LayerCall]) -> str:
    """Return why no layer can be suggested. `calls` are those with a grid of at least 2 cells per axis."""
    if not has_graph(trace.output):
        return no_output_gradient()
    if not calls:
        return no_grid(trace.calls)
    if not all(bool(tensor.isfinite().all()) for tensor in float_tensors(trace.output)):
        return (
            "the model's output is NaN or infinite for this input, so it has no gradient. Check the preprocessing and the "
            "weights, for example with torch.isfinite."
        )
    return (
        "the gradient of the model's output is zero at nearly all positions of each layer. Name a layer to see its map, or "
        f"{WITHOUT_LAYERS}."
    )


def no_output_gradient() -> str:
    return (
        "no gradient leads from the model's output to its input: its forward detaches it (.detach(), argmax, a comparison, "
        f"code outside PyTorch) or ignores the input. Explain the model without that step, or {WITHOUT_LAYERS}."
    )


def no_grid(calls: Sequence[LayerCall]) -> str:
    """Return why none of these calls has a grid of at least 2 cells per axis."""
    one_cell = [call for call in calls if call.output.dim() > 3 and call.output.shape[2:].numel() == 1]
    if one_cell:
        name, shape = one_cell[0].name, tuple(one_cell[0].output.shape)
        return (
            "no layer has a grid of at least 2 cells per axis: the input is reduced to one cell at layer "
            f"{name!r}, {shape}. Pass larger inputs, or {WITHOUT_LAYERS}."
        )
    shapes = list(dict.fromkeys(str(tuple(call.output.shape)) for call in calls))
    listed = f"; outputs are {', '.join(shapes[:3])}" if shapes else ""
    return (
        f"no layer of this model has positions, as a convolution or tokens have{listed}. For images, {WITHOUT_LAYERS}."
    )


def float_tensors(output: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]
