"""Measure exported networks: file size with and without a map, and the extra time of the map in onnxruntime.

    python benchmarks/exported.py                     # 12 networks at 224 pixels, one thread
    python benchmarks/exported.py --size 64 --rounds 3 resnet18

Needs onnx, onnxscript and onnxruntime. Weights are random: neither sizes nor times depend on them. Runs of the network with and
without the map alternate, and the ratio of the medians is printed, so other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
import torchvision
from torch import nn

from seewhy.integrations import export_model
from seewhy.integrations.model_export.file_formats import encode

NETWORKS = {
    "resnet18": "cam", "resnet50": "cam", "mobilenet_v2": "cam", "shufflenet_v2_x1_0": "cam", "regnet_y_400mf": "cam",
    "squeezenet1_1": "cam", "efficientnet_b0": "cam", "swin_t": "cam", "densenet121": "hirescam",
    "mobilenet_v3_large": "hirescam", "convnext_tiny": "hirescam", "timm/vit_tiny_patch16_224": "hirescam",
}  # fmt: skip


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("timm/"):
        return timm.create_model(name.removeprefix("timm/")).eval()
    return torchvision.models.get_model(name, weights=None).eval()


def export_plain(network: nn.Module, inputs: torch.Tensor, path: Path) -> None:
    """Export a network without a map, with the same exporter."""
    path.write_bytes(encode("onnx", network, inputs, ["scores"], {}, is_dynamic=True, opset=None))


def open_session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(name: str, method: Any, size: int, rounds: int, threads: int, folder: Path) -> str:
    """Return a row of the table."""
    network, inputs = build(name), torch.randn(2, 3, size, size)
    with_map, plain = folder / "map.onnx", folder / "plain.onnx"
    exported = export_model(network, with_map, map=method, inputs=inputs)
    export_plain(network, inputs, plain)
    sessions = [open_session(path, threads) for path in (plain, with_map)]
    times: list[list[float]] = [[], []]
    for number in range(rounds + 2):
        for session, own in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, {"images": inputs[:1].numpy()})
            if number >= 2:
                own.append(time.perf_counter() - start)
    base, full = (statistics.median(own) for own in times)
    megabytes = [path.stat().st_size / 1e6 for path in (plain, with_map)]
    sizes = f"{megabytes[0]:.2f} | {megabytes[1] - megabytes[0]:+.2f}"
    times_text = f"{1e3 * base:.2f} | {100 * (full / base - 1):+.1f} %"
    return f"| {name} | {method} | {exported.layer} | {sizes} | {times_text} | {exported.difference:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    columns = ["network", "map", "layer", "MB", "MB for the map", "ms", "time for the map", "difference"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            method = NETWORKS.get(name, "hirescam")
            print(measure(name, method, arguments.size, arguments.rounds, arguments.threads, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
