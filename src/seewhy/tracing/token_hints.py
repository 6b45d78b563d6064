"""Read the token grid from a model's attributes; timm, open_clip and transformers store it differently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from seewhy.tracing.grid import GridHint


def token_grid_hint(modules: Iterable[nn.Module], size: Sequence[int]) -> GridHint | None:
    """Return the token grid for inputs of `size` (height, width), or None if no module states it.

    The first of `modules` with a hint decides, so pass the outermost module first.

    >>> import timm
    >>> token_grid_hint([timm.create_model("test_vit")], (160, 160))
    GridHint(shape=(10, 10), prefix=1, source="from timm's num_prefix_tokens and patch size")
    """
    if len(size) != 2:
        return None
    for module in modules:
        for library_hint in (hint_from_timm, hint_from_open_clip, hint_from_transformers):
            if (hint := library_hint(module, size)) is not None and min(hint.shape) >= 1:
                return hint
    return None


def hint_from_timm(module: Any, size: Sequence[int]) -> GridHint | None:
    prefix = getattr(module, "num_prefix_tokens", None)
    patches = getattr(module, "patch_embed", None) or getattr(module, "embeds", None)
    if not isinstance(prefix, int) or patches is None:
        return None
    is_padded = bool(getattr(patches, "dynamic_img_pad", False))
    shape = patch_grid(size, getattr(patches, "patch_size", None), is_padded)
    is_hybrid = getattr(patches, "backbone", None) is not None  # its patches are of a feature map, not of the input
    if shape is None or is_hybrid:
        return None
    return GridHint(shape, prefix, "from timm's num_prefix_tokens and patch size")


def hint_from_open_clip(module: Any, size: Sequence[int]) -> GridHint | None:
    if not isinstance(getattr(module, "grid_size", None), tuple) or not hasattr(module, "class_embedding"):
        return None
    shape = patch_grid(size, getattr(module, "patch_size", None))
    return None if shape is None else GridHint(shape, 1, "from open_clip's grid_size and class token")


def hint_from_transformers(module: Any, size: Sequence[int]) -> GridHint | None:
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "model_type") or not hasattr(config, "image_size"):
        return None
    shape = patch_grid(size, getattr(config, "patch_size", None))
    return None if shape is None else GridHint(shape, None, "from the patch size in the transformers config")


def patch_grid(size: Sequence[int], patch: Any, is_padded: bool = False) -> tuple[int, ...] | None:
    """Return the number of patches along each axis, rounded up if the input is padded; None if `patch` is not a patch size."""
    patch = (patch, patch) if isinstance(patch, int) else patch
    if not isinstance(patch, (tuple, list)) or len(patch) != 2 or not all(isinstance(p, int) and p > 0 for p in patch):
        return None
    pairs = zip(size, patch, strict=True)
    return tuple(-(-length // side) if is_padded else length // side for length, side in pairs)
