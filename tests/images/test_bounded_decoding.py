"""Decoding one file is bounded in time, in all entry points, and every failure is an ImageError."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy.bulk.input_regions import read_mask
from seewhy.errors import ImageError
from seewhy.images import bounds
from seewhy.images.loading import check_image_header, load_image
from support.awkward_images import (
    awkward_images,
    constructed_files,
    encode,
    insert_in_jpeg,
    make_photo,
    make_scans,
    make_thumbnail_with_scans,
    metadata_files,
    segment,
)
from support.command import run

READERS: dict[str, Callable[[Path], Any]] = {
    "path": load_image,
    "bytes": lambda path: load_image(path.read_bytes()),
    "file": lambda path: load_image(io.BytesIO(path.read_bytes())),
    "server and bulk": lambda path: check_image_header(path.read_bytes(), 10**6, path.name),
    "mask": lambda path: read_mask(str(path), None, (64, 48)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_jpeg_with_700_scans_is_refused_by_all_entry_points(reader: str, tmp_path: Path) -> None:
    """Each scan visits all pixels and takes few bytes: the main command decoded such a file for 83 s."""
    (tmp_path / "scans.jpg").write_bytes(make_scans(700))
    with pytest.raises(ImageError, match="more than 200 scans, which is slow to decode; save it again"):
        READERS[reader](tmp_path / "scans.jpg")


def test_a_jpeg_with_700_scans_is_one_line_in_the_main_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "scans.jpg").write_bytes(make_scans(700))
    code, _, err = run(capsys, str(tmp_path / "scans.jpg"), "--out", str(tmp_path / "out"))
    assert code in (1, 2) and "save it again" in err and "Traceback" not in err


def test_scan_markers_in_metadata_do_not_count() -> None:
    """A thumbnail in the EXIF data may contain FF DA; the main image decides."""
    assert load_image(make_thumbnail_with_scans(900)).shape == (48, 64, 3)
    assert load_image(encode(make_photo(), "JPEG") + b"\xff\xda" * 900).shape == (
        48,
        64,
        3,
    )  # after the end of the image
    assert bounds.has_more_scans(insert_in_jpeg(make_scans(21), segment(0xE1, b"\xff\xda" * 900)), 20)
    assert not bounds.has_more_scans(insert_in_jpeg(make_scans(20), segment(0xE1, b"\xff\xda" * 900)), 20)


def test_large_images_may_have_fewer_scans() -> None:
    bounds.check_scans(make_scans(50), 50_000_000)
    with pytest.raises(bounds.UnreadableImage, match="more than 50 scans"):
        bounds.check_scans(make_scans(51), 50_000_000)
    bounds.check_scans(make_scans(20), 10**9)
    bounds.check_scans(make_scans(200), 10**6)


@pytest.mark.parametrize("name", ["exif_segments.jpg", "tiny_segments.jpg", "fill_bytes.jpg", "tiny_chunks.png",
                                  "comments.ppm", "comments.gif"])  # fmt: skip
def test_loops_over_the_parts_of_a_file_are_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of EXIF segments took more than 45 s: their contents are joined again for each of them."""
    monkeypatch.setattr(bounds, "HEADER_SECONDS", 0.01)
    monkeypatch.setattr(bounds, "DECODE_SECONDS", 0.01)
    with pytest.raises(ImageError, match=r"takes more than 0.01 s of CPU time; save it again"):
        load_image(dict(metadata_files())[name])


def test_slow_decoding_after_the_header_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "DECODE_SECONDS", 0.0)
    monkeypatch.setattr(bounds, "HEADER_SECONDS", 100.0)
    with pytest.raises(ImageError, match="takes more than 0 s of CPU time"):
        load_image(encode(Image.effect_noise((900, 900), 99), "PNG"))


def test_tiles_much_larger_than_the_image_are_refused() -> None:
    """2,032 tiles of 33 megapixels in a file of 50 kB, for an image of 1 x 65000: more than 45 s."""
    with pytest.raises(ImageError, match="its tiles of 1048576 x 32 are over the limit"):
        load_image(dict(constructed_files())["wasteful_tiles.tif"])
    photo = make_photo(300, 200)
    for width in (16, 256, 4096):
        tiled = encode(photo, "TIFF", tiffinfo={322: width, 323: width}, compression="tiff_lzw")
        assert load_image(tiled).shape == (200, 300, 3)


def test_200_awkward_images_are_read_or_refused(tmp_path: Path) -> None:
    images = awkward_images(tmp_path, 200, seed=0)
    readable = 0
    for path in images:
        start = time.process_time()
        try:
            assert load_image(path).ndim == 3
            readable += 1
        except ImageError as error:
            assert str(error).isprintable() and len(str(error)) < len(str(path)) + 300
        assert time.process_time() - start < 5, path.name
    assert 50 < readable < 150 and len(set(images)) == 200


def test_awkward_images_depend_on_the_seed_only(tmp_path: Path) -> None:
    contents = [
        [path.read_bytes() for path in awkward_images(tmp_path / name, 140, seed)]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert contents[0] == contents[1] != contents[2]


def test_larger_images_may_take_longer() -> None:
    """With `max_pixels=500_000_000`, a valid image of that size was refused on a slow machine."""
    file = bounds.BoundedFile(io.BytesIO())
    file.allow_decoding(1000)
    usual = file.seconds
    file.allow_decoding(500_000_000)
    assert usual == bounds.DECODE_SECONDS and file.seconds == 10 * usual
