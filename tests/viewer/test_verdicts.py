"""The verdict of each map on the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import seewhy
from seewhy.explanation.checks import MapCheck
from support.browser import LOW_CONTRAST, BrowserPage, each_window, needs_browser


@pytest.fixture(scope="module")
def e(embedded: seewhy.LoadedModel) -> seewhy.Explanation:
    explanation = seewhy.explain(
        embedded,
        seewhy.sample("cat_espresso"),
        layers=["blocks.2.1", "blocks.4.2"],
        targets=["espresso", "Egyptian cat"],
        include_suggested=True,
        fit="squash",
    )
    return seewhy.trust.check(embedded, explanation)


def verdict(page: BrowserPage, layer: int) -> tuple[str, str]:
    """Return the text and the kind of the verdict that is shown for a layer."""
    page.page.evaluate(f"window.seewhy.updatePanel({{layer: {layer}, versus: -1}})")
    page.page.wait_for_timeout(100)
    return page.page.inner_text("#verdict"), page.page.evaluate("document.getElementById('verdict').dataset.verdict")


@needs_browser
@each_window
def test_the_page_shows_the_verdict_of_the_selected_map(
    e: seewhy.Explanation, browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    e.report(tmp_path / "report.html")
    page = BrowserPage(browser, (tmp_path / "report.html").as_uri(), width, scheme)
    page.page.evaluate("window.seewhy.ready")
    for number, layer in enumerate(e.layers):
        check = e.check(target="espresso", layer=layer)
        assert isinstance(check, MapCheck)
        assert verdict(page, number) == (check.sentence("espresso"), check.verdict)
    assert {check.verdict for (check,) in e.checks.values()} >= {"confirmed", "contradicted"}
    page.page.evaluate("window.seewhy.updateState({chart: 'check'})")
    page.page.wait_for_timeout(100)
    titles = page.page.evaluate("[...document.querySelectorAll('#chart title')].map((title) => title.textContent)")
    suggested = e.check(target="espresso", layer=e.suggested)
    assert isinstance(suggested, MapCheck)
    title = titles[len(e.layers) - 1]  # the measured map follows
    assert title == f"{e.suggested}: correlation with the effect of covering {suggested.r:.2f}"
    assert page.page.evaluate(LOW_CONTRAST) == []
    page.page.evaluate("window.seewhy.updatePanel({versus: 1})")  # a difference of classes was not checked
    page.page.wait_for_timeout(100)
    assert not page.page.is_visible("#verdict")
    assert page.messages == []
    page.close()


@needs_browser
def test_a_page_without_checks_has_no_verdicts(e: seewhy.Explanation, browser: Any, tmp_path: Path) -> None:
    dataclasses.replace(e, checks={}).report(tmp_path / "report.html")
    page = BrowserPage(browser, (tmp_path / "report.html").as_uri())
    page.page.evaluate("window.seewhy.ready")
    assert not page.page.is_visible("#verdict")
    assert page.page.evaluate("document.getElementById('check-option').hidden")
    page.close()
