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
from nets import NETS, conv_names, images
from race import Job, Times, race
from results import Aim, Report, Table
from seewhy.methods import ScoreCAM

NET = "ResNet-18, calibrated"
ALL = [
    "gradcam", "hirescam", "layercam", "gradcam++", "xgradcam", "gradcamelementwise", "eigengradcam", "segeigencam",
    "eigencam", "fem", "lafam", "randomcam",
]  # fmt: skip
MEMORY_LIMIT = 381.0  # MiB: 400 MB
NOTE = (
    "ResNet-18, batch 1, 224x224. All contenders run in one process, in a new random order each round; ratios are computed "
    "within each round. *bare* is the same network under `torch.inference_mode()`; *once*: ran in the first round only."
)


def table(title: str, times: Times, note: str = "") -> Table:
    header = ["contender", "median ms", "times the bare forward (quartiles)"]
    rows = [[name, f"{1000 * times.median(name):.1f}", str(times.ratio(name, "bare"))] for name in times.seconds]
    return Table(title, header, rows, " ".join(filter(None, [NOTE, note])))


def aim(promise: str, times: Times, name: str, to: str, limit: float) -> Aim:
    return Aim(f"{promise}: {name} / {to}", times.ratio(name, to).median, limit)


def setup() -> tuple[nn.Module, Tensor, Job]:
    net, inputs = NETS[NET](), images(1)
    return net, inputs, partial(run.bare, net, inputs)


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
        "ablationcam": partial(run.seewhy_methods, net, inputs, "ablationcam", "layer4"),
        "ablationcam, head hidden": partial(run.seewhy_methods, hidden, inputs, "ablationcam", "layer4"),
        "reciprocam(score=logit)": partial(run.seewhy_methods, net, inputs, "reciprocam(score=logit)", "layer4"),
        "cam": partial(run.seewhy_methods, net, inputs, "cam", "layer4"),
        "eigencam": partial(run.seewhy_methods, net, inputs, "eigencam", "layer4"),
        "eigengradcam": partial(run.seewhy_methods, net, inputs, "eigengradcam", "layer4"),
        "torchcam, CAM": partial(run.torchcam_probing, TorchCAMCAM, net, inputs, ["layer4"], fc_layer="fc"),
        "grad-cam, EigenCAM": partial(run.grad_cam_method, GradCAMEigenCAM, net, inputs, ["layer4"]),
    }
    times = race(jobs | once, rounds, once=frozenset(once))
    title = "Methods that need one forward, layer4"
    limits = dict.fromkeys(["ablationcam", "reciprocam(score=logit)", "cam"], 1.2)
    limits |= dict.fromkeys(["eigencam", "eigengradcam"], 1.3)
    aims = [aim("layer4", times, name, "bare", limit) for name, limit in limits.items()]
    for method in ("ablationcam", "reciprocam(score=logit)"):
        error = closed_form_error(method, *setup()[:2])
        promise = (
            f"layer4, {method}: closed form / extra forward passes, largest difference as a fraction of the maximum"
        )
        aims.append(Aim(promise, error / 1e-5, 1.0, "times 1e-5"))
    return Report(
        [
            table(
                title,
                times,
                "*head hidden*: the same network with extra forward passes for each channel, as if no closed form existed.",
            )
        ],
        aims,
    )


def middle_layer(rounds: int) -> Report:
    """Measure a layer without closed form: only the layers after it run again."""
    net, inputs, bare = setup()
    once: dict[str, Job] = {
        "grad-cam, AblationCAM (once)": partial(run.grad_cam_method, GradCAMAblationCAM, net, inputs, ["layer3"])
    }
    ours: dict[str, Job] = {"ablationcam": partial(run.seewhy_methods, net, inputs, "ablationcam", "layer3")}
    times = race({"bare": bare, **ours, **once}, rounds, once=frozenset(once), long=frozenset(ours))
    promise = "layer3"
    aims = [aim(promise, times, "ablationcam", name, 0.5) for name in once]
    return Report([table("AblationCAM at layer3 (256 channels, 14x14)", times)], aims)


def early_layer(rounds: int) -> Report:
    net, inputs, bare = setup()
    jobs: dict[str, Job] = {
        "bare": bare,
        "eigencam": partial(run.seewhy_methods, net, inputs, "eigencam", "layer1"),
    }
    peers: dict[str, Job] = {
        "grad-cam, EigenCAM": partial(run.grad_cam_method, GradCAMEigenCAM, net, inputs, ["layer1"])
    }
    times = race(jobs | peers, rounds, long=frozenset(peers))
    return Report([table("Eigen-CAM at layer1 (64 channels, 56x56)", times)])


def score_cam(rounds: int) -> Report:
    net, inputs, bare = setup()
    variants = [ScoreCAM(), ScoreCAM(variant="torchcam"), ScoreCAM(variant="gradcam")]
    ours: dict[str, Job] = {str(one): partial(run.seewhy_methods, net, inputs, one, "layer4") for one in variants}
    peers: dict[str, Job] = {
        "torchcam, ScoreCAM": partial(run.torchcam_probing, TorchCAMScoreCAM, net, inputs, ["layer4"]),
        "grad-cam, ScoreCAM": partial(run.grad_cam_method, GradCAMScoreCAM, net, inputs, ["layer4"]),
    }
    times = race({"bare": bare, **ours, **peers}, rounds, long=frozenset(ours | peers))
    pairs = [
        ("scorecam", "torchcam, ScoreCAM"),
        ("scorecam", "grad-cam, ScoreCAM"),
        ("scorecam(variant=torchcam)", "torchcam, ScoreCAM"),
        ("scorecam(variant=gradcam)", "grad-cam, ScoreCAM"),
    ]
    aims = [aim("layer4", times, name, peer, 0.9) for name, peer in pairs]
    return Report([table("Score-CAM at layer4 (512 channels)", times)], aims)


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
        "refinecam": partial(run.seewhy_methods, net, inputs, "refinecam", layers),
        "torchcam, RefineCAM": partial(
            run.torchcam_method, TorchCAMRefineCAM, net, inputs, layers, call={"target_shape": (224, 224)}
        ),
    }
    peers: dict[str, Job] = {"grad-cam, RefineCAM": partial(run.grad_cam_method, GradCAMRefineCAM, net, inputs, layers)}
    times = race(jobs | peers, rounds, long=frozenset(peers))
    title = f"RefineCAM over all {len(layers)} conv layers"
    aims = [aim(f"{len(layers)} layers", times, "refinecam", "bare", 2.5)]
    return Report([table(title, times, "grad-cam runs one forward and one backward pass per layer.")], aims)


def all_at_once(rounds: int) -> Report:
    net, inputs, bare = setup()
    layers = conv_names(net)
    jobs: dict[str, Job] = {
        "bare": bare,
        "gradcam alone": partial(run.seewhy_methods, net, inputs, "gradcam", layers),
        f"{len(ALL)} methods": partial(run.seewhy_methods, net, inputs, ALL, layers),
    }
    times = race(jobs, rounds)
    title = f"{len(ALL)} methods at all {len(layers)} conv layers in one call"
    note = f"{', '.join(ALL)}. *cam* supports none of these layers: a ReLU and a skip connection lie between them and the head."
    aims = [aim(f"{len(layers)} layers", times, f"{len(ALL)} methods", "bare", 4.0)]
    return Report([table(title, times, note)], aims)


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
    return Report([table(f"Methods with additional computation, all {len(layers)} conv layers", times, note)])


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
