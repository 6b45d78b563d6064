"""Time of maps as a multiple of the bare forward pass: all layers, one late layer, six methods, five classes."""

from __future__ import annotations

from functools import partial

import contenders as run
import seewhy
from nets import NETS, conv_names, images, top_classes
from race import Job, Times, race
from results import Aim, Report, Table

HEADER = ["contender", "median ms", "times the bare forward (quartiles)"]
NOTE = (
    "All contenders run in one process, in a new random order each round; ratios are computed within each round. *bare* is "
    "the same network on the same batch under `torch.inference_mode()`."
)
BATCHES = [1, 8]
FIVE_CLASSES = [654, 829, 281, 967, 1]
LATE_LIMIT = {1: 1.08, 8: 1.05}


def table(title: str, times: Times) -> Table:
    rows = [[name, f"{1000 * times.median(name):.1f}", str(times.ratio(name, "bare"))] for name in times.seconds]
    return Table(title, HEADER, rows, NOTE)


def aim(title: str, times: Times, to: str, limit: float) -> Aim:
    return Aim(f"{title}: seewhy / {to}", times.ratio("seewhy", to).median, limit)


def every_layer(net_name: str, batch: int, rounds: int) -> Report:
    """Separate maps of all convolutions. Contenders that loop run once: they take as long as all others together."""
    net, inputs = NETS[net_name](), images(batch)
    layers, classes = conv_names(net), top_classes(net, inputs)
    jobs: dict[str, Job] = {
        "bare": partial(run.bare, net, inputs),
        "seewhy": partial(seewhy.explain, net, inputs, methods="gradcam", layers="every"),
        "torchcam": partial(run.torchcam_maps, net, inputs, layers),
    }
    loops: dict[str, Job] = {
        "grad-cam (loop, once)": partial(run.grad_cam_maps, net, inputs, layers, classes),
        "captum (loop, once)": partial(run.captum_maps, net, inputs, layers, classes),
    }
    times = race(jobs | (loops if batch == 1 else {}), rounds, once=frozenset(loops))
    title = f"{net_name}, all {len(layers)} conv layers, batch {batch}"
    return Report([table(title, times)], [aim(title, times, "torchcam", 1.0)])


def late_layer(batch: int, rounds: int) -> Report:
    net, inputs = NETS["ResNet-18"](), images(batch)
    layers, classes = ["layer4"], top_classes(net, inputs)
    jobs: dict[str, Job] = {
        "bare": partial(run.bare, net, inputs),
        "seewhy": partial(seewhy.explain, net, inputs, methods="gradcam", layers="layer4"),
        "torchcam": partial(run.torchcam_maps, net, inputs, layers),
        "grad-cam": partial(run.grad_cam_maps, net, inputs, layers, classes),
        "captum": partial(run.captum_maps, net, inputs, layers, classes),
    }
    times = race(jobs, rounds)
    title = f"ResNet-18, layer4 by name, batch {batch}"
    return Report([table(title, times)], [aim(title, times, "bare", LATE_LIMIT[batch])])


def six_methods(rounds: int) -> Report:
    net, inputs = NETS["ResNet-18"](), images(1)
    jobs: dict[str, Job] = {
        "bare": partial(run.bare, net, inputs),
        "seewhy": partial(seewhy.explain, net, inputs, methods=run.SIX_METHODS, layers="every"),
    }
    times = race(jobs, rounds)
    title = "ResNet-18, six gradient methods, all 20 conv layers, batch 1"
    return Report([table(title, times)], [aim(title, times, "bare", 2.8)])


def five_classes(rounds: int) -> Report:
    net, inputs = NETS["ResNet-18"](), images(1)
    layers = conv_names(net)
    jobs: dict[str, Job] = {
        "bare": partial(run.bare, net, inputs),
        "seewhy": partial(seewhy.explain, net, inputs, methods="gradcam", layers="every", targets=FIVE_CLASSES),
        "torchcam (one forward, `retain_graph`)": partial(run.torchcam_classes, net, inputs, layers, FIVE_CLASSES),
    }
    times = race(jobs, rounds)
    title = "ResNet-18, five classes, all 20 conv layers, batch 1"
    return Report([table(title, times)], [aim(title, times, "bare", 6.0)])


def measure(rounds: int) -> Report:
    report = Report()
    for net_name in ("ResNet-18", "Lite0"):
        for batch in BATCHES:
            report += every_layer(net_name, batch, rounds)
    for batch in BATCHES:
        report += late_layer(batch, rounds)
    report += six_methods(rounds)
    report += five_classes(rounds)
    return report
