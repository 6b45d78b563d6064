"""Tiny random versions of well-known networks, with what is needed to compute Grad-CAM for them by hand.

`score` computes the number that seewhy explains by default from the output. `arrange` turns the output of the suggested layer,
or its gradient, into channels first (K, *grid), with the order of its tokens written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn
from torchvision.models import detection, optical_flow

Arrange = Callable[[Tensor], Tensor]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {**SMALL, "image_size": 64, "patch_size": 16}  # 4 x 4 patches


@dataclass(frozen=True)
class Listed:
    """A network: how to make it and its inputs, its score, the layer that is suggested, and how its output is arranged."""

    make: Callable[[], tuple[nn.Module, Any]]
    score: Callable[[Any], Tensor]
    layer: str
    arrange: Arrange
    method: str = "gradcam"
    size: tuple[int, ...] = (64, 64)
    dtype: torch.dtype = torch.float64


def cells(*grid: int, first: int = 0) -> Arrange:
    """Return the arrangement of tokens (1, N, K) whose first cell is token `first`, row by row."""

    def arrange(tokens: Tensor) -> Tensor:
        count = torch.Size(grid).numel()
        return tokens[0, first : first + count].T.unflatten(1, grid)

    return arrange


def as_it_is(output: Tensor) -> Tensor:
    return output[0]


def frames_of_tokens(tokens: Tensor) -> Tensor:
    """Arrange tokens (frames, 1 + patches, K), whose maps are computed frame by frame, as (frames, K, 4, 4)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


# Scores


def top_logit(output: Any) -> Tensor:
    scores = output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else output.logits
    return scores[0].max()


def top_image_logit(output: Any) -> Tensor:
    return output.logits_per_image[0].max()


def next_token(output: Any) -> Tensor:
    return output.logits[0, -1].max()


def best_box(output: Any) -> Tensor:
    return output[0]["scores"].max()


def best_query(output: Any) -> Tensor:
    """The logit of the class and query that are most likely; the last class is "no object"."""
    likely = output.logits[0].softmax(1)[:, :-1]
    return output.logits[0][:, :-1].flatten()[likely.argmax()]


def largest_region(output: Any) -> Tensor:
    """The logits of the class that wins in most cells, summed over these cells."""
    scores = output[0] if isinstance(output, (list, tuple)) else output if isinstance(output, Tensor) else (
        output.logits if "logits" in output else output[0]
    )  # fmt: skip
    winners = scores[0].argmax(0)
    largest = winners.flatten().bincount().argmax()
    return scores[0, largest][winners == largest].sum()


def mean_depth(output: Any) -> Tensor:
    return output.predicted_depth.mean()


def mean_length(output: Any) -> Tensor:
    return output.logits[0].norm(dim=1).mean()


# Networks


def detector(
    function: Callable[..., nn.Module], side: int, gain: float = 1.0, **settings: Any
) -> Callable[[], tuple[nn.Module, Any]]:
    """`gain` multiplies the weights of convolutions: those of SSDlite are so small that its gradients vanish."""

    def make() -> tuple[nn.Module, Any]:
        net = function(weights=None, weights_backbone=None, num_classes=5, **settings)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data *= gain
        return net, torch.rand(1, 3, side, side)

    return make


def raft() -> tuple[nn.Module, Any]:
    return optical_flow.raft_small(weights=None), (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128))


def on_image(model: Callable[[Any], nn.Module], config: Any, *shape: int) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (model(config), torch.randn(1, *(shape or (3, 64, 64))))


def with_text(
    model: Callable[[Any], nn.Module], config: Any, ids: list[list[int]], **more: Any
) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        return model(config), {"pixel_values": torch.randn(1, 3, 64, 64), "input_ids": torch.tensor(ids), **more}

    return make


def blip() -> Any:
    text = {
        **SMALL,
        "vocab_size": 50,
        "encoder_hidden_size": 32,
        "bos_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    return tf.BlipConfig(text_config={**text, "sep_token_id": 2}, vision_config=PATCHES, projection_dim=16)


def clip() -> Any:
    text = {**SMALL, "vocab_size": 50, "max_position_embeddings": 10, "eos_token_id": 1, "bos_token_id": 0}
    return tf.CLIPConfig(text_config={**text, "pad_token_id": 2}, vision_config=PATCHES, projection_dim=16)


def llava() -> Any:
    text = tf.LlamaConfig(**SMALL, num_key_value_heads=2, vocab_size=60)
    vision = tf.CLIPVisionConfig(**PATCHES)
    return tf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=50, image_token_id=50, vision_feature_layer=-1
    )


