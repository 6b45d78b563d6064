"""load_image: sources, formats, modes, orientation, color profiles, limits and errors."""

from __future__ import annotations

import io
import os
import random
import struct
import threading

import numpy as np
import pytest
from PIL import Image, ImageCms

from seewhy.errors import ImageError
from seewhy.images.files import FORMATS, available_formats
from seewhy.images.loading import load_image

LOSSLESS = ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
SAVE = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}, "TIFF": {"compression": "tiff_lzw"}}
ORIENTATION = 0x0112


def scene(height=24, width=36):
    """Return an image with four different corners, smooth enough for JPEG."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 200 // (height - 1) + 20, columns * 200 // (width - 1) + 20
    return np.stack([red, green, 255 - (red + green) // 2], axis=-1).astype(np.uint8)


def encoded(image, kind, **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **{**SAVE.get(kind, {}), **options})
    return file.getvalue()


def gray_tiff(bits, photometric, data, width, height):
    """Return an uncompressed little-endian grayscale TIFF of a kind that Pillow cannot write."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def reason(source, **options):
    """Return the reason of the ImageError for `source`."""
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


# --- sources and formats


def test_all_kinds_of_sources_give_the_same_array(tmp_path):
    data = encoded(scene(), "PNG")
    path = tmp_path / "scene.png"
    path.write_bytes(data)
    partly_read = io.BytesIO(data)
    partly_read.read(10)
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with open(path, "rb") as file, os.fdopen(read_end, "rb") as pipe:
        sources = [path, str(path), data, bytearray(data), file, partly_read, pipe, Image.open(path), scene()]
        for source in sources:
            image = load_image(source)
            assert image.dtype == np.uint8
            np.testing.assert_array_equal(image, scene())


def test_result_is_writable_and_arrays_are_not_copied():
    image = load_image(encoded(scene(), "PNG"))
    image[:] = 0  # a read-only array would also make torch.from_numpy warn
    array = scene()
    assert load_image(array) is array


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_are_exact(kind):
    image = scene() if kind != "GIF" else np.asarray(Image.fromarray(scene()).quantize(16).convert("RGB"))
    np.testing.assert_array_equal(load_image(encoded(image, kind)), image)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "JPEG2000"])
def test_lossy_formats_are_close(kind):
    if kind not in available_formats():
        pytest.skip(f"this Pillow is built without {kind}")
    assert np.abs(load_image(encoded(scene(), kind)).astype(int) - scene()).max() < 12


def test_large_images_are_copied_in_strips_without_errors():
    image = np.random.default_rng(0).integers(0, 256, (301, 2003, 3), np.uint8)
    np.testing.assert_array_equal(load_image(encoded(image, "PPM")), image)
    np.testing.assert_array_equal(load_image(encoded(image.transpose(1, 0, 2), "PPM")), image.transpose(1, 0, 2))


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert (load_image(data) == [255, 0, 0]).all(), kind


def test_mpo_files_give_their_first_image():
    other = Image.fromarray(255 - scene())
    data = encoded(scene(), "MPO", save_all=True, append_images=[other], quality=95, subsampling=0)
    assert np.abs(load_image(data).astype(int) - scene()).max() < 12


# --- modes


def test_16_bit_images_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    want = np.arange(256).reshape(16, 16)
    big_endian = io.BytesIO()
    Image.fromarray(ramp.astype(">u2")).save(big_endian, "TIFF")
    sources = [ramp, ramp.astype(">u2"), Image.fromarray(ramp), big_endian.getvalue()]
    sources += [encoded(ramp, kind) for kind in ("PNG", "TIFF", "PPM")]
    sources += [encoded(ramp, "JPEG2000")] if "JPEG2000" in available_formats() else []
    for source in sources:
        image = load_image(source)
        assert image.shape == (16, 16, 3)
        assert np.abs(image - want[..., None]).max() <= (2 if source is sources[-1] else 0)


def test_16_bit_color_arrays_are_scaled():
    assert load_image(np.full((2, 3, 3), 257 * 99, np.uint16)).tolist() == np.full((2, 3, 3), 99).tolist()


def test_12_bit_tiff_is_scaled_to_full_range():
    data = gray_tiff(12, 1, bytes([0xFF, 0xF0, 0x00, 0x80, 0x0F, 0xFF]), 2, 2)
    assert load_image(data)[..., 0].tolist() == [[255, 0], [128, 255]]


def test_16_bit_tiff_with_white_zero_is_not_inverted():
    data = gray_tiff(16, 0, struct.pack("<4H", 0, 257, 65278, 65535), 2, 2)
    assert load_image(data)[..., 0].tolist() == [[255, 254], [1, 0]]


def test_32_bit_images_need_a_known_white():
    integers = np.array([[0, 65535], [32768, 257]], np.int32)
    floats = np.array([[0, 1], [0.5, 0.25]], np.float32)
    assert load_image(encoded(integers, "TIFF"))[..., 0].tolist() == [[0, 255], [128, 1]]
    assert load_image(encoded(floats, "TIFF"))[..., 0].tolist() == [[0, 255], [128, 64]]
    assert "from 0 to 70000" in reason(encoded(np.array([[0, 70000]], np.int32), "TIFF"))
    assert "from -1 to 5" in reason(encoded(np.array([[-1, 5]], np.int32), "TIFF"))
    assert "from 0 to 255" in reason(encoded(np.array([[0, 255]], np.float32), "TIFF"))


