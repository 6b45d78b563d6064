"""Models of transformers and open_clip, tiny and with random weights, in explain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.targets import BoxScore, RegionScore, Similarity

transformers = pytest.importorskip("transformers", reason="transformers is an extra; make test installs it")
open_clip = pytest.importorskip("open_clip", reason="open_clip is an extra; make test installs it")

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the libraries themselves

SMALL: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, num_labels=5
)
LABELS = {0: "ant", 1: "bee", 2: "cat", 3: "dog", 4: "eel"}


def images(size: int = 64, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def build(kind: str) -> nn.Module:
    t: Any = transformers
    torch.manual_seed(0)
    match kind:
        case "vit":
            return t.ViTForImageClassification(t.ViTConfig(image_size=64, patch_size=16, **SMALL))  # type: ignore[no-any-return]
        case "dinov2-registers":
            config = t.Dinov2WithRegistersConfig(
                image_size=64, patch_size=16, num_register_tokens=3, mlp_ratio=2, **SMALL
            )
            return t.Dinov2WithRegistersForImageClassification(config)  # type: ignore[no-any-return]
        case "beit":
            return t.BeitForImageClassification(t.BeitConfig(image_size=64, patch_size=16, **SMALL))  # type: ignore[no-any-return]
        case "swin":
            config = t.SwinConfig(
                image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=5
            )
            return t.SwinForImageClassification(config)  # type: ignore[no-any-return]
        case "resnet":
            config = t.ResNetConfig(
                embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], layer_type="basic", num_labels=5
            )
            return t.ResNetForImageClassification(config)  # type: ignore[no-any-return]
        case "convnext":
            config = t.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 2], num_stages=2, num_labels=5)
            return t.ConvNextForImageClassification(config)  # type: ignore[no-any-return]
    raise AssertionError(kind)


GRIDS = {
    "vit": (4, 4), "dinov2-registers": (4, 4), "beit": (4, 4), "swin": (8, 8), "resnet": (8, 8), "convnext": (8, 8),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRIDS)
def test_classifiers_need_no_settings(kind: str) -> None:
    model = build(kind).eval()
    e = seewhy.explain(
        model, images(), methods=["gradcam", "hirescam", "layercam", "scorecam", "occlusion"], targets=["top1", 2]
    )
    assert e.map("gradcam", 2).shape[1:] == GRIDS[kind]
    assert all(torch.isfinite(maps).all() for maps in e.maps.values())
    torch.testing.assert_close(e.logits, model(pixel_values=images()).logits.detach(), rtol=1e-4, atol=1e-5)
    named = seewhy.explain(model, {"pixel_values": images()}, targets=2, layers=e.layers_of("gradcam"))
    torch.testing.assert_close(named.map(), e.map("gradcam", 2))
    compare_with_manual_gradcam(model, e)


def compare_with_manual_gradcam(model: nn.Module, e: seewhy.Explanation) -> None:
    """Compute Grad-CAM at the suggested layer with a plain hook; the grid is the last height * width tokens."""
    layer, (height, width) = e.layers_of("gradcam")[-1], e.map("gradcam", 2).shape[1:]
    outputs: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    handle = dict(model.named_modules())[layer].register_forward_hook(record)
    try:
        score = model(pixel_values=images()).logits[:, 2].sum()
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0])
    features = outputs[0].detach()
    if features.dim() == 3:
        features, gradient = (
            t[:, -height * width :].transpose(1, 2).reshape(len(t), -1, height, width) for t in (features, gradient)
        )
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1)
    torch.testing.assert_close(e.map("gradcam", 2), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().amax()))


def test_labels_can_be_passed() -> None:
    model = build("vit").eval()
    e = seewhy.explain(model, images(), labels=list(LABELS.values()), targets="cat", versus="dog")
    assert e.target_results[0].name == "cat rather than dog"


def test_segmentation() -> None:
    t: Any = transformers
    torch.manual_seed(0)
    config = t.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3,
    )  # fmt: skip
    model = t.SegformerForSemanticSegmentation(config).eval()
    one = images(batch=1)
    e = seewhy.explain(model, one, targets=RegionScore(1, where=(20, 30)))
    assert e.methods == ("hirescam",) and torch.isfinite(e.map()).all() and float(e.map().abs().sum()) > 0
    score = model(pixel_values=one).logits[0, 1, 7, 5]
    torch.testing.assert_close(e.target_results[0].scores[0], score.detach())


def test_detection() -> None:
    t: Any = transformers
    torch.manual_seed(0)
    config = t.YolosConfig(image_size=[64, 64], patch_size=16, num_detection_tokens=5, **SMALL)
    model = t.YolosForObjectDetection(config).eval()
    output = model(pixel_values=images(batch=1))
    cx, cy, width, height = (output.pred_boxes[0, 2] * 64).tolist()
    box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    target = BoxScore(box, 1)
    e = seewhy.explain(model, images(batch=1), targets=target, layers="vit.encoder.layer.1")
    assert e.methods == ("hirescam",) and torch.isfinite(e.map()).all()
    # the score is the logit of one of the detections in the box
    assert any(torch.allclose(e.target_results[0].scores[0], logit) for logit in output.logits[0, :, 1])


def test_transformers_clip_with_text_inputs() -> None:
    t: Any = transformers
    torch.manual_seed(0)
    part: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    config = t.CLIPConfig(
        text_config=dict(vocab_size=50, max_position_embeddings=8, eos_token_id=49, bos_token_id=48, pad_token_id=1, **part),
        vision_config=dict(image_size=64, patch_size=16, **part), projection_dim=16,
    )  # fmt: skip
    model = t.CLIPModel(config).eval()
    texts = torch.tensor([[48, 3, 4, 49], [48, 5, 6, 49], [48, 7, 9, 49]])
    e = seewhy.explain(model, {"pixel_values": images(), "input_ids": texts}, targets=[0, 2])
    expected = model(pixel_values=images(), input_ids=texts).logits_per_image
    torch.testing.assert_close(e.logits, expected.detach(), rtol=1e-4, atol=1e-4)
    assert e.map(target=2).shape == (2, 4, 4) and float(e.map(target=2).abs().sum()) > 0
    similarity = seewhy.explain(
        model, {"pixel_values": images(), "input_ids": texts}, targets=Similarity(torch.ones(16))
    )
    assert torch.isfinite(similarity.map()).all()


def test_open_clip() -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg=dict(image_size=64, patch_size=16, width=32, layers=3, head_width=8),
        text_cfg=dict(context_length=8, vocab_size=50, width=32, heads=4, layers=2),
    ).eval()
    vector = torch.nn.functional.normalize(torch.randn(16), dim=0)
    e = seewhy.explain(model, images(), targets=Similarity(vector), methods=["gradcam", "hirescam", "occlusion"])
    features = torch.nn.functional.normalize(model.encode_image(images()), dim=1)
    torch.testing.assert_close(e.target_results[0].scores, (features @ vector).detach())
    assert e.map("gradcam").shape == (2, 4, 4) and float(e.map("gradcam").abs().sum()) > 0
    texts = torch.tensor([[48, 3, 4, 49, 0, 0, 0, 0], [48, 5, 6, 49, 0, 0, 0, 0]])
    both = seewhy.explain(model, {"image": images(), "text": texts}, targets=Similarity(vector))
    torch.testing.assert_close(both.map(), e.map("gradcam"), rtol=1e-3, atol=1e-6)