def segformer() -> Any:
    return tf.SegformerConfig(
        num_labels=4, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
    )  # fmt: skip


def dpt() -> Any:
    settings = {**PATCHES, "num_hidden_layers": 4}
    return tf.DPTConfig(
        **settings,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        num_labels=4,
    )


def depth_anything() -> Any:
    backbone = tf.Dinov2Config(
        image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    return tf.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip


def detr() -> Any:
    backbone = tf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    return tf.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, num_queries=16, num_labels=4,
    )  # fmt: skip


def yolos() -> Any:
    return tf.YolosConfig(**{**PATCHES, "image_size": [64, 64]}, num_detection_tokens=16, num_labels=4)


def ast() -> Any:
    return tf.ASTConfig(
        **SMALL, num_mel_bins=64, max_length=128, patch_size=16, frequency_stride=10, time_stride=10, num_labels=4
    )


def sam() -> Any:
    return tf.SamVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, output_channels=16,
        mlp_dim=64, window_size=2, global_attn_indexes=[1],
    )  # fmt: skip


def swin() -> Any:
    return tf.Swinv2Config(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=4
    )


def mae() -> Any:
    return tf.ViTMAEConfig(
        **PATCHES, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )  # fmt: skip


def wav2vec2() -> Any:
    return tf.Wav2Vec2Config(
        **SMALL,
        num_labels=4,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        vocab_size=12,
    )


def perceiver() -> Any:
    return tf.PerceiverConfig(
        num_latents=16, d_latents=32, d_model=64, num_blocks=1, num_self_attends_per_block=1,
        num_self_attention_heads=2, num_cross_attention_heads=1, image_size=32, num_labels=4,
    )  # fmt: skip


def videomae() -> Any:
    return tf.VideoMAEConfig(**PATCHES, num_frames=8, tubelet_size=2, num_labels=4)


def vivit() -> Any:
    return tf.VivitConfig(**SMALL, image_size=64, num_frames=8, tubelet_size=[2, 16, 16], num_labels=4)


def timesformer() -> Any:
    return tf.TimesformerConfig(**PATCHES, num_frames=4, num_labels=4)


def vilt() -> Any:
    return tf.ViltConfig(**PATCHES, vocab_size=50, max_position_embeddings=10, num_labels=4)


