"""Draw the figures of docs/other_dimensions.md: an early heartbeat in a signal, and two blobs in a volume.

    .venv/bin/python docs/make_dimensions.py [FOLDER]

Data and networks are synthetic. The weights are set by hand, so the correct result is known without training.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import seewhy

BEATS, EARLY = (90, 270, 450, 555, 810, 990), 555  # samples of the beats; the early one is broad and inverted
BRIGHT, DARK = (9, 20, 22), (30, 44, 40)  # centers of the blobs (slice, row, column)


def bump(length: int, center: float, width: float) -> Tensor:
    return torch.exp(-(((torch.arange(length) - center) / width) ** 2))


def ecg(length: int = 1080) -> Tensor:
    """Return a signal (1, 2, length) of two leads similar to an ECG: P, QRS and T waves, and one ventricular beat."""
    lead = torch.zeros(length)
    for beat in BEATS:
        if beat == EARLY:
            lead += 1.3 * bump(length, beat, 16) - 0.75 * bump(length, beat + 42, 24)
            continue
        lead += 0.12 * bump(length, beat - 38, 9) + 0.28 * bump(length, beat + 58, 18)
        lead += bump(length, beat, 4) - 0.14 * bump(length, beat - 9, 3.5) - 0.25 * bump(length, beat + 9, 4)
    noise = 0.012 * torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    return (torch.stack([lead, 0.6 * lead.roll(2) + 0.15 * lead.roll(-9)]) + noise)[None]


def ecg_net() -> nn.Module:
    """Return a classifier for normal and ventricular beats: one filter per kind of beat, and their maxima compared."""
    size = 97
    broad = 1.3 * bump(size, 48, 16) - 0.75 * bump(size, 90, 24)
    sharp = bump(size, 48, 4) - 0.25 * bump(size, 57, 4)
    filters = torch.stack([sharp - sharp.mean(), broad - broad.mean()])
    conv = nn.Conv1d(2, 2, size, stride=4, padding=size // 2)
    conv.weight.data = torch.stack([filters, 0.5 * filters], 1) / filters.square().sum(1)[:, None, None]
    conv.bias.data = torch.tensor([-0.45, -0.55])
    head = nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.tensor([[4.0, -4.0], [-4.0, 40.0]]), torch.zeros(2)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), head).eval()


def volume() -> Tensor:
    """Return a volume (1, 1, 40, 64, 64): an ellipsoid with soft tissue, a bright blob and a dark one."""
    depth, rows, columns = torch.meshgrid(*(torch.arange(size) for size in (40, 64, 64)), indexing="ij")

    def ball(center: tuple[int, ...], radii: tuple[float, ...]) -> Tensor:
        parts = zip((depth, rows, columns), center, radii, strict=True)
        return sum(((axis - at) / radius) ** 2 for axis, at, radius in parts).sqrt()

    body = torch.sigmoid(15 * (1 - ball((20, 32, 32), (19.0, 28.0, 24.0))))
    coarse = torch.randn(1, 1, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    tissue = nn.functional.interpolate(coarse, (40, 64, 64), mode="trilinear")[0, 0]
    blobs = 0.5 * torch.exp(-(ball(BRIGHT, (4.0, 5.0, 5.0)) ** 2)) - 0.5 * torch.exp(
        -(ball(DARK, (3.0, 5.0, 5.0)) ** 2)
    )
    return (body * (0.5 + 0.05 * tissue) + blobs)[None, None]


def volume_net() -> nn.Module:
    """Return a classifier for bright and dark blobs: one filter each, on a smoothed volume."""
    smooth = nn.Conv3d(1, 1, 5, padding=2)
    smooth.weight.data.fill_(1 / 125)
    smooth.bias.data.zero_()
    find = nn.Conv3d(1, 2, 9, stride=2, padding=4, padding_mode="replicate")
    steps = torch.meshgrid(*[torch.arange(-4, 5)] * 3, indexing="ij")
    ball = torch.exp(-(sum(step**2 for step in steps) / 9.0))
    ring = ball - ball.mean()
    find.weight.data = torch.stack([ring, -ring])[:, None] / ring.square().sum()
    find.bias.data = torch.tensor([-0.2, -0.2])
    head = nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.tensor([[90.0, -9.0], [-9.0, 90.0]]), torch.zeros(2)
    return nn.Sequential(smooth, find, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), head).eval()


def draw(folder: Path) -> None:
    """Draw both figures as JPEG files."""
    beat = seewhy.explain(ecg_net(), ecg(), layers="1", targets="ventricular", labels=["normal", "ventricular"])
    beat.overlay().save(folder / "signal.jpg", quality=88)
    blob = seewhy.explain(volume_net(), volume(), layers="2", targets="bright", labels=["bright", "dark"])
    blob.overlay(longest=880).save(folder / "volume.jpg", quality=85)
    print(beat.box(), blob.box())


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
