"""Write docs/images/page.png, measured.png, notebook.png, app.png and cover.png: the report page. Requires Playwright."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import seewhy
from seewhy.server import make_server

OUT = Path(__file__).parent / "images"
PANELS = """
window.seewhy.updatePanel({target: 0, versus: -1});
document.getElementById("add").click();
window.seewhy.updatePanel({target: 1, versus: -1});
document.getElementById("add").click();
window.seewhy.updatePanel({target: 0, versus: 1});
"""
CELL = """<!doctype html><meta charset="utf-8"><style>
body { font: 15px system-ui, sans-serif; margin: 1.5rem 2rem; background: #fff; color: #1c1d20; }
pre { background: #f4f4f2; border: 1px solid #dcdcd6; border-radius: 4px; padding: 0.7rem 1rem; }
pre { font: 14px ui-monospace, monospace; } div > span { color: #767; padding-top: 1.6rem; }
div { display: grid; grid-template-columns: 4rem minmax(0, 1fr); align-items: start; }
</style><div><span>[1]</span><pre>import seewhy
e = seewhy.explain(seewhy.load_model(), seewhy.sample("coffee"), layers="every", targets="top3", include_suggested=True)
e</pre></div>
"""


def main() -> None:
    model = seewhy.load_model()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        capture_report(browser, model, Path(folder))
        capture_measurements(browser, model, Path(folder))
        capture_notebook(browser, model, Path(folder))
        capture_app(browser, model)
        browser.close()


def capture_report(browser: Any, model: seewhy.LoadedModel, folder: Path) -> None:
    """An image with two classes: three panels with a linked cursor."""
    e = seewhy.explain(
        model, seewhy.sample("cat_espresso"), methods=["gradcam", "hirescam", "layercam"], layers="every",
        targets=["espresso", "Egyptian cat", "tabby", "espresso maker"], include_suggested=True, fit="squash",
    )  # fmt: skip
    e.report(folder / "report.html")
    page = open_page(browser, 1500, 760, "dark")
    page.goto((folder / "report.html").as_uri())
    page.evaluate("window.seewhy.ready")
    page.evaluate(PANELS)
    canvas = page.locator("#panels canvas").nth(0)
    frame = canvas.bounding_box()
    canvas.hover(position={"x": frame["width"] * 0.75, "y": frame["height"] * 0.55})
    page.wait_for_timeout(600)
    page.screenshot(path=OUT / "page.png")


def capture_measurements(browser: Any, model: seewhy.LoadedModel, folder: Path) -> None:
    """A map next to the measured map, and one of the covered windows."""
    e = seewhy.explain(
        model, seewhy.sample("cat_espresso"), layers="stages", targets="espresso", include_suggested=True, fit="squash"
    )
    seewhy.trust.check(model, e).report(folder / "measured.html")
    page = open_page(browser, 1250, 900, "light")
    page.goto((folder / "measured.html").as_uri())
    page.evaluate("window.seewhy.ready")
    page.get_by_role("button", name="Add panel").click()
    page.get_by_role("button", name="Measured map").click()
    page.locator("#covering summary").click()
    page.locator(".window-grid button").nth(23).hover()
    page.wait_for_timeout(600)
    page.screenshot(path=OUT / "measured.png", clip={"x": 0, "y": 0, "width": 915, "height": 820})


def capture_notebook(browser: Any, model: seewhy.LoadedModel, folder: Path) -> None:
    e = seewhy.explain(model, seewhy.sample("coffee"), layers="every", targets="top3", include_suggested=True)
    (folder / "notebook.html").write_text(f"{CELL}<div><span></span>{e._repr_mimebundle_()['text/html']}</div>")
    page = open_page(browser, 1300, 1000, "light")
    page.goto((folder / "notebook.html").as_uri())
    page.frames[1].evaluate("window.seewhy.ready")
    page.wait_for_timeout(800)
    page.screenshot(path=OUT / "notebook.png")


def capture_app(browser: Any, model: seewhy.LoadedModel) -> None:
    server, listener, address = make_server([model], port=0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    page = open_page(browser, 1300, 860, "light")
    page.goto(address)
    page.evaluate("window.app.ready")
    page.click("#settings-button")
    page.get_by_label("layercam", exact=True).check()
    page.click("#settings-button")
    page.set_input_files("#file", seewhy.sample("chelsea"))
    page.wait_for_selector("iframe")
    page.wait_for_timeout(2500)
    page.screenshot(path=OUT / "app.png")
    capture_cover(page)
    server.should_exit = True
    thread.join()


def capture_cover(page: Any) -> None:
    page.get_by_role("button", name="Cover parts").click()
    page.wait_for_selector("#cover-work")
    page.wait_for_timeout(800)
    box = page.locator("#cover-photo").bounding_box()
    corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.25, 0.3), (0.75, 0.75))]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1])
    page.mouse.up()
    page.wait_for_timeout(2000)
    page.screenshot(path=OUT / "cover.png")


def open_page(browser: Any, width: int, height: int, scheme: str) -> Any:
    return browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)


if __name__ == "__main__":
    main()
