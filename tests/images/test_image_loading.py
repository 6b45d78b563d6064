"""Reading pictures: every mode comes out right, and everything that is not a picture as one ImageError."""

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
from seewhy.images.discovery import find_images
from seewhy.images.loading import FORMATS, known_formats, load_image

LOSSLESS = ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
SAVE = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}, "TIFF": {"compression": "tiff_lzw"}}
ORIENTATION = 0x0112


def scene(height=24, width=36):
    """A picture (uint8 RGB) whose four corners differ, smooth enough for JPEG."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 200 // (height - 1) + 20, columns * 200 // (width - 1) + 20
    return np.stack([red, green, 255 - (red + green) // 2], axis=-1).astype(np.uint8)


def encoded(picture, kind, **options):
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **{**SAVE.get(kind, {}), **options})
    return file.getvalue()


def grey_tiff(bits, photometric, data, width, height):
    """An uncompressed little-endian grey TIFF, made by hand: Pillow does not write these kinds."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def reason(source, **options):
    """Why `source` is refused."""
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


# --- what a picture can come as


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    data = encoded(scene(), "PNG")
    path = tmp_path / "scene.png"
    path.write_bytes(data)
    read_half = io.BytesIO(data)
    read_half.read(10)
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with open(path, "rb") as file, os.fdopen(reading, "rb") as pipe:
        sources = [path, str(path), data, bytearray(data), file, read_half, pipe, Image.open(path), scene()]
        for source in sources:
            image = load_image(source)
            assert image.dtype == np.uint8
            np.testing.assert_array_equal(image, scene())


def test_the_array_is_the_callers_own():
    image = load_image(encoded(scene(), "PNG"))
    image[:] = 0  # a read-only array would also make torch.from_numpy warn
    given = scene()
    assert load_image(given) is given


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_are_read_exactly(kind):
    picture = scene() if kind != "GIF" else np.asarray(Image.fromarray(scene()).quantize(16).convert("RGB"))
    np.testing.assert_array_equal(load_image(encoded(picture, kind)), picture)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "JPEG2000"])
def test_lossy_formats_are_read_closely(kind):
    if kind not in known_formats():
        pytest.skip(f"this Pillow is built without {kind}")
    assert np.abs(load_image(encoded(scene(), kind)).astype(int) - scene()).max() < 12


def test_a_large_picture_is_read_in_strips_without_a_seam():
    picture = np.random.default_rng(0).integers(0, 256, (301, 2003, 3), np.uint8)
    np.testing.assert_array_equal(load_image(encoded(picture, "PPM")), picture)
    np.testing.assert_array_equal(load_image(encoded(picture.transpose(1, 0, 2), "PPM")), picture.transpose(1, 0, 2))


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert (load_image(data) == [255, 0, 0]).all(), kind


def test_the_first_picture_of_an_mpo_is_read():
    other = Image.fromarray(255 - scene())
    data = encoded(scene(), "MPO", save_all=True, append_images=[other], quality=95, subsampling=0)
    assert np.abs(load_image(data).astype(int) - scene()).max() < 12


# --- modes


def test_16_bits_are_scaled_and_not_cut_off():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    want = np.arange(256).reshape(16, 16)
    big_endian = io.BytesIO()
    Image.fromarray(ramp.astype(">u2")).save(big_endian, "TIFF")
    sources = [ramp, ramp.astype(">u2"), Image.fromarray(ramp), big_endian.getvalue()]
    sources += [encoded(ramp, kind) for kind in ("PNG", "TIFF", "PPM")]
    sources += [encoded(ramp, "JPEG2000")] if "JPEG2000" in known_formats() else []
    for source in sources:
        image = load_image(source)
        assert image.shape == (16, 16, 3)
        assert np.abs(image - want[..., None]).max() <= (2 if source is sources[-1] else 0)


def test_16_bit_colour_arrays_are_scaled():
    assert load_image(np.full((2, 3, 3), 257 * 99, np.uint16)).tolist() == np.full((2, 3, 3), 99).tolist()


def test_a_12_bit_tiff_is_as_bright_as_it_should_be():
    data = grey_tiff(12, 1, bytes([0xFF, 0xF0, 0x00, 0x80, 0x0F, 0xFF]), 2, 2)
    assert load_image(data)[..., 0].tolist() == [[255, 0], [128, 255]]


def test_a_16_bit_tiff_where_0_is_white_is_not_a_negative():
    data = grey_tiff(16, 0, struct.pack("<4H", 0, 257, 65278, 65535), 2, 2)
    assert load_image(data)[..., 0].tolist() == [[255, 254], [1, 0]]


def test_32_bit_pictures_are_read_when_their_white_is_known():
    whole = np.array([[0, 65535], [32768, 257]], np.int32)
    real = np.array([[0, 1], [0.5, 0.25]], np.float32)
    assert load_image(encoded(whole, "TIFF"))[..., 0].tolist() == [[0, 255], [128, 1]]
    assert load_image(encoded(real, "TIFF"))[..., 0].tolist() == [[0, 255], [128, 64]]
    assert "from 0 to 70000" in reason(encoded(np.array([[0, 70000]], np.int32), "TIFF"))
    assert "from -1 to 5" in reason(encoded(np.array([[-1, 5]], np.int32), "TIFF"))
    assert "from 0 to 255" in reason(encoded(np.array([[0, 255]], np.float32), "TIFF"))


