"""Run tutorials of pytorch-grad-cam, torchcam and captum twice, with only the import changed, and compare the results.

    .venv-bench/bin/python benchmarks/migration.py

The tutorials are in tests/compat/tutorials. The results of the real packages are saved for tests/compat/test_tutorials.py; the
comparison, that of every method, and the cost of a call are written to benchmarks/MIGRATION.md.
"""

# ruff: noqa: E402  # tests/ must be on the path before its helpers are imported
from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from torch import Tensor, nn

from results import cores, processor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import seewhy
import seewhy.compat.captum.attr
import seewhy.compat.pytorch_grad_cam
import seewhy.compat.torchcam.methods
from seewhy.compat import differences
from seewhy.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget
from support.tutorials import (
    DIFFERS,
    NOISY,
    PEER_RESULTS,
    TUTORIALS,
    difference,
    packages_of,
    run_tutorial,
    sample_values,
)

PAGE = ROOT / "benchmarks" / "MIGRATION.md"
SAME = 1e-4
CLASSES = [3, 5, 7]
GRAD_CAM = (
    *(
        "GradCAM",
        "HiResCAM",
        "GradCAMElementWise",
        "LayerCAM",
        "XGradCAM",
        "GradCAMPlusPlus",
        "EigenCAM",
        "EigenGradCAM",
    ),
    *("SegEigenCAM", "KPCA_CAM", "FEM", "ScoreCAM", "AblationCAM", "ShapleyCAM", "FinerCAM", "RefineCAM", "FullGrad"),
)
TORCHCAM = (
    *("GradCAM", "LayerCAM", "XGradCAM", "CAM", "ScoreCAM", "GradCAMpp", "SmoothGradCAMpp", "SSCAM", "ISCAM"),
    *("FinerCAM", "RefineCAM"),
)
CAPTUM = ["LayerGradCam", "LayerGradientXActivation", "LayerActivation", "GuidedGradCam", "GuidedBackprop"]


def network() -> nn.Module:
    """Return a ResNet-18 with random weights, whose BatchNorm scales and shifts are not 1 and 0."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=50)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.3, 1)
    return model.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress progress bars and warnings of the packages."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def compare_tutorials() -> list[str]:
    """Run all tutorials, save the results of the packages, and return the rows of a table."""
    rows, saved = [], {}
    for name in TUTORIALS:
        with quiet():
            peers, ours = run_tutorial(name, compat=False), run_tutorial(name, compat=True)
        sizes = {key: difference(ours[key], peers[key]) for key in peers}
        exact = {key: value for key, value in sizes.items() if not key.startswith((NOISY, DIFFERS))}
        noisy = {key: value for key, value in sizes.items() if key.startswith(NOISY)}
        worst = max(exact, key=lambda key: exact[key])
        text = f"{exact[worst]:.0e} ({worst})"
        if noisy:
            text += f"; with random numbers: {max(noisy.values()):.0e}"
        names = ", ".join(f"`{one.rpartition('.')[2]}`" for one in packages_of(name))
        package = packages_of(name)[0].partition(".")[0]
        text += "".join(f"; {key}" for key in sizes if key.startswith(DIFFERS))
        rows.append(f"| [{name}](../tests/compat/tutorials/{name}.py) | {package} | {names} | {len(peers)} | {text} |")
        saved.update({f"{name}|{key}": sample_values(value) for key, value in peers.items()})
    np.savez_compressed(PEER_RESULTS, **saved)  # type: ignore[arg-type]
    return rows


def grad_cam_map(package: Any, name: str, model: nn.Module, layers: list[nn.Module], inputs: Tensor) -> Any:
    target = ClassifierOutputReST if name == "ShapleyCAM" else ClassifierOutputTarget
    targets = None if name == "FinerCAM" else [target(one) for one in CLASSES]
    return getattr(package, name)(model, layers)(inputs, targets)


def torchcam_map(package: Any, name: str, model: nn.Module, layers: list[str], inputs: Tensor) -> Any:
    with getattr(package, name)(model, layers, **({"num_samples": 3} if name == "SSCAM" else {})) as extractor:
        return extractor(CLASSES, model(inputs))[-1].detach().numpy()


def captum_map(package: Any, name: str, model: Any, layers: list[nn.Module], inputs: Tensor) -> Any:
    attribution = (
        getattr(package, name)(model) if name == "GuidedBackprop" else getattr(package, name)(model, layers[-1])
    )
    arguments = () if name == "LayerActivation" else (CLASSES,)
    return attribution.attribute(inputs.clone(), *arguments).detach().numpy()


def compare_methods() -> list[str]:
    """Compare all methods at a late and an early layer; return the rows of a table."""
    model, inputs = network(), torch.randn(3, 3, 64, 64)
    early, late = model.get_submodule("layer2.1"), model.get_submodule("layer4.1")
    rows = []
    for name in GRAD_CAM:
        layers = [[early, late]] if name == "RefineCAM" else [[late], [early]]
        pairs = [(grad_cam_map, pytorch_grad_cam, seewhy.compat.pytorch_grad_cam, one) for one in layers]
        rows.append(compare("pytorch-grad-cam", name, pairs, model, inputs))
    for name in TORCHCAM:
        named = [["layer2.1", "layer4.1"]] if name == "RefineCAM" else [["layer4.1"], ["layer2.1"]]
        named = named[:1] if name == "CAM" else named
        triples = [(torchcam_map, torchcam.methods, seewhy.compat.torchcam.methods, one) for one in named]
        rows.append(compare("torchcam", name, triples, model, inputs))
    for name in CAPTUM:
        attributions = [(captum_map, captum.attr, seewhy.compat.captum.attr, [one]) for one in (late, early)]
        rows.append(compare("captum", name, attributions, model, inputs))
    return rows


def compare(package: str, name: str, calls: list[Any], model: nn.Module, inputs: Tensor) -> str:
    """Return a row: the difference at each layer, and what the compat module logged."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logger = logging.getLogger("seewhy.compat")
    logger.addHandler(handler)
    differences._logged.clear()
    texts = []
    try:
        for function, peer, ours, layers in calls:
            with quiet():
                theirs = function(peer, name, model, layers, inputs)
                own = function(ours, name, model, layers, inputs)
            value = difference(np.asarray(own, np.float32), np.asarray(theirs, np.float32))
            texts.append(f"equal ({value:.0e})" if value <= SAME else f"{value:.2g}")
    finally:
        logger.removeHandler(handler)
    reason = "" if all(text.startswith("equal") for text in texts) else log.getvalue().strip().replace("\n", " ")
    return f"| {package} | `{name}` | {texts[0]} | {texts[1] if len(texts) > 1 else '–'} | {reason} |"


