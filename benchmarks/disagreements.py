"""Where grad-cam and torchcam give another map than seewhy under the same name, what differs, and by how much.

.venv-bench/bin/python benchmarks/disagreements.py > benchmarks/DISAGREEMENTS.md

What differs is not only said: wherever possible it is shown, by computing the peer's map with a setting of seewhy, or with
the peer's formula written here as a method ("as `...`"), and comparing again.
"""

from __future__ import annotations

import importlib.metadata
import os
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
from seewhy.methods import Method, ScoreCAM
from seewhy.methods.base import Weighted
from seewhy.scoring import Scoring, of_classes
from seewhy.signals import Need, Signals
from seewhy.targets import Asked, logits
from seewhy.tensors import normalize, per_channel, resize, weighted_sum

PHOTO = Path(__file__).resolve().parents[2] / "shared/data/pictures/bus.jpg"
SAME = 1e-5  # of the map's largest value: float32, summed in another order
HEADER = ["method", "library", "where", "what differs", "max difference", "correlation", "the peer's map from seewhy"]


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
        alphas = g**2 / (2 * g**2 + per_channel(at.activation_sums, g) * g**3 + 1e-6)
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
        striking = at.activations > per_channel(limits, at.activations)
        return weighted_sum(striking.flatten(2).to(cells.dtype).mean(2), at.activations)


@dataclass(frozen=True)
class FarAblation(Weighted):
    """grad-cam: a channel becomes min(A) - 1e7 in place of 0, from the second of a batch of 32 on that of the changed A."""

    needs = Need.PROBES

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

    needs = Need.PROBES

    def weights(self, at: Signals) -> Tensor:
        image, masks = at.inputs[0], resize(normalize(at.activations[0]), at.inputs.shape[2:])

        def scores(factor: float) -> Tensor:
            return at.score_inputs(0, len(masks), lambda rows: image * masks[rows, None] * factor)

        mean = torch.stack([scores(i * (i + 1) / 20) for i in range(1, 11)]).mean(0)
        return mean.softmax(0)[None]


@dataclass(frozen=True)
class NearAndLikely(Scoring):
    """grad-cam: the mean of z_c - z_d over the three nearest classes, weighted by their probabilities, which are not fixed."""

    def __call__(self, asked: Asked, output: Any) -> Tensor:
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
class Disagreements:
    rows: list[list[str]] = field(default_factory=list)

    def add(
        self,
        library: str,
        where: str,
        what: str,
        ours: tuple[str, Tensor],
        theirs: Tensor,
        like: tuple[str, Tensor] | None = None,
    ) -> None:
        name, maps = ours
        r = correlation(maps, theirs)
        size = difference(maps, theirs)
        shown = "nothing" if size <= SAME else f"{size:.2f}" if size >= 0.005 else f"{size:.0e}"
        cells = [name, library, where, what, shown, "none: a constant map" if np.isnan(r) else f"{r:.4f}"]
        self.rows.append([*cells, self.matched(theirs, like) if like else ""])
        print(*self.rows[-1], sep=" | ", file=os.sys.stderr, flush=True)  # type: ignore[attr-defined]

    @staticmethod
    def matched(theirs: Tensor, like: tuple[str, Tensor]) -> str:
        name, maps = like
        turned = difference(-maps, theirs) < difference(maps, theirs)
        size = difference(-maps if turned else maps, theirs)
        sign = ", turned" if turned else ""
        verdict = "equal to" if size <= 1e-3 else "within"
        return f"as {name}{sign}: {verdict} {size:.0e}"


