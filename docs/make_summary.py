"""Writes docs/summary.md from summary.in.md, and docs/images/summary.png. Needs the data folder and Chromium.

.venv/bin/python docs/make_summary.py [SEEDS]
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planted import COLOURS, CORNER, Colour, Kind, Planted, pictures, plant

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.models.loading import load_model
from seewhy.summary import write_summary
from seewhy.summary.document import Summary
from seewhy.summary.outliers import EDGE

HERE = Path(__file__).parent
TAGS: dict[str, tuple[str, tuple[Colour, Colour]]] = {
    "yellow, red disc, bottom right": (CORNER, COLOURS),
    "the same, top left": ("top left", COLOURS),
    "white, blue disc, top left": ("top left", ((255, 255, 255), (0, 60, 220))),
    "red, flat, top left": ("top left", ((220, 30, 30), (220, 30, 30))),
}
HEADER = [
    "tag",
    "kind",
    "draws",
    "goes by it",
    "first 30 tagged",
    "found",
    "of a finding tagged",
    "of the tagged found",
]


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = []
    for number, (name, (corner, colours)) in enumerate(TAGS.items()):
        kinds: tuple[Kind, ...] = ("tag", "clean", "easy") if number == 0 else ("tag",)
        for kind in kinds:
            tries = [
                one(seed, kind, corner, colours, keep=(seed, number, kind) == (0, 0, "tag")) for seed in range(seeds)
            ]
            rows.append(row(name if kind != "clean" else "none", kind, tries))
            print(*rows[-1], sep=" | ", flush=True)
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *rows))
    (HERE / "summary.md").write_text((HERE / "summary.in.md").read_text().replace("{table}", table))


def one(seed: int, kind: Kind, corner: str, colours: tuple[Colour, Colour], *, keep: bool) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made = plant(home / "pictures", seed, kind, corner, colours)
        with open(home / "pictures.csv", "w", newline="") as file:
            rows = [(f"pictures/{name}", label) for name, label in zip(made.names, made.labels, strict=True)]
            csv.writer(file).writerows([("path", "label"), *rows])
        loaded = load_model(made.model, preprocess=made.preprocess, labels=["plain", "special"])
        run_job(loaded, [str(home / "pictures.csv")], home / "run", BulkSettings(), Execution(batch_size=8), quiet=True)
        found, page = write_summary(BulkRun.read(home / "run"))
        if keep:
            photograph(page)
        return measured(made, found)


def measured(made: Planted, found: Summary) -> dict[str, float | None]:
    def tagged(places: object) -> float:
        names = [Path(name).name for name in found.ids(places)]  # type: ignore[arg-type]
        return sum(name in made.tagged for name in names) / len(names)

    members = {Path(name).name for one in found.findings for name in found.ids(one.indices)}
    known = bool(found.findings and made.tagged)
    return {
        "flips": flips(made) if made.tagged else None,
        "first": tagged(found.outliers[EDGE].indices[:30]) if made.tagged else None,
        "found": float(bool(found.findings)),
        "precision": tagged([at for one in found.findings for at in one.indices]) if known else None,
        "recall": len(members & made.tagged) / len(made.tagged) if known else None,
    }


def flips(made: Planted) -> float:
    """The share of tagged pictures whose answer changes when the tag is taken away."""
    plain = dict(zip(*pictures()[:2], strict=True))
    names = sorted(made.tagged)
    with_tag = made.inputs()[[made.names.index(name) for name in names]]
    without = torch.cat([made.preprocess(plain[name])[0] for name in names])
    with torch.inference_mode():
        return float((made.model(with_tag).argmax(1) != made.model(without).argmax(1)).float().mean())


def row(name: str, kind: str, tries: list[dict[str, float | None]]) -> list[str]:
    def spread(key: str) -> str:
        values = [value for one in tries if (value := one[key]) is not None]
        low, high = (min(values), max(values)) if values else (0.0, 0.0)
        return "" if not values else f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"

    found = sum(int(one["found"] or 0) for one in tries)
    return [
        name,
        kind,
        str(len(tries)),
        spread("flips"),
        spread("first"),
        str(found),
        spread("precision"),
        spread("recall"),
    ]


def photograph(page: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        shown = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="dark").new_page()
        shown.goto(page.as_uri())
        shown.evaluate("document.querySelector('#facts div:last-child').remove()")  # a folder for this picture only
        shown.wait_for_timeout(500)
        shown.screenshot(path=HERE / "images" / "summary.png")
        browser.close()


if __name__ == "__main__":
    main()
