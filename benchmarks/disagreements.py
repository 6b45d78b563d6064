"""Methods whose map in grad-cam or torchcam differs from seewhy's: what differs, and by how much.

    .venv-bench/bin/python benchmarks/disagreements.py > benchmarks/DISAGREEMENTS.md

Where possible, the difference is verified: the peer's map is reproduced with a setting of seewhy, or with the peer's formula,
which is written here as a method, and compared again.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = (
    "1"  # grad-cam draws a progress bar per image; tqdm reads this when it is imported, which torch does
)

import numpy as np
import pytorch_grad_cam as gc
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget, FinerWeightedTarget
from torch import Tensor, nn
from torchcam import methods as tc

import seewhy
from nets import NETS, images
from results import markdown
from seewhy.methods import ScoreCAM
from seewhy.methods.base import Method, NetworkMethod, Weighted
from seewhy.signals.layer import Need, Signals
from seewhy.signals.model import ModelSignals
from seewhy.signals.scoring import Scoring, of_classes
from seewhy.targets import ResolvedTarget
from seewhy.targets.class_scores import logits
from seewhy.tensors.map_functions import broadcast_over_grid, normalize, rectify, resize, weighted_sum

PHOTO = Path(__file__).resolve().parents[2] / "shared/data/pictures/bus.jpg"
SAME = 1e-5  # of the map's maximum: float32 sums in a different order
AGREE = "raw maps agree"
HEADER = ["method", "library", "where", "what differs", "max difference", "correlation", "reproduces the peer's map"]


@dataclass(frozen=True)
class Net:
    name: str
    module: nn.Module
    inputs: Tensor
    target: int

    def ours(self, method: Any, layers: Any) -> Tensor:
        found = seewhy.explain(self.module, self.inputs, methods=method, layers=layers, targets=self.target)
        return found.map()[0]

    # The peers: raw maps at the layer's resolution, where the library exposes them

    def grad_cam(self, method: Callable[..., Any], layer: str, target: Any = None, **settings: Any) -> Tensor:
        """Return the map of one layer before grad-cam rectifies, min-maxes and resizes it."""
        seen = []
        with quiet(), method(self.module, [self.module.get_submodule(layer)], **settings) as extractor:
            image = extractor.get_cam_image

            def get_cam_image(*args: Any) -> Any:
                seen.append(image(*args))
                return seen[-1]

            extractor.get_cam_image = get_cam_image
            extractor(self.inputs, [target or ClassifierOutputTarget(self.target)])
        return torch.as_tensor(np.asarray(seen[0]))[0]

    def grad_cam_final(self, method: Callable[..., Any], layers: Sequence[str], **settings: Any) -> Tensor:
        """Return the final result of grad-cam, at the size of the image."""
        with quiet():
            extractor = method(self.module, [self.module.get_submodule(name) for name in layers], **settings)
            maps = extractor(self.inputs, [ClassifierOutputTarget(self.target)])
        for part in getattr(extractor, "base_cam_per_layer", [extractor]):
            part.activations_and_grads.release()
        return torch.as_tensor(maps)[0]

    def torchcam(
        self, method: Callable[..., Any], layers: Any, *, normalized: bool = False, call: Any = None, **settings: Any
    ) -> Tensor:
        with method(self.module, layers, **settings) as extractor:
            scores = self.module(self.inputs)
            return extractor(self.target, scores, normalized=normalized, **(call or {}))[0][0].detach()


def quiet() -> redirect_stdout[StringIO]:
    return redirect_stdout(StringIO())


def lite0() -> Net:
    model = seewhy.load_model()
    photo = str(PHOTO) if PHOTO.exists() else seewhy.sample("coffee")
    found = seewhy.explain(model, photo, layers=["bn2"])
    return Net("Lite0", model.module, found.inputs, int(found.top()[0][0]))


def of_noise(name: str, net: nn.Module) -> Net:
    inputs = images(1)
    with torch.inference_mode():
        return Net(name, net.eval(), inputs, int(net(inputs).argmax()))


def vit() -> Net:
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.vit_b_16(weights=None)
    nn.init.normal_(net.heads.head.weight, std=0.1)  # torchvision starts it at 0
    return of_noise("ViT-B/16 (random weights)", net)


class Uniform(nn.Module):
    """A network whose evidence for its only class is equal everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        nn.init.ones_(self.conv.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.conv(inputs).mean((2, 3))


# What the peers compute, as methods of seewhy


@dataclass(frozen=True)
class EpsGradCAMPlusPlus(Weighted):
    """grad-cam: alpha = g^2 / (2 g^2 + S g^3 + 1e-6)."""

    def weights(self, signals: Signals) -> Tensor:
        g = signals.gradients
        alphas = g**2 / (2 * g**2 + broadcast_over_grid(signals.activation_sums, g) * g**3 + 1e-6)
        return (alphas * signals.positive_gradients).flatten(2).sum(2)


@dataclass(frozen=True)
class CubedGradCAMPlusPlus(Weighted):
    """torchcam: `alpha[mask].div_()` divides a copy, so alpha stays g^2."""

    def weights(self, signals: Signals) -> Tensor:
        return (signals.positive_gradients**3).flatten(2).sum(2)


@dataclass(frozen=True)
class ShareFEM(Method):
    """grad-cam: the fraction of salient cells times the activations."""

    needs = Need.NOTHING

    def __call__(self, signals: Signals) -> Tensor:
        cells = signals.activations.flatten(2)
        limits = cells.mean(2) + 2 * cells.std(2, correction=0)
        striking = signals.activations > broadcast_over_grid(limits, signals.activations)
        return weighted_sum(striking.flatten(2).to(cells.dtype).mean(2), signals.activations)


@dataclass(frozen=True)
class FarAblation(Weighted):
    """grad-cam: a channel becomes min(A) - 1e7 instead of 0 (from a batch's second channel on: of the changed A)."""

    needs = Need.EVALUATOR

    def weights(self, signals: Signals) -> Tensor:
        own = signals.activations[0]

        def without(rows: slice) -> Tensor:
            changed = own.expand(rows.stop - rows.start, *own.shape).clone()
            for row in range(len(changed)):
                changed[row, rows.start + row] = changed.amin() - 1e7
            return changed

        scores = signals.score_activations(0, len(own), without, batch_size=32)
        return ((signals.scores[0] - scores) / signals.scores[0])[None]


@dataclass(frozen=True)
class TorchcamISCAM(Weighted):
    """torchcam: the softmax over channels of mean logits, factors i (i + 1) / 20, masks made before resizing."""

    needs = Need.EVALUATOR

    def weights(self, signals: Signals) -> Tensor:
        image, masks = signals.inputs[0], resize(normalize(signals.activations[0]), signals.inputs.shape[2:])

        def scores(factor: float) -> Tensor:
            return signals.score_inputs(0, len(masks), lambda rows: image * masks[rows, None] * factor)

        mean = torch.stack([scores(i * (i + 1) / 20) for i in range(1, 11)]).mean(0)
        return mean.softmax(0)[None]


@dataclass(frozen=True)
class NearAndLikely(Scoring):
    """grad-cam: the mean of z_c - z_d over the three nearest classes, weighted by their probabilities, which are not fixed."""

    def __call__(self, target: ResolvedTarget, output: Any) -> Tensor:
        scores = logits(output)
        own = of_classes(target, scores)
        nearest = (scores - own[:, None]).abs().detach().argsort(1)[:, 1:4]
        weights = scores.softmax(1).gather(1, nearest)
        return (weights * (own[:, None] - scores.gather(1, nearest))).sum(1) / (weights.sum(1) + 1e-9)


@dataclass(frozen=True)
class LikelyFinerCAM(Weighted):
    @property
    def scoring(self) -> Scoring:
        return NearAndLikely()

    def weights(self, signals: Signals) -> Tensor:
        return signals.gradients.flatten(2).mean(2)


@dataclass(frozen=True)
class Overwritten(Weighted):
    """Grad-CAM of the layer's output after an in-place ReLU overwrote it."""

    def weights(self, signals: Signals) -> Tensor:
        return signals.gradients.flatten(2).mean(2)

    def __call__(self, signals: Signals) -> Tensor:
        return weighted_sum(self.weights(signals), rectify(signals.activations))


@dataclass(frozen=True)
class ChannelFullGrad(NetworkMethod):
    """grad-cam: min-max scaling (plus 1e-7) of every channel of every layer, and of every color."""

    def __call__(self, model: ModelSignals) -> Tensor:
        found: list[Tensor] = []

        def add(terms: Tensor) -> None:
            terms = terms[0].abs()
            terms = terms - terms.amin((1, 2), keepdim=True)
            terms = terms / (terms.amax((1, 2), keepdim=True) + 1e-7)
            found.append(resize(terms, model.inputs.shape[2:]).sum(0, keepdim=True))

        def consume(values: Tensor, gradient: Tensor) -> None:
            add(gradient * broadcast_over_grid(values[None], gradient))

        add(model.visit_biases(consume))
        return torch.stack(found).sum(0)


# Comparing


def scaled(maps: Tensor) -> Tensor:
    """Return the map rectified and divided by its maximum, as it would be drawn; zeros if no value is positive."""
    maps = maps.detach().double().clamp(min=0)
    top = maps.max()
    return maps / top if top > 0 else torch.zeros_like(maps)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((scaled(ours) - scaled(theirs)).abs().max())


def correlation(ours: Tensor, theirs: Tensor) -> float:
    pair = torch.stack([scaled(ours).flatten(), scaled(theirs).flatten()])
    return float(torch.corrcoef(pair)[0, 1])


@dataclass
class Page:
    """The rows of the table."""

    rows: list[list[str]] = field(default_factory=list)

    def add(
        self, library: str, where: str, what: str, ours: tuple[str, Tensor], theirs: Tensor, like: Like = None
    ) -> None:
        name, maps = ours
        size, r = difference(maps, theirs), correlation(maps, theirs)
        shown = "none" if size <= SAME else f"{size:.2f}" if size >= 0.005 else f"{size:.0e}"
        cells = [name, library, where, what, shown, "undefined: one map is constant" if np.isnan(r) else f"{r:.4f}"]
        self.rows.append([*cells, matched(theirs, *like) if like else ""])
        print(*self.rows[-1], sep=" | ", file=sys.stderr, flush=True)


Like = tuple[str, Tensor] | None


def matched(theirs: Tensor, name: str, maps: Tensor) -> str:
    """Return whether `maps`, or their negative where the peer's sign is arbitrary, equal the peer's map."""
    turned = difference(-maps, theirs) < difference(maps, theirs)
    size = difference(-maps if turned else maps, theirs)
    verdict = "not" if size > 1e-3 else "equal" if size <= SAME else f"equal to {size:.0e}"
    return f"{verdict}: {name}{', sign flipped' if turned else ''}"


@dataclass
class Place:
    """Comparisons at one layer of one network."""

    page: Page
    net: Net
    layer: str

    def grad_cam(
        self, title: str, ours: Any, method: Any, what: str, like: Any = None, target: Any = None, **settings: Any
    ) -> None:
        theirs = self.net.grad_cam(method, self.layer, target, **settings)
        self.row("grad-cam", title, ours, what, theirs, like)

    def torchcam(self, title: str, ours: Any, method: Any, what: str, like: Any = None, **settings: Any) -> None:
        self.row("torchcam", title, ours, what, self.net.torchcam(method, self.layer, **settings), like)

    def row(self, library: str, title: str, ours: Any, what: str, theirs: Tensor, like: Any) -> None:
        """Add a row. `like` is a method that should reproduce the peer's map, with a name if it is not one of seewhy's."""
        name, method = like if isinstance(like, tuple) else (f"`{like}`", like)
        pair = None if like is None else (name, self.net.ours(method, self.layer))
        maps = self.net.ours(ours, self.layer)
        self.page.add(library, f"{self.net.name}, {self.layer}", what, (title, maps), theirs, pair)


def gradients(page: Page, net: Net) -> None:
    for layer in ("bn2", "blocks.1"):
        at = Place(page, net, layer)
        what = "adds 1e-6 to the denominator, which is often smaller"
        at.grad_cam("Grad-CAM++", "gradcam++", gc.GradCAMPlusPlus, what, ("with 1e-6", EpsGradCAMPlusPlus()))
        what = "divides a copy (`alpha[mask].div_()`), so the weights are Σ relu(g)³"
        at.torchcam("Grad-CAM++", "gradcam++", tc.GradCAMpp, what, ("Σ relu(g)³", CubedGradCAMPlusPlus()))
    for layer in ("bn2", "conv_head"):
        at = Place(page, net, layer)
        at.grad_cam("XGrad-CAM", "xgradcam", gc.XGradCAM, "adds 1e-7 to the sum of activations: no effect here")
        at.torchcam("XGrad-CAM", "xgradcam", tc.XGradCAM, "adds 1e-8 to it: no effect here")
    at = Place(page, net, "blocks.3")
    at.grad_cam("Grad-CAM", "gradcam", gc.GradCAM, AGREE)
    at.torchcam("Grad-CAM", "gradcam", tc.GradCAM, AGREE)
    at.grad_cam("HiResCAM", "hirescam", gc.HiResCAM, AGREE)
    at.grad_cam("Elementwise", "gradcamelementwise", gc.GradCAMElementWise, AGREE)
    lifted = "no tanh (equation 9) for a single layer"
    at.grad_cam("LayerCAM", "layercam", gc.LayerCAM, AGREE)
    at.grad_cam("LayerCAM, gamma 2", "layercam(gamma=2)", gc.LayerCAM, lifted, "layercam")
    at.torchcam("LayerCAM", "layercam", tc.LayerCAM, AGREE)
    at.torchcam("LayerCAM, gamma 2", "layercam(gamma=2)", tc.LayerCAM, lifted, "layercam")
    at = Place(page, net, "bn2")
    at.torchcam("Finer-CAM", "finercam", tc.FinerCAM, AGREE)
    what = "γ = 1; rival classes are weighted by their probabilities, which are differentiated as well"
    at.grad_cam("Finer-CAM", "finercam", gc.GradCAM, what, ("for this score", LikelyFinerCAM()), target=likely(net))
    what = "accepts any target: the curvature of a logit is 0"
    at.grad_cam("ShapleyCAM", "shapleycam", gc.ShapleyCAM, what, "gradcam")
    what = f"{AGREE}, given ClassifierOutputReST"
    at.grad_cam("ShapleyCAM", "shapleycam", gc.ShapleyCAM, what, target=ClassifierOutputReST(net.target))
    torch.manual_seed(0)
    what = "noise of 0.3 in units of the input; Σ D₃A instead of S·D₃; ReLU of the last sample's gradient (random)"
    at.torchcam("SmoothGradCAM++", "smoothgradcam++", tc.SmoothGradCAMpp, what, num_samples=16)


def likely(net: Net) -> FinerWeightedTarget:
    """Return the target that grad-cam's FinerCAM creates if the caller passes none."""
    with torch.inference_mode():
        scores = net.module(net.inputs)[0]
    order = (scores - scores[net.target]).abs().argsort()[:4].tolist()
    return FinerWeightedTarget(order[0], order[1:], 1)


def activations(page: Page, net: Net) -> None:
    for layer in ("bn2", "blocks.3"):
        at = Place(page, net, layer)
        at.grad_cam("Eigen-CAM", "eigencam", gc.EigenCAM, "centered; arbitrary sign", "eigencam(centered=True)")
        at.grad_cam("EigenGradCAM", "eigengradcam", gc.EigenGradCAM, "arbitrary sign", "eigengradcam")
        at.grad_cam("Seg-Eigen-CAM", "segeigencam", gc.SegEigenCAM, AGREE)
        at.grad_cam("KPCA-CAM", "kpcacam", gc.KPCA_CAM, AGREE)
        what = "fraction of salient cells times A, instead of mean(A) times salient cells"
        at.grad_cam("FEM", "fem", gc.FEM, what, ("fraction · A", ShareFEM()))
    Place(page, net, "bn2").torchcam("CAM", "cam", tc.CAM, AGREE, fc_layer="classifier")


def masking(page: Page, net: Net) -> None:
    at = Place(page, net, "blocks.2")
    softmax = "softmax of the logits over channels, instead of the class probability"
    what = f"{softmax}; masks scaled before resizing"
    at.torchcam("Score-CAM", "scorecam", tc.ScoreCAM, what, ScoreCAM(variant="torchcam"))
    what = f"{softmax}; masks resized with aligned corners"
    at.grad_cam("Score-CAM", "scorecam", gc.ScoreCAM, what, ScoreCAM(variant="gradcam"))
    what = f"{softmax}; masks scaled before resizing; factors up to 5.5"
    at.torchcam("IS-CAM", "iscam", tc.ISCAM, what, ("this formula", TorchcamISCAM()))
    torch.manual_seed(0)
    what = f"{softmax}; noise of 2 on masks in [0, 1] (random, 5 samples)"
    at.torchcam("SS-CAM", "sscam(samples=5)", tc.SSCAM, what, num_samples=5)
    what = "channels of a layer with negatives become min(A) − 10⁷, not 0"
    at.grad_cam("Ablation-CAM", "ablationcam", gc.AblationCAM, what, ("this replacement", FarAblation()))
    at = Place(page, net, "blocks.3.0.bn1")
    at.grad_cam("Ablation-CAM", "ablationcam", gc.AblationCAM, f"{AGREE}: min(A) is 0 here")


def several_layers(page: Page, net: Net) -> None:
    layers, size = ["blocks.2", "blocks.4", "bn2"], tuple(net.inputs.shape[2:])
    where = f"{net.name}, {', '.join(layers)}"
    ours = ("RefineCAM", net.ours("refinecam", layers))
    call = {"target_shape": size}
    page.add("grad-cam", where, "the base method, Grad-CAM++", ours, net.grad_cam_final(gc.RefineCAM, layers))
    page.add("torchcam", where, "the base method, Grad-CAM++", ours, net.torchcam(tc.RefineCAM, layers, call=call))
    ours = ("RefineCAM of Grad-CAM", net.ours("refinecam(base=gradcam)", layers))
    theirs = net.grad_cam_final(gc.RefineCAM, layers, base_method=gc.GradCAM)
    page.add("grad-cam", where, AGREE, ours, theirs)
    theirs = net.torchcam(tc.RefineCAM, layers, base_method=tc.GradCAM, call=call)
    page.add("torchcam", where, "maps not scaled again once resized", ours, theirs)
    with tc.LayerCAM(net.module, layers) as extractor:
        scores = net.module(net.inputs)
        theirs = extractor.fuse_cams(extractor(net.target, scores), size)[0]
    maps = [torch.tanh(2 * normalize(rectify(net.ours("layercam", name)[None]))) for name in layers]
    like = ("tanh on all", torch.cat([resize(lifted, size) for lifted in maps]).amax(0))
    ours = ("LayerCAM, fused", net.ours("layercamfusion", layers))
    page.add("torchcam", where, "tanh on the last layer too", ours, theirs, like)


def full_grad(page: Page, net: Net) -> None:
    theirs = net.grad_cam_final(gc.FullGrad, [])
    what = "min-max per channel, not per layer; the sum is min-maxed"
    like = ("per channel", normalize(net.ours(ChannelFullGrad(), "layer4")[None])[0])
    page.add("grad-cam", net.name, what, ("FullGrad", net.ours("fullgrad", "layer4")), theirs, like)


def in_place(page: Page, net: Net) -> None:
    at = Place(page, net, "features.18")
    what = "an in-place ReLU overwrites the layer's output before it is used"
    at.grad_cam("Grad-CAM", "gradcam", gc.GradCAM, what, ("mean(G) · relu(A)", Overwritten()))
    what = f"{what}, and the gradient is taken after it"
    ours, behind = net.ours("gradcam", at.layer), net.ours("gradcam", "features.19")
    theirs = net.torchcam(tc.GradCAM, at.layer)
    page.add("torchcam", f"{net.name}, {at.layer}", what, ("Grad-CAM", ours), theirs, ("Grad-CAM at the ReLU", behind))


def uniform(page: Page) -> None:
    net = Net("equal evidence everywhere", Uniform(), torch.ones(1, 3, 8, 8), 0)
    ours = ("any (Grad-CAM)", net.ours("gradcam", "conv"))
    what = "min-max scaling returns a blank map"
    page.add("grad-cam", net.name, what, ours, net.grad_cam_final(gc.GradCAM, ["conv"]))
    page.add("torchcam", net.name, what, ours, net.torchcam(tc.GradCAM, "conv", normalized=True))


def attention(page: Page, net: Net) -> None:
    blocks = [f"encoder.layers.encoder_layer_{number}" for number in (10, 11)]
    ours, where = net.ours("legrad", blocks[-1]), f"{net.name}, blocks 10 and 11"
    page.add("torchcam", where, f"{AGREE} (blocks must be named)", ("LeGrad", ours), net.torchcam(tc.LeGrad, blocks))


def heading(net: Net) -> str:
    packages = ("seewhy", "grad-cam", "torchcam", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    photo = PHOTO.name if PHOTO.exists() else "the sample coffee"
    return f"""# Where the libraries disagree

Generated by `.venv-bench/bin/python benchmarks/disagreements.py > benchmarks/DISAGREEMENTS.md`; do not edit. {versions}.

*Lite0* is the embedded network, on {photo}, class {net.target}. The other networks have random weights and receive noise.
Maps are compared at the layer's resolution, as the method returns them (or at the image's size, where layers are joined),
after rectifying and dividing by the maximum. *max difference* is the largest difference of two such maps ("none": at most
{SAME:g}); *correlation* is Pearson's. The last column states whether seewhy's method with the named setting, or with the named
formula, reproduces the peer's map; if it does, there is no other difference."""


def main() -> None:
    page, net = Page(), lite0()
    gradients(page, net)
    activations(page, net)
    masking(page, net)
    several_layers(page, net)
    full_grad(page, of_noise("ResNet-18", NETS["ResNet-18, calibrated"]()))
    in_place(page, of_noise("VGG-11", NETS["VGG-11"]()))
    uniform(page)
    attention(page, vit())
    print(heading(net), markdown(HEADER, page.rows), sep="\n\n")


if __name__ == "__main__":
    main()
