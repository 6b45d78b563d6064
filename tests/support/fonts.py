"""Font files for tests: a box of a known width for each character, written table by table."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

UNITS = 1000  # per em


def write_font(path: Path, widths: Mapping[str, int], *, outlines: bytes | None = None) -> Path:
    """Write a TrueType font with a box of `widths[character]` thousandths of the font size for each character.

    `outlines` replaces the outline of every character, for fonts that are empty or damaged.
    """
    characters = sorted(widths)
    glyphs = [b"", *(box(widths[sign]) if outlines is None else outlines for sign in characters)]
    offsets = [0]
    for glyph in glyphs:
        offsets.append(offsets[-1] + len(glyph))
    advances = [500, *(widths[sign] + 100 for sign in characters)]
    groups = b"".join(struct.pack(">III", ord(sign), ord(sign), at) for at, sign in enumerate(characters, 1))
    cmap = struct.pack(">HHHHI", 0, 1, 3, 10, 12)
    cmap += struct.pack(">HHIII", 12, 0, 16 + len(groups), 0, len(characters)) + groups
    tables = {
        b"cmap": cmap,
        b"glyf": b"".join(glyphs) or b"\0\0",
        b"head": struct.pack(">IIIIHH", 1 << 16, 0, 0, 0x5F0F3CF5, 0, UNITS)
        + struct.pack(">QQhhhhHHhhh", 0, 0, 0, 0, UNITS, UNITS, 0, 8, 2, 1, 0),
        b"hhea": struct.pack(">IhhhHhhh", 1 << 16, 800, -200, 0, UNITS, 0, 0, UNITS)
        + struct.pack(">8hH", 1, 0, 0, 0, 0, 0, 0, 0, len(glyphs)),
        b"hmtx": b"".join(struct.pack(">Hh", advance, 50) for advance in advances),
        b"loca": struct.pack(f">{len(offsets)}I", *offsets),
        b"maxp": struct.pack(">IH", 1 << 16, len(glyphs)) + struct.pack(">13H", 4, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    start = 12 + 16 * len(tables)
    directory, body = struct.pack(">IHHHH", 1 << 16, len(tables), 64, 2, 16 * len(tables) - 64), b""
    for name, table in tables.items():
        directory += struct.pack(">4sIII", name, 0, start + len(body), len(table))
        body += table + bytes(-len(table) % 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(directory + body)
    return path


def box(width: int) -> bytes:
    """Return the outline of a rectangle from the baseline up."""
    header = struct.pack(">hhhhh", 1, 50, 0, 50 + width, 700)
    return header + struct.pack(">HH", 3, 0) + bytes([1] * 4) + struct.pack(">8h", 50, width, 0, -width, 0, 0, 700, 0)
