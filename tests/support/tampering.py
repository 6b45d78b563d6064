"""Random damage to a saved explanation: what a disk, a transfer, another program or an attacker could do to its files."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from support.array_tampering import edit_arrays

RECORD, MAPS, PHOTO, INPUT = "explanation.json", "maps.npz", "photo.jpg", "input.npz"
LONE = "\udcff"
TEXTS = (
    "", "x", "network", "\0", "\x1b[2J\x1b]0;x\x07", LONE, "\ud800", "a" * 5000, "b" * 300_000, "../../etc/passwd", "/dev/zero",
    "C:\\x", "a|b", "<script>alert(1)</script>", "𝕏 中文 ع", "%s{0}", "top1", "-", "\n\r", "*", "ClassScore(classes=1)",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 16, 224, 1023, 1024, 65_536, 2**27, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400, -(2**63), -(10**30),
    0.0, 0.5, -0.5, 1e-300, 1e30, 1e38, 1e308, -1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"x": {"y": []}},
    [1, 2],
    ["a"],
    [1e30] * 5,
)


def tamper(folder: Path, generator: Random) -> str:
    """Change something in a copy of a saved explanation, and return what was changed."""
    return generator.choice(
        [edit_record, edit_record, edit_record, edit_bytes, edit_arrays, edit_arrays, edit_photo, edit_entries]
    )(folder, generator)


# The record


def edit_record(folder: Path, generator: Random) -> str:
    """Change one to three values of explanation.json."""
    path = folder / RECORD
    record = json.loads(path.read_text("utf-8"))
    if generator.random() < 0.08:
        return edit_record_text(path, generator)
    count = generator.choice([1, 1, 1, 2, 3])
    done = [edit_value(record, generator) for _ in range(count)]
    path.write_bytes(json.dumps(record).encode("utf-8", "backslashreplace"))
    return "; ".join(done)


def edit_value(record: Any, generator: Random) -> str:
    """Delete, replace, duplicate, swap or rename a random value below a record."""
    container, key, place = pick(record, generator)
    action = generator.choice(
        ["delete", "value", "number", "number", "near", "near", "text", "duplicate", "swap", "rename", "deep", "long"]
    )
    value = container[key]
    other_container, other_key, other = pick(record, generator)
    if action == "delete":
        del container[key]
    elif action == "value":
        container[key] = generator.choice(VALUES)
    elif action == "number":
        container[key] = generator.choice(NUMBERS)
    elif action == "near" and isinstance(value, int | float) and not isinstance(value, bool):
        container[key] = value + generator.choice([-1, 1, -value, -2 * value, value, 0.5, 1e-9, 1e9])
    elif action == "text" and isinstance(value, str) and generator.random() < 0.5:
        container[key] = value[::-1] + generator.choice(TEXTS)
    elif action == "text":
        container[key] = generator.choice(TEXTS)
    elif action == "duplicate" and isinstance(container, list):
        container.insert(key, value)
    elif action == "rename" and isinstance(container, dict):
        container[generator.choice([*TEXTS, *container])] = container.pop(key)
    elif action == "deep":
        nested: Any = value
        for _ in range(generator.choice([3, 50, 300])):
            nested = generator.choice([[nested], {"x": nested}])
        container[key] = nested
    elif action == "long" and isinstance(value, list):
        container[key] = value * generator.choice([2, 100, 10_000])
    else:
        action, place = "copy", f"{place} from {other}"
        container[key] = json.loads(json.dumps(other_container[other_key]))
    return f"{action} {place}"


def pick(record: Any, generator: Random) -> tuple[Any, Any, str]:
    """Return a random container below a record, one of its keys, and the place as text."""
    container, key, place = record, None, ""
    while isinstance(container, dict | list) and len(container):
        keys = list(container) if isinstance(container, dict) else range(len(container))
        key = generator.choice(list(keys))
        place += f".{key}"[:60]
        inner = container[key]
        if not isinstance(inner, dict | list) or not inner or generator.random() < 0.25:
            break
        container = inner
    if key is None:  # an earlier edit removed everything
        record["added"] = None
        return record, "added", ".added"
    return container, key, place


def edit_record_text(path: Path, generator: Random) -> str:
    """Replace explanation.json by text that JSON readers handle in different ways."""
    text = path.read_text("utf-8")
    name, edited = generator.choice(
        [
            ("nested brackets", "[" * 100_000),
            ("nested objects", '{"x":' * 100_000),
            (
                "nested in provenance",
                text.replace('"provenance": {', '"provenance": {"x": ' + "[" * 5000 + "]" * 5000 + ",", 1),
            ),
            ("NaN", text.replace('"score": ', '"score": NaN, "was": ', 1)),
            ("1e999", text.replace('"score": ', '"score": 1e999, "was": ', 1)),
            ("digits", text.replace('"score": ', f'"score": {"9" * 100_000}, "was": ', 1)),
            ("duplicate key", text.replace("{", '{"size": [1, 1],', 1)),
            ("byte order mark", "\ufeff" + text),
            ("a list", f"[{text}]"),
            ("null", "null"),
            ("empty", ""),
            ("spaces", " " * 40_000_000),
            ("many lists", f"[{'[],' * 2_000_000}[]]"),
            ("twice", text + text),
            ("comment", "// x\n" + text),
        ]
    )
    path.write_text(edited, "utf-8")
    if generator.random() < 0.1:
        path.write_bytes(text.encode("utf-16"))
        return "UTF-16"
    return name


# Bytes


def edit_bytes(folder: Path, generator: Random) -> str:
    """Flip, cut, insert, overwrite or swap bytes of one file."""
    path = folder / generator.choice(present(folder))
    data = bytearray(path.read_bytes())
    action = generator.choice(["flip", "flip", "flip", "cut", "insert", "zero", "append", "empty", "random", "halves"])
    place = generator.randrange(max(1, len(data)))
    if action == "flip":
        for _ in range(generator.choice([1, 1, 3, 20])):
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif action == "cut":
        del data[place:]
    elif action == "insert":
        data[place:place] = generator.randbytes(generator.choice([1, 4, 1000]))
    elif action == "zero":
        data[place : place + 64] = bytes(len(data[place : place + 64]))
    elif action == "append":
        data += generator.choice([b"\0" * 100, generator.randbytes(50_000), bytes(data)])
    elif action == "empty":
        data.clear()
    elif action == "random":
        data = bytearray(generator.randbytes(len(data)))
    else:
        data = data[place:] + data[:place]
    path.write_bytes(data)
    return f"{action} bytes of {path.name}"


def present(folder: Path) -> list[str]:
    """Return the names of the files that `load_explanation` reads."""
    return [name for name in (RECORD, MAPS, PHOTO, INPUT) if (folder / name).is_file()]


# The photo


def edit_photo(folder: Path, generator: Random) -> str:
    """Replace photo.jpg by another image, format or size."""
    path = folder / PHOTO
    if not path.exists():
        shutil.copy(folder / RECORD, path)
        return "text as photo.jpg"
    with Image.open(path) as image:
        photo = image.convert("RGB")
    kind = generator.choice(
        [*PHOTO_FORMATS, "size", "size", "CMYK", "gray", "header", "scans", "EPS", "EXIF", "markers"]
    )
    buffer = io.BytesIO()
    if kind in PHOTO_FORMATS:
        photo.save(buffer, kind)
    elif kind == "size":
        size = generator.choice(
            [(1, 1), (1, 5000), (5000, 1), photo.size[::-1], (photo.width + 1, photo.height), (3000, 3000)]
        )
        photo.resize(size).save(buffer, "JPEG")
    elif kind in ("CMYK", "gray"):
        photo.convert("CMYK" if kind == "CMYK" else "L").save(buffer, "JPEG")
    elif kind == "scans":
        photo.save(buffer, "JPEG", progressive=True)
        data = buffer.getvalue()
        start = data.rindex(b"\xff\xda")
        scan = data[start:-2]
        buffer = io.BytesIO(data[:-2] + scan * generator.choice([10, 500, 3000]) + data[-2:])
    elif kind == "EPS":
        buffer.write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(unpickled) (w) file\n")
    elif kind == "EXIF":
        exif = Image.Exif()
        exif[0x0112] = 6  # rotated
        photo.save(buffer, "JPEG", exif=exif)
    elif kind == "markers":
        photo.save(buffer, "JPEG")
        data = buffer.getvalue()
        buffer = io.BytesIO(data[:2] + (b"\xff\xe2\xff\xff" + bytes(65_533)) * generator.choice([1, 400]) + data[2:])
    else:
        photo.save(buffer, "JPEG")
        edited = bytearray(buffer.getvalue())
        start = edited.index(b"\xff\xc0") + 5
        edited[start : start + 4] = struct.pack(
            ">HH", *generator.choice([(0, 0), (65_535, 65_535), (1, 65_535), (photo.height, 0)])
        )
        buffer = io.BytesIO(edited)
    path.write_bytes(buffer.getvalue())
    return f"{kind} as photo.jpg"


PHOTO_FORMATS = ("PNG", "TIFF", "GIF", "BMP", "WEBP", "PDF", "ICO", "JPEG2000")


# Entries of the folder


def edit_entries(folder: Path, generator: Random) -> str:
    """Replace a file by something that is not the file of this folder."""
    path = folder / generator.choice(present(folder))
    kind = generator.choice([*ENTRY_EDITS])
    if kind == "exchanged":
        other = folder / generator.choice(present(folder))
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        return f"{path.name} and {other.name} exchanged"
    if kind == "sparse":
        os.truncate(path, generator.choice([2**26, 2**33]))
        return f"{path.name} sparse"
    path.unlink()
    ENTRY_EDITS[kind](path)
    return f"{path.name} {kind}"


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


ENTRY_EDITS: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to itself": link_to_itself,
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file elsewhere": lambda path: path.symlink_to("/etc/passwd"),
    "a link to a folder": lambda path: path.symlink_to("/etc"),
    "exchanged": lambda path: None,
    "sparse": lambda path: None,
}
