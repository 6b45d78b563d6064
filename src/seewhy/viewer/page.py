"""One self-contained HTML text: the page, its data, its code. It asks for nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from seewhy.rendering import colors
from seewhy.viewer.pack import Packed, joined

HERE = files("seewhy.viewer")
SCRIPTS = ("maps.js", "state.js", "panels.js", "controls.js")  # one module


def build_page(
    data: Mapping[str, Any],
    maps: Sequence[tuple[Mapping[str, Any], Packed]],
    photo: bytes,
    *,
    title: str,
    model: str,
    notes: Sequence[str] = (),
    about: Mapping[str, str] | None = None,
) -> str:
    """The page as ASCII text.

    `data` holds what the page chooses from: `methods` [{key, linear}], `targets` [{key, name, score, probability}], `layers`
    [{name, kind, grid, channels, note, suggested}], `top` [{name, probability}], `view` {photo, inputs, box}, `flags`
    {name: words}, `look` {colors, opacity, fade}, `more` how to ask for more classes, `unseen` whether a part of the photo is
    dimmed. Each of `maps` comes with the numbers of its `method`, `target` and
    `layer` in those lists, its `share` of positive evidence (or None) and its `flags`. `photo` is a JPEG of the whole photo
    as it is drawn. Everything else is shown as text.
    """
    entries: list[list[Any]] = []
    start = 0
    for place, packed in maps:
        share = None if place["share"] is None else round(place["share"], 4)
        where = [place["method"], place["target"], place["layer"], start, *packed.levels.shape]
        entries.append([*where, short(packed.high), short(packed.low), share, place["flags"]])
        start += packed.levels.size
    tables = {name: base64.b64encode(table.tobytes()).decode() for name, table in colors.tables().items()}
    document = {**data, "title": title, "maps": entries, "colors": tables}
    parts = {
        "title": escaped(title),
        "model": escaped(model),
        "notes": "".join(f"<li>{escaped(note)}</li>" for note in notes),
        "about": "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in (about or {}).items()),
        "data": as_json(document),
        "maps": joined([packed for _, packed in maps]),
        "photo": picture_address(photo),
    }
    return assembled("page.html", SCRIPTS, parts)


def build_index(rows: Sequence[Mapping[str, Any]], *, title: str, model: str) -> str:
    """A page with a line for each of many pictures, as ASCII text: `name`, `page` (a relative address, or "" where there is
    none), `class`, `probability` (or None), `flags` in words and `thumbnail` (a JPEG, or b"")."""
    lines = [{**row, "thumbnail": picture_address(row["thumbnail"]) if row["thumbnail"] else ""} for row in rows]
    return assembled(
        "index.html", ["index.js"], {"title": escaped(title), "model": escaped(model), "data": as_json(lines)}
    )


def build_summary(data: Mapping[str, Any], *, title: str, model: str) -> str:
    """The page of a whole data set, or of two runs beside each other, as ASCII text.

    `data` is what it shows, in words, numbers and picture addresses: `facts` [[name, text]], `findings` [{text, words,
    pictures, more, mean}], `quiet` what is said where nothing was found, `pictures` [{id, thumbnail, lines}] to which all
    others point by number, `statistics` [{name, title, words, counts, median, uniform, high, low}] (of two runs also
    `counts2`, `median2`), `tables` [{id, title, words, columns, rows}] whose cells are texts, numbers, {mean} or {pictures},
    and `notes`.
    """
    parts = {"title": escaped(title), "model": escaped(model), "data": as_json(data)}
    return assembled("summary.html", ["summary.js"], parts, ["page.css", "summary.css"])


def picture_address(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def build_app() -> tuple[str, str]:
    """The start page of `seewhy serve`, and the policy that its server sends with it. Pages of pictures are shown in a frame
    inside; a frame made from text is under the policy of the page around it too, so that names both scripts."""
    inside = f"{policy(['app.js'], SCRIPTS)}; connect-src 'self'; base-uri 'none'; form-action 'none'"
    parts = {"title": "seewhy", "data": "{}", "policy": inside}
    return assembled("app.html", ["app.js"], parts, ["page.css", "app.css"]), f"{inside}; frame-ancestors 'none'"


def assembled(
    body: str, scripts: Sequence[str], parts: Mapping[str, str], styles: Sequence[str] = ("page.css",)
) -> str:
    """A page with its parts, the style and the scripts as one module, which the page's policy allows by its hash."""
    style = "\n".join(map(read, styles))
    about = {"script": code(scripts), "policy": policy(scripts), "style": style, "body": filled(read(body), parts)}
    return filled(read("shell.html"), {**about, **parts})


def code(scripts: Sequence[str]) -> str:
    return "\n".join(map(read, scripts))


def policy(*modules: Sequence[str]) -> str:
    """A content security policy that allows these modules, each by its hash, and asks for nothing."""
    digests = [base64.b64encode(hashlib.sha256(code(scripts).encode()).digest()).decode() for scripts in modules]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"


@cache
def read(name: str) -> str:
    """One of the files beside this one; the same for as long as the process lives, so that hashes go on fitting."""
    return HERE.joinpath(name).read_text("utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with its parts, in one pass: what is put in is never looked at again.

    >>> filled("<p>{one}</p>", {"one": "{two}"})
    '<p>{two}</p>'
    """
    pieces = template.split("{")
    text = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}")
        text += parts[name] + rest
    return text


def as_json(document: Any) -> str:
    """JSON in ASCII that can end no script element.

    >>> as_json({"name": "</script>"})
    '{"name":"\\\\u003c/script>"}'
    """
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def escaped(text: str) -> str:
    """Text for HTML in ASCII.

    >>> escaped("Straße <b>")
    'Stra&#223;e &lt;b&gt;'
    """
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode("ascii")


def short(value: float) -> float:
    return float(f"{value:.6g}")
