"""What a model says about its own patches: timm, transformers and open_clip each in their way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from seewhy.tracing.grid import GridHint


def token_grid_hint(modules: Iterable[nn.Module], size: Sequence[int]) -> GridHint | None:
    """The grid of tokens for inputs of `size` (height, width) as the outermost of `modules` that knows says, or None.

    >>> import timm
    >>> token_grid_hint([timm.create_model("test_vit")], (160, 160))
    Hint(shape=(10, 10), prefix=1, source="as timm's num_prefix_tokens and patch size say")
    """
    if len(size) != 2:
        return None
    for module in modules:
        for library in (hint_from_timm, hint_from_open_clip, hint_from_transformers):
            if (found := library(module, size)) is not None and min(found.shape) >= 1:
                return found
    return None


def hint_from_timm(module: Any, size: Sequence[int]) -> GridHint | None:
    prefix = getattr(module, "num_prefix_tokens", None)
    patches = getattr(module, "patch_embed", None) or getattr(module, "embeds", None)
    if not isinstance(prefix, int) or patches is None:
        return None
    padded = bool(getattr(patches, "dynamic_img_pad", False))
    shape = divided(size, getattr(patches, "patch_size", None), padded)
    if shape is None or getattr(patches, "backbone", None) is not None:  # a hybrid's patches are of its feature map
        return None
    return GridHint(shape, prefix, "as timm's num_prefix_tokens and patch size say")


def hint_from_open_clip(module: Any, size: Sequence[int]) -> GridHint | None:
    if not isinstance(getattr(module, "grid_size", None), tuple) or not hasattr(module, "class_embedding"):
        return None
    shape = divided(size, getattr(module, "patch_size", None))
    return None if shape is None else GridHint(shape, 1, "as open_clip's grid_size and class token say")


def hint_from_transformers(module: Any, size: Sequence[int]) -> GridHint | None:
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "model_type") or not hasattr(config, "image_size"):
        return None
    shape = divided(size, getattr(config, "patch_size", None))
    return None if shape is None else GridHint(shape, None, "as the patch size in the transformers config says")


def divided(size: Sequence[int], patch: Any, padded: bool = False) -> tuple[int, ...] | None:
    """How many patches fit the input along each axis; None where the patch size is no size."""
    patch = (patch, patch) if isinstance(patch, int) else patch
    if not isinstance(patch, (tuple, list)) or len(patch) != 2 or not all(isinstance(p, int) and p > 0 for p in patch):
        return None
    pairs = zip(size, patch, strict=True)
    return tuple(-(-length // side) if padded else length // side for length, side in pairs)
