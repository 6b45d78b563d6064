"""Writes docs/images/page.png, notebook.png and app.png: the page in its three homes. Needs playwright and Chromium."""

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
window.seewhy.change({target: 0, versus: -1}, true);
document.getElementById("add").click();
window.seewhy.change({target: 1, versus: -1}, true);
document.getElementById("add").click();
window.seewhy.change({target: 0, versus: 1}, true);
"""
CELL = """<!doctype html><meta charset="utf-8"><style>
body { font: 15px system-ui, sans-serif; margin: 1.5rem 2rem; background: #fff; color: #1c1d20; }
pre { background: #f4f4f2; border: 1px solid #dcdcd6; border-radius: 4px; padding: 0.7rem 1rem; }
pre { font: 14px ui-monospace, monospace; } div > span { color: #767; padding-top: 1.6rem; }
div { display: grid; grid-template-columns: 4rem minmax(0, 1fr); align-items: start; }
</style><div><span>[1]</span><pre>import seewhy
e = seewhy.explain(seewhy.load_model(), seewhy.sample("coffee"), layers="every", targets="top3", suggested=True)
e</pre></div>
"""


def main() -> None:
    """The picture with two classes as a file, a cup in a notebook's cell, and a cat in the app."""
    model = seewhy.load_model()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = opened(browser, 1500, 760, "dark")
        seewhy.explain(
            model, seewhy.sample("cat_espresso"), methods=["gradcam", "hirescam", "layercam"], layers="every",
            targets=["espresso", "Egyptian cat", "tabby", "espresso maker"], suggested=True, fit="squash",
        ).report(f"{folder}/report.html")  # fmt: skip
        page.goto(f"file://{folder}/report.html")
        page.evaluate("window.seewhy.ready")
        page.evaluate(PANELS)
        hover(page.locator("#panels canvas").nth(0))
        page.wait_for_timeout(600)
        page.screenshot(path=OUT / "page.png")
        notebook(browser, model, Path(folder))
        app(browser, model)
        browser.close()


def notebook(browser: Any, model: seewhy.LoadedModel, folder: Path) -> None:
    e = seewhy.explain(model, seewhy.sample("coffee"), layers="every", targets="top3", suggested=True)
    (folder / "notebook.html").write_text(f"{CELL}<div><span></span>{e._repr_mimebundle_()['text/html']}</div>")
    page = opened(browser, 1300, 1000, "light")
    page.goto((folder / "notebook.html").as_uri())
    page.frames[1].evaluate("window.seewhy.ready")
    page.wait_for_timeout(800)
    page.screenshot(path=OUT / "notebook.png")


def app(browser: Any, model: seewhy.LoadedModel) -> None:
    server, listening, address = make_server([model], port=0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    page = opened(browser, 1300, 860, "light")
    page.goto(address)
    page.evaluate("window.app.ready")
    page.click("#asks")
    page.get_by_label("layercam", exact=True).check()
    page.click("#asks")
    page.set_input_files("#file", seewhy.sample("chelsea"))
    page.wait_for_timeout(2500)
    page.screenshot(path=OUT / "app.png")
    server.should_exit = True
    thread.join()


def opened(browser: Any, width: int, height: int, scheme: str) -> Any:
    return browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)


def hover(canvas: Any) -> None:
    frame = canvas.bounding_box()
    canvas.hover(position={"x": frame["width"] * 0.75, "y": frame["height"] * 0.55})


if __name__ == "__main__":
    main()
