"""Write docs/models.md: what seewhy does with about 80 architectures with random weights.

    .venv/bin/python docs/make_models.py [--cache FILE] [PATTERN]

Takes about half an hour on two cores. The result of each network is added to the cache, so an interrupted run resumes.
PATTERN (a glob)
selects networks to run again.
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
from make_listed import with_table
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

from support import reference  # noqa: E402


def create(name: str) -> tuple[nn.Module, Tensor, list[str]]:
    """Return a network, an image of noise at three scales, and remarks about changes to the network."""
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
    remarks = []
    for layer, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.05)
            remarks.append(f"`{layer}` was all zeros and was initialized randomly")
    noise = [nn.functional.interpolate(torch.randn(1, 3, n, n), (side, side), mode="bicubic") for n in (4, 16, side)]
    return net.eval(), torch.stack(noise).mean(0), remarks


def study(name: str) -> dict[str, Any]:
    """Return the table row of one network and its further results."""
    net, image, remarks = create(name)
    with torch.no_grad():
        net(image)  # warm-up: the first forward pass of a process is slower
    start = time.perf_counter()
    hint = seewhy.suggest(net, image)
    result: dict[str, Any] = {"layer": hint.layer, "seconds": time.perf_counter() - start, "remarks": remarks}
    if hint.note:
        remarks.append(hint.note)
    with record_forward(net, image, RecordingRequest(frozenset({hint.layer.partition("#")[0]}))) as trace:
        call = next(call for call in trace.calls if call.name == hint.layer)
        assert call.grid is not None
        result["grid"], result["prefix"] = str(call.grid), call.grid.prefix
    reasons = try_together(net, image)  # method -> why it is not supported, or ""
    for method in f"{VARIANTS} {MASKS}".split():
        reasons[method] = attempt(net, image, method, None)
    for method in JOINING.split():
        why = attempt(net, image, method, "stages")
        reasons[method] = attempt(net, image, method, "every") if "layers" in why else why
    reasons |= try_per_channel(net, image, remarks)
    result["reasons"] = reasons
    if name.partition("/")[2] in SMALL.split():
        result["full"] = {}
        for method in IN_FULL.split():
            layers = "stages" if method == "polycam" else None
            start = time.perf_counter()
            result["full"][method] = attempt(net, image, method, layers), time.perf_counter() - start
    result["difference"] = compare(net, image)
    return result


def try_together(net: nn.Module, image: Tensor) -> dict[str, str]:
    """Run `attempt` for all methods that share a pass."""
    methods = f"{GRADIENT} {OTHERS}".split()
    try:
        e = seewhy.explain(net, image, methods="fast")
    except Exception:
        return {method: attempt(net, image, method, None) for method in methods}
    reasons = {}
    for method in methods:
        made = [value for (name, _, _), value in e.maps.items() if name.partition("#")[0] == method]
        why = [note.partition(": ")[2] for note in e.notes if note.startswith(f"{method} ")]
        reasons[method] = "" if made else why[0] if why else "failed: no map, and no reason"
        if not all(value.isfinite().all() for value in made):
            reasons[method] = "failed: a map is not finite"
    return reasons


def attempt(net: nn.Module, image: Tensor, method: str, layers: Any) -> str:
    """Return why a method has no map, or "". "failed: ..." is a bug; anything else is the reason in an error message."""
    try:
        e = seewhy.explain(net, image, methods=method, layers=layers)
    except seewhy.SeewhyError as error:
        return getattr(error, "reason", str(error)).strip()
    except Exception as error:
        return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    broken = [key for key, value in e.maps.items() if not value.isfinite().all()]
    return f"failed: {len(broken)} maps are not finite" if broken else ""


def try_per_channel(net: nn.Module, image: Tensor, remarks: list[str]) -> dict[str, str]:
    """Run `attempt` for methods with one forward pass per channel, at the layer with the fewest channels."""
    start = time.perf_counter()
    with torch.no_grad():
        net(image)
    pace = time.perf_counter() - start
    try:
        e = seewhy.explain(net, image, layers="every", methods="lafam")
    except LayerError:
        remarks.append(
            "`every` finds no layer with a grid, because its blocks return another tensor first; `suggested` and `all` find one"
        )
        e = seewhy.explain(net, image, layers="all", methods="lafam")
    info = {layer: info.channels for layer, info in e.layer_info.items() if info.channels > 1}
    layer = min(info, key=lambda name: info[name])
    if info[layer] * pace > SECONDS:
        return dict.fromkeys(CHANNELS.split(), f"not tried: {info[layer]} channels at least")
    return {method: attempt(net, image, method, layer) for method in CHANNELS.split()}


# Grad-CAM compared with the reference


class ReferenceAt(reference.ReferenceNetwork):
    """The reference at one module of any kind."""

    def __init__(self, net: nn.Module, inputs: Tensor, classes: Tensor, name: str) -> None:
        with without_convolutions(name):
            super().__init__(net, inputs, classes)
        self.convolutions = {name: self.net.get_submodule(name)}
        self.calls = self._record()
        self.names = self._name_calls()

    def map(self, call: LayerCall) -> tuple[Tensor, float]:
        """Return the map, and the largest value that it could have without cancellation."""
        assert call.grid is not None
        a, g = (call.grid.channels_first(x)[0] for x in (self.activation(call.name), self.gradient(call.name)))
        most = (g.abs().flatten(1).mean(1)[:, None] * a.abs().flatten(1)).sum(0).max()
        return torch.from_numpy(reference.gradcam(a.numpy(), g.numpy())), float(most)


@contextmanager
def without_convolutions(name: str) -> Iterator[None]:
    """Prevent the reference from recording convolutions, so that only the module called `name` is recorded."""
    before, reference.CONVOLUTIONS = reference.CONVOLUTIONS, ()
    try:
        yield
    finally:
        reference.CONVOLUTIONS = before


def compare(net: nn.Module, image: Tensor) -> dict[str, Any]:
    """The largest relative difference of Grad-CAM, in float64, at the suggested layer and up to three convolutions.

    On a smaller image where the network takes one: convolutions in float64 are slow.
    """
    small = nn.functional.interpolate(image, (SMALLER, SMALLER), mode="bicubic")
    try:
        hint, image = seewhy.suggest(net, small), small
    except Exception:
        hint = seewhy.suggest(net, image)
    net, image = net.double(), image.double()
    convs = [layer for layer, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    with record_forward(net, image, RecordingRequest(frozenset(convs))) as trace:
        convs = [call.module for call in trace.calls]  # skips heads that only run in training
    layers = [hint.layer, *dict.fromkeys([*convs[:1], *convs[len(convs) // 2 :][:1], *convs[-1:]])]
    with torch.no_grad():
        classes = reference.logits_of(net(image)).argmax(1)
    worst, compared, skipped = 0.0, [], []
    for layer in layers:
        module = layer.partition("#")[0]
        try:
            with record_forward(net, image, RecordingRequest(frozenset({module}))) as trace:
                call = trace.calls[-1]
            if call.grid is None or min(call.grid.shape) < 2 or not call.is_sole_output:
                continue
            e = seewhy.explain(net, image, layers=net.get_submodule(module), targets=int(classes))
            # Repeat the image: for a batch of one, PyTorch's gradients are wrong where tokens follow BatchNorm.
            twice = ReferenceAt(net, image.repeat(2, 1, 1, 1), classes.repeat(2), module)
            actual, (expected, most) = e.map(layer=e.layers[0])[0], twice.map(call)
        except Exception as error:
            skipped.append(f"{layer}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
            continue
        scale = float(expected.abs().max())
        if scale > ROUNDING * most:  # gradients cancel before a softmax, and the map is rounding error
            worst = max(worst, float((actual - expected).abs().max()) / scale)
            compared.append(call.name)
    return {"worst": worst, "layers": compared, "skipped": skipped}


def main(arguments: list[str]) -> None:
    """Run the networks that are not in the cache, and write the page."""
    cache = Path(tempfile.gettempdir()) / "seewhy_models.json"
    if arguments[:1] == ["--cache"]:
        cache, arguments = Path(arguments[1]), arguments[2:]
    results: dict[str, dict[str, Any]] = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    if arguments:
        results = {name: result for name, result in results.items() if not fnmatchcase(name, arguments[0])}
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    for number, name in enumerate(NAMES, 1):
        if name in results:
            continue
        start = time.perf_counter()
        results[name] = catch_errors(lambda name=name: study(name))
        gc.collect()
        partial = cache.with_suffix(".partial")
        partial.write_text(json.dumps(results), "utf-8")
        partial.replace(cache)
        print(
            f"{number}/{len(NAMES)} {name} {time.perf_counter() - start:.0f} s",
            results[name].get("error", ""),
            flush=True,
        )
    (HERE / "models.md").write_text(with_table(page(results)), "utf-8")


def catch_errors(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main(sys.argv[1:])
