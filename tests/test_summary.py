"""The whole of a run: its tables against counting by hand, and its page in a browser."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from browsing import DOUBLE, FAINT, NAMELESS, Watched, needs_browser
from seewhy import tensors
from seewhy.bulk.plan import Questions
from seewhy.bulk.run import Run
from seewhy.bulk.running import run_job
from seewhy.bulk.worker import Means
from seewhy.errors import UnknownName, UsageError
from seewhy.preprocess import Preprocess
from seewhy.summary import write_comparison, write_summary
from seewhy.summary.compare import compare
from seewhy.summary.document import document, summarize
from seewhy.summary.gather import gather

LABELS = ["red", "green", "blue", "<i>none</i> & co"]
CORNERS = {"red": (0, 0), "green": (0, 24), "blue": (24, 0)}


class Colours(nn.Module):
    """Names the colour of the brightest spot, and looks at it: colours handed on, a mean, a linear head."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 3, 8, stride=8, bias=False), nn.ReLU())
        self.head = nn.Linear(3, 4)
        with torch.no_grad():
            self.features[0].weight.zero_()
            for channel in range(3):
                self.features[0].weight[channel, channel] = gain / 64
            self.head.weight.copy_(torch.tensor([[5.0, -2, -2], [-2, 5, -2], [-2, -2, 5], [0, 0, 0]]))
            self.head.bias.zero_()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).mean((2, 3)))


PREPROCESS = Preprocess((32, 32), (0.0,) * 3, (1.0,) * 3, "nearest", 32, fit="squash")


