"""Writes docs/images/page.png: the page in a browser, with three panels. Needs playwright and Chromium."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import seewhy

OUT = Path(__file__).parent / "images" / "page.png"
PANELS = """
window.seewhy.change({target: 0, versus: -1}, true);
document.getElementById("add").click();
window.seewhy.change({target: 1, versus: -1}, true);
document.getElementById("add").click();
window.seewhy.change({target: 0, versus: 1}, true);
"""


def main() -> None:
    """The page of the picture with two classes."""
    e = seewhy.explain(
        seewhy.load_model(), seewhy.sample("cat_espresso"), methods=["gradcam", "hirescam", "layercam"], layers="every",
        targets=["espresso", "Egyptian cat", "tabby", "espresso maker"], suggested=True, fit="squash",
    )  # fmt: skip
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "report.html"
        e.report(path)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 760}, color_scheme="dark")
        page.goto(path.as_uri())
        page.evaluate("window.seewhy.ready")
        page.evaluate(PANELS)
        canvas = page.locator("#panels canvas").nth(0)
        frame = canvas.bounding_box()
        assert frame is not None
        canvas.hover(position={"x": frame["width"] * 0.75, "y": frame["height"] * 0.55})
        page.wait_for_timeout(600)
        page.screenshot(path=OUT)
        browser.close()


if __name__ == "__main__":
    main()
