"""Chromium for tests, and questions that are asked of every page."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Controls that a screen reader could not name.
NAMELESS = """[...document.querySelectorAll('button, input:not([hidden]), select, canvas[role], iframe, progress')]
  .filter((node) => !(node.title || node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length))
  .map((node) => node.outerHTML)"""

# Ids that stand for two things.
DOUBLE = (
    """[...document.querySelectorAll('[id]')].map((node) => node.id).filter((id, at, all) => all.indexOf(id) !== at)"""
)

# Text whose colour and the page's differ by less than 4.5 (WCAG 2, AA).
FAINT = """(() => {
  const light = (color) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!color.endsWith(", 0)")) return light(color);
    }
    return light("rgb(255,255,255)");
  };
  return [...document.querySelectorAll("p, b, span, bdi, figcaption, label, legend, summary, li, button, output")]
    .filter((node) => node.childNodes.length && node.textContent.trim() && node.offsetParent && !node.disabled)
    .filter((node) => {
      const [a, b] = [light(getComputedStyle(node).color), behind(node)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05) < 4.5;
    }).map((node) => node.outerHTML.slice(0, 120));
})()"""


class Watched:
    """A page in the browser, with everything it `asked` for and complained of."""

    def __init__(self, browser: Any, address: str, width: int, scheme: str) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
