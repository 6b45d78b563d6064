"""Images that are not what their name says: no other program is started, and no huge image is decoded."""

from __future__ import annotations

import ast
import io
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import EpsImagePlugin, Image

import seewhy
from seewhy.bulk.input_regions import read_mask
from seewhy.errors import ImageError, UsageError
from support.command import run
from support.untrusted_files import make_network

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


def resize_header(jpeg: bytes, width: int, height: int) -> bytes:
    """Return a JPEG that states another size in its header."""
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[start + 4 :]


def encode(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, format)
    return buffer.getvalue()


def test_the_photo_of_a_saved_run_is_a_jpeg_of_limited_size(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users exchange saved runs, so photo.jpg may contain anything."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    seewhy.explain(make_network(), torch.rand(1, 3, 32, 32), layers="0").save(tmp_path / "run")
    photo = tmp_path / "run" / "photo.jpg"
    valid = photo.read_bytes()
    for data in (EPS, encode("PNG"), encode("TIFF"), b"", valid[:20], resize_header(valid, 20000, 20000)):
        photo.write_bytes(data)
        with pytest.raises(UsageError, match=r"photo\.jpg: .* Create it again with seewhy"):
            seewhy.load_explanation(tmp_path / "run")
        code, _, err = run(capsys, "report", str(tmp_path / "run"))
        assert code == 2 and "photo.jpg" in err and len(err.splitlines()) == 1
    photo.write_bytes(valid)
    assert seewhy.load_explanation(tmp_path / "run").images


def test_a_mask_with_one_huge_tile_is_not_decoded(tmp_path: Path) -> None:
    """A TIFF tile is decoded at once, so its size counts and not only the size of the image."""
    tags = {256: 32, 257: 32, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60000, 323: 60000, 324: 200, 325: 1024}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    (tmp_path / "mask.tif").write_bytes(data.ljust(200, b"\0") + bytes(1024))
    with pytest.raises(ImageError, match="tiles of 60000 x 60000 are over the limit"):
        read_mask(str(tmp_path / "mask.tif"), None, (32, 32))


def test_every_image_file_is_opened_with_a_list_of_formats() -> None:
    """Pillow tries all formats otherwise, and some of them start other programs."""
    for path in sorted(Path(seewhy.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                assert "formats" in [keyword.arg for keyword in node.keywords], f"{path}:{node.lineno}"


DAMAGED_TIFF = """
import io, sys
from PIL import Image
import seewhy
from seewhy.images.loading import load_image
from seewhy.terminal.streams import escaped_streams

buffer = io.BytesIO()
Image.effect_noise((64, 64), 50).save(buffer, "TIFF", compression="tiff_adobe_deflate")
data = bytearray(buffer.getvalue())
data[8:30] = bytes(22)

def load():
    try:
        load_image(bytes(data))
    except seewhy.ImageError as error:
        print(error)

load()
print("own", file=sys.stderr, flush=True)
with escaped_streams():
    load()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libtiff is a file of its own in wheels for Linux")
def test_libtiff_prints_no_lines_in_commands() -> None:
    """It writes to file descriptor 2. In a user's own program, its messages are not changed."""
    result = subprocess.run([sys.executable, "-c", DAMAGED_TIFF], capture_output=True, text=True, check=True)
    before, _, after = result.stderr.partition("own\n")
    assert "ZIPDecode" in before and after == "" and len(result.stdout.splitlines()) == 2
