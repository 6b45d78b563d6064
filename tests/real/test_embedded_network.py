"""The embedded network on real pictures: each class where it is, in numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision

import seewhy
from seewhy.cli import main as cli
from support.paths import DATA

BUS = (22, 231, 805, 757)  # left, top, right, bottom


def test_each_class_lies_on_its_own_half(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(embedded, seewhy.sample("cat_espresso"), targets=["espresso", "Egyptian cat"], fit="squash")
    assert e.suggested == "bn2"
    half = e.size[1] // 2
    espresso, cat = e.heatmap(target="espresso"), e.heatmap(target="Egyptian cat")
    assert espresso[:, half:].sum() / espresso.sum() >= 0.8
    assert cat[:, :half].sum() / cat.sum() >= 0.8


KNOW_THE_CLASS = [
    "gradcam", "hirescam", "xgradcam", "cam", "eigengradcam", "shapleycam", "finercam", "ablationcam", "groupcam",
    "smooth(samples=3)", "integrated(steps=3)", "augmented", "eigensmooth",
]  # fmt: skip
KNOW_NO_CLASS = ["eigencam", "kpcacam", "fem", "lafam", "randomcam", "dff"]


def test_methods_that_know_the_class_lie_on_it_and_the_others_do_not_care(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(
        embedded, seewhy.sample("cat_espresso"), methods=[*KNOW_THE_CLASS, *KNOW_NO_CLASS],
        layers="bn2", targets=["espresso", "Egyptian cat"], fit="squash",
    )  # fmt: skip
    half = e.size[1] // 2
    for method in e.methods:
        espresso, cat = e.heatmap(method, "espresso"), e.heatmap(method, "Egyptian cat")
        if method in KNOW_THE_CLASS:
            assert espresso[:, half:].sum() / espresso.sum() >= 0.75, method
            assert cat[:, :half].sum() / cat.sum() >= 0.75, method
        else:
            assert (espresso == cat).all(), method


@pytest.mark.parametrize(("fit", "share"), [("crop", 0.9), ("squash", 0.75)])
def test_the_minibus_is_seen_in_its_box(embedded: seewhy.LoadedModel, bus: Path, fit: str, share: float) -> None:
    e = seewhy.explain(embedded, bus, fit=fit)
    assert e.top(1)[0][:2] == (654, "minibus")
    heat = e.on_photo()
    left, top, right, bottom = BUS
    assert heat[top:bottom, left:right].sum() / heat.sum() >= share


def test_the_command_on_the_bus(bus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([str(bus), "-o", str(tmp_path)])
    assert not left.value.code
    first = capsys.readouterr().out.splitlines()[3]
    assert "654" in first and "minibus" in first
    assert len(list((tmp_path / "bus" / "overlays").iterdir())) == 49


def test_accuracy_on_real_pictures(embedded: seewhy.LoadedModel) -> None:
    """The right preprocessing: with ImageNet's mean and std these weights lose ten points."""
    folder = DATA / "imagenet"
    if not folder.exists():
        pytest.skip(f"the data folder is absent ({DATA}; set SEEWHY_DATA)")
    names = sorted(folder.glob("*.jpg"))[::4]
    synsets = (folder / "labels.csv").read_text().splitlines()
    index = {line.split(",")[0]: int(line.split(",")[1]) for line in synsets[1:]}
    right = [seewhy.explain(embedded, name).top(1)[0][0] == index[name.name] for name in names]
    assert np.mean(right) >= 0.8


def test_weights_in_the_cache_of_torch_hub(bus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    e = seewhy.explain(seewhy.load_model("torchvision/resnet18"), bus, layers="every", suggested=True)
    assert e.suggested == "layer4" and sum(info.requested for info in e.layer_info.values()) == 20
