"""Write docs/summary.md from summary.in.md, and docs/images/summary.png. Requires the data folder, playwright and Chromium.

.venv/bin/python docs/make_summary.py [SEEDS]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.models.loading import load_model
from seewhy.summary import write_summary
from seewhy.summary.outliers import EDGE
from seewhy.summary.run_summary import RunSummary
from support.planted_shortcut import COLORS, CORNER, Color, Experiment, Kind, plant_shortcut

HERE = Path(__file__).parent
TAGS: dict[str, tuple[str, tuple[Color, Color]]] = {
    "yellow, red disc, bottom right": (CORNER, COLORS),
    "yellow, red disc, top left": ("top left", COLORS),
    "white, blue disc, top left": ("top left", ((255, 255, 255), (0, 60, 220))),
    "red square, top left": ("top left", ((220, 30, 30), (220, 30, 30))),
}
HEADER = [
    "tag",
    "task",
    "seeds",
    "changed predictions",
    "tagged of first 30",
    "seeds with a finding",
    "precision",
    "recall",
]


@dataclass(frozen=True)
class Result:
    """The result of one experiment; None where it is undefined."""

    changed: float | None  # fraction of tagged images whose prediction changes if the tag is removed
    outliers: float | None  # fraction of the first 30 outliers with the tag
    is_found: bool
    precision: float | None  # fraction of the images of the findings with the tag
    recall: float | None  # fraction of the tagged images in the findings


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = []
    for number, (name, (corner, colors)) in enumerate(TAGS.items()):
        kinds: tuple[Kind, ...] = ("tag", "clean", "easy") if number == 0 else ("tag",)
        for kind in kinds:
            results = [
                run_experiment(seed, kind, corner, colors, capture=(seed, number, kind) == (0, 0, "tag"))
                for seed in range(seeds)
            ]
            rows.append(make_row(name if kind != "clean" else "none", kind, results))
            print(*rows[-1], sep=" | ", flush=True)
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *rows))
    (HERE / "summary.md").write_text((HERE / "summary.in.md").read_text().replace("{table}", table))


def run_experiment(seed: int, kind: Kind, corner: str, colors: tuple[Color, Color], *, capture: bool) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        experiment = plant_shortcut(home / "images", seed, kind, corner, colors)
        experiment.write_table(home / "images.csv")
        loaded = load_model(experiment.model, preprocess=experiment.preprocess, labels=["plain", "special"])
        run_job(
            loaded,
            [str(home / "images.csv")],
            home / "run",
            BulkSettings(),
            Execution(workers=0, batch_size=8),
            quiet=True,
        )
        summary, page = write_summary(BulkRun.read(home / "run"))
        if capture:
            capture_page(page)
        return measure(experiment, summary)


def measure(experiment: Experiment, summary: RunSummary) -> Result:
    def tagged_fraction(rows: Iterable[int]) -> float:
        return experiment.tagged_fraction(summary.ids(rows))

    members = {Path(name).name for finding in summary.findings for name in summary.ids(finding.indices)}
    has_tags = bool(experiment.tagged)
    is_found = bool(summary.findings)
    return Result(
        changed=experiment.changed_fraction() if has_tags else None,
        outliers=tagged_fraction(summary.outliers[EDGE].indices[:30]) if has_tags else None,
        is_found=is_found,
        precision=tagged_fraction([row for one in summary.findings for row in one.indices]) if is_found else None,
        recall=len(members & experiment.tagged) / len(experiment.tagged) if is_found and has_tags else None,
    )


def make_row(name: str, kind: str, results: list[Result]) -> list[str]:
    def format_range(values: Iterable[float | None]) -> str:
        known = [value for value in values if value is not None]
        if not known:
            return ""
        low, high = min(known), max(known)
        return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"

    return [
        name,
        kind,
        str(len(results)),
        format_range(result.changed for result in results),
        format_range(result.outliers for result in results),
        str(sum(result.is_found for result in results)),
        format_range(result.precision for result in results),
        format_range(result.recall for result in results),
    ]


def capture_page(page: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="dark").new_page()
        tab.goto(page.as_uri())
        tab.evaluate("document.querySelector('#facts div:last-child').remove()")  # the temporary folder of the run
        tab.wait_for_timeout(500)
        tab.screenshot(path=HERE / "images" / "summary.png")
        browser.close()


if __name__ == "__main__":
    main()