def gradients(found: Disagreements, net: Net) -> None:
    late, early, middle, bare = "bn2", "blocks.1", "blocks.3", "conv_head"
    for name, theirs, ours in [("Grad-CAM", gc.GradCAM, "gradcam"), ("HiResCAM", gc.HiResCAM, "hirescam")]:
        found.add(
            "grad-cam",
            f"{net.name}, {middle}",
            "raw maps agree",
            (name, net.ours(ours, middle)),
            net.grad_cam(theirs, middle),
        )
    found.add(
        "torchcam",
        f"{net.name}, {middle}",
        "raw maps agree, but for being rectified",
        ("Grad-CAM", net.ours("gradcam", middle)),
        net.torchcam(tc.GradCAM, middle),
    )
    for layer in (late, early):
        ours = ("Grad-CAM++", net.ours("gradcam++", layer))
        what = "1e-6 in the denominator, beside g² that may be smaller"
        like = ("formula with 1e-6", net.ours(EpsGradCAMPlusPlus(), layer))
        found.add("grad-cam", f"{net.name}, {layer}", what, ours, net.grad_cam(gc.GradCAMPlusPlus, layer), like)
        what = "the division is done on a copy and lost: weights Σ relu(g)³"
        like = ("Σ relu(g)³", net.ours(CubedGradCAMPlusPlus(), layer))
        found.add("torchcam", f"{net.name}, {layer}", what, ours, net.torchcam(tc.GradCAMpp, layer), like)
    for layer in (late, bare):
        ours = ("XGrad-CAM", net.ours("xgradcam", layer))
        found.add(
            "grad-cam",
            f"{net.name}, {layer}",
            "agree (1e-7 added to the sum of activations shows where that is as small)",
            ours,
            net.grad_cam(gc.XGradCAM, layer),
        )
        found.add("torchcam", f"{net.name}, {layer}", "agree (1e-8 added)", ours, net.torchcam(tc.XGradCAM, layer))
    layer_cam = ("LayerCAM", net.ours("layercam", middle))
    found.add(
        "grad-cam", f"{net.name}, {middle}", "raw maps agree; no tanh", layer_cam, net.grad_cam(gc.LayerCAM, middle)
    )
    found.add(
        "torchcam",
        f"{net.name}, {middle}",
        "raw maps agree; tanh only when layers are fused",
        layer_cam,
        net.torchcam(tc.LayerCAM, middle),
    )
    found.add(
        "grad-cam",
        f"{net.name}, {middle}",
        "raw maps agree",
        ("Elementwise", net.ours("gradcamelementwise", middle)),
        net.grad_cam(gc.GradCAMElementWise, middle),
    )
    finer = ("Finer-CAM", net.ours("finercam", late))
    found.add(
        "torchcam", f"{net.name}, {late}", "raw maps agree (γ 0.6, uniform)", finer, net.torchcam(tc.FinerCAM, late)
    )
    theirs = net.grad_cam(gc.GradCAM, late, target=nearest_weighted(net))
    found.add(
        "grad-cam",
        f"{net.name}, {late}",
        "γ 1, rivals weighted by probabilities through which gradients flow",
        finer,
        theirs,
        ("this score", net.ours(LikelyFinerCAM(), late)),
    )
    shapley = ("ShapleyCAM", net.ours("shapleycam", late))
    found.add(
        "grad-cam",
        f"{net.name}, {late}",
        "follows the target it is given: for a logit there is no curvature",
        shapley,
        net.grad_cam(gc.ShapleyCAM, late),
        ("`gradcam`", net.ours("gradcam", late)),
    )
    found.add(
        "grad-cam",
        f"{net.name}, {late}",
        "raw maps agree, if given ClassifierOutputReST",
        shapley,
        net.grad_cam(gc.ShapleyCAM, late, target=ClassifierOutputReST(net.target)),
    )


def nearest_weighted(net: Net) -> FinerWeightedTarget:
    """What grad-cam's FinerCAM makes for itself."""
    with torch.inference_mode():
        scores = net.module(net.inputs)[0]
    order = (scores - scores[net.target]).abs().argsort()[:4].tolist()
    return FinerWeightedTarget(order[0], order[1:], 1)


