"""An explanation of one picture as the explorable page."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from seewhy import storage
from seewhy.errors import UsageError
from seewhy.explanation import drawing, saved
from seewhy.explanation.flags import FLAGS
from seewhy.methods.catalog import LINEAR
from seewhy.rendering.overlays import OverlayStyle
from seewhy.tracing.grid import format_grid
from seewhy.viewer import IndexRow, PageMap, ReportData, build_report, pack

if TYPE_CHECKING:
    from seewhy.explanation.result import Explanation

PACKED = (
    "Maps are kept in 127 levels for each sign, and averaged to at most 56 cells a side; maps.npz has them exactly."
)
EARLY = (
    "Early layers hold edges and textures, not things; deep ones have few cells, and the map is smooth between them."
)
LITTLE = 0.01  # of the photo: less is no frame that one sees
THUMBNAIL = 160
LONGEST = 800  # pixels of the photo's longer side on the page
HEIGHT = 820  # pixels of a notebook's cell
LARGEST = 10_000_000  # characters in a notebook's cell; it is saved with the notebook


def page(e: Explanation, look: OverlayStyle | None = None) -> str:
    """The page of an explanation of one picture, as ASCII HTML. Raises UsageError for signals and volumes, and for inputs
    that are no picture."""
    e.require_single_image("a report")
    if not has_page(e):
        shape = tuple(e.size if e.inputs is None else e.inputs.shape[1:])
        raise UsageError(f"the page shows pictures, and an input of shape {shape} is none: use overlay() or map().")
    look = look or OverlayStyle()
    photo, _ = drawing.scaled(e, LONGEST)
    record = saved.document(e)
    numbers = {name: {key: number for number, key in enumerate(keys)} for name, keys in places(e).items()}
    maps = []
    for entry, values in zip(record["maps"], e.maps.values(), strict=True):
        where = {name: number[entry[name]] for name, number in numbers.items()}
        packed = pack(values[0].detach().float().cpu().numpy())
        maps.append(
            PageMap(**where, values=packed, positive_evidence=entry["positive_evidence"], flags=entry["flags"])
        )
    title = Path(e.images[0].source).name if e.images else "tensor"
    model = display_model_name(str(e.provenance.get("model", "")))
    share = seen_share(e)
    saw = [f"The network saw {share:.0%} of the photo; the rest is dimmed."] if share < 1 - LITTLE else []
    notes = [*record["notes"], *saw, EARLY, PACKED]
    return build_report(
        data(e, record, look), maps, storage.jpeg(photo), title=title, model=model, notes=notes, provenance=about(e)
    )


def display_model_name(uri: str) -> str:
    """A model's name for people.

    >>> display_model_name("embedded"), display_model_name("timm/resnet18")
    ('EfficientNet-Lite0 (embedded)', 'timm/resnet18')
    """
    return "EfficientNet-Lite0 (embedded)" if uri == "embedded" else uri


def seen_share(e: Explanation) -> float:
    """Which share of the photo the network saw, in [0, 1]."""
    left, upper, right, lower = e.view.box
    height, width = e.view.photo
    across, down = min(right, width) - max(left, 0), min(lower, height) - max(upper, 0)
    return max(across, 0) * max(down, 0) / (height * width)


def places(e: Explanation) -> dict[str, tuple[str, ...]]:
    return {"method": e.methods, "target": e.targets, "layer": e.layers}


def frame(e: Explanation, look: OverlayStyle | None = None) -> str:
    """The page for a notebook: in a frame of its own that may run the page's script and save files, and nothing else.

    Where the page is too large for a cell, a line says how to write it instead.
    """
    text = page(e, look)
    if len(text) > LARGEST:
        size = f"{len(text) / 1e6:.0f} MB"
        return f'<p>The page of these {len(e.maps):,} maps has {size}, too much for a cell: e.report("why.html") writes it.</p>'
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{HEIGHT}px;border:0" title="seewhy" '
        f'srcdoc="{html.escape(text)}"></iframe>'
    )


def has_page(e: Explanation) -> bool:
    """Whether there is a page for this explanation: of one picture, with a view of it."""
    return (
        len(e) == 1
        and len(e.size) == 2
        and (e.images is not None or (e.inputs is not None and e.inputs.shape[1] in (1, 3)))
    )


def make_index_row(e: Explanation, folder: str, look: OverlayStyle | None = None) -> IndexRow:
    """The line of one picture on the index page; `folder` is where its page lies, as seen from there."""
    method, answer = e.methods[0], e.target_results[0]
    layer = place(e, method, e.suggested or "")
    picture = e.overlay(method, answer.key, layer, style=look, longest=THUMBNAIL)
    return {
        "name": e.images[0].source if e.images else "tensor",
        "page": f"{quote(folder)}/{storage.REPORT}",
        "class": answer.name,
        "probability": answer.to_dict()["probability"],
        "flags": [FLAGS[flag] for flag in e.flags(method, answer.key, layer)],
        "thumbnail": storage.jpeg(picture, quality=80),
    }


def place(e: Explanation, method: str, layer: str) -> str:
    """`layer`, or the last layer at which the method has a map."""
    known = e.layers_of(method)
    return layer if layer in known else known[-1]


def make_failed_row(source: str, reason: str) -> IndexRow:
    return {"name": source, "page": "", "class": "", "probability": None, "flags": [reason], "thumbnail": b""}


def data(e: Explanation, record: Mapping[str, Any], look: OverlayStyle) -> ReportData:
    """What the page chooses from: the record of the explanation, in the page's order."""
    return {
        "methods": [{"key": key, "linear": key.partition("(")[0] in LINEAR} for key in e.methods],
        "targets": record["targets"],
        "layers": [{"name": name, "suggested": name == e.suggested, **info} for name, info in record["layers"].items()],
        "top": record["top"],
        "view": dataclasses.asdict(e.view),
        "flags": FLAGS,
        "more_targets": "--targets top5" if "command" in e.provenance else 'targets="top5"',
        "is_cropped": seen_share(e) < 1 - LITTLE,
        "style": {"colors": look.colors, "opacity": look.opacity, "fade": look.style == "fade"},
    }


def about(e: Explanation) -> dict[str, str]:
    """Where the maps come from, in words."""
    found: dict[str, str] = {}
    for name, value in e.provenance.items():
        if value is not None:
            found[name] = (
                ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
            )
    return {**found, "input": format_grid(e.size)}
