"""`--methods` with settings, and `seewhy features`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seewhy
from support.command import COFFEE, run


def test_methods_with_settings(capsys: pytest.CaptureFixture[str]) -> None:
    methods = "gradcam,smooth(layercam,samples=2),dff(concepts=2),fullgrad"
    code, _, err = run(capsys, COFFEE, "--methods", methods, "--layers", "bn2")
    assert (code, err) == (0, "")
    with np.load("cam/coffee/maps.npz") as maps:
        assert sorted(maps.files) == [
            "deepfeaturefactorization(concepts=2)#1|967|bn2", "deepfeaturefactorization(concepts=2)#2|967|bn2",
            "fullgrad|967|network", "gradcam|967|bn2", "smooth(layercam,samples=2)|967|bn2",
        ]  # fmt: skip
    loaded = seewhy.load_explanation("cam/coffee")
    assert loaded.layers_of("fullgrad") == ("network",)
    folder = Path("cam/coffee/overlays/smooth_layercam_samples_2_")
    assert [path.name for path in folder.rglob("*.jpg")] == ["01_bn2.jpg"]


def test_an_unknown_method_in_settings_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, COFFEE, "--methods", "gradcam,smooth(layrcam)")
    assert (code, out) == (2, "") and "layrcam" in err
    assert not Path("cam").exists()


def test_many_forward_passes_are_announced(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, COFFEE, "--methods", "rise(masks=100)")
    assert code == 0 and "these methods need about 100 extra forward passes" in err
    assert "network" in out and Path("cam/coffee/overlays/01_network.jpg").exists()


def test_features(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "features", COFFEE, "--layers", "conv_stem,bn2", "--channels", "3")
    assert code == 0 and "features.jpg" in out
    with Image.open("cam/coffee/features.jpg") as sheet:
        assert sheet.width > 4 * 150
    assert not Path("cam/coffee/overlays").exists()


def test_features_needs_an_image_and_a_positive_number_of_channels(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "features")[0] == 2
    assert run(capsys, "features", COFFEE, "--channels", "0")[0] == 2
