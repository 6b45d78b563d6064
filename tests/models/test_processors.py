"""Image processors of transformers converted to `Preprocess`; the reference is their own result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

import seewhy
from seewhy.errors import UsageError
from seewhy.models.loading import load_model
from seewhy.models.sources.processor import preprocess_from_processor
from support.model_files import photo, tiny_vit

SHAPES = ((96, 160), (200, 100), (150, 150))


@pytest.mark.parametrize(
    "settings",
    [
        transformers.ViTImageProcessor(size={"height": 48, "width": 48}, resample=3),
        transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 56}, crop_pct=0.875),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
        transformers.SiglipImageProcessor(size={"height": 32, "width": 32}),
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5),
        transformers.MobileNetV2ImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48}),
        transformers.MobileViTImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 48, "width": 48}),
        transformers.MobileViTImageProcessor(size={"shortest_edge": 256}, do_flip_channel_order=False),
        transformers.LevitImageProcessor(size={"shortest_edge": 60}, crop_size={"height": 60, "width": 60}),
        transformers.EfficientNetImageProcessor(size={"height": 48, "width": 48}, image_std=[0.4, 0.5, 0.6]),
        transformers.EfficientNetImageProcessor(size={"height": 48, "width": 48}, include_top=False),
        transformers.EfficientNetImageProcessor(size={"height": 48, "width": 48}, do_normalize=False),
        transformers.EfficientNetImageProcessor(rescale_factor=1 / 127.5, rescale_offset=True),
    ],
    ids=lambda item: type(item).__name__,
)
def test_preprocess_equals_the_image_processor(settings: Any, tmp_path: Path) -> None:
    settings.save_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    preprocess, notes = preprocess_from_processor(processor)
    assert preprocess is not None and notes == []
    for shape in SHAPES:
        expected = processor(images=Image.fromarray(photo(*shape)), return_tensors="pt")["pixel_values"]
        inputs, _ = preprocess(photo(*shape))
        assert inputs.shape == expected.shape and torch.allclose(inputs, expected, atol=1e-5)


def test_perceiver_crops_before_it_resizes() -> None:
    processor = transformers.PerceiverImageProcessorPil()
    preprocess, notes = preprocess_from_processor(processor)
    assert (
        preprocess is not None
        and preprocess.size == (224, 224)
        and preprocess(photo(200, 400))[1].visible_box == (112, 12, 287, 187)
    )
    assert all("differs slightly from PerceiverImageProcessor" in note for note in notes) and len(notes) == 1
    expected = processor(images=Image.fromarray(photo(256, 512)), return_tensors="pt")["pixel_values"]
    assert torch.allclose(preprocess(photo(256, 512))[0], expected, atol=1e-5)  # no resize, so the order is irrelevant


def test_results_of_another_shape_are_noted() -> None:
    preprocess, (note,) = preprocess_from_processor(
        transformers.DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    )
    assert preprocess is not None and "squashed to 64x64; DetrImageProcessor itself keeps the aspect ratio" in note
    preprocess, (note,) = preprocess_from_processor(transformers.AriaImageProcessorPil())
    assert preprocess is not None and "AriaImageProcessor itself resizes a test image to 980x980" in note
    for processor, shape in (
        (transformers.VivitImageProcessor(), r"VivitImageProcessor converts an image to (1, 1, 3, 224, 224)"),
        (transformers.Siglip2ImageProcessorPil(), r"Siglip2ImageProcessor converts an image to (1, 256, 768)"),
    ):
        preprocess, (note,) = preprocess_from_processor(processor)
        assert preprocess is None and note.startswith("preprocessing: none, because") and shape in note


def test_video_model_has_no_preprocessing(tmp_path: Path) -> None:
    tiny_vit(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    transformers.VivitImageProcessor().save_pretrained(tmp_path)
    loaded = load_model(f"local-dir:{tmp_path}")
    assert loaded.preprocess is None and "pass tensors" in loaded.notes[0]
    with pytest.raises(UsageError, match="has no preprocessing for images"):
        seewhy.explain(loaded, photo())
