"""The pages: the report of one image, the index of many, the summary of a bulk run, and the local app."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from seewhy.rendering import colors
from seewhy.viewer.html_document import assemble, escape, jpeg_data_url, security_policy, to_json
from seewhy.viewer.packed_maps import PackedMap, encode_levels

Entry = Mapping[str, object]  # a JSON object
APP_SCRIPTS = ("app.js", "cover.js")
REPORT_SCRIPTS = (
    "maps.js", "state.js", "layer_statistics.js", "panels.js", "layer_chart.js", "covering.js", "removal.js", "controls.js",
)  # fmt: skip
MEASURED = -1  # the method of maps that no method computed


class ReportData(TypedDict):
    """The data of a report page, except its maps. All strings are displayed as text, never as markup.

    `methods` are {key, linear}, `targets` {key, name, score, probability}, `layers` {name, kind, grid, channels, note,
    suggested}, `top` {name, probability}; `view` is {photo_size, input_size, box}; `flags` maps names to descriptions;
    `style` is {colors, opacity, fade, scale}, where `scale` is "own" or "minmax" at the start; `tiles` are the rows and
    columns of a strip of slices, each with a separate part of a map, or (1, 1); `more_targets` is a hint on how to explain
    more classes; `is_cropped` is True if part of the photo is outside the model's input and therefore dimmed. If parts of
    the image were covered, the last of `layers` may be `measured`, and `covering` is {box, modes: {keeps, side, name},
    targets: {values, all, reason, unit}}: the model's input in the photo, the three kinds of windows, and the drops of the
    score. `random_curves` are points (fraction, score) by target and filler.
    """

    methods: Sequence[Entry]
    targets: Sequence[Entry]
    layers: Sequence[Entry]
    top: Sequence[Entry]
    view: Entry
    tiles: Sequence[int]
    flags: Mapping[str, str]
    style: Entry
    more_targets: str
    is_cropped: bool
    covering: Entry | None
    random_curves: Sequence[Entry]


@dataclass(frozen=True, eq=False)
class PageMap:
    """One map of a report: the indices of its method (or MEASURED), target and layer in `ReportData`, and its properties."""

    method: int
    target: int
    layer: int
    values: PackedMap
    positive_evidence: float | None
    flags: Sequence[str]
    check: Entry | None = None  # {verdict, r, text}
    curves: Entry | None = None  # by filler: {most, least, area}, with points (fraction, score)


# One image on the index page. `page` is a relative URL, or "" if the image has no page; `thumbnail` is a JPEG or b"".
IndexRow = TypedDict(
    "IndexRow",
    {"name": str, "page": str, "class": str, "probability": float | None, "flags": Sequence[str], "thumbnail": bytes},
)


def build_report(
    data: ReportData,
    maps: Sequence[PageMap],
    photo: bytes,
    *,
    title: str,
    model: str,
    notes: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Build the interactive page of one image as ASCII HTML. `photo` is the photo at the size of the overlays, as JPEG."""
    entries: list[list[object]] = []
    start = 0
    for one in maps:
        packed = one.values
        evidence = None if one.positive_evidence is None else round(one.positive_evidence, 4)
        indices = [one.method, one.target, one.layer, start, *packed.levels.shape]
        curves = [] if one.curves is None else [one.curves]
        scale = [six_digits(packed.high), six_digits(packed.low)]
        entries.append([*indices, *scale, evidence, one.flags, one.check, *curves])
        start += packed.levels.size
    tables = {name: base64.b64encode(table.tobytes()).decode() for name, table in colors.tables().items()}
    effects = ("covering", "random_curves")
    fields = {name: value for name, value in data.items() if value or name not in effects}
    document = {**fields, "title": title, "maps": entries, "colors": tables}
    rows = (provenance or {}).items()
    parts = {
        "title": escape(title),
        "model": escape(model),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes),
        "provenance": "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows),
        "data": to_json(document),
        "maps": encode_levels([one.values for one in maps]),
        "photo": jpeg_data_url(photo),
    }
    return assemble("report.html", REPORT_SCRIPTS, parts)


def build_index(rows: Sequence[IndexRow], *, title: str, model: str) -> str:
    """Build the sortable table of images as ASCII HTML."""
    lines = [{**row, "thumbnail": jpeg_data_url(row["thumbnail"]) if row["thumbnail"] else ""} for row in rows]
    parts = {"title": escape(title), "model": escape(model), "data": to_json(lines)}
    return assemble("index.html", ["index.js"], parts)


def build_summary(data: Entry, *, title: str, model: str) -> str:
    """Build the page of a bulk run, or of two runs side by side, as ASCII HTML.

    `data` holds: `facts` [[name, text]]; `findings` [{text, hint, images, more, mean}]; `no_findings`, the text if there are
    none ("" hides the section); `images` [{id, thumbnail, lines}], which all other entries reference by index; `statistics`
    [{name, title, description, counts, median, uniform, high, low, high_title, low_title}], with `counts2` and `median2` for
    two runs; `tables` [{id, title, description, columns, rows, legend}], whose cells are texts, numbers, {mean}, {images} or
    {verdicts}; `notes`.
    """
    parts = {"title": escape(title), "model": escape(model), "data": to_json(data)}
    return assemble("summary.html", ["summary.js"], parts, ["page.css", "summary.css"])


def build_app() -> tuple[str, str]:
    """Build the start page of `seewhy serve` and the content security policy that its server sends with it.

    The app shows reports in `srcdoc` frames, which inherit its policy, so the policy names both scripts.
    """
    policy = f"{security_policy(APP_SCRIPTS, REPORT_SCRIPTS)}; connect-src 'self'; base-uri 'none'; form-action 'none'"
    parts = {"title": "seewhy", "data": "{}", "policy": policy}
    return assemble(
        "app.html", APP_SCRIPTS, parts, ["page.css", "app.css", "cover.css"]
    ), f"{policy}; frame-ancestors 'none'"


def six_digits(value: float) -> float:
    return float(f"{value:.6g}")
