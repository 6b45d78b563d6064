"""Awkward image files: unusual, corrupt, or slow to decode. The same seed always writes the same bytes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MEGABYTE = 2**20
SIGNATURE = b"\x89PNG\r\n\x1a\n"
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "avif": "AVIF",
           "jp2": "JPEG2000", "ppm": "PPM"}  # fmt: skip


def encode(image: Image.Image, format: str, **settings: Any) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def make_photo(width: int = 64, height: int = 48) -> Image.Image:
    """A smooth image with some noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    return Image.fromarray((np.stack([x * 3, y * 4, x + y], axis=-1) % 200 + noise).astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png(
    width: int, height: int, bits: int = 8, color: int = 2, extra: bytes = b"", rows: bytes | None = None
) -> bytes:
    """A PNG with any header, and black pixels if `rows` is None."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 1)
    if rows is None:
        rows = (b"\0" + bytes(-(-width * channels * bits // 8))) * height
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def insert_in_jpeg(jpeg: bytes, segments: bytes) -> bytes:
    """Insert segments after the start of a JPEG."""
    return jpeg[:2] + segments + jpeg[2:]


def make_scans(count: int, width: int = 64, height: int = 48) -> bytes:
    """A progressive JPEG whose last scan is repeated until it has `count` scans."""
    jpeg = encode(make_photo(width, height), "JPEG", progressive=True)
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:start] + jpeg[start:-2] * (count - jpeg.count(b"\xff\xda") + 1) + b"\xff\xd9"


def make_thumbnail_with_scans(count: int) -> bytes:
    """A baseline JPEG whose EXIF segment contains `count` scan markers, which are no scans."""
    return insert_in_jpeg(encode(make_photo(), "JPEG"), segment(0xE1, b"Exif\0\0" + b"\xff\xda" * count))


def make_tiff(tags: dict[int, int], data: bytes = b"") -> bytes:
    """A TIFF with numbers as tags, followed by `data` at the returned position 8 + 6 + 12 * len(tags)."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def make_exif(kind: str) -> bytes:
    """EXIF data that refers to itself, to places outside of the file, or has thousands of tags."""
    if kind == "loop":
        return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    if kind == "outside":
        return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 4, 4_000_000_000, 4_294_967_000, 4_294_967_295)
    if kind == "orientation":
        return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 4, 1, 77, 0)
    return b"II*\0" + struct.pack("<IH", 8, 5000) + b"".join(struct.pack("<HHII", n, 7, 60000, 8) for n in range(5000))