def test_float_arrays_are_scaled():
    values = np.array([[[0.0, 0.5, 1.0]]])
    for kind in (np.float16, np.float32, np.float64):
        assert load_image(values.astype(kind)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_transparency_is_composited_over_white(mode):
    black, alpha = Image.new("L", (3, 1)), Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    image = Image.merge("LA", [black, alpha]) if mode == "LA" else Image.merge("RGBA", [black] * 3 + [alpha])
    if mode == "PA":
        image = black.convert("P").convert("PA")
        image.putalpha(alpha)
    image = image.convert(mode)
    assert image.mode == mode
    assert load_image(image)[0, :, 0].tolist() == [255, 127, 0]


def test_transparency_in_files_is_composited_over_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for data in (
        encoded(palette, "PNG", transparency=0),
        encoded(palette, "PNG", transparency=b"\0\xff"),
        encoded(palette, "GIF", transparency=0),
        encoded(Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)), "PNG", transparency=(255, 0, 0)),
        encoded(np.array([[[255, 0, 0, 0], [0, 0, 255, 255]]], np.uint8), "WEBP", lossless=True, exact=True),
    ):
        assert load_image(data).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_alpha_of_arrays_is_composited_over_white():
    assert load_image(np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)).tolist() == [
        [[10, 20, 30], [255, 255, 255]]
    ]


def test_bilevel_gray_and_palette_images():
    gray = np.array([[0, 255], [255, 0]], np.uint8)
    image = Image.fromarray(gray)
    for source in (gray, image, image.convert("1"), image.convert("P")):
        assert load_image(source).tolist() == np.repeat(gray[..., None], 3, axis=2).tolist()


def test_cmyk_is_not_inverted():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):  # CMYK is stored inverted in JPEG, as in Adobe software
        assert np.abs(load_image(encoded(ink, kind)).astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "RGBX"])
def test_other_color_spaces(mode):
    image = Image.fromarray(scene())
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    else:
        image = image.convert(mode)
    assert image.mode == mode
    # LAB with 8 bits is coarser than the other modes
    assert np.abs(load_image(image).astype(int) - scene()).max() < (20 if mode == "LAB" else 8)


# --- EXIF orientation


def inverse_orientation(image, orientation):
    """Return the stored pixels that a reader applying `orientation` transposes to `image`."""
    inverses = [None, lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1, ::-1], lambda a: a[::-1]]
    inverses += [lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a), lambda a: np.rot90(a, 2).swapaxes(0, 1)]
    inverses += [lambda a: np.rot90(a, -1)]
    return np.ascontiguousarray(inverses[orientation](image))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = load_image(encoded(inverse_orientation(scene(), orientation), kind, exif=exif))
    assert image.shape == scene().shape
    assert np.abs(image.astype(int) - scene()).max() < 12


def test_pil_image_is_not_modified():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.open(io.BytesIO(encoded(inverse_orientation(scene(), 6), "JPEG", exif=exif)))
    assert load_image(image).shape == scene().shape
    assert image.size == (24, 36)
    assert image.getexif()[ORIENTATION] == 6


@pytest.mark.parametrize("exif", [b"", b"MM", b"II*\0\xff\xff\xff\xff", b"\xff" * 50])
def test_corrupt_exif_is_ignored(exif):
    assert load_image(encoded(scene(), "JPEG", exif=b"Exif\0\0" + exif)).shape == scene().shape


# --- color profiles

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile():
    """Return a valid profile with red and green swapped."""
    return SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def test_profile_is_applied():
    image = load_image(encoded(scene(), "PNG", icc_profile=swapped_profile()))
    assert np.abs(image.astype(int) - scene()[..., [1, 0, 2]]).max() <= 2


def test_profile_is_applied_to_images_with_alpha():
    opaque = np.dstack([scene(), np.full(scene().shape[:2], 255, np.uint8)])
    image = load_image(encoded(opaque, "PNG", icc_profile=swapped_profile()))
    assert np.abs(image.astype(int) - scene()[..., [1, 0, 2]]).max() <= 2


def test_srgb_profile_needs_no_conversion(monkeypatch):
    sizes = []
    apply = ImageCms.ImageCmsTransform.apply
    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", lambda self, im: sizes.append(im.size) or apply(self, im))
    np.testing.assert_array_equal(load_image(encoded(scene(), "PNG", icc_profile=SRGB)), scene())
    assert sizes == [(1, 216)]  # only the test colors
    load_image(encoded(scene(), "PNG", icc_profile=swapped_profile()))
    assert sizes[-1] == (36, 24)


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize("profile", [b"nonsense", SRGB[:200], LAB])
def test_corrupt_and_unsuitable_profiles_are_ignored(profile):
    np.testing.assert_array_equal(load_image(encoded(scene(), "PNG", icc_profile=profile)), scene())


