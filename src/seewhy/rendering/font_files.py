"""Font files of this system: where they are, in which order they are tried, and which characters they contain."""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from seewhy.storage import open_regular

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")  # of the extra "fonts": Noto fonts under the Open Font License
MAX_FILES, MAX_DEPTH = 5000, 8
MAX_TABLE = 2**23  # bytes of a character map; that of Noto Sans CJK has 0.3 MB

UNUSABLE = ("lastresort", "adobeblank")  # a box, or nothing, for every character
# Parts of file names, from the least to the most suitable. Fonts without any of them are tried first.
RANKS = (
    ("unifont",),
    ("emoji",),
    ("italic", "oblique"),
    ("bold", "black", "heavy", "light", "thin", "medium"),
    ("condensed", "narrow", "mono", "fixed", "code"),
    ("serif", "naskh", "nastaliq", "kufi", "mincho", "ming", "song", "times", "symbol", "math", "music"),
)
SUBTABLES = ((3, 10), (0, 6), (0, 4), (3, 1), (0, 3), (0, 2), (0, 1), (0, 0))  # platform and encoding, best first


@dataclass(frozen=True, eq=False)
class CharacterMap:
    """The `cmap` of a font: ranges of code points, and for ranges that have gaps, the glyph of each code point."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    has_glyph: tuple[NDArray[np.bool_] | None, ...]  # by range; None: the range has no gap

    def __contains__(self, code_point: int) -> bool:
        at = int(np.searchsorted(self.ends, code_point))
        if at == len(self.ends) or code_point < self.starts[at]:
            return False
        glyphs = self.has_glyph[at] if self.has_glyph else None
        return glyphs is None or bool(glyphs[code_point - int(self.starts[at])])


EMPTY = CharacterMap(np.empty(0, np.int64), np.empty(0, np.int64), ())
ASCII = CharacterMap(np.array([0x20]), np.array([0x7E]), ())


def font_folders() -> list[str]:
    """Return the folders that may contain fonts: those of the extra "fonts", of the user and of the system."""
    home, environment = os.path.expanduser("~"), os.environ
    folders = [folder for name in PACKAGES for folder in package_folders(name)]
    if sys.platform == "win32":
        folders += [os.path.join(environment.get("LOCALAPPDATA", home), "Microsoft", "Windows", "Fonts")]
        folders += [os.path.join(environment.get("WINDIR", "C:\\Windows"), "Fonts")]
    elif sys.platform == "darwin":
        folders += [f"{home}/Library/Fonts", "/Library/Fonts", "/System/Library/Fonts"]
    else:
        data = [environment.get("XDG_DATA_HOME") or f"{home}/.local/share"]
        data += (environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
        folders += [f"{home}/.fonts", *(f"{folder}/fonts" for folder in data if os.path.isabs(folder))]
    return folders


def package_folders(name: str) -> list[str]:
    spec = importlib.util.find_spec(name)  # finds a top-level package without importing it
    return list(spec.submodule_search_locations or ()) if spec else []


@cache
def font_files() -> tuple[str, ...]:
    """Return the font files of this system, the most suitable ones first. The folders are searched once."""
    files = [path for folder in font_folders() for path in walk(folder, 0, set())][:MAX_FILES]
    usable = [path for path in dict.fromkeys(files) if not any(word in file_name(path) for word in UNUSABLE)]
    return tuple(sorted(usable, key=lambda path: (rank(path), len(file_name(path)), path)))


def walk(folder: str, depth: int, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the font files below a folder; links are followed, each folder once."""
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.lower().endswith(SUFFIXES):
            yield entry.path
        elif depth < MAX_DEPTH and os.path.isdir(entry.path):
            yield from walk(entry.path, depth + 1, visited)


def rank(path: str) -> int:
    """Return how little a font suits a caption: 0 for an upright sans-serif font of normal weight.

    >>> rank("NotoSans-Regular.ttf") < rank("NotoSerif-Regular.ttf") < rank("NotoSans-Bold.ttf") < rank("unifont.otf")
    True
    """
    name = file_name(path).replace("sansserif", "")
    return sum(1 << (len(RANKS) - place) for place, words in enumerate(RANKS) if any(word in name for word in words))


def file_name(path: str) -> str:
    return os.path.basename(path).lower()


@cache
def character_map_of(path: str) -> CharacterMap:
    """Return the characters of a font file; none if it cannot be read. Of a collection, those of its first font."""
    try:
        with open_regular(Path(path)) as file:
            return read_character_map(file)
    except (OSError, ValueError, struct.error):
        return EMPTY


def read_character_map(file: BinaryIO) -> CharacterMap:
    """Read the `cmap` table of a TrueType or OpenType font. Raises ValueError or struct.error if it is damaged."""
    start = 0
    if read_at(file, 0, 4) == b"ttcf":
        (start,) = struct.unpack(">I", read_at(file, 12, 4))
    (count,) = struct.unpack(">H", read_at(file, start + 4, 2))
    directory = read_at(file, start + 12, 16 * count)
    tables = {name: (at, length) for name, _, at, length in struct.iter_unpack(">4sIII", directory)}
    if b"cmap" not in tables:
        return EMPTY
    at, length = tables[b"cmap"]
    table = read_at(file, at, min(length, MAX_TABLE))
    (count,) = struct.unpack_from(">H", table, 2)
    subtables = {
        (platform, code): offset for platform, code, offset in struct.iter_unpack(">HHI", table[4 : 4 + 8 * count])
    }
    for key in SUBTABLES:
        if key in subtables:
            subtable = table[subtables[key] :]
            (kind,) = struct.unpack_from(">H", subtable)
            if kind in READERS:
                return READERS[kind](subtable)
    return EMPTY


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise ValueError("the font file is truncated")
    return data


def read_segments(table: bytes) -> CharacterMap:
    """Read format 4: segments of 16-bit code points, some with an array of glyphs."""
    (doubled,) = struct.unpack_from(">H", table, 6)
    count = doubled // 2
    words = np.frombuffer(table, ">u2", len(table) // 2).astype(np.int64)
    ends, starts, deltas, offsets = (words[at : at + count] for at in (7, *(8 + n * count for n in (1, 2, 3))))
    if len(offsets) < count or (ends < starts).any() or (starts[1:] <= ends[:-1]).any():
        raise ValueError("the segments of the character map are damaged")
    glyphs: list[NDArray[np.bool_] | None] = []
    for number in range(count):
        points = np.arange(starts[number], ends[number] + 1)
        if offsets[number]:
            places = 8 + 3 * count + number + offsets[number] // 2 + points - starts[number]
            own = np.where(places < len(words), words[np.minimum(places, len(words) - 1)], 0)
        else:
            own = (points + deltas[number]) & 0xFFFF
        glyphs.append(None if own.all() else own != 0)
    return CharacterMap(starts, ends, tuple(glyphs))


def read_groups(table: bytes) -> CharacterMap:
    """Read format 12: groups of 32-bit code points."""
    (count,) = struct.unpack_from(">I", table, 12)
    groups = np.frombuffer(table[16:], ">u4", min(count, (len(table) - 16) // 12) * 3).astype(np.int64).reshape(-1, 3)
    starts, ends, glyphs = groups.T
    if (np.diff(ends) < 0).any():
        raise ValueError("the groups of the character map are not sorted")
    return CharacterMap(starts + (glyphs == 0), ends, ())


READERS = {4: read_segments, 12: read_groups}
