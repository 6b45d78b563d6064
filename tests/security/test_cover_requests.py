"""The line of shapes in a request to the local app is untrusted: it is parsed within limits, or rejected in one line."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.errors import UsageError
from seewhy.server.shapes import MAX_BYTES, MAX_POINTS, MAX_SHAPES, split_shapes
from seewhy.trust import Rectangle, Stroke, cover_photo

numbers = st.floats() | st.floats(0, 1) | st.integers()
plain = st.none() | st.booleans() | numbers | st.text(max_size=9)
fields = st.sampled_from(["type", "left", "top", "right", "bottom", "points", "radius", "path"])
kinds = st.sampled_from(["rectangle", "stroke", "file"])
shapes = st.dictionaries(fields, plain | kinds | st.lists(st.lists(numbers, max_size=3), max_size=3), max_size=7)
documents = st.recursive(plain | shapes, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


def check(line: bytes) -> None:
    """Parse a line; what is accepted can be drawn, and what is not is an error in one line."""
    try:
        accepted, rest = split_shapes(line + b"\nimage\n\xff")
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    assert rest == b"image\n\xff" and all(isinstance(one, (Rectangle, Stroke)) for one in accepted)
    assert cover_photo(np.zeros((9, 7, 3), np.uint8), accepted, "#ffffff").shape == (9, 7, 3)


@settings(max_examples=300, deadline=None)
@given(documents)
def test_any_json_is_parsed_or_rejected(document: Any) -> None:
    check(json.dumps(document).encode())  # with NaN and Infinity, which are not JSON


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200).filter(lambda data: b"\n" not in data))
def test_any_bytes_are_parsed_or_rejected(data: bytes) -> None:
    check(data)
    check(b'[{"type":"rectangle","left":0,"top":0,"right":1,"bottom":' + data + b"}]")


@pytest.mark.parametrize(
    "number", ["NaN", "-NaN", "Infinity", "-Infinity", "1e400", "-0.1", "1.0000001", "null", '"1"']
)
def test_numbers_are_finite_fractions(number: str) -> None:
    for line in (
        f'[{{"type":"rectangle","left":0,"top":0,"right":1,"bottom":{number}}}]',
        f'[{{"type":"stroke","points":[[0.5,{number}]],"radius":0.1}}]',
        f'[{{"type":"stroke","points":[[0.5,0.5]],"radius":{number}}}]',
    ):
        with pytest.raises(UsageError, match="not valid"):
            split_shapes(line.encode() + b"\n")


def test_huge_lists_are_rejected_before_they_are_drawn() -> None:
    one = '{"type":"rectangle","left":0,"top":0,"right":1,"bottom":1}'
    start = time.process_time()
    for line in ("[" + ",".join([one] * 1_000_000) + "]", "[" * 10_000_000, "[" + "1," * 10_000_000):
        with pytest.raises(UsageError, match=f"{MAX_BYTES:,} bytes"):
            split_shapes(line.encode() + b"\nimage")
    with pytest.raises(UsageError, match="not valid"):
        split_shapes(("[" + ",".join([one] * (MAX_SHAPES + 1)) + "]\n").encode())
    assert time.process_time() - start < 5


def test_the_largest_accepted_request_is_drawn_in_bounded_time() -> None:
    """All strokes that one request may contain, over an image of the largest size that the app accepts."""
    points = np.random.default_rng(0).random((MAX_POINTS, 2)).round(3).tolist()
    parts = [points[at : at + MAX_POINTS // 20] for at in range(0, MAX_POINTS, MAX_POINTS // 20)]
    line = json.dumps([{"type": "stroke", "points": part, "radius": 0.25} for part in parts], separators=(",", ":"))
    accepted, _ = split_shapes(line.encode() + b"\n")
    assert len(line) < MAX_BYTES and len(accepted) == 20
    start = time.process_time()
    cover_photo(np.zeros((2000, 2000, 3), np.uint8), accepted)
    assert time.process_time() - start < 30
