"""The snippets of docs/training.md run, one after the other, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from support.paths import ROOT


@pytest.mark.filterwarnings("ignore")  # of Lightning, transformers and tensorboard
def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("lightning", "transformers", "accelerate", "tensorboard"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    snippets = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "training.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    for code in snippets:
        exec(compile(code, "docs/training.md", "exec"), names)
    assert len(snippets) == 5
    frames = {"maps": 4, "seewhy_maps": 3, "output/seewhy_maps": 3}
    for folder, count in frames.items():
        with Image.open(tmp_path / folder / "image_1.png") as animation:
            assert animation.n_frames == count  # type: ignore[attr-defined]
    assert (tmp_path / "maps2" / "image_1_0_gradcam.png").exists()
    assert len(list((tmp_path / "runs" / "maps").iterdir())) == 1
