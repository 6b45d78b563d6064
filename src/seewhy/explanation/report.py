"""The HTML page of an explanation, its notebook frame, and its row on the index page."""

from __future__ import annotations

import dataclasses
import html
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from seewhy import storage
from seewhy.errors import UsageError
from seewhy.explanation import figures, saved
from seewhy.explanation.data import (
    ExplanationData,
    MapKey,
    check_photo,
    maps_in_view,
    on_input,
    require_single_image,
    shared_region,
    view_of_region,
)
from seewhy.explanation.flags import FLAGS, find_flags
from seewhy.explanation.page_effects import (
    describe_covering,
    describe_curves,
    describe_random_curves,
    measured_layer,
    measured_page_maps,
)
from seewhy.explanation.selection import available_layer
from seewhy.explanation.strips import Strip, draw_strip, strip_of
from seewhy.images.view import View
from seewhy.methods.catalog import LINEAR
from seewhy.rendering.backgrounds import PhotoBackground
from seewhy.rendering.overlays import CLASSIC, OverlayStyle, as_style
from seewhy.tracing.grid import format_grid
from seewhy.viewer import IndexRow, PageMap, ReportData, build_report, pack

QUANTIZATION_NOTE = (
    "On this page, maps are quantized to 127 levels per sign and averaged to at most 56 cells per side; maps.npz contains "
    "the exact values."
)
DEPTH_NOTE = (
    "Early layers respond to edges and textures rather than objects. Deep layers have few cells, so their maps are "
    "smooth."
)
MIN_CROPPED = 0.01  # fraction of the photo; a smaller border is not visible
THUMBNAIL = 160
LONGEST = 800  # pixels of the photo's longer side on the page
FRAME_HEIGHT = 820  # pixels of a notebook's cell
MAX_FRAME = 10_000_000  # characters in a notebook's cell, which are saved with the notebook


def build_page(e: ExplanationData, style: OverlayStyle | None = None, *, classic: bool = False) -> str:
    """Return the page of one image as ASCII HTML, for clips and volumes with a strip of slices.

    A `classic` page starts with the settings of `classic_overlay`, over the model's input.

    Raises UsageError for signals, and for images as tensors with other than 1 or 3 channels.
    """
    require_single_image(e, "report")
    check_photo(e)
    if not has_page(e):
        shape = tuple(e.size if e.inputs is None else e.inputs.shape[1:])
        raise UsageError(f"the page needs an image, and the input has shape {shape}: use overlay() or map().")
    style = CLASSIC if classic else as_style(style)
    e = on_input(e) if classic else e
    strip = strip_of(e) if len(e.size) == 3 else None
    photo = draw_strip(e, strip) if strip else scaled_photo(e)
    region = None if strip else shared_region(e, e.layers)
    view = strip.view if strip else view_of_region(e) or e.view
    record = saved.build_record(e)
    names = {"method": e.methods, "target": e.targets, "layer": e.layers}
    positions = {kind: {name: number for number, name in enumerate(values)} for kind, values in names.items()}
    maps = []
    for entry, key in zip(record["maps"], e.maps, strict=True):
        indices = {kind: position[entry[kind]] for kind, position in positions.items()}
        map_ = maps_in_view(e, key, region)[0].detach()
        packed = pack(map_.float().cpu().numpy()) if strip is None else pack(strip.arrange_map(map_), sys.maxsize)
        maps.append(
            PageMap(
                **indices, values=packed, positive_evidence=entry["positive_evidence"], flags=entry["flags"],
                check=describe_check(e, key), curves=describe_curves(e, key),
            )
        )  # fmt: skip
    if strip is None:
        maps += measured_page_maps(e, region)
    visible = 1.0 if strip else visible_fraction(view)
    crop_notes = [crop_sentence(visible)] if visible < 1 - MIN_CROPPED else []
    return build_report(
        build_data(e, record, style, view, strip, scale="minmax" if classic else "own"),
        maps,
        storage.encode_jpeg(photo),
        title=Path(e.images[0].source).name if e.images else "tensor",
        model=display_model_name(str(e.provenance.get("model", ""))),
        notes=[*record["notes"], *crop_notes, DEPTH_NOTE, QUANTIZATION_NOTE],
        provenance=describe_provenance(e),
    )


def describe_check(e: ExplanationData, key: MapKey) -> dict[str, Any] | None:
    """Return the verdict of a map for the page; None if the maps were not checked."""
    if key not in e.checks:
        return None
    check = e.checks[key][0]
    name = e.target_results[e.targets.index(key[1])].name
    return {"verdict": check.verdict, "r": storage.finite_or_none(check.r), "text": check.sentence(name)}


