"""Animated PNG files from PNG files of the same size, without decoding them.

APNG keeps all colors (GIF has 256), is shown by all current browsers, carries the mark of seewhy like any PNG, and its frames
are the unchanged data of the single images: a frame costs a checksum, so the animation can be written again after each step.
Programs that do not support it show the first frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER, TEXT, DATA, END = b"IHDR", b"tEXt", b"IDAT", b"IEND"


@dataclass(frozen=True)
class PngParts:
    """The parts of a PNG file that an animation needs: its header and text chunks, and its compressed pixels."""

    header: bytes
    texts: tuple[bytes, ...]
    data: tuple[bytes, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = struct.unpack(">II", self.header[:8])
        return width, height


def read_png(content: bytes) -> PngParts | None:
    """Return the parts of a PNG file; None if it is damaged."""
    try:
        chunks = list(split_chunks(content))
    except (ValueError, struct.error):
        return None
    headers = [data for kind, data in chunks if kind == HEADER]
    pixels = tuple(data for kind, data in chunks if kind == DATA)
    if len(headers) != 1 or len(headers[0]) != 13 or not pixels or chunks[-1][0] != END:
        return None
    return PngParts(headers[0], tuple(data for kind, data in chunks if kind == TEXT), pixels)


def split_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the data of each chunk of a PNG file. Raises ValueError if it is damaged."""
    if not content.startswith(SIGNATURE):
        raise ValueError("not a PNG file")
    position = len(SIGNATURE)
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        if checksum != zlib.crc32(data, zlib.crc32(kind)):
            raise ValueError("damaged chunk")
        yield kind, data
        position += 12 + length


def encode_animation(frames: Sequence[PngParts], milliseconds: Sequence[int]) -> bytes:
    """Return an animated PNG that repeats forever.

    Args:
        frames: At least one, with equal headers. The text chunks of the first one are kept.
        milliseconds: How long each frame is shown.
    """
    first = frames[0]
    parts = [SIGNATURE, chunk(HEADER, first.header), *(chunk(TEXT, text) for text in first.texts)]
    parts.append(chunk(b"acTL", struct.pack(">II", len(frames), 0)))
    sequence = 0
    for frame, duration in zip(frames, milliseconds, strict=True):
        # Size, offset 0, delay in milliseconds, and each frame replaces the one before.
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, *first.size, 0, 0, duration, 1000, 0, 0)))
        sequence += 1
        for data in frame.data:
            if frame is first:
                parts.append(chunk(DATA, data))
            else:
                parts.append(chunk(b"fdAT", struct.pack(">I", sequence) + data))
                sequence += 1
    return b"".join([*parts, chunk(END, b"")])


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def spread(count: int, limit: int) -> list[int]:
    """Return at most `limit` of `count` positions, evenly spread, with the first and the last one.

    >>> spread(3, 10), spread(9, 5)
    ([0, 1, 2], [0, 2, 4, 6, 8])
    """
    if count <= limit:
        return list(range(count))
    return [round(index * (count - 1) / (limit - 1)) for index in range(limit)]
