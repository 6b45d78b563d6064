"""The local app in the browser."""

from __future__ import annotations

from typing import Any

from support.browser import BrowserPage
from support.local_app import make_image

IMAGE = {"name": "one.png", "mimeType": "image/png", "buffer": make_image()}


class App(BrowserPage):
    """The app in the browser."""

    def __init__(self, browser: Any, address: str, width: int = 1300, scheme: str = "light") -> None:
        super().__init__(browser, address, width, scheme)
        self.page.evaluate("window.app.ready")

    def wait_for(self, expression: str) -> None:
        try:
            super().wait_for(expression)
        except AssertionError as error:
            status = self.page.inner_text("#status")
            raise AssertionError(f"{error}; status {status!r}, problem {self.problem!r}") from None

    def upload(self, image: Any = IMAGE) -> Any:
        """Choose an image and return the frame of its report."""
        self.page.set_input_files("#file", image)
        return self.wait_for_report()

    def wait_for_report(self, count: int | None = None) -> Any:
        """Wait for the report, or until there are `count` reports, and return the frame of the newest."""
        if count is not None:
            self.wait_for(f"document.getElementById('history').length === {count}")
        self.wait_for("document.querySelector('iframe') !== null && document.getElementById('stop').hidden")
        frame = self.page.frames[-1]
        frame.wait_for_function("window.seewhy")
        frame.evaluate("window.seewhy.ready")
        return frame

    def wait_for_fragment(self, text: str) -> None:
        """Wait until the app has received a page state that contains `text` from the report."""
        self.wait_for(f"window.app.getReport().fragment.includes({text!r})")

    @property
    def problem(self) -> str:
        return str(self.page.inner_text("#problem")) if self.page.locator("#problem").is_visible() else ""
