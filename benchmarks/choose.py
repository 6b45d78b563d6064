"""How often `seewhy.trust.choose` is right in planted cases, and what it costs on photos. Writes benchmarks/CHOOSE.md.

    .venv/bin/python benchmarks/choose.py [--runs 40] [--nulls 200] [--rows FILE]

Each run uses new images. In a case with an answer, a false preference is the verdict "better" for a wrong one; in a null case,
any "better". `--rows` keeps the rows of these cases, and reads them if the file exists. The photos are read from the data
folder (SEEWHY_DATA, or ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import seewhy
from seewhy.summary.verdicts import ConfirmedShare
from seewhy.trust.choices.choice import Choice
from seewhy.trust.choices.chooser import choose

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
from support.planted import CASES, Case, make_images  # noqa: E402

DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parents[1] / "shared" / "data"))
PAGE = HERE / "CHOOSE.md"
IMAGES = 60
VERDICTS = ("better", "no difference", "equal maps", "not enough images", "metrics disagree", "no effect")
METHODS = ["gradcam", "gradcampp", "hirescam", "layercam", "xgradcam", "eigengradcam"]
LAYERS = [
    "blocks.1.1", "blocks.2.1", "blocks.3.0", "blocks.3.2", "blocks.4.0", "blocks.4.2", "blocks.5.1", "blocks.5.3",
    "conv_head", "bn2",
]  # fmt: skip


def run_case(number: int, run: int) -> tuple[str, str, str]:
    """Return method, layer and verdict of one run."""
    torch.set_num_threads(1)
    case = CASES[number]
    images = make_images(IMAGES, 1000 * number + run, both_sides=case.both_sides)
    network = case.network().eval()
    choice = choose(network, images, methods=case.methods, layers=case.layers, targets=case.target, seed=run)
    return choice.method, choice.layer, choice.verdict


def summarize(case: Case, results: list[tuple[str, str, str]]) -> str:
    """Return one row of the table."""
    runs = len(results)
    right = sum((method, layer) in case.good for method, layer, _ in results)
    false = sum(verdict == "better" and (method, layer) not in case.good for method, layer, verdict in results)
    verdicts = Counter(verdict for _, _, verdict in results)
    shares = " | ".join(f"{verdicts[verdict] / runs:.0%}" for verdict in VERDICTS)
    low, high = ConfirmedShare(false, runs).interval
    hit = f"{right / runs:.0%}" if case.good else "-"
    return f"| {case.name} | {runs} | {hit} | {false / runs:.1%} ({low:.1%} to {high:.1%}) | {shares} |"


def run_cases(runs: int, nulls: int) -> list[str]:
    """Return the rows of all planted cases."""
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for number, case in enumerate(CASES):
            count = runs if case.good else nulls
            rows.append(summarize(case, list(pool.map(run_case, [number] * count, range(count)))))
            print(rows[-1], flush=True)
    return rows


def run_photos() -> Choice:
    """Choose among 10 layers and 6 methods of the embedded network on 100 photos."""
    photos = sorted((DATA / "imagenet").glob("*.jpg"))[:100]
    return choose(seewhy.load_model(), photos, methods=METHODS, layers=LAYERS)


def describe_photos(choice: Choice) -> list[str]:
    """Return the section on photos."""
    record = choice.record
    lines = [
        "", "## EfficientNet-Lite0 on 100 photos, 10 layers x 6 methods", "",
        f"**{choice.method} at {choice.layer}** ({choice.verdict}). {choice.reason}", "",
        f"{record['passes']:,} forward passes: {record['passes'] / record['full_passes']:.1%} of the {record['full_passes']:,} "
        "that the SRG of all candidates on all photos needs. "
        f"{record['seconds']:.0f} s with {torch.get_num_threads()} threads.",
        "", "| finalist | SRG ± standard error | screening | equal maps |", "|---|---:|---:|---|",
    ]  # fmt: skip
    for one in choice.finalists:
        equal = ", ".join(map(str, one.equal[1:]))
        lines.append(f"| {one.candidate} | {one.mean:.3f} ± {one.error:.3f} | {one.screened:.2f} | {equal} |")
    return [*lines, "", *(f"* {note}" for note in choice.notes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--nulls", type=int, default=200)
    parser.add_argument("--rows", type=Path)
    settings = parser.parse_args()
    if settings.rows is not None and settings.rows.exists():
        rows = settings.rows.read_text().splitlines()
    else:
        rows = run_cases(settings.runs, settings.nulls)
        if settings.rows is not None:
            settings.rows.write_text("\n".join(rows))
    lines = [
        "# How often `seewhy choose` is right", "",
        f"Made by `benchmarks/choose.py`, torch {torch.__version__}. Each run uses {IMAGES} new images, half of them to "
        "confirm. The networks and images are in `tests/support/planted.py`.", "",
        "* *right*: the recommended method and layer are among those that are right by construction.",
        "* *false preference*: the verdict \"better\" for a wrong answer, or any \"better\" in a null case, in which no "
        "candidate is better, with its 95 % interval. At most 5 % are expected.", "",
        f"| case | runs | right | false preference | {' | '.join(VERDICTS)} |",
        "|---|---:|---:|---:|" + "---:|" * len(VERDICTS),
        *rows, *describe_photos(run_photos()), "",
    ]  # fmt: skip
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
