"""What an explanation states about its layers: grid, channels, parts, notes, and the strongest channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from seewhy.engine.map_collector import Key
from seewhy.engine.options import ReadAt
from seewhy.engine.suggestion import UNCHECKED
from seewhy.explanation.components import NETWORK, ChannelFeatures, LayerInfo
from seewhy.places.parts import describe_parts
from seewhy.signals.recorded import tensors_of
from seewhy.tracing.torch_private import CONVOLUTION
from seewhy.tracing.trace import LayerCall, Trace


def strongest_channels(call: LayerCall, trace: Trace, count: int) -> ChannelFeatures:
    assert call.grid is not None
    activations = tensors_of(call, call.grid).activations
    if call.grid.has_part_axis:
        activations = call.grid.split_parts(activations).transpose(1, 2)
    features = ChannelFeatures.strongest(activations, count)
    if not call.grid.has_part_axis and call.grid.region is None:
        return features
    placed = call.grid.place(features.maps.flatten(0, 1), trace.inputs.shape[2:])
    return ChannelFeatures(features.channels, placed.reshape(*features.maps.shape[:2], *placed.shape[1:]))


def describe_layer(call: LayerCall, trace: Trace, read_at: ReadAt, *, requested: bool) -> LayerInfo:
    """Return module class, grid and channels of a layer, and a note about what was inferred."""
    assert call.grid is not None
    notes = []
    if read_at == "activation" and issubclass(call.module_class, CONVOLUTION):
        notes.append("no activation module follows it: read at the convolution itself")
    if not call.grid.is_confirmed and call.grid.layout == "channels_first" and call.has_unknown_order:
        notes.append("its axes are assumed to be channels first; no convolution confirms that")
    if call.grid.source:
        notes.append(f"read as a {call.grid} grid, {call.grid.source}")
    if call.grid.cells is not None:
        others = call.grid.all_tokens(call.output).shape[2] - call.grid.cell_count
        notes.append(f"{others} tokens before, between or after those of the grid have no location")
    elif call.grid.prefix:
        notes.append(f"its first {call.grid.prefix} tokens have no location")
    if call.has_unknown_order:
        notes.append(UNCHECKED)
    if (times := trace.call_counts[call.module]) > 1:
        notes.append(f"call {call.number} of {times}")
    channels, grid, parts = call.grid.channels_first(call.output).shape[1], call.grid.shape, call.grid.parts
    if parts is not None and not call.grid.has_part_axis:
        notes.append(f"one of its {parts.rows} rows per input shows the explained input")
    elif parts is not None:
        notes.append(f"{parts.rows} rows per input: one {call.grid} map for each {describe_parts(parts)}")
    places = parts.places if parts and call.grid.has_part_axis else ()
    shape = (len(places), *grid) if places else grid
    return LayerInfo(call.module_class.__name__, shape, channels, "; ".join(notes), requested, places, call.grid.region)


def model_as_layer(module: nn.Module, size: tuple[int, ...]) -> LayerInfo:
    return LayerInfo(type(module).__name__, size, 0, "the entire model")


def layers_with_maps(
    layer_info: Mapping[str, LayerInfo], maps: Iterable[Key], *, entire: LayerInfo
) -> dict[str, LayerInfo]:
    """Return the layers that have maps; maps of the entire model are listed under NETWORK."""
    names = {layer for _, _, layer in maps}
    kept = {name: info for name, info in layer_info.items() if name in names}
    if NETWORK in names:
        kept.setdefault(NETWORK, entire)  # keep a module that has this name
    return kept