def activations(found: Disagreements, net: Net) -> None:
    for layer in ("bn2", "blocks.3"):
        where = f"{net.name}, {layer}"
        what = "centred; sign left to chance"
        found.add(
            "grad-cam",
            where,
            what,
            ("Eigen-CAM", net.ours("eigencam", layer)),
            net.grad_cam(gc.EigenCAM, layer),
            ("`centered=True`", net.ours("eigencam(centered=True)", layer)),
        )
        ours = net.ours("eigengradcam", layer)
        found.add(
            "grad-cam",
            where,
            "sign left to chance",
            ("EigenGradCAM", ours),
            net.grad_cam(gc.EigenGradCAM, layer),
            ("the same", ours),
        )
        found.add(
            "grad-cam",
            where,
            "agree",
            ("Seg-Eigen-CAM", net.ours("segeigencam", layer)),
            net.grad_cam(gc.SegEigenCAM, layer),
        )
        found.add(
            "grad-cam", where, "agree", ("KPCA-CAM", net.ours("kpcacam", layer)), net.grad_cam(gc.KPCA_CAM, layer)
        )
        found.add(
            "grad-cam",
            where,
            "share of striking cells times A, for mean(A) times striking cells",
            ("FEM", net.ours("fem", layer)),
            net.grad_cam(gc.FEM, layer),
            ("share · A", net.ours(ShareFEM(), layer)),
        )
    found.add(
        "torchcam",
        f"{net.name}, bn2",
        "raw maps agree, signed",
        ("CAM", net.ours("cam", "bn2")),
        net.torchcam(tc.CAM, "bn2", fc_layer="classifier"),
    )


def masking(found: Disagreements, net: Net) -> None:
    layer = "blocks.3"
    where = f"{net.name}, {layer}"
    ours = ("Score-CAM", net.ours("scorecam", layer))
    softmax = "softmax over channels of logits, for the class's probability"
    found.add(
        "torchcam",
        where,
        f"{softmax}; masks made before resizing",
        ours,
        net.torchcam(tc.ScoreCAM, layer),
        ("`variant=torchcam`", net.ours("scorecam(variant=torchcam)", layer)),
    )
    found.add(
        "grad-cam",
        where,
        f"{softmax}; masks resized with aligned corners",
        ours,
        net.grad_cam(gc.ScoreCAM, layer),
        ("`variant=gradcam`", net.ours(ScoreCAM(variant="gradcam"), layer)),
    )
    found.add(
        "torchcam",
        where,
        f"{softmax}; factors add up to 5.5",
        ("IS-CAM", net.ours("iscam", layer)),
        net.torchcam(tc.ISCAM, layer),
        ("this formula", net.ours(TorchcamISCAM(), layer)),
    )
    torch.manual_seed(0)
    what = f"noise of 2 on masks in [0, 1]; {softmax} (5 samples each)"
    found.add(
        "torchcam",
        where,
        what,
        ("SS-CAM", net.ours("sscam(samples=5)", layer)),
        net.torchcam(tc.SSCAM, layer, num_samples=5),
    )
    torch.manual_seed(0)
    what = (
        "noise of 0.3 in the input's units, not of its range; relu of the last sample's gradient only (16 samples each)"
    )
    found.add(
        "torchcam",
        where,
        what,
        ("SmoothGradCAM++", net.ours("smoothgradcam++", layer)),
        net.torchcam(tc.SmoothGradCAMpp, layer, num_samples=16),
    )
    for place, what in [
        ("bn2", "agree (channels of a ReLU become 0)"),
        (layer, "signed channels become min(A) − 10⁷, not 0"),
    ]:
        like = None if place == "bn2" else ("this replacement", net.ours(FarAblation(), place))
        theirs = net.grad_cam(gc.AblationCAM, place)
        found.add(
            "grad-cam", f"{net.name}, {place}", what, ("Ablation-CAM", net.ours("ablationcam", place)), theirs, like
        )


