"""An explanation of one picture as the explorable page."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from seewhy import drawing, storage, tensors
from seewhy.errors import UsageError
from seewhy.flags import FLAGS, flags_of
from seewhy.grid import grid_text
from seewhy.render import Look
from seewhy.viewer import build_page, pack

if TYPE_CHECKING:
    from seewhy.explanation import Explanation

LINEAR = ("gradcam", "hirescam", "cam", "xgradcam")  # the map of a difference of scores is the difference of the maps
THUMBNAIL = 160
LONGEST = 800  # pixels of the photo's longer side on the page
HEIGHT = 820  # pixels of a notebook's cell


def page(e: Explanation, look: Look | None = None) -> str:
    """The page of an explanation of one picture, as ASCII HTML. Raises UsageError for signals and volumes, and for inputs
    that are no picture."""
    e.one_picture("a report")
    if not shows(e):
        shape = tuple(e.size if e.inputs is None else e.inputs.shape[1:])
        raise UsageError(f"the page shows pictures, and an input of shape {shape} is none: use overlay() or map().")
    look = look or Look()
    photo, _ = drawing.scaled(e, LONGEST)
    methods, targets, layers = list(e.methods), list(e.targets), list(e.layers)
    maps = []
    for key, values in e.maps.items():
        method, target, layer = key
        flags = flags_of(values, e.reached.get((target, layer)))[0]
        share = storage.number(tensors.positive_share(values)[0])
        place = {"method": methods.index(method), "target": targets.index(target), "layer": layers.index(layer)}
        maps.append(({**place, "share": share, "flags": list(flags)}, pack(values[0].detach().float().cpu().numpy())))
    source = Path(e.pictures[0].source).name if e.pictures else "tensor"
    model = str(e.about.get("model", ""))
    return build_page(
        data(e, look), maps, storage.jpeg(photo), title=source, model=model, notes=notes(e), about=about(e)
    )


def frame(e: Explanation, look: Look | None = None) -> str:
    """The page for a notebook: in a frame of its own that may run the page's script and save files, and nothing else."""
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{HEIGHT}px;border:0" title="seewhy" '
        f'srcdoc="{html.escape(page(e, look))}"></iframe>'
    )


def shows(e: Explanation) -> bool:
    """Whether there is a page for this explanation: of one picture, with a view of it."""
    return (
        len(e) == 1
        and len(e.size) == 2
        and (e.pictures is not None or (e.inputs is not None and e.inputs.shape[1] in (1, 3)))
    )


def index_row(e: Explanation, folder: str, look: Look | None = None) -> dict[str, Any]:
    """The line of one picture on the index page; `folder` is where its page lies, as seen from there."""
    method = e.methods[0]
    known = e.layers_of(method)
    layer = e.suggested if e.suggested in known else known[-1]
    answer = e.answers[0]
    picture = e.overlay(method, answer.key, layer, look=look, longest=THUMBNAIL)
    return {
        "name": e.pictures[0].source if e.pictures else "tensor",
        "page": f"{quote(folder)}/{storage.REPORT}",
        "class": answer.name,
        "probability": answer.to_dict()["probability"],
        "flags": [FLAGS[flag] for flag in e.flags(method, answer.key, layer)],
        "thumbnail": storage.jpeg(picture, quality=80),
    }


def failed_row(source: str, reason: str) -> dict[str, Any]:
    return {"name": source, "page": "", "class": "", "probability": None, "flags": [reason], "thumbnail": b""}


def data(e: Explanation, look: Look) -> dict[str, Any]:
    """What the page chooses from."""
    top = e.top() if e.logits is not None or e.kept_top else []
    return {
        "methods": [{"key": key, "linear": key.partition("(")[0] in LINEAR} for key in e.methods],
        "targets": [{name: answer.to_dict()[name] for name in ("key", "name", "score", "probability")} for answer in e.answers],
        "layers": [
            {
                "name": name, "kind": info.kind, "grid": list(info.grid), "channels": info.channels, "note": info.note,
                "suggested": name == e.suggested,
            }
            for name, info in e.layer_info.items()
        ],
        "top": [{"name": name, "probability": storage.number(chance)} for _, name, chance in top],
        "view": dataclasses.asdict(e.view),
        "flags": FLAGS,
        "look": {"colors": look.colors, "opacity": look.opacity, "fade": look.style == "fade"},
    }  # fmt: skip


def notes(e: Explanation) -> list[str]:
    packed = (
        "Maps are kept in 127 levels for each sign, and averaged to at most 56 cells a side; maps.npz has them exactly."
    )
    return [*dict.fromkeys(e.notes), packed]


def about(e: Explanation) -> dict[str, str]:
    """Where the maps come from, in words."""
    found: dict[str, str] = {}
    for name, value in e.about.items():
        if value is not None:
            found[name] = (
                ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
            )
    return {**found, "input": grid_text(e.size)}
