"""The cost of training maps: a scaled-down ResNet-50 loop with and without them, extrapolated to 8 images every 500 steps.

    .venv/bin/python benchmarks/training.py            # a few minutes; do not use the machine meanwhile
    .venv/bin/python benchmarks/training.py --smoke    # seconds: does it run? The numbers mean nothing

A step of a real training run takes longer than here, because its batches are larger. The cost of the maps does not depend on
the batch. So the share that is printed is an upper bound for real batches on the same device:

    cost per log / (500 x time per step)

Measured are: one training step of ResNet-50 (SGD with momentum) on a batch of 8 images; one log of 8 images (explanation,
drawing, files, animations of 60 frames, which is their maximum); and one call of `step` at which no maps are due.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from seewhy.integrations import TrainingMaps

IMAGES, EVERY, BATCH, AIM = 8, 500, 8, 0.01


def seconds(function: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measure(device: torch.device, rounds: int, size: int, frames: int, folder: str) -> None:
    """Measure in alternation, so that a busy moment affects all of them, and print medians."""
    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None).to(device)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    batch = torch.rand(BATCH, 3, size, size, device=device)
    classes = torch.randint(0, 1000, (BATCH,), device=device)
    images = torch.rand(IMAGES, 3, size, size)
    maps = TrainingMaps(images, classes=list(range(IMAGES)), every=EVERY, sinks=folder)

    def train() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.train()(batch), classes).backward()
        optimizer.step()

    for number in range(frames):  # the animations have their maximum length; the first log also finds the layer
        maps.step(number * EVERY, net)
        train()
    steps, logs, skips = [], [], []
    for number in range(frames, frames + rounds):
        steps.append(seconds(train, device))
        skips.append(seconds(lambda number=number: maps.step(number * EVERY - 1, net), device))  # type: ignore[misc]
        logs.append(seconds(lambda number=number: maps.step(number * EVERY, net), device))  # type: ignore[misc]
    step, log, skip = map(statistics.median, (steps, logs, skips))
    share = (log + (EVERY - 1) * skip) / (EVERY * step)
    print(f"{device}, {torch.get_num_threads()} threads, {size} pixels, batch {BATCH}, median of {rounds} rounds")
    print(f"training step          {1000 * step:10.1f} ms  ({1000 * min(steps):.1f} to {1000 * max(steps):.1f})")
    print(f"log of {IMAGES} images        {1000 * log:10.1f} ms  ({1000 * min(logs):.1f} to {1000 * max(logs):.1f})")
    print(f"step without a log     {1000 * skip:10.4f} ms")
    print(
        f"extrapolated: {IMAGES} images every {EVERY} steps cost {share:.3%} of the training time (aim: below {AIM:.0%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--smoke", action="store_true", help="one round with small images and few frames")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            measure(torch.device(options.device), 1, 64, 2, folder)
        else:
            measure(torch.device(options.device), options.rounds, options.size, 60, folder)


if __name__ == "__main__":
    main()