def test_float_arrays_are_scaled():
    values = np.array([[[0.0, 0.5, 1.0]]])
    for kind in (np.float16, np.float32, np.float64):
        assert load_image(values.astype(kind)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_transparency_is_laid_over_white(mode):
    black, alpha = Image.new("L", (3, 1)), Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    picture = Image.merge("LA", [black, alpha]) if mode == "LA" else Image.merge("RGBA", [black] * 3 + [alpha])
    if mode == "PA":
        picture = black.convert("P").convert("PA")
        picture.putalpha(alpha)
    picture = picture.convert(mode)
    assert picture.mode == mode
    assert load_image(picture)[0, :, 0].tolist() == [255, 127, 0]


def test_transparency_from_files_is_laid_over_white():
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


def test_alpha_of_an_array_is_laid_over_white():
    assert load_image(np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)).tolist() == [
        [[10, 20, 30], [255, 255, 255]]
    ]


def test_one_bit_grey_and_palette_pictures_are_read():
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    picture = Image.fromarray(grey)
    for source in (grey, picture, picture.convert("1"), picture.convert("P")):
        assert load_image(source).tolist() == np.repeat(grey[..., None], 3, axis=2).tolist()


def test_cmyk_is_not_inverted():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):  # JPEGs hold CMYK inverted, as Adobe writes it
        assert np.abs(load_image(encoded(ink, kind)).astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "RGBX"])
def test_other_colour_spaces_are_read(mode):
    picture = Image.fromarray(scene())
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    else:
        picture = picture.convert(mode)
    assert picture.mode == mode
    # 8 bits of LAB are coarser than 8 bits of the others
    assert np.abs(load_image(picture).astype(int) - scene()).max() < (20 if mode == "LAB" else 8)


# --- which way is up


def turned(picture, orientation):
    """The stored picture that a reader who honours `orientation` turns back to `picture`."""
    back = [None, lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1, ::-1], lambda a: a[::-1]]
    back += [lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a), lambda a: np.rot90(a, 2).swapaxes(0, 1)]
    back += [lambda a: np.rot90(a, -1)]
    return np.ascontiguousarray(back[orientation](picture))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = load_image(encoded(turned(scene(), orientation), kind, exif=exif))
    assert image.shape == scene().shape
    assert np.abs(image.astype(int) - scene()).max() < 12


def test_the_callers_picture_is_left_as_it_was():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture = Image.open(io.BytesIO(encoded(turned(scene(), 6), "JPEG", exif=exif)))
    assert load_image(picture).shape == scene().shape
    assert picture.size == (24, 36)
    assert picture.getexif()[ORIENTATION] == 6


@pytest.mark.parametrize("exif", [b"", b"MM", b"II*\0\xff\xff\xff\xff", b"\xff" * 50])
def test_broken_exif_is_ignored(exif):
    assert load_image(encoded(scene(), "JPEG", exif=b"Exif\0\0" + exif)).shape == scene().shape


# --- colour profiles

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile():
    """A valid profile in which red and green have changed places."""
    return SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def test_a_profile_is_applied():
    image = load_image(encoded(scene(), "PNG", icc_profile=swapped_profile()))
    assert np.abs(image.astype(int) - scene()[..., [1, 0, 2]]).max() <= 2


def test_a_profile_is_applied_beneath_alpha():
    opaque = np.dstack([scene(), np.full(scene().shape[:2], 255, np.uint8)])
    image = load_image(encoded(opaque, "PNG", icc_profile=swapped_profile()))
    assert np.abs(image.astype(int) - scene()[..., [1, 0, 2]]).max() <= 2


def test_an_srgb_profile_costs_no_conversion(monkeypatch):
    sizes = []
    apply = ImageCms.ImageCmsTransform.apply
    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", lambda self, im: sizes.append(im.size) or apply(self, im))
    np.testing.assert_array_equal(load_image(encoded(scene(), "PNG", icc_profile=SRGB)), scene())
    assert sizes == [(1, 216)]  # the probe alone
    load_image(encoded(scene(), "PNG", icc_profile=swapped_profile()))
    assert sizes[-1] == (36, 24)


LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@pytest.mark.parametrize("profile", [b"nonsense", SRGB[:200], LAB])
def test_a_broken_or_foreign_profile_is_ignored(profile):
    np.testing.assert_array_equal(load_image(encoded(scene(), "PNG", icc_profile=profile)), scene())


# --- what is refused


def test_the_limit_is_checked_before_decoding():
    data = encoded(scene(), "PNG")
    header_only = data[: data.index(b"IDAT") + 4]  # nothing to decode: only the header can have been read
    told = reason(header_only, max_pixels=863)
    assert "36 x 24 is 864 pixels" in told
    assert "limit of 863" in told
    assert "--max-pixels 864" in told
    assert load_image(data, max_pixels=864).shape == (24, 36, 3)
    assert "--max-pixels" in reason(scene(), max_pixels=863)
    assert "--max-pixels" in reason(Image.fromarray(scene()), max_pixels=863)


