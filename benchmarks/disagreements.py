"""Where grad-cam and torchcam give another map than seewhy under the same name, what differs, and by how much.

.venv-bench/bin/python benchmarks/disagreements.py > benchmarks/DISAGREEMENTS.md

What differs is not only said: wherever possible it is shown, by computing the peer's map with a setting of seewhy, or with
the peer's formula written here as a method ("as `...`"), and comparing again.
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

os.environ["TQDM_DISABLE"] = "1"  # grad-cam draws a bar for every picture; read when tqdm is imported, as torch does

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
from seewhy.targets import ResolvedTarget, logits
from seewhy.tensors import broadcast_over_grid, normalize, rectify, resize, weighted_sum

PHOTO = Path(__file__).resolve().parents[2] / "shared/data/pictures/bus.jpg"
SAME = 1e-5  # of the map's largest value: float32, summed in another order
AGREE = "raw maps agree"
HEADER = ["method", "library", "where", "what differs", "max difference", "correlation", "gives the peer's map"]


@dataclass(frozen=True)
class Net:
    name: str
    module: nn.Module
    inputs: Tensor
    target: int

    def ours(self, method: Any, layers: Any) -> Tensor:
        found = seewhy.explain(self.module, self.inputs, methods=method, layers=layers, targets=self.target)
        return found.map()[0]

    # The peers: raw maps at the layer's resolution, where the library lets them be seen

    def grad_cam(self, method: Callable[..., Any], layer: str, target: Any = None, **settings: Any) -> Tensor:
        """What the method makes of a layer, before grad-cam rectifies, min-maxes and resizes it."""
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
        """What grad-cam returns, at the size of the picture."""
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
    """The evidence for the only class is the same everywhere."""

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

    def weights(self, at: Signals) -> Tensor:
        g = at.gradients
        alphas = g**2 / (2 * g**2 + broadcast_over_grid(at.activation_sums, g) * g**3 + 1e-6)
        return (alphas * at.positive_gradients).flatten(2).sum(2)


@dataclass(frozen=True)
class CubedGradCAMPlusPlus(Weighted):
    """torchcam: `alpha[mask].div_()` divides a copy, so alpha stays g^2."""

    def weights(self, at: Signals) -> Tensor:
        return (at.positive_gradients**3).flatten(2).sum(2)


@dataclass(frozen=True)
class ShareFEM(Method):
    """grad-cam: the share of striking cells times the activations."""

    needs = Need.NOTHING

    def __call__(self, at: Signals) -> Tensor:
        cells = at.activations.flatten(2)
        limits = cells.mean(2) + 2 * cells.std(2, correction=0)
        striking = at.activations > broadcast_over_grid(limits, at.activations)
        return weighted_sum(striking.flatten(2).to(cells.dtype).mean(2), at.activations)


@dataclass(frozen=True)
class FarAblation(Weighted):
    """grad-cam: a channel becomes min(A) - 1e7 in place of 0, from the second of a batch of 32 on that of the changed A."""

    needs = Need.EVALUATOR

    def weights(self, at: Signals) -> Tensor:
        own = at.activations[0]

        def without(rows: slice) -> Tensor:
            changed = own.expand(rows.stop - rows.start, *own.shape).clone()
            for row in range(len(changed)):
                changed[row, rows.start + row] = changed.amin() - 1e7
            return changed

        scores = at.score_activations(0, len(own), without, batch_size=32)
        return ((at.scores[0] - scores) / at.scores[0])[None]


@dataclass(frozen=True)
class TorchcamISCAM(Weighted):
    """torchcam: the softmax over channels of mean logits, factors i (i + 1) / 20, masks made before resizing."""

    needs = Need.EVALUATOR

    def weights(self, at: Signals) -> Tensor:
        image, masks = at.inputs[0], resize(normalize(at.activations[0]), at.inputs.shape[2:])

        def scores(factor: float) -> Tensor:
            return at.score_inputs(0, len(masks), lambda rows: image * masks[rows, None] * factor)

        mean = torch.stack([scores(i * (i + 1) / 20) for i in range(1, 11)]).mean(0)
        return mean.softmax(0)[None]


@dataclass(frozen=True)
class NearAndLikely(Scoring):
    """grad-cam: the mean of z_c - z_d over the three nearest classes, weighted by their probabilities, which are not fixed."""

    def __call__(self, asked: ResolvedTarget, output: Any) -> Tensor:
        scores = logits(output)
        own = of_classes(asked, scores)
        nearest = (scores - own[:, None]).abs().detach().argsort(1)[:, 1:4]
        weights = scores.softmax(1).gather(1, nearest)
        return (weights * (own[:, None] - scores.gather(1, nearest))).sum(1) / (weights.sum(1) + 1e-9)


@dataclass(frozen=True)
class LikelyFinerCAM(Weighted):
    @property
    def scoring(self) -> Scoring:
        return NearAndLikely()

    def weights(self, at: Signals) -> Tensor:
        return at.gradients.flatten(2).mean(2)


@dataclass(frozen=True)
class Overwritten(Weighted):
    """Grad-CAM of what an in-place ReLU leaves of the layer."""

    def weights(self, at: Signals) -> Tensor:
        return at.gradients.flatten(2).mean(2)

    def __call__(self, at: Signals) -> Tensor:
        return weighted_sum(self.weights(at), rectify(at.activations))


@dataclass(frozen=True)
class ChannelFullGrad(NetworkMethod):
    """grad-cam: every channel of every layer, and every colour, from its minimum to its maximum (plus 1e-7)."""

    def __call__(self, whole: ModelSignals) -> Tensor:
        found: list[Tensor] = []

        def add(terms: Tensor) -> None:
            terms = terms[0].abs()
            terms = terms - terms.amin((1, 2), keepdim=True)
            terms = terms / (terms.amax((1, 2), keepdim=True) + 1e-7)
            found.append(resize(terms, whole.inputs.shape[2:]).sum(0, keepdim=True))

        def consume(values: Tensor, gradient: Tensor) -> None:
            add(gradient * broadcast_over_grid(values[None], gradient))

        add(whole.each_bias(consume))
        return torch.stack(found).sum(0)


# Comparing


def scaled(maps: Tensor) -> Tensor:
    """Rectified and divided by the maximum, as a picture of it would be; zeros where nothing is positive."""
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
    """The rows of the table so far."""

    rows: list[list[str]] = field(default_factory=list)

    def add(
        self, library: str, where: str, what: str, ours: tuple[str, Tensor], theirs: Tensor, like: Like = None
    ) -> None:
        name, maps = ours
        size, r = difference(maps, theirs), correlation(maps, theirs)
        shown = "nothing" if size <= SAME else f"{size:.2f}" if size >= 0.005 else f"{size:.0e}"
        cells = [name, library, where, what, shown, "none: one is constant" if np.isnan(r) else f"{r:.4f}"]
        self.rows.append([*cells, matched(theirs, *like) if like else ""])
        print(*self.rows[-1], sep=" | ", file=sys.stderr, flush=True)


Like = tuple[str, Tensor] | None


def matched(theirs: Tensor, name: str, maps: Tensor) -> str:
    """How near `maps`, or their negative where the peer leaves the sign to chance, come to the peer's."""
    turned = difference(-maps, theirs) < difference(maps, theirs)
    size = difference(-maps if turned else maps, theirs)
    verdict = "not" if size > 1e-3 else "equal" if size <= SAME else f"equal to {size:.0e}"
    return f"{verdict}: {name}{', turned' if turned else ''}"


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
        """`like` is a method that should give the peer's map, with a name for it where it is none of seewhy's."""
        name, method = like if isinstance(like, tuple) else (f"`{like}`", like)
        pair = None if like is None else (name, self.net.ours(method, self.layer))
        maps = self.net.ours(ours, self.layer)
        self.page.add(library, f"{self.net.name}, {self.layer}", what, (title, maps), theirs, pair)


