"""Memory of the all-layer pass above the model and its inputs, and memory growth over 1,000 calls.

Each value comes from a fresh process. Linux stores a process's peak resident size (VmHWM) and resets it when 5 is written to
`clear_refs`, so the peak is that of one call. SETTINGS makes glibc return freed blocks immediately, for all contenders:
otherwise the peak would include its caches.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from results import Aim, Report, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

SETTINGS = {
    "TQDM_DISABLE": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}
LIMITED = ["ResNet-18", "Lite0"]  # have performance targets; for the others, the cost of correct maps is reported
CONTENDERS = ["bare", "seewhy", "seewhy, prepared", "torchcam"]
SCORE_CAM = ["seewhy, ScoreCAM", "torchcam, ScoreCAM", "grad-cam, ScoreCAM"]
BATCHES = [1, 8]
GROWTH_LIMIT = 2.0  # MiB in 900 calls: normal fluctuation of the resident size


def status(field: str) -> float:
    """Return a field of this process's /proc status, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def settle() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def peak_of(job: Callable[[], object]) -> float:
    settle()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    job()
    return status("VmHWM") - before


def job_of(contender: str, net_name: str, batch: int, size: int = 224) -> Callable[[], object]:
    import contenders as run
    import seewhy
    from nets import NETS, conv_names, images

    net, inputs = NETS[net_name](), images(batch, size)
    if contender in SCORE_CAM:
        return score_cam(contender, net, inputs)
    return {
        "bare": partial(run.bare, net, inputs),
        "seewhy": partial(seewhy.explain, net, inputs, methods="gradcam", layers="every"),
        "seewhy, prepared": partial(seewhy.explain, seewhy.prepare(net), inputs, methods="gradcam", layers="every"),
        "torchcam": partial(run.torchcam_maps, net, inputs, conv_names(net)),
    }[contender]


def score_cam(contender: str, net: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """Score-CAM at the last stage of a ResNet: as many forwards as it has channels, and masks to keep or not to keep."""
    from pytorch_grad_cam import ScoreCAM as GradCAMScoreCAM
    from torchcam.methods import ScoreCAM as TorchCAMScoreCAM

    import contenders as run

    return {
        "seewhy, ScoreCAM": partial(run.seewhy_methods, net, inputs, "scorecam", "layer4"),
        "torchcam, ScoreCAM": partial(run.torchcam_probing, TorchCAMScoreCAM, net, inputs, ["layer4"]),
        "grad-cam, ScoreCAM": partial(run.grad_cam_method, GradCAMScoreCAM, net, inputs, ["layer4"]),
    }[contender]


def child_peak(contender: str, net_name: str, batch: str) -> float:
    """The second call: the first also loads code and makes oneDNN's kernels, which stay and are paid for once."""
    job = job_of(contender, net_name, int(batch))
    job()
    return peak_of(job)


def child_growth(contender: str) -> list[float]:
    """Resident size and live tensors after 100 and after 1,000 calls."""
    job = job_of(contender, "tiny", 1, size=32)
    figures: list[float] = []
    for calls in (100, 900):
        for _ in range(calls):
            job()
        settle()
        figures += [status("VmRSS"), live_tensors()]
    return figures


def live_tensors() -> int:
    import torch

    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def in_child(*arguments: str) -> list[float]:
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.check_output(command, env=os.environ | SETTINGS, text=True).splitlines()[-1])


def peak(contender: str, net_name: str, batch: int, rounds: int) -> float:
    return statistics.median(in_child("peak", contender, net_name, str(batch))[0] for _ in range(rounds))


def peaks(rounds: int) -> Report:
    rows, aims = [], []
    for net_name in ["ResNet-18", "Lite0", "VGG-11", "DenseNet-121"]:
        for batch in BATCHES:
            found = {contender: peak(contender, net_name, batch, rounds) for contender in CONTENDERS}
            ratios = {name: found[name] / found["torchcam"] for name in ("seewhy", "seewhy, prepared")}
            rows.append([net_name, str(batch), *(f"{value:.1f}" for value in found.values())])
            rows[-1] += [f"{ratio:.2f}" for ratio in ratios.values()]
            if net_name in LIMITED:
                title = f"{net_name}, all conv layers, batch {batch}: peak memory"
                aims += [Aim(f"{title}, {name} / torchcam", ratio, 1.0) for name, ratio in ratios.items()]
    note = (
        "MiB above the model and the inputs, all conv layers, median of fresh processes. VGG-11 overwrites its conv "
        "outputs in place: torchcam keeps no copy and is wrong there, so that the ratio is the price of being right."
    )
    return Report(
        [Table("Peak memory", ["net", "batch", *CONTENDERS, "seewhy / torchcam", "prepared / torchcam"], rows, note)],
        aims,
    )


def growth() -> Report:
    rows, aims = [], []
    for contender in ("seewhy", "seewhy, prepared", "torchcam"):
        early, early_tensors, late, late_tensors = in_child("growth", contender)
        rows.append([contender, f"{early:.1f}", f"{late:.1f}", f"{early_tensors:.0f}", f"{late_tensors:.0f}"])
        if contender == "seewhy":
            aims.append(Aim("1,000 calls: growth after the first 100", late - early, GROWTH_LIMIT, "MiB"))
            aims.append(
                Aim("1,000 calls: additional tensors after the first 100", late_tensors - early_tensors, 0, "tensors")
            )
    header = ["contender", "MiB after 100", "MiB after 1,000", "tensors after 100", "tensors after 1,000"]
    return Report([Table("1,000 calls (a network with two convolutions, 32x32)", header, rows)], aims)


def measure(rounds: int) -> Report:
    report = peaks(rounds)
    report += growth()
    return report


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    print(json.dumps([child_peak(*rest)] if kind == "peak" else child_growth(*rest)))
