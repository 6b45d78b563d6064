"""Grad-CAM against captum's LayerGradCam: every convolution with a grid, in float64, on eight networks of torchvision.

.venv-bench/bin/python benchmarks/captum_check.py        # exit code 1 if any difference exceeds 1e-9

correctness.py tests four networks in float32 with a tolerance of 0.001; in float64, only rounding errors remain.
captum stores the layer's output and passes on a clone, so in-place operations cannot change it. It is compared with the
ground truth of correctness.py as well; layers where it differs (captum 0.9.0: none) are listed and excluded.
"""

from __future__ import annotations

import sys

import torch
import torchvision
from torch import Tensor, nn

import contenders as run
from correctness import IMAGES, error, truth
from nets import calibrated, conv_names, images, top_classes
from results import markdown

LIMIT = 1e-9  # of the map's largest value, in float64
SIZE = 64
NAMES = [
    "vgg11", "squeezenet1_1", "resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "efficientnet_b0",
    "convnext_tiny",
]  # fmt: skip
HEADER = ["network", "conv layers", "seewhy / truth", "captum / truth", "seewhy / captum, where captum is right"]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return calibrated(torchvision.models.get_model(name, weights=None).eval(), SIZE).double()


def with_grid(net: nn.Module, inputs: Tensor) -> list[str]:
    """Return convolutions whose output has at least 2 cells per axis, which excludes squeeze-and-excitation."""
    sides: dict[str, int] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: sides.update({name: min(output.shape[2:])})
        )
        for name in conv_names(net)
    ]
    with torch.inference_mode():
        net(inputs)
    for handle in handles:
        handle.remove()
    return [name for name, side in sides.items() if side > 1]


def check(name: str) -> tuple[list[str], float, list[str]]:
    """Return a table row, the largest error of seewhy, and the layers where captum is inexact."""
    net, inputs = network(name), images(IMAGES, SIZE).double()
    layers, classes = with_grid(net, inputs), top_classes(net, inputs)
    true = truth(net, inputs, layers, classes)
    ours = run.seewhy_maps(net, inputs, layers)
    captum = run.captum_maps(net, inputs, layers, classes)
    errors = {layer: error(captum[layer], true[layer]) for layer in layers}
    inexact = [layer for layer, value in errors.items() if value > LIMIT]
    own = max(error(ours[layer], true[layer]) for layer in layers)
    both = max((error(ours[layer], captum[layer]) for layer in layers if layer not in inexact), default=0.0)
    return (
        [name, str(len(layers)), *(f"{value:.0e}" for value in (own, max(errors.values()), both))],
        max(own, both),
        inexact,
    )


def main() -> int:
    rows, worst = [], 0.0
    for name in NAMES:
        row, largest, inexact = check(name)
        rows.append(row)
        worst = max(worst, largest)
        print(*row, sep=" | ", file=sys.stderr, flush=True)
        for layer in inexact:
            kind = (
                "an operation in place after it" if follows_in_place(name, layer) else "no operation in place after it"
            )
            print(f"captum is inexact at {name}, {layer}: {kind}", file=sys.stderr)
    print(markdown(HEADER, rows))
    print(f"\nlargest relative difference of seewhy: {worst:.1e} (limit {LIMIT:g})")
    return int(worst > LIMIT)


def follows_in_place(name: str, layer: str) -> bool:
    """Return True if an operation overwrites the layer's output."""
    net, kept = network(name), list[tuple[Tensor, int]]()
    handle = net.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: kept.append((output, output._version))
    )
    with torch.no_grad():
        net(images(IMAGES, SIZE).double())
    handle.remove()
    return any(output._version != version for output, version in kept)


if __name__ == "__main__":
    sys.exit(main())