@pytest.mark.parametrize("limit", [100, 600])  # Pillow raises above twice its limit and warns above it
def test_pillows_own_limit_neither_leaks_nor_counts(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert load_image(encoded(scene(), "PNG")).shape == (24, 36, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_huge_header_is_refused_by_default():
    bomb = b"P6 60000 60000 255\n" + bytes(100)
    assert "3,600,000,000 pixels" in reason(bomb)


def test_paths_that_are_no_picture_are_told_apart(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture, and longer than any magic number\n" * 9)
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "gone.png") == "no such file"
    assert reason(tmp_path) == "is a folder, not a picture"
    assert reason(tmp_path / "empty.jpg") == "the file is empty"
    assert reason(tmp_path / "notes.txt").startswith("not a picture that seewhy reads (JPEG, PNG")
    assert reason("a\0b") == "not a file name"
    with pytest.raises(ImageError, match=r"notes\.txt: not a picture") as caught:
        load_image(str(tmp_path / "notes.txt"))
    assert caught.value.source == str(tmp_path / "notes.txt")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_named_so(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(scene(), "PNG"))
    path.chmod(0)
    assert reason(path) == "permission denied"


def test_no_permission_is_named_so(monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert reason("secret.png") == "permission denied"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"", "the file is empty"),
        (io.StringIO("text"), "text mode"),
        (7, "give a path"),
        (None, "give a path"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"\(1, 8, 8, 3\)"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), bool), "bool"),
        (np.full((8, 8), 255.0), "from 255 to 255"),
        (np.full((8, 8), -0.1), "from -0.1"),
        (np.full((8, 8), np.nan), "nan"),
        (np.zeros((0, 8), np.uint8), "without pixels"),
        (Image.new("RGB", (0, 8)), "without pixels"),
    ],
)
def test_what_is_no_picture_says_what_was_given(source, told):
    with pytest.raises(ImageError, match=told):
        load_image(source)


def test_formats_that_run_other_programs_are_not_read():
    assert "not a picture that seewhy reads" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + bytes(99))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "MPO"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_half_a_file_is_an_error_and_not_a_half_grey_picture(kind, part):
    if kind not in known_formats():
        pytest.skip(f"this Pillow is built without {kind}")
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    data = encoded(noise, kind)
    assert "damaged" in reason(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "MPO"])
def test_flipped_bytes_give_a_picture_or_an_image_error(kind):
    """Seeded damage of every kind of file: nothing but an ImageError may come out, and no warning (they are errors)."""
    if kind not in known_formats():
        pytest.skip(f"this Pillow is built without {kind}")
    chance = random.Random(kind)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif, "icc_profile": SRGB} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    whole = encoded(scene(), kind, **options)
    outcomes = set()
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 8])):
            # mostly in the header, where the structure is
            place = chance.randrange(min(len(data), 200) if chance.random() < 0.7 else len(data))
            data[place] = chance.randrange(256)
        if chance.random() < 0.2:
            data = data[: chance.randrange(1, len(data))]
        try:
            image = load_image(bytes(data), max_pixels=100_000)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            outcomes.add("picture")
        except ImageError as error:
            assert "\n" not in str(error)
            outcomes.add("error")
    assert outcomes == {"picture", "error"}  # else the damage was not of a kind that tests anything


def test_threads_read_side_by_side_and_leave_the_limit_as_it_was():
    limit, data, results = Image.MAX_IMAGE_PIXELS, encoded(scene(), "JPEG"), []
    work = [threading.Thread(target=lambda: results.append(load_image(data).shape)) for _ in range(8)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert results == [(24, 36, 3)] * 8
    assert limit == Image.MAX_IMAGE_PIXELS


# --- finding pictures


@pytest.fixture
def album(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/deep/d.tif", ".git/e.png"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "album"


def test_folders_are_walked_in_sorted_order(album):
    found = find_images([str(album)])
    assert found == [str(album / name) for name in ("a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tif")]


def test_files_are_passed_on_in_the_order_given(album):
    given = ["z.png", "-", str(album / "notes.txt"), "gone/x.jpg"]
    assert find_images(given) == given
    assert find_images(["z.png", str(album / "sub")])[0] == "z.png"
    assert find_images([]) == []


def test_a_hidden_folder_that_is_asked_for_is_walked(album):
    assert find_images([str(album / ".git")]) == [str(album / ".git" / "e.png")]


def test_a_loop_of_links_ends(album):
    (album / "sub" / "again").symlink_to(album)
    assert len(find_images([str(album)])) == 4


def test_a_folder_without_pictures_is_an_error(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="no pictures in this folder") as caught:
        find_images([str(tmp_path)])
    assert caught.value.source == str(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_error(album, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match="deep: cannot list this folder: permission denied"):
        find_images([str(album)])