def gradients(page: Page, net: Net) -> None:
    for layer in ("bn2", "blocks.1"):
        at = Place(page, net, layer)
        what = "1e-6 beside g² in the denominator, which is often smaller"
        at.grad_cam("Grad-CAM++", "gradcam++", gc.GradCAMPlusPlus, what, ("with 1e-6", EpsGradCAMPlusPlus()))
        what = "divides a copy (`alpha[mask].div_()`), so weights are Σ relu(g)³"
        at.torchcam("Grad-CAM++", "gradcam++", tc.GradCAMpp, what, ("Σ relu(g)³", CubedGradCAMPlusPlus()))
    for layer in ("bn2", "conv_head"):
        at = Place(page, net, layer)
        at.grad_cam("XGrad-CAM", "xgradcam", gc.XGradCAM, "1e-7 beside the sum of activations: no matter here")
        at.torchcam("XGrad-CAM", "xgradcam", tc.XGradCAM, "1e-8 beside it: no matter here")
    at = Place(page, net, "blocks.3")
    at.grad_cam("Grad-CAM", "gradcam", gc.GradCAM, AGREE)
    at.torchcam("Grad-CAM", "gradcam", tc.GradCAM, AGREE)
    at.grad_cam("HiResCAM", "hirescam", gc.HiResCAM, AGREE)
    at.grad_cam("Elementwise", "gradcamelementwise", gc.GradCAMElementWise, AGREE)
    lifted = "no tanh (equation 9) for a layer alone"
    at.grad_cam("LayerCAM", "layercam", gc.LayerCAM, AGREE)
    at.grad_cam("LayerCAM, gamma 2", "layercam(gamma=2)", gc.LayerCAM, lifted, "layercam")
    at.torchcam("LayerCAM", "layercam", tc.LayerCAM, AGREE)
    at.torchcam("LayerCAM, gamma 2", "layercam(gamma=2)", tc.LayerCAM, lifted, "layercam")
    at = Place(page, net, "bn2")
    at.torchcam("Finer-CAM", "finercam", tc.FinerCAM, AGREE)
    what = "γ 1; rivals weighted by their probabilities, which are differentiated too"
    at.grad_cam("Finer-CAM", "finercam", gc.GradCAM, what, ("for that score", LikelyFinerCAM()), target=likely(net))
    what = "takes any target: the logit's curvature is 0"
    at.grad_cam("ShapleyCAM", "shapleycam", gc.ShapleyCAM, what, "gradcam")
    what = f"{AGREE}, given ClassifierOutputReST"
    at.grad_cam("ShapleyCAM", "shapleycam", gc.ShapleyCAM, what, target=ClassifierOutputReST(net.target))
    torch.manual_seed(0)
    what = "noise of 0.3 in the input's units; Σ D₃A for S·D₃; relu of the last sample's gradient (random)"
    at.torchcam("SmoothGradCAM++", "smoothgradcam++", tc.SmoothGradCAMpp, what, num_samples=16)