def make_gif(blocks: bytes, width: int = 8, height: int = 8) -> bytes:
    """A GIF with blocks before its only frame, which is truncated."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + blocks + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"


def metadata_files() -> Iterator[tuple[str, bytes]]:
    """Files with unusual or excessive metadata, most with valid pixels."""
    photo = make_photo()
    jpeg, broken = encode(photo, "JPEG"), b"\0\0\x01\0" + b"junk" * 60
    for kind in ("loop", "outside", "orientation", "many"):
        exif = make_exif(kind)
        yield f"exif_{kind}.jpg", insert_in_jpeg(jpeg, segment(0xE1, b"Exif\0\0" + exif[:65000]))
        yield f"exif_{kind}.png", make_png(8, 8, extra=chunk(b"eXIf", exif))
        yield f"exif_{kind}.webp", encode(photo, "WEBP", exif=exif)
    for format in ("jpg", "png", "webp", "tif", "avif"):
        yield f"broken_profile.{format}", encode(photo, FORMATS[format], icc_profile=broken)
    yield "cmyk_broken_profile.jpg", encode(photo.convert("CMYK"), "JPEG", icc_profile=broken)
    compressed = zlib.compress(bytes(MEGABYTE), 9)
    yield "iccp_bomb.png", make_png(8, 8, extra=chunk(b"iCCP", b"a\0\0" + compressed) * 200)
    yield "ztxt_bomb.png", make_png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + compressed) * 200)
    yield "itxt_bomb.png", make_png(8, 8, extra=chunk(b"iTXt", b"a\0\1\0\0\0" + compressed) * 200)
    yield "tiny_chunks.png", make_png(8, 8, extra=chunk(b"abCd", b"") * 100_000)
    yield "tiny_segments.jpg", insert_in_jpeg(jpeg, segment(0xE5, b"") * 100_000)
    yield "exif_segments.jpg", insert_in_jpeg(jpeg, segment(0xE1, b"Exif\0\0a") * 60_000)
    yield "fill_bytes.jpg", insert_in_jpeg(jpeg, b"\xff" * MEGABYTE)
    yield "comments.gif", make_gif(b"!\xfe\x01a\0" * 100_000)
    yield "long_comment.gif", make_gif(b"!\xfe" + b"\x01a" * 200_000 + b"\0")
    yield "comments.ppm", b"P3\n" + b"#\n" * 500_000


def constructed_files() -> Iterator[tuple[str, bytes]]:
    """Unusual files: some valid, some with wrong sizes, and some that are no image."""
    photo = make_photo()
    jpeg, png = encode(photo, "JPEG"), encode(photo, "PNG")
    yield from {
        "empty.png": b"", "one_byte.jpg": b"\xff", "zeros.bmp": bytes(5000), "text.jpg": b"not an image\n" * 99,
        "vector.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "page.pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "print.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "archive.png": b"PK\x03\x04" + bytes(99),
        "script.gif": b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", "markup.jpg": b"<html><script>alert(1)</script>",
        "jpeg_is.png": jpeg, "png_is.jpg": png, "gif_is.tif": encode(photo, "GIF"), "no_suffix": png,
        "polyglot.jpg": insert_in_jpeg(jpeg, segment(0xFE, b"<script>alert(1)</script>")) + b"PK\x03\x04" + bytes(99),
        "appended.png": png + b"garbage" * 1000, "prepended.png": b"garbage" + png, "two.jpg": jpeg + jpeg,
        "scans_700.jpg": make_scans(700, 640, 480), "scans_20.jpg": make_scans(20),
        "thumbnail.jpg": make_thumbnail_with_scans(900),
        "no_scan.jpg": jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", "only_markers.jpg": b"\xff\xd8" + b"\xff\xda\0\2" * 9999,
        "no_frames.gif": make_gif(b"")[:19] + b";", "huge_canvas.gif": make_gif(b"", 65535, 65535),
        "canvas.gif": make_gif(b"", 7000, 7000),
        "nan.tif": encode(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"),
        "infinite.tif": encode(Image.fromarray(np.full((9, 9), np.inf, np.float32)), "TIFF"),
        "float.tif": encode(Image.fromarray(np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9)), "TIFF"),
        "gray16.png": make_png(9, 9, 16, 0), "color16.png": make_png(9, 9, 16, 6), "one_bit.png": make_png(9, 9, 1, 0),
        "bad_bits.png": make_png(9, 9, 3, 2), "bad_color.png": make_png(9, 9, 8, 5), "no_palette.png": make_png(9, 9, 8, 3),
        "palette.png": make_png(9, 9, 8, 3, chunk(b"PLTE", bytes(range(30))) + chunk(b"tRNS", bytes(range(10)))),
        "short_palette.png": make_png(9, 9, 8, 3, chunk(b"PLTE", bytes(3)) + chunk(b"tRNS", bytes(300)), rows=b"\0" * 100),
        "long_rows.png": make_png(1, 1, rows=bytes(20 * MEGABYTE)), "short_rows.png": make_png(900, 900, rows=bytes(9)),
        "huge.png": make_png(60000, 60000, rows=bytes(99)), "widest.png": make_png(2**31 - 1, 1, rows=b""),
        "tiles.tif": make_tiff({256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 2**16, 323: 2**16, 324: 8, 325: 9}),
        "wasteful_tiles.tif": make_tiff({256: 1, 257: 65000, 258: 8, 259: 8, 262: 1, 277: 1, 322: 2**20, 323: 32, 324: 8}),
        "loop.tif": make_tiff({256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16, 330: 8}),
        "lzw.tif": make_tiff({256: 99, 257: 99, 258: 8, 259: 5, 262: 1, 273: 140, 277: 1, 278: 99, 279: 99}, b"\xff" * 200),
        "ascii.ppm": b"P3\n9 9\n255\n" + b"1 " * 243, "long_token.ppm": b"P2\n9 9\n255\n" + b"0" * 99999,
        "maximum.ppm": b"P6\n9 9\n99999\n" + bytes(999), "negative.ppm": b"P6\n-9 9\n255\n" + bytes(999),
        "run_lengths.bmp": encode(photo.convert("P"), "BMP")[:30] + b"\1" + encode(photo.convert("P"), "BMP")[31:],
    }.items()  # fmt: skip
    for width, height in ((0, 9), (9, 0), (0, 0), (1, 1), (1, 65000), (65000, 1)):
        yield f"size_{width}x{height}.png", make_png(width, height)
        yield f"size_{width}x{height}.bmp", resize_header(encode(make_photo(4, 4), "BMP"), 18, "<ii", width, height)
        yield f"size_{width}x{height}.gif", resize_header(encode(make_photo(4, 4), "GIF"), 6, "<HH", width, height)
    for size in ((1, 65000), (65000, 1)):
        yield f"thin_{size[0]}.jpg", encode(Image.new("RGB", size), "JPEG")
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr"):
        image = photo.convert(mode) if mode in ("CMYK", "YCbCr") else photo.convert("L").convert(mode)
        yield f"mode_{mode.replace(';', '_')}.tif", encode(image, "TIFF")
    frames = [photo.rotate(angle) for angle in (0, 30, 60)]
    for suffix in ("gif", "webp", "tif", "png"):  # an animated AVIF contains the time
        yield f"animated.{suffix}", encode(photo, FORMATS[suffix], save_all=True, append_images=frames)
    yield "several.mpo.jpg", encode(photo, "MPO", save_all=True, append_images=frames)


def resize_header(data: bytes, start: int, layout: str, width: int, height: int) -> bytes:
    """Replace the size in the header of a file."""
    size = struct.pack(layout, width, height)
    return data[:start] + size + data[start + len(size) :]


def mutate(choose: random.Random, data: bytes) -> tuple[str, bytes]:
    """Return the name of a mutation and the mutated file."""
    kind = choose.choice(
        ["truncated", "header_truncated", "flipped", "header_flipped", "removed", "repeated", "zeroed", "huge"]
    )
    header = min(len(data), 120)
    place = choose.randrange(2, header if "header" in kind or kind == "huge" else len(data))
    if "truncated" in kind:
        return kind, data[:place]
    changed = bytearray(data)
    if "flipped" in kind:
        for _ in range(choose.choice([1, 3, 30])):
            changed[choose.randrange(place, header if "header" in kind else len(data))] ^= 1 << choose.randrange(8)
    length = choose.choice([1, 4, 100])
    match kind:
        case "removed":
            del changed[place : place + length]
        case "repeated":
            changed[place:place] = changed[place : place + length] * 20
        case "zeroed":
            changed[place : place + length] = bytes(length)
        case "huge":  # a size or count in the header
            changed[place : place + 4] = choose.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    return kind, bytes(changed)


def base_files() -> list[tuple[str, bytes]]:
    """Valid files of all formats, as the input of mutations."""
    photo = make_photo(90, 70)
    files = [(suffix, encode(photo, format)) for suffix, format in FORMATS.items()]
    files += [
        ("jpg", encode(photo, "JPEG", progressive=True)),
        ("gif", encode(photo, "GIF", save_all=True, append_images=[photo.rotate(9)])),
    ]
    files += [
        ("tif", encode(photo, "TIFF", compression=name))
        for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    ]
    files += [("webp", encode(photo, "WEBP", lossless=True)), ("png", encode(photo.convert("P"), "PNG", interlace=1))]
    files += [("jpg", encode(photo, "JPEG", exif=make_exif("orientation"), icc_profile=b"x" * 200))]
    return files


def awkward_images(folder: Path, count: int, seed: int) -> list[Path]:
    """Write `count` awkward files into a folder: first the constructed ones, then mutations that depend on the seed."""
    choose, paths = random.Random(seed), list[Path]()
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, data: bytes) -> None:
        paths.append(folder / name)
        paths[-1].write_bytes(data)

    for name, data in [*constructed_files(), *metadata_files()][:count]:
        write(name, data)
    bases = base_files()
    while len(paths) < count:
        suffix, data = choose.choice(bases)
        kind, mutated = mutate(choose, data)
        write(f"{len(paths):04d}_{kind}.{suffix}", mutated)
    return paths