# --- limits and errors


def test_the_limit_is_checked_before_decoding():
    data = encoded(scene(), "PNG")
    header_only = data[: data.index(b"IDAT") + 4]  # has no pixels to decode
    message = reason(header_only, max_pixels=863)
    assert "36 x 24 is 864 pixels" in message
    assert "limit of 863" in message
    assert "--max-pixels 864" in message
    assert load_image(data, max_pixels=864).shape == (24, 36, 3)
    assert "--max-pixels" in reason(scene(), max_pixels=863)
    assert "--max-pixels" in reason(Image.fromarray(scene()), max_pixels=863)


@pytest.mark.parametrize("limit", [100, 600])  # Pillow raises above twice its limit and warns above it
def test_pillows_limit_is_ignored_and_restored(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert load_image(encoded(scene(), "PNG")).shape == (24, 36, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_huge_images_are_rejected_by_default():
    bomb = b"P6 60000 60000 255\n" + bytes(100)
    assert "3,600,000,000 pixels" in reason(bomb)


def test_paths_that_are_not_images_have_different_reasons(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image, and longer than any magic number\n" * 9)
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "gone.png") == "no such file"
    assert reason(tmp_path) == "is a folder, not an image"
    assert reason(tmp_path / "empty.jpg") == "the file is empty"
    assert reason(tmp_path / "notes.txt").startswith("not an image that seewhy can read (JPEG, PNG")
    assert reason("a\0b") == "is not a valid file name"
    with pytest.raises(ImageError, match=r"notes\.txt: not an image") as caught:
        load_image(str(tmp_path / "notes.txt"))
    assert caught.value.source == str(tmp_path / "notes.txt")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root can read all files")
def test_unreadable_file_is_reported(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(scene(), "PNG"))
    path.chmod(0)
    assert reason(path) == "permission denied"


def test_permission_error_is_reported(monkeypatch):
    def deny(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)
    assert reason("secret.png") == "permission denied"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the file is empty"),
        (io.StringIO("text"), "text mode"),
        (7, "pass a path"),
        (None, "pass a path"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"\(1, 8, 8, 3\)"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), bool), "bool"),
        (np.full((8, 8), 255.0), "from 255 to 255"),
        (np.full((8, 8), -0.1), "from -0.1"),
        (np.full((8, 8), np.nan), "nan"),
        (np.zeros((0, 8), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 8)), "no pixels"),
    ],
)
def test_invalid_sources_are_named_in_the_error(source, message):
    with pytest.raises(ImageError, match=message):
        load_image(source)


def test_formats_that_start_other_programs_are_rejected():
    text = reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + bytes(99))
    assert text == "is an EPS or PostScript file, not an image; convert it to PNG or JPEG first"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"%PDF-1.7\n", "is a PDF document, not an image; convert its pages"),
        (b"\n<!DOCTYPE html><html>", "is a web page (HTML), not an image; save the image itself"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg">', "is an SVG drawing"),
        (b"\0\0\0\x20ftypisom", "is a video, not an image; save its frames"),
        (b"\x1aE\xdf\xa3", "is a video"),
        (b"\0\0\0\x20ftypheic", "is a HEIC photo, not an image; convert it"),
        (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "is a PyTorch file, not an image; pass it as the model"),
        (b"PK\x03\x04" + bytes(26) + b"readme.txt", "is a zip archive"),
        (b"hello", "not an image that seewhy can read"),
    ],
)
def test_other_formats_are_named(start, message):
    assert reason(start + bytes(99)).startswith(message)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "MPO"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_truncated_files_are_errors(kind, part):
    if kind not in available_formats():
        pytest.skip(f"this Pillow is built without {kind}")
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = encoded(noise, kind)
    assert "corrupt" in reason(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "MPO"])
def test_random_corruption_gives_an_image_or_an_image_error(kind):
    """Corrupt files of all formats raise nothing but ImageError, and no warnings (pytest turns them into errors)."""
    if kind not in available_formats():
        pytest.skip(f"this Pillow is built without {kind}")
    rng = random.Random(kind)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif, "icc_profile": SRGB} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    intact = encoded(scene(), kind, **options)
    outcomes = set()
    for _ in range(120):
        data = bytearray(intact)
        for _ in range(rng.choice([1, 1, 2, 8])):
            # mostly in the header
            position = rng.randrange(min(len(data), 200) if rng.random() < 0.7 else len(data))
            data[position] = rng.randrange(256)
        if rng.random() < 0.2:
            data = data[: rng.randrange(1, len(data))]
        try:
            image = load_image(bytes(data), max_pixels=100_000)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            outcomes.add("image")
        except ImageError as error:
            assert "\n" not in str(error)
            outcomes.add("error")
    assert outcomes == {"image", "error"}


def test_threads_read_concurrently_and_restore_the_limit():
    limit, data, results = Image.MAX_IMAGE_PIXELS, encoded(scene(), "JPEG"), []
    threads = [threading.Thread(target=lambda: results.append(load_image(data).shape)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(24, 36, 3)] * 8
    assert limit == Image.MAX_IMAGE_PIXELS