def likely(net: Net) -> FinerWeightedTarget:
    """What grad-cam's FinerCAM makes for itself where it is given no target."""
    with torch.inference_mode():
        scores = net.module(net.inputs)[0]
    order = (scores - scores[net.target]).abs().argsort()[:4].tolist()
    return FinerWeightedTarget(order[0], order[1:], 1)


def activations(page: Page, net: Net) -> None:
    for layer in ("bn2", "blocks.3"):
        at = Place(page, net, layer)
        at.grad_cam("Eigen-CAM", "eigencam", gc.EigenCAM, "centred; sign left to chance", "eigencam(centered=True)")
        at.grad_cam("EigenGradCAM", "eigengradcam", gc.EigenGradCAM, "sign left to chance", "eigengradcam")
        at.grad_cam("Seg-Eigen-CAM", "segeigencam", gc.SegEigenCAM, AGREE)
        at.grad_cam("KPCA-CAM", "kpcacam", gc.KPCA_CAM, AGREE)
        what = "share of striking cells times A, for mean(A) times striking cells"
        at.grad_cam("FEM", "fem", gc.FEM, what, ("share · A", ShareFEM()))
    Place(page, net, "bn2").torchcam("CAM", "cam", tc.CAM, AGREE, fc_layer="classifier")


def masking(page: Page, net: Net) -> None:
    at = Place(page, net, "blocks.2")
    softmax = "softmax over channels of logits, for the class's probability"
    what = f"{softmax}; masks scaled before resizing"
    at.torchcam("Score-CAM", "scorecam", tc.ScoreCAM, what, ScoreCAM(variant="torchcam"))
    what = f"{softmax}; masks resized with aligned corners"
    at.grad_cam("Score-CAM", "scorecam", gc.ScoreCAM, what, ScoreCAM(variant="gradcam"))
    what = f"{softmax}; masks scaled before resizing; factors grow to 5.5"
    at.torchcam("IS-CAM", "iscam", tc.ISCAM, what, ("that formula", TorchcamISCAM()))
    torch.manual_seed(0)
    what = f"{softmax}; noise of 2 on masks in [0, 1] (random, 5 samples)"
    at.torchcam("SS-CAM", "sscam(samples=5)", tc.SSCAM, what, num_samples=5)
    what = "channels of a layer with negatives become min(A) − 10⁷, not 0"
    at.grad_cam("Ablation-CAM", "ablationcam", gc.AblationCAM, what, ("that replacement", FarAblation()))
    at = Place(page, net, "blocks.3.0.bn1")
    at.grad_cam("Ablation-CAM", "ablationcam", gc.AblationCAM, f"{AGREE}: min(A) is 0 here")


