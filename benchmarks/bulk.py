"""Bulk jobs: throughput relative to inference, memory over 10,000 images, Ray relative to local, scaling."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

import torch

import seewhy
from race import race
from results import Aim, Report, Table
from seewhy.bulk.decoding import AHEAD, Reader
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.bulk.worker import batched
from seewhy.engine.options import Fast

DATA = Path(os.environ.get("SEEWHY_DATA", Path(__file__).parents[2] / "shared" / "data")) / "imagenet"
BATCH, WORKERS = 8, 1
THROUGHPUT = {"suggested layer": 1.3, "suggested layer, bf16": 1.8, "all 49 layers": 0.45, "all 49 layers, bf16": 0.6}
SMALL = "timm/mobilenetv3_small_050?pretrained=false"  # a fifth of the time of Lite0, for 10,000 images


def measure(rounds: int) -> Report:
    report = Report()
    if not DATA.exists():
        print(f"skipped: {DATA} does not exist (set SEEWHY_DATA)", file=sys.stderr)
        return report
    with tempfile.TemporaryDirectory(prefix="bulk-") as home:
        report += throughput(Path(home), rounds)
        report += commands(Path(home))
        report += memory(Path(home))
        report += engines(Path(home))
        report += scaling(Path(home))
    return report


def throughput(home: Path, rounds: int) -> Report:
    """The same 200 images, decoder process and batches: only a forward pass, or maps written to Parquet."""
    loaded = seewhy.load_model()

    def bare() -> None:
        items = [(0, item) for item in find_dataset([str(DATA)], 1000).part(0)]
        reader = Reader(loaded.preprocess, workers=WORKERS, max_pixels=10**8)
        with torch.inference_mode():
            for batch in batched(reader.stream(items, AHEAD * BATCH + WORKERS), BATCH):
                loaded.module(loaded.preprocess.to_batch([image.inputs for _, image in batch])).argmax(1)
        reader.stop()

    def bulk(layers: str, fast: Fast) -> Callable[[], None]:
        def job() -> None:
            out = Path(tempfile.mkdtemp(dir=home))
            execution = Execution(workers=WORKERS, batch_size=BATCH)
            run_job(loaded, [str(DATA)], out, BulkSettings(layers=(layers,), fast=fast), execution, quiet=True)

        return job

    jobs = {"bare inference": bare}
    for name, layers in (("suggested layer", "suggested"), ("all 49 layers", "every")):
        jobs |= {
            name: bulk(layers, "exact"),
            f"{name}, bf16": bulk(layers, "bf16"),
            f"{name}, off": bulk(layers, "off"),
        }
    for job in jobs.values():
        job()  # warm-up: the first call records properties of the layers
    times = race(jobs, rounds, long=frozenset(jobs))
    ratios = {name: times.ratio(name, "bare inference") for name in times.seconds}
    rows = [
        [name, f"{200 / times.median(name):.1f}", f"{1 / ratio.median:.2f}", str(ratio)]
        for name, ratio in ratios.items()
    ]
    note = (
        f"The same decoding, batches of {BATCH}, {WORKERS} decoder process. Bulk also hashes files, computes statistics and "
        "writes Parquet; two threads explain its batches, each with half of torch's threads. *bf16* and *off*: `--fast`."
    )
    header = ["", "images per second", "throughput, x bare inference", "time, x bare inference"]
    aims = [
        Aim(f"Bulk, {name} / bare inference ({limit}x of its throughput)", ratios[name].median, 1 / limit)
        for name, limit in THROUGHPUT.items()
    ]
    return Report([Table("Bulk: EfficientNet-Lite0, 200 images", header, rows, note)], aims)


def seewhy_command(arguments: Sequence[str], threads: int | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    return subprocess.Popen([sys.executable, "-m", "seewhy", *arguments], env=environment, stdout=subprocess.DEVNULL)


def timed(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    code = seewhy_command(arguments).wait()
    assert code in (0, 1), f"{arguments} ended with {code}"
    return time.perf_counter() - start


def size_of(run: Path) -> int:
    return sum(path.stat().st_size for path in run.glob("part-*.parquet"))


def commands(home: Path) -> Report:
    """Measure `seewhy bulk` and `seewhy summary` as processes, start-up included."""
    rows = []
    for name, more in (
        ("suggested", []),
        ("suggested, predicted and label", ["-t", "predicted,label"]),
        ("every", ["--layers", "every"]),
    ):
        out = home / f"command-{len(rows)}"
        took = timed(["bulk", str(DATA / "labels.csv"), "--out", str(out), "--quiet", *more])
        summed = timed(["summary", str(out)])
        page = (out / "summary" / "summary.html").stat().st_size
        rows.append([name, f"{took:.1f}", f"{size_of(out) / 200 / 1024:.2f}", f"{summed:.1f}", f"{page / 2**20:.2f}"])
    header = ["layers and targets", "seewhy bulk, s", "KB per image", "seewhy summary, s", "page, MB"]
    note = "Start-up and tuning of the batch size included."
    return Report([Table("Bulk: 200 images, complete processes", header, rows, note)])


def list_of(home: Path, count: int) -> Path:
    """Write a list of `count` images that repeats the 200."""
    path = home / f"{count}.txt"
    images = sorted(map(str, DATA.glob("*.jpg")))
    path.write_text("\n".join(images[number % len(images)] for number in range(count)))
    return path


def memory(home: Path, count: int = 10_000) -> Report:
    """Measure the resident memory of the process during a job."""
    out = home / "memory"
    more = ["--model", SMALL, "--batch-size", "16", "--quiet"]
    start = time.perf_counter()
    child = seewhy_command(["bulk", str(list_of(home, count)), "--out", str(out), *more])
    samples: list[tuple[float, float]] = []  # fraction done, MB resident
    while child.poll() is None:
        done = len(list(out.glob("part-*.parquet"))) if out.exists() else 0
        if done and (resident := resident_of(child.pid)):
            samples.append((done * 256 / count, resident))
        time.sleep(0.5)
    rate = count / (time.perf_counter() - start)

    def memory_at(fraction: float) -> float:
        return statistics.median(resident for done, resident in samples if abs(done - fraction) <= 0.1)

    rows = [[f"{fraction:.0%}", f"{memory_at(fraction):.0f}"] for fraction in (0.1, 0.3, 0.5, 0.7, 0.9)]
    note = f"{SMALL}, {rate:.0f} images per second, start-up included."
    table = Table(f"Bulk: memory over {count:,} images", ["done", "MB resident"], rows, note)
    return Report(
        [table], [Aim(f"Bulk, memory at 90 % / at 20 % of {count:,} images", memory_at(0.9) / memory_at(0.2), 1.05)]
    )


def resident_of(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def rate_of(out: Path, ignore: int) -> float:
    """Return images per second after start-up: from the first `ignore` parts (one per process) to the last."""
    events = []
    for path in out.glob("log-*.jsonl"):
        events += [json.loads(line) for line in path.read_text().splitlines()]
    parts = sorted(
        (datetime.fromisoformat(event["time"]), event["images"]) for event in events if event["event"] == "part"
    )
    seconds = (parts[-1][0] - parts[ignore - 1][0]).total_seconds()
    return sum(images for _, images in islice(parts, ignore, None)) / seconds


def engines(home: Path, count: int = 2000) -> Report:
    """Run the same job locally and on Ray, on one machine."""
    rates = {}
    for engine, more, ignore in (("local", [], 1), ("ray", ["--actors", "2"], 2)):
        out = home / f"engine-{engine}"
        code = seewhy_command([
            "bulk", str(list_of(home, count)), "--out", str(out), "--engine", engine, "--part-size", "50", "--batch-size",
            str(BATCH), "--workers", "1", "--quiet", *more,
        ]).wait()  # fmt: skip
        assert code == 0, f"{engine} ended with {code}"
        rates[engine] = rate_of(out, ignore)
        shutil.rmtree(out)
    rows = [[name, f"{rate:.1f}", f"{rate / rates['local']:.2f}x"] for name, rate in rates.items()]
    table = Table(f"Bulk: local and Ray, {count:,} images, after start-up", ["engine", "images per second", ""], rows,
                  "Local: one process, two threads. Ray: two actors of one thread each. One decoder process each.")  # fmt: skip
    return Report(
        [table], [Aim("Bulk, local / Ray throughput (0.7x of local)", rates["local"] / rates["ray"], 1 / 0.7)]
    )


def scaling(home: Path, count: int = 400) -> Report:
    """Run one process, and two shards, with one torch thread each."""
    rates = {}
    for number in (1, 2):
        out = home / f"scale-{number}"
        shards = [
            seewhy_command([
                "bulk", str(list_of(home, count * number)), "--out", str(out), "--part-size", "25", "--batch-size", str(BATCH),
                "--workers", "0", "--quiet", "--shard", f"{shard}/{number}",
            ], threads=1)
            for shard in range(number)
        ]  # fmt: skip
        assert all(shard.wait() == 0 for shard in shards)
        rates[number] = rate_of(out, number)
    rows = [[str(number), f"{rate:.1f}", f"{rate / rates[1]:.2f}x"] for number, rate in rates.items()]
    return Report(
        [Table("Bulk: one and two processes, one thread each", ["processes (--shard)", "images per second", ""], rows)]
    )
