"""Bound the time of decoding one file, regardless of its format.

Decoders in C are bounded by the number of pixels, except for the scans of a JPEG: each one visits every pixel, and takes
only about 100 bytes of the file. Loops in Python over the parts of a file (segments, chunks, tags, comments) read the
file in each step, so a limit on CPU time in `read` ends all of them.
"""

from __future__ import annotations

import io
import re
import time
from typing import Any, BinaryIO

# Measured on JPEGs of 50 megapixels: 50 scans take 2 to 8 s. Encoders write at most about 14.
SCAN_PIXELS, MIN_SCANS, MAX_SCANS = 2_500_000_000, 20, 200
HEADER_SECONDS, DECODE_SECONDS = 2.0, 10.0  # of CPU time; usual are below 0.1 s, and 0.3 to 3 s for 50 megapixels
USUAL_PIXELS = 50_000_000
SAVE_AGAIN = "save it again, for example as a baseline JPEG or a PNG"

JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")  # FF 00 is data
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA
WITHOUT_LENGTH = {0x01, START_OF_IMAGE, *range(0xD0, 0xD8)}


class UnreadableImage(Exception):
    """Why an image cannot be read. Converted to an ImageError with the name of the source."""


class BoundedFile:
    """A binary file for a decoder. `read` raises UnreadableImage once this thread has computed too long.

    The limit is HEADER_SECONDS at first, and DECODE_SECONDS after `allow_decoding`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.read_file = file.read
        self.reads = 0
        self.set_limit(HEADER_SECONDS)

    def set_limit(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.thread_time() + seconds

    def allow_decoding(self, pixels: int) -> None:
        """Extend the limit to that for decoding. Call it after the header was read.

        A larger image, which the user allowed with `max_pixels`, may take longer.
        """
        self.set_limit(DECODE_SECONDS * max(1.0, pixels / USUAL_PIXELS))

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes."""
        self.reads += 1
        if self.reads % 16 == 0 and time.thread_time() > self.deadline:  # reading the clock takes longer than two bytes
            raise UnreadableImage(f"decoding it takes more than {self.seconds:g} s of CPU time; {SAVE_AGAIN}")
        return self.read_file(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def load_jpeg(file: BinaryIO) -> BinaryIO:
    """Return a JPEG file in memory, so that its scans can be counted without reading it twice; another file itself."""
    file.seek(0)
    start = file.read(2)
    file.seek(0)
    return io.BytesIO(file.read()) if start == b"\xff\xd8" and not isinstance(file, io.BytesIO) else file


def check_scans(jpeg: bytes, pixels: int) -> None:
    """Raise UnreadableImage for a JPEG with too many scans for its number of pixels."""
    limit = min(MAX_SCANS, max(MIN_SCANS, SCAN_PIXELS // pixels))
    # The fast count includes markers in metadata such as a thumbnail, so it is an upper bound.
    if jpeg.count(b"\xff\xda") > limit and has_more_scans(jpeg, limit):
        raise UnreadableImage(f"a JPEG with more than {limit} scans, which is slow to decode; {SAVE_AGAIN}")


def has_more_scans(jpeg: bytes, limit: int) -> bool:
    """Return True if the first image of a JPEG file has more than `limit` scans. Contents of segments are skipped."""
    position = scans = 0
    while match := JPEG_MARKER.search(jpeg, position):
        marker, position = match[1][0], match.end()
        if marker == END_OF_IMAGE:
            return False
        if marker not in WITHOUT_LENGTH:
            scans += marker == START_OF_SCAN
            if scans > limit:
                return True
            position += max(2, int.from_bytes(jpeg[position : position + 2], "big"))
    return False
