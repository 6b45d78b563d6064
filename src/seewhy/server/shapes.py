"""The covered parts in the body of a request: one line of JSON with limits on its length and its numbers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from seewhy.errors import UsageError, one_line
from seewhy.trust.covering.photo_cover import Rectangle, Shape, Stroke

MAX_BYTES = 2**16  # of the line
MAX_SHAPES, MAX_POINTS = 100, 2000  # points of all strokes together

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class RectangleRecord(msgspec.Struct, tag="rectangle", forbid_unknown_fields=True):
    """A `Rectangle` as JSON."""

    left: Fraction
    top: Fraction
    right: Fraction
    bottom: Fraction

    def shape(self) -> Shape:
        return Rectangle(self.left, self.top, self.right, self.bottom)


class StrokeRecord(msgspec.Struct, tag="stroke", forbid_unknown_fields=True):
    """A `Stroke` as JSON."""

    points: Annotated[list[tuple[Fraction, Fraction]], msgspec.Meta(min_length=1, max_length=MAX_POINTS)]
    radius: Annotated[float, msgspec.Meta(gt=0, le=0.25)]

    def shape(self) -> Shape:
        return Stroke(tuple(self.points), self.radius)


Records = Annotated[list[RectangleRecord | StrokeRecord], msgspec.Meta(max_length=MAX_SHAPES)]
decoder = msgspec.json.Decoder(Records)


def split_shapes(body: bytes) -> tuple[tuple[Shape, ...], bytes]:
    """Return the shapes in the first line of a body, and the rest of it. Raises UsageError for an invalid line.

    >>> split_shapes(b'[{"type":"rectangle","left":0,"top":0,"right":0.5,"bottom":1}]\\n...')
    ((Rectangle(left=0.0, top=0.0, right=0.5, bottom=1.0),), b'...')
    """
    line, separator, _ = body[: MAX_BYTES + 1].partition(b"\n")
    if not separator:
        raise UsageError(
            f"the body must start with the covered parts as one line of JSON of at most {MAX_BYTES:,} bytes."
        )
    try:
        records = decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: not UTF-8
        reason = one_line(error).replace("`", "")
        raise UsageError(f"the covered parts are not valid: {reason}.") from None
    points = sum(len(record.points) for record in records if isinstance(record, StrokeRecord))
    if points > MAX_POINTS:
        raise UsageError(f"the covered parts have {points:,} points: send at most {MAX_POINTS:,}.")
    return tuple(record.shape() for record in records), body[len(line) + 1 :]