def several_layers(found: Disagreements, net: Net, resnet: Net) -> None:
    layers = ["blocks.2", "blocks.4", "bn2"]
    where, size = f"{net.name}, {', '.join(layers)}", tuple(net.inputs.shape[2:])
    ours = ("RefineCAM", net.ours("refinecam", layers))
    found.add("grad-cam", where, "as its Grad-CAM++", ours, net.grad_cam_final(gc.RefineCAM, layers))
    found.add(
        "torchcam", where, "as its Grad-CAM++", ours, net.torchcam(tc.RefineCAM, layers, call={"target_shape": size})
    )
    based = ("RefineCAM of Grad-CAM", net.ours("refinecam(base=gradcam)", layers))
    found.add(
        "grad-cam",
        where,
        "agree, once the base does",
        based,
        net.grad_cam_final(gc.RefineCAM, layers, base_method=gc.GradCAM),
    )
    theirs = net.torchcam(tc.RefineCAM, layers, base_method=tc.GradCAM, call={"target_shape": size})
    found.add("torchcam", where, "not scaled again after resizing", based, theirs)
    with tc.LayerCAM(net.module, layers) as extractor:
        scores = net.module(net.inputs)
        fused = extractor.fuse_cams(extractor(net.target, scores), size)[0]
    found.add(
        "torchcam", where, "tanh on the last layer too", ("LayerCAM, fused", net.ours("layercamfusion", layers)), fused
    )
    ours = ("FullGrad", resnet.ours("fullgrad", ["layer4"]))
    what = "each channel min-maxed on its own, not a layer's together; resized with OpenCV"
    found.add("grad-cam", f"{resnet.name}", what, ours, resnet.grad_cam_final(gc.FullGrad, []))


def places(found: Disagreements, vgg: Net, uniform: Net, transformer: Net) -> None:
    layer = "features.18"
    ours = ("Grad-CAM", vgg.ours("gradcam", layer))
    what = "an in-place ReLU follows: the layer's output is overwritten before it is used"
    for library, theirs in [
        ("grad-cam", vgg.grad_cam(gc.GradCAM, layer)),
        ("torchcam", vgg.torchcam(tc.GradCAM, layer)),
    ]:
        found.add(
            library, f"{vgg.name}, {layer}", what, ours, theirs, ("mean(G) · relu(A)", vgg.ours(Overwritten(), layer))
        )
    ours = ("any", uniform.ours("gradcam", "conv"))
    what = "min-max of evidence that is the same everywhere: a blank map"
    found.add("grad-cam", uniform.name, what, ours, uniform.grad_cam_final(gc.GradCAM, ["conv"]))
    found.add("torchcam", uniform.name, what, ours, uniform.torchcam(tc.GradCAM, "conv", normalized=True))
    blocks = [f"encoder.layers.encoder_layer_{number}" for number in (10, 11)]
    theirs = transformer.torchcam(tc.LeGrad, blocks)
    found.add(
        "torchcam",
        transformer.name,
        "agree for the same blocks (mean for sum)",
        ("LeGrad", transformer.ours("legrad", blocks[-1])),
        theirs,
    )


@dataclass(frozen=True)
class Overwritten(Weighted):
    """Grad-CAM of what an in-place ReLU leaves of the layer."""

    def weights(self, at: Signals) -> Tensor:
        return at.gradients.flatten(2).mean(2)

    def __call__(self, at: Signals) -> Tensor:
        return weighted_sum(self.weights(at), at.activations.clamp(min=0))


def heading(net: Net) -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("seewhy", "grad-cam", "torchcam", "torch")
    )
    photo = PHOTO.name if PHOTO.exists() else "the sample coffee"
    return f"""# Where the libraries disagree

Written by `.venv-bench/bin/python benchmarks/disagreements.py > benchmarks/DISAGREEMENTS.md`; do not edit. {versions}.

Lite0 is the network in the package, on {photo}, class {net.target}; other networks have random weights and are given noise.
Maps are compared at the layer's own resolution (joined ones at the picture's size), rectified and divided by their maximum:
*max difference* of two such maps ("nothing": below {SAME:g}), *correlation* Pearson's. The last column computes the peer's
map with a setting of seewhy, or with the peer's formula written as a method in that script: where it says "equal", what
differs is the whole difference. Both libraries min-max their maps and grad-cam resizes with OpenCV before one sees them."""


def main() -> None:
    found = Disagreements()
    net = lite0()
    gradients(found, net)
    activations(found, net)
    masking(found, net)
    several_layers(found, net, of_noise("ResNet-18", NETS["ResNet-18, calibrated"]()))
    places(
        found,
        of_noise("VGG-11", NETS["VGG-11"]()),
        Net("uniform evidence", Uniform(), torch.ones(1, 3, 8, 8), 0),
        vit(),
    )
    print(heading(net), markdown(HEADER, found.rows), sep="\n\n")


if __name__ == "__main__":
    main()
