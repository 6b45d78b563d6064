"""The labels of ImageNet, from the data files of timm."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

SYNSETS = "imagenet_synsets.txt"  # the WordNet id of each class, such as n01440764
LEMMAS = "imagenet_synset_to_lemma.txt"  # lines "id TAB words" for all of WordNet


@functools.cache
def imagenet_labels(num_classes: int) -> tuple[str, ...] | None:
    """Return the labels of the ImageNet variant with this number of classes, or None if there is none.

    >>> imagenet_labels(1000)[0], imagenet_labels(7)
    ('tench, Tinca tinca', None)
    """
    if num_classes == 1000 and (labels := read_imagenet_1k()) is not None:
        return labels
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes})
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else None


def read_imagenet_1k() -> tuple[str, ...] | None:
    """Read the labels from the files of timm without importing it, which takes 2 s; None if the files have moved."""
    spec = find_spec("timm")  # of a package, not of a module in it, which would import the package
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "data" / "_info"
    try:
        synsets = (folder / SYNSETS).read_text("utf-8").split()
        lemmas = dict(line.split("\t") for line in (folder / LEMMAS).read_text("utf-8").splitlines())
        labels = tuple(lemmas[synset] for synset in synsets)
    except (OSError, ValueError, KeyError):
        return None
    return labels if len(labels) == 1000 else None
