"""The local app: time from drop to displayed image, relative to `explain`, and with many concurrent clients."""

from __future__ import annotations

import base64
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import seewhy
from process import photo
from results import Aim, Report, Table
from viewer import FLAGS

METHODS = ["gradcam", "hirescam"]
QUESTION = "top=3&layers=every&methods=gradcam,hirescam&name=photo.jpg"
CLIENTS = 20
# In every frame: the end of the frame that painted the first image, in milliseconds of the shared clock.
CLOCK = """(function look() {
  if (window.seewhy?.redraw === undefined) requestAnimationFrame(look);
  else setTimeout(() => { window.painted = performance.timeOrigin + performance.now(); });
})()"""
DROP = """(text) => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  data.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
  const begun = performance.timeOrigin + performance.now();
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
  return begun;
}"""


def measure(rounds: int) -> Report:
    """Measure drop to displayed image and `explain` alternately, for Lite0 with 49 layers, 3 classes and 2 methods."""
    report = Report()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return report
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, served() as address, sync_playwright() as driver:
        model, image = seewhy.load_model(), photo(Path(folder)).read_bytes()
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.add_init_script(CLOCK)
        page.goto(address)
        page.evaluate("window.app.ready")
        page.click("#settings-button")
        page.get_by_label("hirescam", exact=True).check()
        page.click("#settings-button")
        bare, dropped = [], []
        for round in range(rounds + 2):
            begun = time.perf_counter()
            seewhy.explain(model, image, methods=METHODS, layers="every", targets="top3", include_suggested=True)
            took = 1000 * (time.perf_counter() - begun)
            start = page.evaluate(DROP, base64.b64encode(image).decode())
            while page.evaluate("document.getElementById('stop').hidden") is False or len(page.frames) < 2:
                page.wait_for_timeout(20)
            while (end := page.frames[-1].evaluate("window.painted")) is None:
                page.wait_for_timeout(20)
            page.wait_for_timeout(800)  # its film strip is drawn
            if round >= 2:  # warm
                bare.append(took)
                dropped.append(end - start)
        browser.close()
        alone, together = crowd(address, image)
    ratio = statistics.median(b / a for a, b in zip(bare, dropped, strict=True))
    report.aims.append(
        Aim("serve: from drop to displayed image / explain, Lite0, 49 layers, 3 classes, 2 methods", ratio, 2.5)
    )
    rows = [
        ["`explain`", f"{statistics.median(bare):.0f} ms"],
        ["from drop to displayed image", f"{statistics.median(dropped):.0f} ms"],
        ["one client over HTTP, until the last byte", f"{alone:.0f} ms"],
        [f"{CLIENTS} clients at once, all answered", f"{together:.0f} ms"],
    ]
    report.tables.append(Table("The local app", ["Lite0, 49 layers, 3 classes, 2 methods", "median"], rows))
    return report


class served:
    """Yield the address of a server in a separate process."""

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "seewhy", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()[1]

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def crowd(address: str, image: bytes) -> tuple[float, float]:
    """Return milliseconds of one request (median of 5), and of `CLIENTS` concurrent requests."""
    origin, _, token = address.partition("/#")

    def request(_: int) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with urllib.request.urlopen(urllib.request.Request(f"{origin}/explain?{QUESTION}", image, headers)) as answer:
            assert b'"page"' in answer.read()

    times = []
    for number in range(5):
        begun = time.perf_counter()
        request(number)
        times.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(request, range(CLIENTS)))
    return 1000 * statistics.median(times), 1000 * (time.perf_counter() - begun)


if __name__ == "__main__":
    found = measure(5)
    print(*(" | ".join(row) for table in found.tables for row in table.rows), sep="\n")
    print(*(" | ".join(aim.row) for aim in found.aims), sep="\n")