def scaled_photo(e: ExplanationData) -> Image.Image:
    assert isinstance(e.background, PhotoBackground)
    return e.background.scaled(LONGEST)[0]


def build_data(
    e: ExplanationData,
    record: Mapping[str, Any],
    style: OverlayStyle,
    view: View,
    strip: Strip | None = None,
    scale: str = "own",
) -> ReportData:
    """Return the choices of the page: methods, targets and layers, in its order."""
    layers = [{"name": name, "suggested": name == e.suggested, **info} for name, info in record["layers"].items()]
    return {
        "methods": [{"key": key, "linear": key.partition("(")[0] in LINEAR} for key in e.methods],
        "targets": record["targets"],
        "layers": [*layers, *(measured_layer(e) if strip is None else [])],
        "top": record["top"],
        "view": dataclasses.asdict(view),
        "tiles": [1, 1] if strip is None else [strip.rows, strip.columns],
        "flags": FLAGS,
        "more_targets": "--targets top5" if "command" in e.provenance else 'targets="top5"',
        "is_cropped": strip is None and visible_fraction(view) < 1 - MIN_CROPPED,
        "style": {"colors": style.colors, "opacity": style.opacity, "fade": style.mode == "fade", "scale": scale},
        "covering": describe_covering(e) if strip is None else None,
        "random_curves": describe_random_curves(e),
    }


def build_notebook_frame(e: ExplanationData) -> str:
    """Return the page in a sandboxed frame, which may run the page's script and save files.

    A page too large for a notebook's cell is replaced by a line with the call that writes it.
    """
    text = build_page(e)
    if len(text) > MAX_FRAME:
        size = f"{len(text) / 1e6:.0f} MB"
        return (
            f"<p>The page of these {len(e.maps):,} maps is {size}, too large for a notebook. "
            'Write it to a file: e.report("report.html")</p>'
        )
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{FRAME_HEIGHT}px;border:0" title="seewhy" '
        f'srcdoc="{html.escape(text)}"></iframe>'
    )


def has_page(e: ExplanationData) -> bool:
    """Return True if there is a page for this explanation.

    It is of one image, of an input with two axes and 1 or 3 channels, or of an input with three axes.
    """
    if len(e) != 1 or len(e.size) not in (2, 3):
        return False
    if len(e.size) == 3:
        return e.inputs is not None
    return e.images is not None or (e.inputs is not None and e.inputs.shape[1] in (1, 3))


def crop_sentence(visible: float) -> str:
    """Return one sentence about a cropped photo, of which the model received the fraction `visible`."""
    return f"The model received {visible:.0%} of the photo; the rest is dimmed."


def visible_fraction(view: View) -> float:
    """Return the fraction of the photo that the model received."""
    left, upper, right, lower = view.box
    height, width = view.photo_size
    across, down = min(right, width) - max(left, 0), min(lower, height) - max(upper, 0)
    return max(across, 0) * max(down, 0) / (height * width)


def describe_provenance(e: ExplanationData) -> dict[str, str]:
    """Return the provenance as text."""
    texts: dict[str, str] = {}
    for name, value in e.provenance.items():
        if isinstance(value, dict):
            texts[name] = ", ".join(f"{key} {item}" for key, item in value.items())
        elif value is not None:
            texts[name] = str(value)
    return {**texts, "input": format_grid(e.size)}


def display_model_name(uri: str) -> str:
    """Return a model's name for the page.

    >>> display_model_name("embedded"), display_model_name("timm/resnet18")
    ('EfficientNet-Lite0 (embedded)', 'timm/resnet18')
    """
    return "EfficientNet-Lite0 (embedded)" if uri == "embedded" else uri


# The index page


def make_index_row(
    e: ExplanationData, folder: str, style: OverlayStyle | None = None, *, classic: bool = False
) -> IndexRow:
    """Return the row of one image on the index page; `folder` contains its page, relative to the index."""
    method, result = e.methods[0], e.target_results[0]
    layer = available_layer(e, method, e.suggested or "")
    key = (method, result.key, layer)
    thumbnail = figures.classic_overlay(e, key) if classic else figures.overlay(e, key, as_style(style), THUMBNAIL)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    return {
        "name": e.images[0].source if e.images else "tensor",
        "page": f"{quote(folder)}/{storage.REPORT}",
        "class": result.name,
        "probability": result.to_dict()["probability"],
        "flags": [FLAGS[flag] for flag in find_flags(e.maps[key][:1], e.has_gradient.get(key[1:]))[0]],
        "thumbnail": storage.encode_jpeg(thumbnail, quality=80),
    }


def make_failed_row(source: str, reason: str) -> IndexRow:
    """Return the row of an image that could not be explained."""
    return {"name": source, "page": "", "class": "", "probability": None, "flags": [reason], "thumbnail": b""}
