"""The summary and comparison pages in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy.bulk.bulk_run import BulkRun
from seewhy.summary import write_comparison, write_summary
from seewhy.summary.findings import Finding
from seewhy.summary.run_summary import summarize
from seewhy.summary.summary_page import build_summary_data
from seewhy.viewer import build_summary
from support.browser import DUPLICATE_IDS, LOW_CONTRAST, UNNAMED_CONTROLS, BrowserPage, each_window, needs_browser
from support.color_runs import run_bulk, run_bulk_on

pytestmark = needs_browser


@pytest.fixture(scope="module")
def addresses(run: BulkRun, home: Path) -> dict[str, str]:
    _, page = write_summary(run)
    other = run_bulk(home, "half gain", gain=0.5, layers=("features.0",))
    return {"summary": page.as_uri(), "comparison": write_comparison(run, other)[1].as_uri()}


@pytest.fixture(params=["summary", "comparison"])
def either_page(request: pytest.FixtureRequest, browser: Any, addresses: dict[str, str]) -> Iterator[BrowserPage]:
    page = BrowserPage(browser, addresses[request.param])
    yield page
    urls = [url for url in page.requests if not url.startswith("data:")]
    assert page.messages == [] and urls == [addresses[request.param]]
    page.close()


def test_page_shows_facts_charts_and_tables_without_requests(either_page: BrowserPage) -> None:
    page = either_page.page
    assert page.locator("#facts div").count() >= 4
    assert page.locator(".chart").count() >= 8
    assert page.locator(".chart[aria-pressed=true]").count() == 1
    assert page.locator("table").count() >= 2
    broken = page.evaluate("[...document.images].filter((one) => one.src && one.complete && !one.naturalWidth).length")
    assert broken == 0
    # The file names contain "<b>", which must not become an element.
    assert page.locator("b:has-text('red')").count() == page.locator(".chart b:has-text('red')").count()
    assert page.evaluate(UNNAMED_CONTROLS) == [] and page.evaluate(DUPLICATE_IDS) == []


def test_charts_tables_and_thumbnails_respond_to_clicks(browser: Any, addresses: dict[str, str]) -> None:
    summary = BrowserPage(browser, addresses["summary"])
    page = summary.page
    before = page.locator("#extremes").inner_text()
    page.locator(".chart", has_text="Spread").click()
    after = page.locator("#extremes").inner_text()
    assert after != before and "Smallest spread" in after
    column = page.locator("#classes tbody tr td.number:nth-child(3)")
    counts = [int(text) for text in column.all_inner_texts()]
    button = page.locator("#classes th button", has_text="Images")
    button.click()
    assert [int(text) for text in column.all_inner_texts()] == sorted(counts, reverse=True)
    button.click()
    assert [int(text) for text in column.all_inner_texts()] == sorted(counts)
    assert page.locator("#classes th[aria-sort=ascending]").count() == 1
    page.locator("#extremes .thumbnails button").first.click()
    dialog = page.locator("dialog[open]")
    assert "<b>" in dialog.inner_text() and "predicted" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.locator("#failed tbody tr").count() == 2
    summary.close()


@each_window
def test_pages_fit_the_window_and_are_readable(
    browser: Any, addresses: dict[str, str], width: int, scheme: str
) -> None:
    for address in addresses.values():
        page = BrowserPage(browser, address, width, scheme)
        assert page.width <= width
        assert page.page.evaluate(LOW_CONTRAST) == []
        page.close()


def test_long_run_paths_fit_a_phone(browser: Any, run: BulkRun, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 15) / ("path" * 15)
    shutil.copytree(run.folder, folder)
    copy = BulkRun.read(folder)
    for path in (write_summary(copy)[1], write_comparison(run, copy)[1]):
        page = BrowserPage(browser, path.as_uri(), width=360)
        assert str(folder) in page.page.locator("#facts").inner_text()
        assert page.width <= 360
        page.close()


def test_thumbnails_in_tables_stay_on_one_line(browser: Any, addresses: dict[str, str]) -> None:
    page = BrowserPage(browser, addresses["summary"], width=360)
    for height in page.page.evaluate("[...document.querySelectorAll('td .thumbnails')].map((box) => box.clientHeight)"):
        assert height < 100
    page.close()


def test_only_twenty_findings_are_shown(run: BulkRun, browser: Any, tmp_path: Path) -> None:
    finding = Finding("corner", 0, "top left", np.arange(3), 12, 0.5, 0.1, 1.0, "3 of 12 images")
    data = build_summary_data(replace(summarize(run), findings=[finding] * 25))
    assert len(data["findings"]) == 20 and data["more_findings"] == "5 more findings are in findings.csv."
    data["statistics"][0]["median"] = None  # does not occur, but must not break the page
    (tmp_path / "page.html").write_text(build_summary(data, title="t", model="m"))
    summary = BrowserPage(browser, (tmp_path / "page.html").as_uri())
    page = summary.page
    assert page.locator("#findings").inner_text().endswith("5 more findings are in findings.csv.")
    assert page.locator("#classes table").count() == 1 and page.locator(".chart").count() == len(data["statistics"])
    regions = page.locator(".scrollable[tabindex='0'][role=region][aria-label]")
    assert regions.count() == page.locator(".scrollable").count() > 0
    assert page.locator("#enlarged").get_attribute("aria-label")
    assert page.locator("#extremes").get_attribute("aria-live") == "polite"
    summary.close()


def test_finding_is_shown_with_its_images(browser: Any, tmp_path: Path) -> None:
    """Red spots in one corner and green spots near the center: a group, one place, different from the others."""
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(1)
    for number in range(60):
        image = random.integers(0, 30, (32, 32, 3)).astype(np.uint8)
        color = 0 if number < 24 else 1
        top, left = (24, 24) if number < 24 else random.integers(4, 21, 2)
        image[top : top + 8, left : left + 8, color] = 255
        Image.fromarray(image).save(images / f"{number:02d}.png")
    summary, path = write_summary(run_bulk_on(images, tmp_path / "run", layers=("features.0",)))
    (finding,) = summary.findings
    assert sorted(summary.ids(finding.indices)) == [f"{number:02d}.png" for number in range(24)]
    browser_page = BrowserPage(browser, path.as_uri(), 1280, "dark")
    page = browser_page.page
    text = page.locator(".finding").inner_text()
    assert "bottom right corner" in text and '"red"' in text and "and 6 more" in text
    assert page.locator(".finding .thumbnails button").count() == 18
    assert page.locator(".no-findings").count() == 0
    browser_page.close()
