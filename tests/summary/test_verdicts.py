"""The verdicts of the check in a summary: the counts against the rows, intervals against SciPy, and the page."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.export import KINDS, export
from seewhy.cli import main as cli
from seewhy.explanation.checks import VERDICTS
from seewhy.summary import write_comparison, write_summary
from seewhy.summary.run_summary import summarize
from seewhy.summary.verdict_tables import class_check_table, verdict_table
from seewhy.summary.verdicts import ClassShare, ConfirmedShare, VerdictRow, Verdicts
from support.browser import DUPLICATE_IDS, LOW_CONTRAST, UNNAMED_CONTROLS, BrowserPage, needs_browser
from support.color_runs import Row, copy_run
from support.spot_runs import LAYERS, Noisy, load_spots, run_spots, write_spots

COLORS = [0] * 18 + [1] * 14 + [2] * 3
METHODS, TARGETS = ("hirescam", "gradcam"), ("top1", "top2")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spots") / "photos"
    folder.mkdir()
    write_spots(folder, COLORS)
    return folder


@pytest.fixture(scope="module")
def checked(photos: Path) -> BulkRun:
    return run_spots(load_spots(), photos, photos.parent / "checked", methods=METHODS, targets=("top2",))


@pytest.fixture(scope="module")
def unchecked(photos: Path) -> BulkRun:
    return run_spots(load_spots(), photos, photos.parent / "unchecked", check=False)


def verdicts_of(run: BulkRun, **choice: Any) -> Verdicts:
    verdicts = summarize(run, **choice).verdicts
    assert verdicts is not None
    return verdicts


# Numbers


@pytest.mark.parametrize(("confirmed", "checked"), [(46, 83), (0, 10), (10, 10), (1, 1), (999, 20_000)])
def test_interval_is_that_of_wilson(confirmed: int, checked: int) -> None:
    share = ConfirmedShare(confirmed, checked)
    expected = binomtest(confirmed, checked).proportion_ci(0.95, "wilson")
    assert share.interval == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_standard_error() -> None:
    assert ConfirmedShare(46, 83).standard_error == pytest.approx(math.sqrt(46 / 83 * 37 / 83 / 83))
    for share in (ConfirmedShare(0, 10), ConfirmedShare(10, 10), ConfirmedShare(0, 0)):
        assert math.isnan(share.standard_error)  # the formula would give 0
    assert math.isnan(ConfirmedShare(0, 0).value) and math.isnan(ConfirmedShare(0, 0).interval[0])


def test_counts_are_those_of_the_rows(checked: BulkRun) -> None:
    expected: dict[tuple[str, str, str], Counter[str]] = {}
    reasons: dict[tuple[str, str, str], Counter[str]] = {}
    for row in checked.table.to_pylist():
        for number, layer in enumerate(row["layers"] or ()):
            key = row["method"], row["target"], layer
            expected.setdefault(key, Counter())[row["check"][number]] += 1
            if row["check_reason"][number]:
                reasons.setdefault(key, Counter())[row["check_reason"][number]] += 1
    rows = verdicts_of(checked).rows
    names = [(row.method, row.target, row.layer) for row in rows]
    assert names == [(method, target, layer) for method in METHODS for target in TARGETS for layer in LAYERS]
    for name, row in zip(names, rows, strict=True):
        assert tuple(row.counts) == VERDICTS
        assert {verdict: count for verdict, count in row.counts.items() if count} == expected[name]
        assert row.reasons == reasons.get(name, {}) and row.maps == len(COLORS)
        assert row.share == ConfirmedShare(expected[name]["confirmed"], len(COLORS) - expected[name]["not checked"])
    assert sum(row.share.confirmed for row in rows) > 20


def test_classes_of_the_selected_maps(checked: BulkRun) -> None:
    for choice in ({}, {"method": "gradcam", "target": "top1", "layer": "features.0"}):
        verdicts = verdicts_of(checked, **choice)
        one = verdicts.selected
        assert {"method": one.method, "target": one.target, "layer": one.layer}.items() >= choice.items()
        expected: dict[str, list[int]] = {}
        for row in checked.rows(one.method, one.target, one.layer):
            counts = expected.setdefault(row["target_name"], [0, 0])
            counts[0] += row["check"] == "confirmed"
            counts[1] += row["check"] != "not checked"
        found = {one.name: [one.share.confirmed, one.share.checked] for one in verdicts.classes}
        assert found == expected and len(found) > 1
        sizes = [one.share.checked for one in verdicts.classes]
        assert sizes == sorted(sizes, reverse=True)


def test_small_classes_are_not_compared(checked: BulkRun) -> None:
    verdicts = verdicts_of(checked)
    assert [one.has_few for one in verdicts.classes] == [False, False, True]
    table = class_check_table(verdicts)
    assert table is not None and [row[0] for row in table["rows"]] == ["red", "green"]
    assert "1 class has fewer than 10 checked maps" in table["description"]
    assert not table["columns"][3]["sortable"]  # the share: by its limits, a small class is not first by chance
    few = Verdicts(verdicts.rows, verdicts.selected, verdicts.classes[1:])
    assert class_check_table(few) is None


def make_row(confirmed: int, others: int, reasons: dict[str, int] | None = None) -> VerdictRow:
    reasons = reasons or {}
    counts = dict.fromkeys(VERDICTS, 0) | {
        "confirmed": confirmed,
        "inconclusive": others,
        "not checked": sum(reasons.values()),
    }
    return VerdictRow("gradcam", "top1", "bn2", counts, reasons)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (make_row(46, 37), "46 of 83 checked maps of gradcam at bn2 confirmed: 55% (standard error 5%). Chance alone would "
                           "confirm 5%."),
        (make_row(1, 9), "1 of 10 checked maps of gradcam at bn2 confirmed: 10% (standard error 9%). Chance alone would "
                         "confirm 5%. The difference between the two can be chance."),
        (make_row(1, 0), "1 of 1 checked map of gradcam at bn2 confirmed: 100% (95% interval 21% to 100%). Chance alone would "
                         "confirm 5%."),
        (make_row(0, 0, {"x": 3}), "No map of gradcam at bn2 has a verdict."),
    ],
)  # fmt: skip
def test_sentence_about_the_selected_maps(row: VerdictRow, sentence: str) -> None:
    assert Verdicts([row], row, []).sentence() == sentence


def test_reasons_are_listed_most_frequent_first() -> None:
    row = make_row(1, 0, {"a": 5, "b": 3, "c": 2, "d": 1, "e": 1})
    assert row.not_checked() == (
        "12 of 13 maps of gradcam at bn2 were not checked: a (5); b (3); c (2); other reasons (2)"
    )
    assert make_row(1, 0, {"a": 5}).not_checked() == "5 of 6 maps of gradcam at bn2 were not checked: a"
    assert make_row(1, 0).not_checked() == ""


# Output


def command(*arguments: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["summary", *map(str, arguments)])


def test_terminal_and_json(checked: BulkRun, tmp_path: Path, capsys: Capture) -> None:
    command(checked.folder, "-o", tmp_path)
    text = " ".join(capsys.readouterr().out.split())
    selected = verdicts_of(checked).selected
    assert f"confirmed {selected.share} checked maps (by chance 5%)" in text
    assert f"hirescam top1 features.0 {verdicts_of(checked).rows[0].share}" in text
    assert verdicts_of(checked).sentence() in text and selected.not_checked() in text
    command(checked.folder, "-o", tmp_path, "--json")
    record = json.loads(capsys.readouterr().out)["checks"]
    assert record["chance"] == 0.05 and len(record["maps"]) == 8
    (one,) = (
        row for row in record["maps"] if (row["method"], row["target"], row["layer"]) == ("hirescam", "top1", LAYERS[1])
    )
    assert one["verdicts"] == selected.counts and one["confirmed"] == selected.share.confirmed
    assert one["share"] == selected.share.value and one["interval"] == list(selected.share.interval)
    assert [row["name"] for row in record["by_class"]["classes"]] == ["red", "green", "blue"]


def test_tables(checked: BulkRun, tmp_path: Path) -> None:
    write_summary(checked, tmp_path)
    write_summary(checked, tmp_path)  # it may replace its own tables
    with open(tmp_path / "checks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["target"], row["layer"]) for row in rows] == [
        (row.method, row.target, row.layer) for row in verdicts_of(checked).rows
    ]
    for row in rows:
        total = sum(int(row[verdict.replace(" ", "_")]) for verdict in VERDICTS)
        assert total == int(row["maps"]) == int(row["checked"]) + int(row["not_checked"])
    with open(tmp_path / "class_checks.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["red", "green", "blue"]


def test_a_run_without_the_check_shows_nothing_of_it(unchecked: BulkRun, tmp_path: Path, capsys: Capture) -> None:
    summary, page = write_summary(unchecked, tmp_path)
    assert summary.verdicts is None and "confirmed" not in dict(summary.facts())
    assert not list(tmp_path.glob("*checks.csv"))
    data = page.read_text().partition('id="data">')[2].partition("</script>")[0].lower()
    assert data and "confirmed" not in data
    for arguments in ([], ["--json"]):
        command(unchecked.folder, "-o", tmp_path, *arguments)
        assert "check" not in capsys.readouterr().out.replace(str(tmp_path), "").replace(str(unchecked.folder), "")


def test_runs_with_and_without_the_check_are_compared(checked: BulkRun, unchecked: BulkRun, tmp_path: Path) -> None:
    for first, second in ((checked, unchecked), (unchecked, checked), (checked, checked)):
        _, page = write_comparison(first, second, tmp_path, method="gradcam", target="top1")
        text = page.read_text()
        assert text.count("checked maps confirmed") == (first is checked) + (second is checked)


def test_exports(checked: BulkRun, tmp_path: Path) -> None:
    for kind in KINDS:
        assert export(checked, tmp_path / kind, kind, method="gradcam", target="top1") == len(COLORS)


def test_a_run_in_which_nothing_could_be_checked(photos: Path, tmp_path: Path) -> None:
    run = run_spots(load_spots(Noisy()), photos, tmp_path / "run")
    summary, _ = write_summary(run)
    assert (
        summary.verdicts is not None and summary.verdicts.sentence() == "No map of gradcam at features.1 has a verdict."
    )
    assert any(note.endswith("Noisy draws random numbers, so its scores change each time") for note in summary.notes())
    assert all(isinstance(one, ClassShare) and one.share.checked == 0 for one in summary.verdicts.classes)


def test_a_layer_that_some_images_lack(checked: BulkRun, tmp_path: Path) -> None:
    def remove_last(row: Row) -> None:
        if row["target_name"] == "red":
            for name, values in row.items():
                if isinstance(values, list) and len(values) == 2 and name not in ("input", "view"):
                    row[name] = values[:1]

    run = copy_run(checked, tmp_path / "run", remove_last)
    others = sum(color != 0 for color in COLORS)
    verdicts = verdicts_of(run, layer="features.1")
    assert [row.maps for row in verdicts.rows if row.target == "top1"] == [len(COLORS), others] * 2
    assert verdicts.selected.maps == others == len(summarize(run, layer="features.1").table)


# The page


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(420, "dark"), (420, "light"), (1280, "dark"), (1280, "light")])
def test_page(checked: BulkRun, browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    summary, path = write_summary(checked, tmp_path)
    opened = BrowserPage(browser, path.as_uri(), width, scheme)
    page = opened.page
    assert opened.messages == [] and opened.width <= width
    assert page.evaluate(LOW_CONTRAST) == [] and page.evaluate(DUPLICATE_IDS) == []
    assert page.evaluate(UNNAMED_CONTROLS) == []
    assert summary.verdicts is not None
    section = page.locator("#checks")
    assert summary.verdicts.sentence() in section.locator("p").first.inner_text()
    assert section.locator("tbody tr").count() == len(summary.verdicts.rows)
    for number, row in enumerate(summary.verdicts.rows):
        bar = section.locator("tbody tr").nth(number).locator(".verdicts")
        label = ", ".join(f"{verdict} {count}" for verdict, count in row.counts.items() if count)
        assert bar.get_attribute("aria-label") == label
        widths = bar.evaluate(
            "(bar) => [...bar.children].map((part) => part.getBoundingClientRect().width / bar.clientWidth)"
        )
        shares = [count / row.maps for count in row.counts.values() if count]
        assert widths == pytest.approx(shares, abs=0.03)
    assert section.locator(".meanings li").all_inner_texts()[0].startswith("confirmed: ")
    marks = "[...document.querySelectorAll('.meanings .mark')].map((mark) => getComputedStyle(mark).backgroundColor)"
    colors = set(page.evaluate(marks))
    assert len(colors) == 5
    assert page.locator("#class-checks tbody tr").count() == 2
    assert "of 3" in page.locator("#classes tbody tr").last.inner_text()
    page.locator("#extremes .thumbnails button").first.click()
    assert "check: " in page.locator("dialog[open]").inner_text()
    opened.close()


def test_confirmed_share_is_sortable(checked: BulkRun) -> None:
    columns = verdict_table(verdicts_of(checked))["columns"]
    assert [column["title"] for column in columns if not column["sortable"]] == ["Verdicts"]
