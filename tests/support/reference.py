"""A slow, independent reference for six methods: plain loops from the papers, float64, signed maps before any ReLU.

How A and G are had without hooks on a shared graph
---------------------------------------------------
One layer at a time. The net is run with that layer answering not with its own output but with a leaf tensor that
equals it (of a layer called more than once that one call: "name#1", "name#2"), and G is `autograd.grad(score, leaf)`.
So G is the derivative of the score as a function of exactly what the layer returns: no second layer's hook, no
shared graph, no gradient passing through anything else.

Why a clone, and not `inplace=False`
------------------------------------
An in-place operation may be part of what a net computes: in `y = relu_(x); return conv(y) + x` the skip is the
rectified tensor, and making the ReLU out-of-place gives another function. So the net is left as it is, and the layer
returns `leaf.clone()`. Autograd defines in-place operations on a non-leaf exactly, the caller's tensor has the
layer's value and may be overwritten as before (modules, `out += identity` and `F.relu(x, inplace=True)` alike), and
neither the recorded A nor the leaf can be: nothing else holds them.
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


# --- the six formulas, one image: A and G are (channels, *grid), the answer is (*grid) ------------------------------


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
        alpha = some**2 / (2 * some**2 + total * some**3)
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
    """The class scores in what a net answers: the tensor, a tuple's first entry, or a dict's "logits" or "out"."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        return output["logits"] if "logits" in output else output["out"]
    return logits_of(output[0])


class Slow:
    """The reference for one net, one batch and one class per image; the net itself is never touched."""

    def __init__(self, net: nn.Module, inputs: Tensor, classes: Tensor) -> None:
        self.net = copy.deepcopy(net).double().requires_grad_(False)
        self.inputs = inputs.detach().double()
        self.classes = classes
        self.convolutions = {n: m for n, m in self.net.named_modules() if isinstance(m, CONVOLUTIONS)}
        self.calls = self._record()
        self.names = self._name_calls()
        self.gradients: dict[str, Tensor] = {}

    def scores(self) -> Tensor:
        """The score of each image's class, shape (B,)."""
        logits = logits_of(self.net(self.inputs))
        return logits[torch.arange(len(logits)), self.classes]

    @property
    def layers(self) -> tuple[str, ...]:
        """Every call of a convolution with a grid of at least two cells along each axis, in order."""
        return tuple(name for name, (_, out) in zip(self.names, self.calls, strict=True) if min(out.shape[2:]) >= 2)

    def activation(self, name: str) -> Tensor:
        """A: what a layer returns, (B, K, *grid)."""
        return self.calls[self.names.index(name)][1]

    def gradient(self, name: str) -> Tensor:
        """G: the derivative of each image's score by that image's A, (B, K, *grid)."""
        if name not in self.gradients:
            leaf = self.activation(name).clone().requires_grad_()
            # In eval mode a image's score depends on that image alone, so the sum gives each image its own G.
            (self.gradients[name],) = torch.autograd.grad(self.tail(name, leaf).sum(), leaf)
        return self.gradients[name]

    def maps(self, name: str) -> dict[str, Tensor]:
        """The signed map (B, *grid) of each method at one layer."""
        pairs = list(zip(self.activation(name).numpy(), self.gradient(name).numpy(), strict=True))
        return {
            method: torch.from_numpy(np.stack([formula(a, g) for a, g in pairs]))
            for method, formula in FORMULAS.items()
        }

    def slopes(self, name: str, cells: list[tuple[int, ...]], step: float = 1e-6) -> Tensor:
        """G at some cells (b, k, *grid) by central differences: no autograd at all. The check of this reference."""
        found = []
        for cell in cells:
            ends = []
            for sign in (1, -1):
                moved = self.activation(name).clone()
                moved[cell] += sign * step
                with torch.no_grad():
                    ends.append(self.tail(name, moved)[cell[0]])
            found.append((ends[0] - ends[1]) / (2 * step))
        return torch.stack(found)

    def tail(self, name: str, value: Tensor) -> Tensor:
        """The scores (B,) when a layer returns `value` in place of its own output.

        Convolutions called before it cannot depend on it: they hand on what they did when recorded, to save time.
        """
        place, count = self.names.index(name), 0

        def answer(module: nn.Module, layer: str, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal count
            count += 1
            if count - 1 > place:
                return type(module).forward(module, *args, **kwargs)
            assert self.calls[count - 1][0] == layer, "the net calls its layers in another order than when recorded"
            # The rest of the net may overwrite the clone: never the leaf, never the record.
            return value.clone() if count - 1 == place else self.calls[count - 1][1].clone()

        with self._answering(answer):
            return self.scores()

    def _record(self) -> list[tuple[str, Tensor]]:
        """Each call of each convolution in one run: its name and output, cloned before anything can overwrite it."""
        calls: list[tuple[str, Tensor]] = []

        def answer(module: nn.Module, name: str, *args: Any, **kwargs: Any) -> Tensor:
            out = type(module).forward(module, *args, **kwargs)
            calls.append((name, out.clone()))
            return out

        with torch.no_grad(), self._answering(answer):
            self.net(self.inputs)
        return calls

    def _name_calls(self) -> list[str]:
        """A name for each call: the layer's, and "#1", "#2" after it where the layer is called more than once."""
        called = [name for name, _ in self.calls]
        return [
            name if called.count(name) == 1 else f"{name}#{called[: place + 1].count(name)}"
            for place, name in enumerate(called)
        ]

    @contextmanager
    def _answering(self, answer: Callable[..., Tensor]) -> Iterator[None]:
        """Within, each convolution runs `answer(module, name, ...)`, and stays where it is with its name and weight."""
        for name, module in self.convolutions.items():
            module.forward = partial(answer, module, name)  # of this instance: its class is not touched
        try:
            yield
        finally:
            for module in self.convolutions.values():
                del module.forward
