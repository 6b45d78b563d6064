"""The page: its size, and the time to build, open and redraw it. The browser part needs Chromium."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torchvision
from PIL import Image

import seewhy
from process import photo
from results import Aim, Report, Table

METHODS = ["gradcam", "hirescam", "layercam", "gradcam++"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
REDRAWS = 60
# Waits for the page's own clock: from the start of the navigation to the first image.
OPENED = """window.seewhy.ready.then(() => new Promise((done) =>
  requestAnimationFrame(() => setTimeout(() => done(performance.now())))))"""
REDRAW = """(async () => {
  const next = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const times = [];
  for (let i = 0; i < ROUNDS; i++) {
    window.seewhy.updatePanel({ layer: i % window.seewhy.page.layers.length });
    await next();
    await next();
    times.push(window.seewhy.redraw);
  }
  return times;
})()""".replace("ROUNDS", str(REDRAWS))


def explanation(model: seewhy.LoadedModel, image: Any) -> seewhy.Explanation:
    return seewhy.explain(model, image, methods=METHODS, layers="every", targets="top5")


def measure() -> Report:
    """Return sizes and times of two pages."""
    deep = torchvision.models.resnet152(weights=None).eval()
    models = {
        "Lite0, 49 layers": (seewhy.load_model(), 1.3),
        "ResNet-152, 155 layers": (seewhy.load_model(deep, preprocess=seewhy.Preprocess.imagenet(224)), 3.0),
    }
    report, rows = Report(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = photo(folder)
        for title, (model, limit) in models.items():
            e = explanation(model, source)
            e.report()  # the photo is scaled once for all images of a run
            begun = time.perf_counter()
            e.report(folder / "report.html")
            took = time.perf_counter() - begun
            size = (folder / "report.html").stat().st_size / 1e6
            rows.append([title, str(len(e.maps)), f"{size:.2f} MB", f"{took:.2f} s"])
            report.aims += [
                Aim(f"{title}, 5 classes, 4 methods: size of the page", size, limit, "MB"),
                Aim(f"{title}: building the page", took, 0.5, "s"),
            ]
        with Image.open(source) as image:
            image.resize((448, 448)).save(folder / "square.jpg")
        explanation(models["Lite0, 49 layers"][0], folder / "square.jpg").report(folder / "report.html")
        report += in_browser((folder / "report.html").as_uri())
    report.tables.append(Table("The page", ["network", "maps", "size", "built in"], rows))
    return report


def in_browser(address: str) -> Report:
    """Return times in Chromium; an empty report without it."""
    report = Report()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return report
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = []
        for _ in range(5):
            page = browser.new_context(viewport={"width": 1300, "height": 900}).new_page()
            page.goto(address)
            opened.append(page.evaluate(OPENED))
        page.evaluate("document.getElementById('add').click()")
        page.evaluate(REDRAW)  # warm
        redraws = page.evaluate(REDRAW)
        browser.close()
    report.aims += [
        Aim("page: first image after load", statistics.median(opened), 500, "ms"),
        Aim("page: redraw of two 448x448 panels", statistics.median(redraws), 16, "ms"),
    ]
    return report


if __name__ == "__main__":
    for aim in measure().aims:
        print(" | ".join(aim.row))
