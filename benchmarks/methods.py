"""Cost of the methods: with one forward pass, with extra forward passes, and all at once.

All measurements use ResNet-18 at batch 1, with layers given by name, so no time is spent on suggesting one. Times are
multiples of the bare forward pass, or of a peer that computes the same map.
"""

from __future__ import annotations

from functools import partial

from pytorch_grad_cam import KPCA_CAM as GradCAMKPCACAM
from pytorch_grad_cam import AblationCAM as GradCAMAblationCAM
from pytorch_grad_cam import EigenCAM as GradCAMEigenCAM
from pytorch_grad_cam import RefineCAM as GradCAMRefineCAM
from pytorch_grad_cam import ScoreCAM as GradCAMScoreCAM
from pytorch_grad_cam import ShapleyCAM as GradCAMShapleyCAM
from torch import Tensor, nn
from torchcam.methods import CAM as TorchCAMCAM
from torchcam.methods import RefineCAM as TorchCAMRefineCAM
from torchcam.methods import ScoreCAM as TorchCAMScoreCAM

import contenders as run
import memory
import seewhy
from engine import aim, summarize
from nets import NETS, conv_names, images
from race import Job, race
from results import Aim, Report, Table
from seewhy.methods import ScoreCAM

NET = "ResNet-18, calibrated"
ALL = [
    "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise", "eigengradcam", "segeigencam",
    "eigencam", "fem", "lafam", "randomcam",
]  # fmt: skip
MEMORY_LIMIT = 381.0  # MiB: 400 MB


def setup() -> tuple[nn.Module, Tensor, Job]:
    net, inputs = NETS[NET](), images(1)
    return net, inputs, partial(run.bare, net, inputs)


def ours(net: nn.Module, inputs: Tensor, methods: dict[str, object], layers: object) -> dict[str, Job]:
    """Return each method as two jobs: with the model as given, and prepared."""
    prepared = seewhy.prepare(net)
    seewhy.explain(prepared, inputs, layers="every")  # the first call prepares it
    jobs: dict[str, Job] = {}
    for name, method in methods.items():
        jobs[name] = partial(run.seewhy_methods, net, inputs, method, layers)
        jobs[f"{name}, prepared"] = partial(run.seewhy_methods, prepared, inputs, method, layers)
    return jobs


def named(*names: str) -> dict[str, object]:
    return {name: name for name in names}


def without_head(net: nn.Module) -> nn.Module:
    """Replace the linear layer of `net` by an equal 1x1 convolution, so that no closed form applies. Changes `net`."""
    linear = net.get_submodule("fc")
    assert isinstance(linear, nn.Linear)
    head = nn.Conv2d(linear.in_features, linear.out_features, 1)
    head.weight.data, head.bias.data = linear.weight.data[:, :, None, None], linear.bias.data
    net.fc = nn.Sequential(nn.Unflatten(1, (-1, 1, 1)), head, nn.Flatten())
    return net.eval()


def closed_form_error(method: str, net: nn.Module, inputs: Tensor) -> float:
    """Return the difference between closed form and extra forward passes in float64, as a fraction of the map's maximum."""
    hidden = without_head(NETS[NET]().double())
    with_form = run.seewhy_methods(net.double(), inputs.double(), method, "layer4").map()
    with_passes = run.seewhy_methods(hidden, inputs.double(), method, "layer4").map()
    return float((with_form - with_passes).abs().max() / with_passes.abs().max())


