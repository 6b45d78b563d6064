"""Time of maps as a multiple of the bare forward pass: all layers, the suggested layer, six methods, five classes."""

from __future__ import annotations

from functools import partial

import contenders as run
import seewhy
from nets import ALL_LAYERS, NETS, WITH_BATCH_NORM, images, layers_of, top_classes
from race import Job, Times, race
from results import Aim, Report, Table

HEADER = ["contender", "median ms", "times the bare forward (quartiles)"]
NOTE = (
    "All contenders run in one process, in a new random order each round; ratios are computed within each round. *bare* is "
    "the same network on the same batch under `torch.inference_mode()`; *once*: ran in the first round only. The process keeps "
    "freed memory (see `run.py`), for all contenders."
)
FIVE_CLASSES = [654, 829, 281, 967, 1]
PREPARED, BF16 = "seewhy, prepared", "seewhy, prepared in bf16"
ALL_LAYERS_AIMS = {("ResNet-18", 1): 1.8, ("ResNet-18", 8): 1.75, ("Lite0", 1): 2.3, ("Lite0", 8): 2.1}
BF16_AIMS = {("ResNet-18", 1): 1.2, ("ResNet-18", 8): 1.0}
SUGGESTED_AIMS = {("ResNet-18", 1): 1.0, ("ResNet-18", 8): 0.9, ("Lite0", 1): 0.9, ("Lite0", 8): 0.72}
SUGGESTED_BF16_AIMS = {("ResNet-18", 8): 0.55, ("Lite0", 8): 0.45}
SLOW_LOOP = 60  # layers; contenders that need a pass for each run on smaller networks only


def summarize(title: str, times: Times, note: str = "") -> Report:
    rows = [[name, f"{1000 * times.median(name):.1f}", str(times.ratio(name, "bare"))] for name in times.seconds]
    ratios = {name: round(times.ratio(name, "bare").median, 3) for name in times.seconds if name != "bare"}
    return Report([Table(title, HEADER, rows, " ".join(filter(None, [NOTE, note])))], ratios={title: ratios})


def aim(title: str, times: Times, name: str, to: str, limit: float) -> Aim:
    return Aim(f"{title}: {name} / {to}", times.ratio(name, to).median, limit)


def every_layer(net_name: str, batch: int, rounds: int) -> Report:
    """Separate maps of all convolutions. Contenders that loop run once: they take as long as all others together."""
    net, inputs = NETS[net_name](), images(batch)
    layers, classes = layers_of(net), top_classes(net, inputs)
    jobs: dict[str, Job] = {"bare": partial(run.bare, net, inputs)}
    jobs |= run.seewhy_jobs(net, inputs, methods="gradcam", layers="every")
    is_transformer = net_name in ("ViT-S", "Swin-T")
    jobs["torchcam"] = partial(run.torchcam_maps, net, inputs, layers)
    loops: dict[str, Job] = {}
    if batch == 1 and len(layers) <= SLOW_LOOP and not is_transformer:
        loops = {
            "grad-cam (loop, once)": partial(run.grad_cam_maps, net, inputs, layers, classes),
            "captum (loop, once)": partial(run.captum_maps, net, inputs, layers, classes),
        }
    times = race(jobs | loops, rounds, once=frozenset(loops))
    title = f"{net_name}, all {len(layers)} layers, batch {batch}"
    note = (
        "torchcam takes the tokens for channels: its time, but not its maps, can be compared." if is_transformer else ""
    )
    report = summarize(title, times, note)
    report.aims.append(aim(title, times, PREPARED, "torchcam", 1.0))
    limit = ALL_LAYERS_AIMS.get((net_name, batch), 2.0 if net_name in WITH_BATCH_NORM else None)
    if limit is not None:
        report.aims.append(aim(title, times, PREPARED, "bare", limit))
    if (net_name, batch) in BF16_AIMS:
        report.aims.append(aim(title, times, BF16, "bare", BF16_AIMS[net_name, batch]))
    return report


def suggested_layer(net_name: str, batch: int, rounds: int) -> Report:
    """The default: one map, at the suggested layer, which is known from the call before. The peers get its name."""
    net, inputs = NETS[net_name](), images(batch)
    layers, classes = list(seewhy.explain(net, inputs).layers), top_classes(net, inputs)
    jobs: dict[str, Job] = {"bare": partial(run.bare, net, inputs)}
    jobs |= run.seewhy_jobs(net, inputs, methods="gradcam", layers="suggested")
    jobs |= {
        "torchcam": partial(run.torchcam_maps, net, inputs, layers),
        "grad-cam": partial(run.grad_cam_maps, net, inputs, layers, classes),
        "captum": partial(run.captum_maps, net, inputs, layers, classes),
    }
    times = race(jobs, rounds)
    title = f"{net_name}, the suggested layer ({layers[0]}), batch {batch}"
    report = summarize(title, times)
    report.aims += [aim(title, times, PREPARED, peer, 1.0) for peer in ("torchcam", "grad-cam", "captum")]
    report.aims.append(aim(title, times, PREPARED, "bare", SUGGESTED_AIMS[net_name, batch]))
    if (net_name, batch) in SUGGESTED_BF16_AIMS:
        report.aims.append(aim(title, times, BF16, "bare", SUGGESTED_BF16_AIMS[net_name, batch]))
    return report


def six_methods(rounds: int) -> Report:
    net, inputs = NETS["ResNet-18"](), images(1)
    jobs: dict[str, Job] = {"bare": partial(run.bare, net, inputs)}
    jobs |= run.seewhy_jobs(net, inputs, methods=run.SIX_METHODS, layers="every")
    times = race(jobs, rounds)
    title = "ResNet-18, six gradient methods, all 20 layers, batch 1"
    report = summarize(title, times)
    report.aims.append(aim(title, times, PREPARED, "bare", 2.4))
    return report


def five_classes(rounds: int) -> Report:
    net, inputs = NETS["ResNet-18"](), images(1)
    layers = layers_of(net)
    jobs: dict[str, Job] = {"bare": partial(run.bare, net, inputs)}
    jobs |= run.seewhy_jobs(net, inputs, methods="gradcam", layers="every", targets=FIVE_CLASSES)
    jobs["torchcam (one forward, `retain_graph`)"] = partial(run.torchcam_classes, net, inputs, layers, FIVE_CLASSES)
    times = race(jobs, rounds)
    title = "ResNet-18, five classes, all 20 layers, batch 1"
    report = summarize(title, times)
    report.aims.append(aim(title, times, PREPARED, "torchcam (one forward, `retain_graph`)", 1.0))
    report.aims.append(aim(title, times, PREPARED, "bare", 5.0))
    report.aims.append(aim(title, times, BF16, "bare", 3.0))
    return report


def measure(rounds: int, batches: list[int]) -> Report:
    report = Report()
    for net_name in ALL_LAYERS:
        for batch in batches:
            report += every_layer(net_name, batch, rounds if batch < 32 else max(1, rounds // 4))
    for net_name in ("ResNet-18", "Lite0"):
        for batch in (1, 8):
            report += suggested_layer(net_name, batch, 2 * rounds)
    report += six_methods(2 * rounds)
    report += five_classes(2 * rounds)
    return report