def measure_cost() -> list[str]:
    """Return rows with the time of a compat call divided by that of the native call, interleaved, median of 15 rounds."""
    model, inputs = network(), torch.randn(1, 3, 224, 224)
    layer = model.get_submodule("layer4.1")
    grad_cam = seewhy.compat.pytorch_grad_cam.GradCAM(model, [layer])
    attribution = seewhy.compat.captum.attr.LayerGradCam(model, layer)
    extractor = seewhy.compat.torchcam.methods.GradCAM(model, layer)
    scores, target = model(inputs), [ClassifierOutputTarget(3)]

    def native() -> object:
        return seewhy.explain(model, inputs, layers="layer4.1", targets=3).map()

    def native_heatmap() -> object:
        return seewhy.explain(model, inputs, layers="layer4.1", targets=3).heatmap()

    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "pytorch-grad-cam: `GradCAM(...)(inputs, targets)`": (
            lambda: grad_cam(inputs, target),
            native_heatmap,
        ),
        "torchcam: `extractor(class_idx, scores)`, after the model ran": (lambda: extractor(3, scores), native),
        "captum: `LayerGradCam(...).attribute(inputs, target)`": (lambda: attribution.attribute(inputs, 3), native),
    }
    rows = []
    for name, (compat, own) in calls.items():
        ratios = []
        for _ in range(5):
            compat(), own()
        for _ in range(25):
            times = []
            for function in (compat, own):
                start = time.perf_counter()
                for _ in range(4):
                    function()
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
        rows.append(f"| {name} | {statistics.median(ratios):.3f} |")
    return rows


def page(tutorials: list[str], methods: list[str], cost: list[str]) -> str:
    packages = ("grad-cam", "torchcam", "captum", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    new = "\n"
    return f"""# Moving from other packages, measured

Generated by `.venv-bench/bin/python benchmarks/migration.py`; do not edit. seewhy {seewhy.__version__}, {versions}.

Differences are the largest difference of two results, divided by the largest absolute value of the package's result.

## Tutorials with only the import changed

| tutorial | package | names it imports | results | largest difference |
|---|---|---|---|---|
{new.join(tutorials)}

## Every method

ResNet-18 with random weights, a batch of three images of 64×64 with one class each. RefineCAM joins both layers; CAM exists
for the last layer only. "equal" means at most {SAME:.0e}.

| package | name | difference at `layer4.1` | at `layer2.1` | why |
|---|---|---|---|---|
{new.join(methods)}

## Cost

Time of a call through the compat module, divided by that of `seewhy.explain` (with `.heatmap()` for pytorch-grad-cam, which
returns maps at the size of the input). ResNet-18 at 224×224, batch of one, medians of 25 interleaved rounds of 4 calls,
{torch.get_num_threads()} threads, {processor()}, {cores()} cores.

| call | time / native |
|---|---|
{new.join(cost)}
"""


def main() -> None:
    logging.getLogger("seewhy.compat").propagate = False
    tutorials, methods = compare_tutorials(), compare_methods()
    PAGE.write_text(page(tutorials, methods, measure_cost()), "utf-8")
    print(PAGE.read_text("utf-8"))


if __name__ == "__main__":
    main()