def late_layer(rounds: int) -> Report:
    """Methods that need no gradient, before mean pooling and a linear head: a forward, and then arithmetic."""
    net, inputs, bare = setup()
    hidden = without_head(NETS[NET]())
    once: dict[str, Job] = {
        "grad-cam, AblationCAM (once)": partial(run.grad_cam_method, GradCAMAblationCAM, net, inputs, ["layer4"])
    }
    jobs: dict[str, Job] = {
        "bare": bare,
        "ablationcam, head hidden": partial(run.seewhy_methods, hidden, inputs, "ablationcam", "layer4"),
        "torchcam, CAM": partial(run.torchcam_probing, TorchCAMCAM, net, inputs, ["layer4"], fc_layer="fc"),
        "grad-cam, EigenCAM": partial(run.grad_cam_method, GradCAMEigenCAM, net, inputs, ["layer4"]),
    }
    limits = dict.fromkeys(["ablationcam", "reciprocam(score=logit)", "cam"], 1.2)
    limits |= dict.fromkeys(["eigencam", "eigengradcam"], 1.3)
    jobs |= ours(net, inputs, named(*limits), "layer4")
    times = race(jobs | once, rounds, once=frozenset(once))
    title = "Methods that need one forward, layer4"
    aims = [aim("layer4", times, f"{name}, prepared", "bare", limit) for name, limit in limits.items()]
    for method in ("ablationcam", "reciprocam(score=logit)"):
        error = closed_form_error(method, *setup()[:2])
        promise = (
            f"layer4, {method}: closed form / extra forward passes, largest difference as a fraction of the maximum"
        )
        aims.append(Aim(promise, error / 1e-5, 1.0, "times 1e-5"))
    note = "*head hidden*: the same network with extra forward passes for each channel, as if no closed form existed."
    report = summarize(title, times, note)
    report.aims += aims
    return report


def middle_layer(rounds: int) -> Report:
    """Measure a layer without closed form: only the layers after it run again."""
    net, inputs, bare = setup()
    peer = "grad-cam, AblationCAM (once)"
    once: dict[str, Job] = {peer: partial(run.grad_cam_method, GradCAMAblationCAM, net, inputs, ["layer3"])}
    own = ours(net, inputs, named("ablationcam"), "layer3")
    times = race({"bare": bare, **own, **once}, rounds, once=frozenset(once), long=frozenset(own))
    report = summarize("AblationCAM at layer3 (256 channels, 14x14)", times)
    report.aims.append(aim("layer3", times, "ablationcam, prepared", peer, 0.5))
    return report


def early_layer(rounds: int) -> Report:
    net, inputs, bare = setup()
    jobs: dict[str, Job] = {"bare": bare, **ours(net, inputs, named("eigencam"), "layer1")}
    peers: dict[str, Job] = {
        "grad-cam, EigenCAM": partial(run.grad_cam_method, GradCAMEigenCAM, net, inputs, ["layer1"])
    }
    times = race(jobs | peers, rounds, long=frozenset(peers))
    return summarize("Eigen-CAM at layer1 (64 channels, 56x56)", times)


def score_cam(rounds: int) -> Report:
    net, inputs, bare = setup()
    variants = [ScoreCAM(), ScoreCAM(variant="torchcam"), ScoreCAM(variant="gradcam")]
    own = ours(net, inputs, {str(one): one for one in variants}, "layer4")
    half = seewhy.prepare(net, precision="bf16")
    seewhy.explain(half, inputs, layers="every")
    own["scorecam, prepared in bf16"] = partial(run.seewhy_methods, half, inputs, "scorecam", "layer4")
    torchcam, grad_cam = "torchcam, ScoreCAM", "grad-cam, ScoreCAM"
    peers: dict[str, Job] = {
        torchcam: partial(run.torchcam_probing, TorchCAMScoreCAM, net, inputs, ["layer4"]),
        grad_cam: partial(run.grad_cam_method, GradCAMScoreCAM, net, inputs, ["layer4"]),
    }
    times = race({"bare": bare, **own, **peers}, rounds, long=frozenset(own | peers))
    limits = [
        ("scorecam, prepared", torchcam, 0.7),
        ("scorecam, prepared in bf16", torchcam, 0.4),
        ("scorecam, prepared", grad_cam, 0.9),
        ("scorecam(variant=torchcam), prepared", torchcam, 0.9),
        ("scorecam(variant=gradcam), prepared", grad_cam, 0.9),
    ]
    report = summarize("Score-CAM at layer4 (512 channels)", times)
    report.aims += [aim("layer4", times, name, peer, limit) for name, peer, limit in limits]
    return report


