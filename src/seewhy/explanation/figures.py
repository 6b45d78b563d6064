"""The pictures of an explanation: overlays and sheets, from its maps and its photo, signal or volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seewhy import tensors
from seewhy.errors import UsageError
from seewhy.explanation import heatmap as heat
from seewhy.rendering import curves, slices
from seewhy.rendering import overlays as render
from seewhy.tracing.grid import format_grid

if TYPE_CHECKING:
    from seewhy.explanation.result import Explanation
    from seewhy.explanation.selection import MapKey

WIDEST = 6  # tiles a row of a comparison
TILE = {1: 2.6, 3: 1.9}  # lanes and mosaics need more pixels than photos do: times the side of a tile
CHANNEL = render.OverlayStyle("blend", "gray", 1.0)  # how a channel is drawn in signals and volumes


def overlay(e: Explanation, key: MapKey, look: render.OverlayStyle, longest: int | None) -> Image.Image:
    """The map over the photo; of a signal on curves, of a volume on slices."""
    e.require_single_image("a picture")
    if len(e.size) != 2:
        return on_ground(e, heat.at_input(e, key, look.scale)[0], look, longest or render.LONGEST)
    photo, box = scaled(e, longest)
    return render.overlay(photo, heat.on_photo(e, key, (photo.height, photo.width), look.scale), look, box)


def on_ground(e: Explanation, levels: Tensor, look: render.OverlayStyle, longest: int) -> Image.Image:
    """Levels (*size) in [0, 1] on the signal or the volume that was explained."""
    numbers, ground = levels.float().cpu().numpy(), ground_of(e)
    if len(e.size) == 1:
        return curves.overlay(ground, numbers, look, longest)
    return slices.overlay(slices.seen(ground, e.provenance.get("preprocess")), numbers, look, longest)


def tile_side(e: Explanation, side: int) -> int:
    return round(side * TILE.get(len(e.size), 1))


def classic_overlay(e: Explanation, key: MapKey) -> Image.Image:
    e.require_single_image("classic_overlay")
    if len(e.size) != 2:
        raise UsageError(f"the tutorial's picture is of photos, and this input has {len(e.size)} axes: use overlay().")
    low = tensors.rectify(e.maps[key][:1]).float().cpu()
    span = low.amax() - low.amin()
    low = (low - low.amin()) / span if span > 0 else low * 0
    return render.classic_overlay(seen(e), tensors.resize(low, e.size)[0].numpy())


def contact_sheet(e: Explanation, keys: Sequence[MapKey], look: render.OverlayStyle, side: int) -> Image.Image:
    tiles, side = [], tile_side(e, side)
    for number, key in enumerate(keys, 1):
        star = "  ·  suggested" if key[2] == e.suggested else ""
        grid = format_grid(e.maps[key].shape[1:])
        tiles.append(render.Tile(key[2], f"{number}   {grid}{star}", overlay(e, key, look, side)))
    return render.contact_sheet(tiles, title(e, keys[0]), f"{source(e)}  ·  {keys[0][0]}")


def comparison(e: Explanation, layer: str | None, look: render.OverlayStyle, side: int) -> Image.Image:
    tiles, side = [], tile_side(e, side)
    several = len(e.target_results) > 1
    for answer in e.target_results:
        for method in e.methods:
            known = e.layers_of(method)
            where = layer if layer is None or layer in known else known[-1]
            key = e.key(method, answer.key, where)
            elsewhere = "" if key[2] == layer else key[2]
            names = (title(e, key), method) if several else (method, elsewhere)
            tiles.append(render.Tile(*names, overlay(e, key, look, side)))
    heading = " / ".join(answer.name for answer in e.target_results) if several else title(e, key)
    count = len(e.methods)
    columns = count if 1 < count <= WIDEST else min(len(tiles), WIDEST)
    return render.contact_sheet(tiles, heading, f"{source(e)}  ·  {layer or e.layers[-1]}", columns)


def features_sheet(e: Explanation, keys: Sequence[MapKey], look: render.OverlayStyle, side: int) -> Image.Image:
    """A row for each layer: the class map, then the strongest channels, from black (lowest) to white (highest)."""
    tiles, side = [], tile_side(e, side)
    for key in keys:
        found = e.features(key[2])
        tiles.append(
            render.Tile(key[2], f"{format_grid(e.maps[key].shape[1:])}   {key[0]}", overlay(e, key, look, side))
        )
        for channel, shown in zip(found.channels[0].tolist(), found.maps[0].float().cpu(), strict=True):
            remark = f"{float(shown.amin()):.3g} to {float(shown.amax()):.3g}"
            tiles.append(render.Tile(f"channel {channel}", remark, channel_picture(e, shown, side)))
    widest = max(e.features(key[2]).channels.shape[1] for key in keys) + 1
    note = (
        f"{source(e)}  ·  left: {keys[0][0]} for the class; beside it the channels that vary most, which know no class"
    )
    return render.contact_sheet(tiles, title(e, keys[0]), note, widest)


def channel_picture(e: Explanation, shown: Tensor, side: int) -> Image.Image:
    """One channel (*grid) from its lowest value in black to its highest in white."""
    levels = tensors.normalize_minmax(shown[None])
    if len(e.size) != 2:
        return on_ground(e, tensors.resize(levels, e.size)[0], CHANNEL, side)
    photo, box = scaled(e, side)
    gray = render.colorize(render.to_bytes(e.view.place(levels[0].numpy(), (photo.height, photo.width))), "gray")
    picture = photo.copy()
    picture.paste(gray.crop(box), box[:2])
    return picture


def title(e: Explanation, key: MapKey) -> str:
    answer = e.target_results[e.targets.index(key[1])]
    return answer.name if answer.probabilities is None else f"{answer.name}   {float(answer.probabilities[0]):.1%}"


def source(e: Explanation) -> str:
    name = Path(e.images[0].source).name if e.images else "tensor"
    return f"{name}  ·  {e.provenance.get('model', '')}"


def scaled(e: Explanation, longest: int | None) -> tuple[Image.Image, render.Box]:
    e.require_single_image("a picture")
    if e.images is not None:
        return e.images[0].scaled(longest)
    return render.scaled_photo(seen(e), e.view, longest)


def seen(e: Explanation) -> NDArray[np.uint8]:
    """The picture as the network saw it, (H, W, 3) uint8."""
    return render.seen(ground_of(e), e.provenance.get("preprocess"))


def ground_of(e: Explanation) -> NDArray[np.float32]:
    """What the network saw, (C, *size)."""
    if e.inputs is None:
        raise UsageError("a loaded explanation keeps no network input; draw it with overlay().")
    numbers: NDArray[np.float32] = e.inputs[0].detach().float().cpu().numpy()
    return numbers
