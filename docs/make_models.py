"""Writes docs/models.md: some 80 architectures with random weights, and what seewhy does with each.

.venv/bin/python docs/make_models.py [--cache FILE] [PATTERN]

Takes about half an hour on two cores. Each network's result is added to the cache as it comes, so a run that is cut off goes on
where it was; PATTERN (a glob) runs anew what matches it.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from models_page import page
from models_tried import (
    CHANNELS,
    CLASSES,
    GRADIENT,
    IN_FULL,
    JOINING,
    LARGEST,
    MASKS,
    NAMES,
    OTHERS,
    ROUNDING,
    SECONDS,
    SMALL,
    SMALLER,
    VARIANTS,
)
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import LayerCall, RecordingRequest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import slow  # noqa: E402  (the reference of the tests)


def create(name: str) -> tuple[nn.Module, Tensor, list[str]]:
    """The network, a picture of noise with structure, and what had to be done to the network."""
    source, _, short = name.partition("/")
    torch.manual_seed(0)
    if source == "torchvision":
        extra = {"init_weights": True} if short in ("googlenet", "inception_v3") else {}
        net, side = torchvision.models.get_model(short, num_classes=CLASSES, **extra), 299 if "incep" in short else 224
    else:
        extra = {"img_size": 224} if "dinov2" in short else {}
        net = timm.create_model(short, pretrained=False, num_classes=CLASSES, **extra)
        side = 224 if extra else net.default_cfg["input_size"][-1]
    side = side if side <= LARGEST or "inception" in short else 224
    said = []
    for layer, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05)
            said.append(f"`{layer}` was all zeros and drawn anew")
    noise = [nn.functional.interpolate(torch.randn(1, 3, n, n), (side, side), mode="bicubic") for n in (4, 16, side)]
    return net.eval(), torch.stack(noise).mean(0), said


def study(name: str) -> dict[str, Any]:
    """Everything on one network that the table says."""
    net, picture, said = create(name)
    with torch.no_grad():
        net(picture)  # the first forward of a process is no measure
    begun = time.perf_counter()
    hint = seewhy.suggest(net, picture)
    found: dict[str, Any] = {"layer": hint.layer, "seconds": time.perf_counter() - begun, "said": said}
    if hint.note:
        said.append(hint.note)
    with record_forward(net, picture, RecordingRequest(frozenset({hint.layer.partition("#")[0]}))) as trace:
        call = next(call for call in trace.calls if call.name == hint.layer)
        assert call.grid is not None
        found["grid"], found["prefix"], found["layout"] = str(call.grid), call.grid.prefix, call.grid.layout
    fits = at_once(net, picture)  # method -> "" or why not
    for method in f"{VARIANTS} {MASKS}".split():
        fits[method] = attempt(net, picture, method, None)
    for method in JOINING.split():
        why = attempt(net, picture, method, "stages")
        fits[method] = attempt(net, picture, method, "every") if why.startswith("it joins layers") else why
    fits |= few_channels(net, picture, said)
    found["fits"] = fits
    if name.partition("/")[2] in SMALL.split():
        found["full"] = {}
        for method in IN_FULL.split():
            layers = "stages" if method == "polycam" else None
            begun = time.perf_counter()
            found["full"][method] = attempt(net, picture, method, layers), time.perf_counter() - begun
    found["difference"] = compare(net, picture)
    return found


def at_once(net: nn.Module, picture: Tensor) -> dict[str, str]:
    """`attempt` for all methods that share a pass."""
    methods = f"{GRADIENT} {OTHERS}".split()
    try:
        e = seewhy.explain(net, picture, methods="fast")
    except Exception:
        return {method: attempt(net, picture, method, None) for method in methods}
    fits = {}
    for method in methods:
        made = [value for (name, _, _), value in e.maps.items() if name.partition("#")[0] == method]
        why = [note.partition(": ")[2] for note in e.notes if note.startswith(f"{method} is left out")]
        fits[method] = "" if made else why[0] if why else "failed: no map, and no reason"
        if not all(value.isfinite().all() for value in made):
            fits[method] = "failed: a map is not finite"
    return fits


def attempt(net: nn.Module, picture: Tensor, method: str, layers: Any) -> str:
    """Why a method gives no map, or "". "failed: ..." is a failure, all else a reason that seewhy gives."""
    try:
        e = seewhy.explain(net, picture, methods=method, layers=layers)
    except seewhy.SeewhyError as error:
        return getattr(error, "reason", str(error)).strip()
    except Exception as error:
        return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    broken = [key for key, value in e.maps.items() if not value.isfinite().all()]
    return f"failed: {len(broken)} maps are not finite" if broken else ""


def few_channels(net: nn.Module, picture: Tensor, said: list[str]) -> dict[str, str]:
    """The methods with a forward for each channel, at the layer with the fewest of them."""
    begun = time.perf_counter()
    with torch.no_grad():
        net(picture)
    pace = time.perf_counter() - begun
    try:
        e = seewhy.explain(net, picture, layers="every", methods="lafam")
    except LayerError:
        said.append(
            "`every` finds no layer with a grid, as its blocks give something else first; `suggested` and `all` do"
        )
        e = seewhy.explain(net, picture, layers="all", methods="lafam")
    info = {layer: info.channels for layer, info in e.layer_info.items() if info.channels > 1}
    layer = min(info, key=lambda name: info[name])
    if info[layer] * pace > SECONDS:
        return dict.fromkeys(CHANNELS.split(), f"not tried: {info[layer]} channels at least")
    return {method: attempt(net, picture, method, layer) for method in CHANNELS.split()}


# Grad-CAM beside the reference


class At(slow.Slow):
    """The reference at any one module."""

    def __init__(self, net: nn.Module, inputs: Tensor, classes: Tensor, name: str) -> None:
        with only(name):
            super().__init__(net, inputs, classes)
        self.convolutions = {name: self.net.get_submodule(name)}
        self.calls = self._record()
        self.names = self._name_calls()

    def map(self, call: LayerCall) -> tuple[Tensor, float]:
        """The map, and how large it could be if nothing cancelled."""
        assert call.grid is not None
        a, g = (call.grid.channels_first(x)[0] for x in (self.activation(call.name), self.gradient(call.name)))
        most = (g.abs().flatten(1).mean(1)[:, None] * a.abs().flatten(1)).sum(0).max()
        return torch.from_numpy(slow.gradcam(a.numpy(), g.numpy())), float(most)


@contextmanager
def only(name: str) -> Iterator[None]:
    """Within, no convolution is recorded at first: the module called `name` is, later."""
    before, slow.CONVOLUTIONS = slow.CONVOLUTIONS, ()
    try:
        yield
    finally:
        slow.CONVOLUTIONS = before


def compare(net: nn.Module, picture: Tensor) -> dict[str, Any]:
    """The largest relative difference of Grad-CAM, in float64, at the suggested layer and up to three convolutions.

    On a smaller picture where the network takes one: convolutions in float64 are slow.
    """
    small = nn.functional.interpolate(picture, (SMALLER, SMALLER), mode="bicubic")
    try:
        hint, picture = seewhy.suggest(net, small), small
    except Exception:
        hint = seewhy.suggest(net, picture)
    net, picture = net.double(), picture.double()
    convs = [layer for layer, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    with record_forward(net, picture, RecordingRequest(frozenset(convs))) as trace:
        convs = [call.module for call in trace.calls]  # without the heads that only training calls
    layers = [hint.layer, *dict.fromkeys([*convs[:1], *convs[len(convs) // 2 :][:1], *convs[-1:]])]
    with torch.no_grad():
        classes = slow.logits_of(net(picture)).argmax(1)
    worst, compared, skipped = 0.0, [], []
    for layer in layers:
        module = layer.partition("#")[0]
        try:
            with record_forward(net, picture, RecordingRequest(frozenset({module}))) as trace:
                call = trace.calls[-1]
            if call.grid is None or min(call.grid.shape) < 2 or not call.is_sole_output:
                continue
            e = seewhy.explain(net, picture, layers=net.get_submodule(module), targets=int(classes))
            # Two pictures of a kind: for one, PyTorch's own gradients are wrong where tokens come after BatchNorm.
            twice = At(net, picture.repeat(2, 1, 1, 1), classes.repeat(2), module)
            ours, (theirs, most) = e.map(layer=e.layers[0])[0], twice.map(call)
        except Exception as error:
            skipped.append(f"{layer}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
            continue
        scale = float(theirs.abs().max())
        if scale > ROUNDING * most:  # before a softmax gradients cancel: there the map is rounding
            worst = max(worst, float((ours - theirs).abs().max()) / scale)
            compared.append(call.name)
    return {"worst": worst, "layers": compared, "skipped": skipped}


def main(arguments: list[str]) -> None:
    """Studies what the cache does not have, and writes the page."""
    cache = Path(tempfile.gettempdir()) / "seewhy_models.json"
    if arguments[:1] == ["--cache"]:
        cache, arguments = Path(arguments[1]), arguments[2:]
    results: dict[str, dict[str, Any]] = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    if arguments:
        results = {name: found for name, found in results.items() if not fnmatchcase(name, arguments[0])}
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    for number, name in enumerate(NAMES, 1):
        if name in results:
            continue
        begun = time.perf_counter()
        results[name] = guarded(lambda name=name: study(name))
        gc.collect()
        partial = cache.with_suffix(".partial")
        partial.write_text(json.dumps(results), "utf-8")
        partial.replace(cache)
        print(
            f"{number}/{len(NAMES)} {name} {time.perf_counter() - begun:.0f} s",
            results[name].get("error", ""),
            flush=True,
        )
    (HERE / "models.md").write_text(page(results), "utf-8")


def guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main(sys.argv[1:])