def score_cam_memory() -> Report:
    found = {name: memory.peak(name, "ResNet-18", 1, 1) for name in memory.SCORE_CAM}
    rows = [[name, f"{value:.0f}"] for name, value in found.items()]
    note = "MiB above the model and the inputs, in a fresh process; measured in the second call, as in *Peak memory*."
    aims = [Aim("layer4, scorecam: peak memory above the model", found["seewhy, ScoreCAM"], MEMORY_LIMIT, "MiB")]
    return Report([Table("Peak memory of Score-CAM at layer4", ["contender", "MiB"], rows, note)], aims)


def joined(rounds: int) -> Report:
    net, inputs, bare = setup()
    layers = conv_names(net)
    jobs: dict[str, Job] = {
        "bare": bare,
        **ours(net, inputs, named("refinecam"), layers),
        "torchcam, RefineCAM": partial(
            run.torchcam_method, TorchCAMRefineCAM, net, inputs, layers, call={"target_shape": (224, 224)}
        ),
    }
    peers: dict[str, Job] = {"grad-cam, RefineCAM": partial(run.grad_cam_method, GradCAMRefineCAM, net, inputs, layers)}
    times = race(jobs | peers, rounds, long=frozenset(peers))
    note = "grad-cam runs one forward and one backward pass per layer."
    report = summarize(f"RefineCAM over all {len(layers)} conv layers", times, note)
    report.aims.append(aim(f"{len(layers)} layers", times, "refinecam, prepared", "bare", 2.5))
    return report


def all_at_once(rounds: int) -> Report:
    net, inputs, bare = setup()
    layers, together = conv_names(net), f"{len(ALL)} methods"
    jobs: dict[str, Job] = {"bare": bare, **ours(net, inputs, {"gradcam alone": "gradcam", together: ALL}, layers)}
    times = race(jobs, rounds)
    title = f"{together} at all {len(layers)} conv layers in one call"
    note = f"{', '.join(ALL)}. *cam* supports none of these layers: a ReLU and a skip connection lie between them and the head."
    report = summarize(title, times, note)
    report.aims.append(aim(f"{len(layers)} layers", times, f"{together}, prepared", "bare", 4.0))
    return report


def dear_ones(rounds: int) -> Report:
    """Measure methods with additional passes or decompositions, without a performance target."""
    net, inputs, bare = setup()
    layers = conv_names(net)
    small = [name for name in layers if name.startswith(("layer2", "layer3", "layer4"))]
    dear = ["shapleycam", "finercam", "guidedgradcam", "deepfeaturefactorization"]
    jobs: dict[str, Job] = {"bare": bare}
    jobs |= {name: partial(run.seewhy_methods, net, inputs, name, layers) for name in dear}
    loops: dict[str, Job] = {
        f"kpcacam, the {len(small)} of at most 28x28": partial(run.seewhy_methods, net, inputs, "kpcacam", small),
        f"grad-cam, KPCA_CAM, the {len(small)} (loop)": partial(each_layer, GradCAMKPCACAM, net, inputs, small),
        f"grad-cam, ShapleyCAM, all {len(layers)} (loop)": partial(each_layer, GradCAMShapleyCAM, net, inputs, layers),
    }
    times = race(jobs | loops, rounds, long=frozenset(loops))
    note = (
        "kpcacam computes the eigenvectors of a cells-by-cells matrix: 12,544 x 12,544 at conv1, which is skipped here."
    )
    return summarize(f"Methods with additional computation, all {len(layers)} conv layers", times, note)


def each_layer(method: object, net: nn.Module, inputs: Tensor, layers: list[str]) -> None:
    for name in layers:
        run.grad_cam_method(method, net, inputs, [name])  # type: ignore[arg-type]


def measure(rounds: int) -> Report:
    few = max(1, rounds // 5)  # of what takes seconds
    report = late_layer(rounds)
    report += middle_layer(few)
    report += early_layer(few)
    report += score_cam(few)
    report += score_cam_memory()
    report += joined(max(1, rounds // 2))
    report += all_at_once(rounds)
    report += dear_ones(few)
    return report
