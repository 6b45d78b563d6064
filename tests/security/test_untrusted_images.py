"""Images that are not what their name says: no other program is started, and no huge image is decoded."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
import torch
from PIL import EpsImagePlugin, Image

import seewhy
from seewhy.errors import UsageError
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
        with pytest.raises(UsageError, match="this saved explanation cannot be read"):
            seewhy.load_explanation(tmp_path / "run")
        code, _, err = run(capsys, "report", str(tmp_path / "run"))
        assert code == 2 and "photo.jpg" in err and len(err.splitlines()) == 1
    photo.write_bytes(valid)
    assert seewhy.load_explanation(tmp_path / "run").images


def test_every_image_file_is_opened_with_a_list_of_formats() -> None:
    """Pillow tries all formats otherwise, and some of them start other programs."""
    for path in sorted(Path(seewhy.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                assert "formats" in [keyword.arg for keyword in node.keywords], f"{path}:{node.lineno}"
