"""Chromium for tests, and checks that apply to every page."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Window width and color scheme: the extremes always, all six with make test-full
WINDOWS = [(360, "dark"), (1600, "light")]
MORE_WINDOWS = [(360, "light"), (800, "dark"), (800, "light"), (1600, "dark")]
each_window = pytest.mark.parametrize(
    ("width", "scheme"), [*WINDOWS, *(pytest.param(*window, marks=pytest.mark.full) for window in MORE_WINDOWS)]
)

# Controls without a name for screen readers
UNNAMED_CONTROLS = """[...document.querySelectorAll('button, input:not([hidden]), select, canvas[role], iframe, progress')]
  .filter((node) => !(node.title || node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length))
  .map((node) => node.outerHTML)"""

DUPLICATE_IDS = (
    """[...document.querySelectorAll('[id]')].map((node) => node.id).filter((id, at, all) => all.indexOf(id) !== at)"""
)

# Text with a contrast ratio below 4.5 (WCAG 2, AA)
LOW_CONTRAST = """(() => {
  const luminance = (color) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (node) => {
    for (let parent = node; parent; parent = parent.parentElement) {
      const color = getComputedStyle(parent).backgroundColor;
      if (!color.endsWith(", 0)")) return luminance(color);
    }
    return luminance("rgb(255,255,255)");
  };
  const tags = "p, b, span, bdi, figcaption, label, legend, summary, li, button, output, th, td, dt, dd";
  return [...document.querySelectorAll(tags)]
    .filter((node) => node.childNodes.length && node.textContent.trim() && node.offsetParent && !node.disabled)
    .filter((node) => {
      const [a, b] = [luminance(getComputedStyle(node).color), background(node)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5;
    }).map((node) => node.outerHTML.slice(0, 120));
})()"""


class BrowserPage:
    """A page in the browser, with its console messages and the URLs that it requests."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.page = context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true. Polls, because the page's policy forbids `wait_for_function` to eval."""
        for _ in range(300):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{expression} is still false")

    @property
    def width(self) -> int:
        """The width of the content; larger than the window if the page scrolls sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))

    def close(self) -> None:
        self.page.context.close()
