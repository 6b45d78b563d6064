"""docs/from_the_tutorial.md: the tutorial's script and the command write the same images, pixel by pixel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import seewhy
from repository.test_readme import blocks, run_command
from support.paths import ROOT

EXACT, MEAN, JPEG = 4, 1, 16  # levels of 255 before JPEG, and after: on average, and at any pixel
PAGE = (ROOT / "docs" / "from_the_tutorial.md").read_text("utf-8")
CHINESE = (ROOT / "docs" / "from_the_tutorial.zh.md").read_text("utf-8")


def levels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(np.int64)


def load(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return levels(image)


def test_script_and_command_write_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(seewhy.sample("cat_espresso"), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    written: dict[str, NDArray[np.int64]] = {}
    save = Image.Image.save

    def record(image: Image.Image, target: Any, *args: Any, **options: Any) -> None:
        written[str(target)] = levels(image)
        save(image, target, *args, **options)

    with monkeypatch.context() as recording:
        recording.setattr(Image.Image, "save", record)
        names: dict[str, object] = {}
        for code in blocks(PAGE, "python"):
            exec(compile(code, "docs/from_the_tutorial.md", "exec"), names)
    run_command(blocks(PAGE, "sh")[0])
    model = seewhy.load_model("resnet18.pth?arch=torchvision/resnet18")
    e = seewhy.explain(model, "photo.jpg", layers="every", fit="squash")
    overlays = tmp_path / "cam" / "photo" / "overlays"
    assert len(e.layers) == 20 and len(list(overlays.iterdir())) == 20
    for number, layer in enumerate(e.layers, 1):
        name = f"grad_cam_conv{number}.jpg"
        assert np.abs(written[name] - levels(e.classic_overlay(layer=layer))).max() <= EXACT, name
        difference = np.abs(load(tmp_path / name) - load(overlays / name))
        assert difference.mean() <= MEAN and difference.max() <= JPEG, name
    images = [written[f"grad_cam_conv{number}.jpg"] for number in range(1, 21)]
    assert all(np.abs(one - images[0]).max() > 50 for one in images[1:])  # the layers differ
    assert f"at most {EXACT} of 255" in PAGE and f"{JPEG} at any pixel" in PAGE


def test_both_languages_have_the_same_code() -> None:
    for language in ("python", "sh"):
        assert blocks(PAGE, language) == blocks(CHINESE, language)
    assert PAGE.count("\n| ") == CHINESE.count("\n| ") and PAGE.count("\n## ") == CHINESE.count("\n## ")
