"""The embedded network on real images: maps lie on the object of the class, predictions are accurate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]

import seewhy
from support.command import run
from support.paths import DATA

BUS = (22, 231, 805, 757)  # left, top, right, bottom


def test_each_class_lies_on_its_half_of_the_image(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(embedded, seewhy.sample("cat_espresso"), targets=["espresso", "Egyptian cat"], fit="squash")
    assert e.suggested == "bn2"
    half = e.size[1] // 2
    espresso, cat = e.heatmap(target="espresso"), e.heatmap(target="Egyptian cat")
    assert espresso[:, half:].sum() / espresso.sum() >= 0.8
    assert cat[:, :half].sum() / cat.sum() >= 0.8


@pytest.mark.parametrize(
    ("target", "rival", "fraction"), [("espresso", "Egyptian cat", 0.950), ("Egyptian cat", "espresso", 0.011)]
)
def test_contrast_of_two_classes(embedded: seewhy.LoadedModel, target: str, rival: str, fraction: float) -> None:
    """The fraction of the map on the right half, where the espresso is."""
    contrast = seewhy.Contrast(target, against=[rival])
    e = seewhy.explain(embedded, seewhy.sample("cat_espresso"), targets=contrast, fit="squash")
    heatmap = e.heatmap()
    assert float(heatmap[:, e.size[1] // 2 :].sum() / heatmap.sum()) == pytest.approx(fraction, abs=0.02)


CLASS_METHODS = [
    "gradcam", "hirescam", "xgradcam", "cam", "eigengradcam", "shapleycam", "finercam", "ablationcam", "groupcam",
    "smooth(samples=3)", "integrated(steps=3)", "augmented", "eigensmooth",
]  # fmt: skip
CLASS_AGNOSTIC_METHODS = ["eigencam", "kpcacam", "fem", "lafam", "randomcam", "dff"]


def test_only_class_agnostic_methods_have_equal_maps_for_two_classes(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(
        embedded, seewhy.sample("cat_espresso"), methods=[*CLASS_METHODS, *CLASS_AGNOSTIC_METHODS],
        layers="bn2", targets=["espresso", "Egyptian cat"], fit="squash",
    )  # fmt: skip
    half = e.size[1] // 2
    for method in e.methods:
        espresso, cat = e.heatmap(method, "espresso"), e.heatmap(method, "Egyptian cat")
        if method in CLASS_METHODS:
            assert espresso[:, half:].sum() / espresso.sum() >= 0.75, method
            assert cat[:, :half].sum() / cat.sum() >= 0.75, method
        else:
            assert (espresso == cat).all(), method


@pytest.mark.parametrize(("fit", "fraction"), [("crop", 0.9), ("squash", 0.75)])
def test_heatmap_of_minibus_lies_in_its_box(embedded: seewhy.LoadedModel, bus: Path, fit: str, fraction: float) -> None:
    e = seewhy.explain(embedded, bus, fit=fit)  # type: ignore[arg-type]
    assert e.top(1)[0][:2] == (654, "minibus")
    heatmap = e.on_photo()
    left, top, right, bottom = BUS
    assert heatmap[top:bottom, left:right].sum() / heatmap.sum() >= fraction


def test_command_with_the_bus(bus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(bus), "-o", str(tmp_path))
    assert code == 0
    lines = out.splitlines()
    assert lines[1].startswith("minibus, ") and lines[2].startswith("The evidence lies in the center")
    assert lines[3].startswith("The evidence for minibus exceeds that for trolleybus")
    assert lines[5].startswith("Covering what the map marks lowers minibus as predicted")
    assert lines[5].endswith("confirmed.") and lines[6].startswith("The model received ")
    assert any(line.split()[:2] == ["654", "minibus"] for line in lines)
    assert len(list((tmp_path / "bus" / "overlays").iterdir())) == 49


def test_accuracy_on_imagenet_images(embedded: seewhy.LoadedModel) -> None:
    """Checks the preprocessing: with the mean and std of ImageNet, the accuracy of these weights is 10 points lower."""
    folder = DATA / "imagenet"
    if not folder.exists():
        pytest.skip(f"the data folder does not exist ({DATA}; set SEEWHY_DATA)")
    paths = sorted(folder.glob("*.jpg"))[::4]
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    labels = {row[0]: int(row[1]) for row in rows}
    correct = [seewhy.explain(embedded, path).top(1)[0][0] == labels[path.name] for path in paths]
    assert np.mean(correct) >= 0.8


def test_weights_in_the_cache_of_torch_hub(bus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    e = seewhy.explain(seewhy.load_model("torchvision/resnet18"), bus, layers="every", include_suggested=True)
    assert e.suggested == "layer4" and sum(info.requested for info in e.layer_info.values()) == 20
