"""The command in explanation.json, run again, computes the same maps. One image is loaded and resolved once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seewhy
from seewhy.targets import ClassScore
from support.command import CAT_ESPRESSO, COFFEE, run

FLAGS = {
    "defaults": [COFFEE],
    "features": ["features", COFFEE, "--layers", "conv_stem,bn2", "--channels", "3"],
    "features of another target": ["features", COFFEE, "-l", "bn2", "-t", "cup", "--fit", "pad"],
    "classic style": [COFFEE, "--style", "classic", "-l", "conv_head,conv_stem"],
    "classic style, cropped": [COFFEE, "--style", "classic", "--fit", "crop", "-l", "bn2"],
    "versus": [CAT_ESPRESSO, "-t", "espresso", "--versus", "Egyptian cat", "--fit", "squash", "-l", "bn2"],
    "several targets": [COFFEE, "-t", "967,top2", "-t", "probability:espresso", "-l", "suggested", "--scale", "shared"],
    "settings": [COFFEE, "--methods", "smooth(layercam,samples=2),dff(concepts=2),fullgrad", "-l", "bn2"],
    "seed": [COFFEE, "--methods", "smooth(layercam,samples=2),rise(masks=8)", "-l", "bn2", "--seed", "4"],
    "group of methods": [COFFEE, "--methods", "fast", "-t", "espresso"],
    "read at the activation": [COFFEE, "-l", "conv_head", "-l", "blocks.5.*", "--read-at", "activation"],
    "drawing": [COFFEE, "-l", "bn2", "--style", "blend", "--colors", "viridis", "--opacity", "0.4", "--size", "128"],
    "model": [
        COFFEE, "-m", "support.factories:classifier", "--allow-code", "--num-classes", "7", "--labels", "a,b,c,d,e,f,g",
        "-t", "c", "--methods", "scorecam", "--multilabel", "--memory", "16", "--label", "b",
    ],
}  # fmt: skip


@pytest.mark.parametrize("arguments", FLAGS.values(), ids=FLAGS)
def test_recorded_command_computes_identical_maps(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(capsys, *arguments, "-q", "-o", "first")[0] == 0
    (folder,) = Path("first").iterdir()
    command = json.loads((folder / "explanation.json").read_text())["provenance"]["command"]
    program, *recorded = shlex.split(command)
    assert program == "seewhy"
    assert run(capsys, *recorded, "-q", "-o", "second")[0] == 0
    again = Path("second") / folder.name
    with np.load(folder / "maps.npz") as one, np.load(again / "maps.npz") as other:
        assert one.files == other.files and len(one.files) >= 1
        for key in one.files:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key], strict=True)
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".html", ".jpg")}
    assert names == {path.relative_to(again) for path in again.rglob("*") if path.suffix in (".html", ".jpg")}
    assert names and all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the calls that decode an image, parse targets, or resolve one."""
    counts: dict[str, int] = {}

    def count(owner: str, name: str, function: Callable[..., Any]) -> None:
        counts.setdefault(name, 0)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(f"{owner}.{name}", wrapper)

    from seewhy.engine import pipeline
    from seewhy.images import loading

    count("seewhy.engine.inputs", "load_image", loading.load_image)
    count("seewhy.cli.image_job", "load_image", loading.load_image)
    count("seewhy.images.loading", "convert_image", loading.convert_image)
    count("seewhy.engine.pipeline", "as_targets", pipeline.as_targets)
    count("seewhy.engine.pipeline", "resolve_targets", pipeline.resolve_targets)
    count("seewhy.targets.ClassScore", "resolve", ClassScore.resolve)
    return counts


ONCE = {"load_image": 1, "convert_image": 1, "as_targets": 1, "resolve_targets": 1, "resolve": 1}


def test_explain_loads_the_image_and_resolves_targets_once(embedded: seewhy.LoadedModel, calls: dict[str, int]) -> None:
    seewhy.explain(
        embedded, COFFEE, targets="espresso", methods=["gradcam", "smooth(samples=2)"], layers=["bn2", "conv_stem"]
    )
    assert calls == ONCE


def test_command_line_loads_the_image_and_resolves_targets_once(
    capsys: pytest.CaptureFixture[str], calls: dict[str, int]
) -> None:
    words = ("-t", "espresso", "--label", "cup", "--fit", "squash", "-l", "bn2,conv_stem")
    assert run(capsys, COFFEE, *words, "--no-check")[0] == 0
    assert calls == ONCE