IMAGE_WORDS = [[1, 3, *[50] * 16, 4, 5]]  # two words, the image, two words
LISTED = {
    "FCOS": Listed(
        detector(detection.fcos_resnet50_fpn, 128, min_size=128, max_size=128, score_thresh=0.0), best_box,
        "head.classification_head.conv.", as_it_is, "hirescam", (128, 128),
    ),
    "RetinaNet": Listed(
        detector(detection.retinanet_resnet50_fpn, 128, min_size=128, max_size=128, score_thresh=0.0), best_box,
        "head.classification_head.conv.", as_it_is, "hirescam", (128, 128),
    ),
    "SSD": Listed(
        detector(detection.ssd300_vgg16, 300, score_thresh=0.0), best_box, "backbone.", as_it_is, "hirescam", (300, 300)
    ),
    "SSDlite": Listed(
        detector(detection.ssdlite320_mobilenet_v3_large, 320, gain=4.0, score_thresh=0.0), best_box, "backbone.", as_it_is,
        "hirescam", (320, 320),
    ),
    "Faster R-CNN": Listed(
        detector(detection.fasterrcnn_mobilenet_v3_large_320_fpn, 128, min_size=128, max_size=128, box_score_thresh=0.0),
        best_box, "backbone.fpn.layer_blocks.", as_it_is, "hirescam", (128, 128),
    ),
    "RAFT": Listed(raft, largest_region, "update_block.flow_head.relu", as_it_is, "hirescam", (128, 128), torch.float32),
    "VideoMAE": Listed(
        on_image(tf.VideoMAEForVideoClassification, videomae(), 8, 3, 64, 64), top_logit, "videomae.encoder.layer.1",
        cells(4, 4, 4), size=(8, 64, 64),
    ),
    "ViViT": Listed(
        on_image(tf.VivitForVideoClassification, vivit(), 8, 3, 64, 64), top_logit, "vivit.layers.1.layernorm_before",
        cells(4, 4, 4, first=1), size=(8, 64, 64),
    ),
    "TimeSformer": Listed(
        on_image(tf.TimesformerForVideoClassification, timesformer(), 4, 3, 64, 64), top_logit,
        "timesformer.encoder.layer.1.layernorm_before", frames_of_tokens, size=(4, 64, 64),
    ),
    "AST": Listed(
        on_image(tf.ASTForAudioClassification, ast(), 128, 64), top_logit,
        "audio_spectrogram_transformer.layers.1.layernorm_before", cells(5, 12, first=2), size=(64, 128),
    ),
    "wav2vec 2.0": Listed(
        on_image(tf.Wav2Vec2ForSequenceClassification, wav2vec2(), 8000), top_logit, "wav2vec2.encoder.layers.1", cells(24),
        size=(8000,),
    ),
    "BLIP (captions)": Listed(
        with_text(tf.BlipForConditionalGeneration, blip(), [[0, 5, 7]]), next_token, "vision_model.post_layernorm#1",
        cells(4, 4, first=1),
    ),
    "BLIP (matching)": Listed(
        with_text(tf.BlipForImageTextRetrieval, blip(), [[0, 5, 7]]), lambda output: output.itm_score[0].max(),
        "vision_model.post_layernorm#1", cells(4, 4, first=1),
    ),
    "CLIP": Listed(
        with_text(tf.CLIPModel, clip(), [[0, 5, 7, 1], [0, 3, 4, 1]]), top_image_logit,
        "vision_model.encoder.layers.1.layer_norm1", cells(4, 4, first=1),
    ),
    "ViLT": Listed(
        with_text(tf.ViltForQuestionAnswering, vilt(), [[0, 5, 7]]), top_logit, "vilt.embeddings.patch_embeddings", as_it_is
    ),
    "LLaVA": Listed(
        with_text(tf.LlavaForConditionalGeneration, llava(), IMAGE_WORDS, attention_mask=torch.ones(1, 20, dtype=torch.long)),
        next_token, "model.language_model.layers.1.input_layernorm", cells(4, 4, first=2),
    ),
    "SegFormer": Listed(
        on_image(tf.SegformerForSemanticSegmentation, segformer()), largest_region, "decode_head.activation", as_it_is,
        "hirescam",
    ),
    "SegFormer (classes)": Listed(
        on_image(tf.SegformerForImageClassification, segformer()), top_logit, "segformer.stages.3", as_it_is
    ),
    "DPT (depth)": Listed(on_image(tf.DPTForDepthEstimation, dpt()), mean_depth, "head.head.1", as_it_is),
    "DPT (classes)": Listed(
        on_image(tf.DPTForSemanticSegmentation, dpt()), largest_region, "head.head.2", as_it_is, "hirescam"
    ),
    "Depth Anything": Listed(
        on_image(tf.DepthAnythingForDepthEstimation, depth_anything(), 3, 56, 56), mean_depth, "head.activation1", as_it_is,
        size=(56, 56),
    ),
    "DETR": Listed(
        on_image(tf.DetrForObjectDetection, detr(), 3, 128, 128), best_query, "model.input_projection", as_it_is,
        "hirescam", (128, 128),
    ),
    "YOLOS": Listed(
        on_image(tf.YolosForObjectDetection, yolos()), best_query, "vit.encoder.layer.1.layernorm_before",
        cells(4, 4, first=1), "hirescam",
    ),
    "Swin V2": Listed(on_image(tf.Swinv2ForImageClassification, swin()), top_logit, "swinv2.layernorm", cells(8, 8)),
    "SAM (encoder)": Listed(
        on_image(tf.SamVisionModel, sam()), largest_region, "vision_encoder.neck", as_it_is, "hirescam"
    ),
    "ViT-MAE": Listed(on_image(tf.ViTMAEForPreTraining, mae()), mean_length, "decoder", cells(4, 4)),
    "Perceiver": Listed(
        on_image(tf.PerceiverForImageClassificationConvProcessing, perceiver(), 3, 224, 224), top_logit, "perceiver.",
        cells(55, 55), size=(224, 224),
    ),
}  # fmt: skip
