"""docs/asked.md answers 50 kinds of questions. Its code runs as printed, except for downloads and packages of others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torchvision
from PIL import Image

import seewhy
from seewhy.cli.main import main
from support import asked_models, asked_packages
from support.paths import ROOT

PAGE = (ROOT / "docs" / "asked.md").read_text("utf-8")
NAMES = """
    all_layers_at_once attention_methods batch blank_or_nan boxes_from_map cam_as_loss caption_words clip_text
    depth_pose detr devices dino_attention exported_models gradient_missing inplace_or_reused is_it_right
    medical_3d memory metrics migration multi_input new_methods notebook odd_layer_errors outputs_not_tensors
    overlay_alignment own_checkpoint paper_figures per_class_maps quantized_lora regression_binary
    reinforcement rnn_on_gpu sam_masks same_scale segmentation siglip_prompts signals_1d
    similarity_metric_learning slides_and_tiles speed training_logs two_stage_detectors video
    vit_layer_and_grid vlm_answer web_app which_layer which_method yolo_boxes
"""
KINDS = NAMES.split()
ANSWERS = {
    match[1]: match[2]
    for match in re.finditer(r"<!-- kind: (\w+) -->\n(### .*?)(?=\n<!-- kind: |\n## |\Z)", PAGE, re.DOTALL)
}
CODE = {
    kind: re.findall(r"^```(python|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for kind, text in ANSWERS.items()
}


def test_every_kind_has_an_answer_with_code() -> None:
    assert sorted(ANSWERS) == sorted(KINDS) and len(KINDS) == 50
    without = [kind for kind, blocks in CODE.items() if not blocks]
    assert without == []
    assert sum(map(len, CODE.values())) == len(re.findall(r"^```(?:python|sh)$", PAGE, re.MULTILINE))


def test_the_page_states_what_is_replaced() -> None:
    """The counts of the last section: kinds whose code needs stand-ins of packages, and tiny networks of the hub."""
    packages = {kind for kind, text in ANSWERS.items() if uses(text, asked_packages.NAMES)}
    hub = {kind for kind, text in ANSWERS.items() if uses(text, [*asked_models.HUB, *asked_models.NETWORKS])} - packages
    rest = len(KINDS) - len(packages) - len(hub)
    assert f"50 have code that runs in CI: {rest} with the embedded network" in PAGE
    assert f"{len(hub)} with tiny networks of the hub, and {len(packages)} with stand-ins" in PAGE


def uses(text: str, names: Iterable[str]) -> bool:
    return any(
        name in code for code in re.findall(r"^```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for name in names
    )


def test_names_of_models_exist() -> None:
    """Names with published weights, on the page and in llms.txt. Those of hf/ cannot be checked without a network."""
    text = PAGE + (ROOT / "llms.txt").read_text("utf-8")
    names = set(re.findall(r"timm/([\w.]+\w)", text)) | set(re.findall(r'create_model\("([\w.]+)", pretrained', text))
    assert len(names) >= 5
    assert sorted(names - {"NAME", *timm.list_models(), *timm.list_models(pretrained=True)}) == []
    clips = set(re.findall(r"open_clip/([\w-]+)@(\w+)", text)) - {("NAME", "TAG"), ("NAME", "WEIGHTS")}
    assert clips and clips <= set(open_clip.list_pretrained())
    detectors = set(re.findall(r"torchvision/(\w+)", text)) - {"NAME"}
    assert detectors and detectors <= set(torchvision.models.list_models())


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader of the page, with a photo; random weights in place of downloads."""
    Image.open(seewhy.sample("cat_espresso")).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    asked_models.use_random_weights(monkeypatch, tmp_path_factory.mktemp("models"))
    asked_packages.write_example("network.onnx")
    torch.manual_seed(0)
    return tmp_path


@pytest.mark.parametrize("kind", CODE)
def test_the_code_runs(reader: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_packages.install(monkeypatch, "".join(code for _, code in CODE[kind]))
    names: dict[str, object] = {"__name__": "asked"}
    for number, (language, code) in enumerate(CODE[kind]):
        if language == "python":
            exec(compile(code, f"docs/asked.md, {kind}, block {number}", "exec"), names)
            continue
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "seewhy"
            with pytest.raises(SystemExit) as end:
                main(words[1:])
            assert end.value.code in (0, None), line
    if app := names.get("app"):
        assert app.answer().content.startswith(b"\x89PNG")  # type: ignore[attr-defined]
