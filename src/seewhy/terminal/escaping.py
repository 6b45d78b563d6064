"""Escape what a terminal would interpret: control characters, invisible characters, and those that reorder text."""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata

from rich.markup import escape

# Zero-width characters that join or separate letters, in Persian and Hindi words and in emoji.
JOINERS = "\u200c\u200d"
# Marks with a direction or a number sign, which occur in Arabic and Hebrew text. Unlike U+202E, they reorder no other text.
VISIBLE_FORMATS = frozenset("\u061c\u200e\u200f\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
# A fast test for text that needs no change; `printable` decides about each character.
PLAIN_LINES = re.compile(r"[\n\t -~]*")
ASCII_SIGNS = {
    **dict.fromkeys("█▉▊▋▌▀", "#"), **dict.fromkeys("▍▎▏", " "), **dict.fromkeys("─━╺╸╴╶–−‐", "-"), **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("×·⊙∘•", "*"), **dict.fromkeys("‘’′", "'"), **dict.fromkeys("“”″", '"'), "…": "...", "—": "--",
    "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∑": "sum", "Σ": "sum", "∏": "product", "√": "sqrt",
    "∫": "integral", "∂": "d", "∇": "grad", "∞": "inf", "±": "+/-", "∈": " in ", "°": " degrees", "²": "^2", "³": "^3",
    "ᵀ": "^T", "‖": "||", "└": "`", "├": "|", "┌": "+",
}  # fmt: skip
READABLE = "seewhy.readable"  # name of the error handler


def printable(text: str) -> str:
    """Return text on one line, with the characters escaped that a terminal would interpret or not show.

    >>> printable("a\\x1b[31m"), printable("two\\nlines")
    ('a\\\\x1b[31m', 'two\\\\nlines')
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or is_harmless(sign, before) else escape_sign(sign)
        for before, sign in zip(f" {text}", text, strict=False)
    )


def printable_lines(text: str) -> str:
    """Return text of several lines with the same characters escaped.

    >>> printable_lines("one\\n\\x07two\\n")
    'one\\n\\\\x07two\\n'
    """
    if PLAIN_LINES.fullmatch(text):
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def is_harmless(sign: str, before: str) -> bool:
    """Return True for a character that is not printable in the sense of Python, but is part of normal text.

    A joiner after an ASCII character has no purpose, except to make two names look alike.
    """
    if sign in JOINERS:
        return not before.isascii() and before.isprintable()
    return sign in VISIBLE_FORMATS or unicodedata.category(sign) == "Zs"  # a space other than " "


def escape_sign(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if ord(sign) > 0x7F else repr(sign)[1:-1]


def plain(text: str) -> str:
    """Return text from outside as markup for a console: one line, no control characters, no styles.

    >>> plain("[bold]a[/]\\x1b")
    '\\\\[bold]a\\\\[/]\\\\x1b'
    """
    text = printable(text)
    body = text.rstrip("\\")
    return escape(body) + "\\" * (2 * (len(text) - len(body)))  # one backslash escapes a tag that follows


def encode_json(value: object) -> str:
    """Encode a value as one line of JSON for stdout.

    Non-ASCII characters stay readable, if stdout can encode them. Control characters are escaped.

    >>> encode_json({"image": "caf\\udce9\\x9b31m.jpg"})
    '{"image": "caf\\\\udce9\\\\u009b31m.jpg"}'
    """
    text = json.dumps(value, ensure_ascii=False)
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def replace_unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace characters that the encoding of a stream does not have: bars and lines by ASCII, others by their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(ASCII_SIGNS.get(sign, escape_sign(sign)) for sign in signs), error.end


codecs.register_error(READABLE, replace_unencodable)
