"""A tiny network with dropout and BatchNorm, its data, and short training runs whose complete state is compared."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seewhy.integrations import LoggedImage

CLASSES = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(8 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        scores: Tensor = self.head(self.drop(x.flatten(1)))
        return scores


def make_net() -> Net:
    torch.manual_seed(0)
    return Net()


def bright_squares(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noise images (B, 3, 16, 16) with a bright square in one quadrant, and the quadrant of each as its class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 16, 16, generator=generator) / 2
    classes = torch.randint(0, CLASSES, (count,), generator=generator)
    for image, quadrant in zip(images, classes.tolist(), strict=True):
        top, left = 8 * (quadrant // 2) + 2, 8 * (quadrant % 2) + 2
        image[:, top : top + 4, left : left + 4] = 1
    return images, classes


class Memory:
    """A sink that keeps everything."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.logged: list[tuple[int, list[LoggedImage]]] = []
        self.fails_at, self.closed = fails_at, 0

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.logged]

    def log(self, images: Sequence[LoggedImage], step: int) -> None:
        if step == self.fails_at:
            raise OSError(28, "No space left on device")
        self.logged.append((step, list(images)))

    def close(self) -> None:
        self.closed += 1


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Return a copy of everything that decides how training continues."""
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "optimizer": None if optimizer is None else copy.deepcopy(optimizer.state_dict()),
        "torch": torch.get_rng_state(),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
        "gradients enabled": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def train(
    model: nn.Module,
    log: Callable[[int, nn.Module], object],
    *,
    steps: int = 6,
    first: int = 0,
    accumulate: int = 1,
    autocast: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Train with shuffled data and call `log(step, model)` after each optimizer step; return the final state."""
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 3e-3)
    data = torch.utils.data.TensorDataset(*bright_squares(64, 5))
    model.train()
    loader = iter(torch.utils.data.DataLoader(data, batch_size=8, shuffle=True))
    for step in range(first + 1, first + steps + 1):
        optimizer.zero_grad()
        for _ in range(accumulate):
            try:
                x, y = next(loader)
            except StopIteration:
                loader = iter(torch.utils.data.DataLoader(data, batch_size=8, shuffle=True))
                x, y = next(loader)
            x = x + 0.01 * float(np.random.rand()) + 0.01 * random.random()  # augmentation
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
        optimizer.step()
        log(step, model)
    return state_of(model, optimizer)


def same(one: Any, other: Any) -> bool:
    """Return True if two states are equal, bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def nothing(step: int, model: nn.Module) -> None:
    """Log nothing."""
