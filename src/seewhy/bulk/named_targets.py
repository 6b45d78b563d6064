"""The targets of a bulk job, by the name in the `target` column."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seewhy.bulk.settings import LABEL, PREDICTED
from seewhy.targets import ClassScore, Target, TopScore, as_targets

NamedTargets = dict[str, Target | None]  # None: the class of each image's own label


def parse_targets(texts: Sequence[str]) -> NamedTargets:
    """Return the targets by name: "predicted" becomes top1; "top3" becomes top1, top2 and top3.

    >>> parse_targets(["predicted", "top2", "label", "espresso"])
    {'top1': TopScore(rank=1), 'top2': TopScore(rank=2), 'label': None, 'espresso': ClassScore(classes='espresso')}
    """
    targets: NamedTargets = {}
    for text in (text.strip() for text in texts):
        if text.lower() == LABEL:
            targets[LABEL] = None
            continue
        for target in as_targets(None if text.lower() == PREDICTED else text):
            name = f"top{target.rank}" if isinstance(target, TopScore) else text
            targets.setdefault(name, target)
    return targets


def targets_for_batch(targets: NamedTargets, label_classes: Sequence[int | None]) -> list[Target]:
    """Return the targets of a batch of images with these label classes."""
    return [ClassScore(torch.tensor(label_classes)) if target is None else target for target in targets.values()]
