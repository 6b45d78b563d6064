"""The whole of a run: its tables against counting by hand, and its page in a browser."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy import tensors
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.cli import main as cli
from seewhy.errors import UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.summary import as_csv, write_comparison, write_summary
from seewhy.summary import thumbnails as drawn
from seewhy.summary.answers import gather
from seewhy.summary.comparison import compare, on_grid, renamed
from seewhy.summary.comparison_page import comparison_document
from seewhy.summary.document import document, summarize
from seewhy.summary.thumbnails import photos
from seewhy.terminal import OutlierRow, make_console, print_summary
from support.browser import DOUBLE, FAINT, NAMELESS, Watched, needs_browser

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


def made(home: Path, name: str, gain: float = 1.0, **asked: Any) -> BulkRun:
    settings = BulkSettings(**{"targets": ("predicted", "label"), "store": "float16", **asked})
    run_job(
        model(gain),
        [str(home / "table.csv")],
        home / name,
        settings,
        Execution(workers=0, batch_size=4, part_size=10),
        quiet=True,
    )
    return BulkRun.read(home / name)


@pytest.fixture(scope="module")
def run(home: Path) -> BulkRun:
    return made(home, "run", layers=("features.0",))


def changed(run: BulkRun, folder: Path, change: Callable[[dict[str, Any]], None]) -> BulkRun:
    """A copy of a run whose rows have been changed."""
    import pyarrow as pa
    from pyarrow import parquet

    shutil.copytree(run.folder, folder)
    copy = BulkRun.read(folder)
    for file in copy.files:
        table = parquet.read_table(file)
        rows = table.to_pylist()
        for row in rows:
            if row["error"] is None:
                change(row)
        parquet.write_table(pa.Table.from_pylist(rows, table.schema), file)
    return copy


def at_layers(row: dict[str, Any], keep: Callable[[str], bool]) -> None:
    """Drop layers of a row, with all that belongs to them."""
    held = row["layers"]
    for name, values in row.items():
        if isinstance(values, list) and name not in ("view", "input") and len(values) == len(held):
            row[name] = [value for layer, value in zip(held, values, strict=True) if keep(layer)]


# Numbers


def test_classes_are_counted_and_averaged_as_by_hand(run: BulkRun, home: Path) -> None:
    summary = summarize(run)
    answers = summary.answers
    assert len(answers) == 36 and len(answers.failed) == 2 and summary.answers.target == "top1"
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


def test_confusions_are_the_wrong_ones_and_their_contrast_is_a_difference_of_maps(run: BulkRun, home: Path) -> None:
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
    assert (first.method, first.target, first.layer) == ("gradcam", "top1", "features.1")
    assert any("2 methods in this run: shown is gradcam (--method)" in note for note in first.notes)
    other = gather(several, "hirescam", "label", "features.0")
    ids, maps = several.maps("hirescam", "label", "features.0")
    assert ids == other.columns["id"]
    np.testing.assert_array_equal(maps, other.maps)
    for choice in ({"method": "gradcan"}, {"target": "top9"}, {"layer": "features.7"}):
        with pytest.raises(UnknownName):
            gather(several, **choice)


def test_right_is_a_matter_of_the_predicted_class_whatever_the_maps_are_of(run: BulkRun) -> None:
    wrong = {row.name: row.right for row in summarize(run, target="label").classes}
    assert wrong["red"] == 1 and wrong["green"] == 1 and wrong["blue"] == pytest.approx(12 / 16)
    assert dict(document(summarize(run, target="label"))["facts"])["right"] == "88.9% of 36 with a label"


def test_without_a_predicted_class_nothing_is_right_or_wrong(run: BulkRun, tmp_path: Path) -> None:
    def unknown(row: dict[str, Any]) -> None:
        if row["label"] != "red":
            row["predicted"] = row["predicted_name"] = row["confidence"] = None

    some = summarize(changed(run, tmp_path / "some", unknown))
    assert dict(document(some)["facts"])["right"] == "100.0% of 12 with a label"
    assert not some.confusions and next(row for row in some.classes if row.name == "green").right is None

    def none(row: dict[str, Any]) -> None:
        row["predicted"] = row["predicted_name"] = row["confidence"] = None

    nothing = changed(run, tmp_path / "nothing", none)
    assert gather(nothing).right is None and "right" not in dict(document(summarize(nothing))["facts"])
    assert compare(run, nothing).same_answer is None
    comparison_document(compare(run, nothing))


def test_rows_without_the_layer_are_left_out_and_that_is_said(home: Path, tmp_path: Path) -> None:
    two = made(home, "two layers", layers=("features.0", "features.1"))

    def fewer(row: dict[str, Any]) -> None:
        if row["label"] == "red":
            at_layers(row, lambda layer: layer == "features.0")

    part = changed(two, tmp_path / "part", fewer)
    answers = gather(part, layer="features.1")
    assert len(answers) == 24 and "red" not in answers.columns["label"]
    assert "12 pictures have no map at features.1" in answers.notes
    assert len(gather(part, layer="features.0")) == 36
    with pytest.raises(UnknownName):
        gather(part, layer="features.2")


def test_findings_say_how_the_pictures_came_to_their_class(run: BulkRun, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    monkeypatch.setattr("seewhy.summary.document.find_shortcuts", lambda *given: words.append(given[-1]) or [])
    for target in ("top1", "label"):
        summarize(run, target=target)
    assert words == ["predicted as", "labelled"]


def test_names_are_looked_up_once(run: BulkRun) -> None:
    answers = gather(run)
    assert answers.name_of(0) == "red" and answers.name_of(9) == "class 9"
    assert answers.names is answers.names


def test_blank_maps_and_maps_of_one_cell_have_a_page(run: BulkRun, tmp_path: Path) -> None:
    def one_cell(row: dict[str, Any]) -> None:
        row["shapes"], row["maps"] = [[1, 1]], [np.ones(1, np.float16).tobytes()]

    def blank(row: dict[str, Any]) -> None:
        row["maps"] = [bytes(len(row["maps"][0]))]
        for name in ("peak_x", "center_x", "spread", "border", "corner", "inside"):
            row[name] = [None]

    for name, change in (("one", one_cell), ("blank", blank)):
        other = changed(run, tmp_path / name, change)
        for data in (document(summarize(other)), comparison_document(compare(other, other))):
            assert all(entry["median"] is not None for entry in data["statistics"])
            assert "likeness" not in [entry["name"] for entry in data["statistics"]]
            json.dumps(data, allow_nan=False)


def test_far_out_is_counted_not_called_strange(run: BulkRun) -> None:
    found = summarize(run)
    border = next(entry for entry in document(found)["statistics"] if entry["name"] == "border")
    assert border["highTitle"] == "Farthest from the median: heat at the border or in a corner"
    assert f"{found.outliers['edge'].far} of 36 lie more than 3.5 robust deviations out" in border["words"]


# Two runs


def test_two_runs_are_compared_by_a_method_and_a_question_that_both_have(home: Path, run: BulkRun) -> None:
    one = made(home, "both ways", layers=("features.0",), methods=("layercam", "gradcam"))
    two = made(home, "one way", layers=("features.0",), methods=("gradcam",), targets=("label",))
    both = compare(one, two)
    assert {(part.method, part.target) for part in both.answers} == {("gradcam", "label")}
    assert any("gradcam for label at features.0" in text for _, text in comparison_document(both)["facts"])
    assert any(note.startswith(f"{one.folder}: 2 methods in this run") for note in both.notes)
    other = made(home, "another way", layers=("features.0",), methods=("layercam",), targets=("predicted",))
    with pytest.raises(UsageError, match="gradcam for label; the second layercam for top1"):
        compare(two, other)
    with pytest.raises(UnknownName):
        compare(one, two, method="layercan")


def test_the_order_of_two_runs_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    coarse, fine = (draw.normal(size=(5, side, side)).astype(np.float32).clip(0) for side in (4, 14))
    one, two = on_grid(coarse, fine), on_grid(fine, coarse)
    assert one[0].shape == one[1].shape == (5, 14, 14)
    np.testing.assert_array_equal(one[0], two[1])
    np.testing.assert_array_equal(one[1], two[0])


def test_what_makes_two_runs_less_comparable_is_said(run: BulkRun, tmp_path: Path) -> None:
    def otherwise(row: dict[str, Any]) -> None:
        if row["label"] == "red":
            row["view"] = [4.0, 0.0, 28.0, 32.0]
        if row["id"].startswith("00"):
            row["sha256"] = "0" * 64
        if row["label"] == "blue":
            row["label"] = row["label_class"] = row["label_name"] = None

    other = changed(run, tmp_path / "other", otherwise)
    both = compare(run, other)
    assert "12 pictures were seen through another crop: likeness compares places in the input" in both.notes
    assert "1 pictures are other files in the second run, of the same id" in both.notes
    facts = dict(comparison_document(both)["facts"])
    assert facts[str(run.folder)].endswith("88.9% right of 36")
    assert facts[str(other.folder)].endswith("100.0% right of 20")
    assert facts["in the same place, median"] == "100% of the heat"


def test_distributions_of_two_runs_are_of_the_pictures_in_both(run: BulkRun, tmp_path: Path) -> None:
    def moved(row: dict[str, Any]) -> None:
        if row["label"] != "red":
            row["id"] = f"other {row['id']}"

    both = compare(run, changed(run, tmp_path / "moved", moved))
    for entry in comparison_document(both)["statistics"][1:]:
        assert sum(entry["counts"]) == sum(entry["counts2"]) == 12


def test_the_same_answer_goes_by_names_where_classes_are_numbered_in_another_way(run: BulkRun, tmp_path: Path) -> None:
    def shifted(row: dict[str, Any]) -> None:
        for name in ("predicted", "target_class", "label_class"):
            row[name] += 1
        row["target_key"] = str(row["target_class"])

    def nameless(row: dict[str, Any]) -> None:
        for number, name in (
            ("predicted", "predicted_name"),
            ("target_class", "target_name"),
            ("label_class", "label_name"),
        ):
            row[name] = f"class {row[number]}"

    other = changed(run, tmp_path / "shifted", shifted)
    assert renamed(gather(run), gather(other)) and compare(run, other).same_answer == 1
    assert compare(run, changed(run, tmp_path / "nameless", nameless)).same_answer == 1


def test_two_runs_are_matched_by_picture_and_compared_by_their_heat(run: BulkRun, home: Path) -> None:
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


def test_runs_without_a_common_picture_or_without_any_are_errors(run: BulkRun, tmp_path: Path) -> None:
    (tmp_path / "none.png").write_bytes(b"no")
    run_job(
        model(),
        [str(tmp_path / "none.png")],
        tmp_path / "none",
        BulkSettings(),
        Execution(workers=0, batch_size=1),
        quiet=True,
    )
    with pytest.raises(UsageError, match="no picture of this run was explained"):
        summarize(BulkRun.read(tmp_path / "none"))
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "red.png")
    run_job(
        model(),
        [str(tmp_path / "red.png")],
        tmp_path / "red",
        BulkSettings(),
        Execution(workers=0, batch_size=1),
        quiet=True,
    )
    assert document(summarize(BulkRun.read(tmp_path / "red")))["facts"][0] == ("pictures", "1")
    with pytest.raises(UsageError, match="hold no picture of the same id"):
        compare(run, BulkRun.read(tmp_path / "red"))


def test_an_unfinished_run_is_summed_up_and_says_so(home: Path) -> None:
    part = made(home, "unfinished", layers=("features.0",))
    part.files[-1].unlink()
    assert ("so far", "3 of 4 parts") in document(summarize(BulkRun.read(home / "unfinished")))["facts"]


# Files and the command line


def test_the_tables_and_what_the_terminal_says(run: BulkRun, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "seewhy", "summary", str(run.folder)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    assert "pictures 36" in ended.stdout and "failed 2" in ended.stdout and "farthest out" in ended.stdout
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command[3:], "--json"])
    said = json.loads(capsys.readouterr().out)
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
        with pytest.raises(SystemExit, match="2"):
            cli.main(["summary", *wrong])
        assert words in capsys.readouterr().err


def test_two_runs_as_json(run: BulkRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["summary", str(run.folder), str(run.folder), "--json", "-o"]
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, str(tmp_path)])
    said = json.loads(capsys.readouterr().out)
    assert Path(said["page"]).exists() and len(said["least_alike"]) <= 20
    assert (said["pictures"], said["same_answer"]) == (36, 1) and said["likeness"] == pytest.approx(1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command, str(tmp_path / "file" / "out")])
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(UsageError, match="cannot be written"):
        write_summary(run, tmp_path / "file")


def test_cells_that_a_spreadsheet_would_run_are_disarmed() -> None:
    rows = [["=1+1", "+1", "-1", "@x", "\tx", "\rx"], ["a=1", -1, 0.5, None, float("nan"), True]]
    read = list(csv.reader(io.StringIO(as_csv(["a"] * 6, rows).decode(), newline="")))
    assert read[1] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx"]
    assert read[2] == ["a=1", "-1", "0.5", "", "", "True"]


def test_names_give_the_terminal_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "a\x1b[2J\x9b2J\u202eb"
    print_summary(make_console(), [("run", bad)], [bad], [OutlierRow(bad, 1.0, 0.5, 0.5, bad)], bad)
    said = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e"} & set(said) and said.count("a\\x1b[2J\\x9b2J\\u202eb") == 5


def test_photos_of_a_tar_file_are_read_by_their_names_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number, name in enumerate(("./b.png", "A.PNG", "c/d.png", "broken.png")):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
            entry = tarfile.TarInfo(name)
            entry.size = len(file.getvalue()) if name != "broken.png" else 5
            tar.addfile(entry, io.BytesIO(file.getvalue()))
    opened: list[Any] = []
    real = tarfile.open
    monkeypatch.setattr(drawn.tarfile, "open", lambda *given: opened.append(given) or real(*given))
    names = ("./b.png", "A.PNG", "c/d.png", "broken.png", "none.png")
    found = dict(photos({name: f"{tmp_path}/shard.tar/{name}" for name in names}))
    assert [None if found[name] is None else int(found[name][0, 0, 0]) for name in names] == [0, 1, 2, None, None]
    assert len(opened) == 1
    assert dict(photos({1: f"{tmp_path}/shard.tar"})) == {1: None}


# The page


@needs_browser
def test_many_findings_are_cut_and_that_is_said(run: BulkRun, browser: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    from seewhy.summary.findings import Finding
    from seewhy.viewer import build_summary

    one = Finding("corner", 0, "top left", np.arange(3), 12, 0.5, 0.1, 1.0, "3 of 12 pictures")
    data = document(replace(summarize(run), findings=[one] * 25))
    assert len(data["findings"]) == 20 and data["unshown"] == "5 more stand in findings.csv."
    data["statistics"][0]["median"] = None  # none is made, but a page is not to break
    (tmp_path / "page.html").write_text(build_summary(data, title="t", model="m"))
    page = Watched(browser, (tmp_path / "page.html").as_uri(), 1280, "light").page
    assert page.locator("#findings").inner_text().endswith("5 more stand in findings.csv.")
    assert page.locator("#classes table").count() == 1 and page.locator(".chart").count() == len(data["statistics"])
    regions = page.locator(".wide[tabindex='0'][role=region][aria-label]")
    assert regions.count() == page.locator(".wide").count() > 0
    assert page.locator("#large").get_attribute("aria-label")
    assert page.locator("#extremes").get_attribute("aria-live") == "polite"
    page.context.close()


@pytest.fixture(scope="module")
def pages(run: BulkRun, home: Path) -> dict[str, str]:
    _, page = write_summary(run)
    other = made(home, "other", gain=0.5, layers=("features.0",))
    return {"summary": page.as_uri(), "compare": write_comparison(run, other)[1].as_uri()}


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
        BulkSettings(layers=("features.0",)),
        Execution(workers=0, batch_size=8),
        quiet=True,
    )
    found, path = write_summary(BulkRun.read(tmp_path / "run"))
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