def several_layers(page: Page, net: Net) -> None:
    layers, size = ["blocks.2", "blocks.4", "bn2"], tuple(net.inputs.shape[2:])
    where = f"{net.name}, {', '.join(layers)}"
    ours = ("RefineCAM", net.ours("refinecam", layers))
    call = {"target_shape": size}
    page.add("grad-cam", where, "the base, Grad-CAM++", ours, net.grad_cam_final(gc.RefineCAM, layers))
    page.add("torchcam", where, "the base, Grad-CAM++", ours, net.torchcam(tc.RefineCAM, layers, call=call))
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
    what = "each channel min-maxed alone, not a layer's together; the sum min-maxed"
    like = ("per channel", normalize(net.ours(ChannelFullGrad(), "layer4")[None])[0])
    page.add("grad-cam", net.name, what, ("FullGrad", net.ours("fullgrad", "layer4")), theirs, like)


def in_place(page: Page, net: Net) -> None:
    at = Place(page, net, "features.18")
    what = "an in-place ReLU overwrites the layer's output before it is used"
    at.grad_cam("Grad-CAM", "gradcam", gc.GradCAM, what, ("mean(G) · relu(A)", Overwritten()))
    what = f"{what}, and the gradient is taken behind it"
    ours, behind = net.ours("gradcam", at.layer), net.ours("gradcam", "features.19")
    theirs = net.torchcam(tc.GradCAM, at.layer)
    page.add("torchcam", f"{net.name}, {at.layer}", what, ("Grad-CAM", ours), theirs, ("Grad-CAM at the ReLU", behind))


def uniform(page: Page) -> None:
    net = Net("evidence the same everywhere", Uniform(), torch.ones(1, 3, 8, 8), 0)
    ours = ("any (Grad-CAM)", net.ours("gradcam", "conv"))
    what = "min-max makes it a blank map"
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

Written by `.venv-bench/bin/python benchmarks/disagreements.py > benchmarks/DISAGREEMENTS.md`; do not edit. {versions}.

*Lite0* is the network in the package, on {photo}, class {net.target}; the others have random weights and are given noise.
Maps are compared at the layer's resolution, as the method makes them (where it says so, of several layers joined, at the
picture's size), rectified and divided by their maximum. *max difference* is that of two such maps ("nothing": at most
{SAME:g}), *correlation* Pearson's. The last column says whether seewhy's method with that setting, or the formula named,
written as a method in that script, gives the peer's map: where it does, there is no other difference."""


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
