"""Check and measure seewhy on a GPU: equal maps, speed, memory, and other formats of models and inputs.

    python benchmarks/gpu.py [--device cuda] [--quick] [--out FILE.md]

Weights are random but fixed, so no network access is needed; seewhy need not be installed. A failure is a row of its table,
and the script continues. `--device cpu --quick` runs the same code in less than a minute, to test the script itself.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import seewhy
from gpu_maps import TARGET, comparison, first_line, formats
from nets import calibrated, conv_names, images
from race import Job, no_garbage_collection, race
from results import Table, cores, markdown, processor
from seewhy.engine.options import Options
from seewhy.engine.pipeline import Explainer

PACKAGES = ["torch", "torchvision", "timm", "triton", "numpy"]
FORWARD, BACKWARD = "bare forward", "forward + backward"  # BACKWARD: to the input only, as in seewhy
FOUR_METHODS = ["gradcam", "hirescam", "layercam", "gradcam++"]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def synchronized(job: Job, device: torch.device) -> Job:
    def run() -> None:
        job()
        synchronize(device)

    return run


def bare(net: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(inputs)


def backward(net: nn.Module, inputs: Tensor, *, with_parameters: bool) -> None:
    leaf = inputs.detach().requires_grad_()
    torch.autograd.grad(net(leaf)[:, TARGET].sum(), list(net.parameters()) if with_parameters else leaf)


def jobs_of(net: nn.Module, inputs: Tensor) -> dict[str, Job]:
    explain = partial(seewhy.explain, net, inputs, targets=TARGET)
    return (
        {
            FORWARD: partial(bare, net, inputs),
            BACKWARD: partial(backward, net, inputs, with_parameters=False),
            f"{BACKWARD}, parameters too": partial(backward, net, inputs, with_parameters=True),
            "explain, layer4": partial(explain, methods="gradcam", layers="layer4"),
            "explain, all convolutions": partial(explain, methods="gradcam", layers="every"),
            "explain, 4 methods, all convolutions": partial(explain, methods=FOUR_METHODS, layers="every"),
        }
        | fast_jobs(net, inputs)
        | peer_jobs(net, inputs)
    )


def fast_jobs(net: nn.Module, inputs: Tensor) -> dict[str, Job]:
    """Return explanations of the prepared model."""
    jobs: dict[str, Job] = {}
    for precision in ("exact", "bf16"):
        explain = partial(seewhy.explain, seewhy.prepare(net, precision=precision), inputs, targets=TARGET)
        for label, layers in (("layer4", "layer4"), ("all convolutions", "every")):
            jobs[f"explain, prepared ({precision}), {label}"] = partial(explain, methods="gradcam", layers=layers)
    return jobs


def peer_jobs(net: nn.Module, inputs: Tensor) -> dict[str, Job]:
    """Return the same maps by other packages, if they are installed (requirements.txt). None of them is needed."""
    try:
        import contenders
    except ImportError:
        return {}
    classes = [TARGET] * len(inputs)
    return {
        "torchcam, layer4": partial(contenders.torchcam_maps, net, inputs, ["layer4"]),
        "torchcam, all convolutions": partial(contenders.torchcam_maps, net, inputs, conv_names(net)),
        "captum, layer4": partial(contenders.captum_maps, net, inputs, ["layer4"], classes),
    }


def large_network(device: torch.device, quick: bool) -> tuple[nn.Module, int, list[int]]:
    """Return ResNet-50 on the device, the input size and the batch sizes."""
    import torchvision

    size, batches = (64, [1, 2]) if quick else (224, [1, 8, 32])
    torch.manual_seed(0)
    return calibrated(torchvision.models.resnet50(), size).to(device), size, batches


def speed(device: torch.device, quick: bool) -> list[Table]:
    net, size, batches = large_network(device, quick)
    rows = []
    for batch in batches:
        jobs = {name: synchronized(job, device) for name, job in jobs_of(net, images(batch, size).to(device)).items()}
        times = race(jobs, rounds=2 if quick else 7)
        for name in jobs:
            ratios = [str(times.ratio(name, to)) for to in (FORWARD, BACKWARD)]
            rows.append([str(batch), name, f"{1000 * times.median(name):.1f}", *ratios])
    note = (
        f"ResNet-50, {size} px, float32 with PyTorch's default for TF32 (on in convolutions). Medians; ratios (with "
        "quartiles) are computed within each round. Backward passes compute the gradient of the input, unless stated otherwise."
    )
    table = Table("2. Speed", ["batch", "job", "ms", f"/ {FORWARD}", f"/ {BACKWARD}"], rows, note)
    return [table, bulk_loop(net, size, batches[-1], device, quick)]


def bulk_loop(net: nn.Module, size: int, batch: int, device: torch.device, quick: bool) -> Table:
    """Measure batches of uint8 images in main memory: copy, normalize, explain, copy the maps back."""
    pixels = torch.randint(
        0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels = pixels.pin_memory() if device.type == "cuda" else pixels
    loaded = seewhy.load_model(net)
    contexts: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "float32": nullcontext,
        "bfloat16 autocast": partial(torch.autocast, device.type, torch.bfloat16),
    }

    def predict(inputs: Tensor) -> None:
        bare(net, inputs).argmax(1).cpu()

    def explain(explainer: Explainer, inputs: Tensor) -> None:
        for maps in explainer.explain(inputs).maps.values():
            maps.float().cpu()

    def run(work: Callable[[Tensor], None], context: Callable[[], AbstractContextManager[object]]) -> None:
        inputs = pixels.to(device, non_blocking=True).float().sub(118).div(58)
        with context():
            work(inputs)

    work: dict[str, Callable[[Tensor], None]] = {"bare inference": predict}
    for layers in ("suggested", "every"):
        options = Options(methods="gradcam", layers=layers)
        work[f"explain, {layers}"] = partial(explain, Explainer(loaded, options, hash_weights=False))
    rows = []
    for precision, context in contexts.items():
        jobs = {name: synchronized(partial(run, function, context), device) for name, function in work.items()}
        times = race(jobs, rounds=2 if quick else 7)
        for name in jobs:
            ratio = times.ratio(name, "bare inference")
            rows.append([precision, name, f"{batch / times.median(name):.0f}", str(ratio)])
    note = f"ResNet-50, {size} px, batch {batch}: images in main memory to maps in main memory, without files and decoding."
    return Table("Images per second in a loop", ["precision", "job", "images/s", "time / bare inference"], rows, note)


def peak(job: Job, device: torch.device) -> tuple[float, float]:
    """Return the peak of CUDA memory above that before, and what is still allocated afterward, in MiB. NaN without CUDA."""
    job()  # the first call records properties of the model and initializes libraries
    if device.type != "cuda":
        return float("nan"), float("nan")
    synchronize(device)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with no_garbage_collection():  # reference cycles would keep memory
        job()
        synchronize(device)
        highest, after = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    return (highest - before) / 2**20, (after - before) / 2**20


def memory(device: torch.device, quick: bool) -> list[Table]:
    net, size, batches = large_network(device, quick)
    rows = []
    for batch in batches:
        inputs = images(batch, size).to(device)
        jobs = jobs_of(net, inputs)
        if batch == 1 and not quick:
            jobs["explain, scorecam, layer4"] = partial(
                seewhy.explain, net, inputs, methods="scorecam", layers="layer4"
            )
        peaks = {name: peak(job, device) for name, job in jobs.items()}
        for name, (highest, left) in peaks.items():
            ratios = [f"{highest / peaks[to][0]:.2f}" for to in (FORWARD, BACKWARD)]
            rows.append([str(batch), name, f"{highest:.0f}", *ratios, f"{left:.1f}"])
    note = (
        f"ResNet-50, {size} px. Peak of `torch.cuda.max_memory_allocated` above model and inputs; *left*: still allocated "
        "after the call, without garbage collection; nan: no CUDA. scorecam sizes its batches for 256 MB by default."
    )
    header = ["batch", "job", "MiB", f"/ {FORWARD}", f"/ {BACKWARD}", "left, MiB"]
    return [Table("3. Memory", header, rows, note)]


def version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def setting(device: torch.device, quick: bool) -> str:
    facts = {"Date": time.strftime("%Y-%m-%d")}
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        try:
            facts["GPU, memory, driver"] = subprocess.check_output(query, text=True, timeout=30).strip()
        except (OSError, subprocess.SubprocessError):
            facts["GPU"] = f"{torch.cuda.get_device_name(device)} (driver unknown: nvidia-smi failed)"
        facts["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    facts["Processor"] = f"{processor()}, {cores()} cores, torch on {torch.get_num_threads()} threads"
    facts["System"] = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    facts["Versions"] = ", ".join([f"seewhy {seewhy.__version__}", *map(version, PACKAGES)])
    facts["Run"] = f"--device {device}{' --quick' if quick else ''}"
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and measure seewhy on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small inputs, few rounds, one thread")
    parser.add_argument(
        "--out", type=Path, help="also write the tables to this Markdown file, each when it is complete"
    )
    arguments = parser.parse_args()
    device, quick = torch.device(arguments.device), arguments.quick
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("This machine has no CUDA device that PyTorch can use. To run on the CPU: --device cpu --quick")
    if quick:
        torch.set_num_threads(1)  # networks are so small that threads cost more than they save
    parts: list[str] = []

    def show(*texts: str) -> None:
        parts.extend(texts)
        print(*texts, sep="\n\n", end="\n\n", flush=True)
        if arguments.out:
            arguments.out.write_text("\n\n".join(parts) + "\n")

    show("# seewhy on a GPU", setting(device, quick))
    for section in (comparison, speed, memory, formats):
        start = time.perf_counter()
        try:
            for table in section(device, quick):
                show(f"## {table.title}", *filter(None, [table.note]), markdown(table.header, table.rows))
        except Exception as error:
            show(f"## {section.__name__}", f"**failed** ({first_line(error)})")
        show(f"({section.__name__}: {time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
