"""Random weights in place of downloads, for the code in docs/asked.md: the only changes that its test makes to models."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip.factory
import pytest
import timm
import tokenizers
import torch
import torchvision
import transformers as tf

from seewhy.models import loading
from support import listed_networks as tiny

SIZE = {"height": 64, "width": 64}
WORDS = [
    "[UNK]",
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "a",
    "photo",
    "of",
    "cat",
    "cup",
    "coffee",
    "bicycle",
    "USER",
    "ASSISTANT",
    "What",
]
VIT_B_32: dict[str, Any] = {  # of open_clip, with fewer and smaller layers
    "embed_dim": 16,
    "vision_cfg": {"image_size": 224, "layers": 3, "width": 32, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
IMAGE_TOKEN = 50  # of the tiny LLaVA, for each of its 16 patches


def use_random_weights(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Build every model of the page with random weights instead of downloading it. Tiny models are saved in `folder`."""
    load_from_uri, get_model, create_model = loading.load_from_uri, torchvision.models.get_model, timm.create_model
    from_pretrained = tf.PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def load(uri: str, *rest: Any, **settings: Any) -> Any:
        if uri.startswith("hf/"):
            return load_from_uri(f"local-dir:{save_tiny(uri, folder)}", *rest, **settings)
        if uri.startswith(("timm/", "torchvision/", "open_clip/")) and "pretrained" not in uri:
            uri += "&pretrained=false" if "?" in uri else "?pretrained=false"
        loaded = load_from_uri(uri, *rest, **settings)
        if hasattr(loaded.module, "roi_heads"):
            loaded.module.roi_heads.score_thresh = 0.0  # scores of random weights are below the threshold
        return loaded

    def build_tiny(cls: Any, name: Any, *rest: Any, **settings: Any) -> Any:
        make = NETWORKS.get(str(name))
        return from_pretrained(cls, name, *rest, **settings) if make is None else cls(make()).eval()

    monkeypatch.setattr(loading, "load_from_uri", load)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", VIT_B_32)
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, **other: get_model(name, **without_weights(name, other))
    )
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **other: create_model(name, **other))
    monkeypatch.setattr(tf.PreTrainedModel, "from_pretrained", classmethod(build_tiny))
    for kind in (tf.AutoProcessor, tf.SamProcessor):
        monkeypatch.setattr(kind, "from_pretrained", lambda name: PROCESSORS[name]())


def without_weights(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    has_backbone = "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name)).parameters
    return {**settings, "weights": None, **({"weights_backbone": None} if has_backbone else {})}


def save_tiny(uri: str, folder: Path) -> Path:
    """Save a tiny network of the hub with its processor, and return its folder."""
    path = folder / uri.replace("/", "-")
    if not path.exists():
        torch.manual_seed(0)
        HUB[uri](path)
    return path


def save_detr(path: Path) -> None:
    tf.DetrForObjectDetection(tiny.detr()).save_pretrained(path)
    tf.DetrImageProcessor(size={"height": 128, "width": 128}, do_pad=False).save_pretrained(path)


def save_depth(path: Path) -> None:
    tf.DepthAnythingForDepthEstimation(tiny.depth_anything()).save_pretrained(path)
    tf.DPTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(path)


def save_clip(path: Path) -> None:
    config = tiny.clip()
    config.text_config.max_position_embeddings = 16
    tf.CLIPModel(config).save_pretrained(path)
    tf.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=SIZE).save_pretrained(path)
    save_words(path)


def save_siglip(path: Path) -> None:
    text = {**tiny.SMALL, "vocab_size": 60, "max_position_embeddings": 16}
    config = tf.SiglipConfig(text_config=text, vision_config=tiny.PATCHES)
    tf.SiglipModel(config).save_pretrained(path)
    tf.SiglipImageProcessor(size=SIZE).save_pretrained(path)
    save_words(path)


def save_words(path: Path) -> None:
    """Save a tokenizer with one token per word."""
    tokenizer = word_tokenizer()
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}))


def word_tokenizer() -> tokenizers.Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


class Processor:
    """Pixels of the size of the tiny network, and one token per word."""

    def __init__(self, *, height: int = 64, width: int = 64, image_tokens: int = 0) -> None:
        self.shape, self.image_tokens = (1, 3, height, width), image_tokens

    def __call__(
        self, images: Any, *, text: str | None = None, return_tensors: str, input_points: Any = None
    ) -> dict[str, Any]:
        assert return_tensors == "pt" and images.size
        generator = torch.Generator().manual_seed(0)
        found: dict[str, Any] = {"pixel_values": torch.randn(self.shape, generator=generator)}
        if input_points is not None:  # (B, prompts, points, 2), in input pixels, as float64
            found["input_points"] = torch.tensor(input_points, dtype=torch.float64)[:, None] / 10
        if text is not None:
            ids = word_tokenizer().encode(text.replace("<image>", "")).ids
            ids = [2, *[IMAGE_TOKEN] * self.image_tokens, *ids, 3]
            found["input_ids"] = torch.tensor([ids])
            found["attention_mask"] = torch.ones_like(found["input_ids"])
        return found

    def decode(self, token: Any) -> str:
        return f" {WORDS[int(token) % len(WORDS)]}"


def grounding_dino() -> Any:
    text = tf.BertConfig(**tiny.SMALL, vocab_size=60)
    backbone = tf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    return tf.GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=16,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_text_len=32,
    )  # fmt: skip


def vitpose() -> Any:
    backbone = tf.VitPoseBackboneConfig(
        image_size=[256, 192], hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2,
        out_features=["stage2"],
    )  # fmt: skip
    return tf.VitPoseConfig(backbone_config=backbone, num_labels=17, scale_factor=4, use_simple_decoder=True)


def sam() -> Any:
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    vision = tiny.sam()
    vision.num_pos_feats, vision.initializer_range = 8, 0.2  # the default range is 1e-10
    return tf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def videomae() -> Any:
    return tf.VideoMAEConfig(
        **{**tiny.PATCHES, "image_size": 224, "patch_size": 32}, num_frames=16, tubelet_size=2, num_labels=4
    )


HUB: dict[str, Callable[[Path], None]] = {
    "hf/facebook/detr-resnet-50": save_detr,
    "hf/depth-anything/Depth-Anything-V2-Small-hf": save_depth,
    "hf/openai/clip-vit-base-patch32": save_clip,
    "hf/google/siglip-base-patch16-224": save_siglip,
}
NETWORKS: dict[str, Callable[[], Any]] = {
    "IDEA-Research/grounding-dino-tiny": grounding_dino,
    "usyd-community/vitpose-base-simple": vitpose,
    "facebook/sam-vit-base": sam,
    "llava-hf/llava-1.5-7b-hf": tiny.llava,
    "Salesforce/blip-image-captioning-base": tiny.blip,
    "MCG-NJU/videomae-base-finetuned-kinetics": videomae,
}
PROCESSORS: dict[str, Callable[[], Processor]] = {
    "IDEA-Research/grounding-dino-tiny": lambda: Processor(height=128, width=128),
    "facebook/sam-vit-base": Processor,
    "llava-hf/llava-1.5-7b-hf": lambda: Processor(image_tokens=16),
    "Salesforce/blip-image-captioning-base": Processor,
}