def model(gain: float = 1.0) -> seewhy.LoadedModel:
    return seewhy.load_model(Colours(gain).eval(), preprocess=PREPROCESS, labels=LABELS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 pictures: a spot of each colour in its corner; a third of the greens are labelled blue; boxes; two broken ones."""
    home = tmp_path_factory.mktemp("whole")
    draw = np.random.default_rng(0)
    rows = []
    for number in range(36):
        colour = ("red", "green", "blue")[number % 3]
        picture = draw.integers(0, 25, (32, 32, 3)).astype(np.uint8)
        top, left = CORNERS[colour] if number % 4 else (12, 12)
        picture[top : top + 8, left : left + 8, ("red", "green", "blue").index(colour)] = draw.integers(120, 255)
        name = f"{number:02d} <b>{colour}.png"
        Image.fromarray(picture).save(home / name)
        label = "blue" if colour == "green" and number % 9 == 1 else colour
        rows.append((name, label, "0,0,16,16" if colour == "red" else ""))
    for name in ("broken.png", "empty.png"):
        (home / name).write_bytes(b"no" if name == "broken.png" else b"")
        rows.append((name, "red", ""))
    with open(home / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "boxes"), *rows])
    return home


def made(home: Path, name: str, gain: float = 1.0, **asked: Any) -> Run:
    questions = Questions(**{"targets": ("predicted", "label"), "store": "float16", **asked})
    run_job(
        model(gain),
        [str(home / "table.csv")],
        home / name,
        questions,
        means=Means(workers=0),
        batch=4,
        part_size=10,
        quiet=True,
    )
    return Run.read(home / name)


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return made(home, "run", layers=("features.0",))


# Numbers


def test_classes_are_counted_and_averaged_as_by_hand(run: Run, home: Path) -> None:
    summary = summarize(run)
    answers = summary.answers
    assert len(answers) == 36 and len(answers.failed) == 2 and summary.answers.question == "top1"
    by_hand: dict[str, list[Any]] = {}
    for name in answers.columns["id"]:
        e = seewhy.explain(model(), home / name, layers="features.0")
        heat = e.map().clamp(min=0).double()
        by_hand.setdefault(e.top(1)[0][1], []).append((name, heat / heat.sum() if heat.sum() > 0 else heat * 0))
    assert [row.name for row in summary.classes] == sorted(
        by_hand, key=lambda name: (-len(by_hand[name]), LABELS.index(name))
    )
    labels = dict(zip(answers.columns["id"], answers.columns["label"], strict=True))
    for row in summary.classes:
        own = by_hand[row.name]
        assert summary.ids(row.members) == [name for name, _ in own]
        np.testing.assert_allclose(row.mean, torch.stack([heat for _, heat in own]).mean(0).numpy(), atol=2e-4)
        assert row.right == pytest.approx(np.mean([labels[name] == row.name for name, _ in own]))
        border = [answers.numbers["border"][answers.columns["id"].index(name)] for name, _ in own]
        assert row.means["border"] == pytest.approx(np.mean(border))


def test_confusions_are_the_wrong_ones_and_their_contrast_is_a_difference_of_maps(run: Run, home: Path) -> None:
    summary = summarize(run)
    (pair,) = summary.confusions
    assert (pair.label_name, pair.predicted_name, len(pair.members)) == ("blue", "green", 4)
    contrasts = []
    for name in summary.ids(pair.members):
        e = seewhy.explain(model(), home / name, layers="features.0", targets=["green", "blue"])
        one, other = e.map(target="green"), e.map(target="blue")
        contrasts.append((one - other) / max(one.abs().max(), other.abs().max()))
    np.testing.assert_allclose(pair.contrast, torch.stack(contrasts).mean(0).numpy(), atol=2e-3)
    assert np.abs(pair.contrast).max() > 0.1


def test_there_is_no_contrast_where_the_run_has_not_both_maps_or_the_method_is_not_linear(home: Path) -> None:
    only = made(home, "only", layers=("features.0",), targets=("predicted",))
    assert summarize(only).confusions[0].contrast is None
    words = next(table for table in document(summarize(only))["tables"] if table["id"] == "confusions")["words"]
    assert "--targets predicted,label" in words
    layer = made(home, "layercam", layers=("features.0",), methods=("layercam",))
    assert summarize(layer).confusions[0].contrast is None


def test_of_several_methods_questions_and_layers_one_is_shown_and_that_is_said(home: Path) -> None:
    several = made(home, "several", layers=("features.0", "features.1"), methods=("gradcam", "hirescam"))
    first = gather(several)
    assert (first.method, first.question, first.layer) == ("gradcam", "top1", "features.1")
    assert any("2 methods in this run: shown is gradcam (--method)" in note for note in first.notes)
    other = gather(several, "hirescam", "label", "features.0")
    ids, maps = several.maps("hirescam", "label", "features.0")
    assert ids == other.columns["id"]
    np.testing.assert_array_equal(maps, other.maps)
    for choice in ({"method": "gradcan"}, {"question": "top9"}, {"layer": "features.7"}):
        with pytest.raises(UnknownName):
            gather(several, **choice)


def test_two_runs_are_matched_by_picture_and_compared_by_their_heat(run: Run, home: Path) -> None:
    other = made(home, "act", layers=("features.1",))
    both = compare(run, other)
    assert len(both.first) == 36
    one, two = (tensors.rectify(torch.from_numpy(gather(each).maps)).flatten(1).double() for each in (run, other))
    for at in range(36):
        if one[at].sum() and two[at].sum():
            assert both.likeness[at] == pytest.approx(
                float(torch.corrcoef(torch.stack([one[at], two[at]]))[0, 1]), abs=1e-4
            )
            least = torch.minimum(one[at] / one[at].sum(), two[at] / two[at].sum()).sum()
            assert both.overlap[at] == pytest.approx(float(least), abs=1e-4)
    same = compare(run, run)
    np.testing.assert_allclose(same.likeness[~np.isnan(same.likeness)], 1, atol=1e-6)


def test_runs_without_a_common_picture_or_without_any_are_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "none.png").write_bytes(b"no")
    run_job(
        model(),
        [str(tmp_path / "none.png")],
        tmp_path / "none",
        Questions(),
        means=Means(workers=0),
        batch=1,
        quiet=True,
    )
    with pytest.raises(UsageError, match="no picture of this run was explained"):
        summarize(Run.read(tmp_path / "none"))
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "red.png")
    run_job(
        model(), [str(tmp_path / "red.png")], tmp_path / "red", Questions(), means=Means(workers=0), batch=1, quiet=True
    )
    assert document(summarize(Run.read(tmp_path / "red")))["facts"][0] == ("pictures", "1")
    with pytest.raises(UsageError, match="hold no picture of the same id"):
        compare(run, Run.read(tmp_path / "red"))


def test_an_unfinished_run_is_summed_up_and_says_so(home: Path) -> None:
    part = made(home, "unfinished", layers=("features.0",))
    part.files[-1].unlink()
    assert ("so far", "3 of 4 parts") in document(summarize(Run.read(home / "unfinished")))["facts"]


# Files and the command line


def test_the_tables_and_what_the_terminal_says(run: Run, home: Path) -> None:
    command = [sys.executable, "-m", "seewhy", "summary", str(run.folder)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    assert "pictures 36" in ended.stdout and "failed 2" in ended.stdout and "farthest out" in ended.stdout
    said = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True).stdout)
    assert Path(said["page"]).exists() and isinstance(said["findings"], list)
    with open(run.folder / "summary" / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["pictures"]) for row in rows) == 36
    with open(run.folder / "summary" / "outliers.csv", newline="") as file:
        assert {row["statistic"] for row in csv.DictReader(file)} >= {"border", "corner", "edge", "inside"}
    for wrong, words in (
        ([], "give one"),
        ([str(home / "nothing")], "no run here"),
        ([str(run.folder), "--layer", "x"], "no layer 'x'"),
    ):
        ended = subprocess.run([*command[:4], *wrong], capture_output=True, text=True)
        assert ended.returncode == 2 and words in ended.stderr and "Traceback" not in ended.stderr, ended.stderr


# The page


@pytest.fixture(scope="module")
def pages(run: Run, home: Path) -> dict[str, str]:
    _, page = write_summary(run)
    other = made(home, "other", gain=0.5, layers=("features.0",))
    return {"summary": page.as_uri(), "compare": write_comparison(run, other).as_uri()}


@pytest.fixture(params=["summary", "compare"])
def opened(request: pytest.FixtureRequest, browser: Any, pages: dict[str, str]) -> Iterator[Watched]:
    found = Watched(browser, pages[request.param], 1280, "light")
    yield found
    assert found.said == [] and [one for one in found.asked if not one.startswith("data:")] == [pages[request.param]]
    found.page.context.close()


@needs_browser
def test_the_page_shows_everything_and_asks_for_nothing(opened: Watched) -> None:
    page = opened.page
    assert page.locator("#facts div").count() >= 4
    assert page.locator(".chart").count() >= 8
    assert page.locator(".chart[aria-pressed=true]").count() == 1
    assert page.locator("table").count() >= 2
    broken = page.evaluate("[...document.images].filter((one) => one.src && one.complete && !one.naturalWidth).length")
    assert broken == 0
    assert (
        page.locator("b:has-text('red')").count() == page.locator(".chart b:has-text('red')").count()
    )  # no markup of names
    assert page.evaluate(NAMELESS) == [] and page.evaluate(DOUBLE) == []


@needs_browser
def test_charts_choose_tables_sort_and_pictures_grow(browser: Any, pages: dict[str, str]) -> None:
    page = Watched(browser, pages["summary"], 1280, "light").page
    before = page.locator("#extremes").inner_text()
    page.locator(".chart", has_text="How spread out").click()
    assert (
        page.locator("#extremes").inner_text() != before and "Most gathered" in page.locator("#extremes").inner_text()
    )
    column = page.locator("#classes tbody tr td.number:nth-child(3)")
    count = [int(text) for text in column.all_inner_texts()]
    page.locator("#classes th button", has_text="Pictures").click()
    assert [int(text) for text in column.all_inner_texts()] == sorted(count, reverse=True)
    page.locator("#classes th button", has_text="Pictures").click()
    assert [int(text) for text in column.all_inner_texts()] == sorted(count)
    assert page.locator("#classes th[aria-sort=ascending]").count() == 1
    page.locator("#extremes .thumbs button").first.click()
    dialog = page.locator("dialog[open]")
    assert "<b>" in dialog.inner_text() and "predicted" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.locator("#failed tbody tr").count() == 2
    page.context.close()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_it_fits_any_window_and_can_be_read(browser: Any, pages: dict[str, str], width: int, scheme: str) -> None:
    for address in pages.values():
        found = Watched(browser, address, width, scheme)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        assert found.page.evaluate(FAINT) == []
        found.page.context.close()


@needs_browser
def test_a_finding_stands_first_with_its_pictures(browser: Any, tmp_path: Path) -> None:
    """Spots of one class in one corner, all others in the middle: a group, one place, unlike the rest."""
    draw = np.random.default_rng(1)
    for number in range(60):
        picture = draw.integers(0, 30, (32, 32, 3)).astype(np.uint8)
        colour = 0 if number < 24 else 1
        top, left = (24, 24) if number < 24 else draw.integers(4, 21, 2)
        picture[top : top + 8, left : left + 8, colour] = 255
        Image.fromarray(picture).save(tmp_path / f"{number:02d}.png")
    run_job(
        model(),
        [str(tmp_path)],
        tmp_path / "run",
        Questions(layers=("features.0",)),
        means=Means(workers=0),
        batch=8,
        quiet=True,
    )
    found, path = write_summary(Run.read(tmp_path / "run"))
    (finding,) = found.findings
    assert sorted(found.ids(finding.indices)) == [f"{number:02d}.png" for number in range(24)]
    page = Watched(browser, path.as_uri(), 1280, "dark").page
    assert (
        "bottom right corner" in page.locator(".finding").inner_text()
        and "red" in page.locator(".finding").inner_text()
    )
    assert page.locator(".finding .thumbs button").count() == 18
    assert "and 6 more" in page.locator(".finding").inner_text()
    assert page.locator(".calm").count() == 0
    page.context.close()
