"""Independent float64 references for methods of A and G, written from the papers as plain loops. Maps are signed.

How A and G are computed without hooks on a shared graph
--------------------------------------------------------
The references process one layer at a time. The network runs with the output of that layer replaced by a leaf tensor of
equal values (for a layer that is called more than once, one call: "name#1", "name#2"), and G is
`autograd.grad(score, leaf)`. So G is the gradient with respect to exactly the tensor that the layer returns, without
hooks of other layers and without a shared graph.

Why a clone, and not `inplace=False`
------------------------------------
An in-place operation may be part of the function: in `y = relu_(x); return conv(y) + x` the skip connection is the
rectified tensor, so an out-of-place ReLU computes another function. Therefore the network is not modified, and the
layer returns `leaf.clone()`. Autograd supports in-place operations on non-leaf tensors; the network may overwrite the
clone (modules, `out += identity` and `F.relu(x, inplace=True)`), but neither the recorded A nor the leaf.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


# --- the six formulas, one image: A and G are (channels, *grid), the map is (*grid) ------------------------------


def gradcam(a: Array, g: Array) -> Array:
    """Sum over k of mean(G_k) A_k."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        out += g[k].mean() * a[k]
    return out


def hirescam(a: Array, g: Array) -> Array:
    """Sum over k of G_k A_k."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        out += g[k] * a[k]
    return out


def layercam(a: Array, g: Array) -> Array:
    """Sum over k of relu(G_k) A_k."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        out += np.maximum(g[k], 0) * a[k]
    return out


def gradcam_plusplus(a: Array, g: Array) -> Array:
    """alpha = g^2 / (2 g^2 + S_k g^3), 0 where g is 0; w_k = sum of alpha relu(g); sum over k of w_k A_k."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total = a[k].sum()
        some = g[k][g[k] != 0]  # where g is 0, alpha is 0 and the cell adds nothing
        alpha = 1 / (2 + total * some)  # divided by g^2, which is 0 for a g below 1e-162
        out += (alpha * np.maximum(some, 0)).sum() * a[k]
    return out


def xgradcam(a: Array, g: Array) -> Array:
    """w_k = sum of G_k A_k over S_k, 0 where S_k is 0; sum over k of w_k A_k."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total = a[k].sum()
        weight = (g[k] * a[k]).sum() / total if total != 0 else 0.0
        out += weight * a[k]
    return out


def gradcam_elementwise(a: Array, g: Array) -> Array:
    """Sum over k of relu(G_k A_k)."""
    out = np.zeros(a.shape[1:])
    for k in range(len(a)):
        out += np.maximum(g[k] * a[k], 0)
    return out


FORMULAS: dict[str, Callable[[Array, Array], Array]] = {
    "gradcam": gradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam++": gradcam_plusplus,
    "xgradcam": xgradcam,
    "gradcamelementwise": gradcam_elementwise,
}
METHODS = tuple(FORMULAS)


# --- A and G of one layer ---------------------------------------------------------------------------------------------


def logits_of(output: Any) -> Tensor:
    """Return the class scores in an output: the tensor, the first entry of a tuple, or "logits" or "out" of a dict."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        return output["logits"] if "logits" in output else output["out"]
    return logits_of(output[0])


class ReferenceNetwork:
    """Activations and gradients of one network, one batch and one class per image, computed on a copy of the network."""

    def __init__(self, net: nn.Module, inputs: Tensor, classes: Tensor) -> None:
        self.net = copy.deepcopy(net).double().requires_grad_(False)
        self.inputs = inputs.detach().double()
        self.classes = classes
        self.convolutions = {n: m for n, m in self.net.named_modules() if isinstance(m, CONVOLUTIONS)}
        self.calls = self._record()
        self.names = self._name_calls()
        self.gradients: dict[str, Tensor] = {}

    def scores(self) -> Tensor:
        """Return the score of the class of each image, shape (B,)."""
        logits = logits_of(self.net(self.inputs))
        return logits[torch.arange(len(logits)), self.classes]

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all calls of convolutions with at least two cells along each axis, in order."""
        return tuple(name for name, (_, out) in zip(self.names, self.calls, strict=True) if min(out.shape[2:]) >= 2)

    def activation(self, name: str) -> Tensor:
        """Return A, the output (B, K, *grid) of a layer."""
        return self.calls[self.names.index(name)][1]

    def gradient(self, name: str) -> Tensor:
        """Return G, the gradient (B, K, *grid) of the score of each image with respect to its A."""
        if name not in self.gradients:
            leaf = self.activation(name).clone().requires_grad_()
            # In eval mode the score of an image depends only on that image, so the gradient of the sum is G of each image.
            (self.gradients[name],) = torch.autograd.grad(self.tail(name, leaf).sum(), leaf)
        return self.gradients[name]

    def maps(self, name: str) -> dict[str, Tensor]:
        """Return the signed maps (B, *grid) of each method at one layer."""
        pairs = list(zip(self.activation(name).numpy(), self.gradient(name).numpy(), strict=True))
        return {
            method: torch.from_numpy(np.stack([formula(a, g) for a, g in pairs]))
            for method, formula in FORMULAS.items()
        }

    def central_differences(self, name: str, cells: list[tuple[int, ...]], step: float = 1e-6) -> Tensor:
        """Return G at cells (b, k, *grid) from central differences, without autograd, to check `gradient`."""
        differences = []
        for cell in cells:
            ends = []
            for sign in (1, -1):
                moved = self.activation(name).clone()
                moved[cell] += sign * step
                with torch.no_grad():
                    ends.append(self.tail(name, moved)[cell[0]])
            differences.append((ends[0] - ends[1]) / (2 * step))
        return torch.stack(differences)

    def tail(self, name: str, value: Tensor) -> Tensor:
        """Return the scores (B,) with the output of a layer replaced by `value`.

        Earlier convolutions cannot depend on it, so they return their recorded outputs to save time.
        """
        place, count = self.names.index(name), 0

        def forward(module: nn.Module, layer: str, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal count
            count += 1
            if count - 1 > place:
                return type(module).forward(module, *args, **kwargs)
            assert self.calls[count - 1][0] == layer, (
                "the network calls its layers in another order than in the recorded pass"
            )
            # The network may overwrite the clone, but not the leaf or the record.
            return value.clone() if count - 1 == place else self.calls[count - 1][1].clone()

        with self._replaced_forward(forward):
            return self.scores()

    def _record(self) -> list[tuple[str, Tensor]]:
        """Return the name and output of each call of a convolution, cloned before in-place operations."""
        calls: list[tuple[str, Tensor]] = []

        def forward(module: nn.Module, name: str, *args: Any, **kwargs: Any) -> Tensor:
            out = type(module).forward(module, *args, **kwargs)
            calls.append((name, out.clone()))
            return out

        with torch.no_grad(), self._replaced_forward(forward):
            self.net(self.inputs)
        return calls

    def _name_calls(self) -> list[str]:
        """Return the name of each call: the layer name, followed by "#1", "#2" if the layer is called more than once."""
        called = [name for name, _ in self.calls]
        return [
            name if called.count(name) == 1 else f"{name}#{called[: place + 1].count(name)}"
            for place, name in enumerate(called)
        ]

    @contextmanager
    def _replaced_forward(self, forward: Callable[..., Tensor]) -> Iterator[None]:
        """Replace the forward of each convolution by `forward(module, name, ...)` within the context."""
        for name, module in self.convolutions.items():
            module.forward = partial(forward, module, name)  # on the instance, not on the class
        try:
            yield
        finally:
            for module in self.convolutions.values():
                del module.forward
