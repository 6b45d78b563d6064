"""Figures of an explanation: overlays and contact sheets, with captions from its fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from seewhy.errors import UsageError
from seewhy.explanation.data import ExplanationData, MapKey, heatmap_of, positive_maps, require_single_image
from seewhy.explanation.selection import available_layer, find_key
from seewhy.rendering.contact_sheets import (
    MAX_COMPARISON_COLUMNS,
    Tile,
    comparison_sheet,
    features_sheet,
    sheet_capacity,
    table_capacity,
)
from seewhy.rendering.contact_sheets import contact_sheet as draw_contact_sheet
from seewhy.rendering.overlays import OverlayStyle, draw_classic_overlay
from seewhy.tensors import map_functions
from seewhy.tracing.grid import format_grid


def overlay(e: ExplanationData, key: MapKey, style: OverlayStyle, longest: int | None) -> Image.Image:
    """Draw one heatmap over the photo, the signal or the volume."""
    require_single_image(e, "overlay")
    return e.background.draw_overlay(heatmap_of(e, key, style.scale), style, longest)


def classic_overlay(e: ExplanationData, key: MapKey) -> Image.Image:
    """Draw one map as the Grad-CAM tutorials do: min-max scaled at low resolution, over the model's input."""
    require_single_image(e, "classic_overlay")
    if len(e.size) != 2:
        raise UsageError(f"classic_overlay needs an image, and this input has {len(e.size)} axes: use overlay().")
    low = map_functions.rectify(positive_maps(e, key)[:1]).float().cpu()
    span = low.amax() - low.amin()
    low = (low - low.amin()) / span if span > 0 else low * 0
    return draw_classic_overlay(e.input_pixels(), map_functions.resize(low, e.size)[0].numpy())


def draw_tile(e: ExplanationData, key: MapKey, style: OverlayStyle | None, side: int) -> Image.Image:
    """Draw one overlay of a sheet; without a style, the classic overlay, which has the size of the input."""
    return classic_overlay(e, key) if style is None else overlay(e, key, style, side)


def contact_sheet(e: ExplanationData, keys: Sequence[MapKey], style: OverlayStyle | None, side: int) -> Image.Image:
    """Draw one overlay per layer of one method and target; classic overlays without a style."""
    require_single_image(e, "contact_sheet")
    tiles, side = [], e.background.tile_side(side)
    for number, key in enumerate(keys, 1):
        star = "  ·  suggested" if key[2] == e.suggested else ""
        remark = f"{number}   {grid_of(e, key)}{star}"
        tiles.append(Tile(key[2], remark, draw_tile(e, key, style, side)))
        if len(tiles) >= sheet_capacity(tiles[0].image):
            break
    note = f"{source(e)}  ·  {keys[0][0]}{count_note(len(tiles), len(keys), 'layers')}"
    return draw_contact_sheet(tiles, target_title(e, keys[0]), note)


def comparison(e: ExplanationData, layer: str | None, style: OverlayStyle | None, side: int) -> Image.Image:
    """Draw all methods and targets at one layer; a method without a map there at its last layer. Style: as a contact sheet."""
    require_single_image(e, "comparison")
    tiles, side = list[Tile](), e.background.tile_side(side)
    several = len(e.target_results) > 1
    pairs = [(result, method) for result in e.target_results for method in e.methods]
    for result, method in pairs:
        if tiles and len(tiles) >= sheet_capacity(tiles[0].image, MAX_COMPARISON_COLUMNS):
            break
        own = layer if layer is None else available_layer(e, method, layer)
        key = find_key(e, method, result.key, own)
        elsewhere = "" if key[2] == layer else key[2]
        names = (target_title(e, key), method) if several else (method, elsewhere)
        tiles.append(Tile(*names, draw_tile(e, key, style, side)))
    title = " / ".join(result.name for result in e.target_results) if several else target_title(e, key)
    note = f"{source(e)}  ·  {layer or e.layers[-1]}{count_note(len(tiles), len(pairs), 'maps')}"
    return comparison_sheet(tiles, title, note, len(e.methods))


def channel_sheet(e: ExplanationData, keys: Sequence[MapKey], style: OverlayStyle, side: int) -> Image.Image:
    """Draw a row per layer: the class map, then the strongest channels, from black (minimum) to white (maximum)."""
    require_single_image(e, "features_sheet")
    side = e.background.tile_side(side)
    first = overlay(e, keys[0], style, side)
    layers, columns = table_capacity(first, len(keys))
    rows, count = [], 0
    for key in keys[-layers:]:
        features = e.channel_features[key[2]]
        row = [Tile(key[2], f"{grid_of(e, key)}   {key[0]}", overlay(e, key, style, side))]
        count = max(count, len(features.channels[0]))
        indices, maps = features.channels[0, : columns - 1].tolist(), features.maps[0, : columns - 1].float().cpu()
        for index, channel in zip(indices, maps, strict=True):
            remark = f"{float(channel.amin()):.3g} to {float(channel.amax()):.3g}"
            row.append(Tile(f"channel {index}", remark, e.background.draw_channel(channel, e.size, side)))
        rows.append(row)
    note = f"{source(e)}  ·  left: {keys[0][0]} of the class; then the channels that vary most, regardless of the class"
    note += count_note(layers, len(keys), "layers") + count_note(min(count, columns - 1), count, "channels")
    return features_sheet(rows, target_title(e, keys[0]), note)


def count_note(drawn: int, count: int, names: str) -> str:
    """Return the end of a note with how many were drawn; "" for all.

    >>> count_note(40, 5000, "channels"), count_note(8, 8, "layers")
    ('  ·  40 of 5000 channels', '')
    """
    return "" if drawn == count else f"  ·  {drawn} of {count} {names}"


def grid_of(e: ExplanationData, key: MapKey) -> str:
    return format_grid(e.maps[key].shape[1:])


def target_title(e: ExplanationData, key: MapKey) -> str:
    """Return the name of a map's target, with its probability if it has one."""
    result = e.target_results[e.targets.index(key[1])]
    return result.name if result.probabilities is None else f"{result.name}   {float(result.probabilities[0]):.1%}"


def source(e: ExplanationData) -> str:
    """Return the image's file name and the model."""
    name = Path(e.images[0].source).name if e.images else "tensor"
    return f"{name}  ·  {e.provenance.get('model', '')}"
