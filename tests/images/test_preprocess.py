"""Preprocess: tensors equal to those of timm and torchvision, and a View that maps back to the photo."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config

from seewhy.errors import ImageError, UnknownName, UsageError
from seewhy.images.preprocess import Preprocess

# (height, width): landscape, portrait, square, odd, smaller than the crop, rounding at .5, a single pixel
SHAPES = [(300, 400), (401, 299), (224, 224), (257, 333), (20, 31), (33, 17), (256, 341), (1, 1)]

# center and squash crops, four values of crop_pct, three of mean, bilinear and bicubic; border crops are tested below
TIMM = [
    "resnet18.a1_in1k",
    "resnet18.tv_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_clip_224.openai",
    "efficientnet_lite0.ra_in1k",
    "convnext_tiny.in12k_ft_in1k_384",
    "beit_base_patch16_384.in22k_ft_in22k_in1k",
]
TORCHVISION = ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "vit_b_16", "swin_v2_t", "inception_v3"]


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def timm_config(name, **changes):
    return {**resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()), **changes}


def assert_equals_timm(config, photo, gray=False):
    image = Image.fromarray(photo).convert("L" if gray else "RGB")
    expected = create_transform(**config, is_training=False)(image)
    inputs, _ = Preprocess.from_timm(config)(photo)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous()
    assert torch.equal(inputs, expected[None])


@pytest.mark.parametrize("name", TIMM)
def test_tensor_equals_timm(name):
    for shape in SHAPES:
        assert_equals_timm(timm_config(name), noise(shape))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_tensor_equals_timm_for_all_crop_modes_and_sizes(mode):
    for part, size, shape in product([0.5, 0.875, 1.0, 1.25], [(64, 64), (48, 80), (81, 47)], SHAPES):
        if size[0] != size[1] and min(shape) == 1:
            continue  # timm fails: it resizes one side to 0 pixels
        config = timm_config(TIMM[0], crop_mode=mode, crop_pct=part, input_size=(3, *size))
        assert_equals_timm(config, noise(shape))


def test_all_models_of_timm_are_supported():
    """Fails if a new version of timm adds a crop mode or interpolation; users would get an UnknownName."""
    for name in timm.list_models(pretrained=True):
        config = timm_config(name)
        assert Preprocess.from_timm(config).size == config["input_size"][1:]


@pytest.mark.parametrize("name", TORCHVISION)
def test_tensor_equals_torchvision(name):
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    preprocess = Preprocess.from_torchvision(transforms)
    for shape in SHAPES:
        photo = noise(shape)
        inputs, _ = preprocess(photo)
        assert torch.equal(inputs, transforms(Image.fromarray(photo))[None])


def test_imagenet_equals_the_preset_of_torchvision():
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    assert Preprocess.imagenet() == Preprocess.from_torchvision(weights.transforms())


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_all_interpolations_of_timm(interpolation):
    assert_equals_timm(timm_config(TIMM[0], interpolation=interpolation), noise((300, 400)))


def test_grayscale_models():
    config = timm_config(TIMM[0], input_size=(1, 64, 64), mean=(0.5,), std=(0.25,))
    assert_equals_timm(config, noise((100, 130)), gray=True)
    preprocess = Preprocess.from_timm(config).with_fit("pad")
    inputs, _ = preprocess(noise((100, 130)))
    assert inputs.shape == (1, 1, 64, 64)
    assert preprocess.denormalize(inputs[0]).shape == (64, 64, 3)


def test_single_mean_is_repeated_for_all_channels():
    assert Preprocess.from_timm(timm_config(TIMM[0], mean=(0.5,), std=(0.5,))).mean == (0.5, 0.5, 0.5)


# --- the View


ALL_FITS = [
    *(Preprocess.imagenet(96).with_fit(fit) for fit in ("crop", "squash", "pad")),
    Preprocess((96, 96), (0.5,) * 3, (0.5,) * 3, "bilinear", 96),
    Preprocess((96, 96), (0.5,) * 3, (0.5,) * 3, "bilinear", 60),  # the crop reaches beyond the photo
    Preprocess((80, 120), (0.5,) * 3, (0.5,) * 3, "bilinear", (91, 137), "cover"),
    Preprocess((80, 120), (0.5,) * 3, (0.5,) * 3, "bilinear", (80, 120), "contain"),
    Preprocess((80, 120), (0.5,) * 3, (0.5,) * 3, "bilinear", (100, 130), "exact"),
    Preprocess((80, 120), (0.5,) * 3, (0.5,) * 3, "bilinear", 90).with_fit("pad"),
    Preprocess((80, 120), (0.5,) * 3, (0.5,) * 3, "bilinear", 90).with_fit("squash"),
]
PHOTOS = [(600, 800), (811, 607), (397, 1203), (90, 61)]


def to_photo(view, rows, columns):
    """Convert edges from input pixels to photo pixels."""
    left, top, right, bottom = view.box
    down, across = (bottom - top) / view.input_size[0], (right - left) / view.input_size[1]
    return top + np.asarray(rows) * down, left + np.asarray(columns) * across


def edges(profile):
    """Return where a profile that rises and falls crosses half its maximum, with subpixel precision."""
    half = profile.max() / 2
    above = np.flatnonzero(profile > half)
    first, last = above[0], above[-1]
    before, after = profile[first - 1], profile[last + 1]
    rise = first + 0.5 - (profile[first] - half) / (profile[first] - before)
    fall = last + 0.5 + (profile[last] - half) / (profile[last] - after)
    return np.array([rise, fall])


@pytest.mark.parametrize("preprocess", ALL_FITS, ids=lambda p: f"{p.fit}-{p.resize}-{p.rule}")
@pytest.mark.parametrize("shape", PHOTOS)
def test_view_locates_a_rectangle_in_the_photo(preprocess, shape):
    height, width = shape
    top, bottom, left, right = height * 2 // 5, height * 3 // 5, width * 3 // 7, width * 3 // 5
    photo = np.zeros((*shape, 3), np.uint8)
    photo[top:bottom, left:right] = 255
    inputs, view = preprocess(photo)
    assert view.photo_size == shape
    assert view.input_size == tuple(inputs.shape[2:]) == preprocess.size
    # Subtract the input without the rectangle, because the padding is not always black.
    background = preprocess(np.zeros_like(photo))[0]
    difference = (inputs - background)[0, 0].numpy()
    rows, columns = to_photo(view, edges(difference.max(1)), edges(difference.max(0)))
    # within one photo pixel, or one input pixel if the photo is enlarged
    tolerance = max(1, height / preprocess.size[0] * 0.2, width / preprocess.size[1] * 0.2)
    np.testing.assert_allclose(rows, [top, bottom], atol=tolerance)
    np.testing.assert_allclose(columns, [left, right], atol=tolerance)


@pytest.mark.parametrize("preprocess", ALL_FITS, ids=lambda p: f"{p.fit}-{p.resize}-{p.rule}")
@pytest.mark.parametrize("shape", PHOTOS)
def test_to_photo_inverts_the_preprocessing_of_a_ramp(preprocess, shape):
    """A linear ramp is unchanged by resizing, so mapping the input back must give the photo again."""
    height, width = shape
    rows, columns = np.mgrid[0:height, 0:width]
    photo = np.stack([rows * 255 / height, columns * 255 / width, rows * 0], axis=-1).round().astype(np.uint8)
    inputs, view = preprocess(photo)
    image = preprocess.denormalize(inputs[0]).astype(np.float32)
    left, top, right, bottom = view.visible_box
    inner = (slice(top + height // 20, bottom - height // 20), slice(left + width // 20, right - width // 20))
    for channel in (0, 1):
        mapped = view.to_photo(image[..., channel], shape)
        assert np.abs(mapped - photo[..., channel])[inner].max() < 2.5


def test_the_box_of_a_crop_is_exact():
    # 300 x 400 to 256 x 341, of which the crop takes rows 16 to 240 and columns round(58.5) = 58 to 282
    _, view = Preprocess.imagenet(224)(noise((300, 400)))
    assert view.box == pytest.approx((58 * 400 / 341, 16 * 300 / 256, 282 * 400 / 341, 240 * 300 / 256), abs=1e-9)


def test_squash_and_pad_show_the_full_photo():
    for shape in [*PHOTOS, (1, 400), (400, 1)]:
        for fit in ("squash", "pad"):
            _, view = Preprocess.imagenet(96).with_fit(fit)(noise(shape))
            assert view.visible_box == (0, 0, shape[1], shape[0])
        _, view = Preprocess.imagenet(96).with_fit("squash")(noise(shape))
        assert view.box == (0, 0, shape[1], shape[0])


def test_padding_is_zero_in_the_input():
    inputs, view = Preprocess.imagenet(96).with_fit("pad")(np.full((50, 100, 3), 255, np.uint8))
    assert view.box == (0, -25, 100, 75)
    assert (inputs[:, :, :24] == 0).all()
    assert (inputs[:, :, 24:72] > 1).all()
    assert (inputs[:, :, 72:] == 0).all()


def test_denormalize_inverts_normalize():
    photo = noise((224, 224))
    for preprocess in (Preprocess.imagenet(), Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", 224)):
        same = Preprocess(preprocess.size, preprocess.mean, preprocess.std, "bicubic", 224)
        inputs, _ = same(photo)
        np.testing.assert_array_equal(same.denormalize(inputs[0].requires_grad_()), photo)


# --- errors and serialization


def test_invalid_settings_are_rejected():
    with pytest.raises(UnknownName, match="'bicubic'"):
        Preprocess((9, 9), (0.5,), (0.5,), "bicubical", 9)
    with pytest.raises(UnknownName, match="'squash'"):
        Preprocess.imagenet().with_fit("squashed")
    with pytest.raises(UnknownName, match="no rule"):
        Preprocess((9, 9), (0.5,), (0.5,), "box", (9, 9), "covers")
    with pytest.raises(UnknownName, match="'border'"):
        Preprocess.from_timm(timm_config(TIMM[0], crop_mode="borders"))
    with pytest.raises(UsageError, match="mean or std has 3 numbers for 1 channels"):
        Preprocess.from_timm(timm_config(TIMM[0], input_size=(1, 64, 64)))
    for size, mean, std, resize in [
        ((9, 9), (0.5, 0.5), (0.5, 0.5), 9),
        ((9, 9), (0.5,), (0.0,), 9),
        ((9, 9), (0.5,), (0.5,) * 3, 9),
        ((0, 9), (0.5,), (0.5,), 9),
        ((9, 9), (0.5,), (0.5,), (9, 0)),
    ]:
        with pytest.raises(UsageError):
            Preprocess(size, mean, std, "box", resize)


def test_presets_of_other_tasks_are_rejected():
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    for weights in (FasterRCNN_ResNet50_FPN_Weights, FCN_ResNet50_Weights):
        with pytest.raises(UsageError, match="classification"):
            Preprocess.from_torchvision(weights.DEFAULT.transforms())


@pytest.mark.parametrize("array", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)])
def test_arrays_of_other_shapes_and_types_are_rejected(array):
    with pytest.raises(UsageError, match="load_image"):
        Preprocess.imagenet()(array)


def test_thin_images_are_rejected_by_fit_crop_only():
    thin = noise((1, 9000))
    with pytest.raises(ImageError, match="too thin"):
        Preprocess.imagenet()(thin)
    assert Preprocess.imagenet().with_fit("pad")(thin)[0].shape == (1, 3, 224, 224)


def test_to_dict_is_json_and_restores_the_preprocess():
    for preprocess in ALL_FITS:
        record = json.loads(json.dumps(preprocess.to_dict()))
        assert record == preprocess.to_dict()
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        assert Preprocess(**fields) == preprocess


def test_to_photo_ignores_autocast():
    """A callback may draw overlays inside the training loop."""
    _, view = Preprocess.imagenet(8)(np.zeros((16, 16, 3), np.uint8))
    grid = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    expected = view.to_photo(grid, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(view.to_photo(grid, (16, 16)), expected)


def test_an_image_that_is_no_array_is_an_error():
    for image in ("photo.jpg", Image.new("RGB", (8, 8))):
        with pytest.raises(UsageError, match=r"pass the array that seewhy\.load_image returns"):
            Preprocess.imagenet(8)(image)
