"""Small modules for tests of twins and layers, and comparison of a model's state before and after a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 5),
    )  # fmt: skip


def snapshot_model(model: nn.Module) -> dict[str, Any]:
    """Return every part of a model's state that a call could change."""
    modules = list(model.modules())
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "training": [module.training for module in modules],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in modules],
        "ids": [id(module) for module in modules] + [id(p) for p in model.parameters()],
    }


def is_same(one: Any, other: Any) -> bool:
    """Return True if two snapshots are equal."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


class Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.feed = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.mix(y, y, y, need_weights=False)[0]
        return x + self.feed(x).relu()
