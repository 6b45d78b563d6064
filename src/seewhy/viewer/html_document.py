"""Assembly of self-contained HTML documents: style, script and data inline, no request to any server."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

RESOURCES = files("seewhy.viewer")


def assemble(body: str, scripts: Sequence[str], parts: Mapping[str, str], styles: Sequence[str] = ("page.css",)) -> str:
    """Return the document with the template `body`, its `parts`, the styles, and the scripts joined into one module."""
    style = "\n".join(map(read_resource, styles))
    content = fill_template(read_resource(body), parts)
    base = {"script": join_scripts(scripts), "policy": security_policy(scripts), "style": style, "body": content}
    return fill_template(read_resource("shell.html"), {**base, **parts})


def join_scripts(scripts: Sequence[str]) -> str:
    return "\n".join(map(read_resource, scripts))


def security_policy(*modules: Sequence[str]) -> str:
    """Return a content security policy that allows only these modules, each by its hash, and no network request."""
    digests = [
        base64.b64encode(hashlib.sha256(join_scripts(scripts).encode()).digest()).decode() for scripts in modules
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"


@cache  # also keeps script and hash consistent if a file changes while the process runs
def read_resource(name: str) -> str:
    """Return the text of a file in this package."""
    return RESOURCES.joinpath(name).read_text("utf-8")


def fill_template(template: str, parts: Mapping[str, str]) -> str:
    """Replace each `{name}` in one pass; braces inside a part are not replaced.

    >>> fill_template("<p>{one}</p>", {"one": "{two}"})
    '<p>{two}</p>'
    """
    pieces = template.split("{")
    text = pieces[0]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}")
        text += parts[name] + rest
    return text


def to_json(document: object) -> str:
    """Encode as ASCII JSON that cannot close a script element.

    >>> to_json({"name": "</script>"})
    '{"name":"\\\\u003c/script>"}'
    """
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def escape(text: str) -> str:
    """Escape text for HTML in ASCII.

    >>> escape("Straße <b>")
    'Stra&#223;e &lt;b&gt;'
    """
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode("ascii")


def jpeg_data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
