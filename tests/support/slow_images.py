"""Images that are valid and small, and slow to decode."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image


def many_scans(count: int, size: int = 4000) -> bytes:
    """Return a progressive JPEG with `count` scans: the last scan of a small file, repeated."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size // 16, size // 16), np.uint8)
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)
    image.save(buffer, "JPEG", progressive=True, quality=30)
    content = buffer.getvalue()
    start = content.rindex(b"\xff\xda")
    end = content.rindex(b"\xff\xd9")
    scan = content[start:end]
    assert struct.unpack(">H", scan[2:4])[0] < 64
    return content[:end] + scan * (count - 1) + content[end:]
